"""PIRenderer's network on the second device."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from portrait_core.baselines.pirenderer_animator import PIRendererAnimator
from portrait_core.baselines.pirenderer_windows import rows_from_pictures
from portrait_core.cameras import orbit_labels
from tests.portrait_core import pirenderer_parts as parts
from tests.portrait_core import stand_in
from tests.second_device import counted

CAMERAS = [orbit_labels(0.1 * i, 0.0)[0] for i in range(6)]


@pytest.mark.parametrize("cameras", [None, CAMERAS])
def test_frames_are_drawn_as_on_the_cpu_and_read_back_once(
    second: torch.device, cameras: list[parts.Array] | None
) -> None:
    source, own, rows = parts.picture(), parts.rows(1, seed=9), parts.rows(6)
    here = PIRendererAnimator(parts.network(), source, own, rows).animate(range(6), cameras)
    there = PIRendererAnimator(parts.network().to(second), source, own, rows)
    with counted() as waits:
        made = there.animate(range(6), cameras)
    assert (made == here).all()
    assert waits.reads == []
    assert len(waits.copies) == 2, str(waits)  # the windows to the device, all frames from it


def test_rows_are_found_as_on_the_cpu(second: torch.device) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.AvgPool2d(56), nn.Flatten(), nn.Linear(48, 257)).requires_grad_(False)
    image, points, _ = stand_in.tracked()
    here, there = (
        rows_from_pictures(image[None], points, copy.deepcopy(encoder).to(device))  # type: ignore[arg-type]
        for device in ("cpu", second)
    )
    assert (there == here).all()
