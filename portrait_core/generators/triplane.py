"""The backbone: a StyleGAN2 synthesis network whose output channels are three feature planes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.generators.blocks import BlockStack
from portrait_core.generators.layers import NoiseMode, ToRGB, resample_filter, upsample_2x
from portrait_core.generators.mapping import SceneMapping, StyleMapping
from portrait_core.generators.settings import GeneratorSettings

Bend = Callable[[Float[Tensor, "b n 3"]], Float[Tensor, "b n 3"]]
"""From box-frame points where something is seen to where it lies in a volume that stands still."""
Within = Callable[[Float[Tensor, "b n 3"]], Float[Tensor, "b n"]]
"""From box-frame points of a volume that stands still to how far the volume is believed there, in 0..1."""


@dataclass(frozen=True)
class Planes:
    """Feature planes of a latent: three of the volume, and one of what stands behind it."""

    volume: Float[Tensor, "b 3 c h w"]
    """Three feature planes, in the order of ``GeneratorSettings.plane_axes``."""
    background_plane: Float[Tensor, "b f h2 w2"] | None
    """Raw features of the background plane; None where there is none."""
    bend: Bend | None = None
    """Function from box-frame points at which something is seen to where it lies in the volume; None where
    space is straight. The background plane is not bent."""
    within: Within | None = None
    """Function that tells how far the volume is believed at points of it, less than 0.5 counting as empty;
    None where all of it is believed."""

    def __len__(self) -> int:
        return len(self.volume)

    def bent(self, bend: Bend | None, within: Within | None = None) -> Planes:
        """Return the same features in a bent space.

        ``bend`` brings points to where they lie in the volume; space is empty where ``within`` does not
        believe it.
        """
        return replace(self, bend=bend, within=within)


class Basis(nn.Module):
    """Learned maps mixed by the latent: M diag(A w) K for each group of planes.

    Costs one batched product, and reaches every pixel of the planes directly, so it learns fine detail long
    before the convolutions do.
    """

    def __init__(self, w_dim: int, groups: int, maps: int, channels: int, resolution: int) -> None:
        super().__init__()
        self.groups, self.resolution = groups, resolution
        self.maps = nn.Parameter(torch.randn(groups, maps, resolution * resolution) * 0.5)
        self.mixing = nn.Parameter(torch.randn(groups, channels, maps) / math.sqrt(maps))
        self.style = nn.Linear(w_dim, groups * maps)
        nn.init.normal_(self.style.weight, std=1.0 / math.sqrt(w_dim))
        nn.init.zeros_(self.style.bias)

    def forward(self, w: Float[Tensor, "b d"]) -> Float[Tensor, "b gc h w"]:
        """Return the mixtures of maps that ``w`` chooses."""
        mixing = self.mixing * self.style(w).view(len(w), self.groups, 1, -1)  # [b,g,c,k]
        mixed = torch.einsum("bgck,gkp->bpgc", mixing, self.maps)
        return mixed.reshape(len(w), self.resolution, self.resolution, -1).permute(0, 3, 1, 2)


class Flow(nn.Module):
    """A displacement of the finished planes, mixed by the latent at several resolutions.

    Mixtures of maps can only fade an open mouth into a closed one, linearly; a displacement moves it. It
    starts as none at all, so that a trained generator can be given one.
    """

    centres: Tensor

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        self.size = settings.plane_size
        self.basis = nn.ModuleDict()
        for resolution, modes in settings.flow.items():
            basis = Basis(settings.w_dim, 3, modes, 2, resolution)
            nn.init.zeros_(basis.style.weight)
            basis.maps.data = _smooth(basis.maps.data, resolution)
            self.basis[str(resolution)] = basis
        along = (torch.arange(self.size) * 2 + 1) / self.size - 1
        rows, columns = torch.meshgrid(along, along, indexing="ij")
        self.register_buffer("centres", torch.stack([columns, rows], dim=-1), persistent=False)

    def forward(
        self, planes: Float[Tensor, "b c3 h w"], w: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b c3 h w"]:
        """Return the planes, displaced as ``w`` says."""
        size = (self.size, self.size)
        parts = [F.interpolate(basis(w), size, mode="bilinear") for basis in self.basis.values()]
        shift = torch.stack(parts).sum(0)  # [b,6,h,w]
        grid = self.centres + shift.unflatten(1, (3, 2)).flatten(0, 1).permute(0, 2, 3, 1)
        each = planes.unflatten(1, (3, -1)).flatten(0, 1)
        moved = F.grid_sample(each, grid, padding_mode="border", align_corners=False)
        return moved.unflatten(0, (-1, 3)).flatten(1, 2)


def _smooth(maps: Float[Tensor, "g k p"], size: int) -> Float[Tensor, "g k p"]:
    """Return white noise on a square grid, low-pass filtered to an eighth of it at the same strength."""
    factor = max(1, size // 8)
    coarse = F.avg_pool2d(maps.unflatten(2, (size, size)), factor) * factor
    return F.interpolate(coarse, size=(size, size), mode="bicubic").flatten(2)


class Background(nn.Module):
    """Feature map of the background plane, from the backbone's features at its resolution."""

    def __init__(self, settings: GeneratorSettings, in_channels: int) -> None:
        super().__init__()
        plane = settings.background
        if plane is None:
            raise ValueError("background settings are missing; set background in the generator settings")
        channels, size = settings.feature_channels, plane.resolution
        self.torgb = ToRGB(in_channels, channels, settings.w_dim, conv_clamp=settings.conv_clamp)
        self.basis = Basis(settings.w_dim, 1, plane.basis_maps, channels, size) if plane.basis_maps else None
        self.base_plane = nn.Parameter(torch.zeros(1, channels, size, size))

    def forward(self, x: Float[Tensor, "b i h w"], w: Float[Tensor, "b d"]) -> Float[Tensor, "b f h w"]:
        """Return the plane's raw features of the backbone's features ``x``."""
        y = self.torgb(x, w) + self.base_plane
        return y if self.basis is None else y + self.basis(w)


