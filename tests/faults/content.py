"""What a finished store holds, decoded: two runs are equal when these are."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from safetensors.numpy import load as load_tensors

from portrait_core.errors import MissingChunk
from portrait_core.store import Store, Unit
from tasks.deliver import DELIVERED
from tasks.job import ARRAYS, CAMERAS, PER_FRAME, STAGES, TUNED, UNIT_KINDS

_MARKER = re.compile(r"(\d+)\.[0-9a-f]+")


def content(store: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Digests of all arrays, of the tuned generator's tensors, the cameras, the measures and the clips."""
    opened = Store(store, options)
    found: dict[str, str] = {}
    for stage in STAGES:
        unit = _unit(opened, stage)
        for array in ARRAYS.get(stage, ()):
            info = unit.array_info(array)
            if info is None:
                raise LookupError(f"{stage} has left no {array}")
            found[f"{stage}/{array}"] = _digest(unit.read(array, 0, info.shape[0]))
    unit = _unit(opened, "render")
    for name, tensor in load_tensors(_file(unit, TUNED)).items():
        found[f"tuning/{name}"] = _digest(tensor)
    found["pose/cameras"] = _digest(np.load(io.BytesIO(_file(unit, CAMERAS))))
    found["measure/motion"] = hashlib.sha256(json.dumps(unit.read_meta("motion")).encode()).hexdigest()
    for name in DELIVERED.values():
        found[f"encode/{name}"] = _picture_digest(_file(unit, name))
    return found


def different(
    store: str | os.PathLike[str], wanted: Mapping[str, str], options: Mapping[str, Any] | None = None
) -> list[str]:
    """What a store does not hold as it should, or that it is not finished."""
    try:
        found = content(store, options)
    except (LookupError, ValueError, OSError) as error:
        return [f"not finished ({type(error).__name__})"]
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


def _unit(store: Store, stage: str) -> Unit:
    kind = UNIT_KINDS.get(stage, "reenactment")  # type: ignore[call-overload]
    (name,) = store.units(kind)
    return store.unit(kind, name)


def _file(unit: Unit, name: str) -> bytes:
    data = unit.get_bytes(name)
    if data is None:
        raise LookupError(f"{name} is absent or corrupt")
    return data


def _digest(values: np.ndarray) -> str:
    about = f"{values.shape} {values.dtype}".encode()
    return hashlib.sha256(about + np.ascontiguousarray(values).tobytes()).hexdigest()


def _picture_digest(data: bytes) -> str:
    """Of the decoded frames; with a count, since a clip's length must not change either."""
    with av.open(io.BytesIO(data)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    return _digest(np.stack(frames))


def broken(store: Path) -> list[str]:
    """Markers in a local store whose data are absent or corrupt: there must be none at any moment."""
    opened, wrong = Store(store), []
    for stage in STAGES:
        kind = UNIT_KINDS.get(stage, "reenactment")
        for folder in store.glob(f"{kind}/*/records/commits/{stage}"):
            unit = opened.unit(kind, folder.parents[2].name)
            found = (_MARKER.fullmatch(path.name) for path in folder.iterdir())
            frames = sorted(int(match.group(1)) for match in found if match)
            wrong += [f"{stage} {frame}" for frame in frames if not _is_sound(unit, stage, frame)]
    return wrong


def _is_sound(unit: Unit, stage: str, frame: int) -> bool:
    try:
        for array in ARRAYS.get(stage, ()):  # type: ignore[call-overload]
            unit.read(array, frame, frame + 1)
    except MissingChunk:
        return False
    files = {"tuning": [TUNED], "pose": [CAMERAS], "encode": list(DELIVERED.values())}.get(stage, [])
    assert stage in PER_FRAME or frame == 0
    return all(unit.get_bytes(name) is not None for name in files)
