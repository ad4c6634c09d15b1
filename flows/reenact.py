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

from flows.engine.environment import refuse_secrets, server_for_run, server_went_away, set_log_levels
from flows.engine.runners import open_runner
from flows.engine.stages import StageRunner, check_only, gpu_gone, stops_forgotten
from flows.engine.task_runs import own_process, process_left
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
from portrait_core.settings import Settings, load_settings
from tasks.deliver import deliver
from tasks.ingest import ingest, keep_facts

Report = Callable[[str], None]


_log = logging.getLogger(__name__)
reporter: ContextVar[Report] = ContextVar("reporter", default=_log.warning)
"""Who hears of failures inside a flow run, whose parameters must be plain values: its log, where a worker
started it."""


def prepare(portrait: str, video: str, store: str, settings: Settings, label: str = "") -> Job:
    """Look at everything a run needs, before any work: weights and their licences first, then both inputs.

    Raises:
        InputError: when the portrait or the video cannot be used.
        ValueError: when weights are missing or must not be used; the message names every one.
    """
    check_models(settings)
    return ingest(portrait, video, store, settings, label)


def run_job(
    job: Job, out: str | Path | None, report: Report = lambda line: None, only: Sequence[str] = ()
) -> Summary | None:
    """Run every stage that is not finished, write the files to ``out`` and return the summary.

    Inside a Prefect flow run every stage that has something to do is a task run of it.

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
    place = None if out is None else Path(out)
    if not only and (made := delivered(job, place)) is not None:
        return made
    records = run_stages(job, report, only)
    if job.goal != "clip" or not Ledger(job).is_finished():
        return None
    return deliver(job, place, records, time.perf_counter() - begin)


def run_stages(
    job: Job, report: Report = lambda line: None, only: Sequence[str] = ()
) -> Mapping[str, StageRecord]:
    """Run every stage of a job, whatever it makes, that is not finished; what each did.

    Raises:
        InputError: when an input cannot be used.
        StageError: when a stage stopped the run.
    """
    cancellation.clear()
    job.open_store().check_format(write=True)
    check_only(job, only)
    with stops_forgotten(), kept_state(job), open_runner(job.settings) as runner:
        stages = StageRunner(job, runner, report, only)
        stages.all()
    return stages.records


def delivered(job: Job, out: Path | None) -> Summary | None:
    """Hand over a clip of which nothing is missing: about twenty requests to the store, and nothing is
    computed. None where there is something to do, as when a file turns out to be damaged, and for a job that
    makes no clip.
    """
    begin = time.perf_counter()
    store, ledger = job.open_store(), Ledger(job)
    store.check_format()
    if job.goal != "clip" or any(frames.any() for frames in ledger.frames_to_do().values()):
        return None
    keep_facts(job)
    before = read_state(store, job.id)
    if before is None or before.state != "done" or before.label != job.label:
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
    """Keep in the store what is run while the block runs, and what came of it when it ends; a job that is
    finished is packed.
    """
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
        store: URL or folder that keeps every stage's output; the same one resumes.
        out: folder for the clip, the contact sheet and ``summary.json``.
        profile: a profile's name or file.
        overrides: ``section.field=value`` strings.
        only: stages to run; empty means all.

    Returns:
        The summary, as plain values; None when ``only`` leaves the clip unfinished.
    """
    set_log_levels()
    job = prepare(portrait, video, store, load_settings(profile, overrides))
    with process_left():
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
    only: Sequence[str] = (),
) -> Summary | None:
    """Run a clip's job, under Prefect where that is (:func:`under_prefect`)."""
    inputs = job.portrait, job.video, job.store, str(out), profile, list(overrides), list(only)

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
    refuse_secrets(text for part in inputs if isinstance(part, list) for text in part)
    reporter.set(report)
    own_process.set(False)
    ready = run.with_options(flow_run_name=job.label)
    try:
        return ready(*inputs)
    except Exception as error:
        if gpu_gone(error) or not server_went_away(server, report):
            raise
        return without()
