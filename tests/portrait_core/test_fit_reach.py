"""The fitted head reaches the landmarks: what is seen of a face is in the fit, in units that look natural."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from portrait_core.face_model.directions import with_directions
from portrait_core.face_model.expression_names import is_direction
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.head_points import HeadPoints
from portrait_core.media import read_frames
from portrait_core.metrics.follow import follow, measure_regions
from portrait_core.runtime.package_files import data_file, data_folder
from portrait_core.settings import TrackingSettings
from portrait_core.tracking.fit import FaceTrack, fit_clip
from portrait_core.tracking.head_frame import head_landmarks, lift_clip
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.projection import Pose
from portrait_core.tracking.terms import EYES

Units = dict[str, float]


@pytest.fixture(scope="module")
def plain() -> MorphableHead:
    return MorphableHead.load(data_file("models/embedded_head.safetensors"))


@pytest.fixture(scope="module")
def head(plain: MorphableHead) -> MorphableHead:
    return with_directions(plain)


@pytest.fixture(scope="module")
def filmed(carphone: Path) -> NDArray[np.float32]:
    """Landmarks of every third frame of a real clip, in which the mouth opens wide, brows and eyes move."""
    frames = np.stack(list(read_frames(carphone, 0, 120))[::3])
    return FaceLandmarker.from_models(data_folder() / "models").detect(frames).points


def fitted(head: MorphableHead, points: NDArray[np.floating], **changes: float) -> FaceTrack:
    settings = TrackingSettings(shape_frames=8).model_copy(update=changes)
    return fit_clip(head, points, np.ones(len(points), bool), settings)


def acted(head: MorphableHead, *frames: Units) -> NDArray[np.float64]:
    """Landmarks ``[T,478,2]`` of a head seen from the front, 400 pixels to the crop."""
    points = HeadPoints.from_head(head)
    shaped, front = (
        points.with_shape(np.zeros(head.n_shape)),
        Pose(np.eye(3), np.array([300.0, 200.0]), 400.0),
    )
    seen = []
    for units in frames:
        code = np.zeros(head.n_expression)
        for name, value in units.items():
            code[head.index(name)] = value
        seen.append(front.project(shaped.points(code)))
    return np.stack(seen)


def pair(name: str, value: float) -> Units:
    return {f"{name}Left": value, f"{name}Right": value}


def test_every_region_of_a_real_clip_is_in_the_fit(
    head: MorphableHead, plain: MorphableHead, filmed: NDArray[np.float32]
) -> None:
    everything, found = np.ones(len(filmed), bool), {}
    for name, model in (("directions", head), ("units", plain)):
        track = fitted(model, filmed)
        driver = measure_regions(lift_clip(model, filmed, track))
        mesh = head_landmarks(model, track.shape, track.expression, track.jaw)
        found[name] = follow(driver, measure_regions(mesh), everything)
    moving = {"lip gap", "mouth width", "inner brows", "outer brows", "gaze across", "lid right", "lid left"}
    assert set(found["directions"]) >= moving
    for region, one in found["directions"].items():
        assert 0.9 < one.slope < 1.07, (region, one)
        assert one.correlation > 0.97, (region, one)
    assert found["units"]["mouth width"].slope < 0.9  # the 52 units alone do not get there


def test_a_smile_is_a_smile_and_not_whatever_adds_up_to_one(head: MorphableHead) -> None:
    shares = (0.0, 0.3, 0.6, 0.9)
    track = fitted(head, acted(head, *(pair("mouthSmile", share) for share in shares)))
    last = dict(zip(head.expression_names, track.expression[-1], strict=True))
    assert last["mouthSmileLeft"] == pytest.approx(0.9, abs=0.25)
    assert last["mouthSmileLeft"] == pytest.approx(last["mouthSmileRight"], abs=0.05)
    assert max(last["browDownLeft"], last["browDownRight"], last["mouthStretchRight"]) < 0.15
    free = [is_direction(name) for name in head.expression_names]
    assert np.abs(track.expression[:, free]).max() < 0.35  # 3.5 mm


def test_true_asymmetry_is_kept(head: MorphableHead) -> None:
    smirk = {"mouthSmileLeft": 0.9, "shiftLipCornerLeftAcross": 0.3, "shiftMiddleBrowRightUp": 0.5}
    pixels = acted(head, *[{}] * 3, smirk)
    track = fitted(head, pixels)
    mesh = measure_regions(head_landmarks(head, track.shape, track.expression, track.jaw))
    seen = measure_regions(lift_clip(head, pixels, track))
    for region in ("corners' difference", "brows' difference"):
        assert abs(np.ptp(seen[region])) > 0.02
        assert np.ptp(mesh[region]) == pytest.approx(np.ptp(seen[region]), rel=0.15)


def test_a_wide_open_mouth_is_an_open_jaw(head: MorphableHead) -> None:
    """Also where the landmarks of the chin say less of it, as networks do."""
    pixels = acted(head, *[{}] * 3, {"jawOpen": 0.8})
    chin = [152, 148, 377, 176, 400, 175, 171, 396, 199, 208, 428, 200, 201, 421]
    pixels[3, chin] = (pixels[0, chin] + pixels[3, chin]) / 2
    track = fitted(head, pixels)
    assert track.expression[3, head.index("jawOpen")] > 0.6


def test_the_corners_of_an_open_mouth_are_in_the_fit(head: MorphableHead) -> None:
    """The opening of a real mouth ends in a wedge, where the units make it round."""
    pixels = acted(head, *[{}] * 3, {"jawOpen": 0.6})
    beside = {78: 12.0, 308: 12.0, 191: 8.0, 415: 8.0, 95: -10.0, 324: -10.0}  # pixels down, of 400
    for landmark, down in beside.items():
        pixels[3, landmark, 1] += down
    track = fitted(head, pixels)
    mesh = head_landmarks(head, track.shape, track.expression, track.jaw)
    off = (lift_clip(head, pixels, track) - mesh)[3, :, 1]
    unit = np.linalg.norm(mesh[3, 33] - mesh[3, 263])
    assert np.abs(off[list(beside)]).max() < 0.012 * unit


def test_what_single_landmarks_jitter_is_smoothed_and_a_blink_is_not(head: MorphableHead) -> None:
    frames: list[Units] = [{}] * 30
    frames[10] = pair("eyeBlink", 1.0)
    pixels = acted(head, *frames) + np.random.default_rng(0).normal(scale=0.25, size=(30, 478, 2))
    jitter = {}
    for smooth in (0.0, 0.3):
        track = fitted(head, pixels, smooth_expression=smooth)
        moved = measure_regions(head_landmarks(head, track.shape, track.expression, track.jaw))
        jitter[smooth] = np.diff(moved["inner brows"][12:], 2).std()
        assert track.expression[10, head.index("eyeBlinkLeft")] > 0.7
    assert jitter[0.3] < 0.75 * jitter[0.0]


def test_eyes_that_look_at_something_near_turn_to_each_other(head: MorphableHead) -> None:
    """Each by what is seen of it, and by one unit: not by looking in and out at once."""
    pixels = acted(head, *[{}] * 3, pair("eyeLookIn", 0.8))
    track = fitted(head, pixels)
    mesh = head_landmarks(head, track.shape, track.expression, track.jaw)
    between = {
        name: points[:, 473, 0] - points[:, 468, 0]
        for name, points in (("seen", lift_clip(head, pixels, track)), ("mesh", mesh))
    }
    assert np.ptp(between["mesh"]) == pytest.approx(np.ptp(between["seen"]), rel=0.15)
    for side in ("Left", "Right"):
        assert track.expression[3, head.index(f"eyeLookOut{side}")] < 0.2


def test_a_look_aside_is_as_far_in_eyes_that_are_wider_than_the_heads(head: MorphableHead) -> None:
    aside = {"eyeLookInLeft": 0.8, "eyeLookOutRight": 0.8}
    pixels = acted(head, *[{}] * 3, aside)
    for eye in EYES:
        own = [eye.outer, eye.inner, *eye.upper_lid, *eye.lower_lid, eye.iris]
        middle = (pixels[:, eye.outer] + pixels[:, eye.inner])[:, None, 0] / 2
        pixels[:, own, 0] = middle + 1.2 * (pixels[:, own, 0] - middle)
    track = fitted(head, pixels)
    mesh = measure_regions(head_landmarks(head, track.shape, track.expression, track.jaw))
    seen = measure_regions(lift_clip(head, pixels, track))
    assert np.ptp(mesh["gaze across"]) == pytest.approx(np.ptp(seen["gaze across"]), rel=0.04)
