"""Inversion and tuning on the second device: the CPU's own numbers, and no wait between two readings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.reproject import HeadSurface
from portrait_core.generators import RaySampling, TriPlaneGenerator
from portrait_core.generators.scene_latents import N_LATENT
from portrait_core.inversion import draws, latent, loop, tuning
from portrait_core.inversion.latent import FirstLatent, Inverter
from portrait_core.inversion.targets import FrameTarget
from portrait_core.inversion.tuning import Clip, Tuner
from portrait_core.runtime.package_files import data_file
from portrait_core.settings import InversionSettings, TuningSettings
from tests.portrait_core import tiny
from tests.second_device import counted, recorded
from tests.second_device.waits import Wait

CPU = torch.device("cpu")
BLOCK, STEPS = 5, 9
"""Steps of a block, fewer than the loop's own, and of a whole run: a block and the beginning of another."""
SAMPLING = RaySampling(near=2.25, far=3.15, n_coarse=6, n_fine=4)


@pytest.fixture(scope="module")
def head() -> MorphableHead:
    return MorphableHead.load(data_file("models/embedded_head.safetensors"))


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (loop, draws):
        monkeypatch.setattr(module, "READ_EVERY", BLOCK)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[Wait]:
    """What makes the host wait, or copies, in the steps of any loop."""
    found: list[Wait] = []
    take = loop._Steps.__call__

    def counting(self: Any, step: int) -> None:
        with counted() as waits:
            take(self, step)
        found.extend(waits.copies + waits.reads)

    monkeypatch.setattr(loop._Steps, "__call__", counting)
    return found


class SmallPhi(nn.Module):
    """Two layers of features: the loops are looked at here, and :mod:`tests.second_device.test_runs` has the
    networks of the profiles."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.fine, self.coarse = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 12, 3, 2, 1)
        self.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        one = self.fine(images)
        return [nn.functional.normalize(x, dim=1) for x in (one, self.coarse(one.relu()))]


class TapeCapture:
    """What a CUDA graph is to a loop, on the second device."""

    plain_steps = 2

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def warm(self, step: Callable[[], None]) -> None:
        step()

    def record(self, step: Callable[[], None], rng: torch.Generator) -> Callable[[], None]:
        """Recording a tape takes the step, where capturing a graph does not: the first replay is that one."""
        with recorded() as tape:
            step()
        self.recorded += 1
        taken = [True]

        def replay() -> None:
            if taken:
                taken.clear()
                return
            self.replayed += 1
            tape.replay()

        return replay


def _on(target: FrameTarget, device: torch.device) -> FrameTarget:
    moved: dict[str, Any] = {
        name: None if part is None else part.to(device) for name, part in vars(target).items()
    }
    return FrameTarget(**moved)


def _target(seed: int) -> FrameTarget:
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8
    return tiny.target(torch.nn.functional.interpolate(coarse, tiny.SIZE, mode="bilinear")[0])


def _generator(device: torch.device) -> TriPlaneGenerator:
    return copy.deepcopy(tiny.generator()).to(device)


def _invert(device: torch.device, start: bool, **settings: Any) -> tuple[FirstLatent, torch.Tensor]:
    chosen = InversionSettings(first_steps=STEPS, steps=5, **settings)
    phi = SmallPhi().to(device)
    inverter = Inverter(_generator(device), phi, tiny.CAMERA.to(device), chosen, SAMPLING, tiny.RESOLUTION)
    z = torch.zeros(1, N_LATENT, device=device) if start else None
    first = inverter.first(_on(_target(0), device), z)
    refined, _ = inverter.next(first.ws, _on(_target(1), device), 1)
    return first, refined


@pytest.mark.parametrize(
    ("start", "settings"),
    [
        (True, {}),
        (False, {"patch_share": 1.0, "step_unit": "w", "w_noise": 0.05, "phi_side": 32, "decay": "cosine"}),
    ],
    ids=["embedded", "paper"],
)
def test_inversion_gives_the_cpus_latents_and_never_waits(
    second: torch.device, plain_cpu: None, waits: list[Wait], start: bool, settings: dict[str, Any]
) -> None:
    expected, refined = _invert(CPU, start, **settings)
    assert waits == []  # nothing is counted on the CPU
    first, later = _invert(second, start, **settings)
    assert first.losses == expected.losses
    assert torch.equal(first.ws.cpu(), expected.ws)
    assert np.array_equal(first.appearance, expected.appearance)
    assert torch.equal(later.cpu(), refined)
    assert not torch.equal(refined, expected.ws)
    assert [str(wait) for wait in waits] == []


def _tuner(device: torch.device, head: MorphableHead, **settings: Any) -> Tuner:
    generator = _generator(device)
    rng = torch.Generator().manual_seed(1)
    ws = tiny.generator().mapping(torch.randn(3, N_LATENT, generator=rng)).contiguous()
    own = copy.deepcopy(head).to(device)
    still = [torch.zeros(1, n, device=device) for n in (50, 52, 3)]
    vertices = own.to_box(own.decode(*still))[0]
    clip = Clip(
        ws=ws.to(device),
        camera=tiny.CAMERA.to(device),
        frame=lambda i: _on(_target(i), device),
        vertices=lambda i: vertices,
        matte=tiny.disc(0.4).to(device),
        plate=torch.zeros(3, tiny.SIZE, tiny.SIZE, device=device),
    )
    chosen = TuningSettings(
        **{"steps": STEPS, "batch": 2, "patch": 16, "novel_view_rays": 32, "learning_rate": 1e-2}
        | {"locality": 0.2, "locality_every": 2, "locality_alpha": 2.0, "locality_patch": 16}
        | settings
    )
    phi = SmallPhi().to(device)
    return Tuner(generator, phi, clip, HeadSurface(own), chosen, SAMPLING, tiny.RESOLUTION)


PAPER = {"depth_anchor": 0.0, "novel_view": 0.0, "background": 0.0, "patch": 32, "locality": 0.0}
"""Without what the published profile leaves out, on whole images: Φ's maps of targets are kept."""


