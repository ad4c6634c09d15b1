"""What edits and the training of flows share: drawing latents, frontal pictures, labels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from portrait_core.attributes.conditions import PUBLISHED_CONDITIONS, Conditions
from portrait_core.attributes.photographs import LOCAL_SOURCES, PhotographLabeller
from portrait_core.attributes.scenes import sample_scenes, scene_conditions, scene_labels
from portrait_core.attributes.tables import complete, read_labels
from portrait_core.cameras import orbit_labels
from portrait_core.inversion.targets import image_array
from portrait_core.models.cache import cached
from portrait_core.models.needs import weight_file
from portrait_core.pipeline import FrameRange, Job
from portrait_core.pipeline.job import file_name
from portrait_core.resources import data_file
from tasks.context import device_of, read_portrait
from tasks.fitting import sampling

if TYPE_CHECKING:
    from portrait_core.attributes.editing import AttributeFlow
    from portrait_core.generators import TriPlaneGenerator

Picture = NDArray[np.uint8]


@torch.no_grad()
def drawn(job: Job, model: TriPlaneGenerator, numbers: FrameRange) -> tuple[Tensor, Tensor]:
    """Samples by their numbers, equal in whatever range they are drawn: z ``[n,Z]`` and ws ``[n,rows,w]``.

    A z that holds a scene is drawn nearer to the average scene, so that its labels stay exact; any other is
    drawn at random, and its w truncated.
    """
    chosen, device = job.settings.sample, device_of(job)
    scene = model.settings.mapping_kind == "scene"
    if scene:
        z = sample_scenes(len(numbers), numbers.start, job.settings.seed, chosen.truncation)
    else:
        rngs = [np.random.default_rng((job.settings.seed, i)) for i in range(*numbers)]
        z = torch.from_numpy(
            np.stack([rng.standard_normal(model.settings.z_dim, np.float32) for rng in rngs])
        )
    camera = _frontal(device) if model.settings.c_dim else None
    psi = 1.0 if scene else chosen.truncation
    # one by one: a matrix product rounds otherwise in a batch of another size
    return z, torch.cat([model.mapping(one[None].to(device), camera, psi) for one in z])


@torch.no_grad()
def frontal_pictures(job: Job, model: TriPlaneGenerator, ws: Tensor) -> NDArray[np.uint8]:
    """What a generator makes of latents, seen from the front ``[n,S,S,3]``."""
    camera = _frontal(device_of(job))
    side = job.settings.sample.neural_resolution or model.settings.neural_resolution
    rays = sampling(job, model)
    made = [model.synthesis(one[None].to(camera), camera, side, sampling=rays) for one in ws]
    return np.stack([image_array(one["image"][0]) for one in made])


def _frontal(device: str) -> Tensor:
    return torch.from_numpy(orbit_labels(0.0, 0.0, 0.0)).to(device)


def labelled(job: Job, z: Tensor, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Labels of samples ``[n,C]``, exact ones or a local model's; NaN where a picture shows no face."""
    if job.settings.sample.labels == "scene":
        return scene_labels(z).numpy()
    found = labeller(job).label(pictures).values
    return np.stack([found[name] for name in LOCAL_SOURCES], axis=1).astype(np.float32)


def completed_labels(
    job: Job, labels: NDArray[np.float32], numbers: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float32], Conditions]:
    """Labels of samples with those of the user's table in their place, and what they mean.

    Args:
        labels: of :func:`labelled` ``[n,C]``, none of them wholly NaN.
        numbers: of the samples, by which the table calls them ``[n]``.

    Raises:
        InputError: if the table cannot be used, or leaves something out that it begins.
    """
    scene, url = job.settings.sample.labels == "scene", job.settings.flow.labels
    every = scene_conditions() if scene else PUBLISHED_CONDITIONS
    known = every.names if scene else tuple(LOCAL_SOURCES)
    table = read_labels(url, every) if url is not None else {}
    given = {name for row in table.values() for name in row}
    # every picture is frontal: the camera has the pose
    unknown = {name for name in every.names if name not in known and name not in given}
    conditions = every.without([name for name in every.names if name in unknown or name in ("yaw", "pitch")])
    named = [dict(zip(known, row, strict=True)) for row in labels.tolist()]
    local = {
        str(number): {name: value for name, value in row.items() if np.isfinite(value)}
        for number, row in zip(numbers.tolist(), named, strict=True)
    }
    whole = complete(local, table, conditions)
    rows = [[values[name] for name in conditions.names] for values in whole.values()]
    return np.array(rows, np.float32), conditions


def portrait_labels(job: Job, conditions: Conditions) -> dict[str, float]:
    """Attributes of an edit's portrait by name: those of the user's table, else a local model's.

    Raises:
        InputError: if the table cannot be used, or both leave out something that the flow needs.
    """
    source, name = job.settings.edit.labels, file_name(job.portrait)
    local = labeller(job).label([read_portrait(job)]).by_picture([name])
    table = {} if source == "photograph" else read_labels(source, conditions)
    return complete(local, table, conditions)[name]


def labeller(job: Job) -> PhotographLabeller:
    """The process's model for attributes of photographs."""
    folder, threads = data_file(job.settings.tracking.models), job.settings.runner.threads_per_worker
    return cached("labeller", str(folder), lambda: PhotographLabeller.from_models(folder, threads), threads)


def flow_model(job: Job) -> AttributeFlow:
    """The process's flow."""
    from portrait_core.attributes.files import load_flow

    def load() -> AttributeFlow:
        return load_flow(weight_file(job.settings, "flow"), device_of(job))

    return cached("flow", job.weights["flow"], load, device_of(job))


def png(picture: Picture) -> bytes:
    """A picture as the content of a file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
