"""Cutting a clip into ranges and finding what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from portrait_core.pipeline.ranges import FrameRange, frame_ranges, frames_shown, missing_runs


@pytest.mark.parametrize(("total", "per_task"), [(0, 5), (1, 5), (5, 5), (6, 5), (120, 24), (7, 1)])
def test_ranges_cover_every_frame_once_in_order(total: int, per_task: int) -> None:
    ranges = frame_ranges(total, per_task)
    assert [i for a, b in ranges for i in range(a, b)] == list(range(total))
    assert all(0 < len(r) <= per_task for r in ranges)


def test_ranges_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="frames_per_task"):
        frame_ranges(10, 0)


def test_missing_runs_are_the_frames_not_done_within_the_range() -> None:
    done = np.array([1, 0, 0, 1, 0, 1, 1, 0, 0, 0], dtype=bool)
    assert missing_runs(done, FrameRange(0, 10)) == [(1, 3), (4, 5), (7, 10)]
    assert missing_runs(done, FrameRange(2, 8)) == [(2, 3), (4, 5), (7, 8)]
    assert missing_runs(done, FrameRange(5, 7)) == []
    assert missing_runs(~done & done, FrameRange(3, 6)) == [(3, 6)]


def test_bad_frames_hold_the_frame_before_and_the_first_good_one_at_the_start() -> None:
    ok = np.array([0, 0, 1, 1, 0, 0, 1, 0], dtype=bool)
    assert frames_shown(ok).tolist() == [2, 2, 2, 3, 3, 3, 6, 6]


def test_holding_needs_one_good_frame() -> None:
    with pytest.raises(ValueError, match="none of 3 frames"):
        frames_shown(np.zeros(3, dtype=bool))
