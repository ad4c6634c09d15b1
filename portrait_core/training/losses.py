"""Losses of the embedded generator's supervised training.

Every picture comes with depth and coverage, so most steps supervise colour and density at the true surface
directly, which is several times cheaper than volume rendering and trains features far sooner; volume
rendering and super-resolution join later in the schedule.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from portrait_core.cameras import crop_rays
from portrait_core.generators import Planes, Rays, RaySampler, RaySampling, TriPlaneGenerator
from portrait_core.inversion.features import FeatureExtractor, feature_distance
from portrait_core.training.shards import ViewBatch

NEAR, FAR = 2.25, 3.15
"""Range of distances along a ray that can hold foreground (box units)."""
SAMPLING = RaySampling(near=NEAR, far=FAR, n_coarse=16, n_fine=10, coarse_grad=False)
"""Samples per ray in training: half of those in rendering."""
SURFACE_RANGE = (-0.004, 0.012)
"""Range around the surface in which it has its colour (box units): more behind it, as a rendered ray
accumulates colour until enough is absorbed."""
SOLID = 0.95
"""Coverage above which a pixel counts as pure foreground."""
OCCUPANCY_WEIGHT, DEPTH_WEIGHT, ALPHA_WEIGHT, BACKGROUND_WEIGHT = 0.6, 1.0, 0.5, 0.5
EDGE_WEIGHT, PERCEPTUAL_WEIGHT, PAIR_WEIGHT = 0.5, 0.1, 1.0
RAY_SHARES = (0.25, 0.2, 0.35)
"""Fractions of the rays that are uniform, central and at the mouth, if nothing else is asked for; the rest is
at the eyes."""
PATCH_SHARES = (0.4, 0.25)
"""Fractions of the patches at the mouth and at an eye, if nothing else is asked for; the rest is anywhere."""
MARGIN = 4
"""Width in pixels of a super-resolved patch's border that losses exclude."""


def colour_loss(difference: Tensor) -> Tensor:
    """Return L1 plus 1.5 times L2: L1 alone leaves small saturated features (iris, lash line) grey."""
    return difference.abs().mean() + 1.5 * difference.square().mean()


def paired_colour_loss(difference: Tensor, paired: bool) -> Tensor:
    """Return :func:`colour_loss` of ``difference [B,...]``, and for pairs that of the error's change.

    Rows are ``paired`` where they show one person and camera in two expressions. The change of the error
    between the expressions is free of the generator's errors about the person, and determines how a face
    moves in use.
    """
    loss = colour_loss(difference)
    return loss + PAIR_WEIGHT * colour_loss(difference[0::2] - difference[1::2]) if paired else loss


def _gather(maps: Tensor, index: Tensor) -> Tensor:
    """Pick pixels ``index [B,N]`` of ``maps [B,C,H,W]`` as ``[B,N,C]``."""
    flat = maps.flatten(2).transpose(1, 2)
    return torch.gather(flat, 1, index[..., None].expand(-1, -1, flat.shape[-1]))


def pick_rays(
    view: ViewBatch, count: int, rng: torch.Generator, shares: tuple[float, float, float] = RAY_SHARES
) -> Tensor:
    """Choose ``count`` rays per view ``[B,count]``, distributed as :data:`RAY_SHARES` are.

    Eyes and mouth are a few per cent of the picture and most of the expression.
    """
    size, batch = view.depth.shape[-1], len(view.depth)
    spread, central, at_mouth = (int(count * share) for share in shares)
    at_eyes = count - spread - central - at_mouth
    uniform = torch.rand(batch, spread, 2, generator=rng)
    centre = 0.18 + 0.64 * torch.rand(batch, central, 2, generator=rng)
    noise = torch.randn(batch, at_mouth + at_eyes, 2, generator=rng)
    mouth = view.key_points[:, :1] + noise[:, :at_mouth] * torch.tensor([0.07, 0.06])
    which = torch.randint(1, 3, (batch, at_eyes, 1), generator=rng).expand(-1, -1, 2)
    eyes = torch.gather(view.key_points, 1, which) + noise[:, at_mouth:] * torch.tensor([0.045, 0.03])
    pixel = (torch.cat([uniform, centre, mouth, eyes], dim=1) * size).long().clamp(0, size - 1)
    return pixel[..., 1] * size + pixel[..., 0]


