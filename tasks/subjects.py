"""What the people of table 3 are made of: the job's generator of either kind, its StyleFlow, their identity.

The numerics are in ``portrait_core.attribute_editing`` and ``portrait_core.metrics``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.attribute_editing.consistency_edits import column_edit
from portrait_core.attribute_editing.edit_series import latent_labels
from portrait_core.attribute_editing.subjects import (
    Generator,
    Person,
    agreement_of,
    draw_person,
    edited_person,
    frontal_picture,
    moved_camera,
    moved_latent,
    picture_labels,
    pictures_of,
    rows_to_edit,
    scaled_view,
)
from portrait_core.errors import InputError
from portrait_core.generators import StyleGAN2Generator, load_latent_layout
from portrait_core.generators.scene_latents_2d import LAYOUT_2D
from portrait_core.inversion.sampling import fitting_samples
from portrait_core.metrics.consistency import draw_views
from portrait_core.metrics.identity import identity_embeddings
from portrait_core.model_files.needs import weight_file
from portrait_core.pipeline import Job
from portrait_core.runtime.model_cache import cached
from tasks.attributes import flow_model, labeller
from tasks.context import landmarker
from tasks.fitting import chunked, computing, preparation
from tasks.networks import identity_network

if TYPE_CHECKING:
    from torch import Tensor

    from portrait_core.attribute_editing.latent_edits import StyleFlowModel


def identities(job: Job, views: NDArray[np.uint8], threads: int) -> NDArray[np.float64]:
    """Return the identity vectors ``[n,K]`` of pictures ``[n,S,S,3]``; NaN where there is no face."""
    return identity_embeddings(views, identity_network(job, threads), landmarker(job, threads))


@dataclass(frozen=True)
class Subject:
    """A person of the table.

    Attributes:
        person: latent and attributes after the edit.
        sides_rad: yaw and pitch of both views ``[2,2]``.
        views: both views ``[2,S,S,3]`` uint8.
        agreement: mean absolute difference of the views by reprojection, and the share of pixels that both
            see ``[2]``; NaN where the generator has no depth.
    """

    person: Person
    sides_rad: NDArray[np.float64]
    views: NDArray[np.uint8]
    agreement: NDArray[np.float64]


class SubjectMaker:
    """Makes the people of a job one by one, so that each is equal in any batch."""

    def __init__(self, job: Job) -> None:
        self._job, self._settings = job, job.settings.consistency
        self._generator, self._posed = _generator(job)
        self._model: StyleFlowModel | None = flow_model(job) if job.weights.get("flow") else None
        chosen = self._settings
        self._sides = draw_views(job.frames, job.settings.seed, chosen.yaw_deg, chosen.pitch_deg)

    def make(self, number: int) -> Subject:
        """Draw, edit and show a person.

        Raises:
            InputError: the StyleFlow does not fit the generator or the edit.
            FloatingPointError: the StyleFlow's equation cannot be solved.
        """
        chosen, generator, sides = self._settings, self._generator, self._sides[number]
        ws = draw_person(generator, number, self._job.settings.seed, chosen.truncation, posed=self._posed)
        person = Person(ws[:, :1]) if self._model is None else self._edited(self._model, ws, number)
        if isinstance(generator, StyleGAN2Generator):
            if self._model is None:
                raise InputError("a 2D generator's people are turned by a StyleFlow; set consistency.flow_2d")
            pictures, detail = moved_latent(generator, self._model, person, sides), None
            agreement = np.full(2, np.nan)  # there is no depth
        else:
            samples = fitting_samples(generator, self._job.settings.generator)
            shown = moved_camera(generator, person, sides, chosen.neural_resolution, samples)
            pictures, detail, agreement = pictures_of(shown), chosen.detail, agreement_of(*shown)
        views = np.stack([scaled_view(picture, chosen.size, detail) for picture in pictures])
        return Subject(person, sides, views, agreement)

    def _edited(self, model: StyleFlowModel, ws: Tensor, number: int) -> Person:
        chosen, w = self._settings, rows_to_edit(ws, model)
        own = self._own(model, ws, w, number)
        edit = column_edit(model, chosen.edit, own, chosen.amount, w.shape[1]) if chosen.edit else None
        return edited_person(model, w, own, edit)

    def _own(self, model: StyleFlowModel, ws: Tensor, w: Tensor, number: int) -> dict[str, float]:
        """Return a person's own attributes by name, from where the settings say."""
        chosen, job, generator = self._settings, self._job, self._generator
        if chosen.labels == "latent":
            if model.reader is None:
                raise InputError(
                    "this StyleFlow was published without a reader of attributes from latents; set "
                    "consistency.labels=photograph, or consistency.labels=FILE.csv with a row for each person"
                )
            return latent_labels(model, w)
        samples = None
        if not isinstance(generator, StyleGAN2Generator):
            samples = fitting_samples(generator, job.settings.generator)
        picture = frontal_picture(generator, ws, chosen.neural_resolution, samples)
        return picture_labels(picture, number, chosen.labels, labeller(job), model.conditions)


def _generator(job: Job) -> tuple[Generator, bool]:
    """Return the process's generator, and whether its z holds a scene and a camera."""
    path = weight_file(job.settings, "generator")

    def load() -> tuple[Generator, bool]:
        return preparation(job).load(path), load_latent_layout(path) == LAYOUT_2D

    model, posed = cached("any_generator", job.weights["generator"], load, *computing(job))
    return chunked(model, job), posed
