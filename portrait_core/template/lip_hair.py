"""The moustache: hair between nose and mouth, which hangs over the upper lip and moves with it as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from portrait_core.face_model.contours import Opening, pixel_grid, window

Array = NDArray[Any]
_NOSE = 2
"""Landmark where the nose meets the upper lip."""


@dataclass(frozen=True)
class _HairLook:
    """Look of hair over a lip; lengths in mouth widths, luminances in the skin's."""

    dark: float = 0.60
    """Largest luminance, on the left and on the right, of the band between nose and mouth that is taken for
    hair; a shadow of the nose darkens one side only."""
    min_room: float = 0.08
    """Smallest distance of the nose's base above the mouth for there to be room for hair."""
    band_top: float = 0.7
    band_bottom: float = 0.03
    """Top of the band where hair is measured, as a share of the way to the nose, and its bottom above the
    upper lip's edge."""
    halves: tuple[float, float] = (0.3, 0.7)
    half: float = 0.15
    """Middles and half length of the band's two halves along the chord."""
    ends: float = 0.15
    """Share of the chord at the corners over which the reach below the line changes."""
    top: float = 0.97
    top_over: float = 0.4
    """Top of the hair, and the way over which it grows to its full weight, as shares of the way to the
    nose."""
    bottom_over: float = 0.04
    """Width of the hair's soft lower edge."""
    side_over: float = 0.1
    """Width of the hair's soft sides, as a share of the chord."""
    strand: float = 0.04
    """Half width of bright gaps between strands."""
    blur: float = 0.01
    blur_px: float = 0.5
    """Deviation of the blur of strands, in mouth widths and in pixels; the two are added."""
    edge_over: float = 0.2
    """Range of luminance over which hair becomes skin, in their difference."""
    beside: float = 0.45
    """Reach beside the corners."""
    below: float = 0.30
    """Reach below the mouth's line beside the corners; 0 in the middle."""
    over_lip: float = 0.04
    """Reach below the line in the middle, where hair hangs over the lip."""
    roots: float = 0.35
    """Share of the way from nose to mouth over which the hair's motion grows from none to the lip's, below
    the nose."""
    edge: float = 0.40
    """Luminance that counts as half hair, between hair (0) and skin (1)."""


@dataclass(frozen=True)
class _HairMotion:
    """Motion of hair with the upper lip; lengths are shares of the chord."""

    beyond: float = 0.5
    """Length of the chord's continuation beyond the corners."""
    samples: int = 81
    """Places along it at which motion is known."""
    stiffness: float = 6.0
    """Deviation of the smoothing of the motion along the chord, in places: single points of the lip do not
    bend hair."""
    rooted_half: float = 0.42
    rooted_over: float = 0.2
    """Half length of the middle, below the nose, whose hair is rooted, and the length over which that
    ends."""
    rounds: int = 3
    """Rounds of the search for a pixel's origin, which depends on how far that place has moved."""


_HAIR, _MOTION = _HairLook(), _HairMotion()


