"""Samples that an MP4 or MOV file announces, against the bytes that it has.

A track names the number of its samples in four bytes where they are all of one size, and ffmpeg makes an
index of them at once: forty bytes for each.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from typing import BinaryIO

from portrait_core.errors import InputError

SAMPLES_PER_BYTE = 2
"""Most samples that a byte holds: sound of old MOV files has nearly two."""
_MOST_BOXES = 1 << 23
_LARGEST_TABLE = 1 << 28
_TABLE = re.compile(rb"stsz|trun")
_SIZES_FOLLOW = 0xF00


def check_samples(file: BinaryIO, name: str) -> None:
    """Compare the numbers of samples in the tables of an MP4 or MOV file with its size.

    Any other file passes, because it has no such tables.

    Args:
        file: the open file, not empty; its position stays.
        name: name of the file, for the message.

    Raises:
        InputError: the file is too small for the samples that it announces.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        announced = 0
        for begin, end in _tables(data):
            announced += sum(_announced(data, found) for found in _TABLE.finditer(data, begin, end))
            if announced > SAMPLES_PER_BYTE * len(data):
                raise InputError(
                    f"{name} announces {announced:,} samples, more than its {len(data):,} bytes can hold; "
                    f"copy it again from its source"
                )


def _tables(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield the begin and end of the outermost boxes, without those of the samples themselves."""
    begin = 0
    for _ in range(_MOST_BOXES):
        size, kind, header = int.from_bytes(data[begin : begin + 4], "big"), data[begin + 4 : begin + 8], 8
        if size == 1:
            size, header = int.from_bytes(data[begin + 8 : begin + 16], "big"), 16
        end = begin + size if size >= header else len(data)
        if kind != b"mdat":
            yield begin, min(end, len(data), begin + _LARGEST_TABLE)
        begin = end
        if begin + 8 > len(data):
            return


def _announced(data: mmap.mmap, found: re.Match[bytes]) -> int:
    """Return the number of samples of a table that holds no entry for each of them, else 0."""
    words = [int.from_bytes(data[at : at + 4], "big") for at in range(found.end(), found.end() + 12, 4)]
    flags_or_version, second, third = words
    if found[0] == b"stsz":
        return third if second else 0
    return 0 if flags_or_version & _SIZES_FOLLOW else second
