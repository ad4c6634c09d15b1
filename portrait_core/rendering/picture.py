"""The clip's pictures: the animated head in the photograph, by the photograph's own pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.cameras import project_to_crop
from portrait_core.generators import RaySampling, TriPlaneGenerator
from portrait_core.generators.triplane import Bend
from portrait_core.rendering.compositing import composite, soften
from portrait_core.rendering.detail import Lookup, SourceView, enlarged, pixel_places, sample
from portrait_core.rendering.surfaces import Surface, View, rendered_surface, source_places

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Canvas:
    """The square of the picture that is drawn anew in every frame.

    Attributes:
        picture: the photograph there ``[M,M,3]`` uint8.
        coverage: the person there ``[M,M]`` float32 in 0..1.
        foreground: the person's own colours ``[M,M,3]`` uint8.
        plate: what stands behind ``[M,M,3]`` uint8.
        corner: of the face crop in it ``(x, y)`` in pixels.
        side: of the face crop in pixels.
    """

    picture: Image
    coverage: NDArray[np.float32]
    foreground: Image
    plate: Image
    corner: tuple[int, int]
    side: int

    @property
    def size(self) -> int:
        """The canvas's side in pixels."""
        return len(self.picture)

    def camera(self, crop: Float[Tensor, "1 25"]) -> Float[Tensor, "1 25"]:
        """Give the label of a camera that sees the canvas, from that of the face crop."""
        share, (x, y) = self.side / self.size, self.corner
        wide = crop.clone()
        wide[:, 16:22] *= share
        wide[:, 18] += x / self.size
        wide[:, 21] += y / self.size
        return wide

    def placed(self, values: Tensor, around: Tensor) -> Tensor:
        """Lay what the face crop shows ``[1,c,side,side]`` over what is around it ``[1,c,M,M]``."""
        x, y = self.corner
        whole = around.clone()
        whole[..., y : y + self.side, x : x + self.side] = values
        return whole


@dataclass(frozen=True)
class Picture:
    """One frame.

    Attributes:
        image: ``[M,M,3]`` uint8.
        coverage: of the person ``[M,M]`` uint8.
        mask: where the face is frame i's ``[M,M]`` uint8.
    """

    image: Image
    coverage: NDArray[np.uint8]
    mask: NDArray[np.uint8]


def image_tensor(image: Image, device: torch.device | str) -> Float[Tensor, "1 3 h w"]:
    """``[H,W,3]`` uint8 to ``[1,3,H,W]`` float32 in [-1,1] on a device."""
    return torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1


THICK = 0.3
"""Depth of a head (box units; 15 cm on the embedded head)."""
AROUND = 0.05
"""Rays are rendered so far around the head and around the face (share of the face crop): room for what the
first look does not show, as a jaw that drops."""


