"""Face-vid2vid's generators: the portrait's features, moved by a flow and drawn (section 3.2, appendix A).

The usual unofficial implementation has two. They differ in the first convolution and in the decoder: residual
blocks as in the paper, or SPADE's (Park et al. 2019, "Semantic Image Synthesis with Spatially-Adaptive
Normalization"), which is that implementation's default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.baselines.facevid2vid_blocks import (
    ConvolutionBlock,
    DownBlock,
    ResidualBlock,
    State,
    UpBlock,
    chain,
    convolution,
    count_of,
    size_of,
    widths_of,
)
from portrait_core.baselines.facevid2vid_motion import DenseMotion, Motion, MotionSizes
from portrait_core.tracking.encoders import build

_SLOPE = 0.2
"""Slope of SPADE's leaky ReLUs below 0."""
_THIRD_SLOPE = 0.01
"""Slope of the one leaky ReLU outside of SPADE, in the block after the flow."""


class GeneratorSizes(NamedTuple):
    """Sizes of a generator; as published unless a state dict says otherwise."""

    motion: MotionSizes = MotionSizes()
    first: int = 64
    """Channels of the first convolution."""
    down: tuple[int, ...] = (128, 256)
    """Channels of the blocks that halve the picture."""
    blocks_3d: int = 6
    """Residual blocks on the volume."""
    blocks: int = 6
    """Residual blocks of the decoder before it doubles the size."""
    up: tuple[int, ...] = (128, 64)
    """Channels of the blocks that double the size."""
    wide: int = 512
    """Channels of SPADE's decoder."""
    hidden: int = 128
    """Channels inside SPADE's normalisations."""

    @classmethod
    def of(cls, state: State) -> GeneratorSizes:
        """Read the sizes from a state dict of either generator."""
        usual = cls()
        spade = "decoder.fc.weight" in state
        middle = "decoder.G_middle_{}.conv_0.weight_orig" if spade else "resblocks_2d.2dr{}.conv1.weight"
        up = "decoder.up_{}.conv_0.weight_orig" if spade else "up_blocks.{}.conv.weight"
        return cls(
            MotionSizes.of(state, "dense_motion_network."),
            size_of(state, "first.conv.weight", 0, usual.first),
            widths_of(state, "down_blocks.{}.conv.weight", usual.down),
            count_of(state, "resblocks_3d.3dr{}.conv1.weight"),
            count_of(state, middle),
            widths_of(state, up, usual.up),
            size_of(state, "decoder.fc.weight", 0, usual.wide),
            size_of(state, "decoder.G_middle_0.norm_0.mlp_shared.0.weight", 0, usual.hidden),
        )


SPADE_SIZES = GeneratorSizes(up=(256, 64))
"""Sizes of the published SPADE generator."""


class Drawing(NamedTuple):
    """B drawn pictures, and what they were drawn from."""

    picture: Float[Tensor, "b 3 s s"]
    """Pictures in 0..1."""
    warped: Float[Tensor, "b c h w"]
    """Moved features before occlusion."""
    motion: Motion
    """The motion that moved them."""


