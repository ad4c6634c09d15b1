"""Videos of every codec and container that ffmpeg writes, read here and by ffmpeg itself.

Each pair of codec and container is written at a constant rate, at a varying rate with late sound, and, where
the codec has them, with B-frames at a varying rate. Compared with ffmpeg's own reading are the number of
frames, at which of them the picture changes, and the start and the length of the sound. Run
``python -m tests.benchmarks.containers [NAME ...]``, where names are parts of ``CODEC.CONTAINER``; it prints
the differences, and one row per video with ``--all``. Some are ffmpeg's: a decoder's delay in AVI counts as
a late picture, and the last picture of MPEG-4 and Theora is late by the pause before it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from portrait_core.errors import InputError
from portrait_core.media.binary import ffmpeg_binary
from portrait_core.media.probe import Timeline, scan

CODECS: dict[str, tuple[str, ...]] = {
    "h264": ("libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-bf", "0"),
    "hevc": ("libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:bframes=0"),
    "vp8": ("libvpx", "-deadline", "realtime", "-cpu-used", "8"),
    "vp8alt": ("libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "10", "-cpu-used", "5"),
    "vp9": ("libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    "vp9alt": ("libvpx-vp9", "-auto-alt-ref", "1", "-lag-in-frames", "10", "-cpu-used", "8"),
    "av1": ("libaom-av1", "-cpu-used", "8", "-usage", "realtime"),
    "mpeg4": ("mpeg4",),
    "xvid": ("libxvid",),
    "mpeg1": ("mpeg1video",),
    "mpeg2": ("mpeg2video",),
    "mjpeg": ("mjpeg", "-pix_fmt", "yuvj420p"),
    "prores": ("prores_ks",),
    "dnxhr": ("dnxhd", "-profile:v", "dnxhr_lb", "-pix_fmt", "yuv422p"),
    "ffv1": ("ffv1",),
    "huffyuv": ("huffyuv",),
    "theora": ("libtheora",),
    "wmv1": ("wmv1",),
    "wmv2": ("wmv2",),
    "msmpeg4": ("msmpeg4",),
    "flv1": ("flv",),
    "h263": ("h263",),
    "rv20": ("rv20",),
    "png": ("png",),
    "raw": ("rawvideo", "-pix_fmt", "yuv420p"),
    "gif": ("gif",),
    "apng": ("apng",),
    "webp": ("libwebp_anim",),
}
"""ffmpeg's encoder and its options, by a short name."""
B_FRAMES: dict[str, tuple[str, ...]] = {
    "h264": ("libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-bf", "2", "-b_strategy", "0"),
    "hevc": ("libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:bframes=2:b-adapt=0"),
    "mpeg4": ("mpeg4", "-bf", "2"),
    "mpeg2": ("mpeg2video", "-bf", "2"),
}
"""Encoders that make B-frames, with the options for that."""
CONTAINERS = (
    "mp4", "mov", "3gp", "mkv", "webm", "avi", "ts", "mpg", "vob", "flv", "ogv", "wmv", "mxf", "rm", "wtv",
    "ivf", "y4m", "h264", "hevc", "m4v", "m2v", "mjpeg", "obu", "gif", "apng", "webp",
)  # fmt: skip
"""Suffixes of the containers."""
RATE = Fraction(25)
LATE_S = 0.32
_VARYING = "select='lt(mod(n,7),5)'"
_START_S, _LENGTH_S = 0.03, 0.06
"""Seconds by which sound may differ: decoders leave out what an encoder put before and after it."""


@dataclass(frozen=True)
class Reading:
    """What a program reads of a video."""

    rate: Fraction
    """Frames per second."""
    changes: tuple[int, ...]
    """Frames whose picture is another than that of the frame before them, and the number of frames."""
    sound: tuple[float, float] | None
    """Seconds from the first picture to the start of the sound, and those of its length."""

    def differs(self, other: Reading) -> str:
        """Return words on what differs in another reading; empty where nothing does."""
        words = []
        if self.changes[:-2] == other.changes[:-2] and self.changes != other.changes:
            words.append(f"ends with {_few(self.changes[-2:])} for {_few(other.changes[-2:])}")
        elif self.changes[-1] != other.changes[-1]:
            words.append(f"{self.changes[-1]} frames for {other.changes[-1]}")
        elif self.changes != other.changes:
            words.append(f"changes at {_few(self.changes)} for {_few(other.changes)}")
        if (self.sound is None) != (other.sound is None):
            words.append("sound" if self.sound else "no sound")
        elif self.sound and other.sound:
            for what, one, two, most in zip(
                ("sound starts at", "sound lasts"),
                self.sound,
                other.sound,
                (_START_S, _LENGTH_S),
                strict=True,
            ):
                words += [f"{what} {one:.3f} s for {two:.3f} s"] if abs(one - two) > most else []
        return ", ".join(words)


def _few(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers[:9]))


