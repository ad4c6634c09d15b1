"""Painting the mouth: its opening, the lips around it, the line between closed lips, the hair over them.

What shows in the opening is in :mod:`portrait_core.template.mouth_content`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from portrait_core.face_model.contours import LocalPixels, Opening, pixel_grid, window
from portrait_core.face_model.easing import eased
from portrait_core.template.mouth_content import MouthContent
from portrait_core.template.mouth_interior import Box, InteriorView, MouthInterior
from portrait_core.template.texture import LIP_MARGIN, PARTED_LIP_MARGIN, Image, PortraitTexture, sample


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
    line_from: float = 0.12
    line_over: float = 0.30
    """Mean height from which on an opening ends within the lips, and the further height until it ends at
    their inner corners; the line between closed lips may go beyond them."""
    round: float = 2.5
    """Deviation of the blur of wide-open edges, in steps of 65: eleven landmarks would show as a polygon."""
    round_ends: float = 0.1
    """Share of the chord at the corners, up to the next landmarks, over which wide-open edges turn like an
    ellipse's: straight ones would make a hexagon of an "oh"."""
    taper: float = 0.25
    """Share of the chord at the corners over which an opening is a wedge, whatever is taken off it."""
    min_gap_px: float = 1e-3
    """Smallest own gap that a gap is compared with."""


@dataclass(frozen=True)
class _Near:
    """Nearness of an opening to the photograph's."""

    still_px: float = 0.2
    """Mean motion of the lips that counts as none, in pixels."""
    reach: float = 0.07
    """Motion over which the photograph's own interior gives way to the drawn one, in mouth widths."""


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


_SHAPE, _NEAR, _EDGES, _LINE = _OpeningShape(), _Near(), _LipEdges(), _LipLine()


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
        self._slack = _SHAPE.slack * texture.mouth.width
        self._content = MouthContent(texture, interior.palette, teeth)
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
        opened = float(eased(np.asarray((mesh.mean_gap / mesh.width - _SHAPE.line_from) / _SHAPE.line_over)))
        upper, lower = (edge + opened * (_rounded(edge) - edge) for edge in (middle - gap, middle + gap))
        return Opening(
            start.astype(np.float32),
            (chord / width).astype(np.float32),
            width,
            upper.astype(np.float32),
            lower.astype(np.float32),
        )

    def _end(self, mesh: Opening, which: int) -> Image:
        """Return a corner ``[2]`` of the opening to paint.

        The line between closed lips goes on beyond the inner corners, over the skin where lips join; an
        opening ends within the lips, at the mesh's own corner.
        """
        moved, photo, source = (_ends(o)[which] for o in (mesh, self.texture.mouth, self._source))
        offset = photo - source
        along = float(offset @ mesh.axis)
        opened = eased(np.asarray((mesh.mean_gap / mesh.width - _SHAPE.line_from) / _SHAPE.line_over))
        return np.asarray(moved + offset - float(opened) * along * mesh.axis)

    def _gap(self, gap: Image) -> Image:
        """Return the heights ``[65]`` to paint for the heights of a mesh opening.

        What is taken off would end an opening bluntly before its corners; beside them it keeps its shape.
        """
        left = self._without_slack(gap) / np.maximum(gap, _SHAPE.min_gap_px)
        u = np.linspace(0.0, 1.0, len(gap))
        return np.asarray(gap * np.interp(np.clip(u, _SHAPE.taper, 1.0 - _SHAPE.taper), u, left))

    def _without_slack(self, gap: Image) -> Image:
        """Return heights ``[65]`` without the gap that landmarks leave between closed lips."""
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
        colors = self._content.colors(interior, (x, y), pixels, opening.mean_gap, near)
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
            line = sample(self.texture.lines, *source.position(along, source_edge + offset))
            outside = 1.0 - eased((sign * offset - _EDGES.lines_from * reach) / reach)
            weight = strength * np.clip(sign * offset + 0.5, 0.0, 1.0) * outside
            total += (weight * carried)[..., None] * line
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


def _rounded(edge: Image) -> Image:
    """Round the heights of an edge ``[65]`` between its ends, which stay: as those of an ellipse."""
    u = np.linspace(0.0, 1.0, len(edge))
    ellipse = np.sqrt(u * (1.0 - u))
    within = np.clip(u, _SHAPE.round_ends, 1.0 - _SHAPE.round_ends)
    over = np.interp(within, u[1:-1], edge[1:-1] / ellipse[1:-1])
    return np.asarray(gaussian_filter1d(over, _SHAPE.round, mode="nearest") * ellipse)


def _ends(opening: Opening) -> tuple[Image, Image]:
    """Return both corners ``[2]`` of an opening."""
    return opening.origin, opening.origin + opening.width * opening.axis
