"""Mean and deviation of a generator's latent w, over random z (Karras et al. 2020, appendix D)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from portrait_core.cameras import orbit_labels
from portrait_core.generators import ImageGenerator

DRAWS = 10_000
"""Random z: as many as Pivotal Tuning's projector draws."""
_AT_ONCE = 500


@dataclass(frozen=True)
class LatentStatistics:
    """Statistics of w over random z.

    Attributes:
        mean: ``[1,1,w]``.
        deviation: of every dimension ``[1,1,w]``.
        radius: root mean square distance of w from its mean ``[]``.
    """

    mean: Float[Tensor, "1 1 w"]
    deviation: Float[Tensor, "1 1 w"]
    radius: Float[Tensor, ""]


@torch.no_grad()
def latent_statistics(generator: ImageGenerator, count: int = DRAWS, seed: int = 0) -> LatentStatistics:
    """Measure w over ``count`` random z, drawn on the generator's device.

    The label is the frontal camera where the mapping takes a camera.
    """
    like = next(generator.parameters())
    rng = torch.Generator(device=like.device).manual_seed(seed)
    front = generator.mapping_label(torch.from_numpy(orbit_labels(0.0, 0.0)).to(like.device))
    found = []
    for first in range(0, count, _AT_ONCE):
        number = min(_AT_ONCE, count - first)
        z = torch.randn(number, generator.settings.z_dim, generator=rng, device=like.device)
        label = None if front is None else front.expand(number, -1)
        found.append(generator.mapping(z, label)[:, :1])  # all rows are equal
    w = torch.cat(found)
    mean = w.mean(0, keepdim=True)
    squared = (w - mean).square().mean(0, keepdim=True)
    return LatentStatistics(mean, squared.sqrt(), squared.sum().sqrt())
