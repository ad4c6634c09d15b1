"""What an edit changes in the photograph, and what it leaves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from portrait_core.attributes.pictures import changed_share, edited_photograph
from portrait_core.tracking.crop import crop_image

SIZE = 96


@pytest.fixture
def photograph() -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    return cv2.resize(noise, (400, 300), interpolation=cv2.INTER_CUBIC)


def _with_spot(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Red in the middle of a crop."""
    spotted = crop.copy()
    cv2.circle(spotted, (SIZE // 2, SIZE // 2), SIZE // 8, (255, 0, 0), -1)
    return spotted


def test_no_edit_leaves_every_pixel(photograph: NDArray[np.uint8]) -> None:
    before = crop_image(photograph, (200, 150), 160, SIZE)
    made = edited_photograph(photograph, before, before.copy(), (200, 150), 160)
    np.testing.assert_array_equal(made, photograph)


@pytest.mark.parametrize(
    ("center", "side"), [((200.0, 150.0), 160.0), ((203.3, 148.7), 71.0), ((30.0, 20.0), 120.0)]
)
def test_an_edit_lands_where_the_crop_was(
    photograph: NDArray[np.uint8], center: tuple[float, float], side: float
) -> None:
    before = crop_image(photograph, center, side, SIZE)
    made = edited_photograph(photograph, before, _with_spot(before), center, side)
    again = crop_image(made, center, side, SIZE)
    middle = again[SIZE // 2 - 4 : SIZE // 2 + 4, SIZE // 2 - 4 : SIZE // 2 + 4].reshape(-1, 3)
    if center[0] > side / 2:  # the whole spot lies within the photograph
        assert np.abs(middle - np.array([255, 0, 0])).mean() < 12
        changed = np.abs(made.astype(int) - photograph).max(2) > 40
        rows, columns = np.nonzero(changed)
        assert abs(columns.mean() + 0.5 - center[0]) < side / SIZE
        assert abs(rows.mean() + 0.5 - center[1]) < side / SIZE
    outside = np.ones(photograph.shape[:2], bool)
    low = np.maximum(np.floor(np.array(center) - side / 2).astype(int), 0)
    high = np.ceil(np.array(center) + side / 2).astype(int)
    outside[low[1] : high[1], low[0] : high[0]] = False
    np.testing.assert_array_equal(made[outside], photograph[outside])


def test_small_differences_of_a_reconstruction_change_nothing(photograph: NDArray[np.uint8]) -> None:
    before = crop_image(photograph, (200, 150), 160, SIZE)
    after = np.clip(before.astype(int) + 4, 0, 255).astype(np.uint8)
    assert changed_share(before, after).max() == 0
    assert changed_share(before, _with_spot(before)).max() == pytest.approx(1)
