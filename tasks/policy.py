"""What kind of failure an error is, and what is done about it: the same with and without Prefect."""

from __future__ import annotations

import errno
import re

from portrait_core.errors import MissingChunk
from portrait_core.stopping import StopRequested
from portrait_core.store import Failure, FailureClass

_TRANSIENT_NAMES = {"MissingChunk", "StopRequested", "ClientError", "HTTPClientError"}
_TRANSIENT_NAMES |= {"CommClosedError", "CancelledError"}  # a scheduler that went away
_RESOURCE_NAMES = {"OutOfMemoryError", "WorkerMemoryError"}
_RESOURCE_TEXTS = ("out of memory", "can't allocate memory")
_DEATH_NAMES = {"KilledWorker"}
_FULL = {errno.ENOSPC, errno.EDQUOT}

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


class BrokenGpuError(RuntimeError):
    """The GPU's context of this process is broken, so that every later use of the GPU fails. Nothing that is
    finished is lost, and another process can go on."""


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
    stage: str, frame: int | None, error: BaseException, key: str, attempt: int = 1, note: str = ""
) -> Failure:
    """The row of an error."""
    message = f"{type(error).__name__}: {error}{note}"[:500]
    return Failure(stage, frame, classify(error), message, attempt, key=key)


def retry_delay(attempt: int, first_s: float) -> float:
    """Wait before retry ``attempt`` (1 is the first): doubled each time."""
    return first_s * 2.0 ** (attempt - 1)
