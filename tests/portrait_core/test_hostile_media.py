"""Pictures and videos that announce more than they hold, name other files, or are no files."""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from portrait_core.dataset.manifest import check_manifest
from portrait_core.errors import EncodeError, InputError
from portrait_core.media import VideoWriter, probe, read_frames, read_image
from portrait_core.media.rates import constant_rate, frame_count
from portrait_core.settings.limits import Limits, use_limits
from tests.conftest import FfmpegRunner
from tests.portrait_core.hostile_mp4 import mp4_of_one_long_run, mp4_of_one_sample_size

_CHILD = """
import resource, sys, threading
from portrait_core.errors import InputError
from portrait_core.media import probe, read_frames, read_image, turns
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
turns.ROOM_PIXELS = int(sys.argv[2])
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) >> 10
def look(path):
    try:
        what = len(read_image(path)) if sys.argv[1] == "image" else sum(1 for _ in read_frames(path))
        print(path, "READ", what, flush=True)
    except InputError as error:
        print(path, error, flush=True)
before = peak()
threads = [threading.Thread(target=look, args=[path]) for path in sys.argv[3:]]
for thread in threads:
    thread.start()
    if turns.ROOM_PIXELS > 10**8:
        thread.join()
for thread in threads:
    thread.join()
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
print(peak() - before, children)
"""


