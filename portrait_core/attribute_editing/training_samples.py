"""Samples of a generator on which a StyleFlow is trained: drawn, rendered from the front, labelled."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.attribute_editing.conditions import PUBLISHED_CONDITIONS, Conditions
from portrait_core.attribute_editing.label_tables import complete_labels, read_labels
from portrait_core.attribute_editing.photograph_labels import LOCAL_SOURCES, PhotographLabeller
from portrait_core.attribute_editing.scene_attributes import sample_scenes, scene_conditions, scene_labels
from portrait_core.attribute_editing.styleflow_training import LabelledLatents
from portrait_core.cameras import orbit_labels
from portrait_core.errors import InputError
from portrait_core.generators import RaySampling, TriPlaneGenerator
from portrait_core.inversion.pictures import picture_of
from portrait_core.settings import StyleFlowTrainingSettings


@torch.no_grad()
def draw_samples(
    model: TriPlaneGenerator, numbers: range, seed: int, truncation: float
) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n rows w"]]:
    """Draw samples by their numbers; each sample is equal in any range: z on the CPU, and ws.

    A z that holds a scene is drawn nearer to the average scene, so that its labels stay exact; any other is
    drawn at random, and its w truncated.

    Args:
        model: the generator.
        numbers: numbers of the samples.
        seed: seed of the run.
        truncation: truncation factor in 0..1; 0 gives the average.
    """
    scene = model.settings.mapping_kind == "scene"
    if scene:
        z = sample_scenes(len(numbers), numbers.start, seed, truncation)
    else:
        rngs = [np.random.default_rng((seed, i)) for i in numbers]
        z = torch.from_numpy(
            np.stack([rng.standard_normal(model.settings.z_dim, np.float32) for rng in rngs])
        )
    frontal = _frontal(model)
    camera, psi = frontal if model.settings.c_dim else None, 1.0 if scene else truncation
    # one by one, since a matrix product rounds differently in a batch of another size
    return z, torch.cat([model.mapping(one[None].to(frontal.device), camera, psi) for one in z])


def frontal_pictures(
    model: TriPlaneGenerator,
    ws: Float[Tensor, "n rows w"],
    resolution: int | None,
    sampling: RaySampling | None,
) -> NDArray[np.uint8]:
    """Render latents from the front ``[n,S,S,3]`` uint8.

    Args:
        model: the generator.
        ws: latents, on any device.
        resolution: side of the volume rendering in rays; None takes the generator's own.
        sampling: samples per ray; None: those of the generator's training.
    """
    camera, side = _frontal(model), resolution or model.settings.neural_resolution
    return np.stack([picture_of(model, one[None].to(camera), camera, side, sampling) for one in ws])


def _frontal(model: TriPlaneGenerator) -> Tensor:
    """Return the label of the frontal camera ``[1,25]`` on the generator's device."""
    return torch.from_numpy(orbit_labels(0.0, 0.0, 0.0)).to(next(model.parameters()).device)


def sample_labels(
    z: Float[Tensor, "n z"], pictures: NDArray[np.uint8], labeller: PhotographLabeller | None
) -> NDArray[np.float32]:
    """Label samples ``[n,C]``: exactly by their scenes, or by a local model from pictures ``[n,S,S,3]``.

    Labels are NaN where a picture shows no face.
    """
    if labeller is None:
        return scene_labels(z).numpy()
    values = labeller.label(pictures).values
    return np.stack([values[name] for name in LOCAL_SOURCES], axis=1).astype(np.float32)


def completed_labels(
    labels: NDArray[np.float32], numbers: NDArray[np.integer[Any]], scene: bool, table_url: str | None
) -> tuple[NDArray[np.float32], Conditions]:
    """Replace labels of samples by those of the user's table, and return them with their schema.

    Args:
        labels: labels of :func:`sample_labels` ``[n,C]``; no row is entirely NaN.
        numbers: numbers of the samples ``[n]``, by which the table names them.
        scene: whether the labels are those of scenes.
        table_url: URL of the user's table; None where there is none.

    Raises:
        InputError: the table is not usable, or labels an attribute for some samples only.
    """
    every = scene_conditions() if scene else PUBLISHED_CONDITIONS
    known = every.names if scene else tuple(LOCAL_SOURCES)
    table = read_labels(table_url, every) if table_url is not None else {}
    in_table = {name for row in table.values() for name in row}
    # the camera sets the pose: every picture is frontal
    unknown = {name for name in every.names if name not in known and name not in in_table}
    conditions = every.without([name for name in every.names if name in unknown or name in ("yaw", "pitch")])
    named = [dict(zip(known, row, strict=True)) for row in labels.tolist()]
    local = {
        str(number): {name: value for name, value in row.items() if np.isfinite(value)}
        for number, row in zip(numbers.tolist(), named, strict=True)
    }
    whole = complete_labels(local, table, conditions)
    rows = [[values[name] for name in conditions.names] for values in whole.values()]
    return np.array(rows, np.float32), conditions


def training_samples(
    latents: NDArray[np.float32],
    labels: NDArray[np.float32],
    numbers: NDArray[np.integer[Any]],
    scene: bool,
    settings: StyleFlowTrainingSettings,
) -> tuple[LabelledLatents, Conditions]:
    """Return the samples that have labels (a picture without a face has none), and their schema.

    Args:
        latents: latents of all samples ``[N,1,w]``.
        labels: their labels ``[N,C]``, NaN where there is none.
        numbers: numbers of the computed samples ``[n]``.
        scene: whether the labels are those of scenes.
        settings: settings of the training, which name the user's table of labels.

    Raises:
        InputError: too few samples have labels, or the user's table is not usable.
    """
    labelled = numbers[np.isfinite(labels[numbers]).any(1)]
    if len(labelled) < settings.held_out + settings.batch:
        raise InputError(
            f"only {len(labelled)} of {len(latents)} samples show a face: too few to hold out "
            f"{settings.held_out} and train on the rest; draw more, or inspect `pictures` in the store"
        )
    whole, conditions = completed_labels(labels[labelled], labelled, scene, settings.labels)
    return LabelledLatents(torch.from_numpy(latents[labelled]), torch.from_numpy(whole)), conditions
