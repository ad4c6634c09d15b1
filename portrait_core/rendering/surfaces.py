"""Surfaces that a generator shows at a view.

A surface knows where each ray meets the person, and where the portrait's camera sees that place.

Depth is known where the person is. Around the person it is continued smoothly, so that a hair that the
generator does not have moves with the head that it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from portrait_core.generators import Planes, Rays, RaySampler, RaySampling, VolumeGenerator
from portrait_core.generators.triplane import Within
from portrait_core.rendering.compositing import places_seen
from portrait_core.rendering.neck import Bending

PERSON = 0.6
"""Accumulation from which the depth of a ray is the person's."""
EDGE = 0.1
"""Distance beyond the crop over which the generator ceases to be believed, over the crop's side: the crown of
a head that bows lies there."""
RIM = 2
"""Width of the rim that depth is continued from, in rays."""
_TINY = 1e-6


@dataclass(frozen=True)
class View:
    """A camera's rays, and how space is bent before it.

    Attributes:
        rays: row by row, R*R of them.
        side: number of rays along a side, R.
        bend: None where space is straight.
    """

    rays: Rays
    side: int
    bend: Bending | None = None

    @classmethod
    def of(cls, camera: Float[Tensor, "1 25"], side: int, bend: Bending | None = None) -> View:
        """Make the view of a camera's label."""
        return cls(Rays.of_cameras(camera, side), side, bend)

    def points(self, depth: Float[Tensor, "1 1 r r"]) -> Float[Tensor, "1 r r 3"]:
        """Return where points at distances ``depth`` along the rays lie at the portrait's own pose."""
        seen = self.rays.points(depth.flatten(1))
        lie = seen if self.bend is None else self.bend(seen)
        return lie.reshape(1, self.side, self.side, 3)


@dataclass(frozen=True)
class Fitted:
    """The space that a generator was fitted in: what the portrait's face crop shows.

    Beyond it the generator may show anything.

    Attributes:
        camera: the portrait's, of the canvas ``[1,25]``.
        corner: of the face crop in its picture, x and y over the picture's side.
        side: of the face crop over the picture's.
    """

    camera: Float[Tensor, "1 25"]
    corner: tuple[float, float]
    side: float

    def holds(self, points: Float[Tensor, "1 r r 3"]) -> Float[Tensor, "1 1 r r"]:
        """Tell which points lie in it: 1 inside, 0 well outside."""
        place = places_seen(self.camera, points)
        found = torch.ones_like(place[:, :1])
        for axis, corner in enumerate(self.corner):
            unit = (place[:, axis : axis + 1] - corner) / self.side
            found = found * (1 + (torch.minimum(unit, 1 - unit)) / EDGE).clamp(0, 1)
        return found


@dataclass(frozen=True)
class Surface:
    """A rendered latent and where its surface lies. ``R`` rays along a side.

    Attributes:
        features: what super-resolution takes ``[1,f,R,R]``; the first three are colours in [-1,1].
        depth: distance along the ray to the person or its continuation ``[1,1,R,R]``, box units.
        accumulation: fraction of the ray that the person absorbs ``[1,1,R,R]`` in 0..1; 1 for a generator
            whose background is a part of its volume.
        points: where they lie at the portrait's own pose ``[1,R,R,3]``, box units.
    """

    features: Float[Tensor, "1 f r r"]
    depth: Float[Tensor, "1 1 r r"]
    accumulation: Float[Tensor, "1 1 r r"]
    points: Float[Tensor, "1 r r 3"]

    def without(self, hole: Bool[Tensor, "1 1 r r"], view: View) -> Surface:
        """Return the surface with a hole's depth continued from around it."""
        depth = continued(self.depth, (~hole).to(self.depth.dtype))
        return replace(self, depth=depth, points=view.points(depth))


def rendered_surface(
    generator: VolumeGenerator,
    planes: Planes,
    view: View,
    sampling: RaySampling,
    fitted: Fitted,
    partly: tuple[Bool[Tensor, " n"], Surface] | None = None,
    believed: Within | None = None,
) -> Surface:
    """Render what ``planes`` show at a view.

    Args:
        generator: whose planes they are; in eval mode.
        planes: not bent.
        view: camera and bend.
        sampling: samples per ray.
        fitted: where the generator is believed.
        partly: which rays are rendered ``[R*R]``, and what the others show, of the same size; None renders
            all.
        believed: where the volume is believed; None is everywhere.
    """
    # a background that is a part of the volume lies where no person does
    size, bent = view.side, planes.bent(view.bend, None if planes.background_plane is None else believed)
    rays = view.rays
    if partly is not None:
        wanted, elsewhere = partly
        index = wanted.nonzero()[:, 0]
        if not len(index):
            return replace(elsewhere, points=view.points(elsewhere.depth))
        rays = rays.select(index)
    found = generator.render_rays(bent, rays, RaySampler(sampling))
    background_depth = generator.background_depth(rays)
    accumulation, own = found.accumulation, found.depth
    if background_depth is None:
        accumulation = torch.ones_like(accumulation)
    else:
        own = (found.depth - (1 - accumulation) * background_depth) / accumulation.clamp(min=_TINY)
    values = torch.cat([found.features, own[..., None], accumulation[..., None]], dim=-1).transpose(1, 2)
    if partly is not None:
        around = torch.cat([elsewhere.features, elsewhere.depth, elsewhere.accumulation], dim=1).flatten(2)
        values = around.index_copy(2, index, values)
    whole = values.reshape(1, -1, size, size)
    features, depth, accumulation = whole[:, :-2], whole[:, -2:-1], whole[:, -1:]
    if background_depth is not None:
        accumulation = accumulation * fitted.holds(
            view.points(continued(depth, (accumulation > PERSON).to(depth.dtype)))
        )
    depth = continued(depth, (accumulation > PERSON).to(depth.dtype))
    return Surface(
        features.contiguous(memory_format=torch.channels_last), depth, accumulation, view.points(depth)
    )


def continued(values: Float[Tensor, "1 1 r r"], known: Float[Tensor, "1 1 r r"]) -> Float[Tensor, "1 1 r r"]:
    """Continue values from the rim of where they are known; known values stay.

    A place beside a head continues from where the head's surface turns away, not from its middle.
    """
    near = F.max_pool2d(1 - known, 2 * RIM + 1, 1, RIM)
    return torch.where(known > 0, values, filled(values, known * near))


def filled(values: Float[Tensor, "1 c r r"], known: Float[Tensor, "1 1 r r"]) -> Float[Tensor, "1 c r r"]:
    """Fill by coarser and coarser means (the push-pull of Gortler et al. 1996)."""
    values = values * known
    if values.shape[-1] <= 2:
        mean = values.sum((2, 3), keepdim=True) / known.sum().clamp(min=_TINY)
        return torch.where(known > 0, values, mean)
    odd = values.shape[-1] % 2
    padded, there = (F.pad(x, (0, odd, 0, odd)) for x in (values, known))
    share = F.avg_pool2d(there, 2)
    coarse = filled(F.avg_pool2d(padded, 2) / share.clamp(min=_TINY), (share > 0).to(values.dtype))
    size = padded.shape[-1]
    large = F.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)
    return torch.where(known > 0, values, large[..., : values.shape[-1], : values.shape[-1]])
