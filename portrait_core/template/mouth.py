"""Painting the mouth: the mouth interior, the line between closed lips, the hair over them.

What the photograph itself shows between its lips is kept: its upper teeth where they were, since the upper
jaw does not move against the skull, and the rest as long as the lips are near where the photograph has them.
The remainder is drawn (:mod:`portrait_core.template.mouth_interior`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from portrait_core.face_model.contours import LocalPixels, Opening, pixel_grid, window
from portrait_core.face_model.easing import eased
from portrait_core.template.mouth_interior import Box, InteriorView, MouthInterior
from portrait_core.template.texture import LIP_MARGIN, PARTED_LIP_MARGIN, Image, PortraitTexture


@dataclass(frozen=True)
class _OpeningShape:
    """Motion of the painted opening with the mesh's; lengths in mouth widths."""

    slack: float = 0.06
    """Gap that landmarks leave between closed lips. A slit with teeth in it, which a smiling portrait would
    show there, is read as an open mouth as soon as the head tips."""
    own_slack: float = 0.6
    """Smallest gap taken off where the photograph's lips meet, in slacks."""
    slack_decay: float = 3.0
    """Gap over which less and less is taken off, in slacks."""
    line_ends: float = 0.25
    """Mean height of an opening that ends at the lips' inner corners; the line between closed lips may go
    beyond them."""
    min_gap_px: float = 1e-3
    """Smallest own gap that a gap is compared with."""


@dataclass(frozen=True)
class _Near:
    """Nearness of an opening to the photograph's."""

    still_px: float = 0.2
    """Mean motion of the lips that counts as none, in pixels."""
    reach: float = 0.07
    """Motion over which the photograph's own interior gives way to the drawn one, in mouth widths."""
    min_kept: float = 0.01
    """Nearness below which nothing but teeth is kept of the photograph."""


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
class _LipEdges:
    """Lips around the opening; lengths in mouth widths."""

    soft: float = 0.018
    """Width of the opening's soft edge, besides a pixel."""
    margin: float = 0.2
    """Width of the painted window beyond the opening."""
    rim: float = 0.05
    """Reach of the lips' shade around an open mouth."""
    rim_shade: float = 0.08
    """Share of the light that lips lose where they turn in to the opening."""
    rim_gap: float = 0.10
    """Gap from which on they lose all of it."""
    rim_ends: float = 0.15
    """Share of the chord at the corners over which the shade begins: dark corners would look like those of a
    wider mouth."""
    lines_from: float = 1.2
    """Distance from the edge at which the photograph's lines begin to fade, in their reach."""
    lines_beyond: float = 0.2
    """Share of the chord beyond the corners up to which lines are carried."""


@dataclass(frozen=True)
class _LipLine:
    """The drawn line between lips that the photograph shows parted: a fine line in a soft fold."""

    reach: float = 0.009
    """Half height of the line, in mouth widths."""
    gap_share: float = 0.5
    """Share of the gap by which the line is higher."""
    max_gap: float = 0.05
    """Gap at which the line has gone, in mouth widths."""
    ends: float = 0.05
    ends_offset: float = 0.3
    """Share of the chord at the corners over which the line grows, and its strength at the corners before
    easing."""
    fine: float = 0.36
    soft: float = 0.24
    """Strengths of line and fold."""
    fold: float = 8.0
    """Square of the fold's height over the line's."""


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


_SHAPE, _NEAR, _LIGHT, _TEETH = _OpeningShape(), _Near(), _Light(), _KeptTeeth()
_EDGES, _LINE, _SIDE = _LipEdges(), _LipLine(), _SideLight()


