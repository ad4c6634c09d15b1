"""Stage ``render``: every frame at the driver's pose, its face on the first frame's render."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from portrait_core.models.cache import cached
from tasks.context import todo, unit_of, use_threads
from tasks.frames import Save, each
from tasks.inversion import anchor
from tasks.job import TUNED, Job
from tasks.policy import StageResult, Stopwatch, stage_task
from tasks.pose import output_cameras
from tasks.ranges import FrameRange

if TYPE_CHECKING:
    from portrait_core.generators import TriPlaneGenerator
    from portrait_core.reposing import PosedFrame, PoseRenderer

FIELDS = {"frames": "image", "render": "first", "render_mask": "mask", "render_depth": "depth"}
"""Arrays and the fields of a rendered frame that they keep."""


@stage_task("render")
def render(job: Job, start: int, stop: int) -> StageResult:
    """Render and composite frames ``[start, stop)``."""
    watch = Stopwatch("render", start, stop)
    runs = todo(job, "render", start, stop)
    if not runs:
        return watch.result(0)
    import torch

    from tasks.fitting import clip_data

    use_threads(job, alone=False)
    clip, renderer, unit = clip_data(job), pose_renderer(job), unit_of(job, "render")
    cameras = output_cameras(job)

    def work(frame: FrameRange) -> Save:
        i = frame.start
        ws = torch.from_numpy(unit.read("latents", i, i + 1)).to(clip.device)
        camera = torch.from_numpy(cameras[i : i + 1]).to(clip.device)
        return partial(_keep, job, i, renderer.render(ws, clip.face(i), camera))

    return watch.result(each(job, "render", runs, work))


def _keep(job: Job, frame: int, posed: PosedFrame) -> None:
    unit, key = unit_of(job, "render"), job.stage_keys["render"]
    with unit.overwriting("render", [frame], key):
        for name, attribute in FIELDS.items():
            values = np.asarray(getattr(posed, attribute))
            unit.ensure_array(name, (job.frames, *values.shape), values.dtype, key)
            unit.write(name, frame, values[None])


def tuned_generator(job: Job) -> TriPlaneGenerator:
    """The process's tuned generator of this clip.

    Raises:
        MissingChunk: when it is not in the store; tuning will make it again.
    """
    from portrait_core.errors import MissingChunk
    from tasks.context import device_of
    from tasks.fitting import tuned_from_bytes

    def load() -> TriPlaneGenerator:
        unit = unit_of(job, "tuning")
        data = unit.get_bytes(TUNED)
        if data is None:
            raise MissingChunk(f"{unit.kind}/{unit.name}/{TUNED}", [0])
        return tuned_from_bytes(data, job)

    return cached("tuned", job.stage_keys["tuning"], load, device_of(job))


def pose_renderer(job: Job) -> PoseRenderer:
    """The process's renderer of this clip."""
    from portrait_core.reposing import PoseRenderer
    from tasks.fitting import at_chunk, clip_data

    def build() -> PoseRenderer:
        clip, first = clip_data(job), anchor(job)
        return PoseRenderer(
            tuned_generator(job),
            first.latent.ws,
            clip.face(first.frame),
            clip.camera,
            job.settings.render,
            job.settings.composite,
        )

    renderer = cached("poses", job.stage_keys["pose"], build)
    at_chunk(renderer.generator, job)
    return renderer
