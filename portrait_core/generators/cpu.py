"""The two operations where a CPU spends its time, each with its gradient written out.

Both give the numbers of the plain formulas beside their callers (``layers.modulated_layer``,
``Renderer.sample_planes`` and ``Decoder``), which stay the path for GPUs, for gradients to camera poses and
for other precisions. What they save:

* :func:`modulated_layer`: styles, demodulation, bias, noise and activation cost no pass over the feature maps
  that the convolution does not make anyway, only each layer's result is kept for the backward pass, and a
  frozen weight gets no gradient.
* :func:`decode_points`: tri-plane look-ups are weighted sums of table rows, decoded chunk by chunk in the
  cache; nothing between points and results is kept, and one sparse product brings all gradients back to the
  planes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import scipy.sparse
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

SLOPE = 0.2
"""Slope of the leaky ReLU below 0."""
_PIXELS = 16_384
"""Pixels of a feature map that pass through several operations while they are in a cache."""
_POINTS = 32_768
"""Points decoded at once. Both: smaller ones are no quicker, and leave nothing to share between threads."""
_SCATTER = 8 * _POINTS
"""Points whose gradients go back to the planes in one product."""


def suits(x: Tensor, *others: Tensor) -> bool:
    """Tell whether the operations of this module may stand in for the plain ones."""
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (x, *others))
    return plain and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


class _ModulatedLayer(torch.autograd.Function):
    """clamp(leaky_relu(filter(conv(x * styles, weight)) * scale + noise + bias))."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        styles: Tensor,
        scale: Tensor,
        bias: Tensor,
        noise: Tensor | None,
        taps: Tensor | None,
        limit: float | None,
    ) -> Tensor:
        folded = len(x) == 1 and x[0].numel() > weight.numel()
        if folded:
            y = _convolve(x, weight * styles[0, :, None, None] * scale[0, :, None, None, None], taps, bias)
        else:
            y = _convolve(x * styles[:, :, None, None], weight, taps, None)
            y = torch.addcmul(bias[:, None, None], y, scale[:, :, None, None])
        if noise is not None:
            y += noise
        y = F.leaky_relu_(y, SLOPE)
        ctx.limit = limit if limit is not None and _clamp_(y, limit) else None
        ctx.save_for_backward(x, weight, styles, scale, bias, noise, taps, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, styles, scale, bias, noise, taps, y = ctx.saved_tensors
        to_x, to_weight, to_styles, to_scale, to_bias, to_noise, *_ = ctx.needs_input_grad
        through, total, product = _through_activation(grad, y, ctx.limit)
        noise_grad = through.sum(1, keepdim=True).sum_to_size(noise.shape) if to_noise else None
        scale_grad = None
        if to_scale:
            # sum(through * y before the activation) = sum(grad * y): slope and inverse slope cancel, and both
            # are 0 where the clamp acted
            known = total * bias
            if noise is not None:
                known = known + (through * noise).sum((2, 3))
            scale_grad = (product - known) / scale
        if taps is not None:
            through = _filter(through, taps, 2, None)
        if len(x) == 1:  # what differs between samples rides on the weights
            acting = weight * scale[0, :, None, None, None]
            x_grad, weight_grad = _convolution_grads(through, x, acting, taps, to_x or to_styles, to_weight)
            if weight_grad is not None:
                weight_grad = weight_grad * (styles[0, :, None, None] * scale[0, :, None, None, None])
        else:
            through *= scale[:, :, None, None]
            scaled = x * styles[:, :, None, None] if to_weight else x
            x_grad, weight_grad = _convolution_grads(
                through, scaled, weight, taps, to_x or to_styles, to_weight
            )
        styles_grad = None if x_grad is None else _through_scaling(x_grad, x, styles)
        bias_grad = total.sum(0) if to_bias else None
        return x_grad, weight_grad, styles_grad, scale_grad, bias_grad, noise_grad, None, None


def modulated_layer(
    x: Float[Tensor, "b i h w"],
    weight: Float[Tensor, "o i 3 3"],
    styles: Float[Tensor, "b i"],
    scale: Float[Tensor, "b o"],
    bias: Float[Tensor, " o"],
    noise: Float[Tensor, "#b 1 h2 w2"] | None,
    taps: Float[Tensor, "4 4"] | None,
    limit: float | None = None,
) -> Float[Tensor, "b o h2 w2"]:
    """Convolve ``x * styles``, scale, add noise and bias, leaky ReLU.

    With ``taps`` (unit sum) the resolution doubles: a transposed convolution, then the low-pass filter. With
    ``limit`` the result is clamped to plus or minus it, and its gradient is 0 where that acts.
    """
    # torch leaves Function.apply unannotated
    return _ModulatedLayer.apply(  # type: ignore[no-untyped-call]
        x, weight, styles, scale, bias, noise, taps, limit
    )


def _clamp_(y: Tensor, limit: float) -> bool:
    """Clamp ``y`` to plus or minus ``limit`` in place; return whether anything reached it."""
    # Finding the extremes reads the map once; values beyond the limit are rare, and a map that is not clamped
    # needs no comparison in the backward pass. In any order of axes but that of memory this takes 20 times as
    # long.
    least, most = torch.aminmax(y.permute(0, 2, 3, 1))
    if float(least) > -limit and float(most) < limit:
        return False
    y.clamp_(-limit, limit)
    return True


def _filter(x: Tensor, taps: Tensor, padding: int, bias: Tensor | None) -> Tensor:
    # the factor 4 makes up for the zeros between pixels
    return F.conv2d(x, (taps * 4.0).expand(x.shape[1], 1, 4, 4), bias, padding=padding, groups=x.shape[1])


def _convolve(x: Tensor, weight: Tensor, taps: Tensor | None, bias: Tensor | None) -> Tensor:
    if taps is None:
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    return _filter(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), taps, 1, bias)


