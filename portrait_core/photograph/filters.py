"""Filters that layers are taken apart with: guided by colour, or spread over what is not known."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

COLOURLESS = 12.0
"""Grey levels: a picture whose channels differ by less in 99 of 100 pixels has no colours."""


def ellipse(radius: float) -> NDArray[np.uint8]:
    """Return a disc for morphology, of at least one pixel's radius."""
    size = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)).astype(np.uint8)


def resized(values: Floats, width: int, height: int, area: bool = False) -> Floats:
    """Resample ``[h,w]`` or ``[h,w,C]``, by area where it shrinks and ``area`` says so, else linearly."""
    method = cv2.INTER_AREA if area else cv2.INTER_LINEAR
    result = cv2.resize(values, (width, height), interpolation=method)
    return np.asarray(result, np.float32).reshape(height, width, *values.shape[2:])  # cv2 drops one channel


def _box(values: Floats, radius: int) -> Floats:
    side = (2 * radius + 1, 2 * radius + 1)
    return np.asarray(cv2.blur(values, side, borderType=cv2.BORDER_REFLECT_101), np.float32)


@dataclass(frozen=True)
class LinearModel:
    """A mask as a local linear function of colour (He et al. 2013): ``slope . colour + offset``.

    Attributes:
        slope: ``[h,w,3]``.
        offset: ``[h,w]``.
    """

    slope: Floats
    offset: Floats

    @classmethod
    def of(cls, guide: Floats, mask: Floats, radius: int, eps: float) -> LinearModel:
        """Fit a mask ``[h,w]`` to a guide ``[h,w,3]`` in windows of ``radius`` pixels.

        ``eps`` is the variance of colour below which the mask is averaged rather than followed.
        """
        mean, level = _box(guide, radius), _box(mask, radius)
        joint = _box(guide * mask[..., None], radius) - mean * level[..., None]
        cov = {
            (i, j): _box(guide[..., i] * guide[..., j], radius) - mean[..., i] * mean[..., j]
            for i in range(3)
            for j in range(i, 3)
        }
        rr, gg, bb = (cov[i, i] + np.float32(eps) for i in range(3))
        rg, rb, gb = cov[0, 1], cov[0, 2], cov[1, 2]
        inverse = (gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg)
        lower = (rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg)
        rows = (inverse, (inverse[1], lower[0], lower[1]), (inverse[2], lower[1], lower[2]))
        det = rr * inverse[0] + rg * inverse[1] + rb * inverse[2]
        products = [sum(row[i] * joint[..., i] for i in range(3)) / det for row in rows]
        slope = np.stack(products, axis=-1).astype(np.float32)
        offset = level - (slope * mean).sum(-1)
        return cls(_box(slope, radius), _box(offset, radius))

    def at(self, guide: Floats) -> Floats:
        """Evaluate at colours ``[H,W,3]`` of any size, whose extent is the fit's; ``[H,W]`` in 0..1."""
        height, width = guide.shape[:2]
        slope, offset = self.slope, self.offset
        if offset.shape != (height, width):
            slope, offset = resized(slope, width, height), resized(offset, width, height)
        return np.clip((slope * guide).sum(-1) + offset, 0.0, 1.0)


def guided(guide: Floats, mask: Floats, radius: int, eps: float) -> Floats:
    """Let a mask ``[h,w]`` follow the edges of a guide ``[h,w,3]``, by :class:`LinearModel`."""
    return LinearModel.of(guide, mask, radius, eps).at(guide)


def spread(values: Floats, weight: Floats) -> Floats:
    """Fill what is not known from what is, near before far.

    Args:
        values: ``[h,w,C]``.
        weight: how well each is known ``[h,w]`` in 0..1.

    Returns:
        ``[h,w,C]``: ``values`` where the weight is 1; elsewhere averages of what is known around, over
        distances that grow with the distance of what is known (push and pull over a pyramid). Zero where
        nothing is known at all.
    """
    levels = [(values * weight[..., None], weight)]
    while min(levels[-1][1].shape) > 2:
        (total, known), size = levels[-1], levels[-1][1].shape
        height, width = (size[0] + 1) // 2, (size[1] + 1) // 2
        levels.append((resized(total, width, height, True), resized(known, width, height, True)))
    total, known = levels[-1]
    filled = _ratio(total, known)
    for total, known in levels[-2::-1]:
        below = resized(filled, known.shape[1], known.shape[0])
        share = np.clip(2 * known, 0, 1)[..., None]
        filled = below * (1 - share) + _ratio(total, known) * share
    return filled


def _ratio(total: Floats, known: Floats) -> Floats:
    return np.asarray(total / np.maximum(known, 1e-6)[..., None], np.float32)


def is_colourless(picture: NDArray[np.uint8]) -> bool:
    """Tell whether a picture ``[H,W,3]`` has no colours, but for what its compression left."""
    step = max(1, min(picture.shape[:2]) // 256)
    apart = np.ptp(picture[::step, ::step].astype(np.int16), axis=2)
    return bool(np.percentile(apart, 99) < COLOURLESS)
