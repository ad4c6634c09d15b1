"""Plots of an evaluation's tables."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from portrait_core.evaluation.markdown import Column, headline

_BAR_IN, _LEFT_IN, _PANEL_IN = 0.3, 2.6, 2.6
"""Height of a method's bar, width of their names and width of a panel, in inches."""


def bars(summary: pd.DataFrame, methods: Sequence[str], columns: Sequence[Column]) -> bytes:
    """Draw a panel per column with a bar per method and its interval; return a PNG.

    Columns without any number are left out. The paper's numbers are not drawn: they are of other data.
    """
    shown = [
        (column, rows)
        for column in columns
        if (rows := {m: row for m in methods if (row := headline(summary, m, column.name)) is not None})
    ]
    width = _LEFT_IN + _PANEL_IN * max(1, len(shown))
    figure = Figure(figsize=(width, 1.0 + _BAR_IN * len(methods)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, max(1, len(shown)), sharey=True, squeeze=False)[0]
    for panel, (column, rows) in zip(panels, shown, strict=False):
        for place, method in enumerate(methods):
            row = rows.get(method)
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
    panels[0].set_yticks(range(len(methods)), methods, fontsize=9)
    panels[0].invert_yaxis()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()
