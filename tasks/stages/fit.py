"""Stage ``fit``: the head's motion through the driving video."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.pipeline import Array, Job, Stage
from portrait_core.pipeline.ledger import unfinished_runs
from portrait_core.pipeline.ranges import frames_shown
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import tracking_weights
from portrait_core.template.registry import FACE_MODELS, face_model_row
from portrait_core.tracking.array_names import MOUTH
from portrait_core.tracking.measure import seen
from tasks.context import TRACK, driving_frames, track_arrays, use_threads
from tasks.running import does
from tasks.trackers import tracker

FIT = Stage(
    name="fit",
    title="fit head",
    version=8,
    unit="video",
    reads=("person",),
    settings=("tracking",),
    weights=(tracking_weights,),
    writes=(
        *(Array(name, per="clip") for name in TRACK),
        *(
            Array(name, per="clip", when=row.is_chosen)
            for row in FACE_MODELS.values()
            for name in row.read_arrays
        ),
    ),
)


@does(FIT, precision="fp32")
def fit(job: Job) -> StageResult:
    """Track the whole clip, and read what shows between the lips where the template paints it.

    Frames that are not believed take the track of their neighbour.
    """
    watch = Stopwatch("fit", 0, 1)
    if not unfinished_runs(job, "fit", 0, 1):
        return watch.result(0)
    from portrait_core.tracking.fit import with_rows_of

    use_threads(job, alone=True)
    rows = job.output("person").read_together(("landmarks", "cut"))
    points, ok = rows["landmarks"], seen(rows["landmarks"])
    track = tracker(job).clip(points, ok, lambda: driving_frames(job), cuts=rows["cut"])
    output = job.output("fit")
    output.write_whole(track_arrays(with_rows_of(track, frames_shown(ok), ok)) | _mouth(job, points))
    output.commit()
    return watch.result(1)


def _mouth(job: Job, points: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Read what shows between the lips of landmarks ``[T,478,2]``; nothing where nobody asks for it."""
    if not face_model_row(job.settings).read_arrays:
        return {}
    from portrait_core.tracking.mouth_inside import read_mouth_inside

    found = read_mouth_inside(lambda: driving_frames(job), points)
    return dict(zip(MOUTH, (found.teeth, found.light), strict=True))
