"""A tuned generator without a volume: frame i's face on the first frame's render, and nothing turns.

The 2D counterpart of :mod:`.pose_renderer`, for the paper's comparison with a 2D GAN (section 4.1). Its masks
lie where they are needed already, so that nothing is reprojected.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.generators import ImageGenerator
from portrait_core.inversion.targets import image_array
from portrait_core.rendering.compositing import composite, soften
from portrait_core.settings import CompositeSettings


class StillRenderer:
    """Renders and composites frames of one clip. Read-only: frames may be rendered in any order, anywhere.

    Args:
        generator: the tuned generator, in eval mode.
        first: the first frame's latent ``[1,rows,w]``.
        first_face: its face mask in the generator's crop ``[1,1,S,S]`` in 0..1.
        camera: the portrait's camera ``[1,25]``.
        compositing: edge of the face.
    """

    def __init__(
        self,
        generator: ImageGenerator,
        first: Float[Tensor, "1 rows w"],
        first_face: Float[Tensor, "1 1 s s"],
        camera: Float[Tensor, "1 25"],
        compositing: CompositeSettings,
    ) -> None:
        self.generator, self.camera, self.settings = generator, camera, compositing
        self._first_face = first_face
        self._first = self._image(first)

    @torch.no_grad()
    def _image(self, ws: Tensor) -> Tensor:
        return self.generator.render_image(ws, self.camera).clamp(-1, 1)

    @torch.no_grad()
    def render(self, ws: Float[Tensor, "1 rows w"], face: Float[Tensor, "1 1 s s"]) -> NDArray[np.uint8]:
        """Render frame i ``[S,S,3]`` uint8: ``ws`` is its latent, and ``face`` its face mask."""
        settings, own = self.settings, self._image(ws)
        if settings.mode == "whole":
            return image_array(own[0])
        mask = face.maximum(self._first_face) if settings.union_first else face
        mask = soften(mask, settings.dilate_px, settings.feather_px)
        return image_array(composite(own, self._first, mask)[0])
