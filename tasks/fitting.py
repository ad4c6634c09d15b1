"""What inversion, tuning and rendering share: a clip's targets, its generator, checkpoints, progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from portrait_core.generators import (
    RaySampling,
    TriPlaneGenerator,
    at_precision,
    compiled,
    load_generator,
    resolved_precision,
    save_generator,
)
from portrait_core.inversion.features import build_features, feature_distance
from portrait_core.inversion.patches import fitting_samples, render_patch
from portrait_core.inversion.statistics import LatentStatistics, latent_statistics
from portrait_core.inversion.targets import (
    FrameTarget,
    image_array,
    image_tensor,
    mask_tensor,
    photograph_masks,
    tuning_image,
)
from portrait_core.models.cache import cached
from portrait_core.models.needs import weight_file
from portrait_core.pipeline import Job
from portrait_core.pipeline.history import PROGRESS
from tasks.context import device_of, look_key, read_track
from tasks.trackers import portrait_landmarks, tracker

if TYPE_CHECKING:
    from portrait_core.generators import Precision
    from portrait_core.inversion.latent import Inverter
    from portrait_core.store import Output

_PROGRESS_INTERVAL_S = 2.0
_PATCH_EDGE_PX = 8
"""Soft edge of the rendered middle; the super-resolution is not right at a patch's very border."""
_KEPT_FRAMES = 256
"""Frames whose templates and masks stay in memory, 0.4 MB each at 256 pixels."""
_TEMPLATE = ("template", "face_mask", "mouth_mask", "uncovered")


class ClipData:
    """One clip at the portrait's camera, read from the store when it is needed. An edit's clip is one frame:
    the photograph itself, without a template (paper section 3.4: PTI of the image).

    Attributes:
        crop: the portrait ``[S,S,3]`` uint8.
        camera: its label ``[1,25]``.
        shape: its shape coefficients ``[S]``.
        expression: of every frame, retargeted ``[T,E]``.
        head: the portrait's head with those expressions.
    """

    def __init__(self, job: Job) -> None:
        self._photograph = job.goal == "edit"
        source = job.output("portrait")
        track = read_track(source)
        self.device = torch.device(device_of(job))
        chosen = tracker(job)
        self.head = chosen.clip_head(self.device)
        self.crop: NDArray[np.uint8] = source.read("crop")[0]
        self.camera = torch.from_numpy(track.cameras).to(self.device)
        self.shape = track.shape
        self.expression: NDArray[np.floating] = chosen.moves(0, job.frames)["expression"]
        self._masks: Callable[[int], tuple[NDArray[np.uint8], ...]]
        # not of a method: that would hold the clip, and its memory until the collector of cycles runs
        if self._photograph:
            marks = portrait_landmarks(job)
            self._masks = lru_cache(maxsize=1)(lambda frame: tuple(photograph_masks(self.crop, marks)))
        else:
            self._masks = lru_cache(maxsize=_KEPT_FRAMES)(partial(_read_masks, job.output("template")))

    def face(self, frame: int) -> Tensor:
        """The whole face, mouth included ``[1,1,S,S]`` in 0..1."""
        return mask_tensor(self._masks(frame)[1])[None].to(self.device)

    def target(
        self, frame: int, painted: NDArray[np.uint8] | None = None, tuning: bool = False, detail: bool = True
    ) -> FrameTarget:
        """What a frame is fitted to: its template, or with ``tuning`` the paper's ``I_GT`` with the mouth's
        inside from ``painted`` where that is given. ``detail`` says whether mouth and eyes are wanted."""
        template, face, mouth, uncovered = self._masks(frame)
        skin = np.minimum(face, 255 - mouth)
        image = tuning_image(template, skin, mouth, self.crop, painted) if tuning else template
        masks = (face, mouth, self.head.detail(frame) if detail else None, uncovered)
        made = (None if mask is None else mask_tensor(mask).to(self.device) for mask in masks)
        return FrameTarget(image_tensor(image).to(self.device), *made)  # type: ignore[arg-type]


def _read_masks(output: Output, frame: int) -> tuple[NDArray[np.uint8], ...]:
    found = output.read_together(_TEMPLATE, frame, frame + 1)
    return tuple(found[name][0] for name in _TEMPLATE)


def clip_data(job: Job) -> ClipData:
    """The process's view of a clip."""
    # It reads the store later on too: another store, or other credentials, make it another one.
    where = job.store, str(job.settings.runner.storage_options)
    return cached("clip", look_key(job), lambda: ClipData(job), device_of(job), *where, alone=True)


def generator(job: Job) -> TriPlaneGenerator:
    """The process's frozen generator. Not to be changed: tuning loads its own."""
    model = cached("generator", job.weights["generator"], lambda: fresh_generator(job), *computing(job))
    return at_chunk(model, job)


