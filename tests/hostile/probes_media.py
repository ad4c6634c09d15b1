"""Probes of pictures and videos: what they announce, what they lead to, what they do to a whole check."""

from __future__ import annotations

import os
from fractions import Fraction
from functools import partial
from pathlib import Path

from tests.hostile import files_media as media
from tests.hostile.bench import MUCH_MB, Bench, Open, in_order, refused, samples, shown, small
from tests.hostile.capped import Ended
from tests.hostile.registry import probe

PICTURE_MB = 1000.0
"""Megabytes that a picture of the largest accepted size may take: its pixels a few times over."""
READ_PICTURE = "import sys; from portrait_core.media import read_image; print(read_image(sys.argv[1]).shape)"
PROBE = "import sys; from portrait_core.media import probe; print(probe(sys.argv[1]))"
READ_FRAMES = (
    "import sys; from portrait_core.media import read_frames\n"
    "for frame in read_frames(sys.argv[1]): print(frame.shape)"
)
_OURS = "portrait_core.errors."


def picture(bench: Bench, name: str, data: bytes, much_mb: float = PICTURE_MB) -> str:
    """Read a hostile picture; it may be refused by our error or read, in bounded memory."""
    ended = bench.python(READ_PICTURE, bench.place(name, data))
    return _small(bench, READ_PICTURE, ended, samples()[0], much_mb)


def clip(bench: Bench, path: Path, code: str = PROBE, much_mb: float = MUCH_MB) -> str:
    """Probe or read a hostile video; it may be refused by our error or read, in bounded memory."""
    return _small(bench, code, bench.python(code, path), samples()[1], much_mb)


def _small(bench: Bench, code: str, ended: Ended, innocent: Path, much_mb: float) -> str:
    said = small(ended, bench.python(code, innocent), much_mb)
    if ended.code is None or ended.code < 0 or (ended.code and _OURS not in ended.output):
        raise Open(f"no error of ours, exit {ended.code}: {shown(ended.last_line)}")
    if ended.cpu_s > 30:
        raise Open(f"took {ended.cpu_s:.0f} s of processor time")
    return said


def deep(bench: Bench, *rows: dict[str, str], seconds: float = 60.0) -> Ended:
    """Check a manifest of the given rows, and of one sound row behind them, by opening everything."""
    manifest = bench.manifest([*rows, {"name": "sound"}])
    return bench.portrait("dataset", "check", "--deep", manifest, seconds=seconds)


# Rows of the table


@probe("media", "medium", 9)
def time_gap_mkv(bench: Bench) -> str:
    """A time gap of four months in a small mkv."""
    times = [i * 40 for i in range(30)] + [10**10]
    return clip(bench, media.video(bench.folder / "gap.mkv", times))


@probe("media", "medium", 9)
def png_of_88_megapixels(bench: Bench) -> str:
    """340 kB of PNG with alpha."""
    return picture(bench, "a.png", media.png(9400, 9400, 8, 6))


@probe("media", "medium", 9)
def video_of_16000_pixels(bench: Bench) -> str:
    """A mov of 1.5 MB whose frames have 16,000 pixels a side, which its container does not say."""
    frames = [media.png(16000, 16000)] * 2
    return clip(bench, media.raw_packets(bench.folder / "a.mov", "png", frames))


