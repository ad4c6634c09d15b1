"""Face-vid2vid's keypoint detector and head estimator (paper sections 3.1 and 3.2).

Both take pictures ``[B,3,S,S]`` in 0..1, cut to the face. Keypoints are (x, y, z) in [-1,1]: x to the right,
y down, z along the volume's depth.
"""

from __future__ import annotations

from collections import OrderedDict
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
    count_of,
    size_of,
    widths_of,
)
from portrait_core.tracking.encoders import build

N_KEYPOINTS = 15
N_BINS = 66
"""Bins of a head angle, 3 degrees each."""
_DOWN, _UP, _DEPTH = (64, 128, 256, 512, 1024), (512, 256, 128, 64, 32), 16
_ANTIALIAS = 13
_TEMPERATURE = 0.1
_STEM, _WIDTHS, _BLOCKS = 64, (256, 512, 1024, 2048), (3, 3, 5, 2)


class Antialias(nn.Module):
    """A Gaussian blur, of which every n-th pixel is kept."""

    weight: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.stride = (
            size - 1
        ) // 4 + 1  # its deviation is (stride - 1) / 2 pixels, its half width four of them
        deviation = max(self.stride - 1, 1) / 2
        places = torch.arange(size) - (size - 1) / 2
        row = torch.exp(-(places**2) / (2 * deviation**2))
        kernel = torch.outer(row, row) / row.sum() ** 2
        self.register_buffer("weight", kernel.expand(3, 1, size, size).clone())

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s t"]:
        """Return images of one ``stride``-th of the size."""
        padding = self.weight.shape[-1] // 2
        return F.conv2d(images, self.weight, stride=self.stride, padding=padding, groups=3)


