"""From a driver's expressions to a portrait's: which part of a coefficient is the person, which the moment.

Coefficients are the head's named units, 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.config import TemplateSettings
from portrait_core.faces.head import MorphableHead

Transfer = Literal["absolute", "relative"]
_OPENING_UNITS = ("jaw", "mouth", "tongue")
# per eye: the two corners, then pairs of an upper and a lower lid point
_LID_POINTS = (33, 133, 159, 145, 158, 153, 160, 144, 362, 263, 386, 374, 385, 380, 387, 373)
_WIDEST_JAW = 1.2
"""The jaw may drop beyond the unit's end, which is 27 degrees: a gain must not level the widest mouths."""
_MOST_JAW_REST = 0.1
"""At most so much of a driver's ``jawOpen`` counts as a closed mouth: some drivers never close theirs."""
_LID_NOISE = 0.08
_LID_SHUT = 0.85
"""Shares of closing below which an eye counts as open, and above which it counts as shut."""


@dataclass(frozen=True)
class RetargetGains:
    """Strength of each region; 1 copies the driver."""

    mouth: float = 1.0
    """Jaw, lips and tongue."""
    eyes: float = 1.0
    """Lids: blink, squint, wide."""
    brows: float = 1.0
    """Brows, cheeks and nose."""
    gaze: float = 1.0
    """Direction of the eyes."""
    jaw: float = 1.15
    """Further strength of ``jawOpen``: landmark detectors read painted mouths smaller than filmed ones."""

    @classmethod
    def of(cls, settings: TemplateSettings) -> RetargetGains:
        """Give the strengths that the settings say."""
        return cls(
            mouth=settings.mouth_gain,
            eyes=settings.eyes_gain,
            brows=settings.brows_gain,
            gaze=settings.gaze_gain,
            jaw=settings.jaw_gain,
        )


def region_of(name: str) -> str:
    """``mouth``, ``eyes``, ``brows`` or ``gaze``: the region of a unit such as ``"eyeBlinkLeft"``."""
    if name.startswith("eyeLook"):
        return "gaze"
    if name.startswith(_OPENING_UNITS):
        return "mouth"
    return "eyes" if name.startswith("eye") else "brows"


