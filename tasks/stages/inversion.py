"""Stage ``inversion``: the latent of every frame, with the generator frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import MissingChunk
from portrait_core.pipeline import Array, File, FrameRange, Job, Stage
from portrait_core.pipeline.ledger import available_frames, done_frames, unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import fitting_weights
from portrait_core.settings import Settings
from tasks.context import FrameArrays, use_threads
from tasks.frames import Save, process_frames
from tasks.running import does

if TYPE_CHECKING:
    import torch

    from portrait_core.inversion.chain import Anchor, LatentChain
    from portrait_core.inversion.clip_data import ClipData
    from portrait_core.inversion.latent import Inverter
    from portrait_core.inversion.targets import FrameTarget


FIRST, STEPS = "first_latent.npz", "steps"
"""File of the frame from which the clip's inversion starts, and note of its loss by step."""


def _chained(settings: Settings) -> bool:
    """Tell whether a frame starts from the one before it (paper section 3.2)."""
    inversion = settings.inversion
    return inversion.init != "tracker" and inversion.warm_start and inversion.steps > 0


def _work(settings: Settings, frames: int, total: int) -> float:
    """Return the number of steps for so many frames; a frame's picture counts as one."""
    inversion = settings.inversion
    return frames * (inversion.steps + 1) + inversion.first_steps * frames / max(1, total)


INVERSION = Stage(
    name="inversion",
    title="invert",
    version=5,
    unit="reenactment",
    reads=("portrait", "person", "retarget", "template"),
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
    if not unfinished_runs(job, "inversion", 0, job.frames) or _read_anchor(job) is not None:
        return watch.result(0)
    from portrait_core.inversion.chain import Anchor, tracker_start
    from tasks.fitting import StoredCheckpoint, clip_data, step_reporter

    ready = np.flatnonzero(available_frames(job, "inversion"))
    if not len(ready):
        raise MissingChunk(f"{job.output('template').path}/template", range(job.frames))
    frame = int(ready[0])  # the first, unless its template was set aside
    use_threads(job, alone=True)
    clip = clip_data(job)
    inverter = _inverter(job, clip)
    checkpoint = StoredCheckpoint(output)
    note = step_reporter(output, job.settings.inversion.first_steps)
    target = clip.target(frame, detail=job.settings.inversion.detail_weight > 0)
    first = Anchor(frame, inverter.first(target, tracker_start(inverter, clip, frame), checkpoint, note))
    output.put_bytes(FIRST, first.to_bytes())
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
    runs = unfinished_runs(job, "inversion", start, stop)
    if not runs:
        return watch.result(0)
    from portrait_core.inversion.chain import invert_frame
    from portrait_core.inversion.pictures import face_picture
    from tasks.fitting import clip_data

    use_threads(job, alone=job.is_chained("inversion"))
    clip = clip_data(job)
    inverter = _inverter(job, clip)
    first = anchor(job)
    chain = _chain(job, first)
    around, arrays = _whole_picture(job, inverter, first.latent.ws), FrameArrays(job, "inversion")

    detail = job.settings.inversion.detail_weight > 0

    def fetch(frame: FrameRange) -> FrameTarget:
        return clip.target(frame.start, detail=detail)

    def work(frame: FrameRange, target: FrameTarget) -> Save:
        i = frame.start
        ws = invert_frame(inverter, clip, first, i, chain.before(i), target)
        image, loss = face_picture(inverter, ws, target, around)
        chain.advance(i, ws)
        rows = {"latents": ws.cpu().numpy(), "inversion": image[None]}
        return arrays.defer_write(i, rows | {"inversion_loss": np.array([[loss]], np.float32)})

    return watch.result(process_frames(job, "inversion", runs, work, fetch=fetch))


def _chain(job: Job, first: Anchor) -> LatentChain:
    """Make the chain of latents, which goes on from what is in the store."""
    import torch

    from portrait_core.inversion.chain import LatentChain

    def newest(frame: int) -> int:
        stored = np.flatnonzero(done_frames(job, "inversion")[:frame])
        return int(stored[-1]) if len(stored) else -1

    def read(frame: int) -> torch.Tensor:
        stored = job.output("inversion").read("latents", frame, frame + 1)
        return torch.from_numpy(stored).to(first.latent.ws)

    cuts = np.zeros(job.frames, bool)
    if "person" in job.stages:  # an edit has one frame
        cuts = job.output("person").read("cut")
    return LatentChain(first, job.settings.inversion.init != "tracker", newest, read, cuts)


def _inverter(job: Job, clip: ClipData) -> Inverter:
    """Return the process's inverter of this clip."""
    from portrait_core.inversion.latent import Inverter
    from portrait_core.runtime.model_cache import cached
    from tasks.fitting import chunked, computing, features, generator, resolution, sampling, statistics

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
    chunked(inverter.generator, job)
    inverter.checkpoint_s, inverter.graphs = job.settings.runner.checkpoint_s, job.settings.runner.cuda_graphs
    return inverter


def _whole_picture(job: Job, inverter: Inverter, ws: torch.Tensor) -> NDArray[np.uint8]:
    """Return the frozen generator's picture of the first frame ``[S,S,3]``, made once per process."""
    from portrait_core.inversion.pictures import whole_picture
    from portrait_core.runtime.model_cache import cached
    from tasks.fitting import computing

    def make() -> NDArray[np.uint8]:
        return whole_picture(inverter, ws)

    return cached("first_picture", job.stage_keys["inversion"], make, *computing(job), alone=True)


def anchor(job: Job) -> Anchor:
    """Read where the clip's inversion starts, and whose picture surrounds every frame's face.

    Raises:
        MissingChunk: it is not in the store; inversion will make it again.
    """
    first = _read_anchor(job)
    if first is None:
        raise MissingChunk(f"{job.output('inversion').path}/{FIRST}", [0])
    return first


def _read_anchor(job: Job) -> Anchor | None:
    """Read the first frame's latent, if it was made under the job's key."""
    data = job.output("inversion").get_bytes(FIRST)
    if data is None:
        return None
    from portrait_core.inversion.chain import Anchor
    from tasks.context import device_of

    return Anchor.from_bytes(data, device_of(job))