class Generator(nn.Module, ABC):
    """Base of both generators: the portrait's volume of features and its motion."""

    def __init__(self, sizes: GeneratorSizes, first_size: int) -> None:
        super().__init__()
        motion, narrow = sizes.motion, sizes.down[-1]
        self.dense_motion_network = DenseMotion(motion)
        self.depth = motion.depth
        self.first = ConvolutionBlock(3, sizes.first, first_size)
        self.down_blocks = nn.ModuleList(DownBlock(*pair) for pair in chain(sizes.first, sizes.down))
        self.second = convolution(2, narrow, motion.channels * motion.depth, 1)
        self.resblocks_3d = nn.Sequential(
            OrderedDict(
                (f"3dr{i}", ResidualBlock(motion.channels, dimensions=3)) for i in range(sizes.blocks_3d)
            )
        )
        self.third = ConvolutionBlock(motion.channels * motion.depth, narrow, slope=_THIRD_SLOPE)
        self.fourth = convolution(2, narrow, narrow, 1)

    def encode(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c d h w"]:
        """Return the volumes of features of portraits in 0..1; h and w are a quarter of s."""
        x = self.first(images)
        for block in self.down_blocks:
            x = block(x)
        # by its name, since a registered device called `second` adds a method of that name to every module
        volume = dict(self.named_children())["second"](x).unflatten(1, (-1, self.depth))
        return self.resblocks_3d(volume)

    @abstractmethod
    def decode(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 s s"]:
        """Draw pictures in 0..1 from moved features."""

    def draw(
        self,
        volume: Float[Tensor, "a c d h w"],
        source: Float[Tensor, "a k 3"],
        driving: Float[Tensor, "b k 3"],
    ) -> Drawing:
        """Draw portraits with other keypoints.

        Args:
            volume: features of b portraits, or of one for all pictures (:meth:`encode`).
            source: their keypoints.
            driving: keypoints of the pictures.
        """
        motion: Motion = self.dense_motion_network(volume, source, driving)
        volume = volume.expand(len(driving), -1, -1, -1, -1)
        moved = F.grid_sample(volume, motion.deformation, align_corners=False)
        warped = self.fourth(self.third(moved.flatten(1, 2)))
        return Drawing(self.decode(warped * motion.occlusion), warped, motion)


class OriginalGenerator(Generator):
    """The generator with the paper's own decoder. Named as the published ``generator``."""

    def __init__(self, sizes: GeneratorSizes | None = None) -> None:
        sizes = GeneratorSizes() if sizes is None else sizes
        super().__init__(sizes, first_size=7)
        narrow = sizes.down[-1]
        self.resblocks_2d = nn.Sequential(
            OrderedDict((f"2dr{i}", ResidualBlock(narrow, dimensions=2)) for i in range(sizes.blocks))
        )
        self.up_blocks = nn.ModuleList(UpBlock(*pair) for pair in chain(narrow, sizes.up))
        self.final = convolution(2, sizes.up[-1], 3, 7)

    def decode(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 s s"]:
        """Draw pictures in 0..1 from moved features."""
        x = self.resblocks_2d(features)
        for block in self.up_blocks:
            x = block(x)
        return torch.sigmoid(self.final(x))


class SpectralConvolution(nn.Module):
    """A convolution divided by its largest singular value, as ``weight_u`` and ``weight_v`` tell it.

    They are taken as they are, without the step of power iteration that training takes.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, inputs: int, outputs: int, size: int, *, bias: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.weight_orig = nn.Parameter(torch.empty(outputs, inputs, size, size))
        nn.init.kaiming_uniform_(self.weight_orig, a=5**0.5)
        self.register_buffer("weight_u", F.normalize(torch.ones(outputs), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.ones(inputs * size * size), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same size."""
        spread = self.weight_u @ (self.weight_orig.flatten(1) @ self.weight_v)
        return F.conv2d(x, self.weight_orig / spread, self.bias, padding=self.weight_orig.shape[-1] // 2)


class SpatialNormalization(nn.Module):
    """SPADE: normalises every channel of a picture, then scales and shifts it by place, as features say."""

    def __init__(self, channels: int, labels: int, hidden: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(convolution(2, labels, hidden, 3), nn.ReLU())
        self.mlp_gamma = convolution(2, hidden, channels, 3)
        self.mlp_beta = convolution(2, hidden, channels, 3)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Return features of the shape of ``x``."""
        normal = F.instance_norm(x)
        shared = self.mlp_shared(F.interpolate(features, size=x.shape[2:]))
        return normal * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)


class SpadeBlock(nn.Module):
    """A residual block with SPADE's normalisations."""

    def __init__(self, inputs: int, outputs: int, labels: int, hidden: int) -> None:
        super().__init__()
        middle, self.learned_skip = min(inputs, outputs), inputs != outputs
        self.conv_0 = SpectralConvolution(inputs, middle, 3)
        self.conv_1 = SpectralConvolution(middle, outputs, 3)
        if self.learned_skip:
            self.conv_s = SpectralConvolution(inputs, outputs, 1, bias=False)
        self.norm_0 = SpatialNormalization(inputs, labels, hidden)
        self.norm_1 = SpatialNormalization(middle, labels, hidden)
        if self.learned_skip:
            self.norm_s = SpatialNormalization(inputs, labels, hidden)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Return features of the size of ``x``."""
        skip = self.conv_s(self.norm_s(x, features)) if self.learned_skip else x
        inner = self.conv_0(F.leaky_relu(self.norm_0(x, features), _SLOPE))
        return skip + self.conv_1(F.leaky_relu(self.norm_1(inner, features), _SLOPE))


class SpadeDecoder(nn.Module):
    """SPADE's decoder, which draws from features and is told them again in every normalisation."""

    def __init__(self, sizes: GeneratorSizes) -> None:
        super().__init__()
        labels, wide, hidden = sizes.down[-1], sizes.wide, sizes.hidden
        self.fc = convolution(2, labels, wide, 3)
        self.middle = [f"G_middle_{i}" for i in range(sizes.blocks)]
        self.ups = [f"up_{i}" for i in range(len(sizes.up))]
        for name in self.middle:
            self.add_module(name, SpadeBlock(wide, wide, labels, hidden))
        for name, pair in zip(self.ups, chain(wide, sizes.up), strict=True):
            self.add_module(name, SpadeBlock(*pair, labels, hidden))
        self.conv_img = convolution(2, sizes.up[-1], 3, 3)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 s s"]:
        """Draw pictures in 0..1."""
        x = self.fc(features)
        for name in self.middle:
            x = self.get_submodule(name)(x, features)
        for name in self.ups:
            x = self.get_submodule(name)(F.interpolate(x, scale_factor=2.0), features)
        return torch.sigmoid(self.conv_img(F.leaky_relu(x, _SLOPE)))


class SpadeGenerator(Generator):
    """The generator with SPADE's decoder. Named as the published ``generator``."""

    def __init__(self, sizes: GeneratorSizes = SPADE_SIZES) -> None:
        super().__init__(sizes, first_size=3)
        self.decoder = SpadeDecoder(sizes)

    def decode(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 s s"]:
        """Draw pictures in 0..1 from moved features."""
        return self.decoder(features)


def generator_from_state(state: State) -> SpadeGenerator | OriginalGenerator:
    """Build the generator that published entries are of, with all of them and no others.

    The entries tell its sizes, and which decoder it has.

    Raises:
        ValueError: if an entry is missing, unknown or misshaped.
    """
    sizes = GeneratorSizes.of(state)
    if "final.weight" in state:
        return build(OriginalGenerator, state, sizes)
    return build(SpadeGenerator, state, sizes)
