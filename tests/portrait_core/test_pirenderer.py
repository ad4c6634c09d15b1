"""PIRenderer's network on weights of its own, against the plain implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from portrait_core.baselines.pirenderer import PIRenderer, PIRendererSizes, warp_by_flow
from portrait_core.baselines.pirenderer_files import load_pirenderer, pirenderer_shapes, read_pirenderer
from portrait_core.errors import ModelFileError
from portrait_core.model_files.check import check_model, identify_model
from portrait_core.weights.registry import MODELS
from tests.plain import pirender
from tests.portrait_core import pirenderer_parts as parts


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    """Pictures that are not square, so that x and y cannot be exchanged, and windows."""
    rng = torch.Generator().manual_seed(3)
    return 2 * torch.rand(2, 3, 16, 24, generator=rng) - 1, torch.randn(2, 73, 21, generator=rng)


def double(network: PIRenderer) -> PIRenderer:
    return PIRenderer.from_state({name: value.double() for name, value in network.state_dict().items()})


def test_all_outputs_are_those_of_the_plain_implementation(inputs: tuple[Tensor, Tensor]) -> None:
    network, doubles = parts.network(), [x.double() for x in inputs]
    wanted = pirender.generate(double(network).state_dict(), *doubles)
    got, single = double(network)(*doubles), network(*inputs)
    assert got.flow_field.shape == (2, 2, 8, 12)
    assert wanted[1].abs().max() > 0.5  # the warp is one
    for one, other, plain in zip(got, single, wanted, strict=True):
        assert plain.std() > 0.01
        torch.testing.assert_close(one, plain, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(other.double(), plain, atol=5e-5, rtol=1e-5)


def test_gradients_are_those_of_the_plain_implementation(inputs: tuple[Tensor, Tensor]) -> None:
    network = double(parts.network(1)).requires_grad_()
    image, window = (x.double().requires_grad_() for x in inputs)
    used = {name: value for name, value in network.named_parameters() if ".conv1." not in name}
    used = {name: value for name, value in used.items() if ".norm1." not in name}
    weights = torch.randn(2, 3, 16, 24, dtype=torch.double, generator=torch.Generator().manual_seed(4))
    grads = []
    for out in (
        network(image, window)[3],
        pirender.generate(dict(network.named_parameters()), image, window)[3],
    ):
        grads.append(torch.autograd.grad((out * weights).sum(), [image, window, *used.values()]))
    for name, one, other in zip(["image", "window", *used], *grads, strict=True):
        assert float((one - other).norm()) <= 1e-8 * float(other.norm()) + 1e-10, name
    assert grads[0][1].abs().max() > 0


def test_the_unused_entries_of_residual_blocks_change_nothing(inputs: tuple[Tensor, Tensor]) -> None:
    state = parts.network().state_dict()
    for changed in (".conv1.", ".conv2."):
        other = {name: value + (changed in name and ".res0.res0" in name) for name, value in state.items()}
        same = torch.equal(PIRenderer.from_state(other)(*inputs).image, parts.network()(*inputs).image)
        assert same is (changed == ".conv1.")


def test_a_flow_of_zero_is_not_the_identity_and_one_of_x_moves_along_x() -> None:
    rng = torch.Generator().manual_seed(5)
    image = torch.rand(1, 3, 16, 24, generator=rng, dtype=torch.double)
    still = warp_by_flow(image, torch.zeros(1, 2, 4, 6, dtype=torch.double))
    torch.testing.assert_close(still, pirender.warped(image, torch.zeros(1, 2, 4, 6, dtype=torch.double)))
    assert (still - image).abs().max() > 0.05
    ramp = torch.arange(24.0, dtype=torch.double).expand(1, 3, 16, 24)
    flow = torch.zeros(1, 2, 4, 6, dtype=torch.double)
    flow[:, 0] = 1  # a pixel of the flow's grid is 24/5 of the picture's
    moved = warp_by_flow(ramp, flow) - warp_by_flow(ramp, 0 * flow)
    torch.testing.assert_close(moved[..., 6:10, 6:12], torch.full_like(moved[..., 6:10, 6:12], 24 / 5))


def test_sizes_are_read_from_the_entries() -> None:
    assert PIRendererSizes.of_state(parts.network().state_dict()) == parts.SIZES
    with torch.device("meta"):
        published = PIRenderer().state_dict()
    assert PIRendererSizes.of_state(published) == PIRendererSizes()
    assert len(published) == 304
    assert sum(value.numel() for value in published.values()) == 22_519_109


def test_weights_must_fit_exactly() -> None:
    state = parts.network().state_dict()
    name = "editing_net.decoder.res0.res1.conv1.bias"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({key: value for key, value in state.items() if key != name}, f"{name} is missing"),
        (state | {"more": torch.zeros(1)}, "more is unknown"),
        (state | {name: torch.zeros(2)}, r"shape \(2,\), expected"),
        (state | {"mapping_net.first.0.weight": torch.zeros(2)}, "has 1 dimensions, expected 3"),
        ({f"module.{key}": value for key, value in state.items()}, "is missing"),
        ({}, "is missing"),
    ]
    for entries, words in wrong:
        with pytest.raises(ValueError, match=f"no weights of PIRenderer: .*{words}"):
            PIRenderer.from_state(entries)


def test_other_forms_are_refused(inputs: tuple[Tensor, Tensor]) -> None:
    network, (image, window) = parts.network(), inputs
    for wrong in (image[:, :1], image[..., :20], image[0]):
        with pytest.raises(ValueError, match=r"multiples of 8.*crops"):
            network(wrong, window)
    for wrong in (window[:, :, :18], window[:, 1:], window[:1], window[0]):
        with pytest.raises(ValueError, match=r"\[2,73,19 or more\].*pirenderer_windows"):
            network(image, wrong)


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Entries of the published shapes that take no space."""
    return {name: torch.zeros(()).expand(shape) for name, shape in pirenderer_shapes().items()}


