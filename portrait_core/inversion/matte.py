"""Which pixels of the portrait are the person, and what the wall behind looks like.

The generator keeps foreground and wall apart, so tuning wants to know which is which: a GrabCut matte started
from the fitted head, softened along hair by a guided filter, and the wall inpainted behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import InputError


@dataclass(frozen=True)
class Matte:
    """The portrait crop, taken apart.

    Attributes:
        foreground: coverage of the person ``[S,S]`` float32 in 0..1.
        wall: the crop with the person inpainted away ``[S,S,3]`` uint8.
    """

    foreground: NDArray[np.float32]
    wall: NDArray[np.uint8]


def _ellipse(radius: float) -> NDArray[np.uint8]:
    size = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)).astype(np.uint8)


def _seeds(head: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """GrabCut's starting labels from the fitted head's silhouette (a head without hair)."""
    size = head.shape[0]
    mask = head.astype(np.uint8)
    labels = np.full(head.shape, cv2.GC_PR_BGD, np.uint8)
    labels[cv2.dilate(mask, _ellipse(0.13 * size)) > 0] = cv2.GC_PR_FGD  # hair
    rows = np.flatnonzero(head.any(axis=1))
    y, x = np.mgrid[:size, :size]
    below = y - (rows[-1] - 0.08 * size)
    middle = np.flatnonzero(head[rows[-1]]).mean()
    labels[(below > 0) & (np.abs(x - middle) < 0.15 * size + 1.2 * below)] = cv2.GC_PR_FGD  # shoulders
    labels[cv2.erode(mask, _ellipse(0.02 * size)) > 0] = cv2.GC_FGD
    corner, height = round(0.03 * size), round(0.5 * size)
    labels[:height, :corner] = labels[:height, -corner:] = cv2.GC_BGD
    return labels


def _guided_filter(
    guide: NDArray[np.float32], mask: NDArray[np.float32], radius: int, eps: float
) -> NDArray[np.float32]:
    """He et al. 2013: the mask as a local linear function of a grey guide, so that its edge follows hair."""

    def box(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.boxFilter(x, -1, (2 * radius + 1, 2 * radius + 1)), dtype=np.float32)

    mean_g, mean_m = box(guide), box(mask)
    a = (box(guide * mask) - mean_g * mean_m) / (box(guide * guide) - mean_g**2 + eps)
    b = mean_m - a * mean_g
    return np.clip(box(a) * guide + box(b), 0.0, 1.0).astype(np.float32)


def portrait_matte(crop: NDArray[np.uint8], head: NDArray[np.bool_]) -> Matte:
    """Separate the person from the wall.

    Args:
        crop: the portrait crop ``[S,S,3]`` uint8 RGB.
        head: silhouette of the fitted head at the portrait's camera ``[S,S]``.

    Raises:
        InputError: if the head's silhouette is empty, which means that the fit does not belong to this crop.
    """
    if not head.any():
        raise InputError("the fitted head covers no pixel of the crop; was it fitted to this portrait?")
    size = crop.shape[0]
    labels = _seeds(head)
    cv2.setRNGSeed(0)  # GrabCut's colour clusters start at random
    back, front = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = np.ascontiguousarray(crop[..., ::-1])
    cv2.grabCut(bgr, labels, (0, 0, size, size), back, front, 4, cv2.GC_INIT_WITH_MASK)
    binary = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    closed = cv2.morphologyEx(binary, cv2.MORPH_CLOSE, _ellipse(0.01 * size)).astype(np.uint8)
    binary = _largest_part(closed)
    grey = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) / np.float32(255), dtype=np.float32)
    soft = _guided_filter(grey, binary.astype(np.float32), radius=max(2, size // 64), eps=1e-3)
    return Matte(foreground=soft, wall=_inpaint(crop, binary))


def _largest_part(binary: NDArray[np.uint8]) -> NDArray[np.uint8]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary)
    if count < 2:
        return binary
    return (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)


def _inpaint(crop: NDArray[np.uint8], binary: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fill the person from the wall around, smooth inside: it is seen only when the head turns away."""
    size = crop.shape[0]
    hole = cv2.dilate(binary, _ellipse(0.02 * size))
    if hole.all():
        return np.broadcast_to(crop.mean((0, 1)), crop.shape).astype(np.uint8)
    filled = cv2.inpaint(crop, hole, 0.025 * size, cv2.INPAINT_TELEA)
    smooth = cv2.GaussianBlur(filled, (0, 0), 0.02 * size)
    return np.where(hole[..., None] > 0, smooth, crop).astype(np.uint8)
