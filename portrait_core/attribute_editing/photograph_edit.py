"""Transfer of an edit from the generator's pictures to the photograph.

The change between the generator's pictures of the latent before and after is transferred as a factor of every
colour, not the pictures themselves: hair, skin and grain stay the photograph's own, without the generator's
blur. Where the generator changed nothing, outside the person and in the mouth interior, the photograph keeps
every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from portrait_core.face_model.easing import eased
from portrait_core.face_model.head_points import outer_eye_distance
from portrait_core.face_model.landmark_regions import INNER_LIPS
from portrait_core.photograph.filters import is_colourless

Picture = NDArray[np.uint8]
Share = NDArray[np.float32]

MIN_DIFFERENCE, FULL_DIFFERENCE = 4.0, 14.0
"""Blurred grey-level differences below which a pixel of the photograph is unchanged, and from which on the
whole change is applied: a reconstruction is never exact."""
_DARK = 0.08
"""Constant added to colours in 0..1 before their ratio is taken, so that nearly black colours change by a
sum."""
_COLOURED = 0.25
"""Lightness in 0..1 from which on the generator's colour is used fully."""
_MAX_LOG_GAIN = 2.5
"""Maximum logarithm of a colour's factor."""
_FINE, _BLUR, _COLOUR = 0.006, 0.012, 0.03
"""Deviations of the blurs of light, of the changed area and of colour, relative to the crop's side: the
generator's colours are coarse, and finer detail is its noise."""
_GRAIN, _MAX_GRAIN_FACTOR = 0.004, 1.6
"""Deviation of the blur that separates the photograph's grain, relative to the crop's side, and the maximum
factor of the grain, which would dominate areas that become light."""
_BORDER = 0.06
"""Width of the ramp at the crop's border, relative to its side."""
_MOUTH_ROOM = 0.03
"""Margin of the mouth interior beyond the lips' inner edge, relative to the distance of the outer eye
corners."""


@dataclass(frozen=True)
class ColourChange:
    """Change of a crop by an edit, as a factor of its colours.

    Attributes:
        gain: logarithm of every colour's factor ``[S,S,3]``.
        share: weight of the change ``[S,S]`` in 0..1: 0 where nothing changed and at the border.
    """

    gain: NDArray[np.float32]
    share: Share

    @classmethod
    def between(cls, before: Picture, after: Picture) -> ColourChange:
        """Compare the generator's pictures ``[S,S,3]`` uint8 of the latent before and after."""
        size = len(before)
        first, last = (_blurred(one.astype(np.float32) / 255, _FINE * size) for one in (before, after))
        gain = np.log((last + _DARK) / (first + _DARK)).clip(-_MAX_LOG_GAIN, _MAX_LOG_GAIN)
        difference = np.abs(last - first).max(axis=2)
        light, weight = gain.mean(axis=2, keepdims=True), difference[..., None] + 1e-3
        # the generator's colour is meaningless where it has become nearly black
        sure = (last.mean(axis=2, keepdims=True) / _COLOURED).clip(0, 1)
        colour = _blurred((gain - light) * sure * weight, _COLOUR * size)
        colour = colour / _blurred(weight, _COLOUR * size)[..., None]
        changed = (_blurred(255 * difference, _BLUR * size) - MIN_DIFFERENCE) / (
            FULL_DIFFERENCE - MIN_DIFFERENCE
        )
        share = eased(changed) * _inside(size)
        return cls(np.asarray(light + colour, np.float32), np.asarray(share, np.float32))


def editable_mask(
    coverage: Share | None, landmarks: NDArray[np.floating], shape: tuple[int, int], mouth: bool
) -> Share:
    """Return where a photograph may change ``[H,W]`` in 0..1.

    Args:
        coverage: coverage by the person ``[H,W]`` in 0..1; None where it is unknown: everywhere.
        landmarks: the portrait's ``[478,2]`` in pixels.
        shape: ``(H, W)``.
        mouth: whether the mouth interior may change too.
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
    photograph: Picture, change: ColourChange, free: Share, center_px: ArrayLike, side_px: float
) -> Picture:
    """Apply a change to the photograph.

    Args:
        photograph: ``[H,W,3]`` uint8.
        change: the change of the crop.
        free: where the photograph may change ``[H,W]`` in 0..1.
        center_px: the crop's centre ``(x, y)`` in continuous pixels of the photograph.
        side_px: its side in pixels.

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
    # from pixel centres at +0.5 to indices, in both pictures
    shift = corner - (left, top) + 0.5 * scale - 0.5
    placing = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])

    def placed(values: NDArray[np.float32]) -> NDArray[np.float32]:
        warped = cv2.warpAffine(values, placing, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
        return np.asarray(warped, np.float32)

    window = slice(top, bottom), slice(left, right)
    share = placed(change.share) * free[window]
    gain = placed(change.gain)
    if is_colourless(photograph[window]):
        gain = gain.mean(axis=2, keepdims=True)
    own, factor = photograph[window].astype(np.float32) / 255, np.exp(gain * share[..., None])
    coarse = _blurred(own, _GRAIN * side_px)
    changed = (coarse + _DARK) * factor - _DARK + (own - coarse) * np.minimum(factor, _MAX_GRAIN_FACTOR)
    result = photograph.copy()
    result[window] = np.where(share[..., None] > 0, (255 * changed + 0.5).clip(0, 255), photograph[window])
    return result


def _blurred(values: NDArray[np.floating], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), max(sigma, 0.5)), np.float32)


def _inside(size: int) -> NDArray[np.float64]:
    """Return 1 within a square, falling to 0 at its border ``[size,size]``."""
    away = np.minimum(np.arange(size), np.arange(size)[::-1]) / max(1.0, _BORDER * size)
    edge = np.clip(away, 0, 1)
    return np.asarray(np.minimum(edge[:, None], edge[None]))
