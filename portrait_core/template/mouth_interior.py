"""The mouth interior: teeth, gums, tongue and depth, drawn from the head's own geometry.

Teeth and tongue are shifted to where they sit behind this portrait's lips and coloured procedurally. The two
rows of teeth are layers over tongue, cheeks and depth: where jaws are shut they meet without a gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from portrait_core.face_model.easing import eased
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.raster import Fragments, interpolate, rasterize, vertex_normals
from portrait_core.template.mouth_colors import MouthPalette
from portrait_core.template.texture import Image
from portrait_core.tracking.mouth_inside import ToldMouth

Box = tuple[int, int, int, int]
"""A window ``(x0, y0, x1, y1)`` in pixels."""


UPPER_TEETH_BELOW_LIPS_M = 0.0030
"""Distance of the upper teeth's edges below the line between resting lips, where nothing else is known."""


class _Row(NamedTuple):
    """A row of teeth."""

    group: str
    """Name of its vertices' group in the head."""
    ends: Image
    """Ends of the teeth from the midline along the dental arch, in metres: textbook crown widths, a little
    wide because the arch of the embedded head is."""
    below_lips_m: float
    """Distance of the biting edges below the line between resting lips, in metres."""
    up: float
    """1 where crowns grow upwards from the biting edge, -1 where downwards."""
    light: float
    """Share of the light on front teeth; the lower ones lean back in the shade of the upper ones."""
    shown: float
    """Length of the arch from the midline that shows, in metres: lip and tongue hide the lower molars."""


_UPPER = _Row(
    "helper-upper-teeth",
    np.array([0.0, 0.0092, 0.0165, 0.0245, 0.0320, 0.0395, 0.0500], np.float32),
    UPPER_TEETH_BELOW_LIPS_M,
    1.0,
    1.0,
    0.060,
)
_LOWER = _Row(
    "helper-lower-teeth",
    np.array([0.0, 0.0058, 0.0122, 0.0195, 0.0270, 0.0345, 0.0455], np.float32),
    0.0023,
    -1.0,
    0.88,
    0.023,
)


@dataclass(frozen=True)
class _Shape:
    """Shape and fading of teeth, tongue and cheeks; lengths in metres."""

    crown: float = 0.0108
    """Visible height of a tooth; beyond it is gum."""
    rise: float = 0.006
    """Height by which the biting edges rise from the midline to :attr:`rise_at` along the arch: rows of teeth
    bend up to the mouth's corners, and a level row looks like that of a mouth whose corners are lower."""
    rise_at: float = 0.030
    parted: float = 0.008
    """Distance between the rows from which on the lower one is level: it stands lower then, and its far teeth
    are hidden."""
    behind_lip: float = 0.0025
    """Distance behind the lip of the edges of teeth that do not show."""
    just_shown: float = 0.06
    """Share of the opening's height up to which a row that shows still comes out from behind its lip."""
    front: float = 0.010
    """Length of the arch from the midline that counts as front teeth."""
    lower_shown: float = 0.0075
    """Height of the lower teeth over the lower lip in a mouth that is open wide."""
    wide_open: float = 0.030
    """Opening of such a mouth."""
    tongue_shift: tuple[float, float, float] = (0.0, -0.009, -0.008)
    """Shift of the tongue: the modelled one lies against the palate, a resting one on the mouth's floor."""
    lip: float = 0.016
    """Depth behind the lips' front at which the mouth interior begins."""
    front_share: float = 0.9
    """Quantile of the lips' depths that is their front."""
    fade_teeth: float = 0.14
    """Depth over which teeth lose most of their light."""
    fade_side: float = 0.045
    """Length of the arch, from its half on, over which teeth lose most of their light."""
    min_fade: float = 0.36
    """Share of the light below which teeth are not seen."""
    hiding: float = 0.006
    """Length of the arch over which teeth go out of sight."""
    fade_tongue: float = 0.07
    """Depth over which the tongue loses most of its light."""
    fade_wall: float = 0.016
    """Depth over which cheeks and gums near the lips lose most of their light."""
    wall_from: float = 0.004
    """Depth at which they begin to."""
    soft_blur: float = 0.006
    """Deviation of the blur of tongue, cheeks and depth: only teeth have edges in the mouth."""
    gap: float = 0.00035
    """Half width of the shade between two teeth."""
    rounding: float = 0.0011
    """Height of the rounded corners of the biting edge."""
    tip: float = 0.0006
    """Smallest height over which the biting edge is soft."""
    gum_dip: float = 0.0012
    """Height by which the gum's line is lower at a tooth's sides than at its middle."""
    gum_edge: float = 0.0010
    """Height over which a tooth becomes gum."""
    neck_from: float = 0.004
    neck_over: float = 0.006
    """Height at which a tooth begins to turn away from the light towards its neck, and the further height
    until it has."""
    contact_blur: float = 0.0009
    """Deviation of the blur of the shade that teeth throw right behind their edges."""


