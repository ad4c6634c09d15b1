"""Pivotal tuning (Roich et al. 2021; paper section 3.3): one generator for all frames, latents held.

The image terms are the paper's, LPIPS-type plus pixels. The rest keeps the volume sound where the portrait's
one camera says nothing, and each is a weight in the settings, 0 in the published profile: the rendered depth
against the fitted head at the portrait's and at random cameras, colours of the fitted head's visible surface
at random cameras (:mod:`.geometry`), the wall behind a matte of the portrait, and locality
(:mod:`.locality`).

What every step draws (frames, patches, cameras) is decided before the first one and depends on the seed and
the step alone; a block of steps finds its frames on the device (:mod:`.resident`). So a step asks the host
for nothing, and can be captured as a graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.cameras import angles_from_labels, orbit_labels, project_to_crop
from portrait_core.config import TuningSettings
from portrait_core.faces.reproject import HeadSurface
from portrait_core.generators import Planes, RaySampling, TriPlaneGenerator
from portrait_core.inversion.capture import capture_for
from portrait_core.inversion.geometry import HeadGeometry, ViewRays, anchor_loss, view_loss
from portrait_core.inversion.locality import Locality
from portrait_core.inversion.loop import (
    CHECKPOINT_S,
    READ_EVERY,
    AdamLoop,
    Checkpoint,
    OnStep,
    ParameterGroup,
    ramp,
)
from portrait_core.inversion.patches import CameraRays, Patch, PatchRender, corners, render_patch
from portrait_core.inversion.reconstruction import Reconstruction
from portrait_core.inversion.resident import ResidentFrames, resident_bytes
from portrait_core.inversion.targets import FrameTarget

RANDOM_YAW_RAD, RANDOM_PITCH_RAD = 0.5, 0.35
"""Random cameras lie within so much of the portrait's."""
RARE_WIDTH = 0.1
"""Width of the window that counts like latents, as a share of their mean squared distance."""
RARE_SAMPLE = 512
"""Latents that the others are compared with: enough for a density, and linear in the clip's length."""
WALL_POINTS = 512
"""Random points of the wall whose colours a step compares."""
_FEATURES = "phi"
"""Name, with the layer's number behind it, of Φ's maps of a frame's target."""


@dataclass(frozen=True)
class Clip:
    """What tuning fits: frames are loaded when their turn comes, so memory does not grow with the clip.

    Attributes:
        ws: frozen latents ``[T,rows,w]``.
        camera: the portrait's label ``[1,25]``.
        frame: loads frame i's target (``I_GT`` and masks) onto the latents' device.
        vertices: box-frame mesh of frame i ``[V,3]``, on that device.
        matte: the person's coverage in the portrait crop ``[1,S,S]`` in 0..1; None where nothing reads it.
        wall: the portrait with the person painted away ``[3,S,S]`` in [-1,1]; None where nothing reads it.
    """

    ws: Float[Tensor, "t rows w"]
    camera: Float[Tensor, "1 25"]
    frame: Callable[[int], FrameTarget]
    vertices: Callable[[int], Tensor]
    matte: Float[Tensor, "1 s s"] | None = None
    wall: Float[Tensor, "3 s s"] | None = None


def needs_matte(settings: TuningSettings) -> bool:
    """Say whether a term of the loss reads the portrait's matte."""
    return settings.background > 0 or needs_head(settings)


def needs_head(settings: TuningSettings) -> bool:
    """Say whether a term of the loss reads the fitted head."""
    return settings.depth_anchor > 0 or settings.novel_view > 0


