"""Face-vid2vid on the second device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from portrait_core.baselines.facevid2vid import FaceVid2VidAnimator
from portrait_core.baselines.facevid2vid_checkpoint import Decoder, FaceVid2VidNetworks, FaceVid2VidWeights
from portrait_core.cameras.labels import orbit_labels
from tests.portrait_core import facevid2vid_small as small
from tests.second_device import counted

FRAMES = [0, 4, 2, 1, 3]


@pytest.mark.parametrize("decoder", ["spade", "original"])
def test_a_portrait_is_animated_as_on_the_cpu(second: torch.device, decoder: Decoder) -> None:
    here = small.networks(decoder)
    states = {name: network.state_dict() for name, network in here._asdict().items()}
    weights = FaceVid2VidWeights(states["generator"], states["detector"], states["estimator"], decoder)
    there = FaceVid2VidNetworks.from_weights(weights, second)
    cpu = FaceVid2VidAnimator(here, small.picture(9), small.picture, batch=2)
    animator = FaceVid2VidAnimator(there, small.picture(9), small.picture, batch=2)
    for cameras in (None, [orbit_labels(0.1 * i, 0.05 * i)[0] for i in FRAMES]):
        wanted = cpu.animate(FRAMES, cameras)
        with counted() as waits:
            made = animator.animate(FRAMES, cameras)
        np.testing.assert_array_equal(made, wanted)
        # a batch of the driver's pictures each, the result, and the cameras
        assert len(waits.copies) == (4 if cameras is None else 5), str(waits)
        assert waits.reads == []
