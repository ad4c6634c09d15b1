"""Doing frames one by one, so that one that fails leaves the others alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from portrait_core import stopping
from tasks.context import batches, record_failures
from tasks.job import Job, Stage
from tasks.policy import classify, failure
from tasks.ranges import FrameRange


def each(
    job: Job, stage: Stage, runs: Sequence[FrameRange], work: Callable[[FrameRange], None], size: int = 1
) -> int:
    """Do the frames of ``runs``, at most ``size`` of them together.

    A frame that fails for a reason of its own (it diverges, its data makes no sense) is written to the
    failure table and set aside; what belongs to the machine (input and output, memory) ends the task.

    Args:
        work: does and commits a range of frames.

    Returns:
        How many frames were done.

    Raises:
        StopRequested: between two batches, when the process was asked to stop.
        Exception: failures of the classes ``transient`` and ``resource``.
    """
    done = [_attempt(job, stage, batch, work) for batch in batches(runs, size)]
    return sum(done)


def _attempt(job: Job, stage: Stage, batch: FrameRange, work: Callable[[FrameRange], None]) -> int:
    stopping.check()
    try:
        work(batch)
    except Exception as error:
        if classify(error) in ("transient", "resource"):
            raise
        if len(batch) > 1:
            singles = (FrameRange(i, i + 1) for i in range(*batch))
            return sum(_attempt(job, stage, single, work) for single in singles)
        record_failures(job, stage, [failure(stage, batch.start, error, job.stage_keys[stage])])
        return 0
    return len(batch)
