"""Masked optimisation of ``w`` with the generator frozen (paper section 3.2, equation 2).

Published generators start from the mean latent and every frame from the frame before it. A generator whose
``z`` holds the scene's parameters has an encoder for free: the tracker's fit gives a starting ``z``, the
first frame then adjusts what the tracker cannot see (colours, hair, light) and later frames move as their
coefficients do, ``w_i = w_0 + map(z_i) - map(z_0)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from portrait_core.errors import InputError
from portrait_core.generators import (
    CameraRays,
    ImageGenerator,
    Patch,
    RaySampling,
    noise_regulariser,
    renormalise_,
    with_own_noise,
)
from portrait_core.generators.patches import corners
from portrait_core.generators.scene_latents import APPEARANCE, N_EXPRESSION, N_SHAPE, z_from_fit
from portrait_core.inversion.capture import capture_for
from portrait_core.inversion.loop import CHECKPOINT_S, AdamLoop, Checkpoint, OnStep, ParameterGroup, ramp
from portrait_core.inversion.reconstruction import Reconstruction, phi_scale
from portrait_core.inversion.statistics import LatentStatistics, latent_statistics
from portrait_core.inversion.targets import FrameTarget
from portrait_core.settings import InversionSettings

NOISE_WEIGHT = 1e5
"""Weight of the noise maps' regulariser (Karras et al. 2020, appendix D)."""
NOISE_RAMP = 0.75
"""Share of the steps over which the noise on w falls to nothing (the same)."""
_LOOK = slice(N_SHAPE + N_EXPRESSION, N_SHAPE + N_EXPRESSION + len(APPEARANCE))
"""Columns of a structured ``z`` that hold the appearance; a 2D generator's has the camera after them."""


@dataclass(frozen=True)
class FirstLatent:
    """Result of the first frame's inversion.

    Attributes:
        ws: ``[1,rows,w]``.
        appearance: the adjusted appearance block of ``z`` ``[A]``, empty for published generators.
        losses: of every step.
    """

    ws: Tensor
    appearance: NDArray[np.float32]
    losses: list[float]


@dataclass(frozen=True)
class _Search:
    """One optimisation.

    Attributes:
        latent: gives ws ``[1,rows,w]`` of the parameters as they are.
        parameters: what is optimised, by name; ``offset`` among them.
        target: what the latent shall show.
        weight: of its pixels ``[1,S,S]``.
        steps: number of them.
        first: whether it is the first frame's: its patches wander, it bears noise and keeps checkpoints.
        seed: of its draws.
    """

    latent: Callable[[], Tensor]
    parameters: dict[str, Tensor]
    target: FrameTarget
    weight: Tensor
    steps: int
    first: bool
    seed: int


