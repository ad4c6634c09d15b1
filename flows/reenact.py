"""The flow ``reenact``: one portrait, one driving video, one clip."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.artifacts import create_table_artifact

from flows.environment import server_for_run, server_went_away
from flows.runners import open_runner, prefect_task_runner
from flows.stages import StageRunner, check_only, gpu_gone, stops_forgotten
from portrait_core import stopping
from portrait_core.config import Settings, load_settings
from portrait_core.models.needs import check_models
from portrait_core.report import Summary
from tasks.context import finished
from tasks.deliver import StageRecord, deliver
from tasks.ingest import ingest
from tasks.job import Job, Stage
from tasks.status import keep_job

Report = Callable[[str], None]


reporter: ContextVar[Report] = ContextVar("reporter", default=lambda line: None)
"""Who hears of failures inside a flow run, whose parameters must be plain values."""


def prepare(portrait: str, video: str, store: str, settings: Settings) -> Job:
    """Look at everything a run needs, before any work: weights and their licences first, then both inputs.

    Raises:
        InputError: when the portrait or the video cannot be used.
        ValueError: when weights are missing or must not be used; the message names every one.
    """
    check_models(settings)
    return ingest(portrait, video, store, settings)


def run_job(
    job: Job, out: str | Path | None, report: Report = lambda line: None, only: Sequence[Stage] = ()
) -> Summary | None:
    """Run every stage that is not finished, write the files to ``out`` and return the summary.

    Inside a Prefect flow the tasks are Prefect's; anywhere else they are threads or Dask's.

    Args:
        job: what to do.
        out: folder for the clip; None leaves it in the store.
        report: hears of failures.
        only: stages to run; empty means all.

    Returns:
        None when ``only`` leaves the clip unfinished, and for a job that makes no clip.

    Raises:
        InputError: when the portrait or the video cannot be used.
        StageError: when a stage stopped the run.
    """
    begin = time.perf_counter()
    records = run_stages(job, report, only)
    if job.goal != "clip" or not finished(job):
        return None
    return deliver(job, None if out is None else Path(out), records, time.perf_counter() - begin)


def run_stages(
    job: Job, report: Report = lambda line: None, only: Sequence[Stage] = ()
) -> Mapping[Stage, StageRecord]:
    """Run every stage of a job, whatever it makes, that is not finished; what each did.

    Raises:
        InputError: when an input cannot be used.
        StageError: when a stage stopped the run.
    """
    stopping.clear()
    check_only(job, only)
    keep_job(job)
    with stops_forgotten(), open_runner(job.settings) as runner:
        stages = StageRunner(job, runner, report, only)
        stages.all()
    return stages.records


@flow(name="reenact", persist_result=False, validate_parameters=True)
def reenact(
    portrait: str,
    video: str,
    store: str,
    out: str,
    profile: str = "embedded",
    overrides: Sequence[str] = (),
    only: Sequence[Stage] = (),
) -> dict[str, object] | None:
    """Make the portrait take over the video's expressions and head pose.

    Args:
        portrait: path of an image with one face.
        video: path of the driving video.
        store: URL or folder that keeps every stage's output; the same one resumes.
        out: folder for the clip, the contact sheet and ``summary.json``.
        profile: a profile's name or file.
        overrides: ``section.field=value`` strings.
        only: stages to run; empty means all.

    Returns:
        The summary, as plain values; None when ``only`` leaves the clip unfinished.
    """
    job = prepare(portrait, video, store, load_settings(profile, overrides))
    summary = run_job(job, out, reporter.get(), only)
    if summary is None:
        return None
    _show(summary)
    return summary.model_dump(mode="json")


def _show(summary: Summary) -> None:
    """Leave the stages' times with the flow run, for Prefect's pages."""
    rows = [stage.model_dump(mode="json") for stage in summary.stages]
    create_table_artifact(rows, key="reenact-stages", description=summary.reenactment)


def start(
    job: Job,
    out: str | Path,
    report: Report,
    overrides: Sequence[str],
    profile: str,
    only: Sequence[Stage] = (),
) -> Summary | None:
    """Run a clip's job, under Prefect where that is (:func:`under_prefect`)."""
    inputs = job.portrait_path, job.video_path, job.store, str(out), profile, list(overrides), list(only)

    def without() -> Summary | None:
        return run_job(job, out, report, only)

    said = under_prefect(reenact, inputs, job, report, without)
    return Summary.model_validate(said) if isinstance(said, dict) else said


def under_prefect(
    run: Flow[..., Any], inputs: Sequence[Any], job: Job, report: Report, without: Callable[[], Any]
) -> Any:
    """Run a job under Prefect when a server answers (or the settings ask for its temporary one), else
    without: the store resumes it either way. A server that goes away meanwhile is done without, unless this
    process lost the GPU too.

    Args:
        run: the flow.
        inputs: its parameters.
        job: what it will run; its settings say where.
        report: hears of failures.
        without: does the same without Prefect.
    """
    wish = job.settings.runner.prefect
    server = server_for_run(wish, report)
    if server is None and wish != "always":
        return without()
    reporter.set(report)
    ready = run.with_options(task_runner=prefect_task_runner(job.settings), flow_run_name=job.name)
    try:
        return ready(*inputs)
    except Exception as error:
        if gpu_gone(error) or not server_went_away(server, report):
            raise
        return without()
