"""What kind of failure an error is."""

from __future__ import annotations

import errno
import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from distributed.scheduler import KilledWorker

from portrait_core.errors import DecodeError, InputError, MissingChunk, ModelFileError, StoreError
from portrait_core.pipeline.classification import (
    breaks_gpu,
    classify,
    is_out_of_memory,
    is_worth_retrying,
    make_failure,
    retry_delay,
    should_quarantine,
)
from portrait_core.runtime import cancellation
from portrait_core.settings import Settings


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


class AcceleratorError(RuntimeError):
    """Named as PyTorch's."""


ADVICE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below "
    "might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
    "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)
"""What PyTorch writes below every CUDA error."""
BROKEN = [
    "CUDA error: an illegal memory access was encountered" + ADVICE,
    "CUDA error: an illegal memory access was encountered\nSearch for `cudaErrorIllegalAddress' in https://x",
    "CUDA error: device-side assert triggered" + ADVICE,
    "CUDA error: unspecified launch failure" + ADVICE,
    "CUDA error: misaligned address" + ADVICE,
    "CUDA error: the launch timed out and was terminated" + ADVICE,
    "CUDA error: uncorrectable ECC error encountered" + ADVICE,
    "CUDA error: unknown error" + ADVICE,
    "CUDA driver error: unknown error",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m)`",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "cuFFT error: CUFFT_EXEC_FAILED",
    "cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED, when calling `cusolverDnSgetrf(handle)`",
    "Triton Error [CUDA]: an illegal memory access was encountered",
    "backend='inductor' raised:\nRuntimeError: CUDA error: unspecified launch failure\nin a graph",
]
NO_MEMORY = [
    "CUDA error: out of memory" + ADVICE,
    "Triton Error [CUDA]: out of memory",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
]
PASSING = [
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable" + ADVICE,
    "CUDA error: operation failed due to a previous error during capture" + ADVICE,
]
REFUSED = [
    "CUDA error: no kernel image is available for execution on the device" + ADVICE,
    "CUDA error: CUDA driver version is insufficient for CUDA runtime version" + ADVICE,
    "CUDA error: no CUDA-capable device is detected" + ADVICE,
    "CUDA error: invalid argument" + ADVICE,
    "CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm( handle, opa, opb, m)`",
    "cuDNN error: CUDNN_STATUS_BAD_PARAM",
    "cuDNN Frontend error: [cudnn_frontend] Error: No valid execution plans built.",
    "The NVIDIA driver on your system is too old (found version 11040).",
    "No CUDA GPUs are available",
    "Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
]


def _raised(operation: Any) -> Exception:
    """The error of an operation."""
    try:
        operation()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InputError("no face"), "input"),
        (DecodeError("film.mp4", [3]), "input"),
        (ValueError("bad"), "poison"),
        (np.linalg.LinAlgError("singular matrix"), "poison"),
        (_raised(lambda: np.zeros(2) + np.zeros(3)), "poison"),
        (_raised(lambda: Settings(device="abacus")), "poison"),  # type: ignore[arg-type]  # a wrong setting on purpose
        (_raised(lambda: json.loads("{")), "poison"),
        (FileNotFoundError("gone"), "poison"),
        (PermissionError("forbidden"), "poison"),
        (IsADirectoryError("a folder"), "poison"),
        (StoreError("s3://bucket/run", "it refuses access", errno.EACCES), "store"),
        (StoreError("/mnt/store", "its disk fails", errno.EIO), "store"),
        (ModelFileError("no such weights on this machine"), "transient"),
        (MissingChunk("video/x/landmarks", [3]), "transient"),
        (ConnectionResetError("reset"), "transient"),
        (TimeoutError("late"), "transient"),
        (OSError("disk"), "transient"),
        (OSError(errno.ENOSPC, "No space left on device"), "resource"),
        (MemoryError(), "resource"),
        (OutOfMemoryError("CUDA out of memory"), "resource"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "resource"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "transient"),
        (KilledWorker("task", None, 3), "poison"),  # type: ignore[arg-type]  # it only shows the worker
        (FloatingPointError("the loss is nan"), "poison"),
        (RuntimeError("shapes differ"), "poison"),
        (AssertionError(), "poison"),
    ],
)
def test_classes_of_failures(error: BaseException, kind: str) -> None:
    assert classify(error) == kind


