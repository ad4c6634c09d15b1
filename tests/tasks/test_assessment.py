"""Squares that methods draw: their pictures and points, brought to one square of the photograph."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from portrait_core.metrics.likeness import Square
from portrait_core.tracking.crop import sample_square
from tasks.assessment import ShownSquare


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    """A smooth picture of 300 by 260 pixels."""
    corners = np.random.default_rng(0).uniform(30, 220, (7, 6, 3)).astype(np.float32)
    return np.asarray(cv2.resize(corners, (260, 300), interpolation=cv2.INTER_CUBIC).clip(0, 255), np.uint8)


@pytest.mark.parametrize("roll_rad", [0.0, 0.4, -0.7])
def test_a_face_is_cut_alike_out_of_the_photograph_and_of_a_methods_turned_crop(
    photograph: NDArray[np.uint8], roll_rad: float
) -> None:
    shown, face = ShownSquare((140.0, 150.0), 190.0, roll_rad, 380), Square((133.0, 141.0), 70.0, 128)
    drawn = sample_square(photograph, shown.center_px, shown.side_px, roll_rad, shown.size, cubic=True)
    difference = np.abs(shown.cut(drawn, face).astype(int) - face.cut(photograph))
    assert difference.mean() < 1
    assert difference.max() < 8


@pytest.mark.parametrize("roll_rad", [0.0, 0.4])
def test_points_of_a_methods_picture_lie_where_it_shows_the_photograph(roll_rad: float) -> None:
    photograph = np.zeros((300, 260, 3), np.uint8)
    cv2.circle(photograph, (170, 120), 6, (255, 255, 255), -1)
    shown = ShownSquare((140.0, 150.0), 190.0, roll_rad, 380)
    drawn = sample_square(photograph, shown.center_px, shown.side_px, roll_rad, shown.size, cubic=True)
    rows, columns = np.nonzero(drawn[..., 0] > 127)
    place = shown.on_photograph(np.array([[columns.mean() + 0.5, rows.mean() + 0.5]]))
    np.testing.assert_allclose(place, [[170.5, 120.5]], atol=0.3)
