"""The attention mesh: the converted model against TensorFlow.js, and what it reads on a photograph."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import skimage.data
from numpy.typing import NDArray
from onnx import numpy_helper

from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.topology import (
    BROWS,
    EYE_CONTOUR_LEFT,
    EYE_CONTOUR_RIGHT,
    IRIS_LEFT,
    IRIS_RIGHT,
    LIPS_REFINED,
    MIRROR,
)
from portrait_core.model_files.check import check_model
from portrait_core.runtime.package_files import data_folder
from portrait_core.tracking.attention import MODEL, AttentionReader
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.training import convert_tfjs
from portrait_core.training.convert_tfjs import OUTPUTS, convert
from portrait_core.training.known_pictures import CHANGES, Subject
from portrait_core.training.reader_calibration import centred, change_photograph, draw_people
from portrait_core.training.render import SceneRenderer
from portrait_core.weights.registry import MODELS as REGISTRY

MODELS = data_folder() / "models"

RECORDED = {
    "mesh": ((90.5621, 134.6414, -6.8340, 90.4790), (-4.6626, 134.1891, 76.0274, -4.8760), 66.40585),
    "lips": ((76.4440, 137.4030, 77.2709, 139.7883), (106.8315, 138.6952, 109.7984, 138.8294), 117.29386),
    "right_eye": ((58.1142, 80.5852, 59.9709, 82.7595), (82.4166, 72.6558, 85.6562, 80.1595), 73.5344),
    "left_eye": ((131.4485, 82.5449, 129.6617, 84.2148), (104.8034, 73.0034, 100.3850, 80.9746), 101.85029),
    "right_iris": ((67.3076, 80.2612, 73.1388, 80.2406), (61.5174, 80.2534, 66.8335, 85.5971), 73.7852),
    "left_iris": ((117.2799, 81.5420, 122.7262, 81.7713), (111.8662, 81.2755, 117.6202, 87.2634), 99.41199),
}
"""First four values, last four and mean of what TensorFlow.js 4.22.0 (its CPU backend) computes from the
original graph and :func:`_drawn_face`; the presence is 0.03882."""


@pytest.fixture(scope="module")
def astronaut() -> NDArray[np.uint8]:
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def points(astronaut: NDArray[np.uint8]) -> NDArray[np.float32]:
    return FaceLandmarker.from_models(MODELS).detect(astronaut[None]).points


@pytest.fixture(scope="module")
def reader() -> AttentionReader:
    return AttentionReader.from_models(MODELS)


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(MODELS / MODEL), providers=["CPUExecutionProvider"])


def _drawn_face() -> NDArray[np.float32]:
    """Two dark discs and a light one on a gradient, ``[1,192,192,3]``."""
    y, x = (np.mgrid[0:192, 0:192].astype(np.float32) + 0.5) / 192
    image = np.stack([x, y, x * y], -1)
    for across, down, radius, level in ((0.35, 0.4, 0.06, 0.1), (0.65, 0.4, 0.06, 0.1), (0.5, 0.7, 0.1, 0.6)):
        image[(x - across) ** 2 + (y - down) ** 2 < radius * radius] = level
    return np.asarray(image[None], np.float32)


def test_the_model_is_the_recorded_one_and_can_be_checked() -> None:
    record = json.loads((MODELS / MODEL).with_suffix(".json").read_text(encoding="utf-8"))
    assert hashlib.sha256((MODELS / MODEL).read_bytes()).hexdigest() == record["sha256"]
    assert record["licence"].startswith("Apache-2.0 (Google")
    assert MODEL in (MODELS / "NOTICE").read_text(encoding="utf-8")
    assert f"{len(OUTPUTS)} outputs" in check_model(MODELS / MODEL, REGISTRY["face_mesh_attention"]).content


def test_it_computes_what_the_original_does(session: onnxruntime.InferenceSession) -> None:
    found = dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"image": _drawn_face()}), strict=True))
    for name, (first, last, mean) in RECORDED.items():
        values = found[name].ravel()
        assert found[name].shape == (1, *OUTPUTS[name][1])
        np.testing.assert_allclose([*values[:4], *values[-4:]], [*first, *last], atol=1e-3, err_msg=name)
        assert values.mean() == pytest.approx(mean, abs=1e-3), name
    assert found["presence"] == pytest.approx([0.03882], abs=1e-4)


def test_the_refined_points_are_those_that_the_model_crops_by() -> None:
    stored = [numpy_helper.to_array(t) for t in onnx.load(MODELS / MODEL).graph.initializer]
    for table in (LIPS_REFINED, EYE_CONTOUR_RIGHT, EYE_CONTOUR_LEFT):
        assert len(set(table.tolist())) == len(table)
        assert any(np.array_equal(values, table) for values in stored)


def test_refined_lips_and_eyes_lie_by_the_first_readers(
    reader: AttentionReader, astronaut: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    read = reader.read(astronaut[None], points)
    assert read.shape == (1, 478, 2)
    assert read.dtype == np.float32
    apart = np.linalg.norm(read[0] - points[0], axis=1)  # the outer corners of her eyes are 59 pixels apart
    for part, most in ((LIPS_REFINED, 3), (EYE_CONTOUR_RIGHT, 3), (EYE_CONTOUR_LEFT, 3), (BROWS, 4)):
        assert apart[part].mean() < most
    for iris in (IRIS_RIGHT, IRIS_LEFT):
        assert apart[iris].max() < 2
    # every lip point is paired with the one that it replaces: a shuffled table is farther off
    shuffled = np.roll(LIPS_REFINED, 1)
    assert (
        np.linalg.norm(read[0, shuffled] - points[0, LIPS_REFINED], axis=1).mean()
        > 1.5 * apart[LIPS_REFINED].mean()
    )


def test_a_turned_picture_has_the_same_points_turned(
    reader: AttentionReader, astronaut: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    turned = np.ascontiguousarray(np.rot90(astronaut))
    around = np.stack([points[..., 1], astronaut.shape[1] - points[..., 0]], -1)
    read, straight = reader.read(turned[None], around), reader.read(astronaut[None], points)
    back = np.stack([astronaut.shape[1] - read[..., 1], read[..., 0]], -1)
    assert np.abs(back - straight).max() < 0.2


def test_a_face_and_its_mirror_image_are_read_alike(
    reader: AttentionReader, astronaut: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    """The network alone reads them up to pixels apart: half of its looks are mirrored."""
    across = np.array([astronaut.shape[1], 0]), np.array([-1, 1])
    flipped = np.ascontiguousarray(astronaut[:, ::-1])

    def apart(model: AttentionReader) -> float:
        around = (across[0] + across[1] * points)[:, MIRROR]
        back = (across[0] + across[1] * model.read(flipped[None], around))[:, MIRROR]
        return float(np.abs(back - model.read(astronaut[None], points)).max())

    assert apart(reader) < 0.1
    assert apart(AttentionReader.from_models(MODELS, looks=1)) > 1.0


def test_a_batch_equals_one_by_one_and_leaves_out_what_shows_no_face(
    reader: AttentionReader, astronaut: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    grey = np.full_like(astronaut, 128)
    brighter = np.minimum(astronaut.astype(int) + 40, 255).astype(np.uint8)
    frames = np.stack([astronaut, grey, brighter, astronaut])
    known = np.concatenate([points, points, points, np.full_like(points, np.nan)])
    read = reader.read(frames, known)
    assert np.isfinite(read).all((1, 2)).tolist() == [True, False, True, False]
    assert np.isnan(read[[1, 3]]).all()
    for i in (0, 2):
        np.testing.assert_allclose(reader.read(frames[i : i + 1], known[i : i + 1])[0], read[i], atol=1e-3)
    assert reader.read(frames[:0], known[:0]).shape == (0, 478, 2)
    assert np.isnan(reader.read(frames[3:], known[3:])).all()


def test_what_it_refuses(
    reader: AttentionReader, astronaut: NDArray[np.uint8], points: NDArray[np.float32], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="add the leading axis"):
        reader.read(astronaut, points)
    with pytest.raises(ValueError, match=r"expected points \[1,478,2\].*got \(1, 468, 2\)"):
        reader.read(astronaut[None], points[:, :468])
    with pytest.raises(ValueError, match="threads must be at least 1"):
        AttentionReader.from_models(MODELS, threads=0)
    with pytest.raises(ValueError, match=r"looks must be 1 to 4, got 5; set tracking\.looks"):
        AttentionReader.from_models(MODELS, looks=5)
    with pytest.raises(ValueError, match=rf"{MODEL} is missing"):
        AttentionReader.from_models(tmp_path)


def _graph(node: dict[str, object], dtype: str = "float16") -> dict[str, object]:
    coded = {"quantization": {"dtype": dtype}, "name": "w", "shape": [1], "dtype": "float32"}
    nodes = [{"name": "x", "op": "Placeholder"}, {"name": "w", "op": "Const"}, {"name": "y", **node}]
    return {"weightsManifest": [{"weights": [coded]}], "modelTopology": {"node": nodes}}


def _slice(name: str, channel: int) -> dict[str, object]:
    """A node that takes one channel of the first pixel, ``[n]``."""
    masks = {"begin": 1, "end": 1, "ellipsis": 0, "new_axis": 0, "shrink_axis": 14}
    attributes = {f"{mask}_mask": {"i": str(bits)} for mask, bits in masks.items()}
    inputs = ["x", f"low{channel}", f"high{channel}", "steps"]
    return {"name": name, "op": "StridedSlice", "input": inputs, "attr": attributes}


def test_angles_are_right_all_around(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"low0": [0, 0, 0, 0], "high0": [0, 1, 1, 1], "low1": [0, 0, 0, 1], "high1": [0, 1, 1, 2]}
    values["steps"] = [1, 1, 1, 1]
    specs = [{"name": name, "shape": [4], "dtype": "int32"} for name in values]
    angle = {"name": "angle", "op": "Atan2", "input": ["down", "across"]}
    nodes = [{"name": "x", "op": "Placeholder"}, _slice("down", 0), _slice("across", 1), angle]
    graph = {"weightsManifest": [{"weights": specs}], "modelTopology": {"node": nodes}}
    monkeypatch.setattr(convert_tfjs, "OUTPUTS", {"angle": ("angle", ())})
    blob = convert(graph, np.array(list(values.values()), np.int32).tobytes()).SerializeToString()
    turns = np.linspace(-3.1, 3.1, 63)
    ways = np.array([*zip(np.sin(turns), np.cos(turns), strict=True), (0, 0), (1, 0), (-1, 0), (0, -1)])
    image = np.zeros((len(ways), 192, 192, 3), np.float32)
    image[:, 0, 0, :2] = ways
    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"image": image})[0], np.arctan2(*ways.T), atol=1e-5)


def test_another_graph_is_refused() -> None:
    with pytest.raises(ValueError, match=r"operator Erf \(y\) is not supported"):
        convert(_graph({"op": "Erf", "input": ["x"]}), bytes(2))
    with pytest.raises(ValueError, match="a weight is not half precision"):
        convert(_graph({"op": "Mul", "input": ["x", "w"]}, "float32"), np.float32(0.1).tobytes())
    with pytest.raises(ValueError, match="x is computed"):
        convert(_graph({"op": "GatherV2", "input": ["w", "w", "x"], "attr": {}}), bytes(2))


def test_chins_drop_as_far_as_jaws_do() -> None:
    """Of rendered people, whose chins are known: the network itself reports little more than half."""
    landmarker = FaceLandmarker.from_models(MODELS)
    renderer = SceneRenderer(MorphableHead.load(MODELS / "embedded_head.safetensors"))
    people, true, read = [], [], []
    for person, known in draw_people(renderer, 4, 5, seed=21):
        found = landmarker.detect(known.image[None])
        if found.ok[0]:
            people.append(person)
            true.append(_chin_below_nose(known.points))
            read.append(_chin_below_nose(found.points[0].astype(np.float64)))
    x, y = (centred(np.array(values), np.array(people)) for values in (true, read))
    assert len(x) > 15
    assert 0.8 < float(x @ y / (x @ x)) < 1.15


def _chin_below_nose(points: NDArray[np.float64]) -> float:
    """Height of the chin below the bridge of the nose, over the distance of the outer eye corners."""
    across = points[263] - points[33]
    eyes = float(np.linalg.norm(across))
    down = np.array([-across[1], across[0]]) / eyes
    return float((points[152] - points[6]) @ down) / eyes


@pytest.mark.parametrize(("region", "axis", "least"), [("gaze across", 0, 0.75), ("gaze up", 1, 0.45)])
def test_looks_are_read_with_little_loss(
    astronaut: NDArray[np.uint8], points: NDArray[np.float32], region: str, axis: int, least: float
) -> None:
    """Irises of the photograph are moved by a known field, and nothing else."""
    subject = Subject.of(astronaut, points[0])
    changes = [change for change in CHANGES if change.region == region]
    known = [one.seen(512) for _, one in change_photograph(subject, changes)]
    read = FaceLandmarker.from_models(MODELS).detect(np.stack([one.image for one in known])).points
    true = np.stack([one.points for one in known])
    irises, corners = [468, 473], [33, 133, 362, 263]

    def moved(found: NDArray[np.floating], which: list[int]) -> NDArray[np.float64]:
        heights = found[:, which, axis].mean(1).astype(np.float64)
        return heights - heights.mean()

    look = moved(true, irises)
    assert np.ptp(look) > 7
    # the network alone moves the corners by a quarter of the look
    assert abs(float(moved(read, corners) @ look / (look @ look))) < (0.15 if axis == 0 else 0.4)
    assert float((moved(read, irises) - moved(read, corners)) @ look / (look @ look)) > least
