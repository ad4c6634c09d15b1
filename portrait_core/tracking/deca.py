"""DECA's networks: a face crop to a FLAME code, and detail coefficients to a displacement map.

Feng et al. 2021, "Learning an animatable detailed 3D face model from in-the-wild images". The paper takes the
code's shape, expression, pose and camera (section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.tracking.encoders import FEATURES, backbone, build, check_crops

CODE_SIZES = {"shape": 100, "tex": 50, "exp": 50, "pose": 6, "cam": 3, "light": 27}
"""Parts of a code in their order."""
N_CODE = sum(CODE_SIZES.values())
N_DETAIL = 128
_HIDDEN = 1024
_JAW = 3
_MAP_START, _MAP_SCALE = 8, 0.01
_NORM_EPS = 0.8  # as published, for all norms of the detail decoder but the first


class DecaCode(NamedTuple):
    """The code of B faces; rows are independent."""

    shape: Float[Tensor, "b 100"]
    """Identity, in FLAME's standard deviations."""
    tex: Float[Tensor, "b 50"]
    """Albedo, for a model that is not part of this project."""
    exp: Float[Tensor, "b 50"]
    """Expression, in FLAME's standard deviations."""
    pose: Float[Tensor, "b 6"]
    """Global rotation, then the jaw's: axis-angles in radians."""
    cam: Float[Tensor, "b 3"]
    """Scale, then the shift in x and y, of the orthographic projection into the crop."""
    light: Float[Tensor, "b 9 3"]
    """Spherical harmonics: coefficient first, colour last."""


def split_code(parameters: Float[Tensor, "b 236"]) -> DecaCode:
    """Name the parts of a code.

    Raises:
        ValueError: if it has not 236 numbers.
    """
    if parameters.ndim != 2 or parameters.shape[1] != N_CODE:
        raise ValueError(f"a code is [B,{N_CODE}], got {tuple(parameters.shape)}; pass DecaEncoder's output")
    shape, tex, exp, pose, cam, light = parameters.split(list(CODE_SIZES.values()), dim=1)
    return DecaCode(shape, tex, exp, pose, cam, light.reshape(-1, 9, 3))


class DecaEncoder(nn.Module):
    """Crop to coefficients. Named as the published ``E_flame`` (236 outputs) and ``E_detail`` (128)."""

    def __init__(self, n_outputs: int = N_CODE):
        super().__init__()
        self.encoder = backbone()
        self.layers = nn.Sequential(nn.Linear(FEATURES, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, n_outputs))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], n_outputs: int = N_CODE) -> DecaEncoder:
        """Take the published entries (``read_deca(path).e_flame``), all of them and no others.

        Raises:
            ValueError: if an entry is missing, unknown or misshaped.
        """
        return build(cls, state, n_outputs)

    def forward(self, images: Float[Tensor, "b 3 224 224"]) -> Float[Tensor, "b n"]:
        """Return coefficients of crops in 0..1.

        Raises:
            ValueError: if the crops have another size.
        """
        check_crops(images)
        return self.layers(self.encoder(images))

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b 3 224 224"], batch: int = 16) -> DecaCode:
        """Return the codes of crops in 0..1, at most ``batch`` of them at a time."""
        return split_code(torch.cat([self(part) for part in images.split(batch)]))


class DetailDecoder(nn.Module):
    """Detail coefficients, expression and jaw to a displacement map ``[B,1,256,256]`` in metres (±0.01).

    Named as the published ``D_detail``. The paper does not use it.
    """

    def __init__(self, n_detail: int = N_DETAIL):
        super().__init__()
        n_input = _JAW + CODE_SIZES["exp"] + n_detail
        self.l1 = nn.Sequential(nn.Linear(n_input, 128 * _MAP_START**2))
        self.conv_blocks = nn.Sequential(
            nn.BatchNorm2d(128),
            *_doubled(128, 128),
            *_doubled(128, 64),
            *_doubled(64, 64),
            *_doubled(64, 32),
            *_doubled(32, 16),
            nn.Conv2d(16, 1, 3, padding=1),
            nn.Tanh(),
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> DetailDecoder:
        """Take the published entries, all of them and no others.

        Raises:
            ValueError: if an entry is missing, unknown or misshaped.
        """
        return build(cls, state)

    def forward(
        self, jaw: Float[Tensor, "b 3"], exp: Float[Tensor, "b 50"], detail: Float[Tensor, "b 128"]
    ) -> Float[Tensor, "b 1 256 256"]:
        """Return the map of the jaw's rotation, an expression and detail coefficients."""
        start = self.l1(torch.cat([jaw, exp, detail], 1)).reshape(-1, 128, _MAP_START, _MAP_START)
        return self.conv_blocks(start) * _MAP_SCALE


def _doubled(inputs: int, outputs: int) -> list[nn.Module]:
    """Double the size and convolve."""
    return [
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs, _NORM_EPS),
        nn.LeakyReLU(0.2),
    ]
