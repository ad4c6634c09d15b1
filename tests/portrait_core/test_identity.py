"""Identity vectors of faces: by the network that comes with the program, and by the user's ArcFace."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from skimage.transform import SimilarityTransform

from portrait_core.errors import ModelFileError
from portrait_core.metrics import identity
from portrait_core.metrics.identity import (
    ArcFaceRecogniser,
    ShippedRecogniser,
    choose_recogniser,
    cosine_similarity,
    identity_distance,
    identity_embeddings,
)
from portrait_core.tracking.landmarks68 import five_points
from portrait_core.tracking.people import SAME_PERSON
from tests import official_files
from tests.portrait_core import stand_in
from tests.portrait_core.test_embedded_2d import made

SIDE = 256


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PORTRAIT_MODELS", str(tmp_path))
    return tmp_path


@cache
def pictures() -> NDArray[np.uint8]:
    """The sample portrait; it smaller, tilted and darker; a synthetic person; a wall."""
    face = cv2.resize(stand_in.source().portrait, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), 12, 0.8)
    changed = cv2.warpAffine(face, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    other = cv2.resize(made(0.0), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.stack([face, (changed * 0.8).astype(np.uint8), other, np.full_like(face, 120)])


@cache
def landmarks() -> NDArray[np.float32]:
    """Of these pictures ``[4,478,2]``."""
    return stand_in.landmarker().detect(pictures()).points


def test_one_person_another_and_a_wall() -> None:
    vectors = identity_embeddings(pictures(), landmarker=stand_in.landmarker())
    np.testing.assert_array_equal(vectors, ShippedRecogniser.load().embed(pictures(), landmarks()))
    one, again, other, wall = vectors
    assert one.shape == (identity.SIZE,)
    assert np.isnan(wall).all()
    assert identity_distance(one, again) < SAME_PERSON < identity_distance(one, other)
    assert 1 > cosine_similarity(one, again) > cosine_similarity(one, other)


def test_a_picture_alone_in_a_batch_and_as_a_tensor_give_one_vector() -> None:
    recogniser = ShippedRecogniser.load()
    together = recogniser.embed(pictures(), landmarks())
    np.testing.assert_allclose(recogniser.describe(pictures()[1], landmarks()[1]), together[1], atol=1e-5)
    tensor = torch.from_numpy(pictures()[:3].copy()).permute(0, 3, 1, 2) / 127.5 - 1
    vectors = recogniser.vectors(tensor.requires_grad_(), landmarks()[:3])
    np.testing.assert_allclose(vectors.detach().numpy(), together[:3], atol=1e-5)
    (slope,) = torch.autograd.grad((vectors[0] - vectors[2]).norm(), tensor)
    assert torch.isfinite(slope).all()
    assert (slope.abs().amax((1, 2, 3)) > 0).tolist() == [True, False, True]


def test_landmarks_of_another_form_are_refused() -> None:
    recogniser = ShippedRecogniser.load()
    for wrong in (landmarks()[:2], landmarks()[:, :68], landmarks()[0]):
        with pytest.raises(ValueError, match=r"expected \[4,478,2\]"):
            recogniser.embed(pictures(), wrong)


def test_cosine_and_distance_by_hand() -> None:
    a, b = np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[4.0, 3.0], [-2.0, 0.0]])
    assert cosine_similarity(a, b) == pytest.approx([0.96, -1.0])
    assert identity_distance(a, b) == pytest.approx([2**0.5, 3.0])
    assert np.isnan(cosine_similarity(a[0], np.full(2, np.nan)))
    with pytest.raises(ValueError, match="no direction"):
        cosine_similarity(a[0], np.zeros(2))


def test_pictures_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"float64 \[8, 8, 3\], expected uint8 \[N,H,W,3\]"):
        identity_embeddings(np.zeros((8, 8, 3)))  # type: ignore[arg-type]  # what it must refuse


# ArcFace


@pytest.mark.parametrize("pack", [True, False])
def test_arcface_sees_aligned_faces(folder: Path, pack: bool) -> None:
    """The stand-in multiplies the mean colour of what it sees by its weights."""
    if pack:
        official_files.write_buffalo(folder / "buffalo_l.zip")
    else:
        (folder / "w600k_r50.onnx").write_bytes(official_files.arcface_network())
    recogniser = ArcFaceRecogniser.load()
    found = recogniser.embed(pictures(), landmarks())
    assert found.shape == (4, recogniser.width)
    assert np.isnan(found[3]).all()
    np.testing.assert_allclose(np.linalg.norm(found[:3], axis=1), 1)
    weight = numpy_helper.to_array(
        onnx.load_model_from_string(official_files.arcface_network()).graph.initializer[0]
    )
    template = np.array(
        [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
    )
    for i in range(3):
        # OpenCV's pixel centres lie at whole numbers, as the published template's
        fit = SimilarityTransform.from_estimate(five_points(landmarks()[i : i + 1])[0], template)
        chip = cv2.warpAffine(pictures()[i], fit.params[:2], (112, 112))
        expected = weight @ (chip.mean((0, 1)) / 127.5 - 1)
        np.testing.assert_allclose(found[i], expected / np.linalg.norm(expected), atol=2e-3)


def test_arcface_is_taken_where_it_is_found(folder: Path) -> None:
    chosen = choose_recogniser()
    assert isinstance(chosen, ShippedRecogniser)
    assert chosen.name == "dlib ResNet (not ArcFace)"
    (folder / "w600k_r50.onnx").write_bytes(official_files.arcface_network())
    assert choose_recogniser().name == "ArcFace w600k_r50"
    assert choose_recogniser(commercial=True).name == chosen.name


def test_a_missing_or_useless_arcface_is_named(folder: Path) -> None:
    with pytest.raises(ModelFileError, match=r"w600k_r50.onnx: source: .*non-commercial research"):
        ArcFaceRecogniser.load()
    path = folder / "w600k_r50.onnx"
    model = onnx.load_model_from_string(official_files.arcface_network())
    weight = model.graph.initializer[0]
    for value in (0.0, np.nan):
        weight.CopyFrom(numpy_helper.from_array(np.full((512, 3), value, np.float32), weight.name))
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelFileError, match=r"no vector of a face.*portrait models check"):
            choose_recogniser()
    path.write_bytes(b"no network")
    with pytest.raises(ModelFileError, match=r"w600k_r50\.onnx .*portrait models check"):
        choose_recogniser()
