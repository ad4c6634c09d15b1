"""Face-vid2vid's networks in small, with weights of their own."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from portrait_core.baselines.facevid2vid_checkpoint import Decoder, FaceVid2VidNetworks
from portrait_core.baselines.facevid2vid_generators import GeneratorSizes, OriginalGenerator, SpadeGenerator
from portrait_core.baselines.facevid2vid_keypoints import HeadEstimator, KeypointDetector
from portrait_core.baselines.facevid2vid_motion import MotionSizes

SIZE, KEYPOINTS = 32, 5
MOTION = MotionSizes(KEYPOINTS, channels=4, depth=3, compressed=2, down=(6, 8), up=(7, 5))
SIZES = GeneratorSizes(MOTION, first=4, down=(6, 8), blocks_3d=1, blocks=2, up=(6, 4), wide=10, hidden=5)
FACTORS = {
    "dense_motion_network.mask.weight": 8,
    "decoder.conv_img.weight": 0.2,
    "final.weight": 0.2,
    "fc_t.weight": 0.2,
    "fc_exp.weight": 0.2,
}
"""With these, flows follow keypoints, and pictures are neither black nor white."""


def detector() -> KeypointDetector:
    return KeypointDetector(KEYPOINTS, down=(4, 6), up=(6, 4), depth=3)


def estimator() -> HeadEstimator:
    return HeadEstimator(KEYPOINTS, stem=4, widths=(8, 12), blocks=(1, 2))


def generator(decoder: Decoder) -> SpadeGenerator | OriginalGenerator:
    return SpadeGenerator(SIZES) if decoder == "spade" else OriginalGenerator(SIZES)


def seeded(network: nn.Module, seed: int = 0) -> nn.Module:
    """Other numbers in every entry, so that none is as it is made."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point() or name == "down.weight":
                continue
            drawn = torch.randn(value.shape, generator=rng)
            if value.ndim == 1 and name.endswith(("running_var", "weight")):
                value.copy_(1 + 0.2 * drawn.abs())
            elif value.ndim > 1:
                value.copy_(drawn * (2 / value[0].numel()) ** 0.5)
            elif name.endswith(("weight_u", "weight_v")):
                value.copy_(nn.functional.normalize(1 + 0.3 * drawn, dim=0))
            else:
                value.copy_(0.2 * drawn)
        for name, factor in FACTORS.items():
            if name in network.state_dict():
                network.state_dict()[name].mul_(factor)
    return network.eval().requires_grad_(False)


def networks(decoder: Decoder = "spade") -> FaceVid2VidNetworks:
    made = FaceVid2VidNetworks(detector(), estimator(), generator(decoder))
    for seed, network in enumerate(made):
        seeded(network, seed)
    return made


def picture(frame: int) -> NDArray[np.uint8]:
    """A smooth picture ``[S,S,3]``, another one for every number."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    waves = [np.sin(3 * x + k + 0.7 * frame) * np.cos(4 * y - k + 0.4 * frame) for k in range(3)]
    return (127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)
