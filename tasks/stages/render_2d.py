"""Stage ``render`` of a 2D generator: every frame's face on the first frame's render, without a pose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from portrait_core.pipeline import Array, FrameRange, Job, Stage
from portrait_core.pipeline.ledger import unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.runtime.model_cache import cached
from tasks.context import FrameArrays, FrameRows, device_of, use_threads
from tasks.frames import Save, process_frames
from tasks.running import does
from tasks.stages.inversion import anchor
from tasks.stages.render import tuned_generator

if TYPE_CHECKING:
    from torch import Tensor

    from portrait_core.rendering.still_renderer import StillRenderer

SOURCE = "source"
"""Array of the portrait in the generator's crop."""

RENDER_2D = Stage(
    name="render",
    title="render and composite",
    version=1,
    unit="reenactment",
    reads=("portrait", "retarget", "template", "inversion", "tuning"),
    settings=("composite",),
    writes=(Array("frames"), Array(SOURCE, per="clip")),
    per_frame=True,
    parallel_over_frames=True,
    needs_frame_of="inversion",
    fill_from_neighbour=True,
    variant="2d",
)


@does(RENDER_2D, precision="job")
def keep_source(job: Job) -> StageResult:
    """Keep the portrait in the generator's crop ``[1,S,S,3]``. Commits no frame."""
    watch = Stopwatch("render", 0, 1)
    if not unfinished_runs(job, "render", 0, job.frames):
        return watch.result(0)
    from tasks.fitting import clip_data

    use_threads(job, alone=False)
    job.output("render").write_whole({SOURCE: clip_data(job).crop[None]})
    return watch.result(0)


@does(RENDER_2D, precision="job")
def render_2d(job: Job, start: int, stop: int) -> StageResult:
    """Render and composite frames ``[start, stop)`` in the generator's crop ``[T,S,S,3]``."""
    watch = Stopwatch("render", start, stop)
    runs = unfinished_runs(job, "render", start, stop)
    if not runs:
        return watch.result(0)
    import torch

    from tasks.fitting import clip_data

    use_threads(job, alone=False)
    renderer, clip, device = still_renderer(job), clip_data(job), device_of(job)
    rows, arrays = FrameRows([(job.output("inversion"), "latents")], runs), FrameArrays(job, "render")

    def fetch(frame: FrameRange) -> tuple[Tensor, Tensor]:
        i = frame.start
        return torch.from_numpy(rows.at(i)["latents"]).to(device), clip.face(i)

    def work(frame: FrameRange, inputs: tuple[Tensor, Tensor]) -> Save:
        return arrays.defer_write(frame.start, {"frames": np.asarray(renderer.render(*inputs))[None]})

    return watch.result(process_frames(job, "render", runs, work, fetch=fetch))


def still_renderer(job: Job) -> StillRenderer:
    """Return the process's renderer of this clip."""
    from portrait_core.rendering.still_renderer import StillRenderer
    from tasks.fitting import clip_data, computing

    def build() -> StillRenderer:
        first, clip = anchor(job), clip_data(job)
        seen = first.latent.ws, clip.face(first.frame), clip.camera
        return StillRenderer(tuned_generator(job), *seen, job.settings.composite)

    key = f"{job.stage_keys['render']}-{job.stage_keys['template']}"
    where = job.store, str(job.settings.runner.storage_options)
    return cached("poses", key, build, *computing(job), *where, alone=True)
