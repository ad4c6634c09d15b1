"""PIRenderer's generator (Ren et al. 2021) as functions of a state dict with the published names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.plain.stylegan2 import Params, scope

EPSILON = 1e-5


def correlate(x: Tensor, weight: Tensor, bias: Tensor, step: int = 1, border: int = 0) -> Tensor:
    """``x [b,i,h,w]`` with ``weight [o,i,k,k]``, as a sum over the kernel's places."""
    b, _, h, w = x.shape
    o, _, k, _ = weight.shape
    wide = x.new_zeros(b, x.shape[1], h + 2 * border, w + 2 * border)
    wide[:, :, border : border + h, border : border + w] = x
    rows, columns = (h + 2 * border - k) // step + 1, (w + 2 * border - k) // step + 1
    out = bias[:, None, None].expand(b, o, rows, columns)
    for i in range(k):
        for j in range(k):
            part = wide[:, :, i : i + step * rows : step, j : j + step * columns : step]
            out = out + torch.einsum("oi,bihw->bohw", weight[:, :, i, j], part)
    return out


def spread(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The transposed convolution that doubles: every pixel of ``x [b,i,h,w]`` lays ``weight [i,o,3,3]``
    around its own place ``(2y, 2x)``; what falls outside of ``[2h,2w]`` is lost."""
    b, _, h, w = x.shape
    out = x.new_zeros(b, weight.shape[1], 2 * h + 1, 2 * w + 1)
    for i in range(3):
        for j in range(3):
            part = torch.einsum("io,bihw->bohw", weight[:, :, i, j], x)
            out[:, :, i : i + 2 * h : 2, j : j + 2 * w : 2] += part
    return out[:, :, 1:, 1:] + bias[:, None, None]


def leaky(x: Tensor) -> Tensor:
    """0.1 of what is negative."""
    return torch.where(x > 0, x, 0.1 * x)


def standard(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """``x`` with mean 0 and variance 1 over ``axes``."""
    away = x - x.mean(axes, keepdim=True)
    return away / (away.square().mean(axes, keepdim=True) + EPSILON).sqrt()


def adapted(params: Params, x: Tensor, z: Tensor) -> Tensor:
    """Each channel of ``x [b,c,h,w]`` normalised, with gain and shift by ``z [b,d]``."""
    hidden = (z @ params["mlp_shared.0.weight"].T + params["mlp_shared.0.bias"]).clamp(min=0)
    gain = hidden @ params["mlp_gamma.weight"].T + params["mlp_gamma.bias"]
    shift = hidden @ params["mlp_beta.weight"].T + params["mlp_beta.bias"]
    return standard(x, (2, 3)) * (1 + gain[:, :, None, None]) + shift[:, :, None, None]


def layer_norm(params: Params, x: Tensor) -> Tensor:
    return standard(x, (1, 2, 3)) * params["weight"] + params["bias"]


def block(params: Params, x: Tensor) -> Tensor:
    """Convolution, norm over channels and pixels, leaky ReLU."""
    weight = params["model.0.weight"]
    x = correlate(x, weight, params["model.0.bias"], border=weight.shape[2] // 2)
    return leaky(layer_norm(scope(params, "model.1"), x))


def descriptor(params: Params, window: Tensor) -> Tensor:
    """``window [b,c,w]`` to ``[b,d]``: every frame that is left sees others 3 frames away."""
    weight, bias = params["first.0.weight"], params["first.0.bias"]
    length = window.shape[2] - 6
    x = sum(torch.einsum("oi,bit->bot", weight[:, :, k], window[:, :, k : k + length]) for k in range(7))
    x = x + bias[:, None]
    i = 0
    while f"encoder{i}.1.weight" in params:
        weight, bias = params[f"encoder{i}.1.weight"], params[f"encoder{i}.1.bias"]
        active, length = leaky(x), x.shape[2] - 6
        before, here, after = (
            torch.einsum("oi,bit->bot", weight[:, :, k], active[:, :, 3 * k : 3 * k + length])
            for k in range(3)
        )
        x = x[:, :, 3 : 3 + length] + before + here + after + bias[:, None]
        i += 1
    return x.sum(2) / x.shape[2]


def flow(params: Params, image: Tensor, z: Tensor) -> Tensor:
    """``image [b,3,h,w]`` and ``z [b,d]`` to displacements ``[b,2,h/4,w/4]``."""
    encoder, decoder = scope(params, "hourglass.encoder"), scope(params, "hourglass.decoder")
    seen = [correlate(image, encoder["input_layer.weight"], encoder["input_layer.bias"], border=3)]
    while f"encoder{len(seen) - 1}.conv_0.weight" in encoder:
        part = scope(encoder, f"encoder{len(seen) - 1}")
        x = leaky(adapted(scope(part, "norm_0"), seen[-1], z))
        x = correlate(x, part["conv_0.weight"], part["conv_0.bias"], step=2, border=1)
        x = leaky(adapted(scope(part, "norm_1"), x, z))
        seen.append(correlate(x, part["conv_1.weight"], part["conv_1.bias"], border=1))
    level = len(seen) - 2
    x = seen[-1]
    while f"decoder{level}.conv_0.weight" in decoder:
        part = scope(decoder, f"decoder{level}")
        past = leaky(adapted(scope(part, "norm_s"), x, z))
        past = spread(past, part["conv_s.weight"], part["conv_s.bias"])
        x = leaky(adapted(scope(part, "norm_0"), x, z))
        x = correlate(x, part["conv_0.weight"], part["conv_0.bias"], border=1)
        x = leaky(adapted(scope(part, "norm_1"), x, z))
        x = past + spread(x, part["conv_1.weight"], part["conv_1.bias"])
        x = torch.cat([x, seen[level]], dim=1)
        level -= 1
    x = leaky(layer_norm(scope(params, "flow_out.0"), x))
    return correlate(x, params["flow_out.2.weight"], params["flow_out.2.bias"], border=3)


def enlarged(values: Tensor, size: int, axis: int) -> Tensor:
    """``values`` linearly in ``size`` places along ``axis``: pixels are areas, the outermost are held."""
    count = values.shape[axis]
    place = ((torch.arange(size, dtype=values.dtype) + 0.5) * count / size - 0.5).clamp(0, count - 1)
    low = place.floor().long().clamp(max=count - 2)
    shape = [1] * values.ndim
    shape[axis] = size
    share = (place - low).reshape(shape)
    return values.index_select(axis, low) * (1 - share) + values.index_select(axis, low + 1) * share


def warped(image: Tensor, field: Tensor) -> Tensor:
    """``image [b,c,h,w]`` read at the places that ``field [b,2,.,.]`` points to from its own pixels."""
    (h, w), (rows, columns) = image.shape[2:], field.shape[2:]
    # corner to corner of the field is -1..1; border to border of the image is too
    x = (torch.arange(columns, dtype=field.dtype) + field[:, 0]) / (columns - 1) * 2 - 1
    y = (torch.arange(rows, dtype=field.dtype)[:, None] + field[:, 1]) / (rows - 1) * 2 - 1
    x, y = (enlarged(enlarged(part, h, 1), w, 2) for part in (x, y))
    x, y = (x + 1) * w / 2 - 0.5, (y + 1) * h / 2 - 0.5
    out = torch.zeros_like(image)
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = x.floor() + dx, y.floor() + dy
            share = (1 - (x - column).abs()) * (1 - (y - row).abs())
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            place = row.long().clamp(0, h - 1) * w + column.long().clamp(0, w - 1)  # [b,h,w]
            index = place.flatten(1)[:, None].expand(-1, image.shape[1], -1)
            colour = image.flatten(2).gather(2, index).reshape(image.shape)
            out = out + colour * (share * inside)[:, None]
    return out


def edited(params: Params, image: Tensor, warp: Tensor, z: Tensor) -> Tensor:
    """The result ``[b,3,h,w]``."""
    encoder, decoder = scope(params, "encoder"), scope(params, "decoder")
    seen = [block(scope(encoder, "first"), torch.cat([image, warp], dim=1))]
    while f"down{len(seen) - 1}.model.0.weight" in encoder:
        x = block(scope(encoder, f"down{len(seen) - 1}"), seen[-1])
        b, c, h, w = x.shape
        seen.append(x.reshape(b, c, h // 2, 2, w // 2, 2).mean((3, 5)))
    x = seen[-1]
    for level in reversed(range(len(seen) - 1)):
        part, k = scope(decoder, f"res{level}"), 0
        while f"res{k}.conv2.weight" in part:
            added = correlate(x, part[f"res{k}.conv2.weight"], part[f"res{k}.conv2.bias"], border=1)
            x = x + adapted(scope(part, f"res{k}.norm2"), added, z)
            k += 1
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = block(scope(decoder, f"up{level}"), x) + block(scope(decoder, f"jump{level}"), seen[level])
    return torch.tanh(correlate(x, decoder["final.model.0.weight"], decoder["final.model.0.bias"], border=3))


def generate(params: Mapping[str, Tensor], image: Tensor, window: Tensor) -> tuple[Tensor, ...]:
    """Descriptor, flow, warp and result."""
    z = descriptor(scope(params, "mapping_net"), window)
    field = flow(scope(params, "warpping_net"), image, z)
    warp = warped(image, field)
    return z, field, warp, edited(scope(params, "editing_net"), image, warp, z)
