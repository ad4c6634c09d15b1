"""Zip archives from strangers: every member is checked against the file before one of them is read.

zipfile believes the archive's directory. Here each member must lie in the file, apart from the others, under
a name of its own, and may not announce far more bytes than are stored for it.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

from portrait_core.settings.limits import over_limit

_DIRECTORY = 1 << 22  # most bytes of the directory; 2,000 tensors take about 200 KiB
_LOCAL = struct.Struct("<4s22xHH")  # signature, lengths of the name and of extra fields
_FREE, _RATIO = 1 << 24, 32  # bytes that a member may always decode to, and bytes per stored byte beyond
_PIECE = 1 << 20
_ENCRYPTED = 1


class _SmallReads:
    """A file from which zipfile reads small pieces only, so that no directory of millions is parsed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def seekable(self) -> bool:
        """Tell zipfile that places may be sought."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes, or all that follow."""
        data = self._file.read(min(size, _DIRECTORY + 1) if size >= 0 else _DIRECTORY + 1)
        if len(data) > _DIRECTORY:
            raise ValueError(f"the archive's directory has more than {_DIRECTORY:,} bytes")
        return data


class Archive:
    """Members of a zip archive.

    Args:
        file: the open archive.
        compressed: whether members may be compressed.

    Raises:
        ValueError: it is no such archive, or a member is not what it should be.
    """

    members: Mapping[str, zipfile.ZipInfo]
    """Members by name."""

    def __init__(self, file: BinaryIO, *, compressed: bool) -> None:
        self._file = file
        self._end = file.seek(0, os.SEEK_END)
        try:
            self._zip = zipfile.ZipFile(_SmallReads(file))
        except (ValueError, OSError):
            raise
        except Exception as error:  # errors of zipfile share no other class
            raise ValueError(f"the archive is damaged: {error!r:.200}") from error
        listed = self._zip.infolist()
        self.members = {info.filename: info for info in listed}
        if len(self.members) < len(listed):
            raise ValueError("the archive holds two members of one name")
        for info in listed:
            _check_kind(info, compressed)
        if problem := over_limit("weights_bytes", sum(info.file_size for info in listed)):
            raise ValueError(f"the archive {problem}")
        self._starts = self._check_places(listed)

    def _check_places(self, listed: list[zipfile.ZipInfo]) -> dict[str, int]:
        """Return where the members' bytes begin; refuse members that overlap or leave the file."""
        starts: dict[str, int] = {}
        free = 0
        for info in sorted(listed, key=lambda info: info.header_offset):
            if info.header_offset < free:
                raise ValueError(f"the archive's member {info.filename:.80} overlaps another one")
            self._file.seek(info.header_offset)
            header = self._file.read(_LOCAL.size)
            if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
                raise ValueError(f"the archive's member {info.filename:.80} is not where it should be")
            _, name, extra = _LOCAL.unpack(header)
            starts[info.filename] = info.header_offset + _LOCAL.size + name + extra
            free = starts[info.filename] + info.compress_size
            if free > self._end:
                raise ValueError(f"the archive's member {info.filename:.80} reaches beyond its end")
        return starts

    def read(self, name: str) -> bytes:
        """Read a member, decoded.

        Raises:
            ValueError: it does not exist or is damaged.
        """
        info = self._info(name)
        if info.compress_type == zipfile.ZIP_STORED:
            self._file.seek(self._starts[name])
            return self._file.read(info.file_size)
        try:
            with self._zip.open(info) as member:
                # no more than a piece is decoded at a time, whatever the stream holds
                data = b"".join(iter(lambda: member.read(_PIECE), b""))
        except Exception as error:  # errors of zipfile and zlib share no other class
            raise ValueError(f"the archive is damaged: {error!r:.200}") from error
        if len(data) != info.file_size:
            raise ValueError(f"the archive's member {name:.80} is cut short")
        return data

    def read_into(self, name: str, buffer: Any) -> None:
        """Read a member that is not compressed into a buffer of its size.

        Raises:
            ValueError: it does not exist, or has another size.
        """
        info, wanted = self._info(name), memoryview(buffer).nbytes
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != wanted:
            raise ValueError(f"the archive's member {name:.80} has {info.file_size} bytes, expected {wanted}")
        self._file.seek(self._starts[name])
        if self._file.readinto(buffer) != wanted:  # type: ignore[attr-defined]  # of all binary files
            raise ValueError(f"the archive's member {name:.80} is cut short")

    def _info(self, name: str) -> zipfile.ZipInfo:
        if name not in self.members:
            raise ValueError(f"the archive lacks {name:.80}")
        return self.members[name]


def _check_kind(info: zipfile.ZipInfo, compressed: bool) -> None:
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) if compressed else (zipfile.ZIP_STORED,)
    if info.compress_type not in kinds or info.flag_bits & _ENCRYPTED:
        raise ValueError(f"the archive's member {info.filename:.80} is compressed or encrypted")
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        raise ValueError(f"the archive's member {info.filename:.80} has two sizes")
    if problem := grown(info.compress_size, info.file_size):
        raise ValueError(f"the archive's member {info.filename:.80} {problem}")


def grown(stored: int, decoded: int) -> str:
    """Return what is wrong with compressed bytes that announce far more than any weights do, else nothing."""
    if decoded <= _FREE + _RATIO * stored:
        return over_limit("weights_bytes", decoded)
    return f"would grow from {stored:,} to {decoded:,} bytes, which no weights do"
