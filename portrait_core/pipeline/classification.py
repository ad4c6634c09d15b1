"""What kind of failure an error is: whose fault, and whether trying again may help.

The rules, the first that fits:

- too little memory, a full disk: ``resource``; a worker that died: ``poison``;
- :class:`StoreError`: ``store``;
- what passes or needs another machine (connections, the GPU, missing weights, data to make again):
  ``transient``;
- :class:`InputError`, and with it :class:`DecodeError`: ``input``, and nothing else is;
- a path that is not there or may not be used, and everything unknown: ``poison``;
- any other error of input and output: ``transient``.

Classes of libraries are compared by name, so that nothing here imports Prefect, PyTorch or Dask.
"""

from __future__ import annotations

import re

from portrait_core.errors import InputError, MissingChunk, ModelFileError, StoreError
from portrait_core.runtime.cancellation import StopRequested
from portrait_core.store.failures import SETS_ASIDE, Failure, FailureClass
from portrait_core.store.retries import FULL

_TRANSIENT_NAMES = {"MissingChunk", "StopRequested", "ClientError", "HTTPClientError"}
_TRANSIENT_NAMES |= {"CommClosedError", "CancelledError"}  # a scheduler that went away
_RESOURCE_NAMES = {"OutOfMemoryError", "WorkerMemoryError"}
_RESOURCE_TEXTS = ("out of memory", "can't allocate memory")
_DEATH_NAMES = {"KilledWorker", "StalledTaskError"}
_PATHS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Errors of a path: the program's or the machine's fault, as inputs and the store have their own classes."""

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


class StalledTaskError(RuntimeError):
    """A task got no further for so long that it was given up. On a cluster its worker was ended; in threads
    it hangs on, until the process ends.
    """


class BrokenGpuError(RuntimeError):
    """The GPU's context of this process is broken, so that every later use of the GPU fails. Nothing that is
    finished is lost, and another process can go on.
    """


def classify(error: BaseException) -> FailureClass:
    """Give the class of a failure; :data:`FailureClass` says what each means."""
    if out_of_memory(error) or disk_full(error):
        return "resource"
    if worker_died(error):
        return "poison"
    if isinstance(error, StoreError):
        return "store"
    if _names(error) & _TRANSIENT_NAMES or isinstance(error, ModelFileError) or _gpu_error(error) is not None:
        return "transient"
    if isinstance(error, InputError):
        return "input"
    if isinstance(error, OSError | TimeoutError | EOFError) and not isinstance(error, _PATHS):
        return "transient"
    return "poison"


def quarantines(error: BaseException) -> bool:
    """Tell whether the frame at work is to blame, so that it would only fail again: it is set aside, and the
    task goes on with the next. Else the task ends, and its frames wait for the next one.
    """
    return classify(error) in SETS_ASIDE


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def out_of_memory(error: BaseException) -> bool:
    """Tell whether a smaller batch may do."""
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
    """Tell whether after a CUDA error only another process can use the GPU.

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
    """Tell whether a person has to make room first."""
    return isinstance(error, OSError) and error.errno in FULL


def worker_died(error: BaseException) -> bool:
    """Tell whether the process that ran the task ended under it."""
    return bool(_names(error) & _DEATH_NAMES)


def worth_retrying(error: BaseException) -> bool:
    """Tell whether the very same call may do better in a moment, in this process. Damaged data has to be made
    again first; a GPU's broken context takes another process, and what the GPU refuses, or missing weights,
    another machine. A store has been waited for already, and a refusal does not pass in seconds.
    """
    if classify(error) != "transient" or isinstance(error, MissingChunk | StopRequested | ModelFileError):
        return False
    return not gpu_broke(error) and not _says(_gpu_error(error), _GPU_REFUSED)


def failure(
    stage: str, frame: int | None, error: BaseException, key: str, attempt: int = 1, note: str = ""
) -> Failure:
    """Make the row of an error."""
    message = f"{type(error).__name__}: {error}{note}"[:500]
    return Failure(stage, frame, classify(error), message, attempt, key=key)


def retry_delay(attempt: int, first_s: float) -> float:
    """Give the wait in seconds before retry ``attempt`` (1 is the first): doubled each time."""
    return first_s * 2.0 ** (attempt - 1)
