"""Parity with DECA's networks (numbers in the reference folder's ``deca_encoder``)."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from portrait_core.tracking.deca import DecaEncoder, DetailDecoder, split_code
from portrait_core.tracking.encoders import as_input
from tests.reference.published import ROOT, error, named, needs, seeded_state, tensors

FOLDER = ROOT / "deca_encoder"
ATOL = 2e-5
pytestmark = needs("deca_encoder/cases.npz")


@pytest.fixture(scope="module")
def cases() -> dict[str, Tensor]:
    return tensors(FOLDER / "cases.npz")


@pytest.fixture(scope="module")
def shapes() -> dict[str, dict[str, list[int]]]:
    return json.loads((FOLDER / "state_dict_shapes.json").read_text())


@pytest.fixture(scope="module")
def states(shapes: dict[str, dict[str, list[int]]]) -> dict[str, dict[str, Tensor]]:
    seeds = json.loads((FOLDER / "seeds.json").read_text())
    return {name: seeded_state(shapes[name], seeds[name]) for name in shapes}


@pytest.fixture(scope="module")
def images(cases: dict[str, Tensor]) -> Tensor:
    return as_input(cases["images_uint8"])


def layout(network: nn.Module) -> list[tuple[str, list[int]]]:
    return [(name, list(value.shape)) for name, value in network.state_dict().items()]


def test_coefficients(
    cases: dict[str, Tensor], images: Tensor, states: dict[str, Any], shapes: dict[str, Any]
) -> None:
    network = DecaEncoder.from_state(states["E_flame"], cases["parameters"].shape[1])
    assert layout(network) == list(shapes["E_flame"].items())
    with torch.no_grad():
        features, parameters = network.encoder(images), network(images)
    assert error(features, cases["features"]) < ATOL
    assert error(parameters, cases["parameters"]) < ATOL
    for name, part in split_code(parameters)._asdict().items():
        assert error(part, cases[f"code_{name}"]) < ATOL, name
    alone = network.encode(images, batch=1)
    assert error(alone.exp, cases["code_exp"]) < ATOL


def test_detail(
    cases: dict[str, Tensor], images: Tensor, states: dict[str, Any], shapes: dict[str, Any]
) -> None:
    encoder = DecaEncoder.from_state(states["E_detail"], cases["detail"].shape[1])
    decoder = DetailDecoder.from_state(states["D_detail"])
    assert layout(encoder) == list(shapes["E_detail"].items())
    assert layout(decoder) == list(shapes["D_detail"].items())
    with torch.no_grad():
        detail = encoder(images)
        uv_z = decoder(cases["code_pose"][:, 3:], cases["code_exp"], cases["detail"])
    assert error(detail, cases["detail"]) < ATOL
    name, (step,) = named(cases, r"uv_z_every(\d+)")
    wanted = cases[name]
    # displacements are hundredths of the other numbers
    assert error(uv_z[:, :, ::step, ::step], wanted) < ATOL * float(wanted.abs().max())
