"""The paper's trackers with their networks on the second device."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait_core.tracking.bfm import BfmModel
from portrait_core.tracking.deca import DecaEncoder, DetailDecoder
from portrait_core.tracking.deep3d import Deep3DEncoder, split_coefficients
from portrait_core.tracking.paper_tracker import PaperTracker
from portrait_core.weights.readers.mat_files import read_bfm
from tests import official_files
from tests.portrait_core import stand_in
from tests.second_device import counted


@pytest.fixture(scope="module")
def encoders() -> tuple[DecaEncoder, Deep3DEncoder]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DecaEncoder().eval().requires_grad_(False), Deep3DEncoder().eval().requires_grad_(False)


def test_a_photograph_is_tracked_as_on_the_cpu(
    second: torch.device, encoders: tuple[DecaEncoder, Deep3DEncoder]
) -> None:
    image, points, _ = stand_in.tracked()
    here = PaperTracker(*encoders).track(image[None], points, size=64)
    with counted() as waits:
        deca, deep3d = copy.deepcopy(encoders)
        there = PaperTracker(deca.to(second), deep3d.to(second)).track(image[None], points, size=64)
    assert waits.copies, "nothing was computed on the second device"
    assert waits.reads == []
    for one, other in zip(there.code, here.code, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(there.wild.coefficients, here.wild.coefficients, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(there.tform, here.tform)
    for name in ("images", "cameras"):
        np.testing.assert_array_equal(getattr(there.wild, name), getattr(here.wild, name), name)


def test_details_are_decoded_on_the_device(second: torch.device) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        decoder = DetailDecoder().eval().requires_grad_(False)
    rng = torch.Generator().manual_seed(2)
    inputs = [torch.randn(1, n, generator=rng) for n in (3, 50, 128)]
    here = decoder(*inputs)
    assert torch.equal(decoder.to(second)(*(x.to(second) for x in inputs)).cpu(), here)


def test_faces_are_decoded_on_the_device(second: torch.device, tmp_path: Path) -> None:
    official_files.write_bfm(tmp_path / "bfm.mat")
    model = BfmModel(read_bfm(tmp_path / "bfm.mat"))
    numbers = 0.1 * torch.randn(2, 257, generator=torch.Generator().manual_seed(3))
    here = model(split_coefficients(numbers))
    there = model.to(second)(split_coefficients(numbers.to(second)))
    for name, value in here._asdict().items():
        assert torch.equal(getattr(there, name).cpu(), value), name
