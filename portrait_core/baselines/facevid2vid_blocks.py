"""The blocks of Face-vid2vid's networks, in two and three dimensions, and sizes read from state dicts.

Wang, Mallya, Liu 2021, "One-Shot Free-View Neural Talking-Head Synthesis for Video Conferencing". Every block
has the names of the usual unofficial implementation's state dicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = Mapping[str, Tensor]
Dimensions = Literal[2, 3]


def convolution(dimensions: Dimensions, inputs: int, outputs: int, size: int) -> nn.Conv2d | nn.Conv3d:
    """Return a convolution that keeps the size of its input, in two or three dimensions."""
    kind = nn.Conv2d if dimensions == 2 else nn.Conv3d
    return kind(inputs, outputs, size, padding=size // 2)


def normalization(dimensions: Dimensions, channels: int) -> nn.BatchNorm2d | nn.BatchNorm3d:
    """Return a batch normalisation in two or three dimensions."""
    return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm3d(channels)


class ConvolutionBlock(nn.Module):
    """Convolution, batch normalisation, ReLU (or a leaky one with ``slope``); the size is kept."""

    def __init__(
        self, inputs: int, outputs: int, size: int = 3, *, dimensions: Dimensions = 2, slope: float = 0.0
    ) -> None:
        super().__init__()
        self.conv = convolution(dimensions, inputs, outputs, size)
        self.norm = normalization(dimensions, outputs)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same size."""
        x = self.norm(self.conv(x))
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)


class DownBlock(ConvolutionBlock):
    """A convolution block, then the mean of 2x2 pixels: height and width are halved, depth is kept."""

    def forward(self, x: Tensor) -> Tensor:
        """Return features of half the height and width."""
        x = super().forward(x)
        return F.avg_pool2d(x, 2) if x.ndim == 4 else F.avg_pool3d(x, (1, 2, 2))


class UpBlock(ConvolutionBlock):
    """Every pixel four times, then a convolution block: height and width are doubled, depth is kept."""

    def forward(self, x: Tensor) -> Tensor:
        """Return features of twice the height and width."""
        return super().forward(F.interpolate(x, scale_factor=(1.0,) * (x.ndim - 4) + (2.0, 2.0)))


class ResidualBlock(nn.Module):
    """Twice normalisation, ReLU and convolution, added to the input."""

    def __init__(self, channels: int, *, dimensions: Dimensions) -> None:
        super().__init__()
        self.conv1 = convolution(dimensions, channels, channels, 3)
        self.conv2 = convolution(dimensions, channels, channels, 3)
        self.norm1 = normalization(dimensions, channels)
        self.norm2 = normalization(dimensions, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        inner = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(inner)))


def chain(inputs: int, widths: Sequence[int]) -> list[tuple[int, int]]:
    """Return the inputs and outputs of blocks in a row, of which the first takes ``inputs`` channels."""
    return list(zip((inputs, *widths), widths, strict=False))


def size_of(state: State, name: str, axis: int, otherwise: int) -> int:
    """Return the length of an axis of an entry, at least 1; ``otherwise`` where there is no such entry.

    Strict loading names what is missing or misshaped, so nothing is refused here.
    """
    value = state.get(name)
    return max(1, value.shape[axis]) if value is not None and value.ndim > axis else otherwise


def widths_of(state: State, pattern: str, otherwise: Sequence[int]) -> tuple[int, ...]:
    """Return the outputs of blocks in a row.

    Args:
        state: entries of the network.
        pattern: name of their weights, with ``{}`` for the number of a block.
        otherwise: the outputs where the state has no such block.
    """
    count = count_of(state, pattern)
    return tuple(size_of(state, pattern.format(i), 0, 1) for i in range(count)) or tuple(otherwise)


def count_of(state: State, pattern: str) -> int:
    """Count the blocks in a row, whose weights have the names ``pattern`` with numbers from 0."""
    count = 0
    while pattern.format(count) in state:
        count += 1
    return count


def coordinates(count: int, like: Tensor) -> Tensor:
    """Return ``count`` places from -1 to 1, both included (a grid that aligns corners)."""
    return torch.linspace(-1, 1, count, dtype=like.dtype, device=like.device)
