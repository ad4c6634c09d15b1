"""Parity with Deep3DFaceRecon (numbers in the reference folder's ``deep3dface``)."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from portrait_core.cameras.eg3d import rotation
from portrait_core.tracking import five_points
from portrait_core.tracking.bfm import BfmModel
from portrait_core.tracking.deep3d import Deep3DEncoder, split_coefficients
from portrait_core.tracking.encoders import as_input
from portrait_core.weights.readers.mat_files import read_bfm
from tests.reference.published import ROOT, arrays, error, needs, seeded_state, tensors

FOLDER = ROOT / "deep3dface"
ATOL = 2e-5
pytestmark = needs("deep3dface/cases.npz")


@pytest.fixture(scope="module")
def cases() -> dict[str, Tensor]:
    return tensors(FOLDER / "cases.npz")


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
    wanted = cases["bfm_landmarks68"]  # hundreds of pixels in float32
    assert error(face.landmarks, wanted) < 1e-6 * float(wanted.abs().max())


@pytest.fixture(scope="module")
def aligned() -> dict[str, np.ndarray]:
    return arrays(FOLDER / "align.npz")


def test_alignment(aligned: dict[str, np.ndarray]) -> None:
    target = aligned["image_aligned_uint8"].shape[0]
    size, standard = aligned["size_wh"], aligned["lm3d_std"].astype(np.float64)
    found = five_points.align(aligned["detections5"], size, target, standard=standard)
    assert np.abs(found.translation - aligned["pos_t"]).max() < 1e-3
    assert np.abs(102 / found.scale - aligned["pos_s"]).max() < 1e-3
    params = np.concatenate([size, found.scale[:, None], found.translation], axis=1)
    assert np.abs(params - aligned["trans_params"]).max() < 1e-3
    assert np.abs(found.points(aligned["detections5"]) - aligned["lm_new"]).max() < 1e-3
    assert np.array_equal(found.resized_wh, aligned["resize_wh"])
    box = np.concatenate([found.corner, found.corner + target], axis=1)
    assert np.array_equal(box, aligned["crop_box"])
    assert np.abs(five_points.five_of_68(aligned["lm68"]) - aligned["lm68_to_5"]).max() < 1e-3


def test_aligned_image(aligned: dict[str, np.ndarray]) -> None:
    image = np.asarray(Image.open(FOLDER / "align_source.png").convert("RGB"))
    wanted = aligned["image_aligned_uint8"]
    points, size = aligned["image_detections5"][None], np.array([image.shape[1::-1]])
    found = five_points.align(points, size, wanted.shape[0], standard=aligned["lm3d_std"].astype(np.float64))
    params = np.concatenate([size[0], found.scale, found.translation[0]])
    assert np.abs(params - aligned["image_trans_params"]).max() < 1e-3
    assert np.abs(found.points(points)[0] - aligned["image_lm_new"]).max() < 1e-3
    got = five_points.cut(image, found, 0)
    assert np.abs(got.astype(int) - wanted).max() <= 1
