"""The walk over synthesis blocks that every StyleGAN2 backbone shares: which row of ws goes where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.generators.layers import NoiseMode, SynthesisBlock

AfterBlock = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""``(resolution, features [b,i,h,w], image [b,c,h,w], w [b,d])`` to the image to go on with."""


class BlockStack(nn.Module):
    """Blocks ``b4``, ``b8``, ... in order of resolution, from a learned constant to an image."""

    def __init__(
        self,
        channels: Mapping[int, int],
        w_dim: int,
        image_channels: int,
        *,
        noise: bool = True,
        learned_constants: bool = False,
        conv_clamp: float | None = None,
    ) -> None:
        """``channels`` maps each resolution to its feature channels."""
        super().__init__()
        self.resolutions = tuple(sorted(channels))
        self.w_dim = w_dim
        in_channels = 0
        for resolution in self.resolutions:
            block = SynthesisBlock(
                in_channels,
                channels[resolution],
                w_dim,
                resolution,
                image_channels,
                noise=noise,
                learned_constant=learned_constants,
                conv_clamp=conv_clamp,
            )
            self.add_module(f"b{resolution}", block)
            in_channels = channels[resolution]

    def rows(self, ws: Float[Tensor, "b rows d"]) -> Float[Tensor, "b layers d"]:
        """Return ``ws`` with one row for each layer; a single row serves them all.

        Raises:
            ValueError: for any other shape.
        """
        wanted = 2 * len(self.resolutions)
        if ws.ndim != 3 or ws.shape[1] not in (1, wanted) or ws.shape[2] != self.w_dim:
            raise ValueError(
                f"ws must be [B,1,{self.w_dim}] or [B,{wanted},{self.w_dim}], got {list(ws.shape)}"
            )
        return ws.expand(-1, wanted, -1)

    def walk(
        self,
        ws: Float[Tensor, "b layers d"],
        noise_mode: NoiseMode = "const",
        rng: torch.Generator | None = None,
        after: AfterBlock | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Return the last block's image; ``after`` may change it after each block."""
        x: Tensor | None = None
        image: Tensor | None = None
        row = 0
        for resolution in self.resolutions:
            block = cast(SynthesisBlock, self.get_submodule(f"b{resolution}"))
            # A block's output layer shares its row with the next block's first convolution.
            used = ws[:, row : row + block.convolutions + 1]
            x, image = block(x, image, used, noise_mode, rng)
            row += block.convolutions
            if after is not None:
                image = after(resolution, x, image, used[:, -1])
        if image is None:
            raise ValueError("the backbone has no resolutions; set channels in the generator settings")
        return image
