"""What the stages share: their units in the store, loaded models, how a track is kept."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import MissingChunk
from portrait_core.media import read_image
from portrait_core.memory import keep_freed_memory
from portrait_core.models.cache import cached
from portrait_core.models.needs import LANDMARK_MODELS, weight_file
from portrait_core.resources import data_file
from portrait_core.store import Store, gapped_key
from portrait_core.store.failures import SETS_ASIDE
from tasks.job import ENDS, FILES, KEPT_ONCE, PER_FRAME, TRACK_ARRAYS, Job, Stage
from tasks.ranges import FrameRange, missing_runs
from tasks.threads import cpu_threads

if TYPE_CHECKING:
    import torch

    from portrait_core.faces.head import MorphableHead
    from portrait_core.store import Failure, Unit
    from portrait_core.tracking.fit import FaceTrack
    from portrait_core.tracking.landmarker import FaceLandmarker

DROPPED = "dropped"
"""Metadata of a unit: arrays that were dropped because nobody has to read them, with the key they had."""
PARDONS = "pardons"
"""Metadata of a unit: when failures of a stage and class (``render.poison``) were last taken up again."""
READ_TOGETHER = 8
"""Frames whose rows :class:`FrameRows` reads at once."""
_log = logging.getLogger(__name__)


def unit_of(job: Job, stage: Stage) -> Unit:
    """The unit that holds a stage's output."""
    return Store(job.store).unit(*job.unit_of(stage))


def key_of(job: Job, stage: Stage) -> str:
    """Key under which a stage commits. That of the clip names the frames that show a neighbour: when one of
    them is made later, the clip is encoded again."""
    key = job.stage_keys[stage]
    if stage not in ("encode", "measure"):
        return key
    return gapped_key(key, np.flatnonzero(~done(job, "render")))


def done(job: Job, stage: Stage) -> NDArray[np.bool_]:
    """Which frames of a stage are finished under the job's key, with their data, unless that was dropped
    (:mod:`tasks.retention`) ``[total]``."""
    unit, key = unit_of(job, stage), key_of(job, stage)
    gone = unit.read_meta(DROPPED) or {}
    kept = [name for name in job.arrays(stage) if gone.get(name) != key]
    return unit.done(stage, key, job.total(stage), kept)


def finished(job: Job) -> bool:
    """Whether what the job makes is there (a clip: encoded and measured): nothing before it has to be read
    again."""
    return all(bool(done(job, stage).all()) for stage in ENDS[job.goal])


def aside(job: Job, stage: Stage) -> NDArray[np.bool_]:
    """Frames that were set aside under the job's key: they would only fail again ``[total]``.

    ``portrait retry`` takes them up again: rows from before that no longer count.
    """
    found = np.zeros(job.total(stage), np.bool_)
    if stage not in PER_FRAME:
        return found
    for frame, _ in _standing_failures(job, stage):
        if frame is not None and frame < len(found):
            found[frame] = True
    return found & ~done(job, stage) if found.any() else found


def set_aside(job: Job) -> str | None:
    """Why the clip as a whole would only fail again: what was written when a stage of it stopped for good;
    None when it is worth running. ``portrait retry`` takes it up."""
    if job.edited is not None and (why := set_aside(job.edited)):
        return f"the portrait's edit: {why}"
    for stage in job.stages:
        whole = [message for frame, message in _standing_failures(job, stage) if frame is None]
        if whole and not done(job, stage).all():
            return f"{stage}: {whole[-1]}"
    return None


def _standing_failures(job: Job, stage: Stage) -> list[tuple[int | None, str]]:
    """Frames (None: the whole stage) and messages of failures under the job's key that would only come again,
    and were not pardoned."""
    unit = unit_of(job, stage)
    if not unit.has_failures():
        return []
    import pandas as pd  # here: it is slow to import, and most clips have no failures

    rows = unit.failures()
    rows = rows[(rows["stage"] == stage) & (rows["key"] == job.stage_keys[stage])]
    rows = rows[rows["cls"].isin(SETS_ASIDE)]
    pardoned = unit.read_meta(PARDONS) or {}
    return [
        (None if frame is pd.NA else int(frame), str(message))
        for frame, message, cls, time in zip(
            rows["frame"], rows["message"], rows["cls"], rows["time_utc"], strict=True
        )
        if time.isoformat() > pardoned.get(f"{stage}.{cls}", "")
    ]


def available(job: Job, stage: Stage) -> NDArray[np.bool_]:
    """Frames that a stage can do, because what it reads of them is there ``[total]``."""
    before = job.frame_input(stage)
    return done(job, before) if before else np.ones(job.total(stage), np.bool_)


