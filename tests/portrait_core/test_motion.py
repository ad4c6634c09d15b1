import numpy as np
import pytest
from numpy.typing import ArrayLike

from portrait_core.metrics.motion import (
    MotionTrack,
    compare_motion,
    correlation_and_slope,
    find_blinks,
    motion_rows,
)


def track(lip: ArrayLike, eye: ArrayLike, yaw: float = 0.0) -> MotionTrack:
    count = len(np.asarray(lip))
    angles = np.tile([yaw, 0.0, 0.0], (count, 1))
    return MotionTrack(np.asarray(lip), np.asarray(eye), angles, np.ones(count, bool))


def test_half_amplitude_is_slope_one_half_and_full_correlation() -> None:
    lip = np.array([0.0, 0.1, 0.3, 0.2])
    report = compare_motion(track(lip, np.full(4, 0.4)), track(lip / 2 + 0.05, np.full(4, 0.4), yaw=3.0))
    assert report.lip_correlation == pytest.approx(1.0)
    assert report.lip_slope == pytest.approx(0.5)
    assert report.pose_error_deg == pytest.approx((3.0, 0.0, 0.0))


def test_an_unanimated_portrait_scores_zero() -> None:
    lip = np.array([0.0, 0.1, 0.3, 0.2])
    still = track([0.1], [0.4]).repeated(4)
    report = compare_motion(track(lip, np.full(4, 0.4)), still)
    assert (report.lip_correlation, report.lip_slope) == (0.0, 0.0)


def test_one_blink_a_run() -> None:
    eye = np.array([0.4, 0.41, 0.2, 0.1, 0.25, 0.4, 0.39, 0.15, 0.4])
    assert find_blinks(eye) == [3, 7]
    assert find_blinks(np.array([])) == []


def test_angles_wrap() -> None:
    a, b = track([0.1, 0.2], [0.4, 0.4], yaw=179.0), track([0.1, 0.2], [0.4, 0.4], yaw=-179.0)
    assert compare_motion(a, b).pose_error_deg[0] == pytest.approx(2.0)


def test_frames_without_a_face_are_left_out() -> None:
    driver = track([0.0, 0.1, 0.2], [0.4, 0.4, 0.4])
    result = track([0.0, 9.0, 0.2], [0.4, 0.4, 0.4])
    result.ok[1] = False
    report = compare_motion(driver, result)
    assert report.frames_measured == 2
    assert report.lip_slope == pytest.approx(1.0)


def test_unequal_lengths_and_no_common_face_are_refused() -> None:
    with pytest.raises(ValueError, match="equal clips"):
        compare_motion(track([0.0], [0.4]), track([0.0, 0.1], [0.4, 0.4]))
    blind = track([0.0], [0.4])
    blind.ok[0] = False
    with pytest.raises(ValueError, match="no frame has a face"):
        compare_motion(blind, track([0.0], [0.4]))


def test_correlation_of_constant_series_is_zero() -> None:
    assert correlation_and_slope(np.ones(5), np.arange(5.0)) == (0.0, 0.0)


def test_the_result_is_compared_beside_the_still_portrait() -> None:
    lip, eye = np.array([0.0, 0.1, 0.3, 0.2]), np.full(4, 0.4)
    driver, still = track(lip, eye), track([0.1], [0.4]).repeated(4)
    rows = motion_rows(driver, track(lip / 2, eye), still, lambda: 1.25)
    assert rows["faces_found"] == 4
    assert rows["result"]["lip_slope"] == pytest.approx(0.5)
    assert rows["result"]["background_flicker"] == 1.25
    assert rows["still_portrait"]["lip_slope"] == 0
    assert rows["still_portrait"]["background_flicker"] == 0


def test_a_result_without_a_face_has_no_row_and_its_flicker_is_not_asked() -> None:
    asked = []
    driver, still = track([0.0, 0.1], [0.4, 0.4]), track([0.1], [0.4]).repeated(2)
    rows = motion_rows(driver, MotionTrack.unseen(2), still, lambda: asked.append(1))
    assert rows.keys() == {"faces_found", "still_portrait"}
    assert rows["faces_found"] == 0
    assert not asked
