"""The plain implementation in ``tests/plain``, which ours is measured against, has the published numbers."""

import json

import pytest
import torch
from torch import Tensor

from portrait_core.generators import GeneratorSettings, StyleGAN2Settings
from portrait_core.weights.readers.legacy_pickle import read_network
from tests.plain import stylegan2
from tests.plain.eg3d import PlainGenerator, rays
from tests.reference.published import ROOT, error, named, needs, relative, tensors, thinned
from tests.reference.test_eg3d import LOSSES, seeded_weights
from tests.reference.test_stylegan2 import label

needs_eg3d = needs("eg3d/generator.pkl")
needs_stylegan2 = needs("stylegan2/generator.pkl")


@pytest.fixture(scope="module")
def tiny() -> PlainGenerator:
    config = json.loads((ROOT / "eg3d/config.json").read_text())
    settings = GeneratorSettings.from_published(config["kwargs"], config["neural_rendering_resolution"])
    params = stylegan2.ordinary(read_network(ROOT / "eg3d/generator.pkl").state_dict())
    return PlainGenerator(settings, params)


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return tensors(ROOT / "eg3d/outputs.npz")


@needs_eg3d
def test_mapping(tiny: PlainGenerator, expected: dict[str, Tensor]) -> None:
    ws = tiny.mapping(expected["z"], expected["c_cond"], float(expected["truncation_psi"]))
    assert error(ws, expected["ws"]) < 1e-5
    assert error(tiny.mapping(expected["z"], expected["c_cond"])[:, 0], expected["ws_psi1"]) < 1e-5


@needs_eg3d
def test_planes_points_and_rays(tiny: PlainGenerator, expected: dict[str, Tensor]) -> None:
    planes = tiny.planes(expected["ws_plus"])
    name, (step,) = named(expected, r"planes_s(\d+)")
    assert error(thinned(planes.flatten(1, 2), step), expected[name]) < 1e-4
    colours, density = tiny.evaluate(planes, expected["points"])
    assert error(density, expected["point_sigma"]) < 1e-4
    assert error(colours, expected["point_rgb"]) < 1e-5
    name, (size,) = named(expected, r"rays(\d+)_origins")
    origins, directions = rays(expected["c"], size)
    assert error(origins, expected[name]) < 1e-5
    assert error(directions, expected[f"rays{size}_directions"]) < 1e-5


@needs_eg3d
def test_images(tiny: PlainGenerator, expected: dict[str, Tensor]) -> None:
    with torch.no_grad():
        out = tiny.synthesis(expected["ws_plus"], expected["c"])
        size = int(expected["neural_rendering_resolution_alt"])
        other = tiny.synthesis(expected["ws_plus"], expected["c"], size, noise=False)
    for name in ("image_raw", "image_depth", "image"):
        assert error(out[name], expected[name]) < 1e-4, name
    for name in ("image_raw", "image"):
        assert error(other[name], expected[f"{name}_alt"]) < 1e-4, name


@needs_eg3d
@pytest.mark.parametrize("suffix", LOSSES)
def test_gradients(tiny: PlainGenerator, expected: dict[str, Tensor], suffix: str) -> None:
    ws, c = (expected[name].clone().requires_grad_() for name in ("ws_plus", "c"))
    LOSSES[suffix](tiny.synthesis(ws, c)).backward()
    assert relative(ws.grad, expected["grad_ws" + suffix]) < 1e-4
    # look-ups have kinks at texel borders, so rounding alone moves this one (see the folder's README)
    assert relative(c.grad, expected["grad_c" + suffix]) < 2e-2


@needs_eg3d
@pytest.mark.slow
def test_full_size() -> None:
    """FFHQ-512: images, depth and the gradient to ws, in one pass."""
    config = json.loads((ROOT / "eg3d/full512.json").read_text())
    expected = tensors(ROOT / "eg3d/full512_outputs.npz")
    settings = GeneratorSettings.from_published(config["constructor"], config["neural_rendering_resolution"])
    full = PlainGenerator(settings, seeded_weights(config))
    ws = expected["ws_plus"].clone().requires_grad_()
    out = full.synthesis(ws, expected["c"])
    out["image"].square().mean().backward()
    assert error(out["image_raw"], expected["image_raw"]) < 1e-4
    assert error(out["image_depth"], expected["image_depth"]) < 1e-4
    name, (step,) = named(expected, r"image_s(\d+)")
    assert error(thinned(out["image"], step), expected[name]) < 1e-4
    assert error(out["image"].mean(dim=(2, 3)), expected["image_mean"]) < 1e-4
    assert error(out["image"].std(dim=(2, 3), correction=0), expected["image_std"]) < 1e-4
    assert relative(ws.grad, expected["grad_ws"]) < 1e-4


@needs_stylegan2
def test_stylegan2() -> None:
    expected = tensors(ROOT / "stylegan2/outputs.npz")
    made = json.loads((ROOT / "stylegan2/config.json").read_text())["constructor"]
    settings = StyleGAN2Settings.from_published(made)  # knows the defaults of what is not named
    params = stylegan2.ordinary(read_network(ROOT / "stylegan2/generator.pkl").state_dict())
    mapping, weights = (stylegan2.scope(params, name) for name in ("mapping", "synthesis"))

    def ws(psi: float) -> Tensor:
        rows, layers = settings.num_ws, settings.mapping_layers
        return stylegan2.mapping(mapping, expected["z"], label(expected), rows=rows, layers=layers, psi=psi)

    def image(ws: Tensor, noise: bool = True) -> Tensor:
        clamp = settings.conv_clamp
        return stylegan2.synthesis(weights, ws, settings.resolutions, noise=noise, clamp=clamp)

    truncated, full = ws(float(expected["truncation_psi"])), ws(1.0)
    assert error(truncated, expected["ws"]) < 1e-5
    assert error(full[:, 0], expected["ws_psi1"]) < 1e-5
    cutoff = int(expected["truncation_cutoff"])
    assert error(torch.cat([truncated[:, :cutoff], full[:, cutoff:]], 1), expected["ws_cutoff"]) < 1e-5
    given = expected["ws_plus"].clone().requires_grad_()
    drawn = image(given)
    drawn.square().mean().backward()
    assert error(drawn, expected["image"]) < 1e-4
    assert relative(given.grad, expected["grad_ws"]) < 1e-4
    assert error(image(given, noise=False), expected["image_no_noise"]) < 1e-4
    assert error(image(truncated), expected["forward_image"]) < 1e-4