@dataclass(frozen=True)
class _Light:
    """Light in the mouth, as shares of the light on the skin."""

    direction: tuple[float, float, float] = (0.10, 0.35, 0.93)
    """Unit vector to the light, mostly from the front."""
    gap_shade: float = 0.30
    """Share lost between two teeth."""
    contact_shade: float = 0.16
    """Share lost on the lower row under the upper one's edge."""
    tooth_ambient: float = 0.86
    """Share of a tooth's light that does not depend on its direction."""
    tongue_ambient: float = 0.55
    """Share of the tongue's light that does not depend on its direction."""
    wall: float = 0.55
    """Share of the gums' colour on the cheeks."""
    side_shade: float = 0.06
    """Share lost at a tooth's sides."""
    neck_shade: float = 0.05
    """Share lost at a tooth's neck."""


_SHAPE, _LIGHT = _Shape(), _Light()
_DIRECTION = np.array(_LIGHT.direction, np.float32)
_IN_FRONT = 0.006
"""Distance by which tongue or cheeks must be nearer than teeth to hide them, in box units (3 mm)."""
_MIN_SOFT_PX, _MIN_CONTACT_PX = 0.5, 0.3
"""Deviations in pixels that are added to the blurs of soft parts and of the teeth's shade."""


class InteriorView(NamedTuple):
    """The mouth interior in a window, as if there were no lips."""

    color: Image
    """``[h,w,3]``, 0..255."""
    teeth: Image
    """Part of each pixel ``[h,w]``, 0..1, that is tooth or gum: these stand in the light of the lips."""
    upper_drop_px: float = 0.0
    """Distance in pixels by which the upper teeth stand lower than the photograph has them."""
    told: ToldMouth | None = None
    """The driver's mouth; None where nothing tells."""


class Placed(NamedTuple):
    """Teeth and tongue behind the lips of a moved head."""

    vertices_m: Tensor
    """``[V,3]`` in the head frame, in metres."""
    upper_drop_m: float
    """Distance in metres by which the driver's mouth lowers the upper teeth; they do not move otherwise."""


