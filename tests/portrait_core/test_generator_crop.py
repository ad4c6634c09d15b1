"""The crops that 2D generators see: where they lie, and what they show of templates."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from portrait_core.cameras import orbit_labels
from portrait_core.tracking.crop import Place
from portrait_core.tracking.ffhq_align import align_ffhq
from portrait_core.tracking.generator_crop import (
    EMBEDDED_FACE,
    KEY_POINTS,
    GeneratorCrop,
    embedded_crop,
    ffhq_crop,
)
from portrait_core.tracking.landmarks68 import mesh_to_68
from portrait_core.training.train_2d import SIZE, _aligned

SIDE = 256


def photograph(seed: int = 0) -> NDArray[np.uint8]:
    """A smooth picture ``[256,256,3]``."""
    noise = np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6).astype(np.float32)
    return np.asarray((smooth - smooth.min()) / np.ptp(smooth) * 255, np.uint8)


def landmarks(roll_rad: float = 0.0) -> NDArray[np.float32]:
    """Of a face near the middle of the photograph, with its parts where mesh points stand ``[478,2]``."""
    points = np.zeros((478, 2))
    points[[33, 160, 158, 133, 153, 144, 159, 145]] = (-22, -14)
    points[[362, 385, 387, 263, 373, 380, 386, 374]] = (22, -14)
    points[[61, 291]] = (-15, 30), (15, 30)
    points[[13, 14]] = (0, 30)
    cos, sin = np.cos(roll_rad), np.sin(roll_rad)
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]) + (131.0, 126.0), np.float32)


def places_in(crop: GeneratorCrop, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Places of points of the photograph over the crop's side ``[n,2]``."""
    cos, sin = np.cos(crop.roll_rad), np.sin(crop.roll_rad)
    return (points - np.array(crop.center_px)) @ np.array([[cos, -sin], [sin, cos]]) / crop.side_px + 0.5


def shift_px(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """How far a picture is moved against another, which it is nearly equal to."""
    down, right = np.gradient(one.astype(float), axis=(0, 1))
    difference = other.astype(float) - one
    assert np.median(np.abs(difference)) <= 2
    assert np.abs(difference).max() < 16
    ways = np.stack([down.ravel(), right.ravel()], axis=1)
    return float(np.abs(np.linalg.lstsq(ways, difference.ravel(), rcond=None)[0]).max())


@pytest.mark.parametrize("roll_rad", [0.0, 0.3, -0.2])
def test_the_embedded_crop_is_the_one_that_its_generator_was_trained_on(roll_rad: float) -> None:
    picture, points = photograph(), landmarks(roll_rad)
    crop = embedded_crop(picture, points, orbit_labels(0.1, -0.1, roll_rad)[0], float(SIDE), SIZE)
    face = np.mean([points[list(pair)].mean(0) for pair in KEY_POINTS], axis=0)
    trained = _aligned(np.dstack([picture, picture[..., 0]]), roll_rad, face)[..., :3]
    assert shift_px(crop.picture, trained) < 0.02
    np.testing.assert_allclose(places_in(crop, face[None])[0], EMBEDDED_FACE, atol=1e-5)
    left, right = places_in(crop, np.stack([points[159], points[386]]))
    assert left[1] == pytest.approx(right[1], abs=1e-5), "the eyes lie level"
    assert left[0] < right[0]


@pytest.mark.parametrize("roll_rad", [0.0, 0.3, -0.2])
def test_ffhqs_crop_is_its_alignment_and_cuts_templates_at_the_same_place(roll_rad: float) -> None:
    picture, points = photograph(), landmarks(roll_rad)
    crop = ffhq_crop(picture, points, 96)
    aligned = align_ffhq(picture, mesh_to_68(points[None])[0], 96, 384, scale=1.0)
    assert shift_px(crop.picture, aligned) < 0.02
    whole = Place((0.0, 0.0), float(SIDE))
    assert shift_px(crop.picture, crop.on_photograph(picture, whole)) < 0.02
    assert crop.roll_rad == pytest.approx(roll_rad, abs=1e-5)


def test_a_template_covers_its_square_and_leaves_the_photograph_around_it() -> None:
    picture = photograph()
    crop = ffhq_crop(picture, landmarks(0.2), 96)
    white = np.full((50, 50, 3), 255, np.uint8)
    place = Place((101.0, 96.0), 60.0)
    laid, mask = (
        crop.on_photograph(white, place),
        crop.cut_mask(white[..., 0], Place((0.0, 0.0), float(SIDE))),
    )
    assert mask.shape == (96, 96)
    corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * place.side_px + place.corner_px
    inside = cv2.fillConvexPoly(
        np.zeros((96, 96), np.uint8), np.round(places_in(crop, corners) * 96 - 0.5).astype(np.int32), 1
    )
    assert (laid[cv2.erode(inside, np.ones((5, 5))) == 1] == 255).all()
    around = cv2.dilate(inside, np.ones((5, 5))) == 0
    np.testing.assert_array_equal(laid[around], crop.picture[around])
    assert around.any()
    assert crop.size == 96
