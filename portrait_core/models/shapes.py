"""Names and shapes of the entries in published checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import nn

Shapes = Mapping[str, tuple[int, ...]]

LPIPS_CHANNELS = (64, 128, 256, 512, 512)
"""Channels of VGG16's maps that LPIPS weighs."""
DECA_OUTPUTS = 236
"""shape 100, texture 50, expression 50, pose 6, camera 3, light 27"""
DEEP3D_OUTPUTS = (80, 64, 80, 3, 27, 2, 1)
"""identity, expression, texture, angles, light, translation in the image, and in depth"""
_FEATURES, _HIDDEN = 2048, 1024


def _named(build: Callable[[], nn.Module], without: str, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Shapes of a network's entries, without memory for them."""
    with torch.device("meta"):
        state = build().state_dict()
    return {
        f"{prefix}{name}": tuple(value.shape) for name, value in state.items() if not name.startswith(without)
    }


def resnet50_shapes(prefix: str) -> dict[str, tuple[int, ...]]:
    """ResNet-50 without its classifier, 318 entries."""
    from torchvision.models import resnet50

    return _named(lambda: resnet50(weights=None), "fc.", prefix)


@cache
def vgg16_shapes() -> Shapes:
    """Convolutions of VGG16, 26 entries."""
    from torchvision.models import vgg16

    return _named(lambda: vgg16(weights=None), "classifier.")


@cache
def deca_encoder_shapes() -> Shapes:
    """DECA's coefficient encoder, 322 entries."""
    return {
        **resnet50_shapes("encoder."),
        "layers.0.weight": (_HIDDEN, _FEATURES),
        "layers.0.bias": (_HIDDEN,),
        "layers.2.weight": (DECA_OUTPUTS, _HIDDEN),
        "layers.2.bias": (DECA_OUTPUTS,),
    }


@cache
def deep3d_shapes() -> Shapes:
    """Deep3DFaceRecon's coefficient regressor, 332 entries."""
    shapes = resnet50_shapes("backbone.")
    for index, count in enumerate(DEEP3D_OUTPUTS):
        shapes[f"final_layers.{index}.weight"] = (count, _FEATURES, 1, 1)
        shapes[f"final_layers.{index}.bias"] = (count,)
    return shapes