@dataclass(frozen=True)
class LipHair:
    """The hair over a photograph's upper lip."""

    weight: Array
    """Part of each pixel ``[h,w]`` of ``box`` that is hair, 0..1."""
    box: tuple[int, int, int, int]
    """Window ``(x0, y0, x1, y1)`` of the photograph that has hair in it, in work pixels."""
    nose: float
    """Height of the nose's base below the mouth's chord, in pixels; negative."""

    def paint(self, canvas: Array, photo: Array, source: Opening, opening: Opening) -> None:
        """Lay the photograph's hair over ``canvas [W,W,3]``, in place, as the upper lip has carried it.

        Args:
            canvas: the moved face with the mouth painted.
            photo: the photograph ``[W,W,3]``.
            source: the photograph's mouth.
            opening: the moved mouth.
        """
        u = np.linspace(-_MOTION.beyond, 1.0 + _MOTION.beyond, _MOTION.samples, dtype=np.float32)
        before, after = (np.stack(o.position(u, o.edges(u)[0]), 1) for o in (source, opening))
        move = gaussian_filter1d(after - before, _MOTION.stiffness, axis=0, mode="nearest")
        corner = (u >= 0.0) & (u <= 1.0)
        move = np.stack([np.interp(u, u[corner], move[corner, axis]) for axis in (0, 1)], 1)
        reach = float(np.abs(move).max()) + 2.0
        x0, y0, x1, y1 = self.box
        box = window(np.array([[x0, y0], [x1, y1]], np.float32), reach, len(canvas))
        x, y = pixel_grid(box)
        along, _ = source.local(x, y)
        grown = np.ones_like(along)
        for _ in range(_MOTION.rounds):
            px, py = (p - grown * np.interp(along, u, move[:, axis]) for axis, p in enumerate((x, y)))
            along, height = source.local(px, py)
            root = 1.0 - np.clip((height - self.nose) / max(-_HAIR.roots * self.nose, 1.0), 0.0, 1.0)
            grown = 1.0 - root * np.clip(
                (_MOTION.rooted_half - np.abs(along - 0.5)) / _MOTION.rooted_over, 0.0, 1.0
            )
        px, py = px.astype(np.float32), py.astype(np.float32)
        weight = cv2.remap(self.weight, px - x0 - 0.5, py - y0 - 0.5, cv2.INTER_LINEAR, borderValue=0.0)
        hair = cv2.remap(photo, px - 0.5, py - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        area = canvas[box[1] : box[3], box[0] : box[2]]
        area += weight[..., None] * (hair - area)


def find_hair(
    photo: Array, mouth: Opening, landmarks: NDArray[np.floating], skin_luminance: float
) -> LipHair | None:
    """Find a moustache: the band between nose and mouth is much darker than the cheeks, on both sides.

    Args:
        photo: ``[W,W,3]`` float32, 0..255.
        mouth: the inner lips' landmarks in it.
        landmarks: ``[478,2]`` in its pixels.
        skin_luminance: the cheeks', 0..255.

    Returns:
        The hair, or ``None`` where the lip is bare.
    """
    nose = float(mouth.local(*landmarks[_NOSE].astype(np.float32)[:, None])[1][0])
    if nose > -_HAIR.min_room * mouth.width:
        return None
    corners = np.stack(mouth.position(np.array([0, 1], np.float32), np.zeros(2, np.float32)), 1)
    reach = (_HAIR.beside + _HAIR.side_over) * mouth.width
    box = window(np.concatenate([corners, landmarks[[_NOSE]]]), reach, len(photo))
    x0, y0, x1, y1 = box
    pixels = mouth.pixels(*pixel_grid(box))
    height, upper, lower = pixels.height, pixels.upper, pixels.lower
    luminance = photo[y0:y1, x0:x1].mean(-1)
    band = (height > _HAIR.band_top * nose) & (height < upper - _HAIR.band_bottom * mouth.width)
    halves = [band & (np.abs(pixels.along - middle) < _HAIR.half) for middle in _HAIR.halves]
    levels = [float(np.median(luminance[half])) for half in halves if half.any()]
    if len(levels) < 2 or max(levels) >= _HAIR.dark * skin_luminance:
        return None
    dark = float(np.mean(levels))
    middle = np.clip(pixels.to_corner / _HAIR.ends, 0.0, 1.0)
    bottom = (upper + lower) / 2 + (_HAIR.over_lip * middle + _HAIR.below * (1 - middle)) * mouth.width
    inside = np.clip((height - _HAIR.top * nose) / (-_HAIR.top_over * nose), 0, 1)
    inside *= np.clip((bottom - height) / (_HAIR.bottom_over * mouth.width) + 0.5, 0, 1)
    inside *= np.clip((pixels.to_corner + _HAIR.beside) / _HAIR.side_over, 0, 1)
    # dark, or between dark strands
    k = 2 * round(_HAIR.strand * mouth.width) + 1
    strands = cv2.GaussianBlur(luminance, (0, 0), _HAIR.blur * mouth.width + _HAIR.blur_px)
    strands = cv2.morphologyEx(strands, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (k, k)))
    contrast = skin_luminance - dark
    hair = np.clip((dark + _HAIR.edge * contrast - strands) / (_HAIR.edge_over * contrast) + 0.5, 0, 1)
    return LipHair((hair * inside).astype(np.float32), box, nose)
