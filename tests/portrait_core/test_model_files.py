"""Files of weights in every official layout are read to the numbers that were written."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import pytest
import torch

from portrait_core.baselines.facevid2vid_checkpoint import read_facevid2vid
from portrait_core.baselines.pirenderer_files import read_pirenderer
from portrait_core.errors import ModelFileError
from portrait_core.inversion.features import build_features, feature_distance
from portrait_core.metrics.inception import read_inception
from portrait_core.tracking.checkpoints import deca_encoder_shapes, deep3d_shapes, read_deca, read_deep3d
from portrait_core.weights.readers.flame_files import read_flame, read_flame_masks, read_landmark_embedding
from portrait_core.weights.readers.mat_files import read_bfm, read_similarity_landmarks
from portrait_core.weights.readers.onnx_files import read_arcface, read_face_detector
from portrait_core.weights.readers.torch_files import (
    read_alexnet,
    read_lpips,
    read_lpips_alex,
    read_styleflow,
    read_torch,
    read_vgg16,
)
from tests import official_files
from tests.old_pickles import Select, csc_matrix, sparse_columns, stand_in


@pytest.mark.parametrize("layout", official_files.FLAME_LAYOUTS)
def test_flame_in_every_layout(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "generic_model.pkl"
    wanted = official_files.write_flame(path, layout)
    found = read_flame(path)
    names = {"v_template", "shapedirs", "posedirs", "weights"}
    pairs = {name: name for name in names} | {"j_regressor": "J_regressor", "faces": "f"}
    for ours, theirs in pairs.items():
        array = getattr(found, ours)
        np.testing.assert_array_equal(array, wanted[theirs], err_msg=ours)
        assert type(array) is np.ndarray
        assert array.flags.c_contiguous
        assert array.dtype == (np.int64 if ours == "faces" else np.float64)
    assert found.kintree_table.tolist() == [[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]


def test_flame_with_other_kinds_of_arrays(tmp_path: Path) -> None:
    path = tmp_path / "generic_model.pkl"
    wanted = official_files.flame_arrays()
    template = wanted["v_template"]
    order = np.arange(template.size)[::-1].copy()
    selected = stand_in(Select, a=template.ravel()[::-1].copy(), idxs=order, preferred_shape=template.shape)
    single = {name: wanted[name].astype(">f4") for name in ("posedirs", "weights")}
    official_files.write_flame(path, J_regressor=wanted["J_regressor"], **{"v_template": selected, **single})
    found = read_flame(path)
    np.testing.assert_array_equal(found.v_template, template)
    np.testing.assert_array_equal(found.j_regressor, wanted["J_regressor"])
    assert found.posedirs.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(found.weights, wanted["weights"].astype(np.float32))


def _columns(**changes: Any) -> Any:
    state = vars(sparse_columns(official_files.flame_arrays()["J_regressor"]))
    return stand_in(csc_matrix, **(state | changes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": None}, "it lacks weights; it holds f, v_template"),
        ({"shapedirs": np.zeros((156, 3, 300))}, r"shapedirs is float64 \[156, 3, 300\], expected numbers"),
        ({"posedirs": np.full((156, 3, 36), np.nan)}, "posedirs has values that are not finite"),
        ({"f": np.array([[0, 1, 156]], np.uint32)}, "f has indices from 0 to 156, expected 0 to 155"),
        ({"f": np.zeros((3, 3))}, "expected whole numbers"),
        ({"kintree_table": np.array([[0, 0, 1, 1, 1], range(5)])}, "no tree of 5 joints"),
        ({"kintree_table": np.zeros((2, 24), np.uint32)}, r"expected integers \(2, 5\)"),
        ({"v_template": "text"}, "v_template: expected an array, got a str"),
        ({"J_regressor": _columns(_shape=(5, 2**40))}, "J_regressor has shape"),
        ({"J_regressor": _columns(indices=np.array([9], np.int32))}, "cannot be used"),
        ({"v_template": stand_in(Select, a=np.zeros(3), idxs=np.array([3]))}, "does not have"),
    ],
)
def test_what_is_no_flame_head(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "generic_model.pkl"
    official_files.write_flame(path, **change)
    with pytest.raises(ModelFileError, match=words):
        read_flame(path)


@pytest.mark.parametrize("protocol", [3, 4])
def test_landmark_embedding(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "landmark_embedding.npy"
    wanted = official_files.write_landmark_embedding(path, protocol=protocol)
    found = read_landmark_embedding(path)
    for kind in ("static", "dynamic", "full"):
        faces, bary = getattr(found, f"{kind}_faces"), getattr(found, f"{kind}_bary")
        np.testing.assert_array_equal(faces, wanted[f"{kind}_lmk_faces_idx"].reshape(faces.shape))
        np.testing.assert_array_equal(bary, wanted[f"{kind}_lmk_bary_coords"].reshape(bary.shape))
        assert faces.dtype == np.int64
    assert found.full_bary.shape == (68, 3)
    assert found.dynamic_bary.shape == (79, 17, 3)


def test_other_arrays_are_no_landmark_embedding(tmp_path: Path) -> None:
    path = tmp_path / "landmark_embedding.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(ModelFileError, match="holds float64 of shape"):
        read_landmark_embedding(path)
    np.save(path, np.array({"a": 1}, dtype=object), allow_pickle=True)
    with pytest.raises(ModelFileError, match="lacks static_lmk_faces_idx; it holds a"):
        read_landmark_embedding(path)
    official_files.write_landmark_embedding(path, full_lmk_bary_coords=np.zeros((67, 3)))
    with pytest.raises(ModelFileError, match=r"full_lmk_bary_coords is float64 \[67, 3\]"):
        read_landmark_embedding(path)


def test_flame_masks(tmp_path: Path) -> None:
    path = tmp_path / "FLAME_masks.pkl"
    wanted = official_files.write_flame_masks(path)
    found = read_flame_masks(path).regions
    assert list(found) == list(wanted)
    for name, vertices in wanted.items():
        np.testing.assert_array_equal(found[name], vertices)
    path.write_bytes(pickle.dumps({"nose": np.arange(3)}, 4))
    with pytest.raises(ModelFileError, match="holds nose, expected face, lips"):
        read_flame_masks(path)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Checkpoints whose shapes the networks fix: written once, 200 MB."""
    folder = tmp_path_factory.mktemp("checkpoints")
    official_files.write_deca(folder / "deca_model.tar", zipped=False)
    official_files.write_deep3d(folder / "epoch_20.pth")
    yield folder
    shutil.rmtree(folder)


