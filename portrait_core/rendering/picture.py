"""The clip's pictures: the animated head in the photograph, by the photograph's own pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.cameras import project_to_crop
from portrait_core.generators import Planes, VolumeGenerator
from portrait_core.inversion.targets import image_array, image_tensor
from portrait_core.photograph.filters import is_colourless
from portrait_core.rendering.believed import Believed
from portrait_core.rendering.compositing import composite, gaussian_blur, places_seen, sample, soften
from portrait_core.rendering.detail import Lookup, SourceView, matched, pixel_places, resized
from portrait_core.rendering.motion import Motion
from portrait_core.rendering.neck import Bending
from portrait_core.rendering.page import Square
from portrait_core.rendering.part import Part
from portrait_core.rendering.pose_renderer import bounds, final_sampling
from portrait_core.rendering.surfaces import PERSON, Fitted, Surface, View, rendered_surface
from portrait_core.settings import CompositeSettings, RenderSettings

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Canvas:
    """The square of the picture that is drawn anew in every frame.

    Attributes:
        picture: the photograph there ``[M,M,3]`` uint8.
        coverage: the person there ``[M,M]`` float32 in 0..1.
        foreground: the person's own colours ``[M,M,3]`` uint8.
        plate: what stands behind ``[M,M,3]`` uint8.
        window: the square around the face crop, where templates are drawn.
    """

    picture: Image
    coverage: NDArray[np.float32]
    foreground: Image
    plate: Image
    window: Square

    @property
    def size(self) -> int:
        """The canvas's side in pixels."""
        return len(self.picture)

    def placed(self, values: Tensor, around: Tensor) -> Tensor:
        """Lay what the window shows ``[1,c,D,D]`` over what is around it ``[1,c,M,M]``."""
        at = self.window
        whole = around.clone()
        whole[..., at.y : at.y + at.side, at.x : at.x + at.side] = values
        return whole


class FrameInputs(NamedTuple):
    """Inputs of one frame, on the renderer's device."""

    ws: Float[Tensor, "1 rows w"]
    """Its latent."""
    template: Float[Tensor, "1 3 n n"]
    """Its expression template at the portrait's camera, in [-1,1]."""
    face: Float[Tensor, "1 1 n n"]
    """The template's face, mouth included, in 0..1."""
    mouth: Float[Tensor, "1 1 n n"]
    """The template's mouth in 0..1."""


@dataclass(frozen=True)
class Picture:
    """One frame.

    Attributes:
        image: ``[M,M,3]`` uint8.
        coverage: of the person ``[M,M]`` uint8.
        mask: where the face is frame i's ``[M,M]`` uint8.
        depth: distance along the ray to what is seen ``[R,R]`` float16, box units.
        cutout: the person's own colours and coverage ``[M,M,4]`` uint8.
    """

    image: Image
    coverage: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    depth: NDArray[np.float16]
    cutout: NDArray[np.uint8]


MOVED = 0.001
"""Smallest move that counts (box units; half a millimetre on the embedded head)."""
THICK = 0.3
"""Depth of a head (box units; 15 cm on the embedded head)."""
MOUTH = 0.3
"""Coverage by the template's mouth from which a pixel is the mouth interior."""
STILL_PX = (0.25, 1.5)
"""Moves of a pixel: below the first it is the photograph's own to the bit; by more than the second, only
the layers' (pixels of the output)."""
STRAY = 0.015
"""Half the thickness below which a piece seen apart from the person is left out, unless a larger one is
within twice this (share of the face crop)."""
AROUND = 0.05
"""Rays are rendered so far around the head and around the face (share of the face crop): room for what the
first look does not show, as a jaw that drops."""


