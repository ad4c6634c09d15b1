"""Retargeting of a driver's expressions to a portrait: separating the person from the moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.face_model.expression_names import expression_limits, region_of
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.head_points import HeadPoints
from portrait_core.settings import TemplateSettings
from portrait_core.template.lids import LidModel, match_lids
from portrait_core.template.rest import driver_rest, quiet_mouth
from portrait_core.template.visible_change import Person, VisibleChange

Transfer = Literal["absolute", "relative"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Strengths:
    """Strength of each region; 1 copies the driver."""

    mouth: float = 1.0
    """Jaw, lips and tongue."""
    eyes: float = 1.0
    """Lids: blink, squint, wide."""
    brows: float = 1.0
    """Brows, cheeks and nose."""
    gaze: float = 1.0
    """Direction of the eyes."""

    @classmethod
    def of(cls, settings: TemplateSettings) -> Strengths:
        """Read the strengths of the settings."""
        return cls(settings.mouth_gain, settings.eyes_gain, settings.brows_gain, settings.gaze_gain)

    def each(self, names: Sequence[str]) -> Array:
        """Return the strength of each expression ``[E]``."""
        return np.array([getattr(self, region_of(name)) for name in names])


@dataclass(frozen=True)
class Driver:
    """A driver's clip by its track.

    Attributes:
        shape: ``[S]``.
        expression: ``[T,E]``.
        ok: ``[T]``, frames with a face of their own; None means all.
        rest: the expression ``[E]`` that changes are counted from; None finds it in the clip.
        rests_as_portrait: whether the portrait's rest is its expression in its picture, mouth included, since
            the driver's rest is the same face with the same expression.
    """

    shape: NDArray[np.floating]
    expression: NDArray[np.floating]
    ok: NDArray[np.bool_] | None = None
    rest: NDArray[np.floating] | None = None
    rests_as_portrait: bool = False

    def portrait_rest(self, own: Array, names: Sequence[str]) -> Array:
        """Return the portrait's rest ``[E]``, from its own expression ``[E]``."""
        return own if self.rests_as_portrait else quiet_mouth(own, names)


def retarget(
    head: MorphableHead,
    driver: Driver,
    shape: NDArray[np.floating],
    own: NDArray[np.floating],
    transfer: Transfer = "relative",
    strengths: Strengths | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Find expressions of the portrait that follow the driver's.

    ``absolute`` is the paper's: the driver's coefficients as they are. ``relative`` moves landmarks: the
    portrait's leave their rest as the driver's leave theirs
    (:mod:`portrait_core.template.visible_change`), lids come together as the driver's
    (:mod:`portrait_core.template.lids`). The portrait's rest is itself, its mouth without expression, so
    that a mouth that closes in the driver closes in a smiling portrait; with its mouth as it is where the
    driver's rest is the portrait itself.

    Args:
        head: of both; a head without the 478 landmarks transfers coefficients.
        driver: the clip.
        shape: the portrait's ``[S]``.
        own: the portrait's own expression ``[E]``.
        transfer: see above.
        strengths: by region.

    Returns:
        Expressions ``[T,E]`` and jaw rotations ``[T,3]``.

    Raises:
        ValueError: on sizes that do not match, an unknown transfer, or a negative strength.
    """
    strengths = strengths or Strengths()
    names = head.expression_names
    moves, own = _checked(driver.expression, own, names, transfer, strengths)
    if transfer == "absolute":
        expression: NDArray[np.floating] = np.clip(strengths.each(names) * moves, *expression_limits(names))
    else:
        rest = driver_rest(moves, names, driver.ok) if driver.rest is None else np.asarray(driver.rest, float)
        start = driver.portrait_rest(own, names) + strengths.each(names) * (moves - rest)
        start = expression = start.clip(*expression_limits(names))
        if "lmk_faces_idx" in dict(head.named_buffers()):
            expression = _visibly_alike(head, driver, moves, rest, shape, own, start, strengths)
    retargeted = np.asarray(expression, np.float32)
    jaw = head.jaw_from_expression(torch.from_numpy(retargeted)).cpu().numpy()
    return retargeted, np.asarray(jaw)


def _visibly_alike(
    head: MorphableHead,
    driver: Driver,
    moves: Array,
    rest: Array,
    shape: NDArray[np.floating],
    own: Array,
    start: Array,
    strengths: Strengths,
) -> NDArray[np.floating]:
    """Set the lids, then solve for the landmarks' changes, frame by frame, and set the lids once more.

    Lids take the skin around them along, up to the brows, which the rest of the face has to make up for; what
    the rest does to the lids is little.
    """
    points = HeadPoints.from_head(head)
    moved = Person(points.with_shape(np.asarray(driver.shape, float)), rest)
    portrait = Person(points.with_shape(np.asarray(shape, float)), driver.portrait_rest(own, points.names))
    change = VisibleChange(points, moved, portrait, asdict(strengths))
    lids, as_portrait = LidModel.of(head), rest if driver.rests_as_portrait else None

    def with_lids(expression: NDArray[np.floating]) -> NDArray[np.float32]:
        return match_lids(
            lids, driver.shape, moves, shape, own, expression, strengths.eyes, driver.ok, as_portrait
        )

    solved = start
    for _ in range(2):
        begun = with_lids(solved).astype(np.float64)
        solved = np.stack([change.expression(*frame) for frame in zip(moves, begun, strict=True)])
    return with_lids(solved)


def _checked(
    driver: NDArray[np.floating],
    own: NDArray[np.floating],
    names: Sequence[str],
    transfer: str,
    strengths: Strengths,
) -> tuple[Array, Array]:
    moves: Array = np.asarray(driver, np.float64)
    portrait: Array = np.asarray(own, np.float64)
    if moves.ndim != 2 or moves.shape[1] != len(names) or portrait.shape != (len(names),):
        raise ValueError(
            f"driver must be [T,{len(names)}] and portrait [{len(names)}], got {moves.shape} and "
            f"{portrait.shape}; use the fits of one head"
        )
    if transfer not in ("absolute", "relative"):
        raise ValueError(f"transfer is {transfer!r}; set template.transfer to 'absolute' or 'relative'")
    if min(asdict(strengths).values()) < 0:
        raise ValueError(f"strengths must not be negative, got {strengths}; set template.*_gain")
    return moves, portrait
