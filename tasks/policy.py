"""What kind of failure an error is, and what is done about it: the same with and without Prefect."""

from __future__ import annotations

import errno
import gc
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from inspect import signature
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from portrait_core.errors import MissingChunk
from portrait_core.stopping import StopRequested, check
from portrait_core.store import Failure, FailureClass
from tasks.context import record_failures
from tasks.job import Stage

_TRANSIENT_NAMES = {"MissingChunk", "StopRequested", "ClientError", "HTTPClientError"}
_TRANSIENT_NAMES |= {"CommClosedError", "CancelledError"}  # a scheduler that went away
_TRANSIENT_TEXTS = ("cuda error", "cudnn error", "cublas error")
"""A GPU's context that broke: the frame is not to blame, and another process may do it."""
_RESOURCE_NAMES = {"OutOfMemoryError", "WorkerMemoryError"}
_RESOURCE_TEXTS = ("out of memory", "can't allocate memory")
_DEATH_NAMES = {"KilledWorker"}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageResult:
    """What a task hands back: a reference to what it did, never the data."""

    stage: str
    start: int
    stop: int
    frames_done: int
    """Frames computed by this call; frames that were done before are not counted."""
    seconds: float
    cpu_seconds: float
    """Processor seconds of its process meanwhile, other tasks' in the same process included."""
    peak_memory_bytes: int
    """Largest resident memory of the process that ran the task."""
    process: str
    """``host:pid``."""


def classify(error: BaseException) -> FailureClass:
    """Class of a failure: ``input`` for what a user must change, ``transient`` for what another try may
    mend, ``resource`` for too little memory, ``poison`` for everything that would only fail again."""
    if out_of_memory(error) or disk_full(error):
        return "resource"
    if worker_died(error):
        return "poison"
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    if _names(error) & _TRANSIENT_NAMES or any(text in said for text in _TRANSIENT_TEXTS):
        return "transient"
    if isinstance(error, ValueError | FileNotFoundError | IsADirectoryError | PermissionError):
        return "input"
    if isinstance(error, OSError | TimeoutError | EOFError):
        return "transient"
    return "poison"


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may do."""
    if _names(error) & _RESOURCE_NAMES or isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _RESOURCE_TEXTS)


def disk_full(error: BaseException) -> bool:
    """Whether a person has to make room first."""
    return isinstance(error, OSError) and error.errno in _FULL


def worker_died(error: BaseException) -> bool:
    """Whether the process that ran the task ended under it."""
    return bool(_names(error) & _DEATH_NAMES)


def worth_retrying(error: BaseException) -> bool:
    """Whether the very same call may do better in a moment. Damaged data has to be made again first."""
    return classify(error) == "transient" and not isinstance(error, MissingChunk | StopRequested)


def failure(
    stage: Stage, frame: int | None, error: BaseException, key: str, attempt: int = 1, note: str = ""
) -> Failure:
    """The row of an error."""
    message = f"{type(error).__name__}: {error}{note}"[:500]
    return Failure(stage, frame, classify(error), message, attempt, key=key)


def retry_delay(attempt: int, first_s: float) -> float:
    """Wait before retry ``attempt`` (1 is the first): doubled each time."""
    return first_s * 2.0 ** (attempt - 1)


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def process_name() -> str:
    """``host:pid`` of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Stopwatch:
    """Times one task and makes its result."""

    def __init__(self, stage: str, start: int, stop: int) -> None:
        self._place = (stage, start, stop)
        self._begin = time.perf_counter(), time.process_time()

    def result(self, frames_done: int) -> StageResult:
        """The task's result, now that it is finished."""
        wall, cpu = time.perf_counter() - self._begin[0], time.process_time() - self._begin[1]
        return StageResult(*self._place, frames_done, wall, cpu, peak_memory_bytes(), process_name())


def _prefect_retries(task_: Any, run: Any, state: Any) -> bool:
    """Prefect's retry condition."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and worth_retrying(error)


def _with_less_memory(function: Callable[..., StageResult], stage: Stage) -> Callable[..., StageResult]:
    """The function, called again with smaller batches for as long as memory does not suffice."""

    @wraps(function)
    def run(**parameters: Any) -> StageResult:
        while True:
            try:
                return function(**parameters)
            except Exception as error:
                job = parameters["job"]
                less = job.smaller() if out_of_memory(error) else None
                if less is None:
                    raise
                note = f"; tried again with {less[1]}"
                start = parameters.get("start")
                record_failures(job, stage, [failure(stage, start, error, job.stage_keys[stage], note=note)])
                _log.warning("%s: out of memory%s", stage, note)
                parameters["job"] = less[0]
            _free_memory()

    return run


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def stage_task(stage: Stage) -> Callable[[Callable[..., StageResult]], Task[..., StageResult]]:
    """Make a Prefect task of a stage's function, which takes ``job`` and perhaps ``start`` and ``stop``.

    Prefect keeps neither results nor a cache of them: the store's commit markers say what is done, and each
    function asks them first. How often it is retried comes from the run's settings.
    """

    def decorated(function: Callable[..., StageResult]) -> Task[..., StageResult]:
        name = function.__name__.replace("_", "-")
        ranged = "start" in signature(function).parameters
        decorate: Callable[..., Task[..., StageResult]] = task(
            name=name,
            task_run_name=f"{name} {{start}}-{{stop}}" if ranged else name,
            cache_policy=NO_CACHE,
            persist_result=False,
            retry_condition_fn=_prefect_retries,
        )
        return decorate(_with_less_memory(function, stage))

    return decorated


def with_retries(stage: Task[..., StageResult], retries: int, first_s: float) -> Task[..., StageResult]:
    """The same Prefect task with so many retries, the wait doubled each time."""
    delays = [retry_delay(i + 1, first_s) for i in range(retries)]
    return stage.with_options(retries=retries, retry_delay_seconds=delays or 0)


def run_by_name(
    module: str, name: str, parameters: Mapping[str, Any], retries: int, first_s: float
) -> StageResult:
    """Run a stage without Prefect, with the same policy of retries.

    The stage is given by name, so that a Dask worker imports it rather than unpickling a copy.
    """
    function = getattr(import_module(module), name).fn
    for attempt in range(1, retries + 1):
        try:
            return function(**parameters)
        except Exception as error:
            if not worth_retrying(error):
                raise
            _wait(retry_delay(attempt, first_s))
    return function(**parameters)


def _wait(seconds: float) -> None:
    """Sleep, unless the process is asked to stop."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check()
        time.sleep(min(left, 0.2))