class PictureRenderer:
    """Renders frames of one clip with the photograph's pixels. Read-only.

    Args:
        generator: the tuned generator, in eval mode.
        first: the first frame's latent ``[1,rows,w]``.
        first_face: its face mask at the portrait's camera ``[1,1,n,n]`` in 0..1.
        camera: the portrait's camera, seeing the canvas ``[1,25]``.
        canvas: the photograph around the face.
        head: vertices of the head that was fitted to the portrait ``[v,3]``, box units.
        motion: makes the views of wanted poses.
        render, compositing: settings.
    """

    def __init__(
        self,
        generator: VolumeGenerator,
        first: Float[Tensor, "1 rows w"],
        first_face: Float[Tensor, "1 1 n n"],
        camera: Float[Tensor, "1 25"],
        canvas: Canvas,
        head: Float[Tensor, "v 3"],
        motion: Motion,
        render: RenderSettings,
        compositing: CompositeSettings,
    ) -> None:
        self.generator, self.first, self.canvas, self.motion = generator, first, canvas, motion
        self.camera, self.compositing = camera, compositing
        self.sampling, rays = final_sampling(generator, render)
        device, window = first.device, canvas.window
        self.rays = max(8, round(rays * canvas.size / window.side / 8) * 8)
        self._take_layers(device)
        self.colourless = is_colourless(canvas.picture)
        corner = window.x / canvas.size, window.y / canvas.size
        self.fitted = Fitted(camera, corner, window.side / canvas.size)
        self.first_face = self._face(first_face)
        with torch.no_grad():
            self.planes = generator.planes(first)
            self.view = View.of(camera, self.rays)
            self.believed: Believed | None = None
            self.surface = self._rendered(self.planes, self.view)
            if self.planes.background_plane is not None:
                known = self.cover, self.fitted.side, head, generator.settings.box_warp
                self.believed = Believed(self.surface, camera, *known)
                self.surface = self._rendered(self.planes, self.view)
            self.source = SourceView(self.surface, camera)
            self.person = self._person_points()
            face = self._grown(resized(self.first_face, self.rays) > 0.02)
            # where frames' own latents are only asked what hides what, half the rays do
            self.coarse_face = F.max_pool2d(face.float(), 2) > 0
            self.coarse_view = View.of(camera, self.rays // 2)
            self.coarse_surface = self._rendered(self.planes, self.coarse_view)

    def _take_layers(self, device: torch.device) -> None:
        canvas = self.canvas
        picture, front, self.back = (
            image_tensor(x)[None].to(device) for x in (canvas.picture, canvas.foreground, canvas.plate)
        )
        self.cover = torch.from_numpy(canvas.coverage).to(device)[None, None]
        self.front = torch.cat([front, self.cover], dim=1)
        # what the layers together miss of the photograph
        self.left = picture - composite(front, self.back, self.cover)

    def _face(self, mask: Float[Tensor, "1 1 s s"]) -> Float[Tensor, "1 1 m m"]:
        return self.canvas.placed(resized(mask, self.canvas.window.side), torch.zeros_like(self.cover))

    @torch.no_grad()
    def render(self, frame: FrameInputs, camera: Float[Tensor, "1 25"]) -> Picture:
        """Render a frame with the head posed as ``camera``, a camera of the face crop on the CPU, sees it."""
        view = self.motion.view(camera, self.rays)
        stays = None if view.bend is None else self._stays(view.bend)
        base = self._base(view, stays)
        look = self._without_strays(self.source.lookup(base), base)
        first_face = sample(self.first_face, look.place(self.rays), "zeros") * look.seen
        own, own_look, faces = self._own(frame, view, base, first_face)
        mask = self._mask(own_look, faces, first_face)
        part = self._part(view, base, look, mask)
        drawn = self.canvas.placed(resized(frame.template, self.canvas.window.side), self.front[:, :3])
        texture = torch.cat([drawn, self.cover.maximum(faces)], dim=1)
        first_layer = self._textured(part, base, self.first, self.front, look)
        own_layer = self._textured(part, own, frame.ws, texture, own_look)
        back, background_depth = self._background(view, part)
        depth = base.depth
        if background_depth is not None:
            depth = torch.where(base.accumulation > PERSON, depth, background_depth.reshape(depth.shape))
        share = sample(mask, part.places)
        colour, cover = (
            composite(mine, its, share) for its, mine in zip(first_layer, own_layer, strict=True)
        )
        left = self._still(part, look, stays) * (1 - share) * part.cut(self.left)
        image = composite(colour, back, cover) + left
        return self._finished(part, image, colour, cover, share, depth)

    def _rendered(
        self,
        planes: Planes,
        view: View,
        partly: tuple[Bool[Tensor, " n"], Surface] | None = None,
    ) -> Surface:
        return rendered_surface(
            self.generator, planes, view, self.sampling, self.fitted, partly, self.believed
        )

    def _base(self, view: View, stays: Bool[Tensor, "1 1 r r"] | None) -> Surface:
        """Return the first frame's surface at a view: rendered where the head has moved."""
        if view.bend is None or stays is None:
            return self._rendered(self.planes, view)
        # the portrait's own surface without what has moved away from it
        left = replace(self.surface, accumulation=self.surface.accumulation * stays)
        return self._rendered(self.planes, view, (self._moved(view.bend).flatten(), left))

    def _stays(self, bend: Bending) -> Bool[Tensor, "1 1 r r"]:
        """Tell at which rays of the portrait's own view what lies there does not move."""
        points = self.surface.points.reshape(1, -1, 3)
        moves = (bend.seen_at(points) - points).norm(dim=-1) > MOVED
        return ~moves.reshape(self.surface.accumulation.shape)

    def _without_strays(self, look: Lookup, base: Surface) -> Lookup:
        """Remove pieces as thin as a line that are seen apart from the person.

        They are the photograph's outline where the head has turned away from it.
        """
        there = sample(self.cover, look.place(self.rays)) * look.seen
        person = (torch.maximum(there, base.accumulation) > 0.3).to(there.dtype)
        reach = self._rays_of(STRAY)
        solid = -F.max_pool2d(-F.pad(person, (reach,) * 4, mode="replicate"), 2 * reach + 1, 1)
        near = F.max_pool2d(solid, 6 * reach + 1, 1, 3 * reach) > 0
        stray = gaussian_blur(F.max_pool2d(((there > 0.01) & ~near).to(there.dtype), 3, 1, 1), 1.0)
        moves = (look.move.abs().amax(1, keepdim=True) * self.canvas.size / STILL_PX[1]).clamp(0, 1)
        return replace(look, seen=look.seen * (1 - stray * moves))

    def _rays_of(self, share: float) -> int:
        """Return a share of the face crop's side in rays, at least one."""
        return max(1, round(share * self.rays * self.canvas.window.side / self.canvas.size))

    def _own(
        self, frame: FrameInputs, view: View, base: Surface, first_face: Tensor
    ) -> tuple[Surface, Lookup, Tensor]:
        """Return frame i's surface and its look-up, on and around the face, and its face mask."""
        planes, faces, mouths = (
            self.generator.planes(frame.ws),
            self._face(frame.face),
            self._face(frame.mouth),
        )
        own, seen = (
            self._rendered(planes, at, (rays.flatten(), elsewhere))
            for at, rays, elsewhere in (
                (view, self._grown(first_face > 0.02), base),
                (self.coarse_view, self.coarse_face, self.coarse_surface),
            )
        )
        # the template draws the mouth's inside on the lips' surface, and there it stays
        inside = sample(mouths, places_seen(self.camera, own.points), "zeros") > MOUTH
        own = own.without(inside, view)
        seen = seen.without(resized(mouths, self.coarse_view.side) > MOUTH, self.coarse_view)
        return own, SourceView(seen, self.camera).lookup(own), faces

    def _mask(self, look: Lookup, faces: Tensor, first_face: Tensor) -> Tensor:
        """Return the mask of where the picture is frame i's, one value per ray."""
        mask = sample(faces, look.place(self.rays), "zeros") * look.seen
        if self.compositing.union_first:
            mask = mask.maximum(first_face)
        ray, settings = self.rays * self.canvas.window.side / self.canvas.size / 256, self.compositing
        return soften(mask, settings.dilate_px * ray, settings.feather_px * ray)

    def _part(self, view: View, base: Surface, look: Lookup, mask: Tensor) -> Part:
        """Return the part of the canvas that does not show the photograph as it is.

        It lies where the person has moved, and around the face.
        """
        if view.bend is None:
            return Part.of(None, self.rays, self.canvas.size, base.depth.device)
        there = sample(self.cover, look.place(self.rays))
        person = torch.cat([base.accumulation, there, resized(self.cover, self.rays)], dim=1).amax(
            1, keepdim=True
        )
        away = look.move.abs().amax(1, keepdim=True) * self.canvas.size
        changed = ((person > 0.01) & (away > STILL_PX[0] / 2)) | (mask > 0.002)
        return Part.of(bounds(changed[0, 0]), self.rays, self.canvas.size, base.depth.device)

    def _still(self, part: Part, look: Lookup, stays: Bool[Tensor, "1 1 r r"] | None) -> Tensor:
        """Return 1 where a pixel stays and shows what it did, 0 where it moves or has been left."""
        away = sample(look.move, part.places).abs().amax(1, keepdim=True) * self.canvas.size
        still = 1 - ((away - STILL_PX[0]) / (STILL_PX[1] - STILL_PX[0])).clamp(0, 1)
        return still if stays is None else still * sample(stays.to(still.dtype), part.places)

    def _moved(self, bend: Bending) -> Bool[Tensor, "1 1 r r"]:
        """Find the rays that may show what has moved: around the head as it is seen now, front and back."""
        seen = bend.seen_at(self.person)
        place = project_to_crop(self.camera, seen, self.rays)[0, :, :2]
        column, row = place.long().clamp(0, self.rays - 1).unbind(-1)
        hit = torch.zeros(self.rays * self.rays, device=place.device)
        moved = ((seen - self.person)[0].norm(dim=-1) > MOVED).to(hit.dtype)
        hit = hit.scatter_reduce(0, row * self.rays + column, moved, "amax")
        return self._grown(hit.reshape(1, 1, self.rays, self.rays) > 0)

    def _person_points(self) -> Float[Tensor, "1 n 3"]:
        """Return points on the visible person at the portrait's view, and a head's depth behind them."""
        person = self.surface.accumulation.flatten() > 0.1
        front = self.surface.points.reshape(1, -1, 3)[:, person]
        return torch.cat([front, front + self.view.rays.directions[:, person] * THICK], dim=1)

    def _grown(self, mask: Bool[Tensor, "1 1 r r"]) -> Bool[Tensor, "1 1 r r"]:
        reach = self._rays_of(AROUND)
        return F.max_pool2d(mask.float(), 2 * reach + 1, 1, reach) > 0

    def _background(self, view: View, part: Part) -> tuple[Tensor, Tensor | None]:
        """Return the picture behind the person in a part of the view, and its depth.

        The depth is the distance along each ray to the background plane; None where the generator has none.
        """
        background_depth = self.generator.background_depth(view.rays)
        if background_depth is None or view.bend is not None:
            return part.cut(self.back), background_depth
        points = view.rays.points(background_depth)
        place = places_seen(self.camera, points.reshape(1, view.side, view.side, 3))
        move = sample(place - pixel_places(place), part.places)
        return sample(self.back, part.places + move, "border", "bicubic"), background_depth

    def _textured(
        self, part: Part, surface: Surface, ws: Tensor, texture: Tensor, look: Lookup
    ) -> tuple[Tensor, Tensor]:
        """Return colour and coverage of the person in a part of the canvas."""
        maps = torch.cat([look.move, look.seen, surface.accumulation], dim=1)
        move, seen, weight = sample(maps, part.places).split((2, 1, 1), dim=1)
        found = sample(texture, part.places + move, "border", "bicubic")
        painted = matched(self._painted(part, surface, ws), found[:, :3], seen * found[:, 3:])
        return composite(found[:, :3], painted, seen), composite(found[:, 3:], weight, seen).clamp(0, 1)

    def _painted(self, part: Part, surface: Surface, ws: Tensor) -> Tensor:
        """Return the generator's own picture in a part of the canvas."""
        rows, columns, places = part.seen_by_rays(self.generator.settings.patch_step(self.rays))
        features = surface.features[..., rows, columns]
        image = features[:, :3]
        if self.generator.has_superresolution:
            image = self.generator.superresolve(features, ws, self.rays)
        image = sample(image, places, "border", "bicubic").clamp(-1, 1)
        return image.mean(1, keepdim=True).expand_as(image) if self.colourless else image

    def _finished(
        self, part: Part, image: Tensor, colour: Tensor, cover: Tensor, share: Tensor, depth: Tensor
    ) -> Picture:
        canvas, rows, columns = self.canvas, part.rows, part.columns
        whole, person = canvas.picture.copy(), np.rint(canvas.coverage * 255).astype(np.uint8)
        face, cutout = np.zeros_like(person), np.dstack([canvas.foreground, person])
        whole[rows, columns] = image_array(image[0])
        for kept, drawn in ((person, cover), (face, share)):
            kept[rows, columns] = image_array(2 * drawn[0] - 1)[..., 0]
        cutout[rows, columns] = image_array(torch.cat([colour, 2 * cover - 1], dim=1)[0])
        return Picture(whole, person, face, depth[0, 0].half().cpu().numpy(), cutout)
