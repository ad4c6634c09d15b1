from typing import Literal

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from portrait_core.cameras import angles_from_labels, orbit_labels, orbit_rotation, rotations_from_labels
from portrait_core.rendering.pose_calibration import (
    aimed_cameras,
    calibration_frames,
    corrected_cameras,
    pose_offset,
)
from portrait_core.rendering.pose_renderer import held_cameras, held_near, pose_transfer, target_cameras
from portrait_core.settings import RenderSettings, load_settings
from portrait_core.tracking.same_face import Match, frame_of_portrait

LIMIT = np.radians([40.0, 35.0])


def labels(degrees: list[tuple[float, float, float]]) -> np.ndarray:
    return np.concatenate([orbit_labels(*np.radians(angles)) for angles in degrees])


def test_a_constant_misreading_is_taken_out() -> None:
    wanted = labels([(0, -5, 0), (20, -10, 15), (-15, 10, -20)])
    bias = np.radians([1.0, 4.0, -0.5])
    offset = pose_offset(angles_from_labels(wanted), angles_from_labels(wanted) + bias)
    asked = corrected_cameras(wanted, offset, LIMIT)
    np.testing.assert_allclose(angles_from_labels(asked) + bias, angles_from_labels(wanted), atol=1e-5)


def test_one_wild_reading_and_large_offsets_are_not_believed() -> None:
    asked = np.zeros((5, 3))
    read = asked + np.radians([0.0, 3.0, 0.0])
    read[2] = 1.0
    np.testing.assert_allclose(np.degrees(pose_offset(asked, read)), [0, 3, 0], atol=1e-9)
    assert np.degrees(pose_offset(asked, asked + 1.0)).max() == pytest.approx(8.0)


def test_corrected_poses_stay_within_the_limits() -> None:
    wanted = labels([(39, -34, 0), (0, 0, 170)])
    asked = angles_from_labels(corrected_cameras(wanted, np.radians([-5.0, 5.0, 0.0]), LIMIT))
    assert (np.abs(asked[:, :2]) <= LIMIT + 1e-6).all()
    assert np.degrees(asked[1, 2]) == pytest.approx(170, abs=1e-3)


def test_frames_are_spread_over_the_clip_near_its_middle_pose() -> None:
    cameras = labels([(abs(i % 10 - 5) * 4, 0, 0) for i in range(60)])
    usable = np.ones(60, bool)
    usable[:20] = False
    frames = calibration_frames(cameras, 4, usable)
    assert frames == sorted(frames)
    assert len(frames) == 4
    assert min(frames) >= 20
    assert max(frames) >= 50
    yaw = np.degrees(angles_from_labels(cameras[frames])[:, 0])
    assert np.abs(yaw - np.median([8, 12])).max() <= 4
    assert calibration_frames(cameras, 4, np.zeros(60, bool)) == []
    assert len(calibration_frames(cameras[:3], 10, np.ones(3, bool))) == 3


def test_frames_without_a_face_do_not_aim() -> None:
    wanted = labels([(0, -5, 0), (10, -10, 15), (-15, 10, -20), (5, 5, 5)])
    frames, found = [0, 1, 3], np.array([True, False, False])
    angles = angles_from_labels(wanted[frames]) + np.radians([1.0, 3.0, 0.0])
    angles[1:] = 1.0  # what the tracker says where it sees nothing
    read = np.concatenate([orbit_labels(*one) for one in angles])
    aimed = aimed_cameras(wanted, frames, read, found, RenderSettings())
    np.testing.assert_allclose(
        np.degrees(angles_from_labels(wanted) - angles_from_labels(aimed)), [[1, 3, 0]] * 4, atol=1e-3
    )


