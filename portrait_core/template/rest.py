"""A driver's rest, and a mouth without its expression: the person without the moment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import InputError
from portrait_core.face_model.expression_names import PREFIX, is_direction, region_of

_NEUTRAL_SHARE = 0.1
"""Share of a clip's frames, the most neutral ones, that the rest is the mean of."""
_OPEN_EYES_PERCENTILE = 25
"""Percentile of the blinks that counts as open eyes: a driver may keep the eyes shut for long."""
_OWN = dict.fromkeys(("mouthPucker", "mouthFunnel", "mouthRoll", "mouthShrug"), (0.5, 0.8))
_OWN_ELSEWHERE = 0.1, 0.3
"""Coefficients of mouth blendshapes up to which they may be the person's own (a small mouth looks like one
that puckers a little, thin lips like rolled ones), and from which on they are expression; by the beginnings
of names, and for all others."""
_TELLING = ("mouthSmile", "jawOpen", "mouthUpperUp", "mouthLowerDown", "mouthFrown")
"""Blendshapes that a mouth at rest does not show, by the beginnings of their names."""
_ACTING, _ACTS = 0.3, 0.6
"""Largest telling coefficient up to which a mouth is at rest, and from which on it surely is not."""
_SMILING, _SMILES = 0.1, 0.3
"""Smile up to which a mouth does not smile, and from which on it surely does."""
_SMILE_IN_SHAPE = {"RightUp": -0.28, "LeftUp": -0.28, "RightAcross": 0.25, "LeftAcross": -0.25}
"""Directions of the mouth's corners that undo what the shape has of a smile when it is fitted to a smiling
picture alone: a width of .055 and a lift of .03 of the eyes' distance, as measured on three people whose rest
is known."""
_WITH_CORNERS = {
    "LipCorner": 1.0,
    "LipCornerEdge": 1.0,
    "UpperLipEdgeSide": 0.8,
    "LowerLipEdgeSide": 0.8,
    "UpperLipSide": 0.5,
}
"""Handles that go with the corners, each with its share of their motion."""
_UNDOING_SMILES = {
    f"{PREFIX}{handle}{side}{axis}": share * _SMILE_IN_SHAPE[side + axis]
    for handle, share in _WITH_CORNERS.items()
    for side in ("Right", "Left")
    for axis in ("Across", "Up")
}
"""Motions of all these handles that undo a smile, by the directions' names."""
_DIRECTION_SHARE = 0.25
"""Weight of directions, some of which are the person's, in the unrest of a frame."""


def told_rest(
    expression: NDArray[np.floating], ok: NDArray[np.bool_], frame: int | None
) -> NDArray[np.floating] | None:
    """Return a driver's expression in the frame that the user calls neutral.

    Args:
        expression: the driver's ``[T,E]``.
        ok: ``[T]``, frames with a face.
        frame: counted from 0; None where the user names none.

    Returns:
        ``[E]``, or None.

    Raises:
        InputError: if it is not a frame of the driver with a face.
    """
    if frame is None:
        return None
    if frame < len(ok) and ok[frame]:
        return expression[frame]
    there = f"the driving video has frames 0 to {len(ok) - 1}"
    what = "no face was found in it" if frame < len(ok) else there
    raise InputError(
        f"--neutral-frame {frame} (template.neutral_frame): {what}; name a frame in which the driver's "
        "face is at rest"
    )


def driver_rest(
    driver: NDArray[np.floating], names: Sequence[str], ok: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Find a driver's rest ``[E]`` in a clip.

    Mouth and brows have theirs where they do least: the mean of the tenth of the frames in which they are
    nearest to a mean person's at rest. What is still expression on the mouth then is taken off
    (:func:`quiet_mouth`). Gaze rests at its median, lids are open.

    Args:
        driver: expressions ``[T,E]``.
        names: of the E expressions.
        ok: ``[T]``, frames that count.
    """
    used = np.asarray(driver, np.float64)
    if ok is not None and np.any(ok):
        used = used[np.asarray(ok, bool)]
    rest = np.median(used, axis=0)
    places = np.array([region_of(name) for name in names])
    free = np.array([is_direction(name) for name in names])
    for region in ("mouth", "brows"):
        own = places == region
        unrest = (used[:, own] ** 2 * np.where(free[own], _DIRECTION_SHARE, 1.0)).sum(1)
        quiet = np.argsort(unrest, kind="stable")[: max(1, round(_NEUTRAL_SHARE * len(used)))]
        rest[own] = used[quiet][:, own].mean(0)
    blinks = [i for i, name in enumerate(names) if name.startswith("eyeBlink")]
    rest[blinks] = np.percentile(used[:, blinks], _OPEN_EYES_PERCENTILE, axis=0)
    return quiet_mouth(rest, names)


def quiet_mouth(expression: NDArray[np.floating], names: Sequence[str]) -> NDArray[np.float64]:
    """Take the expression off a mouth.

    Of its units only the little stays that may be the person's own. Its directions are the person's own
    where the mouth does nothing; the more it smiles or opens, the less of them is, and what the shape has of
    a smile is taken off by them.

    Args:
        expression: ``[E]``.
        names: of the E expressions.

    Returns:
        ``[E]``.
    """
    rest = np.array(expression, np.float64)
    telling = [i for i, name in enumerate(names) if name.startswith(_TELLING)]
    smile = [i for i, name in enumerate(names) if name.startswith("mouthSmile")]
    acts = float(np.clip((rest[telling].max(initial=0.0) - _ACTING) / (_ACTS - _ACTING), 0.0, 1.0))
    smiles = acts * float(np.clip((rest[smile].max(initial=0.0) - _SMILING) / (_SMILES - _SMILING), 0.0, 1.0))
    for i, name in enumerate(names):
        if region_of(name) != "mouth":
            continue
        if is_direction(name):
            rest[i] *= 1.0 - acts
            rest[i] += smiles * _UNDOING_SMILES.get(name, 0.0)
        else:
            own, sure = next((v for start, v in _OWN.items() if name.startswith(start)), _OWN_ELSEWHERE)
            rest[i] *= np.clip((sure - rest[i]) / (sure - own), 0.0, 1.0)
    return rest
