"""Which models a run with given settings reads, and the look at all of them before any work."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from portrait_core.config import Settings
from portrait_core.errors import ModelFileError
from portrait_core.models.locate import find, missing_text
from portrait_core.models.registry import MODELS, by_file
from portrait_core.resources import data_folder

_TRACKERS: dict[str, tuple[str, ...]] = {
    "embedded": ("embedded_head", "face_detector", "face_landmarks", "iris_landmarks"),
    "deca": (
        "deca",
        "flame",
        "flame_landmarks",
        "head_template",
        "uv_face_eye_mask",
        "deep3d",
        "deep3d_landmarks",
    ),
}
_PHI: dict[str, tuple[str, ...]] = {"efficientnet": ("efficientnet",), "vgg16": ("vgg16", "lpips")}
_NOT_COMMERCIAL = re.compile(r"non-?commercial|research|academic|\bNC\b", re.IGNORECASE)


def needed_models(settings: Settings) -> dict[str, Path | None]:
    """Names of the models that a run reads, each with the path that a setting gives it, if one does."""
    needed: dict[str, Path | None] = dict.fromkeys(_TRACKERS[settings.tracking.tracker])
    needed |= dict.fromkeys(_PHI[settings.inversion.phi])
    if settings.tracking.tracker == "embedded":
        for name in needed:
            if MODELS[name].file.endswith(".onnx"):
                needed[name] = data_folder() / settings.tracking.models / MODELS[name].file
        needed["embedded_head"] = data_folder() / settings.tracking.head
    if settings.inversion.phi == "vgg16" and settings.inversion.phi_weights is not None:
        needed["vgg16"] = data_folder() / settings.inversion.phi_weights
    generator = by_file(Path(settings.generator.weights).name)
    if generator is not None:
        needed[generator.name] = data_folder() / settings.generator.weights
    return needed


def check_models(settings: Settings) -> None:
    """Look for every model of a run, before any work; with ``settings.commercial``, at their licences too.

    Raises:
        ModelFileError: naming every file that is missing, or every one that a commercial run must not use.
    """
    needed = needed_models(settings)
    if settings.commercial:
        _check_licences(settings, needed)
    absent = [name for name, path in needed.items() if path is None or not path.is_file()]
    missing = [found for found in map(find, absent) if found.where is None]
    if missing:
        raise ModelFileError(
            f"profile {settings.profile}: {missing_text(missing)}\n"
            "`portrait models where` says where each was looked for"
        )


def _check_licences(settings: Settings, needed: dict[str, Path | None]) -> None:
    refused = [
        f"{MODELS[name].file} ({MODELS[name].licence})" for name in needed if not MODELS[name].commercial
    ]
    chosen = [settings.generator.weights]
    chosen += [settings.tracking.head] if settings.tracking.tracker == "embedded" else []
    for own in (data_folder() / name for name in chosen if by_file(Path(name).name) is None):
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
    """The licence that a safetensors file or the JSON file beside it states, or None."""
    try:
        said = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if isinstance(said, dict) and isinstance(said.get("licence"), str):
            return str(said["licence"])
    except (OSError, ValueError):
        pass  # the file itself may say it
    try:
        with safe_open(str(path), framework="np") as file:
            about = dict(file.metadata() or {})
        about = json.loads(about["generator"]) if "generator" in about else about
        return about.get("licence")
    except (SafetensorError, OSError, ValueError):
        return None
