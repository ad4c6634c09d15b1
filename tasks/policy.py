"""What kind of failure an error is, and what is done about it: the same with and without Prefect."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from portrait_core.store import FailureClass

RETRIED: frozenset[FailureClass] = frozenset({"transient", "resource"})
_TRANSIENT_NAMES = {"MissingChunk", "ClientError", "EndpointConnectionError", "CommClosedError"}
_RESOURCE_NAMES = {"OutOfMemoryError", "WorkerMemoryError"}
_RESOURCE_TEXTS = ("out of memory", "can't allocate memory")
_POISON_NAMES = {"KilledWorker"}


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
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & _RESOURCE_NAMES or isinstance(error, MemoryError):
        return "resource"
    if isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _RESOURCE_TEXTS):
        return "resource"
    if names & _POISON_NAMES:
        return "poison"
    if names & _TRANSIENT_NAMES:
        return "transient"
    if isinstance(error, ValueError | FileNotFoundError | IsADirectoryError | PermissionError):
        return "input"
    if isinstance(error, OSError | TimeoutError | EOFError):
        return "transient"
    return "poison"


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


def _worth_retrying(task_: Any, run: Any, state: Any) -> bool:
    """Prefect's retry condition: only failures of the classes in ``RETRIED``."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and classify(error) in RETRIED


def stage_task(function: Callable[..., StageResult]) -> Task[..., StageResult]:
    """Make a Prefect task of a stage's function.

    Prefect keeps neither results nor a cache of them: the store's commit markers say what is done, and each
    function asks them first. How often it is retried comes from the run's settings.
    """
    name = function.__name__.replace("_", "-")
    ranged = "start" in signature(function).parameters
    decorate: Callable[..., Task[..., StageResult]] = task(
        name=name,
        task_run_name=f"{name} {{start}}-{{stop}}" if ranged else name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retry_condition_fn=_worth_retrying,
    )
    return decorate(function)


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
            if classify(error) not in RETRIED:
                raise
            time.sleep(retry_delay(attempt, first_s))
    return function(**parameters)
