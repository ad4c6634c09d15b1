"""An open mouth shows the teeth and the tongue that the driver's shows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from portrait_core.face_model.head import MorphableHead
from portrait_core.template.template import TemplateRenderer
from portrait_core.tracking.mouth_inside import LIGHT_SIZE, MouthInside
from tests.portrait_core.drawn_portrait import SKIN, DrawnPortrait, render_told, renderer_of

WIDE = {"jawOpen": 0.8}
DARK, TONGUE = 0.2, 0.75
TOOTH = 0.5
"""Luminance over the skin's from which on a pixel of these pictures is tooth."""


@pytest.fixture(scope="module")
def closed(head: MorphableHead) -> DrawnPortrait:
    """A portrait with closed lips, in a picture that has black in it."""
    units = {"mouthShrugLower": 0.3, "mouthPressLeft": 0.5, "mouthPressRight": 0.5}
    renderer, image, marks = renderer_of(head, 0, 0.1, **units)
    image = image.copy()
    image[:20, :20] = 0
    return TemplateRenderer(head, image, renderer.skin.fit, marks), image, marks


@pytest.fixture(scope="module")
def smiling(head: MorphableHead) -> DrawnPortrait:
    """A portrait that shows its upper teeth."""
    return renderer_of(head, 0, 0.1, jawOpen=0.35, mouthUpperUpLeft=0.6, mouthUpperUpRight=0.6)


def told(upper: float, lower: float, light: float = DARK, certain: float = 1.0) -> MouthInside:
    """What a mouth shows in one frame."""
    teeth = np.array([[upper, lower, certain]], np.float32)
    return MouthInside(teeth, np.full((1, *LIGHT_SIZE), light, np.float32))


def column(head: MorphableHead, portrait: DrawnPortrait, inside: MouthInside | None) -> NDArray[np.float64]:
    """Luminances over the skin's down the middle of the wide-open mouth."""
    got = render_told(head, portrait, inside, WIDE)
    x = int(portrait[2][13, 0])
    rows = np.nonzero(got.mouth_mask[0, :, x] > 0.9)[0]
    return np.asarray(got.image[0, rows, x - 1 : x + 2].astype(float).mean((1, 2)) / np.mean(SKIN))


@pytest.mark.parametrize(("upper", "lower"), [(0.0, 0.0), (0.35, 0.0), (0.0, 0.3), (0.25, 0.25)])
def test_both_rows_show_as_much_as_the_drivers(
    head: MorphableHead, closed: DrawnPortrait, upper: float, lower: float
) -> None:
    tooth = column(head, closed, told(upper, lower)) > TOOTH
    half = len(tooth) // 2
    # the lips' soft edges and shade take a pixel or two of the 26
    assert tooth[:half].sum() / len(tooth) == pytest.approx(upper, abs=0.1)
    assert tooth[half:].sum() / len(tooth) == pytest.approx(lower, abs=0.12)


def test_clenched_teeth_fill_the_opening(head: MorphableHead, closed: DrawnPortrait) -> None:
    apart, together = (column(head, closed, told(*rows)) for rows in ((0.3, 0.3), (0.5, 0.5)))
    assert apart.min() < 0.35
    assert together[2:-2].min() > TOOTH


def test_the_photographs_own_teeth_go_behind_the_lip_too(head: MorphableHead, smiling: DrawnPortrait) -> None:
    alone, hidden, shown = (
        column(head, smiling, inside)[1:7].mean() for inside in (None, told(0, 0), told(0.4, 0))
    )
    assert alone > 0.7
    assert hidden < 0.5
    assert shown > 0.7


def test_a_tongue_is_lighter_than_the_depth(head: MorphableHead, closed: DrawnPortrait) -> None:
    depth, tongue = (column(head, closed, told(0, 0, light)) for light in (DARK, TONGUE))
    middle = slice(len(depth) // 4, -len(depth) // 4)
    assert depth[middle].mean() < 0.2
    assert 2 * depth[middle].mean() < tongue[middle].mean() < TONGUE


def test_a_tongue_is_in_the_dark_beside_the_lips(head: MorphableHead, closed: DrawnPortrait) -> None:
    """One that is as light there as in the middle is taken for a lip."""
    tongue = column(head, closed, told(0, 0, TONGUE))
    middle = tongue[len(tongue) // 2]
    assert tongue[:4].min() < 0.6 * middle
    assert tongue[-4:].min() < 0.6 * middle


def test_nothing_certain_is_nothing_told(head: MorphableHead, closed: DrawnPortrait) -> None:
    alone, doubtful = (render_told(head, closed, inside, WIDE) for inside in (None, told(0.5, 0.5, 0.5, 0.0)))
    np.testing.assert_array_equal(alone.image, doubtful.image)


def test_a_closed_mouth_shows_nothing_of_it(head: MorphableHead, closed: DrawnPortrait) -> None:
    alone, inside = (render_told(head, closed, one, {}) for one in (None, told(0.5, 0.5, 0.9)))
    np.testing.assert_array_equal(alone.image, inside.image)
