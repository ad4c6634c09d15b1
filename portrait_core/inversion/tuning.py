"""Pivotal tuning (Roich et al. 2021; paper section 3.3): one generator for all frames, latents held.

The image terms are the paper's, LPIPS-type plus pixels. The rest keeps the volume sound where the portrait's
one camera says nothing, and each is a weight in the settings, 0 in the published profile: the rendered depth
against the fitted head at the portrait's and at random cameras, colours of the fitted head's visible surface
at random cameras (:mod:`.geometry`), the background plane behind a matte of the portrait, and locality
(:mod:`.locality`).

What every step draws is decided before the first one (:mod:`.draws`), and a block of steps finds its frames
on the device (:mod:`.resident`). So a step asks the host for nothing, and can be captured as a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.cameras import project_to_crop
from portrait_core.errors import InputError
from portrait_core.face_model.reproject import HeadSurface
from portrait_core.generators import (
    CameraRays,
    ImageGenerator,
    Patch,
    Planes,
    RaySampler,
    RaySampling,
    VolumeGenerator,
    VolumePatch,
)
from portrait_core.inversion.capture import capture_for
from portrait_core.inversion.draws import FEATURES, Drawn, TuningDraws
from portrait_core.inversion.geometry import HeadGeometry, ViewRays, anchor_loss, view_loss
from portrait_core.inversion.locality import Locality
from portrait_core.inversion.loop import (
    CHECKPOINT_S,
    AdamLoop,
    Checkpoint,
    OnStep,
    ParameterGroup,
    ramp,
)
from portrait_core.inversion.reconstruction import Reconstruction
from portrait_core.inversion.resident import resident_bytes
from portrait_core.inversion.targets import FrameTarget
from portrait_core.settings import TuningSettings

BACKGROUND_POINTS = 512
"""Random points of the background plane per step whose colours are compared."""


@dataclass(frozen=True)
class Clip:
    """Frames that tuning fits, loaded when they are read, so that memory does not grow with the clip.

    Attributes:
        ws: frozen latents ``[T,rows,w]``.
        camera: the portrait's label ``[1,25]``.
        frame: loads frame i's target (``I_GT`` and masks) onto the latents' device.
        vertices: box-frame mesh of frame i ``[V,3]``, on that device.
        matte: the person's coverage in the portrait crop ``[1,S,S]`` in 0..1; None where nothing reads it.
        plate: the portrait with the person inpainted ``[3,S,S]`` in [-1,1]; None where nothing reads it.
    """

    ws: Float[Tensor, "t rows w"]
    camera: Float[Tensor, "1 25"]
    frame: Callable[[int], FrameTarget]
    vertices: Callable[[int], Tensor]
    matte: Float[Tensor, "1 s s"] | None = None
    plate: Float[Tensor, "3 s s"] | None = None


def needs_matte(settings: TuningSettings) -> bool:
    """Tell whether a term of the loss reads the portrait's matte."""
    return settings.background > 0 or needs_head(settings)


