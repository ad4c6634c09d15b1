"""Frames of a video, streamed from an ffmpeg process: memory does not grow with the clip.

ffmpeg delivers every decoded picture with its time stamp, and the timeline says which output frames show it.
A picture that does not decode therefore shifts nothing: its frames hold the picture before it, and are
reported once all requested frames were delivered.
"""

from __future__ import annotations

import os
import queue
import re
import subprocess
import threading
from collections.abc import Generator, Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, BinaryIO

import av
import ffmpeg
import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import DecodeError, InputError
from portrait_core.media.alpha import over_white
from portrait_core.media.binary import ffmpeg_binary
from portrait_core.media.containers import FROM_FILE, file_options, open_container, open_for_ffmpeg
from portrait_core.media.pictures import PictureReader
from portrait_core.media.probe import Timeline, scan

DECODER_THREADS = 2
"""Number of threads of decoders."""
SCALER = "bicubic+accurate_rnd+full_chroma_int+bitexact"
"""Flags of ffmpeg's scaler, which make conversions exact and reproducible."""
_STAMP = re.compile(r"showinfo.*\] n: *\d+ pts: *(-?\d+|NOPTS)")
_TIME_BASE = re.compile(r"showinfo.*config in time_base: (\d+/\d+)")
_TROUBLE = re.compile(r"\[(error|fatal)\]|corrupt decoded frame")


def read_frames(
    path: str | os.PathLike[str], start: int = 0, stop: int | None = None
) -> Generator[NDArray[np.uint8], None, None]:
    """Return the frames ``[start, stop)`` of a video at its constant rate.

    Any range has the same pixels as reading from the beginning. Rotation and pixel aspect are applied, alpha
    is composited over white, and deeper colours are reduced to 8 bits. Colours are those of BT.709: converted
    by the matrix, the range and the primaries that the file names
    (:func:`~portrait_core.media.colors.assumed_matrix` if it names no matrix), and tone mapped from a high
    dynamic range.

    Args:
        path: a video, a still image (one frame), or a folder or a pattern of pictures
            (:mod:`~portrait_core.media.pictures`).
        start: first frame.
        stop: one past the last frame; default: the whole video.

    Returns:
        Iterator over ``[H,W,3]`` uint8 RGB arrays, ``stop - start`` of them unless no picture decodes.
        Closing it ends ffmpeg.

    Raises:
        InputError: at the call: the video is not readable, or does not contain the range.
        DecodeError: from the iterator, after its last frame: some of the frames are damaged. Its ``frames``
            lists them; they were delivered as a held neighbour or as the decoder concealed them.
    """
    timeline = scan(path)
    count = timeline.info.frame_count
    stop = count if stop is None else stop
    if not 0 <= start <= stop <= count:
        raise InputError(f"{path} has frames 0 to {count - 1}; got the range [{start}, {stop})")
    return _read(timeline, start, stop)


def _read(timeline: Timeline, start: int, stop: int) -> Generator[NDArray[np.uint8], None, None]:
    if start == stop:
        return
    slots = timeline.slots
    first = int(slots[start])
    source = (
        _Source(timeline, first) if timeline.pictures is None else PictureReader(timeline.pictures, first)
    )
    slot, last = start, None
    missing: list[int] = []
    try:
        for picture, frame in source:
            last = frame if last is None else last
            while slot < stop and slots[slot] < picture:  # its picture was never delivered
                missing.append(slot)
                yield last
                slot += 1
            last = frame
            while slot < stop and slots[slot] == picture:
                yield frame
                slot += 1
            if slot == stop:
                break
        if last is None:
            raise InputError(
                f"{timeline.path}: no frame decodes from frame {start} on "
                f"({source.complaints() or 'no reason given'}); copy it again from its source"
            )
        while slot < stop:
            missing.append(slot)
            yield last
            slot += 1
    finally:
        source.close()
    if missing or source.trouble:
        corrupt = _corrupt_pictures(timeline.path) if timeline.pictures is None else ()
        concealed = np.flatnonzero(np.isin(slots[start:stop], list(corrupt))) + start
        damaged = sorted({*missing, *(int(i) for i in concealed)})
        if damaged:
            raise DecodeError(str(timeline.path), damaged, source.complaints())


class _Source:
    """Decoded pictures with their indices in the timeline, from a seek point at or before ``first``."""

    def __init__(self, timeline: Timeline, first: int) -> None:
        self._timeline = timeline
        self._first = first
        self._process: _Decoder | None = None
        self.trouble = False

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        seek = self._seek_point()
        while True:
            self._process = _Decoder(self._timeline, seek)
            missed = False
            for order, (stamp, frame) in enumerate(self._process.frames()):
                picture = self._index(order, stamp)
                if order == 0 and seek is not None and picture > self._first:
                    missed = True  # the container's index is wrong: only the beginning is certain
                    break
                if picture >= 0:
                    yield picture, frame
            if seek is None or not (missed or self._process.delivered == 0):
                return
            self._process.close()
            seek = None

    def _index(self, order: int, stamp: float | None) -> int:
        times = self._timeline.times
        if self._timeline.counted or stamp is None:
            return order
        after = int(np.searchsorted(times, stamp))
        near = [i for i in (after - 1, after) if 0 <= i < len(times)]
        return min(near, key=lambda i: abs(float(times[i]) - stamp))

    def _seek_point(self) -> float | None:
        keys, times = self._timeline.keyframes, self._timeline.times
        before = keys[keys <= times[self._first]]
        return float(before[-1]) if len(before) and before[-1] > times[0] else None

    def complaints(self) -> str:
        """Return the decoder's messages."""
        return "; ".join(self._process.complaints) if self._process else ""

    def close(self) -> None:
        """Stop the decoder, and note whether it complained."""
        if self._process:
            self._process.close()
            self.trouble = bool(self._process.complaints)


