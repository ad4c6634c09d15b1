"""Videos of Dolby Vision whose colours only its own players show."""

from __future__ import annotations

import mmap
import re
from typing import BinaryIO

from portrait_core.errors import InputError

SEARCHED_BYTES = 1 << 22
"""Bytes at the beginning and at the end of a file in which its description is looked for."""
# The record follows its name in MP4, and in Matroska the head of another element.
_RECORD = re.compile(rb"dv[cvw]C(?:\x41\xed[\x80-\xff])?([\x01-\x04].)(.{3})", re.DOTALL)
_OWN_COLOURS = frozenset({5, 10, 20})


def refuse_own_colours(file: BinaryIO, name: str) -> None:
    """Refuse a video of Dolby Vision without a picture for other players.

    Such a video is tagged like any other, and its colours would be far off: they are of a matrix (IPT) and of
    curves that its own metadata hold.

    Args:
        file: the open file, not empty; its position stays.
        name: name of the file, for the message.

    Raises:
        InputError: it is such a video.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for begin in {0, max(0, len(data) - SEARCHED_BYTES)}:
            for found in _RECORD.finditer(data, begin, begin + SEARCHED_BYTES):
                profile, compatible = found[2][0] >> 1, found[2][2] >> 4
                if profile in _OWN_COLOURS and not compatible:
                    raise InputError(
                        f"{name} is a video of Dolby Vision, profile {profile}, whose colours only its own "
                        "players show; export it for other players, in standard dynamic range, HDR10 or HLG"
                    )
