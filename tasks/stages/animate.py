"""Stages ``animate`` and ``animate_views``: the portrait animated by a method without optimisation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from portrait_core.pipeline import Array, FrameRange, Job, Stage
from portrait_core.pipeline.ledger import done_frames, unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import baseline_weights
from portrait_core.settings import Settings
from tasks.context import FrameArrays, use_threads
from tasks.frames import Save, process_frames
from tasks.running import does

ANIMATE = Stage(
    name="animate",
    title="animate",
    version=1,
    unit="reenactment",
    reads=("portrait", "person", "template"),
    inputs=("video",),
    settings=("baseline", "render.pose_transfer", "template.size", "evaluation.truth"),
    weights=(baseline_weights,),
    writes=(Array("frames"),),
    per_frame=True,
    parallel_over_frames=True,
    needs_frame_of="template",
    fill_from_neighbour=True,
    drop_with="pictures",
)


ANIMATE_BY_COEFFICIENTS = replace(ANIMATE, reads=(*ANIMATE.reads, "read_deep3d"))
"""The same for a method that Deep3DFaceRecon's coefficients drive."""


def has_views(settings: Settings) -> bool:
    """Tell whether the settings ask for views of the clip."""
    return bool(settings.evaluation.views)


ANIMATE_VIEWS = Stage(
    name="animate_views",
    title="animate, from other sides",
    version=1,
    unit="reenactment",
    reads=("portrait", "person"),
    inputs=("video",),
    settings=(*ANIMATE.settings, "evaluation.views"),
    weights=ANIMATE.weights,
    writes=(Array("views", per="clip", when=has_views),),
    drop_with="pictures",
)


VIEWS_BY_COEFFICIENTS = replace(ANIMATE_VIEWS, reads=(*ANIMATE_VIEWS.reads, "read_deep3d"))
"""The same for a method that Deep3DFaceRecon's coefficients drive."""


@does(ANIMATE, precision="fp32")
def animate(job: Job, start: int, stop: int) -> StageResult:
    """Draw frames ``[start, stop)`` by the method that the settings name."""
    watch = Stopwatch("animate", start, stop)
    runs = unfinished_runs(job, "animate", start, stop)
    if not runs:
        return watch.result(0)
    from tasks.animators import animator

    use_threads(job, alone=False)
    method, arrays = animator(job), FrameArrays(job, "animate")

    def work(batch: FrameRange) -> Save:
        return arrays.defer_write(batch.start, {"frames": method.animate(range(*batch))})

    return watch.result(process_frames(job, "animate", runs, work, job.settings.baseline.batch))


@does(ANIMATE_VIEWS, precision="fp32")
def animate_views(job: Job) -> StageResult:
    """Draw some frames seen from cameras that an evaluation drew (paper section 4.1, ID)."""
    watch = Stopwatch("animate_views", 0, 1)
    if done_frames(job, "animate_views").all():
        return watch.result(0)
    output, views = job.output("animate_views"), job.settings.evaluation.views
    if views:
        from portrait_core.cameras import orbit_labels
        from tasks.animators import animator

        use_threads(job, alone=False)
        cameras = [orbit_labels(*angles)[0] for _, *angles in views]
        pictures = animator(job).animate([frame for frame, *_ in views], cameras)
        output.write_whole({"views": np.asarray(pictures)})
    output.commit()
    return watch.result(1)
