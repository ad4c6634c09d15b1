"""The paper's table 3 out of the jobs of its cells: which there are, and what becomes of their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from portrait_core.errors import ColumnError, ModelFileError
from portrait_core.metrics.consistency import Consistency, compare_views
from portrait_core.pipeline import Job
from portrait_core.report.parquet import parquet_bytes
from portrait_core.report.pictures import png_bytes
from portrait_core.report.table3 import (
    COLUMNS,
    ROWS,
    Cell,
    Place,
    table3_details,
    table3_markdown,
    table3_rows,
    table3_sheet,
)
from portrait_core.settings import Settings
from tasks.deliver import put_files
from tasks.ingest_subjects import ingest_subjects

TABLE, DETAILS, SHEET = "table3.md", "table3.parquet", "table3.png"
"""Files of the table: its text, a row per cell, and some people of every cell."""
SHOWN = 4
"""People on the sheet."""


@dataclass(frozen=True)
class Table3Jobs:
    """The jobs of a table's cells.

    Attributes:
        jobs: by row and column.
        missing: why other cells cannot be made.
    """

    jobs: Mapping[Place, Job]
    missing: Mapping[Place, str]


def table3_jobs(
    store: str,
    settings: Settings,
    rows: Sequence[str] = tuple(ROWS),
    columns: Sequence[str] = tuple(COLUMNS),
) -> Table3Jobs:
    """Make the job of every cell, before any work.

    Args:
        store: path or URL.
        settings: of the run; ``consistency.gan`` and ``consistency.edit`` are those of each cell.
        rows: keys of :data:`~portrait_core.report.table3.ROWS`.
        columns: keys of :data:`~portrait_core.report.table3.COLUMNS`.

    Raises:
        InputError: a StyleFlow is another generator's, or cannot turn a 2D generator's heads.
        ValueError: weights are not of their row's kind.
    """
    jobs: dict[Place, Job] = {}
    missing: dict[Place, str] = {}
    for place in ((row, column) for row in rows for column in columns):
        cell = settings.consistency.model_copy(update={"gan": place[0], "edit": place[1]})
        try:
            jobs[place] = ingest_subjects(store, settings.model_copy(update={"consistency": cell}))
        except (ColumnError, ModelFileError) as error:
            missing[place] = str(error)
    return Table3Jobs(jobs, missing)


def read_consistency(job: Job) -> Consistency:
    """Compare the views of a finished job.

    Raises:
        MissingChunk: people are missing.
    """
    found = job.output("subjects").read_together(("identity", "asked", "agreement"))
    return compare_views(found["identity"], found["asked"], agreement=found["agreement"])


def deliver_table3(table: Table3Jobs, out: Path) -> list[Cell]:
    """Write the table of finished jobs to ``out``, as text, as Parquet and as a sheet of people.

    Returns:
        The table's cells.

    Raises:
        MissingChunk: people are missing.
    """
    results = {place: read_consistency(job) for place, job in table.jobs.items()}
    cells = table3_rows(results, table.missing)
    files = {
        TABLE: table3_markdown(cells, _about(table)).encode(),
        DETAILS: parquet_bytes(table3_details(cells)),
    }
    if table.jobs:
        files[SHEET] = _sheet(table)
    put_files(out, files)
    return cells


def _sheet(table: Table3Jobs) -> bytes:
    count = min(SHOWN, *(job.frames for job in table.jobs.values()))
    outputs = {place: job.output("subjects") for place, job in table.jobs.items()}
    asked = next(iter(outputs.values())).read("asked", 0, count)
    views = {place: output.read("views", 0, count) for place, output in outputs.items()}
    return png_bytes(table3_sheet(views, asked))


def _about(table: Table3Jobs) -> str:
    """Say how the cells were made."""
    if not table.jobs:
        return ""
    settings = next(iter(table.jobs.values())).settings
    chosen = settings.consistency
    digests = {row: job.weights["generator"][:16] for (row, _), job in table.jobs.items()}
    generators = ", ".join(f"{ROWS[row]} {digest}" for row, digest in digests.items())
    return (
        f"{chosen.subjects} people of each generator ({generators}) at truncation {chosen.truncation:g}, "
        f"seed {settings.seed}, each from two sides (yaw within {chosen.yaw_deg:g} and pitch within "
        f"{chosen.pitch_deg:g} degrees, uniform). An edit moves a person's attribute by {chosen.amount:g} of "
        "its range toward the end that is further away, and a switch to its other end; the paper does not "
        "state its edits' strength. The 3D GAN's camera moves; the 2D GAN's pose is moved by its StyleFlow."
    )
