"""The mesh in other cameras: its depth, and a frame's colours carried along it.

Both hold a generator to the head's true shape while it is tuned on frames of a single view.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from portrait_core.cameras import crop_rays, project_to_crop
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.raster import Fragments, interpolate, rasterize

_FACE_LEVEL = 0.5
_MOUTH_LEVEL = 0.35
_PERSON_LEVEL = 0.5
_SAME_SURFACE = 0.008
"""Two depths (box units) nearer than this are the same surface; 4 mm on the embedded head."""


class HeadDepth(NamedTuple):
    """The head's surface seen by cameras."""

    depth: Float[Tensor, "b s s"]
    """Distance along the ray in box units, 0 where the ray misses."""
    face: Bool[Tensor, "b s s"]
    """The face, eyes and mouth included."""
    mouth: Bool[Tensor, "b s s"]
    """The mouth interior: teeth, tongue, the mouth's walls."""
    detail: Bool[Tensor, "b s s"]
    """Lips and eyelids: small, and most of an expression."""


class NovelView(NamedTuple):
    """A frame's colours seen by other cameras."""

    image: Float[Tensor, "b 3 s s"]
    """Colours in the range of the source image; 0 where not valid."""
    valid: Bool[Tensor, "b s s"]
    """The face's pixels that the source camera saw too."""
    depth: Float[Tensor, "b s s"]
    """See :class:`HeadDepth`."""
    face: Bool[Tensor, "b s s"]
    """See :class:`HeadDepth`."""
    mouth: Bool[Tensor, "b s s"]
    """See :class:`HeadDepth`."""
    detail: Bool[Tensor, "b s s"]
    """See :class:`HeadDepth`."""


class HeadSurface:
    """Rasterises heads for depth maps and for reprojection, on the head's current device.

    It keeps the vertex attributes.
    """

    def __init__(self, head: MorphableHead):
        self._head = head
        self._kept: Tensor | None = None
        self._first_inner = 3 if len(head.group_names) > 3 else len(head.group_names)

    @property
    def faces(self) -> Int[Tensor, "f 3"]:
        """The head's triangles."""
        return self._head.faces

    @property
    def _attributes(self) -> Float[Tensor, "1 v 3"]:
        """Face, inside of the mouth, lips and eyelids, as shares of 1."""
        if self._kept is None or self._kept.device != self.faces.device:
            mask = self._head.mask
            detail = torch.maximum(mask("lips"), mask("eyelids"))
            self._kept = torch.stack([mask("face"), mask("inside_mouth"), detail], 1)[None]
        return self._kept

    def see(
        self, vertices_box: Float[Tensor, "b v 3"], cameras: Float[Tensor, "b 25"], size: int
    ) -> tuple[Fragments, HeadDepth, Float[Tensor, "b v 3"]]:
        """Rasterise heads: fragments, depth and masks, and the projected vertices."""
        pixels = project_to_crop(cameras, vertices_box, size)
        fragments = rasterize(pixels, self.faces, size, size, cull_backfaces=True)
        hit = fragments.face_id >= 0
        group = self._head.face_group[fragments.face_id.clamp(min=0)].where(hit, -1)
        mask = interpolate(self._attributes, self.faces, fragments)
        inner = group >= self._first_inner
        mouth = hit & (inner | ((group == 0) & (mask[..., 1] > _MOUTH_LEVEL)))
        face = hit & ((mask[..., 0] > _FACE_LEVEL) | (group > 0) | mouth)
        along = torch.where(hit, fragments.depth * _ray_stretch(cameras, size), 0.0)
        detail = face & ~mouth & (mask[..., 2] > _FACE_LEVEL)
        return fragments, HeadDepth(along, face, mouth, detail), pixels


def head_depth(
    head: MorphableHead, vertices_box: Float[Tensor, "b v 3"], cameras: Float[Tensor, "b 25"], size: int
) -> HeadDepth:
    """Return depth along the ray, face mask and mouth mask of heads at arbitrary cameras.

    Args:
        head: gives the triangles and masks.
        vertices_box: vertices in the box frame (``head.to_box(head.decode(...))``).
        cameras: camera labels, one for each head.
        size: image side in pixels; rays go through pixel centres as ``crop_rays`` draws them.
    """
    return HeadSurface(head).see(vertices_box, cameras, size)[1]


def _ray_stretch(cameras: Tensor, size: int) -> Float[Tensor, "b s s"]:
    """Return the length of each pixel's ray per unit of depth along the optical axis."""
    _, direction = crop_rays(cameras, size)
    forward = cameras[:, :16].reshape(-1, 4, 4)[:, :3, 2]
    return 1.0 / torch.einsum("bnc,bc->bn", direction, forward).view(-1, size, size)


class SourceFrame:
    """One frame at the camera it was made for, ready to be looked at from elsewhere."""

    def __init__(
        self,
        surface: HeadSurface,
        image: Float[Tensor, "3 s s"],
        vertices_box: Float[Tensor, "v 3"],
        camera: Float[Tensor, 25],
        matte: Float[Tensor, "1 s s"] | None = None,
    ) -> None:
        """Keep a frame and its head.

        Args:
            surface: the surface of the head that ``vertices_box`` belongs to.
            image: the frame, any range.
            vertices_box: the head in this frame, box frame.
            camera: the frame's camera label.
            matte: coverage by the person, 0..1. A fitted head sticks out a little past the photographed jaw,
                where it would carry the background along.
        """
        self.surface, self._image, self._vertices, self._matte = surface, image, vertices_box, matte
        size = image.shape[-1]
        fragments, self.seen, pixels = surface.see(vertices_box[None], camera[None], size)
        self._depth = fragments.depth.nan_to_num(posinf=1e4)
        self._attributes = torch.cat([pixels[..., :2] * (2.0 / size) - 1.0, pixels[..., 2:]], -1)

    def at(self, cameras: Float[Tensor, "b 25"], size: int) -> NovelView:
        """Re-project the frame into cameras; a pixel is valid where its surface point was seen."""
        batch = len(cameras)
        vertices = self._vertices[None].expand(batch, -1, -1)
        fragments, seen, _ = self.surface.see(vertices, cameras, size)
        source = interpolate(self._attributes, self.surface.faces, fragments)
        grid = source[..., :2]
        color = F.grid_sample(
            self._image[None].expand(batch, -1, -1, -1), grid, padding_mode="border", align_corners=False
        )
        front = F.grid_sample(
            self._depth[:, None].expand(batch, -1, -1, -1), grid, mode="nearest", align_corners=False
        )[:, 0]
        inside = (grid.abs() < 1.0).all(-1)
        valid = seen.face & inside & ((front - source[..., 2]).abs() < _SAME_SURFACE)
        if self._matte is not None:
            person = self._matte[None].expand(batch, -1, -1, -1)
            valid &= F.grid_sample(person, grid, align_corners=False)[:, 0] > _PERSON_LEVEL
        return NovelView(color * valid[:, None], valid, *seen)
