"""Evaluation's networks and reprojection on the second device."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait_core.metrics.embedded_features import EmbeddedFeatures
from portrait_core.metrics.inception import Inception
from portrait_core.metrics.picture_distances import LpipsAlex, picture_distances
from portrait_core.metrics.picture_features import PooledNetwork, picture_features
from portrait_core.metrics.view_reprojection import DepthView, view_agreement
from tests import official_files
from tests.portrait_core.test_view_reprojection import view
from tests.second_device import counted

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 70, 64, 3), np.uint8)


def test_views_are_compared_without_copies_and_reads(second: torch.device) -> None:
    here = view(0.05, size=48), view(0.3, size=48)
    there = tuple(DepthView(v.picture.to(second), v.depth.to(second), v.camera.to(second)) for v in here)
    mask = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(0)) > 0.3
    moved = mask.to(second)
    with counted() as waits:
        found = view_agreement(there[0], there[1], moved)
    assert str(waits) == "no copies and no reads"
    for name, value in vars(view_agreement(*here, mask)).items():
        assert torch.equal(getattr(found, name).cpu(), value), name


@pytest.mark.parametrize("kind", [EmbeddedFeatures, pytest.param(Inception, marks=pytest.mark.slow)])
def test_features_are_the_cpus_with_two_copies_per_batch(
    second: torch.device, kind: type[EmbeddedFeatures | Inception]
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = kind().eval().requires_grad_(False)
    moved: PooledNetwork = copy.deepcopy(network).to(second)
    with counted() as waits:
        there = picture_features(PICTURES, moved, batch=2, device=second)
    assert waits.reads == []
    assert len(waits.copies) == 2 * 2, str(waits)  # each batch goes there, and its features come back
    np.testing.assert_array_equal(there, picture_features(PICTURES, network, batch=2))


def test_lpips_with_alexnet_is_the_cpus(second: torch.device, tmp_path: Path) -> None:
    official_files.write_alexnet(tmp_path / "alexnet-owt-7be5be79.pth")
    network = LpipsAlex(tmp_path / "alexnet-owt-7be5be79.pth")
    made = [
        picture_distances(PICTURES[:1], PICTURES[1:2], {"distance": network.to(device)}).values["distance"]
        for device in ("cpu", second)
    ]
    np.testing.assert_array_equal(made[1], made[0])
    assert made[0][0] > 0
