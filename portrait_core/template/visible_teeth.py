"""The teeth that a photograph shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from portrait_core.face_model.contours import pixel_grid
from portrait_core.face_model.easing import eased
from portrait_core.template.lip_line import smoothest_path
from portrait_core.template.texture import Image, PortraitTexture


@dataclass(frozen=True)
class _TeethLook:
    """What tells teeth from lips, tongue and the depth between them."""

    red: float = 0.35
    """Redness, 0 as the skin's and 1 as the lips', up to which something may be tooth."""
    saturation: float = 0.80
    """Most saturation over the lips'."""
    bright: float = 0.80
    """Least luminance over the lips', in a coloured picture."""
    bright_gray: float = 1.05
    """The same where no colours tell teeth from lips."""
    most_crown_m: float = 0.0110
    """Most height of the upper teeth that shows; what is bright below them is the lower row."""
    least_crown_m: float = 0.0035
    least_pixels: int = 24
    least_share: float = 0.08
    """Least number of tooth pixels, and least share of the opening, for there to be teeth."""


_TEETH = _TeethLook()


class VisibleTeeth(NamedTuple):
    """Weights ``[W,W]``, 0..1, of the photograph's pixels; all 0 where no teeth are surely seen."""

    sure: Image
    """How surely each pixel is tooth of either row."""
    upper: Image
    """The same of the upper row alone, with the dark gaps between its teeth."""
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
    inside = texture.mouth.coverage(x, y) > 0.9
    out = np.zeros((size, size), np.float32)
    none = VisibleTeeth(out, out, 0.0)
    if texture.lips_meet or inside.sum() < _TEETH.least_pixels:
        return none
    out[inside] = _likeness(texture, texture.photo[inside])
    if (out > 0.5).sum() < max(_TEETH.least_pixels, _TEETH.least_share * float(inside.sum())):
        return none
    # the dark gaps between teeth belong to them
    k = 2 * round(0.04 * texture.mouth.width) + 1
    closed = cv2.morphologyEx(out, cv2.MORPH_CLOSE, np.ones((k, k), np.uint8))
    sure = cv2.GaussianBlur(closed * inside, (0, 0), 1.0)
    along, height = texture.mouth.local(x, y)
    bite = np.interp(along, np.linspace(0, 1, len(texture.mouth.upper)), _bite(texture, px_per_m))
    upper = sure * eased((bite - height) / (0.0008 * px_per_m + 0.5) + 0.5)
    middle = inside & (np.abs(along - 0.5) < 0.15)
    shown = float((upper[middle] > 0.5).sum()) / max(0.3 * texture.mouth.width, 1.0)
    return VisibleTeeth(sure, upper.astype(np.float32), shown)


def _likeness(texture: PortraitTexture, color: Image) -> Image:
    """How like teeth colours ``[n,3]`` are, 0..1."""
    luminance = color.mean(1)
    skin, lip = (c / max(float(c.mean()), 1.0) for c in (texture.skin_color, texture.lip_color))
    shift = lip - skin
    red = ((color / np.maximum(luminance, 1.0)[:, None] - skin) @ shift) / max(float(shift @ shift), 3e-3)
    pale = 1.0 - eased((red - _TEETH.red) / 0.5)
    colored = eased(np.asarray(np.abs(shift).max() / 0.08))
    saturation = (color.max(1) - color.min(1)) / np.maximum(color.max(1), 1.0)
    over = saturation / max(texture.lip_saturation, 0.02) - _TEETH.saturation
    pale *= 1.0 - colored * eased(over / 0.15 + 0.5)
    least = _TEETH.bright_gray + float(colored) * (_TEETH.bright - _TEETH.bright_gray)
    level = float(texture.lip_color.mean())
    return np.asarray(pale * eased((luminance - least * level) / (0.30 * level + 1.0)))


def _bite(texture: PortraitTexture, px_per_m: float) -> Image:
    """Height ``[65]`` of the upper row's biting edge below the mouth's chord: the darkest line across the
    bright part of the opening, as far below the upper lip as crowns reach, or else the lower lip.
    """
    mouth = texture.mouth
    u = np.linspace(0.0, 1.0, len(mouth.upper), dtype=np.float32)
    most, least = _TEETH.most_crown_m * px_per_m, _TEETH.least_crown_m * px_per_m
    drop = np.linspace(least, most + 2.0, 24, dtype=np.float32)[:, None]
    height = mouth.upper + drop
    px, py = mouth.position(np.broadcast_to(u, height.shape), height)
    soft = cv2.GaussianBlur(texture.photo.mean(-1), (0, 0), 0.7)
    seen = cv2.remap(soft, px - 0.5, py - 0.5, cv2.INTER_LINEAR)
    step = max(1, round(0.0015 * px_per_m / float(drop[1, 0] - drop[0, 0])))
    padded = np.pad(seen, ((step, step), (0, 0)), mode="edge")
    valley = np.minimum(padded[: -2 * step], padded[2 * step :]) - seen
    valley = np.where(height < mouth.lower, valley, 0.0) / max(float(texture.lip_color.mean()), 1.0)
    row = smoothest_path(valley)
    depth = float(valley[row, np.arange(len(u))][16:49].mean())
    edge = mouth.upper + (gaussian_filter1d(drop[row, 0], 1.0) if depth > 0.03 else most)
    return np.asarray(np.minimum(edge, mouth.lower))
