"""An opening of the face (an eye, the mouth) as two curves over the chord between its corners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Array = NDArray[Any]
_SAMPLES = np.linspace(0.0, 1.0, 65)


@dataclass(frozen=True)
class Opening:
    """Two edges over a chord. Lengths are in pixels of whatever image the points were given in."""

    origin: Array
    """The corner at the image's left, ``[2]``."""
    axis: Array
    """Unit vector along the chord, ``[2]``; the perpendicular points down the face."""
    width: float
    """Length of the chord."""
    upper: Array
    """Height of the upper edge below the chord (negative = above) at 65 even steps."""
    lower: Array
    """Height of the lower edge below the chord at the same steps, never above ``upper``."""

    @classmethod
    def from_points(cls, upper: NDArray[np.floating], lower: NDArray[np.floating]) -> Opening:
        """Build from the points of both edges ``[n,2]`` and ``[m,2]``, corner to corner."""
        start, chord = np.asarray(upper[0]), np.asarray(upper[-1]) - np.asarray(upper[0])
        width = max(float(np.linalg.norm(chord)), 1e-3)
        axis = chord / width
        edges = [_resample((np.asarray(p) - start) @ _frame(axis).T / [width, 1.0]) for p in (upper, lower)]
        return cls(
            start.astype(np.float32), axis.astype(np.float32), width, edges[0], np.maximum(edges[1], edges[0])
        )

    @property
    def gap(self) -> Array:
        """Opening height at the 65 steps, at least 0."""
        return np.maximum(self.lower - self.upper, 0.0)

    @property
    def mean_gap(self) -> float:
        """Mean opening height over the middle half."""
        return float(self.gap[16:49].mean())

    def with_gap(self, gap: Array, lower_share: float) -> Opening:
        """The same opening with another height; ``lower_share`` of the change is taken by the lower edge."""
        change = gap - self.gap
        upper = self.upper - (1.0 - lower_share) * change
        return Opening(self.origin, self.axis, self.width, upper, np.maximum(upper + gap, upper))

    def local(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Chord position (0..1 between the corners) and height below the chord of pixel positions."""
        dx, dy = x - self.origin[0], y - self.origin[1]
        along = (dx * self.axis[0] + dy * self.axis[1]) / self.width
        return along.astype(np.float32), (dy * self.axis[0] - dx * self.axis[1]).astype(np.float32)

    def position(self, along: Array, height: Array) -> tuple[Array, Array]:
        """Inverse of :meth:`local`: pixel positions."""
        run = along * self.width
        x = self.origin[0] + run * self.axis[0] - height * self.axis[1]
        y = self.origin[1] + run * self.axis[1] + height * self.axis[0]
        return x.astype(np.float32), y.astype(np.float32)

    def edges(self, along: Array) -> tuple[Array, Array]:
        """Heights of the upper and lower edge at chord positions (clamped to the corners)."""
        upper = np.interp(along, _SAMPLES, self.upper)
        return upper.astype(np.float32), np.interp(along, _SAMPLES, self.lower).astype(np.float32)

    def coverage(self, x: Array, y: Array, soft_px: float = 1.0) -> Array:
        """How much of each pixel lies in the opening, 0..1, with an edge ``soft_px`` wide."""
        along, height = self.local(x, y)
        upper, lower = self.edges(along)
        inside = np.minimum((height - upper) / soft_px + 0.5, (lower - height) / soft_px + 0.5)
        ends = np.minimum(along, 1.0 - along) * self.width / soft_px + 0.5
        thin = np.clip((lower - upper) / soft_px, 0.0, 1.0)  # a gap thinner than a pixel fills part of it
        return np.clip(np.minimum(inside, ends), 0.0, 1.0) * thin


def _frame(axis: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.array([[axis[0], axis[1]], [-axis[1], axis[0]]])


def _resample(points: NDArray[np.floating]) -> Array:
    """Heights at even chord positions through points ``(along, height)``, without overshoot."""
    order = np.argsort(points[:, 0], kind="stable")
    along, height = points[order, 0], points[order, 1]
    keep = np.concatenate([[True], np.diff(along) > 1e-4])
    if keep.sum() < 2:
        return np.zeros(len(_SAMPLES), dtype=np.float32)
    curve = PchipInterpolator(along[keep], height[keep], extrapolate=False)
    value = curve(np.clip(_SAMPLES, along[keep][0], along[keep][-1]))
    return np.asarray(value, dtype=np.float32)


def pixel_grid(box: tuple[int, int, int, int]) -> tuple[Array, Array]:
    """Pixel centres ``(x, y)``, each ``[h,w]``, of a window ``(x0, y0, x1, y1)``."""
    x0, y0, x1, y1 = box
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    return x + 0.5, y + 0.5


def window(points: NDArray[np.floating], margin: float, size: int) -> tuple[int, int, int, int]:
    """The window ``(x0, y0, x1, y1)`` around points ``[n,2]`` with a margin, inside a ``size`` image."""
    low = np.floor(points.min(0) - margin).astype(int)
    high = np.ceil(points.max(0) + margin).astype(int)
    low, high = np.clip(low, 0, size - 1), np.clip(high, 1, size)
    return int(low[0]), int(low[1]), int(max(high[0], low[0] + 1)), int(max(high[1], low[1] + 1))
