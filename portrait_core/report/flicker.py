"""Temporal flicker outside the composited face: consecutive frames compared."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from portrait_core.cameras import project_to_crop
from portrait_core.generators import Rays


def moved_difference(
    frames: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    depths: NDArray[np.floating],
    cameras: NDArray[np.floating],
) -> float | None:
    """Return the mean absolute difference of two consecutive frames outside the face.

    The camera's motion is undone.

    Every pixel of the second frame is followed along its depth into the first frame's camera. What is left
    is what hair, clothes and background do by themselves.

    Args:
        frames: two frames ``[2,S,S,3]`` uint8.
        masks: where frame i's own face was laid on ``[2,S,S]`` uint8, 0..255.
        depths: distance along the ray ``[2,R,R]``, box units.
        cameras: camera labels ``[2,25]``.

    Returns:
        Grey levels of 255, or None when nothing of the second frame is seen in the first.
    """
    size = depths.shape[-1]
    labels = torch.from_numpy(np.asarray(cameras, np.float32))
    depth = torch.from_numpy(np.asarray(depths, np.float32))[:, None]
    points = Rays.of_cameras(labels[1:], size).points(depth[1:].flatten(1))
    pixels = project_to_crop(labels[:1], points, 1)
    grid = (pixels[..., :2] * 2 - 1).reshape(1, size, size, 2)
    images = F.interpolate(_tensor(frames).permute(0, 3, 1, 2), (size, size), mode="area")
    still = 1 - F.interpolate(_tensor(masks)[:, None] / 255, (size, size), mode="area")
    seen = F.grid_sample(images[:1], grid, padding_mode="zeros", align_corners=False)
    reached = F.grid_sample(depth[:1], grid, padding_mode="zeros", align_corners=False)
    distance = (points - labels[:1, None, [3, 7, 11]]).norm(dim=-1).reshape(1, 1, size, size)
    free = F.grid_sample(still[:1], grid, padding_mode="zeros", align_corners=False)
    counted = (still[1:] > 0.999) & (free > 0.999) & ((distance - reached).abs() < 0.02)
    if not bool(counted.any()):
        return None
    difference = (images[1:] - seen).abs().mean(1, keepdim=True)
    return float(difference[counted].mean())


def still_difference(frames: NDArray[np.uint8], coverage: NDArray[np.uint8]) -> float | None:
    """Return the mean absolute difference of two consecutive frames where neither shows the person.

    The camera does not move.

    Args:
        frames: ``[2,M,M,3]`` uint8.
        coverage: of the person ``[2,M,M]`` uint8, 0..255.

    Returns:
        Grey levels of 255, or None when the person is everywhere.
    """
    behind = (coverage == 0).all(0)
    if not behind.any():
        return None
    first, second = (np.asarray(frame[behind], np.int16) for frame in frames)
    return float(np.abs(second - first).mean())


def mean_difference(found: Iterable[float | None]) -> float | None:
    """Average differences of pairs of frames: four decimals, or None when it is known of no pair."""
    known = [value for value in found if value is not None]
    return round(float(np.mean(known)), 4) if known else None


def _tensor(values: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()
