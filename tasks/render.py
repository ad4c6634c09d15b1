"""Stage ``render``: every frame at the driver's pose, its face on the first frame's render."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from portrait_core.models.cache import cached
from tasks.context import todo, unit_of, use_threads
from tasks.job import TUNED, Job
from tasks.policy import StageResult, Stopwatch, stage_task
from tasks.pose import output_cameras

if TYPE_CHECKING:
    from portrait_core.generators import TriPlaneGenerator
    from portrait_core.reposing import PosedFrame, PoseRenderer

FIELDS = {"frames": "image", "render": "first", "render_mask": "mask", "render_depth": "depth"}
"""Arrays and the fields of a rendered frame that they keep."""


@stage_task
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
    for run in runs:
        for i in range(*run):
            ws = torch.from_numpy(unit.read("latents", i, i + 1)).to(clip.device)
            camera = torch.from_numpy(cameras[i : i + 1]).to(clip.device)
            _keep(job, i, renderer.render(ws, clip.face(i), camera))
    return watch.result(sum(map(len, runs)))


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
    import torch

    from portrait_core.reposing import PoseRenderer
    from tasks.fitting import clip_data

    def build() -> PoseRenderer:
        clip = clip_data(job)
        first = torch.from_numpy(unit_of(job, "render").read("latents", 0, 1)).to(clip.device)
        return PoseRenderer(
            tuned_generator(job),
            first,
            clip.face(0),
            clip.camera,
            job.settings.render,
            job.settings.composite,
        )

    return cached("poses", job.stage_keys["pose"], build)