@pytest.mark.parametrize("settings", [{}, PAPER], ids=["embedded", "paper"])
def test_tuning_gives_the_cpus_generator_and_never_waits(
    second: torch.device,
    plain_cpu: None,
    waits: list[Wait],
    head: MorphableHead,
    settings: dict[str, Any],
) -> None:
    plain, there = _tuner(CPU, head, **settings), _tuner(second, head, **settings)
    losses = plain.run()
    assert there.run() == losses
    state = there.generator.state_dict()
    for name, value in plain.generator.state_dict().items():
        assert torch.equal(state[name].cpu(), value), name
    assert [str(wait) for wait in waits] == []


@pytest.mark.parametrize(
    "settings", [pytest.param({}, id="embedded", marks=pytest.mark.slow), pytest.param(PAPER, id="paper")]
)
def test_a_tuning_of_captured_steps_gives_the_same_generator(
    second: torch.device,
    plain_cpu: None,
    head: MorphableHead,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = _tuner(second, head, **settings)
    losses = plain.run()
    capture = TapeCapture()
    monkeypatch.setattr(tuning, "capture_for", lambda device, wanted: capture)
    captured = _tuner(second, head, **settings)
    assert captured.run() == losses
    assert capture.recorded == (1 if settings else 2)  # every other step has the locality term
    assert capture.recorded + capture.replayed == STEPS - 2 * capture.recorded
    state = captured.generator.state_dict()
    for name, value in plain.generator.state_dict().items():
        assert torch.equal(state[name].cpu(), value.cpu()), name


def test_an_inversion_of_captured_steps_gives_the_same_latents(
    second: torch.device, plain_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, refined = _invert(second, True)
    capture = TapeCapture()
    monkeypatch.setattr(latent, "capture_for", lambda device, wanted: capture)
    first, later = _invert(second, True)
    assert first.losses == expected.losses
    assert torch.equal(first.ws.cpu(), expected.ws.cpu())
    assert torch.equal(later.cpu(), refined.cpu())
    assert capture.recorded == 3  # two kinds of patches of the first frame, and the next frame
    assert capture.replayed == STEPS + 5 - 9
