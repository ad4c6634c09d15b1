"""The calls of a stage's functions: sent to a runner, waited for, and sent again where workers died."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from flows.engine.runners import Pending, Runner
from flows.engine.watchdog import Watchdog
from portrait_core.pipeline import FrameRange, Job
from portrait_core.pipeline.classification import (
    StalledTaskError,
    breaks_gpu,
    is_worker_death,
    is_worth_retrying,
    make_failure,
)
from portrait_core.pipeline.history import add_cost, read_progress
from portrait_core.pipeline.ledger import Ledger, record_failures, unfinished_frames
from portrait_core.pipeline.ranges import missing_runs
from portrait_core.pipeline.results import StageRecord, process_name
from portrait_core.runtime import cancellation
from portrait_core.runtime.cancellation import StopRequested
from portrait_core.store import Failure
from tasks.running import Call, StageFunction
from tasks.stages.landmarks import give_up

_DEATHS = 2
"""Workers that a unit may kill, without getting any further, before it is set aside."""
_OWN_HOST = ("threads", "local_cluster", "local_gpus")
"""Kinds of runners whose tasks see the store as the flow does."""

Report = Callable[[str], None]
"""Takes one line for the user."""
Failed = list[tuple[FrameRange | None, BaseException]]


class StageCalls:
    """Calls of one stage.

    Args:
        job: whose stage it is.
        stage: its name.
        runner: where the calls run.
        report: hears of failures.
        turn: of the calls among those of other jobs that wait for the same workers: the lowest goes first.
        lease: owner of the flow's lease on the unit that the stage writes.
    """

    def __init__(
        self, job: Job, stage: str, runner: Runner, report: Report, turn: int = 0, lease: str = ""
    ) -> None:
        self._job, self._stage, self._runner, self._report = job, stage, runner, report
        self._turn, self._lease = turn, lease

    def run(
        self, record: StageRecord, function: StageFunction, ranges: Sequence[FrameRange | None]
    ) -> list[BaseException]:
        """Do a group of calls, whatever dies meanwhile, and give back the errors that are left."""
        begin, cpu, known = time.perf_counter(), time.process_time(), len(record.results)
        failed = self._attempt(record, function, ranges)
        if hung(failed) and self._job.settings.runner.kind == "threads":
            return [error for _, error in failed]  # a thread cannot be ended
        killed = [span for span, error in failed if is_worker_death(error)]
        errors = [error for _, error in failed if not is_worker_death(error)]
        if killed:
            errors += self._after_deaths(record, function, killed, in_order=len(ranges) == 1)
        seconds = time.perf_counter() - begin
        new, here = record.results[known:], process_name()
        record.seconds += seconds
        elsewhere = sum(r.cpu_seconds for r in new if r.process != here)
        record.cpu_seconds += time.process_time() - cpu + elsewhere
        add_cost(self._job, self._stage, seconds, new)
        return errors

    def _attempt(
        self, record: StageRecord, function: StageFunction, spans: Sequence[FrameRange | None]
    ) -> Failed:
        """Submit calls, wait for all of them, and give back those that failed."""
        failed: Failed = []
        pending: list[tuple[FrameRange | None, Pending]] = []
        seen, watchdog = self._seen(), Watchdog(self._job, self._stage)

        def look() -> None:
            if any(not future.done() for _, future in pending):  # else it is not our turn yet
                watchdog.look()

        try:
            for place, span in enumerate(spans):
                with self._collecting(record, span, failed):
                    call = self._call(function, span, seen)
                    pending.append((span, self._runner.submit(call, self._turn, look=look)))
                if hung(failed):  # those at work keep the places: they are ended first
                    failed += [(later, failed[-1][1]) for later in spans[place + 1 :]]
                    break
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

    def _seen(self) -> dict[str, int]:
        """Count the frames that are done of the stages that this one reads, for workers of other hosts."""
        if self._job.settings.runner.kind in _OWN_HOST:
            return {}
        ledger = Ledger(self._job)
        before = [one for one in self._job.pipeline.reads(self._stage) if self._job.stage(one).per_frame]
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
            if cancellation.requested() and not breaks_gpu(error):
                failed.append((span, StopRequested()))
                return
            self._tell(span, error)
            failed.append((span, error))

    def _tell(self, span: FrameRange | None, error: BaseException) -> None:
        """Record that a call failed as a whole; no frame is set aside for that (:mod:`tasks.frames` does)."""
        if isinstance(error, StopRequested):
            return
        stage, retries = self._stage, self._job.settings.runner.retries
        attempt = retries + 1 if is_worth_retrying(error) else 1
        row = make_failure(stage, None, error, self._job.stage_keys[stage], attempt)
        if is_worker_death(error):  # nobody's fault yet
            row = Failure(stage, None, "transient", "the worker died", key=row.key)
        record_failures(self._job, stage, [row])
        where = "" if span is None else f", frames {span.start} to {span.stop - 1}"
        self._report(f"{stage}{where}: {row.cls} failure: {row.message}")

    def _after_deaths(
        self,
        record: StageRecord,
        function: StageFunction,
        killed: Sequence[FrameRange | None],
        in_order: bool,
    ) -> list[BaseException]:
        """Find out which frame kills its worker: each frame that is left is done by itself, and those whose
        workers die again once more with nothing beside them. What kills then is set aside.
        """
        if None in killed:
            return self._alone(record, function, None)
        finished = ~unfinished_frames(self._job, self._stage)
        runs = [run for span in killed if span for run in missing_runs(finished, span)]
        singles = [FrameRange(i, i + 1) for run in runs for i in range(*run)]
        errors: list[BaseException] = []
        groups = [[single] for single in singles] if in_order else [singles]
        for group in groups:
            failed = self._attempt(record, function, group)
            errors += [error for _, error in failed if not is_worker_death(error)]
            for span in [span for span, error in failed if is_worker_death(error)]:
                errors += self._alone(record, function, span)
        return errors

    def _alone(
        self, record: StageRecord, function: StageFunction, span: FrameRange | None
    ) -> list[BaseException]:
        """One call again, with nothing beside it, for as long as it gets further before its worker dies."""
        stage, deaths, reached = self._stage, 1, read_progress(self._job, self._stage)
        while deaths < _DEATHS:
            failed = self._attempt(record, function, [span])
            if not failed or not is_worker_death(failed[0][1]):
                return [error for _, error in failed]
            got = read_progress(self._job, stage)
            deaths, reached = (1, got) if got > reached else (deaths + 1, got)
        frame = None if span is None else span.start
        why = f"its worker died each of {deaths} times that it was done by itself"
        row = Failure(stage, frame, "poison", why, attempt=deaths + 1, key=self._job.stage_keys[stage])
        record_failures(self._job, stage, [row])
        self._report(f"{stage}{'' if frame is None else f', frame {frame}'}: set aside: {why}")
        if stage == "landmarks" and frame is not None:
            give_up(self._job, frame)
        goes_on = frame is not None and self._job.stage(stage).per_frame
        return [] if goes_on else [RuntimeError(f"set aside: {why}")]


def hung(failed: Failed) -> bool:
    """Tell whether one of the calls failed because it got no further."""
    return any(isinstance(error, StalledTaskError) for _, error in failed)
