"""Stage ``edit``: the portrait with other attributes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.pipeline import Array, File, Job, Note, Stage
from portrait_core.pipeline.ledger import done_frames
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import flow_weights, identity_weights, labelling_weights
from portrait_core.rendering.page import transfers_detail
from portrait_core.tracking.crop import crop_image
from tasks.context import device_of, landmarker, read_portrait, recogniser, use_threads
from tasks.running import does
from tasks.trackers import tracker

if TYPE_CHECKING:
    from torch import Tensor

    from portrait_core.attribute_editing.edit_series import EditSeries

STRIP, REPORT = "strip.png", "edit"
"""File of the edit at several strengths, and note of what was asked and what came of it."""

EDIT = Stage(
    name="edit",
    title="edit attributes",
    version=3,
    unit="edited",
    reads=("portrait", "layers", "inversion", "tuning"),
    inputs=("labels",),
    settings=("edit", "render"),
    weights=(flow_weights, labelling_weights, identity_weights),
    writes=(
        Array("edited", per="clip"),
        Array("edited_latents", per="clip"),
        File(STRIP),
        Note(REPORT),
    ),
)


@does(EDIT, precision="fp32")
def edit(job: Job) -> StageResult:
    """Edit the inverted portrait (paper section 3.4).

    Its latent is moved by the flow and rendered with the generator that was tuned on the portrait, and the
    changes are carried over to the photograph.
    """
    watch = Stopwatch("edit", 0, 1)
    if done_frames(job, "edit").all():
        return watch.result(0)
    import torch

    from portrait_core.attribute_editing.edit_series import EditSeries
    from portrait_core.report import png_bytes
    from portrait_core.report.edits import edit_report, edit_strip
    from tasks.attributes import flow_model, own_labels

    threads, device = use_threads(job, alone=True), device_of(job)
    model = flow_model(job)
    ws = torch.from_numpy(job.output("inversion").read("latents", 0, 1)).to(device)
    own = own_labels(job, model, ws)
    made = EditSeries.make(model, ws, own, job.settings.edit, lambda one: _picture(job, one))
    edited, crops = _on_photograph(job, made)
    shown = replace(made, pictures=crops)
    output = job.output("edit")
    output.write_whole({"edited": edited[None], "edited_latents": made.ends()})
    output.put_bytes(STRIP, png_bytes(edit_strip(shown)))
    output.write_note(REPORT, edit_report(model, made, _drift(job, shown, threads)))
    output.commit()
    return watch.result(1)


def _on_photograph(job: Job, made: EditSeries) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
    """Return the photograph edited in full ``[H,W,3]``, and its face crops at every strength ``[S,S,3]``."""
    from portrait_core.attribute_editing.edit_requests import moves_mouth
    from portrait_core.attribute_editing.photograph_edit import ColourChange, editable_mask, edited_photograph

    source, photograph = job.output("portrait"), read_portrait(job)
    center, side = (source.read(name)[0] for name in ("crop_center_px", "crop_side_px"))
    coverage = None
    if transfers_detail(job.settings):
        coverage = job.output("layers").read("coverage")[0].astype(np.float32) / 255
    mouth = moves_mouth(made.requests)
    free = editable_mask(coverage, source.read("landmarks")[0], photograph.shape[:2], mouth)
    edited, crops = photograph, list[NDArray[np.uint8]]()
    for picture in made.pictures:
        change = ColourChange.between(made.pictures[0], picture)
        edited = edited_photograph(photograph, change, free, center, float(side))
        crops.append(crop_image(edited, center, float(side), len(picture)))
    return edited, crops


def _picture(job: Job, ws: Tensor) -> NDArray[np.uint8]:
    """Return the tuned generator's picture of a latent at the portrait's camera ``[S,S,3]``."""
    from portrait_core.generators.prepared import volume_of
    from portrait_core.inversion.pictures import picture_of
    from portrait_core.rendering.pose_renderer import final_sampling
    from tasks.fitting import clip_data
    from tasks.stages.render import tuned_generator

    generator = volume_of(tuned_generator(job))
    sampling, resolution = final_sampling(generator, job.settings.render)
    return picture_of(generator, ws, clip_data(job).camera, resolution, sampling)


def _drift(job: Job, made: EditSeries, threads: int) -> dict[str, float | None]:
    """Measure how far the edit moved the person, with the process's models."""
    from portrait_core.report.edits import person_drift
    from tasks.fitting import clip_data, features

    face = clip_data(job).face(0)
    models = landmarker(job, threads), tracker(job), features(job), recogniser(job)
    return person_drift(made, *models, face)
