"""Facts about a portrait or a video, kept from one run to the next.

A file's digest and its properties take reading all of it. They hold as long as its size and its version (time
of modification and inode here, entity tag or time elsewhere) stay the same, which one request tells. The
caller keeps :meth:`InputFacts.as_dict`, for example in the store; what it passes back is checked like data
from a stranger.
"""

from __future__ import annotations

import errno
import hashlib
import stat
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from portrait_core.errors import InputError
from portrait_core.inputs.copies import CACHE_BYTES, local_copy
from portrait_core.inputs.sources import FileStatus, inspect_file
from portrait_core.media import probe, read_image
from portrait_core.media.binary import existing_file
from portrait_core.media.pictures import FileSequence, find_pictures
from portrait_core.runtime.regular_files import open_regular
from portrait_core.settings.limits import over_limit, refuse_beyond
from portrait_core.store.places import checked_place, local_path, redact_place

Kind = Literal["image", "video"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Pixels = Annotated[int, Field(ge=1)]

BYTES_LIMIT: Mapping[Kind, str] = {"image": "picture_bytes", "video": "video_bytes"}
"""Name of the limit (:class:`~portrait_core.settings.limits.Limits`) of a file's bytes, by its kind."""
FINE_S, COARSE_S = 0.05, 2.0
"""Seconds within which a file can change twice with the same time of modification: on file systems that keep
fractions of a second, and on those that do not."""


class InputFacts(BaseModel):
    """Facts about one portrait or video."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    layout: Literal[3] = 3
    """Version of the layout and meaning of these facts; facts of another version are ignored."""
    kind: Kind
    """Kind as which it was opened."""
    url: str
    """Redacted place, for people (:func:`~portrait_core.store.places.redact_place`)."""
    url_sha256: Digest
    """SHA-256 of the full place."""
    size: Annotated[int, Field(ge=0)] | None
    """Bytes; None where its server states none."""
    version: str
    """Version of the file that was read; facts with an empty version never hold."""
    sha256: Digest
    """Digest of its content, in hexadecimal."""
    width: Pixels
    """Width in pixels, as it is shown (rotation and EXIF orientation applied)."""
    height: Pixels
    """Height in pixels, as it is shown."""
    frame_count: Annotated[int, Field(ge=1)] = 1
    """Frames of a video at its frame rate; 1 for an image."""
    frame_rate: Annotated[str, Field(pattern=r"^([1-9]\d{0,11}(/[1-9]\d{0,11})?)?$")] = ""
    """Exact frames per second of a video: ``25`` or ``30000/1001``; empty for an image."""
    has_audio: bool = False
    """True if a video has a sound track."""
    is_vfr: bool = False
    """True if the rate of a video's own pictures varies."""
    repeated: Annotated[int, Field(ge=0)] = 0
    """Frames of a video that show the picture of the frame before them."""
    dropped: Annotated[int, Field(ge=0)] = 0
    """Pictures of a video that no frame shows."""
    rotation_deg: int = 0
    """Counter-clockwise degrees by which a video's pictures are turned, as its file asks."""

    @model_validator(mode="after")
    def _check_frame_rate(self) -> InputFacts:
        if (self.kind == "video") != bool(self.frame_rate):
            raise ValueError("a video has a frame rate, and an image has none")
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return self.model_dump(mode="json")

    def is_within_limits(self) -> bool:
        """Tell whether a file with these facts would be read; records with others are a stranger's."""
        pixels = "video_pixels" if self.kind == "video" else "picture_pixels"
        return not (
            over_limit(pixels, self.width * self.height) or over_limit("video_frames", self.frame_count)
        )

    def holds_for(self, place: str, kind: Kind, now: FileStatus) -> bool:
        """Tell whether these facts are about a place in its current state.

        Args:
            place: path or URL.
            kind: kind as which it is opened.
            now: status of the file (:func:`~portrait_core.inputs.sources.inspect_file`).
        """
        return (
            bool(self.version)
            and (self.kind, self.url_sha256) == (kind, _identity(place))
            and (self.size, self.version) == (now.size, now.version)
        )


def gather_facts(
    place: str,
    kind: Kind,
    known: Mapping[str, Any] | None = None,
    limit_bytes: int = CACHE_BYTES,
) -> InputFacts:
    """Return the facts about a portrait or a video: ``known`` if it still holds, else by reading the file.

    Args:
        place: path or URL.
        kind: kind as which to open it.
        known: earlier result of :meth:`InputFacts.as_dict`; any other value is ignored.
        limit_bytes: size of all copies of remote files (:func:`~portrait_core.inputs.copies.local_copy`).

    Raises:
        InputError: the file does not exist, is larger than its limit, or cannot be opened as that kind.
        OSError: the connection failed for two minutes, or the file is being written.
    """
    checked_place(place)
    cached = _from_dict(known)
    now = _inspect(place, kind)
    if cached is not None and cached.is_within_limits() and cached.holds_for(place, kind, now):
        return cached
    refuse_beyond(BYTES_LIMIT[kind], now.size or 0, redact_place(place))
    for _ in range(3):
        begin_s = time.time()
        facts = _read_facts(place, kind, now, limit_bytes, begin_s)
        before, now = now, _inspect(place, kind)
        if now == before:
            return facts
    raise OSError(errno.EAGAIN, f"{redact_place(place)} changes while it is read; wait until it is written")


def verified_copy(url: str, sha256: str, limit_bytes: int = CACHE_BYTES, kind: Kind = "video") -> Path:
    """Return a file's path on this machine, once its content is known to have a digest.

    A process reads the content once while the file stays the same.

    Args:
        url: path or URL.
        sha256: digest of the content from which a job was made, in hexadecimal.
        limit_bytes: size of all copies of remote files (:func:`~portrait_core.inputs.copies.local_copy`).
        kind: kind of the file, whose limit its bytes are within.

    Raises:
        InputError: the file does not exist, or its content is another. The message does not say which: it may
            be kept in a stranger's store.
        OSError: the connection failed for two minutes.
    """
    path = local_copy(url, limit_bytes=limit_bytes, limit=BYTES_LIMIT[kind])
    if local_digest(path, redact_place(url)) != sha256:
        raise InputError(
            f"{redact_place(url)} is not the file that this job was made from: its content is another. "
            "Put that file back, or give the command again with the file as it is now, which makes a job of "
            "its own"
        )
    return path


def _inspect(place: str, kind: Kind) -> FileStatus:
    """Return the status of a file, or of all files of a video that is a folder or a pattern of pictures."""
    files = _files_of(place) if kind == "video" else None
    return inspect_file(place) if files is None else FileStatus(files.size, version=files.version)


def _files_of(place: str | Path) -> FileSequence | None:
    path = local_path(place)
    pictures = find_pictures(path) if path is not None else None
    return pictures if isinstance(pictures, FileSequence) else None


def _from_dict(known: Any) -> InputFacts | None:
    """Return facts from their plain values; None for any other value."""
    if not isinstance(known, Mapping):
        return None
    try:
        return InputFacts.model_validate(dict(known))
    except (ValidationError, TypeError):
        return None


def _read_facts(place: str, kind: Kind, now: FileStatus, limit_bytes: int, begin_s: float) -> InputFacts:
    """Determine the facts about a place by reading all of the file."""
    path = local_copy(place, limit_bytes=limit_bytes, limit=BYTES_LIMIT[kind])
    name = redact_place(place)
    try:
        properties = _video_properties(path) if kind == "video" else _image_properties(path)
    except InputError as error:
        raise InputError(str(error).replace(str(path), name)) from error
    settled = local_path(place) is None or _has_settled(path, begin_s)
    return InputFacts(
        kind=kind,
        url=name.encode(errors="backslashreplace").decode(),
        url_sha256=_identity(place),
        size=now.size,
        version=now.version if settled else "",
        sha256=local_digest(path, name),
        **properties,
    )


def _image_properties(path: Path) -> dict[str, Any]:
    height, width = read_image(path).shape[:2]
    return {"width": width, "height": height}


def _video_properties(path: Path) -> dict[str, Any]:
    info = probe(path)
    return {
        "width": info.width,
        "height": info.height,
        "frame_count": info.frame_count,
        "frame_rate": str(info.frame_rate),
        "has_audio": info.has_audio,
        "is_vfr": info.is_vfr,
        "repeated": info.repeated,
        "dropped": info.dropped,
        "rotation_deg": info.rotation_deg,
    }


def _identity(place: str) -> str:
    """Return the SHA-256 of a place, independent of the spelling of a path."""
    text = str(local_path(place) or place)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _has_settled(path: Path, now_s: float) -> bool:
    """Tell whether a change of a file, or of one of a folder, after ``now_s`` will change its version."""
    files = _files_of(path)
    return _is_settled(path.stat().st_mtime_ns if files is None else files.changed_ns, now_s)


def _is_settled(changed_ns: int, now_s: float) -> bool:
    """Tell whether a change of a file after ``now_s`` will change its time of modification."""
    step_s = FINE_S if changed_ns % 10**9 else COARSE_S
    return changed_ns / 1e9 < now_s - step_s


# Digests of local files


_hashing = threading.Lock()


def local_digest(path: Path, name: str = "") -> str:
    """Return the SHA-256 of a file of this machine, in hexadecimal.

    That of a folder or a pattern of pictures covers their names and contents.

    A process computes it once while the file stays the same, because clips of a dataset share weights and
    videos.

    Args:
        path: path of the file.
        name: name of the file in messages; default: its path.

    Raises:
        InputError: there is no such regular file.
    """
    if (files := _files_of(path)) is not None:
        with _hashing:
            return _digest_of_files(files)
    file = existing_file(path, "input")
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name or path} is no regular file; give the path of a file")
    # One at a time, because tasks in threads that begin together ask for the same file.
    with _hashing:
        if not _is_settled(status.st_mtime_ns, time.time()):
            return _read(file)
        return _digest_of(file, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=64)
def _digest_of_files(files: FileSequence) -> str:
    lines = (f"{file.name}\0{_read(file)}\n".encode(errors="surrogateescape") for file in files.files)
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _digest_of(path: Path, *_unchanged: int) -> str:
    return _read(path)


def _read(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
