"""What is done about a failure, with Prefect and without."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from distributed.scheduler import KilledWorker

from portrait_core import stopping
from portrait_core.config import Settings
from portrait_core.errors import InputError, MissingChunk
from portrait_core.shrinking import LEAST_RAYS, smaller
from portrait_core.store import Store
from tasks.job import Job
from tasks.policy import classify, retry_delay, run_by_name, stage_task, worth_retrying

calls: list[str] = []
seen_settings: list[Settings] = []


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


@stage_task("portrait")
def fails(job: Job, times: int, error: Exception) -> Any:
    """Fails so many times."""
    calls.append("called")
    seen_settings.append(job.settings)
    if len(calls) <= times:
        raise error
    return "finished"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    calls.clear()
    seen_settings.clear()
    keys = {"portrait": "00aa"}
    return Job.model_construct(
        store=str(tmp_path),
        portrait_unit="p",
        video_unit="v",
        stage_keys=keys,
        settings=Settings(),
        reenactment_unit="r",
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InputError("no face"), "input"),
        (ValueError("bad"), "input"),
        (FileNotFoundError("gone"), "input"),
        (MissingChunk("video/x/landmarks", [3]), "transient"),
        (ConnectionResetError("reset"), "transient"),
        (TimeoutError("late"), "transient"),
        (OSError("disk"), "transient"),
        (OSError(errno.ENOSPC, "No space left on device"), "resource"),
        (MemoryError(), "resource"),
        (OutOfMemoryError("CUDA out of memory"), "resource"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "resource"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "transient"),
        (KilledWorker("task", None, 3), "poison"),  # type: ignore[arg-type]
        (FloatingPointError("the loss is nan"), "poison"),
        (RuntimeError("shapes differ"), "poison"),
        (AssertionError(), "poison"),
    ],
)
def test_classes_of_failures(error: BaseException, kind: str) -> None:
    assert classify(error) == kind


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (OSError("disk"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),  # a person has to make room
        (MissingChunk("video/x/landmarks", [3]), False),  # has to be made again first
        (stopping.StopRequested(), False),
        (MemoryError(), False),  # not the same call: a smaller one
        (InputError("no face"), False),
    ],
)
def test_which_calls_are_repeated(error: BaseException, worth: bool) -> None:
    assert worth_retrying(error) is worth


@pytest.mark.parametrize(
    ("error", "tries"), [(OSError("disk"), 3), (InputError("no face"), 1), (RuntimeError("bug"), 1)]
)
def test_tries_without_prefect(job: Job, error: Exception, tries: int) -> None:
    with pytest.raises(type(error)):
        run_by_name(__name__, "fails", {"job": job, "times": 9, "error": error}, 2, 0.0)
    assert len(calls) == tries


def test_a_transient_failure_is_mended_by_another_try(job: Job) -> None:
    parameters = {"job": job, "times": 2, "error": OSError()}
    assert run_by_name(__name__, "fails", parameters, 2, 0.0) == "finished"


def test_out_of_memory_is_tried_again_smaller_and_says_so(job: Job) -> None:
    parameters = {"job": job, "times": 2, "error": MemoryError("no more")}
    assert run_by_name(__name__, "fails", parameters, 0, 0.0) == "finished"
    assert [s.tracking.batch for s in seen_settings] == [16, 8, 4]
    assert [s.template.batch for s in seen_settings] == [8, 4, 2]
    assert [s.generator.ray_chunk for s in seen_settings] == [None, 8192, 4096]
    rows = Store(job.store).unit("portrait", "p").failures()
    assert rows["cls"].tolist() == ["resource", "resource"]
    assert (
        "tracking.batch 16 -> 8, template.batch 8 -> 4, generator.ray_chunk all -> 8192" in rows["message"][0]
    )
    assert rows["key"].tolist() == ["00aa"] * 2


def test_out_of_memory_ends_when_nothing_is_left_to_halve(job: Job) -> None:
    with pytest.raises(MemoryError):
        run_by_name(__name__, "fails", {"job": job, "times": 99, "error": MemoryError()}, 5, 0.0)
    least = seen_settings[-1]
    assert (least.tracking.batch, least.template.batch, least.generator.ray_chunk) == (1, 1, LEAST_RAYS)
    assert smaller(least) is None


def test_a_wait_before_a_retry_ends_when_the_process_is_asked_to_stop(job: Job) -> None:
    stopping.request()
    try:
        with pytest.raises(stopping.StopRequested):
            run_by_name(__name__, "fails", {"job": job, "times": 9, "error": OSError()}, 3, 3600.0)
    finally:
        stopping.clear()


def test_waits_double() -> None:
    assert [retry_delay(i, 2.0) for i in (1, 2, 3)] == [2.0, 4.0, 8.0]
