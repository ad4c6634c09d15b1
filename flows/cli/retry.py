"""Retrying failures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from flows.dataset import run_clips
from flows.dataset_run import Clip
from flows.display.progress import TerminalBoard
from flows.display.views import frame_list
from portrait_core.errors import StoreError
from portrait_core.pipeline import Job
from portrait_core.pipeline.ledger import quarantine_reason
from portrait_core.pipeline.redo import Gaps, failed_frames, schedule_retry
from portrait_core.pipeline.state import read_state
from portrait_core.runtime.model_cache import forget_models
from portrait_core.settings import Settings
from portrait_core.store import FailureClass
from portrait_core.store.places import is_redacted
from portrait_core.store.refusals import is_of_one_object

_MAX_NAME_BYTES = 200


def retry_jobs(
    jobs: Sequence[Job],
    stages: Sequence[str],
    classes: Sequence[FailureClass],
    gaps: Gaps,
    out: Path | None,
    settings: Settings,
    console: Console,
) -> int:
    """Schedule a retry of matching failures, and finish those jobs on one runner, many at once.

    A job that fails again does not stop the others.

    Args:
        jobs: the jobs.
        stages: stages whose failures are retried; empty means all.
        classes: classes of failures that are retried.
        gaps: what happens to results that were made without a frame that is available now.
        out: folder for the clips, one folder each; None leaves them in the store.
        settings: settings of the command, which say where the work is done.
        console: receives the messages.

    Returns:
        The number of jobs that are still not done.
    """
    clips: list[Clip] = []
    left = 0
    for job in jobs:
        try:
            frames = failed_frames(job, stages or job.stages, classes)
        except StoreError as error:
            if not is_of_one_object(error):
                raise
            left += 1
            console.print(f"{job.label}: {error}", soft_wrap=True)
            continue
        for stage, which in frames.items():
            console.print(f"{job.label}: {stage} {frame_list(which)} again", soft_wrap=True)
        ended = read_state(job.open_store(), job.id)
        failed = bool(frames) or (not stages and ended is not None and ended.state == "failed")
        if failed and (is_redacted(job.portrait) or is_redacted(job.video)):
            left += 1
            message = f"{job.label}: stays as it is, as stores keep no passwords and signatures of URLs: "
            console.print(f"{message}give its own command again, with the whole URL", soft_wrap=True)
        elif frames:
            schedule_retry(job, frames, classes, gaps)
            forget_models()  # with gaps=redo, a loaded model may be recomputed under the same key
            clips.append(Clip(len(clips) + 1, _folder(job), job, frames))
        elif not stages and (why := quarantine_reason(job)):
            left += 1
            message = f"{job.label}: stays set aside, as --class does not name its class of failure: {why}"
            console.print(message, soft_wrap=True)
        elif not stages and ended is not None and ended.state == "failed":
            console.print(f"{job.label}: retried ({ended.message})", soft_wrap=True)
            clips.append(Clip(len(clips) + 1, _folder(job), job))
    if not clips:
        console.print(f"nothing of class {', '.join(classes)} to retry", soft_wrap=True)
        return left
    results = run_clips(clips, lambda clip: clip, settings, out, TerminalBoard(console))
    for result in results:
        console.print(f"{result.name}: {result.outcome}", soft_wrap=True)
    return left + sum(result.outcome not in ("done", "held") for result in results)


def _folder(job: Job) -> str:
    """Return the name of the folder of a job's outputs: its label where that names a folder, else its id.

    The label of a stranger's job may lead elsewhere.
    """
    label = job.label
    usable = label.isprintable() and not label.startswith(".") and len(label.encode()) <= _MAX_NAME_BYTES
    return label if label and usable and Path(label).name == label else job.id
