"""Fewer rays at a time, with gradients: the same result for less memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from portrait_core.cameras import orbit_labels
from portrait_core.generators import Rays, RaySampler, RaySampling
from tests.portrait_core import tiny


def _gradient(chunk: int | None, jitter: bool) -> tuple[Tensor, Tensor]:
    model = tiny.generator().requires_grad_(True)
    model.ray_chunk = chunk
    camera = torch.from_numpy(orbit_labels(0.1, 0.0, 0.0))
    rays = Rays.of_cameras(camera, 8)
    ws = model.mapping(torch.zeros(1, model.settings.z_dim))
    rng = torch.Generator().manual_seed(1) if jitter else None
    sampler = RaySampler(RaySampling(n_coarse=6, n_fine=4), jitter, rng)
    rendered = model.render_rays(model.planes(ws), rays, sampler)
    loss = rendered.features.square().sum() + rendered.depth.sum()
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
    whole, chunked = _gradient(None, jitter=True), _gradient(10, jitter=True)
    for expected, got in zip(whole, chunked, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    before = torch.random.get_rng_state()
    _gradient(10, jitter=True)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("own", [True, False])
def test_the_generator_stands_where_one_pass_leaves_it(own: bool) -> None:
    """Whatever the chunks, and whether or not rays were rendered again for a gradient."""
    model = tiny.generator().requires_grad_(True)
    rays = Rays.of_cameras(torch.from_numpy(orbit_labels(0.1, 0.0, 0.0)), 8)
    planes = model.planes(model.mapping(torch.zeros(1, model.settings.z_dim)))
    after = []
    for chunk in (None, 10):
        model.ray_chunk = chunk
        torch.manual_seed(1)
        rng = torch.Generator().manual_seed(1) if own else None
        rendered = model.render_rays(planes, rays, RaySampler(model.settings.sampling, True, rng))
        rendered.features.square().sum().backward(retain_graph=True)
        after.append(torch.random.get_rng_state() if rng is None else rng.get_state())
    assert torch.equal(*after)


@pytest.mark.parametrize("chunk", [None, 3])
def test_a_generator_of_another_device_is_refused(chunk: int | None) -> None:
    """Its numbers would have to be copied, and the host to wait, at every call."""
    model = tiny.generator().to("meta")
    model.ray_chunk = chunk
    rays = Rays(*torch.empty(2, 1, 8, 3, device="meta").unbind())
    planes = model.planes(torch.empty(1, 1, model.settings.w_dim, device="meta"))
    seen = model.render_rays(planes, rays, RaySampler(model.settings.sampling, jitter=True))
    assert seen.features.device.type == "meta"
    sampler = RaySampler(model.settings.sampling, jitter=True, rng=torch.Generator())
    with pytest.raises(ValueError, match=r"is on cpu, but the numbers are needed on meta"):
        model.render_rays(planes, rays, sampler)
