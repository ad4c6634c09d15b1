"""DECA's face crop: a box around landmarks, a similarity into 224 pixels, bilinear sampling.

Pixels here have their centres at integers, as in DECA's files; see ``landmarks68`` for points of the embedded
detector, which are continuous pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.errors import InputError

Array = NDArray[np.float64]
Frames = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
Rule = Literal["kpt68", "bbox"]

CROP_SIZE = 224
"""Side of the crop that DECA's encoder sees, in pixels."""
_ENLARGED = 1.25
"""The crop's side over the face's."""


class FaceSquares(NamedTuple):
    """Places of n crops in their images, in pixels."""

    face_size: Array
    """``[n]``: size of the face, before the crop's margin."""
    center: Array
    """``[n,2]`` x, y."""
    size: NDArray[np.int64]
    """``[n]``: side of the crop."""


class FaceCrops(NamedTuple):
    """Crops of n faces, for the encoder and to find the way back."""

    images: Float[Tensor, "n 3 s s"]
    """Colours in 0..1, 0 outside the source image."""
    tform: Float[Tensor, "n 3 3"]
    """Source to crop pixels, float64."""


def crop_faces(
    frames: Frames,
    landmarks68: NDArray[np.floating],
    size: int = CROP_SIZE,
    device: str | torch.device = "cpu",
) -> FaceCrops:
    """Crop one face from each of n frames by its 68 landmarks.

    Args:
        frames: n images ``[H,W,3]`` uint8, or one array ``[n,H,W,3]``; sizes may differ.
        landmarks68: ``[n,68,2]`` pixels with centres at integers.
        size: side of the crops.
        device: where to sample.

    Raises:
        ValueError: if the numbers differ, a point is not finite, or a frame is not ``[H,W,3]`` uint8.
    """
    squares = face_squares(point_boxes(landmarks68), "kpt68")
    tform = square_transforms(squares, size)
    return FaceCrops(warp(frames, tform, size, device), torch.from_numpy(tform).to(device))


