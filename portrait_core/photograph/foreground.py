"""The person's own colours, without the background mixed in along the matte's edge."""

from __future__ import annotations

import numpy as np

from portrait_core.photograph.filters import Floats, resized

_SMOOTH = 1e-3
"""Pull of neighbours toward each other where the coverage does not change."""
_EDGE = 1.0
"""The same per step of the coverage."""
_SMALL, _FEW, _MANY = 32, 2, 10
"""Levels of at most so many pixels a side are relaxed many times, larger ones few times."""


def unmixed(picture: Floats, coverage: Floats) -> tuple[Floats, Floats]:
    """Part a picture into the two that its coverage mixed (Germer et al. 2020, over a pyramid).

    Args:
        picture: colours ``[h,w,3]`` in 0..1.
        coverage: share of the person ``[h,w]`` in 0..1.

    Returns:
        Colours of the person and of the background, ``[h,w,3]`` each in 0..1: such that the coverage's
        mixture of both is about the picture, and each goes on smoothly where it is covered by the other or
        absent.
    """
    height, width = coverage.shape
    front, back = (_mean(picture, share)[None, None] for share in (coverage, 1 - coverage))
    for level in range(int(np.ceil(np.log2(max(height, width)))), -1, -1):
        h, w = max(1, height >> level), max(1, width >> level)
        colours, share = resized(picture, w, h, True), resized(coverage, w, h, True)
        front, back = (resized(np.ascontiguousarray(x), w, h) for x in (front, back))
        for _ in range(_MANY if max(h, w) <= _SMALL else _FEW):
            front, back = _relaxed(colours, share, front, back)
    return front, back


def _mean(picture: Floats, share: Floats) -> Floats:
    weight = share[..., None] + np.float32(1e-6)
    return np.asarray((picture * weight).sum((0, 1)) / weight.sum(), np.float32)


def _relaxed(colours: Floats, share: Floats, front: Floats, back: Floats) -> tuple[Floats, Floats]:
    """Solve each pixel's two colours with its four neighbours held."""
    total = np.zeros_like(share)
    sums = [np.zeros_like(colours), np.zeros_like(colours)]
    for axis in (0, 1):
        for low, high in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
            here = (low, slice(None)) if axis == 0 else (slice(None), low)
            there = (high, slice(None)) if axis == 0 else (slice(None), high)
            pull = np.float32(_SMOOTH) + np.float32(_EDGE) * np.abs(share[here] - share[there])
            total[here] += pull
            for held, summed in zip((front, back), sums, strict=True):
                summed[here] += pull[..., None] * held[there]
    a, b = share, 1 - share
    determinant = (total * (a * a + b * b + total))[..., None]
    one = sums[0] + a[..., None] * colours
    two = sums[1] + b[..., None] * colours
    cross, aa, bb = (x[..., None] for x in (a * b, a * a + total, b * b + total))
    determinant = np.maximum(determinant, 1e-9)
    return (
        np.clip((bb * one - cross * two) / determinant, 0, 1),
        np.clip((aa * two - cross * one) / determinant, 0, 1),
    )