def needs_head(settings: TuningSettings) -> bool:
    """Tell whether a term of the loss reads the fitted head."""
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
        sampling: samples per ray; None: those of the generator's training.
        resolution: the neural resolution.
        checkpoint_s: seconds between two checkpoints.
        memory_mib: memory for frames on the device; None: see :func:`.resident.resident_bytes`.
        graphs: whether a GPU's steps are captured as graphs.

    Raises:
        ValueError: if the settings ask for terms whose head or matte is not given.
    """

    def __init__(
        self,
        generator: ImageGenerator,
        phi: nn.Module,
        clip: Clip,
        surface: HeadSurface | None,
        settings: TuningSettings,
        sampling: RaySampling | None,
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
        self._checkpoint_s, self._memory_mib, self._graphs = checkpoint_s, memory_mib, graphs
        self.locality: Locality | None = None
        if settings.locality > 0:
            self.locality = Locality(generator, phi, self.reconstruction, sampling, settings.locality_alpha)
        self._geometry = self._head_geometry()
        self._matte = self._small_matte()

    def run(self, checkpoint: Checkpoint | None = None, on_step: OnStep | None = None) -> list[float]:
        """Tune, and return the loss of every step. The generator ends frozen, in eval mode."""
        settings = self.settings
        self.generator.requires_grad_(True)
        if settings.freeze_mapping:
            for parameter in self.generator.mapping_parameters():
                parameter.requires_grad_(False)
        draws = self.draws()
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
            capture=capture_for(self.device, self._graphs),
            variant=self._is_local,
        )
        losses = loop.run(lambda step: self._objective(step, draws.at(loop.at)), on_step)
        self.generator.requires_grad_(False)
        return losses

    def draws(self) -> TuningDraws:
        """Draw what all steps work on. No frame is on the device yet."""
        return TuningDraws(
            self.clip.ws,
            self.clip.camera,
            self.settings,
            self.resolution,
            self.frame_rows,
            self._geometry,
            resident_bytes(self.device, self._memory_mib),
        )

    @property
    def _volume(self) -> VolumeGenerator | None:
        """The generator where it has a volume, None elsewhere: depth and coverage are compared there only."""
        return self.generator if isinstance(self.generator, VolumeGenerator) else None

    def _head_geometry(self) -> HeadGeometry | None:
        if not needs_head(self.settings) or self._volume is None:
            return None
        if self.surface is None or self.clip.matte is None:
            raise InputError(
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
        """Return the matte at the neural resolution ``[1,1,R,R]``."""
        if self.settings.background <= 0 or self._volume is None or self._volume.settings.background is None:
            return None
        if self.clip.matte is None or self.clip.plate is None:
            raise InputError("no matte of the portrait: set tuning.background=0")
        return F.avg_pool2d(self.clip.matte[None], self.clip.matte.shape[-1] // self.resolution)

    def _groups(self) -> list[ParameterGroup]:
        names = {id(p): name for name, p in self.generator.named_parameters()}

        def group(parameters: list[nn.Parameter], factor: float) -> ParameterGroup:
            return ParameterGroup({names[id(p)]: p for p in parameters if p.requires_grad}, factor)

        fast = group(self.generator.fast_parameters(), self.settings.fast_multiplier)
        return [g for g in (group(self.generator.slow_parameters(), 1.0), fast) if g.parameters]

    def _is_local(self, step: int) -> bool:
        return self.locality is not None and step % self.settings.locality_every == 0

    def _objective(self, step: int, drawn: Drawn) -> Tensor:
        settings, patch = self.settings, drawn.patch
        ws = self.clip.ws.index_select(0, drawn.frames)
        render = self.generator.render_patch(ws, self.rays, patch, self.sampling, self.rng)
        image, weight = patch.cut(drawn.rows["image"]), patch.cut(drawn.rows["weight"])
        loss = self.reconstruction(self.phi, render, image, weight, drawn.features)
        if self._volume is not None and isinstance(render, VolumePatch):
            loss = self._with_volume_terms(loss, self._volume, render, drawn)
        if self.locality is not None and self._is_local(step):
            local = self.locality.loss(self.generator, ws[:1], drawn.camera, drawn.local_patch, self.rng)
            loss = loss + settings.locality * local
        return loss

    def _with_volume_terms(
        self, loss: Tensor, generator: VolumeGenerator, render: VolumePatch, drawn: Drawn
    ) -> Tensor:
        """Add the terms that need a volume to the loss of a rendered patch."""
        settings = self.settings
        if self._matte is not None and render.planes.background_plane is not None:
            background = self._background_loss(self._matte, generator, render, drawn.patch)
            loss = loss + settings.background * background
        if self._geometry is not None and settings.depth_anchor > 0:
            loss = loss + settings.depth_anchor * anchor_loss(render, drawn.first_rows, drawn.patch)
        if drawn.view is not None:
            loss = loss + self._view_loss(generator, render.planes, drawn.view)
        return loss

    def frame_rows(self, frame: int, features: bool) -> dict[str, Tensor]:
        """Load the rows of a frame that steps read.

        They are its image and pixel weights, the fitted head's depth where that is asked for, and with
        ``features`` Φ's maps.
        """
        target = self.clip.frame(frame)
        rows = {"image": target.image, "weight": self._weight(target)}
        if self._geometry is not None:
            rows |= self._geometry.frame_rows(frame, target.image)
        if features:
            maps = self.reconstruction.target_maps(self.phi, rows["image"][None], rows["weight"][None]) or []
            rows |= {f"{FEATURES}{i}": found[0] for i, found in enumerate(maps)}
        return rows

    def _weight(self, target: FrameTarget) -> Tensor:
        settings = self.settings
        weight = settings.outside_weight + (settings.face_weight - settings.outside_weight) * target.face
        if target.detail is not None:
            weight = weight + settings.detail_weight * target.detail
        return weight * (1 - (1 - settings.uncovered_weight) * target.uncovered)

    def _background_loss(
        self, matte: Tensor, generator: VolumeGenerator, render: VolumePatch, patch: Patch
    ) -> Tensor:
        """Return the error of coverage against the matte, plus that of the background plane's colour.

        Colours are compared at random points, also behind the person.
        """
        plane, plate = generator.settings.background, self.clip.plate
        if plane is None or plate is None:
            return render.accumulation.new_zeros(())
        coverage = (render.accumulation - patch.cut(matte)).abs().mean()
        count = len(render.planes)
        unit = torch.rand((count, BACKGROUND_POINTS, 2), generator=self.rng, device=self.device) * 2 - 1
        xy = unit * plane.wall_half_extent
        points = torch.cat([xy, torch.full_like(xy[..., :1], plane.wall_z)], dim=-1)
        pixels = project_to_crop(self.clip.camera, points.reshape(1, -1, 3), 1)[..., :2]
        grid = (pixels * 2 - 1).reshape(1, count, -1, 2)
        # Beyond the crop the plate is mirrored: it has the right colours and no hard edge.
        target = F.grid_sample(plate[None], grid, padding_mode="reflection", align_corners=False)
        features = generator.background_features(render.planes, unit)
        return coverage + (features[..., :3] - target[0].permute(1, 2, 0)).abs().mean()

    def _view_loss(self, generator: VolumeGenerator, planes: Planes, view: ViewRays) -> Tensor:
        """Return the weighted errors of depth and colour at a random camera, of the first drawn frame."""
        one = Planes(
            planes.volume[:1], None if planes.background_plane is None else planes.background_plane[:1]
        )
        sampler = RaySampler(self.sampling or generator.settings.sampling, jitter=True, rng=self.rng)
        rendered = generator.render_rays(one, view.rays, sampler)
        depth, colour = view_loss(rendered.depth, rendered.features[..., :3], view)
        return self.settings.depth_anchor * depth + self.settings.novel_view * colour
