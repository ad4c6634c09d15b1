"""Keys of stages, digests of files, names: pure functions, the same answer on every host and in every run."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import fsspec
from pydantic import BaseModel

from portrait_core.errors import InputError
from portrait_core.store.files import PARTIAL

NUMERICS_VERSION: dict[str, int] = {
    "portrait": 1,
    "landmarks": 1,
    "fit": 1,
    "retarget": 2,
    "template": 2,
    "inversion": 3,
    "tuning": 5,
    "pose": 1,
    "render": 2,
    "encode": 1,
    "measure": 1,
    "sample": 2,
    "flow": 2,
}
"""Raise a stage's number when its code changes what it computes: all its earlier results are then stale.
Stages that are not listed have version 1."""

_DIGEST = re.compile(r"(?:[a-z0-9]+:)?[0-9a-f]{16,128}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def stage_key(
    stage: str,
    inputs: Mapping[str, str],
    settings: BaseModel | Mapping[str, Any],
    weights: Mapping[str, str],
) -> str:
    """Name what a stage computes: :func:`recipe_key` of its :func:`stage_recipe`."""
    return recipe_key(stage_recipe(stage, inputs, settings, weights))


def recipe_key(recipe: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that stand for a recipe."""
    return hashlib.sha256(canonical_json(recipe)).hexdigest()[:16]


def stage_recipe(
    stage: str,
    inputs: Mapping[str, str],
    settings: BaseModel | Mapping[str, Any],
    weights: Mapping[str, str],
) -> dict[str, Any]:
    """Everything that decides what a stage computes, and nothing else: what its key is made of.

    Args:
        stage: name of the stage, such as ``"track"``.
        inputs: digests of what it reads: of files (:func:`file_digest`) or keys of earlier stages, by role.
        settings: the resolved settings that it reads. Anything that does not change the result (device,
            batch size, folders) must be left out by the caller.
        weights: digests of the weights that it uses, by role.

    Returns:
        Plain values: ``stage``, ``inputs``, ``settings``, ``weights``, ``numerics``.

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
        "numerics": NUMERICS_VERSION.get(stage, 1),
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
    if old["numerics"] != new["numerics"]:
        said.append(f"its code changed (version {old['numerics']} -> {new['numerics']})")
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


def canonical_json(value: Any) -> bytes:
    """JSON with one spelling for a value: keys sorted, no spaces, ASCII.

    Raises:
        InputError: not plain data, or a number that is not finite.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"only plain, finite data can be part of a key or of metadata: {error}") from error
    return text.encode("ascii")


def file_digest(path_or_url: str | os.PathLike[str], **storage_options: Any) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, read in pieces from a path or any fsspec URL.

    Raises:
        InputError: there is no such file.
    """
    digest = hashlib.sha256()
    try:
        with fsspec.open(os.fspath(path_or_url), "rb", **storage_options) as file:
            while piece := file.read(1 << 22):
                digest.update(piece)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{path_or_url} is not a file; check the path") from error
    return digest.hexdigest()


def unit_name(text: str) -> str:
    """Turn any text (a file name, a row of a manifest) into a name of a unit.

    The readable part is kept; a short digest of the whole text keeps different texts apart.
    """
    readable = _UNSAFE.sub("-", text).strip("-.")[:80] or "unit"
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def is_name(name: str) -> bool:
    """Tell whether any store can hold a name."""
    return _NAME.fullmatch(name) is not None and not name.endswith(PARTIAL)


def checked_name(name: str, what: str) -> str:
    """Return a name that is safe in any store, or raise :class:`InputError`."""
    if not is_name(name):
        raise InputError(
            f"{name!r} cannot name a {what}: use letters, digits, '_', '-', '.', starting with a letter or "
            f"digit (portrait_core.store.unit_name makes such a name of any text)"
        )
    return name


def checked_key(key: str) -> str:
    """Return a key that is hexadecimal, or raise ``ValueError``."""
    if not re.fullmatch(r"[0-9a-f]+", key):
        raise ValueError(f"a key is hexadecimal, as stage_key gives it; got {key!r}")
    return key
