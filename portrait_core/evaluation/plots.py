"""Plots of an evaluation's tables."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from portrait_core.evaluation.markdown import Column, headline

_BAR_IN, _HEAD_IN, _LEFT_IN, _PANEL_IN = 0.28, 0.7, 2.2, 2.4
"""Height of a method's bar and of a heading, width of the methods' names and of a panel, in inches."""
_ACROSS = 4
"""Panels beside each other."""


def bars(summary: pd.DataFrame, methods: Sequence[str], columns: Sequence[Column]) -> bytes:
    """Draw a panel per column with a bar per method and its interval; return a PNG.

    Columns without any number are left out. The paper's numbers are not drawn: they are of other data.
    """
    found = [
        (column, {method: headline(summary, method, column.name) for method in methods}) for column in columns
    ]
    shown = [(column, rows) for column, rows in found if any(row is not None for row in rows.values())]
    across = max(1, min(_ACROSS, len(shown)))
    down = max(1, -(-len(shown) // across))
    height = down * (_HEAD_IN + _BAR_IN * len(methods))
    figure = Figure(figsize=(_LEFT_IN + _PANEL_IN * across, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    for panel in panels.flat[len(shown) :]:
        panel.set_axis_off()
    for panel, (column, rows) in zip(panels.flat, shown, strict=False):
        _draw(panel, column, [rows[method] for method in methods])
    for panel in panels[:, 0]:
        panel.set_yticks(range(len(methods)), methods, fontsize=9)
    panels[0, 0].invert_yaxis()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()


def _draw(panel: Axes, column: Column, rows: Sequence[Any]) -> None:
    """Draw a panel; a method without a number gets a dash."""
    for place, row in enumerate(rows):
        if row is None or math.isnan(row["value"]):
            panel.text(0, place, " –", va="center", color="0.5")
            continue
        panel.barh(place, row["value"], color="#3b6ea5", height=0.65)
        if not math.isnan(row["low"]):
            panel.plot([row["low"], row["high"]], [place, place], color="black", linewidth=1.2)
    panel.set_title(column.heading, fontsize=10)
    panel.grid(axis="x", color="0.9")
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
