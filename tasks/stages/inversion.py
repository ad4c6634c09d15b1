"""Stage ``inversion``: the latent of every frame, with the generator frozen."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.config import Settings
from portrait_core.errors import MissingChunk
from portrait_core.pipeline import Array, File, FrameRange, Job, Stage
from portrait_core.pipeline.ledger import available, done, todo
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import fitting_weights
from tasks.context import FrameArrays, use_threads
from tasks.frames import Save, each
from tasks.running import does

if TYPE_CHECKING:
    from torch import Tensor

    from portrait_core.inversion.latent import FirstLatent, Inverter
    from portrait_core.inversion.targets import FrameTarget
    from tasks.fitting import ClipData


FIRST, STEPS = "first_latent.npz", "steps"
"""File of the frame from which the clip's inversion starts, and note of its loss by step."""


def _chained(settings: Settings) -> bool:
    """Tell whether a frame starts from the one before it (paper section 3.2)."""
    inversion = settings.inversion
    return inversion.init != "tracker" and inversion.warm_start and inversion.steps > 0


def _work(settings: Settings, frames: int, total: int) -> float:
    """Steps of so many frames; a frame's picture counts as one."""
    inversion = settings.inversion
    return frames * (inversion.steps + 1) + inversion.first_steps * frames / max(1, total)


INVERSION = Stage(
    name="inversion",
    title="invert",
    version=4,
    unit="reenactment",
    reads=("portrait", "retarget", "template"),
    settings=("generator", "inversion", "seed"),
    weights=(fitting_weights,),
    writes=(Array("latents"), Array("inversion"), Array("inversion_loss"), File(FIRST)),
    per_frame=True,
    parallel_over_frames=True,
    chained=_chained,
    needs_frame_of="template",
    fill_from_neighbour=True,
    drop_with="clip",
    work=_work,
)


@does(INVERSION, precision="job")
def invert_first(job: Job) -> StageResult:
    """Invert the first frame: the long optimisation, which keeps a checkpoint. Commits no frame yet."""
    watch = Stopwatch("inversion", 0, 1)
    output = job.output("inversion")
    if not todo(job, "inversion", 0, job.frames) or _read_first(job) is not None:
        return watch.result(0)
    from tasks.fitting import StoredCheckpoint, clip_data, step_reporter

    ready = np.flatnonzero(available(job, "inversion"))
    if not len(ready):
        raise MissingChunk(f"{job.output('template').path}/template", range(job.frames))
    frame = int(ready[0])  # the first, unless its template was set aside
    use_threads(job, alone=True)
    clip = clip_data(job)
    inverter = _inverter(job, clip)
    checkpoint = StoredCheckpoint(output)
    note = step_reporter(output, job.settings.inversion.first_steps)
    start = _start(inverter, clip, slice(frame, frame + 1))
    target = clip.target(frame, detail=job.settings.inversion.detail_weight > 0)
    first = Anchor(frame, inverter.first(target, start, checkpoint, note))
    output.put_bytes(FIRST, _packed(first))
    losses = np.round(first.latent.losses, 5).tolist()
    output.write_note(STEPS, {"first_frame": losses})
    checkpoint.clear()
    return watch.result(0)


@does(INVERSION, precision="job")
def invert_range(job: Job, start: int, stop: int) -> StageResult:
    """Find the latents of frames ``[start, stop)``, frame after frame, and what the generator makes of them.

    With ``init=tracker`` a frame's start does not depend on its neighbours; else it is the last good latent
    before it (paper section 3.2), so ranges run one after the other.
    """
    watch = Stopwatch("inversion", start, stop)
    runs = todo(job, "inversion", start, stop)
    if not runs:
        return watch.result(0)
    from tasks.fitting import clip_data, face_picture

    use_threads(job, alone=job.chained("inversion"))
    clip = clip_data(job)
    inverter = _inverter(job, clip)
    first = anchor(job)
    chain = _Chain(job, first)
    around, arrays = _whole_picture(job, inverter, first.latent), FrameArrays(job, "inversion")

    detail = job.settings.inversion.detail_weight > 0

    def fetch(frame: FrameRange) -> FrameTarget:
        return clip.target(frame.start, detail=detail)

    def work(frame: FrameRange, target: FrameTarget) -> Save:
        i = frame.start
        ws = _invert_frame(job, clip, inverter, first, i, chain.before(i), target)
        image, loss = face_picture(inverter, ws, target, around)
        chain.advance(i, ws)
        return arrays.later(i, _rows(ws, image, loss))

    return watch.result(each(job, "inversion", runs, work, fetch=fetch))


@dataclass(frozen=True)
class Anchor:
    """The frame from which a clip's inversion starts: 0, unless its template could not be made."""

    frame: int
    latent: FirstLatent


