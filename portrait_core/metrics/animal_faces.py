"""Whether a face that the landmark networks accept is an animal's.

The face mesh takes dogs and monkeys for people, with a presence of 0.95 to 1. EfficientNet-lite0 (Tan and Le
2019; Apache-2.0, it comes with the installation) knows 398 kinds of animals among ImageNet's thousand
classes, and of people and paintings it sees clothes: on faces of people the animals together have a
probability below 0.2, on those of animals above 0.7.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from portrait_core.face_model.topology import N_MESH
from portrait_core.inversion.features import efficientnet_lite0
from portrait_core.tracking.crop import crop_image

ANIMAL = 0.5
"""Probability from which on a face is called an animal's."""
_ANIMAL_CLASSES = 398
"""ImageNet's classes begin with the animals."""
_SIDE = 224
_MARGIN = 2.0
"""Side of the square that the network sees, over the face's."""


class AnimalReader:
    """Reads how probably faces are animals'."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._network: nn.Module = efficientnet_lite0().eval().requires_grad_(False).to(device)
        self._device = device

    def read(self, picture: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the probability that each face of a picture is an animal's.

        Args:
            picture: ``[H,W,3]`` uint8 RGB.
            points: landmarks ``[k,478,2]`` in pixels; NaN where there is no face.

        Returns:
            ``[k]`` in 0..1, NaN where there is no face.
        """
        known = np.flatnonzero(np.isfinite(points[:, 0, 0]))
        found = np.full(len(points), np.nan, np.float32)
        if len(known) == 0:
            return found
        mesh = points[known, :N_MESH]
        sides = _MARGIN * (mesh.max(axis=1) - mesh.min(axis=1)).max(axis=-1)
        crops = [
            crop_image(picture, center, float(side), _SIDE)
            for center, side in zip(mesh.mean(axis=1), sides, strict=True)
        ]
        levels = torch.from_numpy(np.stack(crops)).to(self._device).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            # the network's own normalisation of grey levels of 255
            classes = self._network((levels - 127) / 128).softmax(1)
        found[known] = classes[:, :_ANIMAL_CLASSES].sum(1).cpu().numpy()
        return found
