"""Keys of stages, digests of files, names: pure functions with the same result on every host."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import fsspec
from pydantic import BaseModel

from portrait_core.errors import InputError
from portrait_core.store.documents import canonical_json
from portrait_core.store.local import PARTIAL
from portrait_core.store.places import checked_place

_DIGEST = re.compile(r"(?:[a-z0-9]+:)?[0-9a-f]{16,128}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,189}")


def recipe_key(recipe: Mapping[str, Any]) -> str:
    """Return the key of a recipe: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(canonical_json(recipe)).hexdigest()[:16]


def stage_recipe(
    stage: str,
    inputs: Mapping[str, str],
    settings: BaseModel | Mapping[str, Any],
    weights: Mapping[str, str],
    version: int = 1,
) -> dict[str, Any]:
    """Return everything that decides a stage's result, and nothing else; its key is a hash of it.

    Args:
        stage: name of the stage, such as ``"track"``.
        inputs: digests of files (:func:`file_digest`) or keys of earlier stages that it reads, by role.
        settings: the resolved settings that it reads. The caller leaves out anything that does not change the
            result (device, batch size, folders).
        weights: digests of the weights that it uses, by role.
        version: number that is raised when the stage's results change.

    Returns:
        Plain values: ``stage``, ``inputs``, ``settings``, ``weights``, ``version``.

    Raises:
        InputError: a value of ``inputs`` or ``weights`` is not a digest, or the settings are not plain data.
    """
    for role, digest in [*inputs.items(), *weights.items()]:
        if not _DIGEST.fullmatch(digest):
            raise InputError(
                f"stage {stage}: {role}={digest!r} is no digest; pass file_digest(...) or another stage's "
                f"key, never a path, a host or a time"
            )
    resolved = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else dict(settings)
    return {
        "stage": stage,
        "inputs": dict(inputs),
        "settings": resolved,
        "weights": dict(weights),
        "version": version,
    }


def key_with_gaps(key: str, gaps: Iterable[int]) -> str:
    """Return the key of a result from which some frames are missing; without gaps, the key itself."""
    missing = sorted(int(frame) for frame in gaps)
    return recipe_key({"key": key, "gaps": missing}) if missing else key


def describe_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe how two recipes of a stage differ: ``tuning.steps 160 -> 400``, ``weights generator``.

    Inputs that are other stages are named only when nothing else differs, because those stages describe their
    own changes.
    """
    changes = [
        f"{name} {_short(before)} -> {_short(after)}"
        for name, before, after in _changes(old["settings"], new["settings"])
    ]
    changes += [f"weights {name} changed" for name, _, _ in _changes(old["weights"], new["weights"])]
    if old["version"] != new["version"]:
        changes.append(f"its code changed (version {old['version']} -> {new['version']})")
    inputs = [name for name, _, _ in _changes(old["inputs"], new["inputs"])]
    return changes or ([f"{' and '.join(inputs)} changed"] if inputs else [])


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    changes: list[tuple[str, Any, Any]] = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes += _changes(before, after, f"{prefix}{name}.")
        elif before != after:
            changes.append((prefix + name, before, after))
    return changes


def _short(value: Any) -> str:
    return "none" if value is None else str(value)


def file_digest(path_or_url: str | os.PathLike[str], **storage_options: Any) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal; read it in pieces from a path or fsspec URL.

    Raises:
        InputError: the file does not exist.
    """
    digest = hashlib.sha256()
    try:
        with fsspec.open(checked_place(path_or_url), "rb", **storage_options) as file:
            while piece := file.read(1 << 22):
                digest.update(piece)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{path_or_url} is not a file; check the path") from error
    return digest.hexdigest()


def is_name(name: str) -> bool:
    """Tell whether any store can hold a name."""
    return _NAME.fullmatch(name) is not None and not name.endswith(PARTIAL)


def checked_name(name: str, what: str) -> str:
    """Return a name that is safe in any store; raise :class:`InputError` for another one."""
    if not is_name(name):
        raise InputError(
            f"{name!r} cannot name a {what}: use letters, digits, '_', '-', '.', starting with a letter or "
            f"digit"
        )
    return name


def checked_key(key: str) -> str:
    """Return a hexadecimal key; raise ``ValueError`` for another one."""
    if not re.fullmatch(r"[0-9a-f]+", key):
        raise ValueError(f"a key is hexadecimal, as recipe_key gives it; got {key!r}")
    return key
