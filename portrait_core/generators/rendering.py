"""Volume rendering of tri-planes (EG3D sections 3 and 4.2): look-up, decoder, sampling, compositing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from portrait_core.generators import cpu
from portrait_core.generators.draws import uniform
from portrait_core.generators.layers import FullyConnected
from portrait_core.generators.settings import GeneratorSettings, RaySampling
from portrait_core.generators.triplane import Planes

PLANE_AXES: dict[str, tuple[tuple[int, int], ...]] = {
    "published": ((0, 1), (0, 2), (2, 0)),
    "orthogonal": ((0, 1), (0, 2), (2, 1)),
}
"""Point coordinates that run along each plane's width and height."""


_CPU_CHUNK = 524_288
_GPU_CHUNK = 2_097_152
"""Points whose features are held at once where no gradient is wanted."""


EMPTY = -20.0
"""A raw density that absorbs nothing."""


@dataclass(frozen=True)
class RayOutput:
    """What rays see."""

    features: Float[Tensor, "b n f"]
    """Composited features; the first three are RGB in [-1,1]."""
    depth: Float[Tensor, "b n"]
    """Expected distance along the ray, in box units."""
    weight: Float[Tensor, "b n"]
    """Share of the ray that the volume absorbs, 0..1; the rest is background."""


class _Draws(NamedTuple):
    """Random numbers in [0,1) for the depths along rays; None twice for the fixed depths."""

    coarse: Float[Tensor, "b n s"] | None
    fine: Float[Tensor, "b n m"] | None