class Tuner:
    """Fine-tunes ``generator`` in place on a :class:`Clip`.

    Args:
        generator: changed in place.
        phi: the perceptual features.
        clip: what to fit.
        surface: of the clip's head, on the clip's device; None where it has no place in the generator's
            space.
        settings: see :class:`TuningSettings`.
        sampling: samples per ray.
        resolution: the neural resolution.
        checkpoint_s: seconds between two checkpoints.
        memory_mib: memory for frames on the device; None: see :func:`.resident.resident_bytes`.
        graphs: whether a GPU's steps are captured as graphs.

    Raises:
        ValueError: if the settings ask for terms whose head or matte is not given.
    """

    def __init__(
        self,
        generator: TriPlaneGenerator,
        phi: nn.Module,
        clip: Clip,
        surface: HeadSurface | None,
        settings: TuningSettings,
        sampling: RaySampling,
        resolution: int,
        checkpoint_s: float = CHECKPOINT_S,
        memory_mib: int | None = None,
        graphs: bool = False,
    ) -> None:
        self.generator, self.phi, self.clip, self.surface = generator, phi, clip, surface
        self.settings, self.sampling, self.resolution = settings, sampling, resolution
        self.device = clip.ws.device
        self.reconstruction = Reconstruction(settings.lpips_weight, settings.l1_weight, settings.l2_weight)
        self.rng = torch.Generator(device=self.device).manual_seed(settings.seed)
        self.rays = CameraRays.of(clip.camera, resolution)
        self._checkpoint_s, self._memory_mib = checkpoint_s, memory_mib
        self._capture = capture_for(self.device, graphs)
        self.locality: Locality | None = None
        if settings.locality > 0:
            self.locality = Locality(generator, phi, self.reconstruction, sampling, settings.locality_alpha)
        self._geometry = self._head_geometry()
        self._matte = self._small_matte()
        self._rarity = rarity(clip.ws.flatten(1).cpu())

    def run(self, checkpoint: Checkpoint | None = None, on_step: OnStep | None = None) -> list[float]:
        """Tune, and return the loss of every step. The generator ends frozen, in eval mode."""
        settings = self.settings
        self.generator.requires_grad_(True)
        if settings.freeze_mapping:
            self.generator.backbone.mapping.requires_grad_(False)
        draws = _Draws(self)
        loop = AdamLoop(
            self._groups(),
            settings.steps,
            lambda step: (
                settings.learning_rate
                * ramp(step, settings.steps, settings.warmup_steps, settings.decay_fraction)
            ),
            self.rng,
            checkpoint,
            self._checkpoint_s,
            settings.adam_betas,
            prepare=draws.prepare,
            capture=self._capture,
            variant=self._is_local,
        )
        losses = loop.run(lambda step: self._objective(step, draws.at(loop.at)), on_step)
        self.generator.requires_grad_(False)
        return losses

    def _head_geometry(self) -> HeadGeometry | None:
        if not needs_head(self.settings):
            return None
        if self.surface is None or self.clip.matte is None:
            raise ValueError(
                "no head in the generator's space, or no matte of the portrait: set tuning.depth_anchor=0, "
                "tuning.novel_view=0"
            )
        return HeadGeometry(
            self.surface,
            self.clip.vertices,
            self.clip.camera,
            self.clip.matte,
            self.resolution,
            self.settings.novel_view_rays,
        )

    def _small_matte(self) -> Tensor | None:
        """Give the matte at the neural resolution ``[1,1,R,R]``."""
        if self.settings.background <= 0 or self.generator.settings.background is None:
            return None
        if self.clip.matte is None or self.clip.wall is None:
            raise ValueError("no matte of the portrait: set tuning.background=0")
        return F.avg_pool2d(self.clip.matte[None], self.clip.matte.shape[-1] // self.resolution)

    def _groups(self) -> list[ParameterGroup]:
        names = {id(p): name for name, p in self.generator.named_parameters()}

        def group(parameters: list[nn.Parameter], factor: float) -> ParameterGroup:
            return ParameterGroup({names[id(p)]: p for p in parameters if p.requires_grad}, factor)

        fast = group(self.generator.fast_parameters(), self.settings.fast_multiplier)
        return [g for g in (group(self.generator.slow_parameters(), 1.0), fast) if g.parameters]

    def _is_local(self, step: int) -> bool:
        return self.locality is not None and step % self.settings.locality_every == 0

    def _objective(self, step: int, drawn: _Drawn) -> Tensor:
        settings, patch = self.settings, drawn.patch
        ws = self.clip.ws.index_select(0, drawn.frames)
        planes = self.generator.planes(ws)
        render = render_patch(self.generator, planes, ws, self.rays, patch, self.sampling, self.rng)
        image, weight = patch.cut(drawn.rows["image"]), patch.cut(drawn.rows["weight"])
        loss = self.reconstruction(self.phi, render, image, weight, drawn.features)
        if self._matte is not None and planes.wall is not None:
            loss = loss + settings.background * self._background_loss(planes, render, patch)
        if settings.depth_anchor > 0:
            loss = loss + settings.depth_anchor * anchor_loss(render, drawn.first_rows, patch)
        if drawn.view is not None:
            loss = loss + self._view_loss(planes, drawn.view)
        if self.locality is not None and self._is_local(step):
            local = self.locality.loss(
                self.generator, self.clip.ws[:1], drawn.camera, drawn.local_patch, self.rng
            )
            loss = loss + settings.locality * local
        return loss

    def frames_of(self, step: int) -> list[int]:
        """Draw the frames of a step: every frame once before any twice, in an order that depends on the seed
        and the pass alone; but a share of the draws goes to rare expressions: a blink lasts five frames of a
        hundred, and is what a viewer misses first."""
        settings, total = self.settings, len(self.clip.ws)
        batch, frames = min(settings.batch, total), []
        own = torch.Generator().manual_seed(_mixed(settings.seed, step, 0))
        for place in range(step * batch, (step + 1) * batch):
            if float(torch.rand((), generator=own)) < settings.rare_share:
                frames.append(int(torch.multinomial(self._rarity, 1, generator=own)))
            else:
                order = torch.Generator().manual_seed(settings.seed + 1 + place // total)
                frames.append(int(torch.randperm(total, generator=order)[place % total]))
        return frames

    def frame_rows(self, frame: int, features: bool) -> dict[str, Tensor]:
        """Load what steps read of a frame: its image and pixel weights, the fitted head's depth where that is
        asked for, and with ``features`` Φ's maps of it."""
        target = self.clip.frame(frame)
        rows = {"image": target.image, "weight": self._weight(target)}
        if self._geometry is not None:
            rows |= self._geometry.frame_rows(frame, target.image)
        if features:
            maps = self.reconstruction.wanted(self.phi, rows["image"][None], rows["weight"][None]) or []
            rows |= {f"{_FEATURES}{i}": found[0] for i, found in enumerate(maps)}
        return rows

    def _weight(self, target: FrameTarget) -> Tensor:
        settings = self.settings
        weight = settings.outside_weight + (settings.face_weight - settings.outside_weight) * target.face
        if target.detail is not None:
            weight = weight + settings.detail_weight * target.detail
        return weight * (1 - (1 - settings.uncovered_weight) * target.uncovered)

    def _background_loss(self, planes: Planes, render: PatchRender, patch: Patch) -> Tensor:
        """Coverage against the matte, and the wall's colour at random points, behind the person too."""
        matte, wall, painted = self._matte, self.generator.settings.background, self.clip.wall
        if matte is None or wall is None or painted is None:
            return render.weight.new_zeros(())
        coverage = (render.weight - patch.cut(matte)).abs().mean()
        shape = (len(planes), WALL_POINTS, 2)
        unit = torch.rand(shape, generator=self.rng, device=self.device) * 2 - 1
        xy = unit * wall.wall_half_extent
        points = torch.cat([xy, torch.full_like(xy[..., :1], wall.wall_z)], dim=-1)
        pixels = project_to_crop(self.clip.camera, points.reshape(1, -1, 3), 1)[..., :2]
        grid = (pixels * 2 - 1).reshape(1, len(planes), -1, 2)
        # Beyond the crop the wall is the photograph mirrored: it has the right colours and no hard edge.
        wanted = F.grid_sample(painted[None], grid, padding_mode="reflection", align_corners=False)
        made = self.generator.renderer.wall_features(planes, self.generator.decoder, unit)
        return coverage + (made[..., :3] - wanted[0].permute(1, 2, 0)).abs().mean()

    def _view_loss(self, planes: Planes, view: ViewRays) -> Tensor:
        """Depth and colour at a random camera, of the first drawn frame."""
        one = Planes(planes.volume[:1], None if planes.wall is None else planes.wall[:1])
        rays = self.generator.render_rays(
            one, view.origins, view.directions, self.sampling, jitter=True, generator=self.rng
        )
        depth, colour = view_loss(rays.depth, rays.features[..., :3], view)
        return self.settings.depth_anchor * depth + self.settings.novel_view * colour


@dataclass(frozen=True)
class _Drawn:
    """What a step works on, on the device.

    Attributes:
        frames: numbers of its frames ``[B]`` int64.
        rows: of those frames, by name ``[B, ...]``.
        features: Φ's maps of their images, where they are kept.
        patch: its patch.
        camera: a random camera near the portrait's ``[1,25]``.
        local_patch: the patch of its locality term.
        view: rays of the random camera, where the head is looked at from there.
    """

    frames: Tensor
    rows: Mapping[str, Tensor]
    features: list[Tensor] | None
    patch: Patch
    camera: Tensor
    local_patch: Patch
    view: ViewRays | None

    @property
    def first_rows(self) -> dict[str, Tensor]:
        """Rows of the first frame, which the terms of the head look at."""
        return {name: row[:1] for name, row in self.rows.items()}


class _Draws:
    """All draws of a tuning, and the block of steps whose frames and rays are on the device."""

    def __init__(self, tuner: Tuner) -> None:
        self._tuner, settings, resolution = tuner, tuner.settings, tuner.resolution
        rng = torch.Generator().manual_seed(_mixed(settings.seed, 0, 1))
        kinds = (Patch.near_centre, Patch.random)  # by turns
        patches = [kinds[i % 2](settings.patch, resolution, rng) for i in range(settings.steps)]
        local = [Patch.random(settings.locality_patch, resolution, rng) for _ in range(settings.steps)]
        self._size, self._local_size = (min(s, resolution) for s in (settings.patch, settings.locality_patch))
        self._corners, self._local = (corners(drawn, tuner.device) for drawn in (patches, local))
        self._cameras = _random_cameras(tuner.clip.camera, settings.steps, rng)
        batch = min(settings.batch, len(tuner.clip.ws))
        self._frames = torch.zeros(READ_EVERY, batch, dtype=torch.int64, device=tuner.device)
        self._slots = torch.zeros_like(self._frames)
        self._views: ViewRays | None = None
        limit = resident_bytes(tuner.device, tuner._memory_mib)
        self._features = self._size == resolution and settings.lpips_weight > 0 and self._fit(limit)
        self._resident = ResidentFrames(
            partial(tuner.frame_rows, features=self._features), len(tuner.clip.ws), limit, READ_EVERY * batch
        )

    def _fit(self, limit: int) -> bool:
        """Say whether Φ's maps of all frames go into the memory. Those of a part of them would be thrown out
        before they are drawn again."""
        rows = self._tuner.frame_rows(0, features=True)
        size = sum(row.numel() * row.element_size() for row in rows.values())
        return size * len(self._tuner.clip.ws) <= limit

    def prepare(self, steps: range) -> None:
        """Bring to the device what a block of steps reads."""
        tuner = self._tuner
        drawn = {step: tuner.frames_of(step) for step in steps}
        places = self._resident.admit(frame for frames in drawn.values() for frame in frames)
        rows = slice(steps.start % READ_EVERY, steps.start % READ_EVERY + len(steps))
        self._frames[rows].copy_(torch.tensor(list(drawn.values())))
        self._slots[rows].copy_(torch.tensor([[places[f] for f in frames] for frames in drawn.values()]))
        if tuner._geometry is not None and tuner.settings.novel_view + tuner.settings.depth_anchor > 0:
            self._prepare_views(tuner._geometry, {step: frames[0] for step, frames in drawn.items()}, places)

    def _prepare_views(
        self, geometry: HeadGeometry, frames: Mapping[int, int], places: Mapping[int, int]
    ) -> None:
        for step, frame in frames.items():
            place = torch.full((1,), places[frame], dtype=torch.int64, device=self._tuner.device)
            small = self._resident.rows("small", place)[0]
            seed = _mixed(self._tuner.settings.seed, step, 2)
            view = geometry.view(frame, small, self._cameras[step : step + 1], seed)
            if self._views is None:
                self._views = ViewRays(*(part.new_zeros(READ_EVERY, *part.shape) for part in view))
            for kept, part in zip(self._views, view, strict=True):
                kept[step % READ_EVERY].copy_(part)

    def at(self, step: Tensor) -> _Drawn:
        """Give what the step ``[1]`` int64, which is on the device, works on."""
        place = step % READ_EVERY
        slots = self._slots.index_select(0, place)[0]
        names = [name for name in self._resident.names if not name.startswith(_FEATURES)]
        rows = {name: self._resident.rows(name, slots) for name in names if name != "small"}
        features = None
        if self._features:
            layers = len(self._resident.names) - len(names)
            features = [self._resident.rows(f"{_FEATURES}{i}", slots) for i in range(layers)]
        return _Drawn(
            self._frames.index_select(0, place)[0],
            rows,
            features,
            self._patch(self._corners, step, self._size),
            self._cameras.index_select(0, step),
            self._patch(self._local, step, self._local_size),
            None if self._views is None else ViewRays(*(v.index_select(0, place) for v in self._views)),
        )

    def _patch(self, places: Tensor, step: Tensor, size: int) -> Patch:
        if size == self._tuner.resolution:
            return Patch.whole(size)
        row, column = places.index_select(0, step)[0].unbind()
        return Patch(row, column, size, self._tuner.resolution)


def _mixed(seed: int, step: int, use: int) -> int:
    """Give the seed of one use in one step: what is drawn then does not depend on where a run was resumed."""
    return (seed << 32) + (use << 28) + step


def _random_cameras(camera: Float[Tensor, "1 25"], count: int, rng: torch.Generator) -> Float[Tensor, "n 25"]:
    """Draw cameras around the portrait's, at its roll."""
    yaw, pitch, roll = angles_from_labels(camera.cpu().numpy())[0]
    moves = (torch.rand(count, 2, generator=rng, dtype=torch.float64) * 2 - 1).numpy()
    angles = moves * (RANDOM_YAW_RAD, RANDOM_PITCH_RAD) + (yaw, pitch)
    labels = [torch.from_numpy(orbit_labels(float(y), float(p), roll)) for y, p in angles]
    return torch.cat(labels).to(camera) if labels else camera[:0]


def rarity(latents: Float[Tensor, "t n"]) -> Float[Tensor, " t"]:
    """Say how seldom a clip shows what a frame shows: one over the share of latents like its own."""
    others = latents[:: math.ceil(len(latents) / RARE_SAMPLE)]
    squared = torch.cdist(latents, others).square()
    alike = torch.exp(-squared / (2 * RARE_WIDTH * squared.mean() + 1e-12))
    return 1 / alike.mean(1).clamp(min=1 / len(others))
