"""Files of weights in the layouts in which their owners publish them, around seeded values.

Small where the layout allows it, of full shape where a network fixes it. The seeded values follow the recipe
of the reference numbers, so a network filled here computes what the reference folder holds.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.io import savemat
from torch import Tensor

from portrait_core.metrics.inception import inception_shapes
from portrait_core.tracking.checkpoints import deca_encoder_shapes, deep3d_shapes
from portrait_core.tracking.deca import N_CODE
from portrait_core.tracking.five_points import STANDARD_FACE
from portrait_core.weights.readers.torch_files import LPIPS_CHANNELS, alexnet_shapes, vgg16_shapes
from tests import published_pickle
from tests.old_pickles import chumpy, numpy1_object_npy, python2_pickle, sparse_columns

Shapes = Mapping[str, Sequence[int]]
RINGS, AROUND = 11, 14
"""Of the small head: an ellipsoid, 11 rings of 14 vertices and two poles."""
NO_PARENT = 2**32 - 1


def seeded(name: str, shape: Sequence[int], seed: int) -> Tensor:
    """The recipe's value of one entry of a state dict."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(tuple(shape), dtype=torch.int64)
    drawn = np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode())).standard_normal(tuple(shape))
    if name.endswith("running_var"):
        drawn = 1 + 0.1 * np.abs(drawn)
    elif name.endswith(("running_mean", "bias")) or not shape:
        drawn = 0.1 * drawn
    elif len(shape) == 1:
        drawn = 1 + 0.1 * drawn
    else:
        drawn = drawn / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(drawn, dtype=np.float32))