def unfinished(job: Job, stage: Stage) -> NDArray[np.bool_]:
    """Frames that a stage has still to do: not finished, not set aside, within its reach ``[total]``."""
    return ~done(job, stage) & ~aside(job, stage) & available(job, stage)


def record_failures(job: Job, stage: Stage, rows: Sequence[Failure]) -> None:
    """Write rows to the failure table of a stage's unit. A full store does not hide the failure."""
    try:
        unit_of(job, stage).record_failures(rows)
    except OSError as error:
        _log.warning("failures of %s could not be recorded (%s): %s", stage, error, [r.message for r in rows])


def distrust(job: Job, missing: MissingChunk) -> bool:
    """Take back the commits of frames whose data turned out to be absent or corrupt.

    Returns:
        Whether a stage was found that will make them again.
    """
    if job.edited is not None and distrust(job.edited, missing):
        return True
    kind, _, rest = missing.array.partition("/")
    array = rest.rpartition("/")[2]
    for stage in job.stages:
        once = (*KEPT_ONCE.get(stage, ()), *FILES.get(stage, ()))
        written = (*job.arrays(stage), *once, *job.kept(stage))
        if job.unit_of(stage)[0] == kind and array in written:
            unit = unit_of(job, stage)
            unit.uncommit(stage, range(job.total(stage)) if array in once else missing.frames)
            gone = unit.read_meta(DROPPED) or {}
            if not gone.keys().isdisjoint(written):  # dropped, and wanted after all
                unit.write_meta(DROPPED, {name: key for name, key in gone.items() if name not in written})
            return True
    return False


def todo(job: Job, stage: Stage, start: int, stop: int) -> list[FrameRange]:
    """Runs of frames of ``[start, stop)`` that a stage has still to do."""
    return missing_runs(~unfinished(job, stage), FrameRange(start, stop))


def batches(runs: Sequence[FrameRange], size: int) -> Iterator[FrameRange]:
    """Cut runs into pieces of at most ``size`` frames."""
    for a, b in runs:
        for begin in range(a, b, size):
            yield FrameRange(begin, min(begin + size, b))


def look_key(job: Job) -> str:
    """Key of a clip's templates, or of an edit's inversion, which has none: what is loaded for one of them is
    good for all tasks of the same key."""
    return job.stage_keys.get("template") or job.stage_keys["inversion"]


def device_of(job: Job) -> str:
    """``cuda`` or ``cpu``, as the settings and the machine say."""
    if job.settings.device != "auto":
        return job.settings.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def use_threads(job: Job, alone: bool) -> int:
    """Fix PyTorch's threads in this thread: a stage of one task (``alone``) takes all workers' share. The
    process keeps the memory that it frees.

    Returns:
        The number of threads.
    """
    import torch

    settings = job.settings
    threads = cpu_threads(settings) if alone else settings.runner.threads_per_worker
    torch.set_num_threads(threads)
    keep_freed_memory()
    return threads


def landmarker(job: Job, threads: int) -> FaceLandmarker:
    """The process's landmark models."""
    from portrait_core.tracking.landmarker import FaceLandmarker

    folder = data_file(job.settings.tracking.models)
    digest = "".join(job.weights[name.removesuffix(".onnx")] for name in LANDMARK_MODELS)
    least = job.settings.tracking.min_face_score

    def build() -> FaceLandmarker:
        return FaceLandmarker.from_models(folder, threads, least)

    return cached("landmarker", f"{digest}-{least}", build, threads)


def head(job: Job, device: torch.device | str = "cpu") -> MorphableHead:
    """The process's embedded head on a device: the tracker fits and draws it on the CPU."""
    from portrait_core.faces.head import MorphableHead

    path = weight_file(job.settings, "head")
    return cached("head", job.weights["head"], lambda: MorphableHead.load(path, device), str(device))


