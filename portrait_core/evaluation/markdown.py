"""Tables of an evaluation as Markdown, with the paper's printed numbers beside one's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from portrait_core.evaluation import paper
from portrait_core.evaluation.methods import OURS
from portrait_core.evaluation.plan import Plan
from portrait_core.evaluation.tables import (
    CSIM,
    FACES,
    FOLLOW_CORRELATION,
    FOLLOW_SLOPE,
    FRECHET,
    ID,
    ID_SOURCE,
    aed,
    apd,
)
from portrait_core.metrics.coefficient_distances import Measure
from portrait_core.text.markdown import escape_markdown

_BETTER = {FRECHET: "↓", ID: "↑", ID_SOURCE: "↑", CSIM: "↑"}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: name of the numbers in the summary.
        heading: heading in the table.
        digits: decimals.
        printed: the paper's numbers by method; None where it prints none.
    """

    name: str
    heading: str
    digits: int = 3
    printed: Mapping[str, float | None] | None = None


def _printed(table: Mapping[str, Sequence[float | None]], place: int) -> dict[str, float | None]:
    return {method: row[place] for method, row in table.items()}


def table_1(estimator: str) -> list[Column]:
    """Return the columns of the paper's table 1, poses and expressions read by an estimator."""
    return [
        Column(FRECHET, "Fréchet ↓", 2, _printed(paper.TABLE_1, 0)),
        Column(ID, "ID ↑", 3, _printed(paper.TABLE_1, 1)),
        Column(apd(estimator), f"APD ({estimator}) ↓", 3, _printed(paper.TABLE_1, 2)),
        Column(aed(estimator), f"AED ({estimator}) ↓", 3, _printed(paper.TABLE_1, 3)),
    ]


def table_2() -> list[Column]:
    """Return the column of the paper's table 2."""
    return [Column(ID_SOURCE, "identity of the source ↑", 3, paper.TABLE_2)]


def supplement_1(estimators: Sequence[str]) -> list[Column]:
    """Return the columns of the supplement's table 1 for the estimators that were asked."""
    places = {("APD", "deca"): 0, ("APD", "deep3d"): 1, ("AED", "deca"): 2, ("AED", "deep3d"): 3}
    found = []
    for kind, name in (("APD", apd), ("AED", aed)):
        for estimator in estimators:
            place = places.get((kind, estimator))
            printed = None if place is None else _printed(paper.SUPPLEMENT_1, place)
            found.append(Column(name(estimator), f"{kind} ({estimator}) ↓", 3, printed))
    return found


def follow_table() -> list[Column]:
    """Return the columns of how the face follows the driver's, which the paper does not have."""
    return [
        Column(FOLLOW_CORRELATION, "regions, r ↑"),
        Column(FOLLOW_SLOPE, "regions, slope → 1"),
        Column(FACES, "faces found"),
    ]


def truth_table(summary: pd.DataFrame) -> list[Column]:
    """Return the columns of distances from true frames that the summary has."""
    known = list(summary["column"].unique())
    names = [name for name in known if name in ("L1", "PSNR", "SSIM", "LPIPS", "AKD", "flicker")]
    names += [name for name in known if name.startswith("distance")]
    found = [Column(name, f"{name} {'↑' if name in ('PSNR', 'SSIM') else '↓'}") for name in names]
    return [*found, Column(CSIM, "CSIM ↑")] if found else []


def headline(summary: pd.DataFrame, method: str, name: str) -> Any:
    """Return the row of a method's number that stands in tables; None where there is none.

    Of poses and expressions it is the paper's root mean square; of what is given per region, the mean.
    """
    rows = summary[(summary["method"] == method) & (summary["column"] == name)]
    if name.startswith(("APD", "AED")):
        rows = rows[rows["variant"].str.endswith(Measure.ROOT_MEAN_SQUARE.value)]
    return None if rows.empty else rows.iloc[0]


