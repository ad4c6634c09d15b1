"""The face-recognition network that comes with the program, its alignment, its file and its converter."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from portrait_core.errors import InputError, ModelFileError
from portrait_core.media import read_image
from portrait_core.metrics.face_alignment import Layout, cut_faces, face_squares
from portrait_core.metrics.face_recognition import (
    RANGE,
    FaceRecognition,
    load_face_recognition,
    read_face_recognition,
)
from portrait_core.metrics.identity import (
    ARCFACE_LAYOUT,
    DLIB_LAYOUT,
    cosine_similarity,
    identity_distance,
)
from portrait_core.model_files.check import check_model, identify_model
from portrait_core.runtime.package_files import data_file, data_folder
from portrait_core.training.convert_face_recognition import laid_out, package_name, packed
from portrait_core.training.tfjs import read_weights
from portrait_core.weights.locate import package_file
from portrait_core.weights.registry import MODELS

FILE = data_folder() / "models" / "face_recognition.safetensors"
NUMBERS = json.loads(Path(__file__).with_name("face_recognition_numbers.json").read_text(encoding="utf-8"))
GROUP = package_file("insightface", "data/images/t1.jpg")
LAYOUTS = {"dlib": DLIB_LAYOUT, "ArcFace": ARCFACE_LAYOUT}


@cache
def network() -> FaceRecognition:
    return load_face_recognition(FILE)


def picture(name: str) -> NDArray[np.uint8]:
    """A picture of the numbers' file."""
    if name == "t1":
        return read_image(str(GROUP))
    astronaut = skimage.data.astronaut()
    if name == "astronaut mirrored":
        return np.ascontiguousarray(astronaut[:, ::-1])
    return np.repeat(np.repeat(astronaut, 3, 0), 3, 1) if "three times" in name else astronaut


def tensor(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 127.5 - 1


def cut(face: dict[str, Any]) -> Tensor:
    """The chip of one of the numbers' faces ``[1,3,150,150]``."""
    squares = face_squares(np.array([face["points"]]) + 0.5, DLIB_LAYOUT)
    return cut_faces(tensor(picture(face["picture"])), squares)


def faces() -> list[dict[str, Any]]:
    return [face for face in NUMBERS["faces"] if face["picture"] != "t1" or GROUP.is_file()]


def vectors() -> NDArray[np.float64]:
    with torch.no_grad():
        found = network()(torch.cat([cut(face) for face in faces()]))
    return np.asarray(found.numpy(), np.float64)


def test_vectors_and_distances_are_dlibs() -> None:
    """The stored weights have 8 bits, which moves every vector by about 0.04; other people are 0.6 away."""
    mine, theirs = vectors(), np.array([face["vector"] for face in faces()])
    off, alike = identity_distance(mine, theirs), cosine_similarity(mine, theirs)
    # dlib makes large pictures smaller by a pyramid of its own
    large = np.array(["three times" in face["picture"] for face in faces()])
    assert off[~large].max() < 0.05
    assert alike[~large].min() > 0.9995
    assert off[large].max() < 0.09
    assert alike[large].min() > 0.998
    one, other = np.triu_indices(int((~large).sum()), 1)
    between = [identity_distance(v[~large][one], v[~large][other]) for v in (mine, theirs)]
    np.testing.assert_allclose(between[0], between[1], atol=0.02)


def test_gradients_reach_the_picture() -> None:
    face = NUMBERS["faces"][0]
    image = tensor(picture(face["picture"])).requires_grad_()
    squares = face_squares(np.array([face["points"]]) + 0.5, DLIB_LAYOUT)
    wanted = torch.tensor([NUMBERS["faces"][1]["vector"]])
    distance = (network()(cut_faces(image, squares)) - wanted).norm()
    (slope,) = torch.autograd.grad(distance, image)
    assert torch.isfinite(slope).all()
    x, y = np.mean(face["points"], axis=0).astype(int)
    assert (slope[0, :, y - 20 : y + 20, x - 20 : x + 20] != 0).float().mean() > 0.9
    assert slope[..., 400:].abs().max() == 0  # far outside the square
    step = 1e-2 * slope / slope.norm()
    with torch.no_grad():
        moved = (network()(cut_faces(image - step, squares)) - wanted).norm()
    assert float((distance.detach() - moved) / 1e-2) == pytest.approx(float(slope.norm()), rel=0.1)


def test_faces_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"faces are \[1, 3, 112, 112\], expected \[n,3,150,150\]"):
        network()(torch.zeros(1, 3, 112, 112))


