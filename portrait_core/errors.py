"""Errors that the rest of the system tells apart.

What is wrong with an input is never retried, and what is wrong with a store concerns every clip in it, so
each has its own class; everything else keeps the built-in class that says how to treat it (``OSError``:
transient, ``MemoryError``: resource; :mod:`portrait_core.pipeline.classification` has the rules). All of
them survive pickling, because workers send them between processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def _listed(frames: tuple[int, ...]) -> str:
    shown = ", ".join(str(frame) for frame in frames[:8])
    return f"{shown} and {len(frames) - 8} more" if len(frames) > 8 else shown


class InputError(ValueError):
    """What the user gave cannot be used; the message says what was got, and what to do next."""


class ModelFileError(ValueError):
    """Files of weights are missing or not what their names say. The message names each, with where it comes
    from, its licence and the command that checks it.
    """


class DecodeError(InputError):
    """Part of a video did not decode. Raised after every requested frame was delivered.

    Attributes:
        path: the video.
        frames: the output frame indices that are damaged: they hold the picture of a neighbour, or what
            the decoder made of broken data. Every other frame is sound.
    """

    def __init__(self, path: str, frames: Iterable[int], details: str = "") -> None:
        self.path = path
        self.frames = tuple(frames)
        self.details = details
        super().__init__(
            f"{path}: {len(self.frames)} frames are damaged ({_listed(self.frames)}); "
            f"every frame was delivered, the damaged ones held from a neighbour or concealed. "
            f"Record them and go on, or copy the file again from its source."
            + (f" The decoder said: {details}" if details else "")
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.frames, self.details)


class EncodeError(OSError):
    """ffmpeg could not write a video (full disk, missing encoder); the message carries what it said."""


class StoreError(OSError):
    """A store could not do what was asked: it refuses, its bucket is not there, its disk fails, or it did not
    answer for as long as one waits for it. The message says what to do.

    An object that is absent is no such error, nor is a full disk (``ENOSPC``).

    Attributes:
        url: the store's, without user, password or query.
        what: what is wrong and what to do, in words that follow the store's name.
        errno: the system's number for it, where there is one.
    """

    def __init__(self, url: str, what: str, number: int | None = None) -> None:
        self.url, self.what = without_secrets(url), without_secrets(what)
        super().__init__(f"the store {self.url}: {self.what}")
        self.errno = number

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.what, self.errno)


def without_secrets(text: str) -> str:
    """Leave user, password and query out of every URL in a text."""
    text = re.sub(r"(\w://)[^/\s]*@", r"\1", text)
    return re.sub(r"(\w://[^\s?]*)\?[^\s)\"']*", r"\1", text)


class MissingChunk(LookupError):  # noqa: N818 - a state of the store more than an error
    """Frames that were asked of a store are absent or fail their checksum: treat them as not done.

    Attributes:
        array: name of the array, with its unit.
        frames: the frames to make again.
    """

    def __init__(self, array: str, frames: Iterable[int]) -> None:
        self.array = array
        self.frames = tuple(frames)
        super().__init__(
            f"{array}: frames {_listed(self.frames)} are absent or corrupt in the store; "
            f"run the stage that writes them again"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.array, self.frames)
