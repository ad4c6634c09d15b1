"""L1, PSNR, SSIM and LPIPS of whole pictures against their true ones, each with its variant's name.

LPIPS needs a network that the user brings; what stands in for it compares EfficientNet-lite0's features and
never bears its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from portrait_core.inversion.features import LPIPS_EPS, Lpips, build_features, normalise
from portrait_core.metrics.likeness import mean_of, perceptual_distance, psnr_db
from portrait_core.weights.locate import find, require
from portrait_core.weights.readers.torch_files import read_alexnet, read_lpips_alex

Picture = NDArray[np.uint8]

L1 = "L1, mean over pixels and channels, pictures in 0..1"
PSNR = "PSNR, dB, peak 255, mean over pictures"
SSIM = "SSIM, Gaussian window of sigma 1.5, mean over channels"
"""Wang et al. 2004: a window of 11 x 11, covariances over N, data range 255; each channel by itself."""
LPIPS_VGG = "LPIPS, VGG16, version 0.1"
LPIPS_ALEX = "LPIPS, AlexNet, version 0.1"
EMBEDDED = "distance of EfficientNet-lite0 features (not LPIPS)"
_WINDOW = 11


class LpipsAlex(nn.Module):
    """LPIPS on AlexNet, version 0.1: ``feature_distance`` of its maps is its distance.

    As :class:`~portrait_core.inversion.features.Lpips`; pictures of less than 31 pixels have no last map.
    """

    LAYERS = (1, 4, 7, 9, 11)
    mean: Tensor
    std: Tensor

    def __init__(self, weights: str | Path, heads: str | Path | None = None) -> None:
        """Load AlexNet's ``weights`` and the linear layers ``heads``; None takes the package ``lpips``'s."""
        super().__init__()
        from torchvision.models import alexnet  # slow to import

        state = {name.removeprefix("features."): value for name, value in read_alexnet(weights).items()}
        with torch.device("meta"):
            features = alexnet(weights=None).features
        features.load_state_dict(state, assign=True)
        self.layers = features[: self.LAYERS[-1] + 1]
        learned = read_lpips_alex(heads).weights
        for index, weight in enumerate(learned):  # feature_distance averages over layers, LPIPS adds them up
            self.register_buffer(f"root{index}", (weight.clamp(min=0) * len(learned)).sqrt())
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Return the maps of images in [-1,1]."""
        x = (images - self.mean) / self.std
        maps: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.LAYERS:
                maps.append(normalise(x, LPIPS_EPS) * self.get_buffer(f"root{len(maps)}"))
        return maps


def perceptual_networks(
    device: torch.device | str = "cpu", files: Mapping[str, Path] | None = None
) -> dict[str, nn.Module]:
    """Load the networks for perceptual distances, by the names of their variants.

    :data:`EMBEDDED` is always there; LPIPS with VGG16 and with AlexNet where their files are.

    Args:
        device: device of the networks.
        files: files of ``vgg16`` and ``alexnet``; None takes those that the models folder has.

    Raises:
        ModelFileError: if a file is there and is not what it should be.
    """
    if files is None:
        files = {name: require([name])[name] for name in ("vgg16", "alexnet") if find(name).where is not None}
    networks: dict[str, nn.Module] = {EMBEDDED: build_features("efficientnet")}
    for name, model, kind in ((LPIPS_VGG, "vgg16", Lpips), (LPIPS_ALEX, "alexnet", LpipsAlex)):
        if model in files:
            networks[name] = kind(files[model])
    return {name: network.to(device) for name, network in networks.items()}


@dataclass(frozen=True)
class PictureDistances:
    """Results of :func:`picture_distances`.

    Attributes:
        values: by the variant's name, a value per picture ``[T]``.
    """

    values: Mapping[str, NDArray[np.float64]]

    def means(self) -> dict[str, float]:
        """Return the mean of every variant; PSNR's is infinite if any picture equals its true one."""
        return {name: mean_of(values) for name, values in self.values.items()}


def picture_distances(
    results: Iterable[Picture], truths: Iterable[Picture], networks: Mapping[str, nn.Module] | None = None
) -> PictureDistances:
    """Compare pictures with their true ones, one by one.

    Args:
        results: T pictures ``[H,W,3]`` uint8 RGB.
        truths: the true ones, of the same sizes.
        networks: perceptual networks by name, such as those of :func:`perceptual_networks`; None compares
            pixels alone.

    Raises:
        ValueError: for different numbers or sizes, pictures that are not uint8, or of less than 11 pixels.
    """
    found: dict[str, list[float]] = {name: [] for name in (L1, PSNR, SSIM, *(networks or {}))}
    for result, truth in zip(results, truths, strict=True):
        whole = np.ones(truth.shape[:2], bool)
        found[PSNR].append(psnr_db(result, truth, whole))
        found[L1].append(float(np.abs(result.astype(np.float64) - truth).mean() / 255))
        found[SSIM].append(ssim(result, truth))
        for name, network in (networks or {}).items():
            found[name].append(perceptual_distance(network, result, truth, whole))
    return PictureDistances({name: np.array(values) for name, values in found.items()})


def ssim(result: Picture, truth: Picture) -> float:
    """Return the structural similarity of two pictures ``[H,W,3]`` uint8, at most 1; see :data:`SSIM`.

    Raises:
        ValueError: for pictures of different sizes, or of less than 11 pixels.
    """
    if result.shape != truth.shape or min(result.shape[:2]) < _WINDOW:
        raise ValueError(
            f"a result {result.shape} and its truth {truth.shape} must be of one size of at least {_WINDOW} "
            "pixels; crop both pictures to the same square"
        )
    value = structural_similarity(
        result,
        truth,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2,
    )
    return float(value)
