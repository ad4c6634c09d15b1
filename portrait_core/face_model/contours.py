"""An opening of the face (an eye, the mouth) as two curves over the chord between its corners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Array = NDArray[Any]
N_EDGE = 65
"""Even steps from corner to corner at which the heights of edges are kept."""
MIDDLE_HALF = slice(16, 49)
"""Those of the steps that lie in the middle half."""
_SAMPLES = np.linspace(0.0, 1.0, N_EDGE)
_MIN_WIDTH = 1e-3
"""Smallest length of a chord, in pixels."""


@dataclass(frozen=True)
class LocalPixels:
    """Pixels in the coordinates of an opening; every array is ``[h,w]``, lengths are in pixels."""

    along: Array
    """Position along the chord, 0..1 between the corners."""
    height: Array
    """Height below the chord."""
    upper: Array
    """Height of the upper edge at the same position."""
    lower: Array
    """Height of the lower edge at the same position."""
    width: float
    """Length of the chord."""
    axis: Array
    """Unit vector along the chord ``[2]``."""

    @property
    def below_upper(self) -> Array:
        """Distance below the upper edge; negative above it."""
        return np.asarray(self.height - self.upper)

    @property
    def above_lower(self) -> Array:
        """Distance above the lower edge; negative below it."""
        return np.asarray(self.lower - self.height)

    @property
    def gap(self) -> Array:
        """Height of the opening."""
        return np.asarray(self.lower - self.upper)

    @property
    def to_corner(self) -> Array:
        """Distance to the nearer corner along the chord, over its length; negative beyond the corners."""
        return np.asarray(np.minimum(self.along, 1.0 - self.along))

    def coverage(self, soft_px: float = 1.0) -> Array:
        """Return the part of each pixel that lies in the opening, 0..1, with an edge ``soft_px`` wide."""
        inside = np.minimum(self.below_upper / soft_px + 0.5, self.above_lower / soft_px + 0.5)
        ends = self.to_corner * self.width / soft_px + 0.5
        thin = np.clip(self.gap / soft_px, 0.0, 1.0)  # a gap thinner than a pixel fills part of it
        return np.clip(np.minimum(inside, ends), 0.0, 1.0) * thin


@dataclass(frozen=True)
class Opening:
    """Two edges over a chord. Lengths are in pixels of the image that the points belong to."""

    origin: Array
    """The corner at the image's left, ``[2]``."""
    axis: Array
    """Unit vector along the chord ``[2]``; the perpendicular points down the face."""
    width: float
    """Length of the chord."""
    upper: Array
    """Height of the upper edge below the chord (negative above it) at 65 even steps ``[65]``."""
    lower: Array
    """Height of the lower edge below the chord at the same steps ``[65]``, never above ``upper``."""

    @classmethod
    def from_points(cls, upper: NDArray[np.floating], lower: NDArray[np.floating]) -> Opening:
        """Build an opening from the points of both edges ``[n,2]`` and ``[m,2]``, corner to corner."""
        start, chord = np.asarray(upper[0]), np.asarray(upper[-1]) - np.asarray(upper[0])
        width = max(float(np.linalg.norm(chord)), _MIN_WIDTH)
        axis = chord / width
        edges = [_resample((np.asarray(p) - start) @ _frame(axis).T / [width, 1.0]) for p in (upper, lower)]
        return cls(
            start.astype(np.float32), axis.astype(np.float32), width, edges[0], np.maximum(edges[1], edges[0])
        )

    @property
    def gap(self) -> Array:
        """Height of the opening at the 65 steps ``[65]``, at least 0."""
        return np.maximum(self.lower - self.upper, 0.0)

    @property
    def mean_gap(self) -> float:
        """Mean height of the opening over its middle half."""
        return float(self.gap[MIDDLE_HALF].mean())

    def with_gap(self, gap: Array, lower_share: float) -> Opening:
        """Return the opening with another height ``gap [65]``.

        The lower edge takes ``lower_share`` of the change, the upper one the rest.
        """
        change = gap - self.gap
        upper = self.upper - (1.0 - lower_share) * change
        return Opening(self.origin, self.axis, self.width, upper, np.maximum(upper + gap, upper))

    def local(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return pixel positions as position along the chord (0..1 between corners) and height below it."""
        dx, dy = x - self.origin[0], y - self.origin[1]
        along = (dx * self.axis[0] + dy * self.axis[1]) / self.width
        return along.astype(np.float32), (dy * self.axis[0] - dx * self.axis[1]).astype(np.float32)

    def position(self, along: Array, height: Array) -> tuple[Array, Array]:
        """Return pixel positions ``(x, y)``: the inverse of :meth:`local`."""
        run = along * self.width
        x = self.origin[0] + run * self.axis[0] - height * self.axis[1]
        y = self.origin[1] + run * self.axis[1] + height * self.axis[0]
        return x.astype(np.float32), y.astype(np.float32)

    def edges(self, along: Array) -> tuple[Array, Array]:
        """Return the heights of both edges at positions along the chord, clamped to the corners."""
        upper = np.interp(along, _SAMPLES, self.upper)
        return upper.astype(np.float32), np.interp(along, _SAMPLES, self.lower).astype(np.float32)

    def coverage(self, x: Array, y: Array, soft_px: float = 1.0) -> Array:
        """Return the part of each pixel that lies in the opening, 0..1, with an edge ``soft_px`` wide."""
        return self.pixels(x, y).coverage(soft_px)

    def pixels(self, x: Array, y: Array) -> LocalPixels:
        """Return pixel positions ``[h,w]`` in the opening's coordinates, with its edges there."""
        along, height = self.local(x, y)
        return LocalPixels(along, height, *self.edges(along), self.width, self.axis)


def _frame(axis: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.array([[axis[0], axis[1]], [-axis[1], axis[0]]])


def _resample(points: NDArray[np.floating]) -> Array:
    """Return the heights ``[65]`` of a curve through points ``(along, height)`` that does not overshoot."""
    order = np.argsort(points[:, 0], kind="stable")
    along, height = points[order, 0], points[order, 1]
    keep = np.concatenate([[True], np.diff(along) > 1e-4])
    if keep.sum() < 2:
        return np.zeros(len(_SAMPLES), dtype=np.float32)
    curve = PchipInterpolator(along[keep], height[keep], extrapolate=False)
    value = curve(np.clip(_SAMPLES, along[keep][0], along[keep][-1]))
    return np.asarray(value, dtype=np.float32)


def pixel_grid(box: tuple[int, int, int, int]) -> tuple[Array, Array]:
    """Return the pixel centres ``(x, y)``, each ``[h,w]``, of a window ``(x0, y0, x1, y1)``."""
    x0, y0, x1, y1 = box
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    return x + 0.5, y + 0.5


def window(points: NDArray[np.floating], margin: float, size: int) -> tuple[int, int, int, int]:
    """Return the window ``(x0, y0, x1, y1)`` around points ``[n,2]``, ``margin`` pixels wider on every side.

    Args:
        points: in pixels.
        margin: in pixels.
        size: side of the image that the window stays inside of.
    """
    low = np.floor(points.min(0) - margin).astype(int)
    high = np.ceil(points.max(0) + margin).astype(int)
    low, high = np.clip(low, 0, size - 1), np.clip(high, 1, size)
    return int(low[0]), int(low[1]), int(max(high[0], low[0] + 1)), int(max(high[1], low[1] + 1))
