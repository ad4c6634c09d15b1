"""The effect of a flow on people, in pictures and numbers: strips and sheets of edits, an edit's report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from portrait_core.attribute_editing.edit_series import EditSeries, latent_labels
from portrait_core.attribute_editing.latent_edits import AttributeEdit, StyleFlowModel, edit_latent
from portrait_core.attribute_editing.scene_attributes import shows_on_photographs
from portrait_core.attribute_editing.styleflow_training import LabelledLatents
from portrait_core.inversion.features import feature_distance
from portrait_core.inversion.targets import image_tensor
from portrait_core.metrics.identity import ShippedRecogniser, identity_distance
from portrait_core.report.pictures import contact_sheet
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.trackers import Tracker

_SHEET_TILE, _STRIP_TILE = 128, 256
"""Sides in pixels of the pictures of a flow's sheet and of an edit's strip."""


def edit_strip(made: EditSeries) -> NDArray[np.uint8]:
    """Return an edit's pictures in a row ``[H,W,3]``, under their strengths."""
    label = ", ".join(map(str, made.requests)).replace("_", " ")
    titles = [f"{strength:.0%}" for strength in made.strengths]
    return contact_sheet({label: made.pictures}, titles, _STRIP_TILE)


def edit_report(model: StyleFlowModel, made: EditSeries, drift: Mapping[str, float | None]) -> dict[str, Any]:
    """Say what was asked, what the portrait had, what the edited latent has, and how far the person drifted.

    Args:
        model: the flow.
        made: the edit.
        drift: of :func:`person_drift`.

    Returns:
        What JSON can hold, with four decimals.
    """
    own, reader = made.own, model.reader
    read = {} if reader is None else latent_labels(model, made.latents[-1])
    attributes = {
        request.name: {
            "asked": str(request),
            "own": own[request.name],
            "target": request.target(own[request.name], model.conditions),
            "read_back": read.get(request.name),
            "weak": request.name in (() if reader is None else reader.weakly_read(model.conditions)),
            "shows": shows_on_photographs(request.name, model.conditions),
        }
        for request in made.requests
    }
    moved = {name: value - own[name] for name, value in read.items() if name not in attributes}
    return {
        "attributes": {name: _rounded(row) for name, row in attributes.items()},
        "own": _rounded(own),
        "others_moved": _rounded(moved),
        "drift": _rounded(drift),
    }


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


def person_drift(
    made: EditSeries,
    landmarker: FaceLandmarker,
    tracker: Tracker,
    phi: nn.Module,
    recogniser: ShippedRecogniser,
    face: Float[Tensor, "1 1 s s"],
) -> dict[str, float | None]:
    """Measure how far an edit moved the person, apart from what was asked.

    Args:
        made: the edit.
        landmarker: finds the faces in its pictures.
        tracker: fits their heads.
        phi: the perceptual features.
        recogniser: tells whether two faces are one person's.
        face: where the portrait's face is, in 0..1.

    Returns:
        ``latent``: length of the change of w over that of w; ``head_shape``: root mean square of the change
        of the head's shape coefficients, in standard deviations of people, None where the tracker finds no
        face; ``perceptual``: distance of the faces in Φ's features; ``identity``: that of dlib's face
        recognition (below 0.6 is the same person to it), None where there is no face.
    """
    first, last = made.latents[0], made.latents[-1]
    both = made.pictures[0], made.pictures[-1]
    found = landmarker.detect(np.stack(both))
    shape = identity = None
    if found.ok.all():
        codes = [
            tracker.portrait(picture, found.points[i : i + 1], picture.shape[0]).track.shape
            for i, picture in enumerate(both)
        ]
        shape = float(np.sqrt(np.mean(np.square(codes[1] - codes[0]))))
        vectors = recogniser.embed(np.stack(both), found.points)
        identity = float(identity_distance(*vectors))
    with torch.no_grad():
        old, new = (phi(image_tensor(picture)[None].to(face) * face) for picture in both)
        distance = float(feature_distance(old, new, face))
    return {
        "latent": float((last - first).norm() / first.norm()),
        "head_shape": shape,
        "perceptual": distance,
        "identity": identity,
    }


def flow_sheet(
    model: StyleFlowModel, samples: LabelledLatents, count: int, draw: Callable[[Tensor], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Show samples with each attribute at its least, as it is, and at its greatest ``[H,W,3]``.

    Args:
        model: the flow.
        samples: with their labels.
        count: how many of them are shown, from the first on.
        draw: gives pictures ``[count,S,S,3]`` of latents ``[count,1,w]``.
    """
    rows: dict[str, list[NDArray[np.uint8]]] = {}
    for name in model.conditions.editable:
        attribute = model.conditions.attributes[model.conditions.index(name)]
        shown = [
            draw(_moved(model, samples, count, name, value))
            for value in (attribute.low, None, attribute.high)
        ]
        rows[name] = [pictures[i] for i in range(count) for pictures in shown]
    titles = [title for _ in range(count) for title in ("least", "own", "greatest")]
    return contact_sheet(rows, titles, _SHEET_TILE)


def _moved(
    model: StyleFlowModel, samples: LabelledLatents, count: int, name: str, value: float | None
) -> Float[Tensor, "count 1 w"]:
    """Return latents of samples with one attribute moved, on the flow's device."""
    w, labels = samples.w[:count].to(next(model.flow.parameters())), samples.labels[:count]
    return w if value is None else edit_latent(model, w, labels, [AttributeEdit({name: value})])
