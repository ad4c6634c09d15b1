"""Doing frames one by one: one that fails leaves the others alone, one is written while the next is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from portrait_core import stopping
from tasks.context import batches, record_failures
from tasks.job import Job, Stage
from tasks.policy import classify, failure
from tasks.ranges import FrameRange

Save = Callable[[], None]
"""Writes and commits what was computed."""
Work = Callable[[FrameRange], Save]
"""Computes a range of frames."""

_BEHIND = 2
"""Ranges that may be computed and not yet written: in the end a slow store holds the computing back, so that
memory stays small."""


def each(job: Job, stage: Stage, runs: Sequence[FrameRange], work: Work, size: int = 1) -> int:
    """Do the frames of ``runs``, at most ``size`` of them together.

    They are written by a thread behind the computing, in their order, so a GPU does not wait for a store. A
    frame that fails for a reason of its own (it diverges, its data makes no sense) is written to the failure
    table and set aside; what belongs to the machine (input and output, memory) ends the task.

    Returns:
        How many frames were done.

    Raises:
        StopRequested: between two batches, when the process was asked to stop; what was computed is kept.
        Exception: failures of the classes ``transient`` and ``resource``.
    """
    with _Writer(stage) as writer:
        for batch in batches(runs, size):
            _attempt(job, stage, batch, work, writer)
    return writer.done


def _attempt(job: Job, stage: Stage, batch: FrameRange, work: Work, writer: _Writer) -> None:
    stopping.check()
    try:
        save = work(batch)
    except Exception as error:
        if classify(error) in ("transient", "resource"):
            raise
        if len(batch) > 1:
            for i in range(*batch):
                _attempt(job, stage, FrameRange(i, i + 1), work, writer)
            return
        record_failures(job, stage, [failure(stage, batch.start, error, job.stage_keys[stage])])
    else:
        writer.put(batch, save)


class _Writer:
    """Saves in the background, one after the other. A save that fails ends the task."""

    def __init__(self, stage: Stage) -> None:
        self.done = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"write-{stage}")
        self._pending: deque[tuple[int, Future[None]]] = deque()

    def __enter__(self) -> _Writer:
        return self

    def put(self, batch: FrameRange, save: Save) -> None:
        """Save a range, as soon as those before it are saved."""
        while len(self._pending) >= _BEHIND:
            self._finish_first()
        self._pending.append((len(batch), self._pool.submit(save)))

    def _finish_first(self) -> None:
        count, future = self._pending.popleft()
        future.result()
        self.done += count

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._pending:
                self._finish_first()
        except Exception:
            if kind is None:
                raise
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
