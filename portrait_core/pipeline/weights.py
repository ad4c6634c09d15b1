"""Weights of each stage, for the stages' declarations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from portrait_core.model_files.needs import BASELINES, IDENTITY_MODELS, LANDMARK_MODELS, LPIPS_MODELS
from portrait_core.template.registry import FACE_MODELS

Digests = Mapping[str, str]
"""Digests of a job's weights by name."""
_TRACKING_FILES = tuple(name for row in FACE_MODELS.values() for name in row.tracking_files)
_TEMPLATE_FILES = tuple(name for row in FACE_MODELS.values() for name in row.template_files)


def landmark_weights(weights: Digests) -> dict[str, str]:
    """Select the detector and the landmark networks."""
    return _select(weights, tuple(Path(name).stem for name in LANDMARK_MODELS))


def recognition_weights(weights: Digests) -> dict[str, str]:
    """Select the network by which one person is followed through a clip."""
    return _select(weights, ("person_recognition",))


def head_weights(weights: Digests) -> dict[str, str]:
    """Select the morphable heads."""
    return _select(weights, ("head", *_TEMPLATE_FILES))


def tracking_weights(weights: Digests) -> dict[str, str]:
    """Select the weights that tracks are made with: the tracker's own, else the heads'."""
    return _select(weights, _TRACKING_FILES) or head_weights(weights)


def measuring_weights(weights: Digests) -> dict[str, str]:
    """Select the embedded head, which measures expressions whatever the tracker is."""
    return _select(weights, ("head", "measuring_head"))


def fitting_weights(weights: Digests) -> dict[str, str]:
    """Select the weights with which latents and generators are fitted."""
    return _select(weights, ("head", "generator", "phi"))


def matte_weights(weights: Digests) -> dict[str, str]:
    """Select the network that segments the person in the portrait."""
    return _select(weights, ("person_segmentation",))


def labelling_weights(weights: Digests) -> dict[str, str]:
    """Select the local model of attributes, where the job has it, with the landmarks that it needs."""
    attribute_model = _select(weights, ("age_gender",))
    return landmark_weights(weights) | attribute_model if attribute_model else {}


def flow_weights(weights: Digests) -> dict[str, str]:
    """Select the StyleFlow network that edits attributes."""
    return {"flow": weights.get("flow", "")}


def subject_weights(weights: Digests) -> dict[str, str]:
    """Select the generator of random people, the StyleFlow that moves them, and the landmark networks."""
    return _select(weights, ("generator", "flow")) | landmark_weights(weights)


def baseline_weights(weights: Digests) -> dict[str, str]:
    """Select the weights of the method that is compared."""
    return _select(weights, (*BASELINES, "bfm"))


def deep3d_weights(weights: Digests) -> dict[str, str]:
    """Select the network that reads Deep3DFaceRecon's coefficients for an evaluation."""
    return _select(weights, ("read_deep3d", "read_deep3d_landmarks"))


def deca_weights(weights: Digests) -> dict[str, str]:
    """Select the network that reads DECA's codes for an evaluation."""
    return _select(weights, ("read_deca",))


def assessing_weights(weights: Digests) -> dict[str, str]:
    """Select everything that looks at a clip for an evaluation."""
    networks = _select(weights, (*IDENTITY_MODELS, *LPIPS_MODELS, "inception", "phi"))
    estimators = deep3d_weights(weights) | deca_weights(weights)
    return landmark_weights(weights) | measuring_weights(weights) | estimators | networks


def identity_weights(weights: Digests) -> dict[str, str]:
    """Select the network that recognises faces, where the job has it."""
    return _select(weights, IDENTITY_MODELS)


def _select(weights: Digests, names: tuple[str, ...]) -> dict[str, str]:
    return {name: weights[name] for name in names if name in weights}
