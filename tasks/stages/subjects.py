"""Stage ``subjects``: random people of a generator, edited, each from two sides (paper, table 3)."""

from __future__ import annotations

from portrait_core.pipeline import Array, FrameRange, Job, Stage
from portrait_core.pipeline.ledger import unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import identity_weights, labelling_weights, subject_weights
from tasks.context import FrameArrays, use_threads
from tasks.frames import Save, process_frames
from tasks.running import does

SUBJECTS = Stage(
    name="subjects",
    title="show people from two sides",
    version=1,
    unit="evaluation",
    inputs=("labels",),
    settings=("generator", "consistency", "tracking.min_face_score", "tracking.looks", "seed"),
    weights=(subject_weights, labelling_weights, identity_weights),
    writes=(Array("views"), Array("w"), Array("asked"), Array("identity"), Array("agreement")),
    per_frame=True,
    parallel_over_frames=True,
    counts_frames=True,
)
"""Its frames are people. ``views [N,2,S,S,3]`` uint8, ``w [N,rows,D]`` float32 after the edit, ``asked
[N,2,2]`` float64 yaw and pitch in radians, ``identity [N,2,K]`` float64, NaN where a view shows no face,
``agreement [N,2]`` float64, by reprojection; NaN without depth."""


@does(SUBJECTS, precision="fp32")
def subjects(job: Job, start: int, stop: int) -> StageResult:
    """Draw people ``[start, stop)``, edit them, show each from two sides, and read whom the views show."""
    watch = Stopwatch("subjects", start, stop)
    runs = unfinished_runs(job, "subjects", start, stop)
    if not runs:
        return watch.result(0)
    import numpy as np

    from tasks.subjects import SubjectMaker, identities

    threads = use_threads(job, alone=False)
    maker, arrays = SubjectMaker(job), FrameArrays(job, "subjects")

    def work(batch: FrameRange) -> Save:
        made = [maker.make(number) for number in range(*batch)]
        rows = {
            "views": np.stack([one.views for one in made]),
            "w": np.stack([one.person.w[0].float().cpu().numpy() for one in made]),
            "asked": np.stack([one.sides_rad for one in made]),
            "agreement": np.stack([one.agreement for one in made]),
            "identity": np.stack([identities(job, one.views, threads) for one in made]),
        }
        return arrays.defer_write(batch.start, rows)

    return watch.result(process_frames(job, "subjects", runs, work, job.settings.consistency.batch))
