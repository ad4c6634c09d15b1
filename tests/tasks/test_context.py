"""Rows of frames on their way from and to the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from portrait_core.errors import MissingChunk
from portrait_core.pipeline import FrameRange, Job
from portrait_core.pipeline.ledger import done_frames
from portrait_core.settings import Settings
from tasks.context import READ_TOGETHER, FrameArrays, FrameRows
from tasks.stages.inversion import FIRST
from tests.simulation.stub import stub_job

FRAMES = 20


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return stub_job(str(tmp_path), "clip", FRAMES, Settings())


def _rows(start: int, stop: int) -> dict[str, np.ndarray]:
    frames = np.arange(start, stop)
    names = {"latents": (2, 3), "inversion": (4, 4, 3), "inversion_loss": (1,)}
    types = {"latents": np.float32, "inversion": np.uint8, "inversion_loss": np.float32}
    return {
        name: np.broadcast_to(frames.reshape(-1, *(1 for _ in shape)), (len(frames), *shape)).astype(
            types[name]
        )
        for name, shape in names.items()
    }


def test_rows_that_wait_are_written_together_and_all_are_committed(job: Job) -> None:
    arrays = FrameArrays(job, "inversion")
    saves = [arrays.defer_write(i, _rows(i, i + 1)) for i in (0, 1, 2, 5, 6)] + [
        arrays.defer_write(9, _rows(9, 12))
    ]
    for save in saves:
        save()
    made = [0, 1, 2, 5, 6, 9, 10, 11]
    stored = job.output("inversion")
    assert not done_frames(job, "inversion").any()  # one of its files is not there
    stored.put_bytes(FIRST, b"x")
    assert np.flatnonzero(done_frames(job, "inversion")).tolist() == made
    for i in made:
        for name, values in _rows(i, i + 1).items():
            np.testing.assert_array_equal(stored.read(name, i, i + 1), values)


def test_rows_are_read_ahead_within_their_runs(job: Job) -> None:
    FrameArrays(job, "inversion").keep(0, _rows(0, 12))
    runs = [FrameRange(1, READ_TOGETHER + 2), FrameRange(READ_TOGETHER + 3, 12)]
    rows = FrameRows([(job.output("inversion"), name) for name in ("latents", "inversion_loss")], runs)
    for run in runs:
        for i in range(*run):
            found = rows.at(i)
            assert found.keys() == {"latents", "inversion_loss"}
            np.testing.assert_array_equal(found["latents"], _rows(i, i + 1)["latents"])


def test_a_row_that_is_gone_is_named(job: Job) -> None:
    FrameArrays(job, "inversion").keep(0, _rows(0, 6))
    next(Path(job.store).rglob("latents/c.4.*")).unlink()
    arrays = ("inversion", "latents")
    with pytest.raises(MissingChunk) as caught:
        FrameRows([(job.output("inversion"), name) for name in arrays], [FrameRange(0, 6)]).at(0)
    assert caught.value.array.endswith("/latents")
    assert caught.value.frames == (4,)


def test_rows_that_come_while_others_are_written_wait_for_their_own_call(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays, right = FrameArrays(job, "inversion"), FrameArrays.keep
    written: list[tuple[int, int]] = []
    saves = [arrays.defer_write(i, _rows(i, i + 1)) for i in range(3)]

    def keep(self: FrameArrays, start: int, rows: dict[str, np.ndarray]) -> None:
        written.append((start, len(rows["latents"])))
        right(self, start, rows)
        if len(saves) < 12:  # three more are computed meanwhile
            saves.extend(arrays.defer_write(i, _rows(i, i + 1)) for i in range(len(saves), len(saves) + 3))

    monkeypatch.setattr(FrameArrays, "keep", keep)
    for save in saves:
        save()
    assert written == [(0, 3), (3, 3), (6, 3), (9, 3)]


def test_what_a_rival_finished_and_packed_meanwhile_stays_packed(job: Job) -> None:
    FrameArrays(job, "inversion").keep(0, _rows(0, FRAMES))
    output = job.output("inversion")
    output.put_bytes(FIRST, b"x")
    output.pack(job.declared("inversion"))
    FrameArrays(job, "inversion").keep(3, _rows(3, 5))  # the late writer
    info = job.output("inversion").array_info("latents")
    assert info is not None
    assert info.packed
    output.uncommit([4])
    FrameArrays(job, "inversion").keep(4, _rows(4, 5))  # and one that has something to add
    assert job.output("inversion").marked() == list(range(FRAMES))


def test_what_was_lost_of_a_packed_output_is_written_though_its_markers_are_there(job: Job) -> None:
    FrameArrays(job, "inversion").keep(0, _rows(0, FRAMES))
    output = job.output("inversion")
    output.put_bytes(FIRST, b"x")
    output.pack(job.declared("inversion"))
    output.drop_array("inversion_loss")
    FrameArrays(job, "inversion").keep(0, _rows(0, FRAMES))
    assert done_frames(job, "inversion").all()
    assert job.output("inversion").read("inversion_loss").shape == (FRAMES, 1)
