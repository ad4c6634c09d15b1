"""The flow ``reenact``: one portrait, one driving video, one clip."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.artifacts import create_table_artifact

from flows.engine.environment import (
    closed_temporary_server,
    refuse_secrets,
    server_for_run,
    server_went_away,
)
from flows.engine.runners import open_runner
from flows.engine.stages import StageRunner, check_only, gpu_gone, stop_request_cleared
from flows.engine.task_runs import own_process, process_left, run_title, settings_of_flow
from portrait_core.errors import MissingChunk
from portrait_core.model_files.needs import check_models
from portrait_core.pipeline import Job
from portrait_core.pipeline.ledger import Ledger, invalidate
from portrait_core.pipeline.results import StageRecord
from portrait_core.pipeline.retention import pack
from portrait_core.pipeline.state import read_state, record_state, save_job
from portrait_core.report import Summary
from portrait_core.runtime import cancellation
from portrait_core.runtime.cancellation import StopRequested
from portrait_core.settings import Settings
from portrait_core.text.markdown import escape_markdown, markdown_cells
from tasks.deliver import deliver
from tasks.ingest import ingest, keep_facts

Report = Callable[[str], None]


_log = logging.getLogger(__name__)
reporter: ContextVar[Report] = ContextVar("reporter", default=_log.warning)
"""Function that reports failures inside a flow run, whose parameters must be plain values. The default writes
to the log, as where a worker started the run."""


def prepare(portrait: str, video: str, store: str, settings: Settings, label: str = "") -> Job:
    """Check everything that a run needs, before any work: weights, their licences, then both inputs.

    Raises:
        InputError: the portrait or the video is not usable.
        ValueError: weights are missing or their licence forbids the use; the message names all of them.
    """
    check_models(settings)
    return ingest(portrait, video, store, settings, label)


def run_job(
    job: Job, out: str | Path | None, report: Report = lambda line: None, only: Sequence[str] = ()
) -> Summary | None:
    """Run every stage that is not finished, write the files to ``out`` and return the summary.

    Inside a Prefect flow run, every stage that has something to do is a task run of it.

    Args:
        job: the job.
        out: folder for the clip; None leaves it in the store.
        report: shows a line about a failure.
        only: stages to run; empty means all.

    Returns:
        The summary; None when ``only`` leaves the clip unfinished, and for a job that makes no clip.

    Raises:
        InputError: the portrait or the video is not usable.
        StageError: a stage stopped the run.
    """
    begin = time.perf_counter()
    place = None if out is None else Path(out)
    if not only and (summary := delivered(job, place)) is not None:
        return summary
    records = run_stages(job, report, only)
    if job.goal != "clip" or not Ledger(job).is_finished():
        return None
    return deliver(job, place, records, time.perf_counter() - begin)


def run_stages(
    job: Job, report: Report = lambda line: None, only: Sequence[str] = ()
) -> Mapping[str, StageRecord]:
    """Run every stage of any job that is not finished, and return a record per stage.

    Raises:
        InputError: an input is not usable.
        StageError: a stage stopped the run.
    """
    cancellation.clear()
    job.open_store().check_format(write=True)
    check_only(job, only)
    with stop_request_cleared(), kept_state(job), open_runner(job.settings) as runner:
        stages = StageRunner(job, runner, report, only)
        stages.run_all()
    return stages.records


def delivered(job: Job, out: Path | None) -> Summary | None:
    """Deliver a clip that is complete: about twenty requests to the store, and no computation.

    Returns:
        The summary; None where something is left to do, as when a file proves to be damaged, and for a job
        that makes no clip.
    """
    begin = time.perf_counter()
    store, ledger = job.open_store(), Ledger(job)
    store.check_format()
    if job.goal != "clip" or any(frames.any() for frames in ledger.frames_to_do().values()):
        return None
    keep_facts(job)
    recorded = read_state(store, job.id)
    if recorded is None or recorded.state != "done" or recorded.label != job.label:
        with kept_state(job):
            pass
    try:
        return deliver(job, out, {}, time.perf_counter() - begin, ledger)
    except MissingChunk as absent:
        if not invalidate(job, absent):
            raise
        return None


@contextmanager
def kept_state(job: Job) -> Iterator[None]:
    """Record in the store what the block runs and its outcome, and pack a job that is finished."""
    keep_facts(job)
    save_job(job)
    try:
        yield
    except StopRequested:
        raise
    except Exception as error:
        with suppress(OSError):  # the store itself may be what failed
            record_state(job, str(error), failed=True)
        raise
    if job.settings.runner.pack:
        pack(job)
    record_state(job)


@flow(name="reenact", persist_result=False, validate_parameters=True)
def reenact(
    portrait: str,
    video: str,
    store: str,
    out: str,
    profile: str = "embedded",
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
) -> dict[str, object] | None:
    """Make the portrait take over the video's expressions and head pose.

    Args:
        portrait: path of an image with one face.
        video: path of the driving video.
        store: URL or folder that keeps every stage's output; the same store resumes the run.
        out: folder for the clip, the contact sheet and ``summary.json``.
        profile: a profile's name or file.
        overrides: ``section.field=value`` strings.
        only: stages to run; empty means all.

    Returns:
        The summary, as plain values; None when ``only`` leaves the clip unfinished.
    """
    job = prepare(portrait, video, store, settings_of_flow(profile, overrides))
    with process_left():
        summary = run_job(job, out, reporter.get(), only)
    if summary is None:
        return None
    _show(summary)
    return summary.model_dump(mode="json")


def _show(summary: Summary) -> None:
    """Attach the stages' times to the flow run, for Prefect's pages."""
    rows = [stage.model_dump(mode="json") for stage in summary.stages]
    description = escape_markdown(summary.reenactment)
    create_table_artifact(list(map(markdown_cells, rows)), key="reenact-stages", description=description)


def start(
    job: Job,
    out: str | Path,
    report: Report,
    overrides: Sequence[str],
    profile: str,
    only: Sequence[str] = (),
) -> Summary | None:
    """Run a clip's job, under Prefect where a server answers (:func:`under_prefect`)."""
    inputs = job.portrait, job.video, job.store, str(out), profile, list(overrides), list(only)

    def without() -> Summary | None:
        return run_job(job, out, report, only)

    summary = under_prefect(reenact, inputs, job.settings, job.label, report, without)
    return Summary.model_validate(summary) if isinstance(summary, dict) else summary


def under_prefect(
    run: Flow[..., Any],
    inputs: Sequence[Any],
    settings: Settings,
    name: str,
    report: Report,
    without: Callable[[], Any],
) -> Any:
    """Run a flow under Prefect when a server answers or the settings ask for a temporary one, else without.

    The store resumes its work either way. If the server goes away during the run, the work continues without
    it, unless this process lost the GPU too.

    Args:
        run: the flow.
        inputs: its parameters.
        settings: settings of the run, which say where.
        name: name of the flow run.
        report: shows a line about a failure.
        without: does the same without Prefect.
    """
    wish = settings.runner.prefect
    server = server_for_run(wish, report)
    if server is None and wish != "always":
        return without()
    refuse_secrets(inputs)
    reporter.set(report)
    own_process.set(False)
    named_run = run.with_options(flow_run_name=run_title(name))
    try:
        with closed_temporary_server():
            return named_run(*inputs)
    except Exception as error:
        if gpu_gone(error) or not server_went_away(server, report):
            raise
        return without()
