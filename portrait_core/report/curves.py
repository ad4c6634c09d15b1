"""Curves of a training as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any


def curve_picture(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A flow's training, pass by pass, as the content of a PNG file: the loss and the held-out log-density,
    in nats.

    Args:
        rows: with ``epoch``, ``loss`` and ``held_out_log_density`` (which may be None).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    titles = {"loss": "training: negative log-likelihood", "held_out_log_density": "held out: log-density"}
    for axes, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        known = [(row["epoch"], row[name]) for row in rows if row[name] is not None]
        axes.plot([x for x, _ in known], [y for _, y in known], marker=".")
        axes.set(xlabel="pass", ylabel="nats", title=title)
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
