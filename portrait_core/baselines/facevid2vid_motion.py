"""Face-vid2vid's dense motion: from keypoints to a flow that moves the portrait's features (section 3.2).

Sixteen flows are mixed: one that moves nothing, and one per keypoint, each of which moves everything as its
keypoint moves. Volumes are ``[B,C,D,H,W]``, flows ``[B,D,H,W,3]``: places (x, y, z) in [-1,1] of the
portrait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.baselines.facevid2vid_blocks import (
    DownBlock,
    State,
    UpBlock,
    chain,
    convolution,
    coordinates,
    normalization,
    size_of,
    widths_of,
)

_VARIANCE = 0.01
"""Variance of the Gaussians that stand for keypoints."""


def identity_flow(volume: Float[Tensor, "b c d h w"]) -> Float[Tensor, "d h w 3"]:
    """Return the place (x, y, z) of every voxel: -1 and 1 at the centres of the outermost ones."""
    z, y, x = (coordinates(count, volume) for count in volume.shape[2:])
    return torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], dim=-1)


def keypoint_heatmaps(
    keypoints: Float[Tensor, "b k 3"], volume: Float[Tensor, "c e d h w"]
) -> Float[Tensor, "b k d h w"]:
    """Return Gaussians of height 1 and variance 0.01 about keypoints, on the voxels of a volume."""
    x, y, z = (
        torch.exp(-0.5 * (coordinates(count, volume) - keypoints[..., axis, None]) ** 2 / _VARIANCE)
        for axis, count in enumerate(volume.shape[:1:-1])
    )
    return z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]


def sparse_flows(
    source: Float[Tensor, "a k 3"], driving: Float[Tensor, "b k 3"], volume: Float[Tensor, "c e d h w"]
) -> Float[Tensor, "b n d h w 3"]:
    """Return the flow that moves nothing, then one per keypoint."""
    grid = identity_flow(volume)
    shifts = (source - driving)[:, :, None, None, None]
    return torch.cat([grid.expand(len(shifts), 1, *grid.shape), grid + shifts], dim=1)


def sample_flows(
    volume: Float[Tensor, "b c d h w"], flows: Float[Tensor, "b n d h w 3"]
) -> Float[Tensor, "b n c d h w"]:
    """Move a volume by each of n flows.

    As published, flows align corners and sampling does not: even the identity moves features a little.
    """
    count, depth = flows.shape[1:3]
    # flows beside one another in depth, so that the volume need not be repeated
    moved = F.grid_sample(volume, flows.flatten(1, 2), align_corners=False)
    return moved.unflatten(2, (count, depth)).transpose(1, 2)


class HourglassEncoder(nn.Module):
    """Blocks that halve height and width."""

    def __init__(self, inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(DownBlock(*sizes, dimensions=3) for sizes in chain(inputs, widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the input and every block's output."""
        features = [x]
        for block in self.down_blocks:
            features.append(block(features[-1]))
        return features