def seeded_state(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """The recipe's value of every entry."""
    return {name: seeded(name, shape, seed) for name, shape in shapes.items()}


def ellipsoid(rings: int = RINGS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices [V,3] in metres, triangles [F,3], texture coordinates [V,2]."""
    polar = np.linspace(0, np.pi, rings + 2)[1:-1, None]
    around = np.linspace(0, 2 * np.pi, AROUND, endpoint=False)[None]
    ring = np.stack(
        [np.sin(polar) * np.sin(around), np.cos(polar) + 0 * around, np.sin(polar) * np.cos(around)], -1
    )
    points = np.concatenate([ring.reshape(-1, 3), [[0, 1, 0], [0, -1, 0]]]) * [0.075, 0.11, 0.09]
    uv = np.stack([(around / (2 * np.pi) + 0.5) % 1 + 0 * polar, 1 - polar / np.pi + 0 * around], -1)
    uv = np.concatenate([uv.reshape(-1, 2), [[0.5, 1], [0.5, 0]]])
    top, bottom, faces = rings * AROUND, rings * AROUND + 1, []
    for j in range(AROUND):
        k = (j + 1) % AROUND
        faces += [[top, j, k], [bottom, (rings - 1) * AROUND + k, (rings - 1) * AROUND + j]]
        for i in range(rings - 1):
            a, b = i * AROUND, (i + 1) * AROUND
            faces += [[a + j, b + j, a + k], [a + k, b + j, b + k]]
    return points, np.array(faces), uv


def flame_arrays(seed: int = 0, rings: int = RINGS) -> dict[str, np.ndarray]:
    """A small head in FLAME's arrays: official names, dtypes and numbers of directions."""
    rng = np.random.RandomState(seed)
    points, faces, _ = ellipsoid(rings)
    count = len(points)
    weights = rng.rand(count, 5)
    regressor = np.where(rng.rand(5, count) < 0.1, rng.rand(5, count), 0) + np.eye(5, count)
    return {
        "f": faces.astype(np.uint32),
        "v_template": points,
        "shapedirs": rng.randn(count, 3, 400) * 1e-3,
        "posedirs": rng.randn(count, 3, 36) * 1e-3,
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "J": rng.randn(5, 3),
        "kintree_table": np.array([[NO_PARENT, 0, 1, 1, 1], range(5)], dtype=np.uint32),
        "weights": weights / weights.sum(1, keepdims=True),
    }


FLAME_LAYOUTS = ("numpy", "chumpy", "old chumpy", "protocol 0", "protocol 1", "python 3")


def write_flame(
    path: Path, layout: str = "chumpy", head: Mapping[str, np.ndarray] | None = None, **changes: Any
) -> dict[str, np.ndarray]:
    """Write ``generic_model.pkl``; the arrays in it are returned.

    Args:
        layout: one of ``FLAME_LAYOUTS``.
        head: arrays as :func:`flame_arrays` makes them; default: the small head's.
        changes: of the arrays, in the file alone; None leaves one out.
    """
    arrays = dict(head or flame_arrays())
    content: dict[str, Any] = dict(arrays)
    old = layout in ("old chumpy", "protocol 0")
    content["J_regressor"] = sparse_columns(arrays["J_regressor"], old=old)
    content["shapedirs"] = np.asfortranarray(arrays["shapedirs"])
    if layout not in ("numpy", "python 3"):
        for name in ("v_template", "shapedirs", "posedirs", "weights"):
            content[name] = chumpy(content[name], old=old)
    content |= {"bs_style": "lbs", "bs_type": "lrotmin", "vert_sym_idxs": np.arange(len(arrays["weights"]))}
    content = {name: value for name, value in (content | changes).items() if value is not None}
    if layout == "python 3":
        import pickle

        from scipy.sparse import csc_matrix

        if "J_regressor" not in changes:
            content["J_regressor"] = csc_matrix(arrays["J_regressor"])
        path.write_bytes(pickle.dumps(content, 4))
    else:
        protocol = int(layout.split()[1]) if layout.startswith("protocol") else 2
        path.write_bytes(python2_pickle(content, protocol))
    return arrays


def landmark_arrays(seed: int = 1) -> dict[str, np.ndarray]:
    """Landmarks on the small head, under the official names."""
    rng = np.random.RandomState(seed)
    count = len(ellipsoid()[1])

    def bary(*shape: int) -> np.ndarray:
        drawn = rng.rand(*shape, 3)
        return drawn / drawn.sum(-1, keepdims=True)

    return {
        "static_lmk_faces_idx": rng.randint(0, count, 51),
        "static_lmk_bary_coords": bary(51),
        "dynamic_lmk_faces_idx": rng.randint(0, count, (79, 17)),
        "dynamic_lmk_bary_coords": bary(79, 17).astype(np.float32),
        "full_lmk_faces_idx": rng.randint(0, count, (1, 68)),
        "full_lmk_bary_coords": bary(1, 68).astype(np.float32),
    }


def write_landmark_embedding(path: Path, *, protocol: int = 3, **changes: Any) -> dict[str, np.ndarray]:
    """Write ``landmark_embedding.npy``, the contour's arrays as torch tensors; the arrays are returned."""
    arrays = landmark_arrays()
    content: dict[str, Any] = {
        name: torch.from_numpy(value) if name.startswith("dynamic") else value
        for name, value in arrays.items()
    }
    numpy1_object_npy(path, content | changes, protocol=protocol)
    return arrays


def write_flame_masks(path: Path) -> dict[str, np.ndarray]:
    """Write ``FLAME_masks.pkl``."""
    count = len(ellipsoid()[0])
    masks = {name: np.arange(i, count, 3) for i, name in enumerate(("face", "lips", "scalp"))}
    path.write_bytes(python2_pickle(masks))
    return masks


def quietened(state: dict[str, Tensor], last: str, scale: float, values: Tensor | None = None) -> None:
    """Make a regressor's answers nearly ``values`` (default 0) whatever it sees: seeded weights know nothing
    of faces, and their coefficients would be of no head. ``last`` begins the names of its last layers."""
    for name, value in state.items():
        if name.startswith(last):
            value *= scale if name.endswith("weight") else 0
    if values is not None:
        state[f"{last}.bias"] += values


def deca_answer() -> Tensor:
    """A code ``[236]`` of an average head in the middle of the crop."""
    code = torch.zeros(N_CODE)
    code[206] = 9.0  # the camera's scale: the small head is 0.15 m wide, the crop 2
    return code


def write_deca(
    path: Path,
    shapes: Mapping[str, Shapes] | None = None,
    *,
    zipped: bool = True,
    quiet: float | None = None,
) -> None:
    """Write ``deca_model.tar`` as a trainer saves it, with its optimiser.

    Args:
        shapes: names and shapes of each network; default: the coefficient encoder in full.
        zipped: torch's zip format; the older one else.
        quiet: scale of the last layer, around :func:`deca_answer`.
    """
    shapes = {"E_flame": deca_encoder_shapes()} if shapes is None else shapes
    seeds = {"E_flame": 11, "E_detail": 12, "D_detail": 13}
    content: dict[str, Any] = {name: seeded_state(shapes.get(name, {}), seed) for name, seed in seeds.items()}
    if quiet is not None:
        quietened(content["E_flame"], "layers.2", quiet, deca_answer())
    optimiser = torch.optim.Adam([torch.zeros(3, requires_grad=True)], lr=1e-4)
    content |= {"opt": optimiser.state_dict(), "global_step": 1000, "batch_size": 8}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


def write_deep3d(path: Path, shapes: Shapes | None = None, *, quiet: float | None = None) -> None:
    """Write ``epoch_20.pth``; ``quiet`` scales the last layers, around the frontal pose."""
    state = seeded_state(deep3d_shapes() if shapes is None else shapes, 31)
    if quiet is not None:
        quietened(state, "final_layers", quiet)
    optimiser = torch.optim.Adam([torch.zeros(3, requires_grad=True)])
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 10)
    content = {"net_recon": state, "opt_00": optimiser.state_dict(), "sched_00": schedule.state_dict()}
    torch.save(content, path)


def write_vgg16(path: Path) -> None:
    """Write ``vgg16-397923af.pth``; the classifier's layers repeat one number, which takes no space."""
    state = seeded_state(vgg16_shapes(), 16)
    for name, shape in (("0", (4096, 25088)), ("3", (4096, 4096)), ("6", (1000, 4096))):
        state[f"classifier.{name}.weight"] = torch.zeros(1, 1).expand(shape)
        state[f"classifier.{name}.bias"] = torch.zeros(1).expand(shape[0])
    torch.save(state, path)


def write_alexnet(path: Path) -> None:
    """Write ``alexnet-owt-7be5be79.pth``, with a classifier that takes no space."""
    state = seeded_state(alexnet_shapes(), 18)
    state["classifier.1.weight"] = torch.zeros(1, 1).expand(4096, 9216)
    torch.save(state, path)


def write_inception(path: Path, **changes: Tensor | None) -> None:
    """Write ``pt_inception-2015-12-05-6726825d.pth``; each entry repeats one number, which takes no space.

    Args:
        changes: entries of other values; None leaves one out.
    """
    state: dict[str, Tensor | None] = {
        name: seeded(name, (), 19).expand(shape) if shape else seeded(name, shape, 19)
        for name, shape in inception_shapes().items()
    }
    torch.save({name: value for name, value in (state | changes).items() if value is not None}, path)


def write_lpips(path: Path) -> None:
    """Write the linear layers that the package ``lpips`` holds, in torch's older format."""
    shapes = {f"lin{i}.model.1.weight": (1, n, 1, 1) for i, n in enumerate(LPIPS_CHANNELS)}
    state = {name: value.abs() for name, value in seeded_state(shapes, 17).items()}
    torch.save(state, path, _use_new_zipfile_serialization=False)


def write_similarity_landmarks(path: Path) -> np.ndarray:
    """Write ``similarity_Lm3D_all.mat``; its landmarks [68,3] are returned: random ones, but for eyes, nose
    and mouth, which are the standard face's."""
    landmarks = np.random.RandomState(3).uniform(-0.5, 0.5, (68, 3))
    for places, point in zip(((36, 39), (42, 45), (30,), (48,), (54,)), STANDARD_FACE, strict=True):
        landmarks[list(places)] = point
    savemat(path, {"lm": landmarks})
    return landmarks


def write_bfm(path: Path, seed: int = 4, rings: int = RINGS) -> dict[str, np.ndarray]:
    """Write ``BFM_model_front.mat`` of the ellipsoid, indices from 1; the arrays are returned."""
    rng = np.random.RandomState(seed)
    points, faces, _ = ellipsoid(rings)
    count = len(points)
    around = np.full((count, 8), len(faces) + 1)
    for vertex in range(count):
        found = np.nonzero((faces == vertex).any(1))[0][:8] + 1
        around[vertex, : len(found)] = found
    arrays = {
        "meanshape": points.reshape(1, -1),
        "idBase": rng.randn(3 * count, 80) * 1e-3,
        "exBase": rng.randn(3 * count, 64) * 1e-3,
        "meantex": rng.uniform(0, 255, (1, 3 * count)),
        "texBase": rng.randn(3 * count, 80),
        "tri": (faces + 1).astype(np.float32),
        "point_buf": around.astype(np.float32),
        "keypoints": rng.randint(1, count + 1, (1, 68)).astype(np.float32),
        "tri_mask2": np.ones((10, 3), np.float32),
        "frontmask2_idx": np.ones((10, 1), np.float32),
        "skinmask": np.ones((1, count), np.float32),
    }
    savemat(path, arrays)
    return arrays


def arcface_network() -> bytes:
    """An ONNX network with ArcFace's input and output."""
    weight = numpy_helper.from_array(seeded("w", (512, 3), 5).numpy(), "w")
    nodes = [
        helper.make_node("AveragePool", ["input.1"], ["pooled"], kernel_shape=[112, 112]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["683"], transB=1),
    ]
    image = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["None", 3, 112, 112])
    rows = helper.make_tensor_value_info("683", TensorProto.FLOAT, ["None", 512])
    return _onnx(nodes, [image], [rows], [weight])