def look(kind: str, *paths: Path, room: int = 10**9) -> tuple[list[str], int, int]:
    """What a process says of files, the megabytes it takes for them, and those of the ffmpeg it starts."""
    command = [sys.executable, "-c", _CHILD, kind, str(room), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    *said, memory = done.stdout.splitlines()
    assert not done.stderr, done.stderr[-2000:]
    own, children = map(int, memory.split())
    return said, own, children


# Videos that announce more than they hold


def _clip(path: Path, container: str, codec: str, last: int) -> Path:
    """Thirty small pictures at 25 a second, the last of them at another time."""
    with av.open(str(path), "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for i in range(30):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = (last if i == 29 else i), Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def test_a_gap_in_time_costs_no_memory_in_any_container(tmp_path: Path) -> None:
    clips = [
        _clip(tmp_path / "gap.mkv", "matroska", "libx264", 200_000_000),
        _clip(tmp_path / "gap.webm", "webm", "libvpx-vp9", 200_000_000),
        _clip(tmp_path / "gap.flv", "flv", "libx264", 2_000_000),
        _clip(tmp_path / "gap.ts", "mpegts", "libx264", 2_000_000),
        _clip(tmp_path / "gap.mp4", "mp4", "libx264", 4_000_000),
    ]
    said, own, _ = look("video", *clips)
    assert all("time stamps are broken" in line for line in said), said
    assert own < 100


def test_gaps_below_the_limit_are_compared_with_it(tmp_path: Path, limits: Callable[..., None]) -> None:
    clip = _clip(tmp_path / "gap.mkv", "matroska", "libx264", 3000)
    assert probe(clip).frame_count == 3001
    os.utime(clip, ns=(0, 0))  # read again
    limits(video_frames=2000)
    with pytest.raises(InputError, match=r"holds 3,001 frames, more than the 2,000 that limits.video_frames"):
        probe(clip)


def test_a_stream_of_more_packets_than_frames_are_allowed_is_left_at_once(
    tmp_path: Path, limits: Callable[..., None]
) -> None:
    limits(video_frames=10)
    with pytest.raises(InputError, match="holds 11 frames"):
        probe(_clip(tmp_path / "a.mkv", "matroska", "libx264", 29))


def test_extreme_time_stamps_are_counted_without_overflow() -> None:
    base = Fraction(1, 1000)
    for first, last in [(-(2**63), 2**63 - 1), (0, 2**62), (-(2**62), 5)]:
        ticks = np.array([first, first + 40, first + 80, last], dtype=np.int64)
        rate, varies = constant_rate(ticks, base, [Fraction(10**9)])
        assert varies
        assert rate > 0
        assert frame_count(ticks, base, rate, varies, 40) > 10**6


@pytest.fixture
def large(ffmpeg_to: FfmpegRunner) -> Path:
    """A frame of 41 million pixels."""
    source = "color=red:s=6400x6400:r=5:d=0.2"
    return ffmpeg_to("large.h264", "-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast")


def test_pictures_of_a_video_are_no_larger_than_allowed(
    tmp_path: Path, ffmpeg_to: FfmpegRunner, large: Path
) -> None:
    (tmp_path / "named.png").write_bytes(_png(16_000, 16_000, 1, 0))
    clips = [ffmpeg_to(f"large.{kind}", "-i", large, "-c", "copy") for kind in ("mkv", "mp4", "ts", "avi")]
    said, own, _ = look("video", *clips, tmp_path / "named.png")
    assert all("more than the 36,000,000 that limits.video_pixels allows" in line for line in said[:4]), said
    assert "limits.video_pixels" in said[4]
    assert own < 100


def test_a_size_that_grows_in_the_middle_is_not_decoded(
    tmp_path: Path, ffmpeg_to: FfmpegRunner, large: Path
) -> None:
    small = ffmpeg_to("small.h264", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=1", "-pix_fmt", "yuv420p")
    (tmp_path / "grows.h264").write_bytes(small.read_bytes() + large.read_bytes() + small.read_bytes())
    said, own, children = look("video", tmp_path / "grows.h264")
    assert len(said) == 1
    assert own < 100
    assert children < 250


def test_samples_that_a_file_cannot_hold_are_not_indexed(tmp_path: Path) -> None:
    for name, content in {
        "sizes.mp4": mp4_of_one_sample_size(20_000_000),
        "run.mp4": mp4_of_one_long_run(60_000_000),
        "tracks.mp4": mp4_of_one_long_run(5_000_000, tracks=30),
        "behind.mp4": b"\0\0\0\x10uuid12345678" + mp4_of_one_long_run(20_000_000),
    }.items():
        (tmp_path / name).write_bytes(content)
    said, own, _ = look("video", *sorted(tmp_path.iterdir()))
    assert all("samples, more than its" in line for line in said), said
    assert own < 100


def test_fragments_and_uncompressed_sound_are_no_such_files(
    ffmpeg_to: FfmpegRunner, counting_clip: Path
) -> None:
    for name, options in {
        "pieces.mp4": ("-c", "copy", "-movflags", "frag_every_frame+empty_moov+default_base_moof"),
        "pcm.mov": ("-c:v", "copy", "-c:a", "pcm_s16le"),
        "old.mov": ("-c:v", "copy", "-c:a", "adpcm_ima_qt"),
    }.items():
        assert probe(ffmpeg_to(name, "-i", counting_clip, *options)).frame_count in (60, 61)


# Files that name others


LISTS = {
    "list.mp4": ("ffconcat version 1.0\nfile other.mp4\n", "a list of other files"),
    "hls.mp4": ("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.mp4\n#EXT-X-ENDLIST\n", "a playlist"),
    "dash.mp4": (
        '<?xml version="1.0"?>\n<MPD type="static"><BaseURL>other.mp4</BaseURL></MPD>',
        "a playlist",
    ),
    "sdp.mp4": (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        "a description of a stream",
    ),
    "drawing.mp4": ('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', r"a drawing \(SVG\)"),
    "story.mp4": ("Once upon a time\n" * 20, "a text file"),
}


@pytest.mark.parametrize("name", LISTS)
def test_files_that_name_others_are_refused_for_what_they_are(
    tmp_path: Path, counting_clip: Path, name: str
) -> None:
    content, kind = LISTS[name]
    (tmp_path / "other.mp4").write_bytes(counting_clip.read_bytes())
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name} is not a readable video \(it is {kind}"):
        probe(tmp_path / name)
    with pytest.raises(InputError, match=kind):
        VideoWriter(tmp_path / "out.mp4", (64, 64), Fraction(25), audio_from=tmp_path / name)


def test_ffmpeg_opens_nothing_but_the_file_even_when_that_became_a_list(
    tmp_path: Path, counting_clip: Path
) -> None:
    (tmp_path / "other.mp4").write_bytes(counting_clip.read_bytes())
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(counting_clip.read_bytes())
    probe(clip)  # known from now on
    before = clip.stat()
    text = b"ffconcat version 1.0\nfile other.mp4\n"
    clip.write_bytes(text + b"#" * (before.st_size - len(text)))
    os.utime(clip, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match="no frame decodes"):
        list(read_frames(clip))
    writer = VideoWriter(tmp_path / "out.mp4", (64, 64), Fraction(25), audio_from=clip)
    with pytest.raises(EncodeError):
        _fill(writer)
    assert not (tmp_path / "out.mp4").exists()


def _fill(writer: VideoWriter) -> None:
    with writer:
        for _ in range(60):
            writer.write(np.zeros((64, 64, 3), np.uint8))


def test_names_are_neither_patterns_nor_protocols_nor_options(tmp_path: Path, counting_clip: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(picture, "PNG")
    (tmp_path / "other001.png").write_bytes(picture.getvalue()[:40])
    (tmp_path / "other%03d.png").write_bytes(picture.getvalue())
    assert probe(tmp_path / "other%03d.png").frame_count == 1
    names = ["-i", "concat:a|b", "subfile,,start,0,end,9,,:a.mp4", "pipe:0", "fd:", "data:video,x", "*.mp4"]
    for name in names:
        (tmp_path / name).write_bytes(counting_clip.read_bytes())
        assert len(list(read_frames(tmp_path / name, 58, 60))) == 2


# No files


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.mp4"))
        (tmp_path / "link.mp4").symlink_to("/dev/zero")
        for name, kind in {
            "pipe.mp4": "is a pipe", "socket.mp4": "is a socket", "link.mp4": "is a device",
            "/dev/full": "is a device", "/proc/self/status": "is empty", "a\0b": "does not exist",
            "x" * 300: "cannot be read",
        }.items():  # fmt: skip
            for read in (probe, read_image, read_frames):
                with pytest.raises(InputError, match=kind):
                    read(tmp_path / name)


# Pictures


def _png(width: int, height: int, depth: int, colour: int, *chunks: bytes) -> bytes:
    """A black picture."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * bits + 7) // 8)
    packer = zlib.compressobj(1)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (_chunk(b"IHDR", header), *chunks, _chunk(b"IDAT", pixels), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_no_mode_takes_several_times_the_memory_of_the_result(tmp_path: Path) -> None:
    palette = (_chunk(b"PLTE", bytes(768)), _chunk(b"tRNS", bytes(256)))
    for name, depth, colour, chunks in [
        ("rgba", 8, 6, ()), ("deep", 16, 0, ()), ("palette", 8, 3, palette),
    ]:  # fmt: skip
        (tmp_path / f"{name}.png").write_bytes(_png(2500, 2500, depth, colour, *chunks))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (2500, 2500)).save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(np.zeros((2500, 2500), np.int32)).save(tmp_path / "int.tif", compression="packbits")
    said, own, _ = look("image", *sorted(tmp_path.iterdir()))
    assert all("READ 2500" in line for line in said), said
    result = 2500 * 2500 * 3 >> 20
    assert own < 6 * result


def test_large_pictures_are_decoded_in_turn(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png(2500, 2500, 8, 6))
    said, own, _ = look("image", *[tmp_path / "a.png"] * 6, room=7_000_000)
    assert all("READ 2500" in line for line in said)
    assert own < 8 * (2500 * 2500 * 3 >> 20)  # six at a time take more than fourteen


def test_announced_pixels_and_bytes_are_compared_before_decoding(
    tmp_path: Path, limits: Callable[..., None]
) -> None:
    gif, webp = io.BytesIO(), io.BytesIO()
    Image.new("P", (8, 8)).save(gif, "GIF")
    Image.new("RGB", (8, 8)).save(webp, "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), 9)])
    canvas, at = bytearray(webp.getvalue()), webp.getvalue().index(b"VP8X") + 12
    canvas[at : at + 6] = b"\xff\xff\0\xff\xff\0"
    files = {
        "a.png": _png(20_000, 10_000, 1, 0)[:200],
        "b.png": _png(12_000, 10_000, 1, 0)[:200],
        "a.gif": gif.getvalue()[:6] + struct.pack("<HH", 65535, 65535) + gif.getvalue()[10:],
        "a.webp": bytes(canvas),
        "a.ppm": b"P6 60000 60000 255\n" + bytes(100),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            InputError, match=r"pixels, more than the 100,000,000 that limits\.picture_pixels"
        ):
            read_image(tmp_path / name)
    limits(picture_bytes=100)
    with pytest.raises(InputError, match=r"holds 200 bytes, more than the 100 that limits\.picture_bytes"):
        read_image(tmp_path / "a.png")


def test_a_raised_limit_lets_larger_pictures_and_videos_through(
    tmp_path: Path, limits: Callable[..., None], large: Path
) -> None:
    (tmp_path / "wide.png").write_bytes(_png(10_100, 10_000, 1, 0))
    limits(picture_pixels=101_000_000, video_pixels=41_000_000)
    assert read_image(tmp_path / "wide.png").shape == (10_000, 10_100, 3)
    assert probe(large).width == 6400


def test_scans_and_segments_of_a_jpeg_are_counted(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    (tmp_path / "scans.jpg").write_bytes(data[:last] + data[last:-2] * 3000 + data[-2:])
    (tmp_path / "segments.jpg").write_bytes(data[:2] + b"\xff\xfe\0\2" * 20_000 + data[2:])
    (tmp_path / "film.jpg").write_bytes(data + b"\xff\xda\0\2" * 20_000)  # a phone appends a film
    for name in ("scans", "segments"):
        with pytest.raises(InputError, match=f"has more than .* {name}"):
            read_image(tmp_path / f"{name}.jpg")
    assert read_image(tmp_path / "film.jpg").shape == (64, 64, 3)


def test_metadata_costs_neither_memory_nor_lines_on_the_terminal(tmp_path: Path) -> None:
    count, size = 20_000, 1 << 20
    entry = [struct.pack("<HHII", 1000 + i, 7, size, 14 + 12 * count) for i in range(count)]
    tags = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + b"".join(entry) + bytes(4 + size)
    bomb = zlib.compress(bytes(1 << 27), 9)
    (tmp_path / "exif.png").write_bytes(_png(8, 8, 8, 2, _chunk(b"eXIf", tags)))
    (tmp_path / "icc.png").write_bytes(_png(8, 8, 8, 2, _chunk(b"iCCP", b"a\0\0" + bomb)))
    (tmp_path / "itxt.png").write_bytes(_png(8, 8, 8, 2, _chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)))
    (tmp_path / "text.png").write_bytes(_png(8, 8, 8, 2, *[_chunk(b"zTXt", b"a\0\0" + bomb)] * 20))
    (tmp_path / "tags.tif").write_bytes(tags)
    said, own, _ = look("image", *sorted(tmp_path.iterdir()))
    assert len(said) == 5
    assert own < 60


def test_a_drawing_named_as_a_picture_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, canary = tmp_path / "gs", tmp_path / "canary"
    program.write_text(f"#!/bin/sh\ntouch {canary}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    Image.new("L", (8, 8)).save(tmp_path / "drawing.eps")
    (tmp_path / "drawing.eps").rename(tmp_path / "face.jpg")
    with pytest.raises(InputError, match=r"is not a readable image \(it is a PostScript drawing"):
        read_image(tmp_path / "face.jpg")
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["PCX", "ICO", "TGA", "SGI", "JPEG2000", "PDF", "MSP", "XBM"])
def test_formats_that_nobody_photographs_in_are_not_read(tmp_path: Path, kind: str) -> None:
    Image.new("1" if kind in ("MSP", "XBM") else "RGB", (64, 64)).save(tmp_path / "a.png", kind)
    with pytest.raises(InputError, match="not a readable image"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM", "MPO"])
def test_formats_that_people_have_are_read(tmp_path: Path, kind: str) -> None:
    options = {"save_all": True, "append_images": [Image.new("RGB", (64, 48))]} if kind == "MPO" else {}
    Image.new("RGB", (64, 48), (200, 100, 50)).save(tmp_path / "a", kind, **options)
    assert np.abs(read_image(tmp_path / "a").mean((0, 1)) - [200, 100, 50]).max() < 4


# Damage


def _damaged(whole: bytes, seed: int) -> bytes:
    chance = random.Random(seed)
    data = bytearray(whole)
    for _ in range(chance.choice([1, 3, 20])):
        data[chance.randrange(min(len(data), chance.choice([64, 1024, len(data)])))] = chance.randrange(256)
    return bytes(data[: chance.randrange(len(data))] if chance.random() < 0.4 else data)


def _said(read: Callable[[Path], object], path: Path) -> str:
    """The refusal of a file, else its name; any other error is this test's."""
    try:
        read(path)
    except InputError as error:
        return str(error)
    return str(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM"])
def test_damaged_pictures_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    for seed in range(60):
        (tmp_path / "a").write_bytes(_damaged(buffer.getvalue(), seed) or b"x")
        assert str(tmp_path / "a") in _said(read_image, tmp_path / "a")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "webm", "flv", "gif"])
def test_damaged_videos_are_probed_or_refused(
    tmp_path: Path, ffmpeg_to: FfmpegRunner, counting_clip: Path, suffix: str
) -> None:
    clip = ffmpeg_to(f"tiny.{suffix}", "-i", counting_clip, "-an", "-frames:v", "12", "-s", "32x24")
    for seed in range(25):
        (tmp_path / "a").write_bytes(_damaged(clip.read_bytes(), seed) or b"x")
        assert str(tmp_path / "a") in _said(probe, tmp_path / "a")


def test_one_hostile_input_is_the_problem_of_its_row_alone(
    tmp_path: Path, counting_clip: Path, carphone: Path
) -> None:
    Image.new("RGB", (80, 80)).save(tmp_path / "face.png")
    (tmp_path / "drawing.mp4").write_text(LISTS["drawing.mp4"][0])
    _clip(tmp_path / "gap.mkv", "matroska", "libx264", 200_000_000)
    os.mkfifo(tmp_path / "pipe.mp4")
    videos = ["drawing.mp4", "gap.mkv", "pipe.mp4", str(carphone)]
    table = "\n".join(["portrait,video", *(f"face.png,{video}" for video in videos)])
    (tmp_path / "m.csv").write_text(table)
    manifest, problems = check_manifest(str(tmp_path / "m.csv"), require_consent=False, deep=True)
    assert [problem.row for problem in problems] == [2, 3, 4]
    assert [row.video for row in manifest.rows] == [str(carphone)]


@pytest.fixture
def limits() -> Any:
    """``limits(name=number)`` sets limits of this process for one test."""

    def change(**numbers: int) -> None:
        use_limits(Limits(**numbers))

    yield change
    use_limits(Limits())
