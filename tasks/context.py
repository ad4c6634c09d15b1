"""Parts that several stages share: loaded models, rows read frame by frame, how a track is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import DecodeError
from portrait_core.inputs.known import verified_copy
from portrait_core.media import read_frames, read_image
from portrait_core.model_files.needs import LANDMARK_MODELS, weight_file
from portrait_core.pipeline import FrameRange, Job
from portrait_core.runtime.allocator import keep_freed_memory
from portrait_core.runtime.model_cache import cached
from portrait_core.runtime.package_files import data_file
from portrait_core.settings.threads import cpu_threads
from portrait_core.store import Output

if TYPE_CHECKING:
    import torch

    from portrait_core.face_model.head import MorphableHead
    from portrait_core.metrics.identity import ShippedRecogniser
    from portrait_core.photograph.matte import PersonSegmenter
    from portrait_core.tracking.fit import FaceTrack
    from portrait_core.tracking.landmarker import FaceLandmarker

READ_TOGETHER = 8
"""Frames whose rows :class:`FrameRows` reads at once."""
TRACK_ARRAYS = (
    "expression",
    "jaw",
    "rotation",
    "crop_center_px",
    "crop_side_px",
    "cameras",
    "fit_error",
    "ok",
)
"""Per-frame fields of a track; ``shape`` is kept once."""
TRACK = ("shape", *TRACK_ARRAYS)
"""Arrays of a track."""


def batches(runs: Sequence[FrameRange], size: int) -> Iterator[FrameRange]:
    """Cut runs into pieces of at most ``size`` frames."""
    for a, b in runs:
        for begin in range(a, b, size):
            yield FrameRange(begin, min(begin + size, b))


def look_key(job: Job) -> str:
    """Return the key of a clip's templates, or of an edit's inversion, which has none.

    An object that is loaded for one of them is good for all tasks of the same key.
    """
    return job.stage_keys.get("template") or job.stage_keys["inversion"]


def device_of(job: Job) -> str:
    """Return ``cuda`` or ``cpu``, as the settings and the machine say."""
    if job.settings.device != "auto":
        return job.settings.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def use_threads(job: Job, alone: bool) -> int:
    """Fix PyTorch's threads in this thread: a stage of one task (``alone``) takes all workers' share.

    The process keeps the memory that it frees.

    Returns:
        The number of threads.
    """
    import torch

    settings = job.settings
    threads = cpu_threads(settings) if alone else settings.runner.threads_per_worker
    torch.set_num_threads(threads)
    keep_freed_memory()
    return threads


def landmarker(job: Job, threads: int, refine: bool = True) -> FaceLandmarker:
    """Return the process's landmark models; without ``refine`` those of another reading of a face."""
    from portrait_core.tracking.landmarker import FaceLandmarker

    folder = data_file(job.settings.tracking.models)
    digest = "".join(job.weights[name.removesuffix(".onnx")] for name in LANDMARK_MODELS)
    least, looks = job.settings.tracking.min_face_score, job.settings.tracking.looks

    def build() -> FaceLandmarker:
        return FaceLandmarker.from_models(folder, threads, least, refine, looks)

    return cached("landmarker", f"{digest}-{least}-{looks}", build, threads, refine)


def segmenter(job: Job, threads: int) -> PersonSegmenter:
    """Return the process's network that finds the person in a photograph."""
    from portrait_core.photograph.matte import PersonSegmenter

    def build() -> PersonSegmenter:
        return PersonSegmenter.from_models(data_file(job.settings.tracking.models), threads)

    return cached("segmenter", job.weights["person_segmentation"], build, threads)


def recogniser(job: Job, purpose: str = "face_recognition") -> ShippedRecogniser:
    """Return the process's network that recognises faces, on the job's device.

    Args:
        job: whose settings and weights count.
        purpose: name of its weights in the job.
    """
    from portrait_core.metrics.identity import ShippedRecogniser

    device = device_of(job)

    def load() -> ShippedRecogniser:
        return ShippedRecogniser.load(device, weight_file(job.settings, purpose))

    return cached("recogniser", job.weights[purpose], load, device)


def head(job: Job, device: torch.device | str = "cpu") -> MorphableHead:
    """Return the process's embedded head, with directions beyond its units, on a device.

    The tracker fits and draws it on the CPU.
    """
    from portrait_core.face_model.directions import with_directions
    from portrait_core.face_model.head import MorphableHead

    purpose = "head" if "head" in job.weights else "measuring_head"
    path = weight_file(job.settings, purpose)

    def load() -> MorphableHead:
        return with_directions(MorphableHead.load(path)).to(device)

    return cached("head", job.weights[purpose], load, str(device))


def portrait_file(job: Job) -> Path:
    """Return the portrait on this machine, itself or a copy.

    Raises:
        InputError: it is another file than the job was made from.
    """
    digest = job.inputs["portrait"] if job.edited is None else job.edited.inputs["portrait"]
    return verified_copy(job.portrait, digest, job.settings.runner.input_cache_bytes, "image")


