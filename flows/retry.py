"""Trying again what failed in one clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from flows.reenact import run_job
from flows.views import frame_list
from tasks.job import Job, Stage
from tasks.redo import Gaps, faces_appeared, failed_frames, forget, take_up

if TYPE_CHECKING:
    from portrait_core.store import FailureClass


def retry_clip(
    job: Job,
    stages: Sequence[Stage],
    classes: Sequence[FailureClass],
    gaps: Gaps,
    out: Path | None,
    console: Console,
) -> bool:
    """Take up the failures of a clip that match and finish it.

    Args:
        job: the clip.
        stages: whose failures; empty means all.
        classes: which failures.
        gaps: what becomes of what was made without a frame that is there now.
        out: the clip is copied into a folder of its name in it; None leaves it in the store.
        console: hears what is done.

    Returns:
        Whether there was anything to take up.
    """
    frames = failed_frames(job, stages or job.stages, classes)
    if not frames:
        console.print(f"{job.name}: nothing of class {', '.join(classes)} to take up", soft_wrap=True)
        return False
    for stage, which in frames.items():
        console.print(f"{job.name}: {stage} {frame_list(which)} again", soft_wrap=True)
    take_up(job, frames, classes, gaps)
    if "landmarks" in frames:
        run_job(job, None, console.print, ("landmarks",))
        if faces_appeared(job, frames["landmarks"]):
            forget(job, ["fit"])
    run_job(job, None if out is None else out / job.reenactment_unit, console.print)
    return True
