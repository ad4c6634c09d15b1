"""Stage ``table``: the tables of an evaluation, from what was read of its clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portrait_core.pipeline import File, Job, Stage
from portrait_core.pipeline.ledger import done_frames
from portrait_core.pipeline.results import StageResult, Stopwatch
from tasks.running import does

if TYPE_CHECKING:
    from portrait_core.evaluation.plan import Plan
    from portrait_core.store import Store

REPORT, SUMMARY, CLIPS = "report.md", "summary.parquet", "clips.parquet"
PLOT, SHEET = "plot.png", "sheet.png"
"""Files of an evaluation."""

TABLE = Stage(
    name="table",
    title="make tables",
    version=5,
    unit="evaluation",
    inputs=("plan",),
    settings=("evaluation", "seed"),
    writes=(File(REPORT), File(SUMMARY), File(CLIPS), File(PLOT), File(SHEET)),
)


@does(TABLE)
def table(job: Job) -> StageResult:
    """Average what was read of the plan's clips, and write report, tables and plot."""
    watch = Stopwatch("table", 0, 1)
    if done_frames(job, "table").all():
        return watch.result(0)
    from portrait_core.evaluation.markdown import follow_table, report, table_1, table_2, truth_table
    from portrait_core.evaluation.plan import read_plan
    from portrait_core.evaluation.plots import bars
    from portrait_core.evaluation.tables import summarise
    from portrait_core.report.parquet import parquet_bytes
    from tasks.readings import read_clips

    store, output = job.open_store(), job.output("table")
    plan, chosen = read_plan(store, job.inputs["plan"]), job.settings.evaluation

    summary, clips = summarise(
        plan.methods,
        lambda method: read_clips(store, plan.members_of(method)),
        plan.common_pairs(),
        chosen,
        plan.seed,
    )
    first = "deep3d" if "deep3d" in plan.estimators else plan.estimators[0]
    columns = [*truth_table(summary), *table_1(first), *table_2(), *follow_table()[:2]]
    output.put_bytes(REPORT, report(summary, plan).encode())
    output.put_bytes(SUMMARY, parquet_bytes(summary))
    output.put_bytes(CLIPS, parquet_bytes(clips))
    output.put_bytes(PLOT, bars(summary, plan.methods, columns))
    output.put_bytes(SHEET, _sheet(store, plan))
    output.commit()
    return watch.result(1)


def _sheet(store: Store, plan: Plan) -> bytes:
    """Draw some pairs by every method."""
    from portrait_core.evaluation.sheet import PAIRS, Strip, comparison_sheet
    from portrait_core.report.pictures import png_bytes
    from tasks.readings import read_strips

    pairs = sorted({member.pair for member in plan.members})[:PAIRS]
    drivers: dict[int, Strip] = {}
    strips: dict[str, dict[int, Strip]] = {}
    for method in plan.methods:
        members = [member for member in plan.members_of(method) if member.pair in pairs]
        strips[method], shown = read_strips(store, members)
        drivers = shown | drivers  # the portrait in the first method's crop
    return png_bytes(comparison_sheet(drivers, strips))
