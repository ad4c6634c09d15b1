"""The picture of driver against result."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from portrait_core.metrics.follow import Follow
from portrait_core.report import expression_picture
from portrait_core.report.expression import panel_title

NAMES = ("lip gap", "mouth width", "corners' lift", "inner brows", "gaze up")


def _opened(count: int, result: bool = True) -> np.ndarray:
    wave = [0.4 + 0.1 * float(value) for value in np.sin(np.arange(50) / 5)]
    curves = {name: [*wave[:20], None, *wave[21:]] for name in NAMES}
    regions = {"driver": curves} | ({"result": curves} if result else {})
    found = {
        name: Follow(0.1, 0.97, 0.62, 0.01, 0.8 if name == "lip gap" else None) for name in NAMES[:count]
    }
    data = expression_picture(regions, found, 25.0)
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (5, 2, 3)])
def test_there_is_a_panel_per_region_that_moves(count: int, rows: int, columns: int) -> None:
    picture = _opened(count)
    assert picture.shape[0] == pytest.approx(rows * 231, abs=1)
    assert picture.shape[1] == pytest.approx(columns * 462, abs=1)
    orange = np.abs(picture.astype(int) - (255, 127, 14)).sum(2) < 30  # the result's curve
    cells = [np.array_split(strip, columns, axis=1) for strip in np.array_split(orange, rows)]
    drawn = [bool(cell.any()) for strip in cells for cell in strip]
    assert drawn == [place < count for place in range(rows * columns)]


def test_where_nothing_moves_the_picture_says_so() -> None:
    nothing, unseen = _opened(0), _opened(0, result=False)
    assert nothing.shape == unseen.shape
    assert not np.array_equal(nothing, unseen)
    assert nothing.min() < 100


def test_a_title_names_what_its_reader_reports_of_a_known_change() -> None:
    read, exact = (Follow(0.1, 0.97, 0.63, 0.01, reader_slope) for reader_slope in (0.65, None))
    assert panel_title("gaze up", read) == "gaze up: slope 0.63; the reader's own 0.65\ncorrelation 0.97"
    assert panel_title("gaze up", exact) == "gaze up: slope 0.63\ncorrelation 0.97"
    noisy = Follow(0.1, 0.97, 0.63, 0.01, reader_noise=0.02)
    assert panel_title("gaze up", noisy) == "gaze up: slope 0.63\ncorrelation 0.97 of at most 0.98"
