"""Stage ``views``: some frames of the clip, seen from cameras that an evaluation drew."""

from __future__ import annotations

import numpy as np

from portrait_core.pipeline import Array, Job, Stage
from portrait_core.pipeline.ledger import done_frames
from portrait_core.pipeline.results import StageResult, Stopwatch
from tasks.context import use_threads
from tasks.running import does
from tasks.stages.animate import has_views

VIEWS = Stage(
    name="views",
    title="render other sides",
    version=1,
    unit="reenactment",
    reads=("portrait", "layers", "template", "inversion", "tuning"),
    settings=("render", "composite", "output.frame", "output.size", "evaluation.views"),
    writes=(Array("views", per="clip", when=has_views),),
    drop_with="pictures",
)


@does(VIEWS, precision="job")
def views(job: Job) -> StageResult:
    """Render some frames from cameras that an evaluation drew (paper section 4.1, ID).

    A frame whose latent was set aside is replaced by the nearest one that has it.
    """
    watch = Stopwatch("views", 0, 1)
    if done_frames(job, "views").all():
        return watch.result(0)
    output, asked = job.output("views"), job.settings.evaluation.views
    if asked:
        output.write_whole({"views": np.stack([_rendered(job, *view) for view in asked])})
    output.commit()
    return watch.result(1)


def _rendered(job: Job, frame: int, *angles: float) -> np.ndarray:
    import torch

    from portrait_core.cameras import orbit_labels
    from tasks.stages.render import frame_inputs, pose_renderer, rendered

    use_threads(job, alone=False)
    there = np.flatnonzero(done_frames(job, "inversion"))
    nearest = int(there[np.abs(there - frame).argmin()])
    camera = torch.from_numpy(orbit_labels(*angles))
    return rendered(pose_renderer(job), frame_inputs(job, nearest), camera).image
