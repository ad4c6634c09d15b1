"""StyleGAN2 building blocks (Karras et al. 2020, section 2 and appendix B).

Weights are stored with unit variance and scaled when they run (equalised learning rate); feature maps run
in the memory format of their block (``precision.memory_format``), channels-last unless it is told otherwise.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.generators import cpu
from portrait_core.generators.draws import normal

NoiseMode = Literal["const", "random", "none"]

_SLOPE = cpu.SLOPE
_GAIN = math.sqrt(2.0)  # keeps the variance through a leaky ReLU


def resample_filter() -> Float[Tensor, "4 4"]:
    """Return the separable [1,3,3,1] low-pass filter, with unit sum."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64.0


class _Filter(torch.autograd.Function):
    """Per-channel filtering with a symmetric 4x4 kernel.

    The gradient is the same filter with the other padding. Written out because PyTorch's own backward of
    a depthwise convolution is 40 times slower than its forward on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(taps)
        ctx.padding = padding
        kernel = taps.to(x.dtype).expand(x.shape[1], 1, 4, 4)
        return F.conv2d(x, kernel, padding=padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (taps,) = ctx.saved_tensors
        # torch leaves Function.apply unannotated
        return _Filter.apply(grads[0], taps, 3 - ctx.padding), None, None  # type: ignore[no-untyped-call]


def upsample_2x(x: Float[Tensor, "b c h w"], taps: Float[Tensor, "4 4"]) -> Float[Tensor, "b c h2 w2"]:
    """Double the size: put zeros between pixels, then filter.

    ``taps`` (:func:`resample_filter`) lie on the device of ``x``.
    """
    channels = x.shape[1]
    # the factor 4 makes up for the zeros between pixels
    kernel = (taps * 4.0).to(x.dtype).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activate: bool = False,
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.activate = activate
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias as they act."""
        bias = self.bias if self.bias_gain == 1.0 else self.bias * self.bias_gain
        return self.weight * self.weight_gain, bias

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Return ``x`` times the scaled weight plus the bias, through a leaky ReLU where asked for."""
        y = F.linear(x, *self.scaled())
        return F.leaky_relu(y, _SLOPE) * _GAIN if self.activate else y


def modulated_layer(
    x: Float[Tensor, "b i h w"],
    weight: Float[Tensor, "o i k k"],
    styles: Float[Tensor, "b i"],
    *,
    bias: Float[Tensor, " o"],
    noise: Float[Tensor, "#b 1 h2 w2"] | None = None,
    taps: Float[Tensor, "4 4"] | None = None,
    conv_clamp: float | None = None,
) -> Float[Tensor, "b o h2 w2"]:
    """Apply a modulated convolution, noise, bias and a leaky ReLU of gain sqrt(2).

    Input channels are scaled by ``styles``, and the output is brought back to unit variance per sample
    (StyleGAN2 section 2.2). With ``taps`` it also doubles the resolution: a transposed convolution, then the
    low-pass filter. With ``conv_clamp`` the result is held within plus or minus that, and values beyond get
    no gradient.

    Scaling activations before and after is the same as scaling the weights of each sample.
    """
    energy = weight.square().sum(dim=(2, 3))  # [o,i]
    # gain * lrelu(y) = lrelu(gain * y): the gain rides on the demodulation for free
    scale = (styles.square() @ energy.t() + 1e-8).rsqrt() * _GAIN  # [b,o]
    bias = bias * _GAIN
    noise = None if noise is None else noise * _GAIN
    if cpu.suits(x, weight):
        return cpu.modulated_layer(x, weight, styles, scale, bias, noise, taps, conv_clamp)
    x, kernel = x * styles.to(x.dtype)[:, :, None, None], weight.to(x.dtype)
    if taps is None:
        y = F.conv2d(x, kernel, padding=weight.shape[-1] // 2)
    else:
        y = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2)
        y = _Filter.apply(y, taps * 4.0, 1)  # type: ignore[no-untyped-call]  # as above
    y = torch.addcmul(bias.to(y.dtype)[:, None, None], y, scale.to(y.dtype)[:, :, None, None])
    if noise is not None:
        y = y + noise.to(y.dtype)
    if conv_clamp is None:
        return F.leaky_relu(y, _SLOPE)
    # in place, so that the clamp keeps no feature map more for the backward pass than there were without it
    return F.leaky_relu_(y, _SLOPE).clamp(-conv_clamp, conv_clamp)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU; ``resolution`` is that of its output."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        upsample: bool,
        noise: bool,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.conv_clamp = conv_clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", resample_filter())
        self.noise = noise
        if noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))

    def _noise(
        self, x: Tensor, size: tuple[int, int], mode: NoiseMode, rng: torch.Generator | None
    ) -> Float[Tensor, "#b 1 h w"] | None:
        if not self.noise or mode == "none":
            return None
        if mode == "const":
            if size != self.noise_const.shape:
                raise ValueError(
                    f"constant noise of {tuple(self.noise_const.shape)} does not fit features of {size}; "
                    "use noise_mode='none'"
                )
            return (self.noise_const * self.noise_strength)[None, None]
        return normal((len(x), 1, *size), rng, x) * self.noise_strength

    def forward(
        self,
        x: Float[Tensor, "b i h w"],
        w: Float[Tensor, "b d"],
        noise_mode: NoiseMode = "const",
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "b o h2 w2"]:
        """Return features in the style of ``w``, of twice the size where the layer up-samples."""
        taps = self.resample_filter if self.upsample else None
        scale = 2 if self.upsample else 1
        noise = self._noise(x, (scale * x.shape[-2], scale * x.shape[-1]), noise_mode, rng)
        return modulated_layer(
            x,
            self.weight,
            self.affine(w),
            bias=self.bias,
            noise=noise,
            taps=taps,
            conv_clamp=self.conv_clamp,
        )


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to output channels, without demodulation.

    Its output is float32, and within plus or minus ``conv_clamp`` where there is one.
    """

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, *, conv_clamp: float | None = None
    ) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Float[Tensor, "b i h w"], w: Float[Tensor, "b d"]) -> Float[Tensor, "b o h w"]:
        """Return output channels of features ``x`` in the style of ``w``."""
        # a 1x1 convolution is a matrix product, whose small weights take the styles
        gain = 1.0 / math.sqrt(self.weight.shape[1])
        styles = self.affine(w) * gain
        weight, bias = self.weight[:, :, 0, 0], self.bias.to(x.dtype)
        # either product takes the features as they lie in memory, and its result lies as they do
        if x.stride(1) == 1:
            acting = weight.t() * styles[:, :, None]  # [b,i,o]
            pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # [b,hw,i], a view of channels-last features
            y = torch.baddbmm(bias, pixels, acting.to(x.dtype)).to(w.dtype)
            y = y.unflatten(1, x.shape[-2:]).permute(0, 3, 1, 2)
        else:
            acting = weight * styles[:, None]  # [b,o,i]
            y = torch.baddbmm(bias[:, None], acting.to(x.dtype), x.flatten(2)).to(w.dtype)
            y = y.unflatten(2, x.shape[-2:])
        return y if self.conv_clamp is None else y.clamp(-self.conv_clamp, self.conv_clamp)


