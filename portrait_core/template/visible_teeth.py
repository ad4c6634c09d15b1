"""The teeth that a photograph shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from portrait_core.face_model.contours import MIDDLE_HALF, pixel_grid
from portrait_core.face_model.easing import eased
from portrait_core.template.lip_line import smoothest_path
from portrait_core.template.texture import Image, PortraitTexture


@dataclass(frozen=True)
class _TeethLook:
    """Differences of teeth from lips, tongue and the depth between them."""

    red: float = 0.35
    """Redness, 0 as the skin's and 1 as the lips', up to which something may be tooth."""
    saturation: float = 0.80
    """Largest saturation, over the lips'."""
    bright: float = 0.80
    """Smallest luminance in a coloured picture, over the lips'."""
    bright_gray: float = 1.05
    """Smallest luminance where no colours tell teeth from lips, over the lips'."""
    red_over: float = 0.5
    saturation_over: float = 0.15
    bright_over: float = 0.30
    """Redness, saturation and luminance over which likeness fades or grows, in the same units."""
    colored: float = 0.08
    """Difference of chromaticity between lips and skin from which on colours count in full."""
    max_crown_m: float = 0.0110
    """Largest height of the upper teeth that shows, in metres; brightness below them is the lower row."""
    min_crown_m: float = 0.0035
    """Smallest height of the upper teeth that shows, in metres."""
    min_pixels: int = 24
    min_share: float = 0.08
    """Smallest number of tooth pixels, and smallest share of the opening, for there to be teeth."""
    inside: float = 0.9
    """Coverage of a pixel that lies in the opening."""
    closing: float = 0.04
    """Half width of the dark gaps between teeth, in mouth widths."""
    middle: float = 0.15
    """Half length of the chord's middle, as a share, over which the shown height is measured."""
    bite_soft_m: float = 0.0008
    """Height over which the upper row's lower edge is soft, in metres."""
    valley_m: float = 0.0015
    """Distance above and below the biting edge of the rows that it is compared with, in metres."""
    min_valley: float = 0.03
    """Smallest mean darkness of the biting edge, over the lips' luminance."""


_TEETH = _TeethLook()


class VisibleTeeth(NamedTuple):
    """Weights ``[W,W]``, 0..1, of the photograph's pixels; all 0 where no teeth are surely seen."""

    sure: Image
    """Certainty that a pixel is tooth of either row."""
    upper: Image
    """Certainty that a pixel is tooth of the upper row or a dark gap between such teeth."""
    shown_px: float
    """Height of the upper row that shows, in pixels; 0 where none does."""


def find_teeth(texture: PortraitTexture, px_per_m: float) -> VisibleTeeth:
    """Find the teeth in a photograph: inside the lips, bright against them and without their redness.

    Args:
        texture: the portrait, taken apart.
        px_per_m: scale of the photograph at the mouth.
    """
    size = len(texture.photo)
    x, y = pixel_grid((0, 0, size, size))
    pixels = texture.mouth.pixels(x, y)
    inside = pixels.coverage() > _TEETH.inside
    out = np.zeros((size, size), np.float32)
    none = VisibleTeeth(out, out, 0.0)
    if texture.lips_meet or inside.sum() < _TEETH.min_pixels:
        return none
    out[inside] = _likeness(texture, texture.photo[inside])
    if (out > 0.5).sum() < max(_TEETH.min_pixels, _TEETH.min_share * float(inside.sum())):
        return none
    # the dark gaps between teeth belong to them
    k = 2 * round(_TEETH.closing * texture.mouth.width) + 1
    closed = cv2.morphologyEx(out, cv2.MORPH_CLOSE, np.ones((k, k), np.uint8))
    sure = cv2.GaussianBlur(closed * inside, (0, 0), 1.0)
    bite = np.interp(pixels.along, np.linspace(0, 1, len(texture.mouth.upper)), _bite(texture, px_per_m))
    upper = sure * eased((bite - pixels.height) / (_TEETH.bite_soft_m * px_per_m + 0.5) + 0.5)
    middle = inside & (np.abs(pixels.along - 0.5) < _TEETH.middle)
    shown = float((upper[middle] > 0.5).sum()) / max(2 * _TEETH.middle * texture.mouth.width, 1.0)
    return VisibleTeeth(sure, upper.astype(np.float32), shown)


def _likeness(texture: PortraitTexture, color: Image) -> Image:
    """Return the likeness ``[n]``, 0..1, of colours ``[n,3]`` to teeth."""
    luminance = color.mean(1)
    skin, lip = (c / max(float(c.mean()), 1.0) for c in (texture.skin_color, texture.lip_color))
    shift = lip - skin
    red = ((color / np.maximum(luminance, 1.0)[:, None] - skin) @ shift) / max(float(shift @ shift), 3e-3)
    pale = 1.0 - eased((red - _TEETH.red) / _TEETH.red_over)
    colored = eased(np.asarray(np.abs(shift).max() / _TEETH.colored))
    saturation = (color.max(1) - color.min(1)) / np.maximum(color.max(1), 1.0)
    over = saturation / max(texture.lip_saturation, 0.02) - _TEETH.saturation
    pale *= 1.0 - colored * eased(over / _TEETH.saturation_over + 0.5)
    darkest = _TEETH.bright_gray + float(colored) * (_TEETH.bright - _TEETH.bright_gray)
    level = float(texture.lip_color.mean())
    return np.asarray(pale * eased((luminance - darkest * level) / (_TEETH.bright_over * level + 1.0)))


def _bite(texture: PortraitTexture, px_per_m: float) -> Image:
    """Find the height ``[65]`` of the upper row's biting edge below the mouth's chord, in pixels.

    It is the darkest line across the bright part of the opening, at most as far below the upper lip as crowns
    reach, or else the lower lip.
    """
    mouth = texture.mouth
    u = np.linspace(0.0, 1.0, len(mouth.upper), dtype=np.float32)
    longest, shortest = _TEETH.max_crown_m * px_per_m, _TEETH.min_crown_m * px_per_m
    drop = np.linspace(shortest, longest + 2.0, 24, dtype=np.float32)[:, None]
    height = mouth.upper + drop
    px, py = mouth.position(np.broadcast_to(u, height.shape), height)
    soft = cv2.GaussianBlur(texture.photo.mean(-1), (0, 0), 0.7)
    seen = cv2.remap(soft, px - 0.5, py - 0.5, cv2.INTER_LINEAR)
    step = max(1, round(_TEETH.valley_m * px_per_m / float(drop[1, 0] - drop[0, 0])))
    padded = np.pad(seen, ((step, step), (0, 0)), mode="edge")
    valley = np.minimum(padded[: -2 * step], padded[2 * step :]) - seen
    valley = np.where(height < mouth.lower, valley, 0.0) / max(float(texture.lip_color.mean()), 1.0)
    row = smoothest_path(valley)
    depth = float(valley[row, np.arange(len(u))][MIDDLE_HALF].mean())
    edge = mouth.upper + (gaussian_filter1d(drop[row, 0], 1.0) if depth > _TEETH.min_valley else longest)
    return np.asarray(np.minimum(edge, mouth.lower))