@probe("media", "medium", 10)
def svg_named_mp4(bench: Bench) -> str:
    """An SVG as a video: the rest of the check goes on."""
    path = bench.place("drawing.mp4", '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    return _one_bad(deep(bench, {"video": str(path)}))


@probe("media", "medium", 10)
def gap_in_a_check(bench: Bench) -> str:
    """A time gap as one input of many: the rest of the check goes on."""
    times = [i * 40 for i in range(30)] + [10**10]
    return _one_bad(deep(bench, {"video": str(media.video(bench.folder / "gap.mkv", times))}))


def _one_bad(ended: Ended) -> str:
    said = refused(ended, 60.0)
    if "row 2:" not in ended.output or "frames" not in ended.output:
        raise Open(f"the check ended early: {shown(ended.last_line)}")
    return said


@probe("media", "medium-low", 14)
def playlist_named_mp4(bench: Bench) -> str:
    """An HLS playlist named .mp4 reads another file beside it."""
    _other(bench)
    text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\nother.ts\n#EXT-X-ENDLIST\n"
    return _reads_nothing_else(bench, bench.place("list.mp4", text))


@probe("media", "medium-low", 14)
def playlist_with_an_absolute_path(bench: Bench) -> str:
    """An HLS playlist (.m3u8) reads a file by its absolute path."""
    other = _other(bench)
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n{other}\n#EXT-X-ENDLIST\n"
    return _reads_nothing_else(bench, bench.place("list.m3u8", text))


@probe("media", "medium-low", 14)
def ffconcat(bench: Bench) -> str:
    """A relative ffconcat script reads another file."""
    _other(bench)
    return _reads_nothing_else(bench, bench.place("list.mp4", "ffconcat version 1.0\nfile other.ts\n"))


@probe("media", "medium-low", 14)
def numbered_pictures(bench: Bench) -> str:
    """A file named other%03d.png reads the numbered pictures beside it."""
    for number in range(1, 4):
        bench.place(f"other{number:03d}.png", media.png(96, 96))
    return _reads_nothing_else(bench, bench.place("other%03d.png", media.png(64, 64)), "96")


@probe("media", "medium-low", 14)
def audio_of_a_playlist(bench: Bench) -> str:
    """The writer takes its sound from a playlist."""
    _other(bench)
    path = bench.place("list.mp4", "ffconcat version 1.0\nfile other.ts\n")
    code = (
        "import sys; from fractions import Fraction; import numpy as np\n"
        "from portrait_core.media import VideoWriter\n"
        "with VideoWriter(sys.argv[2], (64, 64), Fraction(25), audio_from=sys.argv[1]) as writer:\n"
        "    writer.write(np.zeros((64, 64, 3), np.uint8))\n"
        "print('written')"
    )
    ended = bench.python(code, path, bench.folder / "out.mp4")
    if "written" in ended.output:
        raise Open("the writer opened the playlist")
    return refused(_ours(ended))


def _other(bench: Bench) -> Path:
    return media.video(
        bench.folder / "other.ts", [i * 3600 for i in range(30)], Fraction(1, 90000), "mpeg2video"
    )


def _reads_nothing_else(bench: Bench, path: Path, mark: str = "VideoInfo") -> str:
    """A file that leads to others: neither our reader nor ffmpeg's may follow it."""
    for code in (PROBE, READ_FRAMES):
        ended = bench.python(code, path)
        if mark in ended.output or (code == READ_FRAMES and ended.code == 0 and mark == "VideoInfo"):
            raise Open(f"read another file: {shown(ended.last_line)}")
        in_order(_ours(ended))
    return f"exit {ended.code}: {shown(ended.last_line)}"


def _ours(ended: Ended) -> Ended:
    """Return the end of a piece of Python without the traceback of our own error."""
    if ended.code == 1 and _OURS in ended.last_line:
        return Ended(2, ended.seconds, ended.cpu_s, ended.peak_mb, ended.last_line)
    return ended


@probe("media", "low", 19)
def eps_named_jpg(bench: Bench) -> str:
    """An EPS named .jpg starts Ghostscript."""
    canary = bench.folder / "started"
    tool = bench.place("bin/gs", f"#!/bin/sh\ntouch {canary}\n")
    tool.chmod(0o755)
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"
    path = f"{tool.parent}:{os.environ['PATH']}"
    ended = bench.python(READ_PICTURE, bench.place("a.jpg", eps), PATH=path)
    if canary.exists():
        raise Open("Ghostscript was started")
    return refused(_ours(ended))


# Others


def _picture_probe(name: str, title: str, file: str, data: partial[bytes]) -> None:
    def attack(bench: Bench) -> str:
        return picture(bench, file, data())

    attack.__name__, attack.__doc__ = name, title
    probe("media", "medium")(attack)


for _name, _title, _file, _data in (
    ("webp_with_alpha", "3 kB of WebP of 88 megapixels.", "a.webp",
     partial(media.pillow, 9400, 9400, "WEBP", "RGBA", lossless=True)),
    ("png_of_16_bits", "Grey of 16 bits, 88 megapixels.", "a.png", partial(media.png, 9400, 9400, 16, 0)),
    ("png_palette_of_one_bit", "11 kB of palette with transparency.", "a.png",
     partial(media.png, 9400, 9400, 1, 3)),
    ("tiff_of_16_bits", "A deflated TIFF of 16 bits.", "a.tif", partial(media.tiff, 9400, 9400, "I;16")),
    ("tiff_fax", "3 kB of fax TIFF.", "a.tif", partial(media.tiff, 9400, 9400, "1", "group4")),
    ("jpeg_2000", "1.5 kB of JPEG 2000 with alpha.", "a.jp2",
     partial(media.pillow, 9400, 9400, "JPEG2000", "RGBA")),
    ("jpeg_that_lies", "0.7 kB of JPEG whose header announces 88 megapixels.", "a.jpg",
     partial(media.jpeg_announcing, 9400, 9400)),
    ("cmyk_tiff", "A deflated TIFF of four inks.", "a.tif", partial(media.tiff, 9400, 9400, "CMYK")),
):  # fmt: skip
    _picture_probe(_name, _title, _file, _data)


@probe("media", "medium")
def gif_of_a_huge_screen(bench: Bench) -> str:
    """171 bytes of GIF whose screen has 16,000 pixels a side, as a video."""
    return clip(bench, bench.place("a.gif", media.gif(64, 64, 3, (16000, 16000))))


@probe("media", "medium")
def gif_as_portrait(bench: Bench) -> str:
    """The same GIF, of 9,400 pixels a side, as a picture."""
    return picture(bench, "a.gif", media.gif(64, 64, 3, (9400, 9400)))


@probe("media", "medium")
def mp4_that_announces_frames(bench: Bench) -> str:
    """1.3 kB of MP4 whose tables announce 60 million frames."""
    return clip(bench, bench.place("a.mp4", media.mp4_of_many_samples(60_000_000)))


@probe("media", "medium")
def mp4_with_long_frames(bench: Bench) -> str:
    """An MP4 of a hundred frames, each of which lasts a year by its table."""
    return clip(bench, bench.place("a.mp4", media.mp4_of_many_samples(100, 1, 2**31 - 1, 60)))


@probe("media", "medium")
def size_changes_late(bench: Bench) -> str:
    """Frames of 64 pixels, then one of 16,000."""
    little, big = media.png(64, 64), media.png(16000, 16000)
    path = media.raw_packets(bench.folder / "a.mov", "png", [little] * 5 + [big])
    return clip(bench, path, READ_FRAMES)


@probe("media", "medium")
def avi_that_lies(bench: Bench) -> str:
    """An AVI of 64 pixels whose frames have 16,000, read frame by frame."""
    frames = [media.pillow(16000, 16000, "JPEG", "L", quality=1)] * 2
    return clip(bench, media.raw_packets(bench.folder / "a.avi", "mjpeg", frames), READ_FRAMES)


@probe("media", "medium")
def many_streams(bench: Bench) -> str:
    """A mov of eight video tracks, each with frames of 16,000 pixels a side."""
    path = media.raw_packets(bench.folder / "a.mov", "png", [media.png(16000, 16000)], streams=8)
    return clip(bench, path)


@probe("media", "medium")
def time_stamps_of_a_broken_rate(bench: Bench) -> str:
    """Two frames a millisecond apart, and one ten thousand seconds later (a rate of 1/0)."""
    path = media.video(bench.folder / "a.mkv", [0, 1, 10**7], rate=Fraction(1000))
    return clip(bench, path)


@probe("media", "medium")
def declared_rate_of_sixty_thousand(bench: Bench) -> str:
    """A declared rate of sixty thousand frames per second over a gap of an hour."""
    times = [*range(0, 400, 40), 360_000_000]
    return clip(bench, media.video(bench.folder / "a.mkv", times, Fraction(1, 10**5), rate=Fraction(60_000)))


@probe("media", "medium")
def gap_in_webm(bench: Bench) -> str:
    """A time gap in a webm of VP9."""
    times = [i * 40 for i in range(30)] + [10**10]
    return clip(bench, media.video(bench.folder / "a.webm", times, codec="libvpx-vp9"))


@probe("media", "medium")
def gap_in_flv(bench: Bench) -> str:
    """A time gap of 24 days in an flv."""
    times = [i * 40 for i in range(30)] + [2_000_000_000]
    return clip(bench, media.video(bench.folder / "a.flv", times, codec="flv1"))


@probe("media", "medium")
def early_time_stamp(bench: Bench) -> str:
    """A first frame four months before the others (negative time stamps)."""
    times = [-(10**10), *(i * 40 for i in range(30))]
    path = media.video(bench.folder / "a.nut", times)
    return clip(bench, path)


@probe("media", "medium")
def many_large_pictures_at_once(bench: Bench) -> str:
    """Sixteen rows with portraits of 88 megapixels: the check opens them side by side."""
    first = bench.place("p0.png", media.png(9400, 9400, 8, 6))
    rows = []
    for number in range(16):
        path = bench.folder / f"p{number}.png"
        if number:
            os.link(first, path)
        rows.append({"portrait": str(path), "name": f"r{number}"})
    ended = deep(bench, *rows, seconds=170.0)
    innocent = deep(bench)
    said = small(ended, innocent, 3000.0)
    if ended.code is None or ended.crashed:
        raise Open(f"exit {ended.code}: {shown(ended.last_line)}")
    return said


@probe("media", "medium")
def fifo_as_video(bench: Bench) -> str:
    """A pipe that nobody writes to as a video."""
    os.mkfifo(bench.folder / "pipe.mp4")
    return _one_bad(deep(bench, {"video": str(bench.folder / "pipe.mp4")}, seconds=30.0))


@probe("media", "medium")
def device_as_portrait(bench: Bench) -> str:
    """A device that never ends as a portrait."""
    return _one_bad(deep(bench, {"portrait": "/dev/zero"}, seconds=30.0))


@probe("media", "medium")
def terminal_as_video(bench: Bench) -> str:
    """A device that waits for a person (/dev/tty, /dev/ptmx) as a video."""
    return _one_bad(deep(bench, {"video": "/dev/ptmx"}, seconds=30.0))


@probe("media", "medium")
def fifo_behind_a_link_reenacted(bench: Bench) -> str:
    """`reenact --dry-run` with a link to a pipe as its portrait."""
    os.mkfifo(bench.folder / "pipe")
    (bench.folder / "face.png").symlink_to(bench.folder / "pipe")
    ended = bench.portrait(
        "reenact", "--dry-run", "--portrait", bench.folder / "face.png", "--video", samples()[1],
        "--store", bench.folder / "s", "--out", bench.folder / "o", seconds=40.0,
    )  # fmt: skip
    return refused(ended)


@probe("media", "medium")
def huge_sparse_video(bench: Bench) -> str:
    """A sparse file of a terabyte as a video: no digest is taken of it."""
    path = bench.place("a.mp4", b"\0\0\0\x18ftypisom")
    os.truncate(path, 1 << 40)
    ended = bench.portrait(
        "reenact", "--dry-run", "--portrait", samples()[0], "--video", path, "--store", bench.folder / "s",
        "--out", bench.folder / "o", seconds=60.0,
    )  # fmt: skip
    return refused(ended)


@probe("media", "medium")
def text_in_a_picture(bench: Bench) -> str:
    """A PNG whose colour profile and text chunks inflate to two gigabytes."""
    import zlib

    blob = zlib.compress(bytes(1 << 30), 9)
    chunks = media.png_chunk(b"iCCP", b"a\0\0" + blob) + media.png_chunk(b"zTXt", b"a\0\0" + blob)
    return picture(bench, "a.png", media.png(64, 64, chunks=chunks))


@probe("media", "low")
def dash_manifest(bench: Bench) -> str:
    """A DASH manifest named .mp4 reads another file."""
    media.video(bench.folder / "other.mp4", [i * 40 for i in range(30)])
    text = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:full:2011"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>other.mp4'
        "</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )
    return _reads_nothing_else(bench, bench.place("list.mp4", text))


@probe("media", "low")
def subtitles_as_video(bench: Bench) -> str:
    """Text art and subtitles named .mp4, which ffmpeg draws as pictures."""
    for name, text in (
        ("a.mp4", "1\n00:00:00,000 --> 00:00:01,000\nhi\n"),
        ("b.ans", "\x1b[2J hello " * 500),
    ):
        ended = bench.python(PROBE, bench.place(name, text))
        in_order(_ours(ended))
        if ended.code == 0:
            raise Open(f"{name} was read as a video: {shown(ended.last_line)}")
    return "refused"


@probe("media", "low")
def picture_formats_that_nobody_uses(bench: Bench) -> str:
    """Formats of Pillow with readers of their own (PSD, FLI, PCX, ICNS, DDS, MPO ...) as portraits."""
    accepted = []
    for form in ("PCX", "DDS", "ICNS", "SGI", "TGA", "IM", "MSP", "SPIDER", "BLP", "PDF"):
        mode = {"MSP": "1", "SPIDER": "F", "BLP": "P"}.get(form, "RGB")
        try:
            data = media.pillow(128, 128, form, mode)
        except (OSError, ValueError, KeyError):
            continue
        if bench.python(READ_PICTURE, bench.place(f"{form}.jpg", data)).code == 0:
            accepted.append(form)
    if accepted:
        raise Open(f"read as portraits: {', '.join(accepted)}")
    return "none is read"
