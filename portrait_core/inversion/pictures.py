"""Whole pictures of a generator, and every frame's face by the frozen one in the first frame's picture."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.generators import ImageGenerator, RaySampling
from portrait_core.inversion.features import feature_distance
from portrait_core.inversion.latent import Inverter
from portrait_core.inversion.targets import FrameTarget, image_array, image_tensor

_PATCH_EDGE_PX = 8
"""Soft edge of the rendered middle; the super-resolution is not right at a patch's very border."""


@torch.no_grad()
def picture_of(
    generator: ImageGenerator,
    ws: Float[Tensor, "1 rows w"],
    camera: Float[Tensor, "1 25"],
    resolution: int,
    sampling: RaySampling | None,
) -> NDArray[np.uint8]:
    """Return a generator's picture of a latent ``[S,S,3]`` uint8.

    Args:
        generator: in eval mode.
        ws: latent, on its device.
        camera: camera label, on its device.
        resolution: side of the volume rendering in rays.
        sampling: samples per ray; None: those of the generator's training.
    """
    return image_array(generator.render_image(ws, camera, resolution, sampling)[0])


def whole_picture(inverter: Inverter, ws: Float[Tensor, "1 rows w"]) -> NDArray[np.uint8]:
    """Return the frozen generator's picture of a latent ``[S,S,3]``."""
    return picture_of(inverter.generator, ws, inverter.camera, inverter.resolution, inverter.sampling)


@torch.no_grad()
def face_picture(
    inverter: Inverter, ws: Float[Tensor, "1 rows w"], target: FrameTarget, around: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], float]:
    """Return what the frozen generator makes of a latent, and how far that is from the target.

    Only the middle of the crop, where the face is, is rendered; ``around [S,S,3]`` (the first frame's whole
    picture) surrounds it.

    Returns:
        The picture ``[S,S,3]`` uint8, and the paper's equation 2, ``||Phi(M * I_hat) - Phi(M * G(w))||^2``
        with M the face, as a mean over Φ's unit vectors.
    """
    patch = inverter.middle
    made = inverter.generator.render_patch(ws, inverter.rays, patch, inverter.sampling).image
    face = patch.cut(target.face[None])
    wanted = inverter.phi(patch.cut(target.image[None]) * face)
    loss = feature_distance(inverter.phi(made * face), wanted, face)
    whole = image_tensor(around).to(made)[None]
    side = torch.linspace(-1, 1, made.shape[-1], device=made.device).abs()
    ramp = ((1 - side) * made.shape[-1] / 2 / _PATCH_EDGE_PX).clamp(0, 1)
    inside = patch.cut(whole)
    inside += ramp[:, None] * ramp[None] * (made - inside)
    return image_array(whole[0]), float(loss)
