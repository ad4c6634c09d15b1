"""Frames out, as pictures: a folder of PNG files, with or without alpha."""

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
"""Name of a frame's file by its index from 0: names sort as the frames do."""
MOST_FRAMES = 1_000_000
"""Frames that six digits can number."""
_NAMED_AS_FRAME = re.compile(r"\d{6}\.png")
_COMPRESSION = 1
"""zlib's level: a photograph's PNG is a tenth larger than with level 6, and made in a third of the time."""


def frame_png(frame: NDArray[np.uint8]) -> bytes:
    """Return a frame, ``[H,W,3]`` uint8 RGB or ``[H,W,4]`` with straight alpha, as the content of a PNG file.

    The pixels come back to the bit, at any size, the colours of transparent ones too; they are tagged as
    sRGB. The same frame gives the same bytes.

    Raises:
        InputError: another shape or type.
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
    """Write frames one by one as ``000000.png``, ``000001.png``, ... to a folder that appears, complete, when
    the writer is closed.

    Frames are ``[H,W,3]`` RGB or ``[H,W,4]`` with straight alpha, all of one shape. If the ``with`` block
    ends by an exception nothing is left behind, and an older folder stays::

        with FrameWriter("out/frames") as writer:
            for frame in frames:
                writer.write(frame)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Start a folder beside ``path``.

        Args:
            path: the folder to write; its parent must exist. An older folder of frames is replaced at the
                end.

        Raises:
            InputError: the parent does not exist, or ``path`` is there and is not a folder of frames alone.
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
        """Add one frame, ``[H,W,3]`` uint8 RGB or ``[H,W,4]`` with straight alpha.

        Raises:
            InputError: another shape than the first frame's, another type, or a frame too many.
        """
        if not self._open:
            raise InputError(f"{self.path} is closed; open a new writer")
        if self.frames_written == MOST_FRAMES:
            raise InputError(f"{self.path} holds {MOST_FRAMES} frames, the most; begin another folder")
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
