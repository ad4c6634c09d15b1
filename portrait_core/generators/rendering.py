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
from portrait_core.generators.layers import FullyConnected
from portrait_core.generators.rays import RayDraws, Rays, RaySampler, midpoints
from portrait_core.generators.settings import GeneratorSettings
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
    """Results of volume rendering, per ray."""

    features: Float[Tensor, "b n f"]
    """Composited features; the first three are RGB in [-1,1]."""
    depth: Float[Tensor, "b n"]
    """Expected distance along the ray, in box units."""
    accumulation: Float[Tensor, "b n"]
    """Fraction of the ray that the volume absorbs, 0..1; the rest is background."""


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
        """Return weight and bias of both layers as they act."""
        return [layer.scaled() for layer in self.net if isinstance(layer, FullyConnected)]

    def activate(self, features: Tensor) -> Tensor:
        """Bring raw features to [-1,1] (about, for a linear activation)."""
        # a range slightly beyond 0..1 lets the sigmoid reach both ends
        return torch.sigmoid(features) * 2.004 - 1.002 if self.sigmoid else features

    def forward(self, x: Float[Tensor, "*n c"]) -> tuple[Float[Tensor, "*n f"], Float[Tensor, "*n 1"]]:
        """Decode plane features to rendered features (in [-1,1]) and raw density."""
        hidden = self.net[0](x)
        y = self.net[2](self.net[1](hidden))
        return self.activate(y[..., 1:]), y[..., :1]


class Field(NamedTuple):
    """Features and density in space: feature planes and the network that decodes them."""

    planes: Planes
    decoder: Decoder


