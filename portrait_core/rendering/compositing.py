"""Only the face moves: frame i's face laid on the first frame's render at the same pose (paper section 3.4).

Hair, shoulders and background come from the first frame's latent in every output frame, so they cannot
flicker; the face mask, known at the portrait's camera, is carried to the driver's camera with the depth that
the 3D GAN renders.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from portrait_core.cameras import project_to_crop
from portrait_core.generators import Rays

OCCLUSION_TOLERANCE = 0.03
"""A point farther from the source camera than the surface it projects to, by more than this, is hidden there
(box units; 1.5 cm on the embedded head)."""


def points_from_depth(
    camera: Float[Tensor, "b 25"], depth: Float[Tensor, "b 1 r r"]
) -> Float[Tensor, "b r r 3"]:
    """Return box-frame points at distances ``depth`` along the rays of a square image."""
    size = depth.shape[-1]
    points = Rays.of_cameras(camera, size).points(depth.flatten(1))
    return points.reshape(-1, size, size, 3)


def sample_at_points(
    image: Float[Tensor, "b c h w"], camera: Float[Tensor, "b 25"], points: Float[Tensor, "b r s 3"]
) -> Float[Tensor, "b c r s"]:
    """Read an image, seen by ``camera``, where box-frame points project to; 0 outside it."""
    return sample(image, places_seen(camera, points), "zeros")


def places_seen(camera: Float[Tensor, "b 25"], points: Float[Tensor, "b r s 3"]) -> Float[Tensor, "b 2 r s"]:
    """Give the places at which a camera sees ``points``: x and y over its picture's side, 0..1 inside it."""
    flat = project_to_crop(camera, points.flatten(1, 2), 1)[..., :2]
    return flat.unflatten(1, points.shape[1:3]).permute(0, 3, 1, 2)


def sample(
    picture: Float[Tensor, "b c n m"],
    place: Float[Tensor, "b 2 r s"],
    padding: str = "border",
    mode: str = "bilinear",
) -> Float[Tensor, "b c r s"]:
    """Read a picture at places given over its sides."""
    grid = (place * 2 - 1).permute(0, 2, 3, 1)
    return F.grid_sample(picture, grid, mode=mode, padding_mode=padding, align_corners=False)


def reproject_mask(
    mask: Float[Tensor, "b 1 h w"],
    source_camera: Float[Tensor, "b 25"],
    source_depth: Float[Tensor, "b 1 hs ws"],
    points: Float[Tensor, "b r s 3"],
    tolerance: float = OCCLUSION_TOLERANCE,
) -> Float[Tensor, "b 1 r s"]:
    """Carry a mask from the source camera to where another camera sees the surface ``points``.

    Every point is projected into the source view and takes the mask's value there, or 0 if something
    nearer (``source_depth``, distance along the ray in box units) hides it by more than ``tolerance``.

    Returns:
        The mask in 0..1, one value a point.
    """
    value = sample_at_points(mask, source_camera, points)
    nearest = sample_at_points(source_depth, source_camera, points)
    distance = (points - source_camera[:, None, None, 3:12:4]).norm(dim=-1)[:, None]
    # A ramp rather than a step: depth is smooth, and a hard test would draw its own jagged edge.
    visible = 1 - ((distance - nearest) / tolerance - 1).clamp(0, 1)
    return value * visible


def gaussian_blur(mask: Float[Tensor, "b c h w"], sigma_px: float) -> Float[Tensor, "b c h w"]:
    """Blur by a separable Gaussian with replicated borders; ``sigma_px`` 0 returns the input."""
    if sigma_px <= 0:
        return mask
    radius = max(1, int(3 * sigma_px + 0.5))
    x = torch.arange(-radius, radius + 1, dtype=mask.dtype, device=mask.device)
    kernel = torch.exp(-0.5 * (x / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).expand(mask.shape[1], 1, -1)
    padded = F.pad(mask, (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, kernel[:, :, None, :], groups=mask.shape[1])
    return F.conv2d(rows, kernel[:, :, :, None], groups=mask.shape[1])


def soften(mask: Float[Tensor, "b 1 h w"], dilate_px: float, feather_px: float) -> Float[Tensor, "b 1 h w"]:
    """Grow a mask by ``dilate_px`` and give it a soft edge ``feather_px`` wide (pixels of the mask)."""
    if dilate_px > 0:
        radius = max(1, round(dilate_px))
        mask = F.max_pool2d(mask, 2 * radius + 1, stride=1, padding=radius)
    return gaussian_blur(mask, feather_px / 2)


def composite(
    own: Float[Tensor, "b 3 h w"], first: Float[Tensor, "b 3 h w"], mask: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b 3 h w"]:
    """Return frame i's render ``own`` where ``mask`` is 1, the first frame's where it is 0."""
    return first + mask * (own - first)
