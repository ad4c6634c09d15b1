"""DECA's camera: a scaled orthographic projection into a square crop, and from the crop into the image.

Two kinds of coordinates: NDC, -1..1 over a picture with x right and y down, and pixels. A crop comes with
``tform [3,3]``, which takes source pixels to crop pixels, both with centres at integers.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def project(points: Float[Tensor, "b n 3"], cam: Float[Tensor, "b 3"]) -> Float[Tensor, "b n 3"]:
    """Return ``s (x + tx, y + ty, z)`` for cameras ``(s, tx, ty)``; y up, z toward the viewer."""
    shift = torch.nn.functional.pad(cam[:, 1:], (0, 1))
    return cam[:, None, :1] * (points + shift[:, None])


def to_ndc(points: Float[Tensor, "b n 3"], cam: Float[Tensor, "b 3"]) -> Float[Tensor, "b n 3"]:
    """Project head points into the crop: NDC x right, y down, z away from the viewer."""
    return project(points, cam) * points.new_tensor([1.0, -1.0, -1.0])


def ndc_to_pixels(points: Float[Tensor, "b n c"], width: int, height: int) -> Float[Tensor, "b n c"]:
    """Map NDC to continuous pixels (centres at +0.5), ``(v + 1) size / 2``; columns after x and y stay."""
    half = points.new_tensor([width, height]) / 2
    return torch.cat([(points[..., :2] + 1) * half, points[..., 2:]], -1)


def transform_points(
    points: Float[Tensor, "b n 3"],
    tform: Float[Tensor, "b 3 3"],
    crop_size: int = 224,
    image_wh: tuple[int, int] | None = None,
) -> Float[Tensor, "b n 3"]:
    """Crop NDC to the source image exactly as DECA does, half a pixel of either grid ignored.

    Args:
        points: NDC of the crop.
        tform: source to crop pixels.
        crop_size: side of the crop in pixels.
        image_wh: size of the source; the result is then in its NDC, else in its pixels. z stays.
    """
    pixels = (points[..., :2] * 0.5 + 0.5) * crop_size
    source = _through_inverse(pixels, tform)
    if image_wh is not None:
        source = source / source.new_tensor(image_wh) * 2 - 1
    return torch.cat([source, points[..., 2:]], -1)


def ndc_to_source(
    points: Float[Tensor, "b n 3"], tform: Float[Tensor, "b 3 3"], crop_size: int = 224
) -> Float[Tensor, "b n 3"]:
    """Map crop NDC to continuous pixels (centres at +0.5) of the source image; z stays.

    Every place maps to the very pixel that the crop was sampled from: a texture sampled there is the crop's
    own, at the source's resolution.
    """
    index = (points[..., :2] + 1) * (crop_size / 2) - 0.5
    return torch.cat([_through_inverse(index, tform) + 0.5, points[..., 2:]], -1)


def _through_inverse(pixels: Tensor, tform: Tensor) -> Tensor:
    # in double: crops of large photographs have translations of thousands of pixels
    inverse = torch.linalg.inv(tform.double())
    out = pixels.double() @ inverse[:, :2, :2].transpose(1, 2) + inverse[:, None, :2, 2]
    return out.to(pixels.dtype)
