"""Curves of a training as a picture."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_drawing = threading.Lock()
"""Held while a figure is drawn: Matplotlib is not made for threads, and clips are finished in several."""


@contextmanager
def drawn(width_inches: float, height_inches: float) -> Iterator[tuple[Figure, io.BytesIO]]:
    """Return an empty figure, at 110 pixels per inch, and the holder of its PNG file's content.

    The content is there when the block has ended.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with _drawing:
        figure, buffer = Figure(figsize=(width_inches, height_inches), layout="constrained"), io.BytesIO()
        FigureCanvasAgg(figure)
        yield figure, buffer
        figure.savefig(buffer, format="png", dpi=110)


def curve_picture(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw a flow's training, pass by pass, as the content of a PNG file.

    It shows the loss and the held-out log-density, in nats.

    Args:
        rows: with ``epoch``, ``loss`` and ``held_out_log_density`` (which may be None).
    """
    titles = {"loss": "training: negative log-likelihood", "held_out_log_density": "held out: log-density"}
    with drawn(7, 3) as (figure, written):
        for axes, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
            known = [(row["epoch"], row[name]) for row in rows if row[name] is not None]
            axes.plot([x for x, _ in known], [y for _, y in known], marker=".")
            axes.set(xlabel="pass", ylabel="nats", title=title)
            axes.grid(alpha=0.3)
    return written.getvalue()