def detector_network() -> bytes:
    """An ONNX network with the input and the nine outputs of insightface's detector."""
    names = [str(index) for index in range(448, 457)]
    nodes = [helper.make_node("Identity", ["input.1"], [name]) for name in names]
    image = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "?", "?"])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "?", "?"]) for name in names]
    return _onnx(nodes, [image], outputs, [])


def _onnx(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any]) -> bytes:
    graph = helper.make_graph(nodes, "network", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 6
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_buffalo(path: Path) -> None:
    """Write insightface's pack: a zip archive, or a folder where ``path`` has another name."""
    files = {"det_10g.onnx": detector_network(), "w600k_r50.onnx": arcface_network(), "genderage.onnx": b"x"}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)


def write_head_template(path: Path, rings: int = RINGS) -> None:
    """Write ``head_template.obj``: the ellipsoid, with a seam at its back, whose vertices have two texture
    coordinates each."""
    points, faces, uv = ellipsoid(rings)
    back = AROUND // 2  # the column where u begins at 0; seen from the other side it ends at 1
    seam = {ring * AROUND + back: len(uv) + ring for ring in range(rings)}
    uv = np.concatenate([uv, uv[list(seam)] + [1, 0]])
    lines = ["v " + " ".join(f"{value:.6f}" for value in point) for point in points]
    lines += ["vt " + " ".join(f"{value:.6f}" for value in point) for point in uv]
    for face in faces:
        before = any(i < rings * AROUND and i % AROUND == back - 1 for i in face)
        corners = [(i, seam.get(i, i) if before else i) for i in face]
        lines.append("f " + " ".join(f"{i + 1}/{j + 1}" for i, j in corners))
    path.write_text("\n".join(lines) + "\n")


