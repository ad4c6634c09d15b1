"""The landmark models on real pictures: faces, several faces, small faces, no faces."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from portrait_core.face_model.topology import IRIS_LEFT, IRIS_RIGHT, MIRROR
from portrait_core.media import read_frames
from portrait_core.runtime.package_files import data_folder
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.measure import measure

MODELS = data_folder() / "models"


@pytest.fixture(scope="module")
def landmarker() -> FaceLandmarker:
    return FaceLandmarker.from_models(MODELS)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def astronaut_points(landmarker: FaceLandmarker, astronaut: np.ndarray) -> np.ndarray:
    return landmarker.detect(astronaut[None]).points[0]


def _eye_distance(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[33] - points[263]))


@pytest.mark.parametrize("name", ["face_detector_256", "face_landmarks_468", "iris_landmarks"])
def test_model_files_are_the_recorded_ones(name: str) -> None:
    record = json.loads((MODELS / f"{name}.json").read_text())
    assert hashlib.sha256((MODELS / record["file"]).read_bytes()).hexdigest() == record["sha256"]
    assert "Apache-2.0" in record["licence"]


def test_a_photograph(landmarker: FaceLandmarker, astronaut: np.ndarray) -> None:
    found = landmarker.detect(astronaut[None])
    assert found.ok.tolist() == [True]
    assert found.faces.tolist() == [1]
    assert found.score[0] > 0.99
    assert found.points.shape == (1, 478, 2)
    assert found.points.dtype == np.float32
    points = found.points[0]
    # read off the enlarged picture by eye: pupils, mouth corners, chin
    seen = {468: (203, 101.5), 473: (246.5, 103.5), 61: (201.5, 140), 291: (246, 140), 152: (222, 177)}
    for index, place in seen.items():
        assert np.linalg.norm(points[index] - place) < 3, (index, points[index])


def test_irises_have_their_rim_in_image_order(astronaut_points: np.ndarray) -> None:
    for iris in (IRIS_RIGHT, IRIS_LEFT):
        centre, right, top, left, bottom = astronaut_points[iris]
        assert right[0] > centre[0] > left[0]
        assert top[1] < centre[1] < bottom[1]


def test_the_mirror_map_pairs_what_lies_opposite(astronaut_points: np.ndarray) -> None:
    assert (MIRROR[MIRROR] == np.arange(478)).all()
    # a nearly frontal face, mirrored about its eyes' midpoint and renumbered, lands on itself
    across = astronaut_points[263] - astronaut_points[33]
    scale = np.linalg.norm(across)
    turn = np.array([[across[0], across[1]], [-across[1], across[0]]]) / scale
    local = (astronaut_points - (astronaut_points[33] + astronaut_points[263]) / 2) @ turn.T / scale
    assert np.abs(local[MIRROR] * (-1, 1) - local).mean() < 0.04


@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket"])
def test_cats_and_things_have_no_face(landmarker: FaceLandmarker, name: str) -> None:
    found = landmarker.detect(getattr(skimage.data, name)()[None])
    assert found.ok.tolist() == [False]
    assert found.faces.tolist() == [0]
    assert np.isnan(found.points).all()


def test_a_thorough_search_finds_small_faces_beside_a_large_one_and_none_twice(
    landmarker: FaceLandmarker, astronaut: np.ndarray
) -> None:
    picture = np.full((1000, 1400, 3), 200, np.uint8)
    picture[:512, :512] = picture[20:532, 500:1012] = astronaut
    for x in (100, 700, 1200):
        picture[800:900, x : x + 100] = astronaut[:500:5, :500:5]
    assert landmarker.detect_all(picture[None], 8).faces.tolist() == [2]
    found = landmarker.detect_all(picture[None], 8, thorough=True)
    assert found.faces.tolist() == [5]
    middles = found.points[0, :5].mean(axis=1)
    assert sorted(np.round(middles[middles[:, 1] > 700, 0] / 100).tolist()) == [1, 7, 12]
    assert np.isnan(found.points[0, 5:]).all()


def test_a_batch_is_its_frames_one_by_one(landmarker: FaceLandmarker, astronaut: np.ndarray) -> None:
    frames = np.stack([astronaut, np.zeros_like(astronaut), astronaut[:, ::-1]])
    together = landmarker.detect(frames)
    assert together.ok.tolist() == [True, False, True]
    for i in range(3):
        alone = landmarker.detect(frames[i : i + 1])
        np.testing.assert_allclose(together.points[i], alone.points[0], atol=1e-2)


def test_a_mirrored_picture_has_mirrored_landmarks(
    landmarker: FaceLandmarker, astronaut: np.ndarray, astronaut_points: np.ndarray
) -> None:
    mirrored = landmarker.detect(np.ascontiguousarray(astronaut[None, :, ::-1])).points[0]
    back = mirrored[MIRROR] * (-1, 1) + (astronaut.shape[1], 0)
    assert np.linalg.norm(back - astronaut_points, axis=1).mean() < 0.03 * _eye_distance(astronaut_points)


def test_no_frames_give_no_landmarks(landmarker: FaceLandmarker) -> None:
    assert landmarker.detect(np.zeros((0, 64, 64, 3), np.uint8)).points.shape == (0, 478, 2)


def test_of_two_faces_the_larger_is_taken(
    landmarker: FaceLandmarker, astronaut: np.ndarray, astronaut_points: np.ndarray
) -> None:
    face = astronaut[:256, 90:346]
    canvas = np.full((300, 700, 3), 120, np.uint8)
    canvas[20:276, 20:276] = face
    canvas[60:188, 520:648] = cv2.resize(face, (128, 128), interpolation=cv2.INTER_AREA)
    found = landmarker.detect(canvas[None])
    assert found.faces.tolist() == [2]
    expected = astronaut_points - (90, 0) + (20, 20)
    assert np.linalg.norm(found.points[0] - expected, axis=1).mean() < 0.05 * _eye_distance(expected)


@pytest.mark.parametrize("eye_distance", [60, 30, 15])
def test_a_small_face_in_a_large_frame(
    landmarker: FaceLandmarker, astronaut: np.ndarray, astronaut_points: np.ndarray, eye_distance: int
) -> None:
    scale = eye_distance / _eye_distance(astronaut_points)
    small = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    frame = np.random.default_rng(0).integers(90, 130, (1080, 1920, 3)).astype(np.uint8)
    frame[50 : 50 + small.shape[0], 1300 : 1300 + small.shape[1]] = small
    found = landmarker.detect(frame[None])
    assert found.ok[0]
    expected = astronaut_points * small.shape[0] / astronaut.shape[0] + (1300, 50)
    assert np.linalg.norm(found.points[0] - expected, axis=1).mean() < 0.06 * eye_distance


def test_a_face_that_fills_the_frame(
    landmarker: FaceLandmarker, astronaut: np.ndarray, astronaut_points: np.ndarray
) -> None:
    low = np.floor(astronaut_points.min(axis=0)).astype(int)
    high = np.ceil(astronaut_points.max(axis=0)).astype(int)
    found = landmarker.detect(astronaut[None, low[1] : high[1], low[0] : high[0]])
    assert found.ok[0]
    distance = np.linalg.norm(found.points[0] + low - astronaut_points, axis=1).mean()
    assert distance < 0.05 * _eye_distance(astronaut_points)


@pytest.mark.parametrize("quarter_turns", [1, 3])
def test_a_face_lying_on_its_side(
    landmarker: FaceLandmarker, astronaut: np.ndarray, quarter_turns: int
) -> None:
    found = landmarker.detect(np.rot90(astronaut, quarter_turns)[None])
    assert found.ok[0]
    across = found.points[0, 263] - found.points[0, 33]
    assert abs(across[1]) > 4 * abs(across[0])
    assert (across[1] < 0) == (quarter_turns == 1)


def test_a_real_clip_blinks_and_opens_its_mouth(landmarker: FaceLandmarker, carphone: Path) -> None:
    wanted = [0, 42, 60, 92]
    frames = [frame for i, frame in enumerate(read_frames(carphone, 0, 93)) if i in wanted]
    found = landmarker.detect(np.stack(frames))
    assert found.ok.all()
    values = measure(found.points)
    rest, blink, shout, second_blink = range(4)
    assert values["eye_opening"][blink] < 0.5 * values["eye_opening"][rest]
    assert values["eye_opening"][second_blink] < 0.6 * values["eye_opening"][rest]
    assert values["lip_gap"][shout] > 0.25 > 2 * values["lip_gap"][rest]


@pytest.mark.parametrize("frames", [np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.float32)])
def test_what_are_no_frames_is_refused(landmarker: FaceLandmarker, frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\[n,H,W,3\]"):
        landmarker.detect(frames)


def test_missing_models_and_no_threads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing"):
        FaceLandmarker.from_models(tmp_path)
    with pytest.raises(ValueError, match="threads"):
        FaceLandmarker.from_models(MODELS, threads=0)
