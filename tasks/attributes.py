"""Models and pictures that edits and the training of flows share.

They are the process's flow and its labeller, and pictures of a job's generator. The numerics are in
``portrait_core.attribute_editing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.model_files.needs import weight_file
from portrait_core.pipeline import Job
from portrait_core.pipeline.job import file_name
from portrait_core.runtime.model_cache import cached
from portrait_core.runtime.package_files import data_file
from tasks.context import device_of, read_portrait

if TYPE_CHECKING:
    from torch import Tensor

    from portrait_core.attribute_editing.latent_edits import StyleFlowModel
    from portrait_core.attribute_editing.photograph_labels import PhotographLabeller
    from portrait_core.generators import TriPlaneGenerator


def frontal(job: Job, model: TriPlaneGenerator, ws: Tensor) -> NDArray[np.uint8]:
    """Return what a generator makes of latents, seen from the front ``[n,S,S,3]``, as samples are."""
    from portrait_core.attribute_editing.training_samples import frontal_pictures
    from tasks.fitting import sampling

    return frontal_pictures(model, ws, job.settings.sample.neural_resolution, sampling(job, model))


def own_labels(job: Job, model: StyleFlowModel, ws: Tensor) -> dict[str, float]:
    """Return the attributes of an edit's portrait by name, from where the settings say.

    Raises:
        InputError: if that does not know them.
    """
    from portrait_core.attribute_editing.edit_series import latent_labels, photograph_labels

    source, name = job.settings.edit.labels, file_name(job.portrait)
    if source == "latent":
        return latent_labels(model, ws)
    return photograph_labels(read_portrait(job), name, source, labeller(job), model)


def labeller(job: Job) -> PhotographLabeller:
    """Return the process's model for attributes of photographs."""
    from portrait_core.attribute_editing.photograph_labels import PhotographLabeller

    folder, threads = data_file(job.settings.tracking.models), job.settings.runner.threads_per_worker
    return cached("labeller", str(folder), lambda: PhotographLabeller.from_models(folder, threads), threads)


def flow_model(job: Job) -> StyleFlowModel:
    """Return the process's flow."""
    from portrait_core.attribute_editing.styleflow_files import load_styleflow

    def load() -> StyleFlowModel:
        return load_styleflow(weight_file(job.settings, "flow"), device_of(job))

    return cached("flow", job.weights["flow"], load, device_of(job))
