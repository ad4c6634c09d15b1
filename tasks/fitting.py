"""Targets, generators, checkpoints and progress, which inversion, tuning and rendering share."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from portrait_core.generators import ImageGenerator, RaySampling, resolved_precision
from portrait_core.generators.io import AnyGenerator, load_facts
from portrait_core.generators.prepared import OneGenerator, Preparation, at_chunk
from portrait_core.inversion.clip_data import ClipData, Masks
from portrait_core.inversion.features import build_features
from portrait_core.inversion.sampling import fitting_resolution, fitting_samples
from portrait_core.inversion.statistics import LatentStatistics, latent_statistics
from portrait_core.inversion.targets import photograph_masks
from portrait_core.model_files.needs import weight_file
from portrait_core.pipeline import Job
from portrait_core.pipeline.history import PROGRESS
from portrait_core.runtime.model_cache import cached
from portrait_core.tracking.crop import Place
from portrait_core.tracking.generator_crop import GeneratorCrop, embedded_crop, ffhq_crop
from tasks.context import device_of, look_key, read_track
from tasks.pages import face_place, for_generator, page_of, place_of
from tasks.trackers import clip_head, portrait_landmarks, read_moves

if TYPE_CHECKING:
    from portrait_core.rendering.page import Page
    from portrait_core.store import Output

_PROGRESS_INTERVAL_S = 2.0
_TEMPLATE = ("template", "face_mask", "mouth_mask", "uncovered")


def clip_data(job: Job) -> ClipData:
    """Return the process's view of a clip."""
    # It reads the store later on too: another store, or other credentials, make it another one.
    where = job.store, str(job.settings.runner.storage_options)
    sees = job.weights.get("generator", "")  # which crop of the portrait
    return cached("clip", look_key(job), lambda: read_clip(job), device_of(job), sees, *where, alone=True)


def read_clip(job: Job) -> ClipData:
    """Make a view of a clip; its frames are read when they are needed."""
    source, device = job.output("portrait"), torch.device(device_of(job))
    moves, track, own = read_moves(job, 0, job.frames), read_track(source), own_crop(job)
    head = clip_head(job, moves, device)
    if own is not None:
        place = place_of(page_of(job, track), track)
        masks: Callable[[int], Masks] = partial(_cut_masks, job.output("template"), own, place)
        cut = partial(own.cut_mask, place=face_place(track))
        return ClipData(own.picture, track, head, masks, device, cut)
    crop = source.read("crop")[0]
    if job.goal == "edit":
        photograph = photograph_masks(crop, portrait_landmarks(job))
        masks = partial(_same, photograph)
    else:
        masks = partial(_read_masks, job.output("template"), page_of(job), job.settings.template.size)
    return ClipData(crop, track, head, masks, device)


def own_crop(job: Job) -> GeneratorCrop | None:
    """Return the crop that the job's generator sees, by its file: a 2D generator has one of its own.

    None for a tri-plane generator, which sees the portrait's face crop.
    """
    facts = load_facts(weight_file(job.settings, "generator"))
    if facts.kind == "triplane":
        return None
    source = job.output("portrait")
    photograph, landmarks = source.read("photograph")[0], source.read("landmarks")[0]
    if not facts.has_scene_latents:
        return ffhq_crop(photograph, landmarks, facts.image_resolution)
    track = read_track(source)
    seen = track.cameras[0], float(track.crop_side_px[0]), facts.image_resolution
    return embedded_crop(photograph, landmarks, *seen)


def _same(masks: Masks, frame: int) -> Masks:
    return masks


def _read_masks(output: Output, page: Page | None, size: int, frame: int) -> Masks:
    """Read what the generator is fitted to: the face crop of what templates show."""
    found = output.read_together(_TEMPLATE, frame, frame + 1)
    masks = np.stack([found[name][0] for name in _TEMPLATE[1:]], axis=-1)
    face, mouth, uncovered = np.moveaxis(for_generator(page, size, masks), -1, 0)
    return for_generator(page, size, found["template"][0]), face, mouth, uncovered


def _cut_masks(output: Output, crop: GeneratorCrop, place: Place, frame: int) -> Masks:
    """Read what a 2D generator is fitted to: its crop of the photograph, with the template laid on it."""
    found = output.read_together(_TEMPLATE, frame, frame + 1)
    masks = np.stack([found[name][0] for name in _TEMPLATE[1:]], axis=-1)
    face, mouth, uncovered = np.moveaxis(crop.cut(masks, place), -1, 0)
    return crop.on_photograph(found["template"][0], place), face, mouth, uncovered


def generator(job: Job) -> AnyGenerator:
    """Return the process's frozen generator. Not to be changed: tuning loads its own."""
    model = cached("generator", job.weights["generator"], lambda: fresh_generator(job), *computing(job))
    return chunked(model, job)


def fresh_generator(job: Job) -> AnyGenerator:
    """Load a generator of one's own, from the profile's weights."""
    return chunked(preparation(job).load(weight_file(job.settings, "generator")), job)


def tuned_from_bytes(data: bytes, job: Job) -> AnyGenerator:
    """Make a generator of the file that tuning wrote, ready to render."""
    return chunked(preparation(job).from_bytes(data), job)


def chunked(model: OneGenerator, job: Job) -> OneGenerator:
    """Return the same generator, rendering as many rays at a time as the job says."""
    return at_chunk(model, job.settings.generator.ray_chunk)


def preparation(job: Job) -> Preparation:
    """Return how the job's generators are prepared on its device."""
    device = device_of(job)
    precision = resolved_precision(job.settings.generator.precision, device)
    return Preparation(device, precision, job.settings.runner.compile)


def computing(job: Job) -> tuple[str, str, bool]:
    """Return the properties, beside its weights, that make a loaded generator another object.

    They are device, precision and compilation.
    """
    found = preparation(job)
    return found.device, found.precision, found.compile


def statistics(job: Job) -> LatentStatistics:
    """Return mean and deviation of the generator's w, measured once per process."""
    digest = job.weights["generator"]
    return cached("statistics", digest, lambda: latent_statistics(generator(job)), *computing(job))


def features(job: Job, name: str | None = None) -> nn.Module:
    """Return the process's Φ, or the feature network ``name``."""
    device, chosen = device_of(job), name or job.settings.inversion.phi
    weights = weight_file(job.settings, "phi") if "phi" in job.weights else None

    def build() -> nn.Module:
        return build_features(chosen, weights).to(device)

    return cached("phi", f"{chosen}-{job.weights.get('phi', '')}", build, device)


def sampling(job: Job, model: ImageGenerator) -> RaySampling | None:
    """Return the samples per ray while fitting; None for a generator without a volume."""
    return fitting_samples(model, job.settings.generator)


def resolution(job: Job, model: ImageGenerator) -> int:
    """Return the side of the grid that patches are cut from while fitting, in rays."""
    return fitting_resolution(model, job.settings.generator)


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
