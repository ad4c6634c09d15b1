"""Opening of video files, which may be a stranger's: one regular file, of a known container, no other.

A video file can name other files and hosts (playlists, lists of files, references inside of MOV), and a few
bytes of it can announce gigabytes. PyAV and ffmpeg therefore get an open file instead of a path, may open
nothing by themselves, take only the containers of :data:`CONTAINERS`, and allocate no more than the limits
of this process allow.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import av
import av.buffer

from portrait_core.errors import InputError
from portrait_core.media.dolby import refuse_own_colours
from portrait_core.media.kinds import HEAD_BYTES, advice, kind_of
from portrait_core.media.sample_counts import check_samples
from portrait_core.runtime.regular_files import open_regular
from portrait_core.settings.limits import current_limits, refuse_beyond

CONTAINERS = (
    "mov", "matroska", "avi", "mpegts", "mpeg", "flv", "ogg", "asf", "mxf", "rm", "wtv", "ivf", "dv",
    "yuv4mpegpipe", "h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu", "gif", "apng", "webp_anim",
    "png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe",
)  # fmt: skip
"""ffmpeg's names of the containers that are read: those of cameras, phones, browsers and editors, bare
streams, and pictures. ``mov`` is MP4 and 3GP too, ``matroska`` is WebM too. None of them is a list of other
files."""
MAX_STREAMS = 32
"""Number of streams of a container from which on they are ignored; each costs memory."""
FROM_FILE = "fd:"
"""ffmpeg's name of an input that was opened already; the option ``fd`` says which."""
_LEAST_BLOCK = 1 << 26


def file_options(file: BinaryIO) -> dict[str, object]:
    """Return ffmpeg's options of the input :data:`FROM_FILE`, which must be passed to the process.

    Args:
        file: an open file, for one process alone, because its position is shared.
    """
    return {
        "fd": file.fileno(),
        "protocol_whitelist": "fd",
        "format_whitelist": ",".join(CONTAINERS),
        "max_streams": MAX_STREAMS,
        "max_pixels": current_limits().video_pixels,
    }


def open_for_ffmpeg(path: Path) -> BinaryIO:
    """Open a video file for a process of ffmpeg, which takes it by :func:`file_options`.

    Raises:
        InputError: it is gone, or no longer a regular file.
    """
    try:
        return open_regular(path)
    except OSError as error:
        raise InputError(f"{path} can no longer be read ({error.strerror or error}); put it back") from error


@contextmanager
def open_container(path: Path) -> Iterator[Any]:
    """Open a video file with PyAV.

    Whatever goes wrong inside of the ``with`` block is said of the file.

    Raises:
        InputError: it is no regular file, too large, of no container of :data:`CONTAINERS`, or damaged.
    """
    _bound_allocations()
    head = b""
    try:
        with open_regular(path) as file:
            refuse_beyond("video_bytes", os.fstat(file.fileno()).st_size, str(path))
            head = file.read(HEAD_BYTES)
            check_samples(file, str(path))
            refuse_own_colours(file, str(path))
            file.seek(0)
            with av.open(_Nameless(file), options=_options(), io_open=_refuse_other) as container:
                for stream in container.streams:
                    if stream.codec_context is not None:
                        stream.codec_context.options = {"max_pixels": str(current_limits().video_pixels)}
                yield container
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"{path} cannot be read (permission denied); change its permissions") from error
    except MemoryError as error:
        raise InputError(
            f"{path} needs more memory than there is, or than limits.video_pixels allows; scale it down, or "
            f"copy it again from its source"
        ) from error
    except Exception as error:  # a hostile file may raise anything, and is that file's problem alone
        kind, reason = kind_of(head), getattr(error, "strerror", None) or error
        if kind and kind.family != "video":
            raise InputError(
                f"{path} is not a readable video (it is {kind}); {advice(kind, 'video', str(path))}"
            ) from error
        what = f"it begins as {kind} and is cut short or damaged: " if kind else ""
        raise InputError(
            f"{path} is not a readable video ({what}{reason}); if it plays "
            f"elsewhere, convert it with `ffmpeg -i IN -c:v libx264 OUT.mp4`, else copy it again from its "
            f"source"
        ) from error


def _options() -> dict[str, str]:
    return {
        "protocol_whitelist": "",
        "format_whitelist": ",".join(CONTAINERS),
        "max_streams": str(MAX_STREAMS),
        "max_pixels": str(current_limits().video_pixels),
    }


class _Nameless:
    """A file whose name ffmpeg does not see: it would read ``%03d`` in it as the numbers of other files."""

    name = ""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _refuse_other(url: str, _flags: int, _options: dict[str, str]) -> NoReturn:
    raise PermissionError(f"it refers to another file, {url!r}, which is not opened")


def _bound_allocations() -> None:
    """Limit the size of a block that ffmpeg's libraries allocate in this process.

    A container announces the number of its samples in four bytes, and takes memory for an index of them.
    """
    most = max(_LEAST_BLOCK, 4 * current_limits().video_pixels)
    _libraries.av_max_alloc(ctypes.c_size_t(most))


# The handle of an extension module finds the functions of the libraries that it is linked to.
_libraries = ctypes.CDLL(av.buffer.__file__)
