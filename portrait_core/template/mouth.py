"""Painting the mouth: what is behind moved lips, the line between closed ones, the hair that hangs over them.

What the photograph itself shows behind its lips is kept: its upper teeth where they were, since the upper jaw
does not move against the skull, the rest as long as the lips are near where the photograph has them. The
remainder is drawn (:mod:`portrait_core.template.mouth_interior`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from portrait_core.face_model.contours import Opening, pixel_grid, window
from portrait_core.template.mouth_interior import Behind, Box, MouthInterior
from portrait_core.template.texture import LIP_MARGIN, PARTED_LIP_MARGIN, Image, PortraitTexture, smoothstep


@dataclass(frozen=True)
class _Paint:
    """How a mouth is painted; lengths in mouth widths."""

    slack: float = 0.06
    """Gap that landmarks leave between closed lips: a slit with teeth in it, which a smiling portrait would
    show there, is read as an open mouth as soon as the head tips."""
    soft: float = 0.018
    """Width of the opening's soft edge, besides a pixel."""
    near: float = 0.07
    """Motion of the lips over which the photograph's own interior gives way to the drawn one."""
    line_ends: float = 0.25
    """Mean height of an opening that ends at the lips' inner corners, where the line between closed ones may
    go beyond them."""
    rim: float = 0.05
    """Reach of the lips' shade around an open mouth."""
    rim_shade: float = 0.08
    """Share of the light that lips lose where they turn in to the opening."""
    upper_shade: float = 0.22
    lower_shade: float = 0.12
    """Shares of the light that what is behind the lips loses next to the upper and the lower one."""
    cavity: float = 0.18
    """Share of its light that what is behind the teeth has under the upper lip and beside the corners; light
    falls in from above and in front, on the tongue on the mouth's floor."""
    side: float = 0.5
    """Most difference of the light between the corners, over its mean."""


_PAINT = _Paint()


