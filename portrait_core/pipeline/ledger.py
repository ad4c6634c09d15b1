"""What is done, what failed and what is left to do: the store, asked in the terms of a job."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import MissingChunk
from portrait_core.pipeline.job import Job
from portrait_core.pipeline.ranges import FrameRange, missing_runs
from portrait_core.store import Contents, Declared, Failure, Output, done_of, gapped_key
from portrait_core.store.failures import SETS_ASIDE

if TYPE_CHECKING:
    import pandas as pd

DROPPED = "dropped"
"""Note of an output: names of arrays and files that were dropped because nobody has to read them."""
PARDONED = "pardoned"
"""Note of an output: when failures of a class were last taken up again."""
_log = logging.getLogger(__name__)


class Ledger:
    """One look at what the store holds of a job. What was listed once is not listed again by the same object;
    make another one to look again.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._outputs: dict[str, Output] = {}
        self._done: dict[str, NDArray[np.bool_]] = {}
        self._dropped: dict[str, frozenset[str]] = {}
        self.contents: dict[str, Contents] = {}
        """What the folders of those stages hold that were looked at."""

    def output(self, stage: str) -> Output:
        """The folder under whose key a stage writes. That of the clip names the frames that show a neighbour:
        when one of them is made later, the clip is encoded again.
        """
        if stage not in self._outputs:
            key, gapped = self._job.stage_keys[stage], self._job.stage(stage).shows_gaps_of
            if gapped is not None:
                key = gapped_key(key, np.flatnonzero(~self.done(gapped)))
            self._outputs[stage] = self._job.unit(stage).output(stage, key)
        return self._outputs[stage]

    def done(self, stage: str) -> NDArray[np.bool_]:
        """Which frames of a stage are finished under the job's key, with all that it writes, unless that was
        dropped (:mod:`portrait_core.pipeline.retention`) ``[total]``: one listing.
        """
        if stage not in self._done:
            contents = self.output(stage).contents()
            self.contents[stage] = contents
            declared = without(self._job.declared(stage), self.dropped(stage))
            self._done[stage] = done_of(contents, self._job.total(stage), declared)
        return self._done[stage]

    def dropped(self, stage: str) -> frozenset[str]:
        """Names of what a stage had finished and that was dropped since."""
        if stage not in self._dropped:
            known = self.contents.get(stage)
            noted = known is None or DROPPED in known.notes
            gone = self.output(stage).read_note(DROPPED) if noted else None
            self._dropped[stage] = frozenset(map(str, gone or ()))
        return self._dropped[stage]

    def finished(self) -> bool:
        """Whether what the job makes is there (a clip: encoded and measured)."""
        return all(bool(self.done(stage).all()) for stage in self._job.pipeline.ends)

    def quarantined_frames(self, stage: str) -> NDArray[np.bool_]:
        """Frames that were set aside under the job's key: they would only fail again ``[total]``.

        ``portrait retry`` takes them up again: rows from before that no longer count.
        """
        found = np.zeros(self._job.total(stage), np.bool_)
        left = ~self.done(stage)
        if not self._job.stage(stage).per_frame or not left.any():
            return found
        for frame, _ in _standing_failures(self._job, stage):
            if frame is not None and frame < len(found):
                found[frame] = True
        return found & left

    def available(self, stage: str) -> NDArray[np.bool_]:
        """Frames that a stage can do, because what it reads of them is there ``[total]``."""
        before = self._job.frame_input(stage)
        return self.done(before) if before else np.ones(self._job.total(stage), np.bool_)

    def unfinished(self, stage: str) -> NDArray[np.bool_]:
        """Frames that a stage has still to do: not finished, not set aside, within its reach ``[total]``."""
        left = ~self.done(stage)
        return left & ~self.quarantined_frames(stage) & self.available(stage) if left.any() else left

    def missing(self) -> dict[str, NDArray[np.bool_]]:
        """Which frames every stage will do when the job is run ``[total]``, by stage: what is not finished,
        can be done and was not set aside; and all of a stage whose dropped data one of the others will
        read.
        """
        job, will = self._job, dict[str, NDArray[np.bool_]]()
        for stage in job.stages:
            reach = self.available(stage)
            if (before := job.frame_input(stage)) is not None:
                reach = reach | will[before]
            will[stage] = ~self.done(stage) & ~self.quarantined_frames(stage) & reach
        for stage in reversed(job.stages):
            read = any(will[later].any() for later in job.pipeline.readers(stage))
            if read and self.dropped(stage):
                will[stage] = np.ones(job.total(stage), np.bool_)
        return will


