"""Pooled features of EfficientNet-lite0, which stand in for Inception's where the user brings no file.

Their weights come with the installation (Apache-2.0). The Fréchet distance of these features is not FID, and
compares with no published number: only with rows of the same table.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.inversion.features import efficientnet_lite0

VARIANT = "Fréchet distance of EfficientNet-lite0 features (not FID)"
"""Name of the Fréchet distance of these features, to stand beside every such number."""
KERNEL_VARIANT = "kernel distance of EfficientNet-lite0 features (not KID)"
"""Name of the kernel distance of the same features."""
SIDE = 224
"""Side in pixels of what the network sees."""
FEATURES = 1280


class EmbeddedFeatures(nn.Module):
    """EfficientNet-lite0 to the mean of its last map, before its classifier."""

    feature_size = FEATURES
    variant = VARIANT

    def __init__(self) -> None:
        super().__init__()
        self.network = efficientnet_lite0()
        self.eval().requires_grad_(False)

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1280"]:
        """Return the pooled features of pictures in 0..1.

        They are resized to 224 x 224, bilinear and antialiased.
        """
        x = F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        # the network's own normalisation of grey levels of 255
        maps: Tensor = self.network.extract_features((x * 255 - 127) / 128)
        return torch.mean(maps, (2, 3))