def test_deca_and_deep3d(networks: Path) -> None:
    deca = read_deca(networks / "deca_model.tar").e_flame
    deep3d = read_deep3d(networks / "epoch_20.pth").net_recon
    for state, shapes, seed in ((deca, deca_encoder_shapes(), 11), (deep3d, deep3d_shapes(), 31)):
        assert {name: tuple(value.shape) for name, value in state.items()} == shapes
        for name in list(shapes)[::40]:
            assert torch.equal(state[name], official_files.seeded(name, shapes[name], seed)), name
    assert (len(deca), len(deep3d)) == (322, 332)


def test_checkpoints_are_held_to_their_network(tmp_path: Path) -> None:
    path = tmp_path / "deca_model.tar"
    shapes = {"layers.2.bias": (236,), "layers.2.weight": (236, 7)}
    official_files.write_deca(path, {"E_flame": shapes})
    with pytest.raises(ModelFileError, match=r"encoder\.conv1\.weight is missing.* and 318 more") as caught:
        read_deca(path)
    assert "deca_model.tar" in str(caught.value)
    state = {name: torch.zeros(()).expand(shape) for name, shape in deca_encoder_shapes().items()}
    for value, words in (
        (torch.zeros(1).expand(236, 7), r"layers\.2\.weight has shape \[236, 7\], expected \[236, 1024\]"),
        (
            torch.full((1, 1), torch.nan).expand(236, 1024),
            r"layers\.2\.weight has values that are not finite",
        ),
        ("text", r"layers\.2\.weight is a str"),
        (torch.zeros(236, 1024).to_sparse(), r"layers\.2\.weight is a Tensor, expected plain"),
    ):
        torch.save({"E_flame": {**state, "layers.2.weight": value}}, path)
        with pytest.raises(ModelFileError, match=words):
            read_deca(path)
    torch.save({"E_flame": state | {"more": torch.zeros(1)}}, path)
    assert set(read_deca(path).e_flame) == set(state)
    torch.save({"state": {}}, path)
    with pytest.raises(ModelFileError, match="it lacks E_flame; it holds state"):
        read_deca(path)


def test_half_precision_and_doubles_become_float32(tmp_path: Path) -> None:
    path = tmp_path / "modellarge10k.pt"
    torch.save({"a": torch.ones(2).half(), "b": torch.ones(2).double(), "n": torch.tensor(3)}, path)
    found = read_styleflow(path)
    assert [value.dtype for value in found.values()] == [torch.float32, torch.float32, torch.int64]


def test_vgg16_makes_features(tmp_path: Path) -> None:
    path = tmp_path / "vgg16-397923af.pth"
    official_files.write_vgg16(path)
    state = read_vgg16(path)
    assert len(state) == 26
    features = build_features("vgg16", path)
    assert torch.equal(features.get_parameter("layers.0.weight"), state["features.0.weight"])
    with torch.no_grad():
        maps = features(torch.rand(1, 3, 32, 32) * 2 - 1)
    assert [m.shape[1] for m in maps] == [64, 128, 256, 512]
    assert all(torch.isfinite(m).all() for m in maps)


