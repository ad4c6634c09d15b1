"""StyleGAN2 (Karras et al. 2020) as functions of a state dict with the published names."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Params = Mapping[str, Tensor]


def scope(params: Params, name: str) -> Params:
    """The entries below ``name``, without that part of their names."""
    prefix = name + "."
    return {key[len(prefix) :]: value for key, value in params.items() if key.startswith(prefix)}


def ordinary(params: Params) -> Params:
    """Copies of the entries in the ordinary memory layout.

    With channels-last 1x1 weights, PyTorch 2.13 gives wrong gradients (against finite differences) of a
    batch's grouped convolutions on a CPU, from the second sample on.
    """
    return {
        name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in params.items()
    }


def linear(params: Params, x: Tensor, lr_multiplier: float = 1.0) -> Tensor:
    """Equalised linear layer: ``x [b,i]`` to ``[b,o]``."""
    weight = params["weight"] * (lr_multiplier / math.sqrt(params["weight"].shape[1]))
    return F.linear(x, weight, params["bias"] * lr_multiplier)


def activation(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2.0)


def limited(x: Tensor, most: float | None) -> Tensor:
    """``x``, but no further from 0 than ``most``."""
    return x if most is None else torch.minimum(torch.maximum(x, x.new_tensor(-most)), x.new_tensor(most))


def low_pass(x: Tensor, padding: tuple[int, int, int, int], gain: float) -> Tensor:
    """Each channel of ``x [b,c,h,w]`` padded (left, right, top, bottom) and filtered by [1,3,3,1]."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype) / 8.0
    kernel = (gain * torch.outer(taps, taps)).repeat(x.shape[1], 1, 1, 1)  # [c,1,4,4]
    return F.conv2d(F.pad(x, padding), kernel, groups=x.shape[1])


def upsample(x: Tensor) -> Tensor:
    """``x [b,c,h,w]`` to ``[b,c,2h,2w]``: zeros between the pixels, then the low-pass filter."""
    b, c, h, w = x.shape
    spread = torch.stack([x, torch.zeros_like(x)], dim=-1).reshape(b, c, h, 2 * w)
    spread = torch.stack([spread, torch.zeros_like(spread)], dim=-2).reshape(b, c, 2 * h, 2 * w)
    return low_pass(spread, (2, 1, 2, 1), gain=4.0)


def modulated_conv(
    x: Tensor, weight: Tensor, styles: Tensor, *, demodulate: bool, up: bool = False
) -> Tensor:
    """``x [b,i,h,w]``, ``weight [o,i,k,k]``, ``styles [b,i]`` to ``[b,o,h,w]``, or twice the size if ``up``:
    a convolution with weights of each sample's own, all samples as groups of one convolution."""
    b, i, h, w = x.shape
    o, _, k, _ = weight.shape
    own = weight[None] * styles[:, None, :, None, None]  # [b,o,i,k,k]
    if demodulate:
        own = own * (own.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = x.reshape(1, b * i, h, w)
    if not up:
        y = F.conv2d(x, own.reshape(b * o, i, k, k), padding=k // 2, groups=b)
        return y.reshape(b, o, h, w)
    y = F.conv_transpose2d(x, own.transpose(1, 2).reshape(b * i, o, k, k), stride=2, groups=b)
    return low_pass(y.reshape(b, o, 2 * h + 1, 2 * w + 1), (1, 1, 1, 1), gain=4.0)


def synthesis_layer(
    params: Params, x: Tensor, w: Tensor, *, up: bool, noise: bool, clamp: float | None = None
) -> Tensor:
    """``x [b,i,h,w]``, ``w [b,d]``: modulated 3x3 convolution, constant noise, bias, activation, limit."""
    y = modulated_conv(x, params["weight"], linear(scope(params, "affine"), w), demodulate=True, up=up)
    if noise:
        y = y + params["noise_const"] * params["noise_strength"]
    y = activation(y + params["bias"][:, None, None])
    return limited(y, clamp)


def to_rgb(params: Params, x: Tensor, w: Tensor, clamp: float | None = None) -> Tensor:
    """``x [b,i,h,w]``, ``w [b,d]``: modulated 1x1 convolution to the output channels, limit."""
    styles = linear(scope(params, "affine"), w) / math.sqrt(params["weight"].shape[1])
    y = modulated_conv(x, params["weight"], styles, demodulate=False) + params["bias"][:, None, None]
    return limited(y, clamp)


def block(
    params: Params,
    x: Tensor,
    image: Tensor,
    ws: Tensor,
    *,
    up: bool,
    noise: bool,
    clamp: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Two layers and an output layer, by ``ws [b,3,d]``; features and skip image may double in size."""
    x = synthesis_layer(scope(params, "conv0"), x, ws[:, 0], up=up, noise=noise, clamp=clamp)
    x = synthesis_layer(scope(params, "conv1"), x, ws[:, 1], up=False, noise=noise, clamp=clamp)
    image = upsample(image) if up else image
    return x, image + to_rgb(scope(params, "torgb"), x, ws[:, 2], clamp)


def synthesis(
    params: Params,
    ws: Tensor,
    resolutions: tuple[int, ...],
    *,
    noise: bool = True,
    clamp: float | None = None,
) -> Tensor:
    """``ws [b,rows,d]`` to an image ``[b,c,r,r]`` with r the last of ``resolutions``.

    Each block has two rows of ws, the first one; a block's output layer takes the row of the next
    block's first layer.
    """
    first = scope(params, f"b{resolutions[0]}")
    x = first["const"].repeat(len(ws), 1, 1, 1)
    x = synthesis_layer(scope(first, "conv1"), x, ws[:, 0], up=False, noise=noise, clamp=clamp)
    image = to_rgb(scope(first, "torgb"), x, ws[:, 1], clamp)
    for i, resolution in enumerate(resolutions[1:]):
        rows = ws[:, 2 * i + 1 : 2 * i + 4]
        x, image = block(scope(params, f"b{resolution}"), x, image, rows, up=True, noise=noise, clamp=clamp)
    return image


def normalise(x: Tensor) -> Tensor:
    """``x [b,n]`` to unit mean square."""
    return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()


def mapping(
    params: Params, z: Tensor, c: Tensor | None, *, rows: int, layers: int, psi: float = 1.0
) -> Tensor:
    """``z [b,z]`` (and a label ``c [b,n]``) to ``ws [b,rows,d]``, pulled toward the mean by ``psi``."""
    x = normalise(z)
    if c is not None:
        x = torch.cat([x, normalise(linear(scope(params, "embed"), c))], dim=1)
    for i in range(layers):
        x = activation(linear(scope(params, f"fc{i}"), x, lr_multiplier=0.01))
    w = params["w_avg"] + psi * (x - params["w_avg"])
    return w[:, None].repeat(1, rows, 1)
