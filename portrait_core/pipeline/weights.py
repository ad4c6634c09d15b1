"""Which weights stages use: for their declarations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from portrait_core.model_files.needs import LANDMARK_MODELS
from portrait_core.template.registry import FACE_MODELS

Digests = Mapping[str, str]
"""Digests of a job's weights by name."""
_TRACKING_FILES = tuple(name for row in FACE_MODELS.values() for name in row.tracking_files)
_TEMPLATE_FILES = tuple(name for row in FACE_MODELS.values() for name in row.template_files)


def landmark_weights(weights: Digests) -> dict[str, str]:
    """The detector and the landmark networks."""
    return _of(weights, tuple(Path(name).stem for name in LANDMARK_MODELS))


def head_weights(weights: Digests) -> dict[str, str]:
    """The morphable heads."""
    return _of(weights, ("head", *_TEMPLATE_FILES))


def tracking_weights(weights: Digests) -> dict[str, str]:
    """Return the weights that tracks are made with: the tracker's own where the job has them, else the heads'."""
    return _of(weights, _TRACKING_FILES) or head_weights(weights)


def measuring_weights(weights: Digests) -> dict[str, str]:
    """The embedded head, which expressions are measured with whatever tracks."""
    return _of(weights, ("head", "measuring_head"))


def fitting_weights(weights: Digests) -> dict[str, str]:
    """What latents and generators are fitted with."""
    return _of(weights, ("head", "generator", "phi"))


def matte_weights(weights: Digests) -> dict[str, str]:
    """The network that finds the person in the portrait."""
    return _of(weights, ("person_segmentation",))


def labelling_weights(weights: Digests) -> dict[str, str]:
    """The local model of attributes, where the job has it, with the landmarks that it needs."""
    found = _of(weights, ("age_gender",))
    return landmark_weights(weights) | found if found else {}


def flow_weights(weights: Digests) -> dict[str, str]:
    """The flow that edits attributes."""
    return {"flow": weights.get("flow", "")}


def _of(weights: Digests, names: tuple[str, ...]) -> dict[str, str]:
    return {name: weights[name] for name in names if name in weights}