def _convolution_grads(
    grad: Tensor, x: Tensor, weight: Tensor, taps: Tensor | None, to_x: bool, to_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of the convolution of :func:`_convolve`, without its filter."""
    if not (to_x or to_weight):
        return None, None
    up = taps is not None
    stride, padding = (2, 0) if up else (1, weight.shape[-1] // 2)
    kernel = weight.transpose(0, 1) if up else weight
    x_grad, kernel_grad, _ = torch.ops.aten.convolution_backward(
        grad, x, kernel, None, [stride] * 2, [padding] * 2, [1, 1], up, [0, 0], 1, [to_x, to_weight, False]
    )
    return x_grad, kernel_grad.transpose(0, 1) if up and kernel_grad is not None else kernel_grad


def _pixels(x: Float[Tensor, "c h w"]) -> Float[Tensor, "n c"]:
    return x.permute(1, 2, 0).flatten(0, 1)  # a view of channels-last features


def _through_activation(
    grad: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"], limit: float | None
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c"], Float[Tensor, "b c"]]:
    """Bring a gradient through the leaky ReLU, and the clamp to plus or minus ``limit``, that gave ``y``.

    Return the gradient, its sum, and the sum of ``grad * y`` over all pixels that were not clamped, in one
    pass over memory.
    """
    grad = grad.contiguous(memory_format=torch.channels_last)
    through = torch.empty_like(y, memory_format=torch.channels_last)
    total, product = y.new_zeros(2, *y.shape[:2])
    for i in range(len(y)):
        views = (_pixels(grad[i]), _pixels(y[i]), _pixels(through[i]))
        for part in _slices(len(views[0]), _PIXELS):
            g, a, t = (view[part] for view in views)
            if limit is not None:
                g = g * (a.abs() < limit)
            torch.ops.aten.leaky_relu_backward.grad_input(g, a, SLOPE, True, grad_input=t)
            total[i] += t.sum(0)
            product[i] += (g * a).sum(0)
    return through, total, product


def _through_scaling(
    grad: Float[Tensor, "b c h w"], x: Float[Tensor, "b c h w"], styles: Float[Tensor, "b c"]
) -> Float[Tensor, "b c"]:
    """Bring ``grad`` through ``x * styles`` in place; return the gradient of ``styles``."""
    found = torch.zeros_like(styles)
    for i in range(len(x)):
        pixels, grads = _pixels(x[i]), _pixels(grad[i])
        for part in _slices(len(pixels), _PIXELS):
            found[i] += (pixels[part] * grads[part]).sum(0)
            grads[part] *= styles[i]
    return found


class PlaneLayout(NamedTuple):
    """Geometry of the planes, and the decoder's activations."""

    axes: tuple[tuple[int, int], ...]
    """Point coordinates along each plane's width and height."""
    box: float
    """Side of the cube that the planes cover."""
    border: bool
    """Outside the box: the planes' border (True) or zeros."""
    activation: str
    """Activation of the hidden layer: softplus, silu or leaky_relu."""
    sigmoid: bool
    """Rendered features pass through the widened sigmoid."""


class _DecodePoints(torch.autograd.Function):
    """Look-up in three planes and the two-layer decoder."""

    @staticmethod
    def forward(
        ctx: Any,
        volume: Tensor,
        points: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        layout: PlaneLayout,
    ) -> tuple[Tensor, Tensor]:
        b, n, _ = points.shape
        features, sigma = points.new_empty(b, n, len(w2) - 1), points.new_empty(b, n, 1)
        for i in range(b):
            table = _table(volume[i])
            for part in _slices(n, _POINTS):
                rows, shares = _corners(points[i, part], volume.shape[-1], layout)
                x = F.embedding_bag(rows, table, per_sample_weights=shares, mode="sum")
                hidden = _activate(torch.addmm(b1, x, w1.t()), layout.activation)
                y = torch.addmm(b2, hidden, w2.t())
                sigma[i, part] = y[:, :1]
                features[i, part] = y[:, 1:].sigmoid().mul_(2.004).sub_(1.002) if layout.sigmoid else y[:, 1:]
        ctx.layout = layout
        ctx.save_for_backward(volume, points, w1, b1, w2, b2, features)
        return features, sigma

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, features_grad: Tensor, sigma_grad: Tensor) -> tuple[Tensor | None, ...]:
        volume, points, w1, b1, w2, b2, features = ctx.saved_tensors
        layout, size = ctx.layout, volume.shape[-1]
        learned = any(ctx.needs_input_grad[2:6])
        grads = [torch.zeros_like(t) for t in (w1, b1, w2, b2)] if learned else []
        volume_grad = torch.zeros_like(volume) if ctx.needs_input_grad[0] else None
        for i in range(len(points)):
            table = _table(volume[i])
            table_grad = torch.zeros_like(table)
            for whole in _slices(points.shape[1], _SCATTER):
                found: list[tuple[Tensor, Tensor, Tensor]] = []
                for part in _slices(whole.stop, _POINTS, whole.start):
                    rows, shares = _corners(points[i, part], size, layout)
                    x = F.embedding_bag(rows, table, per_sample_weights=shares, mode="sum")
                    y_grad = _output_grad(
                        features[i, part], features_grad[i, part], sigma_grad[i, part], layout
                    )
                    before = torch.addmm(b1, x, w1.t())
                    hidden_grad = (y_grad @ w2).mul_(_slope(before, layout.activation))
                    if learned:
                        hidden = _activate(before, layout.activation)
                        for total, left, right in ((grads[0], hidden_grad, x), (grads[2], y_grad, hidden)):
                            total.addmm_(left.t(), right)
                        grads[1] += hidden_grad.sum(0)
                        grads[3] += y_grad.sum(0)
                    found.append((rows, shares, hidden_grad @ w1))
                if volume_grad is not None:
                    _scatter(table_grad, *(torch.cat(kind) for kind in zip(*found, strict=True)))
            if volume_grad is not None:
                volume_grad[i] = _planes_of(table_grad, size)
        return (volume_grad, None, *(grads or (None,) * 4), None)


