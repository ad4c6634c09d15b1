"""Noise maps of one's own: shared weights, the regulariser of white noise, and renormalisation."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait_core.cameras import orbit_labels
from portrait_core.generators import (
    GeneratorSettings,
    StyleGAN2Generator,
    StyleGAN2Settings,
    SuperresolutionSettings,
    TriPlaneGenerator,
    noise_regulariser,
    renormalise_,
    with_own_noise,
)
from tests.portrait_core import tiny


def triplane() -> TriPlaneGenerator:
    sr = SuperresolutionSettings(input_resolution=16, channels=(6, 5), upsample=(False, True))
    settings = GeneratorSettings(
        z_dim=6,
        w_dim=8,
        channels={4: 6, 8: 6, 16: 5},
        plane_channels=4,
        neural_resolution=16,
        superresolution=sr,
    )
    return TriPlaneGenerator(settings)


def two_d() -> StyleGAN2Generator:
    return StyleGAN2Generator(StyleGAN2Settings(z_dim=6, w_dim=8, channels={4: 6, 8: 6, 16: 5}))


def image(model: Any, ws: Tensor) -> Tensor:
    if isinstance(model, StyleGAN2Generator):
        return model.synthesis(ws)
    return model.synthesis(ws, torch.from_numpy(orbit_labels(0.1, 0.0)))["image"]


@pytest.mark.parametrize("build", [triplane, two_d])
def test_a_view_has_noise_of_its_own_and_shares_the_rest(build: Any) -> None:
    torch.manual_seed(0)
    model = build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    view, maps = with_own_noise(model, torch.Generator().manual_seed(2))
    assert [tuple(m.shape) for m in maps] == [(4, 4), (8, 8), (8, 8), (16, 16), (16, 16)]
    assert all(torch.equal(a, b) for a, b in zip(maps, with_own_noise(model, _seeded(2))[1], strict=True))
    for (name, ours), (_, theirs) in zip(model.named_parameters(), view.named_parameters(), strict=True):
        assert ours is theirs, name
    apart = [
        name
        for (name, ours), (_, theirs) in zip(model.named_buffers(), view.named_buffers(), strict=True)
        if ours is not theirs
    ]
    assert len(apart) == len(maps)
    assert all(name.endswith("noise_const") and not name.startswith("superresolution") for name in apart)

    ws = torch.randn(1, model.settings.num_ws, 8)
    plain = image(model, ws)
    assert not torch.allclose(image(view, ws), plain, atol=1e-3)
    for each in maps:
        each.requires_grad_()
    image(view, ws).square().mean().backward()
    assert all(m.grad is not None and m.grad.abs().sum() > 0 for m in maps)
    changed = image(view, ws).detach()
    with torch.no_grad():
        maps[-1].add_(1.0)
    assert not torch.allclose(image(view, ws), changed, atol=1e-4), "the view must see changes in place"
    assert torch.equal(image(model, ws), plain)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_generator_without_noise_has_no_maps() -> None:
    model = tiny.generator()
    view, maps = with_own_noise(model)
    assert maps == []
    assert view.decoder.net[0].weight is model.decoder.net[0].weight
    assert float(noise_regulariser(maps)) == 0.0


def test_a_random_generator_of_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match="on cpu, but the numbers are needed on meta"):
        with_own_noise(two_d().to("meta"), torch.Generator())


def _by_hand(maps: list[Tensor]) -> float:
    total = 0.0
    for each in maps:
        level = each.double().numpy()
        while True:
            size = len(level)
            for shifted in (np.roll(level, 1, axis=0), np.roll(level, 1, axis=1)):
                total += (float((level * shifted).sum()) / size**2) ** 2
            if size <= 8:
                break
            level = 2.0 * level.reshape(size // 2, 2, size // 2, 2).mean(axis=(1, 3))
    return total


def test_the_regulariser_is_the_papers_sum() -> None:
    maps = [torch.randn(size, size, generator=_seeded(size)) for size in (4, 8, 16, 64)]
    assert float(noise_regulariser(maps)) == pytest.approx(_by_hand(maps), rel=1e-4)


def test_the_regulariser_tells_white_noise_from_a_picture() -> None:
    white = torch.randn(64, 64, generator=_seeded(0))
    waves = torch.sin(torch.linspace(0, 4 * math.pi, 64)).expand(64, 64) * math.sqrt(2)
    assert float(noise_regulariser([white])) < 0.1
    # neighbours agree, at all four sizes and in both directions
    assert float(noise_regulariser([waves])) > 1.0
    # doubled in size, white noise agrees with itself shifted in half of the places
    coarse = torch.randn(32, 32, generator=_seeded(1)).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert float(noise_regulariser([coarse])) > 0.4


def test_the_regulariser_makes_a_smooth_map_white() -> None:
    smooth = torch.nn.functional.avg_pool2d(torch.randn(1, 34, 34, generator=_seeded(3)), 3, stride=1)[0]
    maps = [(smooth / smooth.std()).requires_grad_()]
    start = float(noise_regulariser(maps))
    optimiser = torch.optim.Adam(maps, lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        noise_regulariser(maps).backward()
        optimiser.step()
        renormalise_(maps)
    assert float(noise_regulariser(maps)) < 0.05 * start


def test_renormalised_maps_have_zero_mean_and_unit_variance_in_place() -> None:
    maps = [torch.randn(size, size) * 3 + 1 for size in (4, 32)]
    maps[1].requires_grad_()
    addresses = [m.data_ptr() for m in maps]
    renormalise_(maps)
    assert [m.data_ptr() for m in maps] == addresses
    for each in maps:
        assert float(each.detach().mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(each.detach().square().mean()) == pytest.approx(1.0, abs=1e-5)