def pick_corners(
    view: ViewBatch, patch: int, rng: torch.Generator, shares: tuple[float, float] = PATCH_SHARES
) -> Tensor:
    """Choose top left pixels ``[B,2]`` (row, column, at neural resolution) of one square patch per view.

    Patches lie on the mouth, on an eye, or anywhere, as :data:`PATCH_SHARES` are, off the centre by up to a
    quarter of the patch.
    """
    size, batch = view.depth.shape[-1], len(view.depth)
    draw = torch.rand(batch, generator=rng)
    point = torch.where(draw < shares[0], 0, torch.randint(1, 3, (batch,), generator=rng))
    centre = view.key_points[torch.arange(batch), point] * size  # [b,2] column, row
    centre = centre + (torch.rand(batch, 2, generator=rng) - 0.5) * (patch / 2)
    anywhere = torch.rand(batch, 2, generator=rng) * size
    centre = torch.where((draw < sum(shares))[:, None], centre, anywhere)
    return (centre.flip(1) - patch / 2).long().clamp(0, size - patch)


def background_loss(
    generator: TriPlaneGenerator, planes: Planes, view: ViewBatch, rng: torch.Generator
) -> Tensor:
    """Return the colour loss of the background plane at random points, also behind the head."""
    xy = torch.rand(len(view.wall), 512, 2, generator=rng) * 2 - 1
    target = F.grid_sample(view.wall, (xy * torch.tensor([1.0, -1.0]))[:, None], align_corners=False)
    features = generator.background_features(planes, xy)
    return colour_loss(features[..., :3] - target[:, :, 0].transpose(1, 2))