class MouthPainter:
    """Paints a portrait's mouth for any expression."""

    def __init__(
        self, texture: PortraitTexture, interior: MouthInterior, source: Opening, teeth: Image
    ) -> None:
        """Prepare the painter.

        Args:
            texture: the portrait, taken apart.
            interior: geometry and colours of the mouth interior.
            source: the mesh's opening at the portrait's own expression, in work pixels.
            teeth: certainty ``[W,W]`` in 0..1 that a pixel of the photograph is a tooth of the upper row.
        """
        self.texture, self.interior = texture, interior
        self._source = source
        self._teeth = teeth if interior.palette.teeth_seen else None
        self._slack = _SHAPE.slack * texture.mouth.width
        self._side_light = _side_light(texture)
        u = np.linspace(0.2, 0.8, 7, dtype=np.float32)
        photo, mesh = (np.stack(o.position(u, np.mean(o.edges(u), 0))) for o in (texture.mouth, source))
        self.offset: Image = (photo - mesh).mean(1).astype(np.float32)
        """Place of the photograph's mouth less the mesh's, ``[2]`` in work pixels; the mouth interior is
        shifted by as much."""

    def opening(self, mesh: Opening) -> Opening:
        """Return the opening to paint for a mesh opening: the photograph's, moved as the mesh's has moved.

        Landmark detectors leave a little gap between closed lips, and so do fits to them. The gap of a
        portrait whose lips meet is its own, and only what goes beyond it opens them. A portrait with parted
        lips does not show where its lips meet, so such a gap is taken off small openings (and given back at
        the portrait's own, which must stay as it is).
        """
        photo, source = self.texture.mouth, self._source
        start, end = (self._end(mesh, k) for k in (0, 1))
        chord = end - start
        width = max(float(np.linalg.norm(chord)), 1e-3)
        middle = (mesh.upper + mesh.lower + photo.upper + photo.lower - source.upper - source.lower) / 2
        gap = self._gap(mesh.gap) / 2
        return Opening(
            start.astype(np.float32),
            (chord / width).astype(np.float32),
            width,
            (middle - gap).astype(np.float32),
            (middle + gap).astype(np.float32),
        )

    def _end(self, mesh: Opening, which: int) -> Image:
        """Return a corner ``[2]`` of the opening to paint.

        The line between closed lips goes on beyond the inner corners, over the skin where lips join; an
        opening ends within the lips, at the mesh's own corner.
        """
        moved, photo, source = (_ends(o)[which] for o in (mesh, self.texture.mouth, self._source))
        offset = photo - source
        along = float(offset @ mesh.axis)
        opened = eased(np.asarray(mesh.mean_gap / (_SHAPE.line_ends * mesh.width)))
        return np.asarray(moved + offset - float(opened) * along * mesh.axis)

    def _gap(self, gap: Image) -> Image:
        """Return the heights ``[65]`` to paint for the heights of a mesh opening."""
        own, slack, decay = self._source.gap, self._slack, _SHAPE.slack_decay * self._slack
        if self.texture.lips_meet:
            taken = np.maximum(own, _SHAPE.own_slack * slack)
            return np.asarray(gap - taken * np.exp(-np.maximum(gap - taken, 0.0) / decay)).clip(0.0)
        out = np.maximum(gap - slack * np.exp(-gap / decay), 0.0)
        given_back = np.minimum(slack * np.exp(-own / decay), own)
        return np.asarray(out + given_back * np.clip(gap / np.maximum(own, _SHAPE.min_gap_px), 0.0, 1.0) ** 2)

    def paint(self, canvas: Image, opening: Opening, interior: InteriorView | None) -> Image:
        """Paint the mouth into ``canvas``, in place.

        Args:
            canvas: moved skin with the opening filled over ``[W,W,3]``, 0..255.
            opening: the opening from :meth:`opening`.
            interior: the mouth interior in this opening's window; None draws only the line between lips.

        Returns:
            The mouth mask ``[W,W]``, 0..1.
        """
        size = len(canvas)
        box = self.window(opening, size)
        x0, y0, x1, y1 = box
        x, y = pixel_grid(box)
        area = canvas[y0:y1, x0:x1]
        pixels = opening.pixels(x, y)
        near = self._near(opening)
        area *= self._rim(pixels, near)[..., None]
        area += self._edge_lines(pixels, near)
        cover = pixels.coverage(1.0 + (1.0 - near) * _EDGES.soft * opening.width)
        colors = self._interior_colors(interior, pixels, opening.mean_gap)
        colors = self._keep_photo(colors, (x, y), pixels, near)
        area += cover[..., None] * (colors - area)
        area += self._lip_line(pixels)[..., None] * (self.texture.lip_line - area)
        if self.texture.hair is not None:
            self.texture.hair.paint(canvas, self.texture.photo, self.texture.mouth, opening)
        mask = np.zeros((size, size), np.float32)
        mask[y0:y1, x0:x1] = cover
        return mask

    @staticmethod
    def window(opening: Opening, size: int) -> Box:
        """Return the window around an opening in which it is painted."""
        u = np.linspace(0, 1, 9, dtype=np.float32)
        points = [np.stack(opening.position(u, edge), 1) for edge in opening.edges(u)]
        return window(np.concatenate(points), _EDGES.margin * opening.width, size)

    def _near(self, opening: Opening) -> float:
        """Return the nearness of an opening to the photograph's, 0..1."""
        photo, u = self.texture.mouth, np.linspace(0.1, 0.9, 9, dtype=np.float32)
        pairs = zip(opening.edges(u), photo.edges(u), strict=True)
        moves = [np.subtract(opening.position(u, a), photo.position(u, b)) for a, b in pairs]
        moved = float(np.mean([np.hypot(*m).mean() for m in moves]))
        return float(np.exp(-((max(moved - _NEAR.still_px, 0.0) / (_NEAR.reach * photo.width)) ** 2)))

    def _interior_colors(
        self, interior: InteriorView | None, pixels: LocalPixels, mean_gap_px: float
    ) -> Image:
        """Return the colours ``[h,w,3]`` of the interior in the picture's light, shaded by the lips."""
        dark = self.interior.palette.dark
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
        parted = (below_upper + above_lower) / (_LIGHT.parted * width) - _LIGHT.parted_offset
        line = self.texture.lip_line
        return np.asarray(line + eased(parted)[..., None] * (color - line), np.float32)

    def _keep_photo(
        self, colors: Image, place: tuple[Image, Image], pixels: LocalPixels, near: float
    ) -> Image:
        """Lay the interior that the photograph shows over ``colors [h,w,3]``."""
        texture, source = self.texture, self.texture.mouth
        if texture.lips_meet:
            return colors
        if near > _NEAR.min_kept:
            source_upper, source_lower = source.edges(pixels.along)
            share = pixels.below_upper / np.maximum(pixels.gap, 0.5)
            beyond = np.minimum(share, 0.0) * pixels.gap + np.maximum(share - 1.0, 0.0) * pixels.gap
            carried = source_upper + np.clip(share, 0.0, 1.0) * (source_lower - source_upper) + beyond
            photo = _sample(texture.photo, *source.position(pixels.along, carried))
            colors = colors + near * (photo - colors)
        return self._keep_photo_teeth(colors, *place, near)

    def _keep_photo_teeth(self, colors: Image, x: Image, y: Image, near: float) -> Image:
        """Lay the photograph's upper teeth over ``colors [h,w,3]`` where the photograph has them."""
        if self._teeth is None:
            return colors
        source = self.texture.mouth
        soft = source.width * _TEETH.soft + _TEETH.soft_px
        own = source.pixels(x, y)
        # a lip that rises shows more of the same teeth: their crowns go on from a row a little under the
        # photograph's lip, out of its shade
        row = np.minimum(own.upper + (1.0 - near) * _TEETH.shaded * soft, (own.upper + own.lower) / 2)
        place = source.position(own.along, np.maximum(own.height, row) if near < 1.0 else own.height)
        photo, teeth = _sample(self.texture.photo, *place), _sample(self._teeth, *place)
        above = eased(own.below_upper / (_TEETH.above * source.width) + 1.0)
        keep = eased(own.above_lower / soft + 0.5) * above
        keep *= eased(own.to_corner / _TEETH.ends + 0.5)
        return np.asarray(colors + (keep * teeth)[..., None] * (photo - colors))

    def _rim(self, pixels: LocalPixels, near: float) -> Image:
        """Return the light on the lips: they turn in to an opening that the photograph does not have."""
        away = np.maximum(np.maximum(pixels.upper - pixels.height, pixels.height - pixels.lower), 0.0)
        away = away / (_EDGES.rim * pixels.width)
        open_share = eased(pixels.gap / (_EDGES.rim_gap * pixels.width))
        ends = eased(pixels.to_corner / _EDGES.rim_ends)
        return np.asarray(1.0 - _EDGES.rim_shade * (1.0 - near) * open_share * ends * np.exp(-away))

    def _edge_lines(self, pixels: LocalPixels, near: float) -> Image:
        """Carry the photograph's shading along its lip edges to the new edges, unstretched: ``[h,w,3]``."""
        source, total, along = (
            self.texture.mouth,
            np.zeros((*pixels.along.shape, 3), np.float32),
            pixels.along,
        )
        # the lines along parted lips (gleams of teeth, dark corners) are not the lips' own when they close
        meet = self.texture.lips_meet
        reach, strength = (LIP_MARGIN, 1.0) if meet else (PARTED_LIP_MARGIN, near)
        if self.texture.hair is not None:
            strength = near  # strands of hair are no lines of the lips
        reach *= source.width
        source_upper, source_lower = source.edges(along)
        carried = (along > -_EDGES.lines_beyond) & (along < 1.0 + _EDGES.lines_beyond)
        for edge, source_edge, sign in (
            (pixels.upper, source_upper, -1.0),
            (pixels.lower, source_lower, 1.0),
        ):
            offset = pixels.height - edge
            sample = _sample(self.texture.lines, *source.position(along, source_edge + offset))
            outside = 1.0 - eased((sign * offset - _EDGES.lines_from * reach) / reach)
            weight = strength * np.clip(sign * offset + 0.5, 0.0, 1.0) * outside
            total += (weight * carried)[..., None] * sample
        return total

    def _lip_line(self, pixels: LocalPixels) -> Image:
        """Return the strength of the drawn line between lips that the photograph shows parted."""
        if self.texture.lips_meet:
            return np.zeros_like(pixels.along)
        middle = (pixels.upper + pixels.lower) / 2
        reach = _LINE.reach * pixels.width + _LINE.gap_share * pixels.gap
        near = 1.0 - eased(pixels.gap / (_LINE.max_gap * pixels.width))
        ends = eased(pixels.to_corner / _LINE.ends + _LINE.ends_offset)
        away = np.square((pixels.height - middle) / reach)
        return np.asarray(
            near * ends * (_LINE.fine * np.exp(-away) + _LINE.soft * np.exp(-away / _LINE.fold))
        )


def _ends(opening: Opening) -> tuple[Image, Image]:
    """Return both corners ``[2]`` of an opening."""
    return opening.origin, opening.origin + opening.width * opening.axis


def _sample(image: Image, x: Image, y: Image) -> Image:
    return np.asarray(cv2.remap(image, x - 0.5, y - 0.5, cv2.INTER_LINEAR))


def _side_light(texture: PortraitTexture) -> float:
    """Measure the difference of the light between the mouth's corners (right less left), over its mean."""
    mouth = texture.mouth
    along = np.array(_SIDE.along, np.float32)
    _, lower = mouth.edges(along)
    soft = cv2.GaussianBlur(texture.skin.mean(-1), (0, 0), _SIDE.blur * mouth.width + _SIDE.blur_px)
    light = _sample(soft, *mouth.position(along, lower + _SIDE.below * mouth.width)).reshape(-1)
    slope = float(np.polyfit(along, light, 1)[0]) / max(float(light.mean()), 1.0)
    return float(np.clip(slope, -_LIGHT.max_side, _LIGHT.max_side))
