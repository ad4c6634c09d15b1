"""The CPU's own operations give the numbers and gradients of the plain formulas."""

from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from portrait_core.cameras import orbit_labels
from portrait_core.generators import (
    GeneratorSettings,
    Planes,
    SuperresolutionSettings,
    TriPlaneGenerator,
    cpu,
)
from portrait_core.generators.layers import modulated_layer, resample_filter
from portrait_core.generators.rendering import Decoder, Field, Renderer


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def textbook_layer(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    taps: Tensor | None,
    clamp: float | None,
) -> Tensor:
    """Modulated and demodulated weights for each sample, as the paper writes it, and a clamp."""
    outputs = []
    for sample, style in zip(x, styles, strict=True):
        w = weight * style[:, None, None]
        w = w / (w.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if taps is None:
            y = F.conv2d(sample[None], w, padding=1)
        else:
            y = F.conv_transpose2d(sample[None], w.transpose(0, 1), stride=2)
            kernel = (taps * 4).expand(len(weight), 1, 4, 4)
            y = F.conv2d(y, kernel, padding=1, groups=len(weight))
        outputs.append(y)
    y = torch.cat(outputs) + bias[:, None, None]
    y = F.leaky_relu(y if noise is None else y + noise, 0.2) * 2**0.5
    return y if clamp is None else torch.clamp(y, -clamp, clamp)


@pytest.mark.parametrize("clamp", [None, 0.5, 1e3])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("with_noise", [False, True])
@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize(("batch", "size"), [(1, 16), (1, 3), (2, 16)])
def test_modulated_layer(
    batch: int,
    size: int,
    upsample: bool,
    with_noise: bool,
    plain: bool,
    clamp: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if plain:
        monkeypatch.setattr(cpu, "suits", lambda *_: False)
    out = 2 * size if upsample else size
    inputs = [
        torch.randn(batch, 3, size, size),
        torch.randn(4, 3, 3, 3),
        torch.randn(batch, 3),
        torch.randn(4),
    ]
    if with_noise:
        inputs.append(torch.randn(1, 1, out, out))
    for tensor in inputs:
        tensor.requires_grad_()
    x, weight, styles, bias = inputs[:4]
    noise, taps = (inputs[4] if with_noise else None), (resample_filter() if upsample else None)
    wanted = textbook_layer(x, weight, styles, bias, noise, taps, clamp)
    if clamp == 0.5:
        share = (wanted.abs() == wanted.abs().max()).float().mean()
        assert 0.1 < share < 0.9, "some of it must be clamped, and not all"
    got = modulated_layer(x, weight, styles, bias=bias, noise=noise, taps=taps, conv_clamp=clamp)
    assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        again = modulated_layer(x, weight, styles, bias=bias, noise=noise, taps=taps, conv_clamp=clamp)
    assert_close(again, wanted, rtol=1e-4, atol=1e-5)
    upstream = torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(got, inputs, upstream), torch.autograd.grad(wanted, inputs, upstream), strict=True
    ):
        assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("activation", ["softplus", "silu", "leaky_relu"])
@pytest.mark.parametrize("output", ["sigmoid", "linear"])
@pytest.mark.parametrize("axes", ["published", "orthogonal"])
def test_decode_points(
    axes: Literal["published", "orthogonal"],
    output: Literal["sigmoid", "linear"],
    activation: Literal["softplus", "silu", "leaky_relu"],
    padding: Literal["zeros", "border"],
    frozen: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "_POINTS", 16)
    monkeypatch.setattr(cpu, "_SCATTER", 48)
    settings = GeneratorSettings(
        channels={4: 4, 8: 4},
        plane_channels=5,
        feature_channels=4,
        decoder_hidden=7,
        box_warp=1.3,
        plane_axes=axes,
        plane_padding=padding,
        decoder_activation=activation,
        feature_activation=output,
    )
    renderer, decoder = Renderer(settings), Decoder(settings)
    for bias in ("net.0.bias", "net.2.bias"):
        nn.init.normal_(decoder.get_parameter(bias))
    decoder.requires_grad_(not frozen)
    volume = torch.randn(2, 3, 5, 8, 8).requires_grad_()
    points = torch.rand(2, 101, 3) * 2 - 1  # many of them outside the box
    learned = [volume] + [p for p in decoder.parameters() if p.requires_grad]

    def results(at: Tensor) -> tuple[Tensor, ...]:
        found = renderer.sample_points(Field(Planes(volume, None), decoder), at)
        torch.manual_seed(0)
        loss = torch.stack([(f * torch.randn_like(f)).sum() for f in found]).sum()
        return (*found, *torch.autograd.grad(loss, learned))

    plain = results(points.clone().requires_grad_())  # points with a gradient take the plain path
    for one, other in zip(results(points), plain, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_extreme_densities_stay_finite() -> None:
    settings = GeneratorSettings(channels={4: 4}, plane_channels=3, feature_channels=3, decoder_hidden=4)
    renderer, decoder = Renderer(settings), Decoder(settings)
    volume = (torch.randn(1, 3, 3, 4, 4) * 1e4).requires_grad_()
    features, sigma = renderer.sample_points(Field(Planes(volume, None), decoder), torch.rand(1, 50, 3) - 0.5)
    (features.sum() + sigma.sum()).backward()
    assert torch.isfinite(sigma).all()
    assert volume.grad is not None
    assert torch.isfinite(volume.grad).all()


def test_whole_generator_takes_both_paths_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    sr = SuperresolutionSettings(input_resolution=16, channels=(8, 6), upsample=(False, True))
    generator = TriPlaneGenerator(
        GeneratorSettings(
            channels={4: 8, 8: 8, 16: 8}, plane_channels=4, neural_resolution=12, superresolution=sr
        )
    )
    ws = generator.mapping(torch.randn(2, 512), torch.randn(2, 25)).detach().requires_grad_()
    camera = torch.from_numpy(np.concatenate([orbit_labels(0.1, 0.0), orbit_labels(-0.3, 0.2)]))

    def gradients() -> list[Tensor]:
        out = generator.synthesis(ws, camera)
        loss = out["image"].square().mean() + out["image_depth"].mean()
        parameters = [
            p
            for name, p in generator.named_parameters()
            if "mapping" not in name and not (name.startswith("superres") and "noise" in name)
        ]
        return [out["image"].detach(), *torch.autograd.grad(loss, [ws, *parameters])]

    quick = gradients()
    monkeypatch.setattr(cpu, "suits", lambda *_: False)
    for one, other in zip(quick, gradients(), strict=True):
        assert_close(one, other, rtol=2e-3, atol=1e-5)
