"""Errors that the rest of the system tells apart.

An error of an input is never retried, and an error of a store concerns every clip in it, so each has its own
class. Everything else keeps the built-in class that says how to treat it (``OSError``: transient,
``MemoryError``: resource; :mod:`portrait_core.pipeline.classification` has the rules). All of them survive
pickling, because workers send them between processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from portrait_core.text.redaction import redact_text


def _listed(frames: Sequence[int]) -> str:
    """Write up to eight frames as a list."""
    shown = ", ".join(str(frame) for frame in frames[:8])
    return f"{shown} and {len(frames) - 8} more" if len(frames) > 8 else shown


def clipped(text: str, most: int = 80) -> str:
    """Return a text for a message: the beginning of one that is longer than ``most`` characters.

    Cells of tables and values of settings may be a stranger's, and a message shows many of them.
    """
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


class InputError(ValueError):
    """An input of the user cannot be used; the message says what was received and what to do next.

    Secrets of URLs and others that are found in a message do not become part of it.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(redact_text(one) if isinstance(one, str) else one for one in arguments))


class RoleError(InputError):
    """A portrait or a video cannot be used.

    Attributes:
        role: which of them, as the command line's option and the manifest's column name it.
        text: the problem, in words that begin with the file's name.
    """

    def __init__(self, role: str, text: str) -> None:
        self.role, self.text = role, text
        super().__init__(text if text.startswith("the ") else f"the {role} {text}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.role, self.text)


class ColumnError(InputError):
    """A column of a table cannot be made with the StyleFlow at hand; the others can."""


class ModelFileError(ValueError):
    """Files of weights are missing, or are not what their names say.

    The message names each file, its source, its licence and the command that checks it, and shows no secrets.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(redact_text(one) if isinstance(one, str) else one for one in arguments))


class DecodeError(InputError):
    """Part of a video did not decode. Raised after every requested frame was delivered.

    Attributes:
        path: path of the video.
        frames: indices of the damaged output frames. They hold the picture of a neighbour, or what the
            decoder made of broken data. Every other frame is sound.
        details: message of the decoder; may be empty.
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
    """A video could not be written (full disk, missing encoder); the message carries ffmpeg's own."""


class StoreError(OSError):
    """A store could not do what was asked.

    It refuses access, its bucket does not exist, its disk fails, or it did not answer within the waiting
    time. The message says what to do. An absent object is not such an error, and neither is a full disk
    (``ENOSPC``).

    Attributes:
        url: URL of the store, without user, password or query.
        what: the problem and its remedy, in words that follow the store's name.
        errno: number of the system's error; None where it has none.
    """

    def __init__(self, url: str, what: str, number: int | None = None) -> None:
        self.url, self.what = redact_text(url), redact_text(what)
        super().__init__(f"the store {self.url}: {self.what}")
        self.errno = number

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.what, self.errno)


class MissingChunk(LookupError):  # noqa: N818 - a state of the store more than an error
    """Frames that were asked of a store are absent or fail their checksum: they count as not done.

    Attributes:
        array: name of the array, with its unit.
        frames: frames that have to be made again.
    """

    def __init__(self, array: str, frames: Iterable[int]) -> None:
        self.array = array
        self.frames: Sequence[int] = frames if isinstance(frames, range) else tuple(frames)
        super().__init__(
            f"{array}: frames {_listed(self.frames)} are absent or corrupt in the store; "
            f"run the stage that writes them again"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.array, self.frames)
