"""The colours behind a portrait's lips, estimated from the colours that the picture has.

A colour here is a luminance (mean of the channels) times a chromaticity ``[3]`` (colour over luminance). Lips
differ from skin by a shift of chromaticity that is nought in a grey or sepia picture, small in a faded one;
tongue and gums are painted with multiples of it, so that they are never more colourful than the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.contours import pixel_grid
from portrait_core.face_model.easing import eased
from portrait_core.template.texture import Image, PortraitTexture


@dataclass(frozen=True)
class _Look:
    """What mouths look like beside skin and lips; luminances are shares of the skin's."""

    tooth: float = 1.16
    tooth_of_sclera: float = 1.20
    """Luminance of teeth over that of the whites of the eyes, which lie in the lids' shade."""
    least_tooth: float = 1.10
    most_tooth: float = 1.55
    of_highlight: float = 0.97
    """Most luminance of teeth over that of the picture's highlights."""
    tooth_tint: float = 0.30
    """Share of the skin's chromaticity that teeth take on where the picture has colours of its own."""
    tooth_warmth: tuple[float, float, float] = (0.045, 0.015, -0.06)
    """Chromaticity of teeth over that of white, there."""
    tongue: float = 0.66
    gum: float = 0.72
    dark: float = 0.13
    """Luminance of the mouth's depth, unless the picture's own darkest places are lighter."""
    most_dark: float = 0.34
    tongue_shift: float = 1.25
    gum_shift: float = 1.15
    dark_shift: float = 1.5
    """Shifts of chromaticity from the skin, in those of the lips."""
    least_shift: tuple[float, float, float] = (0.18, -0.10, -0.05)
    """Shift of the lips' chromaticity in a coloured picture whose lips are as pale as its skin."""
    most_shift: float = 0.45
    least_measured: float = 0.75
    """Least luminance of what is taken for teeth in the photograph, over the likely one."""
    most_measured: tuple[float, float] = (1.4, 0.06)
    """Most saturation of it: a multiple of the likely one and something more."""
    saturation: float = 1.10
    """Most saturation over the largest that lips and skin have."""


_LOOK = _Look()
_EYE_PIXELS = 24
"""Least number of pixels to measure the whites of the eyes from."""


@dataclass(frozen=True)
class MouthPalette:
    """Colours ``[3]``, 0..255."""

    tooth: Image
    gum: Image
    tongue: Image
    dark: Image
    """The mouth's depth."""
    teeth_seen: bool
    """Whether the photograph shows teeth, from which their colour is taken."""

    @classmethod
    def estimate(cls, texture: PortraitTexture, teeth: Image) -> MouthPalette:
        """Estimate from the picture.

        Args:
            texture: the portrait, taken apart.
            teeth: how much each pixel ``[W,W]`` of the photograph is surely tooth, 0..1.
        """
        light = float(texture.skin_color.mean())
        skin = texture.skin_color / max(light, 1.0)
        toned = monochrome(texture.photo)
        shift = _lip_shift(texture, skin, toned)
        most = _LOOK.saturation * max(_saturation(texture.skin_color), texture.lip_saturation)

        def flesh(share: float, shifts: float, more: float = 1.0) -> Image:
            chroma = np.maximum(skin + shifts * shift, 0.05)
            # flesh is never purple
            chroma[2] += (1.0 - toned) * min(chroma[1] - chroma[2], 0.0)
            color = share * light * chroma
            return bounded(color * (share * light / max(float(color.mean()), 1e-3)), more * most)

        dark = np.clip(0.9 * texture.shadow / max(light, 1.0), _LOOK.dark, _LOOK.most_dark)
        likely = _likely_tooth(texture, skin, toned)
        measured = _measured_tooth(texture, teeth, likely)
        tooth = likely if measured is None else measured
        # the tongue is never as bright as the teeth in front of it
        tongue = min(_LOOK.tongue, 0.75 * float(tooth.mean()) / max(light, 1.0))
        return cls(
            tooth=tooth.astype(np.float32),
            gum=flesh(_LOOK.gum, _LOOK.gum_shift).astype(np.float32),
            tongue=flesh(tongue, _LOOK.tongue_shift).astype(np.float32),
            # depth is redder than what the light falls on, where there is red at all
            dark=flesh(float(dark), _LOOK.dark_shift, 1.25).astype(np.float32),
            teeth_seen=measured is not None,
        )


def bounded(color: Image, saturation: float) -> Image:
    """Give a colour ``[3]`` no more saturation (largest less smallest channel, over the largest) than told,
    at the same luminance.
    """
    gray, spread = float(color.mean()), float(color.max() - color.min())
    if spread <= saturation * float(color.max()):
        return color
    # the factor k for which k * spread = saturation * (gray + k * (max - gray))
    k = saturation * gray / max(spread - saturation * (float(color.max()) - gray), 1e-6)
    return np.asarray(gray + min(k, 1.0) * (color - gray))


