"""Finding the line between a photograph's closed lips.

Landmarks leave a gap between closed lips, and lie up to a tenth of the mouth's width beside the visible line.
A mouth that opens beside its own line keeps a dark stripe on one lip, so the line is searched in the
photograph.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from portrait_core.face_model.contours import Opening

Array = NDArray[Any]


@dataclass(frozen=True)
class _Search:
    """Extent and limits of the search for the line; lengths in mouth widths."""

    beyond: float = 0.10
    """Reach of the search beyond the corners."""
    reach: float = 0.20
    """Reach of the search above and below the landmarks' middle."""
    lip: float = 0.05
    """Distance at which lips on both sides of the line are compared with it."""
    closed_gap: float = 0.03
    """Mean gap of landmarks below which lips are closed."""
    parted_gap: float = 0.20
    """Mean gap of landmarks above which lips are parted."""
    seen_gap: float = 0.035
    """Mean height of pixels like neither lip, above which lips with a gap between these two are parted."""
    clear: float = 0.025
    """Smallest darkness of the line against the lips, over their luminance."""
    columns: int = 73
    rows: int = 81
    """Samples along and across the mouth."""
    dark_lip: float = 0.62
    bright_lip: float = 1.12
    """Luminances over the lip's between which a pixel is like a lip."""
    lip_rows: tuple[float, ...] = (0.03, 0.06, 0.09, 0.12)
    """Distances below the opening at which the lower lip's luminance is measured."""
    off_middle: float = 0.10
    """Darkness that the line must have more at the ends of the reach than at its middle."""
    smooth: float = 1.5
    """Deviation of the smoothing along the line, in columns."""
    ends: float = 0.4
    """Darkness down to which the line goes on beyond the corners, over its mean."""
    climb: float = 0.02
    max_climb: int = 2
    """Darkness that a path loses per row that it climbs between two columns, and the most rows."""


_SEARCH = _Search()


def is_closed(photo: Array, mouth: Opening) -> bool:
    """Tell whether the photograph's lips meet.

    Args:
        photo: ``[W,W,3]`` float32, 0..255.
        mouth: the inner lips' landmarks in it.
    """
    gap = mouth.mean_gap / mouth.width
    if gap < _SEARCH.closed_gap or gap > _SEARCH.parted_gap:
        return gap < _SEARCH.closed_gap
    along = np.linspace(0.25, 0.75, 25, dtype=np.float32)
    upper, lower = mouth.edges(along)
    share = np.linspace(0.0, 1.0, 21, dtype=np.float32)[:, None]
    seen = _luminance(photo, mouth, along, upper + share * (lower - upper))
    # the lower lip: of the upper one, which may be thin, landmarks may miss all
    below = np.array(_SEARCH.lip_rows, np.float32)[:, None] * mouth.width
    lip = np.median(_luminance(photo, mouth, along, lower + below))
    other = ((seen < _SEARCH.dark_lip * lip) | (seen > _SEARCH.bright_lip * lip)).mean(0) * (lower - upper)
    return float(other.mean()) < _SEARCH.seen_gap * mouth.width


def without_gap(mouth: Opening) -> Opening:
    """Return an opening of no height along the middle of another one."""
    middle = (mouth.upper + mouth.lower) / 2
    return replace(mouth, upper=middle, lower=middle)


def closed_lips(photo: Array, mouth: Opening) -> Opening:
    """Find the opening of closed lips, which has no height.

    It lies on the photograph's line where that is clear, else on the landmarks' middle.

    Args:
        photo: ``[W,W,3]`` float32, 0..255.
        mouth: the inner lips' landmarks in it.
    """
    along = np.linspace(-_SEARCH.beyond, 1.0 + _SEARCH.beyond, _SEARCH.columns, dtype=np.float32)
    offset = np.linspace(-_SEARCH.reach, _SEARCH.reach, _SEARCH.rows, dtype=np.float32)[:, None]
    upper, lower = mouth.edges(along)
    seen = _luminance(photo, mouth, along, (upper + lower) / 2 + offset * mouth.width)
    lip = max(1, round(_SEARCH.lip / (offset[1, 0] - offset[0, 0])))
    padded = np.pad(seen, ((lip, lip), (0, 0)), mode="edge")
    darkness = (np.minimum(padded[: -2 * lip], padded[2 * lip :]) - seen) / max(float(np.median(seen)), 1.0)
    row = smoothest_path(darkness - _SEARCH.off_middle * np.square(offset / _SEARCH.reach))
    strength = gaussian_filter1d(darkness[row, np.arange(len(along))], _SEARCH.smooth)
    core = strength[(along > 0.2) & (along < 0.8)]
    if float(core.mean()) < _SEARCH.clear or float(np.median(core)) < _SEARCH.clear:
        return without_gap(mouth)
    line = (upper + lower) / 2 + gaussian_filter1d(offset[row, 0], _SEARCH.smooth) * mouth.width
    first, last = _ends(strength > _SEARCH.ends * float(core.mean()), along)
    x, y = mouth.position(along[first : last + 1], line[first : last + 1])
    points = np.stack([x, y], 1)
    return Opening.from_points(points, points)


def _ends(clear: Array, along: Array) -> tuple[int, int]:
    """Return first and last column of a line that goes on beyond the landmarks' corners while it is clear."""
    first, last = int(np.searchsorted(along, 0.0)), int(np.searchsorted(along, 1.0, side="right")) - 1
    while first > 0 and clear[first - 1]:
        first -= 1
    while last < len(along) - 1 and clear[last + 1]:
        last += 1
    return first, last


def _luminance(photo: Array, mouth: Opening, along: Array, height: Array) -> Array:
    x, y = mouth.position(np.broadcast_to(along, height.shape), height)
    low = int(np.clip(y.min() - 8, 0, len(photo) - 1))
    high = int(np.clip(y.max() + 9, low + 1, len(photo)))
    soft = cv2.GaussianBlur(photo[low:high].mean(-1), (0, 0), 0.5 + 0.008 * mouth.width)
    return np.asarray(
        cv2.remap(soft, x - 0.5, y - low - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )


def smoothest_path(gain: Array) -> NDArray[np.intp]:
    """Find the path through the columns of ``gain [m,n]`` with the largest sum, by dynamic programming.

    Every row that the path climbs between columns has a price.

    Returns:
        The path's row in every column ``[n]``.
    """
    rows, columns = gain.shape
    most = _SEARCH.max_climb
    step = np.arange(-most, most + 1)
    price = _SEARCH.climb * np.abs(step)
    total, back = gain[:, 0].copy(), np.zeros((columns, rows), np.intp)
    for column in range(1, columns):
        before = np.pad(total, most, constant_values=-np.inf)
        choice = np.stack([before[most + s : most + s + rows] - p for s, p in zip(step, price, strict=True)])
        best = choice.argmax(0)
        back[column] = np.arange(rows) + step[best]
        total = gain[:, column] + choice.max(0)
    path = np.zeros(columns, np.intp)
    path[-1] = int(total.argmax())
    for column in range(columns - 1, 0, -1):
        path[column - 1] = back[column, path[column]]
    return path
