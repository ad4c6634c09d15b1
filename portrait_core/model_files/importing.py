"""Bringing files of weights into the models folder: read first, then copied; packs are taken apart."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec

from portrait_core.runtime.caches import cache_folder
from portrait_core.weights.locate import digest
from portrait_core.weights.registry import MODELS, Model

if TYPE_CHECKING:
    from portrait_core.generators.published import Converted
    from portrait_core.model_files.check import Report


def import_generator(path: Path, folder: str, *, half: bool, licence: str) -> Converted:
    """Convert a network file into the models folder, which may be a bucket.

    Raises:
        ValueError: if the file is no such network, or nothing can be written.
    """
    from portrait_core.generators.published import convert_published

    if "://" not in folder:
        return convert_published(path, folder, half=half, licence=licence)
    made = convert_published(path, cache_folder("models") / "converted", half=half, licence=licence)
    for file in (made.weights, made.about_path):
        _write(file.read_bytes(), f"{folder}/{file.name}")
    return made


CONVERSION = 2
"""Version of what a conversion writes; those of other versions are made again. 2: with ``conv_clamp``."""


@lru_cache(maxsize=8)
def convert_once(path: Path) -> Path:
    """A generator's file that loads in a moment: the file itself, or what a network file (``.pkl``) was
    converted to on this machine.

    Raises:
        ValueError: if the file is no such network, or nothing can be written.
    """
    if path.suffix != ".pkl":
        return path
    from portrait_core.generators.published import convert_published

    folder = cache_folder("models") / "converted" / f"{digest(path)[0][:16]}-{CONVERSION}"
    target = folder / f"{path.stem}.safetensors"
    return target if target.is_file() else convert_published(path, folder).weights


def import_model(path: Path, model: Model, folder: str) -> list[tuple[Model, str, Report]]:
    """Read a model's file and copy it into the models folder under its official name; of a pack, every file
    that is used.

    Returns:
        For each: the model, where it lies now, and what was found in it.

    Raises:
        ModelFileError: if the file is not what its name says.
        ValueError: if nothing can be written.
    """
    from portrait_core.model_files.check import check_model
    from portrait_core.weights.readers.onnx_files import read_member

    packed = [one for one in MODELS.values() if path.name in one.inside]
    reports = [(one, check_model(path, one)) for one in packed or [model]]
    done = []
    for one, report in reports:
        # a flow that was trained here keeps its name: it does not pass for the published one
        target = f"{folder}/{one.file if report.licence is None else path.name}"
        _write(read_member(path, one.file), target)
        done.append((one, target, report))
    return done


def _write(data: bytes, target: str) -> None:
    try:
        if "://" in target:
            with fsspec.open(target, "wb") as file:
                file.write(data)
            return
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, ImportError) as error:
        raise ValueError(f"cannot write {target}: {error}; name another folder with --out") from error