def write_video(path: Path, encoder: tuple[str, ...], varying: bool, late: bool) -> bool:
    """Write one second of a pattern that changes with every picture; tell whether ffmpeg can.

    Args:
        path: of the video; its suffix names the container.
        encoder: ffmpeg's name of it, and its options.
        varying: leave out two pictures of seven.
        late: let the sound begin :data:`LATE_S` late.
    """
    size = "720x576" if path.suffix == ".mxf" else "176x144"
    picture = ("-f", "lavfi", "-i", f"testsrc2=s={size}:r={RATE}:d=1.2")
    sound = ("-itsoffset", str(LATE_S if late else 0), "-f", "lavfi", "-i", "sine=d=0.8:r=48000")
    streams = ("-vf", _VARYING, "-fps_mode", "vfr") if varying else ()
    quiet = (ffmpeg_binary(), "-hide_banner", "-loglevel", "quiet", "-nostdin", "-y")
    for audio in (("-map", "0:v", "-map", "1:a", "-ac", "1"), ("-map", "0:v", "-an")):
        command = [*quiet, *picture, *sound, *audio, *streams, "-strict", "-2", "-c:v", *encoder, str(path)]
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, timeout=120)
        if done.returncode == 0 and path.stat().st_size:
            return True
    path.unlink(missing_ok=True)
    return False


def own_reading(timeline: Timeline) -> Reading:
    """Return what :mod:`portrait_core.media` reads."""
    slots = timeline.slots
    changes = (np.flatnonzero(np.diff(slots)) + 1).tolist()
    sound = (timeline.audio_delay_s, timeline.info.audio_duration_s) if timeline.info.has_audio else None
    return Reading(timeline.info.frame_rate, (*changes, len(slots)), sound)


def ffmpeg_reading(path: Path, rate: Fraction) -> Reading:
    """Return what ffmpeg reads at a constant rate."""
    command = [ffmpeg_binary(), "-hide_banner", "-loglevel", "quiet", "-nostdin", "-i", str(path)]
    frames = [*command, "-map", "0:v:0", "-vf", f"fps={rate}", "-f", "framemd5", "-"]
    pictures = [row[-1] for row, _ in _rows(frames)]
    streams = ["-map", "0:v:0", "-map", "0:a:0?", "-fps_mode", "passthrough", "-c:a", "pcm_s16le"]
    starts: dict[str, float] = {}
    ends: dict[str, float] = {}
    for row, bases in _rows([*command, *streams, "-f", "framecrc", "-"]):
        begin = float(int(row[2]) * bases[row[0]])
        starts.setdefault(row[0], begin)
        ends[row[0]] = begin + float(int(row[3]) * bases[row[0]])
    changes = [i for i, (one, two) in enumerate(pairwise(pictures), 1) if one != two]
    sound = (starts["1"] - starts["0"], ends["1"] - starts["1"]) if {"0", "1"} <= starts.keys() else None
    return Reading(rate, (*changes, len(pictures)), sound)


def _rows(command: list[str]) -> list[tuple[list[str], dict[str, Fraction]]]:
    """Return the fields of each line that a command prints, with the time bases by stream."""
    text = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120).stdout
    bases: dict[str, Fraction] = {}
    rows = []
    for line in text.splitlines():
        if line.startswith("#tb "):
            stream, base = line.removeprefix("#tb ").split(":")
            bases[stream] = Fraction(base.strip())
        elif line and not line.startswith("#"):
            rows.append(([part.strip() for part in line.split(",")], bases))
    return rows


def compare(path: Path) -> tuple[Reading | None, str]:
    """Return our reading of a video, and words on what differs from ffmpeg's; None where it is refused."""
    try:
        ours = own_reading(scan(path))
    except InputError as error:
        if ffmpeg_reading(path, RATE).changes == (0,):
            return None, ""
        return None, f"refused: {str(error).replace(str(path), path.name)}"
    return ours, ours.differs(ffmpeg_reading(path, ours.rate))


def main(arguments: list[str]) -> None:
    """Print the table."""
    wanted = [word for word in arguments if not word.startswith("-")]
    kinds = [(name, encoder, "constant") for name, encoder in CODECS.items()]
    kinds += [(name, encoder, "varying, late sound") for name, encoder in CODECS.items()]
    kinds += [(name, encoder, "B-frames, varying") for name, encoder in B_FRAMES.items()]
    read = different = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, ((codec, encoder, kind), suffix) in enumerate(product(kinds, CONTAINERS)):
            name = f"{codec}.{suffix}"
            if wanted and not any(word in name for word in wanted):
                continue
            path = Path(folder) / f"{number}.{suffix}"
            if not write_video(path, encoder, "varying" in kind, "late" in kind):
                continue
            ours, words = compare(path)
            path.unlink()
            if ours is None and not words:
                continue  # ffmpeg cannot read what it wrote
            read, different = read + 1, different + bool(words)
            if words or "--all" in arguments:
                about = f"{ours.changes[-1]} at {ours.rate}" if ours else "-"
                print(f"{name:<14} {kind:<20} {about:<18} {words or 'as ffmpeg'}", flush=True)
    print(f"{read} videos, {different} read otherwise than by ffmpeg")


if __name__ == "__main__":
    main(sys.argv[1:])