def surface_loss(
    generator: TriPlaneGenerator,
    planes: Planes,
    view: ViewBatch,
    index: Tensor,
    rng: torch.Generator,
    paired: bool = False,
) -> tuple[Tensor, Tensor]:
    """Supervise colour at the true surface, occupancy behind it, emptiness before it, and the background.

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
    near, far = SURFACE_RANGE
    offset = near + torch.rand(depth.shape, generator=rng) * (far - near)
    in_front = surface - torch.rand(depth.shape, generator=rng).square() * 0.5 - 0.012
    empty = NEAR + torch.rand(depth.shape, generator=rng) * (FAR - NEAR)
    free = torch.where(solid, in_front, empty)[:, ::2]
    behind = (surface + torch.rand(depth.shape, generator=rng) * 0.06 + 0.004)[:, 1::2]
    distance = torch.cat([surface + offset, free, behind], dim=1)
    direction_all = torch.cat([direction, direction[:, ::2], direction[:, 1::2]], dim=1)
    points = origin + distance[..., None] * direction_all
    features, sigma = (view.by_view(x) for x in generator.sample_points(planes, view.by_head(points)))

    occupancy_logit = sigma[:, count:, 0] * 0.5
    label = torch.cat([torch.zeros_like(free), torch.ones_like(behind)], dim=1)
    # Partly covered pixels (hair) do not tell what is solid; they are left to volume rendering.
    known = torch.cat([(solid | (alpha < 1 - SOLID))[:, ::2], solid[:, 1::2]], dim=1).float()
    occupancy = F.binary_cross_entropy_with_logits(occupancy_logit, label, weight=known)

    rays = Rays(view.by_head(origin.expand_as(direction)), view.by_head(direction))
    wall = generator.background_along(planes, rays)
    if wall is None:
        raise ValueError("training needs a generator with a background plane; set background in its settings")
    wall = view.by_view(wall)
    blended = alpha[..., None] * features[:, :count] + (1 - alpha[..., None]) * wall
    target = _gather(view.image_half, index)
    loss = 2 * paired_colour_loss(blended[..., :3] - target, paired) + OCCUPANCY_WEIGHT * occupancy
    return loss, blended


def rendering_loss(
    generator: TriPlaneGenerator,
    planes: Planes,
    view: ViewBatch,
    index: Tensor,
    rng: torch.Generator,
    paired: bool = False,
) -> tuple[Tensor, Tensor]:
    """Supervise colour, depth and coverage of volume-rendered rays.

    Returns:
        The loss and the rendered features ``[B,N,C]``.
    """
    origins, directions = crop_rays(view.camera, view.depth.shape[-1])
    direction = torch.gather(directions, 1, index[..., None].expand(-1, -1, 3))
    rays = Rays(view.by_head(origins[:, :1].expand_as(direction)), view.by_head(direction))
    rendered = generator.render_rays(planes, rays, RaySampler(SAMPLING, jitter=True, rng=rng))
    features, distance, accumulation = (
        view.by_view(x) for x in (rendered.features, rendered.depth, rendered.accumulation)
    )
    depth = torch.gather(view.depth.flatten(1), 1, index)
    alpha = _gather(view.alpha_half, index)[..., 0]
    solid = ((depth > 0) & (alpha > SOLID)).float()
    loss = paired_colour_loss(features[..., :3] - _gather(view.image_half, index), paired)
    loss = loss + DEPTH_WEIGHT * ((distance - depth).abs() * solid).mean()
    return loss + ALPHA_WEIGHT * (accumulation - alpha).abs().mean(), features


def superresolution_loss(
    generator: TriPlaneGenerator,
    ws: Tensor,
    features: Tensor,
    view: ViewBatch,
    corners: Tensor,
    patch: int,
    extractor: FeatureExtractor | None = None,
    paired: bool = False,
) -> Tensor:
    """Supervise colour, edges and (with an ``extractor``) perceptual features of super-resolved patches.

    Args:
        generator: the generator.
        ws: latents of the heads ``[I,rows,w]``.
        features: rendered features at neural resolution ``[B,patch*patch,C]``.
        view: the true pictures.
        corners: top left pixels of the patches ``[B,2]``; see :func:`pick_corners`.
        patch: side of a patch in pixels of the neural resolution.
        extractor: extracts perceptual features; None leaves that loss out.
        paired: whether rows are pairs of expressions.
    """
    maps = features.transpose(1, 2).unflatten(2, (patch, patch))
    ws = ws.repeat_interleave(view.views, dim=0)
    # the convolutions see zeros beyond a patch, where the picture continues: its border is excluded
    inner = slice(MARGIN, 2 * patch - MARGIN)
    superresolved = generator.superresolve(maps, ws)[..., inner, inner]
    target = torch.stack(
        [
            image[:, 2 * y : 2 * (y + patch), 2 * x : 2 * (x + patch)][..., inner, inner]
            for image, (y, x) in zip(view.image, corners.tolist(), strict=True)
        ]
    )
    loss = paired_colour_loss(superresolved - target, paired)
    loss = loss + EDGE_WEIGHT * edge_loss(superresolved - target)
    if extractor is None:
        return loss
    with torch.no_grad():
        target_features = extractor(target)
    return loss + PERCEPTUAL_WEIGHT * feature_distance(extractor(superresolved), target_features)


def edge_loss(difference: Tensor) -> Tensor:
    """Return L1 of the horizontal and vertical differences of ``difference [B,3,H,W]``."""
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def patch_rays(size: int, corners: Tensor, patch: int) -> Tensor:
    """Return ray indices ``[B,patch*patch]`` of square patches with top left pixels ``corners [B,2]``."""
    steps = torch.arange(patch)
    rows, columns = corners[:, :1] + steps, corners[:, 1:] + steps  # [b,p]
    return (rows[:, :, None] * size + columns[:, None]).flatten(1)
