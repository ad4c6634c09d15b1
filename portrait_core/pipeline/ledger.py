"""Finished, failed and remaining work of a job, read from the store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import MissingChunk
from portrait_core.pipeline.job import Job
from portrait_core.pipeline.ranges import FrameRange, missing_runs
from portrait_core.store import Contents, Declared, Failure, Output, done_mask, key_with_gaps
from portrait_core.store.failures import QUARANTINE_CLASSES

if TYPE_CHECKING:
    import pandas as pd

DROPPED = "dropped"
"""Name of the note of an output that lists arrays and files that were dropped because nobody reads them."""
RETRY_CUTOFFS = "pardoned"
"""Name of the note of an output with the time of the last retry per class of failure; earlier failures no
longer count."""
_log = logging.getLogger(__name__)


class Ledger:
    """A snapshot of what the store holds of a job.

    What was listed once is not listed again by the same object; make another one to see changes.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._outputs: dict[str, Output] = {}
        self._done: dict[str, NDArray[np.bool_]] = {}
        self._dropped: dict[str, frozenset[str]] = {}
        self.contents: dict[str, Contents] = {}
        """Contents of the folders that were listed, by stage."""

    def output(self, stage: str) -> Output:
        """Return the folder under whose key a stage writes.

        The key of a stage that shows neighbours in place of missing frames depends on these frames: when one
        of them is made later, the clip is encoded again.
        """
        if stage not in self._outputs:
            key, gapped = self._job.stage_keys[stage], self._job.stage(stage).shows_gaps_of
            if gapped is not None:
                key = key_with_gaps(key, np.flatnonzero(~self.done_frames(gapped)))
            self._outputs[stage] = self._job.unit(stage).output(stage, key)
        return self._outputs[stage]

    def done_frames(self, stage: str) -> NDArray[np.bool_]:
        """Return which frames of a stage are finished under the job's key, by one listing.

        A finished frame has everything that the stage writes, except what was dropped
        (:mod:`portrait_core.pipeline.retention`).

        Returns:
            ``[total]`` bool.
        """
        if stage not in self._done:
            contents = self.output(stage).contents()
            self.contents[stage] = contents
            declared = exclude_names(self._job.declared(stage), self.dropped_names(stage))
            self._done[stage] = done_mask(contents, self._job.total(stage), declared)
        return self._done[stage]

    def dropped_names(self, stage: str) -> frozenset[str]:
        """Return the names of finished arrays and files of a stage that were dropped since."""
        if stage not in self._dropped:
            known = self.contents.get(stage)
            noted = known is None or DROPPED in known.notes
            self._dropped[stage] = read_dropped(self.output(stage)) if noted else frozenset()
        return self._dropped[stage]

    def is_finished(self) -> bool:
        """Tell whether the product of the job exists (for a clip: encoded and measured)."""
        return all(bool(self.done_frames(stage).all()) for stage in self._job.pipeline.ends)

    def quarantined_frames(self, stage: str) -> NDArray[np.bool_]:
        """Return the frames that were set aside under the job's key because they would only fail again.

        ``portrait retry`` clears them: failures from before it no longer count.

        Returns:
            ``[total]`` bool.
        """
        quarantined = np.zeros(self._job.total(stage), np.bool_)
        left = ~self.done_frames(stage)
        if not self._job.stage(stage).per_frame or not left.any():
            return quarantined
        for frame, _ in _standing_failures(self._job, stage):
            if frame is not None and frame < len(quarantined):
                quarantined[frame] = True
        return quarantined & left

    def available_frames(self, stage: str) -> NDArray[np.bool_]:
        """Return the frames whose inputs exist, so that a stage can do them.

        Returns:
            ``[total]`` bool.
        """
        before = self._job.frame_input(stage)
        return self.done_frames(before) if before else np.ones(self._job.total(stage), np.bool_)

    def unfinished_frames(self, stage: str) -> NDArray[np.bool_]:
        """Return the frames that a stage has still to do: available, not finished, not set aside.

        Returns:
            ``[total]`` bool.
        """
        left = ~self.done_frames(stage)
        return left & ~self.quarantined_frames(stage) & self.available_frames(stage) if left.any() else left

    def frames_to_do(self) -> dict[str, NDArray[np.bool_]]:
        """Return the frames that every stage will do when the job is run.

        These are the frames that are not finished, can be done and were not set aside, and all frames of a
        stage whose dropped data another stage will read.

        Returns:
            ``[total]`` bool by stage.
        """
        job, to_do = self._job, dict[str, NDArray[np.bool_]]()
        for stage in job.stages:
            reach = self.available_frames(stage)
            if (before := job.frame_input(stage)) is not None:
                reach = reach | to_do[before]
            to_do[stage] = ~self.done_frames(stage) & ~self.quarantined_frames(stage) & reach
        for stage in reversed(job.stages):
            read = any(to_do[later].any() for later in job.pipeline.readers(stage))
            if read and self.dropped_names(stage):
                to_do[stage] = np.ones(job.total(stage), np.bool_)
        return to_do


