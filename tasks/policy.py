"""What is done about a failure: the same with and without Prefect (:mod:`portrait_core.classification`)."""

from __future__ import annotations

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
from typing import Any, Literal, NoReturn

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from portrait_core.classification import (
    BrokenGpuError,
    failure,
    gpu_broke,
    out_of_memory,
    retry_delay,
    worth_retrying,
)
from portrait_core.stopping import check, request
from portrait_core.store import Failure
from tasks.context import device_of, record_failures
from tasks.job import Job, Stage

_log = logging.getLogger(__name__)

WORKER_ENDED = 70
"""Exit code of a Dask worker that ended itself because it could no longer use its GPU."""


Precision = Literal["job", "fp32"]
"""Of a stage's float32 products on a GPU: the job's generator's, or exact ones."""


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


def _leaving_broken_gpus(function: Callable[..., StageResult], stage: Stage) -> Callable[..., StageResult]:
    """The function, whose process does no more work on a GPU after an error that broke the GPU's context.

    A Dask worker ends, as if it had been killed: its nanny starts another process, and the flow, which is
    told of the loss (``allowed-failures`` is 0), does the frames again. In the process of the run itself,
    every loop is asked to stop at its next frame, and the error goes to the flow, which ends.
    """

    @wraps(function)
    def run(**parameters: Any) -> StageResult:
        try:
            return function(**parameters)
        except Exception as error:
            if not gpu_broke(error):
                raise
            why = str(error).partition("\n")[0]
            if _in_worker_process():
                _end_worker(parameters["job"], stage, why)
            request()
            raise BrokenGpuError(
                f"the GPU's context broke ({why}): the process {process_name()} cannot use the GPU any more"
            ) from error

    return run


def _in_worker_process() -> bool:
    """Whether this process is a Dask worker's own, not one that is shared with the run."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        worker = distributed.get_worker()
    except ValueError:
        return False
    return not worker.address.startswith("inproc://")  # a LocalCluster with processes=False


def _end_worker(job: Job, stage: Stage, why: str) -> NoReturn:
    """Write down why, and end the process at once: on an orderly way out, what holds the GPU's memory would
    call CUDA again."""
    name = process_name()
    message = (
        f"the GPU's context broke in the worker {name}, which ended so that another process goes on: {why}"
    )
    try:
        _log.error("%s: %s", stage, message)
        record_failures(
            job, stage, [Failure(stage, None, "transient", message[:500], key=job.stage_keys[stage])]
        )
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(WORKER_ENDED)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _at_precision(function: Callable[..., StageResult], wanted: Precision) -> Callable[..., StageResult]:
    """The function, at work with a GPU's switches of float32 products set as it needs them: they belong to
    the process, which tasks of other settings may share."""

    @wraps(function)
    def run(**parameters: Any) -> StageResult:
        job = parameters["job"]
        if device_of(job) != "cuda":  # the switches are CUDA's
            return function(**parameters)
        from portrait_core.generators.precision import resolved_precision
        from portrait_core.matrix_precision import matrix_precision

        chosen = job.settings.generator.precision if wanted == "job" else wanted
        with matrix_precision(resolved_precision(chosen, "cuda")):
            return function(**parameters)

    return run


def stage_task(
    stage: Stage, precision: Precision | None = None
) -> Callable[[Callable[..., StageResult]], Task[..., StageResult]]:
    """Make a Prefect task of a stage's function, which takes ``job`` and perhaps ``start`` and ``stop``.

    ``precision`` is that of a GPU's float32 products in the stage: the job's, where the stage's key knows it;
    exact ones, for what is tracked and for a flow's equation; or None for a stage that computes nothing on a
    GPU. Tasks of a process that want another precision wait for each other.

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
        careful = _leaving_broken_gpus(_with_less_memory(function, stage), stage)
        return decorate(careful if precision is None else _at_precision(careful, precision))

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