class SynthesisBlock(nn.Module):
    """One resolution of a StyleGAN2 generator with skip connections to its output.

    A block without input channels starts from a learned constant and has one convolution; every other has
    two, of which the first may double the resolution.
    """

    resample_filter: Tensor
    compute_dtype: torch.dtype | None = None
    """Data type of its feature maps (None: that of its weights); see ``precision.at_precision``."""
    memory_format: torch.memory_format = torch.channels_last
    """Layout of its feature maps, and of its convolutions' weights; see ``precision.memory_format``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        image_channels: int,
        *,
        upsample: bool = True,
        noise: bool = True,
        learned_constant: bool = False,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.register_buffer("resample_filter", resample_filter())
        self.from_constant = in_channels == 0
        if self.from_constant:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(
                in_channels,
                out_channels,
                w_dim,
                resolution,
                upsample=upsample,
                noise=noise,
                conv_clamp=conv_clamp,
            )
        self.conv1 = SynthesisLayer(
            out_channels,
            out_channels,
            w_dim,
            resolution,
            upsample=False,
            noise=noise,
            conv_clamp=conv_clamp,
        )
        self.torgb = ToRGB(out_channels, image_channels, w_dim, conv_clamp=conv_clamp)
        self.learned_const: nn.Parameter | None = None
        if learned_constant and not self.from_constant:
            self.learned_const = nn.Parameter(torch.randn(1, out_channels, resolution, resolution) * 0.5)

    @property
    def convolutions(self) -> int:
        """Number of rows of ws that its convolutions take; its output layer takes one more."""
        return 1 if self.from_constant else 2

    def forward(
        self,
        x: Float[Tensor, "b i h w"] | None,
        image: Float[Tensor, "b c h w"] | None,
        ws: Float[Tensor, "b rows d"],
        noise_mode: NoiseMode = "const",
        rng: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "b o h2 w2"], Float[Tensor, "b c h2 w2"]]:
        """Return features and image; ``ws`` has one row for each convolution and one for the output."""
        dtype = self.compute_dtype or self.conv1.weight.dtype
        if x is None:
            const = self.const.to(dtype).expand(len(ws), -1, -1, -1)
            x = const.contiguous(memory_format=self.memory_format)
        else:
            x = x.to(dtype).contiguous(memory_format=self.memory_format)  # a copy only where it differs
            x = self.conv0(x, ws[:, 0], noise_mode, rng)
            if self.learned_const is not None:
                x = x + self.learned_const.to(x.dtype)
        x = self.conv1(x, ws[:, -2], noise_mode, rng)
        if image is not None:
            image = image.contiguous(memory_format=self.memory_format)
            image = upsample_2x(image, self.resample_filter) if self.upsample else image
        delta = self.torgb(x, ws[:, -1])
        return x, delta if image is None else image + delta
