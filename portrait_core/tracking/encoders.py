"""The common parts of the coefficient regressors: a ResNet-50 without its classifier, and strict loading.

He et al. 2016; the published weights are of the variant that strides in the 3x3 convolutions (v1.5), which is
torchvision's, down to the names of its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

FEATURES = 2048
INPUT_SIZE = 224
"""Side in pixels of the crops that the published weights were trained on."""


def backbone() -> nn.Module:
    """Build ResNet-50 from images ``[B,3,S,S]`` to features ``[B,2048]``, without trained weights."""
    from torchvision.models import resnet50  # five seconds, which runs without such a network need not spend

    network = resnet50(weights=None)
    network.fc = nn.Identity()
    return network


def build(kind: type[Network], state: Mapping[str, Tensor], *args: Any) -> Network:
    """Build a network in evaluation mode with exactly ``state``, its weights never drawn at random.

    Raises:
        ValueError: naming the entries that are missing, unknown or misshaped.
    """
    with torch.device("meta"):
        network = kind(*args)
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    wrong = [f"{name} is missing" for name in wanted if name not in state]
    wrong += [f"{name} is unknown" for name in state if name not in wanted]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)}, expected {shape}"
        for name, shape in wanted.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"these are no weights of {kind.__name__}: {'; '.join(wrong[:3])}{more}; "
            "check the file with `portrait models check`"
        )
    network.load_state_dict(dict(state), assign=True)
    return network.eval().requires_grad_(False)


def check_crops(images: Float[Tensor, "b 3 s s"]) -> None:
    """Check the input of the regressors.

    Raises:
        ValueError: if images are not ``[B,3,224,224]`` floats.
    """
    if images.ndim != 4 or images.shape[1:] != (3, INPUT_SIZE, INPUT_SIZE) or not images.is_floating_point():
        raise ValueError(
            f"crops must be [B,3,{INPUT_SIZE},{INPUT_SIZE}] floats in 0..1, got {tuple(images.shape)} "
            f"{images.dtype}; crop the face first"
        )


def as_input(images_uint8: Tensor) -> Float[Tensor, "b 3 s s"]:
    """Turn crops ``[B,S,S,3]`` uint8 RGB into the regressors' input: 0..1, channels first, mean kept."""
    return images_uint8.permute(0, 3, 1, 2).float() / 255
