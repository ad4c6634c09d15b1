"""Stage ``render``: every frame at the driver's pose, its face on the first frame's render."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.pipeline import Array, FrameRange, Job, Stage
from portrait_core.pipeline.ledger import unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.rendering.page import transfers_detail
from portrait_core.runtime.model_cache import cached, drop_unused
from portrait_core.settings import Settings
from portrait_core.store import Output
from tasks.context import FrameArrays, FrameRows, device_of, head, read_track, use_threads
from tasks.frames import Save, process_frames
from tasks.running import does
from tasks.stages.inversion import anchor
from tasks.stages.pose import output_cameras
from tasks.stages.tuning import TUNED

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from portrait_core.generators.io import AnyGenerator
    from portrait_core.rendering.picture import FrameInputs, Picture, PictureRenderer
    from portrait_core.rendering.pose_renderer import PosedFrame, PoseRenderer


def _own_pictures(settings: Settings) -> bool:
    return not transfers_detail(settings)


FIELDS = {
    "frames": "image",
    "render_mask": "mask",
    "render": "first",
    "render_depth": "depth",
    "coverage": "coverage",
    "cutout": "cutout",
}
"""Arrays and the fields of a rendered frame that they keep."""

RENDER = Stage(
    name="render",
    title="render and composite",
    version=5,
    unit="reenactment",
    reads=("portrait", "layers", "template", "inversion", "tuning", "pose"),
    settings=("render", "composite", "output.frame", "output.size", "output.alpha"),
    writes=(
        Array("frames"),
        Array("render_mask"),
        Array("render", when=_own_pictures),
        Array("render_depth"),
        Array("coverage", when=transfers_detail),
        Array("cutout", when=lambda settings: settings.output.alpha),
    ),
    per_frame=True,
    parallel_over_frames=True,
    needs_frame_of="inversion",
    fill_from_neighbour=True,
    drop_with="pictures",
)
_TEMPLATE = ("template", "face_mask", "mouth_mask")


@does(RENDER, precision="job")
def render(job: Job, start: int, stop: int) -> StageResult:
    """Render and composite frames ``[start, stop)``."""
    watch = Stopwatch("render", start, stop)
    runs = unfinished_runs(job, "render", start, stop)
    if not runs:
        return watch.result(0)
    import torch

    use_threads(job, alone=False)
    renderer, device = pose_renderer(job), device_of(job)
    rows = FrameRows(_inputs(job), runs)
    cameras, arrays = output_cameras(job), FrameArrays(job, "render")
    names = job.declared("render").per_frame

    def fetch(frame: FrameRange) -> tuple[FrameInputs, Tensor]:
        i = frame.start
        return _on_device(rows.at(i), device), torch.from_numpy(cameras[i : i + 1])

    def work(frame: FrameRange, inputs: tuple[FrameInputs, Tensor]) -> Save:
        posed = rendered(renderer, *inputs)
        made = {name: np.asarray(getattr(posed, FIELDS[name]))[None] for name in names}
        return arrays.defer_write(frame.start, made)

    return watch.result(process_frames(job, "render", runs, work, fetch=fetch))


def _inputs(job: Job) -> list[tuple[Output, str]]:
    template = job.output("template")
    return [(job.output("inversion"), "latents"), *((template, name) for name in _TEMPLATE)]


def _on_device(row: Mapping[str, NDArray[Any]], device: torch.device | str) -> FrameInputs:
    import torch

    from portrait_core.inversion.targets import image_tensor, mask_tensor
    from portrait_core.rendering.picture import FrameInputs

    ws, picture = torch.from_numpy(row["latents"]), image_tensor(row["template"][0])[None]
    masks = (mask_tensor(row[name][0])[None] for name in _TEMPLATE[1:])
    return FrameInputs(*(part.to(device) for part in (ws, picture, *masks)))


def frame_inputs(job: Job, frame: int) -> FrameInputs:
    """Read what one frame is rendered from, on the job's device."""
    return _on_device(FrameRows(_inputs(job), [FrameRange(frame, frame + 1)]).at(frame), device_of(job))


def rendered(
    renderer: PoseRenderer | PictureRenderer, frame: FrameInputs, camera: Tensor
) -> PosedFrame | Picture:
    """Render a frame at a pose, with the photograph's pixels or the generator's."""
    from portrait_core.rendering.pose_renderer import PoseRenderer

    if isinstance(renderer, PoseRenderer):
        return renderer.render(frame.ws, frame.face, camera)
    return renderer.render(frame, camera)


def tuned_generator(job: Job) -> AnyGenerator:
    """Return the process's tuned generator of this clip.

    Before it is loaded, that of another clip goes, unless a task is at work with it.

    Raises:
        MissingChunk: when it is not in the store; tuning will make it again.
    """
    from portrait_core.errors import MissingChunk
    from tasks.fitting import computing, tuned_from_bytes

    def load() -> AnyGenerator:
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


def pose_renderer(job: Job) -> PoseRenderer | PictureRenderer:
    """Return the process's renderer of this clip."""
    from tasks.fitting import chunked, computing

    build = _picture_renderer if transfers_detail(job.settings) else _plain_renderer
    key = f"{job.stage_keys['pose']}-{job.stage_keys['template']}"
    renderer = cached("poses", key, lambda: build(job), *computing(job), alone=True)
    chunked(renderer.generator, job)
    return renderer


def _plain_renderer(job: Job) -> PoseRenderer:
    import torch

    from portrait_core.generators.prepared import volume_of
    from portrait_core.rendering.pose_renderer import PoseRenderer

    first, settings = anchor(job), job.settings
    camera = torch.from_numpy(job.output("portrait").read("cameras")).to(device_of(job))
    parts = volume_of(tuned_generator(job)), first.latent.ws, frame_inputs(job, first.frame).face, camera
    return PoseRenderer(*parts, settings.render, settings.composite)


def _picture_renderer(job: Job) -> PictureRenderer:
    import torch

    from portrait_core.generators.prepared import volume_of
    from portrait_core.rendering.motion import CameraMotion, HeadMotion
    from portrait_core.rendering.neck import Neck, resting
    from portrait_core.rendering.picture import PictureRenderer
    from tasks.pages import canvas, page_of

    track, settings, device = read_track(job.output("portrait")), job.settings, device_of(job)
    page, first, camera = page_of(job, track), anchor(job), torch.from_numpy(track.cameras).to(device)
    if page is None:
        raise ValueError("pictures with render.detail=off have no page; render them plainly")
    model = head(job, device)
    vertices = resting(model, torch.from_numpy(track.shape).to(device))
    if settings.render.motion == "head":
        motion: HeadMotion | CameraMotion = HeadMotion(Neck(model, vertices, device), camera, page)
    else:
        motion = CameraMotion(page, device)
    return PictureRenderer(
        volume_of(tuned_generator(job)),
        first.latent.ws,
        frame_inputs(job, first.frame).face,
        page.camera(camera, page.canvas),
        canvas(job, page),
        vertices,
        motion,
        settings.render,
        settings.composite,
    )
