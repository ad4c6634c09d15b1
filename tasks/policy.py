"""What kind of failure an error is, and what is done about it: the same with and without Prefect."""

from __future__ import annotations

import errno
import gc
import logging
import os
import re
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

from portrait_core.errors import MissingChunk
from portrait_core.stopping import StopRequested, check, request
from portrait_core.store import Failure, FailureClass
from tasks.context import device_of, record_failures
from tasks.job import Job, Stage

_TRANSIENT_NAMES = {"MissingChunk", "StopRequested", "ClientError", "HTTPClientError"}
_TRANSIENT_NAMES |= {"CommClosedError", "CancelledError"}  # a scheduler that went away
_RESOURCE_NAMES = {"OutOfMemoryError", "WorkerMemoryError"}
_RESOURCE_TEXTS = ("out of memory", "can't allocate memory")
_DEATH_NAMES = {"KilledWorker"}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_log = logging.getLogger(__name__)

_GPU_NAMES = {"AcceleratorError", "BrokenGpuError"}
_GPU_ERROR = re.compile(
    r"(?:cuda(?: driver)?|cudnn(?: frontend)?|cublas|cusolver|cusparse|cufft|hip) error: *([^\n]*)"
    r"|triton error \[cuda\]: *([^\n]*)"
    r"|([^\n]*(?:nvidia driver on your system|no cuda gpus are available|cudagetdevicecount)[^\n]*)"
    r"|([^\n]*(?:illegal memory access|unspecified launch failure|device-side assert triggered"
    r"|uncorrectable ecc error)[^\n]*)"
)
"""Finds what CUDA and its libraries said, in lower case. Only that line counts: PyTorch writes advice below
it, which speaks of device-side assertions whatever the error was."""
_GPU_MEMORY = ("out of memory", "alloc_failed", "not_initialized")
"""cuBLAS and cuDNN make their handles at the first call of a thread. Where no memory is left for a handle,
they say that they are "not initialized": the context is whole, and smaller batches leave room. (If it is
broken after all, the next call says so.)"""
_GPU_BUSY = ("busy or unavailable", "captur")
"""Errors that pass while the context stays whole: another process has the GPU for itself, or another thread
disturbed the recording of a CUDA graph."""
_GPU_REFUSED = (
    *("no kernel image", "unsupported ptx", "invalid device function", "no cuda-capable device"),
    *("driver version is insufficient", "driver on your system", "unsupported display driver"),
    *(
        "forward compatibility",
        "no cuda gpus are available",
        "invalid device ordinal",
        "initialization error",
    ),
    *("system not yet initialized", "invalid argument", "invalid configuration", "invalid resource handle"),
    *("too many resources requested", "operation not supported", "not_supported", "arch_mismatch"),
    *("bad_param", "invalid_value", "execution plan"),
)
"""Errors of calls that were refused before anything ran on the GPU, because its driver, PyTorch's build or
the call itself does not suit. The context is whole, so the process may go on with other work; but the same
call is refused again, here and in a new process on this machine. No frame is to blame, so the class is
``transient`` (a machine that is set right does the frame), but the call is not repeated."""
WORKER_ENDED = 70
"""Exit code of a Dask worker that ended itself because it could no longer use its GPU."""


class BrokenGpuError(RuntimeError):
    """The GPU's context of this process is broken, so that every later use of the GPU fails. Nothing that is
    finished is lost, and another process can go on."""


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


def classify(error: BaseException) -> FailureClass:
    """Class of a failure: ``input`` for what a user must change, ``transient`` for what another try may
    mend, ``resource`` for too little memory, ``poison`` for everything that would only fail again."""
    if out_of_memory(error) or disk_full(error):
        return "resource"
    if worker_died(error):
        return "poison"
    if _names(error) & _TRANSIENT_NAMES or _gpu_error(error) is not None:
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
    if not isinstance(error, RuntimeError):
        return False
    return _says(str(error).lower(), _RESOURCE_TEXTS) or _says(_gpu_error(error), _GPU_MEMORY)


def _says(said: str | None, texts: tuple[str, ...]) -> bool:
    return said is not None and any(text in said for text in texts)


def _gpu_error(error: BaseException) -> str | None:
    """What CUDA or one of its libraries said, in lower case; None for an error that is not theirs.

    Classes are compared by name, so that nothing here has to import PyTorch.
    """
    if not isinstance(error, RuntimeError):
        return None
    found = _GPU_ERROR.search(str(error).lower())
    if found is not None:
        return next(text for text in found.groups() if text is not None)
    return str(error).lower() if _names(error) & _GPU_NAMES else None


def gpu_broke(error: BaseException) -> bool:
    """Whether a CUDA error leaves its process unable to use the GPU, so that only another process can go on.

    CUDA calls such errors sticky: after an illegal access, a failed assertion or launch, or a memory error
    that the hardware could not correct, every later call in the process fails with the same error. An error
    that is not known here counts as one too: a new process costs seconds, waits in a dead one cost minutes.
    Too little memory is none, nor is what passes (:data:`_GPU_BUSY`) or was refused (:data:`_GPU_REFUSED`).
    """
    if "BrokenGpuError" in _names(error):
        return True
    said = _gpu_error(error)
    return said is not None and not out_of_memory(error) and not _says(said, (*_GPU_BUSY, *_GPU_REFUSED))


def disk_full(error: BaseException) -> bool:
    """Whether a person has to make room first."""
    return isinstance(error, OSError) and error.errno in _FULL


def worker_died(error: BaseException) -> bool:
    """Whether the process that ran the task ended under it."""
    return bool(_names(error) & _DEATH_NAMES)


def worth_retrying(error: BaseException) -> bool:
    """Whether the very same call may do better in a moment, in this process. Damaged data has to be made
    again first; a GPU's broken context takes another process, and what the GPU refuses another machine."""
    if classify(error) != "transient" or isinstance(error, MissingChunk | StopRequested):
        return False
    return not gpu_broke(error) and not _says(_gpu_error(error), _GPU_REFUSED)


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
