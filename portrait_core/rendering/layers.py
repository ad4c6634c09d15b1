"""A photograph taken apart: the person, and what stands behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.inversion.matte import portrait_matte
from portrait_core.tracking.crop import crop_image


@dataclass(frozen=True)
class Layers:
    """A photograph taken apart."""

    coverage: NDArray[np.float32]
    foreground: NDArray[np.uint8]
    plate: NDArray[np.uint8]


def separate(photograph, center, side, silhouette):
    """Temporary."""
    import cv2

    height, width = photograph.shape[:2]
    big = 1.8 * side
    n = min(1024, int(big))
    outer = crop_image(photograph, center, big, n)
    sil = np.zeros((n, n), np.uint8)
    k = int(n / 1.8)
    e = (n - k) // 2
    sil[e : e + k, e : e + k] = cv2.resize(silhouette.astype(np.uint8), (k, k))
    m = portrait_matte(outer, sil.astype(bool))
    s = big / n
    mat = np.array([[s, 0, center[0] - big / 2 + 0.5 * s - 0.5], [0, s, center[1] - big / 2 + 0.5 * s - 0.5]])

    def back(x, fill):
        return cv2.warpAffine(
            np.ascontiguousarray(x),
            mat,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=fill,
        )

    cover = back(m.foreground, 0)
    inside = back(np.ones((n, n), np.float32), 0) > 0.99
    plate = np.where(inside[..., None], back(m.wall, 0), photograph)
    return Layers(cover.astype(np.float32), photograph, plate.astype(np.uint8))
