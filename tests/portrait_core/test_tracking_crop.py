"""Crops and measures against values worked out by hand."""

import math

import numpy as np
import pytest

from portrait_core.tracking.crop import crop_image, sample_square
from portrait_core.tracking.measure import measure


def _gradient(height: int, width: int) -> np.ndarray:
    """Red grows by 1 a column, green by 1 a row; blue is 7."""
    image = np.full((height, width, 3), 7, np.uint8)
    image[..., 0] = np.arange(width)
    image[..., 1] = np.arange(height)[:, None]
    return image


def test_the_whole_image_at_its_own_size_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 50, 3)).astype(np.uint8)
    np.testing.assert_array_equal(crop_image(image, (25, 25), 50, 50), image)


def test_pixel_centres_lie_at_one_half() -> None:
    image = _gradient(120, 200)
    crop = crop_image(image, (100, 60), 40, 40)  # columns 80..119, rows 40..79
    np.testing.assert_array_equal(crop, image[40:80, 80:120])


def test_half_a_pixel_aside_averages_two_columns() -> None:
    crop = crop_image(2 * _gradient(100, 100), (50.5, 50), 20, 20)
    np.testing.assert_allclose(crop[10, 4:16, 0].astype(int), 2 * np.arange(44, 56) + 1, atol=1)


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_shrinking_averages_what_it_covers(factor: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    crop = crop_image(image, (48, 48), 96, 96 // factor)
    blocks = image.reshape(96 // factor, factor, 96 // factor, factor, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(crop.astype(float), blocks, atol=0.51)


def test_outside_the_image_it_is_mirrored_and_the_inside_is_untouched() -> None:
    image = _gradient(40, 40)
    crop = crop_image(image, (0, 20), 40, 40)
    np.testing.assert_array_equal(crop[:, 20:, 0], np.tile(np.arange(20), (40, 1)))
    outside = crop[20, :20, 0].astype(int)
    assert outside[19] == 0
    assert outside[18] == 1
    assert outside.max() <= 2, "only a strip along the edge comes back, no face from inside"
    assert crop_image(image, (-500, 20), 40, 8).shape == (8, 8, 3)


def test_outside_the_image_there_are_no_streaks() -> None:
    image = np.random.default_rng(2).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    crop = crop_image(image, (100, 20), 200, 200).astype(float)  # 80 rows lie above the image
    along, edge = crop[:60], crop[80]
    correlation = np.corrcoef(along.mean(axis=0).ravel(), edge.ravel())[0, 1]
    assert abs(correlation) < 0.3, "no column goes on beyond the edge"
    assert along.std() < 0.5 * crop[80:].std(), "what is far outside is blurred"


def test_a_turned_square_turns_back_what_was_turned() -> None:
    image = _gradient(200, 200)
    # the square's right is the image's down: its columns walk down the rows
    crop = sample_square(image, (100, 100), 20, math.pi / 2, 20)
    np.testing.assert_allclose(crop[0, :, 1].astype(int), np.arange(90, 110), atol=1)
    np.testing.assert_allclose(crop[:, 0, 0].astype(int), np.arange(109, 89, -1), atol=1)


@pytest.mark.parametrize(
    ("image", "side", "message"),
    [
        (np.zeros((4, 4), np.uint8), 4.0, "expected"),
        (np.zeros((4, 4, 3), np.float32), 4.0, "expected"),
        (np.zeros((4, 4, 3), np.uint8), 0.0, "positive"),
        (np.zeros((4, 4, 3), np.uint8), math.nan, "positive"),
    ],
)
def test_what_is_no_image_or_no_square_is_refused(image: np.ndarray, side: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crop_image(image, (2, 2), side, 4)


def test_measures_by_hand() -> None:
    points = np.zeros((2, 478, 2))
    points[:, [33, 133, 362, 263], 0] = [0, 30, 60, 100]
    points[:, 159], points[:, 145] = (15, -3), (15, 3)
    points[:, 386], points[:, 374] = (80, -5), (80, 5)
    points[:, 13], points[:, 14] = (50, 60), (50, 80)
    points[:, 61], points[:, 291] = (30, 70), (70, 70)
    points[1] = np.nan
    measured = measure(points)
    assert measured["lip_gap"][0] == pytest.approx(0.2)
    assert measured["mouth_width"][0] == pytest.approx(0.4)
    assert measured["eye_opening_right"][0] == pytest.approx(0.2)
    assert measured["eye_opening_left"][0] == pytest.approx(0.25)
    assert measured["eye_opening"][0] == pytest.approx(0.225)
    assert all(np.isnan(values[1]) for values in measured.values())


def test_measuring_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="FaceLandmarker"):
        measure(np.zeros((3, 68, 2)))
