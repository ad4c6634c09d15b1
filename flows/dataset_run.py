"""Execution of many clips on one set of workers.

A clip's inversion is a chain, so many clips keep the workers busy rather than one: about two per worker are
at work. The first of them has a worker as soon as it needs one, the others fill the gaps
(:class:`flows.engine.runners.WorkerSlots`).
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
from portrait_core.text.redaction import redact_text
from tasks.deliver import deliver, deliver_edit, deliver_files, deliver_flow
from tasks.running import functions_of

Outcome = Literal["done", "held", "failed", "aside", "stopped"]
CLIPS_PER_WORKER = 2
STORE_FAILURES = 5
"""Consecutive clips that may fail because of the store before the run stops."""
_PREPARING_THREADS = 8
_DELIVERIES: Mapping[str, Callable[[Job, Path], object]] = {"edit": deliver_edit, "flow": deliver_flow}
"""Functions that deliver a pipeline's results beyond the files of its last stages, by goal."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class ClipResult:
    """Outcome of a clip in a run."""

    number: int
    """Number of the clip's row."""
    name: str
    """Name of the clip's output."""
    outcome: Outcome
    """``held``: done, with frames that show a neighbour. ``aside``: set aside, because it would only fail
    again; see ``portrait retry``."""
    message: str = ""
    """The reason, unless the clip is done."""
    frames: int = 0
    """Number of the clip's frames."""
    seconds: float = 0.0
    """Duration in this run."""
    cls: FailureClass | None = None
    """Failure class of its inputs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", redact_text(self.message))

    @classmethod
    def of_inputs(cls, number: int, name: str, error: Exception) -> ClipResult:
        """Return the result of a clip that cannot be prepared."""
        kind = classify(error)
        return cls(number, name, "failed", f"{kind}: {error}", cls=kind)


@dataclass(frozen=True)
class Clip:
    """A row of a manifest, or a stored clip, with its job."""

    number: int
    """Number of the clip's row."""
    name: str
    """Name of the clip's output."""
    job: Job
    retried: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Retried frames per stage."""


class DatasetRun:
    """Runs clips on one runner.

    Args:
        runner: executes the tasks of every clip.
        settings: settings of the run, which say how many clips are at work at once.
        out: folder with a folder per clip; None leaves the clips in the store.
        board: is told of every event.
        keep: what is dropped of a finished clip; None keeps all.
        functions: returns the functions of a stage.
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
        self._priorities = count()
        self._failed_stores = 0
        """Consecutive clips that failed because of the store."""
        self._ended: tuple[str, BaseException] | None = None
        """Clip and error that ended the whole run; None while it continues."""

    def run(self, items: Sequence[Item], prepare: Callable[[Item], Clip | ClipResult]) -> list[ClipResult]:
        """Run clips, of those that are ready the longest first, and return their results.

        Args:
            items: what the clips are made from.
            prepare: returns the clip of an item, or the result that says what is wrong with it.

        Raises:
            StageError: this process cannot use the GPU any more, one of its threads hangs, or the store
                failed for :data:`STORE_FAILURES` clips in a row. The clips at work were stopped, and the
                others not begun: all of them wait for the next run.
        """
        ahead = _PreparedAhead(items, prepare, 2 * self._at_once)
        pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="clip")
        # each with this thread's context, from which Prefect finds the flow run of a task run
        futures: list[Future[list[ClipResult]]] = [
            pool.submit(copy_context().run, self._work, ahead) for _ in range(self._at_once)
        ]
        try:
            results = [result for future in as_completed(futures) for result in future.result()]
        except BaseException as error:
            ahead.close()
            if not isinstance(error, Exception):  # Ctrl-C, SIGTERM, or Prefect's form of them
                self._runner.stop()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if self._ended is not None:
            name, why = self._ended
            stopped = len(items) - sum(result.outcome != "stopped" for result in results)
            raise StageError(
                f"{name}: {why}. The next run finds {stopped} of {len(items)} clips to do"
            ) from (why.__cause__ or why)
        return results

    def _work(self, ahead: _PreparedAhead[Any]) -> list[ClipResult]:
        """Finish one clip after the other, until none is left."""
        results = []
        while (taken := ahead.take()) is not None:
            result = self._not_begun(taken) if isinstance(taken, ClipResult) else self._clip(taken)
            if self._ended is not None:
                ahead.close()
            self._board.ended(result)
            results.append(result)
        return results

    def _not_begun(self, result: ClipResult) -> ClipResult:
        """Return the result of a clip whose inputs failed; end the run if the store is the cause."""
        if result.cls is None or not self._store_failed(result.cls):
            return result
        self._ended = self._ended or (f"row {result.number}, {result.name}", RuntimeError(result.message))
        return replace(result, outcome="stopped", message="")

    def _store_failed(self, cls: FailureClass) -> bool:
        """Count a failure, and tell whether the store has failed for too many clips in a row."""
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
        """Return the outcome and message of a failed clip; end the run if no clip can continue."""
        cls = classify(error.__cause__ or error) if isinstance(error, StageError) else classify(error)
        hangs = thread_hangs(error, clip.job)
        if hangs:
            cancellation.request()  # the thread keeps its slot, for which the others would wait
        if self._store_failed(cls) or gpu_gone(error) or hangs:
            self._ended = f"row {clip.number}, {clip.name}", error
            return "stopped", ""
        return "failed", f"{cls}: {error}"

    def _run_one(self, clip: Clip) -> int:
        """Finish one clip, and return how many of its frames show a neighbour."""
        job, begin, priority = clip.job, time.perf_counter(), next(self._priorities)
        earlier = delivered(job, self._out / clip.name if self._out else None)
        if earlier is not None:
            if self._keep is not None and drop(job, self._keep):  # left behind by a run that was killed
                record_state(job)
            return _held(earlier)

        def stages(only: Sequence[str] = ()) -> StageRunner:
            def report(line: str) -> None:
                self._board.report(clip.name, line)

            return StageRunner(job, self._runner, report, only, self._functions, priority)

        with kept_state(job):
            if "landmarks" in clip.retried:
                stages(("landmarks",)).run_all()
                if faces_appeared(job, clip.retried["landmarks"]):
                    mark_undone(job, ["person"])
                    self._runner.drop_loaded_models()
            runner = stages()
            runner.run_all()
            if self._keep is not None:
                if job.goal == "clip":  # the summary reads the losses before they are dropped
                    deliver(job, None, runner.records, time.perf_counter() - begin)
                drop(job, self._keep)
        return self._deliver(clip, runner.records, time.perf_counter() - begin)

    def _deliver(self, clip: Clip, records: Mapping[str, StageRecord], seconds: float) -> int:
        out = self._out / clip.name if self._out else None
        if clip.job.goal == "clip":
            return _held(deliver(clip.job, out, records, seconds))
        if out is not None:
            _DELIVERIES.get(clip.job.goal, deliver_files)(clip.job, out)
        return 0


