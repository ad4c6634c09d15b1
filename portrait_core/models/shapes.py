"""Names and shapes of the entries in published checkpoints: those of the networks that they are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import nn

Shapes = Mapping[str, tuple[int, ...]]

LPIPS_CHANNELS = (64, 128, 256, 512, 512)
"""Channels of VGG16's maps that LPIPS weighs."""


def _shapes(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's entries, without memory for them."""
    with torch.device("meta"):
        state = build().state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


@cache
def vgg16_shapes() -> Shapes:
    """Convolutions of VGG16, 26 entries."""
    from torchvision.models import vgg16

    shapes = _shapes(lambda: vgg16(weights=None))
    return {name: shape for name, shape in shapes.items() if name.startswith("features.")}


@cache
def deca_encoder_shapes() -> Shapes:
    """DECA's coefficient encoder, 322 entries."""
    from portrait_core.tracking.deca import DecaEncoder

    return _shapes(DecaEncoder)


@cache
def deep3d_shapes() -> Shapes:
    """Deep3DFaceRecon's coefficient regressor, 332 entries."""
    from portrait_core.tracking.deep3d import Deep3DEncoder

    return _shapes(Deep3DEncoder)
