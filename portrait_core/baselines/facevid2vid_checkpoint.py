"""Checkpoints of Face-vid2vid: the parts that are used, which generator is among them, the networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from portrait_core.baselines.facevid2vid_generators import (
    OriginalGenerator,
    SpadeGenerator,
    generator_from_state,
)
from portrait_core.baselines.facevid2vid_keypoints import HeadEstimator, KeypointDetector
from portrait_core.weights.file_checks import checking
from portrait_core.weights.readers.torch_files import (
    Shapes,
    State,
    checkpoint_entry,
    network_shapes,
    read_torch,
    select_tensors,
)

Decoder = Literal["spade", "original"]
GENERATORS: dict[Decoder, type[SpadeGenerator] | type[OriginalGenerator]] = {
    "spade": SpadeGenerator,
    "original": OriginalGenerator,
}
"""Generators by the name of their decoder."""
_PARTS = ("generator", "kp_detector", "he_estimator")
_TELLING: dict[str, Decoder] = {"decoder.conv_img.weight": "spade", "final.weight": "original"}
"""Entries that only one of the generators has."""


@dataclass(frozen=True)
class FaceVid2VidWeights:
    """The parts of a checkpoint that are used."""

    generator: State
    """The generator, its dense motion network included: 101 million numbers with SPADE's decoder."""
    kp_detector: State
    """The keypoint detector: 42 million numbers."""
    he_estimator: State
    """The head estimator: 30 million numbers."""
    decoder: Decoder
    """Decoder of the generator: SPADE's, or the paper's own."""


class FaceVid2VidNetworks(NamedTuple):
    """Networks in evaluation mode, all on one device."""

    detector: KeypointDetector
    """Pictures to canonical keypoints."""
    estimator: HeadEstimator
    """Pictures to head poses, translations and expressions."""
    generator: SpadeGenerator | OriginalGenerator
    """Features and keypoints to pictures."""

    @classmethod
    def from_weights(
        cls, weights: FaceVid2VidWeights, device: torch.device | str = "cpu"
    ) -> FaceVid2VidNetworks:
        """Build the networks on a device.

        Raises:
            ValueError: if weights do not fit.
        """
        return cls(
            KeypointDetector.from_state(weights.kp_detector).to(device),
            HeadEstimator.from_state(weights.he_estimator).to(device),
            generator_from_state(weights.generator).to(device),
        )


@cache
def facevid2vid_shapes(part: Literal["kp_detector", "he_estimator"] | Decoder) -> Shapes:
    """Give the shapes of a published network; ``spade`` and ``original`` are the two generators."""
    if part == "kp_detector":
        return network_shapes(KeypointDetector)
    return network_shapes(HeadEstimator if part == "he_estimator" else GENERATORS[part])


def read_facevid2vid(path: str | Path) -> FaceVid2VidWeights:
    """Read ``NNNNNNNN-checkpoint.pth.tar``, which is no tar archive.

    Its optimisers and its discriminator are left aside.

    Raises:
        ModelFileError: if it is missing, holds more than tensors and plain data, lacks weights, or is of the
            older release, whose heads turn in an order that is not implemented.
    """
    with checking(path, "facevid2vid"):
        content = read_torch(path)
        parts = {name: checkpoint_entry(content, name) for name in _PARTS}
        decoder = _decoder_of(parts["generator"])
        if decoder == "original" and "down.weight" not in parts["kp_detector"]:
            raise ValueError(
                "it is of the release Vox-256-Beta, whose detector reads pictures of full size and whose "
                "heads turn in another order; bring Vox-256-New"
            )
        return FaceVid2VidWeights(
            select_tensors(parts["generator"], facevid2vid_shapes(decoder), f"generator ({decoder} decoder)"),
            select_tensors(parts["kp_detector"], facevid2vid_shapes("kp_detector"), "kp_detector"),
            select_tensors(parts["he_estimator"], facevid2vid_shapes("he_estimator"), "he_estimator"),
            decoder,
        )


def _decoder_of(state: Any) -> Decoder:
    found = [decoder for name, decoder in _TELLING.items() if isinstance(state, dict) and name in state]
    if len(found) != 1:
        held = "both" if found else "neither"
        raise ValueError(
            f"its generator has {held} of {' and '.join(_TELLING)}, so its decoder is neither SPADE's nor "
            "the paper's"
        )
    return found[0]