# Alignment


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_turned_and_enlarged_layout_is_found_again(name: str) -> None:
    layout = LAYOUTS[name]
    turn, shift = 1.7 * np.exp(0.3j), 40 - 12j
    moved = turn * layout.numbers + shift
    squares = face_squares(np.stack([moved.real, moved.imag], -1)[None], layout)
    middle = complex(layout.size, layout.size) / 2
    assert squares.step[0] * middle + squares.origin[0] == pytest.approx(turn * middle + shift)
    longer = (layout.size * abs(turn) - 1) / (layout.size - 1) / abs(turn) if layout.whole_pixels else 1.0
    assert squares.step[0] == pytest.approx(turn * longer)


def test_the_two_ways_of_fitting_differ_where_proportions_do() -> None:
    long = np.array(ARCFACE_LAYOUT.places) * [1.0, 1.3]
    own = Layout(ARCFACE_LAYOUT.size, ARCFACE_LAYOUT.places, from_face=False)
    fits = {
        name: face_squares(long[None], layout).step[0].real
        for name, layout in (("from", ARCFACE_LAYOUT), ("onto", own))
    }
    face, place = (p - p.mean(0) for p in (long, np.array(ARCFACE_LAYOUT.places)))
    assert fits["from"] == pytest.approx((face**2).sum() / (face * place).sum())
    assert fits["onto"] == pytest.approx((face * place).sum() / (place**2).sum())


def test_a_square_shows_positions_of_its_picture_and_black_outside() -> None:
    layout = Layout(40, ((10, 10), (30, 10), (20, 20), (12, 30), (28, 30)), from_face=True)
    points = np.array(layout.places)
    y, x = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    ramp = torch.stack([x / 80, y / 60, torch.zeros_like(x)])
    starts = np.array([[20.0, 10.0], [-15.0, 0.0]])
    scales = np.array([1.3, 1.0])
    placed = points[None] * scales[:, None, None] + starts[:, None]
    shown = cut_faces(torch.stack([ramp, ramp]), face_squares(placed, layout))
    place = (torch.arange(40) + 0.5) * 1.3
    inside = slice(1, 30)
    assert torch.allclose(shown[0, 0, 5, inside], (place + 20)[inside] / 80, atol=1e-5)
    assert torch.allclose(shown[0, 1, inside, 5], (place + 10)[inside] / 60, atol=1e-5)
    assert (shown[1, :, :, :14] == -1).all()
    assert (shown[1, 2, 2:, 17:] == 0).all()


def test_large_faces_are_averaged_and_a_batch_keeps_its_order() -> None:
    layout = Layout(16, ((4, 4), (12, 4), (8, 8), (5, 12), (11, 12)), from_face=True)
    grain = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 3, 64, 64))).float()
    points = np.array(layout.places)[None]
    squares = face_squares(np.concatenate([points * 4, points, points * 3.9, points * 2]), layout)
    assert squares.samples.tolist() == [4, 1, 3, 2]
    together = cut_faces(grain.expand(4, -1, -1, -1), squares)
    for i in range(4):
        one = face_squares((points * [4, 1, 3.9, 2][i]), layout)
        assert torch.equal(together[i : i + 1], cut_faces(grain, one))
    assert torch.allclose(together[0], torch.nn.functional.avg_pool2d(grain[0], 4), atol=1e-5)
    assert len(cut_faces(grain[:0], face_squares(points[:0], layout))) == 0
    with pytest.raises(ValueError, match="1 pictures for 4 squares"):
        cut_faces(grain, squares)


