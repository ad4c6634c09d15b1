"""Pivotal tuning (Roich et al. 2021; paper section 3.3): one generator for all frames, latents held.

The image terms are the paper's, LPIPS-type plus pixels. The rest keeps the volume sound where the portrait's
one camera says nothing, and each is a weight in the settings, 0 in the published profile: the rendered depth
against the fitted head at the portrait's and at random cameras, colours of the fitted head's visible surface
at random cameras, the wall behind a matte of the portrait, and locality (:mod:`.locality`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.cameras import angles_from_labels, crop_rays, orbit_labels, project_to_crop
from portrait_core.config import TuningSettings
from portrait_core.faces.reproject import HeadSurface, NovelView, SourceFrame
from portrait_core.generators import Planes, RaySampling, TriPlaneGenerator
from portrait_core.inversion.features import masked_mean
from portrait_core.inversion.latent import Reconstruction
from portrait_core.inversion.locality import Locality
from portrait_core.inversion.loop import AdamLoop, Checkpoint, ParameterGroup, ramp
from portrait_core.inversion.patches import Patch, PatchRender, render_patch
from portrait_core.inversion.targets import FrameTarget

RANDOM_YAW_RAD, RANDOM_PITCH_RAD = 0.5, 0.35
"""Random cameras lie within so much of the portrait's."""
MESH_SIZE = 128
"""Side of the mesh renders that anchor depth and colour."""
INSIDE_EMPHASIS, DETAIL_EMPHASIS = 5.0, 3.0
"""The mouth's inside, and lips and lids, are drawn so much more often among a random view's rays: they are
small, and a mouth that closes for one camera alone looks open to the next."""
SOLID_EMPHASIS, SOLID_MARGIN = 0.25, 0.01
"""Chance of a ray at the fitted head outside the face, over the face's, and how far behind the head's surface
it may end (box units): hair and clothes lie before the scalp and the neck, nothing is seen through them."""
RARE_WIDTH = 0.1
"""Width of the window that counts like latents, as a share of their mean squared distance."""
RARE_SAMPLE = 512
"""Latents that the others are compared with: enough for a density, and linear in the clip's length."""


@dataclass(frozen=True)
class Clip:
    """What tuning fits: frames are loaded when their turn comes, so memory does not grow with the clip.

    Attributes:
        ws: frozen latents ``[T,rows,w]``.
        camera: the portrait's label ``[1,25]``.
        frame: loads frame i's target (``I_GT`` and masks).
        vertices: box-frame mesh of frame i ``[V,3]``.
        matte: the person's coverage in the portrait crop ``[1,S,S]`` in 0..1.
        wall: the portrait with the person painted away ``[3,S,S]`` in [-1,1].
    """

    ws: Float[Tensor, "t rows w"]
    camera: Float[Tensor, "1 25"]
    frame: Callable[[int], FrameTarget]
    vertices: Callable[[int], Tensor]
    matte: Float[Tensor, "1 s s"]
    wall: Float[Tensor, "3 s s"]


