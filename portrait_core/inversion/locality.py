"""Locality regularisation (Roich et al. 2021): near the pivot, the tuned generator stays what it was.

Fine-tuning on one photograph bends the latent space around it, and the sides that the photograph does not
show. A neighbour of the pivot is drawn a fixed way from it toward a random latent, ``w_r = w_p + alpha (w_z -
w_p) / ||w_z - w_p||``, and rendered by the generator before and after tuning, here from a random camera: the
images should agree.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.generators import CameraRays, ImageGenerator, Patch, RaySampling
from portrait_core.inversion.reconstruction import Reconstruction


def neighbour(
    pivot: Float[Tensor, "1 rows w"], other: Float[Tensor, "1 rows w"], alpha: float
) -> Float[Tensor, "1 rows w"]:
    """Return the latent ``alpha`` per row from ``pivot`` toward ``other``; ``other`` if that is nearer."""
    way = other - pivot
    length = way.flatten(1).norm(dim=1).div(way.shape[1] ** 0.5).view(-1, 1, 1)
    return pivot + way * (alpha / length.clamp(min=1e-8)).clamp(max=1.0)


class Locality:
    """Holds the untuned generator, and compares.

    Args:
        generator: before tuning; copied.
        phi: the perceptual features.
        reconstruction: weights of the image terms, those of tuning.
        sampling: samples per ray; None: those of the generator's training.
        alpha: distance of the neighbours from the pivot.
    """

    def __init__(
        self,
        generator: ImageGenerator,
        phi: nn.Module,
        reconstruction: Reconstruction,
        sampling: RaySampling | None,
        alpha: float,
    ) -> None:
        self.before = copy.deepcopy(generator).requires_grad_(False)
        self.phi, self.reconstruction, self.sampling, self.alpha = phi, reconstruction, sampling, alpha

    def loss(
        self,
        generator: ImageGenerator,
        pivot: Float[Tensor, "1 rows w"],
        camera: Float[Tensor, "1 25"],
        patch: Patch,
        rng: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Return the distance of one patch of a random neighbour of ``pivot`` before and after."""
        rays = CameraRays.of(camera, patch.resolution)
        z = torch.randn(1, self.before.settings.z_dim, generator=rng, device=pivot.device, dtype=pivot.dtype)
        with torch.no_grad():
            other = self.before.mapping(z, self.before.mapping_label(camera))
            # all of a published mapping's rows, or the one that this clip's latents have
            ws = neighbour(pivot, other[:, : pivot.shape[1]], self.alpha)
            # samples without jitter: the two renders differ by the weights alone
            target = self.before.render_patch(ws, rays, patch, self.sampling).image
        rendered = generator.render_patch(ws, rays, patch, self.sampling)
        return self.reconstruction(self.phi, rendered, target, torch.ones_like(target[:, :1]))
