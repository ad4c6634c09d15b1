"""Writing of frames as a folder of PNG files, with or without alpha."""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from portrait_core.errors import InputError

FRAME_NAME = "{:06d}.png"
"""Name of a frame's file by its index from 0; names sort as the frames do."""
MAX_FRAMES = 1_000_000
"""Number of frames that six digits can number."""
_NAMED_AS_FRAME = re.compile(r"\d{6}\.png")
_COMPRESSION = 1
"""zlib's level: a photograph's PNG is a tenth larger than with level 6, and takes a third of the time."""


def frame_png(frame: NDArray[np.uint8]) -> bytes:
    """Encode a frame as a PNG file.

    The pixels are restored exactly, at any size, including the colours of transparent ones; they are tagged
    as sRGB. The same frame gives the same bytes.

    Args:
        frame: ``[H,W,3]`` uint8 RGB, or ``[H,W,4]`` with straight alpha.

    Returns:
        Content of the file.

    Raises:
        InputError: the frame has another shape or type.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] not in (3, 4) or 0 in frame.shape:
        raise InputError(f"expected a frame [H,W,3] or [H,W,4] uint8; got {list(frame.shape)} {frame.dtype}")
    tags = PngImagePlugin.PngInfo()
    tags.add(b"sRGB", b"\x00")
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(frame))
    image.save(buffer, "PNG", compress_level=_COMPRESSION, pnginfo=tags)
    return buffer.getvalue()


class FrameWriter:
    """Writes frames one by one to a folder that appears, complete, when the writer is closed.

    The files are ``000000.png``, ``000001.png``, ... Frames are ``[H,W,3]`` uint8 RGB or ``[H,W,4]`` with
    straight alpha, all of one shape. If the ``with`` block ends with an exception, nothing is left behind,
    and an older folder stays::

        with FrameWriter("out/frames") as writer:
            for frame in frames:
                writer.write(frame)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Start a temporary folder beside ``path``.

        Args:
            path: the folder to write; its parent must exist. An older folder of frames is replaced at the
                end.

        Raises:
            InputError: the parent does not exist, or ``path`` exists and is not a folder of frames alone.
        """
        self.path = Path(path).expanduser().absolute()
        if not self.path.parent.is_dir():
            raise InputError(f"the folder {self.path.parent} does not exist; make it first")
        self._check_replaceable()
        self.frames_written = 0
        self._shape: tuple[int, ...] | None = None
        self._partial = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.partial")
        self._partial.mkdir()
        self._open = True

    def _check_replaceable(self) -> None:
        if not self.path.exists():
            return
        foreign = self.path.is_dir() and [
            p.name for p in self.path.iterdir() if not _NAMED_AS_FRAME.fullmatch(p.name)
        ]
        if not self.path.is_dir() or foreign:
            held = f" (it holds {min(foreign)})" if foreign else ""
            raise InputError(f"{self.path} is not a folder of frames{held}; name a new folder for the frames")

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add one frame.

        Args:
            frame: ``[H,W,3]`` uint8 RGB, or ``[H,W,4]`` with straight alpha.

        Raises:
            InputError: the shape differs from the first frame's, the type is wrong, or there are too many
                frames.
        """
        if not self._open:
            raise InputError(f"{self.path} is closed; open a new writer")
        if self.frames_written == MAX_FRAMES:
            raise InputError(
                f"{self.path} holds {MAX_FRAMES} frames, the largest number; begin another folder"
            )
        content = frame_png(frame)
        if self._shape not in (None, frame.shape):
            raise InputError(f"expected a frame {self._shape} as those before it; got {frame.shape}")
        self._shape = frame.shape
        (self._partial / FRAME_NAME.format(self.frames_written)).write_bytes(content)
        self.frames_written += 1

    def close(self) -> None:
        """Give the folder its name.

        Raises:
            InputError: no frame was written, or ``path`` has become something other than a folder of frames.
        """
        if not self._open:
            return
        try:
            if not self.frames_written:
                raise InputError(f"no frame was written to {self.path}; a sequence needs at least one")
            self._check_replaceable()
        except InputError:
            self.discard()
            raise
        older = self._partial.with_suffix(".older")
        if self.path.exists():
            self.path.rename(older)
        self._partial.rename(self.path)
        shutil.rmtree(older, ignore_errors=True)
        self._open = False

    def discard(self) -> None:
        """Stop, and leave nothing behind."""
        if self._open:
            self._open = False
            shutil.rmtree(self._partial, ignore_errors=True)

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
