"""What a finished store holds, decoded: two runs are equal when these are."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from safetensors.numpy import load as load_tensors

from portrait_core.errors import MissingChunk
from portrait_core.pipeline import Job
from portrait_core.pipeline.ledger import Ledger
from portrait_core.pipeline.state import read_jobs
from portrait_core.settings import Settings
from portrait_core.store import Output, Store
from tasks.deliver import DELIVERED
from tasks.pipelines import CLIP
from tasks.stages.measure import MOTION
from tasks.stages.pose import CAMERAS
from tasks.stages.tuning import TUNED


def content(store: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Digests of all arrays, of the tuned generator's tensors, the cameras, the measures and the clips."""
    job = _job(store, options)
    ledger, found = Ledger(job), dict[str, str]()
    for stage in CLIP.names:
        for array in job.declared(stage).arrays:
            if ledger.output(stage).array_info(array) is None:
                raise LookupError(f"{stage} has left no {array}")
            found[f"{stage}/{array}"] = _digest(ledger.output(stage).read(array))
    for name, tensor in load_tensors(_file(ledger.output("tuning"), TUNED)).items():
        found[f"tuning/{name}"] = _digest(tensor)
    found["pose/cameras"] = _digest(np.load(io.BytesIO(_file(ledger.output("pose"), CAMERAS))))
    said = ledger.output("measure").read_note(MOTION)
    if said is None:
        raise LookupError("nothing was measured")
    found["measure/motion"] = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    for stage, name in DELIVERED.values():
        if name not in job.declared(stage).files:
            continue
        found[f"{stage}/{name}"] = _picture_digest(_file(ledger.output(stage), name))
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


def _job(store: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Job:
    """The store's only job."""
    runner = Settings().runner.model_copy(update={"storage_options": dict(options or {})})
    command = Settings().model_copy(update={"runner": runner})
    (job,) = read_jobs(Store(store, options), "", command)
    return job


def _file(output: Output, name: str) -> bytes:
    data = output.get_bytes(name)
    if data is None:
        raise LookupError(f"{name} is absent or corrupt")
    return data


def _digest(values: np.ndarray) -> str:
    about = f"{values.shape} {values.dtype}".encode()
    return hashlib.sha256(about + np.ascontiguousarray(values).tobytes()).hexdigest()


def _picture_digest(data: bytes) -> str:
    """Of the decoded frames; with a count, since a clip's length must not change either."""
    with av.open(io.BytesIO(data), "r") as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    return _digest(np.stack(frames))


def broken(store: Path) -> list[str]:
    """Markers in a local store whose data are absent or corrupt: there must be none at any moment."""
    try:
        job = _job(store)
    except ValueError:  # killed before anything was asked for
        return []
    wrong = []
    for stage in CLIP.names:
        output = Ledger(job).output(stage)
        wrong += [f"{stage} {frame}" for frame in output.marked() if not _is_sound(job, output, frame)]
    return wrong


def _is_sound(job: Job, output: Output, frame: int) -> bool:
    declared = job.declared(output.stage)
    try:
        for array in declared.per_frame:
            output.read(array, frame, frame + 1)
        for array in declared.whole:
            output.read(array)
    except MissingChunk:
        return False
    assert job.stage(output.stage).per_frame or frame == 0
    files = all(output.get_bytes(name) is not None for name in declared.files)
    return files and all(output.read_note(name) is not None for name in declared.notes)
