"""Running a stage's function: what is done about its failures, the same on every runner.

Nothing here imports Prefect or Dask: a worker's task pays for neither. Retries are in one place,
:func:`run_call`; what kind of failure an error is says :mod:`portrait_core.pipeline.classification`.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from inspect import signature
from typing import Any, Literal, NoReturn

from portrait_core.pipeline import Job, Stage
from portrait_core.pipeline.classification import (
    BrokenGpuError,
    breaks_gpu,
    is_out_of_memory,
    is_worth_retrying,
    make_failure,
    retry_delay,
)
from portrait_core.pipeline.ledger import record_failures
from portrait_core.pipeline.results import StageResult, process_name
from portrait_core.runtime.cancellation import check, clear, request
from portrait_core.settings import guard_process
from portrait_core.store import Failure, Output, read_holder
from portrait_core.store.waiting import wait_until
from tasks.context import device_of

_log = logging.getLogger(__name__)

WORKER_ENDED = 70
"""Exit code of a Dask worker that ended itself because it could no longer use its GPU."""

Precision = Literal["job", "fp32"]
"""Precision of a stage's float32 products on a GPU: the job's generator's, or exact ones."""


def _with_less_memory(function: Callable[..., StageResult], stage: str) -> Callable[..., StageResult]:
    """Return the function, called again with smaller batches for as long as memory does not suffice."""

    @wraps(function)
    def run(**parameters: Any) -> StageResult:
        while True:
            try:
                return function(**parameters)
            except Exception as error:
                job = parameters["job"]
                less = job.with_less_memory() if is_out_of_memory(error) else None
                if less is None:
                    raise
                note = f"; tried again with {less[1]}"
                start = parameters.get("start")
                record_failures(
                    job, stage, [make_failure(stage, start, error, job.stage_keys[stage], note=note)]
                )
                _log.warning("%s: out of memory%s", stage, note)
                parameters["job"] = less[0]
            _free_memory()

    return run


def _leaving_broken_gpus(function: Callable[..., StageResult], stage: str) -> Callable[..., StageResult]:
    """Return the function, whose process does no more work on a GPU once its context is broken.

    A Dask worker ends, as if it had been killed: its nanny starts another process, and the flow, which is
    told of the loss (``allowed-failures`` is 0), does the frames again. In the process of the run itself,
    every loop is asked to stop at its next frame, and the error goes to the flow, which ends.
    """

    @wraps(function)
    def run(**parameters: Any) -> StageResult:
        try:
            return function(**parameters)
        except Exception as error:
            if not breaks_gpu(error):
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
    """Tell whether this process is a Dask worker's own, not one that is shared with the run."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    # a LocalCluster with processes=False has its scheduler in the process of the run, and its workers too
    return not len(distributed.Scheduler._instances)


def _end_worker(job: Job, stage: str, why: str) -> NoReturn:
    """Write down why, and end the process at once.

    On an orderly way out, objects that hold the GPU's memory would call CUDA again.
    """
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
    """Return the function, which sets a GPU's switches of float32 products while it works.

    The switches belong to the process, which tasks of other settings may share.
    """

    @wraps(function)
    def run(**parameters: Any) -> StageResult:
        job = parameters["job"]
        if device_of(job) != "cuda":  # the switches are CUDA's
            return function(**parameters)
        from portrait_core.generators.precision import resolved_precision
        from portrait_core.runtime.matrix_precision import matrix_precision

        chosen = job.settings.generator.precision if wanted == "job" else wanted
        with matrix_precision(resolved_precision(chosen, "cuda")):
            return function(**parameters)

    return run


@dataclass(frozen=True)
class StageFunction:
    """A function that does a stage, or a part of it, and that workers find by its name."""

    stage: str
    """Name of the stage."""
    module: str
    name: str
    """Module and name by which workers find it."""
    ranged: bool
    """True for a function that takes ``start`` and ``stop``, frames of a clip, beside the job."""
    run: Callable[..., StageResult]
    """Function that takes ``job`` by name, and ``start`` and ``stop`` where it is ranged."""

    def __call__(self, **parameters: Any) -> StageResult:
        """Run the function."""
        return self.run(**parameters)


_FUNCTIONS: dict[str, list[StageFunction]] = {}


def functions_of(stage: str) -> tuple[StageFunction, ...]:
    """Return the functions of a stage, which run one after the other.

    The last takes ranges of frames where the stage is parallel over frames.

    Args:
        stage: the name that :attr:`~portrait_core.pipeline.Stage.done_by` gives.
    """
    return tuple(_FUNCTIONS.get(stage, ()))


def stage_function(
    stage: str, precision: Precision | None = None
) -> Callable[[Callable[..., StageResult]], StageFunction]:
    """Make a stage's function one that the flow can submit.

    ``precision`` is that of a GPU's float32 products in the stage: the job's, where the stage's key knows it;
    exact ones, for what is tracked and for a flow's equation; or None for a stage that computes nothing on a
    GPU. Tasks of a process that want another precision wait for each other.

    Results are kept in the store alone, whose markers say what is done; each function asks them first.
    """

    def decorated(function: Callable[..., StageResult]) -> StageFunction:
        ranged = "start" in signature(function).parameters
        careful = _leaving_broken_gpus(_with_less_memory(function, stage), stage)
        run = careful if precision is None else _at_precision(careful, precision)
        return StageFunction(stage, function.__module__, function.__name__, ranged, run)

    return decorated


def does(
    stage: Stage, precision: Precision | None = None
) -> Callable[[Callable[..., StageResult]], StageFunction]:
    """Make a function do a stage (:func:`stage_function`), after those that were declared for it before."""

    def decorated(function: Callable[..., StageResult]) -> StageFunction:
        made = stage_function(stage.name, precision)(function)
        known = _FUNCTIONS.setdefault(stage.done_by, [])
        known[:] = [*(one for one in known if one.name != made.name), made]
        return made

    return decorated


@dataclass(frozen=True)
class Call:
    """One call of a stage's function, as it travels to a worker.

    It names the function, so that the worker imports it rather than unpickling a copy.
    """

    module: str
    name: str
    """Module and name of the function."""
    parameters: Mapping[str, Any] = field(repr=False)
    """``job``, and ``start`` and ``stop`` where it is ranged. Not shown: Dask logs a call that fails, and a
    job knows credentials and signed URLs."""
    retries: int = 0
    """Number of calls after the first while it fails for reasons that may pass."""
    retry_delay_s: float = 0.0
    """Wait before the first retry in seconds; doubled each time."""
    host: str = ""
    """Host of the flow."""
    seen: Mapping[str, int] = field(default_factory=dict)
    """Frames that the flow saw done of the stages that this one reads."""
    lease: str = ""
    """Owner of the flow's lease on the unit that the stage writes."""
    stage: str = ""
    """Name of the stage."""


