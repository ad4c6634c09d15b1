"""Parity with Deep3DFaceRecon (numbers in the reference folder's ``deep3dface``)."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait_core.tracking.bfm import BfmModel
from portrait_core.models.mat_files import read_bfm
from portrait_core.tracking.deep3d import Deep3DEncoder, rotation, split_coefficients
from portrait_core.tracking.encoders import as_input
from tests.reference.seeded import seeded_state
from tests.reference.test_eg3d import ROOT, error

FOLDER = ROOT / "deep3dface"
ATOL = 2e-5
pytestmark = pytest.mark.skipif(
    not (FOLDER / "cases.npz").exists(),
    reason=f"no Deep3DFaceRecon reference numbers at {FOLDER}; set PORTRAIT_REFERENCE to their folder",
)


@pytest.fixture(scope="module")
def cases() -> dict[str, Tensor]:
    with np.load(FOLDER / "cases.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def test_coefficients(cases: dict[str, Tensor]) -> None:
    shapes = json.loads((FOLDER / "state_dict_shapes.json").read_text())
    (seed,) = json.loads((FOLDER / "seeds.json").read_text()).values()
    network = Deep3DEncoder.from_state(seeded_state(shapes, seed))
    got = [(name, list(value.shape)) for name, value in network.state_dict().items()]
    assert got == list(shapes.items())
    images = as_input(cases["images_uint8"])
    with torch.no_grad():
        features, coefficients = network.backbone(images), network(images)
    assert error(features, cases["features"]) < ATOL
    assert error(coefficients, cases["coeffs"]) < ATOL
    for name, part in split_coefficients(coefficients)._asdict().items():
        assert error(part.flatten(1), cases[f"split_{name}"]) < ATOL, name


def test_rotation(cases: dict[str, Tensor]) -> None:
    assert error(rotation(cases["angles"]), cases["rotation"]) < 1e-6


def test_face(cases: dict[str, Tensor]) -> None:
    model = BfmModel(read_bfm(FOLDER / "BFM_model_front_synthetic.mat"))
    face = model(split_coefficients(cases["bfm_coeffs"]))
    assert error(face.shape, cases["bfm_shape"]) < ATOL
    assert error(face.normals, cases["bfm_normals"]) < ATOL
    assert error(face.camera_vertices, cases["bfm_face_vertex"]) < ATOL
    assert error(face.texture, cases["bfm_face_texture"]) < ATOL
    assert error(face.color, cases["bfm_face_color"]) < ATOL
    # hundreds of pixels in float32
    wanted = cases["bfm_landmarks68"]
    assert error(face.landmarks, wanted) < ATOL * max(1.0, float(wanted.abs().max()))
