"""Painting the mouth: teeth, tongue and depth behind moved lips, the line between closed ones.

Teeth and tongue are the head's own geometry, shifted to where they sit behind this portrait's lips and
coloured procedurally; what the photograph itself shows of the upper teeth is kept where it was, since the
upper jaw does not move against the skull.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import torch
from torch import Tensor

from portrait_core.faces.contours import Opening, pixel_grid, window
from portrait_core.faces.head import MorphableHead
from portrait_core.faces.raster import interpolate, rasterize, vertex_normals
from portrait_core.faces.texture import LIP_MARGIN, Image, PortraitTexture, smoothstep

# Ends of the teeth from the midline along the dental arch, in metres (textbook crown widths, a little wide
# because the arch of the embedded head is).
_UPPER_ENDS = np.array([0.0, 0.0092, 0.0165, 0.0245, 0.0320, 0.0395, 0.0500], np.float32)
_LOWER_ENDS = np.array([0.0, 0.0058, 0.0122, 0.0195, 0.0270, 0.0345, 0.0455], np.float32)
_CROWN_M = 0.0098
"""Visible height of a tooth; beyond it is gum."""
_TONGUE_SHIFT_M = (0.0, -0.009, -0.008)
"""The modelled tongue lies against the palate; a resting one lies on the floor of the mouth."""
_CLOSED_SLACK = 0.06
"""Gap that landmarks leave between closed lips, in mouth widths: a slit with teeth in it, which a smiling
portrait would show there, is read as an open mouth as soon as the head tips."""
_LIGHT = (0.10, 0.35, 0.93)


class MouthInterior:
    """The geometry behind the lips and its colours, for one portrait."""

    def __init__(
        self, head: MorphableHead, neutral_m: Tensor, skin: Image, tooth: Image | None, drop_m: float
    ):
        """
        Args:
            head: the head; its groups of teeth and tongue are used where it has them.
            neutral_m: vertices ``[V,3]`` of the portrait's shape at rest.
            skin: mean colour of the face ``[3]``, 0..255.
            tooth: colour of the photograph's teeth ``[3]`` if it shows them.
            drop_m: further drop of the upper teeth in metres, from the photograph.
        """
        self.head = head
        faces, group = head.faces, head.face_group
        inside = head.mask("inside_mouth") > 0.5
        part = (group > 2) | inside[faces].all(1)
        # a mesh of its own: the whole head is ten times larger
        self._used, inverse = torch.unique(faces[part], return_inverse=True)
        self._faces, self._group = inverse.view(-1, 3), group[part]
        self.shift = torch.zeros(head.n_vertices, 3)
        arch = torch.zeros(head.n_vertices, 2)
        lips = head.landmarks(neutral_m[None])[0, [13, 14], 1].mean()
        for name, edge, sign in (
            ("helper-upper-teeth", lips - 0.003 - drop_m, 1.0),
            ("helper-lower-teeth", lips - 0.0025, -1.0),
        ):
            vertices = head.group_vertices(name)
            y = neutral_m[vertices, 1]
            tip = y.min() if sign > 0 else y.max()
            self.shift[vertices, 1] = edge - tip
            arch[vertices, 0] = _arc_length(neutral_m[vertices])
            arch[vertices, 1] = sign * (y - tip)
        self.shift[head.group_vertices("helper-tongue")] = torch.tensor(_TONGUE_SHIFT_M)
        self.arch = arch
        gray = float(skin.mean())
        tint = 0.6 + 0.4 * skin / max(gray, 1.0)  # teeth take on some of the light's colour
        white = np.array([1.03, 1.0, 0.94]) * tint * gray * 1.15
        self.tooth = np.clip(0.15 * skin + 0.85 * white if tooth is None else tooth, 0, 250).astype(
            np.float32
        )
        red = np.array([0.72, 0.36, 0.34]) * gray
        self.tongue = (0.35 * skin * [0.9, 0.55, 0.55] + 0.65 * red).astype(np.float32)
        self.gum = (0.5 * skin * [0.9, 0.6, 0.6] + 0.5 * red).astype(np.float32)
        self.dark = (np.array([0.17, 0.065, 0.06]) * gray).astype(np.float32)

    def render(
        self, vertices_px: Tensor, vertices_m: Tensor, box: tuple[int, int, int, int], px_per_m: float
    ) -> Image:
        """Colours ``[h,w,3]`` (0..255) inside a window.

        Args:
            vertices_px: ``[V,3]`` projected vertices, already shifted by :attr:`shift`.
            vertices_m: ``[V,3]`` in the head frame.
            box: window ``(x0, y0, x1, y1)`` in pixels.
            px_per_m: scale of the image at the mouth.
        """
        x0, y0, x1, y1 = box
        local = (vertices_px - vertices_px.new_tensor([x0, y0, 0.0]))[self._used]
        fragments = rasterize(local[None], self._faces, y1 - y0, x1 - x0, cull_backfaces=True)
        own_m = vertices_m[self._used]
        normals = vertex_normals(own_m[None], self._faces)[0]
        attributes = torch.cat([self.arch[self._used], own_m[:, 2:], normals], 1)[None]
        seen = interpolate(attributes, self._faces, fragments)[0].numpy()
        face = fragments.face_id[0]
        group = torch.where(face >= 0, self._group[face.clamp(min=0)], torch.full_like(face, -1)).numpy()
        front = float(vertices_m[self.head.mask("lips") > 0.5, 2].quantile(0.9))
        depth = np.maximum(front - seen[..., 2] - 0.016, 0.0)
        light = 0.62 + 0.38 * np.clip(seen[..., 3:] @ np.array(_LIGHT, np.float32), 0, 1)
        # cheeks and gums near the lips catch some light
        wall = np.exp(-np.maximum(depth - 0.004, 0.0) / 0.010)[..., None] * (group == 0)[..., None]
        color = self.dark + 0.45 * wall * (self.gum - self.dark)
        tongue = group == self.head.group("helper-tongue")
        color[tongue] = (self.tongue * (light * np.exp(-depth / 0.04))[..., None])[tongue]
        color = np.asarray(
            cv2.GaussianBlur(color, (0, 0), 0.0015 * px_per_m), np.float32
        )  # only teeth have edges in there
        for name, ends in (("helper-upper-teeth", _UPPER_ENDS), ("helper-lower-teeth", _LOWER_ENDS)):
            teeth = group == self.head.group(name)
            side = np.maximum(np.abs(seen[..., 0]) - 0.5 * ends[-1], 0.0)
            shade = (light * np.exp(-depth / 0.07 - side / 0.012))[teeth, None]
            color[teeth] = self._teeth(seen[teeth, 0], seen[teeth, 1], ends, shade, 1.0 / px_per_m)
        return np.maximum(color, 0.6 * self.dark)

    def _teeth(self, arc: Image, height: Image, ends: Image, shade: Image, pixel_m: float) -> Image:
        """Colour of points on a dental arch, from arc length and height above the biting edge (metres)."""
        distance = np.abs(np.abs(arc)[:, None] - ends[None])
        which = np.clip(np.searchsorted(ends, np.abs(arc)) - 1, 0, len(ends) - 2)
        middle, half = (ends[which] + ends[which + 1]) / 2, (ends[which + 1] - ends[which]) / 2
        across = np.clip((np.abs(arc) - middle) / half, -1, 1)
        reach = max(0.00035, 0.45 * pixel_m)
        gap = 0.45 * (0.00035 / reach) ** 0.5 * np.exp(-np.square(distance.min(1) / reach))
        rounding = 0.0011 * across**4  # corners of the biting edge
        tip = smoothstep((height - rounding) / max(0.0006, 0.7 * pixel_m) + 0.3)
        bulge = 1.0 - 0.10 * np.square(across) - 0.10 * smoothstep((height - 0.004) / 0.006)
        enamel = self.tooth * (shade[:, 0] * bulge * (1.0 - gap))[:, None]
        line = _CROWN_M - 0.0012 * np.square(across)
        gum = smoothstep((height - line) / 0.0010)[:, None]
        color = enamel * (1 - gum) + self.gum * shade * gum
        return self.dark + tip[:, None] * (color - self.dark)


def _arc_length(vertices: Tensor) -> Tensor:
    """Signed distance from the midline along the outside of a dental arch, per vertex of that arch."""
    x, z = vertices[:, 0].abs().numpy(), vertices[:, 2].numpy()
    bins = np.linspace(0.0, float(x.max()), 12)
    # the arch's outer line: the foremost vertex of each stretch of width
    outer = [z[(x >= lo - 1e-4) & (x <= hi + 2e-3)].max(initial=-1.0) for lo, hi in pairwise(bins)]
    zs = np.array([o for o in outer if o > -1.0])
    xs = bins[:-1][[o > -1.0 for o in outer]]
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(xs), np.diff(zs)))])
    # behind the last bin the arch runs straight back, where depth measures it
    arc = np.interp(x, xs, length) + np.maximum(np.interp(x, xs, zs) - z, 0.0) * (x > 0.6 * x.max())
    return torch.from_numpy(np.sign(vertices[:, 0].numpy()) * arc).float()


class MouthPainter:
    """Paints a portrait's mouth for any expression."""

    def __init__(self, texture: PortraitTexture, interior: MouthInterior, source: Opening):
        """``source``: the mesh's opening at the portrait's own expression, in work pixels."""
        self.texture, self.interior = texture, interior
        self.is_closed = float(texture.mouth.gap[16:49].mean()) < 0.03 * texture.mouth.width
        self._teeth = None if self.is_closed else visible_teeth(texture)
        self._slack = 0.0 if self.is_closed else _CLOSED_SLACK * texture.mouth.width
        self._source_gap = source.gap

    def opening(self, mesh: Opening) -> Opening:
        """The opening to paint for a mesh opening.

        Landmark detectors leave a little gap between closed lips, and so do fits to them. A portrait with
        parted lips says nothing of where its lips meet, so that gap is taken off small openings (and given
        back at the portrait's own, which must stay as it is).
        """
        if not self._slack:
            return mesh
        gap = np.maximum(mesh.gap - self._slack * np.exp(-mesh.gap / (3.0 * self._slack)), 0.0)
        own = self._source_gap
        taken = np.minimum(self._slack * np.exp(-own / (3.0 * self._slack)), own)
        gap += taken * np.clip(mesh.gap / np.maximum(own, 1e-3), 0.0, 1.0) ** 2
        return mesh.with_gap(gap.astype(np.float32), 0.5)

    def paint(
        self,
        canvas: Image,
        opening: Opening,
        rendered: Image | None,
        jaw_px: float,
    ) -> Image:
        """Paint into ``canvas [W,W,3]``, in place, and return the mouth mask ``[W,W]`` (0..1).

        Args:
            canvas: moved skin with the opening filled over.
            opening: where the lips part.
            rendered: colours behind the lips in this opening's window, or ``None`` for darkness.
            jaw_px: how far the lower lip is from where the photograph has it.
        """
        size = len(canvas)
        box = self.window(opening, size)
        x0, y0, x1, y1 = box
        x, y = pixel_grid(box)
        area = canvas[y0:y1, x0:x1]
        along, height = opening.local(x, y)
        upper, lower = opening.edges(along)
        area += self._edge_lines(along, height, upper, lower, opening)
        cover = opening.coverage(x, y)
        inside = self._inside(rendered, height - upper, lower - height, opening)
        inside = self._keep_photo_teeth(inside, x, y, jaw_px)
        area += cover[..., None] * (inside - area)
        area += self._lip_line(along, height, upper, lower, opening)[..., None] * (
            self.texture.lip_line - area
        )
        mask = np.zeros((size, size), np.float32)
        mask[y0:y1, x0:x1] = cover
        return mask

    @staticmethod
    def window(opening: Opening, size: int) -> tuple[int, int, int, int]:
        """The window around an opening in which it is painted."""
        u = np.linspace(0, 1, 9, dtype=np.float32)
        points = [np.stack(opening.position(u, edge), 1) for edge in opening.edges(u)]
        return window(np.concatenate(points), 0.2 * opening.width, size)

    def _inside(
        self,
        rendered: Image | None,
        below_upper: Image,
        above_lower: Image,
        opening: Opening,
    ) -> Image:
        """Colours behind the lips with the lips' shadow on them."""
        dark = self.interior.dark
        if rendered is None:
            return np.broadcast_to(dark, (*below_upper.shape, 3)).astype(np.float32).copy()
        width = opening.width
        top = 1.0 - 0.45 * np.exp(-np.maximum(below_upper, 0) / (0.045 * width))
        bottom = 1.0 - 0.30 * np.exp(-np.maximum(above_lower, 0) / (0.03 * width))
        # a slit lets little light in
        height = np.clip(float(opening.gap[16:49].mean()) / (0.16 * width), 0.0, 1.0)
        light = (0.2 + 0.8 * height) * top * bottom
        smooth = cv2.GaussianBlur(rendered, (0, 0), 0.4 + 0.004 * width)
        color = dark + (smooth - dark) * light[..., None]
        # through a slit one sees the line between the lips
        parted = smoothstep((below_upper + above_lower) / (0.05 * width) - 0.3)[..., None]
        return np.asarray(self.texture.lip_line + parted * (color - self.texture.lip_line), np.float32)

    def _keep_photo_teeth(self, inside: Image, x: Image, y: Image, jaw_px: float) -> Image:
        if self._teeth is None:
            return inside
        source = self.texture.mouth
        soft = source.width * 0.02 + 0.7
        along, height = source.local(x, y)
        upper, lower = source.edges(along)
        # a lip that rises shows more of the same teeth: mirrored at a row a little under the photograph's lip
        row = np.minimum(upper + soft, (upper + lower) / 2)
        mirrored = np.minimum(row + np.abs(height - row), np.maximum(lower - soft, height))
        mx, my = source.position(along, mirrored)
        photo = cv2.remap(self.texture.photo, mx - 0.5, my - 0.5, cv2.INTER_LINEAR)
        teeth = cv2.remap(self._teeth, mx - 0.5, my - 0.5, cv2.INTER_LINEAR)
        above = smoothstep((height - upper) / (0.08 * source.width) + 1.0)
        keep = smoothstep((lower - height) / soft + 0.5) * above
        keep *= smoothstep(np.minimum(along, 1 - along) / 0.03 + 0.5)
        still = np.exp(-np.square(jaw_px / (0.04 * source.width)))
        # teeth stay with the skull; everything else in the photograph's mouth only while the jaw is still
        weight = keep * (teeth + (1 - teeth) * still)
        inside = inside + weight[..., None] * (photo - inside)
        own = still * smoothstep(np.minimum(height - upper, lower - height) + 1.5)
        rows, columns = slice(int(y[0, 0]), int(y[-1, 0]) + 1), slice(int(x[0, 0]), int(x[0, -1]) + 1)
        return inside + own[..., None] * (self.texture.photo[rows, columns] - inside)

    def _edge_lines(self, along: Image, height: Image, upper: Image, lower: Image, opening: Opening) -> Image:
        """The photograph's shading along its lip edges, carried to the new edges unstretched."""
        source, total = self.texture.mouth, np.zeros((*along.shape, 3), np.float32)
        reach = LIP_MARGIN * source.width
        source_upper, source_lower = source.edges(along)
        for edge, source_edge, sign in ((upper, source_upper, -1.0), (lower, source_lower, 1.0)):
            offset = height - edge
            mx, my = source.position(along, source_edge + offset)
            sample = cv2.remap(self.texture.lines, mx - 0.5, my - 0.5, cv2.INTER_LINEAR)
            near = 1.0 - smoothstep((sign * offset - 1.2 * reach) / reach)
            weight = np.clip(sign * offset + 0.5, 0.0, 1.0) * near
            total += (weight * ((along > -0.2) & (along < 1.2)))[..., None] * sample
        return total

    def _lip_line(self, along: Image, height: Image, upper: Image, lower: Image, opening: Opening) -> Image:
        """Strength of the drawn line between lips that the photograph shows parted."""
        if self.is_closed:
            return np.zeros_like(along)
        gap = lower - upper
        middle = (upper + lower) / 2
        reach = 0.014 * opening.width + 0.5 * gap
        near = 1.0 - smoothstep(gap / (0.05 * opening.width))
        ends = smoothstep(np.minimum(along, 1 - along) / 0.05 + 0.3)
        return 0.6 * near * ends * np.exp(-np.square((height - middle) / reach))


def visible_teeth(texture: PortraitTexture) -> Image:
    """How much each pixel ``[W,W]`` of the photograph's mouth is tooth: bright and pale against the lips."""
    x, y = pixel_grid((0, 0, len(texture.photo), len(texture.photo)))
    inside = texture.mouth.coverage(x, y) > 0.9
    out = np.zeros(inside.shape, np.float32)
    if inside.sum() < 20:
        return out
    color = texture.photo[inside]
    luminance = color.mean(1)
    redness = (color[:, 0] - color[:, 1:].mean(1)) / (luminance + 20.0)
    lip = texture.lip_color
    bright = smoothstep((luminance - 0.75 * lip.mean()) / (0.35 * lip.mean() + 1.0))
    pale = 1.0 - smoothstep((redness - 0.15) / 0.25)
    out[inside] = bright * pale
    # the dark gaps between teeth belong to them
    k = 2 * round(0.04 * texture.mouth.width) + 1
    out = np.asarray(cv2.morphologyEx(out, cv2.MORPH_CLOSE, np.ones((k, k), np.uint8)), np.float32)
    return cv2.GaussianBlur(out * inside, (0, 0), 1.0)
