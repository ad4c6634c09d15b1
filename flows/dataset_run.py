"""Running clips on one set of workers.

A clip's inversion is a chain, so workers are kept busy by many clips, not by one: about two per worker are at
work. The first of them has a worker as soon as it wants one, the others fill the gaps
(:class:`flows.engine.runners.Turns`).
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from flows.display.progress import Board
from flows.engine.runners import Runner
from flows.engine.stages import Functions, StageError, StageRunner, gpu_gone, thread_hangs
from flows.reenact import delivered, kept_state
from portrait_core.pipeline import Job, Policy
from portrait_core.pipeline.classification import classify
from portrait_core.pipeline.ledger import quarantine_reason
from portrait_core.pipeline.redo import faces_appeared, mark_undone
from portrait_core.pipeline.results import StageRecord
from portrait_core.pipeline.retention import drop
from portrait_core.pipeline.state import record_state
from portrait_core.report import Summary
from portrait_core.runtime import cancellation
from portrait_core.runtime.cancellation import StopRequested
from portrait_core.settings import Settings
from portrait_core.settings.threads import worker_count
from portrait_core.store import FailureClass
from tasks.deliver import deliver, deliver_edit, deliver_files, deliver_flow
from tasks.running import functions_of

Outcome = Literal["done", "held", "failed", "aside", "stopped"]
CLIPS_PER_WORKER = 2
STORE_FAILURES = 5
"""Clips in a row that may fail because of the store before the rest is left for another day."""
_LOOKERS = 8
_DELIVERIES: Mapping[str, Callable[[Job, Path], object]] = {"edit": deliver_edit, "flow": deliver_flow}
"""Functions that hand over results of a pipeline beyond the files of its last stages, by its goal."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class ClipResult:
    """Outcome of a clip in a run."""

    number: int
    """Number of its row."""
    name: str
    """Name of its output."""
    outcome: Outcome
    """``held``: done, with frames that show a neighbour. ``aside``: it would only fail again, see
    ``portrait retry``."""
    message: str = ""
    """Why, unless it is done."""
    frames: int = 0
    """Frames of the clip."""
    seconds: float = 0.0
    """Seconds of this run."""
    cls: FailureClass | None = None
    """Class of what is wrong with its inputs."""


