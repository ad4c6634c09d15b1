"""Rays, and the sampler that places samples along them (EG3D section 4.2; mip-NeRF section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from portrait_core.cameras import crop_rays
from portrait_core.generators.draws import uniform
from portrait_core.generators.settings import RaySampling


@dataclass(frozen=True)
class Rays:
    """Rays in the box frame.

    Attributes:
        origins: start of every ray ``[B,N,3]``, box units.
        directions: unit vectors ``[B,N,3]``.
    """

    origins: Float[Tensor, "b n 3"]
    directions: Float[Tensor, "b n 3"]

    @classmethod
    def of_cameras(cls, cameras: Float[Tensor, "b 25"], resolution: int) -> Rays:
        """Make the rays of camera labels through a square grid of pixels, row by row."""
        return cls(*crop_rays(cameras, resolution))

    def __len__(self) -> int:
        """Return the number of rays per camera."""
        return self.origins.shape[1]

    def points(self, depth: Float[Tensor, "b n"]) -> Float[Tensor, "b n 3"]:
        """Return the point of every ray at a distance in box units."""
        return self.origins + depth[..., None] * self.directions

    def sample_points(self, depths: Float[Tensor, "b n s"]) -> Float[Tensor, "b n s 3"]:
        """Return the points of every ray at several distances in box units."""
        return self.origins[:, :, None] + depths[..., None] * self.directions[:, :, None]

    def select(self, index: Tensor) -> Rays:
        """Return the rays at ``index`` (int64 numbers or a mask) of all cameras."""
        return Rays(self.origins[:, index], self.directions[:, index])

    def split(self, count: int) -> list[Rays]:
        """Split into groups of ``count`` rays per camera; the last one may be smaller."""
        pieces = zip(self.origins.split(count, 1), self.directions.split(count, 1), strict=True)
        return [Rays(origins, directions) for origins, directions in pieces]

    def expand(self, batch: int) -> Rays:
        """Return the rays for ``batch`` latents that one camera sees; those of ``batch`` cameras stay."""
        return Rays(self.origins.expand(batch, -1, -1), self.directions.expand(batch, -1, -1))

    def to(self, dtype: torch.dtype) -> Rays:
        """Return the rays in another precision."""
        return Rays(self.origins.to(dtype), self.directions.to(dtype))


class RayDraws(NamedTuple):
    """Random numbers in [0,1) for the depths along rays; None twice for fixed depths."""

    coarse: Float[Tensor, "b n s"] | None
    fine: Float[Tensor, "b n m"] | None


@dataclass(frozen=True)
class RaySampler:
    """Places samples along rays: stratified ones, then importance samples where those absorb.

    Attributes:
        settings: range of depths and numbers of samples.
        jitter: True draws random depths; False takes the middles of the strata and evenly spaced quantiles.
        rng: random state, on the rays' device; None: that device's default one. It is used with ``jitter``.
    """

    settings: RaySampling
    jitter: bool = False
    rng: torch.Generator | None = None

    def draw(self, rays: Rays, chunk: int) -> list[RayDraws]:
        """Draw the random numbers of all rays at once, and split them into chunks of rays.

        The numbers do not depend on the chunks, and a chunk that is rendered a second time, for its gradient,
        has the depths of the first time.

        Raises:
            ValueError: if ``rng`` belongs to another device.
        """
        if not self.jitter:
            return [RayDraws(None, None)] * -(-len(rays) // chunk)
        shape, like = rays.origins.shape[:2], rays.origins
        coarse = uniform((*shape, self.settings.n_coarse), self.rng, like)
        fine = uniform((*shape, self.settings.n_fine), self.rng, like)
        return [RayDraws(c, f) for c, f in zip(coarse.split(chunk, 1), fine.split(chunk, 1), strict=True)]

    def coarse_depths(self, rays: Rays, fractions: Float[Tensor, "b n s"] | None) -> Float[Tensor, "b n s"]:
        """Return evenly spaced depths from near to far, each moved on by a fraction (0..1) of the spacing.

        ``fractions=None`` moves each by half of the spacing.
        """
        near, far, count = self.settings.near, self.settings.far, self.settings.n_coarse
        spacing = (far - near) / (count - 1)
        like = rays.directions
        start = torch.linspace(near, far, count, device=like.device, dtype=like.dtype)
        if fractions is None:
            return (start + 0.5 * spacing).expand(*like.shape[:2], count)
        return start + spacing * fractions

    def fine_depths(
        self,
        depths: Float[Tensor, "b n s"],
        weights: Float[Tensor, "b n s1"],
        quantiles: Float[Tensor, "b n m"] | None,
    ) -> Float[Tensor, "b n m"]:
        """Return depths by inverse-transform sampling of the coarse intervals' weights.

        The weights are blurred as in mip-NeRF.

        Args:
            depths: of the coarse samples.
            weights: of the intervals between them.
            quantiles: where the distribution is inverted, in 0..1; None: at evenly spaced quantiles.
        """
        shape = weights.shape
        blurred = F.max_pool1d(weights.reshape(-1, 1, shape[-1]), 2, stride=1, padding=1)
        smooth = F.avg_pool1d(blurred, 2, stride=1).view(shape) + 0.01
        bins = midpoints(depths)  # [b,n,s-1]
        pdf = smooth[..., 1:-1] + 1e-5
        pdf = pdf / pdf.sum(dim=-1, keepdim=True)
        cdf = F.pad(torch.cumsum(pdf, dim=-1), (1, 0))  # [b,n,s-2]
        if quantiles is None:
            count = self.settings.n_fine
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


def midpoints(x: Float[Tensor, "*b s"]) -> Float[Tensor, "*b s1"]:
    """Return the means of neighbours along the last axis."""
    return (x[..., :-1] + x[..., 1:]) * 0.5
