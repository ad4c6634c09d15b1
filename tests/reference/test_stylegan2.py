"""Parity with the published StyleGAN2 generator (numbers in the reference folder's ``stylegan2``)."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from portrait_core.generators import StyleGAN2Generator, StyleGAN2Settings, load_published
from tests.reference.published import ROOT, error, needs, tensors

FOLDER = ROOT / "stylegan2"

pytestmark = needs("stylegan2/generator.pkl")


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return json.loads((FOLDER / "config.json").read_text())


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return tensors(FOLDER / "outputs.npz")


@pytest.fixture(scope="module")
def generator() -> StyleGAN2Generator:
    loaded = load_published(FOLDER / "generator.pkl")
    assert isinstance(loaded, StyleGAN2Generator)
    return loaded


def label(expected: dict[str, Tensor]) -> Tensor | None:
    return expected.get("c", expected.get("c_cond"))


def test_state_dict_names_and_shapes(generator: StyleGAN2Generator, config: dict[str, Any]) -> None:
    got = {name: list(value.shape) for name, value in generator.state_dict().items()}
    assert got == config["parameters"] | config["buffers"]
    assert generator.settings == StyleGAN2Settings.from_published(config["constructor"])
    assert generator.settings.num_ws == config["num_ws"]


def test_mapping(generator: StyleGAN2Generator, expected: dict[str, Tensor]) -> None:
    z, c = expected["z"], label(expected)
    psi, cutoff = float(expected["truncation_psi"]), int(expected["truncation_cutoff"])
    assert error(generator.mapping(z, c, psi), expected["ws"]) < 1e-4
    full = generator.mapping(z, c)
    assert error(full, expected["ws_psi1"][:, None].expand_as(full)) < 1e-4
    assert error(generator.mapping(z, c, psi, cutoff), expected["ws_cutoff"]) < 1e-4


def test_image(generator: StyleGAN2Generator, expected: dict[str, Tensor]) -> None:
    with torch.no_grad():
        image = generator.synthesis(expected["ws_plus"], "const")
        without = generator.synthesis(expected["ws_plus"], "none")
    assert error(image, expected["image"]) < 1e-4
    assert error(without, expected["image_no_noise"]) < 1e-4
    assert error(image, without) > 1e-3  # the numbers would notice missing noise


def test_gradient(generator: StyleGAN2Generator, expected: dict[str, Tensor]) -> None:
    ws = expected["ws_plus"].clone().requires_grad_()
    generator.synthesis(ws, "const").square().mean().backward()
    assert ws.grad is not None
    wanted = expected["grad_ws"]
    assert float((ws.grad - wanted).norm() / wanted.norm()) < 1e-4


def test_whole_generator(generator: StyleGAN2Generator, expected: dict[str, Tensor]) -> None:
    psi = float(expected["truncation_psi"])
    with torch.no_grad():
        image = generator(expected["z"], label(expected), psi, noise_mode="const")
    assert error(image, expected["forward_image"]) < 1e-4
