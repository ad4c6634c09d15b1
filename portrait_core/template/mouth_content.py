"""Colours between the lips: the drawn interior in the picture's light, and the photograph's own.

What the photograph itself shows between its lips is kept: its upper teeth, and the rest as long as the lips
are near where the photograph has them. The remainder is drawn (:mod:`portrait_core.template.mouth_interior`),
with as much light in it as the driver's mouth shows, where that tells.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from portrait_core.face_model.contours import LocalPixels
from portrait_core.face_model.easing import eased
from portrait_core.template.mouth_colors import MouthPalette
from portrait_core.template.mouth_interior import InteriorView
from portrait_core.template.texture import Image, PortraitTexture, sample
from portrait_core.tracking.mouth_inside import ToldMouth


@dataclass(frozen=True)
class _Kept:
    """Keeping of what the photograph shows between its lips; lengths in mouth widths."""

    min_near: float = 0.01
    """Nearness to the photograph's opening below which nothing but teeth is kept."""
    teeth_moved: float = 0.06
    """Motion of the upper teeth over which all of it gives way."""


@dataclass(frozen=True)
class _Light:
    """Light behind the lips: shares of the light on the skin, lengths in mouth widths."""

    blur_px: float = 0.4
    blur: float = 0.004
    """Deviation of the blur of the drawn interior, in pixels and in mouth widths; the two are added."""
    upper_shade: float = 0.22
    lower_shade: float = 0.12
    """Light that the interior loses next to the upper and the lower lip."""
    upper_reach: float = 0.035
    lower_reach: float = 0.025
    """Reach of these shades."""
    slit: float = 0.35
    """Light that enters through a slit."""
    wide_gap: float = 0.16
    """Mean gap from which on all light enters."""
    lit_from: float = 0.04
    lit_over: float = 0.12
    """Mean gap at which teeth begin to be lit, and the further gap until they are; they stand right behind
    the lips and are lit sooner than the depth."""
    cavity: float = 0.18
    """Light behind the teeth under the upper lip and beside the corners. Light falls in from above and in
    front, on the tongue on the mouth's floor."""
    floor_from: float = 0.15
    floor_over: float = 0.65
    """Share of the opening's height at which the floor's light begins, and the share over which it grows."""
    floor_sides: float = 0.35
    """Distance from the corners over which the floor's light grows, as a share of the chord."""
    parted: float = 0.06
    parted_offset: float = 0.25
    """Gap over which the interior takes the place of the lips' line, and the part of it that does not count:
    through a thin slit one sees the line."""
    max_side: float = 0.5
    """Largest difference of the light between the corners, over its mean."""


@dataclass(frozen=True)
class _ToldLight:
    """The inside of the mouth as light as the driver's."""

    upper_reach: float = 0.12
    lower_reach: float = 0.10
    """Reach of the dark beside the upper and the lower lip, in mouth widths, finer than what is told. A
    tongue is round and lies behind the lips; one that is light up to them is taken for a lip by landmark
    networks where lips do not stand out."""
    depth: float = 0.2
    tongue: float = 0.8
    """Lightness over the skin's of the depth, and of a tongue in full light."""
    under_hair: float = 0.5
    """Share of the light that is left in the shade of a moustache."""
    form: float = 0.25
    """Share of the light that depends on the drawn forms."""
    finer: int = 8
    """Factor by which the told light is made finer, along a smooth surface."""


@dataclass(frozen=True)
class _KeptTeeth:
    """Keeping of the photograph's upper teeth; lengths in mouth widths."""

    soft: float = 0.02
    soft_px: float = 0.7
    """Width of the soft lower edge, in mouth widths and in pixels; the two are added."""
    shaded: float = 2.0
    """Height of the row under the photograph's lip from which crowns are continued, in soft edges."""
    above: float = 0.12
    """Height above the photograph's lip over which continued crowns fade."""
    ends: float = 0.03
    """Length of the chord at the corners over which teeth fade, as a share."""


@dataclass(frozen=True)
class _SideLight:
    """Measurement of the light beside the mouth's corners; lengths in mouth widths."""

    along: tuple[float, ...] = (0.1, 0.3, 0.7, 0.9)
    """Places along the chord."""
    below: float = 0.3
    """Distance of the places below the lower lip's edge."""
    blur: float = 0.06
    blur_px: float = 0.5
    """Deviation of the blur, in mouth widths and in pixels; the two are added."""


