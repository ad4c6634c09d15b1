"""Our writers of official layouts against the reference folder's files and tables."""

import json

import numpy as np
import torch

from portrait_core.tracking.checkpoints import deca_encoder_shapes, deep3d_shapes
from portrait_core.weights.readers.flame_files import read_flame, read_landmark_embedding
from portrait_core.weights.readers.mat_files import read_bfm
from tests.official_files import seeded
from tests.reference.published import ROOT, arrays, needs, seeded_state

FLAME, DECA, DEEP3D = ROOT / "flame", ROOT / "deca_encoder", ROOT / "deep3dface"

pytestmark = needs("flame/README.md", "deca_encoder/README.md", "deep3dface/README.md")


def test_plain_and_chumpy_pickles_hold_the_same_head() -> None:
    plain, chumpy = (read_flame(FLAME / f"generic_model_{kind}.pkl") for kind in ("numpy", "chumpy"))
    for name, value in vars(plain).items():
        np.testing.assert_array_equal(getattr(chumpy, name), value, err_msg=name)
    vertices = arrays(FLAME / "cases.npz")["vertices"].shape[1]
    assert plain.v_template.shape == (vertices, 3)
    assert plain.faces.max() < vertices


def test_landmark_embedding() -> None:
    found = read_landmark_embedding(FLAME / "landmark_embedding.npy")
    for name in ("static_bary", "dynamic_bary", "full_bary"):
        np.testing.assert_allclose(getattr(found, name).sum(-1), 1, atol=1e-5)
    count = len(read_flame(FLAME / "generic_model_numpy.pkl").faces)
    assert max(found.full_faces.max(), found.dynamic_faces.max(), found.static_faces.max()) < count


def test_basel_face() -> None:
    found = read_bfm(DEEP3D / "BFM_model_front_synthetic.mat")
    assert found.mean_shape.shape == arrays(DEEP3D / "cases.npz")["bfm_shape"].shape[1:]
    assert (found.point_faces == len(found.faces)).any()


def test_names_and_shapes_of_the_networks() -> None:
    deca = json.loads((DECA / "state_dict_shapes.json").read_text())["E_flame"]
    deep3d = json.loads((DEEP3D / "state_dict_shapes.json").read_text())
    assert {name: list(shape) for name, shape in deca_encoder_shapes().items()} == deca
    assert {name: list(shape) for name, shape in deep3d_shapes().items()} == deep3d


def test_seeded_values_follow_the_recipe() -> None:
    shapes = {"a.weight": (3, 4), "n.weight": (5,), "n.bias": (5,), "n.running_var": (5,), "t": ()}
    shapes |= {"n.running_mean": (5,), "n.num_batches_tracked": ()}
    for name, value in seeded_state(shapes, 7).items():
        assert torch.equal(seeded(name, shapes[name], 7), value), name
