"""The stages of one reenactment in their order, on whatever runner there is.

Every stage first asks the store what is done; a finished stage costs one listing. What fails is written to
the store's failure table and reported; the clip goes on as long as there is something to hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flows.runners import Runner
from portrait_core.errors import InputError, MissingChunk
from portrait_core.store import Failure, Store
from tasks.context import distrust, done
from tasks.deliver import StageRecord, note_seconds
from tasks.encode import encode
from tasks.inversion import invert_first, invert_range
from tasks.job import Job, Stage
from tasks.measure import measure
from tasks.policy import RETRIED, StageResult, classify, process_name
from tasks.pose import pose
from tasks.ranges import FrameRange, frame_ranges
from tasks.render import render
from tasks.template import retarget, template
from tasks.tracking import fit, landmarks, portrait
from tasks.tuning import tune

if TYPE_CHECKING:
    from prefect import Task


class StageError(RuntimeError):
    """A stage that everything after it needs did not finish; giving the command again continues it."""


_REPAIRS = 3
"""Times that a run goes back to make damaged data again."""

Report = Callable[[str], None]
"""Takes one line for the user."""


class StageRunner:
    """Runs the stages of one job, one after the other."""

    def __init__(self, job: Job, runner: Runner, report: Report = lambda line: None) -> None:
        self._job = job
        self._runner = runner
        self._report = report
        self._store = Store(job.store)
        self.records: dict[Stage, StageRecord] = {}

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
        ranges = frame_ranges(self._job.frames, self._job.settings.runner.frames_per_task)
        self._stage("portrait", portrait)
        self._stage("landmarks", landmarks, ranges)
        self._stage("fit", fit)
        self._stage("retarget", retarget)
        self._stage("template", template, ranges)
        self._stage("inversion", invert_first, needed=False)
        if self._job.settings.inversion.init == "tracker":
            self._stage("inversion", invert_range, ranges)
        else:
            for span in ranges:  # a chain: every range starts from the latent before it
                self._stage("inversion", invert_range, [span], needed=span == ranges[-1])
        self._stage("tuning", tune)
        self._stage("pose", pose)
        self._stage("render", render, ranges, partial=True)
        self._stage("encode", encode)
        self._stage("measure", measure)

    def _stage(
        self,
        stage: Stage,
        task: Task[..., StageResult],
        ranges: Sequence[FrameRange] = (),
        *,
        needed: bool = True,
        partial: bool = False,
    ) -> None:
        """Run one task, or one a range. ``needed``: stop if the stage is not finished after it.
        ``partial``: some finished frames are enough, the others will be held."""
        record = self.records.setdefault(stage, StageRecord(stage))
        if done(self._job, stage).all():
            return
        errors = self._run(record, task, ranges)
        finished = done(self._job, stage)
        wrong = next((error for error in errors if isinstance(error, InputError)), None)
        if wrong is not None:
            raise wrong
        enough = finished.all() or (partial and finished.any()) or not (needed or errors)
        if not enough:
            raise _stopped(stage, int(finished.sum()), len(finished), errors)

    def _run(
        self, record: StageRecord, task: Task[..., StageResult], ranges: Sequence[FrameRange]
    ) -> list[BaseException]:
        """Submit the tasks, wait for all of them, and give back the errors."""
        begin, cpu, known = time.perf_counter(), time.process_time(), len(record.results)
        spans = [{"start": a, "stop": b} for a, b in ranges] or [{}]
        pending = [(span, self._runner.submit(task, job=self._job, **span)) for span in spans]
        errors = [error for span, future in pending if (error := self._collect(record, span, future))]
        seconds = time.perf_counter() - begin
        here = process_name()
        elsewhere = sum(r.cpu_seconds for r in record.results[known:] if r.process != here)
        record.seconds += seconds
        record.cpu_seconds += time.process_time() - cpu + elsewhere
        note_seconds(self._job, record.stage, seconds)
        return errors

    def _collect(self, record: StageRecord, span: dict[str, int], future: Any) -> BaseException | None:
        try:
            result = future.result()
        except Exception as error:
            self._record_failure(record.stage, span.get("start", 0), error)
            return error
        record.results.append(result)
        record.frames_done += result.frames_done
        return None

    def _record_failure(self, stage: Stage, frame: int, error: BaseException) -> None:
        retries = self._job.settings.runner.retries
        kind = classify(error)
        row = Failure(
            stage=stage,
            frame=frame,
            cls=kind,
            message=f"{type(error).__name__}: {error}"[:500],
            attempt=retries + 1 if kind in RETRIED else 1,
        )
        self._store.unit(*self._job.unit_of(stage)).record_failures([row])
        self._report(f"{stage}, frames from {frame}: {kind} failure: {row.message}")


def _stopped(stage: Stage, done: int, total: int, errors: Sequence[BaseException]) -> StageError:
    why = f": {errors[0]}" if errors else ""
    error = StageError(
        f"the stage {stage} stopped with {done} of {total} parts done{why}. "
        "Give the same command again to continue from there"
    )
    error.__cause__ = errors[0] if errors else None
    return error