class Renderer(nn.Module):
    """Renders rays through a field. It has no parameters of its own."""

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
        """Return the mean of the three planes' bilinear look-ups at box-frame ``points``."""
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
        self, field: Field, points: Float[Tensor, "b n 3"]
    ) -> tuple[Float[Tensor, "b n f"], Float[Tensor, "b n 1"]]:
        """Return features (in [-1,1]) and raw density at box-frame ``points``.

        Points go through the planes' bend. The density is that of empty space where the planes are not
        believed.
        """
        planes, decoder = field
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

    def _evaluate(self, field: Field, rays: Rays, depths: Tensor) -> tuple[Tensor, Tensor]:
        """Return features ``[b,n,s,f]`` and raw density ``[b,n,s]`` at ``depths`` along rays."""
        features, sigma = self.sample_points(field, rays.sample_points(depths).flatten(1, 2))
        shape = depths.shape
        return features.unflatten(1, shape[1:]), sigma.reshape(shape)

    def interval_weights(
        self, sigma: Float[Tensor, "b n s"], depths: Float[Tensor, "b n s"], background_depth: Tensor | None
    ) -> Float[Tensor, "b n s1"]:
        """Return the compositing weight of every interval between neighbouring samples (mid-point rule)."""
        middle = (sigma[..., :-1] + sigma[..., 1:]) * 0.5
        delta = depths[..., 1:] - depths[..., :-1]
        optical_depth = F.softplus(middle - 1.0) * delta * self.settings.density_gain
        if background_depth is not None:  # nothing is seen beyond the background plane
            optical_depth = optical_depth * (midpoints(depths) < background_depth[..., None])
        # The published transmittance is the product of (1 - alpha + 1e-10) over the intervals in front; this
        # is the product of (1 - alpha). The published one lets 1e-10 more through every interval, which is
        # below rounding in single precision. A sum is taken because the backward pass of cumprod reads a
        # value on the host, which makes it wait for the device and forbids CUDA graphs.
        in_front = F.pad(optical_depth[..., :-1], (1, 0)).cumsum(dim=-1)
        one_minus_alpha, transmittance = torch.exp(-optical_depth), torch.exp(-in_front)
        return (1.0 - one_minus_alpha) * transmittance

    def render_rays(self, field: Field, rays: Rays, sampler: RaySampler) -> RayOutput:
        """Render rays, in chunks where memory asks for them.

        Raises:
            ValueError: if the sampler's random state belongs to another device.
        """
        render = self._render
        count = len(rays)
        if torch.is_grad_enabled():
            chunk = self.ray_chunk or count
            if chunk < count:
                render = self._render_again
        else:  # chunks bound the memory that samples' features take
            samples = len(field.planes) * (sampler.settings.n_coarse + sampler.settings.n_fine)
            on_cpu = rays.origins.device.type == "cpu"
            chunk = max(1, (_CPU_CHUNK if on_cpu else _GPU_CHUNK) // samples)
            chunk = min(chunk, self.ray_chunk or chunk)
        chunks = zip(rays.split(chunk), sampler.draw(rays, chunk), strict=True)
        rendered = [render(field, piece, sampler, draws) for piece, draws in chunks]
        if len(rendered) == 1:
            return rendered[0]
        return RayOutput(
            torch.cat([piece.features for piece in rendered], dim=1),
            torch.cat([piece.depth for piece in rendered], dim=1),
            torch.cat([piece.accumulation for piece in rendered], dim=1),
        )

    def _render_again(self, field: Field, rays: Rays, sampler: RaySampler, draws: RayDraws) -> RayOutput:
        """Render like :meth:`_render` and keep nothing for the gradient, which renders a second time."""

        def render(origins: Tensor, directions: Tensor) -> RayOutput:
            return self._render(field, Rays(origins, directions), sampler, draws)

        # nothing is drawn in there, so no state of a random generator has to be kept and brought back, which
        # a CUDA graph could not capture
        rendered: RayOutput = checkpoint(
            render, rays.origins, rays.directions, use_reentrant=False, preserve_rng_state=False
        )
        return rendered

    def _render(self, field: Field, rays: Rays, sampler: RaySampler, draws: RayDraws) -> RayOutput:
        sampling = sampler.settings
        background, background_depth = self.background(field, rays)
        depths = sampler.coarse_depths(rays, draws.coarse)
        with torch.set_grad_enabled(torch.is_grad_enabled() and sampling.coarse_grad):
            features, sigma = self._evaluate(field, rays, depths)
        if not sampling.n_fine:
            weights = self.interval_weights(sigma, depths, background_depth)
            per_sample = sample_weights(weights)
            colour = composite(per_sample, features)
        else:
            with torch.no_grad():
                coarse = self.interval_weights(sigma, depths, background_depth)
                fine = sampler.fine_depths(depths, coarse, draws.fine)
            fine_features, fine_sigma = self._evaluate(field, rays, fine)
            depths, order = torch.cat([depths, fine], dim=-1).sort(dim=-1)
            sigma = torch.cat([sigma, fine_sigma], dim=-1).gather(-1, order)
            weights = self.interval_weights(sigma, depths, background_depth)
            per_sample = sample_weights(weights)
            # bring the weights into the features' order, not the (larger) features into the weights'
            unsorted = torch.zeros_like(per_sample).scatter(-1, order, per_sample)
            n = sampling.n_coarse
            colour = composite(unsorted[..., :n], features) + composite(unsorted[..., n:], fine_features)
        distance = (per_sample * depths).sum(dim=-1)
        volume = RayOutput(colour, distance, weights.sum(dim=-1))
        return blend_background(volume, depths[..., -1], background, background_depth)

    def background(
        self, field: Field, rays: Rays
    ) -> tuple[Float[Tensor, "b n f"] | None, Float[Tensor, "b n"] | None]:
        """Return the background plane's features and its distance along each ray.

        Both are None where there is no plane.
        """
        plane, depth = self.settings.background, self.background_depth(rays)
        if plane is None or depth is None or field.planes.background_plane is None:
            return None, None
        hit = rays.origins[..., :2] + depth[..., None] * rays.directions[..., :2]
        return self.background_features(field, hit / plane.wall_half_extent), depth

    def background_depth(self, rays: Rays) -> Float[Tensor, "b n"] | None:
        """Return the distance along rays to the background plane; None where there is none."""
        plane = self.settings.background
        if plane is None:
            return None
        # rays that run away from the plane (or along it) meet it nowhere: put it very far away
        slope = rays.directions[..., 2].clamp(max=-1e-3)
        return (plane.wall_z - rays.origins[..., 2]) / slope

    def background_features(self, field: Field, xy: Float[Tensor, "b n 2"]) -> Float[Tensor, "b n f"]:
        """Return features of the background plane at ``xy``: box-frame x and y over ``wall_half_extent``.

        Raises:
            ValueError: if the generator has no background plane.
        """
        plane = field.planes.background_plane
        if plane is None:
            raise ValueError("this generator has no background plane; set background in its settings")
        sampled = F.grid_sample(
            plane, xy[:, None], mode="bilinear", padding_mode="border", align_corners=False
        )
        return field.decoder.activate(sampled[:, :, 0].transpose(1, 2))


def sample_weights(interval_weights: Float[Tensor, "b n s1"]) -> Float[Tensor, "b n s"]:
    """Return the weight of every sample: half that of the intervals on its two sides."""
    return 0.5 * (F.pad(interval_weights, (0, 1)) + F.pad(interval_weights, (1, 0)))


def composite(weights: Float[Tensor, "b n s"], features: Float[Tensor, "b n s f"]) -> Float[Tensor, "b n f"]:
    """Return the weighted sum of the samples' features along every ray."""
    return (weights[..., None, :] @ features)[..., 0, :]


def blend_background(
    volume: RayOutput,
    last: Float[Tensor, "b n"],
    background: Float[Tensor, "b n f"] | None,
    background_depth: Float[Tensor, "b n"] | None,
) -> RayOutput:
    """Fill what the volume leaves of each ray with the background plane, or with black at no distance.

    Args:
        volume: sums over the samples alone: features, and depth weighted by accumulation.
        last: depth of the last sample; without a background plane the depth is at most that.
        background: features of the plane where the rays meet it.
        background_depth: distance of the plane along the rays.
    """
    colour, distance, accumulation = volume.features, volume.depth, volume.accumulation
    left = 1.0 - accumulation
    if background is None or background_depth is None:
        depth = torch.nan_to_num(distance / accumulation, nan=float("inf"))
        return RayOutput(colour - left[..., None], torch.minimum(depth, last), accumulation)
    return RayOutput(colour + left[..., None] * background, distance + left * background_depth, accumulation)
