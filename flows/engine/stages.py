"""Execution of a job's stages in their order, on any runner.

Every stage first asks the store which of its parts are done; a finished stage costs some listings. Failures
are written to the store's failure table and reported; a clip continues as long as failed frames can be held
from a neighbour.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import tasks.pipelines  # noqa: F401 - registers what jobs name
from flows.engine.calls import Report, StageCalls
from flows.engine.runners import Runner
from flows.engine.task_runs import as_task_run
from portrait_core.errors import InputError, MissingChunk
from portrait_core.pipeline import FrameRange, Job
from portrait_core.pipeline.classification import StalledTaskError, breaks_gpu, is_disk_full
from portrait_core.pipeline.ledger import (
    Ledger,
    done_frames,
    invalidate,
    mark_dropped_undone,
    read_failures,
    unfinished_frames,
)
from portrait_core.pipeline.ranges import frame_ranges
from portrait_core.pipeline.results import StageRecord
from portrait_core.pipeline.state import save_job
from portrait_core.runtime import cancellation
from portrait_core.runtime.cancellation import StopRequested
from portrait_core.store.leases import Holder, Lease
from portrait_core.store.waiting import wait_until
from portrait_core.text.redaction import redact_text
from tasks.running import StageFunction, functions_of

_log = logging.getLogger(__name__)
_MAX_REPAIRS = 3
"""Maximum number of times that a run returns to recompute damaged data."""
_MAX_ROUNDS = 2
"""Maximum number of times that a stage's tasks are sent while they report success and parts are left."""

Functions = Callable[[str], tuple[StageFunction, ...]]
"""Function that returns the functions of a stage (:func:`tasks.running.functions_of`)."""


