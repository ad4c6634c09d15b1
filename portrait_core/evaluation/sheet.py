"""A sheet of some clips: a row per method, as the paper's figure 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from portrait_core.report.pictures import Picture, contact_sheet

PAIRS, FRAMES, TILE_PX = 4, 3, 160
"""Pairs on a sheet at most, frames of each clip, and side of each picture in pixels."""
Strip = NDArray[np.uint8]
"""Pictures ``[1 + FRAMES,TILE_PX,TILE_PX,3]``: the portrait, then frames of a clip."""
_ABSENT = 235
"""Grey level of a picture that is missing."""


def shown_frames(count: int) -> list[int]:
    """Return the frames of a clip of ``count`` frames that are shown: evenly spread, without the ends."""
    return [int(count * (i + 0.5) / FRAMES) for i in range(FRAMES)]


def comparison_sheet(drivers: Mapping[int, Strip], strips: Mapping[str, Mapping[int, Strip]]) -> Picture:
    """Draw the drivers' frames and below them those of every method.

    Args:
        drivers: the portrait and frames of the driver, by the number of the pair; they are at most
            :data:`PAIRS`.
        strips: by method and pair; a pair that a method lacks is left grey.

    Returns:
        ``[H,W,3]`` uint8.

    Raises:
        ValueError: there is no pair.
    """
    pairs = sorted(drivers)
    absent = np.full((1 + FRAMES, TILE_PX, TILE_PX, 3), _ABSENT, np.uint8)
    rows = {"driver": _row([drivers[pair] for pair in pairs])}
    rows |= {method: _row([found.get(pair, absent) for pair in pairs]) for method, found in strips.items()}
    titles = [title for pair in pairs for title in (f"portrait {pair}", *["frame"] * FRAMES)]
    return contact_sheet(rows, titles, TILE_PX)


def _row(strips: Sequence[Strip]) -> list[Picture]:
    return [np.asarray(picture) for strip in strips for picture in strip]
