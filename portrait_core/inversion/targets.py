"""Targets of fitting: templates, the portrait around them, and per-pixel weights."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.face_model.topology import N_MESH


@dataclass(frozen=True)
class FrameTarget:
    """One frame at the portrait's camera.

    Attributes:
        image: ``[3,S,S]`` in [-1,1]: the expression template (inversion) or ``I_GT`` (tuning).
        face: the whole face, mouth included, ``[1,S,S]`` in 0..1; ``M_face`` is ``face * (1 - mouth)``.
        mouth: the mouth's inside ``[1,S,S]`` in 0..1.
        detail: 1 on mouth, eyes and brows, soft ``[1,S,S]``; None where it has no weight.
        uncovered: portrait face that the template leaves bare: no loss there ``[1,S,S]``.
    """

    image: Tensor
    face: Tensor
    mouth: Tensor
    detail: Tensor | None
    uncovered: Tensor


def image_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Convert ``[S,S,3]`` uint8 to ``[3,S,S]`` float32 in [-1,1]."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 127.5 - 1


def image_array(image: Tensor) -> NDArray[np.uint8]:
    """Convert ``[C,H,W]`` in [-1,1] to ``[H,W,C]`` uint8, clipped."""
    clipped = ((image.detach().clamp(-1, 1) + 1) * 127.5).round().byte()
    return np.asarray(clipped.permute(1, 2, 0).cpu().numpy())


def mask_tensor(mask: NDArray[np.uint8]) -> Tensor:
    """Convert ``[S,S]`` uint8 (0..255) to ``[1,S,S]`` float32 in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(mask))[None].float() / 255


def photograph_masks(
    crop: NDArray[np.uint8], landmarks_px: NDArray[np.floating]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a photograph, and its masks, in a template's place.

    Its mouth is not drawn, and no part of it is disoccluded.

    Args:
        crop: ``[S,S,3]`` uint8.
        landmarks_px: of the face mesh in pixels of the crop ``[>=468,2]``.

    Returns:
        The picture ``[S,S,3]``, and ``[S,S]`` uint8 each: face (255 inside the landmarks' hull), mouth and
        uncovered (both 0).
    """
    nothing = np.zeros(crop.shape[:2], np.uint8)
    hull = cv2.convexHull(np.round(landmarks_px[:N_MESH]).astype(np.int32))
    face = np.asarray(cv2.fillConvexPoly(nothing.copy(), hull, 255), np.uint8)
    return crop, face, nothing, nothing


def tuning_image(
    template: NDArray[np.uint8],
    face: NDArray[np.uint8],
    mouth: NDArray[np.uint8],
    portrait: NDArray[np.uint8],
    inversion_render: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    """Make ``I_GT``: face from the template, mouth from the inversion's render, the rest from the portrait.

    The paper's equations 3 and 4 name the masks the other way round from its text and Fig. 2; the text is
    what is built. ``inversion_render=None`` takes the mouth from the template as well.

    Args:
        template: expression template ``[S,S,3]`` uint8.
        face: mask of the template's face ``[S,S]`` uint8, 0..255.
        mouth: mask of its mouth interior ``[S,S]`` uint8, 0..255.
        portrait: crop of the portrait ``[S,S,3]`` uint8.
        inversion_render: picture of the inverted latent ``[S,S,3]`` uint8, or None.
    """
    a, b = face[..., None] / 255.0, mouth[..., None] / 255.0
    out = portrait * (1 - np.clip(a + b, 0, 1)) + template * np.clip(a + b, 0, 1)
    if inversion_render is not None:
        out = out * (1 - b) + inversion_render * b
    return np.round(out).clip(0, 255).astype(np.uint8)
