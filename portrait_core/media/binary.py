"""Which ffmpeg to run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from portrait_core.errors import InputError

OLDEST_MAJOR = 6
"""First major version with every option used here (``-fps_mode``, display matrices, mp4 audio edits)."""


NEEDED_ENCODERS = ("libx264", "prores_ks", "libvpx-vp9", "libopus")
"""Encoders of :data:`portrait_core.media.formats.FORMATS` that a build of ffmpeg may lack."""


@lru_cache(maxsize=1)
def ffmpeg_binary() -> str:
    """Return the ffmpeg on PATH when it is recent and has every encoder needed, else imageio-ffmpeg's."""
    system = shutil.which("ffmpeg")
    if system and _is_suitable(system):
        return system
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _is_suitable(binary: str) -> bool:
    try:
        said = subprocess.run(
            [binary, "-hide_banner", "-encoders"], capture_output=True, text=True, timeout=30
        ).stdout
        version = subprocess.run([binary, "-version"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    found = re.match(r"ffmpeg version n?(\d+)\.", version)
    recent = found is not None and int(found.group(1)) >= OLDEST_MAJOR
    return recent and all(name in said for name in NEEDED_ENCODERS)


def existing_file(path: str | os.PathLike[str], what: str) -> Path:
    """Return ``path`` as an absolute path, or raise :class:`InputError` when it is no readable file."""
    found = Path(path).expanduser().absolute()
    if found.is_dir():
        raise InputError(f"{path} is a folder; give the path of one {what}")
    if not found.exists():
        raise InputError(f"{path} does not exist; check the path of the {what}")
    if found.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy the {what} again from its source")
    return found


def as_input(path: Path) -> str:
    """Spell a path so that ffmpeg takes it for a file, whatever characters it holds."""
    return f"file:{path}"
