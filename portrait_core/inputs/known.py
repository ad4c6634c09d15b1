"""What a run has to know of a portrait or a video, kept from one run to the next.

A file's digest, and what opening it tells, cost reading all of it. They hold as long as its size and its
version (time of modification and inode here, entity tag or time elsewhere) are the same, which one look
tells. The caller keeps :meth:`InputFacts.as_dict`, for example in the store; what comes back from there is
checked as anything from a stranger is.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from portrait_core.errors import InputError
from portrait_core.inputs.copies import CACHE_BYTES, local_copy
from portrait_core.inputs.sources import FileStatus, inspect_file
from portrait_core.media import probe, read_image
from portrait_core.media.binary import existing_file
from portrait_core.store.places import checked_place, local_path, redact_place

Kind = Literal["image", "video"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Pixels = Annotated[int, Field(ge=1)]

FINE_S, COARSE_S = 0.05, 2.0
"""Within so many seconds a file can change twice at one time of modification: on file systems that keep
fractions of a second, and on those that do not."""


class InputFacts(BaseModel):
    """What is known of one portrait or video."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    layout: Literal[1] = 1
    """Number of these facts' own layout and meaning: others are not believed."""
    kind: Kind
    """What it was opened as."""
    url: str
    """Its place, as :func:`~portrait_core.store.places.redact_place` gives it: for people to read."""
    url_sha256: Digest
    """SHA-256 of its place with all that ``url`` hides."""
    size: Annotated[int, Field(ge=0)] | None
    """Bytes; None where its server does not say."""
    version: str
    """Version of the file that was read; empty facts are never believed."""
    sha256: Digest
    """Digest of its content, in hexadecimal."""
    width: Pixels
    """Pixels, as it is shown (rotation and EXIF orientation applied)."""
    height: Pixels
    """Pixels, as it is shown."""
    frame_count: Annotated[int, Field(ge=1)] = 1
    """Frames of a video at its frame rate; 1 for an image."""
    frame_rate: Annotated[str, Field(pattern=r"^([1-9]\d{0,11}(/[1-9]\d{0,11})?)?$")] = ""
    """Frames per second of a video, exact: ``25`` or ``30000/1001``; empty for an image."""
    has_audio: bool = False
    """Whether a video has a sound track."""

    @model_validator(mode="after")
    def _a_video_has_a_rate(self) -> InputFacts:
        if (self.kind == "video") != bool(self.frame_rate):
            raise ValueError("a video has a frame rate, and an image has none")
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self.model_dump(mode="json")

    def holds_for(self, place: str, kind: Kind, now: FileStatus) -> bool:
        """Tell whether these facts are of a place as it is ``now``, which
        :func:`~portrait_core.inputs.sources.inspect_file` says.
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
    """What is known of a portrait or a video: by one look where ``known`` still holds, else by reading it.

    Args:
        place: path or URL.
        kind: opens it as an image or as a video.
        known: what :meth:`InputFacts.as_dict` gave before; anything else counts as nothing.
        limit_bytes: of copies of what lies elsewhere (:func:`~portrait_core.inputs.copies.local_copy`).

    Raises:
        InputError: there is no such file, or it cannot be opened as that kind.
        OSError: the connection failed for two minutes, or the file is being written.
    """
    checked_place(place)
    kept = _from_dict(known)
    now = inspect_file(place)
    if kept is not None and kept.holds_for(place, kind, now):
        return kept
    for _ in range(3):
        begin_s = time.time()
        made = _made(place, kind, now, limit_bytes, begin_s)
        before, now = now, inspect_file(place)
        if now == before:
            return made
    raise OSError(errno.EAGAIN, f"{redact_place(place)} changes while it is read; wait until it is written")


def verified_copy(url: str, sha256: str, limit_bytes: int = CACHE_BYTES) -> Path:
    """The file on this machine, once its content is known to be that with a digest.

    A process reads the content once while the file stays the same.

    Args:
        url: path or URL.
        sha256: of the content that a job was made from, in hexadecimal.
        limit_bytes: of copies of what lies elsewhere (:func:`~portrait_core.inputs.copies.local_copy`).

    Raises:
        InputError: there is no such file, or its content is another. The message does not say which: it may
            be kept in a stranger's store.
        OSError: the connection failed for two minutes.
    """
    path = local_copy(url, limit_bytes=limit_bytes)
    if local_digest(path, redact_place(url)) != sha256:
        raise InputError(
            f"{redact_place(url)} is not the file that this job was made from: its content is another. Put that "
            "file back, or give the command again with the file as it is now, which makes a job of its own"
        )
    return path


def _from_dict(known: Any) -> InputFacts | None:
    """Facts that were kept; None for anything that no facts look like."""
    if not isinstance(known, Mapping):
        return None
    try:
        return InputFacts.model_validate(dict(known))
    except (ValidationError, TypeError):
        return None


def _made(place: str, kind: Kind, now: FileStatus, limit_bytes: int, begin_s: float) -> InputFacts:
    """Facts of a place, by reading all of it."""
    path = local_copy(place, limit_bytes=limit_bytes)
    name = redact_place(place)
    try:
        seen = _video(path) if kind == "video" else _image(path)
    except InputError as error:
        raise InputError(str(error).replace(str(path), name)) from error
    settled = local_path(place) is None or _is_settled(path.stat(), begin_s)
    return InputFacts(
        kind=kind,
        url=name.encode(errors="backslashreplace").decode(),
        url_sha256=_identity(place),
        size=now.size,
        version=now.version if settled else "",
        sha256=local_digest(path, name),
        **seen,
    )


def _image(path: Path) -> dict[str, Any]:
    height, width = read_image(path).shape[:2]
    return {"width": width, "height": height}


def _video(path: Path) -> dict[str, Any]:
    info = probe(path)
    return {
        "width": info.width,
        "height": info.height,
        "frame_count": info.frame_count,
        "frame_rate": str(info.frame_rate),
        "has_audio": info.has_audio,
    }


def _identity(place: str) -> str:
    """SHA-256 of a place, however a path to it is spelt."""
    text = str(local_path(place) or place)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _is_settled(status: os.stat_result, now_s: float) -> bool:
    """Whether a file that changes after ``now_s`` will have another time of modification than it has."""
    step_s = FINE_S if status.st_mtime_ns % 10**9 else COARSE_S
    return status.st_mtime < now_s - step_s


# Digests of files here, taken once


_hashing = threading.Lock()


def local_digest(path: Path, name: str = "") -> str:
    """SHA-256 of a file of this machine, in hexadecimal, taken once in this process while the file stays the
    same: clips of a dataset share weights and videos.

    Args:
        path: the file.
        name: of the file in messages; empty takes its path.

    Raises:
        InputError: there is no such regular file.
    """
    found = existing_file(path, "input")
    status = found.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name or path} is no regular file; give the path of a file")
    # One at a time: tasks in threads that begin together ask for the same file.
    with _hashing:
        if not _is_settled(status, time.time()):
            return _read(found)
        return _digest_of(found, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=4096)
def _digest_of(path: Path, *_unchanged: int) -> str:
    return _read(path)


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