def decode_points(
    volume: Float[Tensor, "b 3 c h w"],
    points: Float[Tensor, "b n 3"],
    layers: list[tuple[Tensor, Tensor]],
    layout: PlaneLayout,
) -> tuple[Float[Tensor, "b n f"], Float[Tensor, "b n 1"]]:
    """Return features (activated) and raw density at box-frame ``points``, which get no gradient.

    ``layers`` holds weight and bias, as they act, of the decoder's hidden and last layer.
    """
    hidden, last = layers
    return _DecodePoints.apply(  # type: ignore[no-untyped-call]  # as above
        volume, points, *hidden, *last, layout
    )


def _slices(stop: int, step: int, start: int = 0) -> list[slice]:
    return [slice(i, min(i + step, stop)) for i in range(start, stop, step)]


def _table(planes: Float[Tensor, "3 c h w"]) -> Float[Tensor, "r c"]:
    """Return the pixels of three planes as rows.

    Each plane has a ring of zeros, so that every corner of a look-up exists.
    """
    return F.pad(planes.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).flatten(0, 2)


def _planes_of(table: Float[Tensor, "r c"], size: int) -> Float[Tensor, "3 c h w"]:
    return table.view(3, size + 2, size + 2, -1)[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def _corners(
    points: Float[Tensor, "n 3"], size: int, layout: PlaneLayout
) -> tuple[Int[Tensor, "n 12"], Float[Tensor, "n 12"]]:
    """Find the table's rows around each point's projections, and their shares in the mean of three."""
    # pixel coordinates in the padded plane; the ring is zero all along, so clamping to it reads zeros
    low, high = (1.0, float(size)) if layout.border else (0.0, float(size + 1))
    pixels = (points.t() * (size / layout.box) + (size + 1) / 2).clamp_(low, high)  # [3,n]
    first = pixels.floor().clamp_(max=size)
    offset = pixels.sub_(first)
    first = first.int()
    width = size + 2
    rows = torch.empty(3, 4, len(points), dtype=torch.int32)
    shares = torch.empty(3, 4, len(points))
    thirds = offset / 3
    for plane, (across, down) in enumerate(layout.axes):
        base, share = rows[plane], shares[plane]
        torch.add(first[across], first[down], alpha=width, out=base[0])
        base[0] += plane * width * width
        for corner, step in ((1, 1), (2, width), (3, width + 1)):
            torch.add(base[0], step, out=base[corner])
        torch.mul(thirds[across], offset[down], out=share[3])
        torch.sub(thirds[across], share[3], out=share[1])
        torch.sub(thirds[down], share[3], out=share[2])
        torch.sub(1 / 3 - thirds[across], share[2], out=share[0])
    return rows.view(12, -1).t().contiguous(), shares.view(12, -1).t().contiguous()


def _scatter(
    table: Float[Tensor, "r c"],
    rows: Int[Tensor, "n 12"],
    shares: Float[Tensor, "n 12"],
    grads: Float[Tensor, "n c"],
) -> None:
    """Add every point's gradient to the rows that it was read from."""
    starts = torch.arange(0, rows.numel() + 1, rows.shape[1], dtype=torch.int32)
    # scipy's product of a transposed sparse matrix is 15 times quicker than the backward of any look-up here
    looked_up = scipy.sparse.csr_matrix(
        (shares.view(-1).numpy(), rows.view(-1).numpy(), starts.numpy()), shape=(len(rows), len(table))
    )
    table += torch.from_numpy(looked_up.T @ grads.numpy())


def _activate(x: Float[Tensor, "n h"], kind: str) -> Float[Tensor, "n h"]:
    if kind == "softplus":
        # exp would overflow from 88 on, where log(1 + exp(x)) is x to rounding anyway
        y = x.clamp(max=80.0).exp_().add_(1.0).log_()
        return torch.maximum(y, x, out=y)
    return F.silu(x) if kind == "silu" else F.leaky_relu(x, SLOPE)


def _slope(x: Float[Tensor, "n h"], kind: str) -> Float[Tensor, "n h"]:
    """Return the derivative of :func:`_activate`."""
    if kind == "leaky_relu":
        return torch.where(x > 0, 1.0, SLOPE)
    share = x.sigmoid()
    return share if kind == "softplus" else share * (1 + x * (1 - share))


def _output_grad(features: Tensor, features_grad: Tensor, sigma_grad: Tensor, layout: PlaneLayout) -> Tensor:
    """Return the gradient with respect to the decoder's raw output ``[n,1+f]``."""
    if layout.sigmoid:
        share = (features + 1.002) / 2.004
        features_grad = features_grad * share * (1 - share) * 2.004
    return torch.cat([sigma_grad, features_grad], dim=1)