class Inverter:
    """Finds latents of one portrait's frames with one frozen generator.

    Args:
        generator: frozen, in eval mode.
        phi: the perceptual features.
        camera: the portrait's camera label ``[1,25]``.
        settings: see :class:`InversionSettings`.
        sampling: samples per ray; None: those of the generator's training.
        resolution: the neural resolution.
        statistics: of the generator's w; measured here where it is None.
        checkpoint_s: seconds between two checkpoints.
        graphs: whether a GPU's steps are captured as graphs.
    """

    def __init__(
        self,
        generator: ImageGenerator,
        phi: nn.Module,
        camera: Float[Tensor, "1 25"],
        settings: InversionSettings,
        sampling: RaySampling | None,
        resolution: int,
        statistics: LatentStatistics | None = None,
        checkpoint_s: float = CHECKPOINT_S,
        graphs: bool = False,
    ) -> None:
        self.generator, self.phi, self.camera = generator, phi, camera
        self.settings, self.sampling, self.resolution = settings, sampling, resolution
        self.structured = generator.has_scene_latents
        self._pose = generator.pose_latents(camera)
        self.checkpoint_s, self.graphs = checkpoint_s, graphs
        known = statistics or latent_statistics(generator)
        rows = generator.settings.num_ws if settings.space == "w+" else 1
        self.mean, self.spread = (part.expand(-1, rows, -1) for part in (known.mean, known.deviation))
        self.radius = known.radius
        self._unit = self.spread if settings.step_unit == "deviation" else torch.ones_like(self.spread)
        self.rays = CameraRays.of(camera, resolution)
        self.reconstruction = Reconstruction(
            perceptual=settings.perceptual_weight,
            l1=settings.l1_weight,
            l2=settings.l2_weight,
            phi_scale=phi_scale(generator.settings.image_resolution, settings.phi_side),
        )

    @property
    def middle(self) -> Patch:
        """The middle of the crop, as large as the settings say: what later frames are fitted on."""
        return Patch.central(round(self.settings.patch_share * self.resolution), self.resolution)

    def tracker_start(
        self,
        shape: NDArray[np.floating],
        expression: NDArray[np.floating],
        names: list[str],
        appearance: NDArray[np.floating] | None = None,
    ) -> Float[Tensor, "b z"]:
        """Return the starting ``z`` of fits ``expression [B,52]`` with one shape ``[S]``.

        Raises:
            InputError: for a generator whose z has no meaning; set ``inversion.init=mean`` there.
        """
        if not self.structured:
            raise InputError("this generator's z does not hold scene parameters; set inversion.init=mean")
        fitted = torch.from_numpy(z_from_fit(shape, expression, names, appearance)).to(self.camera)
        return torch.cat([fitted, self._pose.expand(len(fitted), -1)], dim=1)

    def first(
        self,
        target: FrameTarget,
        z: Float[Tensor, "1 z"] | None,
        checkpoint: Checkpoint | None = None,
        on_step: OnStep | None = None,
    ) -> FirstLatent:
        """Invert the first frame from ``z`` (its appearance block is optimised too) or the mean latent."""
        offset = torch.zeros_like(self.mean).requires_grad_()
        parameters = {"offset": offset}
        appearance = None
        if z is not None:
            appearance = torch.zeros_like(z[:, _LOOK]).requires_grad_()
            parameters["appearance"] = appearance

        def latent() -> Tensor:
            if z is None or appearance is None:
                return self.mean + offset * self._unit
            adjusted = _with_look(z, appearance * 2)
            return self._rows(self.generator.mapping(adjusted)) + offset * self._unit

        weight = self._weight(target, self.settings.outside_weight)
        search = _Search(
            latent, parameters, target, weight, self.settings.first_steps, True, self.settings.seed
        )
        losses = self._optimise(search, checkpoint, on_step)
        found = np.zeros(0, np.float32) if appearance is None else (appearance * 2).detach().cpu().numpy()[0]
        return FirstLatent(latent().detach(), found, losses)

    def next(
        self, start: Float[Tensor, "1 rows w"], target: FrameTarget, frame: int
    ) -> tuple[Float[Tensor, "1 rows w"], list[float]]:
        """Refine a later frame's latent by ``settings.steps`` steps from a warm start, on the face."""
        offset = torch.zeros_like(start).requires_grad_()

        def latent() -> Tensor:
            return start + offset * self._unit

        seed = self.settings.seed + frame
        search = _Search(
            latent, {"offset": offset}, target, self._weight(target), self.settings.steps, False, seed
        )
        losses = self._optimise(search)
        return latent().detach(), losses

    @torch.no_grad()
    def moved(
        self, first: FirstLatent, z_first: Float[Tensor, "1 z"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b rows w"]:
        """Return ``w_0 + map(z_i) - map(z_0)``, with the first frame's appearance in both."""
        look = torch.from_numpy(first.appearance).to(z)[None]

        def mapped(latents: Tensor) -> Tensor:
            return self._rows(self.generator.mapping(_with_look(latents, look)))

        return first.ws + mapped(z) - mapped(z_first)

    @torch.no_grad()
    def loss(self, ws: Float[Tensor, "1 rows w"], target: FrameTarget) -> float:
        """Return the face's distance from its template, with fixed samples.

        It is comparable between frames and runs.
        """
        patch = self.middle
        render = self.generator.render_patch(ws, self.rays, patch, self.sampling)
        weight = patch.cut(self._weight(target)[None])
        return float(self.reconstruction(self.phi, render, patch.cut(target.image[None]), weight))

    def _rows(self, ws: Float[Tensor, "b num_ws w"]) -> Float[Tensor, "b rows w"]:
        """Keep as many of the mapping's equal rows as are optimised."""
        return ws[:, : self.mean.shape[1]]

    def _weight(self, target: FrameTarget, outside: float = 0.0) -> Tensor:
        """Return pixel weights: the face, more on eyes and lips.

        The mouth's inside counts only if the template is trusted there; otherwise the generator paints it
        freely (paper section 3.2).
        """
        weight = (outside + target.face).clamp(max=1)
        if target.detail is not None:
            weight = weight + self.settings.detail_weight * target.detail
        free = (
            target.uncovered if self.settings.mouth == "template" else target.uncovered.maximum(target.mouth)
        )
        return weight * (1 - free)

    def _optimise(
        self, search: _Search, checkpoint: Checkpoint | None = None, on_step: OnStep | None = None
    ) -> list[float]:
        settings, steps = self.settings, search.steps
        rng = torch.Generator(device=self.camera.device).manual_seed(search.seed)
        generator, maps = self.generator, list[Tensor]()
        if search.first and settings.noise_maps:
            generator, maps = with_own_noise(generator, rng)
        own_noise = {f"noise{i}": each.requires_grad_() for i, each in enumerate(maps)}
        image, weight = search.target.image[None], search.weight[None]
        wandering = search.first and not self.middle.is_whole
        places = self._places(search) if wandering else None
        wanted = self.reconstruction.target_maps(self.phi, *map(self.middle.cut, (image, weight)))
        offset = search.parameters["offset"]

        def objective(step: int) -> Tensor:
            ws, patch, known = search.latent(), self.middle, wanted
            if places is not None and step % 2 == 0:
                row, column = places.index_select(0, loop.at)[0].unbind()
                patch, known = Patch(row, column, patch.size, patch.resolution), None
            seen = ws if not (search.first and settings.w_noise) else self._noisy(ws, loop.at, steps, rng)
            render = generator.render_patch(seen, self.rays, patch, self.sampling, rng)
            loss = self.reconstruction(self.phi, render, patch.cut(image), patch.cut(weight), known)
            if settings.prior_weight:
                loss = loss + settings.prior_weight * offset.square().mean()
            return loss if not maps else loss + NOISE_WEIGHT * noise_regulariser(maps)

        loop = AdamLoop(
            [ParameterGroup(search.parameters | own_noise)],
            steps,
            lambda step: settings.learning_rate * self._share(step, steps),
            rng,
            checkpoint,
            self.checkpoint_s,
            settings.adam_betas,
            after=(lambda: renormalise_(maps)) if maps else None,
            capture=capture_for(self.camera.device, self.graphs),
            variant=lambda step: wandering and step % 2,
        )
        return loop.run(objective, on_step)

    def _share(self, step: int, steps: int) -> float:
        """Return the learning rate of a step over the peak's."""
        settings = self.settings
        warmup = settings.warmup_fraction * steps
        return ramp(step, steps, warmup, settings.decay_fraction, settings.decay)

    def _places(self, search: _Search) -> Tensor:
        """Draw where the patches of the steps are ``[steps,2]`` int64."""
        rng = torch.Generator().manual_seed(search.seed)
        size = self.middle.size
        drawn = [Patch.random(size, self.resolution, rng) for _ in range(search.steps)]
        return corners(drawn, self.camera.device)

    def _noisy(self, ws: Tensor, at: Tensor, steps: int, rng: torch.Generator) -> Tensor:
        """Add noise that falls to nothing over the first part of the steps.

        It makes the optimisation explore before it settles (Karras et al. 2020, appendix D).
        """
        left = (1 - at.float() / (NOISE_RAMP * steps)).clamp(min=0).square()
        noise = torch.randn(ws.shape, generator=rng, device=ws.device, dtype=ws.dtype)
        return ws + self.settings.w_noise * self.radius * left * noise


def _with_look(z: Float[Tensor, "b z"], look: Float[Tensor, "_ a"]) -> Float[Tensor, "b z"]:
    """Return structured latents with another appearance."""
    return torch.cat([z[:, : _LOOK.start], look.expand(len(z), -1), z[:, _LOOK.stop :]], dim=1)
