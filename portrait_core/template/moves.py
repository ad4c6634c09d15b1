"""Moves: the expressions of a portrait's frames, from the tracks of portrait and driver."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.head import MorphableHead
from portrait_core.settings import TemplateSettings
from portrait_core.template.driven_eyes import with_eyes_of
from portrait_core.template.flame_retarget import retarget_codes
from portrait_core.template.rest import told_rest
from portrait_core.template.retarget import Driver, Strengths, retarget
from portrait_core.tracking.array_names import MOUTH
from portrait_core.tracking.fit import FaceTrack
from portrait_core.tracking.mouth_inside import MouthInside

Moves = dict[str, NDArray[np.floating]]
"""Arrays of n frames: ``expression [n,E]``, ``jaw [n,3]``; with DECA and ``template.eyes=driven``, ``eyes``
``[n,F]`` in the embedded head's F expressions; with the embedded head and ``template.mouth_inside=driven``,
``mouth_teeth [n,3]`` and ``mouth_light [n,9,12]``."""

_ALL = slice(None)


def embedded_moves(
    head: MorphableHead,
    source: FaceTrack,
    driver: FaceTrack,
    settings: TemplateSettings,
    own_frame: int | None = None,
) -> Moves:
    """Turn the driver's expressions into the portrait's, both fitted with the embedded head.

    Args:
        head: the embedded head.
        source: the portrait's track, of one frame.
        driver: the driver's track, of T frames.
        settings: which transfer, how strong, and whether the eyes follow.
        own_frame: the driver's frame that shows the portrait itself; None where none does. Changes count from
            it, unless the user calls another frame neutral: in it the portrait keeps its own expression.

    Returns:
        ``expression [T,E]`` and ``jaw [T,3]``, float32.

    Raises:
        InputError: if ``settings.neutral_frame`` is not a frame of the driver with a face.
    """
    own = source.expression[0]
    neutral = own_frame if settings.neutral_frame is None else settings.neutral_frame
    rest = told_rest(driver.expression, driver.ok, neutral)
    alike = own_frame is not None and neutral == own_frame
    clip = Driver(driver.shape, driver.expression, driver.ok, rest, alike)
    expression, jaw = retarget(head, clip, source.shape, own, settings.transfer, Strengths.of(settings))
    if settings.eyes == "paper":
        still = np.broadcast_to(own, expression.shape)
        expression = with_eyes_of(expression, still, head.expression_names)
    return {"expression": np.asarray(expression, np.float32), "jaw": np.asarray(jaw, np.float32)}


def mouth_moves(driver: MouthInside | None, settings: TemplateSettings) -> Moves:
    """Return what the portrait's mouth shows: the driver's, as far as its lips follow.

    Args:
        driver: of T frames; None where it was not read.
        settings: whether teeth and tongue follow, and how strongly the mouth does.

    Returns:
        ``mouth_teeth [T,3]`` and ``mouth_light [T,9,12]``; nothing where the lips alone tell.
    """
    if driver is None or settings.mouth_inside == "lips":
        return {}
    teeth = driver.teeth.copy()
    teeth[:, 2] *= min(settings.mouth_gain, 1.0)
    return dict(zip(MOUTH, (teeth, driver.light), strict=True))


def mouth_of(moves: Moves, frames: NDArray[np.intp] | slice = _ALL) -> MouthInside | None:
    """Return what the mouth shows in ``frames`` of moves; None where the lips alone tell."""
    if not all(name in moves for name in MOUTH):
        return None
    return MouthInside(*(np.asarray(moves[name][frames], np.float32) for name in MOUTH))


def flame_moves(source: FaceTrack, driver: FaceTrack, settings: TemplateSettings) -> Moves:
    """Turn the driver's expressions into the portrait's, both tracked by DECA.

    Returns:
        ``expression [T,50]`` and ``jaw [T,3]``; FLAME has no eyes to move
        (:func:`portrait_core.template.driven_eyes.eyes_of_driver`).

    Raises:
        InputError: if ``settings.neutral_frame`` is not a frame of the driver with a face.
    """
    rest = told_rest(driver.expression, driver.ok, settings.neutral_frame)
    expression, jaw = retarget_codes(
        driver.expression,
        driver.jaw,
        source.expression[0],
        driver.ok,
        settings.transfer,
        settings.mouth_gain,
        rest,
    )
    return {"expression": expression, "jaw": jaw}


def own_moves(source: FaceTrack) -> Moves:
    """Return one frame in which the portrait keeps its own expression: an edit's moves."""
    return {name: np.asarray(getattr(source, name), np.float32) for name in ("expression", "jaw")}
