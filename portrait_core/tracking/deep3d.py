"""Deep3DFaceRecon's regressor: an aligned crop to coefficients of the Basel face, its pose among them.

Deng et al. 2019, "Accurate 3D face reconstruction with weakly-supervised learning". The paper takes head
poses from it (section 3.3), as EG3D's training data did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.tracking.encoders import FEATURES, backbone, build, check_crops

COEFFICIENT_SIZES = {"id": 80, "exp": 64, "tex": 80, "angle": 3, "gamma": 27, "trans": 3}
"""Parts of the coefficients in their order."""
N_COEFFICIENTS = sum(COEFFICIENT_SIZES.values())
_HEADS = (80, 64, 80, 3, 27, 2, 1)  # as published, the translation in two


class Deep3DCoefficients(NamedTuple):
    """Coefficients of B faces."""

    id: Float[Tensor, "b 80"]
    exp: Float[Tensor, "b 64"]
    tex: Float[Tensor, "b 80"]
    angle: Float[Tensor, "b 3"]
    """Rotations about x, y, z in radians: see :func:`rotation`."""
    gamma: Float[Tensor, "b 3 9"]
    """Spherical harmonics of light, colour first; 0.8 is added to each first one."""
    trans: Float[Tensor, "b 3"]
    """Translation in the model's unit (a decimetre)."""


def split_coefficients(coefficients: Float[Tensor, "b 257"]) -> Deep3DCoefficients:
    """Name the parts of coefficients.

    Raises:
        ValueError: if they have not 257 numbers.
    """
    if coefficients.ndim != 2 or coefficients.shape[1] != N_COEFFICIENTS:
        got = tuple(coefficients.shape)
        raise ValueError(f"coefficients are [B,{N_COEFFICIENTS}], got {got}; pass Deep3DEncoder's output")
    parts = dict(
        zip(COEFFICIENT_SIZES, coefficients.split(list(COEFFICIENT_SIZES.values()), dim=1), strict=True)
    )
    parts["gamma"] = parts["gamma"].reshape(-1, 3, 9)
    return Deep3DCoefficients(**parts)


class Deep3DEncoder(nn.Module):
    """Aligned crop to coefficients. Named as the published ``net_recon``."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = backbone()
        self.final_layers = nn.ModuleList(nn.Conv2d(FEATURES, n, 1) for n in _HEADS)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Deep3DEncoder:
        """Take the published entries (``read_deep3d(path).net_recon``), all of them and no others.

        Raises:
            ValueError: if an entry is missing, unknown or misshaped.
        """
        return build(cls, state)

    def forward(self, images: Float[Tensor, "b 3 224 224"]) -> Float[Tensor, "b 257"]:
        """Return coefficients of aligned crops in 0..1.

        Raises:
            ValueError: if the crops have another size.
        """
        check_crops(images)
        features = self.backbone(images)[..., None, None]
        return torch.cat([layer(features) for layer in self.final_layers], 1).flatten(1)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b 3 224 224"], batch: int = 16) -> Deep3DCoefficients:
        """Return the coefficients of aligned crops in 0..1, at most ``batch`` of them at a time."""
        return split_coefficients(torch.cat([self(part) for part in images.split(batch)]))
