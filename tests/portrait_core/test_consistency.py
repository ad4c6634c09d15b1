"""The measure of multi-view consistency, with subjects whose identity and pose are known."""

import numpy as np
import pytest

from portrait_core.metrics.consistency import Consistency, compare_views, draw_views

NAN = float("nan")


def steady(views: np.ndarray) -> np.ndarray:
    """An identity that depends on the subject alone; the third one's face is not found from its right."""
    vectors = np.eye(8)[np.arange(len(views))][:, None].repeat(2, 1)
    unseen = (np.arange(len(views)) == 2)[:, None] & (views[..., 0] > 0)
    return np.where(unseen[..., None], NAN, vectors)


def drifting(views: np.ndarray) -> np.ndarray:
    """An identity that turns with the head: one degree for each of yaw."""
    return np.stack([np.cos(views[..., 0]), np.sin(views[..., 0])], -1)


def of_views(views: np.ndarray, turned: tuple[float, float] | None = None) -> Consistency:
    """Steady people, and a tracker that reads these shares of yaw and pitch."""
    return compare_views(steady(views), views, None if turned is None else views * turned)


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
    result = of_views(views)
    assert result.cosine[:2] == pytest.approx([1.0, 1.0])
    assert np.isnan(result.cosine[2])
    assert (result.found, result.mean, result.deviation, result.same_person) == (2, 1.0, 0.0, 1.0)
    assert result.others[0] == 0.0
    assert result.centred[:2] == pytest.approx([1.0, 1.0])
    assert np.isnan(result.others[1])
    with pytest.raises(ValueError, match="give compare_views what a tracker reads"):
        result.pose_error_deg()


def test_an_identity_that_drifts_and_a_head_that_turns_too_little() -> None:
    views = np.radians([[[0, 0], [30, 10]], [[-30, -20], [30, 0]]])
    result = compare_views(drifting(views), views, views * [0.5, 1.0])
    assert result.cosine == pytest.approx(np.cos(np.radians([30, 60])))
    assert (result.centred < result.cosine).all()
    assert result.distance == pytest.approx(2 * np.sin(np.radians([15, 30])))
    assert result.same_person == 0.5
    assert result.pose_error_deg() == pytest.approx((11.25, 0.0))
    (yaw, yaw_slope), (pitch, pitch_slope) = result.turning()
    assert (yaw, yaw_slope, pitch, pitch_slope) == pytest.approx((1.0, 0.5, 1.0, 1.0))


def test_no_face_anywhere_has_no_mean() -> None:
    views = draw_views(2)
    result = compare_views(np.full((2, 2, 3), NAN), views, np.full((2, 2, 2), NAN))
    assert result.found == 0
    assert np.isnan([result.mean, result.deviation, result.same_person, *result.pose_error_deg()]).all()
    assert np.isnan([*result.interval(), result.mean_of_others, result.mean_centred]).all()
    assert result.turning() == ((0.0, 0.0), (0.0, 0.0))


def test_a_single_face_has_no_centred_cosine() -> None:
    vectors = np.full((2, 2, 3), NAN)
    vectors[0] = [1.0, 2.0, 3.0]
    result = compare_views(vectors, draw_views(2))
    assert result.cosine[0] == pytest.approx(1.0)
    assert np.isnan(result.centred).all()
    assert result.found == 1


@pytest.mark.parametrize(
    ("vectors", "sides"), [((3, 3, 4), (3, 2, 2)), ((3, 2), (3, 2, 2)), ((3, 2, 4), (2, 2, 2))]
)
def test_arrays_of_other_shapes_are_refused(vectors: tuple[int, ...], sides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"have shape .*, expected \["):
        compare_views(np.ones(vectors), np.ones(sides))