class _Decoder:
    """An ffmpeg process: raw frames on its output, their time stamps and complaints on its error stream."""

    def __init__(self, timeline: Timeline, seek: float | None) -> None:
        self._shape = (timeline.info.height, timeline.info.width, 4 if timeline.info.has_alpha else 3)
        self._stamps: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self.complaints: list[str] = []
        self.delivered = 0
        with open_for_ffmpeg(timeline.path) as file:
            self._process = subprocess.Popen(
                _command(timeline, file, seek),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[file.fileno()],
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def frames(self) -> Iterator[tuple[float | None, NDArray[np.uint8]]]:
        """Yield time stamps in seconds (None where unknown) and frames ``[H,W,3]`` uint8 RGB."""
        assert self._process.stdout is not None  # PIPE was asked for
        while True:
            frame = np.empty(self._shape, dtype=np.uint8)
            if not _fill(self._process.stdout, frame):
                return
            self.delivered += 1
            # The stamp is logged before the frame is written, so it arrives.
            yield self._stamps.get(timeout=60), over_white(frame)

    def _listen(self) -> None:
        assert self._process.stderr is not None  # PIPE was asked for
        time_base = Fraction(1)
        for raw in self._process.stderr:
            line = raw.decode("utf-8", "replace").rstrip()
            if match := _STAMP.search(line):
                known = match.group(1) != "NOPTS"
                self._stamps.put(float(int(match.group(1)) * time_base) if known else None)
            elif match := _TIME_BASE.search(line):
                time_base = Fraction(match.group(1))
            elif _TROUBLE.search(line):
                complaint = re.sub(r" @ 0x[0-9a-f]+", "", line)
                if complaint not in self.complaints and len(self.complaints) < 3:
                    self.complaints.append(complaint)

    def close(self) -> None:
        """Stop ffmpeg, whether or not everything was read."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


def _command(timeline: Timeline, file: BinaryIO, seek: float | None) -> list[str]:
    info = timeline.info
    options = {"threads": DECODER_THREADS, **file_options(file)}
    if timeline.decoder:
        options["c:v"] = timeline.decoder
    if seek is not None:
        # Half a millisecond late, so that rounding cannot fall before the intended key frame.
        options |= {"noaccurate_seek": None, "seek_timestamp": 1, "ss": f"{seek + 0.0005:.6f}"}
    scale = {"flags": SCALER}
    if timeline.color_matrix:
        scale["in_color_matrix"] = timeline.color_matrix
    video = ffmpeg.input(FROM_FILE, **options)[str(timeline.stream)]
    video = timeline.colors.to_rgb(video, info.has_alpha)
    video = video.filter("scale", info.width, info.height, **scale)
    video = timeline.colors.convert(video, info.has_alpha)
    video = video.filter("format", "rgba" if info.has_alpha else "rgb24").filter("showinfo", checksum=0)
    output = ffmpeg.output(video, "pipe:1", format="rawvideo", fps_mode="passthrough")
    output = output.global_args("-copyts", "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info")
    return [str(part) for part in ffmpeg.compile(output, cmd=ffmpeg_binary())]


def _fill(pipe: IO[bytes], frame: NDArray[np.uint8]) -> bool:
    view = frame.reshape(-1).data
    filled = 0
    while filled < len(view):
        read = pipe.readinto(view[filled:])  # type: ignore[attr-defined]
        if not read:
            return False
        filled += read
    return True


def _corrupt_pictures(path: Path) -> frozenset[int]:
    status = path.stat()
    return _find_corrupt(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _find_corrupt(path: Path, _size: int, _mtime_ns: int) -> frozenset[int]:
    """Return the indices of pictures that a decoder marks as corrupt.

    This is a second pass, for damaged files only: ffmpeg reports that there are such pictures but not which.
    """
    timeline = scan(path)
    corrupt: set[int] = set()
    order = 0
    with open_container(path) as container:
        for packet in container.demux(container.streams[timeline.stream]):
            try:
                pictures: list[Any] = list(packet.decode())
            except av.FFmpegError:
                continue  # its picture is never delivered, which the reader noticed itself
            for picture in pictures:
                if picture.is_corrupt:
                    timed = not timeline.counted and picture.time is not None
                    corrupt.add(int(np.abs(timeline.times - picture.time).argmin()) if timed else order)
                order += 1
    return frozenset(corrupt)
