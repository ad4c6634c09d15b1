"""Fewer rays at a time, with gradients: the same result for less memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from portrait_core.cameras import crop_rays, orbit_labels
from portrait_core.generators import RaySampling
from portrait_core.generators.rendering import stratified_depths
from tests.portrait_core import tiny


def _gradient(chunk: int | None, jitter: bool) -> tuple[Tensor, Tensor]:
    model = tiny.generator().requires_grad_(True)
    model.renderer.ray_chunk = chunk
    camera = torch.from_numpy(orbit_labels(0.1, 0.0, 0.0))
    origins, directions = crop_rays(camera, 8)
    ws = model.mapping(torch.zeros(1, model.settings.z_dim))
    rng = torch.Generator().manual_seed(1) if jitter else None
    rays = model.render_rays(
        model.planes(ws), origins, directions, RaySampling(n_coarse=6, n_fine=4), generator=rng, jitter=jitter
    )
    loss = rays.features.square().sum() + rays.depth.sum()
    loss.backward()
    parameters = [p.grad.flatten() for p in model.backbone.parameters() if p.grad is not None]
    return loss.detach(), torch.cat(parameters)


@pytest.mark.parametrize("chunk", [1, 10, 63, 64, 1000])
def test_value_and_gradient_do_not_depend_on_the_chunk(chunk: int) -> None:
    whole, chunked = _gradient(None, jitter=False), _gradient(chunk, jitter=False)
    for expected, got in zip(whole, chunked, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_random_samples_are_drawn_again_for_the_gradient() -> None:
    """Drawn anew instead, the gradient would belong to another picture than the loss."""
    (loss, gradient), (again, same) = (_gradient(10, jitter=True) for _ in range(2))
    assert torch.equal(loss, again)
    assert torch.equal(gradient, same)
    before = torch.random.get_rng_state()
    _gradient(10, jitter=True)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_samples_are_drawn_where_the_generator_is() -> None:
    """A generator on the CPU serves rays on any device (here one without data)."""
    directions = torch.empty(1, 4, 3, device="meta")
    drawn = stratified_depths(RaySampling(), directions, torch.Generator().manual_seed(0), jitter=True)
    assert drawn.device.type == "meta"
    assert drawn.shape == (1, 4, 48)
