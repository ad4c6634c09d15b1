"""Architecture of the embedded generator, and transfer of the weights of a narrower one to it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from portrait_core.generators import (
    BackgroundSettings,
    GeneratorSettings,
    RaySampling,
    SuperresolutionSettings,
    TriPlaneGenerator,
)
from portrait_core.training.losses import FAR, NEAR


def embedded_settings(latent_size: int) -> GeneratorSettings:
    """Return the settings of the shipped generator; :class:`GeneratorSettings` describes each.

    Most of its capacity is in the basis maps: per parameter and per second they learn more than the
    convolutions, and 256 dimensions of w allow their mixture to be non-linear in z. The last 32 dimensions,
    24 and 32 maps and 48 units of the mapping draw glasses alone (:mod:`portrait_core.training.grow`).
    """
    return GeneratorSettings(
        z_dim=latent_size,
        w_dim=288,
        c_dim=0,
        mapping_kind="scene",
        mapping_layers=3,
        mapping_width=432,
        ws_per_layer=False,
        channels={4: 128, 8: 128, 16: 128, 32: 80, 64: 40, 128: 16},
        plane_channels=16,
        use_noise=False,
        learned_constants=True,
        basis_planes={32: 128, 64: 216, 128: 128},
        base_plane=True,
        flow={16: 48, 64: 96},
        background=BackgroundSettings(resolution=64),
        plane_axes="orthogonal",
        plane_padding="border",
        open_top=True,
        box_warp=0.72,
        feature_channels=16,
        feature_activation="linear",
        density_gain=40.0,
        sampling=RaySampling(near=NEAR, far=FAR, n_coarse=24, n_fine=16),
        neural_resolution=128,
        superresolution=SuperresolutionSettings(
            input_resolution=128, channels=(32, 24), upsample=(False, True), resize_input=False
        ),
    )


@torch.no_grad()
def transplant(old: TriPlaneGenerator, new: TriPlaneGenerator) -> None:
    """Give ``new`` (as wide or wider in w, mapping and basis maps) very nearly the function of ``old``.

    New parameters start from their own random values, but no old output depends on new inputs, and new basis
    maps are mixed in with a tenth of their initial strength.

    Raises:
        ValueError: a tensor of ``old`` is larger than that of ``new`` or missing there.
    """
    state, grown = old.state_dict(), new.state_dict()
    gain = math.sqrt(new.settings.w_dim / old.settings.w_dim)  # equalised layers divide by its inverse
    for name, value in state.items():
        if name not in grown or value.ndim != grown[name].ndim:
            raise ValueError(f"{name} has no counterpart in the new generator; their blocks must be the same")
        target = grown[name]
        if ".affine.weight" in name:
            value = value * gain
        if ".style." in name:
            groups = 1 if "background" in name else 3
            value, target = value.unflatten(0, (groups, -1)), target.unflatten(0, (groups, -1))
        _into_corner(name, value, target)
    # thin densities are exponential in sigma - 1: a shift keeps empty space equally transparent
    ratio = new.settings.density_gain / old.settings.density_gain
    new.shift_density_(-math.log(ratio))


def _into_corner(name: str, value: Tensor, target: Tensor) -> None:
    if any(a > b for a, b in zip(value.shape, target.shape, strict=True)):
        raise ValueError(f"{name} shrinks from {tuple(value.shape)} to {tuple(target.shape)}")
    corner = tuple(slice(size) for size in value.shape)
    if ".style." in name:
        target[:, value.shape[1] :] *= 0.1
    reads_w = (
        name.endswith(("affine.weight", "style.weight", "out.weight", "linear.weight")) or ".hidden." in name
    )
    if reads_w and target.ndim > 1:
        target[(*corner[:-1], slice(value.shape[-1], None))] = 0  # old outputs ignore new inputs
    target[corner] = value
