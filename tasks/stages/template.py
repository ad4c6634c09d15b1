"""Stage ``template``: the portrait with the driver's expressions, and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.pipeline import Array, FrameRange, Job, Stage
from portrait_core.pipeline.ledger import unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import head_weights
from tasks.context import FrameArrays, use_threads
from tasks.frames import Save, process_frames
from tasks.running import does
from tasks.trackers import moving_portrait, read_moves

if TYPE_CHECKING:
    from portrait_core.template.moves import Moves

MASKS = ("face_mask", "mouth_mask", "uncovered")

TEMPLATE = Stage(
    name="template",
    title="expression template",
    version=6,
    unit="reenactment",
    reads=("portrait", "retarget"),
    settings=("template", "render.detail", "output.frame", "output.size"),
    weights=(head_weights,),
    writes=(Array("template"), *(Array(name) for name in MASKS)),
    per_frame=True,
    parallel_over_frames=True,
    fill_from_neighbour=True,
    drop_with="pictures",
)


@does(TEMPLATE)
def template(job: Job, start: int, stop: int) -> StageResult:
    """Render the expression template and its masks for frames ``[start, stop)``."""
    watch = Stopwatch("template", start, stop)
    runs = unfinished_runs(job, "template", start, stop)
    if not runs:
        return watch.result(0)
    use_threads(job, alone=False)
    portrait, arrays = moving_portrait(job), FrameArrays(job, "template")

    def fetch(batch: FrameRange) -> Moves:
        return read_moves(job, *batch)

    def work(batch: FrameRange, moves: Moves) -> Save:
        drawn = portrait.render(moves)
        rows = {"template": drawn.image} | {name: _as_bytes(getattr(drawn, name)) for name in MASKS}
        return arrays.defer_write(batch.start, rows)

    return watch.result(process_frames(job, "template", runs, work, job.settings.template.batch, fetch=fetch))


def _as_bytes(mask: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.round(np.clip(mask, 0, 1) * 255).astype(np.uint8)
