"""Results of tasks, and the record that a flow keeps of each stage."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StageResult:
    """Result of a task: a reference to what it did, never the data."""

    stage: str
    start: int
    stop: int
    frames_done: int
    """Frames computed by this call; frames that were done before do not count."""
    seconds: float
    cpu_seconds: float
    """Processor seconds of the task's process meanwhile, including its other tasks'."""
    peak_memory_bytes: int
    """Largest resident memory of the process that ran the task."""
    process: str
    """``host:pid`` of the process that ran the task."""


@dataclass
class StageRecord:
    """Record of one stage in this run."""

    stage: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    frames_done: int = 0
    results: list[StageResult] = field(default_factory=list)


class Stopwatch:
    """Measures one task and makes its result."""

    def __init__(self, stage: str, start: int, stop: int) -> None:
        self._place = (stage, start, stop)
        self._begin = time.perf_counter(), time.process_time()

    def result(self, frames_done: int) -> StageResult:
        """Return the result of the task, which is finished now."""
        wall, cpu = time.perf_counter() - self._begin[0], time.process_time() - self._begin[1]
        return StageResult(*self._place, frames_done, wall, cpu, peak_memory_bytes(), process_name())


def peak_memory_bytes() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def process_name() -> str:
    """Return ``host:pid`` of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"
