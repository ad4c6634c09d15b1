"""Parity with FLAME as DECA decodes it (numbers in the reference folder's ``flame``)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from portrait_core.face_model import flame
from portrait_core.face_model.head import MorphableHead, axis_angle_to_matrix
from portrait_core.weights.readers.flame_files import LandmarkEmbedding, read_flame, read_landmark_embedding
from tests.reference.published import ROOT, error, needs, tensors

FOLDER = ROOT / "flame"
ATOL = 1e-6
pytestmark = needs("flame/cases.npz")


@pytest.fixture(scope="module")
def cases() -> dict[str, Tensor]:
    return tensors(FOLDER / "cases.npz")


@pytest.fixture(scope="module")
def embedding() -> LandmarkEmbedding:
    return read_landmark_embedding(FOLDER / "landmark_embedding.npy")


def head_of(cases: dict[str, Tensor], kind: str, shape: str, exp: str, **options: Any) -> MorphableHead:
    arrays = read_flame(FOLDER / f"generic_model_{kind}.pkl")
    return flame.flame_head(arrays, cases[shape].shape[1], cases[exp].shape[1], **options)


@pytest.mark.parametrize("kind", ["numpy", "chumpy"])
def test_vertices_and_landmarks(cases: dict[str, Tensor], embedding: LandmarkEmbedding, kind: str) -> None:
    head = head_of(cases, kind, "shape", "exp", landmarks=embedding)
    slide = flame.FlameLandmarks(embedding, head.faces)
    pose = cases["pose"]
    posed = flame.decode(head, cases["shape"], cases["exp"], pose)
    assert error(posed.vertices, cases["vertices"]) < ATOL
    assert error(slide(posed.vertices, pose[:, :3]), cases["landmarks2d"]) < ATOL
    assert error(head.landmarks(posed.vertices), cases["landmarks3d"]) < ATOL
    assert torch.equal(flame.contour_row(pose[:, :3], torch.zeros_like(pose[:, :3])), cases["dynamic_row"])
    eyes = flame.decode(head, cases["shape"], cases["exp"], pose, cases["eye_pose"])
    assert error(eyes.vertices, cases["vertices_eye"]) < ATOL
    assert error(eyes.joints, cases["joints_eye"]) < ATOL
    assert error(slide(eyes.vertices, pose[:, :3]), cases["landmarks2d_eye"]) < ATOL


def test_all_directions(cases: dict[str, Tensor]) -> None:
    head = head_of(cases, "numpy", "shape300", "exp100")
    posed = flame.decode(head, cases["shape300"], cases["exp100"], cases["pose_300_100"])
    assert error(posed.vertices, cases["vertices_300_100"]) < ATOL


def test_rodrigues(cases: dict[str, Tensor]) -> None:
    assert error(axis_angle_to_matrix(cases["rodrigues_in"]), cases["rodrigues_out"]) < ATOL


def test_one_by_one_and_in_a_batch(cases: dict[str, Tensor]) -> None:
    head = head_of(cases, "numpy", "shape", "exp")
    codes = [cases[name] for name in ("shape", "exp", "pose")]
    alone = torch.cat(
        [flame.decode(head, *(c[i : i + 1] for c in codes)).vertices for i in range(len(codes[0]))]
    )
    assert error(alone, cases["vertices"]) < ATOL
