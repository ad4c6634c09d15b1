"""The image terms that inversion and tuning share: distance of a rendered patch from what it shall show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.generators import PatchRender, VolumePatch
from portrait_core.inversion.features import feature_distance, masked_mean


@dataclass(frozen=True)
class Reconstruction:
    """Weights of the image terms, and how Φ looks.

    Attributes:
        perceptual: weight of the distance in Φ's feature space.
        l1: weight of the absolute colour difference, at the super-resolved and the volume-rendered size.
        l2: weight of the squared colour difference.
        phi_scale: size at which Φ sees pictures, over theirs: they are shrunk by area where it is below 1.
    """

    perceptual: float
    l1: float
    l2: float
    phi_scale: float = 1.0

    @torch.no_grad()
    def target_maps(
        self, phi: nn.Module, target: Float[Tensor, "b 3 h w"], weight: Float[Tensor, "b 1 h w"]
    ) -> list[Tensor] | None:
        """Return Φ's maps of ``M ⊙ I`` (equation 2), M the support of ``weight``; None where none are read.

        A target that does not change needs them once.
        """
        return phi(self._shrunk(target * (weight > 0))) if self.perceptual else None

    def __call__(
        self,
        phi: nn.Module,
        render: PatchRender,
        target: Float[Tensor, "b 3 h w"],
        weight: Float[Tensor, "b 1 h w"],
        target_maps: list[Tensor] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the weighted distance of a rendered patch from the target's patch.

        Φ's maps are averaged with the weights. Where there is a volume, colours are compared at the size of
        its rendering too, so that the super-resolution alone does not carry the picture. ``target_maps`` are
        those of :meth:`target_maps` for the same target and weights, computed here where they are None.
        """
        loss = target.new_zeros(())
        if self.perceptual:
            if target_maps is None:
                target_maps = self.target_maps(phi, target, weight)
            maps = phi(self._shrunk(render.image * (weight > 0)))
            loss = loss + self.perceptual * feature_distance(maps, target_maps or [], weight)
        if self.l1:
            loss = loss + self.l1 * masked_mean((render.image - target).abs(), weight)
            if isinstance(render, VolumePatch):
                scale = target.shape[-1] // render.raw.shape[-1]
                small, small_weight = F.avg_pool2d(target, scale), F.avg_pool2d(weight, scale)
                loss = loss + self.l1 * masked_mean((render.raw - small).abs(), small_weight)
        if self.l2:
            loss = loss + self.l2 * masked_mean((render.image - target).square(), weight)
        return loss

    def _shrunk(self, image: Tensor) -> Tensor:
        if self.phi_scale >= 1:
            return image
        size = round(image.shape[-1] * self.phi_scale)
        return F.interpolate(image, (size, size), mode="area")


def phi_scale(image_side: int, phi_side: int | None) -> float:
    """Return the size at which Φ sees a picture of ``image_side`` pixels, over the picture's size.

    Pictures that are no larger than ``phi_side`` stay as they are (PTI's projector, after Karras et al. 2020,
    appendix D).
    """
    return 1.0 if phi_side is None else min(1.0, phi_side / image_side)
