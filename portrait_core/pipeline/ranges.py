"""Arithmetic of frame ranges: how a clip is cut into tasks, what is still missing, who stands in for whom."""

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
    """Cut ``total`` frames into consecutive ranges of ``per_task`` (the last may be shorter).

    Raises:
        ValueError: if ``per_task`` is less than 1 or ``total`` is negative.
    """
    if per_task < 1 or total < 0:
        raise ValueError(f"cannot cut {total} frames into ranges of {per_task}; set runner.frames_per_task")
    return [FrameRange(a, min(a + per_task, total)) for a in range(0, total, per_task)]


def missing_runs(done: NDArray[np.bool_], within: FrameRange) -> list[FrameRange]:
    """Runs of consecutive frames of ``within`` that are False in ``done [T]``."""
    todo = ~np.asarray(done[within.start : within.stop], dtype=bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], todo.astype(np.int8), [0]])))
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [FrameRange(within.start + int(a), within.start + int(b)) for a, b in pairs]


def held_frames(ok: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The frame that each frame shows ``[T]``: itself where ``ok``, else the last good frame before it, and
    before the first good frame that one. Frame count, rate and audio stay as they were.

    Raises:
        ValueError: if no frame is good.
    """
    good = np.flatnonzero(ok)
    if len(good) == 0:
        raise ValueError(f"none of {len(ok)} frames is usable, so there is no neighbour to hold")
    position = np.searchsorted(good, np.arange(len(ok)), side="right") - 1
    return good[np.maximum(position, 0)]
