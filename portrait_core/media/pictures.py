"""Videos whose pictures are read one by one: a folder or a pattern of files, an animated WebP."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags

from portrait_core.errors import InputError
from portrait_core.media.alpha import over_white
from portrait_core.media.image import open_picture, read_image
from portrait_core.media.turns import room_for
from portrait_core.runtime.regular_files import open_regular
from portrait_core.settings.limits import refuse_beyond
from portrait_core.text.file_names import IMAGES, VIDEOS, are_numbered

SUFFIXES = frozenset({*IMAGES, ".ppm"})
"""Endings of the names of files that are the pictures of a folder, or of a pattern with others among them."""
ASSUMED_RATE = 25
"""Frames per second of pictures that are files, where no other is asked for."""
_SURE_VIDEOS = frozenset(VIDEOS) - {".gif", ".apng", ".webp", ".ts"}
_NUMBER = re.compile(r"%(?:0(\d))?d")
_GLOB = re.compile(r"[*?\[]")
_ANIMATED = 0x02
_SHORTEST_MS, _USUAL_MS = 10, 100


class Pictures(Protocol):
    """Pictures of a video, known by their order. Equal ones are of the same content."""

    @property
    def path(self) -> Path:
        """Absolute path of the video."""

    def check(self) -> tuple[int, int]:
        """Return the width and height in pixels that all pictures have.

        Raises:
            InputError: one differs, or cannot be read.
        """

    def stamps_ms(self) -> list[int]:
        """Return the milliseconds at which each picture is shown, and at the end those of the video."""

    def read(self, first: int) -> Iterator[tuple[int, NDArray[np.uint8] | InputError]]:
        """Yield each picture ``[H,W,3]`` uint8 RGB from ``first`` on, or what is wrong with it."""


class PictureReader:
    """Pictures with their places in the timeline, as :mod:`~portrait_core.media.reader` reads them."""

    def __init__(self, pictures: Pictures, first: int) -> None:
        self._pictures, self._first = pictures, first
        self._complaints: list[str] = []
        self.trouble = False

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for place, picture in self._pictures.read(self._first):
            if isinstance(picture, InputError):
                self.trouble = True
                self._complaints = [*self._complaints, str(picture)][:3]
            else:
                yield place, picture

    def complaints(self) -> str:
        """Return what was wrong with pictures that could not be read."""
        return "; ".join(self._complaints)

    def close(self) -> None:
        """Stop reading."""


@dataclass(frozen=True)
class FileSequence:
    """Files that are the pictures of a video, at :data:`ASSUMED_RATE`."""

    path: Path
    """The folder, or the pattern of the files' paths."""
    files: tuple[Path, ...] = field(compare=False)
    """The files, by the numbers in their names."""
    version: str
    """Digest of the files' names, sizes, inodes and times of modification."""
    size: int = field(compare=False)
    """Bytes of all files."""
    changed_ns: int = field(compare=False)
    """Time of the last modification of a file."""
    left_out: int = field(default=0, compare=False)
    """Number of files of the folder, or that the pattern fits, that are hidden or no pictures."""

    @property
    def missing(self) -> int:
        """Number of files that are absent between the first and the last, as their names count them."""
        found = [re.findall(r"\d+", file.stem)[-1:] for file in self.files]
        numbers = {int(digits[0]) for digits in found if digits}
        return max(numbers) - min(numbers) + 1 - len(numbers) if len(numbers) == len(found) else 0

    def check(self) -> tuple[int, int]:
        """Return the width and height of all pictures; see :class:`Pictures`."""
        first = _shown_size(self.files[0])
        for file in self.files[1:]:
            if (size := _shown_size(file)) != first:
                both = f"{size[0]}x{size[1]} pixels and {self.files[0].name} is {first[0]}x{first[1]}"
                raise InputError(f"{file} is {both}; the pictures of a video must be of one size")
        return first

    def stamps_ms(self) -> list[int]:
        """Return the time of each picture, and at the end that of the video."""
        return [i * 1000 // ASSUMED_RATE for i in range(len(self.files) + 1)]

    def read(self, first: int) -> Iterator[tuple[int, NDArray[np.uint8] | InputError]]:
        """Read the files one by one; see :class:`Pictures`."""
        for place in range(first, len(self.files)):
            try:
                yield place, read_image(self.files[place])
            except InputError as error:
                yield place, error


@dataclass(frozen=True)
class AnimatedWebp:
    """An animated WebP, which PyAV and older versions of ffmpeg do not read."""

    path: Path
    version: tuple[int, int, int]
    """Bytes, time of modification and inode of the file."""

    def check(self) -> tuple[int, int]:
        """Return the width and height; see :class:`Pictures`."""
        with open_picture(self.path) as image:
            return image.size

    def stamps_ms(self) -> list[int]:
        """Return the time of each picture, and at the end that of the video.

        Browsers show a picture that asks for ten milliseconds and less for a hundred.
        """
        with open_regular(self.path) as file:
            lengths = list(_lengths_ms(file, self.path))
        shown = [length if length > _SHORTEST_MS else _USUAL_MS for length in lengths]
        return list(accumulate(shown, initial=0))

    def read(self, first: int) -> Iterator[tuple[int, NDArray[np.uint8] | InputError]]:
        """Decode the pictures one by one; see :class:`Pictures`."""
        place = first
        try:
            with open_picture(self.path) as image:
                for place in range(first, int(getattr(image, "n_frames", 1))):
                    with room_for(image.width * image.height):
                        image.seek(place)
                        shown = over_white(np.asarray(image.convert("RGBA")))
                    yield place, shown
        except InputError as error:
            yield place, error


def stands_for_files(place: str | os.PathLike[str]) -> bool:
    """Tell whether a path is that of a folder, or a pattern that no file has as its name.

    Args:
        place: path of this machine.
    """
    path = Path(place).expanduser().absolute()
    try:
        if path.exists():
            return path.is_dir()
        return bool(_NUMBER.search(path.name) or _GLOB.search(path.name)) and path.parent.is_dir()
    except (OSError, ValueError):  # whoever opens it says what is wrong
        return False


def find_pictures(place: str | os.PathLike[str]) -> FileSequence | AnimatedWebp | None:
    """Return the pictures of a folder, of a pattern or of an animated WebP; None for anything else.

    Args:
        place: path. A pattern is a name that no file has, with ``*``, ``?`` or ``[...]`` as in a shell, or
            with ``%d`` or ``%04d`` for a number as in ffmpeg.

    Raises:
        InputError: a folder or a pattern has no pictures, or more than ``limits.video_frames``.
    """
    path = Path(place).expanduser().absolute()
    try:
        if path.is_dir():
            return _sequence(path, path, None)
        if path.is_file():
            status = path.stat()
            version = status.st_size, status.st_mtime_ns, status.st_ino
            return AnimatedWebp(path, version) if _is_animated_webp(path) else None
        if (_NUMBER.search(path.name) or _GLOB.search(path.name)) and path.parent.is_dir():
            return _sequence(path, path.parent, _pattern(path.name))
    except InputError:
        raise
    except (OSError, ValueError):  # ValueError: a zero byte; whoever opens the file says what is wrong
        pass
    return None


def _pattern(name: str) -> re.Pattern[str]:
    """Return the expression of a pattern of files' names."""
    if not _NUMBER.search(name):
        return re.compile(fnmatch.translate(name))
    parts = re.split(r"(%(?:0\d)?d)", name)
    digits = [_NUMBER.fullmatch(part) for part in parts]
    return re.compile(
        "".join(
            rf"\d{{{found[1] or 1},}}" if found else re.escape(part)
            for part, found in zip(parts, digits, strict=True)
        )
    )


def _sequence(path: Path, folder: Path, pattern: re.Pattern[str] | None) -> FileSequence:
    fitting, others = _fitting(path, folder, pattern)
    pictures = [name for name in fitting if _is_picture(name)]
    # Files of other endings are pictures where a pattern asks for nothing else.
    names = pictures or (fitting if pattern else [])
    has_videos = not pattern and any(Path(name).suffix.lower() in _SURE_VIDEOS for name in fitting)
    if not names or (has_videos and not are_numbered(names)):
        raise InputError(_without_pictures(path, fitting, pattern is not None))
    files = tuple(folder / name for name in sorted(names, key=_natural))
    about = hashlib.sha256()
    size = changed_ns = 0
    for file in files:
        status = file.stat()
        size, changed_ns = size + status.st_size, max(changed_ns, status.st_mtime_ns)
        about.update(repr((file.name, status.st_size, status.st_mtime_ns, status.st_ino)).encode())
    left_out = others + len(fitting) - len(names)
    return FileSequence(path, files, about.hexdigest(), size, changed_ns, left_out)


def _fitting(path: Path, folder: Path, pattern: re.Pattern[str] | None) -> tuple[list[str], int]:
    """Return the names of a folder's files that a pattern fits, and the number of hidden ones."""
    names, hidden = [], 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if (pattern and not pattern.fullmatch(entry.name)) or not entry.is_file():
                continue
            if entry.name.startswith("."):
                hidden += 1
            else:
                names.append(entry.name)
                refuse_beyond("video_frames", len(names), str(path))
    return names, hidden


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _without_pictures(path: Path, names: list[str], is_pattern: bool) -> str:
    """Return the message for a folder or a pattern without pictures."""
    what = "names no file" if is_pattern else "is a folder without pictures of one video"
    if names:
        endings = Counter(Path(name).suffix or "without an ending" for name in names)
        held = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5))
        what += f" (it holds {held})"
    return (
        f"{path} {what}; give the path of one video, or of a folder or a pattern of pictures, such as "
        f"'frames/*.png' or 'frames/%04d.png'; for every video of a folder, give a pattern such as "
        f"'clips/*.mp4'"
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names by the numbers in them: 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _shown_size(file: Path) -> tuple[int, int]:
    """Return a picture's width and height as it is shown, without decoding it."""
    with open_picture(file) as image:
        if image.format == "PNG" and "exif" not in image.info:
            return image.size  # to look for it behind the pixels takes decoding them
        turned = int(image.getexif().get(ExifTags.Base.Orientation, 1)) >= 5
        return (image.height, image.width) if turned else image.size


def _is_animated_webp(path: Path) -> bool:
    with open_regular(path) as file:
        head = file.read(21)
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:] and head[20] & _ANIMATED)


def _lengths_ms(file: BinaryIO, path: Path) -> Iterator[int]:
    """Yield the milliseconds of each picture of an animated WebP, without decoding it."""
    position, pictures = 12, 0
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return
        if head[:4] == b"ANMF":
            pictures += 1
            refuse_beyond("video_frames", pictures, str(path))
            yield int.from_bytes(file.read(16)[12:15], "little")
        length = int.from_bytes(head[4:], "little")
        position += 8 + length + length % 2