class KeypointPredictor(nn.Module):
    """Features of pictures, spread into a volume: blocks down in the plane, blocks up in space."""

    def __init__(self, down: Sequence[int], up: Sequence[int], depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.down_blocks = nn.Sequential(
            OrderedDict((f"down{i}", DownBlock(*sizes)) for i, sizes in enumerate(chain(3, down)))
        )
        self.conv = convolution(2, down[-1], down[-1] * depth, 1)
        self.up_blocks = nn.Sequential(
            OrderedDict((f"up{i}", UpBlock(*s, dimensions=3)) for i, s in enumerate(chain(down[-1], up)))
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c d h w"]:
        """Return a volume of features, as high and wide as the images."""
        return self.up_blocks(self.conv(self.down_blocks(images)).unflatten(1, (-1, self.depth)))


class KeypointDetector(nn.Module):
    """Picture to canonical keypoints, which know no pose. Named as the published ``kp_detector``.

    Args:
        n_keypoints: number of keypoints.
        down: channels of the blocks in the plane.
        up: channels of the blocks in space.
        depth: depth of the volume.
        antialias: side in pixels of the blur's kernel; it follows how much smaller the picture becomes.
    """

    def __init__(
        self,
        n_keypoints: int = N_KEYPOINTS,
        down: Sequence[int] = _DOWN,
        up: Sequence[int] = _UP,
        depth: int = _DEPTH,
        antialias: int = _ANTIALIAS,
    ) -> None:
        super().__init__()
        self.predictor = KeypointPredictor(down, up, depth)
        self.kp = convolution(3, up[-1], n_keypoints, 3)
        self.down = Antialias(antialias)

    @classmethod
    def from_state(cls, state: State) -> KeypointDetector:
        """Take the published entries, all of them and no others; they tell the network's sizes.

        Raises:
            ValueError: if an entry is missing, unknown or misshaped.
        """
        down = widths_of(state, "predictor.down_blocks.down{}.conv.weight", _DOWN)
        return build(
            cls,
            state,
            size_of(state, "kp.weight", 0, N_KEYPOINTS),
            down,
            widths_of(state, "predictor.up_blocks.up{}.conv.weight", _UP),
            max(1, size_of(state, "predictor.conv.weight", 0, down[-1] * _DEPTH) // down[-1]),
            size_of(state, "down.weight", 2, _ANTIALIAS),
        )

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b k 3"]:
        """Return canonical keypoints (x, y, z) in [-1,1] of pictures in 0..1."""
        scores = self.kp(self.predictor(self.down(images)))
        heat = torch.softmax(scores.flatten(2) / _TEMPERATURE, dim=2).view_as(scores)
        x = heat.sum((2, 3)) @ coordinates(heat.shape[4], heat)
        y = heat.sum((2, 4)) @ coordinates(heat.shape[3], heat)
        z = heat.sum((3, 4)) @ coordinates(heat.shape[2], heat)
        return torch.stack([x, y, z], dim=-1)


class HeadState(NamedTuple):
    """Readings of the head estimator of B pictures."""

    yaw: Float[Tensor, "b 66"]
    """Scores of the bins of yaw; of ``fc_roll``, a slip of names that is in the checkpoints."""
    pitch: Float[Tensor, "b 66"]
    """Scores of the bins of pitch."""
    roll: Float[Tensor, "b 66"]
    """Scores of the bins of roll; of ``fc_yaw``, by the same slip."""
    t: Float[Tensor, "b 3"]
    """Translations in the keypoints' unit."""
    exp: Float[Tensor, "b 45"]
    """Displacements of all keypoints by expression, keypoint by keypoint."""

    def degrees(self) -> Float[Tensor, "b 3"]:
        """Return yaw, pitch and roll in the estimator's degrees."""
        return torch.stack([degrees_from_bins(scores) for scores in self[:3]], dim=-1)


def degrees_from_bins(scores: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Return the expected degrees of scores of bins; the first one stands for -99 degrees."""
    places = torch.arange(scores.shape[1], dtype=scores.dtype, device=scores.device)
    return torch.softmax(scores, dim=1) @ places * 3 - 99


class Bottleneck(nn.Module):
    """A residual block with a narrow middle; with ``stride`` 2, its input passes a convolution too."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        narrow = max(1, channels // 4)
        self.conv1 = nn.Conv2d(channels, narrow, 1)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, 1)
        self.conv3 = nn.Conv2d(narrow, channels, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(narrow), nn.BatchNorm2d(narrow)
        self.norm3 = nn.BatchNorm2d(channels)
        self.skip = nn.Conv2d(channels, channels, 1, stride) if stride != 1 else None
        self.norm4 = nn.BatchNorm2d(channels) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same channels."""
        inner = F.relu(self.norm1(self.conv1(x)))
        inner = F.relu(self.norm2(self.conv2(inner)))
        inner = self.norm3(self.conv3(inner))
        if self.skip is not None and self.norm4 is not None:
            x = self.norm4(self.skip(x))
        return F.relu(inner + x)


class HeadEstimator(nn.Module):
    """Picture to head pose, translation and expression. Named as the published ``he_estimator``.

    Args:
        n_keypoints: number of keypoints.
        n_bins: bins per angle.
        stem: channels of the first convolution.
        widths: channels of the stages.
        blocks: blocks per stage, beside the one that halves the size.
    """

    def __init__(
        self,
        n_keypoints: int = N_KEYPOINTS,
        n_bins: int = N_BINS,
        stem: int = _STEM,
        widths: Sequence[int] = _WIDTHS,
        blocks: Sequence[int] = _BLOCKS,
    ) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, stem, 7, 2, 3), nn.BatchNorm2d(stem)
        self.stages: list[list[str]] = []
        """Names of the modules of every stage in their order."""
        for stage, (inputs, outputs) in enumerate(chain(stem, widths)):
            names = [f"conv{stage + 2}", f"norm{stage + 2}", f"block{2 * stage}", f"block{2 * stage + 1}"]
            self.add_module(names[0], nn.Conv2d(inputs, outputs, 1))
            self.add_module(names[1], nn.BatchNorm2d(outputs))
            if stage:
                self.add_module(names[2], Bottleneck(outputs, stride=2))
            row = {f"b{2 * stage + 1}_{i}": Bottleneck(outputs) for i in range(blocks[stage])}
            self.add_module(names[3], nn.Sequential(OrderedDict(row)))
            self.stages.append([name for name in names if name != "block0"])
        self.fc_roll, self.fc_pitch, self.fc_yaw = (nn.Linear(widths[-1], n_bins) for _ in range(3))
        self.fc_t = nn.Linear(widths[-1], 3)
        self.fc_exp = nn.Linear(widths[-1], 3 * n_keypoints)

    @classmethod
    def from_state(cls, state: State) -> HeadEstimator:
        """Take the published entries, all of them and no others; they tell the network's sizes.

        Raises:
            ValueError: if an entry is missing, unknown or misshaped.
        """
        later = {name.removeprefix("conv"): value for name, value in state.items() if name[:4] == "conv"}
        widths = tuple(size_of(later, f"{i}.weight", 0, 1) for i in range(2, 9) if f"{i}.weight" in later)
        pattern = "block{0}.b{0}_{1}.conv1.weight"
        blocks = [count_of(state, pattern.format(2 * i + 1, "{}")) for i in range(len(widths))]
        return build(
            cls,
            state,
            size_of(state, "fc_exp.weight", 0, 3 * N_KEYPOINTS) // 3,
            size_of(state, "fc_yaw.weight", 0, N_BINS),
            size_of(state, "conv1.weight", 0, _STEM),
            widths or _WIDTHS,
            blocks or _BLOCKS,
        )

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> HeadState:
        """Return the head states of pictures in 0..1."""
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(images))), 3, 2, 1)
        for convolution_name, norm_name, *blocks in self.stages:
            x = F.relu(self.get_submodule(norm_name)(self.get_submodule(convolution_name)(x)))
            for name in blocks:
                x = self.get_submodule(name)(x)
        x = x.mean((2, 3))
        return HeadState(self.fc_roll(x), self.fc_pitch(x), self.fc_yaw(x), self.fc_t(x), self.fc_exp(x))
