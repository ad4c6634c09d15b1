"""A picture of how the result's expression follows the driver's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.metrics.follow import Follow
from portrait_core.report.curves import drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Sequence[float | None]
"""A region's measure per frame; None where no face is seen."""
_COLUMNS = 3
_PANEL_INCHES = 4.2, 2.1


def expression_picture(
    regions: Mapping[str, Mapping[str, Curve]], found: Mapping[str, Follow], frame_rate: float
) -> bytes:
    """Draw the result's regions over the driver's, a panel per region that moves in the driver.

    Args:
        regions: curves of ``driver`` and, where it shows a face, ``result``, by region.
        found: how the result follows, by region; these get a panel each. Without any there is one panel that
            says so.
        frame_rate: frames per second.

    Returns:
        The content of a PNG file. Either curve is drawn as its departure from its own mean over the frames
        in which both show a face, as faces differ at rest; both have one axis.
    """
    rows = max(1, math.ceil(len(found) / _COLUMNS))
    columns = min(_COLUMNS, max(1, len(found)))
    with drawn(columns * _PANEL_INCHES[0], rows * _PANEL_INCHES[1]) as (figure, written):
        panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
        for panel, (name, one) in zip(panels, found.items(), strict=False):
            curves = _departures(regions["driver"][name], regions["result"][name])
            for who, color, curve in zip(("driver", "result"), ("0.35", "tab:orange"), curves, strict=True):
                seconds = [frame / frame_rate for frame in range(len(curve))]
                panel.plot(seconds, curve, label=who, color=color, linewidth=1.2)
            panel.set_title(panel_title(name, one), fontsize=9)
            panel.tick_params(labelsize=7)
            panel.grid(alpha=0.3)
            panel.set_xlabel("seconds", fontsize=7)
        for panel in panels[len(found) :]:
            panel.set_axis_off()
        if found:
            panels[0].legend(fontsize=7)
        else:
            why = "no region moves in the driver" if "result" in regions else "no face is seen in the result"
            panels[0].text(0.5, 0.5, why, ha="center", va="center", transform=panels[0].transAxes)
    return written.getvalue()


def panel_title(name: str, one: Follow) -> str:
    """Return how a region follows, and what its reader reports of a known change, where that is known.

    Beside the correlation stands the highest one that the reader's noise leaves.
    """
    reader = "" if one.reader_slope is None else f"; the reader's own {one.reader_slope:.2f}"
    highest = "" if one.reader_noise is None else f" of at most {one.highest_correlation:.2f}"
    return f"{name}: slope {one.slope:.2f}{reader}\ncorrelation {one.correlation:.2f}{highest}"


def _departures(*curves: Curve) -> list[NDArray[np.float64]]:
    """Take from each curve its mean over the frames that all of them have.

    Frames without a face leave a gap (NaN).
    """
    values = np.array(curves, np.float64)
    common = np.isfinite(values).all(axis=0)
    return [one - one[common].mean() for one in values]
