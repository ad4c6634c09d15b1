"""Which weights stages use: for their declarations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from portrait_core.model_files.needs import DECA_TRACKING, FLAME_MODELS, LANDMARK_MODELS

Digests = Mapping[str, str]
"""Digests of a job's weights by name."""


def landmark_weights(weights: Digests) -> dict[str, str]:
    """The detector and the landmark networks."""
    return _of(weights, tuple(Path(name).stem for name in LANDMARK_MODELS))


def head_weights(weights: Digests) -> dict[str, str]:
    """The morphable heads."""
    return _of(weights, ("head", *FLAME_MODELS))


def tracking_weights(weights: Digests) -> dict[str, str]:
    """What makes tracks: DECA's and Deep3DFaceRecon's where the job has them, else the morphable head."""
    return _of(weights, DECA_TRACKING) or head_weights(weights)


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