class HourglassDecoder(nn.Module):
    """Blocks that double height and width; each but the first also takes what the encoder had at its size."""

    def __init__(self, inputs: int, down: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        beside = (*reversed(down[:-1]), inputs)
        taken = (down[-1], *(a + b for a, b in zip(widths, beside, strict=False)))
        self.up_blocks = nn.ModuleList(
            UpBlock(a, b, dimensions=3) for a, b in zip(taken, widths, strict=False)
        )
        self.channels = widths[-1] + inputs
        self.conv = convolution(3, self.channels, self.channels, 3)
        self.norm = normalization(3, self.channels)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return features of the encoder's input's size."""
        x = features[-1]
        for block, beside in zip(self.up_blocks, features[-2::-1], strict=True):
            x = torch.cat([block(x), beside], dim=1)
        return F.relu(self.norm(self.conv(x)))


class Hourglass(nn.Module):
    """An encoder and a decoder with connections between them."""

    def __init__(self, inputs: int, down: Sequence[int], up: Sequence[int]) -> None:
        super().__init__()
        self.encoder = HourglassEncoder(inputs, down)
        self.decoder = HourglassDecoder(inputs, down, up)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's size."""
        return self.decoder(self.encoder(x))


class MotionSizes(NamedTuple):
    """Sizes of the dense motion network; as published unless a state dict says otherwise."""

    n_keypoints: int = 15
    channels: int = 32
    """Channels of the features' volume."""
    depth: int = 16
    """Depth of the features' volume."""
    compressed: int = 4
    """Channels that the motion is read from."""
    down: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Channels of the hourglass's encoder."""
    up: tuple[int, ...] = (512, 256, 128, 64, 32)
    """Channels of the hourglass's decoder."""

    @classmethod
    def of(cls, state: State, prefix: str) -> MotionSizes:
        """Read the sizes from a state dict whose entries of this network begin with ``prefix``."""
        usual, hourglass = cls(), f"{prefix}hourglass."
        width = size_of(state, f"{hourglass}decoder.conv.weight", 0, 112)
        return cls(
            size_of(state, f"{prefix}mask.weight", 0, usual.n_keypoints + 1) - 1,
            size_of(state, f"{prefix}compress.weight", 1, usual.channels),
            max(1, size_of(state, f"{prefix}occlusion.weight", 1, width * usual.depth) // width),
            size_of(state, f"{prefix}compress.weight", 0, usual.compressed),
            widths_of(state, hourglass + "encoder.down_blocks.{}.conv.weight", usual.down),
            widths_of(state, hourglass + "decoder.up_blocks.{}.conv.weight", usual.up),
        )


class Motion(NamedTuple):
    """Motion of the portrait's features in B pictures."""

    mask: Float[Tensor, "b n d h w"]
    """Shares of the flows, which sum to 1: the identity's first."""
    deformation: Float[Tensor, "b d h w 3"]
    """The flow: places in the portrait's volume, (x, y, z) in [-1,1]."""
    occlusion: Float[Tensor, "b 1 h w"]
    """Shares of features that are kept, 0..1."""


class DenseMotion(nn.Module):
    """Features and keypoints to a flow. Named as the published ``dense_motion_network``."""

    def __init__(self, sizes: MotionSizes | None = None) -> None:
        super().__init__()
        sizes = MotionSizes() if sizes is None else sizes
        flows = sizes.n_keypoints + 1
        self.hourglass = Hourglass(flows * (sizes.compressed + 1), sizes.down, sizes.up)
        width = self.hourglass.decoder.channels
        self.mask = convolution(3, width, flows, 7)
        self.compress = convolution(3, sizes.channels, sizes.compressed, 1)
        self.norm = normalization(3, sizes.compressed)
        self.occlusion = convolution(2, width * sizes.depth, 1, 7)

    def forward(
        self,
        volume: Float[Tensor, "a c d h w"],
        source: Float[Tensor, "a k 3"],
        driving: Float[Tensor, "b k 3"],
    ) -> Motion:
        """Return the motion from the portrait's keypoints to the driver's.

        Args:
            volume: features of b portraits, or of one for all.
            source: their keypoints.
            driving: the keypoints that they take over.
        """
        compressed = F.relu(self.norm(self.compress(volume)))
        flows = sparse_flows(source, driving, volume)
        moved = sample_flows(compressed.expand(len(flows), -1, -1, -1, -1), flows)
        heat = keypoint_heatmaps(driving, volume) - keypoint_heatmaps(source, volume)
        heat = torch.cat([torch.zeros_like(heat[:, :1]), heat], dim=1)
        features = self.hourglass(torch.cat([heat[:, :, None], moved], dim=2).flatten(1, 2))
        mask = torch.softmax(self.mask(features), dim=1)
        deformation = (mask[..., None] * flows).sum(1)
        return Motion(mask, deformation, torch.sigmoid(self.occlusion(features.flatten(1, 2))))
