"""PIRenderer's generator: gives a picture the expression and pose that a window of face coefficients states.

Ren et al. 2021, "PIRenderer: controllable portrait image generation via semantic neural rendering". A mapping
network turns the window into a descriptor; a warping network moves the picture by a flow field; an editing
network repairs what the warp left. The paper compares with it (section 4.1). Modules are named as the
published state dict, whose unused entries are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.tracking.encoders import build

_SLOPE = 0.1
"""Slope of all leaky ReLUs below 0."""


class PIRendererOutput(NamedTuple):
    """Results for B pictures of side S."""

    descriptor: Float[Tensor, "b d"]
    """Descriptor of the expression and pose."""
    flow_field: Float[Tensor, "b 2 s/4 s/4"]
    """Displacements (x, y) in pixels of the flow's own grid: where each pixel takes its colour from."""
    warp: Float[Tensor, "b 3 s s"]
    """The picture moved by the flow."""
    image: Float[Tensor, "b 3 s s"]
    """The result, in -1..1."""


@dataclass(frozen=True)
class PIRendererSizes:
    """Sizes of the network; the defaults are those of the published one."""

    coefficients: int = 73
    """Numbers that a frame of a window has."""
    descriptor: int = 256
    """Numbers of the descriptor."""
    mapping_layers: int = 3
    """Dilated convolutions of the mapping network after the first."""
    hidden: int = 128
    """Hidden units of the networks that turn the descriptor into gains and shifts."""
    warping: tuple[int, ...] = (32, 64, 128, 256, 256, 256)
    """Channels of the warping network's encoder: after its first layer, then after each halving."""
    doublings: int = 3
    """Doublings in the warping network's decoder; the flow has the size of what they give."""
    editing: tuple[int, ...] = (64, 128, 256, 256)
    """Channels of the editing network's encoder: after its first layer, then after each halving."""
    residuals: int = 2
    """Residual blocks before each doubling of the editing network."""

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> PIRendererSizes:
        """Read the sizes from the entries of a state dict.

        Raises:
            ValueError: if an entry that tells a size is missing, or has another number of dimensions.
        """

        def shape(name: str, rank: int) -> tuple[int, ...]:
            if name not in state or state[name].ndim != rank:
                wrong = (
                    f"has {state[name].ndim} dimensions, expected {rank}" if name in state else "is missing"
                )
                raise ValueError(
                    f"these are no weights of PIRenderer: {name} {wrong}; "
                    "check the file with `portrait models check`"
                )
            return tuple(state[name].shape)

        def count(name: str) -> int:
            return next(i for i in range(len(state) + 1) if name.format(i) not in state)

        hourglass, editing = "warpping_net.hourglass", "editing_net.encoder"
        halvings = count(f"{hourglass}.encoder.encoder{{}}.conv_1.weight")
        descriptor, coefficients, _ = shape("mapping_net.first.0.weight", 3)
        return cls(
            coefficients=coefficients,
            descriptor=descriptor,
            mapping_layers=count("mapping_net.encoder{}.1.weight"),
            hidden=shape(f"{hourglass}.encoder.encoder0.norm_0.mlp_shared.0.weight", 2)[0],
            warping=(
                shape(f"{hourglass}.encoder.input_layer.weight", 4)[0],
                *(shape(f"{hourglass}.encoder.encoder{i}.conv_1.weight", 4)[0] for i in range(halvings)),
            ),
            doublings=sum(f"{hourglass}.decoder.decoder{i}.conv_0.weight" in state for i in range(halvings)),
            editing=(
                shape(f"{editing}.first.model.0.weight", 4)[0],
                *(
                    shape(f"{editing}.down{i}.model.0.weight", 4)[0]
                    for i in range(count(f"{editing}.down{{}}.model.0.weight"))
                ),
            ),
            residuals=count("editing_net.decoder.res0.res{}.conv2.weight"),
        )

    @property
    def step(self) -> int:
        """Number that the side of pictures is a multiple of."""
        return int(2 ** max(len(self.warping) - 1, len(self.editing) - 1))

    @property
    def shortest_window(self) -> int:
        """Frames that a window has at least."""
        return 7 + 6 * self.mapping_layers


