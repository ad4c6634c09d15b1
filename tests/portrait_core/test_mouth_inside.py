"""What shows between the lips is read in shares of the opening and of the skin's light."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from portrait_core.tracking.mouth_inside import LIGHT_SIZE, MouthInside, read_mouth_inside
from portrait_core.training.reader_calibration import without_colours
from tests.portrait_core.made_mouth import SKIN, landmarks, made

TONGUE = (150, 90, 88)
GAP = 24.0


def read(images: list[NDArray[np.uint8]], gaps: list[float]) -> MouthInside:
    return read_mouth_inside(lambda: images, np.stack([landmarks(gap) for gap in gaps]))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(("upper", "lower"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.35), (0.3, 0.3), (0.9, 0.0)])
def test_teeth_are_told_by_their_rows(grey: bool, upper: float, lower: float) -> None:
    image = made(GAP, upper, lower_teeth=lower)
    # closed lips beside it tell what colour lips have
    images = [made(1.0), *([image] * 3)]
    if grey:
        images = [without_colours(one) for one in images]
    found = read(images, [1.0, GAP, GAP, GAP]).frames()[2]
    assert found.certain == 1
    assert found.upper == pytest.approx(upper, abs=0.1)
    assert found.lower == pytest.approx(lower, abs=0.1)


def test_a_tongue_is_light_and_the_depth_is_dark() -> None:
    dark, tongue, under_teeth = (
        read([made(GAP, **more)] * 3, [GAP] * 3).light[1]
        for more in ({}, {"rest": TONGUE}, {"rest": TONGUE, "teeth": 0.5})
    )
    assert dark.shape == LIGHT_SIZE
    # lightness, as the eye has it, over the skin's
    assert dark.max() < 0.35
    assert tongue.min() > 0.55
    assert tongue.max() < 0.8
    # what teeth hide is as light as what shows beside them, not as light as they are
    np.testing.assert_allclose(under_teeth.mean(), tongue.mean(), atol=0.06)
    np.testing.assert_allclose(under_teeth, tongue, atol=0.2)


def test_what_is_told_does_not_depend_on_the_light() -> None:
    bright = made(GAP, 0.3, rest=TONGUE)
    dim = (bright * 0.6).astype(np.uint8)
    first, second = (read([image] * 3, [GAP] * 3) for image in (bright, dim))
    np.testing.assert_allclose(first.teeth, second.teeth, atol=0.06)
    np.testing.assert_allclose(first.light, second.light, atol=0.08)


def test_closed_and_unseen_mouths_tell_nothing_and_small_ones_little() -> None:
    points = np.stack([landmarks(gap) for gap in (GAP, 1.0, GAP, GAP)])
    points[2] = np.nan
    images = [made(GAP, 0.4)] * 4
    images[1] = made(1.0)
    found = read_mouth_inside(lambda: images, points)
    np.testing.assert_array_equal(found.teeth[:, 2], [1, 0, 0, 1])
    assert np.isfinite(found.teeth).all()
    assert np.isfinite(found.light).all()
    np.testing.assert_allclose(found.teeth[:, 0], found.teeth[0, 0], atol=1e-6)
    small = [image[::4, ::4] for image in images]
    assert (read_mouth_inside(lambda: small, points / 4).teeth[:, 2] < 0.1).all()
    never = read_mouth_inside(lambda: images, np.full_like(points, np.nan))
    assert (never.teeth == 0).all()
    assert np.isfinite(never.light).all()


def test_a_single_frame_that_slips_is_dropped() -> None:
    images = [made(GAP, 0.4)] * 5
    images[2] = made(GAP, rest=SKIN)
    found = read(images, [GAP] * 5)
    np.testing.assert_allclose(found.teeth[:, 0], found.teeth[0, 0], atol=0.02)


def test_a_clip_of_another_length_than_its_landmarks_is_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        read([made(GAP)], [GAP, GAP])
