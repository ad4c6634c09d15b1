"""Multi-view consistency by reprojection: one view warped into another with the method's own depth.

Every pixel of view A becomes a point in space by A's depth and is looked up in view B. Where B sees the same
point, both pictures must show one colour. No network and no truth is needed; only light that changes with
the view, and what interpolation blurs, cost a consistent method anything.

A method could win by hiding what does not agree, so the share of compared pixels stands beside the error.
Not compared are points outside B's picture or behind its camera, points that something nearer hides from B,
and edges of depth in either view, where a rendered depth lies between two surfaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from portrait_core.cameras import crop_rays, project_to_crop
from portrait_core.rendering.compositing import OCCLUSION_TOLERANCE, points_from_depth, sample

VARIANT = "reprojection by own depth, masked L1 and PSNR, pictures in 0..1, bilinear"
"""Name to stand beside every such number."""


@dataclass(frozen=True)
class DepthView:
    """Pictures with their depth; S pixels and R rays along a side, both square.

    Attributes:
        picture: ``[B,3,S,S]`` in [-1,1].
        depth: distance along the ray in box units ``[B,1,R,R]``; where it is not finite or not above 0 there
            is no surface.
        camera: labels ``[B,25]``.
    """

    picture: Float[Tensor, "b 3 s s"]
    depth: Float[Tensor, "b 1 r r"]
    camera: Float[Tensor, "b 25"]

    def __post_init__(self) -> None:
        count, size = len(self.picture), self.picture.shape[-1]
        side = self.depth.shape[-1]
        wanted = ((count, 3, size, size), (count, 1, side, side), (count, 25))
        shapes = tuple(tuple(value.shape) for value in (self.picture, self.depth, self.camera))
        if shapes != wanted:
            raise ValueError(
                f"picture, depth and camera are {shapes}, expected [B,3,S,S], [B,1,R,R] and [B,25]"
            )

    @classmethod
    def of(cls, rendered: Mapping[str, Tensor], camera: Float[Tensor, "b 25"]) -> DepthView:
        """Take what ``VolumeGenerator.synthesis`` rendered for camera labels."""
        return cls(rendered["image"].clamp(-1, 1), rendered["image_depth"], camera)


@dataclass(frozen=True)
class ViewAgreement:
    """Agreement of B pairs of views, on their device.

    Attributes:
        l1: mean absolute difference over the compared pixels and channels, pictures in 0..1 ``[B]``; NaN
            where no pixel was compared.
        psnr_db: the same as peak signal-to-noise ratio, peak 1 ``[B]``.
        visible: share of the pixels of view A (of those in its mask) that were compared ``[B]`` in 0..1.
    """

    l1: Float[Tensor, " b"]
    psnr_db: Float[Tensor, " b"]
    visible: Float[Tensor, " b"]


def depth_along_rays(depth: Float[Tensor, "b 1 r r"], camera: Float[Tensor, "b 25"]) -> Tensor:
    """Turn depth along the optical axis (z) into distance along each pixel's ray ``[B,1,R,R]``."""
    _, directions = crop_rays(camera, depth.shape[-1])
    forward = camera[:, :16].reshape(-1, 4, 4)[:, :3, 2]
    return depth / (directions @ forward[:, :, None]).reshape(depth.shape)


def view_agreement(
    a: DepthView,
    b: DepthView,
    mask: Bool[Tensor, "b 1 s s"] | None = None,
    tolerance: float = OCCLUSION_TOLERANCE,
) -> ViewAgreement:
    """Warp view B into view A and compare; nothing is read back from the device.

    It is not symmetric: the mean of both directions is what to report of a pair.

    Args:
        a: view whose pixels are compared.
        b: view of the same scene that is warped.
        mask: pixels of A that count, such as the person's; None: all.
        tolerance: in box units; depths that differ by more are of two surfaces.

    Raises:
        ValueError: if the views are not as many.
    """
    warped, seen = warp_view(a, b, tolerance)
    counts = torch.ones_like(seen) if mask is None else mask.to(torch.bool)
    compared = (seen & counts).to(warped.dtype)
    number = compared.sum((1, 2, 3))
    difference = (warped - a.picture) / 2 * compared

    def mean(values: Tensor) -> Tensor:
        return values.sum((1, 2, 3)) / (3 * number)  # 0 / 0 is NaN: no pixel was compared

    return ViewAgreement(
        l1=mean(difference.abs()),
        psnr_db=-10 * mean(difference.square()).log10(),
        visible=number / counts.sum((1, 2, 3)).clamp(min=1),
    )


def warp_view(
    a: DepthView, b: DepthView, tolerance: float = OCCLUSION_TOLERANCE
) -> tuple[Float[Tensor, "b 3 s s"], Bool[Tensor, "b 1 s s"]]:
    """Return view B's colours at the pixels of view A, and where B sees what A shows; 0 elsewhere.

    Raises:
        ValueError: if the views are not as many.
    """
    if len(a.picture) != len(b.picture):
        raise ValueError(f"{len(a.picture)} views cannot be compared with {len(b.picture)}; give pairs")
    size, far = a.picture.shape[-1], b.picture.shape[-1]
    own, clean_a = _surface(a.depth, tolerance)
    other, clean_b = _surface(b.depth, tolerance)
    own = F.interpolate(own, (size, size), mode="bilinear", align_corners=False)
    clean_a = F.interpolate(clean_a, (size, size), mode="nearest")
    points = points_from_depth(a.camera, own)
    projected = project_to_crop(b.camera, points.flatten(1, 2), 1).reshape(-1, size, size, 3)
    place = projected[..., :2].permute(0, 3, 1, 2)
    rim = 0.5 / far
    inside = ((place >= rim) & (place <= 1 - rim)).all(1, keepdim=True) & (projected[..., 2] > 0)[:, None]
    distance = (points - b.camera[:, None, None, 3:12:4]).norm(dim=-1)[:, None]
    hidden = distance - sample(other, place) > tolerance
    clean = (clean_a > 0) & (sample(clean_b, place, mode="nearest") > 0)
    seen = inside & clean & ~hidden
    return sample(b.picture, place) * seen, seen


def _surface(depth: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return depth with 1 where there is none, and where it is a smooth surface's (1, else 0).

    An edge is where depth bends by more than ``tolerance`` from ray to ray: a slope does not.
    """
    known = torch.isfinite(depth) & (depth > 0)
    filled = torch.where(known, depth, 1.0)
    padded = F.pad(filled, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] + padded[..., 1:-1, :-2] - 2 * filled
    down = padded[..., 2:, 1:-1] + padded[..., :-2, 1:-1] - 2 * filled
    bend = torch.maximum(across.abs(), down.abs())
    return filled, (known & (bend <= tolerance)).to(depth.dtype)
