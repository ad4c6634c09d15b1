"""Other precisions and the compiled path stay close to float32, and share its weights."""

import pytest
import torch
from torch.testing import assert_close

from portrait_core.cameras import orbit_labels
from portrait_core.generators import (
    GeneratorSettings,
    SuperresolutionSettings,
    TriPlaneGenerator,
    at_precision,
    compiled,
)


@pytest.fixture
def generator() -> TriPlaneGenerator:
    torch.manual_seed(0)
    sr = SuperresolutionSettings(input_resolution=16, channels=(16, 8), upsample=(True, True))
    settings = GeneratorSettings(
        channels={4: 16, 8: 16, 16: 16, 32: 8}, plane_channels=8, neural_resolution=16, superresolution=sr
    )
    return TriPlaneGenerator(settings)


def inputs(generator: TriPlaneGenerator) -> tuple[torch.Tensor, torch.Tensor]:
    camera = torch.from_numpy(orbit_labels(0.2, 0.1))
    return generator.mapping(torch.randn(1, 512), camera).detach(), camera


def test_bfloat16_is_close_and_shares_weights(generator: TriPlaneGenerator) -> None:
    ws, camera = inputs(generator)
    half = at_precision(generator, "bf16")
    with torch.no_grad():
        exact, near = generator.synthesis(ws, camera), half.synthesis(ws, camera)
    for name in ("image", "image_raw", "image_depth"):
        assert near[name].dtype == torch.float32
        error = (near[name] - exact[name]).square().mean().sqrt() / exact[name].std()
        assert 0 < error < 0.02, name
    half.synthesis(ws, camera)["image"].square().mean().backward()
    weight = generator.superresolution.block1.conv1.weight
    assert weight.grad is not None, "both networks must hold the same parameters"
    assert weight.dtype == weight.grad.dtype == torch.float32
    assert generator.superresolution.block1.compute_dtype is None, "the given network is as it was"


def test_unknown_precision_is_refused(generator: TriPlaneGenerator) -> None:
    with pytest.raises(ValueError, match="fp32, tf32 or bf16, got 'fp8'"):
        at_precision(generator, "fp8")  # type: ignore[arg-type]


@pytest.mark.slow
def test_compiled_generator_agrees(generator: TriPlaneGenerator) -> None:
    ws, camera = inputs(generator)
    ws.requires_grad_()

    def results() -> list[torch.Tensor]:
        image = generator.synthesis(ws, camera)["image"]
        return [
            image.detach(),
            *torch.autograd.grad(image.square().mean(), [ws, generator.decoder.net[0].weight]),
        ]

    plain = results()
    compiled(generator)
    for one, other in zip(results(), plain, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        assert_close(generator.synthesis(ws, camera)["image"], plain[0], rtol=1e-3, atol=1e-5)
