"""FID's Inception v3 (Szegedy et al. 2015; TensorFlow's model of 2015-12-05) as functions of a state dict."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.plain.stylegan2 import scope

Params = Mapping[str, Tensor]


def conv(params: Params, x: Tensor, stride: int = 1, *, pad: bool = True) -> Tensor:
    """Convolution, batch norm by running statistics, ReLU; ``pad`` keeps the size at stride 1."""
    weight = params["conv.weight"]
    high, wide = weight.shape[2:]
    x = F.conv2d(x, weight, stride=stride, padding=(high // 2, wide // 2) if pad else 0)
    mean, variance, gain, bias = (
        params[f"bn.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    return ((x - mean) / torch.sqrt(variance + 0.001) * gain + bias).clamp(min=0)


def chain(params: Params, x: Tensor, *names: str) -> Tensor:
    """Several of them, one after another."""
    for name in names:
        x = conv(scope(params, name), x)
    return x


def neighbours(x: Tensor, beyond: float) -> Tensor:
    """The 3 x 3 pixels around each pixel of ``x [b,c,h,w]``: ``[9,b,c,h,w]``, ``beyond`` outside."""
    h, w = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1), value=beyond)
    return torch.stack([padded[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)])


def mean_pool(x: Tensor) -> Tensor:
    """Mean of those of the 9 neighbours that lie inside the map: the padding does not count."""
    return neighbours(x, 0).sum(0) / neighbours(torch.ones_like(x), 0).sum(0)


def max_pool(x: Tensor) -> Tensor:
    """The largest of the 9 neighbours."""
    return neighbours(x, -torch.inf).amax(0)


def mixed35(params: Params, x: Tensor) -> Tensor:
    """Blocks Mixed_5b, 5c and 5d."""
    double = chain(params, x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
    five = chain(params, x, "branch5x5_1", "branch5x5_2")
    return torch.cat(
        [chain(params, x, "branch1x1"), five, double, chain(params, mean_pool(x), "branch_pool")], 1
    )


def mixed17(params: Params, x: Tensor) -> Tensor:
    """Blocks Mixed_6b to 6e."""
    seven = chain(params, x, *(f"branch7x7_{i}" for i in (1, 2, 3)))
    double = chain(params, x, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)))
    pooled = chain(params, mean_pool(x), "branch_pool")
    return torch.cat([chain(params, x, "branch1x1"), seven, double, pooled], 1)


def mixed8(params: Params, x: Tensor, *, last: bool) -> Tensor:
    """Blocks Mixed_7b, and 7c, the ``last``, whose pool takes the largest."""
    three = chain(params, x, "branch3x3_1")
    double = chain(params, x, "branch3x3dbl_1", "branch3x3dbl_2")
    parts = [chain(params, x, "branch1x1")]
    parts += [chain(params, three, f"branch3x3_2{i}") for i in "ab"]
    parts += [chain(params, double, f"branch3x3dbl_3{i}") for i in "ab"]
    return torch.cat([*parts, chain(params, (max_pool if last else mean_pool)(x), "branch_pool")], 1)
