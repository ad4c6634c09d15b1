"""Optical flow tells how far brows, corners of the mouth and irises were moved, without any face network."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest

from portrait_core.metrics.picture_flow import (
    CARRIED,
    EYE_CORNERS,
    FLOW_REGIONS,
    carried_landmarks,
    measure_flow,
    middle_frame,
    with_eyes_held,
)
from portrait_core.metrics.smooth_field import Field
from portrait_core.training.known_pictures import CANVAS, CHANGES, Change, Known, Subject
from tests.portrait_core import stand_in

UP = np.array([1.0, -1.0])
SIZE = 256


@cache
def subject() -> Subject:
    """The sample portrait on the canvas."""
    image, points, _ = stand_in.tracked()
    return Subject.of(image, points[0])


@pytest.mark.parametrize(
    "change",
    # the radial iris that a look up paints beside a lid's edge is found again in few photographs
    [change for change in CHANGES if change.region in FLOW_REGIONS and change.region != "gaze up"],
    ids=lambda change: change.region,
)
def test_a_known_change_of_a_photograph_is_read_to_a_tenth(change: Change) -> None:
    start = Known(subject().image, subject().points).seen(SIZE)
    first, last = (change.draw(subject(), change.amounts[i]).seen(SIZE) for i in (1, -2))
    carried = carried_landmarks([first.image, last.image], start.image, start.points)
    read = np.diff(measure_flow(carried * UP)[change.region])[0]
    true = np.diff(measure_flow(np.stack([first.points, last.points]) * UP)[change.region])[0]
    assert read / true == pytest.approx(1, abs=0.1)


def test_no_face_is_needed_and_what_cannot_be_found_again_is_not_seen() -> None:
    side = 400
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), 2.0)
    picture = np.repeat(np.clip(128 + 250 * noise, 0, 255).astype(np.uint8)[..., None], 3, -1)
    start = subject().points * (side / CANVAS)
    handles, shift = start[[105, 334, 61]], np.array([[0.0, -3.0], [2.0, 0.0], [-4.0, 3.0]])
    field = Field.through(handles, handles + shift, 30.0)
    changed = field.warp(picture)
    x, y = start[291].astype(int)
    changed[y - 40 : y + 40, x - 25 : x + 40] = rng.integers(0, 255, (80, 65, 1))
    still, moved = carried_landmarks([picture, changed], picture, start)
    np.testing.assert_allclose(still, start, atol=0.05)
    np.testing.assert_allclose(moved[[105, 334, 61]], field.moved(start)[[105, 334, 61]], atol=0.5)
    assert np.isnan(moved[291]).all()
    assert np.isfinite(np.delete(moved, 291, 0)).all()
    kept = np.setdiff1d(np.arange(478), CARRIED)
    np.testing.assert_array_equal(moved[kept], start[kept])
    lost = {name for name, values in measure_flow(moved[None] * UP).items() if np.isnan(values).any()}
    assert lost == {"mouth width", "corners' difference"}


def test_corners_of_the_eyes_are_held_where_the_reference_has_them() -> None:
    points = np.arange(3 * 478 * 2, dtype=float).reshape(3, 478, 2)
    held = with_eyes_held(points, 1)
    assert (held[:, EYE_CORNERS] == points[1, EYE_CORNERS]).all()
    rest = np.setdiff1d(np.arange(478), EYE_CORNERS)
    np.testing.assert_array_equal(held[:, rest], points[:, rest])


def test_the_middle_frame_is_nearest_to_the_medians() -> None:
    regions = {"lip gap": np.array([0.0, 0.1, 0.2, 0.9]), "mouth width": np.array([1.0, 1.3, 1.2, 1.2])}
    assert middle_frame(regions) == 2
    assert middle_frame({"lip gap": np.zeros(3)}) == 0


def test_pictures_of_other_sizes_and_landmarks_that_are_missing_are_refused() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="one camera"):
        carried_landmarks([picture[:32]], picture, np.ones((478, 2)))
    with pytest.raises(ValueError, match="FaceLandmarker"):
        carried_landmarks([picture], picture, np.ones((468, 2)))
