"""One measurement in this process: ``python -m tests.benchmarks.measure '{"implementation": ...}'``.

Prints a line of JSON. A process of its own for each makes the peak of memory that of one thing alone.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from portrait_core.runtime.allocator import keep_freed_memory
from tests.benchmarks.workloads import Job, prepare

_MIB = 2**20


def times(call: Callable[[], tuple[Tensor, Tensor | None]], job: Job) -> dict[str, Any]:
    """Milliseconds and CPU seconds of each timed call, and the peak of memory in MiB."""
    cuda = job.device.startswith("cuda")
    for _ in range(job.warmup):
        call()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    elapsed_ms, cpu_s = [], []
    for _ in range(job.iterations):
        start, start_cpu = time.perf_counter(), time.process_time()
        call()
        if cuda:
            torch.cuda.synchronize()
        elapsed_ms.append((time.perf_counter() - start) * 1e3)
        cpu_s.append(time.process_time() - start_cpu)
    peak = torch.cuda.max_memory_allocated() / _MIB if cuda else resident_peak_mib()
    return {"elapsed_ms": elapsed_ms, "cpu_s": cpu_s, "peak_mib": peak}


def resident_peak_mib() -> float:
    """The most memory this process has held, the interpreter and its libraries included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MIB if sys.platform == "darwin" else peak / 1024


def accuracy(job: Job) -> dict[str, float]:
    """How far our image is from our own in fp32, uncompiled, by the same weights, and the gradient of its
    mean square to ws (the norm of the difference over the norm)."""
    job = replace(job, implementation="ours", operation="to-w")
    wanted, wanted_gradient = prepare(replace(job, precision="fp32", compile=False))()
    got, gradient = prepare(job)()
    error = (got - wanted).double()
    mse = float(error.square().mean())
    assert gradient is not None
    assert wanted_gradient is not None
    return {
        "max_abs": float(error.abs().max()),
        # a peak of 2: images lie in [-1,1], give or take
        "psnr_db": 10 * math.log10(4 / mse) if mse else math.inf,
        "gradient": float((gradient - wanted_gradient).norm() / wanted_gradient.norm()),
    }


def main(argument: str) -> None:
    job = Job(**json.loads(argument))
    torch.set_num_threads(job.threads)
    keep_freed_memory()  # as every stage of a run does; both implementations gain by it
    result = accuracy(job) if job.operation == "accuracy" else times(prepare(job), job)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
