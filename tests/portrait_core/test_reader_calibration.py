"""The pictures that calibrate readers are what they claim, and slopes are computed as they say."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from portrait_core.metrics.follow import measure_regions
from portrait_core.metrics.picture_flow import FLOW_REGIONS
from portrait_core.metrics.reader_slopes import FLOW, FLOW_NOISE, HELD_OUT, NOISE, RENDERED, WARPED
from portrait_core.metrics.smooth_field import Field
from portrait_core.training.known_pictures import (
    CANVAS,
    CHANGES,
    Change,
    Known,
    Subject,
    close_right_lid,
    open_lips,
    raise_right_brow,
    turn_eyes_across,
)
from portrait_core.training.reader_calibration import (
    Readings,
    change_photograph,
    draw_people,
    opening,
    slope_of,
)
from portrait_core.training.render import SceneRenderer
from tests.portrait_core import stand_in

UP = np.array([1.0, -1.0])


@cache
def subject() -> Subject:
    """The sample portrait on the canvas."""
    image, points, _ = stand_in.tracked()
    return Subject.of(image, points[0])


def regions(points: np.ndarray) -> dict[str, float]:
    return {name: float(v[0]) for name, v in measure_regions(points[None] * UP).items()}


def centroid(image: np.ndarray) -> np.ndarray:
    """Centre of what is bright, in continuous pixels."""
    weight = image[..., 0].astype(float)
    rows, columns = np.indices(weight.shape) + 0.5
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


def dot(at: np.ndarray, size: int = CANVAS) -> np.ndarray:
    """A bright dot on black."""
    rows, columns = np.indices((size, size)) + 0.5
    spot = 255 * np.exp(-((columns - at[0]) ** 2 + (rows - at[1]) ** 2) / (2 * 4.0**2))
    return np.repeat(spot[..., None], 3, -1).astype(np.uint8)


def test_a_field_moves_pixels_to_where_it_says() -> None:
    old = np.array([[100.0, 100.0], [150.0, 110.0], [60.0, 160.0]])
    shift = np.array([[12.0, -7.0], [0.0, 0.0], [0.0, 0.0]])
    field = Field.through(old, old + shift, 40.0)
    for place in (old[0], np.array([120.3, 90.7])):
        moved = field.moved(place[None])[0]
        assert np.linalg.norm(moved - place) > 4
        np.testing.assert_allclose(centroid(field.warp(dot(place, 256))), moved, atol=0.25)
    np.testing.assert_allclose(field.moved(old)[0], old[0] + shift[0], atol=0.2)
    np.testing.assert_allclose(field.source(field.moved(old)), old, atol=1e-6)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.region)
def test_a_change_moves_its_region_by_its_amount(change: Change) -> None:
    before = regions(subject().points)
    amount = change.amounts[-1]
    after = regions(change.draw(subject(), amount).points)
    wanted = -amount * before[change.region] if change.region.startswith("lid") else amount
    assert after[change.region] - before[change.region] == pytest.approx(wanted, rel=0.2)
    far = "mouth width" if change.region.startswith(("lid", "gaze", "brow", "inner", "outer")) else "lid left"
    assert after[far] == pytest.approx(before[far], abs=0.035)  # the skin between them stretches


def test_the_picture_shows_the_truth_at_every_size_and_phase() -> None:
    place = np.array([500.0, 560.0])
    known = Known(dot(place), np.tile(place, (478, 1)))
    for size in (256, 512):
        for phase in ((0.0, 0.0), (0.4, -0.3)):
            seen = known.seen(size, phase)
            assert seen.image.shape == (size, size, 3)
            np.testing.assert_allclose(centroid(seen.image), seen.points[0], atol=0.1)


def test_a_closed_lid_covers_the_eyeball_and_leaves_the_rest_of_it() -> None:
    face = subject()
    closed = close_right_lid(face, 0.7)
    x, y = closed.points[[160, 158], 0].mean(), closed.points[159, 1]
    above, below = slice(round(y) - 22, round(y) - 12), slice(round(y) + 3, round(y) + 6)
    across = slice(round(x) - 3, round(x) + 3)
    assert np.abs(closed.image[above, across].astype(int) - face.image[above, across]).mean() > 15
    assert np.abs(closed.image[below, across].astype(int) - face.image[below, across]).mean() < 3
    np.testing.assert_array_equal(closed.points[468:], face.points[468:])


def test_a_turned_eye_shows_the_iris_where_the_truth_is() -> None:
    eye = subject().points[[33, 133]]
    margin = np.array([0, 30])
    low, high = eye.min(0).astype(int) - margin, eye.max(0).astype(int) + margin
    window = np.s_[low[1] : high[1], low[0] : high[0]]
    places = []
    for amount in (-0.16, 0.16):
        known = turn_eyes_across(subject(), amount)
        iris = known.points[468] - low
        dark = known.image[window].mean(-1) < 90
        rows, columns = np.nonzero(dark)
        near = np.hypot(columns - iris[0], rows - iris[1]) < 20
        assert near.sum() > 500
        places.append((columns[near].mean() - iris[0], iris[0]))
    assert all(abs(off) < 4 for off, _ in places)
    assert places[1][1] - places[0][1] == pytest.approx(0.32 * np.linalg.norm(eye[1] - eye[0]), rel=0.05)


def test_parted_lips_are_dark_inside_and_show_the_teeth_they_claim() -> None:
    dark, toothy = open_lips(subject(), 0.1), open_lips(subject(), 0.1, teeth=0.5)
    top, bottom = dark.points[13], dark.points[14]
    upper, lower = (np.round(top + share * (bottom - top)).astype(int) for share in (0.25, 0.8))
    assert dark.image[upper[1], upper[0]].mean() < 80
    assert toothy.image[upper[1], upper[0]].mean() > 150
    assert toothy.image[lower[1], lower[0]].mean() < 80
    assert dark.teeth == 0
    tooth = (toothy.image.mean(-1) - dark.image.mean(-1)) > 60
    gap = np.linalg.norm(bottom - top)
    assert tooth[:, round(top[0])].sum() / gap == pytest.approx(toothy.teeth, rel=0.1)
    inside = (dark.image.mean(-1) < 70)[:, round(top[0])][round(top[1]) - 10 : round(bottom[1]) + 10]
    assert inside.sum() / subject().eyes == pytest.approx(regions(dark.points)["lip gap"], rel=0.1)
    assert opening(dark.points) == pytest.approx(regions(dark.points)["lip gap"], rel=0.25)


def test_a_change_that_folds_the_photograph_is_refused_and_left_out() -> None:
    with pytest.raises(ValueError, match="smaller amount"):
        raise_right_brow(subject(), -0.4)
    change = Change("brows' difference", (-0.4, 0.0, 0.03), raise_right_brow)
    assert len(list(change_photograph(subject(), [change]))) == 2


def test_slopes_are_taken_within_people_and_noise_within_pictures() -> None:
    truth = np.tile(np.repeat([0.0, 0.1, 0.2], 2), 2)
    person = np.repeat([0, 1], 6)
    shake = np.tile([0.01, -0.01], 6)
    reading = np.where(person == 0, 0.5, 0.7) * truth + 3.0 * person + shake
    found = slope_of(Readings(truth, reading, person, person, np.arange(12) // 2))
    assert found.slope == pytest.approx(0.6)
    assert found.spread == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert found.noise == pytest.approx(0.01 * np.sqrt(2))
    assert 0.9 < found.correlation < 1
    with pytest.raises(ValueError, match="several amounts"):
        slope_of(Readings(truth * 0, reading, person, person, person))


def test_rendered_people_have_their_landmarks_where_the_picture_shows_them() -> None:
    renderer = SceneRenderer(stand_in.whole_head())
    (_, first), (_, second) = draw_people(renderer, people=1, expressions=2, seed=2)
    found = stand_in.landmarker().detect(np.stack([first.image, second.image]))
    assert found.ok.all()
    for known, points in zip((first, second), found.points, strict=True):
        assert np.linalg.norm(points - known.points, axis=1).mean() < 4
    assert np.abs(first.points - second.points).max() > 1


def test_the_table_has_a_slope_of_every_region() -> None:
    names = {change.region for change in CHANGES}
    assert set(WARPED) == set(HELD_OUT) == names | {"mouth open", "teeth shown"}
    assert set(RENDERED) == set(NOISE) == names
    assert set(FLOW) == set(FLOW_NOISE) == set(FLOW_REGIONS) < names
