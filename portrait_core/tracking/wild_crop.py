"""EG3D's crop and camera label of any photograph, in one call.

Five points a face decide both: the 224-pixel crop that the pose regressor sees, and the 512-pixel crop that
the generator was trained on (a 700-pixel square out of 1024, resized).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from portrait_core.cameras.eg3d import CenterMode, labels_from_deep3d
from portrait_core.tracking.deep3d import Deep3DCoefficients, Deep3DEncoder
from portrait_core.tracking.encoders import INPUT_SIZE, as_input
from portrait_core.tracking.five_points import STANDARD_FACE, Alignment, align, cut

Array = NDArray[np.float64]
Images = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]

OUTPUT_SIZE = 512
ALIGNED_SIZE, CENTER_SIZE = 1024, 700
"""Pixels of the aligned square, and of its middle, which is resized to the output."""
_RESCALE = 300.0


@dataclass(frozen=True)
class CropPlacement:
    """Places of n crops: ``crop = image * factor + shift`` in continuous pixels (centres at +0.5)."""

    factor: Array
    """``[n,2]``, x then y."""
    shift: Array
    """``[n,2]`` in pixels of the crop, x then y."""

    def to_crop(self, points: NDArray[np.floating]) -> Array:
        """Map points ``[n,k,2]`` of the images to their crops."""
        return np.asarray(points * self.factor[:, None] + self.shift[:, None])

    def to_image(self, points: NDArray[np.floating]) -> Array:
        """Map points ``[n,k,2]`` of the crops to their images."""
        return np.asarray((points - self.shift[:, None]) / self.factor[:, None])


@dataclass(frozen=True)
class WildCrops:
    """Results of EG3D's preprocessing of n faces."""

    images: NDArray[np.uint8]
    """``[n,size,size,3]``, black outside of the photograph; 512 pixels unless asked otherwise."""
    cameras: NDArray[np.float32]
    """``[n,25]`` labels."""
    coefficients: Deep3DCoefficients
    """On the CPU, wherever the regressor is."""
    placement: CropPlacement


def crop_in_the_wild(
    images: Images,
    points5: NDArray[np.floating],
    encoder: Deep3DEncoder,
    mode: CenterMode = "orig",
    standard: Array = STANDARD_FACE,
    batch: int = 16,
    size: int = OUTPUT_SIZE,
) -> WildCrops:
    """Crop n photographs as EG3D was trained, and find their cameras.

    Args:
        images: ``[H,W,3]`` uint8 each, or one array; sizes may differ.
        points5: ``[n,5,2]``: eye at the image's left, eye at its right, nose, mouth's left and right corner;
            pixels with centres at integers (``landmarks68.five_points`` or a detector's).
        encoder: the pose regressor, on any device.
        mode: how cameras are centred; EG3D's own for photographs is ``orig``.
        standard: the standard face's five points.
        batch: faces at a time in the regressor.
        size: side of the generator's crops; 0 makes none of them, only their placement.

    Raises:
        ValueError: if numbers or shapes do not fit together.
        InputError: if the points of an image are no face.
    """
    seen = pose_crops(images, points5, standard)
    device = next(encoder.parameters()).device
    encoded = encoder.encode(as_input(torch.from_numpy(seen).to(device)), batch)
    coefficients = Deep3DCoefficients(*(part.cpu() for part in encoded))
    angle, trans = (part.double().numpy() for part in (coefficients.angle, coefficients.trans))
    cameras = labels_from_deep3d(angle, trans, mode).astype(np.float32)
    crops, placement = generator_crops(images, points5, standard, size)
    return WildCrops(crops, cameras, coefficients, placement)


def pose_crops(
    images: Images, points5: NDArray[np.floating], standard: Array = STANDARD_FACE
) -> NDArray[np.uint8]:
    """Cut the crops ``[n,224,224,3]`` of the pose regressor; arguments as above."""
    found = align(points5, _sizes(images, points5), INPUT_SIZE, standard=standard)
    return np.stack([cut(image, found, i) for i, image in enumerate(images)])


def generator_crops(
    images: Images, points5: NDArray[np.floating], standard: Array = STANDARD_FACE, size: int = OUTPUT_SIZE
) -> tuple[NDArray[np.uint8], CropPlacement]:
    """Cut the crops ``[n,size,size,3]`` that the generator was trained on, and return their places.

    Size 0 cuts none, and returns the places of crops of 512 pixels.
    """
    found = generator_alignment(points5, _sizes(images, points5), standard)
    crops = [np.zeros((0, 0, 3), np.uint8)] * len(images)
    if size:
        middles = [Image.fromarray(cut(image, found, i, CENTER_SIZE)) for i, image in enumerate(images)]
        crops = [np.asarray(one.resize((size, size), Image.Resampling.LANCZOS)) for one in middles]
    factor, shift = found.to_square()
    inset, ratio = (ALIGNED_SIZE - CENTER_SIZE) // 2, (size or OUTPUT_SIZE) / CENTER_SIZE
    return np.stack(crops), CropPlacement(factor * ratio, (shift - inset) * ratio)


def generator_alignment(
    points5: NDArray[np.floating], size_wh: NDArray[np.integer], standard: Array = STANDARD_FACE
) -> Alignment:
    """Return the resizing for the generator's crop, of which the middle 700 of 1024 pixels are used."""
    return align(points5, size_wh, ALIGNED_SIZE, _RESCALE, standard)


def _sizes(images: Images, points5: NDArray[np.floating]) -> NDArray[np.int64]:
    if len(images) != len(points5) or not len(images):
        raise ValueError(f"got {len(images)} images and five points of {len(points5)}; pass one face each")
    return np.array([image.shape[1::-1] for image in images], dtype=np.int64)
