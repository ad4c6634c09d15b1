"""How near animated frames are to true ones."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from portrait_core.media import read_frames
from portrait_core.metrics.likeness import (
    Square,
    error_change,
    face_hull,
    identity_kept,
    measure_likeness,
    perceptual_distance,
    psnr_db,
)
from portrait_core.tracking.crop import crop_image

ALL = np.ones((64, 64), bool)
RNG = np.random.default_rng(0)


def _picture(grey: int = 100) -> np.ndarray:
    return np.full((64, 64, 3), grey, np.uint8)


def _left() -> np.ndarray:
    mask = np.zeros((64, 64), bool)
    mask[:, :32] = True
    return mask


def test_psnr_is_that_of_the_formula_within_the_mask_alone() -> None:
    truth, result = _picture(), _picture()
    result[:, :32] += 10  # upward and downward errors must not cancel, nor wrap in 8 bits
    result[:, 32:] -= 50
    assert psnr_db(result, truth, _left()) == pytest.approx(20 * math.log10(255 / 10))
    assert psnr_db(result, truth, ~_left()) == pytest.approx(20 * math.log10(255 / 50))
    assert psnr_db(result, truth, ALL) == pytest.approx(10 * math.log10(255**2 / ((100 + 2500) / 2)))
    assert psnr_db(_picture(0), _picture(255), ALL) == pytest.approx(0)
    assert psnr_db(truth, truth, ALL) == math.inf
    assert math.isnan(psnr_db(result, truth, np.zeros((64, 64), bool)))


def test_an_error_that_stays_does_not_flicker() -> None:
    moving = [_picture(100), _picture(130)]
    steady = (moving[0] + 7, moving[1] + 7)
    assert error_change(steady, (moving[0], moving[1]), ALL) == 0
    # The still photograph misses the truth's movement of 30 levels; one that jitters by 4 is charged for it.
    assert error_change((moving[0], moving[0]), (moving[0], moving[1]), ALL) == pytest.approx(30)
    jitter = (moving[0] + 2, moving[1] - 2)
    assert error_change(jitter, (moving[0], moving[1]), ALL) == pytest.approx(4)
    far = (_picture(0), _picture(255))  # differences of more than 8 bits
    assert error_change(far, (far[1], far[0]), ALL) == pytest.approx(510)


def test_flicker_counts_only_the_mask() -> None:
    first, second = _picture(), _picture()
    second[:, 32:] += 40
    still = (_picture(), _picture())
    assert error_change((first, second), still, _left()) == 0
    assert error_change((first, second), still, ~_left()) == pytest.approx(40)


def test_the_hull_of_a_face_is_filled_and_nothing_where_there_is_none() -> None:
    corners = np.array([[10, 10], [40, 10], [40, 50], [10, 50], [25, 30]], np.float64)
    mask = face_hull(corners, 64)
    assert mask[30, 12]
    assert mask[12, 38]
    assert not mask[30, 45]
    assert not mask[55, 20]
    assert mask.sum() == pytest.approx(30 * 40, rel=0.06)
    assert not face_hull(np.full((5, 2), np.nan), 64).any()


def test_points_and_border_of_a_square_agree_with_its_crop() -> None:
    """A bright dot of the picture is found where its point is brought; what is outside is told so."""
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[20:22, 30:32] = 255
    square = Square((28.0, 10.0), 30.0, 90)
    crop = square.cut(picture)
    x, y = square.points(np.array([[31.0, 21.0]]))[0]
    rows, columns = np.nonzero(crop[..., 0] > 128)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((x, y), abs=0.6)
    inside = square.inside(40, 60)
    # The square reaches from y = -5 to 25 and from x = 13 to 43: three pixels of it to one of the picture.
    assert not inside[:15].any()
    assert inside[15:].all()
    assert not Square((60.0, 20.0), 20.0, 40).inside(40, 60)[:, 20:].any()
    # Moved and grown with what it shows, it shows the same.
    later = cv2.warpAffine(picture, np.array([[2.0, 0, 6], [0, 2.0, 4]]), (140, 100), flags=cv2.INTER_NEAREST)
    center = tuple(2 * np.array(square.center_px) + (6, 4) - square.center_px)
    rows, columns = np.nonzero(square.moved(center, 2.0).cut(np.asarray(later, np.uint8))[..., 0] > 128)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((x, y), abs=1.5)


def test_a_square_shows_the_same_of_a_crop_and_of_a_larger_photograph(carphone: Path) -> None:
    """Each way of bringing a result to the truth's square registers: shifted by a pixel they differ more."""
    frame = next(iter(read_frames(carphone, 0, 1)))
    large = crop_image(frame, (72, 72), 144, 288)
    square = Square((80.3, 66.9), 90.0, 128)
    truth, everywhere = square.cut(frame[:, :144]), np.ones((128, 128), bool)
    crop = crop_image(frame, square.center_px, square.side_px, 256)
    for size, shown in ((256, Square.whole(256, 128).cut(crop)), (288, square.scaled(2).cut(large))):
        shifted = np.roll(shown, 1, axis=1)
        assert psnr_db(shown, truth, everywhere) > 34, size
        assert psnr_db(shown, truth, everywhere) > psnr_db(shifted, truth, everywhere) + 4, size