class PIRenderer(nn.Module):
    """Pictures and windows to pictures. Named as the published ``net_G_ema``, 304 entries.

    Args:
        sizes: sizes of the network; None means the published ones.
    """

    def __init__(self, sizes: PIRendererSizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes or PIRendererSizes()
        self.mapping_net = _MappingNet(self.sizes)
        self.warpping_net = _WarpingNet(self.sizes)  # spelt as published
        self.editing_net = _EditingNet(self.sizes)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> PIRenderer:
        """Take the published entries (``read_pirenderer``), all of them and no others, of any widths.

        Raises:
            ValueError: if an entry is missing, unknown or misshaped.
        """
        return build(cls, state, PIRendererSizes.of_state(state))

    def forward(self, images: Float[Tensor, "b 3 s s"], windows: Float[Tensor, "b c w"]) -> PIRendererOutput:
        """Draw pictures with the expressions and poses of windows.

        Args:
            images: pictures in -1..1; the published network has seen 256 pixels.
            windows: coefficients of the frames around each driving frame, as
                :mod:`portrait_core.baselines.pirenderer_windows` makes them: ``[B,73,27]``.

        Raises:
            ValueError: if pictures or windows have another form.
        """
        self._check(images, windows)
        descriptor = self.mapping_net(windows)
        flow = self.warpping_net(images, descriptor)
        warp = warp_by_flow(images, flow)
        return PIRendererOutput(descriptor, flow, warp, self.editing_net(images, warp, descriptor))

    def _check(self, images: Tensor, windows: Tensor) -> None:
        sizes, step = self.sizes, self.sizes.step
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % step or images.shape[3] % step:
            raise ValueError(
                f"pictures must be [B,3,S,S] with sides that are multiples of {step}, "
                f"got {tuple(images.shape)}; cut them with portrait_core.baselines.crops"
            )
        short = windows.ndim != 3 or windows.shape[2] < sizes.shortest_window
        if short or windows.shape[:2] != (len(images), sizes.coefficients):
            raise ValueError(
                f"windows must be [{len(images)},{sizes.coefficients},{sizes.shortest_window} or more], "
                f"got {tuple(windows.shape)}; make them with pirenderer_windows.windows"
            )


def warp_by_flow(
    images: Float[Tensor, "b 3 s s"], flow: Float[Tensor, "b 2 h w"]
) -> Float[Tensor, "b 3 s s"]:
    """Move pictures by a flow field in pixels of its own grid, black beyond their borders.

    As published, places are counted from corner to corner when they are made, and from border to border when
    they are read: a flow of 0 enlarges the picture a little.
    """
    height, width = flow.shape[2:]
    y = torch.linspace(-1, 1, height, dtype=flow.dtype, device=flow.device)
    x = torch.linspace(-1, 1, width, dtype=flow.dtype, device=flow.device)
    places = torch.stack(
        [x + flow[:, 0] * (2 / (width - 1)), y[:, None] + flow[:, 1] * (2 / (height - 1))], dim=1
    )
    places = F.interpolate(places, size=images.shape[2:], mode="bilinear", align_corners=False)
    return F.grid_sample(images, places.permute(0, 2, 3, 1), align_corners=False)


class _MappingNet(nn.Module):
    """Window to descriptor: convolutions over time, each with a shortcut past it, and their mean."""

    def __init__(self, sizes: PIRendererSizes) -> None:
        super().__init__()
        width = sizes.descriptor
        self.first = nn.Sequential(nn.Conv1d(sizes.coefficients, width, 7))
        for i in range(sizes.mapping_layers):
            layer = nn.Sequential(nn.LeakyReLU(_SLOPE), nn.Conv1d(width, width, 3, dilation=3))
            self.add_module(f"encoder{i}", layer)
        self._layers = sizes.mapping_layers

    def forward(self, windows: Float[Tensor, "b c w"]) -> Float[Tensor, "b d"]:
        x = self.first(windows)
        for i in range(self._layers):
            x = self.get_submodule(f"encoder{i}")(x) + x[:, :, 3:-3]
        return torch.mean(x, dim=2)


class _WarpingNet(nn.Module):
    """Picture and descriptor to a flow field: an hourglass whose decoder stops early."""

    def __init__(self, sizes: PIRendererSizes) -> None:
        super().__init__()
        widths, last = sizes.warping, len(sizes.warping) - 1
        encoder: dict[str, nn.Module] = {"input_layer": nn.Conv2d(3, widths[0], 7, padding=3)}
        for i, (before, after) in enumerate(pairwise(widths)):
            encoder[f"encoder{i}"] = _Halving(before, after, sizes)
        self._decoders = [f"decoder{i}" for i in range(last - 1, last - 1 - sizes.doublings, -1)]
        decoder, width = {}, widths[-1]
        for i, name in enumerate(self._decoders):
            after = widths[last - 1 - i]
            decoder[name] = _Doubling(width, after, sizes)
            width = 2 * after  # with the encoder's features of that size beside it
        self._encoders = [f"encoder{i}" for i in range(last)]
        self.hourglass = nn.ModuleDict({"encoder": nn.ModuleDict(encoder), "decoder": nn.ModuleDict(decoder)})
        self.flow_out = nn.Sequential(
            LayerNorm2d(width), nn.LeakyReLU(_SLOPE), nn.Conv2d(width, 2, 7, padding=3)
        )

    def forward(
        self, images: Float[Tensor, "b 3 s s"], descriptor: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b 2 s/4 s/4"]:
        encoder, decoder = (self.hourglass.get_submodule(name) for name in ("encoder", "decoder"))
        features = [encoder.get_submodule("input_layer")(images)]
        for name in self._encoders:
            features.append(encoder.get_submodule(name)(features[-1], descriptor))
        x = features.pop()
        for name in self._decoders:
            x = torch.cat([decoder.get_submodule(name)(x, descriptor), features.pop()], dim=1)
        return torch.as_tensor(self.flow_out(x))


class _EditingNet(nn.Module):
    """Picture, warp and descriptor to the result."""

    def __init__(self, sizes: PIRendererSizes) -> None:
        super().__init__()
        widths, self._halvings = sizes.editing, len(sizes.editing) - 1
        encoder: dict[str, nn.Module] = {"first": _Block(6, widths[0], 7)}
        decoder: dict[str, nn.Module] = {}
        for i in range(self._halvings):
            encoder[f"down{i}"] = _Block(widths[i], widths[i + 1], 3, nn.AvgPool2d(2))
        for i in reversed(range(self._halvings)):
            decoder[f"up{i}"] = _Block(widths[i + 1], widths[i], 3)
            residuals = {f"res{j}": _Residual(widths[i + 1], sizes) for j in range(sizes.residuals)}
            decoder[f"res{i}"] = nn.ModuleDict(residuals)
            decoder[f"jump{i}"] = _Block(widths[i], widths[i], 3)
        decoder["final"] = _Final(widths[0])
        self.encoder, self.decoder = nn.ModuleDict(encoder), nn.ModuleDict(decoder)

    def forward(
        self,
        images: Float[Tensor, "b 3 s s"],
        warp: Float[Tensor, "b 3 s s"],
        descriptor: Float[Tensor, "b d"],
    ) -> Float[Tensor, "b 3 s s"]:
        features = [self.encoder["first"](torch.cat([images, warp], dim=1))]
        for i in range(self._halvings):
            features.append(self.encoder[f"down{i}"](features[-1]))
        x = features.pop()
        for i in reversed(range(self._halvings)):
            for residual in self.decoder[f"res{i}"].children():
                x = residual(x, descriptor)
            x = self.decoder[f"up{i}"](F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = x + self.decoder[f"jump{i}"](features.pop())
        return torch.as_tensor(self.decoder["final"](x))


class LayerNorm2d(nn.Module):
    """Normalisation over channels and pixels, then gain and bias per channel (``[C,1,1]`` each)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise features."""
        return F.layer_norm(x, x.shape[1:]) * self.weight + self.bias


class _AdaptiveNorm(nn.Module):
    """Normalisation of each channel, then gain and shift that the descriptor gives."""

    def __init__(self, channels: int, sizes: PIRendererSizes) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Linear(sizes.descriptor, sizes.hidden), nn.ReLU())
        self.mlp_gamma = nn.Linear(sizes.hidden, channels)
        self.mlp_beta = nn.Linear(sizes.hidden, channels)

    def forward(
        self, x: Float[Tensor, "b c h w"], descriptor: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b c h w"]:
        hidden = self.mlp_shared(descriptor)
        gain, shift = self.mlp_gamma(hidden)[..., None, None], self.mlp_beta(hidden)[..., None, None]
        return F.instance_norm(x) * (1 + gain) + shift


class _Halving(nn.Module):
    """A strided convolution and another one, each after an adaptive norm."""

    def __init__(self, before: int, after: int, sizes: PIRendererSizes) -> None:
        super().__init__()
        self.conv_0 = nn.Conv2d(before, after, 4, stride=2, padding=1)
        self.conv_1 = nn.Conv2d(after, after, 3, padding=1)
        self.norm_0, self.norm_1 = _AdaptiveNorm(before, sizes), _AdaptiveNorm(after, sizes)

    def forward(
        self, x: Float[Tensor, "b c h w"], descriptor: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b o h/2 w/2"]:
        x = self.conv_0(F.leaky_relu(self.norm_0(x, descriptor), _SLOPE))
        return torch.as_tensor(self.conv_1(F.leaky_relu(self.norm_1(x, descriptor), _SLOPE)))


class _Doubling(nn.Module):
    """A convolution and a transposed one, each after an adaptive norm, and a transposed one past both."""

    def __init__(self, before: int, after: int, sizes: PIRendererSizes) -> None:
        super().__init__()
        self.conv_0 = nn.Conv2d(before, after, 3, padding=1)
        self.conv_1 = nn.ConvTranspose2d(after, after, 3, stride=2, padding=1, output_padding=1)
        self.conv_s = nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)
        self.norm_0, self.norm_1 = _AdaptiveNorm(before, sizes), _AdaptiveNorm(after, sizes)
        self.norm_s = _AdaptiveNorm(before, sizes)

    def forward(
        self, x: Float[Tensor, "b c h w"], descriptor: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b o 2h 2w"]:
        shortcut = self.conv_s(F.leaky_relu(self.norm_s(x, descriptor), _SLOPE))
        x = self.conv_0(F.leaky_relu(self.norm_0(x, descriptor), _SLOPE))
        return shortcut + self.conv_1(F.leaky_relu(self.norm_1(x, descriptor), _SLOPE))


class _Block(nn.Module):
    """Convolution, norm, leaky ReLU, and what else is done after them."""

    def __init__(self, before: int, after: int, kernel: int, *then: nn.Module) -> None:
        super().__init__()
        conv = nn.Conv2d(before, after, kernel, padding=kernel // 2)
        self.model = nn.Sequential(conv, LayerNorm2d(after), nn.LeakyReLU(_SLOPE), *then)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        return torch.as_tensor(self.model(x))


class _Final(nn.Module):
    """Features to colours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(width, 3, 7, padding=3), nn.Tanh())

    def forward(self, x: Float[Tensor, "b c s s"]) -> Float[Tensor, "b 3 s s"]:
        return torch.as_tensor(self.model(x))


class _Residual(nn.Module):
    """A convolution under an adaptive norm, added to its input.

    The published code computes the first convolution and norm too and drops their result: they are here so
    that the published entries load, and are not used.
    """

    def __init__(self, width: int, sizes: PIRendererSizes) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm1, self.norm2 = _AdaptiveNorm(width, sizes), _AdaptiveNorm(width, sizes)

    def forward(
        self, x: Float[Tensor, "b c h w"], descriptor: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b c h w"]:
        return x + self.norm2(self.conv2(x), descriptor)
