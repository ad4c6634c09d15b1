"""The paper's tracker: DECA's code and EG3D's camera of frames, by landmarks of the embedded detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.tracking.deca import DecaCode, DecaEncoder
from portrait_core.tracking.deca_crop import crop_faces
from portrait_core.tracking.deep3d import Deep3DEncoder
from portrait_core.tracking.landmarks68 import five_points, mesh_to_68
from portrait_core.tracking.wild_crop import WildCrops, crop_in_the_wild


@dataclass(frozen=True)
class PaperFrames:
    """What the paper's networks say of n frames; tensors on the CPU."""

    code: DecaCode
    """Shape, expression, pose (head, jaw), camera."""
    tform: Float[Tensor, "n 3 3"]
    """Frame to DECA's crop, pixels with centres at integers, float64."""
    wild: WildCrops
    """Generator crops ``[n,512,512,3]``, camera labels ``[n,25]``, where the crops lie."""

    @property
    def jaw(self) -> Float[Tensor, "n 3"]:
        """The jaw's rotation, axis-angle in radians."""
        return self.code.pose[:, 3:]


class PaperTracker:
    """Holds both networks. Frames are independent of each other, and may be given in any grouping."""

    def __init__(self, deca: DecaEncoder, deep3d: Deep3DEncoder, batch: int = 16):
        self.deca, self.deep3d, self.batch = deca, deep3d, batch

    @torch.no_grad()
    def track(
        self, frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], landmarks: NDArray[np.floating]
    ) -> PaperFrames:
        """Encode frames that have a face.

        Args:
            frames: n images ``[H,W,3]`` uint8 RGB.
            landmarks: ``[n,468 or 478,2]`` continuous pixels, from ``FaceLandmarker``; all finite.

        Raises:
            ValueError: if numbers or shapes do not fit together, or landmarks are not finite.
        """
        device = next(self.deca.parameters()).device
        crops = crop_faces(frames, mesh_to_68(landmarks), device=device)
        code = self.deca.encode(crops.images, self.batch)
        wild = crop_in_the_wild(frames, five_points(landmarks), self.deep3d, batch=self.batch)
        return PaperFrames(DecaCode(*(part.cpu() for part in code)), crops.tform.cpu(), wild)