FILE = MODELS["pirenderer"].file


def test_the_average_is_read_or_else_what_distributed_training_saved(
    tmp_path: Path, published: dict[str, Tensor]
) -> None:
    path = tmp_path / FILE
    trained = {f"module.{name}": value + (value.ndim == 1) for name, value in published.items()}
    bias = "mapping_net.first.0.bias"
    counters = {"current_epoch": 190, "current_iteration": 400_000}
    torch.save({"net_G": trained, "net_G_ema": published, **counters}, path)
    found = read_pirenderer(path)
    assert found.averaged
    assert found.net_g.keys() == published.keys()
    assert not found.net_g[bias].any()
    torch.save({"net_G": trained, "opt_G": {"state": {}}, "sch_G": {}}, path)
    found = read_pirenderer(path)
    assert not found.averaged
    assert found.net_g[bias].all()
    made = load_pirenderer(path)
    assert not made.training
    assert made.state_dict().keys() == published.keys()
    assert identify_model(path) is MODELS["pirenderer"]
    report = check_model(path, MODELS["pirenderer"])
    assert report.content == "304 tensors, 22.5 million numbers"
    assert report.digest == "no digest is known of it"


def test_what_is_no_checkpoint_of_it_is_named(tmp_path: Path, published: dict[str, Tensor]) -> None:
    path = tmp_path / FILE
    name = "warpping_net.flow_out.2.bias"
    without = {key: value for key, value in published.items() if key != name}
    mixed = {f"module.{key}": value for key, value in published.items() if key != name}
    for content, words in (
        ({"net_D": {}, "current_epoch": 1}, "it lacks net_G_ema; it holds net_D, current_epoch"),
        ([1], "it lacks net_G_ema; it holds list"),
        ({"net_G_ema": without}, f"net_G_ema does not fit: {name} is missing"),
        ({"net_G": without}, f"net_G does not fit: {name} is missing"),
        ({"net_G": mixed | {name: published[name]}}, "net_G does not fit: .* is missing"),
        ({"net_G_ema": published | {name: torch.zeros(3)}}, r"has shape \[3\], expected \[2\]"),
        ({"net_G_ema": published | {name: torch.full((2,), torch.nan)}}, "not finite"),
        ({"net_G_ema": 1}, "expected weights by name"),
    ):
        torch.save(content, path)
        with pytest.raises(ModelFileError, match=words) as caught:
            read_pirenderer(path)
        said = str(caught.value)
        assert FILE in said
        assert "CC BY-NC 4.0" in said
        assert f"`portrait models check {path}`" in said