class MouthInterior:
    """Geometry and colours of one portrait's mouth interior."""

    def __init__(
        self, head: MorphableHead, neutral_m: Tensor, palette: MouthPalette, line_m: float, drop_m: float
    ) -> None:
        """Place teeth and tongue behind the lips.

        Args:
            head: the head; its groups of teeth and tongue are used where it has them.
            neutral_m: vertices ``[V,3]`` of the portrait's shape at rest, in metres.
            palette: the colours.
            line_m: height of the line between its resting lips in metres, in the head frame.
            drop_m: further drop of the upper teeth in metres, from the photograph.
        """
        self.head, self.palette = head, palette
        faces, group = head.faces, head.face_group
        inside = head.mask("inside_mouth") > 0.5
        teeth = {row.group: group == head.group(row.group) for row in (_UPPER, _LOWER)}
        part = (group > 2) | inside[faces].all(1)
        # a mesh of its own: the whole head is ten times larger
        self._used, inverse = torch.unique(faces[part], return_inverse=True)
        local = inverse.view(-1, 3)
        self._rows = {name: local[mask[part]] for name, mask in teeth.items()}
        rest = ~torch.stack(list(teeth.values())).any(0)[part]
        self._faces, self._group = local[rest], group[part][rest]
        self._all_faces = local
        self.shift = torch.zeros(head.n_vertices, 3)
        self._arch = torch.zeros(head.n_vertices, 2)
        for row, drop in ((_UPPER, drop_m), (_LOWER, 0.0)):
            vertices = head.group_vertices(row.group)
            arc = _arc_length(neutral_m[vertices])
            edge = _biting_edge(arc, neutral_m[vertices, 1], row.up)
            # both edges become level, so that rows meet all along
            self.shift[vertices, 1] = line_m - row.below_lips_m - drop - edge
            self._arch[vertices, 0] = arc
            self._arch[vertices, 1] = row.up * (neutral_m[vertices, 1] - edge)
        self.shift[head.group_vertices("helper-tongue")] = torch.tensor(_SHAPE.tongue_shift)

    def placed(self, vertices_m: Tensor, told: ToldMouth | None = None, gap_m: float = 0.0) -> Placed:
        """Place teeth and tongue behind the lips of a moved head.

        Lower teeth follow the jaw, which closes them against the upper ones; but they stand no higher over
        the lower lip than the opening of the mouth lets them: a fit that says too little of the jaw would
        leave them in mid-air.

        Landmarks do not see lips that curl over teeth or draw back from them. Where the driver's mouth tells
        which teeth show, either row moves to where it shows as much.

        Args:
            vertices_m: ``[V,3]`` in the head frame, in metres.
            told: what the driver's mouth shows; None where nothing tells.
            gap_m: mean height of the painted opening, in metres, of which that tells shares.
        """
        placed = vertices_m + self.shift
        upper, lower = self.head.landmarks(vertices_m[None])[0, [13, 14], 1]
        row, teeth = (self.head.group_vertices(one.group) for one in (_UPPER, _LOWER))
        # of a jaw that turns open, the far teeth stay higher than the front ones
        front = [placed[one, 1][self._arch[one, 0].abs() < _SHAPE.front] for one in (row, teeth)]
        edge, under = float(front[0].min()), float(front[1].max())
        opened = float((upper - lower) / _SHAPE.wide_open)
        most = _SHAPE.crown + (_SHAPE.lower_shown - _SHAPE.crown) * min(max(opened, 0.0), 1.0)
        lift, drop = -max(under - float(lower) - most, 0.0), 0.0
        if told is not None:
            middle = float(upper + lower) / 2
            lip = middle + gap_m / 2
            drop = told.certain * (edge - (lip + _behind(told.upper) - told.upper * gap_m))
            lip = middle - gap_m / 2
            shown = lip - _behind(told.lower) + told.lower * gap_m
            lift += told.certain * (shown - under - lift)
        apart = edge - drop - under - lift
        placed[row, 1] += _rise(self._arch[row, 0]) - drop
        together = min(max(1.0 - apart / _SHAPE.parted, 0.0), 1.0)
        placed[teeth, 1] += together * _rise(self._arch[teeth, 0]) + lift
        return Placed(placed, drop)

    def render(self, vertices_px: Tensor, vertices_m: Tensor, box: Box, px_per_m: float) -> InteriorView:
        """Draw the interior in a window.

        Args:
            vertices_px: ``[V,3]`` projected vertices, already shifted by :attr:`shift`.
            vertices_m: ``[V,3]`` in the head frame.
            box: the window.
            px_per_m: scale of the image at the mouth.
        """
        x0, y0, x1, y1 = box
        local = (vertices_px - vertices_px.new_tensor([x0, y0, 0.0]))[self._used][None]
        own_m = vertices_m[self._used]
        normals = vertex_normals(own_m[None], self._all_faces)[0]
        attributes = torch.cat([self._arch[self._used], own_m[:, 2:], normals], 1)[None]
        front = float(vertices_m[self.head.mask("lips") > 0.5, 2].quantile(_SHAPE.front_share))

        def layer(faces: Tensor) -> tuple[Fragments, Image, Image, Image]:
            seen = rasterize(local, faces, y1 - y0, x1 - x0, cull_backfaces=True)
            values = interpolate(attributes, faces, seen)[0].numpy()
            depth = np.maximum(front - values[..., 2] - _SHAPE.lip, 0.0)
            return seen, values, depth, np.clip(values[..., 3:] @ _DIRECTION, 0.0, 1.0)

        fragments, _, depth, facing = layer(self._faces)
        face = fragments.face_id[0]
        group = torch.where(face >= 0, self._group[face.clamp(min=0)], torch.full_like(face, -1)).numpy()
        color = self._soft_parts(group, depth, facing, px_per_m)
        nearest = fragments.depth[0].numpy()
        covered = np.zeros(group.shape, np.float32)
        for row in (_LOWER, _UPPER):
            seen, values, depth, facing = layer(self._rows[row.group])
            here = (seen.face_id[0] >= 0).numpy() & (seen.depth[0].numpy() < nearest + _IN_FRONT)
            side = np.maximum(np.abs(values[..., 0]) - 0.5 * row.ends[-1], 0.0)
            fade = np.exp(-depth / _SHAPE.fade_teeth - side / _SHAPE.fade_side)
            shade = (row.light * (_LIGHT.tooth_ambient + (1.0 - _LIGHT.tooth_ambient) * facing) * fade)[here]
            tooth, solid = self._teeth(values[here, 0], values[here, 1], row.ends, shade, 1.0 / px_per_m)
            cover = np.zeros(group.shape, np.float32)
            # far teeth are lost in the dark, and hide nothing there
            solid = solid * eased((fade[here] - _SHAPE.min_fade) / _SHAPE.min_fade)
            solid = solid * eased((row.shown - np.abs(values[here, 0])) / _SHAPE.hiding)
            cover[here] = solid
            # teeth shade what is right behind their edges
            near = cv2.GaussianBlur(cover, (0, 0), _SHAPE.contact_blur * px_per_m + _MIN_CONTACT_PX)
            color *= 1.0 - _LIGHT.contact_shade * near[..., None]
            color[here] += solid[:, None] * (tooth - color[here])
            covered = np.maximum(covered, cover)
        return InteriorView(color, covered)

    def _soft_parts(self, group: Image, depth: Image, facing: Image, px_per_m: float) -> Image:
        """Return the colours ``[h,w,3]`` of tongue, cheeks and depth."""
        palette = self.palette
        wall = np.exp(-np.maximum(depth - _SHAPE.wall_from, 0.0) / _SHAPE.fade_wall)[..., None]
        color = palette.dark + _LIGHT.wall * wall * (group == 0)[..., None] * (palette.gum - palette.dark)
        tongue = group == self.head.group("helper-tongue")
        light = (_LIGHT.tongue_ambient + (1.0 - _LIGHT.tongue_ambient) * facing) * np.exp(
            -depth / _SHAPE.fade_tongue
        )
        lit = palette.dark + light[..., None] * (palette.tongue - palette.dark)
        color[tongue] = lit[tongue]
        # where the mesh has nothing, its surroundings go on
        known = (group >= 0).astype(np.float32)[..., None]
        wide = _SHAPE.soft_blur * px_per_m + _MIN_SOFT_PX
        weight = cv2.GaussianBlur(known, (0, 0), wide)[..., None]
        around = (cv2.GaussianBlur(color * known, (0, 0), wide) + 0.01 * palette.dark) / (weight + 0.01)
        color = around + known * (color - around)
        return np.asarray(cv2.GaussianBlur(color, (0, 0), _SHAPE.soft_blur * px_per_m), np.float32)

    def _teeth(
        self, arc: Image, height: Image, ends: Image, shade: Image, pixel_m: float
    ) -> tuple[Image, Image]:
        """Colour points on a dental arch.

        Args:
            arc: length along the arch from the midline ``[n]``, in metres.
            height: height above the biting edge ``[n]``, in metres.
            ends: ends of the row's teeth along the arch, in metres.
            shade: share of the light ``[n]``.
            pixel_m: size of a pixel in metres.

        Returns:
            Colours ``[n,3]`` and coverage ``[n]`` in 0..1.
        """
        distance = np.abs(np.abs(arc)[:, None] - ends[None])
        which = np.clip(np.searchsorted(ends, np.abs(arc)) - 1, 0, len(ends) - 2)
        middle, half = (ends[which] + ends[which + 1]) / 2, (ends[which + 1] - ends[which]) / 2
        across = np.clip((np.abs(arc) - middle) / half, -1, 1)
        reach = max(_SHAPE.gap, 0.45 * pixel_m)
        gap = _LIGHT.gap_shade * (_SHAPE.gap / reach) ** 0.5 * np.exp(-np.square(distance.min(1) / reach))
        neck = eased((height - _SHAPE.neck_from) / _SHAPE.neck_over)
        bulge = 1.0 - _LIGHT.side_shade * np.square(across) - _LIGHT.neck_shade * neck
        palette = self.palette
        light = (shade * bulge * (1.0 - gap))[:, None]
        line = _SHAPE.crown - _SHAPE.gum_dip * np.square(across)
        gum = eased((height - line) / _SHAPE.gum_edge)[:, None]
        flesh = palette.gum * shade[:, None]
        tooth = palette.dark + light * (palette.tooth - palette.dark)
        tip = (height - _SHAPE.rounding * across**4) / max(_SHAPE.tip, 0.7 * pixel_m) + 0.5
        return tooth + gum * (flesh - tooth), eased(tip)


