"""Properties of a video, and its timeline: the picture that each output frame shows.

A video is presented at a constant rate, whatever its container does. Its *timeline* maps output frame i to
the picture that is on display in the middle of [i, i+1) / rate, the rule of ffmpeg's ``fps`` filter. It is
computed from time stamps alone, so it is the same for every range of frames that is read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from portrait_core.errors import InputError
from portrait_core.media.binary import existing_file
from portrait_core.media.colors import Colors, assumed_matrix, check_colors, colors_of
from portrait_core.media.containers import open_container
from portrait_core.media.packets import (
    DECODED_FORMATS,
    MISTAKEN_FORMATS,
    Packets,
    codec_name,
    is_untimed,
    picture_ticks,
    read_packets,
)
from portrait_core.media.pictures import Pictures, find_pictures
from portrait_core.media.rates import constant_rate, frame_count, slots_of
from portrait_core.media.turns import room_for
from portrait_core.settings.limits import refuse_beyond

_ATTACHED_PICTURE = 0x400
# Tracks beside the one that most people hear: descriptions of the picture, comments, and parts of a mix.
_SPECIAL_AUDIO = (
    Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.descriptions
    | Disposition.comment
    | Disposition.karaoke
    | Disposition.dependent
)
_UNSPECIFIED = 2
_RESTARTING = 0x0200  # ffmpeg's AVFMT_TS_DISCONT: MPEG-TS, MPEG-PS, Ogg
_SEEKABLE_FORMATS = {"mov", "mp4", "matroska", "webm"}
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


MAX_PIXEL_ASPECT = 4
"""Width over height of a pixel, or its inverse, above which a file's pixel aspect counts as a mistake."""
# A ratio this near to 1 comes from the rounding of a size, and is not worth the sharpness.
_SQUARE = 0.005


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video, as :func:`probe` returns them."""

    width: int
    """Width in pixels as it is displayed: after rotation, with square pixels."""
    height: int
    """Height in pixels, likewise."""
    frame_rate: Fraction
    """Exact, constant frames per second (30000/1001 stays a fraction)."""
    frame_count: int
    """Number of frames at ``frame_rate``, as :func:`~portrait_core.media.read_frames` delivers them."""
    duration_s: float
    """Duration in seconds: ``frame_count / frame_rate``."""
    has_audio: bool
    """True if there is an audio track."""
    audio_duration_s: float
    """Seconds of the audio track that is carried over (the default one); 0 when there is none."""
    rotation_deg: int
    """Counter-clockwise rotation in degrees that the file asks players for; already applied to width and
    height."""
    is_vfr: bool
    """True if the source's own frame rate varies, so that frames are repeated or left out."""
    has_alpha: bool
    """True if frames have alpha, in which case they are composited over white."""
    bit_depth: int
    """Bits per channel in the file; frames are reduced to 8."""
    audio_codec: str = ""
    """Name of the codec of the audio track that is carried over; empty without audio."""
    pixel_aspect: Fraction = Fraction(1)
    """Width over height of a stored pixel, before rotation; already applied to width and height."""
    dynamic_range: str = ""
    """``HLG`` or ``PQ`` where the dynamic range is high, in which case frames are tone mapped; else empty."""
    repeated: int = 0
    """Number of frames that show the picture of the frame before them, because the source has none there."""
    dropped: int = 0
    """Number of the source's pictures that no frame shows."""


