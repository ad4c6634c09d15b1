"""Import of files of weights into the models folder: each is read first, then copied; packs are unpacked."""

from __future__ import annotations

from pathlib import Path

import fsspec

from portrait_core.generators.published import Converted, convert_published
from portrait_core.model_files.check import Report, check_model
from portrait_core.runtime.caches import cache_folder
from portrait_core.runtime.whole_files import write_whole
from portrait_core.weights.readers.onnx_files import read_member
from portrait_core.weights.registry import MODELS, Model


def import_generator(path: Path, folder: str, *, half: bool, licence: str) -> Converted:
    """Convert a network file into the models folder, which may be a bucket.

    Args:
        path: the network file.
        folder: models folder or its URL.
        half: store float16 instead of the exact float32.
        licence: licence to note in the conversion.

    Raises:
        ValueError: the file is not such a network, or nothing can be written.
    """
    if "://" not in folder:
        return convert_published(path, folder, half=half, licence=licence)
    conversion = convert_published(path, cache_folder("models") / "converted", half=half, licence=licence)
    for file in (conversion.weights, conversion.about_path):
        _write(file.read_bytes(), f"{folder}/{file.name}")
    return conversion


def import_model(path: Path, model: Model, folder: str) -> list[tuple[Model, str, Report]]:
    """Read a model's file and copy it into the models folder under its official name.

    Of a pack, every file that is used is copied.

    Returns:
        For each file: the model, its new place, and the report of the check.

    Raises:
        ModelFileError: the file is not what its name says.
        ValueError: nothing can be written.
    """
    packed = [packed_model for packed_model in MODELS.values() if path.name in packed_model.inside]
    reports = [(packed_model, check_model(path, packed_model)) for packed_model in packed or [model]]
    imported = []
    for packed_model, report in reports:
        # a network that was trained here keeps its name, so that it is not taken for the published one
        target = f"{folder}/{packed_model.file if report.licence is None else path.name}"
        _write(read_member(path, packed_model.file), target)
        imported.append((packed_model, target, report))
    return imported


def _write(data: bytes, target: str) -> None:
    try:
        if "://" in target:
            with fsspec.open(target, "wb") as file:
                file.write(data)
            return
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except (OSError, ImportError) as error:
        raise ValueError(f"cannot write {target}: {error}; name another folder with --out") from error
