"""The stages of one reenactment in their order, on whatever runner there is.

Every stage first asks the store what is done; a finished stage costs some listings. What fails is written to
the store's failure table and reported; the clip goes on as long as there is something to hold.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import tasks.pipelines  # noqa: F401 - registers what jobs name
from flows.runners import Pending, Runner
from flows.task_runs import as_task_run
from flows.watchdog import Watchdog
from portrait_core import stopping
from portrait_core.classification import (
    StalledTaskError,
    disk_full,
    failure,
    gpu_broke,
    worker_died,
    worth_retrying,
)
from portrait_core.errors import InputError, MissingChunk
from portrait_core.pipeline import FrameRange, Job
from portrait_core.pipeline.history import note_cost, progress
from portrait_core.pipeline.ledger import (
    Ledger,
    distrust,
    done,
    record_failures,
    restore,
    unfinished,
)
from portrait_core.pipeline.ranges import frame_ranges, missing_runs
from portrait_core.pipeline.results import StageRecord, process_name
from portrait_core.pipeline.state import keep_job
from portrait_core.stopping import StopRequested
from portrait_core.store import Failure
from portrait_core.store.leases import Holder, Lease
from portrait_core.store.waiting import wait_until
from tasks.running import Call, StageFunction, functions_of
from tasks.stages.landmarks import give_up

_log = logging.getLogger(__name__)
_REPAIRS = 3
"""Times that a run goes back to make damaged data again."""
_ROUNDS = 2
"""Times that a stage's tasks are sent while they report success and something is left."""
_DEATHS = 2
"""Workers that a unit may kill, without getting any further, before it is set aside."""

Report = Callable[[str], None]
"""Takes one line for the user."""
Functions = Callable[[str], tuple[StageFunction, ...]]
"""Gives what does a stage (:func:`tasks.running.functions_of`)."""
Failed = list[tuple[FrameRange | None, BaseException]]


class StageError(RuntimeError):
    """A stage that everything after it needs did not finish; giving the command again continues it."""


def gpu_gone(error: BaseException) -> bool:
    """Say whether a run stopped because its process cannot use the GPU any more: nothing else should run in
    it then."""
    return isinstance(error, StageError) and error.__cause__ is not None and gpu_broke(error.__cause__)


