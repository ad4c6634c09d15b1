"""What is the person and what the moment: a driver's rest, and a mouth without its expression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from portrait_core.faces.directions import is_direction
from portrait_core.faces.expression_names import region_of

_NEUTRAL_SHARE = 0.1
"""Share of a clip's frames, the most neutral ones, that the rest is the mean of."""
_OPEN_EYES_PERCENTILE = 25
"""Of the blinks: a driver may keep the eyes shut for long."""
_MOUTH_NOISE, _JAW_NOISE = 0.2, 0.1
"""Coefficients of mouth units up to which a mouth at rest is the person's own; more is expression."""


def driver_rest(
    driver: NDArray[np.floating], names: Sequence[str], ok: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Find a driver's rest ``[E]`` in a clip.

    Mouth and brows have theirs where they do least: the mean of the tenth of the frames in which the units of
    the region are smallest and its directions nearest to their median. What is left of mouth units there is
    taken for the person's only up to a little (:func:`quiet_mouth`). Gaze rests at its median, lids are open.

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
        unrest = (used[:, own & ~free] ** 2).sum(1) + ((used - rest)[:, own & free] ** 2).sum(1)
        quiet = np.argsort(unrest, kind="stable")[: max(1, round(_NEUTRAL_SHARE * len(used)))]
        rest[own] = used[quiet][:, own].mean(0)
    blinks = [i for i, name in enumerate(names) if name.startswith("eyeBlink")]
    rest[blinks] = np.percentile(used[:, blinks], _OPEN_EYES_PERCENTILE, axis=0)
    return quiet_mouth(rest, names)


def quiet_mouth(expression: NDArray[np.floating], names: Sequence[str]) -> NDArray[np.float64]:
    """Take the expression off a mouth: its units are held at the little that may be the person's own.

    Args:
        expression: ``[E]``.
        names: of the E expressions.

    Returns:
        ``[E]``.
    """
    most = np.full(len(names), np.inf)
    for i, name in enumerate(names):
        if region_of(name) == "mouth" and not is_direction(name):
            most[i] = _JAW_NOISE if name == "jawOpen" else _MOUTH_NOISE
    return np.minimum(np.asarray(expression, np.float64), most)
