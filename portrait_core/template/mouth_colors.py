"""The colours behind a portrait's lips, estimated from the colours that the picture has.

A colour here is a luminance (mean of the channels) times a chromaticity ``[3]`` (colour over luminance). Lips
differ from skin by a shift of chromaticity that is zero in a grey or sepia picture and small in a faded one;
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
    """Look of mouths beside skin and lips; luminances are shares of the skin's."""

    tooth: float = 1.16
    """Luminance of teeth."""
    tooth_of_sclera: float = 1.20
    """Luminance of teeth over that of the whites of the eyes, which lie in the lids' shade."""
    min_tooth_of_sclera: float = 0.85
    """Smallest luminance that the whites of the eyes suggest."""
    min_tooth: float = 1.10
    max_tooth: float = 1.55
    """Smallest and largest luminance of teeth."""
    of_highlight: float = 0.97
    """Largest luminance of teeth, over that of the picture's highlights."""
    tooth_tint: float = 0.30
    """Share of the skin's chromaticity that teeth take on where the picture has colours of its own."""
    tooth_warmth: tuple[float, float, float] = (0.045, 0.015, -0.06)
    """Chromaticity of teeth over that of white, there."""
    tongue: float = 0.66
    gum: float = 0.72
    """Luminances of tongue and gums."""
    tongue_of_tooth: float = 0.75
    """Largest luminance of the tongue over that of the teeth in front of it."""
    dark: float = 0.045
    """Luminance of the mouth's depth, unless the picture's own darkest places are lighter."""
    max_dark: float = 0.12
    """Largest luminance of the mouth's depth in a picture that has dark places: networks take an opening that
    is no darker than the shadows of the face for lips."""
    dark_of_shadow: float = 0.3
    """Luminance of the mouth's depth over that of the face's darkest parts."""
    max_faded: float = 0.34
    """Largest luminance of the mouth's depth, where even the darkest places of a picture are light."""
    dark_saturation: float = 1.25
    """Largest saturation of the mouth's depth over that of gums: depth is redder, where there is red at
    all."""
    tongue_shift: float = 1.25
    gum_shift: float = 1.15
    dark_shift: float = 1.5
    """Shifts of chromaticity from the skin, in those of the lips."""
    min_shift: tuple[float, float, float] = (0.18, -0.10, -0.05)
    """Shift of the lips' chromaticity in a coloured picture whose lips are as pale as its skin."""
    max_shift: float = 0.45
    """Largest shift of the lips' chromaticity."""
    min_measured: float = 0.75
    """Smallest luminance of teeth that are measured in the photograph, over the likely one."""
    max_measured: tuple[float, float] = (1.4, 0.06)
    """Largest saturation of measured teeth: a multiple of the likely one, and a part that is added."""
    measured_percentile: float = 70
    """Percentile of their luminance from which on measured pixels count: gaps between teeth and shaded sides
    are drawn again."""
    saturation: float = 1.10
    """Largest saturation, over the largest that lips and skin have."""
    min_chroma: float = 0.05
    """Smallest channel of a chromaticity."""


_LOOK = _Look()


@dataclass(frozen=True)
class _Monochrome:
    """Telling pictures of one colour from others."""

    side_px: int = 48
    """Side that the picture is reduced to."""
    min_luminance: float = 24.0
    """Luminance in grey levels from which on a pixel's chromaticity counts."""
    min_pixels: int = 48
    """Fewest such pixels."""
    percentile: float = 90
    """Percentile of the chromaticities' distances from a curve over luminance."""
    spread: float = 0.02
    spread_over: float = 0.03
    """Distance at which a picture begins to have colours, and the further distance until it surely has."""


@dataclass(frozen=True)
class _Sclera:
    """Measurement of the whites of the eyes."""

    iris: float = 1.2
    """Radius around the iris that does not count, in radii of the iris."""
    inside: float = 0.95
    """Coverage of a pixel that lies in the eye's opening."""
    min_pixels: int = 24
    """Fewest pixels to measure from."""
    percentile: float = 75
    """Percentile of their luminance."""


_GRAY, _SCLERA = _Monochrome(), _Sclera()


@dataclass(frozen=True)
class MouthPalette:
    """Colours ``[3]``, 0..255."""

    tooth: Image
    gum: Image
    tongue: Image
    dark: Image
    """Colour of the mouth's depth."""
    teeth_seen: bool
    """True if the photograph shows teeth, from which their colour is taken."""

    @classmethod
    def estimate(cls, texture: PortraitTexture, teeth: Image) -> MouthPalette:
        """Estimate the colours from the picture.

        Args:
            texture: the portrait, taken apart.
            teeth: certainty ``[W,W]`` in 0..1 that a pixel of the photograph is tooth.
        """
        light = float(texture.skin_color.mean())
        skin = texture.skin_color / max(light, 1.0)
        toned = monochrome(texture.photo)
        shift = _lip_shift(texture, skin, toned)
        limit = _LOOK.saturation * max(_saturation(texture.skin_color), texture.lip_saturation)

        def flesh(share: float, shifts: float, more: float = 1.0) -> Image:
            chroma = np.maximum(skin + shifts * shift, _LOOK.min_chroma)
            # flesh is never purple
            chroma[2] += (1.0 - toned) * min(chroma[1] - chroma[2], 0.0)
            color = share * light * chroma
            return bounded(color * (share * light / max(float(color.mean()), 1e-3)), more * limit)

        dark = np.clip(_LOOK.dark_of_shadow * texture.shadow / max(light, 1.0), _LOOK.dark, _LOOK.max_dark)
        dark = max(dark, min(texture.black / max(light, 1.0), _LOOK.max_faded))
        likely = _likely_tooth(texture, skin, toned)
        measured = _measured_tooth(texture, teeth, likely)
        tooth = likely if measured is None else measured
        tongue = min(_LOOK.tongue, _LOOK.tongue_of_tooth * float(tooth.mean()) / max(light, 1.0))
        return cls(
            tooth=tooth.astype(np.float32),
            gum=flesh(_LOOK.gum, _LOOK.gum_shift).astype(np.float32),
            tongue=flesh(tongue, _LOOK.tongue_shift).astype(np.float32),
            dark=flesh(float(dark), _LOOK.dark_shift, _LOOK.dark_saturation).astype(np.float32),
            teeth_seen=measured is not None,
        )


