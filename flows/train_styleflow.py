"""The flow ``train_styleflow``: samples of a generator, their attributes, and a StyleFlow trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.engine.task_runs import process_left, settings_of_flow
from flows.reenact import Report, reporter, run_stages, under_prefect
from portrait_core.model_files.needs import check_models
from portrait_core.pipeline import Job
from portrait_core.settings import Settings
from portrait_core.text.markdown import escape_markdown
from tasks.deliver import deliver_flow
from tasks.ingest import ingest_flow

Curve = list[dict[str, Any]]
"""Rows with ``epoch``, ``loss`` and ``held_out_log_density``, one per pass."""


def prepare_training(store: str, samples: int, settings: Settings) -> Job:
    """Check everything that a training needs, before any work.

    Raises:
        InputError: there are too few samples.
        ValueError: weights are missing or their licence forbids the use.
    """
    check_models(settings)
    return ingest_flow(store, samples, settings)


def run_training(job: Job, out: str | Path, report: Report = lambda line: None) -> Curve:
    """Draw, label and train what is missing, write the files to ``out`` and return the curve.

    Raises:
        InputError: a table of labels is not usable.
        StageError: a stage stopped the run.
    """
    run_stages(job, report)
    return [dict(row) for row in deliver_flow(job, Path(out))]


@flow(name="train-styleflow", persist_result=False, validate_parameters=True)
def train_styleflow(
    store: str,
    out: str,
    samples: int = 10_000,
    profile: str = "embedded",
    overrides: Sequence[str] = (),
) -> Curve:
    """Train the StyleFlow that edits attributes of a profile's generator.

    Args:
        store: URL or folder that keeps samples and checkpoints; the same store resumes the run.
        out: folder for the weights, a sheet of edits and the curve.
        samples: number of samples; the paper takes 10,000.
        profile: a profile's name or file.
        overrides: ``section.field=value`` strings.

    Returns:
        The curve.
    """
    job = prepare_training(store, samples, settings_of_flow(profile, overrides))
    with process_left():
        curve = run_training(job, out, reporter.get())
    create_table_artifact(curve, key="train-styleflow", description=escape_markdown(job.label))
    return curve


def start_training(
    job: Job, out: str | Path, report: Report, overrides: Sequence[str], profile: str
) -> Curve:
    """Train, under Prefect where a server answers."""
    inputs = job.store, str(out), job.frames, profile, list(overrides)

    def without() -> Curve:
        return run_training(job, out, report)

    curve: Curve = under_prefect(train_styleflow, inputs, job.settings, job.label, report, without)
    return curve
