"""Face recognition on the second device."""

from __future__ import annotations

import numpy as np
import torch

from portrait_core.metrics.identity import ShippedRecogniser
from tests.portrait_core import stand_in
from tests.second_device import counted


def test_vectors_and_gradients_equal_the_cpus(second: torch.device) -> None:
    image, points, _ = stand_in.tracked()
    two = torch.from_numpy(np.stack([image, image[:, ::-1]])).permute(0, 3, 1, 2) / 127.5 - 1
    marks = np.repeat(points, 2, 0)
    marks[1] = 1.3 * marks[1] - 60
    results = []
    for device in ("cpu", second):
        recogniser, pictures = ShippedRecogniser.load(device), two.to(device).requires_grad_()
        with counted() as waits:
            vectors = recogniser.vectors(pictures, marks)
            (slope,) = torch.autograd.grad(vectors.square().sum(), pictures)
        assert waits.reads == []
        assert vectors.device == slope.device == torch.device(device)
        results.append((vectors.detach().cpu(), slope.cpu()))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    assert (results[0][1] != 0).any()


def test_pictures_are_embedded_on_the_device(second: torch.device) -> None:
    image, points, _ = stand_in.tracked()
    here, recogniser = ShippedRecogniser.load().embed(image[None], points), ShippedRecogniser.load(second)
    with counted() as waits:
        there = recogniser.embed(image[None], points)
    np.testing.assert_array_equal(there, here)
    # the picture, its square and the order go there, the vectors come back
    assert len(waits.copies) == 4, str(waits)
    assert waits.reads == []
