"""The flow ``train_styleflow``: samples of a generator, their attributes, and the flow between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.engine.environment import set_log_levels
from flows.engine.task_runs import process_left
from flows.reenact import Report, reporter, run_stages, under_prefect
from portrait_core.model_files.needs import check_models
from portrait_core.pipeline import Job
from portrait_core.settings import Settings, load_settings
from tasks.deliver import deliver_flow
from tasks.ingest import ingest_flow

Curve = list[dict[str, Any]]
"""``epoch``, ``loss`` and ``held_out_log_density`` of every pass."""


def prepare_flow(store: str, samples: int, settings: Settings) -> Job:
    """Look at everything a training needs, before any work.

    Raises:
        InputError: when there are too few samples.
        ValueError: when weights are missing or must not be used.
    """
    check_models(settings)
    return ingest_flow(store, samples, settings)


def run_flow(job: Job, out: str | Path, report: Report = lambda line: None) -> Curve:
    """Draw, label and train, whatever of it is missing, write the files to ``out`` and return the curve.

    Raises:
        InputError: when a table of labels cannot be used.
        StageError: when a stage stopped the run.
    """
    run_stages(job, report)
    return deliver_flow(job, Path(out))


@flow(name="train-styleflow", persist_result=False, validate_parameters=True)
def train_styleflow(
    store: str,
    out: str,
    samples: int = 10_000,
    profile: str = "embedded",
    overrides: Sequence[str] = (),
) -> Curve:
    """Train the flow that edits attributes of a profile's generator.

    Args:
        store: URL or folder that keeps samples and checkpoints; the same one resumes.
        out: folder for the weights, a sheet of edits and the curve.
        samples: how many are drawn; the paper takes 10,000.
        profile: a profile's name or file.
        overrides: ``section.field=value`` strings.

    Returns:
        The curve.
    """
    set_log_levels()
    job = prepare_flow(store, samples, load_settings(profile, overrides))
    with process_left():
        curve = run_flow(job, out, reporter.get())
    create_table_artifact(curve, key="train-styleflow", description=job.label)
    return curve


def start_flow(job: Job, out: str | Path, report: Report, overrides: Sequence[str], profile: str) -> Curve:
    """Train, under Prefect where that is."""
    inputs = job.store, str(out), job.frames, profile, list(overrides)
    said: Curve = under_prefect(train_styleflow, inputs, job, report, lambda: run_flow(job, out, report))
    return said
