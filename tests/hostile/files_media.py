"""Hostile pictures and videos, small files all of them."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image


def png(width: int, height: int, bits: int = 8, color: int = 2, chunks: bytes = b"", rows: int = -1) -> bytes:
    """Return a black PNG; its data is a few hundred kilobytes for a hundred million pixels.

    Args:
        width: announced width in pixels.
        height: announced height in pixels.
        bits: bits per channel.
        color: PNG's type: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA.
        chunks: chunks before the data.
        rows: rows of data; -1 is all of them.
    """
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    line = bytes(1 + (width * bits * channels + 7) // 8)
    packer = zlib.compressobj(9)
    data = io.BytesIO()
    step = max(1, (1 << 20) // len(line))
    left = height if rows < 0 else rows
    while left > 0:
        data.write(packer.compress(line * min(step, left)))
        left -= step
    data.write(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    palette = png_chunk(b"PLTE", bytes(3)) + png_chunk(b"tRNS", b"\0") if color == 3 else b""
    parts = [png_chunk(b"IHDR", header), chunks, palette, png_chunk(b"IDAT", data.getvalue())]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + png_chunk(b"IEND", b"")


def png_chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def jpeg_announcing(width: int, height: int) -> bytes:
    """Return a small JPEG whose header announces another size."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff(width: int, height: int, mode: str = "RGB", compression: str = "tiff_adobe_deflate") -> bytes:
    """Return a black TIFF of a mode."""
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "TIFF", compression=compression)
    return buffer.getvalue()


def pillow(width: int, height: int, form: str, mode: str = "RGB", **options: Any) -> bytes:
    """Return a black picture in a format that Pillow writes."""
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, form, **options)
    return buffer.getvalue()


def gif(width: int, height: int, frames: int = 2, screen: tuple[int, int] | None = None) -> bytes:
    """Return an animated GIF whose logical screen may be larger than its frames."""
    buffer = io.BytesIO()
    pictures = [Image.new("P", (width, height), i % 2) for i in range(frames)]
    pictures[0].putpalette([0, 0, 0, 255, 255, 255])
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=40, loop=0)
    data = bytearray(buffer.getvalue())
    if screen is not None:
        data[6:10] = struct.pack("<HH", *screen)
    return bytes(data)