def read_portrait(job: Job) -> NDArray[np.uint8]:
    """The portrait ``[H,W,3]`` uint8, scaled down if it is larger than the settings allow; edited, where the
    job says so."""
    if job.edited is not None:
        edited: NDArray[np.uint8] = unit_of(job.edited, "edit").read("edited", 0, 1)[0]
        return edited
    image = read_image(job.portrait_path)
    scale = job.settings.media.portrait_max_side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def write_once(unit: Unit, key: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Keep whole arrays, whose first axis begins at frame 0; nothing is committed yet."""
    for name, values in arrays.items():
        unit.ensure_array(name, values.shape, values.dtype, key)
        unit.write(name, 0, values)


def write_frames(job: Job, stage: Stage, arrays: Mapping[str, NDArray[np.generic]]) -> int:
    """Keep and commit those frames of whole-clip arrays ``[T, ...]`` that are not finished; how many."""
    unit, key = unit_of(job, stage), job.stage_keys[stage]
    for name, values in arrays.items():
        unit.ensure_array(name, values.shape, values.dtype, key)
    runs = todo(job, stage, 0, job.frames)
    for run in runs:
        with unit.overwriting(stage, range(*run), key):
            for name, values in arrays.items():
                unit.write(name, run.start, values[run.start : run.stop])
    return sum(map(len, runs))


class FrameRows:
    """Rows of several arrays of a unit, frame after frame, read several frames at once within ``runs``: a
    store that is far away answers as quickly for eight frames as for one."""

    def __init__(self, unit: Unit, names: Sequence[str], runs: Sequence[FrameRange]) -> None:
        self._unit, self._names = unit, names
        self._pieces = list(batches(runs, READ_TOGETHER))
        self._read: tuple[FrameRange, Mapping[str, NDArray[Any]]] = FrameRange(0, 0), {}

    def at(self, frame: int) -> dict[str, NDArray[Any]]:
        """A frame's rows ``[1, ...]`` by name.

        Raises:
            MissingChunk: rows of this frame or of one that is read with it are not there.
        """
        piece = next(piece for piece in self._pieces if piece.start <= frame < piece.stop)
        if self._read[0] != piece:
            self._read = piece, self._unit.read_together(self._names, *piece)
        place = frame - piece.start
        return {name: rows[place : place + 1] for name, rows in self._read[1].items()}


class FrameArrays:
    """Arrays with a row a frame, as one task of a stage writes them.

    They are made, if they are not there, when the first frame's sizes are known. All rows of a frame are
    written at once, and with them those of the frames that were computed meanwhile: a store takes about as
    long to answer for many objects as for one.
    """

    def __init__(self, job: Job, stage: Stage) -> None:
        self._unit, self._stage = unit_of(job, stage), stage
        self._key, self._total = job.stage_keys[stage], job.frames
        self._made: set[str] = set()
        self._waiting: deque[tuple[int, Mapping[str, NDArray[np.generic]]]] = deque()

    def later(self, start: int, arrays: Mapping[str, NDArray[np.generic]]) -> Callable[[], None]:
        """What writes and commits these rows (see :meth:`keep`) and later ones; called by one thread."""
        self._waiting.append((start, arrays))
        return partial(self._keep_waiting, start)

    def _keep_waiting(self, first: int) -> None:
        """Rows that come while it writes are left, and nothing is done where ``first`` was written with
        others: else the calls for rows that are written would each write the next frame alone."""
        if all(start != first for start, _ in self._waiting):
            return
        waiting = deque(self._waiting.popleft() for _ in range(len(self._waiting)))
        while waiting:
            start, arrays = waiting.popleft()
            parts, stop = [arrays], start + _rows(arrays)
            while waiting and waiting[0][0] == stop:
                parts.append(waiting.popleft()[1])
                stop += _rows(parts[-1])
            self.keep(start, {name: np.concatenate([part[name] for part in parts]) for name in arrays})

    def keep(self, start: int, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Write and commit frames from ``start`` on: rows ``[n, ...]`` by name."""
        frames = range(start, start + _rows(arrays))
        with self._unit.overwriting(self._stage, frames, self._key):
            for name, rows in arrays.items():
                if name not in self._made:
                    self._unit.ensure_array(name, (self._total, *rows.shape[1:]), rows.dtype, self._key)
                    self._made.add(name)
            self._unit.write_together(start, arrays)


def _rows(arrays: Mapping[str, NDArray[np.generic]]) -> int:
    return len(next(iter(arrays.values())))


def track_arrays(track: FaceTrack) -> dict[str, NDArray[np.generic]]:
    """A track's arrays of frames; its ``shape`` is kept once (:func:`shape_array`)."""
    return {name: np.asarray(getattr(track, name)) for name in TRACK_ARRAYS}


def shape_array(track: FaceTrack) -> dict[str, NDArray[np.generic]]:
    """A track's shape as an array of one row."""
    return {"shape": np.asarray(track.shape, np.float32)[None]}


def read_track(unit: Unit, frames: int) -> FaceTrack:
    """Read a track of so many frames."""
    from portrait_core.tracking.fit import FaceTrack

    values: dict[str, Any] = unit.read_together(TRACK_ARRAYS, 0, frames)
    return FaceTrack(shape=unit.read("shape", 0, 1)[0], **values)