class Synthesis(BlockStack):
    """Blocks ``b4``, ``b8``, ... up to the plane resolution, with the embedded model's additions."""

    resample_filter: Tensor

    def __init__(self, settings: GeneratorSettings) -> None:
        out_channels = 3 * settings.plane_channels
        super().__init__(
            settings.channels,
            settings.w_dim,
            out_channels,
            noise=settings.use_noise,
            learned_constants=settings.learned_constants,
            conv_clamp=settings.conv_clamp,
        )
        self.settings = settings
        if settings.extra_resolutions:
            # beside the weights on their device, and not among the published names
            self.register_buffer("resample_filter", resample_filter(), persistent=False)
        if settings.basis_planes:
            self.basis = nn.ModuleDict(
                {
                    str(r): Basis(settings.w_dim, 3, maps, settings.plane_channels, r)
                    for r, maps in settings.basis_planes.items()
                }
            )
        self.base_plane: nn.Parameter | None = None
        if settings.base_plane:
            size = settings.plane_size
            self.base_plane = nn.Parameter(torch.randn(1, out_channels, size, size) * 0.3)
        self.flow = Flow(settings) if settings.flow else None
        if settings.background is not None:
            self.background = Background(settings, settings.channels[settings.background.resolution])

    def forward(
        self,
        ws: Float[Tensor, "b rows d"],
        noise_mode: NoiseMode = "const",
        rng: torch.Generator | None = None,
    ) -> Planes:
        """Synthesise the planes of ``ws``, whose rows are one for all layers or one each."""
        ws = self.rows(ws)
        behind = self.settings.background
        background_plane: Tensor | None = None

        def additions(resolution: int, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
            nonlocal background_plane
            if behind is not None and behind.resolution == resolution:
                background_plane = self.background(x, w)
            return y + self.basis[str(resolution)](w) if resolution in self.settings.basis_planes else y

        y = self.walk(ws, noise_mode, rng, additions)
        for resolution in self.settings.extra_resolutions:
            y = upsample_2x(y, self.resample_filter)
            if resolution in self.settings.basis_planes:
                y = y + self.basis[str(resolution)](ws[:, -1])
        if self.base_plane is not None:
            y = y + self.base_plane
        if self.flow is not None:
            y = self.flow(y, ws[:, -1])
        return Planes(_split(y, self.settings.plane_channels), background_plane)


def _split(y: Float[Tensor, "b c3 h w"], channels: int) -> Float[Tensor, "b 3 c h w"]:
    """Return three planes, each with a pixel's channels side by side in memory, for look-ups."""
    pixels = y.permute(0, 2, 3, 1).unflatten(-1, (3, channels))  # [b,h,w,3,c]
    return pixels.permute(0, 3, 1, 2, 4).contiguous().permute(0, 1, 4, 2, 3)


class Backbone(nn.Module):
    """Mapping and synthesis, under their published names."""

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        self.synthesis = Synthesis(settings)
        self.mapping = SceneMapping(settings) if settings.mapping_kind == "scene" else StyleMapping(settings)
