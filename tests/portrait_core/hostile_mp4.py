"""MP4 files that announce samples which they do not hold, written box by box."""

from __future__ import annotations

import struct


def mp4_of_one_sample_size(samples: int, tracks: int = 1) -> bytes:
    """Return a file whose tracks announce samples of one byte each."""
    moov = _box(b"moov", _movie_header(), *(_track(number + 1, samples) for number in range(tracks)))
    return _file_type() + moov + _box(b"mdat", bytes(1000))


def mp4_of_one_long_run(samples: int, tracks: int = 1) -> bytes:
    """Return a fragmented file whose runs announce samples of the track's own size and length."""
    numbers = range(1, tracks + 1)
    defaults = _box(b"mvex", *(_full(b"trex", 0, struct.pack(">5I", n, 1, 1, 1, 0)) for n in numbers))
    moov = _box(b"moov", _movie_header(), *(_track(number, 0) for number in numbers), defaults)
    runs = [
        _box(
            b"traf",
            _full(b"tfhd", 0x20000, struct.pack(">I", number)),
            _full(b"trun", 1, struct.pack(">Ii", samples, 100)),
        )
        for number in numbers
    ]
    moof = _box(b"moof", _full(b"mfhd", 0, struct.pack(">I", 1)), *runs)
    return _file_type() + moov + moof + _box(b"mdat", bytes(1000))


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _full(kind: bytes, flags: int, *content: bytes) -> bytes:
    return _box(kind, struct.pack(">I", flags), *content)


def _file_type() -> bytes:
    return _box(b"ftyp", b"isom\0\0\2\0isom")


def _matrix() -> bytes:
    return struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def _movie_header() -> bytes:
    times = struct.pack(">5IH", 0, 0, 1000, 1000, 0x10000, 0x100)
    return _full(b"mvhd", 0, times, bytes(10), _matrix(), bytes(24), struct.pack(">I", 99))


def _track(number: int, samples: int) -> bytes:
    shown = struct.pack(">II", 64 << 16, 48 << 16)
    header = _full(b"tkhd", 3, struct.pack(">5I", 0, 0, number, 0, 1000), bytes(16), _matrix(), shown)
    size = struct.pack(">HHIIIH", 64, 48, 0x480000, 0x480000, 0, 1)
    codec = _box(b"avc1", bytes(6), b"\0\1", bytes(16), size, bytes(32), struct.pack(">Hh", 24, -1))
    table = _box(
        b"stbl",
        _full(b"stsd", 0, struct.pack(">I", 1), codec),
        _full(b"stts", 0, struct.pack(">3I", 1, samples, 1)),
        _full(b"stsc", 0, struct.pack(">4I", 1, 1, samples, 1)),
        _full(b"stsz", 0, struct.pack(">2I", 1, samples)),
        _full(b"stco", 0, struct.pack(">2I", 1, 40)),
    )
    here = _box(b"dinf", _full(b"dref", 0, struct.pack(">I", 1), _full(b"url ", 1)))
    media = _box(
        b"mdia",
        _full(b"mdhd", 0, struct.pack(">4IHH", 0, 0, 1000, 1000, 0, 0)),
        _full(b"hdlr", 0, bytes(4), b"vide", bytes(13)),
        _box(b"minf", _full(b"vmhd", 1, bytes(8)), here, table),
    )
    return _box(b"trak", header, media)