def video(
    path: Path,
    times: list[int],
    time_base: Fraction = Fraction(1, 1000),
    codec: str = "mpeg4",
    size: tuple[int, int] = (64, 64),
    rate: Fraction = Fraction(25),
    form: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode small frames, and mux them with time stamps of one's own.

    Args:
        path: file to write.
        times: presentation time of every frame, in ticks.
        time_base: seconds of a tick.
        codec: encoder.
        size: width and height in pixels.
        rate: declared frames per second.
        form: container; by the suffix by default.
        options: options of the container.
    """
    with av.open(str(path), "w", format=form, container_options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24", "gif": "rgb8"}.get(codec, "yuv420p")
        stream.codec_context.gop_size = 1
        stream.codec_context.max_b_frames = 0
        picture = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
        packets: list[Any] = []
        for number, _ in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1) / rate
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for packet, time in zip(packets, times, strict=False):
            packet.time_base = time_base
            packet.pts = packet.dts = time
            packet.duration = max(1, int(Fraction(1) / rate / time_base))
            container.mux(packet)
    return path


def raw_packets(
    path: Path,
    codec: str,
    packets: list[bytes],
    size: tuple[int, int] = (64, 64),
    form: str | None = None,
    streams: int = 1,
) -> Path:
    """Mux packets of any content as frames of a codec; the container announces ``size``.

    Args:
        path: file to write.
        codec: name of the codec.
        packets: content of the frames, one each 40 ms.
        size: width and height that the container announces.
        form: container; by the suffix by default.
        streams: number of video streams, each with all of the packets.
    """  # fmt: skip
    with av.open(str(path), "w", format=form) as container:
        made: list[Any] = []
        for _ in range(streams):
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "rgb24" if codec == "png" else "yuv420p"
            made.append(stream)
        for number, data in enumerate(packets):
            for stream in made:
                packet = av.Packet(data)
                packet.stream = stream
                packet.time_base = Fraction(1, 1000)
                packet.pts = packet.dts = number * 40
                packet.duration = 40
                packet.is_keyframe = True
                container.mux(packet)
    return path


def box(name: bytes, *content: bytes) -> bytes:
    """Return a box of an MP4 file."""
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + name + data


def mp4_of_many_samples(count: int, length: int = 1, delta: int = 1, scale: int = 25) -> bytes:
    """Return an MP4 whose tables announce ``count`` frames without listing them.

    Args:
        count: number of announced frames.
        length: bytes of each.
        delta: ticks from one to the next.
        scale: ticks per second.
    """
    jpeg = jpeg_announcing(64, 64)
    full = bytes(4)
    entry = box(
        b"jpeg", bytes(6), struct.pack(">H", 1), bytes(16), struct.pack(">HH", 64, 64),
        struct.pack(">IIIH", 0x480000, 0x480000, 0, 1), bytes(32), struct.pack(">Hh", 24, -1),
    )  # fmt: skip
    ticks = min(count * delta, 2**32 - 1)
    stbl = box(
        b"stbl",
        box(b"stsd", full, struct.pack(">I", 1), entry),
        box(b"stts", full, struct.pack(">III", 1, count, delta)),
        box(b"stsc", full, struct.pack(">IIII", 1, 1, count, 1)),
        box(b"stsz", full, struct.pack(">II", length, count)),
        box(b"stco", full, struct.pack(">II", 1, 40)),
    )
    minf = box(
        b"minf",
        box(b"vmhd", struct.pack(">I", 1), bytes(8)),
        box(b"dinf", box(b"dref", full, struct.pack(">I", 1), box(b"url ", struct.pack(">I", 1)))),
        stbl,
    )
    handler = box(b"hdlr", full, bytes(4), b"vide", bytes(13))
    mdhd = box(b"mdhd", full, struct.pack(">IIIII", 0, 0, scale, ticks, 0))
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    tkhd = box(
        b"tkhd", struct.pack(">I", 3), struct.pack(">IIIII", 0, 0, 1, 0, ticks), bytes(16), matrix,
        struct.pack(">II", 64 << 16, 64 << 16),
    )  # fmt: skip
    trak = box(b"trak", tkhd, box(b"mdia", mdhd, handler, minf))
    mvhd = box(
        b"mvhd", full, struct.pack(">IIII", 0, 0, scale, ticks), struct.pack(">IH", 0x10000, 0x100),
        bytes(10),
        matrix, bytes(24), struct.pack(">I", 2),
    )  # fmt: skip
    ftyp = box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2mp41")
    head = ftyp + box(b"mdat", jpeg)
    return head.replace(b"", b"") + box(b"moov", mvhd, trak)


def mp4_with_empty_edit(path: Path, seconds: int) -> Path:
    """Write an MP4 of a few frames which an edit list lets begin after so many seconds of nothing."""
    video(path, [i * 40 for i in range(10)])
    data = path.read_bytes()
    at = data.index(b"elst") - 4
    old = data[at : at + struct.unpack(">I", data[at : at + 4])[0]]
    count = struct.unpack(">I", old[12:16])[0]
    entries = struct.pack(">Iii", seconds * 1000, -1, 0x10000) + old[16:]
    new = box(b"elst", old[8:12], struct.pack(">I", count + 1), entries)
    grown = len(new) - len(old)
    data = data[:at] + new + data[at + len(old) :]
    for name in (b"edts", b"trak", b"moov"):
        where = data.index(name) - 4
        size = struct.unpack(">I", data[where : where + 4])[0]
        data = data[:where] + struct.pack(">I", size + grown) + data[where + 4 :]
    path.write_bytes(data)
    return path