@pytest.mark.parametrize("points", [np.full((1, 5, 2), np.nan), np.zeros((1, 5, 2))])
def test_points_of_no_face_are_refused(points: NDArray[np.float64]) -> None:
    with pytest.raises(InputError, match="not finite or lie in one place"):
        face_squares(points, DLIB_LAYOUT)
    with pytest.raises(ValueError, match=r"points are \[5, 2\], expected \[n,5,2\]"):
        face_squares(points[0], DLIB_LAYOUT)


# The file


def test_the_file_is_the_recorded_one_and_can_be_checked() -> None:
    record = json.loads(FILE.with_suffix(".json").read_text(encoding="utf-8"))
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == record["sha256"]
    assert FILE.name in (data_folder() / "models" / "NOTICE").read_text(encoding="utf-8")
    assert identify_model(FILE) is MODELS["face_recognition"]
    report = check_model(FILE, MODELS["face_recognition"])
    assert (report.content, report.digest) == ("117 tensors, 5.6 million numbers", "digest as noted")


def test_converting_again_gives_the_same_bytes_and_refuses_others() -> None:
    stored, specs, parts = load_file(FILE), [], []
    for name in sorted(name for name in stored if not name.endswith(RANGE)):
        axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[stored[name].ndim]
        value = stored[name].numpy().transpose(axes)
        spec: dict[str, Any] = {"name": package_name(name), "shape": value.shape, "dtype": "float32"}
        if name + RANGE in stored:
            scale, minimum = stored[name + RANGE].tolist()
            spec["quantization"] = {"dtype": "uint8", "scale": scale, "min": minimum}
        specs.append(spec)
        parts.append(np.ascontiguousarray(value).tobytes())
    weights = read_weights([{"weights": specs}], b"".join(parts))
    made, read = laid_out(weights), read_face_recognition(FILE)
    assert packed(made) == FILE.read_bytes()
    for name, weight in made.items():
        np.testing.assert_array_equal(read[name].numpy(), weight.value)
    with pytest.raises(ValueError, match="age fit nowhere or are missing"):
        laid_out({**weights, "age": weights["fc"]})
    with pytest.raises(ValueError, match="which does not fit"):
        laid_out({**weights, "fc": weights["fc"].laid_out(1, 0)})


def _renamed(state: dict[str, Tensor]) -> None:
    state["other.weight"] = state.pop("fc.weight")


def _reshaped(state: dict[str, Tensor]) -> None:
    state["fc.weight"] = torch.zeros(128, 255, dtype=torch.uint8)


def _of_another_type(state: dict[str, Tensor]) -> None:
    state["fc.weight"] = state["fc.weight"].to(torch.int64)


def _without_range(state: dict[str, Tensor]) -> None:
    del state["fc.weight" + RANGE]


def _of_short_range(state: dict[str, Tensor]) -> None:
    state["fc.weight" + RANGE] = torch.zeros(1, dtype=torch.float64)


def _endless(state: dict[str, Tensor]) -> None:
    state["fc.weight" + RANGE] = torch.tensor([np.inf, 0.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_renamed, "other.weight.* is unknown"),
        (_reshaped, r"fc.weight is U8 \[128, 255\], expected U8 \[128, 256\]"),
        (_of_another_type, "fc.weight is I64"),
        (_without_range, "fc.weight is U8 .* expected F32"),
        (_of_short_range, r"fc.weight.range is F64 \[1\]"),
        (_endless, "fc.weight has values that are not finite"),
    ],
)
def test_another_networks_file_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], None], said: str
) -> None:
    state = load_file(FILE)
    change(state)
    path = tmp_path / FILE.name
    save_file(state, path)
    with pytest.raises(ModelFileError, match=said) as caught:
        load_face_recognition(path)
    assert f"portrait models check {path}" in str(caught.value)
    assert "CC0-1.0" in str(caught.value)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE.name
    for data in (FILE.read_bytes()[:-1], b"\x80\x04]", (2**62).to_bytes(8, "little") + b"{}"):
        path.write_bytes(data)
        with pytest.raises(ModelFileError, match="it is no safetensors file"):
            read_face_recognition(path)
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_face_recognition(data_file("models") / "nothing.safetensors")


def test_dlib_is_not_imported() -> None:
    network()
    assert "dlib" not in sys.modules
