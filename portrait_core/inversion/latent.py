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
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from portrait_core.config import InversionSettings
from portrait_core.embedded.latents import N_EXPRESSION, N_SHAPE, z_from_fit
from portrait_core.generators import RaySampling, TriPlaneGenerator
from portrait_core.inversion.features import feature_distance, masked_mean
from portrait_core.inversion.loop import AdamLoop, Checkpoint, ParameterGroup, ramp
from portrait_core.inversion.patches import Patch, PatchRender, render_patch
from portrait_core.inversion.targets import FrameTarget

WARMUP_STEPS, DECAY_FRACTION = 4, 0.35
PRIOR_WEIGHT = 0.002
"""Pull of the latent toward its start, in squared standard deviations."""


@dataclass(frozen=True)
class Reconstruction:
    """Weights of the image terms that inversion and tuning share."""

    perceptual: float
    l1: float
    l2: float

    def __call__(
        self, phi: nn.Module, render: PatchRender, target: Tensor, weight: Tensor
    ) -> Float[Tensor, ""]:
        """Weighted distance of a rendered patch from the target's patch.

        Φ sees ``M ⊙ I`` with M the support of ``weight`` (equation 2); its feature maps are averaged with the
        weights. Colours are compared at both the super-resolved and the volume-rendered size, so that the
        volume, not the super-resolution alone, carries the picture.
        """
        support = (weight > 0).float()
        scale = target.shape[-1] // render.raw.shape[-1]
        small, small_weight = F.avg_pool2d(target, scale), F.avg_pool2d(weight, scale)
        loss = target.new_zeros(())
        if self.perceptual:
            with torch.no_grad():
                wanted = phi(target * support)
            loss = loss + self.perceptual * feature_distance(phi(render.image * support), wanted, weight)
        if self.l1:
            loss = loss + self.l1 * masked_mean((render.image - target).abs(), weight)
            loss = loss + self.l1 * masked_mean((render.raw - small).abs(), small_weight)
        if self.l2:
            loss = loss + self.l2 * masked_mean((render.image - target).square(), weight)
        return loss


@dataclass(frozen=True)
class FirstLatent:
    """What the first frame's inversion found.

    Attributes:
        ws: ``[1,num_ws,w]``.
        appearance: the adjusted appearance block of ``z`` ``[A]``, empty for published generators.
        losses: of every step.
    """

    ws: Tensor
    appearance: NDArray[np.float32]
    losses: list[float]


@torch.no_grad()
def latent_statistics(
    generator: TriPlaneGenerator, camera: Float[Tensor, "1 25"], count: int = 512, seed: int = 0
) -> tuple[Float[Tensor, "1 rows w"], Float[Tensor, "1 rows w"]]:
    """Mean and standard deviation of ``ws`` over random ``z``."""
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(count, generator.settings.z_dim, generator=rng).to(camera.device)
    label = camera.expand(count, -1) if generator.settings.c_dim else None
    ws = generator.mapping(z, label)
    return ws.mean(0, keepdim=True), ws.std(0, keepdim=True)