class StageError(RuntimeError):
    """A stage that later stages need did not finish; giving the same command again continues it.

    The message shows no secrets.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redact_text(message))


def gpu_gone(error: BaseException) -> bool:
    """Tell whether a run stopped because its process cannot use the GPU any more.

    Nothing else should run in that process.
    """
    return isinstance(error, StageError) and error.__cause__ is not None and breaks_gpu(error.__cause__)


def thread_hangs(error: BaseException, job: Job) -> bool:
    """Tell whether a run stopped because a thread of this process stalled.

    The thread cannot be ended and keeps its slot: nothing else should run in the process.
    """
    return job.settings.runner.kind == "threads" and isinstance(error.__cause__, StalledTaskError)


@contextmanager
def stop_request_cleared() -> Iterator[None]:
    """Clear the request to stop when the block ends because the GPU is gone or a thread hangs.

    Every loop of the process was asked to stop, and has; later work must not stop as well.
    """
    try:
        yield
    except StageError as error:
        if gpu_gone(error) or isinstance(error.__cause__, StalledTaskError):
            cancellation.clear()
        raise


class StageRunner:
    """Runs the stages of one job in order.

    Args:
        job: the job.
        runner: executes its tasks.
        report: shows a line about a failure.
        only: stages to run; the others must be finished. Empty means all.
        functions: returns the functions of a stage.
        priority: number of the job; of the tasks that wait for the same workers, the lowest number goes
            first.
    """

    def __init__(
        self,
        job: Job,
        runner: Runner,
        report: Report = lambda line: None,
        only: Sequence[str] = (),
        functions: Functions = functions_of,
        priority: int = 0,
    ) -> None:
        self._job, self._runner, self._report, self._priority = job, runner, report, priority
        self._functions = functions
        self._only = only or job.stages
        self._lease = ""
        self.records: dict[str, StageRecord] = {}

    def run_all(self) -> None:
        """Run every stage that is not finished, and repeat this when stored data proves to be damaged.

        Raises:
            InputError: the portrait or the video is not usable.
            StageError: a stage stopped the run.
        """
        for _ in range(_MAX_REPAIRS):
            try:
                self._run_missing_stages()
                return
            except StageError as error:
                if not self._repaired(error.__cause__):
                    raise
        self._run_missing_stages()

    def _repaired(self, error: BaseException | None) -> bool:
        if not isinstance(error, MissingChunk) or not invalidate(self._job, error):
            return False
        self._report(f"recomputing damaged data: {error}")
        return True

    def _run_missing_stages(self) -> None:
        ledger = Ledger(self._job)
        missing = [stage for stage, frames in ledger.frames_to_do().items() if frames.any()]
        if missing and self._job.edited is not None:
            self._edit_portrait(self._job.edited)
        for _, group in groupby(self._job.stages, key=self._job.unit_of):
            stages = [stage for stage in group if stage in self._only]
            if not any(stage in missing for stage in stages):
                continue
            with self._hold_unit(stages[0]) as hold:
                for stage in stages:
                    self._lease = hold(stage)
                    if stage in missing and Ledger(self._job).dropped_names(stage):
                        mark_dropped_undone(self._job, stage)
                    self._run_stage(stage)

    def _edit_portrait(self, edit: Job) -> None:
        """Make the portrait that is animated where it is an edit of the given one."""
        if not Ledger(edit).is_finished():
            save_job(edit)
            StageRunner(
                edit, self._runner, self._report, functions=self._functions, priority=self._priority
            ).run_all()

    @contextmanager
    def _hold_unit(self, stage: str) -> Iterator[Callable[[str], str]]:
        """Hold the lease on the unit that a stage writes; another run that wants the unit waits.

        Yields:
            A function to call before each stage. It returns the lease's owner, and waits while a run that
            took this one for dead holds the unit.
        """
        unit = self._job.unit(stage)

        def report_holder(holder: Holder) -> None:
            self._report(f"{holder} is working on {unit.kind} {unit.read_label()}: waiting for it")

        lease = Lease(unit, self._job.settings.runner.lease_s)

        def hold(stage: str) -> str:
            if not lease.acquire(report_holder, cancellation.requested):
                cancellation.check()
            lease.set_stage(stage)
            return lease.owner

        try:
            yield hold
        finally:
            lease.release()

    def _run_stage(self, stage: str) -> None:
        """Run one stage as far as possible, and raise if the stages after it cannot continue."""
        if unfinished_frames(self._job, stage).any():
            title = f"{self._job.label}: {self._job.stage(stage).title}"
            as_task_run(stage, title, (self._job.goal, self._job.label), lambda: self._compute_stage(stage))
        else:
            self._require_enough(stage, [])

    def _compute_stage(self, stage: str) -> None:
        record = self.records.setdefault(stage, StageRecord(stage))
        errors: list[BaseException] = []
        try:
            Ledger(self._job).output(stage).describe(self._job.recipe(stage))
            for _ in range(_MAX_ROUNDS):
                for function, ranges in self._call_groups(stage):
                    errors += self._stage_calls(stage).run(record, function, ranges)
                    if errors:
                        break  # a chain does not continue behind a range that stopped
                if errors or self._becomes_finished(stage):
                    break
        except OSError as error:  # raised by the flow's own writes: recipes and costs
            errors.append(error)
        self._require_enough(stage, errors)
        title = self._job.stage(stage).title
        parts = f"{record.frames_done} part{'s' * (record.frames_done != 1)}"
        _log.info("%s: %s: %s in %.1f s", self._job.label, title, parts, record.seconds)

    def _stage_calls(self, stage: str) -> StageCalls:
        return StageCalls(self._job, stage, self._runner, self._report, self._priority, self._lease)

    def _becomes_finished(self, stage: str) -> bool:
        """Tell whether nothing is left to do after all tasks reported success.

        Markers of another host may be listed here a minute later, and a task on a host whose listing lagged
        did less than it was asked.
        """
        return wait_until(lambda: not unfinished_frames(self._job, stage).any())

    def _call_groups(self, stage: str) -> list[tuple[StageFunction, Sequence[FrameRange | None]]]:
        """Return a stage's functions with their frame ranges, grouped by what may run at the same time."""
        *before, last = self._functions(self._job.stage(stage).done_by)
        calls: list[tuple[StageFunction, Sequence[FrameRange | None]]] = [(one, [None]) for one in before]
        if not (last.ranged and self._job.stage(stage).parallel_over_frames):
            return [*calls, (last, [None])]
        ranges = frame_ranges(self._job.total(stage), self._job.settings.runner.frames_per_task)
        if self._job.is_chained(stage):
            return [*calls, *((last, [span]) for span in ranges)]
        return [*calls, (last, ranges)]

    def _require_enough(self, stage: str, errors: Sequence[BaseException]) -> None:
        """Raise unless the stage is finished, or enough of it is there to continue."""
        ledger = Ledger(self._job)
        finished = ledger.done_frames(stage)
        broken = next((error for error in errors if breaks_gpu(error)), None)
        if broken is not None:
            raise self._stage_error(stage, finished, [broken])
        if finished.all():
            return
        wrong = next((error for error in errors if isinstance(error, InputError)), None)
        if wrong is not None:
            raise wrong
        stopped = next((error for error in errors if isinstance(error, StopRequested)), None)
        if stopped is not None:
            raise stopped
        enough = self._job.stage(stage).fill_from_neighbour and finished.any()
        if not enough or ledger.unfinished_frames(stage).any():
            raise self._stage_error(stage, finished, errors)

    def _stage_error(self, stage: str, finished: Any, errors: Sequence[BaseException]) -> StageError:
        rows = read_failures(self._job, stage)
        why = str(errors[0]) if errors else ""
        if not why and len(rows):
            why = str(rows["message"].iloc[-1])
        advice = "Give the same command again to continue from there"
        if errors and breaks_gpu(errors[0]):
            advice = (
                "Nothing that is finished is lost: give the same command again, and another process "
                "continues from there"
            )
        elif errors and is_disk_full(errors[0]):
            advice = "The store's disk is full: free some space, then give the same command again"
        elif any(
            Ledger(self._job).quarantined_frames(n).any() for n in (stage, self._job.frame_input(stage)) if n
        ):
            advice += "; `portrait retry` retries what was set aside"
        error = StageError(
            f"{self._message_prefix}the stage {stage} stopped with {int(finished.sum())} of "
            f"{len(finished)} parts done{': ' + why if why else ''}. {advice}"
        )
        error.__cause__ = errors[0] if errors else None
        return error

    @property
    def _message_prefix(self) -> str:
        """Message prefix per goal; separates failures of a portrait's edit from those of its clip."""
        return "in the portrait's edit, " if self._job.goal == "edit" else ""


def check_only(job: Job, only: Sequence[str]) -> None:
    """Refuse to run stages whose inputs are not in the store.

    Raises:
        InputError: names the stages that must run first.
    """
    read = {before for stage in only for before in job.pipeline.reads(stage)} - set(only)
    absent = [stage for stage in job.stages if stage in read and not done_frames(job, stage).any()]
    if absent:
        raise InputError(
            f"--only {', '.join(only)}: the store has nothing of {', '.join(absent)} yet, which these stages "
            f"read; name {'it' if len(absent) == 1 else 'them'} too, or leave --only out"
        )
