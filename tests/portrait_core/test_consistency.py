"""The protocol of multi-view consistency, with subjects whose identity and pose are known."""

import numpy as np
import pytest

from portrait_core.metrics.consistency import draw_views, multi_view_consistency

NAN = float("nan")


def shown(subject: int, yaw_rad: float, pitch_rad: float) -> np.ndarray:
    """A picture that says who is on it and from where, in degrees."""
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[0, 0] = subject, round(np.degrees(yaw_rad)) + 100, round(np.degrees(pitch_rad)) + 100
    return picture


def steady(pictures: np.ndarray) -> np.ndarray:
    """An identity that depends on the subject alone; the third one's face is not found from its right."""
    vectors = np.eye(8)[pictures[:, 0, 0, 0]]
    return np.where(((pictures[:, 0, 0, 0] == 2) & (pictures[:, 0, 0, 1] > 100))[:, None], NAN, vectors)


def drifting(pictures: np.ndarray) -> np.ndarray:
    """An identity that turns with the head: one degree for each of yaw."""
    angle = np.radians(pictures[:, 0, 0, 1].astype(float))
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def half_turned(pictures: np.ndarray) -> np.ndarray:
    """A tracker that reads half of the yaw and all of the pitch."""
    return np.radians((pictures[:, 0, 0, 1:].astype(float) - 100) * [0.5, 1.0])


def test_draws_are_seeded_and_within_the_limits() -> None:
    views = draw_views()
    assert views.shape == (128, 2, 2)
    assert np.array_equal(draw_views(5), views[:5])
    assert not np.array_equal(draw_views(5, seed=1), views[:5])
    most = np.degrees(np.abs(views)).reshape(-1, 2).max(0)
    assert (most <= [30, 20]).all()
    assert (most > [28, 18]).all()
    assert np.abs(np.degrees(views).mean((0, 1))).max() < 3
    with pytest.raises(ValueError, match="at least 1"):
        draw_views(0)


def test_one_identity_from_all_sides_scores_one() -> None:
    views = np.radians([[[10, 0], [-20, 5]], [[0, 0], [30, -10]], [[-5, 0], [20, 0]]])
    result = multi_view_consistency(shown, views, steady)
    assert result.cosine[:2] == pytest.approx([1.0, 1.0])
    assert np.isnan(result.cosine[2])
    assert (result.found, result.mean, result.deviation, result.same_person) == (2, 1.0, 0.0, 1.0)
    assert result.others[0] == 0.0
    assert result.centred[:2] == pytest.approx([1.0, 1.0])
    assert np.isnan(result.others[1])
    with pytest.raises(ValueError, match="give multi_view_consistency a tracker"):
        result.pose_error_deg()


def test_an_identity_that_drifts_and_a_head_that_turns_too_little() -> None:
    views = np.radians([[[0, 0], [30, 10]], [[-30, -20], [30, 0]]])
    result = multi_view_consistency(shown, views, drifting, half_turned)
    assert result.cosine == pytest.approx(np.cos(np.radians([30, 60])))
    assert (result.centred < result.cosine).all()
    assert result.distance == pytest.approx(2 * np.sin(np.radians([15, 30])))
    assert result.same_person == 0.5
    assert result.pose_error_deg() == pytest.approx((11.25, 0.0))
    (yaw, yaw_slope), (pitch, pitch_slope) = result.turning()
    assert (yaw, yaw_slope, pitch, pitch_slope) == pytest.approx((1.0, 0.5, 1.0, 1.0))


def test_no_face_anywhere_has_no_mean() -> None:
    result = multi_view_consistency(
        shown, draw_views(2), lambda p: np.full((len(p), 3), NAN), lambda p: np.full((len(p), 2), NAN)
    )
    assert result.found == 0
    assert np.isnan([result.mean, result.deviation, result.same_person, *result.pose_error_deg()]).all()
    assert result.turning() == ((0.0, 0.0), (0.0, 0.0))
    with pytest.raises(ValueError, match="of draw_views"):
        multi_view_consistency(shown, np.zeros((3, 2)), steady)
