"""Readers of pictures and videos: nothing but our error, in memory that fits the accepted sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from portrait_core.errors import InputError
from portrait_core.media import probe, read_frames, read_image
from tests.fuzz.harness import Target, from_file
from tests.hostile import files_media as media

_MOST = 1 << 30
"""Bytes that reading may take: a picture or frame of the largest accepted size, a few times over."""
_SMOOTH = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)


def _clip(name: str, codec: str, sound: str = "") -> bytes:
    """Encode eight small frames, with sound where a codec is given."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width = stream.height = 64
            stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8", "png": "rgb24"}.get(codec, "yuv420p")
            audio: Any = container.add_stream(sound, rate=48000) if sound else None
            for number in range(8):
                picture = np.repeat((_SMOOTH + 8 * number)[..., None], 3, axis=2).astype(np.uint8)
                container.mux(
                    stream.encode(
                        av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=stream.pix_fmt)
                    )
                )
            container.mux(stream.encode(None))
            if audio is not None:
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), "fltp", "mono")
                frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
                container.mux(audio.encode(frame))
                container.mux(audio.encode(None))
        return path.read_bytes()


def _seeds(*clips: tuple[str, str, str]) -> Callable[[], Sequence[bytes]]:
    return lambda: [_clip(*clip) for clip in clips]


def _pictures(*forms: tuple[str, str, dict[str, Any]]) -> Callable[[], Sequence[bytes]]:
    return lambda: [media.pillow(48, 40, form, mode, **options) for form, mode, options in forms]


def _refused(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """Return a reader whose refusals have no cause that is ffmpeg's: its own bound of an allocation is a good
    refusal, while memory that Python or numpy did not get is a finding.
    """

    def read_path(path: Path) -> object:
        try:
            return read(path)
        except InputError as error:
            if _wanted_memory(error):
                raise
            said = str(error)
        raise InputError(said)

    return read_path


def _wanted_memory(error: BaseException | None) -> bool:
    """Tell whether an error goes back to memory that was refused elsewhere than in ffmpeg."""
    while error is not None:
        if isinstance(error, MemoryError) and not isinstance(error, av.FFmpegError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _video(
    name: str, seeds: Callable[[], Sequence[bytes]], words: tuple[bytes, ...], examples: int = 60
) -> Target:
    reader = from_file(f"clip.{name}", _refused(probe))
    return Target(f"video-{name}", seeds, reader, (InputError,), words, _MOST, 20.0, examples)


def _picture(name: str, seeds: Callable[[], Sequence[bytes]], words: tuple[bytes, ...] = ()) -> Target:
    reader = from_file(f"face.{name}", read_image)
    return Target(f"picture-{name}", seeds, reader, (InputError,), words, _MOST, 20.0)


def _all_frames(path: Path) -> int:
    return sum(1 for _ in read_frames(path))


_MP4 = (
    b"moov", b"trak", b"mdia", b"stbl", b"stsz", b"stts", b"ctts", b"stsc", b"stco", b"co64", b"elst",
    b"dref",
    b"url ", b"rmra", b"rdrf", b"mvex", b"moof", b"trun", b"tfhd", b"sidx", b"uuid", b"meta", b"cmov",
    b"\0\0\0\1",
    b"\xff\xff\xff\xff", b"esds", b"stss", b"avc1", b"png ", b"jpeg", b"raw ", b"tx3g", b"mdat", b"free",
)  # fmt: skip
_EBML = (
    b"\x1aE\xdf\xa3", b"\x18S\x80g", b"\x1fC\xb6u", b"\x16T\xaek", b"\xae", b"\xa3", b"\xa0", b"\xe7",
    b"\xb0", b"\xba",
    b"#\xe3\x83", b"*\xd7\xb1", b"\xff", b"\x01\xff\xff\xff\xff\xff\xff\xff", b"V_MPEG4/ISO/AVC", b"V_MJPEG",
    b"V_VP9", b"V_MS/VFW/FOURCC", b"\x50\x31", b"\x6d\x80", b"\x42\x54",
)  # fmt: skip
_AVI = (b"RIFF", b"AVI ", b"LIST", b"hdrl", b"avih", b"strh", b"strf", b"movi", b"idx1", b"indx", b"ix00",
b"00dc",
        b"dmlh", b"odml", b"JUNK", b"vids", b"MJPG", b"\xff\xff\xff\xff")  # fmt: skip
_PLAYLISTS = (
    b"#EXTM3U\n",
    b"ffconcat version 1.0\n",
    b"file ",
    b"#EXTINF:1,\n",
    b"/etc/passwd\n",
    b"v=0\r\n",
)
_PNG = (
    b"IHDR",
    b"IDAT",
    b"PLTE",
    b"tRNS",
    b"iCCP",
    b"zTXt",
    b"iTXt",
    b"eXIf",
    b"acTL",
    b"fcTL",
    b"fdAT",
    b"gAMA",
)

TARGETS = (
    _video("mp4", _seeds(("a.mp4", "mpeg4", "aac"), ("b.mp4", "libx264", ""), ("c.mov", "mjpeg", "")), _MP4),
    _video("mkv", _seeds(("a.mkv", "libx264", "aac"), ("b.mkv", "mjpeg", "")), (*_EBML, *_PLAYLISTS)),
    _video("webm", _seeds(("a.webm", "libvpx-vp9", "libopus"), ("b.webm", "libvpx", "")), _EBML),
    _video("avi", _seeds(("a.avi", "mjpeg", ""), ("b.avi", "mpeg4", "")), _AVI),
    _video("gif", _seeds(("a.gif", "gif", "")), (b"GIF89a", b"!\xf9\x04", b"!\xff\x0bNETSCAPE2.0", b",",
    b";")),
    _video("any", _seeds(("a.flv", "flv1", ""), ("b.ts", "mpeg2video", ""), ("c.ivf", "libvpx", "")),
    _PLAYLISTS),
    Target(
        "frames-mp4", _seeds(("a.mp4", "mpeg4", "aac")), from_file("clip.mp4", _refused(_all_frames)),
        (InputError,),
        _MP4,
        _MOST, 30.0, 6,
    ),
    _picture(
        "png",
        lambda: [
            *_pictures(("PNG", "RGB", {}), ("PNG", "RGBA", {}), ("PNG", "I;16", {}), ("PNG", "P", {}))(),
            media.png(1500, 1500, 1, 0),
        ],
        _PNG,
    ),
    _picture("jpg", _pictures(("JPEG", "RGB", {}), ("JPEG", "CMYK", {}), ("JPEG", "L",
    {"progressive": True})),
             (b"\xff\xd8", b"\xff\xc0", b"\xff\xc2", b"\xff\xe1", b"Exif\0\0", b"\xff\xda", b"%!PS-Adobe")),
    _picture("webp", _pictures(("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True})), (b"VP8X",
    b"ALPH", b"ANIM")),
    _picture("tif", _pictures(("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "I;16", {})),
    (b"II*\0", b"MM\0*")),
    _picture("gif", partial(lambda: [media.gif(40, 30, 2)]), (b"GIF89a",)),
)  # fmt: skip
"""Targets of this module."""