class MouthPainter:
    """Paints a portrait's mouth for any expression."""

    def __init__(self, texture: PortraitTexture, interior: MouthInterior, source: Opening, teeth: Image):
        """Args:
        texture: the portrait, taken apart.
        interior: what is behind its lips.
        source: the mesh's opening at the portrait's own expression, in work pixels.
        teeth: how much each pixel ``[W,W]`` of the photograph is surely tooth of the upper row, 0..1.
        """
        self.texture, self.interior = texture, interior
        self._source = source
        self._teeth = teeth if interior.palette.teeth_seen else None
        self._slack = _PAINT.slack * texture.mouth.width
        self._side_light = _side_light(texture)
        u = np.linspace(0.2, 0.8, 7, dtype=np.float32)
        here, mesh = (np.stack(o.position(u, np.mean(o.edges(u), 0))) for o in (texture.mouth, source))
        self.offset: Image = (here - mesh).mean(1).astype(np.float32)
        """Where the photograph's mouth is against the mesh's, ``[2]`` in work pixels; what is behind the lips
        is aside by as much."""

    def opening(self, mesh: Opening) -> Opening:
        """The opening to paint for a mesh opening: that of the photograph, moved as the mesh's has moved.

        Landmark detectors leave a little gap between closed lips, and so do fits to them; of a portrait whose
        lips meet that gap is its own, and only what goes beyond it opens them. A portrait with parted lips
        says nothing of where its lips meet, so such a gap is taken off small openings (and given back at the
        portrait's own, which must stay as it is).
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
        """A corner ``[2]`` of the opening to paint. The line between closed lips goes on beyond the inner
        corners, over the skin where lips join; an opening ends within the lips, at the mesh's own corner.
        """
        moved, photo, source = (_ends(o)[which] for o in (mesh, self.texture.mouth, self._source))
        offset = photo - source
        along = float(offset @ mesh.axis)
        opened = smoothstep(np.asarray(mesh.mean_gap / (_PAINT.line_ends * mesh.width)))
        return np.asarray(moved + offset - float(opened) * along * mesh.axis)

    def _gap(self, gap: Image) -> Image:
        own, slack = self._source.gap, self._slack
        if self.texture.lips_meet:
            least = np.maximum(own, 0.6 * slack)
            return np.asarray(gap - least * np.exp(-np.maximum(gap - least, 0.0) / (3.0 * slack))).clip(0.0)
        out = np.maximum(gap - slack * np.exp(-gap / (3.0 * slack)), 0.0)
        taken = np.minimum(slack * np.exp(-own / (3.0 * slack)), own)
        return np.asarray(out + taken * np.clip(gap / np.maximum(own, 1e-3), 0.0, 1.0) ** 2)

    def paint(self, canvas: Image, opening: Opening, behind: Behind | None) -> Image:
        """Paint into ``canvas [W,W,3]``, in place, and return the mouth mask ``[W,W]`` (0..1).

        Args:
            canvas: moved skin with the opening filled over.
            opening: where the lips part.
            behind: what is seen in this opening's window, or ``None`` for no more than the line
                between lips.
        """
        size = len(canvas)
        box = self.window(opening, size)
        x0, y0, x1, y1 = box
        x, y = pixel_grid(box)
        area = canvas[y0:y1, x0:x1]
        along, height = opening.local(x, y)
        upper, lower = opening.edges(along)
        near = self._near(opening)
        area *= self._rim(along, height, upper, lower, opening, near)[..., None]
        area += self._edge_lines(along, height, upper, lower, near)
        cover = opening.coverage(x, y, 1.0 + (1.0 - near) * _PAINT.soft * opening.width)
        inside = self._inside(behind, along, height - upper, lower - height, opening)
        inside = self._keep_photo(inside, (x, y), (along, height), opening, near)
        area += cover[..., None] * (inside - area)
        area += self._lip_line(along, height, upper, lower, opening)[..., None] * (
            self.texture.lip_line - area
        )
        if self.texture.hair is not None:
            self.texture.hair.paint(canvas, self.texture.photo, self.texture.mouth, opening)
        mask = np.zeros((size, size), np.float32)
        mask[y0:y1, x0:x1] = cover
        return mask

    @staticmethod
    def window(opening: Opening, size: int) -> Box:
        """The window around an opening in which it is painted."""
        u = np.linspace(0, 1, 9, dtype=np.float32)
        points = [np.stack(opening.position(u, edge), 1) for edge in opening.edges(u)]
        return window(np.concatenate(points), 0.2 * opening.width, size)

    def _near(self, opening: Opening) -> float:
        """How near an opening is to the photograph's, 0..1."""
        photo, u = self.texture.mouth, np.linspace(0.1, 0.9, 9, dtype=np.float32)
        pairs = zip(opening.edges(u), photo.edges(u), strict=True)
        moves = [np.subtract(opening.position(u, a), photo.position(u, b)) for a, b in pairs]
        moved = float(np.mean([np.hypot(*m).mean() for m in moves]))
        return float(np.exp(-((max(moved - 0.2, 0.0) / (_PAINT.near * photo.width)) ** 2)))

    def _inside(
        self, behind: Behind | None, along: Image, below_upper: Image, above_lower: Image, opening: Opening
    ) -> Image:
        """Colours behind the lips in the picture's light, with the lips' shadow on them."""
        dark = self.interior.palette.dark
        if behind is None:
            line = np.asarray(self.texture.lip_line, np.float32)
            return np.broadcast_to(line, (*below_upper.shape, 3)).copy()
        width = opening.width
        sigma = 0.4 + 0.004 * width
        teeth = cv2.GaussianBlur(behind.teeth, (0, 0), sigma)
        top = 1.0 - _PAINT.upper_shade * np.exp(-np.maximum(below_upper, 0) / (0.035 * width))
        bottom = 1.0 - _PAINT.lower_shade * np.exp(-np.maximum(above_lower, 0) / (0.025 * width))
        # a slit lets little light in; teeth, which stand right behind it, are lit sooner than what is deeper
        gap = float(opening.gap[16:49].mean()) / width
        slit = 0.35 + 0.65 * np.clip(gap / 0.16, 0.0, 1.0)
        lit = 0.35 + 0.65 * float(smoothstep(np.asarray((gap - 0.04) / 0.12)))
        share = below_upper / np.maximum(below_upper + above_lower, 1.0)
        floor = smoothstep((share - 0.15) / 0.65) * smoothstep(np.minimum(along, 1.0 - along) / 0.35)
        deep = slit * (_PAINT.cavity + (1.0 - _PAINT.cavity) * floor)
        light = (deep + teeth * (np.maximum(lit, deep) - deep)) * top * bottom
        light *= 1.0 + self._side_light * (np.clip(along, 0.0, 1.0) - 0.5)
        smooth = cv2.GaussianBlur(behind.color, (0, 0), sigma)
        color = dark + (smooth - dark) * light[..., None]
        # through a thin slit one sees the line between the lips
        parted = smoothstep((below_upper + above_lower) / (0.06 * width) - 0.25)[..., None]
        return np.asarray(self.texture.lip_line + parted * (color - self.texture.lip_line), np.float32)

    def _keep_photo(
        self,
        inside: Image,
        place: tuple[Image, Image],
        local: tuple[Image, Image],
        opening: Opening,
        near: float,
    ) -> Image:
        """Lay what the photograph shows between its lips over ``inside [h,w,3]``."""
        texture, source = self.texture, self.texture.mouth
        if texture.lips_meet:
            return inside
        if near > 0.01:
            along, height = local
            upper, lower = opening.edges(along)
            source_upper, source_lower = source.edges(along)
            share = (height - upper) / np.maximum(lower - upper, 0.5)
            beyond = np.minimum(share, 0.0) * (lower - upper) + np.maximum(share - 1.0, 0.0) * (lower - upper)
            carried = source_upper + np.clip(share, 0.0, 1.0) * (source_lower - source_upper) + beyond
            photo = _sample(texture.photo, *source.position(along, carried))
            inside = inside + near * (photo - inside)
        return self._keep_photo_teeth(inside, *place, near)

    def _keep_photo_teeth(self, inside: Image, x: Image, y: Image, near: float) -> Image:
        """Lay the photograph's upper teeth over ``inside [h,w,3]`` where the photograph has them."""
        if self._teeth is None:
            return inside
        source = self.texture.mouth
        soft = source.width * 0.02 + 0.7
        along, height = source.local(x, y)
        upper, lower = source.edges(along)
        # a lip that rises shows more of the same teeth: their crowns go on from a row a little under the
        # photograph's lip, out of its shade
        row = np.minimum(upper + (1.0 - near) * 2.0 * soft, (upper + lower) / 2)
        place = source.position(along, np.maximum(height, row) if near < 1.0 else height)
        photo, teeth = _sample(self.texture.photo, *place), _sample(self._teeth, *place)
        above = smoothstep((height - upper) / (0.12 * source.width) + 1.0)
        keep = smoothstep((lower - height) / soft + 0.5) * above
        keep *= smoothstep(np.minimum(along, 1 - along) / 0.03 + 0.5)
        return np.asarray(inside + (keep * teeth)[..., None] * (photo - inside))

    def _rim(
        self, along: Image, height: Image, upper: Image, lower: Image, opening: Opening, near: float
    ) -> Image:
        """Light on the lips: they turn in to an opening that the photograph does not have."""
        away = np.maximum(np.maximum(upper - height, height - lower), 0.0) / (_PAINT.rim * opening.width)
        open_share = smoothstep((lower - upper) / (0.10 * opening.width))
        # dark corners would look like those of a wider mouth
        ends = smoothstep(np.minimum(along, 1.0 - along) / 0.15)
        return np.asarray(1.0 - _PAINT.rim_shade * (1.0 - near) * open_share * ends * np.exp(-away))

    def _edge_lines(self, along: Image, height: Image, upper: Image, lower: Image, near: float) -> Image:
        """The photograph's shading along its lip edges, carried to the new edges unstretched."""
        source, total = self.texture.mouth, np.zeros((*along.shape, 3), np.float32)
        # what is along the edges of parted lips (gleams of teeth, dark corners) is not theirs when they close
        meet = self.texture.lips_meet
        reach, strength = (LIP_MARGIN, 1.0) if meet else (PARTED_LIP_MARGIN, near)
        if self.texture.hair is not None:
            strength = near  # strands of hair are no lines of the lips
        reach *= source.width
        source_upper, source_lower = source.edges(along)
        for edge, source_edge, sign in ((upper, source_upper, -1.0), (lower, source_lower, 1.0)):
            offset = height - edge
            sample = _sample(self.texture.lines, *source.position(along, source_edge + offset))
            outside = 1.0 - smoothstep((sign * offset - 1.2 * reach) / reach)
            weight = strength * np.clip(sign * offset + 0.5, 0.0, 1.0) * outside
            total += (weight * ((along > -0.2) & (along < 1.2)))[..., None] * sample
        return total

    def _lip_line(self, along: Image, height: Image, upper: Image, lower: Image, opening: Opening) -> Image:
        """Strength of the drawn line between lips that the photograph shows parted."""
        if self.texture.lips_meet:
            return np.zeros_like(along)
        gap = lower - upper
        middle = (upper + lower) / 2
        reach = 0.009 * opening.width + 0.5 * gap
        near = 1.0 - smoothstep(gap / (0.05 * opening.width))
        ends = smoothstep(np.minimum(along, 1 - along) / 0.05 + 0.3)
        away = np.square((height - middle) / reach)
        # a fine line in a soft fold
        return np.asarray(near * ends * (0.36 * np.exp(-away) + 0.24 * np.exp(-away / 8.0)))


def _ends(opening: Opening) -> tuple[Image, Image]:
    """Both corners of an opening ``[2]``."""
    return opening.origin, opening.origin + opening.width * opening.axis


def _sample(image: Image, x: Image, y: Image) -> Image:
    return np.asarray(cv2.remap(image, x - 0.5, y - 0.5, cv2.INTER_LINEAR))


def _side_light(texture: PortraitTexture) -> float:
    """Difference of the skin's light between the mouth's corners, over its mean; right less left."""
    mouth = texture.mouth
    along = np.array([0.1, 0.3, 0.7, 0.9], np.float32)
    _, lower = mouth.edges(along)
    soft = cv2.GaussianBlur(texture.skin.mean(-1), (0, 0), 0.06 * mouth.width + 0.5)
    light = _sample(soft, *mouth.position(along, lower + 0.3 * mouth.width)).reshape(-1)
    slope = float(np.polyfit(along, light, 1)[0]) / max(float(light.mean()), 1.0)
    return float(np.clip(slope, -_PAINT.side, _PAINT.side))