def precision_of(job: Job) -> Precision:
    """The precision of the job's networks on its device."""
    return resolved_precision(job.settings.generator.precision, device_of(job))


def computing(job: Job) -> tuple[str, Precision, bool]:
    """What makes a loaded generator another object, beside its weights: device, precision, compilation."""
    return device_of(job), precision_of(job), job.settings.runner.compile


def statistics(job: Job) -> LatentStatistics:
    """Mean and deviation of the generator's w, measured once per process."""
    digest = job.weights["generator"]
    return cached("statistics", digest, lambda: latent_statistics(generator(job)), *computing(job))


def fresh_generator(job: Job) -> TriPlaneGenerator:
    """A generator of one's own, from the profile's weights."""
    return _prepared(load_generator(weight_file(job.settings, "generator"), device_of(job)), job)


def _prepared(model: TriPlaneGenerator, job: Job) -> TriPlaneGenerator:
    """At the profile's precision, compiled where the profile asks for it."""
    model = at_precision(model, precision_of(job))
    return at_chunk(compiled(model) if job.settings.runner.compile else model, job)


def at_chunk(model: TriPlaneGenerator, job: Job) -> TriPlaneGenerator:
    """The same generator, rendering as many rays at a time as the job says."""
    model.renderer.ray_chunk = job.settings.generator.ray_chunk
    return model


def features(job: Job, name: str | None = None) -> nn.Module:
    """The process's Φ, or the feature network ``name``."""
    device, chosen = device_of(job), name or job.settings.inversion.phi
    weights = weight_file(job.settings, "phi") if "phi" in job.weights else None

    def build() -> nn.Module:
        return build_features(chosen, weights).to(device)

    return cached("phi", f"{chosen}-{job.weights.get('phi', '')}", build, device)


def sampling(job: Job, model: TriPlaneGenerator) -> RaySampling:
    """Samples a ray while fitting."""
    return fitting_samples(model, job.settings.generator)


def resolution(job: Job, model: TriPlaneGenerator) -> int:
    """Side of the volume rendering while fitting."""
    return job.settings.generator.neural_resolution or model.settings.neural_resolution


@torch.no_grad()
def face_picture(
    inverter: Inverter, ws: Tensor, target: FrameTarget, around: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], float]:
    """What the frozen generator makes of a latent, and how far that is from the target.

    Only the middle of the crop, where the face is, is rendered; ``around [S,S,3]`` (the first frame's whole
    picture) surrounds it.

    Returns:
        The picture ``[S,S,3]`` uint8, and the paper's equation 2, ``||Phi(M * I_hat) - Phi(M * G(w))||^2``
        with M the face, as a mean over Φ's unit vectors.
    """
    patch = inverter.middle
    model = inverter.generator
    made = render_patch(model, model.planes(ws), ws, inverter.rays, patch, inverter.sampling).image
    face = patch.cut(target.face[None])
    wanted = inverter.phi(patch.cut(target.image[None]) * face)
    loss = feature_distance(inverter.phi(made * face), wanted, face)
    whole = image_tensor(around).to(made)[None]
    side = torch.linspace(-1, 1, made.shape[-1], device=made.device).abs()
    ramp = ((1 - side) * made.shape[-1] / 2 / _PATCH_EDGE_PX).clamp(0, 1)
    inside = patch.cut(whole)
    inside += ramp[:, None] * ramp[None] * (made - inside)
    return image_array(whole[0]), float(loss)


class StoredCheckpoint:
    """A loop's state in the folder of the stage that it belongs to."""

    def __init__(self, output: Output) -> None:
        self._output, self._name = output, f"{output.stage}.checkpoint"

    def read(self) -> bytes | None:
        """Read the newest state, or None."""
        return self._output.get_bytes(self._name)

    def write(self, data: bytes) -> None:
        """Replace the state."""
        self._output.put_bytes(self._name, data)

    def clear(self) -> None:
        """Forget the state: the stage is finished, and states are large."""
        self._output.drop_file(self._name)


def step_reporter(output: Output, steps: int) -> Callable[[int, float | None], None]:
    """Make a callback that notes an optimisation's progress in the store every few seconds."""
    last = 0.0

    def note(step: int, loss: float | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_INTERVAL_S or step == steps:
            last = now
            read = None if loss is None else round(loss, 5)
            output.write_note(PROGRESS, {"step": step, "steps": steps, "loss": read})

    return note


def generator_bytes(model: TriPlaneGenerator) -> bytes:
    """A generator as the content of a safetensors file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "generator.safetensors"
        save_generator(model, path)
        return path.read_bytes()


def tuned_from_bytes(data: bytes, job: Job) -> TriPlaneGenerator:
    """A generator of :func:`generator_bytes`, ready to render."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "generator.safetensors"
        path.write_bytes(data)
        return _prepared(load_generator(path, device_of(job)), job)
