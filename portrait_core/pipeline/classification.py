"""The class of a failure: whose fault it is, and whether another attempt may help.

The first rule that fits decides:

- too little memory, a full disk: ``resource``; a worker that died: ``poison``;
- :class:`StoreError`: ``store``;
- an error that passes or needs another machine (connections, the GPU, missing weights, data to make again):
  ``transient``;
- :class:`InputError`, and with it :class:`DecodeError`: ``input``, and nothing else is;
- a path that does not exist or may not be used, and everything unknown: ``poison``;
- any other error of input and output: ``transient``.

Classes of libraries are compared by name, so that this module imports neither Prefect, PyTorch nor Dask.
"""

from __future__ import annotations

import re

from portrait_core.errors import InputError, MissingChunk, ModelFileError, StoreError
from portrait_core.runtime.cancellation import StopRequested
from portrait_core.store.failures import QUARANTINE_CLASSES, Failure, FailureClass
from portrait_core.store.retries import DISK_FULL_ERRORS
from portrait_core.text.redaction import redact_text

_TRANSIENT_NAMES = {"MissingChunk", "StopRequested", "ClientError", "HTTPClientError"}
_TRANSIENT_NAMES |= {"CommClosedError", "CancelledError"}  # a scheduler that went away
_RESOURCE_NAMES = {"OutOfMemoryError", "WorkerMemoryError"}
_RESOURCE_TEXTS = ("out of memory", "can't allocate memory")
_DEATH_NAMES = {"KilledWorker", "StalledTaskError"}
_PATHS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Errors of a path. They are faults of the program or the machine, as inputs and the store have their own
classes."""

_GPU_NAMES = {"AcceleratorError", "BrokenGpuError"}
_GPU_ERROR = re.compile(
    r"(?:cuda(?: driver)?|cudnn(?: frontend)?|cublas|cusolver|cusparse|cufft|hip) error: *([^\n]*)"
    r"|triton error \[cuda\]: *([^\n]*)"
    r"|([^\n]*(?:nvidia driver on your system|no cuda gpus are available|cudagetdevicecount)[^\n]*)"
    r"|([^\n]*(?:illegal memory access|unspecified launch failure|device-side assert triggered"
    r"|uncorrectable ecc error)[^\n]*)"
)
"""Finds the message of CUDA or its libraries, in lower case. Only that line counts: PyTorch writes advice
below it, which mentions device-side assertions whatever the error was."""
_GPU_MEMORY = ("out of memory", "alloc_failed", "not_initialized")
"""cuBLAS and cuDNN make their handles at the first call of a thread. Where no memory is left for a handle,
they report "not initialized": the context is whole, and smaller batches leave room. (If it is broken after
all, the next call reports that.)"""
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
the call itself is unsuitable. The context is whole, so the process may go on with other work; but the same
call is refused again, here and in a new process on this machine. No frame is to blame, so the class is
``transient`` (a machine that is set up correctly does the frame), but the call is not repeated."""


class StalledTaskError(RuntimeError):
    """A task made no progress for so long that it was given up.

    On a cluster its worker was ended; with threads it hangs until the process ends.
    """


class BrokenGpuError(RuntimeError):
    """The GPU's context of this process is broken, so that every later use of the GPU fails.

    Nothing that is finished is lost, and another process can go on.
    """


def classify(error: BaseException) -> FailureClass:
    """Return the class of a failure; :data:`FailureClass` explains each."""
    if is_out_of_memory(error) or is_disk_full(error):
        return "resource"
    if is_worker_death(error):
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


def should_quarantine(error: BaseException) -> bool:
    """Tell whether the current frame is to blame and would only fail again.

    Such a frame is set aside, and the task goes on with the next one. After any other error the task ends,
    and its frames wait for the next task.
    """
    return classify(error) in QUARANTINE_CLASSES


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error is a lack of memory, so that a smaller batch may succeed."""
    if _names(error) & _RESOURCE_NAMES or isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    return _says(str(error).lower(), _RESOURCE_TEXTS) or _says(_gpu_error(error), _GPU_MEMORY)


def _says(message: str | None, texts: tuple[str, ...]) -> bool:
    return message is not None and any(text in message for text in texts)


def _gpu_error(error: BaseException) -> str | None:
    """Return the message of CUDA or its libraries, in lower case; None for an error that is not theirs.

    Classes are compared by name, so that this module need not import PyTorch.
    """
    if not isinstance(error, RuntimeError):
        return None
    match = _GPU_ERROR.search(str(error).lower())
    if match is not None:
        return next(text for text in match.groups() if text is not None)
    return str(error).lower() if _names(error) & _GPU_NAMES else None


def breaks_gpu(error: BaseException) -> bool:
    """Tell whether only another process can use the GPU after an error of CUDA.

    CUDA calls such errors sticky: after an illegal access, a failed assertion or launch, or a memory error
    that the hardware could not correct, every later call in the process fails with the same error. An unknown
    error counts as one too: a new process costs seconds, waiting in a dead one costs minutes. A lack of
    memory is not one, nor is an error that passes (:data:`_GPU_BUSY`) or a refused call
    (:data:`_GPU_REFUSED`).
    """
    if "BrokenGpuError" in _names(error):
        return True
    message = _gpu_error(error)
    return (
        message is not None
        and not is_out_of_memory(error)
        and not _says(message, (*_GPU_BUSY, *_GPU_REFUSED))
    )


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an error is a full disk, where a person has to make room first."""
    return isinstance(error, OSError) and error.errno in DISK_FULL_ERRORS


def is_worker_death(error: BaseException) -> bool:
    """Tell whether the process that ran the task ended during it."""
    return bool(_names(error) & _DEATH_NAMES)


def is_worth_retrying(error: BaseException) -> bool:
    """Tell whether the same call may succeed in a moment, in this process.

    Damaged data has to be made again first. A broken GPU context takes another process; a call that the GPU
    refuses, or missing weights, take another machine. A store has been waited for already, and its refusal
    does not pass in seconds.
    """
    if classify(error) != "transient" or isinstance(error, MissingChunk | StopRequested | ModelFileError):
        return False
    return not breaks_gpu(error) and not _says(_gpu_error(error), _GPU_REFUSED)


def make_failure(
    stage: str, frame: int | None, error: BaseException, key: str, attempt: int = 1, note: str = ""
) -> Failure:
    """Return the row of the failure table for an error.

    Args:
        stage: name of the stage.
        frame: the frame, or None when the stage failed as a whole.
        error: the error.
        key: key of the stage.
        attempt: number of the attempt, from 1.
        note: text behind the error's message.
    """
    # before it is cut: of half a URL not every secret is found
    message = redact_text(f"{type(error).__name__}: {error}{note}")[:500]
    return Failure(stage, frame, classify(error), message, attempt, key=key)


def retry_delay(attempt: int, first_s: float) -> float:
    """Return the wait in seconds before retry ``attempt`` (1 is the first): doubled each time."""
    return first_s * 2.0 ** (attempt - 1)
