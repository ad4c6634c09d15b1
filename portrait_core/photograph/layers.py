"""A photograph taken apart into the person and what stands behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.photograph.filters import Floats, ellipse, resized
from portrait_core.photograph.foreground import unmixed
from portrait_core.photograph.matte import PersonSegmenter, find_person
from portrait_core.photograph.plate import filled

_REACH = 1.0
"""Half the side of the square about the face crop's centre that is taken apart, in the crop's sides: what a
head that moves can cover or uncover."""
_CLEAR = 0.02
"""Coverage that counts as none."""
_LONGEST = 768
"""Pixels at most of the longer side where smooth colours of the person are found."""
_SOLID = 0.995
"""Coverage above which a pixel's colours are the person's."""
_MARGIN = 0.035
"""Distance around the person from which no background is taken, in the crop's sides."""


@dataclass(frozen=True)
class Layers:
    """A photograph taken apart.

    ``coverage * foreground + (1 - coverage) * plate`` is the photograph but for the edge, where the plate was
    filled. What gives it back to the bit when it is laid over the plate, and may be moved in the place of
    ``coverage * foreground``, is ``photograph - (1 - coverage) * plate``.

    Attributes:
        coverage: share of the person ``[H,W]`` float32 in 0..1, of the whole photograph.
        foreground: the person's own colours ``[H,W,3]`` uint8, near the head also a little beyond the edge.
        plate: what stands behind ``[H,W,3]`` uint8; away from the head the photograph.
        found: False where no network saw a person at the head, and the coverage is a guess.
    """

    coverage: NDArray[np.float32]
    foreground: NDArray[np.uint8]
    plate: NDArray[np.uint8]
    found: bool


def separate(
    photograph: NDArray[np.uint8],
    head_center_px: Sequence[float] | NDArray[np.floating],
    head_side_px: float,
    silhouette: NDArray[np.bool_],
    segmenter: PersonSegmenter,
) -> Layers:
    """Take a photograph apart.

    Args:
        photograph: ``[H,W,3]`` uint8 RGB.
        head_center_px: ``(x, y)`` of the face crop's centre in continuous pixels of the photograph.
        head_side_px: its side.
        silhouette: the fitted head (without hair) in the face crop ``[S,S]``.
        segmenter: the network that finds the person.

    Raises:
        InputError: if the silhouette is empty, which means that the fit does not belong to this photograph.
    """
    matte = find_person(photograph, head_center_px, head_side_px, silhouette, segmenter)
    rows, columns = _square(photograph.shape, head_center_px, _REACH * head_side_px)
    hole = _about(matte.coverage, head_side_px)
    usable = ~hole
    inside = np.zeros_like(hole)
    inside[rows, columns] = hole[rows, columns]
    plate = filled(photograph, inside, usable)
    foreground = photograph.copy()
    part = (rows, columns)
    foreground[part] = _foreground(photograph[part], matte.coverage[part])
    return Layers(matte.coverage, foreground, plate, matte.found)


def separate_crop(
    crop: NDArray[np.uint8], silhouette: NDArray[np.bool_], segmenter: PersonSegmenter
) -> Layers:
    """Take a face crop ``[S,S,3]`` apart as if it were the whole photograph (:func:`separate`)."""
    size = len(crop)
    return separate(crop, (size / 2, size / 2), size, silhouette, segmenter)


def _square(
    shape: tuple[int, ...], center_px: Sequence[float] | NDArray[np.floating], reach_px: float
) -> tuple[slice, slice]:
    size, center = np.array(shape[1::-1]), np.asarray(center_px, np.float64)
    low = np.clip(np.floor(center - reach_px), 0, size - 1).astype(int)
    high = np.clip(np.ceil(center + reach_px), low + 1, size).astype(int)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _about(coverage: Floats, side_px: float) -> NDArray[np.bool_]:
    """Mark the person and a margin around."""
    person = (coverage > _CLEAR).astype(np.uint8)
    return cv2.dilate(person, ellipse(_MARGIN * side_px)) > 0


def _foreground(picture: NDArray[np.uint8], coverage: Floats) -> NDArray[np.uint8]:
    """Give the person's colours: smooth ones found small, and the picture's detail as far as it is theirs."""
    height, width = coverage.shape
    seen = picture.astype(np.float32) / np.float32(255)
    shrink = max(1.0, max(height, width) / _LONGEST)
    small = round(width / shrink), round(height / shrink)
    colours = unmixed(resized(seen, *small, area=True), resized(coverage, *small, area=True))
    front, back = (resized(part, width, height) for part in colours)
    share = coverage[..., None]
    rest = seen - share * front - (1 - share) * back
    front += rest * share / (share * share + (1 - share) ** 2)
    return np.clip(np.where(share > _SOLID, seen, front) * 255 + 0.5, 0, 255).astype(np.uint8)