class Decoder(nn.Module):
    """Two-layer network from plane features to density and rendered features."""

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        lr = settings.decoder_lr_multiplier
        activations = {
            "softplus": nn.Softplus(),
            "silu": nn.SiLU(),
            "leaky_relu": nn.LeakyReLU(0.2),
        }
        self.net = nn.Sequential(
            FullyConnected(settings.plane_channels, settings.decoder_hidden, lr_multiplier=lr),
            activations[settings.decoder_activation],
            FullyConnected(settings.decoder_hidden, 1 + settings.feature_channels, lr_multiplier=lr),
        )
        self.sigmoid = settings.feature_activation == "sigmoid"

    @property
    def last(self) -> FullyConnected:
        """The layer whose first output is the raw density."""
        return cast(FullyConnected, self.net[2])

    def scaled(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of both layers as they act."""
        return [layer.scaled() for layer in self.net if isinstance(layer, FullyConnected)]

    def activate(self, features: Tensor) -> Tensor:
        """Bring raw features to [-1,1] (about, for a linear activation)."""
        # a range slightly beyond 0..1 lets the sigmoid reach both ends
        return torch.sigmoid(features) * 2.004 - 1.002 if self.sigmoid else features

    def forward(self, x: Float[Tensor, "*n c"]) -> tuple[Float[Tensor, "*n f"], Float[Tensor, "*n 1"]]:
        hidden = self.net[0](x)
        y = self.net[2](self.net[1](hidden))
        return self.activate(y[..., 1:]), y[..., :1]


class Renderer(nn.Module):
    """Renders rays of planes with a decoder. Holds no parameters of its own."""

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        self.settings = settings
        self.ray_chunk: int | None = None
        """Rays rendered at a time; None: all of them (without gradient, what memory is meant for)."""
        self.axes = PLANE_AXES[settings.plane_axes]
        self.layout = cpu.PlaneLayout(
            self.axes,
            settings.box_warp,
            settings.plane_padding == "border",
            settings.decoder_activation,
            settings.feature_activation == "sigmoid",
        )

    def sample_planes(self, planes: Planes, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n c"]:
        """Mean of the three planes' bilinear look-ups at box-frame ``points``."""
        b, n, _ = points.shape
        unit = (points * (2.0 / self.settings.box_warp)).unbind(-1)
        grid = torch.stack([unit[i] for axes in self.axes for i in axes], dim=-1)
        grid = grid.view(b, n, 3, 2).transpose(1, 2)  # [b,3,n,2]
        volume = planes.volume.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        found = F.grid_sample(
            volume,
            grid.reshape(b * 3, 1, n, 2),
            mode="bilinear",
            padding_mode=self.settings.plane_padding,
            align_corners=False,
        )
        return found.view(b, 3, -1, n).mean(dim=1).transpose(1, 2)

    def sample_points(
        self, planes: Planes, decoder: Decoder, points: Float[Tensor, "b n 3"]
    ) -> tuple[Float[Tensor, "b n f"], Float[Tensor, "b n 1"]]:
        """Features (in [-1,1]) and raw density at box-frame ``points``, through the planes' bend; empty where
        the planes are not believed.
        """
        if planes.bend is not None:
            points = planes.bend(points)
        if cpu.suits(planes.volume, points) and not points.requires_grad:
            features, sigma = cpu.decode_points(planes.volume, points, decoder.scaled(), self.layout)
        else:
            features, sigma = decoder(self.sample_planes(planes, points))
        if self.settings.open_top:
            sigma = sigma.masked_fill(points[..., 1:2] > 0.5 * self.settings.box_warp, EMPTY)
        if planes.within is not None:
            sigma = sigma.masked_fill(planes.within(points)[..., None] < 0.5, EMPTY)
        return features, sigma

    def _evaluate(
        self, planes: Planes, decoder: Decoder, origins: Tensor, directions: Tensor, depths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features ``[b,n,s,f]`` and density ``[b,n,s]`` at ``depths`` along rays."""
        points = origins[:, :, None] + depths[..., None] * directions[:, :, None]
        features, sigma = self.sample_points(planes, decoder, points.flatten(1, 2))
        shape = depths.shape
        return features.unflatten(1, shape[1:]), sigma.reshape(shape)

    def weights(
        self, sigma: Float[Tensor, "b n s"], depths: Float[Tensor, "b n s"], limit: Tensor | None
    ) -> Float[Tensor, "b n s1"]:
        """Compositing weight of every interval between neighbouring samples (mid-point rule)."""
        middle = (sigma[..., :-1] + sigma[..., 1:]) * 0.5
        delta = depths[..., 1:] - depths[..., :-1]
        optical = F.softplus(middle - 1.0) * delta * self.settings.density_gain
        if limit is not None:  # nothing is seen beyond the wall
            optical = optical * (_middle(depths) < limit[..., None])
        # The published transmittance is the product of (1 - alpha + 1e-10) over the intervals in front; this
        # is the product of (1 - alpha). The published one lets 1e-10 more through every interval, which is
        # below rounding in single precision. A sum is taken because the backward pass of cumprod reads a
        # value on the host, which makes it wait for the device and forbids CUDA graphs.
        before = F.pad(optical[..., :-1], (1, 0)).cumsum(dim=-1)
        return (1.0 - torch.exp(-optical)) * torch.exp(-before)

    def render_rays(
        self,
        planes: Planes,
        decoder: Decoder,
        origins: Float[Tensor, "b n 3"],
        directions: Float[Tensor, "b n 3"],
        sampling: RaySampling,
        rng: torch.Generator | None = None,
        jitter: bool = False,
    ) -> RayOutput:
        """Render rays with unit-length ``directions``. ``jitter`` draws random depths from ``rng``, a
        generator of the rays' device (None: that device's own); otherwise they are the middles of the strata
        and evenly spaced quantiles.

        Raises:
            ValueError: if ``rng`` belongs to another device.
        """
        render = self._render
        if torch.is_grad_enabled():
            rays = self.ray_chunk or origins.shape[1]
            if rays < origins.shape[1]:
                render = self._render_again
        else:  # chunks bound the memory that samples' features take
            samples = len(planes) * (sampling.n_coarse + sampling.n_fine)
            rays = max(1, (_CPU_CHUNK if origins.device.type == "cpu" else _GPU_CHUNK) // samples)
            rays = min(rays, self.ray_chunk or rays)
        pieces = list(zip(origins.split(rays, 1), directions.split(rays, 1), strict=True))
        draws = _draw(sampling, origins, rng, rays) if jitter else [_Draws(None, None)] * len(pieces)
        parts = [
            render(planes, decoder, o, d, sampling, drawn)
            for (o, d), drawn in zip(pieces, draws, strict=True)
        ]
        if len(parts) == 1:
            return parts[0]
        return RayOutput(
            torch.cat([part.features for part in parts], dim=1),
            torch.cat([part.depth for part in parts], dim=1),
            torch.cat([part.weight for part in parts], dim=1),
        )

    def _render_again(
        self,
        planes: Planes,
        decoder: Decoder,
        origins: Tensor,
        directions: Tensor,
        sampling: RaySampling,
        draws: _Draws,
    ) -> RayOutput:
        """As :meth:`_render`, keeping nothing for the gradient: rendered a second time when it is wanted."""
        # nothing is drawn in there, so no state of a random generator has to be kept and brought back, which
        # a CUDA graph could not capture
        rendered: RayOutput = checkpoint(
            self._render,
            planes,
            decoder,
            origins,
            directions,
            sampling,
            draws,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        return rendered

    def _render(
        self,
        planes: Planes,
        decoder: Decoder,
        origins: Tensor,
        directions: Tensor,
        sampling: RaySampling,
        draws: _Draws,
    ) -> RayOutput:
        background, limit = self.background(planes, decoder, origins, directions)
        depths = stratified_depths(sampling, directions, draws.coarse)
        with torch.set_grad_enabled(torch.is_grad_enabled() and sampling.coarse_grad):
            features, sigma = self._evaluate(planes, decoder, origins, directions, depths)
        if not sampling.n_fine:
            weights = self.weights(sigma, depths, limit)
            share = _share(weights)
            colour = _mix(share, features)
        else:
            with torch.no_grad():
                coarse = self.weights(sigma, depths, limit)
                fine = importance_depths(depths, coarse, sampling.n_fine, draws.fine)
            more_features, more_sigma = self._evaluate(planes, decoder, origins, directions, fine)
            depths, order = torch.cat([depths, fine], dim=-1).sort(dim=-1)
            sigma = torch.cat([sigma, more_sigma], dim=-1).gather(-1, order)
            weights = self.weights(sigma, depths, limit)
            share = _share(weights)
            # bring the shares into the features' order, not the (larger) features into the shares'
            unsorted = torch.zeros_like(share).scatter(-1, order, share)
            n = sampling.n_coarse
            colour = _mix(unsorted[..., :n], features) + _mix(unsorted[..., n:], more_features)
        distance = (share * depths).sum(dim=-1)
        return _fill(colour, distance, weights.sum(dim=-1), depths[..., -1], background, limit)

    def background(
        self, planes: Planes, decoder: Decoder, origins: Tensor, directions: Tensor
    ) -> tuple[Float[Tensor, "b n f"] | None, Float[Tensor, "b n"] | None]:
        """The wall's features and its distance along each ray; None twice where there is no wall."""
        plane, distance = self.settings.background, self.background_depth(origins, directions)
        if plane is None or distance is None or planes.wall is None:
            return None, None
        hit = origins[..., :2] + distance[..., None] * directions[..., :2]
        return self.background_features(planes, decoder, hit / plane.wall_half_extent), distance

    def background_depth(
        self, origins: Float[Tensor, "b n 3"], directions: Float[Tensor, "b n 3"]
    ) -> Float[Tensor, "b n"] | None:
        """Return the distance along rays to the background plane; None where there is none."""
        plane = self.settings.background
        if plane is None:
            return None
        # rays that run away from the plane (or along it) meet it nowhere: put it very far away
        slope = directions[..., 2].clamp(max=-1e-3)
        return (plane.wall_z - origins[..., 2]) / slope

    def background_features(
        self, planes: Planes, decoder: Decoder, unit_xy: Float[Tensor, "b n 2"]
    ) -> Float[Tensor, "b n f"]:
        """Features of the wall at ``unit_xy``: box-frame x and y over ``wall_half_extent``.

        Raises:
            ValueError: if the generator has no wall.
        """
        if planes.wall is None:
            raise ValueError("this generator has no wall; set background in its settings")
        found = F.grid_sample(
            planes.wall, unit_xy[:, None], mode="bilinear", padding_mode="border", align_corners=False
        )
        return decoder.activate(found[:, :, 0].transpose(1, 2))


def _middle(x: Tensor) -> Tensor:
    return (x[..., :-1] + x[..., 1:]) * 0.5


def _draw(
    sampling: RaySampling, rays: Float[Tensor, "b n 3"], rng: torch.Generator | None, chunk: int
) -> list[_Draws]:
    """Draw for all rays at once, and split into chunks of rays: what is drawn does not depend on them, and a
    chunk that is rendered a second time, for its gradient, has the depths of the first time.
    """
    coarse = uniform((*rays.shape[:2], sampling.n_coarse), rng, rays)
    fine = uniform((*rays.shape[:2], sampling.n_fine), rng, rays)
    return [_Draws(c, f) for c, f in zip(coarse.split(chunk, 1), fine.split(chunk, 1), strict=True)]


def stratified_depths(
    sampling: RaySampling, directions: Float[Tensor, "b n 3"], shares: Float[Tensor, "b n s"] | None
) -> Float[Tensor, "b n s"]:
    """Coarse depths: evenly spaced from near to far, each moved on by a share (0..1) of the spacing; by half
    of it where ``shares`` is None.
    """
    count = sampling.n_coarse
    step = (sampling.far - sampling.near) / (count - 1)
    start = torch.linspace(
        sampling.near, sampling.far, count, device=directions.device, dtype=directions.dtype
    )
    if shares is None:
        return (start + 0.5 * step).expand(*directions.shape[:2], count)
    return start + step * shares


def importance_depths(
    depths: Float[Tensor, "b n s"],
    weights: Float[Tensor, "b n s1"],
    count: int,
    quantiles: Float[Tensor, "b n m"] | None,
) -> Float[Tensor, "b n m"]:
    """Fine depths by inverse-transform sampling of the coarse weights, blurred as in mip-NeRF, at
    ``quantiles`` (0..1); at ``count`` evenly spaced ones where that is None.
    """
    shape = weights.shape
    blurred = F.max_pool1d(weights.reshape(-1, 1, shape[-1]), 2, stride=1, padding=1)
    smooth = F.avg_pool1d(blurred, 2, stride=1).view(shape) + 0.01
    bins = _middle(depths)  # [b,n,s-1]
    pdf = smooth[..., 1:-1] + 1e-5
    pdf = pdf / pdf.sum(dim=-1, keepdim=True)
    cdf = F.pad(torch.cumsum(pdf, dim=-1), (1, 0))  # [b,n,s-2]
    if quantiles is None:
        even = torch.linspace(0.0, 1.0, count, device=depths.device, dtype=depths.dtype)
        quantiles = even.expand(*shape[:-1], count)
    u = quantiles.contiguous()  # the search copies what is not
    above = torch.searchsorted(cdf, u, right=True)
    below = (above - 1).clamp(min=0)
    above = above.clamp(max=cdf.shape[-1] - 1)
    low, high = cdf.gather(-1, below), cdf.gather(-1, above)
    span = torch.where(high - low < 1e-5, 1.0, high - low)
    start, end = bins.gather(-1, below), bins.gather(-1, above)
    return start + (u - low) / span * (end - start)


def _share(weights: Float[Tensor, "b n s1"]) -> Float[Tensor, "b n s"]:
    """Weight of every sample: half that of the intervals on its two sides (mid-point features)."""
    return 0.5 * (F.pad(weights, (0, 1)) + F.pad(weights, (1, 0)))


def _mix(share: Float[Tensor, "b n s"], features: Float[Tensor, "b n s f"]) -> Float[Tensor, "b n f"]:
    return (share[..., None, :] @ features)[..., 0, :]


def _fill(
    colour: Float[Tensor, "b n f"],
    distance: Float[Tensor, "b n"],
    total: Float[Tensor, "b n"],
    last: Float[Tensor, "b n"],
    background: Float[Tensor, "b n f"] | None,
    limit: Float[Tensor, "b n"] | None,
) -> RayOutput:
    """Fill what is left of each ray with the background: the wall, or black at no distance."""
    left = 1.0 - total
    if background is None or limit is None:
        depth = torch.nan_to_num(distance / total, nan=float("inf"))
        return RayOutput(colour - left[..., None], torch.minimum(depth, last), total)
    return RayOutput(colour + left[..., None] * background, distance + left * limit, total)
