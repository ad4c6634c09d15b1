"""Detail transfer: the photograph's own pixels on the rendered surface.

Every pixel of the output looks up, by the depth that the generator renders, where the portrait's camera saw
the same place, and takes the photograph's pixel (or the template's) from there as far as the place was seen
there. What was not seen is the generator's. At the portrait's own pose every pixel looks up itself, so the
photograph is reproduced whatever the depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from portrait_core.rendering.compositing import gaussian_blur, places_seen, sample
from portrait_core.rendering.surfaces import Surface, filled

TOLERANCE = 0.02
"""A point whose depth differs by this from what the portrait's camera sees there (box units; 1 cm on the
embedded head) begins to be doubted; at twice this nothing of it was seen."""
STRETCHED = (0.08, 0.25)
"""Area in the photograph over area in the output: less than the first was seen at too grazing an angle,
more than the second well enough."""
FOLDED = (4.0, 8.0)
"""The same at jumps of depth, where neighbours in the output lie far apart in the photograph."""

MATCHED, MAX_MATCH = 64, 0.2
"""Side in cells of the maps by which the generator's colours are brought to the photograph's, and how far
what it paints is believed to differ from what is seen around it (colours in [-1,1])."""


@dataclass(frozen=True)
class Lookup:
    """Places of output pixels in the picture that the portrait's camera took.

    Attributes:
        move: from each pixel to its place there ``[1,2,R,R]``, in shares of the picture's side.
        seen: how surely that camera saw it, and the person there or the background here and there
            ``[1,1,R,R]`` in 0..1.
    """

    move: Float[Tensor, "1 2 r r"]
    seen: Float[Tensor, "1 1 r r"]

    def place(self, size: int) -> Float[Tensor, "1 2 n n"]:
        """Return where each pixel of a picture of ``size`` pixels lies there, over the picture's side."""
        return places_of(self.move, size)


class SourceView:
    """The surface that the portrait's camera sees.

    Args:
        surface: of the latent whose pictures are looked up, at the portrait's camera, not bent.
        camera: that camera ``[1,25]``.
    """

    def __init__(self, surface: Surface, camera: Float[Tensor, "1 25"]) -> None:
        self.surface, self.camera = surface, camera
        self._maps = torch.cat([surface.depth, surface.accumulation], dim=1)

    def lookup(self, surface: Surface) -> Lookup:
        """Find where the pixels of another view's surface lie in this one's picture."""
        place = places_seen(self.camera, surface.points)
        own = pixel_places(place)
        depth, weight = sample(self._maps, place, "border").split(1, dim=1)
        origin = self.camera[:, None, None, 3:12:4]
        distance = (surface.points - origin).norm(dim=-1)[:, None]
        near = 1 - ((distance - depth).abs() / TOLERANCE - 1).clamp(0, 1)
        area = _area(place)
        known = near * _ramp(area, *STRETCHED) * (1 - _ramp(area, *FOLDED))
        agreed = 1 - _ramp((surface.accumulation - weight).abs(), 0.3, 0.7)
        # beside the person on both sides, depth is only continued, and the photograph knows who is there
        beside = 1 - _ramp(torch.maximum(surface.accumulation, weight), 0.2, 0.6)
        seen = known.maximum(beside) * agreed
        # where nothing moves, every pixel is its own, whatever the depth says
        still = 1 - _ramp((place - own).abs().amax(1, keepdim=True) * place.shape[-1], 0.05, 0.3)
        return Lookup(place - own, gaussian_blur(seen, 1.0).maximum(still))


def pixel_places(like: Float[Tensor, "b c r r"]) -> Float[Tensor, "1 2 r r"]:
    """Return places of a picture's own pixels: x and y over its side."""
    size = like.shape[-1]
    along = (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x, y])[None]


def places_of(move: Float[Tensor, "1 2 r r"], size: int) -> Float[Tensor, "1 2 n n"]:
    """Return where each pixel of a picture of ``size`` pixels lies that moves so, over the picture's side."""
    large = resized(move, size)
    return pixel_places(large) + large


def resized(picture: Float[Tensor, "1 c r r"], size: int, mode: str = "bilinear") -> Float[Tensor, "1 c n n"]:
    """Bring a picture to ``size`` x ``size`` pixels; a larger one by area."""
    if picture.shape[-1] == size:
        return picture
    if picture.shape[-1] > size:
        return F.interpolate(picture, (size, size), mode="area")
    return F.interpolate(picture, (size, size), mode=mode, align_corners=False)


def _ramp(x: Tensor, low: float, high: float) -> Tensor:
    """Return 0 up to ``low``, 1 from ``high``, and a smooth step in between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _area(place: Float[Tensor, "1 2 r r"]) -> Float[Tensor, "1 1 r r"]:
    """Return the area in the photograph over that in the output ``[1,1,r,r]``; 0 where it is turned over."""
    size = place.shape[-1]
    padded = F.pad(place, (1, 1, 1, 1), mode="replicate") * size
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    # at the border the differences span one pixel, not two
    for border in (across[..., :1], across[..., -1:], down[..., :1, :], down[..., -1:, :]):
        border.mul_(2)
    return (across[:, :1] * down[:, 1:] - across[:, 1:] * down[:, :1]).clamp(min=0)


def matched(
    painted: Float[Tensor, "1 3 h w"], found: Float[Tensor, "1 3 h w"], seen: Float[Tensor, "1 1 h w"]
) -> Float[Tensor, "1 3 h w"]:
    """Bring the generator's colours to those that were seen around them.

    The mean colour of what was seen of the person is continued smoothly over the rest, and the generator's
    colours differ from it as they differ from their own mean.

    Args:
        painted: by the generator.
        found: in the photograph.
        seen: how surely, 0..1.
    """
    size, sure = (MATCHED, MATCHED), (seen > 0.5).to(painted.dtype)
    share = F.adaptive_avg_pool2d(sure, size)
    both = F.adaptive_avg_pool2d(torch.cat([painted, found], dim=1) * sure, size) / share.clamp(min=1e-6)
    near = F.interpolate(filled(both, (share > 0.2).to(painted.dtype)), painted.shape[-2:], mode="bilinear")
    shown, true = near.split(3, dim=1)
    made = true + (painted - shown).clamp(-MAX_MATCH, MAX_MATCH)
    return torch.where((share > 0.2).any(), made, painted)  # nothing was seen of the person: nothing to match
