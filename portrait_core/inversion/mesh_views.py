"""The fitted head seen from any camera: depth and colour that a one-view fine-tune lacks.

Pivotal tuning sees one camera. The fitted mesh knows more: how far away the face is, and, where a point is
visible at the portrait's camera too, what colour it has. Both hold the generator's volume in shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from portrait_core.cameras import crop_rays, project_to_crop
from portrait_core.faces.head import MorphableHead
from portrait_core.faces.raster import Fragments, interpolate, rasterize

INSIDE = 0.35
"""Mask value above which a surface point counts as the mouth's inside."""
VISIBLE = 0.01
"""A point so far behind the surface that the portrait's camera sees still counts as visible (box units)."""


@dataclass(frozen=True)
class MeshView:
    """One mesh at one camera, ``R`` x ``R`` pixels.

    Attributes:
        depth: distance along the ray ``[R,R]``, box units, 0 where there is no face.
        face: face surface, mouth included ``[R,R]`` bool.
        inside: the mouth's inside ``[R,R]`` bool.
        points: surface points ``[R,R,3]``, box frame.
    """

    depth: Tensor
    face: Tensor
    inside: Tensor
    points: Tensor


class MeshViews:
    """Renders decoded heads at cameras. Stateless but for constants of the head."""

    def __init__(self, head: MorphableHead) -> None:
        self.head = head
        inside = head.mask("inside_mouth")
        self._masks = torch.stack([head.mask("face"), inside], dim=1)[None]
        names = ("helper-upper-teeth", "helper-lower-teeth", "helper-tongue")
        self._interior = torch.tensor([head.group(name) for name in names])
        self._eyes = torch.tensor([head.group(name) for name in ("helper-l-eye", "helper-r-eye")])

    def vertices(
        self, shape: Float[Tensor, "b s"], expression: Float[Tensor, "b e"], jaw: Float[Tensor, "b 3"]
    ) -> Float[Tensor, "b v 3"]:
        """Box-frame vertices of fits."""
        return self.head.to_box(self.head.decode(shape, expression, jaw))

    def _fragments(self, vertices: Tensor, camera: Tensor, size: int) -> Fragments:
        return rasterize(project_to_crop(camera, vertices, size), self.head.faces, size, size)

    def silhouette(
        self, vertices: Float[Tensor, "1 v 3"], camera: Float[Tensor, "1 25"], size: int
    ) -> Tensor:
        """Where the head (hairless) covers the crop, ``[size,size]`` bool."""
        return self._fragments(vertices, camera, size).face_id[0] >= 0

    def view(self, vertices: Float[Tensor, "1 v 3"], camera: Float[Tensor, "1 25"], size: int) -> MeshView:
        """Rasterise one head at one camera."""
        fragments = self._fragments(vertices, camera, size)
        attributes = torch.cat([vertices, self._masks.expand(1, -1, -1)], dim=-1)
        values = interpolate(attributes, self.head.faces, fragments)[0]  # [R,R,5]
        hit = fragments.face_id[0] >= 0
        group = self.head.face_group[fragments.face_id[0].clamp(min=0)]
        body = group == 0
        inside = hit & (torch.isin(group, self._interior) | (body & (values[..., 4] > INSIDE)))
        face = hit & ((body & (values[..., 3] > 0.5)) | torch.isin(group, self._eyes) | inside)
        origin, _ = crop_rays(camera, 1)
        depth = (values[..., :3] - origin[0, 0]).norm(dim=-1)
        return MeshView(torch.where(face, depth, torch.zeros_like(depth)), face, inside, values[..., :3])

    def colours(
        self,
        view: MeshView,
        source: MeshView,
        source_camera: Float[Tensor, "1 25"],
        image: Float[Tensor, "3 s s"],
    ) -> tuple[Float[Tensor, "r r 3"], Tensor]:
        """Colours of ``view``'s surface points, taken from ``image`` at the source camera.

        A part of the mouth's inside that the source camera cannot see takes the mean colour of the part that
        it can, darkened: without it an unseen cavity fills with skin.

        Args:
            view: the mesh at the other camera.
            source: the same mesh at the source camera.

        Returns:
            Colours ``[R,R,3]`` in [-1,1], and where they are known ``[R,R]`` bool.
        """
        size = view.depth.shape[-1]
        pixels = project_to_crop(source_camera, view.points.reshape(1, -1, 3), 1)
        grid = (pixels[..., :2] * 2 - 1).reshape(1, size, size, 2)
        colour = F.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]
        nearest = F.grid_sample(source.depth[None, None], grid, mode="nearest", align_corners=False)[0, 0]
        origin, _ = crop_rays(source_camera, 1)
        distance = (view.points - origin[0, 0]).norm(dim=-1)
        visible = view.face & (nearest > 0) & (distance - nearest < VISIBLE)
        hidden = view.inside & ~visible
        colour = colour.permute(1, 2, 0)
        if bool(hidden.any()):
            colour = torch.where(hidden[..., None], _cavity_colour(image, source), colour)
        return colour, visible | hidden


def _cavity_colour(image: Tensor, source: MeshView) -> Tensor:
    inside = F.interpolate(source.inside[None, None].float(), image.shape[-2:], mode="area")[0, 0]
    if float(inside.sum()) < 1:
        return image.new_tensor([-0.6, -0.8, -0.8])
    mean = (image * inside).sum((1, 2)) / inside.sum()
    return (mean + 1) * 0.6 - 1
