"""Stage ``inversion``: the latent of every frame, with the generator frozen."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import MissingChunk
from tasks.context import todo, unit_of, use_threads
from tasks.job import Job
from tasks.policy import StageResult, Stopwatch, stage_task

if TYPE_CHECKING:
    from torch import Tensor

    from portrait_core.inversion.latent import FirstLatent, Inverter
    from tasks.fitting import ClipData

FIRST = "first_latent.npz"


@stage_task
def invert_first(job: Job) -> StageResult:
    """Invert the first frame: the long optimisation, which keeps a checkpoint. Commits no frame yet."""
    watch = Stopwatch("inversion", 0, 1)
    unit, key = unit_of(job, "inversion"), job.stage_keys["inversion"]
    if not todo(job, "inversion", 0, job.frames) or _read_first(job) is not None:
        return watch.result(0)
    from tasks.fitting import StoredCheckpoint, clip_data, step_reporter

    use_threads(job, alone=True)
    clip = clip_data(job)
    inverter = _inverter(job, clip)
    checkpoint = StoredCheckpoint(unit, "inversion", key)
    note = step_reporter(unit, "inversion", key, job.settings.inversion.first_steps)
    first = inverter.first(clip.target(0), _start(inverter, clip, slice(0, 1)), checkpoint, note)
    unit.put_bytes(FIRST, _packed(first, key))
    unit.write_meta("inversion_steps", {"key": key, "first_frame": np.round(first.losses, 5).tolist()})
    checkpoint.clear()
    return watch.result(1)


@stage_task
def invert_range(job: Job, start: int, stop: int) -> StageResult:
    """Find the latents of frames ``[start, stop)``, frame after frame, and what the generator makes of them.

    With ``init=tracker`` a frame's start does not depend on its neighbours; else it is the latent before it
    (paper section 3.2), so ranges run one after the other.
    """
    watch = Stopwatch("inversion", start, stop)
    runs = todo(job, "inversion", start, stop)
    if not runs:
        return watch.result(0)
    from tasks.fitting import clip_data

    use_threads(job, alone=job.settings.inversion.init != "tracker")
    clip = clip_data(job)
    inverter = _inverter(job, clip)
    first = _read_first(job)
    if first is None:
        unit = unit_of(job, "inversion")
        raise MissingChunk(f"{unit.kind}/{unit.name}/{FIRST}", [0])
    for run in runs:
        previous = _before(job, run.start, first)
        for frame in range(*run):
            previous = _invert_frame(job, clip, inverter, first, frame, previous)
    return watch.result(sum(map(len, runs)))


def _invert_frame(
    job: Job, clip: ClipData, inverter: Inverter, first: FirstLatent, frame: int, previous: Tensor
) -> Tensor:
    from tasks.fitting import face_picture

    target = clip.target(frame)
    ws = _frame_start(job, clip, inverter, first, frame, previous)
    if job.settings.inversion.steps and frame > 0:
        ws, _ = inverter.next(ws, target, frame)
    image, loss = face_picture(inverter, ws, target, _whole_picture(job, inverter, first))
    unit, key = unit_of(job, "inversion"), job.stage_keys["inversion"]
    values = {
        "latents": ws.cpu().numpy(),
        "inversion": image[None],
        "inversion_loss": np.array([[loss]], np.float32),
    }
    with unit.overwriting("inversion", [frame], key):
        for name, value in values.items():
            unit.ensure_array(name, (job.frames, *value.shape[1:]), value.dtype, key)
            unit.write(name, frame, value)
    return ws


def _frame_start(
    job: Job, clip: ClipData, inverter: Inverter, first: FirstLatent, frame: int, previous: Tensor
) -> Tensor:
    """Where a frame's latent starts: moved by the tracker's coefficients, or the frame before it."""
    settings = job.settings.inversion
    if frame == 0:
        return first.ws
    if settings.init == "tracker":
        z0, z = _start(inverter, clip, slice(0, 1)), _start(inverter, clip, slice(frame, frame + 1))
        if z0 is not None and z is not None:
            return inverter.moved(first, z0, z)
    return previous if settings.warm_start else first.ws


def _before(job: Job, frame: int, first: FirstLatent) -> Tensor:
    """The latent of the frame before ``frame`` in a chain."""
    import torch

    if frame == 0 or job.settings.inversion.init == "tracker":
        return first.ws
    stored = unit_of(job, "inversion").read("latents", frame - 1, frame)
    return torch.from_numpy(stored).to(first.ws)


def _inverter(job: Job, clip: ClipData) -> Inverter:
    from portrait_core.inversion.latent import Inverter
    from portrait_core.models.cache import cached
    from tasks.fitting import features, generator, resolution, sampling

    def build() -> Inverter:
        model = generator(job)
        settings = job.settings.inversion.model_copy(
            update={"seed": job.settings.inversion.seed + job.settings.seed}
        )
        return Inverter(
            model, features(job), clip.camera, settings, sampling(job, model), resolution(job, model)
        )

    return cached("inverter", job.stage_keys["inversion"], build)


def _start(inverter: Inverter, clip: ClipData, frames: slice) -> Tensor | None:
    if inverter.settings.init != "tracker":
        return None
    return inverter.tracker_start(clip.shape, clip.expression[frames], clip.head.expression_names)


def _whole_picture(job: Job, inverter: Inverter, first: FirstLatent) -> NDArray[np.uint8]:
    """The frozen generator's picture of the first frame ``[S,S,3]``, made once a process."""
    import torch

    from portrait_core.inversion.targets import image_array
    from portrait_core.models.cache import cached

    def make() -> NDArray[np.uint8]:
        with torch.no_grad():
            made = inverter.generator.synthesis(
                first.ws, inverter.camera, inverter.resolution, sampling=inverter.sampling
            )
        return image_array(made["image"][0])

    return cached("first_picture", job.stage_keys["inversion"], make)


def _packed(first: FirstLatent, key: str) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, key=np.array(key), ws=first.ws.cpu().numpy(), appearance=first.appearance)
    return buffer.getvalue()


def _read_first(job: Job) -> FirstLatent | None:
    """The first frame's latent, if it was made under the job's key."""
    data = unit_of(job, "inversion").get_bytes(FIRST)
    if data is None:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        if str(stored["key"]) != job.stage_keys["inversion"]:
            return None
        import torch

        from portrait_core.inversion.latent import FirstLatent
        from tasks.context import device_of

        return FirstLatent(torch.from_numpy(stored["ws"]).to(device_of(job)), stored["appearance"], [])
