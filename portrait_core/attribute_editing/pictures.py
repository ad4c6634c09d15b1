"""Bringing an edit from the generator's pictures into the photograph.

What is carried over is the change between the generator's pictures of the latent before and after, as a
factor of every colour, and not the pictures: hair, skin and grain stay the photograph's own, and the
generator's blur stays behind. Where the generator changed nothing, beyond the person and in the mouth the
photograph keeps every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from portrait_core.face_model.head_points import outer_eye_distance
from portrait_core.face_model.landmark_regions import INNER_LIPS
from portrait_core.photograph.filters import is_colourless
from portrait_core.face_model.easing import eased


Picture = NDArray[np.uint8]
Share = NDArray[np.float32]

LEAST, WHOLE = 4.0, 14.0
"""Blurred grey-level differences below which a pixel of the photograph stays, and from which on all of the
change is carried over: a reconstruction is never exact."""
_DARK = 0.08
"""Added to colours in 0..1 before their factor is taken: what is nearly black changes by a sum."""
_COLOURED = 0.25
"""Lightness in 0..1 from which on a colour of the generator is believed."""
_LARGEST = 2.5
"""Largest logarithm of a colour's factor."""
_FINE, _BLUR, _COLOUR = 0.006, 0.012, 0.03
"""Deviations of the blurs of light, of where anything changed and of colour, as shares of the crop's side:
the generator's colours are coarse, and what is finer than this is its noise."""
_GRAIN, _MOST_GRAIN = 0.004, 1.6
"""Deviation of the blur that leaves the photograph's grain out, as a share of the crop's side, and its
largest factor: what is made light would be all noise otherwise."""
_BORDER = 0.06
"""Width of the ramp at the crop's border, as a share of its side."""
_MOUTH_ROOM = 0.03
"""Reach of the mouth's inside beyond the lips' inner edge (share of the outer eye corners' distance)."""


@dataclass(frozen=True)
class Change:
    """Change of a crop by an edit.

    Attributes:
        gain: logarithm of every colour's factor ``[S,S,3]``.
        share: how much of it is carried over ``[S,S]`` in 0..1: 0 where nothing changed and at the border.
    """

    gain: NDArray[np.float32]
    share: Share

    @classmethod
    def between(cls, before: Picture, after: Picture) -> Change:
        """Compare the generator's pictures of the latent before and after ``[S,S,3]``."""
        size = len(before)
        first, last = (_blurred(one.astype(np.float32) / 255, _FINE * size) for one in (before, after))
        gain = np.log((last + _DARK) / (first + _DARK)).clip(-_LARGEST, _LARGEST)
        difference = np.abs(last - first).max(axis=2)
        light, weight = gain.mean(axis=2, keepdims=True), difference[..., None] + 1e-3
        # of what has become nearly black the generator's colour means nothing
        sure = (last.mean(axis=2, keepdims=True) / _COLOURED).clip(0, 1)
        colour = _blurred((gain - light) * sure * weight, _COLOUR * size)
        colour = colour / _blurred(weight, _COLOUR * size)[..., None]
        changed = (_blurred(255 * difference, _BLUR * size) - LEAST) / (WHOLE - LEAST)
        share = eased(changed) * _inside(size)
        return cls(np.asarray(light + colour, np.float32), np.asarray(share, np.float32))


def free_share(
    coverage: Share | None, landmarks: NDArray[np.floating], shape: tuple[int, int], mouth: bool
) -> Share:
    """Give where a photograph may change ``[H,W]`` in 0..1.

    Args:
        coverage: of the person ``[H,W]`` in 0..1; None where nobody knows it: everywhere.
        landmarks: the portrait's ``[478,2]`` in pixels.
        shape: ``(H, W)``.
        mouth: whether the mouth's inside may change too.
    """
    free = np.ones(shape, np.float32) if coverage is None else coverage.astype(np.float32)
    if mouth:
        return free
    lips = landmarks[list(INNER_LIPS.upper + INNER_LIPS.lower[::-1])]
    room = _MOUTH_ROOM * outer_eye_distance(landmarks)
    inside = cv2.fillPoly(np.zeros(shape, np.uint8), [np.round(lips).astype(np.int32)], 255)
    grown = 2 * max(1, round(room)) + 1
    wide = cv2.dilate(inside, np.ones((grown, grown), np.uint8)).astype(np.float32)
    return np.asarray(free * (1 - _blurred(wide, room / 2) / 255), np.float32)


def edited_photograph(
    photograph: Picture, change: Change, free: Share, center_px: ArrayLike, side_px: float
) -> Picture:
    """Carry a change over to the photograph.

    Args:
        photograph: ``[H,W,3]`` uint8.
        change: in the crop.
        free: where the photograph may change ``[H,W]`` in 0..1.
        center_px: the crop's centre ``(x, y)`` in continuous pixels of the photograph.
        side_px: its side.

    Returns:
        ``[H,W,3]`` uint8; equal to the photograph where the change's share or ``free`` is 0, and outside.
    """
    corner = np.asarray(center_px, np.float64) - side_px / 2
    height, width = photograph.shape[:2]
    left, top = np.floor(corner).astype(int).clip(0, (width, height))
    right, bottom = np.ceil(corner + side_px).astype(int).clip(0, (width, height))
    if right <= left or bottom <= top:
        return photograph.copy()
    scale = side_px / len(change.share)
    # indices of pixels whose centres lie at +0.5, in both pictures
    shift = corner - (left, top) + 0.5 * scale - 0.5
    placing = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])

    def placed(values: NDArray[np.float32]) -> NDArray[np.float32]:
        found = cv2.warpAffine(values, placing, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
        return np.asarray(found, np.float32)

    part = slice(top, bottom), slice(left, right)
    share = placed(change.share) * free[part]
    gain = placed(change.gain)
    if is_colourless(photograph[part]):
        gain = gain.mean(axis=2, keepdims=True)
    own, factor = photograph[part].astype(np.float32) / 255, np.exp(gain * share[..., None])
    coarse = _blurred(own, _GRAIN * side_px)
    made = (coarse + _DARK) * factor - _DARK + (own - coarse) * np.minimum(factor, _MOST_GRAIN)
    result = photograph.copy()
    result[part] = np.where(share[..., None] > 0, (255 * made + 0.5).clip(0, 255), photograph[part])
    return result


def _blurred(values: NDArray[np.floating], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), max(sigma, 0.5)), np.float32)


def _inside(size: int) -> NDArray[np.float64]:
    """1 within a square, falling to 0 at its border ``[size,size]``."""
    away = np.minimum(np.arange(size), np.arange(size)[::-1]) / max(1.0, _BORDER * size)
    edge = np.clip(away, 0, 1)
    return np.asarray(np.minimum(edge[:, None], edge[None]))