def markdown_table(summary: pd.DataFrame, methods: Sequence[str], columns: Sequence[Column]) -> str:
    """Return one table: a row per method, the paper's number in parentheses behind one's own."""
    lines = ["| method | " + " | ".join(escape_markdown(column.heading) for column in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for method in methods:
        cells = [_cell(headline(summary, method, column.name), method, column) for column in columns]
        lines.append(f"| {escape_markdown(method)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: Any, method: str, column: Column) -> str:
    printed = (column.printed or {}).get(method)
    behind = "" if printed is None else f" (paper {printed:.3f})"
    if row is None or not math.isfinite(row["value"]):
        return f"–{behind}"
    value = _rounded(row["value"], column.digits)
    if math.isfinite(row["low"]):
        value += f" [{_rounded(row['low'], column.digits)}, {_rounded(row['high'], column.digits)}]"
    if row["missing"]:
        value += f" ({row['clips']} of {row['clips'] + row['missing']} clips)"
    return value + behind


def _rounded(value: float, digits: int) -> str:
    """Write a number; one that is negative by rounding alone becomes 0."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def report(summary: pd.DataFrame, plan: Plan) -> str:
    """Return the whole report: tables, the variant of every number, what is absent and why.

    Args:
        summary: of :func:`portrait_core.evaluation.tables.summarise`.
        plan: the evaluation's plan (:mod:`portrait_core.evaluation.plan`).
    """
    methods, estimators = plan.methods, plan.estimators
    first = "deep3d" if "deep3d" in estimators else estimators[0]
    sections = [
        ("Table 1: portrait image animation", table_1(first)),
        ("Table 2: identity preserved", table_2()),
        ("Supplement, table 1: poses and expressions by estimator", supplement_1(estimators)),
        ("How the face follows the driver's", follow_table()),
    ]
    if truth := truth_table(summary):
        sections.insert(0, ("Self-reenactment: distances from the true frames", truth))
    text = [f"# {escape_markdown(plan.title)}", _about(plan)]
    for heading, columns in sections:
        text += [f"## {heading}", markdown_table(summary, methods, columns)]
    text += ["## What the numbers are", _variants(summary, [c for _, columns in sections for c in columns])]
    return "\n\n".join([*text, *_without_effect(summary, methods), *_absent(plan)]) + "\n"


def _without_effect(summary: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    """Name the methods whose numbers are those of our own method to the last digit."""
    rows = {method: summary[summary["method"] == method].drop(columns="method") for method in methods}
    ours = rows.pop(OURS.name, None)
    if ours is None:
        return []
    own = ours.reset_index(drop=True)
    same = [name for name, found in rows.items() if found.reset_index(drop=True).equals(own)]
    if not same:
        return []
    names = ", ".join(map(escape_markdown, same))
    return [f"To the last digit the same as {OURS.name}, so without effect in this profile: {names}."]


def _about(plan: Plan) -> str:
    common, notes = len(plan.common_pairs()), "".join(f" {escape_markdown(note)}" for note in plan.notes)
    left = "" if common == plan.pairs else f" Numbers are of the {common} pairs that every method has."
    return (
        f"{plan.pairs} pairs of {plan.portraits} portraits and {plan.videos} videos, profile "
        f"{escape_markdown(plan.profile)}, seed {plan.seed}.{left}{notes} Brackets: bootstrap intervals of "
        "95 % over the clips; of the Fréchet distance, between which 95 % of the realisations lie. In "
        "parentheses what the paper prints, for its own data, weights and networks."
    )


def _variants(summary: pd.DataFrame, columns: Sequence[Column]) -> str:
    lines = {}
    for column in columns:
        for method in summary["method"].unique():
            row = headline(summary, method, column.name)
            if row is not None:
                lines[column.heading] = _item(f"{column.heading}: {row['variant']}")
                break
    return "\n".join(lines.values())


def _item(text: str) -> str:
    return f"- {escape_markdown(text)}"


def _absent(plan: Plan) -> list[str]:
    text = []
    if plan.unavailable:
        lines = [_item(f"{row['method']}: {row['why']}") for row in plan.unavailable]
        text += ["## Methods that were not run", "\n".join(lines)]
    if plan.absent:
        lines = [_item(f"pair {row['pair']}, {row['method']}: {row['why']}") for row in plan.absent]
        text += ["## Clips that are missing", "\n".join(lines)]
    return text