@dataclass(frozen=True)
class Timeline:
    """A probed video with the data that reading needs. Times are seconds on the container's own clock."""

    path: Path
    """Absolute path of the video."""
    info: VideoInfo
    """Properties of the video."""
    stream: int
    """Index of the video stream in the container."""
    times: NDArray[np.float64]
    """``[n]`` presentation times of the source's pictures, never descending, in seconds."""
    slots: NDArray[np.int32]
    """``[frame_count]`` index of the picture that each output frame shows."""
    keyframes: NDArray[np.float64]
    """``[k]`` times in seconds at which decoding can start; empty when only reading from the beginning is
    safe."""
    counted: bool
    """True if packets do not tell the times of their pictures, which are then identified by their order."""
    decoder: str | None
    """Name of the decoder to request, where the default one would lose the alpha channel; else None."""
    colors: Colors
    """Transfer function and primaries."""
    color_matrix: str | None
    """Colour matrix to assume where the file names none; else None."""
    audio_stream: int | None
    """Index of the audio stream in the container; None without audio."""
    audio_codec: str | None
    """Name of the audio codec; None without audio."""
    audio_delay_s: float
    """Seconds from the first picture to the start of the audio; negative when the audio starts first."""
    audio_rebase_s: float
    """Seconds that shift the audio's start to zero in ffmpeg, which reads that stream alone."""
    pictures: Pictures | None = None
    """Pictures that are read one by one rather than by ffmpeg; None for a video of other kinds."""


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Return the properties of a video file.

    The whole file is read once (not decoded); the result is cached while the file does not change. A video of
    one frame and a still image are valid.

    Raises:
        InputError: the file does not exist, is empty or truncated, holds no video, or no picture of it
            decodes.
    """
    return scan(path).info


def scan(path: str | os.PathLike[str]) -> Timeline:
    """Return the timeline of a video; see :func:`probe`."""
    pictures = find_pictures(path)
    if pictures is not None:
        return _scan_pictures(pictures)
    file = existing_file(path, "video")
    status = file.stat()
    return _scan(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _scan_pictures(pictures: Pictures) -> Timeline:
    width, height = pictures.check()
    refuse_beyond("video_pixels", width * height, f"a frame of {pictures.path}")
    *stamps, end = pictures.stamps_ms()
    ticks, time_base = np.asarray(stamps, np.int64), Fraction(1, 1000)
    rate, is_vfr = constant_rate(ticks, time_base, [])
    count = frame_count(ticks, time_base, rate, is_vfr, end - stamps[-1])
    _check_span(pictures.path, len(ticks), count)
    slots = slots_of(ticks, time_base, rate, is_vfr, count)
    shown = len(np.unique(slots))
    info = VideoInfo(
        width=width,
        height=height,
        frame_rate=rate,
        frame_count=count,
        duration_s=float(count / rate),
        has_audio=False,
        audio_duration_s=0.0,
        rotation_deg=0,
        is_vfr=is_vfr,
        has_alpha=False,
        bit_depth=8,
        repeated=count - shown,
        dropped=len(ticks) - shown,
    )
    return Timeline(
        path=pictures.path,
        info=info,
        stream=0,
        times=ticks / 1000,
        slots=slots,
        keyframes=np.empty(0),
        counted=True,
        decoder=None,
        colors=Colors(transfer=1, primaries=1),
        color_matrix=None,
        audio_stream=None,
        audio_codec=None,
        audio_delay_s=0.0,
        audio_rebase_s=0.0,
        pictures=pictures,
    )


@lru_cache(maxsize=16)
def _scan(path: Path, _size: int, _mtime_ns: int) -> Timeline:
    timeline = _pass(path, every=False) or _pass(path, every=True)
    assert timeline is not None  # decoding every picture leaves no doubt
    return timeline


def _pass(path: Path, every: bool) -> Timeline | None:
    """Read a video once.

    Args:
        path: of the video.
        every: decode every picture.

    Returns:
        Its timeline; None where only decoding every picture tells their times.
    """
    with open_container(path) as container:
        stream = _video_stream(container, path)
        context = stream.codec_context
        width, height = _displayed(context.width, context.height, _pixel_aspect(stream))
        pixels = width * height
        refuse_beyond("video_pixels", pixels, f"a frame of {path}")
        every = every or container.format.name in DECODED_FORMATS | MISTAKEN_FORMATS
        with room_for(pixels):
            packets = read_packets(container, stream, path, every)
        return None if packets is None else _timeline(path, container, stream, packets)


def _video_stream(container: Any, path: Path) -> Any:
    streams = [s for s in container.streams.video if not int(s.disposition) & _ATTACHED_PICTURE]
    if not streams:
        sound = ["sound"] if container.streams.audio else []
        held = [*sound, *(["a cover picture"] if container.streams.video else [])]
        raise InputError(
            f"{path} holds {' and '.join(held) or 'nothing'}, no video; give a file with a video track"
        )
    known = [s for s in streams if s.codec_context is not None]
    if not known:
        raise InputError(
            f"{path} holds a video of an unknown kind; convert it with `ffmpeg -i IN -c:v libx264 OUT.mp4`"
        )
    return known[0]


def _audio_stream(container: Any) -> Any:
    """Return the audio stream that players take: the default one, but none for a few listeners; else None."""
    streams = [s for s in container.streams.audio if s.codec_context is not None]
    special, default = int(_SPECIAL_AUDIO), int(Disposition.default)
    return min(
        streams,
        key=lambda s: (bool(int(s.disposition) & special), not int(s.disposition) & default, s.index),
        default=None,
    )


def _check_span(path: Path, pictures: int, count: int) -> None:
    """Refuse time stamps that spread few pictures over many frames, before any array of that length."""
    if count > 100 * pictures + 1000:
        raise InputError(
            f"{path}: its time stamps are broken ({pictures} frames would span {count}); "
            f"convert it with `ffmpeg -i IN -vsync drop -c:v libx264 OUT.mp4`"
        )
    refuse_beyond("video_frames", count, str(path))


def _timeline(path: Path, container: Any, stream: Any, packets: Packets) -> Timeline:
    named = (stream.guessed_rate, stream.average_rate, stream.base_rate)
    declared = [Fraction(rate) for rate in named if rate]
    ticks, time_base, last_length = picture_ticks(container, stream, packets, declared)
    total = len(ticks)
    distinct, pictures = np.unique(ticks[::-1], return_index=True)
    pictures = total - 1 - pictures  # the last one of those with the same time
    if not packets.every:  # pictures are known by their times
        ticks, pictures = distinct, np.arange(len(distinct))
    rate, is_vfr = constant_rate(distinct, time_base, declared)
    count = frame_count(distinct, time_base, rate, is_vfr, last_length)
    _check_span(path, total, count)
    slots = pictures[slots_of(distinct, time_base, rate, is_vfr, count)].astype(np.int32)
    seekable = not packets.every and bool(_SEEKABLE_FORMATS & set(container.format.name.split(",")))
    keyframes = np.unique(np.asarray(packets.keyframes if seekable else [], dtype=np.int64))
    start_s = float(ticks[0] * time_base)
    timed = not packets.every or not is_untimed(packets)
    audio = _audio_stream(container)
    colors = colors_of(stream.codec_context, packets.first)
    check_colors(colors, str(path))
    return Timeline(
        path=path,
        info=_info(stream, packets, audio, rate, slots, total, is_vfr),
        stream=stream.index,
        times=(ticks * float(time_base)).astype(np.float64),
        slots=slots,
        keyframes=(keyframes * float(stream.time_base)).astype(np.float64),
        counted=packets.every,
        decoder=_ALPHA_DECODERS.get(codec_name(stream)) if _alpha_track(stream) else None,
        colors=colors,
        color_matrix=_assumed_matrix(packets.first, colors),
        audio_stream=audio.index if audio is not None else None,
        audio_codec=codec_name(audio) if audio is not None else None,
        audio_delay_s=_start(audio) - start_s if audio is not None and timed else 0.0,
        audio_rebase_s=_rebase(container, audio) if audio is not None else 0.0,
    )


def _info(
    stream: Any,
    packets: Packets,
    audio: Any,
    rate: Fraction,
    slots: NDArray[np.int32],
    pictures: int,
    is_vfr: bool,
) -> VideoInfo:
    first, shown = packets.first, len(np.unique(slots))
    aspect = _pixel_aspect(stream)
    width, height = _displayed(first.width, first.height, aspect)
    rotation = round(first.rotation) % 360
    if rotation % 180 == 90:
        width, height = height, width
    components = first.format.components
    # From the packets: some containers have one duration for all of their streams.
    audio_s = max(0.0, packets.ends[audio.index] - _start(audio)) if audio is not None else 0.0
    return VideoInfo(
        width=width,
        height=height,
        frame_rate=rate,
        frame_count=len(slots),
        duration_s=float(len(slots) / rate),
        has_audio=audio is not None,
        audio_duration_s=audio_s,
        rotation_deg=rotation,
        is_vfr=is_vfr,
        has_alpha=_alpha_track(stream) or first.format.has_palette or any(c.is_alpha for c in components),
        bit_depth=max((c.bits for c in components), default=8),
        audio_codec=codec_name(audio) if audio is not None else "",
        pixel_aspect=aspect,
        dynamic_range=colors_of(stream.codec_context, first).dynamic_range,
        repeated=len(slots) - shown,
        dropped=pictures - shown,
    )


def _start(stream: Any) -> float:
    return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0


def _rebase(container: Any, audio: Any) -> float:
    """Return the seconds by which ffmpeg's start of an audio stream, read alone, lies before zero.

    ffmpeg counts time from the container's start; in containers whose time may start anew, it counts from the
    start of the streams that it reads.
    """
    if container.format.flags & _RESTARTING:
        return 0.0
    return (container.start_time or 0) / av.time_base - _start(audio)


def _alpha_track(stream: Any) -> bool:
    """Tell whether a second layer of WebM holds alpha, which the pixel format does not show."""
    return any(k.lower() == "alpha_mode" and v == "1" for k, v in stream.metadata.items())


def _assumed_matrix(first: Any, colors: Colors) -> str | None:
    """Return the colour matrix that players assume when a file names none; None when it names one."""
    if first.format.is_rgb or first.format.has_palette or int(first.colorspace) != _UNSPECIFIED:
        return None
    return assumed_matrix(first.width, first.height, colors)


def _pixel_aspect(stream: Any) -> Fraction:
    """Return width over height of a pixel, by the container, else the codec; 1 if it is not plausible."""
    aspect = Fraction(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    if not 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT or abs(aspect - 1) < _SQUARE:
        return Fraction(1)
    return aspect


def _displayed(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Return a picture's size with square pixels; one side grows, none shrinks, which would lose lines."""
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))
