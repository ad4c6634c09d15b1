"""Frames are done one by one, written behind, and fail alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from portrait_core.errors import DecodeError, MissingChunk
from portrait_core.pipeline import FrameRange, Job
from portrait_core.runtime import cancellation
from portrait_core.settings import Settings
from tasks.frames import Save, process_frames
from tests.simulation.stub import stub_job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return stub_job(str(tmp_path), "clip", 10, Settings())


def _work(
    saved: list[FrameRange], fails: Callable[[FrameRange], Exception | None]
) -> Callable[[FrameRange], Save]:
    def work(batch: FrameRange) -> Save:
        if error := fails(batch):
            raise error
        return lambda: saved.append(batch)

    return work


def test_frames_are_saved_in_their_order(job: Job) -> None:
    saved: list[FrameRange] = []
    runs = [FrameRange(0, 5), FrameRange(7, 9)]
    assert process_frames(job, "render", runs, _work(saved, lambda batch: None), size=2) == 7
    assert [tuple(batch) for batch in saved] == [(0, 2), (2, 4), (4, 5), (7, 9)]


def test_a_frame_that_fails_is_found_in_its_batch_and_recorded(job: Job) -> None:
    saved: list[FrameRange] = []

    def fails(batch: FrameRange) -> Exception | None:
        return FloatingPointError("nan") if 5 in range(*batch) else None

    assert process_frames(job, "render", [FrameRange(0, 10)], _work(saved, fails), size=4) == 9
    assert [i for batch in saved for i in range(*batch)] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    rows = job.unit("render").failures()
    assert rows[["stage", "frame", "cls", "key"]].values.tolist() == [
        ["render", 5, "poison", job.stage_keys["render"]]
    ]


@pytest.mark.parametrize("error", [OSError("lost"), MemoryError()])
def test_what_belongs_to_the_machine_ends_the_task_and_keeps_what_was_made(
    job: Job, error: Exception
) -> None:
    saved: list[FrameRange] = []
    with pytest.raises(type(error)):
        process_frames(
            job, "render", [FrameRange(0, 10)], _work(saved, lambda b: error if b.start == 6 else None)
        )
    assert [batch.start for batch in saved] == list(range(6))
    assert not job.unit("render").failure_tables()


def test_a_save_that_fails_ends_the_task(job: Job) -> None:
    saved: list[int] = []

    def work(batch: FrameRange) -> Save:
        def save() -> None:
            if batch.start == 3:
                raise OSError("the store is gone")
            saved.append(batch.start)

        return save

    with pytest.raises(OSError, match="store is gone"):
        process_frames(job, "render", [FrameRange(0, 10)], work)
    assert saved[:3] == [0, 1, 2]


def test_a_slow_store_holds_the_computing_back(job: Job) -> None:
    computed: list[int] = []
    go_on = threading.Event()

    def work(batch: FrameRange) -> Save:
        computed.append(batch.start)
        if len(computed) == 18:  # seventeen are made and none is written: it must not get this far by itself
            assert go_on.is_set()
        if len(computed) == 17:
            threading.Timer(0.2, go_on.set).start()

        def save() -> None:
            go_on.wait(10)

        return save

    assert process_frames(job, "render", [FrameRange(0, 22)], work) == 22


def test_a_stop_keeps_what_was_made(job: Job) -> None:
    saved: list[FrameRange] = []

    def fails(batch: FrameRange) -> Exception | None:
        if batch.start == 4:
            cancellation.request()
        return None

    try:
        with pytest.raises(cancellation.StopRequested):
            process_frames(job, "render", [FrameRange(0, 10)], _work(saved, fails))
    finally:
        cancellation.clear()
    assert [batch.start for batch in saved] == [0, 1, 2, 3, 4]


def _inputs_of(
    saved: list[tuple[FrameRange, Sequence[int]]],
) -> Callable[[FrameRange, Sequence[int]], Save]:
    def work(batch: FrameRange, inputs: Sequence[int]) -> Save:
        return lambda: saved.append((batch, inputs))

    return work


def _threads(prefix: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)]


def test_the_next_batch_is_fetched_while_the_present_one_is_at_work_and_no_further(job: Job) -> None:
    coming = [threading.Event() for _ in range(6)]
    finished: list[int] = []

    def fetch(batch: FrameRange) -> int:
        assert len(finished) >= batch.start - 1, "at most one batch waits for its turn"
        coming[batch.start].set()
        return 10 * batch.start

    def work(batch: FrameRange, tens: int) -> Save:
        assert batch.start == 5 or coming[batch.start + 1].wait(10)
        assert tens == 10 * batch.start
        finished.append(batch.start)
        return lambda: None

    assert process_frames(job, "render", [FrameRange(0, 6)], work, fetch=fetch) == 6
    assert finished == list(range(6))
    assert not _threads("read-")
    assert not job.unit("render").failure_tables()


def test_a_frame_that_cannot_be_read_is_found_in_its_batch_and_recorded(job: Job) -> None:
    saved: list[tuple[FrameRange, Sequence[int]]] = []
    fetched: list[FrameRange] = []

    def fetch(batch: FrameRange) -> Sequence[int]:
        fetched.append(batch)
        if 5 in range(*batch):
            raise DecodeError("film.mp4", [5])
        return list(range(*batch))

    assert process_frames(job, "render", [FrameRange(0, 10)], _inputs_of(saved), 4, fetch=fetch) == 9
    assert [i for _, inputs in saved for i in inputs] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert all(list(range(*batch)) == inputs for batch, inputs in saved)
    assert [len(batch) for batch in fetched] == [4, 4, 2, 1, 1, 1, 1]  # the frames of the second anew
    rows = job.unit("render").failures()
    assert rows[["stage", "frame", "cls", "key"]].values.tolist() == [
        ["render", 5, "input", job.stage_keys["render"]]
    ]


@pytest.mark.parametrize(
    "error", [MissingChunk("reenactment/r/inversion.00aa/latents", [6]), OSError("lost"), MemoryError()]
)
def test_reading_that_fails_for_the_machine_ends_the_task_and_keeps_what_was_made(
    job: Job, error: Exception
) -> None:
    saved: list[tuple[FrameRange, Sequence[int]]] = []

    def fetch(batch: FrameRange) -> Sequence[int]:
        if 6 in range(*batch):
            raise error
        return list(range(*batch))

    with pytest.raises(type(error)) as raised:
        process_frames(job, "render", [FrameRange(0, 10)], _inputs_of(saved), 2, fetch=fetch)
    assert raised.value is error
    assert [batch.start for batch, _ in saved] == [0, 2, 4]
    assert not job.unit("render").failure_tables()
    assert not _threads("read-")


def test_where_frames_are_not_isolated_every_failure_ends_the_task(job: Job) -> None:
    def fetch(batch: FrameRange) -> int:
        raise ValueError("no video")

    with pytest.raises(ValueError, match="no video"):
        process_frames(
            job, "render", [FrameRange(0, 4)], lambda *_: lambda: None, 2, fetch=fetch, isolate=False
        )
    assert not job.unit("render").failure_tables()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, cancellation.StopRequested])
def test_the_threads_end_with_the_task(job: Job, stop: type[BaseException]) -> None:
    saved: list[tuple[FrameRange, Sequence[int]]] = []
    keep = _inputs_of(saved)

    def work(batch: FrameRange, inputs: Sequence[int]) -> Save:
        if batch.start == 2:
            raise stop
        return keep(batch, inputs)

    with pytest.raises(stop):
        process_frames(job, "render", [FrameRange(0, 9)], work, fetch=lambda batch: list(range(*batch)))
    assert [batch.start for batch, _ in saved] == [0, 1]
    assert not _threads("read-")
    assert not _threads("write-")


def test_what_is_fetched_computes_with_the_tasks_threads(job: Job) -> None:
    import torch

    before, seen = torch.get_num_threads(), []

    def work(batch: FrameRange, threads: int) -> Save:
        return lambda: seen.append(threads)

    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            process_frames(job, "render", [FrameRange(0, 2)], work, fetch=lambda _: torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1, 2, 2]