class PictureRenderer:
    """Renders frames of one clip with the photograph's pixels. Read-only.

    Args:
        generator: the tuned generator, in eval mode.
        first: the first frame's latent ``[1,rows,w]``.
        first_face: its face mask at the portrait's camera ``[1,1,n,n]`` in 0..1.
        camera: the portrait's camera ``[1,25]``.
        canvas: the photograph around the face.
        rays: of the face crop's volume rendering, along a side.
        sampling: samples per ray.
        soft_px: how far the face's mask grows, and its soft edge, in pixels of a crop of 256.
    """

    def __init__(
        self,
        generator: TriPlaneGenerator,
        first: Float[Tensor, "1 rows w"],
        first_face: Float[Tensor, "1 1 s s"],
        camera: Float[Tensor, "1 25"],
        canvas: Canvas,
        rays: int,
        sampling: RaySampling,
        soft_px: tuple[float, float],
    ) -> None:
        self.generator, self.first, self.canvas, self.sampling = generator, first, canvas, sampling
        self.soft_px = soft_px
        device, share = first.device, canvas.size / canvas.side
        self.rays = max(8, round(rays * share / 8) * 8)
        self.camera = canvas.camera(camera)
        self.trained = (canvas.corner[0] / canvas.size, canvas.corner[1] / canvas.size, 1 / share)
        picture, front, back = (image_tensor(x, device) for x in (canvas.picture, canvas.foreground, canvas.plate))
        cover = torch.from_numpy(canvas.coverage).to(device)[None, None]
        self.back, self.cover = back, cover
        self.front = torch.cat([front, cover], dim=1)
        self.left = picture - composite(front, back, cover)
        self.first_face = self._face(first_face)
        self.view = View.of(self.camera, self.rays)
        with torch.no_grad():
            self.planes = generator.planes(first)
            self.surface = rendered_surface(generator, self.planes, self.view, sampling)
            self.source = SourceView(self.surface, self.camera, self.trained)
            self.head_points = self._head_points()
            self.face_rays = self._grown(enlarged(self.first_face, self.rays) > 0.02)

    def _face(self, mask: Float[Tensor, "1 1 s s"]) -> Float[Tensor, "1 1 m m"]:
        return self.canvas.placed(enlarged(mask, self.canvas.side), torch.zeros_like(self.cover))

    @torch.no_grad()
    def render(
        self,
        ws: Float[Tensor, "1 rows w"],
        template: Float[Tensor, "1 3 n n"],
        face: Float[Tensor, "1 1 n n"],
        mouth: Float[Tensor, "1 1 n n"],
        camera: Float[Tensor, "1 25"],
        bend: Bend | None,
    ) -> Picture:
        """Render frame i, whose template, face and mouth at the portrait's camera are given, from ``camera``
        or through ``bend``."""
        view = View.of(self.canvas.camera(camera), self.rays, bend)
        base = self._base(view)
        look = self.source.lookup(base)
        first_mask = sample(self.first_face, self._place(look, self.rays), "zeros") * look.seen
        planes, faces = self.generator.planes(ws), self._face(face)
        at_face = self._grown(first_mask > 0.02)
        own = rendered_surface(self.generator, planes, view, self.sampling, at_face.flatten(), base)
        hole = sample(self._face(mouth), source_places(self.camera, own.points), "zeros") > 0.3
        own = own.without(hole, view)
        seen = rendered_surface(
            self.generator, planes, self.view, self.sampling, self.face_rays.flatten(), self.surface
        )
        hole = enlarged(self._face(mouth), self.rays) > 0.3
        own_look = SourceView(seen.without(hole, self.view), self.camera, self.trained).lookup(own)
        mask = sample(faces, self._place(own_look, self.rays), "zeros") * own_look.seen
        mask = soften(
            enlarged(mask.maximum(first_mask), self.canvas.size),
            *(px * self.canvas.side / 256 for px in self.soft_px),
        )
        drawn = self.canvas.placed(enlarged(template, self.canvas.side), self.front[:, :3])
        texture = torch.cat([drawn, self.cover.maximum(faces)], dim=1)
        return self._composed(
            self._textured(base, self.first, self.front, look), self._textured(own, ws, texture, own_look), mask, look
        )

    def _base(self, view: View) -> Surface:
        """The first frame's surface at a view: rendered where the head has moved."""
        if view.bend is None:
            return rendered_surface(self.generator, self.planes, view, self.sampling)
        moved = self._moved(view)
        return rendered_surface(self.generator, self.planes, view, self.sampling, moved.flatten(), self.surface)

    def _moved(self, view: View) -> Bool[Tensor, "1 1 r r"]:
        """Rays that may show what has moved: around where the head is seen now, front and back of it."""
        seen = view.bend.seen_at(self.head_points)
        place = project_to_crop(self.camera, seen, self.rays)[..., :2].long().clamp(0, self.rays - 1)
        hit = torch.zeros(self.rays * self.rays, device=seen.device)
        hit[(place[..., 1] * self.rays + place[..., 0]).flatten()] = 1.0
        return self._grown(hit.reshape(1, 1, self.rays, self.rays) > 0)

    def _head_points(self) -> Float[Tensor, "1 n 3"]:
        """Points on the front of what the source view shows of the person, and as far behind as a head is."""
        front = self.surface.points.reshape(1, -1, 3)[:, self.surface.weight.flatten() > 0.1]
        return torch.cat([front, front + self.view.directions[:, self.surface.weight.flatten() > 0.1] * THICK], dim=1)

    def _grown(self, mask: Bool[Tensor, "1 1 r r"]) -> Bool[Tensor, "1 1 r r"]:
        reach = max(1, round(AROUND * self.rays * self.canvas.side / self.canvas.size))
        return F.max_pool2d(mask.float(), 2 * reach + 1, 1, reach) > 0

    def _composed(
        self, first: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], mask: Tensor, look: Lookup
    ) -> Picture:
        colour, cover = (composite(b, a, mask) for a, b in zip(first, own, strict=True))
        image = composite(colour, self.back, cover)
        size = self.canvas.size
        away = enlarged(look.move, size).abs().amax(1, keepdim=True) * size
        still = 1 - ((away - 0.25) / 1.25).clamp(0, 1)
        return _picture(image + still * (1 - mask) * self.left, cover, mask)

    def _place(self, look: Lookup, size: int) -> Tensor:
        move = enlarged(look.move, size)
        return pixel_places(move) + move

    def _textured(self, surface: Surface, ws: Tensor, texture: Tensor, look: Lookup) -> tuple[Tensor, Tensor]:
        """Colour and coverage of the person at canvas size."""
        size = self.canvas.size
        found = sample(texture, self._place(look, size), "border", "bicubic")
        seen, inside, weight = (enlarged(x, size) for x in (look.seen, look.inside, surface.weight))
        image = surface.features[:, :3]
        if self.generator.superresolution is not None:
            image = self.generator.superresolve(surface.features, ws)
        painted = enlarged(image, size, "bicubic").clamp(-1, 1)
        return composite(found[:, :3], painted, seen), composite(found[:, 3:], weight, inside).clamp(0, 1)


def _picture(image: Tensor, cover: Tensor, mask: Tensor) -> Picture:
    pixels = ((image[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    flat = (torch.cat([cover, mask], dim=1)[0].clamp(0, 1) * 255).round().byte().cpu().numpy()
    return Picture(np.asarray(pixels), np.asarray(flat[0]), np.asarray(flat[1]))
