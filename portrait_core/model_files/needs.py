"""Weights that a run with given settings reads, and a check of all of them before any work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from portrait_core.errors import ModelFileError
from portrait_core.model_files.conversion import convert_once
from portrait_core.runtime.package_files import data_file, data_folder
from portrait_core.settings import Settings
from portrait_core.template.registry import face_model_row
from portrait_core.weights.locate import find, missing_text, require
from portrait_core.weights.readers.safetensors_files import open_safetensors
from portrait_core.weights.registry import MODELS, by_file
from portrait_core.weights.sidecars import parsed_object, read_sidecar

LANDMARK_MODELS = (
    "face_detector_256.onnx",
    "face_landmarks_468.onnx",
    "iris_landmarks.onnx",
    "face_mesh_attention.onnx",
)
"""Files of the embedded detector and landmarks, which find the faces for every tracker."""
SEGMENTATION_MODEL = "person_segmentation.onnx"
"""File of the network that segments the person in a photograph."""
BASELINES = ("pirenderer", "facevid2vid")
"""Methods of ``baseline.method`` with weights of their own."""
RECOGNITION_MODEL = "face_recognition.safetensors"
"""File of the network that follows a person through a clip, and tells whether an edit or an animation kept
the person."""
ESTIMATOR_FILES = {"deep3d": ("deep3d", "deep3d_landmarks"), "deca": ("deca",)}
"""Files of the networks that read poses and expressions for an evaluation."""
IDENTITY_MODELS = ("face_recognition", "arcface")
"""Networks that recognise faces, of which ``evaluation.identity`` chooses one."""
LPIPS_MODELS = ("lpips_vgg16", "lpips_alexnet")
"""Networks of LPIPS that ``evaluation.lpips`` chooses from."""
_NOT_COMMERCIAL = re.compile(r"non-?commercial|research|academic|\bNC\b", re.IGNORECASE)


def weight_sources(settings: Settings, purposes: Sequence[str] | None = None) -> dict[str, Path | str]:
    """Return the weights that a run reads, by purpose.

    Each is the path that a setting gives, or the name of a model in the registry, which lies in the models
    folder. Where the embedded head does not drive anything, it still measures expressions
    (``measuring_head``).

    Args:
        settings: settings of the run.
        purposes: those that the run has; None stands for all that a clip has.
    """
    tracking, inversion, data = settings.tracking, settings.inversion, data_folder()
    sources: dict[str, Path | str] = {
        Path(file).stem: data / tracking.models / file for file in (*LANDMARK_MODELS, SEGMENTATION_MODEL)
    }
    # under a name of its own: an edit and an evaluation name the network that measures them
    sources["person_recognition"] = data / tracking.models / RECOGNITION_MODEL
    row = face_model_row(settings)
    sources |= {name: name for name in row.files}
    sources["head" if row.moves_embedded_head(settings) else "measuring_head"] = data / tracking.head
    own = settings.generator.weights
    sources["generator"] = own if own in MODELS else data / own
    if inversion.phi == "vgg16" or settings.tuning.perceptual == "lpips":
        phi_weights = inversion.phi_weights
        sources["phi"] = "vgg16" if phi_weights is None else data / phi_weights
    flow = settings.edit.flow
    if flow is not None and (settings.edit.attributes or "flow" in (purposes or ())):
        sources["flow"] = flow if flow in MODELS else data / flow
        sources["face_recognition"] = data / tracking.models / RECOGNITION_MODEL
    return {name: source for name, source in sources.items() if purposes is None or name in purposes}


def evaluation_sources(settings: Settings) -> dict[str, Path | str]:
    """Return the weights that assessing a clip reads, by purpose, as :func:`weight_sources` does.

    They are those of the networks that look at it, and of the method that animates it where that is not ours.
    """
    chosen, baseline = settings.evaluation, settings.baseline
    shipped = data_folder() / settings.tracking.models / RECOGNITION_MODEL
    sources: dict[str, Path | str] = (
        {"arcface": "arcface"} if chosen.identity == "arcface" else {"face_recognition": shipped}
    )
    if chosen.features == "inception":
        sources["inception"] = "inception"
    sources |= {f"lpips_{name}": name for name in chosen.lpips}
    # under names of their own: trackers read the same files, and their keys name them
    for estimator, files in ESTIMATOR_FILES.items():
        if estimator in chosen.estimators:
            sources |= {f"read_{name}": name for name in files}
    if baseline.method in BASELINES:
        sources[baseline.method] = baseline.method
    if baseline.method == "pirenderer" and baseline.eyes == "first":
        sources["bfm"] = "bfm"
    return sources


def weight_file(settings: Settings, purpose: str) -> Path:
    """Return the local path of one of :func:`weight_sources`, fetched from a bucket where need be.

    :func:`evaluation_sources` count too.

    A generator's published network file is converted once per machine.

    Raises:
        ValueError: the file does not exist, or cannot be read.
    """
    sources = weight_sources(settings, (purpose,))
    source = sources[purpose] if purpose in sources else evaluation_sources(settings)[purpose]
    path = require([source])[source] if isinstance(source, str) else data_file(source)
    return convert_once(path) if purpose == "generator" else path


def needed_models(settings: Settings, purposes: Sequence[str] | None = None) -> dict[str, Path | None]:
    """Return the names of the models that a run reads, each with its path where a setting gives one.

    ``purposes`` are those of :func:`weight_sources`.
    """
    needed: dict[str, Path | None] = {}
    for purpose, source in weight_sources(settings, purposes).items():
        if isinstance(source, str):
            needed[source] = None
        elif purpose in ("head", "measuring_head", "phi"):
            needed["vgg16" if purpose == "phi" else "embedded_head"] = source
        elif (model := by_file(source.name)) is not None:
            needed[model.name] = source
    if purposes is not None and "phi" not in purposes:
        return needed
    packaged = {
        "efficientnet": settings.inversion.phi == "efficientnet",
        "lpips": settings.tuning.perceptual == "lpips",
    }
    return needed | dict.fromkeys(name for name, read in packaged.items() if read)


def check_models(settings: Settings, purposes: Sequence[str] | None = None) -> None:
    """Check that every model of a run exists, before any work; with ``settings.commercial``, its licence too.

    ``purposes`` are those of :func:`weight_sources`.

    Raises:
        ModelFileError: files are missing, or a commercial run must not use them; the message names each.
    """
    needed = needed_models(settings, purposes)
    if settings.commercial:
        _check_licences(settings, needed, purposes)
    absent = [name for name, path in needed.items() if path is None or not path.is_file()]
    missing = [location for location in map(find, absent) if location.where is None]
    if missing:
        raise ModelFileError(
            f"profile {settings.profile}: {missing_text(missing)}\n"
            "`portrait models where` says where each was looked for"
        )


def check_evaluation(settings: Settings) -> None:
    """Check that everything exists that makes and assesses a clip of an evaluation, and its licences.

    Files that the user brings are read, so that a wrong one is found before any work.

    Raises:
        ModelFileError: files are missing, wrong, or must not be used by a commercial run.
    """
    check_models(settings)
    names = [name for name in evaluation_sources(settings).values() if isinstance(name, str)]
    models = [MODELS[name] for name in names]
    refused = [f"{model.file} ({model.licence})" for model in models if not model.commercial]
    if settings.commercial and refused:
        raise ModelFileError(
            f"a commercial run must not use these weights: {', '.join(refused)}; leave the method out, "
            "choose other readers (evaluation.identity, features, estimators), or leave out commercial=true"
        )
    missing = [place for place in map(find, names) if place.where is None]
    if missing:
        raise ModelFileError(missing_text(missing))


def _check_licences(
    settings: Settings, needed: dict[str, Path | None], purposes: Sequence[str] | None
) -> None:
    refused = [
        f"{MODELS[name].file} ({MODELS[name].licence})" for name in needed if not MODELS[name].commercial
    ]
    sources = weight_sources(settings, purposes)
    chosen = [sources[name] for name in ("generator", "head", "measuring_head") if name in sources]
    for own in (path for path in chosen if isinstance(path, Path) and by_file(path.name) is None):
        licence = stated_licence(own)
        if licence is None or _NOT_COMMERCIAL.search(licence):
            refused.append(
                f"{own.name} ({licence or 'states no licence, in it or in a .json file beside it'})"
            )
    if refused:
        raise ModelFileError(
            "a commercial run must not use these weights: " + ", ".join(refused) + ". Choose others (profile "
            "embedded uses none of them), or leave out --commercial"
        )


def stated_licence(path: Path) -> str | None:
    """Return the licence that a safetensors file or the JSON file beside it states, or None."""
    try:
        document = read_sidecar(path.with_suffix(".json"))
        if isinstance(document.get("licence"), str):
            return str(document["licence"])
    except (OSError, ValueError):
        pass  # the file itself may state it
    try:
        with open_safetensors(path, "np") as file:
            about = dict(file.metadata() or {})
        licence = (parsed_object(about["generator"]) if "generator" in about else about).get("licence")
        return licence if isinstance(licence, str) else None
    except (OSError, ValueError):
        return None


def weight_paths(settings: Settings, purposes: Sequence[str] | None = None) -> dict[str, Path]:
    """Return the expected paths of the weights for which the settings give one, by purpose."""
    sources = weight_sources(settings, purposes)
    return {name: path for name, path in sources.items() if isinstance(path, Path)}


def weight_files(settings: Settings, purposes: Sequence[str] | None = None) -> dict[str, Path]:
    """Return the files of weights that a run with these settings reads, by purpose.

    ``purposes`` are those of :func:`weight_sources`.

    Raises:
        ValueError: files are missing; the message lists them.
    """
    missing = [str(path) for path in weight_paths(settings, purposes).values() if not path.is_file()]
    if missing:
        raise ValueError(
            f"weights that the profile {settings.profile} needs are missing: {', '.join(missing)}. "
            f"`portrait doctor --profile {settings.profile}` lists what is there"
        )
    return {name: weight_file(settings, name) for name in weight_sources(settings, purposes)}
