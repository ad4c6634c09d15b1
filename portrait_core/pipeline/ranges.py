"""Arithmetic of frame ranges: division of a clip into tasks, missing runs, neighbours shown for gaps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class FrameRange(NamedTuple):
    """Frames ``start`` (included) to ``stop`` (excluded)."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def frame_ranges(total: int, per_task: int) -> list[FrameRange]:
    """Divide ``total`` frames into consecutive ranges of ``per_task`` (the last may be shorter).

    Raises:
        ValueError: ``per_task`` is less than 1, or ``total`` is negative.
    """
    if per_task < 1 or total < 0:
        raise ValueError(f"cannot cut {total} frames into ranges of {per_task}; set runner.frames_per_task")
    return [FrameRange(a, min(a + per_task, total)) for a in range(0, total, per_task)]


def missing_runs(done: NDArray[np.bool_], within: FrameRange) -> list[FrameRange]:
    """Return the runs of consecutive frames of ``within`` that are False in ``done`` (``[T]`` bool)."""
    todo = ~np.asarray(done[within.start : within.stop], dtype=bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], todo.astype(np.int8), [0]])))
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [FrameRange(within.start + int(a), within.start + int(b)) for a, b in pairs]


def frames_shown(ok: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the index of the frame that each frame shows.

    A usable frame shows itself, any other the last usable frame before it; frames before the first usable one
    show that one. Frame count, rate and audio stay unchanged.

    Args:
        ok: ``[T]`` bool, whether each frame is usable.

    Returns:
        ``[T]`` int64.

    Raises:
        ValueError: no frame is usable.
    """
    good = np.flatnonzero(ok)
    if len(good) == 0:
        raise ValueError(f"none of {len(ok)} frames is usable, so there is no neighbour to hold")
    position = np.searchsorted(good, np.arange(len(ok)), side="right") - 1
    return good[np.maximum(position, 0)]