@contextmanager
def stops_forgotten() -> Iterator[None]:
    """Forget, when the block ends because the GPU is gone, that every loop of the process was asked to stop
    for it: all of them have stopped, and what runs later without a GPU must not stop."""
    try:
        yield
    except StageError as error:
        if gpu_gone(error):
            stopping.clear()
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
        if not isinstance(error, MissingChunk) or not distrust(self._job, error):
            return False
        self._report(f"making again: {error}")
        return True

    def _once(self) -> None:
        ledger = Ledger(self._job)
        wanted = [stage for stage, frames in ledger.missing().items() if frames.any()]
        if wanted and self._job.edited is not None:
            self._portrait_edited(self._job.edited)
        for stage in wanted:
            if ledger.dropped(stage):
                restore(self._job, stage)
        for _, group in groupby(self._job.stages, key=self._job.unit_of):
            stages = [stage for stage in group if stage in self._only]
            if not any(stage in wanted for stage in stages):
                continue
            with self._leased(stages[0]) as hold:
                for stage in stages:
                    self._lease = hold(stage)
                    self._stage(stage)

    def _portrait_edited(self, edit: Job) -> None:
        """Make the portrait that is animated, which is an edit of the one that was given."""
        if not Ledger(edit).finished():
            keep_job(edit)
            StageRunner(edit, self._runner, self._report, functions=self._functions, turn=self._turn).all()

    @contextmanager
    def _leased(self, stage: str) -> Iterator[Callable[[str], str]]:
        """This run's hold on the unit that a stage writes: another run that wants it waits. What it gives is
        called before each stage and gives the lease's owner; it waits as long as a run that took this one for
        dead has the unit."""
        unit = self._job.unit(stage)

        def tell(holder: Holder) -> None:
            self._report(f"{holder} is working on {unit.kind} {unit.read_label()}: waiting for it")

        lease = Lease(unit, self._job.settings.runner.lease_s)

        def hold(stage: str) -> str:
            if not lease.acquire(tell, stopping.requested):
                stopping.check()
            lease.note(stage)
            return lease.owner

        try:
            yield hold
        finally:
            lease.release()

    def _stage(self, stage: str) -> None:
        """Bring one stage as far as it goes; raise if what follows cannot go on from there."""
        if unfinished(self._job, stage).any():
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
                    errors += self._run(record, function, ranges)
                    if errors:
                        break  # a chain does not go on behind a range that stopped
                if errors or self._settled(stage):
                    break
        except OSError as error:  # what the flow itself writes: recipes, costs
            errors.append(error)
        self._check(stage, errors)
        title = self._job.stage(stage).title
        _log.info("%s: %s: %d parts in %.1f s", self._job.label, title, record.frames_done, record.seconds)

    def _settled(self, stage: str) -> bool:
        """Whether nothing is left to do, after all tasks reported success. Another host's markers may be
        listed here a minute later; and a task on a host whose listing lagged did less than it was asked."""
        return wait_until(lambda: not unfinished(self._job, stage).any())

    def _calls(self, stage: str) -> list[tuple[StageFunction, Sequence[FrameRange | None]]]:
        """The functions of a stage with what each is called for, in groups that may run at the same time."""
        *before, last = self._functions(stage)
        calls: list[tuple[StageFunction, Sequence[FrameRange | None]]] = [(one, [None]) for one in before]
        if not (last.ranged and self._job.stage(stage).parallel_over_frames):
            return [*calls, (last, [None])]
        ranges = frame_ranges(self._job.total(stage), self._job.settings.runner.frames_per_task)
        if self._job.chained(stage):
            return [*calls, *((last, [span]) for span in ranges)]
        return [*calls, (last, ranges)]

    def _check(self, stage: str, errors: Sequence[BaseException]) -> None:
        """Raise unless the stage is finished, or as far as it can be with enough to go on."""
        ledger = Ledger(self._job)
        there = ledger.done(stage)
        broken = next((error for error in errors if gpu_broke(error)), None)
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
        if not enough or ledger.unfinished(stage).any():
            raise self._stopped(stage, there, errors)

    def _stopped(self, stage: str, there: Any, errors: Sequence[BaseException]) -> StageError:
        rows = self._job.unit(stage).failures()
        why = str(errors[0]) if errors else ""
        if not why and len(rows := rows[rows["stage"] == stage]):
            why = str(rows["message"].iloc[-1])
        advice = "Give the same command again to continue from there"
        if errors and gpu_broke(errors[0]):
            advice = (
                "Nothing that is finished is lost: give the same command again, and another process "
                "continues from there"
            )
        elif errors and disk_full(errors[0]):
            advice = "The store's disk is full: make room, then give the same command again"
        elif any(Ledger(self._job).aside(n).any() for n in (stage, self._job.frame_input(stage)) if n):
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

    def _run(
        self, record: StageRecord, task: StageFunction, ranges: Sequence[FrameRange | None]
    ) -> list[BaseException]:
        """Do a group of calls, whatever dies meanwhile, and give back the errors that are left."""
        begin, cpu, known = time.perf_counter(), time.process_time(), len(record.results)
        failed = self._attempt(record, task, ranges)
        if hung(failed) and self._job.settings.runner.kind == "threads":
            return [error for _, error in failed]  # a thread cannot be ended
        killed = [span for span, error in failed if worker_died(error)]
        errors = [error for _, error in failed if not worker_died(error)]
        if killed:
            errors += self._after_deaths(record, task, killed, in_order=len(ranges) == 1)
        seconds = time.perf_counter() - begin
        new, here = record.results[known:], process_name()
        record.seconds += seconds
        elsewhere = sum(r.cpu_seconds for r in new if r.process != here)
        record.cpu_seconds += time.process_time() - cpu + elsewhere
        note_cost(self._job, record.stage, seconds, new)
        return errors

    def _attempt(
        self, record: StageRecord, task: StageFunction, spans: Sequence[FrameRange | None]
    ) -> Failed:
        """Submit calls, wait for all of them, and give back those that failed."""
        failed: Failed = []
        pending: list[tuple[FrameRange | None, Pending]] = []
        seen, watchdog = self._seen(record.stage), Watchdog(self._job, record.stage)
        try:
            for span in spans:
                with self._collecting(record, span, failed):
                    call = self._call(task, span, seen)
                    pending.append((span, self._runner.submit(call, self._turn)))
            for span, future in pending:
                with self._collecting(record, span, failed):
                    result = future.result(watchdog.look)
                    record.results.append(result)
                    record.frames_done += result.frames_done
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C, SIGTERM, or what Prefect makes of them
                self._report("finishing the frames and steps at work (once more: at once)")
                self._runner.stop()
            raise
        return failed

    def _seen(self, stage: str) -> dict[str, int]:
        """Frames that are done of the stages that one reads, for workers of other hosts."""
        runner = self._job.settings.runner
        if runner.kind in ("threads", "local_cluster", "local_gpus"):
            return {}
        ledger = Ledger(self._job)
        before = [one for one in self._job.pipeline.reads(stage) if self._job.stage(one).per_frame]
        return {one: len(ledger.output(one).marked()) for one in before}

    def _call(self, function: StageFunction, span: FrameRange | None, seen: Mapping[str, int]) -> Call:
        runner = self._job.settings.runner
        where = {} if span is None else {"start": span.start, "stop": span.stop}
        return Call(
            function.module,
            function.name,
            {"job": self._job, **where},
            runner.retries,
            runner.retry_delay_s,
            socket.gethostname(),
            seen,
            self._lease,
            function.stage,
        )

    @contextmanager
    def _collecting(self, record: StageRecord, span: FrameRange | None, failed: Failed) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # cancelled, or refused by a pool that closes: no fault of the frames
            if stopping.requested() and not gpu_broke(error):
                failed.append((span, StopRequested()))
                return
            self._tell(record.stage, span, error)
            failed.append((span, error))

    def _tell(self, stage: str, span: FrameRange | None, error: BaseException) -> None:
        """Record that a call failed as a whole; no frame is set aside for that (:mod:`tasks.frames` does)."""
        if isinstance(error, StopRequested):
            return
        retries = self._job.settings.runner.retries
        attempt = retries + 1 if worth_retrying(error) else 1
        row = failure(stage, None, error, self._job.stage_keys[stage], attempt)
        if worker_died(error):  # nobody's fault yet
            row = Failure(stage, None, "transient", "the worker died", key=row.key)
        record_failures(self._job, stage, [row])
        where = "" if span is None else f", frames {span.start} to {span.stop - 1}"
        self._report(f"{stage}{where}: {row.cls} failure: {row.message}")

    def _after_deaths(
        self,
        record: StageRecord,
        task: StageFunction,
        killed: Sequence[FrameRange | None],
        in_order: bool,
    ) -> list[BaseException]:
        """Find out which frame kills its worker: each frame that is left is done by itself, and those whose
        workers die again once more with nothing beside them. What kills then is set aside."""
        stage = record.stage
        if None in killed:
            return self._alone(record, task, None)
        runs = [run for span in killed if span for run in missing_runs(~unfinished(self._job, stage), span)]
        singles = [FrameRange(i, i + 1) for run in runs for i in range(*run)]
        errors: list[BaseException] = []
        groups = [[single] for single in singles] if in_order else [singles]
        for group in groups:
            failed = self._attempt(record, task, group)
            errors += [error for _, error in failed if not worker_died(error)]
            for span in [span for span, error in failed if worker_died(error)]:
                errors += self._alone(record, task, span)
        return errors

    def _alone(
        self, record: StageRecord, task: StageFunction, span: FrameRange | None
    ) -> list[BaseException]:
        """One call again, with nothing beside it, for as long as it gets further before its worker dies."""
        stage, deaths, reached = record.stage, 1, progress(self._job, record.stage)
        while deaths < _DEATHS:
            failed = self._attempt(record, task, [span])
            if not failed or not worker_died(failed[0][1]):
                return [error for _, error in failed]
            got = progress(self._job, stage)
            deaths, reached = (1, got) if got > reached else (deaths + 1, got)
        frame = None if span is None else span.start
        why = f"its worker died each of {deaths} times that it was done by itself"
        row = Failure(stage, frame, "poison", why, attempt=deaths + 1, key=self._job.stage_keys[stage])
        record_failures(self._job, stage, [row])
        self._report(f"{stage}{'' if frame is None else f', frame {frame}'}: set aside: {why}")
        if stage == "landmarks" and frame is not None:
            give_up(self._job, frame)
        return (
            []
            if frame is not None and self._job.stage(stage).per_frame
            else [RuntimeError(f"set aside: {why}")]
        )


def hung(failed: Failed) -> bool:
    """Whether a task that failed got no further."""
    return any(isinstance(error, StalledTaskError) for _, error in failed)


def check_only(job: Job, only: Sequence[str]) -> None:
    """Refuse to run stages without those they read.

    Raises:
        InputError: naming the stages that must be run first.
    """
    read = {before for stage in only for before in job.pipeline.reads(stage)} - set(only)
    absent = [stage for stage in job.stages if stage in read and not done(job, stage).any()]
    if absent:
        raise InputError(
            f"--only {', '.join(only)}: the store has nothing of {', '.join(absent)} yet, which they read; "
            f"name {'it' if len(absent) == 1 else 'them'} too, or leave --only out"
        )
