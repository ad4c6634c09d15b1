"""Formats in which videos are encoded, by the file's suffix: one table for all writers of videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portrait_core.errors import InputError

ENCODER_THREADS = 4
"""Number of threads of encoders: fixed, because x264's output depends on it, so that the same frames give the
same bytes on every host."""


@dataclass(frozen=True)
class VideoFormat:
    """A container and its codecs.

    Attributes:
        muxer: ffmpeg's name of the container.
        has_alpha: whether frames carry straight alpha.
        pixel_format: ffmpeg's name of the encoded pixel format; BT.709, limited range.
        even_sides: whether the codec needs an even width and height.
        crf_option: whether the codec takes ``crf``.
        options: ffmpeg's options of the codec and the container.
        copied_audio: audio codecs that are copied, because common players play them in this container; those
            of MP4 do not play Opus and MP3 (Apple's) or AC-3 (browsers) there.
        new_audio: ffmpeg's options for encoding other audio.
    """

    muxer: str
    has_alpha: bool
    pixel_format: str
    even_sides: bool
    crf_option: bool
    options: Mapping[str, Any]
    copied_audio: frozenset[str]
    new_audio: Mapping[str, Any]

    @property
    def new_audio_name(self) -> str:
        """Name of the codec of audio that is encoded anew."""
        return str(self.new_audio["c:a"]).removeprefix("lib")

    @property
    def channels(self) -> int:
        """Channels of a frame: 3 (RGB), or 4 (RGB and straight alpha)."""
        return 4 if self.has_alpha else 3

    def encoded_size(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height in pixels of the encoded frames: unchanged, or the next even numbers."""
        return (width + width % 2, height + height % 2) if self.even_sides else (width, height)


_MP4_AUDIO = frozenset({"aac", "alac"})
_NEW_AAC = {"c:a": "aac", "b:a": "192k"}

FORMATS: Mapping[str, VideoFormat] = {
    ".mp4": VideoFormat(
        muxer="mp4",
        has_alpha=False,
        pixel_format="yuv420p",
        even_sides=True,
        crf_option=True,
        options={
            "c:v": "libx264", "preset": "medium", "threads:v": ENCODER_THREADS, "movflags": "+faststart",
        },
        copied_audio=_MP4_AUDIO,
        new_audio=_NEW_AAC,
    ),
    ".mov": VideoFormat(
        muxer="mov",
        has_alpha=True,
        pixel_format="yuva444p10le",
        even_sides=False,
        crf_option=False,
        # Some editors take only files that name Apple as the maker of the encoder.
        options={
            "c:v": "prores_ks", "profile:v": "4444", "vendor": "apl0", "alpha_bits": 16,
            "threads:v": ENCODER_THREADS, "movflags": "+faststart",
        },
        copied_audio=_MP4_AUDIO | {"pcm_s16le"},
        new_audio=_NEW_AAC,
    ),
    ".webm": VideoFormat(
        muxer="webm",
        has_alpha=True,
        pixel_format="yuva420p",
        even_sides=False,
        crf_option=True,
        options={
            "c:v": "libvpx-vp9", "b:v": 0, "deadline": "good", "cpu-used": 2, "row-mt": 0,
            "threads:v": ENCODER_THREADS,
        },
        copied_audio=frozenset({"opus", "vorbis"}),
        new_audio={"c:a": "libopus", "b:a": "160k"},
    ),
}  # fmt: skip
"""``.mp4``: H.264 without alpha, which everything plays. ``.mov``: ProRes 4444 with alpha, for editors;
every pixel has a chroma of its own, and the files are large (up to 0.8 MB per frame of 512x512).
``.webm``: VP9 with alpha, for browsers; small."""


def format_of(path: Path) -> VideoFormat:
    """Return the format of a video by its suffix.

    Raises:
        InputError: the suffix is not one of :data:`FORMATS`.
    """
    video_format = FORMATS.get(path.suffix.lower())
    if video_format is None:
        raise InputError(
            f"videos are written as .mp4, or with alpha as .mov (ProRes 4444) or .webm (VP9); got {path.name}"
        )
    return video_format