_KEPT, _LIGHT, _TOLD, _TEETH, _SIDE = _Kept(), _Light(), _ToldLight(), _KeptTeeth(), _SideLight()


class MouthContent:
    """Colours of one portrait's mouth between the lips."""

    def __init__(self, texture: PortraitTexture, palette: MouthPalette, teeth: Image) -> None:
        """Prepare the colours.

        Args:
            texture: the portrait, taken apart.
            palette: of the mouth interior.
            teeth: certainty ``[W,W]`` in 0..1 that a pixel of the photograph is a tooth of the upper row.
        """
        self.texture, self.palette = texture, palette
        self._teeth = teeth if palette.teeth_seen else None
        self._side_light = _side_light(texture)

    def colors(
        self,
        interior: InteriorView | None,
        place: tuple[Image, Image],
        pixels: LocalPixels,
        mean_gap_px: float,
        near: float,
    ) -> Image:
        """Return the colours ``[h,w,3]`` of a window, as if there were no lips.

        Args:
            interior: the drawn interior; None where the opening is too low for one.
            place: the window's pixels ``(x, y)``, each ``[h,w]``.
            pixels: the same in the opening's coordinates.
            mean_gap_px: height of the opening.
            near: nearness of the opening to the photograph's, 0..1.
        """
        colors = self._drawn(interior, pixels, mean_gap_px)
        if self.texture.lips_meet:
            return colors
        drop_px = 0.0 if interior is None else interior.upper_drop_px
        return self._keep_photo(colors, place, pixels, near, drop_px)

    def _drawn(self, interior: InteriorView | None, pixels: LocalPixels, mean_gap_px: float) -> Image:
        """Return the colours ``[h,w,3]`` of the interior in the picture's light, shaded by the lips."""
        dark = self.palette.dark
        if interior is None:
            line = np.asarray(self.texture.lip_line, np.float32)
            return np.broadcast_to(line, (*pixels.along.shape, 3)).copy()
        width, below_upper, above_lower = pixels.width, pixels.below_upper, pixels.above_lower
        sigma = _LIGHT.blur_px + _LIGHT.blur * width
        teeth = cv2.GaussianBlur(interior.teeth, (0, 0), sigma)
        top = 1.0 - _LIGHT.upper_shade * np.exp(-np.maximum(below_upper, 0) / (_LIGHT.upper_reach * width))
        bottom = 1.0 - _LIGHT.lower_shade * np.exp(-np.maximum(above_lower, 0) / (_LIGHT.lower_reach * width))
        gap = mean_gap_px / width
        opened = np.clip(gap / _LIGHT.wide_gap, 0.0, 1.0)
        slit = _LIGHT.slit + (1.0 - _LIGHT.slit) * opened
        shown = float(eased(np.asarray((gap - _LIGHT.lit_from) / _LIGHT.lit_over)))
        lit = _LIGHT.slit + (1.0 - _LIGHT.slit) * shown
        share = below_upper / np.maximum(below_upper + above_lower, 1.0)
        floor = eased((share - _LIGHT.floor_from) / _LIGHT.floor_over)
        floor = floor * eased(pixels.to_corner / _LIGHT.floor_sides)
        deep = slit * (_LIGHT.cavity + (1.0 - _LIGHT.cavity) * floor)
        light = (deep + teeth * (np.maximum(lit, deep) - deep)) * top * bottom
        light *= 1.0 + self._side_light * (np.clip(pixels.along, 0.0, 1.0) - 0.5)
        smooth = cv2.GaussianBlur(interior.color, (0, 0), sigma)
        color = dark + (smooth - dark) * light[..., None]
        if interior.told is not None:
            soft = interior.told.certain * (1.0 - teeth)[..., None]
            told = self._told_colors(interior.told, smooth, share, pixels)
            color = color + soft * (told - color)
        parted = (below_upper + above_lower) / (_LIGHT.parted * width) - _LIGHT.parted_offset
        line = self.texture.lip_line
        return np.asarray(line + eased(parted)[..., None] * (color - line), np.float32)

    def _told_colors(self, told: ToldMouth, drawn: Image, share: Image, pixels: LocalPixels) -> Image:
        """Return what is no tooth ``[h,w,3]`` as light as in the driver's mouth: from the depth to a tongue.

        Args:
            told: what the driver's mouth shows.
            drawn: the interior as its geometry has it ``[h,w,3]``, which gives the shading of its forms.
            share: place between the upper lip, 0, and the lower one, 1 ``[h,w]``.
            pixels: the window's.
        """
        palette = self.palette
        fine = cv2.resize(told.light, None, fx=_TOLD.finer, fy=_TOLD.finer, interpolation=cv2.INTER_CUBIC)
        rows, columns = fine.shape
        x, y = (np.clip(pixels.along, 0, 1) * columns, np.clip(share, 0, 1) * rows)
        level = sample(fine, x.astype(np.float32), y.astype(np.float32), cv2.BORDER_REPLICATE)
        flesh = np.clip((level - _TOLD.depth) / (_TOLD.tongue - _TOLD.depth), 0.0, 1.0)
        dark, tongue = (float(color.mean()) for color in (palette.dark, palette.tongue))
        form = np.clip((drawn.mean(-1) - dark) / max(tongue - dark, 1.0), 0.0, 1.0)
        flesh = flesh * (1.0 - _TOLD.form + _TOLD.form * form)
        if self.texture.hair is not None:
            flesh = flesh * _TOLD.under_hair
        for away, reach in (
            (pixels.below_upper, _TOLD.upper_reach),
            (pixels.above_lower, _TOLD.lower_reach),
        ):
            flesh = flesh * (1.0 - np.exp(-np.maximum(away, 0.0) / (reach * pixels.width)))
        return np.asarray(palette.dark + flesh[..., None] * (palette.tongue - palette.dark))

    def _keep_photo(
        self,
        colors: Image,
        place: tuple[Image, Image],
        pixels: LocalPixels,
        near: float,
        drop_px: float,
    ) -> Image:
        """Lay the interior that the photograph shows over ``colors [h,w,3]``.

        Its upper teeth are ``drop_px`` lower than in the photograph, as the driver's mouth shows them.
        """
        texture, source = self.texture, self.texture.mouth
        if near > _KEPT.min_near:
            source_upper, source_lower = source.edges(pixels.along)
            share = pixels.below_upper / np.maximum(pixels.gap, 0.5)
            beyond = np.minimum(share, 0.0) * pixels.gap + np.maximum(share - 1.0, 0.0) * pixels.gap
            carried = source_upper + np.clip(share, 0.0, 1.0) * (source_lower - source_upper) + beyond
            photo = sample(texture.photo, *source.position(pixels.along, carried))
            alike = near * float(np.exp(-((drop_px / (_KEPT.teeth_moved * source.width)) ** 2)))
            colors = colors + alike * (photo - colors)
        x, y = place
        axis = pixels.axis
        return self._keep_photo_teeth(colors, x + drop_px * axis[1], y - drop_px * axis[0], near)

    def _keep_photo_teeth(self, colors: Image, x: Image, y: Image, near: float) -> Image:
        """Lay the photograph's upper teeth over ``colors [h,w,3]`` where it has them: at pixels ``x, y``."""
        if self._teeth is None:
            return colors
        source = self.texture.mouth
        soft = source.width * _TEETH.soft + _TEETH.soft_px
        own = source.pixels(x, y)
        # a lip that rises shows more of the same teeth: their crowns go on from a row a little under the
        # photograph's lip, out of its shade
        row = np.minimum(own.upper + (1.0 - near) * _TEETH.shaded * soft, (own.upper + own.lower) / 2)
        place = source.position(own.along, np.maximum(own.height, row) if near < 1.0 else own.height)
        photo, teeth = sample(self.texture.photo, *place), sample(self._teeth, *place)
        above = eased(own.below_upper / (_TEETH.above * source.width) + 1.0)
        keep = eased(own.above_lower / soft + 0.5) * above
        keep *= eased(own.to_corner / _TEETH.ends + 0.5)
        return np.asarray(colors + (keep * teeth)[..., None] * (photo - colors))


def _side_light(texture: PortraitTexture) -> float:
    """Measure the difference of the light between the mouth's corners (right less left), over its mean."""
    mouth = texture.mouth
    along = np.array(_SIDE.along, np.float32)
    _, lower = mouth.edges(along)
    soft = cv2.GaussianBlur(texture.skin.mean(-1), (0, 0), _SIDE.blur * mouth.width + _SIDE.blur_px)
    light = sample(soft, *mouth.position(along, lower + _SIDE.below * mouth.width)).reshape(-1)
    slope = float(np.polyfit(along, light, 1)[0]) / max(float(light.mean()), 1.0)
    return float(np.clip(slope, -_LIGHT.max_side, _LIGHT.max_side))