class Tuner:
    """Fine-tunes ``generator`` in place on a :class:`Clip`."""

    def __init__(
        self,
        generator: TriPlaneGenerator,
        phi: nn.Module,
        clip: Clip,
        surface: HeadSurface | None,
        settings: TuningSettings,
        sampling: RaySampling,
        resolution: int,
    ) -> None:
        self.generator, self.phi, self.clip, self.surface = generator, phi, clip, surface
        self.settings, self.sampling, self.resolution = settings, sampling, resolution
        self.reconstruction = Reconstruction(settings.lpips_weight, settings.l1_weight, settings.l2_weight)
        self.rng = torch.Generator().manual_seed(settings.seed)
        self.locality: Locality | None = None
        if settings.locality > 0:
            self.locality = Locality(generator, phi, self.reconstruction, sampling, settings.locality_alpha)
        self._rarity = rarity(clip.ws.flatten(1).cpu())

    def run(
        self, checkpoint: Checkpoint | None = None, on_step: Callable[[int, float], None] | None = None
    ) -> list[float]:
        """Tune, and return the loss of every step. The generator ends frozen, in eval mode."""
        settings = self.settings
        self.generator.requires_grad_(True)
        if settings.freeze_mapping:
            self.generator.backbone.mapping.requires_grad_(False)
        loop = AdamLoop(
            self._groups(),
            settings.steps,
            lambda step: (
                settings.learning_rate
                * ramp(step, settings.steps, settings.warmup_steps, settings.decay_fraction)
            ),
            self.rng,
            checkpoint,
            settings.checkpoint_every,
        )
        losses = loop.run(self._objective, on_step)
        self.generator.requires_grad_(False)
        return losses

    def _groups(self) -> list[ParameterGroup]:
        names = {id(p): name for name, p in self.generator.named_parameters()}

        def group(parameters: list[nn.Parameter], factor: float) -> ParameterGroup:
            return ParameterGroup({names[id(p)]: p for p in parameters if p.requires_grad}, factor)

        fast = group(self.generator.fast_parameters(), self.settings.fast_multiplier)
        return [g for g in (group(self.generator.slow_parameters(), 1.0), fast) if g.parameters]

    def _objective(self, step: int) -> Tensor:
        frames = self._draw_frames(step)
        targets = [self.clip.frame(i) for i in frames]
        ws = self.clip.ws[frames]
        planes = self.generator.planes(ws)
        draw = Patch.random if step % 2 else Patch.near_centre
        patch = draw(self.settings.patch, self.resolution, self.rng)
        render = render_patch(self.generator, planes, ws, self.clip.camera, patch, self.sampling, self.rng)
        loss = self._image_loss(render, targets, patch)
        if self.settings.background > 0 and planes.wall is not None:
            loss = loss + self.settings.background * self._background_loss(planes, render, patch)
        if self.settings.depth_anchor > 0 or self.settings.novel_view > 0:
            loss = loss + self._geometry_loss(planes, render, patch, frames[0], targets[0])
        if self.locality is not None and step % self.settings.locality_every == 0:
            loss = loss + self.settings.locality * self._locality_loss(self.locality, ws[:1])
        return loss

    def _locality_loss(self, locality: Locality, pivot: Tensor) -> Tensor:
        patch = Patch.random(self.settings.locality_patch, self.resolution, self.rng)
        return locality.loss(self.generator, pivot, self._random_camera(), patch, self.rng)

    def _draw_frames(self, step: int) -> list[int]:
        """Every frame once before any twice, in an order that depends on the seed and the pass alone; but a
        share of the draws goes to rare expressions: a blink lasts five frames of a hundred, and is what a
        viewer misses first."""
        total, batch = len(self.clip.ws), min(self.settings.batch, len(self.clip.ws))
        frames = []
        for place in range(step * batch, (step + 1) * batch):
            if float(torch.rand((), generator=self.rng)) < self.settings.rare_share:
                frames.append(int(torch.multinomial(self._rarity, 1, generator=self.rng)))
            else:
                order = torch.Generator().manual_seed(self.settings.seed + 1 + place // total)
                frames.append(int(torch.randperm(total, generator=order)[place % total]))
        return frames

    def _image_loss(self, render: PatchRender, targets: list[FrameTarget], patch: Patch) -> Tensor:
        image = patch.cut(torch.stack([t.image for t in targets]))
        weight = torch.stack([self._weight(t) for t in targets])
        return self.reconstruction(self.phi, render, image, patch.cut(weight))

    def _weight(self, target: FrameTarget) -> Tensor:
        settings = self.settings
        base = settings.outside_weight + (settings.face_weight - settings.outside_weight) * target.face
        return (base + settings.detail_weight * target.detail) * (1 - target.uncovered)

    def _background_loss(self, planes: Planes, render: PatchRender, patch: Patch) -> Tensor:
        """Coverage against the matte, and the wall's colour at random points, behind the person too."""
        scale = self.clip.matte.shape[-1] // self.resolution
        matte = F.avg_pool2d(patch.cut(self.clip.matte[None]), scale)
        coverage = (render.weight - matte).abs().mean()
        wall = self.generator.settings.background
        if wall is None:
            return coverage
        unit = torch.rand(len(planes), 512, 2, generator=self.rng).to(self.clip.camera) * 2 - 1
        xy = unit * wall.wall_half_extent
        points = torch.cat([xy, torch.full_like(xy[..., :1], wall.wall_z)], dim=-1)
        pixels = project_to_crop(self.clip.camera, points.reshape(1, -1, 3), 1)[..., :2]
        grid = (pixels * 2 - 1).reshape(1, len(planes), -1, 2)
        # Beyond the crop the wall is the photograph mirrored: it has the right colours and no hard edge.
        wanted = F.grid_sample(self.clip.wall[None], grid, padding_mode="reflection", align_corners=False)
        made = self.generator.renderer.wall_features(planes, self.generator.decoder, unit)
        return coverage + (made[..., :3] - wanted[0].permute(1, 2, 0)).abs().mean()

    def _geometry_loss(
        self, planes: Planes, render: PatchRender, patch: Patch, frame: int, target: FrameTarget
    ) -> Tensor:
        """Depth at the portrait's camera, and depth and colour at a random one, of the first drawn frame."""
        if self.surface is None:
            raise ValueError(
                "no head in the generator's space: set tuning.depth_anchor=0, tuning.novel_view=0"
            )
        image = F.adaptive_avg_pool2d(target.image, self.resolution)
        matte = F.adaptive_avg_pool2d(self.clip.matte, self.resolution)
        source = SourceFrame(self.surface, image, self.clip.vertices(frame), self.clip.camera[0], matte)
        seen = source.seen
        error = depth_error(render.depth[:1], *(patch.cut(x[None]) for x in (seen.depth, seen.face.float())))
        known = patch.cut(((seen.depth > 0) & ~seen.mouth)[None].float())
        loss = self.settings.depth_anchor * masked_mean(error, known)
        camera = self._random_camera()
        view = source.at(camera, MESH_SIZE)
        if not bool(view.face.any()):
            return loss
        return loss + self._novel_view_loss(planes, camera, view, _cavity_colour(image, seen.mouth[0]))

    def _random_camera(self) -> Tensor:
        yaw, pitch, roll = angles_from_labels(self.clip.camera.cpu().numpy())[0]
        move = torch.rand(2, generator=self.rng) * 2 - 1
        label = orbit_labels(
            yaw + RANDOM_YAW_RAD * float(move[0]), pitch + RANDOM_PITCH_RAD * float(move[1]), roll
        )
        return torch.from_numpy(label).to(self.clip.camera)

    def _novel_view_loss(self, planes: Planes, camera: Tensor, view: NovelView, cavity: Tensor) -> Tensor:
        """Depth and colour of rays of a random view. Where the mouth's inside was hidden from the portrait's
        camera, ``cavity [3]`` stands in: without it an unseen cavity fills with skin."""
        mouth, face = view.mouth.reshape(-1), view.face.reshape(-1)
        detail = view.detail.reshape(-1)
        solid = (view.depth.reshape(-1) > 0) & ~face
        chance = face.float() * (1 + INSIDE_EMPHASIS * mouth + DETAIL_EMPHASIS * detail)
        chance = chance + SOLID_EMPHASIS * solid
        count = self.settings.novel_view_rays
        index = torch.multinomial(chance.cpu(), count, replacement=True, generator=self.rng).to(chance.device)
        origins, directions = crop_rays(camera, MESH_SIZE)
        one = Planes(planes.volume[:1], None if planes.wall is None else planes.wall[:1])
        rays = self.generator.render_rays(
            one, origins[:, index], directions[:, index], self.sampling, jitter=True, generator=self.rng
        )
        error = depth_error(rays.depth[0], view.depth.reshape(-1)[index], face.float()[index])
        depth = (error * ~mouth[index]).mean()
        hidden = (mouth & ~view.valid.reshape(-1))[index]
        colour = torch.where(hidden[:, None], cavity, view.image[0].flatten(1).T[index])
        known = (view.valid.reshape(-1)[index] | hidden).float()
        seen = ((rays.features[0, :, :3] - colour).abs().mean(-1) * known).mean()
        return self.settings.depth_anchor * depth + self.settings.novel_view * seen


def depth_error(made: Tensor, wanted: Tensor, face: Tensor) -> Tensor:
    """Distance from the fitted head's surface: either way on the face, only behind it elsewhere."""
    error = made - wanted
    return face * error.abs() + (1 - face) * (error - SOLID_MARGIN).clamp(min=0)


def rarity(latents: Float[Tensor, "t n"]) -> Float[Tensor, " t"]:
    """How seldom a clip shows what a frame shows: one over the share of latents like its own."""
    others = latents[:: math.ceil(len(latents) / RARE_SAMPLE)]
    squared = torch.cdist(latents, others).square()
    alike = torch.exp(-squared / (2 * RARE_WIDTH * squared.mean() + 1e-12))
    return 1 / alike.mean(1).clamp(min=1 / len(others))


def _cavity_colour(image: Float[Tensor, "3 r r"], mouth: Tensor) -> Float[Tensor, 3]:
    """Mean colour of the mouth's visible inside, darkened; a dark red where none is visible."""
    if not bool(mouth.any()):
        return image.new_tensor([-0.6, -0.8, -0.8])
    return (image[:, mouth].mean(1) + 1) * 0.6 - 1
