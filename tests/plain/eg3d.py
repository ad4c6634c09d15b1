"""EG3D (Chan et al. 2022) as functions of a state dict with the published names.

Covers what published networks use: ``published`` plane axes, zeros outside the box, a softplus decoder with
sigmoid colours, constant noise, and deterministic depths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from portrait_core.generators.settings import GeneratorSettings, RaySampling
from tests.plain import stylegan2
from tests.plain.stylegan2 import Params, linear, scope

LEAK = 1e-10
"""What the published code lets through every interval, however dense it is."""


def rays(cameras: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Origins and unit directions ``[b,size*size,3]`` through the pixel centres of ``cameras [b,25]``.

    In double precision: rounding of rays is the largest error of a float32 rendering.
    """
    cameras, dtype = cameras.double(), cameras.dtype
    cam2world, k = cameras[:, :16].reshape(-1, 4, 4), cameras[:, 16:].reshape(-1, 3, 3)
    centre = (torch.arange(size, device=cameras.device, dtype=cameras.dtype) + 0.5) / size
    v, u = torch.meshgrid(centre, centre, indexing="ij")
    y = (v.reshape(1, -1) - k[:, 1, 2:]) / k[:, 1, 1:2]  # [b,n]
    x = (u.reshape(1, -1) - k[:, 0, 2:] - k[:, 0, 1:2] * y) / k[:, 0, :1]  # k[0,1] is the skew
    local = torch.stack([x, y, torch.ones_like(x)], dim=-1)  # [b,n,3]
    directions = F.normalize(local @ cam2world[:, :3, :3].transpose(1, 2), dim=-1)
    return cam2world[:, None, :3, 3].expand_as(directions).to(dtype), directions.to(dtype)


def sample_planes(planes: Tensor, points: Tensor, box_warp: float) -> Tensor:
    """``planes [b,3,c,h,w]`` at ``points [b,n,3]``: ``[b,3,n,c]``. The planes are (x,y), (x,z), (z,x)."""
    x, y, z = (points * (2.0 / box_warp)).unbind(dim=-1)
    found = []
    for plane, (across, down) in zip(planes.unbind(dim=1), ((x, y), (x, z), (z, x)), strict=True):
        grid = torch.stack([across, down], dim=-1)[:, None]  # [b,1,n,2]
        features = F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        found.append(features[:, :, 0].transpose(1, 2))  # [b,n,c]
    return torch.stack(found, dim=1)


def decode(params: Params, features: Tensor, lr_multiplier: float) -> tuple[Tensor, Tensor]:
    """``features [b,3,n,c]`` to colours ``[b,n,f]`` in [0,1] (about) and raw density ``[b,n,1]``."""
    x = features.mean(dim=1)
    x = F.softplus(linear(scope(params, "net.0"), x, lr_multiplier))
    x = linear(scope(params, "net.2"), x, lr_multiplier)
    return torch.sigmoid(x[..., 1:]) * 1.002 - 0.001, x[..., :1]


def coarse_depths(sampling: RaySampling, like: Tensor) -> Tensor:
    """``[b,n,s,1]``: evenly spaced, half a step into each interval; ``like [b,n,3]`` gives the shape."""
    step = (sampling.far - sampling.near) / (sampling.n_coarse - 1)
    steps = torch.arange(sampling.n_coarse, device=like.device, dtype=like.dtype) + 0.5
    return (sampling.near + step * steps)[:, None].expand(*like.shape[:2], -1, -1)


