"""Stage ``render``: every frame at the driver's pose, its face on the first frame's render."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from portrait_core.models.cache import cached, drop_unused
from portrait_core.pipeline import Array, FrameRange, Job, Stage
from portrait_core.pipeline.ledger import todo
from portrait_core.pipeline.results import StageResult, Stopwatch
from tasks.context import FrameArrays, FrameRows, device_of, use_threads
from tasks.frames import Save, each
from tasks.running import does
from tasks.stages.inversion import anchor
from tasks.stages.pose import output_cameras
from tasks.stages.tuning import TUNED

if TYPE_CHECKING:
    from torch import Tensor

    from portrait_core.generators import TriPlaneGenerator
    from portrait_core.rendering.pose_renderer import PoseRenderer

FIELDS = {"frames": "image", "render": "first", "render_mask": "mask", "render_depth": "depth"}
"""Arrays and the fields of a rendered frame that they keep."""


RENDER = Stage(
    name="render",
    title="render and composite",
    version=3,
    unit="reenactment",
    reads=("portrait", "retarget", "template", "inversion", "tuning", "pose"),
    settings=("render", "composite"),
    writes=tuple(Array(name) for name in FIELDS),
    per_frame=True,
    parallel_over_frames=True,
    needs_frame_of="inversion",
    fill_from_neighbour=True,
    drop_with="pictures",
)


@does(RENDER, precision="job")
def render(job: Job, start: int, stop: int) -> StageResult:
    """Render and composite frames ``[start, stop)``."""
    watch = Stopwatch("render", start, stop)
    runs = todo(job, "render", start, stop)
    if not runs:
        return watch.result(0)
    import torch

    from portrait_core.inversion.targets import mask_tensor

    use_threads(job, alone=False)
    renderer, device = pose_renderer(job), device_of(job)
    read = ((job.output("inversion"), "latents"), (job.output("template"), "face_mask"))
    rows = FrameRows(read, runs)
    cameras, arrays = output_cameras(job), FrameArrays(job, "render")

    def fetch(frame: FrameRange) -> tuple[Tensor, Tensor, Tensor]:
        i, row = frame.start, rows.at(frame.start)
        ws, camera = torch.from_numpy(row["latents"]), torch.from_numpy(cameras[i : i + 1])
        return ws.to(device), mask_tensor(row["face_mask"][0])[None].to(device), camera.to(device)

    def work(frame: FrameRange, inputs: tuple[Tensor, Tensor, Tensor]) -> Save:
        posed = renderer.render(*inputs)
        made = {name: np.asarray(getattr(posed, field))[None] for name, field in FIELDS.items()}
        return arrays.later(frame.start, made)

    return watch.result(each(job, "render", runs, work, fetch=fetch))


def tuned_generator(job: Job) -> TriPlaneGenerator:
    """The process's tuned generator of this clip. Before it is loaded, that of another clip goes, unless a
    task is at work with it.

    Raises:
        MissingChunk: when it is not in the store; tuning will make it again.
    """
    from portrait_core.errors import MissingChunk
    from tasks.fitting import computing, tuned_from_bytes

    def load() -> TriPlaneGenerator:
        drop_tuned()
        output = job.output("tuning")
        data = output.get_bytes(TUNED)
        if data is None:
            raise MissingChunk(f"{output.path}/{TUNED}", [0])
        return tuned_from_bytes(data, job)

    return cached("tuned", job.stage_keys["tuning"], load, *computing(job), alone=True)


def drop_tuned() -> None:
    """Forget tuned generators that no task is at work with, and the renderers that hold them."""
    drop_unused("poses", "tuned")


def pose_renderer(job: Job) -> PoseRenderer:
    """The process's renderer of this clip."""
    from portrait_core.rendering.pose_renderer import PoseRenderer
    from tasks.fitting import chunked, clip_data, computing

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

    renderer = cached("poses", job.stage_keys["pose"], build, *computing(job), alone=True)
    chunked(renderer.generator, job)
    return renderer