def video_file(job: Job) -> Path:
    """Return the driving video on this machine, itself or a copy.

    Raises:
        InputError: it is another file than the job was made from.
    """
    return verified_copy(job.video, job.inputs["video"], job.settings.runner.input_cache_bytes)


def input_frames(job: Job, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
    """Return the driving video's frames as the file has them, damaged ones too: those were recorded."""
    with suppress(DecodeError):
        first, stop = job.first_frame, job.frames if stop is None else stop
        yield from read_frames(video_file(job), first + start, first + stop)


def driving_frames(job: Job, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
    """Return the driving video's frames, turned so that its faces stand upright."""
    quarters = int(job.output("person").read("turn")[0])
    for frame in input_frames(job, start, stop):
        yield np.ascontiguousarray(np.rot90(frame, quarters))


def given_portrait(job: Job) -> NDArray[np.uint8]:
    """Read the portrait ``[H,W,3]`` uint8 as it is given, edited where the job says so."""
    if job.edited is not None:
        edited: NDArray[np.uint8] = job.edited.output("edit").read("edited")[0]
        return edited
    return read_image(portrait_file(job))


def read_portrait(job: Job) -> NDArray[np.uint8]:
    """Read the portrait ``[H,W,3]`` uint8 as the clip shows it: what the stage ``portrait`` kept."""
    return np.asarray(job.output("portrait").read("photograph")[0])


class FrameRows:
    """Rows of several arrays, frame after frame, read several frames at once within ``runs``.

    A store that is far away answers as quickly for eight frames as for one.

    Args:
        arrays: outputs with the name of an array in each.
        runs: frames that will be asked for.
    """

    def __init__(self, arrays: Sequence[tuple[Output, str]], runs: Sequence[FrameRange]) -> None:
        self._arrays = arrays
        self._pieces = list(batches(runs, READ_TOGETHER))
        self._read: tuple[FrameRange, Mapping[str, NDArray[Any]]] = FrameRange(0, 0), {}

    def at(self, frame: int) -> dict[str, NDArray[Any]]:
        """Return a frame's rows ``[1, ...]`` by name.

        Raises:
            MissingChunk: rows of this frame or of one that is read with it are not there.
        """
        piece = next(piece for piece in self._pieces if piece.start <= frame < piece.stop)
        if self._read[0] != piece:
            self._read = piece, {name: output.read(name, *piece) for output, name in self._arrays}
        place = frame - piece.start
        return {name: rows[place : place + 1] for name, rows in self._read[1].items()}


class FrameArrays:
    """Arrays with one row per frame, as one task of a stage writes them.

    They are made, if they are not there, when the first frame's sizes are known. All rows of a frame are
    written at once, and with them those of the frames that were computed meanwhile: a store takes about as
    long to answer for many objects as for one.
    """

    def __init__(self, job: Job, stage: str) -> None:
        self._output, self._total = job.output(stage), job.frames
        self._declared = job.declared(stage)
        self._made: set[str] = set()
        self._waiting: deque[tuple[int, Mapping[str, NDArray[np.generic]]]] = deque()

    def defer_write(self, start: int, arrays: Mapping[str, NDArray[np.generic]]) -> Callable[[], None]:
        """Return the function that writes these rows (see :meth:`keep`) and later ones, for one thread."""
        self._waiting.append((start, arrays))
        return partial(self._keep_waiting, start)

    def _keep_waiting(self, first: int) -> None:
        """Leave rows that come while others are written, and do nothing where ``first`` has been written.

        Otherwise the calls for rows that are written would each write the next frame alone.
        """
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
        """Write and commit frames from ``start`` on: rows ``[n, ...]`` by name.

        What a rival has finished and packed meanwhile stays packed.
        """
        frames = range(start, start + _rows(arrays))
        if self._packed_meanwhile(arrays) and self._output.done(self._total, self._declared)[frames].all():
            return
        for name, rows in arrays.items():
            if name not in self._made:
                self._output.ensure_array(name, (self._total, *rows.shape[1:]), rows.dtype)
                self._made.add(name)
        self._output.write_together(start, arrays)
        self._output.commit(frames)

    def _packed_meanwhile(self, names: Iterable[str]) -> bool:
        """Tell whether a clip that this task is about to begin writing was finished by another run."""
        first = next((name for name in names if name not in self._made), None)
        info = None if first is None else self._output.array_info(first)
        return info is not None and info.packed


def _rows(arrays: Mapping[str, NDArray[np.generic]]) -> int:
    return len(next(iter(arrays.values())))


def track_arrays(track: FaceTrack) -> dict[str, NDArray[np.generic]]:
    """Return a track's arrays; its ``shape`` has one row."""
    arrays = {name: np.asarray(getattr(track, name)) for name in TRACK_ARRAYS}
    return {"shape": np.asarray(track.shape, np.float32)[None], **arrays}


def read_track(output: Output) -> FaceTrack:
    """Read the track that a stage wrote."""
    from portrait_core.tracking.fit import FaceTrack

    values: dict[str, Any] = output.read_together(TRACK)
    return FaceTrack(shape=values.pop("shape")[0], **values)