def exclude_names(declared: Declared, names: frozenset[str]) -> Declared:
    """Return a declaration without some names."""
    return Declared(
        tuple(name for name in declared.per_frame if name not in names),
        tuple(name for name in declared.whole if name not in names),
        tuple(name for name in declared.files if name not in names),
        declared.notes,
    )


def find_output(job: Job, stage: str) -> Output:
    """Return the folder under whose key a stage writes (:meth:`Ledger.output`)."""
    return Ledger(job).output(stage)


def done_frames(job: Job, stage: str) -> NDArray[np.bool_]:
    """Return which frames of a stage are finished (:meth:`Ledger.done_frames`)."""
    return Ledger(job).done_frames(stage)


def available_frames(job: Job, stage: str) -> NDArray[np.bool_]:
    """Return which frames a stage can do (:meth:`Ledger.available_frames`)."""
    return Ledger(job).available_frames(stage)


def unfinished_frames(job: Job, stage: str) -> NDArray[np.bool_]:
    """Return which frames a stage has still to do (:meth:`Ledger.unfinished_frames`)."""
    return Ledger(job).unfinished_frames(stage)


def quarantine_reason(job: Job) -> str | None:
    """Return why the clip as a whole would only fail again; None when it is worth running.

    The reason is the message with which a stage stopped for good. ``portrait retry`` clears it.
    """
    if job.edited is not None and (why := quarantine_reason(job.edited)):
        return f"the portrait's edit: {why}"
    writers = {job.unit_of(stage): stage for stage in job.stages}
    if not any(job.unit(stage).failure_tables() for stage in writers.values()):
        return None
    ledger = Ledger(job)
    for stage in job.stages:
        whole = [message for frame, message in _standing_failures(job, stage) if frame is None]
        if whole and not ledger.done_frames(stage).all():
            return f"{stage}: {whole[-1]}"
    return None


def read_failures(job: Job, stage: str) -> pd.DataFrame:
    """Read the failures of a stage under the job's key, oldest first (:meth:`Unit.failures`)."""
    rows = job.unit(stage).failures()
    return rows[(rows["stage"] == stage) & (rows["key"] == job.stage_keys[stage])]


def _standing_failures(job: Job, stage: str) -> list[tuple[int | None, str]]:
    """Return the failures under the job's key that would only happen again and that no retry cleared.

    Each is a frame (None: the whole stage) and a message.
    """
    if not job.unit(stage).failure_tables():
        return []
    import pandas as pd  # here: slow to import, and most clips have no failures

    rows = read_failures(job, stage)
    rows = rows[rows["cls"].isin(QUARANTINE_CLASSES)]
    if not len(rows):
        return []
    cutoffs = read_cutoffs(job.output(stage))
    return [
        (None if frame is pd.NA else int(frame), str(message))
        for frame, message, cls, time in zip(
            rows["frame"], rows["message"], rows["cls"], rows["time_utc"], strict=True
        )
        if time.isoformat() > cutoffs.get(cls, "")
    ]


def read_dropped(output: Output) -> frozenset[str]:
    """Read the note :data:`DROPPED` of an output; empty where there is none, or it is damaged."""
    names = output.read_note(DROPPED)
    return frozenset(name for name in (names if isinstance(names, list) else ()) if isinstance(name, str))


def read_cutoffs(output: Output) -> dict[str, str]:
    """Read the note :data:`RETRY_CUTOFFS` of an output; empty where there is none, or it is damaged."""
    return {cls: time for cls, time in output.read_fields(RETRY_CUTOFFS).items() if isinstance(time, str)}


def unfinished_runs(job: Job, stage: str, start: int, stop: int) -> list[FrameRange]:
    """Return runs of frames of ``[start, stop)`` that a stage has still to do."""
    return missing_runs(~unfinished_frames(job, stage), FrameRange(start, stop))


def record_failures(job: Job, stage: str, rows: Sequence[Failure]) -> None:
    """Write rows to the failure table of a stage's unit.

    An error of the store is logged, so that it does not hide the failures.
    """
    try:
        job.unit(stage).record_failures(rows)
    except OSError as error:
        _log.warning("failures of %s could not be recorded (%s): %s", stage, error, [r.message for r in rows])


def invalidate(job: Job, absent: MissingChunk) -> bool:
    """Delete the markers of frames whose data turned out to be absent or corrupt.

    Returns:
        True if a stage was found that will make them again.
    """
    if job.edited is not None and invalidate(job.edited, absent):
        return True
    for stage in job.stages:
        output = find_output(job, stage)
        if not absent.array.startswith(f"{output.path}/"):
            continue
        array = absent.array.removeprefix(f"{output.path}/")
        of_frames = array in job.declared(stage).per_frame
        output.uncommit(absent.frames if of_frames and job.stage(stage).per_frame else None)
        if array in read_dropped(output):  # dropped, but needed after all
            mark_dropped_undone(job, stage)
        return True
    return False


def mark_dropped_undone(job: Job, stage: str) -> None:
    """Delete the markers of a stage whose data was dropped, so that it is made again."""
    output = find_output(job, stage)
    output.uncommit()
    output.drop_note(DROPPED)
