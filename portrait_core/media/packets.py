"""What one pass over a container tells of a video's pictures: when each of them is shown."""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import InputError
from portrait_core.media.rates import (
    JUMP_S,
    UNTIMED,
    continued,
    plausible_rates,
    straightened,
)
from portrait_core.settings.limits import current_limits, refuse_beyond

DECODED_FORMATS = {"avi", "asf"}
"""Containers that say when a packet is decoded, not when its picture is shown: only decoding finds that."""
MISTAKEN_FORMATS = {"mpeg"}
"""Containers whose packets do not begin where pictures do, so that a picture may be given another's time."""
# Time may start anew within these, where two recordings were joined.
_JOINED_FORMATS = {"mpegts", "mpeg"}
# A recording that begins late names the time of its end as its duration.
_DURATION_FROM_ZERO = {"matroska,webm"}
_VP8_SHOWN = 0x10


def _ticks() -> array[int]:
    return array("q")


@dataclass
class Packets:
    """Data that one pass over a container collects."""

    every: bool  # every picture is decoded
    # presentation times, in ticks, of packets that are shown; arrays, because there may be a million
    pictures: array[int] = field(default_factory=_ticks)
    keyframes: array[int] = field(default_factory=_ticks)
    lengths: array[int] = field(default_factory=_ticks)
    total: int = 0
    ends: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    first: Any = None  # the first decoded picture
    first_tick: int | None = None  # at which the first packet is decoded
    stamps: array[int] = field(default_factory=_ticks)  # of decoded pictures, in their order


def read_packets(container: Any, stream: Any, path: Path, every: bool) -> Packets | None:
    """Collect the packets' times; None where they do not tell when each picture is shown."""
    packets, order = Packets(every), _Order(container, stream)
    try:
        for packet in container.demux():
            ours = packet.stream.index == stream.index
            if packet.size:
                _record_end(packets, packet)
                if ours:
                    _record_picture(packets, packet)
                    refuse_beyond("video_frames", packets.total, str(path))
                    if not every and order.is_doubtful(packet):
                        return None
            if ours and (packets.first is None or every):
                _decode(packets, packet, container.format.name in DECODED_FORMATS)
    except av.FFmpegError:
        if not packets.total:
            raise
        # The rest of the file is unreadable; `_check_complete` reports it.
    if packets.first is None:
        raise InputError(
            f"{path}: no frame of its video ({stream.codec_context.name}, {packets.total} packets) decodes "
            f"within {current_limits().video_pixels:,} pixels, which limits.video_pixels allows; copy it "
            f"again from its source or convert it with `ffmpeg -i IN -c:v libx264 OUT.mp4`"
        )
    _check_complete(container, packets, path)
    return packets