def without(declared: Declared, names: frozenset[str]) -> Declared:
    """What is declared, but for some names."""
    return Declared(
        tuple(name for name in declared.per_frame if name not in names),
        tuple(name for name in declared.whole if name not in names),
        tuple(name for name in declared.files if name not in names),
        declared.notes,
    )


def output_of(job: Job, stage: str) -> Output:
    """Look for the folder under whose key a stage writes (:meth:`Ledger.output`)."""
    return Ledger(job).output(stage)


def done(job: Job, stage: str) -> NDArray[np.bool_]:
    """Look which frames of a stage are finished (:meth:`Ledger.done`)."""
    return Ledger(job).done(stage)


def available(job: Job, stage: str) -> NDArray[np.bool_]:
    """Look which frames a stage can do (:meth:`Ledger.available`)."""
    return Ledger(job).available(stage)


def unfinished(job: Job, stage: str) -> NDArray[np.bool_]:
    """Look which frames a stage has still to do (:meth:`Ledger.unfinished`)."""
    return Ledger(job).unfinished(stage)


def quarantine_reason(job: Job) -> str | None:
    """Why the clip as a whole would only fail again: what was written when a stage of it stopped for good;
    None when it is worth running. ``portrait retry`` takes it up.
    """
    if job.edited is not None and (why := quarantine_reason(job.edited)):
        return f"the portrait's edit: {why}"
    writers = {job.unit_of(stage): stage for stage in job.stages}
    if not any(job.unit(stage).failure_tables() for stage in writers.values()):
        return None
    ledger = Ledger(job)
    for stage in job.stages:
        whole = [message for frame, message in _standing_failures(job, stage) if frame is None]
        if whole and not ledger.done(stage).all():
            return f"{stage}: {whole[-1]}"
    return None


def failures_of(job: Job, stage: str) -> pd.DataFrame:
    """Read the failures of a stage under the job's key, oldest first (:meth:`Unit.failures`)."""
    rows = job.unit(stage).failures()
    return rows[(rows["stage"] == stage) & (rows["key"] == job.stage_keys[stage])]


def _standing_failures(job: Job, stage: str) -> list[tuple[int | None, str]]:
    """Frames (None: the whole stage) and messages of failures under the job's key that would only come again,
    and were not pardoned.
    """
    if not job.unit(stage).failure_tables():
        return []
    import pandas as pd  # here: it is slow to import, and most clips have no failures

    rows = failures_of(job, stage)
    rows = rows[rows["cls"].isin(SETS_ASIDE)]
    if not len(rows):
        return []
    pardoned = job.output(stage).read_note(PARDONED) or {}
    return [
        (None if frame is pd.NA else int(frame), str(message))
        for frame, message, cls, time in zip(
            rows["frame"], rows["message"], rows["cls"], rows["time_utc"], strict=True
        )
        if time.isoformat() > pardoned.get(cls, "")
    ]


def todo(job: Job, stage: str, start: int, stop: int) -> list[FrameRange]:
    """Runs of frames of ``[start, stop)`` that a stage has still to do."""
    return missing_runs(~unfinished(job, stage), FrameRange(start, stop))


def record_failures(job: Job, stage: str, rows: Sequence[Failure]) -> None:
    """Write rows to the failure table of a stage's unit. A store that fails does not hide the failure."""
    try:
        job.unit(stage).record_failures(rows)
    except OSError as error:
        _log.warning("failures of %s could not be recorded (%s): %s", stage, error, [r.message for r in rows])


def invalidate(job: Job, absent: MissingChunk) -> bool:
    """Take back the markers of frames whose data turned out to be absent or corrupt.

    Returns:
        Whether a stage was found that will make them again.
    """
    if job.edited is not None and invalidate(job.edited, absent):
        return True
    for stage in job.stages:
        output = output_of(job, stage)
        if not absent.array.startswith(f"{output.path}/"):
            continue
        array = absent.array.removeprefix(f"{output.path}/")
        of_frames = array in job.declared(stage).per_frame
        output.uncommit(absent.frames if of_frames and job.stage(stage).per_frame else None)
        if array in set(output.read_note(DROPPED) or ()):  # dropped, and wanted after all
            restore(job, stage)
        return True
    return False


def restore(job: Job, stage: str) -> None:
    """Make a stage unfinished whose data was dropped."""
    output = output_of(job, stage)
    output.uncommit()
    output.drop_note(DROPPED)