def march(colours: Tensor, density: Tensor, depths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Composite intervals between samples: ``colours [b,n,s,f]``, ``density`` and ``depths [b,n,s,1]`` to
    colours ``[b,n,f]`` in [-1,1], depth ``[b,n,1]`` and weights ``[b,n,s-1,1]``."""
    interval = depths[:, :, 1:] - depths[:, :, :-1]
    colour = (colours[:, :, 1:] + colours[:, :, :-1]) / 2
    middle = (depths[:, :, 1:] + depths[:, :, :-1]) / 2
    thickness = F.softplus((density[:, :, 1:] + density[:, :, :-1]) / 2 - 1.0)
    alpha = 1.0 - torch.exp(-thickness * interval)
    passed = torch.cat([torch.ones_like(alpha[:, :, :1]), 1.0 - alpha + LEAK], dim=2)
    weights = alpha * torch.cumprod(passed, dim=2)[:, :, :-1]
    total = weights.sum(dim=2)
    depth = (weights * middle).sum(dim=2) / total
    depth = torch.nan_to_num(depth, nan=float("inf")).clamp(depths.min(), depths.max())
    return (weights * colour).sum(dim=2) * 2.0 - 1.0, depth, weights


def importance_depths(depths: Tensor, weights: Tensor, count: int) -> Tensor:
    """Depths ``[b,n,count,1]`` at evenly spaced quantiles of the coarse ``weights [b,n,s-1,1]``, which are
    blurred first: the larger of two neighbours, averaged with the next such."""
    b, n, s, _ = depths.shape
    w = weights.reshape(b * n, 1, s - 1)
    w = F.avg_pool1d(F.max_pool1d(w, 2, stride=1, padding=1), 2, stride=1)[:, 0] + 0.01
    middle = ((depths[:, :, 1:] + depths[:, :, :-1]) / 2).reshape(b * n, s - 1)
    pdf = w[:, 1:-1] + 1e-5
    cdf = torch.cumsum(pdf / pdf.sum(dim=1, keepdim=True), dim=1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], dim=1)  # [bn,s-2]
    u = torch.linspace(0.0, 1.0, count, device=depths.device, dtype=depths.dtype).repeat(b * n, 1)
    above = torch.searchsorted(cdf, u, right=True)
    below = (above - 1).clamp(min=0)
    above = above.clamp(max=cdf.shape[1] - 1)
    cdf_below, cdf_above = cdf.gather(1, below), cdf.gather(1, above)
    middle_below, middle_above = middle.gather(1, below), middle.gather(1, above)
    width = cdf_above - cdf_below
    width = torch.where(width < 1e-5, torch.ones_like(width), width)
    fine = middle_below + (u - cdf_below) / width * (middle_above - middle_below)
    return fine.reshape(b, n, count, 1)


@dataclass(frozen=True)
class PlainGenerator:
    """The published generator over ``params``; all are read as they are, so gradients reach each of them."""

    settings: GeneratorSettings
    params: Params

    @classmethod
    def of(cls, generator: nn.Module, settings: GeneratorSettings, grad: bool = False) -> PlainGenerator:
        """The same weights as ``generator``, copied; with ``grad``, its parameters want gradients."""
        trained = {name for name, _ in generator.named_parameters()} if grad else set()
        params = {
            name: value.requires_grad_(name in trained)
            for name, value in stylegan2.ordinary(generator.state_dict()).items()
        }
        return cls(settings, params)

    def mapping(self, z: Tensor, c: Tensor, psi: float = 1.0) -> Tensor:
        """``z [b,z]`` and labels ``c [b,25]`` to ``ws [b,num_ws,d]``."""
        s = self.settings
        label = c * s.label_scale if s.c_dim else None
        params = scope(self.params, "backbone.mapping")
        return stylegan2.mapping(params, z, label, rows=s.num_ws, layers=s.mapping_layers, psi=psi)

    def planes(self, ws: Tensor, noise: bool = True) -> Tensor:
        """``ws [b,num_ws,d]`` to planes ``[b,3,c,h,w]``."""
        params = scope(self.params, "backbone.synthesis")
        s = self.settings
        flat = stylegan2.synthesis(params, ws, s.resolutions, noise=noise, clamp=s.conv_clamp)
        return flat.unflatten(1, (3, self.settings.plane_channels))

    def evaluate(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Colours ``[b,n,f]`` in [0,1] and raw density ``[b,n,1]`` at box-frame ``points [b,n,3]``."""
        features = sample_planes(planes, points, self.settings.box_warp)
        return decode(scope(self.params, "decoder"), features, self.settings.decoder_lr_multiplier)

    def along(self, planes: Tensor, origins: Tensor, directions: Tensor, depths: Tensor) -> list[Tensor]:
        """Colours and density ``[b,n,s,f]``, ``[b,n,s,1]`` at ``depths [b,n,s,1]`` along rays."""
        points = origins[:, :, None] + depths * directions[:, :, None]
        found = self.evaluate(planes, points.flatten(1, 2))
        return [value.unflatten(1, depths.shape[1:3]) for value in found]

    def render(self, planes: Tensor, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Colours ``[b,n,f]`` in [-1,1] and depth ``[b,n,1]`` of rays ``[b,n,3]``, in two passes."""
        sampling = self.settings.sampling
        depths = coarse_depths(sampling, origins)
        colours, density = self.along(planes, origins, directions, depths)
        if sampling.n_fine:
            with torch.no_grad():
                _, _, weights = march(colours, density, depths)
                fine = importance_depths(depths, weights, sampling.n_fine)
            fine_colours, fine_density = self.along(planes, origins, directions, fine)
            depths, order = torch.sort(torch.cat([depths, fine], dim=2), dim=2)
            colours = torch.cat([colours, fine_colours], dim=2)
            colours = colours.gather(2, order.expand(-1, -1, -1, colours.shape[-1]))
            density = torch.cat([density, fine_density], dim=2).gather(2, order)
        colour, depth, _ = march(colours, density, depths)
        return colour, depth

    def superresolve(self, features: Tensor, ws: Tensor) -> Tensor:
        """``features [b,f,r,r]``, whose first three channels are RGB, to the image ``[b,3,s,s]``."""
        sr = self.settings.superresolution
        if sr is None:
            raise ValueError("published generators have super-resolution; set superresolution")
        if features.shape[-1] != sr.input_resolution:
            size = (sr.input_resolution, sr.input_resolution)
            features = F.interpolate(
                features, size, mode="bilinear", align_corners=False, antialias=sr.antialias
            )
        x, image = features, features[:, :3]
        rows = ws[:, -1:].repeat(1, 3, 1)
        for i, up in enumerate(sr.upsample):
            params = scope(self.params, f"superresolution.block{i}")
            x, image = stylegan2.block(params, x, image, rows, up=up, noise=False, clamp=sr.conv_clamp)
        return image

    def synthesis(
        self, ws: Tensor, cameras: Tensor, neural_resolution: int | None = None, noise: bool = True
    ) -> dict[str, Tensor]:
        """``ws [b,num_ws,d]`` seen from ``cameras [b,25]``: ``image [b,3,s,s]``, ``image_raw [b,3,r,r]`` and
        ``image_depth [b,1,r,r]``."""
        size = neural_resolution or self.settings.neural_resolution
        colour, depth = self.render(self.planes(ws, noise), *rays(cameras, size))
        features = colour.transpose(1, 2).unflatten(2, (size, size)).contiguous()
        return {
            "image": self.superresolve(features, ws),
            "image_raw": features[:, :3],
            "image_depth": depth.transpose(1, 2).unflatten(2, (size, size)),
        }
