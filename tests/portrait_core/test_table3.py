"""The text, the data frame and the sheet of the paper's table 3."""

from __future__ import annotations

import math

import numpy as np
import pytest

from portrait_core.metrics.consistency import compare_views, draw_views
from portrait_core.report.table3 import (
    COLUMNS,
    PAPER,
    ROWS,
    Place,
    table3_details,
    table3_frame,
    table3_markdown,
    table3_rows,
    table3_sheet,
)
from portrait_core.settings import ConsistencySettings


def _result(angle: float, lost: int = 0, people: int = 6):  # type: ignore[no-untyped-def]
    """People whose two vectors are an angle apart; of ``lost`` ones a view shows no face."""
    views = draw_views(people)
    first = np.random.default_rng(0).normal(size=(people, 2)) @ np.array([[1.0, 0.0], [0.0, 1.0]])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    vectors = np.stack([first, first @ turn], 1)
    vectors[:lost, 1] = math.nan
    return compare_views(vectors, views)


RESULTS = {("3d", "age"): _result(0.2), ("2d", ""): _result(0.5, lost=1), ("3d", ""): _result(0.1)}
MISSING: dict[Place, str] = {("2d", "glasses"): "nobody wears any", ("3d", "glasses"): "nobody wears any"}


def test_rows_and_columns_are_those_of_the_settings_and_the_paper() -> None:
    fields = ConsistencySettings.model_fields
    assert set(ROWS) == set(fields["gan"].annotation.__args__)  # type: ignore[union-attr]
    assert set(COLUMNS) == set(fields["edit"].annotation.__args__)  # type: ignore[union-attr]
    assert all(len(values) == len(COLUMNS) for values in PAPER.values())


def test_cells_come_in_the_papers_order_with_what_was_found() -> None:
    cells = table3_rows(RESULTS, MISSING)
    assert [(cell.row, cell.column) for cell in cells] == [
        ("2D GAN", "Pose Only"),
        ("2D GAN", "+ Glasses"),
        ("3D GAN", "Pose Only"),
        ("3D GAN", "+ Age"),
        ("3D GAN", "+ Glasses"),
    ]
    assert cells[0].cosine == pytest.approx(math.cos(0.5))
    assert cells[0].text == "0.878 [0.878, 0.878] (5 of 6 pairs)"
    assert (cells[1].text, cells[1].found) == ("none", 0)
    assert cells[3].text.startswith("0.980 [")
    assert cells[2].others < cells[2].cosine
    details = table3_details(cells)
    assert details["found"].tolist() == [5, 0, 6, 6, 0]
    assert details["missing"].tolist() == ["", "nobody wears any", "", "", "nobody wears any"]


def test_the_frame_has_the_papers_columns() -> None:
    frame = table3_frame(table3_rows(RESULTS, MISSING))
    assert frame.columns.tolist() == ["Pose Only", "+ Age", "+ Glasses"]
    assert frame.index.tolist() == ["2D GAN", "3D GAN"]
    assert frame.loc["3D GAN", "+ Age"] == pytest.approx(math.cos(0.2))
    assert frame["+ Glasses"].isna().all()
    assert math.isnan(frame.loc["2D GAN", "+ Age"])


def test_the_text_says_what_is_missing_and_why() -> None:
    text = table3_markdown(table3_rows(RESULTS, MISSING), "Six people.")
    assert "| method | Pose Only | + Age | + Glasses |" in text
    assert "| 2D GAN | 0.878 [0.878, 0.878] (5 of 6 pairs) |  | none |" in text
    assert "2D GAN, + Glasses: none: nobody wears any." in text
    assert "| 3D GAN | 0.790 | 0.797 | 0.794 |" in text  # the paper's
    assert text.endswith("Six people.\n")


def test_the_sheet_has_a_row_for_each_cell_and_two_pictures_for_each_person() -> None:
    views = {place: np.full((2, 2, 8, 8, 3), 50 * i, np.uint8) for i, place in enumerate(RESULTS, 1)}
    sheet = table3_sheet(views, draw_views(2))
    height, width = sheet.shape[:2]
    assert width > 4 * 128
    assert height > 3 * 128
    assert [int(sheet[18 + 64 + 128 * i, -64, 0]) for i in range(3)] == [50, 100, 150]
