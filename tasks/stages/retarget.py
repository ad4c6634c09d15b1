"""Stage ``retarget``: the driver's expressions as the portrait's."""

from __future__ import annotations

from portrait_core.pipeline import Array, Job, Stage
from portrait_core.pipeline.ledger import unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import head_weights
from portrait_core.template.registry import has_moves, more_move_arrays
from tasks.context import use_threads
from tasks.running import does
from tasks.trackers import retarget_clip

RETARGET = Stage(
    name="retarget",
    title="transfer expression",
    version=8,
    unit="reenactment",
    reads=("portrait", "person", "fit"),
    settings=("template",),
    weights=(head_weights,),
    writes=(
        Array("expression", per="clip"),
        Array("jaw", per="clip"),
        *(Array(name, per="clip", when=has_moves(name)) for name in more_move_arrays()),
    ),
    drop_with="clip",
)


@does(RETARGET)
def retarget(job: Job) -> StageResult:
    """Turn what the driver's face does into what the portrait's does, for the whole clip."""
    watch = Stopwatch("retarget", 0, 1)
    if not unfinished_runs(job, "retarget", 0, 1):
        return watch.result(0)
    use_threads(job, alone=True)
    output = job.output("retarget")
    output.write_whole(retarget_clip(job))
    output.commit()
    return watch.result(1)