def write_uv_mask(path: Path) -> None:
    """Write a mask of DECA's: 256 x 256 RGBA, a soft disc in the red channel."""
    y, x = np.mgrid[:256, :256]
    disc = np.clip((100 - np.hypot(x - 128, y - 128)) * 32, 0, 255).astype(np.uint8)
    Image.fromarray(np.stack([disc] * 3 + [np.full_like(disc, 255)], -1)).save(path)


QUIET = 0.02
"""Scale of the regressors' last layers for a run: coefficients of a few hundredths, which differ by frame."""


def write_paper(folder: Path, quiet: float | None = None, *, ffhq: bool = False) -> None:
    """Write every file of profile ``paper`` under its official name.

    Args:
        quiet: scale of the regressors' last layers.
        ffhq: EG3D's in its published size; else a tiny one for 128 pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    published_pickle.write_eg3d(folder / "ffhqrebalanced512-128.pkl", ffhq=ffhq)
    write_deca(folder / "deca_model.tar", quiet=quiet)
    write_flame(folder / "generic_model.pkl")
    write_landmark_embedding(folder / "landmark_embedding.npy")
    write_head_template(folder / "head_template.obj")
    write_uv_mask(folder / "uv_face_eye_mask.png")
    write_uv_mask(folder / "uv_face_mask.png")
    write_flame_masks(folder / "FLAME_masks.pkl")
    write_deep3d(folder / "epoch_20.pth", quiet=quiet)
    write_similarity_landmarks(folder / "similarity_Lm3D_all.mat")
    write_bfm(folder / "BFM_model_front.mat")
    write_vgg16(folder / "vgg16-397923af.pth")
    write_buffalo(folder / "buffalo_l.zip")
