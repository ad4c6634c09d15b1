"""Losses of the embedded generator's supervised training.

Every picture comes with depth and coverage, so most steps supervise colour and density at the true surface
directly, which is several times cheaper than volume rendering and teaches features far sooner; volume
rendering and super-resolution join later in the schedule.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from portrait_core.cameras import crop_rays
from portrait_core.embedded.shards import ViewBatch
from portrait_core.generators import Planes, RaySampling, TriPlaneGenerator

NEAR, FAR = 2.25, 3.15
"""Range of distances along a ray that can hold foreground (box units)."""
SAMPLING = RaySampling(near=NEAR, far=FAR, n_coarse=16, n_fine=10, coarse_grad=False)
"""Samples a ray while training: half of what rendering takes."""
SURFACE_JITTER = 0.004
"""Standard deviation of the distance at which colour is supervised around the surface (box units)."""
SOLID = 0.95
"""Coverage above which a pixel counts as foreground alone."""
OCCUPANCY_WEIGHT, DEPTH_WEIGHT, ALPHA_WEIGHT, WALL_WEIGHT = 0.3, 1.0, 0.5, 0.5


def colour_loss(difference: Tensor) -> Tensor:
    """L1 plus 1.5 times L2: L1 alone leaves small saturated features (iris, lash line) grey."""
    return difference.abs().mean() + 1.5 * difference.square().mean()


def _gather(maps: Tensor, index: Tensor) -> Tensor:
    """Pick pixels ``index [B,N]`` of ``maps [B,C,H,W]`` as ``[B,N,C]``."""
    flat = maps.flatten(2).transpose(1, 2)
    return torch.gather(flat, 1, index[..., None].expand(-1, -1, flat.shape[-1]))


def pick_rays(view: ViewBatch, count: int, generator: torch.Generator) -> Tensor:
    """Choose ``count`` rays a view ``[B,count]``: a quarter each uniform, central, mouth and eyes.

    Eyes and mouth are a few per cent of the picture and most of the expression.
    """
    size, batch, quarter = view.depth.shape[-1], len(view.depth), count // 4
    uniform = torch.rand(batch, quarter, 2, generator=generator)
    centre = 0.18 + 0.64 * torch.rand(batch, quarter, 2, generator=generator)
    noise = torch.randn(batch, 2 * quarter, 2, generator=generator)
    mouth = view.key_points[:, :1] + noise[:, :quarter] * torch.tensor([0.07, 0.06])
    which = torch.randint(1, 3, (batch, quarter, 1), generator=generator).expand(-1, -1, 2)
    eyes = torch.gather(view.key_points, 1, which) + noise[:, quarter:] * torch.tensor([0.045, 0.03])
    pixel = (torch.cat([uniform, centre, mouth, eyes], dim=1) * size).long().clamp(0, size - 1)
    return pixel[..., 1] * size + pixel[..., 0]


def wall_loss(generator: TriPlaneGenerator, planes: Planes, view: ViewBatch, rng: torch.Generator) -> Tensor:
    """Colour of the wall at random points, behind the head too."""
    xy = torch.rand(len(view.wall), 512, 2, generator=rng) * 2 - 1
    target = F.grid_sample(view.wall, (xy * torch.tensor([1.0, -1.0]))[:, None], align_corners=False)
    features = generator.renderer.wall_features(planes, generator.decoder, xy)
    return colour_loss(features[..., :3] - target[:, :, 0].transpose(1, 2))


def surface_loss(
    generator: TriPlaneGenerator, planes: Planes, view: ViewBatch, index: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Colour at the true surface, occupancy just behind it and none before it, and the wall.

    Returns:
        The loss and the composited features ``[B,N,C]`` of the rays ``index``.
    """
    origins, directions = crop_rays(view.camera, view.depth.shape[-1])
    origin, direction = origins[:, :1], torch.gather(directions, 1, index[..., None].expand(-1, -1, 3))
    depth = torch.gather(view.depth.flatten(1), 1, index)
    alpha = _gather(view.alpha_half, index)[..., 0]
    solid = (depth > 0) & (alpha > SOLID)
    surface = torch.where(depth > 0, depth, torch.full_like(depth, FAR))

    count = index.shape[1]
    noise = torch.randn(depth.shape, generator=rng) * SURFACE_JITTER
    in_front = surface - torch.rand(depth.shape, generator=rng).square() * 0.5 - 0.012
    empty = NEAR + torch.rand(depth.shape, generator=rng) * (FAR - NEAR)
    free = torch.where(solid, in_front, empty)[:, ::2]
    behind = (surface + torch.rand(depth.shape, generator=rng) * 0.06 + 0.004)[:, 1::2]
    distance = torch.cat([surface + noise, free, behind], dim=1)
    direction_all = torch.cat([direction, direction[:, ::2], direction[:, 1::2]], dim=1)
    points = origin + distance[..., None] * direction_all
    features, sigma = (view.by_view(x) for x in generator.sample_points(planes, view.by_head(points)))

    occupancy_logit = sigma[:, count:, 0] * 0.5
    label = torch.cat([torch.zeros_like(free), torch.ones_like(behind)], dim=1)
    # Pixels with half a hair in them say nothing about what is solid: leave them to volume rendering.
    known = torch.cat([(solid | (alpha < 1 - SOLID))[:, ::2], solid[:, 1::2]], dim=1).float()
    occupancy = F.binary_cross_entropy_with_logits(occupancy_logit, label, weight=known)

    rays = (view.by_head(x) for x in (origin.expand_as(direction), direction))
    wall, _ = generator.renderer.background(planes, generator.decoder, *rays)
    if wall is None:
        raise ValueError("training needs a generator with a wall; set background in its settings")
    wall = view.by_view(wall)
    blended = alpha[..., None] * features[:, :count] + (1 - alpha[..., None]) * wall
    target = _gather(view.image_half, index)
    loss = 2 * colour_loss(blended[..., :3] - target) + OCCUPANCY_WEIGHT * occupancy
    return loss, blended


