"""The paper's table 3: cells from the views of each generator's people, its text, and a sheet of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.metrics.consistency import Consistency
from portrait_core.report.pictures import Picture, contact_sheet
from portrait_core.text.markdown import escape_markdown

if TYPE_CHECKING:
    import pandas as pd

ROWS: Mapping[str, str] = {"2d": "2D GAN", "3d": "3D GAN"}
"""Titles of the rows by ``consistency.gan``."""
COLUMNS: Mapping[str, str] = {
    "": "Pose Only",
    "age": "+ Age",
    "facial_hair": "+ Facial Hair",
    "gender": "+ Gender",
    "glasses": "+ Glasses",
    "hair": "+ Hair",
}
"""Titles of the columns by ``consistency.edit``."""
PAPER: Mapping[str, tuple[float, ...]] = {
    "2d": (0.652, 0.637, 0.638, 0.652, 0.653, 0.686),
    "3d": (0.790, 0.797, 0.790, 0.793, 0.794, 0.801),
}
"""The paper's values by row, in the order of the columns: cosines of ArcFace, which do not compare with those
of another network."""
Place = tuple[str, str]
"""Row and column."""
_TILE = 128


@dataclass(frozen=True)
class Cell:
    """A cell of the table.

    Attributes:
        row, column: titles.
        cosine, low, high: mean cosine of a person's two views, and its 95 % interval; NaN where no pair has
            two faces.
        others: mean cosine of two people.
        centred: mean cosine of a person's two views after the cell's mean vector is taken off.
        difference, visible: mean absolute difference of one view reprojected into the other by the
            generator's own depth (pictures in 0..1), and share of pixels that both see; NaN without depth.
        found: pairs with a face in both views.
        subjects: all pairs; 0 where the cell cannot be made.
        missing: why it cannot be made; empty where it was.
    """

    row: str
    column: str
    cosine: float
    low: float
    high: float
    others: float
    centred: float
    difference: float
    visible: float
    found: int
    subjects: int
    missing: str = ""

    @classmethod
    def of(cls, place: Place, result: Consistency, seed: int = 0) -> Cell:
        """Summarise a comparison; ``seed`` is that of the interval."""
        return cls(
            ROWS[place[0]],
            COLUMNS[place[1]],
            result.mean,
            *result.interval(seed),
            result.mean_of_others,
            result.mean_centred,
            *result.reprojection,
            result.found,
            len(result.cosine),
        )

    @property
    def text(self) -> str:
        """Cosine with its interval, or ``none``."""
        if self.missing:
            return "none"
        if not self.found:
            return "no face"
        lost = "" if self.found == self.subjects else f" ({self.found} of {self.subjects} pairs)"
        return f"{self.cosine:.3f} [{self.low:.3f}, {self.high:.3f}]{lost}"


def table3_rows(
    results: Mapping[Place, Consistency], missing: Mapping[Place, str] | None = None, seed: int = 0
) -> list[Cell]:
    """Return the table's cells, row by row, in the paper's order.

    Args:
        results: comparisons by row and column.
        missing: why other cells cannot be made; cells in neither are left out.
        seed: seed of the intervals.
    """
    missing, nan = missing or {}, math.nan
    cells = []
    for place in ((row, column) for row in ROWS for column in COLUMNS):
        if place in results:
            cells.append(Cell.of(place, results[place], seed))
        elif place in missing:
            titles = ROWS[place[0]], COLUMNS[place[1]]
            cells.append(Cell(*titles, nan, nan, nan, nan, nan, nan, nan, 0, 0, missing[place]))
    return cells


def table3_frame(cells: list[Cell]) -> pd.DataFrame:
    """Return the paper's table: a row per method, its columns, and mean cosines; NaN where there is none."""
    import pandas as pd  # here: slow to import

    rows, columns = _titles(cells)
    values = {(cell.row, cell.column): cell.cosine for cell in cells}
    table = [[values.get((row, column), math.nan) for column in columns] for row in rows]
    return pd.DataFrame(table, index=pd.Index(rows, name="method"), columns=list(columns))


def table3_details(cells: list[Cell]) -> pd.DataFrame:
    """Return a row per cell with everything that is known of it."""
    import pandas as pd  # here: slow to import

    return pd.DataFrame([asdict(cell) for cell in cells])


def table3_markdown(cells: list[Cell], about: str = "") -> str:
    """Return the paper's table, what is beside it, and the paper's own values.

    Args:
        cells: of :func:`table3_rows`.
        about: how it was made: people, amounts, weights; a paragraph below the table.
    """
    rows, columns = _titles(cells)
    by_place = {(cell.row, cell.column): cell for cell in cells}

    def lines(title: str, text: Mapping[tuple[str, str], str]) -> list[str]:
        head = [f"| {' | '.join((title, *columns))} |", f"|---|{'---|' * len(columns)}"]
        body = [f"| {' | '.join((row, *(text.get((row, c), '') for c in columns)))} |" for row in rows]
        return [*head, *body, ""]

    details = {
        place: f"{cell.others:.3f}, {cell.centred:.3f}" if cell.found else ""
        for place, cell in by_place.items()
    }
    depth = {
        place: f"{cell.difference:.4f}, {cell.visible:.0%}" if math.isfinite(cell.difference) else "–"
        for place, cell in by_place.items()
    }
    paper = {
        (ROWS[row], title): f"{value:.3f}"
        for row, values in PAPER.items()
        for title, value in zip(COLUMNS.values(), values, strict=True)
    }
    reasons = dict.fromkeys(
        escape_markdown(f"{cell.row}, {cell.column}: none: {cell.missing}.") for cell in cells if cell.missing
    )
    return (
        "\n".join(
            [
                "Cosine of the identity vectors of a person's two views, with its 95 % interval:",
                "",
                *lines("method", {place: cell.text for place, cell in by_place.items()}),
                *([*reasons, ""] if reasons else []),
                "Cosine of two people's views, then of one person's after the mean vector is taken off:",
                "",
                *lines("method", details),
                "Mean absolute difference (pictures in 0..1) of one view reprojected into the other by the "
                "generator's own depth, and the share of pixels that both see; a 2D GAN has no depth:",
                "",
                *lines("method", depth),
                "The paper's, by ArcFace, which do not compare with another network's:",
                "",
                *lines("method", paper),
                about,
            ]
        ).rstrip()
        + "\n"
    )


def _titles(cells: list[Cell]) -> tuple[list[str], list[str]]:
    rows = [title for title in ROWS.values() if any(cell.row == title for cell in cells)]
    return rows, [title for title in COLUMNS.values() if any(cell.column == title for cell in cells)]


def table3_sheet(views: Mapping[Place, NDArray[np.uint8]], asked: NDArray[np.floating]) -> Picture:
    """Draw some people of every cell from both sides.

    Args:
        views: views of the same number of people ``[n,2,S,S,3]`` uint8 by row and column.
        asked: yaw and pitch of the views ``[n,2,2]`` in radians.

    Returns:
        ``[H,W,3]`` uint8: a row for each cell, two pictures for each person.

    Raises:
        ValueError: there is no cell, or one has another number of people.
    """
    sides = np.degrees(np.asarray(asked, np.float64)).reshape(-1, 2)
    titles = [f"{yaw:+.0f}° {pitch:+.0f}°" for yaw, pitch in sides]
    rows = {
        f"{ROWS[row]} {COLUMNS[column].replace('+ ', '+')}": list(pictures.reshape(-1, *pictures.shape[2:]))
        for (row, column), pictures in views.items()
    }
    return contact_sheet(rows, titles, _TILE)
