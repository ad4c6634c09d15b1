"""The ffmpeg binary."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from functools import lru_cache
from pathlib import Path

import imageio_ffmpeg

from portrait_core.errors import InputError
from portrait_core.runtime.regular_files import refuse_irregular

MIN_MAJOR_VERSION = 6
"""First major version of ffmpeg with every option used here (``-fps_mode``, inputs that are open files,
display matrices, mp4 audio edits)."""
NEEDED_ENCODERS = ("libx264", "prores_ks", "libvpx-vp9", "libopus")
"""Encoders of :data:`portrait_core.media.formats.FORMATS` that a build of ffmpeg may lack."""

NEEDED_FILTERS = ("zscale", "tonemap")
"""Filters that convert colours (:mod:`portrait_core.media.colors`), which a build of ffmpeg may lack."""


@lru_cache(maxsize=1)
def ffmpeg_binary() -> str:
    """Return the ffmpeg on PATH when it is recent and has all that is needed, else imageio-ffmpeg's."""
    system = shutil.which("ffmpeg")
    if system and _is_suitable(system):
        return system
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _is_suitable(binary: str) -> bool:
    try:
        version, encoders, filters = (
            subprocess.run(
                [binary, "-hide_banner", option], capture_output=True, text=True, timeout=30
            ).stdout
            for option in ("-version", "-encoders", "-filters")
        )
    except (OSError, subprocess.SubprocessError):
        return False
    match = re.match(r"ffmpeg version n?(\d+)\.", version)
    recent = match is not None and int(match.group(1)) >= MIN_MAJOR_VERSION
    complete = all(name in encoders for name in NEEDED_ENCODERS)
    return recent and complete and all(f" {name} " in filters for name in NEEDED_FILTERS)


def existing_file(path: str | os.PathLike[str], what: str) -> Path:
    """Return ``path`` as an absolute path.

    Args:
        path: path of a file.
        what: kind of the file, for messages.

    Raises:
        InputError: it is a folder or no regular file, does not exist, is empty, or may not be looked at.
    """
    file = Path(path).expanduser().absolute()
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a zero byte
        raise InputError(f"{path} does not exist; check the path of the {what}") from error
    except PermissionError as error:
        raise InputError(f"{path} cannot be read (permission denied); change its permissions") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path of the {what}") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a folder; give the path of one {what}")
    try:
        refuse_irregular(status.st_mode, path)
    except OSError as error:
        raise InputError(str(error)) from error
    if status.st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy the {what} again from its source")
    return file


def as_output(path: Path) -> str:
    """Return a path in the form that ffmpeg takes for a file to write, whatever characters it contains."""
    return f"file:{path}"
