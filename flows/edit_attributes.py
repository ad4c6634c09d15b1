"""The flow ``edit_attributes``: one portrait with other attributes."""

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
from tasks.deliver import deliver_edit
from tasks.ingest import ingest_edit


def prepare_edit(portrait: str, store: str, settings: Settings) -> Job:
    """Look at everything an edit needs, before any work.

    Raises:
        InputError: when the portrait cannot be used, or the flow does not know what is asked.
        ValueError: when weights are missing or must not be used.
    """
    check_models(settings)
    return ingest_edit(portrait, store, settings)


def run_edit(job: Job, out: str | Path, report: Report = lambda line: None) -> dict[str, Any]:
    """Make an edit, whatever of it is missing, write its files to ``out`` and return what is in edit.json.

    Raises:
        InputError: when the portrait cannot be used.
        StageError: when a stage stopped the run.
    """
    run_stages(job, report)
    return deliver_edit(job, Path(out))


@flow(name="edit-attributes", persist_result=False, validate_parameters=True)
def edit_attributes(
    portrait: str,
    store: str,
    out: str,
    profile: str = "embedded",
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Change attributes of a portrait: ``edit.attributes`` of the settings.

    Args:
        portrait: path of an image with one face.
        store: URL or folder that keeps every stage's output; the same one resumes.
        out: folder for the edited portrait, a strip of strengths, latents and ``edit.json``.
        profile: a profile's name or file.
        overrides: ``section.field=value`` strings.

    Returns:
        The content of ``edit.json``.
    """
    set_log_levels()
    job = prepare_edit(portrait, store, load_settings(profile, overrides))
    with process_left():
        said = run_edit(job, out, reporter.get())
    rows = [{"attribute": name, **row} for name, row in said["attributes"].items()]
    create_table_artifact(rows, key="edit-attributes", description=portrait)
    return said


def start_edit(
    job: Job, out: str | Path, report: Report, overrides: Sequence[str], profile: str
) -> dict[str, Any]:
    """Make an edit, under Prefect where that is."""
    inputs = job.portrait, job.store, str(out), profile, list(overrides)
    said: dict[str, Any] = under_prefect(
        edit_attributes, inputs, job, report, lambda: run_edit(job, out, report)
    )
    return said
