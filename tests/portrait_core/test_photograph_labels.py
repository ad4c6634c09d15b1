"""Labels of photographs: the real network and tracker on real pictures, and the network against numpy."""

import hashlib
import json

import numpy as np
import onnx
import pytest
import skimage.data
from numpy.typing import NDArray
from onnx import numpy_helper

from portrait_core.attribute_editing.conditions import PUBLISHED_CONDITIONS
from portrait_core.attribute_editing.photograph_labels import (
    LOCAL_SOURCES,
    PhotographLabeller,
    PhotographLabels,
    not_labelled,
)
from portrait_core.model_files.check import check_model
from portrait_core.runtime.package_files import data_folder
from portrait_core.training.convert_age_gender import build, largest_difference
from portrait_core.training.tfjs import Weight, read_weights
from portrait_core.weights.registry import MODELS as REGISTRY

MODELS = data_folder() / "models"
NETWORK = MODELS / "age_gender.onnx"


@pytest.fixture(scope="module")
def astronaut() -> NDArray[np.uint8]:
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def labels(astronaut: NDArray[np.uint8]) -> PhotographLabels:
    """Of a photograph, its mirror image, one without a face and a smaller one."""
    mirrored = np.ascontiguousarray(astronaut[:, ::-1])
    return PhotographLabeller.from_models(MODELS).label(
        [astronaut, mirrored, skimage.data.chelsea(), astronaut[:300, 60:380]]
    )


def test_a_woman_of_about_40_who_smiles_at_the_camera(labels: PhotographLabels) -> None:
    values = {name: value[0] for name, value in labels.values.items()}
    assert 25 < values["age"] < 55, "the network takes years off her: 31"
    assert values["gender"] < 0.3
    assert values["expression"] > 0.8
    assert abs(values["yaw"]) < 6
    assert -12 < values["pitch"] < 4


def test_labels_do_not_hang_on_sides_or_on_the_frame(labels: PhotographLabels) -> None:
    for other in (1, 3):
        change = {
            name: abs(value[other] - value[0]) for name, value in labels.values.items() if name != "yaw"
        }
        assert change["age"] < 4
        assert change["gender"] < 0.1
        assert change["expression"] < 0.1
        assert change["pitch"] < 2
    assert abs(labels.values["yaw"][0] + labels.values["yaw"][1]) < 7, "either is up to 3 degrees off"


def test_a_cat_has_no_labels_and_is_told(labels: PhotographLabels) -> None:
    assert all(np.isnan(value[2]) for value in labels.values.values())
    assert [bool(problem) for problem in labels.problems] == [False, False, True, False]
    assert "no face was found" in labels.problems[2]
    assert labels.faces.tolist() == [1, 1, 0, 1]


def test_by_picture(labels: PhotographLabels) -> None:
    found = labels.by_picture(["a.png", "b.png", "cat.png", "c.png"])
    assert found["cat.png"] == {}
    assert found["b.png"]["age"] == labels.values["age"][1]
    assert set(found["a.png"]) == set(LOCAL_SOURCES) == set(labels.values)
    with pytest.raises(ValueError, match="4 different names"):
        labels.by_picture(["a.png", "a.png", "b.png", "c.png"])


def test_what_needs_a_table() -> None:
    light = tuple(f"light_{i}" for i in range(9))
    assert not_labelled() == (*light, "glasses", "baldness", "beard")
    assert not_labelled(PUBLISHED_CONDITIONS.without([*light, "beard"]).with_held({"glasses": 0.0})) == (
        "baldness",
    )
    assert {name: source.strength for name, source in LOCAL_SOURCES.items() if source.strength != "weak"} == {
        "yaw": "good",
        "pitch": "good",
    }


def test_the_network_is_the_recorded_one_and_can_be_checked() -> None:
    record = json.loads(NETWORK.with_suffix(".json").read_text(encoding="utf-8"))
    assert hashlib.sha256(NETWORK.read_bytes()).hexdigest() == record["sha256"]
    notice = (MODELS / "NOTICE").read_text(encoding="utf-8")
    assert record["licence"].startswith("MIT")
    assert "Vincent Mühler" in notice
    assert "Permission is hereby granted" in notice
    assert "2 outputs" in check_model(NETWORK, REGISTRY["age_gender"]).content


@pytest.fixture(scope="module")
def weights() -> dict[str, Weight]:
    """The committed network's weights as the converter reads them, and through its own format."""
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(NETWORK).graph.initializer}
    names = [n.removesuffix("/stored") for n in stored if n.endswith("/stored")]
    axes = {"filters": (2, 3, 1, 0), "depthwise_filter": (2, 3, 0, 1), "pointwise_filter": (2, 3, 1, 0)}
    specs, parts = [], []
    for name in sorted([*names, *(n for n in stored if n.endswith("/bias"))]):
        coded = f"{name}/stored" in stored
        value = stored[f"{name}/stored" if coded else name]
        value = value.transpose(axes[kind]) if (kind := name.rpartition("/")[2]) in axes else value
        spec = {"name": name, "shape": value.shape, "dtype": "float32"}
        if coded:
            scale, zero = float(stored[f"{name}/scale"]), float(stored[f"{name}/zero"])
            spec["quantization"] = {"dtype": "uint8", "scale": scale, "min": -zero * scale}
        specs.append(spec)
        parts.append(np.ascontiguousarray(value).tobytes())
    return read_weights([{"weights": specs}], b"".join(parts))


def test_the_network_equals_its_numpy_form(weights: dict[str, Weight]) -> None:
    years, share = largest_difference(weights, NETWORK.read_bytes())
    assert years < 1e-4
    assert share < 1e-5


def test_building_is_repeatable_and_refuses_weights_without_a_place(weights: dict[str, Weight]) -> None:
    assert build(weights).SerializeToString(deterministic=True) == NETWORK.read_bytes()
    with pytest.raises(ValueError, match="no place for fc/race/bias"):
        build({**weights, "fc/race/bias": weights["fc/age/bias"]})


@pytest.mark.parametrize(
    ("spec", "size", "said"),
    [
        ({"dtype": "bool"}, 2, "is bool"),
        ({"dtype": "float32"}, 12, "the weights are 12 bytes, the manifest names 8"),
        ({"dtype": "uint8"}, 2, "8 bits and no scale"),
    ],
)
def test_other_weights_are_refused(spec: dict[str, object], size: int, said: str) -> None:
    groups = [{"weights": [{"name": "w", "shape": [2], **spec}]}]
    with pytest.raises(ValueError, match=said):
        read_weights(groups, bytes(size))


@pytest.mark.parametrize("minimum", [-0.5, 1.0, -256.0])
def test_a_weight_without_a_level_for_zero_has_values_and_no_zero(minimum: float) -> None:
    coded = {"dtype": "uint8", "scale": 1.0, "min": minimum}
    groups = [{"weights": [{"name": "w", "shape": [2], "dtype": "float32", "quantization": coded}]}]
    weight = read_weights(groups, bytes([0, 7]))["w"]
    assert weight.value.tolist() == [minimum, 7 + minimum]
    with pytest.raises(ValueError, match="weight w has no level for 0"):
        assert weight.zero
