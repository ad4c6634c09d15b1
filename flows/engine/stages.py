"""The stages of one reenactment in their order, on whatever runner there is.

Every stage first asks the store what is done; a finished stage costs some listings. What fails is written to
the store's failure table and reported; the clip goes on as long as there is something to hold.
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
from tasks.running import StageFunction, functions_of

_log = logging.getLogger(__name__)
_REPAIRS = 3
"""Times that a run goes back to make damaged data again."""
_ROUNDS = 2
"""Times that a stage's tasks are sent while they report success and something is left."""

Functions = Callable[[str], tuple[StageFunction, ...]]
"""Gives what does a stage (:func:`tasks.running.functions_of`)."""


class StageError(RuntimeError):
    """A stage that everything after it needs did not finish; giving the command again continues it."""


def gpu_gone(error: BaseException) -> bool:
    """Say whether a run stopped because its process cannot use the GPU any more: nothing else should run in
    it then.
    """
    return isinstance(error, StageError) and error.__cause__ is not None and breaks_gpu(error.__cause__)


def thread_hangs(error: BaseException, job: Job) -> bool:
    """Say whether a run stopped because a thread of this process got no further. It cannot be ended, and
    keeps its place among the workers: nothing else should run in the process.
    """
    return job.settings.runner.kind == "threads" and isinstance(error.__cause__, StalledTaskError)


@contextmanager
def stops_forgotten() -> Iterator[None]:
    """Forget, when the block ends because the GPU is gone or a thread hangs, that every loop of the process
    was asked to stop for it: all of them have stopped, and what runs later must not stop.
    """
    try:
        yield
    except StageError as error:
        if gpu_gone(error) or isinstance(error.__cause__, StalledTaskError):
            cancellation.clear()
        raise


