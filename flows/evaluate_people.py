"""The flow ``evaluate_people``: edited people of both generators from two sides (the paper's table 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.dataset import run_clips
from flows.dataset_run import Clip
from flows.display.progress import ArtifactBoard, Board
from flows.engine.task_runs import process_left, settings_of_flow
from flows.reenact import Report, under_prefect
from portrait_core.errors import InputError
from portrait_core.settings import Settings, load_settings
from portrait_core.store import Store
from tasks.table3 import TABLE, deliver_table3, table3_jobs

Missing = Mapping[str, str]
"""Why cells of the table are empty, by row and column."""


def run_table3(store: str, out: Path, settings: Settings, board: Board) -> Missing:
    """Make every cell of the table, write its files to ``out``, and return what is missing and why.

    Raises:
        InputError: no cell can be made.
        StageError: a stage stopped the run; the same command continues it.
    """
    Store(store, settings.runner.storage_options).check_format(write=True)
    table = table3_jobs(store, settings)
    places = list(table.jobs)
    clips = [
        Clip(number, table.jobs[place].label, table.jobs[place]) for number, place in enumerate(places, 1)
    ]
    results = run_clips(clips, lambda clip: clip, settings, None, board)
    failed = {
        places[result.number - 1]: result.message or result.outcome
        for result in results
        if result.outcome not in ("done", "held")
    }
    done = {place: job for place, job in table.jobs.items() if place not in failed}
    if not done:
        raise InputError(f"no cell of the table could be made: {'; '.join(failed.values())}")
    deliver_table3(replace(table, jobs=done, missing={**table.missing, **failed}), out)
    named = {" ".join(filter(None, place)): why for place, why in failed.items()}
    return {" ".join(filter(None, place)): why for place, why in table.missing.items()} | named


@flow(name="evaluate-people", persist_result=False, validate_parameters=True)
def evaluate_people(
    store: str, out: str, profile: str = "embedded", overrides: Sequence[str] = ()
) -> dict[str, str]:
    """Compare the identity of edited people from two sides, of a 2D and a 3D generator (table 3).

    Args:
        store: URL or folder that keeps every stage's output; the same store resumes the run.
        out: folder for the table and a sheet of people.
        profile: a profile's name or file.
        overrides: ``section.field=value`` strings.

    Returns:
        Why cells are missing, by row and column.
    """
    settings = settings_of_flow(profile, overrides)
    with process_left():
        missing = run_table3(store, Path(out), settings, ArtifactBoard())
    create_markdown_artifact((Path(out) / TABLE).read_text(), key="evaluation-people")
    return dict(missing)


def start_table3(
    store: str, out: Path, profile: str, overrides: Sequence[str], board: Board, report: Report
) -> Missing:
    """Make table 3, under Prefect where a server answers or the settings ask for one."""
    settings = load_settings(profile, overrides)
    inputs = store, str(out), profile, list(overrides)

    def without() -> Missing:
        return run_table3(store, out, settings, board)

    missing: Missing = under_prefect(evaluate_people, inputs, settings, "table3", report, without)
    return missing
