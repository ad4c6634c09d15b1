"""What an edit changes in the photograph, and what it leaves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from portrait_core.attribute_editing.edit_requests import moves_mouth, parse_requests
from portrait_core.attribute_editing.photograph_edit import ColourChange, editable_mask, edited_photograph
from portrait_core.face_model.landmark_regions import INNER_LIPS
from portrait_core.tracking.crop import crop_image

SIZE = 96
EVERYWHERE = np.ones((300, 400), np.float32)
Picture = NDArray[np.uint8]


@pytest.fixture
def photograph() -> Picture:
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (400, 300), interpolation=cv2.INTER_CUBIC), np.uint8)


def _with_spot(crop: Picture) -> Picture:
    """Red in the middle of a crop."""
    spotted = crop.copy()
    cv2.circle(spotted, (SIZE // 2, SIZE // 2), SIZE // 8, (255, 0, 0), -1)
    return spotted


def test_no_edit_leaves_every_pixel(photograph: Picture) -> None:
    before = crop_image(photograph, (200, 150), 160, SIZE)
    change = ColourChange.between(before, before.copy())
    made = edited_photograph(photograph, change, EVERYWHERE, (200, 150), 160)
    np.testing.assert_array_equal(made, photograph)


@pytest.mark.parametrize(
    ("center", "side"), [((200.0, 150.0), 160.0), ((203.3, 148.7), 71.0), ((30.0, 20.0), 120.0)]
)
def test_an_edit_lands_where_the_crop_was(
    photograph: Picture, center: tuple[float, float], side: float
) -> None:
    before = crop_image(photograph, center, side, SIZE)
    after = _with_spot(before)
    made = edited_photograph(photograph, ColourChange.between(before, after), EVERYWHERE, center, side)
    again = crop_image(made, center, side, SIZE)
    middle = np.s_[SIZE // 2 - 4 : SIZE // 2 + 4, SIZE // 2 - 4 : SIZE // 2 + 4]
    if center[0] > side / 2:  # the whole spot lies within the photograph
        red, green, blue = (again[middle].reshape(-1, 3).mean(0) - before[middle].reshape(-1, 3).mean(0)).T
        assert red > 40
        assert max(green, blue) < -40
        changed = np.abs(made.astype(int) - photograph).max(2) > 40
        rows, columns = np.nonzero(changed)
        assert abs(columns.mean() + 0.5 - center[0]) < 2 * side / SIZE
        assert abs(rows.mean() + 0.5 - center[1]) < 2 * side / SIZE
    outside = np.ones(photograph.shape[:2], bool)
    low = np.maximum(np.floor(np.array(center) - side / 2).astype(int), 0)
    high = np.ceil(np.array(center) + side / 2).astype(int)
    outside[low[1] : high[1], low[0] : high[0]] = False
    np.testing.assert_array_equal(made[outside], photograph[outside])


def test_small_differences_of_a_reconstruction_change_nothing(photograph: Picture) -> None:
    before = crop_image(photograph, (200, 150), 160, SIZE)
    after = np.clip(before.astype(int) + 4, 0, 255).astype(np.uint8)
    assert ColourChange.between(before, after).share.max() < 1e-6
    kept = edited_photograph(photograph, ColourChange.between(before, after), EVERYWHERE, (200, 150), 160)
    np.testing.assert_array_equal(kept, photograph)
    assert ColourChange.between(before, _with_spot(before)).share.max() == pytest.approx(1)


def test_the_photographs_detail_is_kept_where_the_edit_darkens(photograph: Picture) -> None:
    """A blurred likeness that turns darker: hair and skin of the photograph do, with all that is in them."""
    noisy = photograph + np.random.default_rng(1).normal(0, 12, photograph.shape)
    fine = np.clip(noisy, 60, 200).astype(np.uint8)
    blurred = cv2.GaussianBlur(crop_image(fine, (200, 150), 160, SIZE), (0, 0), 3)
    before = np.asarray(blurred, np.uint8)
    after = (before * 0.5).astype(np.uint8)
    made = edited_photograph(fine, ColourChange.between(before, after), EVERYWHERE, (200, 150), 160)
    inner = np.s_[120:180, 170:230]
    assert 0.45 < made[inner].mean() / fine[inner].mean() < 0.6
    old, new = (one[inner].astype(float) - cv2.GaussianBlur(one, (0, 0), 2)[inner] for one in (fine, made))
    assert np.corrcoef(old.ravel(), new.ravel())[0, 1] > 0.95
    assert 0.4 < new.std() / old.std() < 0.7


def test_grain_is_not_blown_up_where_the_edit_lightens() -> None:
    """Hair at a tenth of white that turns six times lighter: its noise does not."""
    dark = np.random.default_rng(2).normal(25, 4, (300, 400, 1)).clip(0, 60).repeat(3, 2).astype(np.uint8)
    before = np.full((SIZE, SIZE, 3), 25, np.uint8)
    made = edited_photograph(
        dark, ColourChange.between(before, np.full_like(before, 150)), EVERYWHERE, (200, 150), 160
    )
    inner = np.s_[120:180, 170:230]
    assert abs(made[inner].mean() - 150) < 10
    assert made[inner].std() < 2.5 * dark[inner].std()


def test_a_grey_photograph_stays_grey(photograph: Picture) -> None:
    grey = np.repeat(photograph[..., :1], 3, axis=2)
    before = crop_image(grey, (200, 150), 160, SIZE)
    made = edited_photograph(
        grey, ColourChange.between(before, _with_spot(before)), EVERYWHERE, (200, 150), 160
    )
    assert (made != grey).any()
    assert np.ptp(made, axis=2).max() == 0


def test_a_small_face_in_a_grey_picture_keeps_its_colours() -> None:
    picture = np.full((1200, 1200, 3), 128, np.uint8)
    picture[500:580, 500:580] = (200, 140, 110)
    before = crop_image(picture, (540, 540), 70, SIZE)
    after = np.full_like(before, 0) + np.array([120, 90, 160], np.uint8)
    made = edited_photograph(
        picture, ColourChange.between(before, after), np.ones((1200, 1200), np.float32), (540, 540), 70
    )
    assert np.abs(made[535:545, 535:545].reshape(-1, 3).mean(0) - (120, 90, 160)).max() < 12


def test_what_is_not_the_person_and_the_mouths_inside_stay() -> None:
    points = np.full((478, 2), 150.0)
    points[33], points[263] = (100, 100), (200, 100)
    angles = np.linspace(np.pi, 2 * np.pi, len(INNER_LIPS.upper))
    for curve, sign in ((INNER_LIPS.upper, 1), (INNER_LIPS.lower, -1)):
        points[list(curve)] = np.stack([150 + 20 * np.cos(angles), 200 + 10 * sign * np.sin(angles)], 1)
    coverage = np.zeros((300, 400), np.float32)
    coverage[:, :250] = 1
    free = editable_mask(coverage, points, (300, 400), mouth=False)
    assert free[200, 150] == free[195, 140] == free[100, 300] == 0
    assert free[200, 190] == free[100, 150] == 1
    assert (editable_mask(coverage, points, (300, 400), mouth=True) == coverage).all()
    assert editable_mask(None, points, (300, 400), mouth=True).min() == 1
    assert moves_mouth(parse_requests(["age=+3", "smile=1"]))
    assert not moves_mouth(parse_requests(["beard=1"]))
