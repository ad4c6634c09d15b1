"""Placing face-mesh landmarks on the head from votes, and on drawn heads with the real landmark model."""

import numpy as np
import pytest

from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.topology import MIRROR
from portrait_core.runtime.package_files import data_folder
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.training.correspondence import N_MESH, measure, onto_surface, settle
from portrait_core.training.render import SceneRenderer

MODELS = data_folder() / "models"


def test_settle_ignores_wild_votes_and_is_symmetric() -> None:
    rng = np.random.default_rng(0)
    half = rng.normal(size=(N_MESH, 3)) * 0.05
    truth = 0.5 * (half + half[MIRROR[:N_MESH]] * [-1, 1, 1])
    votes = [place + rng.normal(size=(20, 3)) * 1e-3 for place in truth]
    for cast in votes:
        cast[:4] += 0.05
    place, spread = settle(votes)
    assert np.linalg.norm(place - truth, axis=1).mean() < 2e-3
    np.testing.assert_allclose(place[MIRROR[:N_MESH]] * [-1, 1, 1], place, atol=1e-12)
    assert 0.005 < spread.mean() < 0.03


def test_settle_says_what_to_do_about_too_few_votes() -> None:
    with pytest.raises(ValueError, match="draw more heads"):
        settle([np.zeros((2, 3))] * N_MESH)


def test_onto_surface_finds_triangle_and_weights() -> None:
    triangles = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 0, 1], [0, 1, 1]]], dtype=float)
    index, bary = onto_surface(np.array([[1 / 3, 1 / 3, 0.9], [1.0, 0.0, 0.1]]), triangles)
    np.testing.assert_array_equal(index, [1, 0])
    np.testing.assert_allclose(bary[0], [1 / 3] * 3, atol=1e-9)
    np.testing.assert_allclose(bary[1], [0, 1, 0], atol=1e-9)


@pytest.mark.slow
def test_measured_again_the_landmarks_agree_with_the_asset() -> None:
    head = MorphableHead.load(MODELS / "embedded_head.safetensors")
    reader = FaceLandmarker.from_models(MODELS, refine=False)  # the asset is of the face mesh alone
    table = measure(SceneRenderer(head), reader, count=60)
    template = head.get_buffer("v_template")
    measured = (template.numpy()[table["tri"]] * table["bary"][..., None]).sum(1)
    placed = head.landmarks(template[None])[0, :N_MESH].numpy()
    assert np.median(np.linalg.norm(measured - placed, axis=1)) < 1.5e-3