def retarget(
    driver: NDArray[np.floating],
    portrait: NDArray[np.floating],
    names: Sequence[str],
    transfer: Transfer = "relative",
    gains: RetargetGains | None = None,
    neutral: NDArray[np.floating] | None = None,
    ok: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Expressions for the portrait that follow the driver's.

    ``absolute`` is the paper's: the driver's coefficients as they are. ``relative`` keeps the portrait's own
    rest in brows, cheeks, lids and gaze and adds the driver's departure from the driver's rest; lips stay
    absolute and the jaw opens from the driver's closed mouth, so that a closed mouth closes.
    :func:`match_lids` then makes blinks exact.

    Args:
        driver: ``[T,E]``, 0..1.
        portrait: ``[E]``, the portrait's own fit.
        names: the ``E`` unit names.
        transfer: see above.
        gains: strength by region.
        neutral: ``[E]``, the driver's rest; by default the median over frames.
        ok: ``[T]``, frames that count for the median.

    Returns:
        ``[T,E]`` in 0..1, ``jawOpen`` in 0..1.2.

    Raises:
        ValueError: on sizes that do not match, an unknown transfer, or a negative gain.
    """
    driver = np.asarray(driver, np.float64)
    portrait = np.asarray(portrait, np.float64)
    if driver.ndim != 2 or driver.shape[1] != len(names) or portrait.shape != (len(names),):
        raise ValueError(
            f"driver must be [T,{len(names)}] and portrait [{len(names)}], got {driver.shape} and "
            f"{portrait.shape}; use the fits of one head"
        )
    if transfer not in ("absolute", "relative"):
        raise ValueError(f"transfer is {transfer!r}; set template.transfer to 'absolute' or 'relative'")
    gains = gains or RetargetGains()
    gain = np.array([getattr(gains, region_of(name)) for name in names])
    most = np.ones(len(names))
    if "jawOpen" in names:
        gain[list(names).index("jawOpen")] *= gains.jaw
        most[list(names).index("jawOpen")] = _WIDEST_JAW
    if (gain < 0).any():
        raise ValueError(f"gains must not be negative, got {gains}; set template.*_gain")
    if transfer == "absolute":
        return np.clip(driver * gain, 0.0, most).astype(np.float32)
    rest = np.asarray(neutral, float) if neutral is not None else driver_rest(driver, names, ok)
    moved = portrait + gain * (driver - rest)
    lips = driver.copy()
    if "jawOpen" in names:
        lips[:, list(names).index("jawOpen")] -= rest[list(names).index("jawOpen")]
    out = np.where([region_of(name) == "mouth" for name in names], gain * lips, moved)
    return np.clip(out, 0.0, most).astype(np.float32)


def driver_rest(
    driver: NDArray[np.floating], names: Sequence[str], ok: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """The driver's rest ``[E]``: the median over good frames; of blinks the lower quarter, since a driver
    may keep the eyes shut for long; of the jaw the lower tenth, which is a closed mouth."""
    used = np.asarray(driver, np.float64)
    if ok is not None and np.any(ok):
        used = used[np.asarray(ok, bool)]
    rest = np.median(used, axis=0)
    for index, name in enumerate(names):
        if name.startswith("eyeBlink"):
            rest[index] = np.percentile(used[:, index], 25)
        elif name == "jawOpen":
            rest[index] = min(np.percentile(used[:, index], 10), _MOST_JAW_REST)
    return np.asarray(rest)


@dataclass(frozen=True)
class LidModel:
    """How far the eyes of a head are open, as a function of its codes; opening over eye width."""

    mean: NDArray[np.float64]
    basis: NDArray[np.float64]
    names: tuple[str, ...]

    @classmethod
    def of(cls, head: MorphableHead) -> LidModel:
        """Take what is needed from a head with 478 landmarks."""
        mean, basis = head.landmark_basis(_LID_POINTS)
        return cls(mean, basis, tuple(head.expression_names))

    def opening(self, shape: NDArray[np.floating], expression: NDArray[np.floating]) -> NDArray[np.float64]:
        """Openings ``[T,2]`` (right, left eye) of one shape ``[S]`` with expressions ``[T,E]``."""
        n_shape = self.basis.shape[-1] - len(self.names)
        rest = self.mean + self.basis[..., :n_shape] @ np.asarray(shape, float)
        points = rest + np.einsum("nck,tk->tnc", self.basis[..., n_shape:], np.asarray(expression, float))
        eye = points.reshape(len(points), 2, -1, 3)  # right, left
        width = np.linalg.norm(eye[:, :, 0] - eye[:, :, 1], axis=-1)
        upper, lower = eye[:, :, 2::2], eye[:, :, 3::2]
        # signed, so that lids which squint and blink at once count as more than shut, not as open again
        return np.asarray((upper - lower)[..., 1].mean(-1) / width)

    def shut(self, shape: NDArray[np.floating]) -> NDArray[np.float64]:
        """Openings ``[2]`` with both lids shut: not 0, because landmarks lie on lids of some thickness."""
        rest = np.zeros((1, len(self.names)))
        return np.asarray(self.opening(shape, self._with_blink(rest, np.ones((1, 2))))[0])

    def _with_blink(
        self, expression: NDArray[np.floating], blink: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        out = np.array(expression, float)
        for column, side in enumerate(("Right", "Left")):
            out[:, self.names.index(f"eyeBlink{side}")] = blink[:, column]
        return out

    def close_to(
        self, shape: NDArray[np.floating], expression: NDArray[np.floating], target: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Expressions whose blinks are set so that the openings are ``target [T,2]``, by bisection."""
        low, high = np.zeros_like(target, dtype=float), np.ones_like(target, dtype=float)
        for _ in range(20):
            middle = (low + high) / 2
            wide = self.opening(shape, self._with_blink(expression, middle)) > target
            low, high = np.where(wide, middle, low), np.where(wide, high, middle)
        return self._with_blink(expression, high)


def match_lids(
    lids: LidModel,
    driver_shape: NDArray[np.floating],
    driver: NDArray[np.floating],
    portrait_shape: NDArray[np.floating],
    portrait: NDArray[np.floating],
    retargeted: NDArray[np.floating],
    gain: float = 1.0,
    ok: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Set the portrait's blinks so that its eyes are shut by the same share as the driver's.

    Coefficients of two people do not compare: narrow eyes need less of ``eyeBlink`` to shut, and a fit may
    put part of a blink into squint or gaze. Lid distances do.

    Args:
        lids: the head's lid model.
        driver_shape, portrait_shape: ``[S]``.
        driver, retargeted: expressions ``[T,E]``.
        portrait: the portrait's own expression ``[E]``.
        gain: strength; 1 copies the driver.
        ok: ``[T]``, frames that count for the driver's open eye.

    Returns:
        ``retargeted`` with other blinks, ``[T,E]``.
    """
    driver = np.asarray(driver, float)
    used = driver[np.asarray(ok, bool)] if ok is not None and np.any(ok) else driver
    opened = np.percentile(lids.opening(driver_shape, used), 60, axis=0)
    shut = lids.shut(driver_shape)
    closed = (opened - lids.opening(driver_shape, driver)) / np.maximum(opened - shut, 0.05)
    # small departures are the fit's noise and the driver's own squint; the last part of a blink is a blink
    share = np.clip(gain * (closed - _LID_NOISE) / (_LID_SHUT - _LID_NOISE), 0.0, 1.0)
    own = lids.opening(portrait_shape, np.asarray(portrait)[None])
    own_shut = lids.shut(portrait_shape)
    still = np.array(retargeted, float)
    wide = np.maximum(lids.opening(portrait_shape, _without_blinks(still, lids.names)), own)
    opening = np.where(share > 0, own, np.minimum(wide, own * (1.0 + np.maximum(-closed, 0.0))))
    target = opening - share * (opening - own_shut)
    return lids.close_to(portrait_shape, still, target).astype(np.float32)


def _without_blinks(expression: NDArray[np.floating], names: Sequence[str]) -> NDArray[np.float64]:
    out = np.array(expression, float)
    for side in ("Left", "Right"):
        out[:, list(names).index(f"eyeBlink{side}")] = 0.0
    return out


def retarget_clip(
    head: MorphableHead,
    driver_shape: NDArray[np.floating],
    driver: NDArray[np.floating],
    portrait_shape: NDArray[np.floating],
    portrait: NDArray[np.floating],
    transfer: Transfer = "relative",
    gains: RetargetGains | None = None,
    ok: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """:func:`retarget`, then :func:`match_lids` unless the transfer is absolute, then the jaw.

    Returns:
        Expressions ``[T,E]`` and jaw rotations ``[T,3]``.
    """
    gains = gains or RetargetGains()
    expression = retarget(driver, portrait, head.expression_names, transfer, gains, ok=ok)
    if transfer == "relative" and "lmk_faces_idx" in dict(head.named_buffers()):
        lids = LidModel.of(head)
        expression = match_lids(
            lids, driver_shape, driver, portrait_shape, portrait, expression, gains.eyes, ok
        )
    jaw = head.jaw_from_expression(torch.from_numpy(expression)).cpu().numpy()
    return expression, np.asarray(jaw)