class StageRunner:
    """Runs the stages of one job, one after the other.

    Args:
        job: what to do.
        runner: where its tasks run.
        report: hears of failures.
        only: stages to run; the others must be finished. Empty means all.
        functions: what does each stage.
        turn: of its tasks among those of other jobs that wait for the same workers: the lowest goes first.
    """

    def __init__(
        self,
        job: Job,
        runner: Runner,
        report: Report = lambda line: None,
        only: Sequence[str] = (),
        functions: Functions = functions_of,
        turn: int = 0,
    ) -> None:
        self._job, self._runner, self._report, self._turn = job, runner, report, turn
        self._functions = functions
        self._only = only or job.stages
        self._lease = ""
        self.records: dict[str, StageRecord] = {}

    def all(self) -> None:
        """Run every stage that is not finished; once more when stored data turned out to be damaged.

        Raises:
            InputError: when the portrait or the video cannot be used.
            StageError: when a stage stopped the run.
        """
        for _ in range(_REPAIRS):
            try:
                return self._once()
            except StageError as error:
                if not self._repaired(error.__cause__):
                    raise
        self._once()

    def _repaired(self, error: BaseException | None) -> bool:
        if not isinstance(error, MissingChunk) or not invalidate(self._job, error):
            return False
        self._report(f"making again: {error}")
        return True

    def _once(self) -> None:
        ledger = Ledger(self._job)
        wanted = [stage for stage, frames in ledger.frames_to_do().items() if frames.any()]
        if wanted and self._job.edited is not None:
            self._portrait_edited(self._job.edited)
        for _, group in groupby(self._job.stages, key=self._job.unit_of):
            stages = [stage for stage in group if stage in self._only]
            if not any(stage in wanted for stage in stages):
                continue
            with self._leased(stages[0]) as hold:
                for stage in stages:
                    self._lease = hold(stage)
                    if stage in wanted and Ledger(self._job).dropped_names(stage):
                        mark_dropped_undone(self._job, stage)
                    self._stage(stage)

    def _portrait_edited(self, edit: Job) -> None:
        """Make the portrait that is animated, which is an edit of the one that was given."""
        if not Ledger(edit).is_finished():
            save_job(edit)
            StageRunner(edit, self._runner, self._report, functions=self._functions, turn=self._turn).all()

    @contextmanager
    def _leased(self, stage: str) -> Iterator[Callable[[str], str]]:
        """This run's hold on the unit that a stage writes: another run that wants it waits. What it gives is
        called before each stage and gives the lease's owner; it waits as long as a run that took this one for
        dead has the unit.
        """
        unit = self._job.unit(stage)

        def tell(holder: Holder) -> None:
            self._report(f"{holder} is working on {unit.kind} {unit.read_label()}: waiting for it")

        lease = Lease(unit, self._job.settings.runner.lease_s)

        def hold(stage: str) -> str:
            if not lease.acquire(tell, cancellation.requested):
                cancellation.check()
            lease.set_stage(stage)
            return lease.owner

        try:
            yield hold
        finally:
            lease.release()

    def _stage(self, stage: str) -> None:
        """Bring one stage as far as it goes; raise if what follows cannot go on from there."""
        if unfinished_frames(self._job, stage).any():
            title = f"{self._job.label}: {self._job.stage(stage).title}"
            as_task_run(stage, title, (self._job.goal, self._job.label), lambda: self._do(stage))
        else:
            self._check(stage, [])

    def _do(self, stage: str) -> None:
        record = self.records.setdefault(stage, StageRecord(stage))
        errors: list[BaseException] = []
        try:
            Ledger(self._job).output(stage).describe(self._job.recipe(stage))
            for _ in range(_ROUNDS):
                for function, ranges in self._calls(stage):
                    errors += self._calls_of(stage).run(record, function, ranges)
                    if errors:
                        break  # a chain does not go on behind a range that stopped
                if errors or self._settled(stage):
                    break
        except OSError as error:  # what the flow itself writes: recipes, costs
            errors.append(error)
        self._check(stage, errors)
        title = self._job.stage(stage).title
        parts = f"{record.frames_done} part{'s' * (record.frames_done != 1)}"
        _log.info("%s: %s: %s in %.1f s", self._job.label, title, parts, record.seconds)

    def _calls_of(self, stage: str) -> StageCalls:
        return StageCalls(self._job, stage, self._runner, self._report, self._turn, self._lease)

    def _settled(self, stage: str) -> bool:
        """Tell whether nothing is left to do, after all tasks reported success. Another host's markers may be
        listed here a minute later; and a task on a host whose listing lagged did less than it was asked.
        """
        return wait_until(lambda: not unfinished_frames(self._job, stage).any())

    def _calls(self, stage: str) -> list[tuple[StageFunction, Sequence[FrameRange | None]]]:
        """The functions of a stage with what each is called for, in groups that may run at the same time."""
        *before, last = self._functions(stage)
        calls: list[tuple[StageFunction, Sequence[FrameRange | None]]] = [(one, [None]) for one in before]
        if not (last.ranged and self._job.stage(stage).parallel_over_frames):
            return [*calls, (last, [None])]
        ranges = frame_ranges(self._job.total(stage), self._job.settings.runner.frames_per_task)
        if self._job.is_chained(stage):
            return [*calls, *((last, [span]) for span in ranges)]
        return [*calls, (last, ranges)]

    def _check(self, stage: str, errors: Sequence[BaseException]) -> None:
        """Raise unless the stage is finished, or as far as it can be with enough to go on."""
        ledger = Ledger(self._job)
        there = ledger.done_frames(stage)
        broken = next((error for error in errors if breaks_gpu(error)), None)
        if broken is not None:
            raise self._stopped(stage, there, [broken])
        if there.all():
            return
        wrong = next((error for error in errors if isinstance(error, InputError)), None)
        if wrong is not None:
            raise wrong
        stopped = next((error for error in errors if isinstance(error, StopRequested)), None)
        if stopped is not None:
            raise stopped
        enough = self._job.stage(stage).fill_from_neighbour and there.any()
        if not enough or ledger.unfinished_frames(stage).any():
            raise self._stopped(stage, there, errors)

    def _stopped(self, stage: str, there: Any, errors: Sequence[BaseException]) -> StageError:
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
            advice = "The store's disk is full: make room, then give the same command again"
        elif any(
            Ledger(self._job).quarantined_frames(n).any() for n in (stage, self._job.frame_input(stage)) if n
        ):
            advice += "; `portrait retry` takes up what was set aside"
        error = StageError(
            f"{self._whose}the stage {stage} stopped with {int(there.sum())} of "
            f"{len(there)} parts done{': ' + why if why else ''}. {advice}"
        )
        error.__cause__ = errors[0] if errors else None
        return error

    @property
    def _whose(self) -> str:
        """What says of whom a message speaks: a clip's run edits its portrait too."""
        return "in the portrait's edit, " if self._job.goal == "edit" else ""


def check_only(job: Job, only: Sequence[str]) -> None:
    """Refuse to run stages without those they read.

    Raises:
        InputError: naming the stages that must be run first.
    """
    read = {before for stage in only for before in job.pipeline.reads(stage)} - set(only)
    absent = [stage for stage in job.stages if stage in read and not done_frames(job, stage).any()]
    if absent:
        raise InputError(
            f"--only {', '.join(only)}: the store has nothing of {', '.join(absent)} yet, which they read; "
            f"name {'it' if len(absent) == 1 else 'them'} too, or leave --only out"
        )
