"""Which failures are retried, with Prefect and without."""

from __future__ import annotations

import pytest
from distributed.scheduler import KilledWorker

from portrait_core.errors import InputError, MissingChunk
from tasks.policy import RETRIED, classify, retry_delay, run_by_name, stage_task

calls: list[str] = []


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


def _fails(times: int, error: Exception) -> str:
    calls.append("called")
    if len(calls) <= times:
        raise error
    return "finished"


sometimes_fails = stage_task(_fails)  # type: ignore[arg-type]


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
        (MemoryError(), "resource"),
        (OutOfMemoryError("CUDA out of memory"), "resource"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "resource"),
        (KilledWorker("task", None, 3), "poison"),  # type: ignore[arg-type]
        (RuntimeError("shapes differ"), "poison"),
        (AssertionError(), "poison"),
    ],
)
def test_classes_of_failures(error: BaseException, kind: str) -> None:
    assert classify(error) == kind


def test_only_transient_and_resource_failures_are_retried() -> None:
    assert {"transient", "resource"} == RETRIED


@pytest.mark.parametrize(
    ("error", "tries"), [(OSError("disk"), 3), (InputError("no face"), 1), (RuntimeError("bug"), 1)]
)
def test_tries_without_prefect(error: Exception, tries: int) -> None:
    calls.clear()
    with pytest.raises(type(error)):
        run_by_name(__name__, "sometimes_fails", {"times": 9, "error": error}, 2, 0.0)
    assert len(calls) == tries


def test_a_transient_failure_is_mended_by_another_try() -> None:
    calls.clear()
    assert run_by_name(__name__, "sometimes_fails", {"times": 2, "error": OSError()}, 2, 0.0) == "finished"


def test_waits_double() -> None:
    assert [retry_delay(i, 2.0) for i in (1, 2, 3)] == [2.0, 4.0, 8.0]