@dataclass(frozen=True)
class Clip:
    """A row of a manifest, or a stored clip, with its job."""

    number: int
    """Number of its row."""
    name: str
    """Name of its output."""
    job: Job
    retried: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Frames that were taken up again, by stage."""


class DatasetRun:
    """Runs clips on one runner.

    Args:
        runner: where every clip's tasks run.
        settings: of the run: how many clips at once.
        out: folder with a folder per clip; None leaves the clips in the store.
        board: hears what happens.
        keep: what of a finished clip is dropped; None keeps all.
        functions: gives what does a stage.
    """

    def __init__(
        self,
        runner: Runner,
        settings: Settings,
        out: Path | None,
        board: Board,
        keep: Policy | None = None,
        functions: Functions = functions_of,
    ) -> None:
        self._runner, self._out, self._board, self._keep = runner, out, board, keep
        self._functions = functions
        self._at_once = settings.runner.clips or CLIPS_PER_WORKER * worker_count(settings)
        self._turns = count()
        self._failed_stores = 0
        """Clips in a row that failed because of the store."""
        self._ended: tuple[str, BaseException] | None = None
        """Clip and error that ended the run for all; None while it goes on."""

    def run(self, items: Sequence[Item], look: Callable[[Item], Clip | ClipResult]) -> list[ClipResult]:
        """Run clips, of those that are ready the longest first, and say what became of each.

        Args:
            items: what to look at.
            look: gives the clip of an item, or what is wrong with it.

        Raises:
            StageError: this process cannot use the GPU any more, one of its threads hangs, or the store
                failed for :data:`STORE_FAILURES` clips in a row. The clips at work were stopped, and the
                others not begun: all of them wait for the next run.
        """
        ahead = _Ahead(items, look, 2 * self._at_once)
        pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="clip")
        # each with this thread's context: Prefect asks which flow run a task run is of
        futures: list[Future[list[ClipResult]]] = [
            pool.submit(copy_context().run, self._work, ahead) for _ in range(self._at_once)
        ]
        try:
            results = [result for future in as_completed(futures) for result in future.result()]
        except BaseException as error:
            ahead.close()
            if not isinstance(error, Exception):  # Ctrl-C, SIGTERM, or what Prefect makes of them
                self._runner.stop()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if self._ended is not None:
            name, why = self._ended
            stopped = len(items) - sum(result.outcome != "stopped" for result in results)
            raise StageError(f"{name}: {why}. It finds {stopped} of {len(items)} clips to do") from (
                why.__cause__ or why
            )
        return results

    def _work(self, ahead: _Ahead[Any]) -> list[ClipResult]:
        """Do one clip after the other, until none is left."""
        results = []
        while (found := ahead.take()) is not None:
            result = self._not_begun(found) if isinstance(found, ClipResult) else self._clip(found)
            if self._ended is not None:
                ahead.close()
            self._board.ended(result)
            results.append(result)
        return results

    def _not_begun(self, result: ClipResult) -> ClipResult:
        """Give the result of a clip whose inputs cannot be looked at; end the run where the store is why."""
        if result.cls is None or not self._store_failed(result.cls):
            return result
        self._ended = self._ended or (f"row {result.number}, {result.name}", RuntimeError(result.message))
        return replace(result, outcome="stopped", message="")

    def _store_failed(self, cls: FailureClass) -> bool:
        """Count a failure; True when the store has failed for too many clips in a row."""
        self._failed_stores = self._failed_stores + 1 if cls == "store" else 0
        return self._failed_stores >= STORE_FAILURES

    def _clip(self, clip: Clip) -> ClipResult:
        begin = time.perf_counter()

        def result(outcome: Outcome, message: str = "") -> ClipResult:
            seconds = time.perf_counter() - begin
            return ClipResult(clip.number, clip.name, outcome, message, clip.job.frames, seconds)

        if self._ended is not None:
            return result("stopped")
        try:
            if why := quarantine_reason(clip.job):
                return result("aside", why)
            self._board.began(clip.name)
            held = self._run_one(clip)
        except StopRequested:
            return result("stopped")
        except Exception as error:
            return result(*self._failed(clip, error))
        self._failed_stores = 0
        return result("held", f"{held} frames show a neighbour") if held else result("done")

    def _failed(self, clip: Clip, error: Exception) -> tuple[Outcome, str]:
        """Give the outcome and message of a clip that failed; end the run where nothing else can be done."""
        cls = classify(error.__cause__ or error) if isinstance(error, StageError) else classify(error)
        hangs = thread_hangs(error, clip.job)
        if hangs:
            cancellation.request()  # it keeps its place, for which the others would wait
        if self._store_failed(cls) or gpu_gone(error) or hangs:
            self._ended = f"row {clip.number}, {clip.name}", error
            return "stopped", ""
        return "failed", f"{cls}: {error}"

    def _run_one(self, clip: Clip) -> int:
        """Finish one clip; how many of its frames show a neighbour."""
        job, begin, turn = clip.job, time.perf_counter(), next(self._turns)
        made_before = delivered(job, self._out / clip.name if self._out else None)
        if made_before is not None:
            if self._keep is not None and drop(job, self._keep):  # a run that was killed left it
                record_state(job)
            return _held(made_before)

        def stages(only: Sequence[str] = ()) -> StageRunner:
            def report(line: str) -> None:
                self._board.said(clip.name, line)

            return StageRunner(job, self._runner, report, only, self._functions, turn)

        with kept_state(job):
            if "landmarks" in clip.retried:
                stages(("landmarks",)).all()
                if faces_appeared(job, clip.retried["landmarks"]):
                    mark_undone(job, ["fit"])
                    self._runner.forget()
            made = stages()
            made.all()
            if self._keep is not None:
                if job.goal == "clip":  # the summary's losses are read before they go
                    deliver(job, None, made.records, time.perf_counter() - begin)
                drop(job, self._keep)
        return self._deliver(clip, made.records, time.perf_counter() - begin)

    def _deliver(self, clip: Clip, records: Mapping[str, StageRecord], seconds: float) -> int:
        out = self._out / clip.name if self._out else None
        if clip.job.goal == "clip":
            return _held(deliver(clip.job, out, records, seconds))
        if out is not None:
            _DELIVERIES.get(clip.job.goal, deliver_files)(clip.job, out)
        return 0


def _held(summary: Summary) -> int:
    """Frames of a clip that show a neighbour."""
    return sum(len(frames) for frames in summary.held_frames.values())


class _Ahead(Generic[Item]):
    """Looks at items a little ahead of those who take them, several at a time."""

    def __init__(self, items: Iterable[Item], look: Callable[[Item], Clip | ClipResult], most: int) -> None:
        self._items, self._look, self._most = iter(items), look, most
        self._ready: list[tuple[int, int, Clip | ClipResult]] = []
        self._number, self._looking, self._over = count(), 0, False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        for i in range(_LOOKERS):
            threading.Thread(
                target=copy_context().run, args=(self._run,), name=f"look-{i}", daemon=True
            ).start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._over or len(self._ready) + self._looking < self._most)
                item = None if self._over else next(self._items, None)
                if item is None:
                    self._over = True
                    self._changed.notify_all()
                    return
                self._looking += 1
            try:
                found = self._look(item)
            except BaseException as error:
                with self._changed:
                    self._error, self._over = error, True
                    self._changed.notify_all()
                return
            with self._changed:
                self._looking -= 1
                # What is wrong is told at once; of clips the longest goes first: none is left at the end.
                rank = -found.job.frames if isinstance(found, Clip) else -(2**62)
                heapq.heappush(self._ready, (rank, next(self._number), found))
                self._changed.notify_all()

    def take(self) -> Clip | ClipResult | None:
        """Take the longest clip that is ready; None when none is left.

        Raises:
            BaseException: what looking at an item raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._ready or (self._over and not self._looking))
            if self._error is not None:
                raise self._error
            if not self._ready:
                return None
            found = heapq.heappop(self._ready)[2]
            self._changed.notify_all()
            return found

    def close(self) -> None:
        """Look at nothing further, and give nothing."""
        with self._changed:
            self._over = True
            self._ready.clear()
            self._changed.notify_all()
