"""Noise maps that are optimised beside a latent (Karras et al. 2020, appendix D), as in Pivotal Tuning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.generators.blocks import BlockStack
from portrait_core.generators.draws import normal
from portrait_core.generators.layers import SynthesisLayer
from portrait_core.generators.precision import shared_view

Network = TypeVar("Network", bound=nn.Module)

_SMALLEST = 8
"""Side of the smallest map that the regulariser makes, in pixels."""


def with_own_noise(
    generator: Network, rng: torch.Generator | None = None
) -> tuple[Network, list[Float[Tensor, "h w"]]]:
    """Return a view of a generator with noise maps of its own, and those maps.

    The view shares every parameter and every other buffer with ``generator``, which stays as it is. Its maps
    are fresh draws from N(0,1), one for each layer of the backbone in their order, and act in
    ``noise_mode="const"``. They are leaves that may be told to require gradients and be changed in place. A
    view that is moved to another device holds other maps afterwards. Super-resolution never adds noise, so it
    has none here.

    Args:
        generator: network with blocks of StyleGAN2.
        rng: random state of the device where ``generator`` is; None: that device's own.

    Returns:
        The view, and its maps; no maps for a generator without noise.

    Raises:
        ValueError: if ``rng`` belongs to another device.
    """
    view = shared_view(generator, own=[layer.noise_const for layer in _noisy_layers(generator)])
    maps = []
    for layer in _noisy_layers(view):
        layer.noise_const = normal(tuple(layer.noise_const.shape), rng, layer.noise_const)
        maps.append(layer.noise_const)
    return view, maps


def _noisy_layers(network: nn.Module) -> Iterator[SynthesisLayer]:
    for stack in network.modules():
        if isinstance(stack, BlockStack):
            for layer in stack.modules():
                if isinstance(layer, SynthesisLayer) and layer.noise:
                    yield layer


def noise_regulariser(maps: Sequence[Float[Tensor, "h w"]]) -> Float[Tensor, ""]:
    """Return how far noise maps are from white noise (Karras et al. 2020, appendix D); 0 for no maps.

    Each map counts at its own size and at every halving of it down to 8x8, by averages of 2x2 pixels times 2,
    which keep unit variance. Each size adds the square of the mean product of the map with itself shifted by
    one pixel, in x and in y; maps wrap around at their edges. The paper weighs the sum with 1e5.
    """
    terms = []
    for each in maps:
        level = each
        while True:
            terms += [(level * level.roll(1, dim)).mean().square() for dim in (0, 1)]
            if min(level.shape) <= _SMALLEST:
                break
            level = F.avg_pool2d(level[None], 2)[0] * 2.0
    return torch.stack(terms).sum() if terms else torch.zeros(())


@torch.no_grad()
def renormalise_(maps: Sequence[Float[Tensor, "h w"]]) -> None:
    """Bring every map to zero mean and unit variance in place.

    This follows each step of the optimisation (Karras et al. 2020, appendix D).
    """
    for each in maps:
        each.sub_(each.mean())
        each.mul_(each.square().mean().rsqrt())