class Inverter:
    """Finds latents of one portrait's frames with one frozen generator.

    Args:
        generator: frozen, in eval mode.
        phi: the perceptual features.
        camera: the portrait's camera label ``[1,25]``.
        settings: see :class:`InversionSettings`.
        sampling: samples a ray.
        resolution: the neural resolution.
    """

    def __init__(
        self,
        generator: TriPlaneGenerator,
        phi: nn.Module,
        camera: Float[Tensor, "1 25"],
        settings: InversionSettings,
        sampling: RaySampling,
        resolution: int,
    ) -> None:
        self.generator, self.phi, self.camera = generator, phi, camera
        self.settings, self.sampling, self.resolution = settings, sampling, resolution
        self.structured = generator.settings.mapping_kind == "scene"
        self.mean, self.spread = latent_statistics(generator, camera)
        self.reconstruction = Reconstruction(
            perceptual=settings.perceptual_weight, l1=settings.l1_weight, l2=settings.l2_weight
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
        """Starting ``z`` of fits ``expression [B,52]`` with one shape ``[S]``.

        Raises:
            ValueError: for a generator whose z has no meaning; set ``inversion.init=mean`` there.
        """
        if not self.structured:
            raise ValueError("this generator's z does not hold scene parameters; set inversion.init=mean")
        return torch.from_numpy(z_from_fit(shape, expression, names, appearance)).to(self.camera.device)

    def first(
        self,
        target: FrameTarget,
        z: Float[Tensor, "1 z"] | None,
        checkpoint: Checkpoint | None = None,
        on_step: Callable[[int, float], None] | None = None,
    ) -> FirstLatent:
        """Invert the first frame from ``z`` (its appearance block is optimised too) or the mean latent."""
        offset = torch.zeros_like(self.mean, requires_grad=True)
        parameters = {"offset": offset}
        appearance = None
        if z is not None:
            appearance = torch.zeros_like(z[:, N_SHAPE + N_EXPRESSION :], requires_grad=True)
            parameters["appearance"] = appearance

        def latent() -> Tensor:
            if z is None or appearance is None:
                return self.mean + offset * self.spread
            adjusted = torch.cat([z[:, : N_SHAPE + N_EXPRESSION], appearance * 2], dim=1)
            return self.generator.mapping(adjusted) + offset * self.spread

        weight = self._weight(target, self.settings.outside_weight)
        losses = self._optimise(
            latent, offset, parameters, target.image, weight, self.settings.first_steps,
            checkpoint, on_step, wander=True,
        )  # fmt: skip
        found = np.zeros(0, np.float32) if appearance is None else (appearance * 2).detach().cpu().numpy()[0]
        return FirstLatent(latent().detach(), found, losses)

    def next(
        self, start: Float[Tensor, "1 rows w"], target: FrameTarget, frame: int
    ) -> tuple[Float[Tensor, "1 rows w"], list[float]]:
        """Refine a later frame's latent by ``settings.steps`` steps from a warm start, on the face."""
        offset = torch.zeros_like(start, requires_grad=True)

        def latent() -> Tensor:
            return start + offset * self.spread

        losses = self._optimise(
            latent, offset, {"offset": offset}, target.image, self._weight(target), self.settings.steps,
            None, None,
            wander=False, seed_offset=frame,
        )  # fmt: skip
        return latent().detach(), losses

    @torch.no_grad()
    def moved(
        self, first: FirstLatent, z_first: Float[Tensor, "1 z"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b rows w"]:
        """``w_0 + map(z_i) - map(z_0)``, with the first frame's appearance in both."""
        look = torch.from_numpy(first.appearance).to(z)[None]
        known = N_SHAPE + N_EXPRESSION

        def mapped(latents: Tensor) -> Tensor:
            return self.generator.mapping(torch.cat([latents[:, :known], look.expand(len(latents), -1)], 1))

        return first.ws + mapped(z) - mapped(z_first)

    @torch.no_grad()
    def loss(self, ws: Float[Tensor, "1 rows w"], target: FrameTarget) -> float:
        """The face's distance from its template, with fixed samples: comparable between frames and runs."""
        patch = self._patch(None)
        render = render_patch(
            self.generator, self.generator.planes(ws), ws, self.camera, patch, self.sampling
        )
        weight = patch.cut(self._weight(target)[None])
        return float(self.reconstruction(self.phi, render, patch.cut(target.image[None]), weight))

    def _weight(self, target: FrameTarget, outside: float = 0.0) -> Tensor:
        """Pixel weights: the face, more on eyes and lips. The mouth's inside counts only if the template is
        trusted there; otherwise the generator paints it freely (paper section 3.2)."""
        weight = (outside + target.face).clamp(max=1) + self.settings.detail_weight * target.detail
        free = (
            target.uncovered if self.settings.mouth == "template" else target.uncovered.maximum(target.mouth)
        )
        return weight * (1 - free)

    def _patch(self, rng: torch.Generator | None) -> Patch:
        if rng is None:
            return self.middle
        return Patch.random(self.middle.size, self.resolution, rng)

    def _optimise(
        self,
        latent: Callable[[], Tensor],
        offset: Tensor,
        parameters: dict[str, Tensor],
        image: Tensor,
        weight: Tensor,
        steps: int,
        checkpoint: Checkpoint | None,
        on_step: Callable[[int, float], None] | None,
        *,
        wander: bool,
        seed_offset: int = 0,
    ) -> list[float]:
        rng = torch.Generator().manual_seed(self.settings.seed + seed_offset)
        loop = AdamLoop(
            [ParameterGroup(parameters)],
            steps,
            lambda step: self.settings.learning_rate * ramp(step, steps, WARMUP_STEPS, DECAY_FRACTION),
            rng,
            checkpoint,
            self.settings.checkpoint_every,
        )

        def objective(step: int) -> Tensor:
            patch = self._patch(rng if wander and step % 2 == 0 else None)
            ws = latent()
            planes = self.generator.planes(ws)
            render = render_patch(self.generator, planes, ws, self.camera, patch, self.sampling, rng)
            loss = self.reconstruction(self.phi, render, patch.cut(image[None]), patch.cut(weight[None]))
            return loss + PRIOR_WEIGHT * offset.square().mean()

        return loop.run(objective, on_step)
