"""Stage ``edit``: the portrait with other attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.pipeline import Array, File, Job, Note, Stage
from portrait_core.pipeline.ledger import done
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import flow_weights, labelling_weights
from tasks.context import read_portrait, use_threads
from tasks.running import does
from tasks.trackers import tracker

if TYPE_CHECKING:
    from torch import Tensor

    from portrait_core.attributes.editing import AttributeFlow
    from portrait_core.attributes.requests import EditRequest

STRIP, REPORT = "strip.png", "edit"
"""File of the edit at several strengths, and note of what was asked and what came of it."""
_STRIP_TILE = 256

EDIT = Stage(
    name="edit",
    title="edit attributes",
    version=2,
    unit="edited",
    reads=("portrait", "inversion", "tuning"),
    inputs=("labels",),
    settings=("edit", "render"),
    weights=(flow_weights, labelling_weights),
    writes=(
        Array("edited", per="clip"),
        Array("edited_latents", per="clip"),
        File(STRIP),
        Note(REPORT),
    ),
)


@does(EDIT, precision="fp32")
def edit(job: Job) -> StageResult:
    """Move the inverted portrait's latent by the flow, render it with the generator that was tuned on the
    portrait, and put what changed into the photograph (paper section 3.4)."""
    watch = Stopwatch("edit", 0, 1)
    if done(job, "edit").all():
        return watch.result(0)
    import torch

    from portrait_core.attributes.editing import edit_latent
    from portrait_core.attributes.pictures import edited_photograph
    from portrait_core.attributes.requests import edits_of, parse_requests
    from portrait_core.report import contact_sheet
    from tasks.attributes import flow_model, png
    from tasks.context import device_of

    use_threads(job, alone=True)
    source, chosen, model = job.output("portrait"), job.settings.edit, flow_model(job)
    ws = torch.from_numpy(job.output("inversion").read("latents", 0, 1)).to(device_of(job))
    own, requests = own_labels(job, model, ws), parse_requests(chosen.attributes)
    values = model.conditions.vector(own)[None]
    strengths = [chosen.strength * i / (chosen.strip - 1) for i in range(chosen.strip)]
    latents = [
        edit_latent(model, ws, values, edits_of(requests, own, model.conditions, strength))
        for strength in strengths
    ]
    pictures = [_picture(job, one) for one in latents]
    place = (source.read(name)[0] for name in ("crop_center_px", "crop_side_px"))
    edited = edited_photograph(read_portrait(job), pictures[0], pictures[-1], *place)
    titles = [f"{strength:.0%}" for strength in strengths]
    label = ", ".join(map(str, requests)).replace("_", " ")
    strip = contact_sheet({label: pictures}, titles, _STRIP_TILE)
    both = torch.stack([latents[0][0], latents[-1][0]]).cpu().numpy()[None]
    output = job.output("edit")
    output.write_whole({"edited": edited[None], "edited_latents": both})
    output.put_bytes(STRIP, png(strip))
    output.write_note(REPORT, _report(job, model, requests, own, latents, pictures))
    output.commit()
    return watch.result(1)


def own_labels(job: Job, model: AttributeFlow, ws: Tensor) -> dict[str, float]:
    """The portrait's attributes by name, from where the settings say.

    Raises:
        InputError: if that does not know them.
    """
    from portrait_core.errors import InputError
    from tasks.attributes import portrait_labels

    source, conditions = job.settings.edit.labels, model.conditions
    if source == "latent":
        if model.reader is None:
            raise InputError(
                "this flow was published without what reads a portrait's own attributes from its latent; set "
                "edit.labels=photograph, or edit.labels=FILE.csv with a row for the portrait"
            )
        read = model.reader.read(ws)[0].tolist()
        return _named(model, read)
    return portrait_labels(job, conditions)


def _picture(job: Job, ws: Tensor) -> NDArray[np.uint8]:
    """The tuned generator's picture of a latent at the portrait's camera ``[S,S,3]``."""
    import torch

    from portrait_core.inversion.targets import image_array
    from portrait_core.reposing import final_sampling
    from tasks.fitting import clip_data
    from tasks.stages.render import tuned_generator

    generator = tuned_generator(job)
    sampling, resolution = final_sampling(generator, job.settings.render)
    with torch.no_grad():
        made = generator.synthesis(ws, clip_data(job).camera, resolution, sampling=sampling)
    return image_array(made["image"][0])


def _report(
    job: Job,
    model: AttributeFlow,
    requests: Sequence[EditRequest],
    own: Mapping[str, float],
    latents: Sequence[Tensor],
    pictures: Sequence[NDArray[np.uint8]],
) -> dict[str, Any]:
    """What was asked, what the portrait had, what the edited latent has, and how far the person drifted."""
    read = {} if model.reader is None else _named(model, model.reader.read(latents[-1])[0].tolist())
    attributes = {
        request.name: {
            "asked": str(request),
            "own": own[request.name],
            "target": request.target(own[request.name], model.conditions),
            "read_back": read.get(request.name),
            "weak": request.name in (() if model.reader is None else model.reader.weak(model.conditions)),
        }
        for request in requests
    }
    moved = {name: value - own[name] for name, value in read.items() if name not in attributes}
    return {
        "attributes": {name: _rounded(row) for name, row in attributes.items()},
        "own": _rounded(own),
        "others_moved": _rounded(moved),
        "drift": _rounded(drift(job, latents[0], latents[-1], pictures[0], pictures[-1])),
    }


def drift(
    job: Job, first: Tensor, last: Tensor, before: NDArray[np.uint8], after: NDArray[np.uint8]
) -> dict[str, float | None]:
    """How far an edit moved the person, apart from what was asked.

    Returns:
        ``latent``: length of the change of w over that of w; ``head_shape``: root mean square of the change
        of the head's shape coefficients, in standard deviations of people, None where the tracker finds no
        face; ``perceptual``: distance of the faces in Φ's features; ``identity``: that of face recognition
        (below 0.6 is the same person to it), None where its packages are not installed.
    """
    import torch

    from portrait_core.inversion.features import feature_distance
    from portrait_core.inversion.targets import image_tensor
    from portrait_core.metrics.identity import Recogniser, identity_distance
    from tasks.context import landmarker
    from tasks.fitting import clip_data, features

    found = landmarker(job, use_threads(job, alone=True)).detect(np.stack([before, after]))
    shape, recogniser = None, Recogniser.find()
    if found.ok.all():
        codes = [
            tracker(job).portrait(picture, found.points[i : i + 1]).track.shape
            for i, picture in enumerate((before, after))
        ]
        shape = float(np.sqrt(np.mean(np.square(codes[1] - codes[0]))))
    vectors = [
        recogniser.describe(picture, points)
        for picture, points in zip((before, after), found.points, strict=True)
        if recogniser is not None and found.ok.all()
    ]
    face, phi = clip_data(job).face(0), features(job)
    with torch.no_grad():
        old, new = (phi(image_tensor(picture)[None].to(face) * face) for picture in (before, after))
        distance = float(feature_distance(old, new, face))
    return {
        "latent": float((last - first).norm() / first.norm()),
        "head_shape": shape,
        "perceptual": distance,
        "identity": float(identity_distance(*vectors)) if vectors else None,
    }


def _named(model: AttributeFlow, values: Sequence[float]) -> dict[str, float]:
    return dict(zip(model.conditions.names, map(float, values), strict=True))


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