def run_call(call: Call) -> StageResult:
    """Run a stage's function, again for as long as it fails for reasons that may pass.

    On another host than the flow's, it begins when that host sees what the flow saw: a folder that is mounted
    may be listed as it was a minute ago, and a generator that is tuned on a part of the frames is another
    one. On a worker of a cluster it stops when another flow has taken the work over.
    """
    import_module("tasks.pipelines")  # the job names one of them
    function: StageFunction = getattr(import_module(call.module), call.name)
    guard_process(call.parameters["job"].settings)
    with _while_wanted(call):
        _wait_for_view(call)
        for attempt in range(1, call.retries + 1):
            try:
                return function(**call.parameters)
            except Exception as error:
                if not is_worth_retrying(error):
                    raise
                _wait(retry_delay(attempt, call.retry_delay_s))
        return function(**call.parameters)


def _wait_for_view(call: Call) -> None:
    """Wait until this host lists as many frames as the flow saw.

    Raises:
        TimeoutError: it does not, longer than any directory is remembered.
    """
    if not call.seen or call.host in ("", socket.gethostname()):
        return
    job: Job = call.parameters["job"]
    for stage, count in call.seen.items():
        output = job.output(stage)

        def there(output: Output = output, count: int = count) -> bool:
            return len(output.marked()) >= count

        if not wait_until(there):
            raise TimeoutError(
                f"{socket.gethostname()} lists {len(output.marked())} of the {count} frames of {stage} that "
                f"{call.host} sees in {job.store}: do both mount the same folder"
            )


@contextmanager
def _while_wanted(call: Call) -> Iterator[None]:
    """Ask the work to stop, on a cluster's worker, once another flow holds the unit.

    The other flow sends the same work to another worker, which goes on from where this one stopped.
    """
    if not call.lease or not _in_worker_process():
        yield
        return
    job: Job = call.parameters["job"]
    unit, over, lost, turn = job.unit(call.stage), threading.Event(), threading.Event(), threading.Lock()

    def watch() -> None:
        while not over.wait(job.settings.runner.lease_s / 3):
            with suppress(OSError):  # a store that fails now may answer at the next look
                found = read_holder(unit)
                if found is not None and found.owner != call.lease:
                    with turn:
                        if not over.is_set():  # else the worker's next task would stop
                            _log.warning("%s is at work on %s now: this task stops", found, unit)
                            lost.set()
                            request()
                    return

    thread = threading.Thread(target=watch, name="still-wanted", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with turn:
            over.set()
        if lost.is_set():
            clear()  # the next task of this worker is another flow's


def _wait(seconds: float) -> None:
    """Sleep, unless the process is asked to stop."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check()
        time.sleep(min(left, 0.2))
