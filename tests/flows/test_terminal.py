"""What a run says at its end of how expressions follow."""

from __future__ import annotations

import pytest

from flows.display.terminal import expression_line, lips_clause, lips_line
from portrait_core.metrics.follow import Follow

FINE = Follow(moves=0.1, correlation=0.99, slope=0.97, error=0.01)


@pytest.mark.parametrize(
    ("worst", "said"),
    [
        (Follow(0.1, 0.97, 0.62, 0.1), "mouth width arrives least (slope 0.62, correlation 0.97)"),
        (Follow(0.1, 0.97, 1.9, 0.1), "mouth width is exaggerated most (slope 1.90, correlation 0.97)"),
        (Follow(0.1, -0.8, -0.4, 0.1), "mouth width moves the wrong way (slope -0.40, correlation -0.80)"),
        (Follow(0.1, -0.2, -0.02, 0.1), "mouth width arrives least (slope -0.02, correlation -0.20)"),
        (Follow(0.1, 0.4, 0.9, 0.1), "mouth width follows worst (slope 0.90, correlation 0.40)"),
        (Follow(0.1, 0.97, 0.95, 0.1), "mouth width follows least closely (slope 0.95, correlation 0.97)"),
        (
            Follow(0.1, 0.97, 0.3, 0.1, reader_slope=0.5),
            "mouth width arrives least (slope 0.30; 0.60 allowing for the reader, correlation 0.97)",
        ),
        (
            Follow(0.1, 0.97, 1.9, 0.1, reader_slope=0.5),
            "mouth width is exaggerated most (slope 1.90, correlation 0.97)",
        ),
    ],
)
def test_the_line_names_the_region_that_follows_worst(worst: Follow, said: str) -> None:
    rows = {"lip gap": FINE.row(), "mouth width": worst.row(), "gaze up": FINE.row()}
    assert expression_line(rows) == f"expression: 3 regions move; {said}"


def test_the_line_where_one_region_moves_or_none() -> None:
    assert expression_line({"lip gap": FINE.row()}).startswith("expression: 1 region moves; lip gap follows")
    assert expression_line({}) == "expression: no region of the driver's face moves"


@pytest.mark.parametrize(
    ("driver_frames", "result_frames", "said"),
    [
        (40, 33, "; lips stay open in 7 of 40 frames in which the driver's are closed"),
        (40, 38, ""),
        (40, 37, "; lips stay open in 3 of 40 frames in which the driver's are closed"),
        (0, 0, ""),
    ],
)
def test_lips_that_stay_open_are_counted(driver_frames: int, result_frames: int, said: str) -> None:
    assert lips_clause({"driver_frames": driver_frames, "result_frames": result_frames}) == said


def test_what_an_earlier_version_measured_says_nothing_of_closed_lips() -> None:
    assert lips_clause(None) == ""


def test_lips_that_hardly_part_have_no_slope() -> None:
    figures = {"lip_correlation": -0.68, "lip_slope": -0.2}
    assert lips_line(figures, {"mouth width": {}}) == "the driver's lips hardly part"
    assert lips_line(figures, {"lip gap": {}}) == "lips follow with correlation -0.68, slope -0.20"
    assert "slope" in lips_line(figures, None)
