"""Calls of a stage's functions: submitted to a runner, awaited, and repeated when workers die."""

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

_MAX_WORKER_DEATHS = 2
"""Workers that a unit may kill without progress before it is set aside."""
_OWN_HOST = ("threads", "local_cluster", "local_gpus")
"""Kinds of runners whose tasks see the store as the flow does."""

Report = Callable[[str], None]
"""Function that shows one line to the user."""
Failed = list[tuple[FrameRange | None, BaseException]]


class StageCalls:
    """Calls of one stage.

    Args:
        job: the stage's job.
        stage: name of the stage.
        runner: executes the calls.
        report: shows a line about a failure.
        priority: number of the job; of the calls that wait for the same workers, the lowest number goes
            first.
        lease: owner of the flow's lease on the unit that the stage writes.
    """

    def __init__(
        self, job: Job, stage: str, runner: Runner, report: Report, priority: int = 0, lease: str = ""
    ) -> None:
        self._job, self._stage, self._runner, self._report = job, stage, runner, report
        self._priority, self._lease = priority, lease

    def run(
        self, record: StageRecord, function: StageFunction, ranges: Sequence[FrameRange | None]
    ) -> list[BaseException]:
        """Run a group of calls, repeat those whose workers die, and return the errors that remain."""
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
        """Submit calls, wait for all of them, and return those that failed."""
        failed: Failed = []
        pending: list[tuple[FrameRange | None, Pending]] = []
        stored, watchdog = self._stored_frames(), Watchdog(self._job, self._stage)

        def check_progress() -> None:
            if any(not future.done() for _, future in pending):  # else the calls still wait for a worker
                watchdog.check()

        try:
            for place, span in enumerate(spans):
                with self._collecting(record, span, failed):
                    call = self._call(function, span, stored)
                    pending.append(
                        (span, self._runner.submit(call, self._priority, check_progress=check_progress))
                    )
                if hung(failed):  # running calls keep their slots until they end
                    failed += [(remaining, failed[-1][1]) for remaining in spans[place + 1 :]]
                    break
            for span, future in pending:
                with self._collecting(record, span, failed):
                    result = future.result(watchdog.check)
                    record.results.append(result)
                    record.frames_done += result.frames_done
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C, SIGTERM, or what Prefect makes of them
                self._report("finishing the current frames and steps (interrupt again to stop at once)")
                self._runner.stop()
            raise
        return failed

    def _stored_frames(self) -> dict[str, int]:
        """Count the finished frames of the stages that this one reads, for workers on other hosts."""
        if self._job.settings.runner.kind in _OWN_HOST:
            return {}
        ledger = Ledger(self._job)
        before = [one for one in self._job.pipeline.reads(self._stage) if self._job.stage(one).per_frame]
        return {one: len(ledger.output(one).marked()) for one in before}

    def _call(self, function: StageFunction, span: FrameRange | None, stored: Mapping[str, int]) -> Call:
        runner = self._job.settings.runner
        where = {} if span is None else {"start": span.start, "stop": span.stop}
        return Call(
            function.module,
            function.name,
            {"job": self._job, **where},
            runner.retries,
            runner.retry_delay_s,
            socket.gethostname(),
            stored,
            self._lease,
            function.stage,
        )

    @contextmanager
    def _collecting(self, record: StageRecord, span: FrameRange | None, failed: Failed) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # cancelled, or refused by a pool that is closing: not the frames' fault
            if cancellation.requested() and not breaks_gpu(error):
                failed.append((span, StopRequested()))
                return
            self._record_failed_call(span, error)
            failed.append((span, error))

    def _record_failed_call(self, span: FrameRange | None, error: BaseException) -> None:
        """Record that a call failed as a whole; frames are set aside elsewhere (:mod:`tasks.frames`)."""
        if isinstance(error, StopRequested):
            return
        stage, retries = self._stage, self._job.settings.runner.retries
        attempt = retries + 1 if is_worth_retrying(error) else 1
        row = make_failure(stage, None, error, self._job.stage_keys[stage], attempt)
        if is_worker_death(error):  # the cause is not known yet
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
        """Find the frame that kills its worker, and set it aside.

        Each remaining frame is computed by itself; a frame whose worker dies again is computed once more with
        nothing beside it.
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
        """Repeat one call with nothing beside it, for as long as it progresses before its worker dies."""
        stage, deaths, reached = self._stage, 1, read_progress(self._job, self._stage)
        while deaths < _MAX_WORKER_DEATHS:
            failed = self._attempt(record, function, [span])
            if not failed or not is_worker_death(failed[0][1]):
                return [error for _, error in failed]
            current = read_progress(self._job, stage)
            deaths, reached = (1, current) if current > reached else (deaths + 1, current)
        frame = None if span is None else span.start
        why = f"its worker died each of {deaths} times that it was computed by itself"
        row = Failure(stage, frame, "poison", why, attempt=deaths + 1, key=self._job.stage_keys[stage])
        record_failures(self._job, stage, [row])
        self._report(f"{stage}{'' if frame is None else f', frame {frame}'}: set aside: {why}")
        if stage == "landmarks" and frame is not None:
            give_up(self._job, frame)
        goes_on = frame is not None and self._job.stage(stage).per_frame
        return [] if goes_on else [RuntimeError(f"set aside: {why}")]


def hung(failed: Failed) -> bool:
    """Tell whether one of the calls failed because it stalled."""
    return any(isinstance(error, StalledTaskError) for _, error in failed)