def test_a_head_is_held_within_an_angle_of_the_portraits_own_pose() -> None:
    own = orbit_rotation(0.6, 0.0)
    asked = np.stack([orbit_rotation(yaw, 0.1) for yaw in (0.5, 0.0, -0.8)])
    held = held_near(asked, own, 0.7)
    np.testing.assert_allclose(held[:2], asked[:2])
    turn = Rotation.from_matrix(held[2] @ own.T).as_rotvec()
    assert np.linalg.norm(turn) == pytest.approx(0.7)
    wanted = Rotation.from_matrix(asked[2] @ own.T).as_rotvec()
    np.testing.assert_allclose(turn / 0.7, wanted / np.linalg.norm(wanted), atol=1e-9)


def test_a_portrait_that_is_turned_aside_takes_relative_poses_by_itself() -> None:
    settings = load_settings("embedded").render
    for yaw, wanted in ((0.0, "absolute"), (14.0, "absolute"), (16.0, "relative"), (-30.0, "relative")):
        assert pose_transfer(orbit_labels(np.radians(yaw), 0.0), settings) == wanted
    fixed = settings.model_copy(update={"pose_transfer": "absolute"})
    assert pose_transfer(orbit_labels(0.6, 0.0), fixed) == "absolute"


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """478 points about a face, 80 pixels between the outer eye corners."""
    points = np.random.default_rng(0).normal(0, 30, (478, 2)) + 200
    points[33], points[263] = (160, 200), (240, 200)
    return points


def test_the_frame_that_shows_the_portrait_is_found_wherever_it_lies(face: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    angle = np.radians(25)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = 1.7 * face @ turn.T + (40, -300) + rng.normal(0, 0.5, face.shape)
    other = face * (1.0, 1.06)  # nodded by about 20 degrees
    nothing = np.full_like(face, np.nan)
    clip, usable = np.stack([other, nothing, moved, other]), np.array([True, False, True, True])
    match = frame_of_portrait(face, clip, usable)
    assert match is not None
    assert match.frame == 2
    assert np.degrees(match.roll_rad) == pytest.approx(25, abs=0.5)  # clockwise, as y points down
    assert frame_of_portrait(face, clip, usable & [True, True, False, True]) is None
    assert frame_of_portrait(face, clip, np.zeros(4, bool)) is None


@pytest.mark.parametrize("transfer", ["absolute", "relative"])
def test_poses_count_from_the_frame_that_shows_the_portrait(
    transfer: Literal["absolute", "relative"],
) -> None:
    """A portrait that is read as turned by other angles than the same picture within the driver's clip."""
    driver, own = labels([(25, -5, 0), (20, -10, 15), (-5, 0, 3)]), labels([(24, -8, 0.5)])
    settings = RenderSettings(pose_transfer=transfer, pose_window=1, max_turn_deg=90)
    cameras = target_cameras(driver, own, settings, Match(0, 0.0))
    np.testing.assert_allclose(cameras[0], own[0], atol=1e-6)
    change, wanted = (rotations_from_labels(x) @ rotations_from_labels(x)[0].T for x in (cameras, driver))
    np.testing.assert_allclose(change, wanted, atol=1e-6)
    rolled = np.degrees(angles_from_labels(target_cameras(driver, own, settings, Match(0, np.radians(6)))))
    np.testing.assert_allclose(rolled[0], [24, -8, 6.5], atol=0.05)


def test_no_head_turns_further_than_its_limit_whatever_corrects_it() -> None:
    settings = RenderSettings(max_turn_deg=20)
    own = labels([(5, 0, 0)])
    cameras = held_cameras(labels([(60, 0, 0), (-60, 5, 40), (8, 2, 1)]), own, settings)
    turns = rotations_from_labels(cameras) @ rotations_from_labels(own)[0].T
    away = np.degrees(np.linalg.norm(Rotation.from_matrix(turns).as_rotvec(), axis=1))
    np.testing.assert_allclose(away[:2], 20, atol=1e-3)
    np.testing.assert_allclose(np.degrees(angles_from_labels(cameras))[2], [8, 2, 1], atol=1e-3)