def rendering_loss(
    generator: TriPlaneGenerator, planes: Planes, view: ViewBatch, index: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Colour, depth and coverage of volume-rendered rays.

    Returns:
        The loss and the rendered features ``[B,N,C]``.
    """
    origins, directions = crop_rays(view.camera, view.depth.shape[-1])
    direction = torch.gather(directions, 1, index[..., None].expand(-1, -1, 3))
    origin = view.by_head(origins[:, :1].expand_as(direction))
    rays = generator.render_rays(
        planes, origin, view.by_head(direction), SAMPLING, jitter=True, generator=rng
    )
    features, distance, weight = (view.by_view(x) for x in (rays.features, rays.depth, rays.weight))
    depth = torch.gather(view.depth.flatten(1), 1, index)
    alpha = _gather(view.alpha_half, index)[..., 0]
    solid = ((depth > 0) & (alpha > SOLID)).float()
    loss = colour_loss(features[..., :3] - _gather(view.image_half, index))
    loss = loss + DEPTH_WEIGHT * ((distance - depth).abs() * solid).mean()
    return loss + ALPHA_WEIGHT * (weight - alpha).abs().mean(), features


def superresolution_loss(
    generator: TriPlaneGenerator,
    ws: Tensor,
    features: Tensor,
    view: ViewBatch,
    corner: tuple[int, int],
    patch: int,
) -> Tensor:
    """Colour of the super-resolved patch whose low-resolution features are ``[B,patch*patch,C]``."""
    maps = features.transpose(1, 2).reshape(len(features), -1, patch, patch)
    ws = ws.repeat_interleave(view.views, dim=0)
    y, x = 2 * corner[0], 2 * corner[1]
    return colour_loss(
        generator.superresolve(maps, ws) - view.image[:, :, y : y + 2 * patch, x : x + 2 * patch]
    )


def patch_rays(size: int, corner: tuple[int, int], patch: int, batch: int) -> Tensor:
    """Ray indices ``[B,patch*patch]`` of a square patch whose top left pixel is ``corner`` (row, column)."""
    rows = torch.arange(corner[0], corner[0] + patch)[:, None] * size
    columns = torch.arange(corner[1], corner[1] + patch)[None]
    return (rows + columns).reshape(1, -1).expand(batch, -1)