def test_lpips_is_the_packages(tmp_path: Path) -> None:
    """Against the package ``lpips`` with the same VGG16."""
    path = tmp_path / "vgg16-397923af.pth"
    official_files.write_vgg16(path)
    state, ours = read_vgg16(path), build_features("lpips", path)
    theirs = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    own = {name: state[f"features.{name.split('.', 1)[1]}"] for name in theirs.net.state_dict()}
    theirs.net.load_state_dict(own)
    torch.manual_seed(0)
    a, b = torch.rand(2, 1, 3, 48, 64) * 2 - 1
    a[..., :20, :20] = 0
    with torch.no_grad():
        wanted = theirs(a, b).item()
        got = feature_distance(ours(a), ours(b)).item()
    assert got == pytest.approx(wanted, rel=1e-4)
    assert feature_distance(ours(a), ours(a)) == 0
    a.requires_grad_()
    feature_distance(ours(a), ours(b)).backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_lpips_heads(tmp_path: Path) -> None:
    installed = read_lpips().weights
    assert [tuple(w.shape) for w in installed] == [(1, n, 1, 1) for n in (64, 128, 256, 512, 512)]
    assert all((w >= 0).all() for w in installed)
    path = tmp_path / "vgg.pth"
    official_files.write_lpips(path)
    assert not torch.equal(read_lpips(path).weights[0], installed[0])


def test_matlab_files(tmp_path: Path) -> None:
    path = tmp_path / "similarity_Lm3D_all.mat"
    np.testing.assert_array_equal(
        official_files.write_similarity_landmarks(path), read_similarity_landmarks(path).landmarks
    )
    path = tmp_path / "BFM_model_front.mat"
    wanted, found = official_files.write_bfm(path), read_bfm(path)
    np.testing.assert_array_equal(found.mean_shape.ravel(), wanted["meanshape"][0])
    np.testing.assert_array_equal(found.identity[7, 1], wanted["idBase"][22])
    np.testing.assert_array_equal(found.faces, wanted["tri"] - 1)
    assert found.point_faces.max() == len(found.faces)
    assert found.keypoints.min() >= 0


@pytest.mark.parametrize("packed", ["buffalo_l.zip", "buffalo_l"])
def test_insightface_packs(tmp_path: Path, packed: str) -> None:
    import onnxruntime

    path = tmp_path / packed
    official_files.write_buffalo(path)
    arcface, detector = read_arcface(path), read_face_detector(path)
    assert list(arcface.inputs.values()) == [(None, 3, 112, 112)]
    assert list(arcface.outputs.values()) == [(None, 512)]
    assert list(detector.inputs.values()) == [(1, 3, None, None)]
    session = onnxruntime.InferenceSession(arcface.data, providers=["CPUExecutionProvider"])
    image = np.ones((2, 3, 112, 112), np.float32)
    assert session.run(None, {"input.1": image})[0].shape == (2, 512)


Reader = Callable[[Path], Any]
READERS: dict[str, Reader] = {
    "generic_model.pkl": read_flame,
    "landmark_embedding.npy": read_landmark_embedding,
    "FLAME_masks.pkl": read_flame_masks,
    "deca_model.tar": read_deca,
    "epoch_20.pth": read_deep3d,
    "vgg16-397923af.pth": read_vgg16,
    "vgg.pth": read_lpips,
    "alexnet-owt-7be5be79.pth": read_alexnet,
    "alex.pth": read_lpips_alex,
    "pt_inception-2015-12-05-6726825d.pth": read_inception,
    "modellarge10k.pt": read_styleflow,
    "00000189-checkpoint.pth.tar": read_facevid2vid,
    "similarity_Lm3D_all.mat": read_similarity_landmarks,
    "BFM_model_front.mat": read_bfm,
    "epoch_00190_iteration_000400000_checkpoint.pt": read_pirenderer,
    "w600k_r50.onnx": read_arcface,
    "det_10g.onnx": read_face_detector,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", [None, b"", b"<!DOCTYPE html><html>", b"\x80\x02.", b"PK\3\4 junk"])
def test_missing_and_other_files_are_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        READERS[name](path)
    said = str(caught.value)
    assert said.startswith(f"{name} ({path}) cannot be ")
    assert "Source: " in said
    assert "licence: " in said
    assert f"`portrait models check {path}`" in said
    assert "weights_only" not in said  # torch's advice to load it all the same


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    for name, read in READERS.items():
        (tmp_path / name).mkdir()
        with pytest.raises(ModelFileError, match=name):
            read(tmp_path / name)
    (tmp_path / "text").write_text("text")
    with pytest.raises(ValueError, match="no checkpoint that can be read safely"):
        read_torch(tmp_path / "text")