def bounded(color: Image, saturation: float) -> Image:
    """Limit the saturation of a colour ``[3]`` at the same luminance.

    Saturation is the largest less the smallest channel, over the largest.
    """
    gray, spread = float(color.mean()), float(color.max() - color.min())
    if spread <= saturation * float(color.max()):
        return color
    # the factor k for which k * spread = saturation * (gray + k * (max - gray))
    k = saturation * gray / max(spread - saturation * (float(color.max()) - gray), 1e-6)
    return np.asarray(gray + min(k, 1.0) * (color - gray))


def monochrome(photo: Image) -> float:
    """Return the certainty, 0..1, that a picture ``[W,W,3]`` has one colour only (black and white, sepia).

    The chromaticity of such a picture depends on nothing but its luminance.
    """
    small = cv2.resize(photo, (_GRAY.side_px, _GRAY.side_px), interpolation=cv2.INTER_AREA).reshape(-1, 3)
    luminance = small.mean(1)
    lit = luminance > _GRAY.min_luminance
    if lit.sum() < _GRAY.min_pixels:
        return 0.0
    chroma = small[lit] / luminance[lit, None]
    x = luminance[lit] / 255.0
    basis = np.stack([np.ones_like(x), x, x * x], 1)
    left = chroma - basis @ np.linalg.lstsq(basis, chroma, rcond=None)[0]
    spread = float(np.percentile(np.abs(left).max(1), _GRAY.percentile))
    return float(1.0 - eased(np.asarray((spread - _GRAY.spread) / _GRAY.spread_over)))


def _saturation(color: Image) -> float:
    return float((color.max() - color.min()) / max(float(color.max()), 1.0))


def _lip_shift(texture: PortraitTexture, skin: Image, toned: float) -> Image:
    """Return the difference ``[3]`` of chromaticity between lips and skin."""
    shift = texture.lip_color / max(float(texture.lip_color.mean()), 1.0) - skin
    smallest = (1.0 - toned) * np.array(_LOOK.min_shift)
    # bluish lips have no blue tongue behind them
    warm = np.array(
        [max(shift[0], smallest[0]), min(shift[1], smallest[1]), min(shift[2], shift[1] / 3, smallest[2])]
    )
    shift = warm * (1.0 - toned) + shift * toned
    size = float(np.abs(shift).max())
    return np.asarray(shift * min(1.0, _LOOK.max_shift / max(size, 1e-6)))


def _likely_tooth(texture: PortraitTexture, skin: Image, toned: float) -> Image:
    """Return the likely colour ``[3]`` of teeth in the picture's light.

    It is as bright as the whites of the eyes suggest, and between white and the skin in colour, which is
    slightly warm.
    """
    light = max(float(texture.skin_color.mean()), texture.mouth_light)
    luminance = _LOOK.tooth * light
    sclera = _sclera_luminance(texture)
    if sclera is not None:
        seen = np.clip(
            _LOOK.tooth_of_sclera * sclera, _LOOK.min_tooth_of_sclera * light, _LOOK.max_tooth * light
        )
        luminance = 0.5 * luminance + 0.5 * float(seen)
    luminance = max(luminance, _LOOK.min_tooth * light)
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
    """Measure the luminance of the whites of the eyes; None where too little of them is visible."""
    whites: list[NDArray[Any]] = []
    for eye in texture.eyes:
        x0, y0, x1, y1 = eye.window
        x, y = pixel_grid(eye.window)
        away = np.hypot(x - eye.iris_center[0], y - eye.iris_center[1]) > _SCLERA.iris * eye.iris_radius
        whites.append(
            texture.photo[y0:y1, x0:x1][away & (eye.opening.coverage(x, y) > _SCLERA.inside)].mean(-1)
        )
    values = np.concatenate(whites)
    return float(np.percentile(values, _SCLERA.percentile)) if len(values) >= _SCLERA.min_pixels else None


def _measured_tooth(texture: PortraitTexture, teeth: Image, likely: Image) -> Image | None:
    """Measure the colour ``[3]`` of the teeth that the photograph shows.

    None where it surely shows none, or where their colour would be far from the ``likely`` one (gleams on wet
    lips, a tongue).
    """
    sure = teeth > 0.5
    if not sure.any():
        return None
    color = texture.photo[sure]
    luminance = color.mean(1)
    tooth = np.asarray(
        np.median(color[luminance >= np.percentile(luminance, _LOOK.measured_percentile)], axis=0)
    )
    times, more = _LOOK.max_measured
    pale = _saturation(tooth) <= times * _saturation(likely) + more
    return tooth if pale and tooth.mean() >= _LOOK.min_measured * likely.mean() else None
