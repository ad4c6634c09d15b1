"""Processing of frames one by one.

A frame that fails leaves the others alone. While one is processed, the next is read and the one before it is
written.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar, overload

from portrait_core.pipeline import FrameRange, Job
from portrait_core.pipeline.classification import make_failure, should_quarantine
from portrait_core.pipeline.ledger import record_failures
from portrait_core.runtime import cancellation
from tasks.context import batches

Inputs = TypeVar("Inputs")
Save = Callable[[], None]
"""Writes and commits what was computed."""
Work = Callable[[FrameRange], Save]
"""Computes a range of frames."""
Fetch = Callable[[FrameRange], Inputs]
"""Reads what computing a range of frames takes."""
WorkOn = Callable[[FrameRange, Inputs], Save]
"""Computes a range of frames from what was fetched for it."""

_AHEAD = 1
"""Ranges whose inputs may be in memory before it is their turn."""
_BEHIND, _FRAMES_BEHIND = 2, 16
"""Ranges, and frames, that may be computed and not yet written when more is computed: in the end a slow store
holds the computing back, so that memory stays small."""


@overload
def process_frames(job: Job, stage: str, runs: Sequence[FrameRange], work: Work, size: int = 1) -> int: ...


@overload
def process_frames(
    job: Job,
    stage: str,
    runs: Sequence[FrameRange],
    work: WorkOn[Inputs],
    size: int = 1,
    *,
    fetch: Fetch[Inputs],
    isolate: bool = True,
) -> int: ...


def process_frames(
    job: Job,
    stage: str,
    runs: Sequence[FrameRange],
    work: Callable[..., Save],
    size: int = 1,
    *,
    fetch: Fetch[Any] | None = None,
    isolate: bool = True,
) -> int:
    """Do the frames of ``runs``, at most ``size`` of them together, one batch after the other.

    With ``fetch``, a thread reads the inputs of the next batch while ``work`` computes the present one; a
    thread writes the results behind it, in their order. So a GPU waits for a store or a decoder only where
    that takes longer than the computing.

    A frame that fails for a reason of its own (it diverges, its data makes no sense) is written to the
    failure table and set aside; what belongs to the machine (input and output, memory) ends the task. Whether
    the reading or the computing fails makes no difference. The frames of a batch that failed are fetched and
    computed one by one.

    Args:
        job: whose failure table it is.
        stage: who does them.
        runs: what to do.
        work: computes a batch (from what ``fetch`` returned for it), in the caller's thread.
        size: of a batch.
        fetch: reads a batch's inputs, one batch at a time in a thread of its own. It computes with as many of
            PyTorch's threads as the caller.
        isolate: False: every failure ends the task; ``work`` and ``fetch`` see to single frames themselves.

    Returns:
        How many frames were done.

    Raises:
        StopRequested: between two batches, when the process was asked to stop; what was computed is kept.
        Exception: failures that set no frame aside (:data:`portrait_core.store.failures.QUARANTINE_CLASSES`).
    """
    with _Writer(stage) as writer, _Reader(stage, fetch) as reader:
        _Frames(job, stage, work, reader, writer, isolate).do(batches(runs, size))
    return writer.done


class _Frames:
    """Frames on their way from the reader to the writer."""

    def __init__(
        self,
        job: Job,
        stage: str,
        work: Callable[..., Save],
        reader: _Reader[Any],
        writer: _Writer,
        isolate: bool,
    ) -> None:
        self._job, self._stage, self._work = job, stage, work
        self._reader, self._writer, self._isolate = reader, writer, isolate

    def do(self, wanted: Iterable[FrameRange]) -> None:
        """Do batches; the frames of one that fails singly."""
        for batch, inputs in self._reader.ahead(wanted):
            cancellation.check()
            whole = self._done(batch, inputs)
            del inputs  # its memory goes before more is fetched
            if not whole:
                self.do(FrameRange(i, i + 1) for i in range(*batch))

    def _done(self, batch: FrameRange, inputs: Future[tuple[Any, ...]]) -> bool:
        """Do a batch; False if a frame of it fails, and which one is not known yet."""
        try:
            save = self._work(batch, *inputs.result())
        except Exception as error:
            if not self._isolate or not should_quarantine(error):
                raise
            if len(batch) > 1:
                return False
            row = make_failure(self._stage, batch.start, error, self._job.stage_keys[self._stage])
            record_failures(self._job, self._stage, [row])
        else:
            self._writer.put(batch, save)
        return True


class _Reader(Generic[Inputs]):
    """Fetches in the background, one batch after the other. Without ``fetch`` there is nothing to give."""

    def __init__(self, stage: str, fetch: Fetch[Inputs] | None) -> None:
        self._fetch = fetch
        self._pool = ThreadPoolExecutor(1, f"read-{stage}", initializer=_same_threads())

    def __enter__(self) -> _Reader[Inputs]:
        return self

    def ahead(self, wanted: Iterable[FrameRange]) -> Iterator[tuple[FrameRange, Future[tuple[Inputs, ...]]]]:
        """Yield every batch with its fetched data, the next one being fetched meanwhile."""
        coming: deque[tuple[FrameRange, Future[tuple[Inputs, ...]]]] = deque()
        for batch in wanted:
            coming.append((batch, self._start(batch)))
            if len(coming) > _AHEAD:
                yield coming.popleft()
        while coming:
            yield coming.popleft()

    def _start(self, batch: FrameRange) -> Future[tuple[Inputs, ...]]:
        if self._fetch is not None:
            fetch = self._fetch
            return self._pool.submit(lambda: (fetch(batch),))
        nothing: Future[tuple[Inputs, ...]] = Future()
        nothing.set_result(())
        return nothing

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _same_threads() -> Callable[[], None] | None:
    """Sets another thread to the number of PyTorch's threads of this one.

    The number is a thread's own, and rounding may depend on it.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    count = torch.get_num_threads()
    return lambda: torch.set_num_threads(count)


class _Writer:
    """Saves in the background, one after the other. A save that fails ends the task."""

    def __init__(self, stage: str) -> None:
        self.done = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"write-{stage}")
        self._pending: deque[tuple[int, Future[None]]] = deque()

    def __enter__(self) -> _Writer:
        return self

    def put(self, batch: FrameRange, save: Save) -> None:
        """Save a range, as soon as those before it are saved."""
        while len(self._pending) >= _BEHIND and sum(n for n, _ in self._pending) >= _FRAMES_BEHIND:
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
