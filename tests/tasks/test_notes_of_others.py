"""Notes of a store that may be a stranger's, where stages read them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from portrait_core.store import Store
from tasks.stages.flow import CURVE, read_curve
from tasks.stages.pose import AIM, match_of

ROW = {"epoch": 1, "loss": 0.5, "held_out_log_density": None}


@pytest.mark.parametrize(
    "note", [5, "x", [], {"rows": 5}, {"rows": [5, {}, {**ROW, "epoch": "1"}, {**ROW, "loss": [1]}]}]
)
def test_rows_of_a_curve_that_no_training_writes_are_left_out(note: Any, tmp_path: Path) -> None:
    output = Store(tmp_path).unit("reenactment", "a").output("flow", "00aa")
    output.write_note(CURVE, note)
    assert read_curve(output) == []
    output.write_note(CURVE, {"rows": [ROW, 5]})
    assert read_curve(output) == [ROW]


def test_a_match_is_a_frame_of_the_clip(tmp_path: Path) -> None:
    output = Store(tmp_path).unit("reenactment", "a").output("pose", "00aa")
    job = cast(Any, SimpleNamespace(output=lambda stage: output, frames=8))
    for note in (5, [1], {}, {"frame": "1"}, {"frame": 1, "roll_rad": []}, {"frame": 8, "roll_rad": 0.1}):
        output.write_note(AIM, note)
        assert match_of(job) is None
    output.write_note(AIM, {"frame": 7, "roll_rad": 0.25})
    found = match_of(job)
    assert found is not None
    assert (found.frame, found.roll_rad) == (7, 0.25)
