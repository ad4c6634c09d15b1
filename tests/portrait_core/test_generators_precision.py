"""Other precisions and the compiled path stay close to float32, and share its weights."""

from typing import Any

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
    cpu,
    memory_format,
    precision,
    resolved_precision,
)
from portrait_core.generators.layers import SynthesisBlock


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
    weight = generator.get_parameter("superresolution.block1.conv1.weight")
    assert weight.grad is not None, "both networks must hold the same parameters"
    assert weight.dtype == weight.grad.dtype == torch.float32
    assert generator.get_submodule("superresolution.block1").compute_dtype is None, (
        "the given network is as it was"
    )


def test_unknown_precision_is_refused(generator: TriPlaneGenerator) -> None:
    with pytest.raises(ValueError, match="fp32, tf32 or bf16, got 'fp8'"):
        at_precision(generator, "fp8")  # type: ignore[arg-type]  # what it must refuse


@pytest.mark.parametrize(
    ("choice", "device", "wanted"),
    [
        ("auto", "cpu", "fp32"),
        ("auto", "cuda", "tf32"),
        ("auto", "cuda:1", "tf32"),
        ("fp32", "cuda", "fp32"),
        ("bf16", "cpu", "bf16"),
        ("tf32", "cpu", "tf32"),
    ],
)
def test_auto_is_tf32_on_cuda_alone(choice: Any, device: str, wanted: str) -> None:
    assert resolved_precision(choice, device) == wanted


def test_only_ieee_convolutions_on_cuda_are_contiguous() -> None:
    contiguous = [
        (device, precision)
        for device in ("cpu", "cuda", "cuda:0")
        for precision in ("fp32", "tf32", "bf16")
        if memory_format(torch.device(device), precision) == torch.contiguous_format
    ]
    assert contiguous == [("cuda", "fp32"), ("cuda:0", "fp32")]


def test_either_memory_format_has_the_same_numbers(
    generator: TriPlaneGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contiguous one is for CUDA, so it is chosen by hand here, on the path of other devices."""
    monkeypatch.setattr(cpu, "suits", lambda *_: False)
    ws, camera = inputs(generator)
    seen: list[torch.memory_format] = []

    def note(module: SynthesisBlock, args: Any, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        for features in output:  # those of its own convolutions, and the skip image
            assert features.is_contiguous(memory_format=module.memory_format)
        assert module.conv1.weight.is_contiguous(memory_format=module.memory_format)
        seen.append(module.memory_format)

    results = []
    for layout in (torch.channels_last, torch.contiguous_format):
        monkeypatch.setattr(precision, "memory_format", lambda *_, layout=layout: layout)
        view = at_precision(generator, "fp32")
        for module in view.modules():
            if isinstance(module, SynthesisBlock):
                module.register_forward_hook(note)
        rows = ws.clone().requires_grad_()
        image = view.synthesis(rows, camera)["image"]
        names = ("superresolution.block1.conv0.weight", "backbone.synthesis.b32.torgb.weight")
        learned = [view.get_parameter(name) for name in names]
        results.append([image, *torch.autograd.grad(image.square().mean(), [rows, *learned])])
    assert seen == [torch.channels_last] * 6 + [torch.contiguous_format] * 6
    for one, other in zip(*results, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert view.decoder.net[0].weight is generator.decoder.net[0].weight
    name = "superresolution.block1.conv1.weight"
    assert view.get_parameter(name) is generator.get_parameter(name)


@pytest.mark.slow
def test_compiled_generator_agrees(generator: TriPlaneGenerator) -> None:
    ws, camera = inputs(generator)
    ws.requires_grad_()

    def results() -> list[torch.Tensor]:
        image = generator.synthesis(ws, camera)["image"]
        return [
            image.detach(),
            *torch.autograd.grad(
                image.square().mean(), [ws, generator.get_parameter("decoder.net.0.weight")]
            ),
        ]

    plain = results()
    compiled(generator)
    for one, other in zip(results(), plain, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        assert_close(generator.synthesis(ws, camera)["image"], plain[0], rtol=1e-3, atol=1e-5)