class _Order:
    """Tells packets whose times are those of their pictures from others."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._reorders = bool(stream.codec_context.has_b_frames)
        joined = container.format.name in _JOINED_FORMATS
        self._longest = JUMP_S / stream.time_base if joined and stream.time_base else None
        self._decoded: int | None = None
        self._shown: int | None = None

    def is_doubtful(self, packet: Any) -> bool:
        """Tell whether a packet has no time, one before its turn, or one that a join explains."""
        shown, decoded = packet.pts, packet.dts
        if shown is None:
            return True
        if not self._reorders and self._shown is not None and shown < self._shown:
            return True
        if decoded is not None and self._decoded is not None:
            ahead = decoded - self._decoded
            if ahead < 0 or (self._longest is not None and ahead > self._longest):
                return True
        self._shown, self._decoded = shown, decoded if decoded is not None else self._decoded
        return False


def _record_end(packets: Packets, packet: Any) -> None:
    time = packet.pts if packet.pts is not None else packet.dts
    if time is not None and packet.time_base is not None:
        end = float((time + (packet.duration or 0)) * packet.time_base)
        packets.ends[packet.stream.index] = max(packets.ends[packet.stream.index], end)


def _record_picture(packets: Packets, packet: Any) -> None:
    packets.total += 1
    if packets.first_tick is None:
        packets.first_tick = packet.dts
    if packet.pts is None:
        return
    if packet.is_keyframe:
        packets.keyframes.append(packet.pts)
    if not packet.is_discard and _is_shown(packet):
        packets.pictures.append(packet.pts)
        packets.lengths.append(packet.duration or 0)


def _is_shown(packet: Any) -> bool:
    """Tell whether a packet holds a picture to show: VP8 has others, which only later pictures refer to."""
    return codec_name(packet.stream) != "vp8" or bool(memoryview(packet)[0] & _VP8_SHOWN)


def _decode(packets: Packets, packet: Any, by_decoding: bool) -> None:
    """Decode a packet, and record the times of its pictures; those of decoding where there are no others."""
    try:
        pictures = packet.decode()
    except av.FFmpegError:
        return  # damage is found and reported when frames are read
    for picture in pictures if packets.every else ():
        shown = None if by_decoding else picture.pts
        stamp = picture.dts if shown is None else shown
        packets.stamps.append(UNTIMED if stamp is None else stamp)
    if packets.first is None and pictures:
        packets.first = pictures[0]


def _check_complete(container: Any, packets: Packets, path: Path) -> None:
    """Refuse a file whose container promises clearly more than it contains."""
    if not container.duration or not packets.ends:
        return
    promised = container.duration / av.time_base
    held = max(packets.ends.values())
    if container.format.name not in _DURATION_FROM_ZERO:
        held -= (container.start_time or 0) / av.time_base
    if promised - held > max(0.5, 0.01 * promised):
        raise InputError(
            f"{path} is truncated: it should last {promised:.2f} s and ends after {held:.2f} s; copy it "
            f"again from its source, or keep what is there with `ffmpeg -i IN -c copy OUT.mp4`"
        )


def is_untimed(packets: Packets) -> bool:
    """Tell whether no decoded picture has a time."""
    return all(stamp == UNTIMED for stamp in packets.stamps)


def picture_ticks(
    container: Any, stream: Any, packets: Packets, declared: list[Fraction]
) -> tuple[NDArray[np.int64], Fraction, int]:
    """Return the times of the pictures in their order, the seconds of a tick, and the last one's length."""
    if not packets.every:
        order = np.argsort(np.asarray(packets.pictures), kind="stable")
        ticks = np.asarray(packets.pictures, dtype=np.int64)[order]
        return ticks, stream.time_base, int(np.asarray(packets.lengths)[order][-1])
    if is_untimed(packets):
        return np.arange(len(packets.stamps), dtype=np.int64), 1 / plausible_rates(declared)[0], 1
    by_decoding = container.format.name in DECODED_FORMATS
    stamps = straightened(np.asarray(packets.stamps, dtype=np.int64))
    ticks = continued(stamps, stream.time_base, by_decoding)
    if container.format.name != "avi":
        return ticks, stream.time_base, 0
    if len(ticks) > 2:
        # The first packet is decoded ahead of its turn, by less than a frame where ticks are finer.
        first, usual = int(ticks[1] - ticks[0]), int(np.median(np.diff(ticks)))
        ticks[0] += first - usual if usual < first < 2 * usual else 0
    # A decoder delivers the first picture some packets late, and sound does not wait for it. It does wait for
    # packets without a picture.
    late = int(ticks[0]) - (packets.first_tick or 0)
    usual = max(1, int(np.median(np.diff(ticks)))) if len(ticks) > 1 else 1
    ticks -= min(late, max(1, int(stream.codec_context.has_b_frames)) * usual)
    return ticks, stream.time_base, max(1, (stream.duration or 0) - int(ticks[-1]))


def codec_name(stream: Any) -> str:
    """Return ffmpeg's name of a stream's codec."""
    # Not the context's name, which is the decoder's (libdav1d, mp3float).
    return str(stream.codec_context.codec.canonical_name)
