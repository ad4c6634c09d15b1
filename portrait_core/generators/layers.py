"""StyleGAN2 building blocks (Karras et al. 2020, section 2 and appendix B).

Weights are stored with unit variance and scaled when they run (equalised learning rate); feature maps run
in channels-last memory format on a CPU, which is what its convolutions are quickest at.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NoiseMode = Literal["const", "random", "none"]

_SLOPE = 0.2
_GAIN = math.sqrt(2.0)  # keeps the variance through a leaky ReLU


def resample_filter() -> Float[Tensor, "4 4"]:
    """The separable [1,3,3,1] low-pass filter, with unit sum."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64.0


def _low_pass(x: Float[Tensor, "b c h w"], taps: Float[Tensor, "4 4"], padding: int) -> Tensor:
    """Filter each channel; the factor 4 makes up for the zeros between up-sampled pixels."""
    channels = x.shape[1]
    kernel = (taps * 4.0).to(x.dtype).expand(channels, 1, 4, 4)
    return F.conv2d(x, kernel, padding=padding, groups=channels)


def upsample_2x(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Double the size: zeros between pixels, then the [1,3,3,1] filter.

    That equals bilinear interpolation of the image inside a border of zeros, which is much quicker.
    """
    doubled = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear", align_corners=False)
    return doubled[..., 2:-2, 2:-2]


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
        """Weight and bias as they act."""
        bias = self.bias if self.bias_gain == 1.0 else self.bias * self.bias_gain
        return self.weight * self.weight_gain, bias

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        y = F.linear(x, *self.scaled())
        return F.leaky_relu(y, _SLOPE) * _GAIN if self.activate else y


def modulated_conv(
    x: Float[Tensor, "b i h w"],
    weight: Float[Tensor, "o i k k"],
    styles: Float[Tensor, "b i"],
    *,
    demodulate: bool,
    upsample: bool = False,
    taps: Tensor | None = None,
    gain: float = 1.0,
) -> Float[Tensor, "b o h2 w2"]:
    """Convolution whose input channels are scaled by ``styles``, and whose output is brought back to unit
    variance per sample where ``demodulate`` (StyleGAN2 section 2.2), times ``gain``.

    Scaling activations before and after is the same as scaling the weights of each sample; a single sample
    without gradient takes the second way, which touches less memory.
    """
    scale = None
    if demodulate:
        energy = weight.square().sum(dim=(2, 3))  # [o,i]
        scale = (styles.square() @ energy.t() + 1e-8).rsqrt() * gain  # [b,o]
    elif gain != 1.0:
        styles = styles * gain
    if len(x) == 1 and not torch.is_grad_enabled() and x[0].numel() > weight.numel():
        weight = weight * styles[0, :, None, None]
        if scale is not None:
            weight = weight * scale[0, :, None, None, None]
            scale = None
    else:
        x = x * styles[:, :, None, None]
    if upsample:
        if taps is None:
            raise ValueError("an up-sampling convolution needs filter taps, got None")
        y = _low_pass(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), taps, padding=1)
    else:
        y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return y if scale is None else y * scale[:, :, None, None]


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU; ``resolution`` is that of its output."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, *, upsample: bool, noise: bool
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", resample_filter())
        self.noise = noise
        if noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))

    def _noise(
        self, y: Tensor, mode: NoiseMode, generator: torch.Generator | None
    ) -> Float[Tensor, "#b 1 h w"] | None:
        if not self.noise or mode == "none":
            return None
        if mode == "const":
            if y.shape[-2:] != self.noise_const.shape:
                raise ValueError(
                    f"constant noise of {tuple(self.noise_const.shape)} does not fit features of "
                    f"{tuple(y.shape[-2:])}; use noise_mode='none'"
                )
            return self.noise_const * self.noise_strength
        shape = (len(y), 1, *y.shape[-2:])
        noise = torch.randn(shape, generator=generator, device=y.device, dtype=y.dtype)
        return noise * self.noise_strength

    def forward(
        self,
        x: Float[Tensor, "b i h w"],
        w: Float[Tensor, "b d"],
        noise_mode: NoiseMode = "const",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b o h2 w2"]:
        # gain * lrelu(y) = lrelu(gain * y): the gain rides on the demodulation for free
        y = modulated_conv(
            x,
            self.weight,
            self.affine(w),
            demodulate=True,
            upsample=self.upsample,
            taps=self.resample_filter,
            gain=_GAIN,
        )
        noise = self._noise(y, noise_mode, generator)
        if noise is not None:
            y = y + noise * _GAIN
        return F.leaky_relu(y + (self.bias * _GAIN)[:, None, None], _SLOPE)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to output channels, without demodulation."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Float[Tensor, "b i h w"], w: Float[Tensor, "b d"]) -> Float[Tensor, "b o h w"]:
        gain = 1.0 / math.sqrt(self.weight.shape[1])
        y = modulated_conv(x, self.weight, self.affine(w), demodulate=False, gain=gain)
        return y + self.bias[:, None, None]


class SynthesisBlock(nn.Module):
    """One resolution of a StyleGAN2 generator with skip connections to its output.

    A block without input channels starts from a learned constant and has one convolution; every other has
    two, of which the first may double the resolution.
    """

    resample_filter: Tensor

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
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.register_buffer("resample_filter", resample_filter())
        self.from_constant = in_channels == 0
        if self.from_constant:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(
                in_channels, out_channels, w_dim, resolution, upsample=upsample, noise=noise
            )
        self.conv1 = SynthesisLayer(
            out_channels, out_channels, w_dim, resolution, upsample=False, noise=noise
        )
        self.torgb = ToRGB(out_channels, image_channels, w_dim)
        self.learned_const: nn.Parameter | None = None
        if learned_constant and not self.from_constant:
            self.learned_const = nn.Parameter(torch.randn(out_channels, resolution, resolution) * 0.5)

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
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "b o h2 w2"], Float[Tensor, "b c h2 w2"]]:
        """Return features and image; ``ws`` has one row for each convolution and one for the output."""
        if x is None:
            x = self.const.expand(len(ws), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        else:
            x = self.conv0(x, ws[:, 0], noise_mode, generator)
            if self.learned_const is not None:
                x = x + self.learned_const
        x = self.conv1(x, ws[:, -2], noise_mode, generator)
        if image is not None and self.upsample:
            image = upsample_2x(image)
        delta = self.torgb(x, ws[:, -1])
        return x, delta if image is None else image + delta