def monochrome(photo: Image) -> float:
    """How surely a picture ``[W,W,3]`` has one colour only (black and white, sepia), 0..1: whether its
    chromaticity depends on nothing but its luminance.
    """
    small = cv2.resize(photo, (48, 48), interpolation=cv2.INTER_AREA).reshape(-1, 3)
    luminance = small.mean(1)
    lit = luminance > 24.0
    if lit.sum() < 48:
        return 0.0
    chroma = small[lit] / luminance[lit, None]
    x = luminance[lit] / 255.0
    basis = np.stack([np.ones_like(x), x, x * x], 1)
    left = chroma - basis @ np.linalg.lstsq(basis, chroma, rcond=None)[0]
    spread = float(np.percentile(np.abs(left).max(1), 90))
    return float(1.0 - eased(np.asarray((spread - 0.02) / 0.03)))


def _saturation(color: Image) -> float:
    return float((color.max() - color.min()) / max(float(color.max()), 1.0))


def _lip_shift(texture: PortraitTexture, skin: Image, toned: float) -> Image:
    """Difference ``[3]`` of chromaticity between lips and skin."""
    shift = texture.lip_color / max(float(texture.lip_color.mean()), 1.0) - skin
    least = (1.0 - toned) * np.array(_LOOK.least_shift)
    # bluish lips have no blue tongue behind them
    warm = np.array([max(shift[0], least[0]), min(shift[1], least[1]), min(shift[2], shift[1] / 3, least[2])])
    shift = warm * (1.0 - toned) + shift * toned
    size = float(np.abs(shift).max())
    return np.asarray(shift * min(1.0, _LOOK.most_shift / max(size, 1e-6)))


def _likely_tooth(texture: PortraitTexture, skin: Image, toned: float) -> Image:
    """Colour ``[3]`` of teeth in the picture's light: as bright as the whites of its eyes suggest, and
    between white and the skin in colour, which is slightly warm.
    """
    light = max(float(texture.skin_color.mean()), texture.mouth_light)
    luminance = _LOOK.tooth * light
    sclera = _sclera_luminance(texture)
    if sclera is not None:
        seen = np.clip(_LOOK.tooth_of_sclera * sclera, 0.85 * light, _LOOK.most_tooth * light)
        luminance = 0.5 * luminance + 0.5 * float(seen)
    luminance = max(luminance, _LOOK.least_tooth * light)
    tint = _LOOK.tooth_tint + (1.0 - _LOOK.tooth_tint) * toned
    chroma = 1.0 + tint * (skin - 1.0) + (1.0 - toned) * np.array(_LOOK.tooth_warmth)
    if toned < 1.0:
        # a cold or green cast of the picture tints teeth less than a warm one
        chroma[1] = min(chroma[1], (1.0 - toned) * max(chroma[0], chroma[2]) + toned * chroma[1])
    color = luminance * chroma / float(chroma.mean())
    return np.asarray(
        color * min(1.0, _LOOK.of_highlight * texture.highlight / max(float(color.mean()), 1.0))
    )


def _sclera_luminance(texture: PortraitTexture) -> float | None:
    """Luminance of the whites of the eyes; ``None`` where too little is seen of them."""
    found: list[NDArray[Any]] = []
    for eye in texture.eyes:
        x0, y0, x1, y1 = eye.window
        x, y = pixel_grid(eye.window)
        away = np.hypot(x - eye.iris_center[0], y - eye.iris_center[1]) > 1.2 * eye.iris_radius
        found.append(texture.photo[y0:y1, x0:x1][away & (eye.opening.coverage(x, y) > 0.95)].mean(-1))
    values = np.concatenate(found)
    return float(np.percentile(values, 75)) if len(values) >= _EYE_PIXELS else None


def _measured_tooth(texture: PortraitTexture, teeth: Image, likely: Image) -> Image | None:
    """Colour ``[3]`` of the teeth that the photograph shows; ``None`` where it does not surely show any, or
    what it shows is far from the ``likely`` colour (gleams on wet lips, a tongue).
    """
    sure = teeth > 0.5
    if not sure.any():
        return None
    color = texture.photo[sure]
    luminance = color.mean(1)
    # the gaps between teeth and their shaded sides are drawn again
    tooth = np.asarray(np.median(color[luminance >= np.percentile(luminance, 70)], axis=0))
    times, more = _LOOK.most_measured
    pale = _saturation(tooth) <= times * _saturation(likely) + more
    return tooth if pale and tooth.mean() >= _LOOK.least_measured * likely.mean() else None
