"""The flow ``edit_attributes``: one portrait with changed attributes."""

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
from portrait_core.text.markdown import escape_markdown, markdown_cells
from tasks.deliver import deliver_edit
from tasks.ingest import ingest_edit


def prepare_edit(portrait: str, store: str, settings: Settings) -> Job:
    """Check everything that an edit needs, before any work.

    Raises:
        InputError: the portrait is not usable, or the StyleFlow does not know a requested attribute.
        ValueError: weights are missing or their licence forbids the use.
    """
    check_models(settings)
    return ingest_edit(portrait, store, settings)


def run_edit(job: Job, out: str | Path, report: Report = lambda line: None) -> dict[str, Any]:
    """Compute what is missing of an edit, write its files to ``out`` and return the content of edit.json.

    Raises:
        InputError: the portrait is not usable.
        StageError: a stage stopped the run.
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
    """Change attributes of a portrait as ``edit.attributes`` of the settings says.

    Args:
        portrait: path of an image with one face.
        store: URL or folder that keeps every stage's output; the same store resumes the run.
        out: folder for the edited portrait, a strip of strengths, latents and ``edit.json``.
        profile: a profile's name or file.
        overrides: ``section.field=value`` strings.

    Returns:
        The content of ``edit.json``.
    """
    job = prepare_edit(portrait, store, settings_of_flow(profile, overrides))
    with process_left():
        result = run_edit(job, out, reporter.get())
    rows = [markdown_cells({"attribute": name, **row}) for name, row in result["attributes"].items()]
    create_table_artifact(rows, key="edit-attributes", description=escape_markdown(portrait))
    return result


def start_edit(
    job: Job, out: str | Path, report: Report, overrides: Sequence[str], profile: str
) -> dict[str, Any]:
    """Make an edit, under Prefect where a server answers."""
    inputs = job.portrait, job.store, str(out), profile, list(overrides)

    def without() -> dict[str, Any]:
        return run_edit(job, out, report)

    result: dict[str, Any] = under_prefect(edit_attributes, inputs, job.settings, job.label, report, without)
    return result
