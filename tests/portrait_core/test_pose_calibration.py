import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from portrait_core.cameras import angles_from_labels, orbit_labels, orbit_rotation
from portrait_core.config import RenderSettings, load_settings
from portrait_core.rendering.pose_calibration import (
    aimed_cameras,
    calibration_frames,
    corrected_cameras,
    pose_offset,
)
from portrait_core.rendering.pose_renderer import held_near, pose_transfer

LIMIT = np.radians([40.0, 35.0])


def labels(degrees: list[tuple[float, float, float]]) -> np.ndarray:
    return np.concatenate([orbit_labels(*np.radians(angles)) for angles in degrees])


def test_a_constant_misreading_is_taken_out():
    wanted = labels([(0, -5, 0), (20, -10, 15), (-15, 10, -20)])
    bias = np.radians([1.0, 4.0, -0.5])
    offset = pose_offset(angles_from_labels(wanted), angles_from_labels(wanted) + bias)
    asked = corrected_cameras(wanted, offset, LIMIT)
    np.testing.assert_allclose(angles_from_labels(asked) + bias, angles_from_labels(wanted), atol=1e-5)


def test_one_wild_reading_and_large_offsets_are_not_believed():
    asked = np.zeros((5, 3))
    read = asked + np.radians([0.0, 3.0, 0.0])
    read[2] = 1.0
    np.testing.assert_allclose(np.degrees(pose_offset(asked, read)), [0, 3, 0], atol=1e-9)
    assert np.degrees(pose_offset(asked, asked + 1.0)).max() == pytest.approx(8.0)


def test_corrected_poses_stay_within_the_limits():
    wanted = labels([(39, -34, 0), (0, 0, 170)])
    asked = angles_from_labels(corrected_cameras(wanted, np.radians([-5.0, 5.0, 0.0]), LIMIT))
    assert (np.abs(asked[:, :2]) <= LIMIT + 1e-6).all()
    assert np.degrees(asked[1, 2]) == pytest.approx(170, abs=1e-3)


def test_frames_are_spread_over_the_clip_near_its_middle_pose():
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


def test_frames_without_a_face_do_not_aim():
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