@pytest.mark.parametrize("text", BROKEN)
def test_an_error_that_breaks_the_gpus_context_is_not_repeated_in_its_process(text: str) -> None:
    for error in (RuntimeError(text), AcceleratorError(text)):
        assert breaks_gpu(error)
        assert classify(error) == "transient"
        assert not is_worth_retrying(error)


@pytest.mark.parametrize("text", NO_MEMORY)
def test_too_little_memory_leaves_the_context_whole_and_is_repeated_smaller(text: str) -> None:
    error = AcceleratorError(text)
    assert is_out_of_memory(error)
    assert classify(error) == "resource"
    assert not breaks_gpu(error)


@pytest.mark.parametrize("text", PASSING)
def test_an_error_that_passes_is_repeated(text: str) -> None:
    error = AcceleratorError(text)
    assert is_worth_retrying(error)
    assert not breaks_gpu(error)


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_gpu_refuses_is_neither_repeated_nor_the_frames_fault(text: str) -> None:
    error = RuntimeError(text)
    assert classify(error) == "transient"
    assert not is_worth_retrying(error)
    assert not breaks_gpu(error)


def test_an_unknown_error_of_an_accelerator_breaks_it_and_one_of_a_users_does_not() -> None:
    assert breaks_gpu(AcceleratorError("HIP has nothing more to say"))
    assert not breaks_gpu(RuntimeError("shapes differ; compile with device-side assertions"))
    assert not breaks_gpu(ValueError("a file named CUDA error: x"))


def test_errors_are_recognised_without_prefect_pytorch_dask_or_pandas() -> None:
    program = (
        "import sys; from portrait_core.pipeline.classification import make_failure, breaks_gpu; "
        "error = RuntimeError('CUDA error: unknown error'); "
        "assert breaks_gpu(error) and make_failure('render', 3, error, '00aa').cls == 'transient'; "
        "found = {'prefect', 'torch', 'dask', 'distributed', 'pandas'} & set(sys.modules); "
        "assert not found, found"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("error", "aside"),
    [
        (InputError("no face"), True),
        (RuntimeError("shapes differ"), True),
        (StoreError("s3://bucket/run", "it refuses access"), False),
        (OSError("disk"), False),
        (MemoryError(), False),
    ],
)
def test_which_failures_set_their_frame_aside(error: Exception, aside: bool) -> None:
    assert should_quarantine(error) is aside


def test_a_stores_error_survives_pickling_and_shows_no_secret() -> None:
    url = "https://user:p@ss@host:9000/bucket?signature=abc"
    error = StoreError(url, f"it refuses access (GET {url} said 403): check it", errno.EACCES)
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied), copied.errno) == (StoreError, str(error), errno.EACCES)
    assert copied.url == "https://***@host:9000/bucket?***"
    assert "(GET https://***@host:9000/bucket?*** said 403): check it" in str(copied)
    for secret in ("user", "p@ss", "ss@", "abc"):
        assert secret not in str(copied)


def test_the_row_of_a_failure() -> None:
    row = make_failure("render", 3, StoreError("s3://bucket/run", "it refuses access"), "00aa", 2, "; again")
    assert (row.stage, row.frame, row.cls, row.attempt, row.key) == ("render", 3, "store", 2, "00aa")
    assert row.message == "StoreError: the store s3://bucket/run: it refuses access; again"


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (OSError("disk"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),  # a person has to make room
        (MissingChunk("video/x/landmarks", [3]), False),  # has to be made again first
        (cancellation.StopRequested(), False),
        (MemoryError(), False),  # not the same call: a smaller one
        (InputError("no face"), False),
        (StoreError("s3://bucket/run", "it did not answer"), False),  # was waited for
        (ModelFileError("no such weights on this machine"), False),
    ],
)
def test_which_calls_are_repeated(error: BaseException, worth: bool) -> None:
    assert is_worth_retrying(error) is worth


def test_waits_double() -> None:
    assert [retry_delay(i, 2.0) for i in (1, 2, 3)] == [2.0, 4.0, 8.0]