def test_perceptual_distance_grows_with_blur_and_is_local(phi: torch.nn.Module, carphone: Path) -> None:
    frame = crop_image(next(iter(read_frames(carphone, 0, 1))), (88, 72), 144, 128)
    soft = crop_image(crop_image(frame, (64, 64), 128, 64), (32, 32), 64, 128)
    softer = crop_image(crop_image(frame, (64, 64), 128, 32), (16, 16), 32, 128)
    everywhere = np.ones((128, 128), bool)
    near, far = (perceptual_distance(phi, blurred, frame, everywhere) for blurred in (soft, softer))
    assert perceptual_distance(phi, frame, frame, everywhere) == pytest.approx(0, abs=1e-6)
    assert 0.02 < near < 0.8 * far
    right = np.zeros((128, 128), bool)
    right[:, 64:] = True
    half = frame.copy()
    half[:, 64:] = softer[:, 64:]
    assert perceptual_distance(phi, half, frame, ~right) < 0.2 * perceptual_distance(phi, half, frame, right)
    assert math.isnan(perceptual_distance(phi, half, frame, ~everywhere))


def test_a_clip_is_measured_frame_by_frame(phi: torch.nn.Module) -> None:
    truths = [RNG.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(3)]
    shifted = [np.clip(truth.astype(int) + 6, 0, 255).astype(np.uint8) for truth in truths]
    faces = [_left(), np.zeros((64, 64), bool), _left()]
    inside = ALL.copy()
    inside[:8] = False
    for truth in truths:  # what lies outside may be anything
        truth[:8] = 0
    found = measure_likeness(shifted, truths, faces, [inside] * 3, {"Φ": phi})
    assert set(found.values) == {"face PSNR", "crop PSNR", "face Φ", "crop Φ", "flicker"}
    assert np.isnan(found.values["face PSNR"]).tolist() == [False, True, False]
    assert np.isnan(found.values["flicker"]).tolist() == [True, False, False]
    means = found.means()
    assert means["face PSNR"] == pytest.approx(20 * math.log10(255 / 6), abs=0.3)
    assert means["crop PSNR"] == pytest.approx(20 * math.log10(255 / 6), abs=0.3)
    assert means["flicker"] < 0.5
    assert measure_likeness(truths, truths, faces, [inside] * 3, {}).means()["crop PSNR"] == math.inf


def test_the_right_person_scores_higher_and_unseen_faces_do_not_count() -> None:
    truths = RNG.normal(size=(4, 16))
    results = truths + 0.1 * RNG.normal(size=(4, 16))
    others = RNG.normal(size=(4, 16))
    results[1] = np.nan
    assert identity_kept(results, truths) > 0.95 > identity_kept(others, truths)
    assert math.isnan(identity_kept(np.full((4, 16), np.nan), truths))


def test_pictures_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        psnr_db(_picture(), np.zeros((32, 64, 3), np.uint8), ALL)
    with pytest.raises(ValueError, match="one size"):
        psnr_db(_picture(), _picture(), ALL[:32])
    with pytest.raises(ValueError, match="uint8"):
        psnr_db(_picture().astype(np.float32), _picture(), ALL)
    with pytest.raises(ValueError, match=r"shorter|longer|argument"):
        measure_likeness([_picture()], [_picture(), _picture()], [ALL, ALL], [ALL, ALL], {})