class _Chain:
    """The last good latent before a frame: a frame that failed is passed over."""

    def __init__(self, job: Job, first: Anchor) -> None:
        self._job, self._first = job, first
        self._latest: tuple[int, Tensor] | None = None

    def before(self, frame: int) -> Tensor:
        """Where a chain goes on at ``frame``."""
        if self._job.settings.inversion.init == "tracker" or frame <= self._first.frame:
            return self._first.latent.ws
        made, ws = self._latest or (-1, self._first.latent.ws)  # perhaps not written yet
        if made == frame - 1:
            return ws
        stored = np.flatnonzero(done(self._job, "inversion")[:frame])
        last = int(stored[-1]) if len(stored) else -1
        return self._stored(last) if last > made else ws

    def _stored(self, frame: int) -> Tensor:
        import torch

        stored = self._job.output("inversion").read("latents", frame, frame + 1)
        return torch.from_numpy(stored).to(self._first.latent.ws)

    def advance(self, frame: int, ws: Tensor) -> None:
        """A frame is done."""
        self._latest = frame, ws


def _invert_frame(
    job: Job,
    clip: ClipData,
    inverter: Inverter,
    first: Anchor,
    frame: int,
    previous: Tensor,
    target: FrameTarget,
) -> Tensor:
    """A frame's latent."""
    ws = _frame_start(job, clip, inverter, first, frame, previous)
    if job.settings.inversion.steps and frame != first.frame:
        ws, _ = inverter.next(ws, target, frame)
    return ws


def _rows(ws: Tensor, image: NDArray[np.uint8], loss: float) -> dict[str, NDArray[np.generic]]:
    """What is kept of a frame, ``[1, ...]`` each."""
    return {
        "latents": ws.cpu().numpy(),
        "inversion": image[None],
        "inversion_loss": np.array([[loss]], np.float32),
    }


def _frame_start(
    job: Job, clip: ClipData, inverter: Inverter, first: Anchor, frame: int, previous: Tensor
) -> Tensor:
    """Where a frame's latent starts: moved by the tracker's coefficients, or the last good one before it."""
    settings = job.settings.inversion
    if frame == first.frame:
        return first.latent.ws
    if settings.init == "tracker":
        z0, z = (_start(inverter, clip, slice(i, i + 1)) for i in (first.frame, frame))
        if z0 is not None and z is not None:
            return inverter.moved(first.latent, z0, z)
    return previous if settings.warm_start else first.latent.ws


def _inverter(job: Job, clip: ClipData) -> Inverter:
    from portrait_core.inversion.latent import Inverter
    from portrait_core.models.cache import cached
    from tasks.fitting import at_chunk, computing, features, generator, resolution, sampling, statistics

    def build() -> Inverter:
        model = generator(job)
        settings = job.settings.inversion
        return Inverter(
            model,
            features(job),
            clip.camera,
            settings.model_copy(update={"seed": settings.seed + job.settings.seed}),
            sampling(job, model),
            resolution(job, model),
            statistics(job),
        )

    inverter = cached("inverter", job.stage_keys["inversion"], build, *computing(job), alone=True)
    at_chunk(inverter.generator, job)
    inverter.checkpoint_s, inverter.graphs = job.settings.runner.checkpoint_s, job.settings.runner.cuda_graphs
    return inverter


def _start(inverter: Inverter, clip: ClipData, frames: slice) -> Tensor | None:
    if inverter.settings.init != "tracker":
        return None
    return inverter.tracker_start(clip.shape, clip.expression[frames], clip.head.expression_names)


def _whole_picture(job: Job, inverter: Inverter, first: FirstLatent) -> NDArray[np.uint8]:
    """The frozen generator's picture of the first frame ``[S,S,3]``, made once a process."""
    import torch

    from portrait_core.inversion.targets import image_array
    from portrait_core.models.cache import cached
    from tasks.fitting import computing

    def make() -> NDArray[np.uint8]:
        with torch.no_grad():
            made = inverter.generator.synthesis(
                first.ws, inverter.camera, inverter.resolution, sampling=inverter.sampling
            )
        return image_array(made["image"][0])

    return cached("first_picture", job.stage_keys["inversion"], make, *computing(job), alone=True)


def _packed(first: Anchor) -> bytes:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        frame=np.array(first.frame),
        ws=first.latent.ws.cpu().numpy(),
        appearance=first.latent.appearance,
    )
    return buffer.getvalue()


def anchor(job: Job) -> Anchor:
    """Where the clip's inversion starts, and whose picture surrounds every frame's face.

    Raises:
        MissingChunk: it is not in the store; inversion will make it again.
    """
    first = _read_first(job)
    if first is None:
        raise MissingChunk(f"{job.output('inversion').path}/{FIRST}", [0])
    return first


def _read_first(job: Job) -> Anchor | None:
    """The first frame's latent, if it was made under the job's key."""
    data = job.output("inversion").get_bytes(FIRST)
    if data is None:
        return None
    import torch

    from portrait_core.inversion.latent import FirstLatent
    from tasks.context import device_of

    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        ws = torch.from_numpy(stored["ws"]).to(device_of(job))
        return Anchor(int(stored["frame"]), FirstLatent(ws, stored["appearance"], []))