def _held(summary: Summary) -> int:
    """Count the frames of a clip that show a neighbour."""
    return sum(len(frames) for frames in summary.held_frames.values())


class _PreparedAhead(Generic[Item]):
    """Prepares items a little ahead of their use, several at a time."""

    def __init__(
        self, items: Iterable[Item], prepare: Callable[[Item], Clip | ClipResult], max_waiting: int
    ) -> None:
        self._items, self._prepare, self._max_waiting = iter(items), prepare, max_waiting
        self._ready: list[tuple[int, int, Clip | ClipResult]] = []
        self._number, self._preparing, self._over = count(), 0, False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        for i in range(_PREPARING_THREADS):
            threading.Thread(
                target=copy_context().run, args=(self._run,), name=f"prepare-{i}", daemon=True
            ).start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._over or len(self._ready) + self._preparing < self._max_waiting
                )
                item = None if self._over else next(self._items, None)
                if item is None:
                    self._over = True
                    self._changed.notify_all()
                    return
                self._preparing += 1
            try:
                prepared = self._prepare(item)
            except BaseException as error:
                with self._changed:
                    self._error, self._over = error, True
                    self._changed.notify_all()
                return
            with self._changed:
                self._preparing -= 1
                # Problems come first; then the longest clip, so that no long one is left for the end.
                rank = -prepared.job.frames if isinstance(prepared, Clip) else -(2**62)
                heapq.heappush(self._ready, (rank, next(self._number), prepared))
                self._changed.notify_all()

    def take(self) -> Clip | ClipResult | None:
        """Take the longest clip that is ready; None when none is left.

        Raises:
            BaseException: raised by the preparation of an item.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._ready or (self._over and not self._preparing))
            if self._error is not None:
                raise self._error
            if not self._ready:
                return None
            longest = heapq.heappop(self._ready)[2]
            self._changed.notify_all()
            return longest

    def close(self) -> None:
        """Prepare no further item, and return none."""
        with self._changed:
            self._over = True
            self._ready.clear()
            self._changed.notify_all()