def point_boxes(points: NDArray[np.floating]) -> Array:
    """Return left, right, top, bottom ``[n,4]`` of points ``[n,k,2]``.

    Raises:
        ValueError: if they are not ``[n,k,2]``.
        InputError: if they are not finite.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 3 or points.shape[2] != 2:
        raise ValueError(f"landmarks must be [n,68,2], got {points.shape}; see landmarks68")
    if not np.isfinite(points).all():
        raise InputError("the landmarks of a face are not finite; was a face found in this frame?")
    low, high = points.min(1), points.max(1)
    return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)


def face_squares(boxes: Array, rule: Rule = "kpt68") -> FaceSquares:
    """Return the squares to crop around boxes ``[n,4]`` (left, right, top, bottom).

    ``kpt68`` is for boxes of landmarks, ``bbox`` for a face detector's.

    Raises:
        ValueError: for another rule.
        InputError: for a box without area.
    """
    left, right, top, bottom = np.asarray(boxes, dtype=np.float64).T
    mean_side = (right - left + bottom - top) / 2
    if not (mean_side > 0).all():
        raise InputError("a face box has no area; was a face found in this frame?")
    center = np.stack([right - (right - left) / 2, bottom - (bottom - top) / 2], axis=1)
    if rule == "kpt68":
        face_size = mean_side * 1.1
    elif rule == "bbox":
        face_size = mean_side
        center[:, 1] += face_size * 0.12
    else:
        raise ValueError(f"no crop rule {rule!r}; choose kpt68 or bbox")
    return FaceSquares(face_size, center, (face_size * _ENLARGED).astype(np.int64))


def square_transforms(squares: FaceSquares, size: int = CROP_SIZE) -> Array:
    """Return transforms ``[n,3,3]`` of source to crop pixels.

    A square's low corner goes to pixel 0, the high one to the centre of the last pixel.
    """
    scale = (size - 1) / squares.size
    tform = np.zeros((len(scale), 3, 3))
    tform[:, 0, 0] = tform[:, 1, 1] = scale
    tform[:, :2, 2] = -(squares.center - squares.size[:, None] / 2) * scale[:, None]
    tform[:, 2, 2] = 1.0
    return tform


def whole_image_transform(width: int, height: int, size: int = CROP_SIZE) -> Array:
    """Return the transform ``[1,3,3]`` that DECA takes for an image that is a crop already.

    It fits three corners by a similarity, which turns the picture unless it is square.
    """
    corners = np.array([[0, 0], [0, height - 1], [width - 1, 0]], dtype=np.float64)
    target = np.array([[0, 0], [0, size - 1], [size - 1, 0]], dtype=np.float64)
    return similarity(corners[None], target[None])


def similarity(source: Array, target: Array) -> Array:
    """Return the similarities ``[n,3,3]`` that map points ``[n,k,2]`` to others, by least squares.

    See Umeyama 1991; in the plane it is one complex division.
    """
    a, b = (np.asarray(p, dtype=np.float64) @ np.array([1, 1j]) for p in (source, target))
    mean_a, mean_b = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
    spread = (np.abs(a - mean_a) ** 2).sum(1)
    if not (spread > 0).all():
        raise InputError("all points of a face coincide; was a face found in this frame?")
    turn = (np.conj(a - mean_a) * (b - mean_b)).sum(1) / spread
    shift = mean_b[:, 0] - turn * mean_a[:, 0]
    zero, one = np.zeros_like(turn.real), np.ones_like(turn.real)
    rows = [turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag, zero, zero, one]
    return np.stack(rows, axis=1).reshape(-1, 3, 3)


def warp(
    frames: Frames,
    tform: Array,
    size: int,
    device: str | torch.device = "cpu",
) -> Float[Tensor, "n 3 s s"]:
    """Sample n images through transforms ``[n,3,3]`` of source to crop pixels.

    Bilinear without smoothing, black outside. Of each image only the part that its crop reaches is read.

    Returns:
        ``[n,3,size,size]`` float32 in 0..1.

    Raises:
        ValueError: if the numbers differ or a frame is not ``[H,W,3]`` uint8.
    """
    if len(frames) != len(tform) or not len(frames):
        raise ValueError(f"got {len(frames)} frames and {len(tform)} transforms; pass one each")
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    pixels = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3)
    source = (pixels @ np.linalg.inv(tform).transpose(0, 2, 1))[..., :2]  # n s*s 2
    low, high = (_reached(source, frames, end) for end in (0, 1))
    shape = (high - low).max(0)
    windows = np.zeros((len(frames), shape[1], shape[0], 3), dtype=np.uint8)
    for window, frame, (x0, y0), (x1, y1) in zip(windows, frames, low, high, strict=True):
        window[: y1 - y0, : x1 - x0] = frame[y0:y1, x0:x1]
    images = torch.from_numpy(windows).to(device).permute(0, 3, 1, 2).float() / 255
    grid = (source - low[:, None] + 0.5) / shape * 2 - 1
    flow = torch.from_numpy(grid.astype(np.float32)).to(device).view(-1, size, size, 2)
    return F.grid_sample(images, flow, padding_mode="zeros", align_corners=False)


def _reached(source: Array, frames: Frames, end: int) -> NDArray[np.int64]:
    """Return the low (``end`` 0) or high corners ``[n,2]`` of the windows that hold all pixels to be read."""
    corners = np.zeros((len(frames), 2), dtype=np.int64)
    for i, frame in enumerate(frames):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"frame {i} is {frame.shape} {frame.dtype}; expected [H,W,3] uint8 RGB")
        limit = np.array(frame.shape[1::-1])
        low = np.clip(np.floor(source[i].min(0)).astype(np.int64) - 1, 0, limit - 1)
        corners[i] = (
            low if end == 0 else np.clip(np.ceil(source[i].max(0)).astype(np.int64) + 2, low + 1, limit)
        )
    return corners
