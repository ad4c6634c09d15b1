"""Keys of stages, digests of files, names: pure functions, the same answer on every host and in every run."""

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
    """16 hexadecimal digits that stand for a recipe."""
    return hashlib.sha256(canonical_json(recipe)).hexdigest()[:16]


def stage_recipe(
    stage: str,
    inputs: Mapping[str, str],
    settings: BaseModel | Mapping[str, Any],
    weights: Mapping[str, str],
    version: int = 1,
) -> dict[str, Any]:
    """Everything that decides what a stage computes, and nothing else: what its key is made of.

    Args:
        stage: name of the stage, such as ``"track"``.
        inputs: digests of what it reads: of files (:func:`file_digest`) or keys of earlier stages, by role.
        settings: the resolved settings that it reads. Anything that does not change the result (device,
            batch size, folders) must be left out by the caller.
        weights: digests of the weights that it uses, by role.
        version: number that is raised when the stage's code changes what it computes.

    Returns:
        Plain values: ``stage``, ``inputs``, ``settings``, ``weights``, ``version``.

    Raises:
        InputError: a value of ``inputs`` or ``weights`` is no digest, or the settings are not plain data.
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


def gapped_key(key: str, gaps: Iterable[int]) -> str:
    """Key of what was made of a clip some of whose frames are missing: the key itself when none is."""
    missing = sorted(int(frame) for frame in gaps)
    return recipe_key({"key": key, "gaps": missing}) if missing else key


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What two recipes of a stage differ in, in words: ``tuning.steps 160 -> 400``, ``weights generator``.

    Inputs that are other stages are named only when nothing else differs: they say themselves why.
    """
    said = [
        f"{name} {_short(before)} -> {_short(after)}"
        for name, before, after in _changes(old["settings"], new["settings"])
    ]
    said += [f"weights {name} changed" for name, _, _ in _changes(old["weights"], new["weights"])]
    if old["version"] != new["version"]:
        said.append(f"its code changed (version {old['version']} -> {new['version']})")
    inputs = [name for name, _, _ in _changes(old["inputs"], new["inputs"])]
    return said or ([f"{' and '.join(inputs)} changed"] if inputs else [])


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _changes(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append((prefix + name, before, after))
    return found


def _short(value: Any) -> str:
    return "none" if value is None else str(value)


def file_digest(path_or_url: str | os.PathLike[str], **storage_options: Any) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, read in pieces from a path or any fsspec URL.

    Raises:
        InputError: there is no such file.
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
    """Return a name that is safe in any store, or raise :class:`InputError`."""
    if not is_name(name):
        raise InputError(
            f"{name!r} cannot name a {what}: use letters, digits, '_', '-', '.', starting with a letter or "
            f"digit"
        )
    return name


def checked_key(key: str) -> str:
    """Return a key that is hexadecimal, or raise ``ValueError``."""
    if not re.fullmatch(r"[0-9a-f]+", key):
        raise ValueError(f"a key is hexadecimal, as recipe_key gives it; got {key!r}")
    return key