def _behind(share: float) -> float:
    """Return how far behind the lip the edges of teeth are that show ``share`` of the opening, in metres."""
    return float(_SHAPE.behind_lip * (1.0 - eased(np.asarray(share / _SHAPE.just_shown))))


def _biting_edge(arc: Tensor, y: Tensor, up: float) -> Tensor:
    """Find the height of a row's biting edge at each of its vertices; molars reach farther than front teeth.

    Args:
        arc: places of the vertices along the arch ``[n]``, in metres.
        y: heights of the vertices ``[n]``, in metres.
        up: 1 where crowns grow upwards from the edge, -1 where downwards.

    Returns:
        ``[n]``, in metres.
    """
    places = np.linspace(0.0, float(arc.abs().max()), 9)
    away = (arc.abs()[:, None] - torch.from_numpy(places).float()).abs()
    heights = torch.where(away < 0.75 * float(places[1]), up * y[:, None], torch.inf).amin(0)
    some = torch.isfinite(heights).numpy()
    edge = np.interp(arc.abs().numpy(), places[some], heights.numpy()[some])
    return torch.from_numpy(up * edge).float()


def _rise(arc: Tensor) -> Tensor:
    """Return the height of the biting edges above those at the midline, at places along the arch; metres."""
    return _SHAPE.rise * (arc / _SHAPE.rise_at).clamp(-1.3, 1.3) ** 2


def _arc_length(vertices: Tensor) -> Tensor:
    """Return the signed distance ``[n]`` of vertices ``[n,3]`` from the midline along the arch's outside."""
    x, z = vertices[:, 0].abs().numpy(), vertices[:, 2].numpy()
    bins = np.linspace(0.0, float(x.max()), 12)
    # the arch's outer line: the foremost vertex of each stretch of width
    outer = [z[(x >= lo - 1e-4) & (x <= hi + 2e-3)].max(initial=-1.0) for lo, hi in pairwise(bins)]
    zs = np.array([o for o in outer if o > -1.0])
    # the arch runs back all along; a stretch may have vertices of its inside alone
    zs = np.maximum.accumulate(zs[::-1])[::-1]
    xs = bins[:-1][[o > -1.0 for o in outer]]
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(xs), np.diff(zs)))])
    # behind the last bin the arch runs straight back, where depth measures it
    arc = np.interp(x, xs, length) + np.maximum(np.interp(x, xs, zs) - z, 0.0) * (x > 0.6 * x.max())
    return torch.from_numpy(np.sign(vertices[:, 0].numpy()) * arc).float()
