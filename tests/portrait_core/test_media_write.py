"""Videos written: exact rate and count, colours, sound, atomicity."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from portrait_core.errors import EncodeError, InputError
from portrait_core.media import FORMATS, VideoWriter, probe, read_frames
from portrait_core.media.probe import scan
from portrait_core.media.writer import METADATA_KEYS
from tests.conftest import FfmpegRunner

NTSC = Fraction(30000, 1001)
SUFFIXES = sorted(FORMATS)
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 150, 120), (17, 99, 201)]


def _plain(size: tuple[int, int], colour: tuple[int, ...]) -> np.ndarray:
    return np.full((size[1], size[0], len(colour)), colour, dtype=np.uint8)


def _opaque(path: Path, frame: np.ndarray) -> np.ndarray:
    """The frame with as many channels as the format of ``path`` has."""
    has_alpha = FORMATS[path.suffix].has_alpha
    return np.dstack([frame, np.full(frame.shape[:2], 255, np.uint8)]) if has_alpha else frame


def _write(path: Path, count: int = 10, rate: Fraction = NTSC, **options: Any) -> Path:
    with VideoWriter(path, (64, 48), rate, **options) as writer:
        for i in range(count):
            writer.write(_opaque(path, _plain((64, 48), (i * 3 % 256, 100, 50))))
    return path


@pytest.mark.parametrize(
    "rate", [NTSC, Fraction(25), Fraction(24000, 1001), Fraction(2997, 125), Fraction(1, 2)]
)
@pytest.mark.parametrize("count", [1, 31])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rate_and_count_come_back_exactly(tmp_path: Path, suffix: str, rate: Fraction, count: int) -> None:
    info = probe(_write(tmp_path / f"out{suffix}", count, rate))
    assert (info.frame_rate, info.frame_count, info.is_vfr) == (rate, count, False)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_colours_survive_and_are_tagged(tmp_path: Path, suffix: str) -> None:
    for size in [(64, 48), (1280, 720)]:
        path = tmp_path / f"{size[0]}{suffix}"
        with VideoWriter(path, size, NTSC, crf=4) as writer:
            for colour in COLOURS:
                writer.write(_opaque(path, _plain(size, colour)))
        for frame, colour in zip(read_frames(path), COLOURS, strict=True):
            assert np.abs(frame.reshape(-1, 3).mean(0) - colour).max() <= 3
    with av.open(str(path)) as video:
        context = video.streams.video[0].codec_context
        # WebM keeps alpha in a second layer, and ProRes 4444 is always decoded to 12 bits.
        assert context.pix_fmt == {".mov": "yuva444p12le"}.get(suffix, "yuv420p")
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert tags == (1, 1, 1, 1)  # BT.709 three times, limited range


def test_real_frames_survive(tmp_path: Path, carphone: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", (192, 144), NTSC, audio_from=carphone) as writer:
        for frame in read_frames(carphone, 0, 20):
            writer.write(frame[:, :192])
    written = read_frames(tmp_path / "out.mp4")
    for before, after in zip((f[:, :192] for f in read_frames(carphone, 0, 20)), written, strict=True):
        assert np.abs(before.astype(int) - after.astype(int)).mean() < 4
    assert not probe(tmp_path / "out.mp4").has_audio


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_index_comes_first_and_tags_are_kept(tmp_path: Path, suffix: str) -> None:
    tags = {key: f"the {key}" for key in METADATA_KEYS}
    tags |= {"comment": "synthetic: made by a machine", "title": "a=b; 'c' \\ \"d\""}
    path = _write(tmp_path / f"out{suffix}", metadata=tags)
    data = path.read_bytes()
    if suffix != ".webm":
        assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as video:
        assert tags.items() <= {key.lower(): value for key, value in video.metadata.items()}.items()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_same_frames_give_the_same_bytes(tmp_path: Path, counting_clip: Path, suffix: str) -> None:
    first = _write(tmp_path / f"a{suffix}", 40, audio_from=counting_clip)
    second = _write(tmp_path / f"b{suffix}", 40, audio_from=counting_clip)
    assert first.read_bytes() == second.read_bytes()


def test_odd_sizes_are_padded_by_the_edge(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", (33, 31), NTSC) as writer:
        writer.write(_plain((33, 31), (200, 150, 120)))
    assert writer.encoded_size == (34, 32)
    frame = next(iter(read_frames(tmp_path / "out.mp4")))
    assert frame.shape == (32, 34, 3)
    assert np.abs(frame.astype(int) - (200, 150, 120)).max() <= 4


# Sound


def _sound(path: Path) -> tuple[np.ndarray, int]:
    """Samples of the first channel, with the first picture of the video at sample 0, and their rate."""
    timeline = scan(path)
    with av.open(str(path)) as video:
        frames = list(video.decode(audio=0))
        samples = np.concatenate([f.to_ndarray().reshape(-1, f.samples)[0] for f in frames])
        rate = frames[0].rate
        assert frames[0].time is not None
        lead = round((frames[0].time - float(timeline.times[0])) * rate)
    samples = samples.astype(np.float64) / (32768 if samples.dtype == np.int16 else 1)
    return (np.concatenate([np.zeros(lead), samples]) if lead > 0 else samples[-lead:]), rate


def _click_s(path: Path) -> float:
    samples, rate = _sound(path)
    return float(np.argmax(np.abs(samples) > 0.3)) / rate


def _carry(source: Path, target: Path) -> Path:
    info = probe(source)
    with VideoWriter(target, (info.width, info.height), info.frame_rate, audio_from=source) as writer:
        for frame in read_frames(source):
            writer.write(_opaque(target, frame))
    return target


def test_aac_is_copied_bit_for_bit(tmp_path: Path, counting_clip: Path) -> None:
    out = _carry(counting_clip, tmp_path / "out.mp4")
    packets = []
    for path in (counting_clip, out):
        with av.open(str(path)) as video:
            packets.append([(bytes(p), p.pts) for p in video.demux(audio=0) if p.size])
    assert packets[0] == packets[1]
    assert probe(out).audio_duration_s == probe(counting_clip).audio_duration_s


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("mp3.mp4", ("-c:a", "libmp3lame"), ("aac", "aac", "opus")),
        ("opus.mkv", ("-c:a", "libopus"), ("aac", "aac", "opus")),
        ("pcm.mov", ("-c:a", "pcm_s16le"), ("aac", "pcm_s16le", "opus")),
        ("vorbis.mkv", ("-c:a", "libvorbis"), ("aac", "aac", "vorbis")),
        ("adts.ts", ("-c:a", "copy"), ("aac", "aac", "opus")),
    ],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_sound_keeps_its_length_and_its_place(
    tmp_path: Path,
    ffmpeg_to: FfmpegRunner,
    counting_clip: Path,
    suffix: str,
    name: str,
    codec: tuple[str, ...],
    expected: tuple[str, ...],
) -> None:
    source = ffmpeg_to(name, "-i", counting_clip, "-c:v", "copy", *codec)
    out = _carry(source, tmp_path / f"out{suffix}")
    assert scan(out).audio_codec == expected[(".mp4", ".mov", ".webm").index(suffix)]
    # An MP3 counts what its encoder put before the sound, which is left out when it is encoded anew.
    within_s = 0.013 if name == "mp3.mp4" else 0.002
    assert probe(out).audio_duration_s == pytest.approx(probe(source).audio_duration_s, abs=within_s)
    assert _click_s(out) == pytest.approx(_click_s(source), abs=0.003)
    assert (probe(out).frame_rate, probe(out).frame_count) == (NTSC, 60)


@pytest.mark.parametrize("late", ["sound", "picture"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_sound_and_picture_that_start_apart_stay_apart(
    tmp_path: Path, ffmpeg_to: FfmpegRunner, counting_clip: Path, suffix: str, late: str
) -> None:
    delay = ("-itsoffset", "0.31")
    inputs = [*delay, "-i", counting_clip, "-i", counting_clip]
    maps = ("-map", "1:v", "-map", "0:a") if late == "sound" else ("-map", "0:v", "-map", "1:a")
    source = ffmpeg_to(f"late_{late}.mp4", *inputs, *maps, "-c", "copy")
    out = _carry(source, tmp_path / f"out{suffix}")
    expected = 1.5 + (0.31 if late == "sound" else -0.31)
    assert _click_s(out) == pytest.approx(expected, abs=0.003)
    assert _click_s(source) == pytest.approx(expected, abs=0.003)
    assert (probe(out).frame_rate, probe(out).frame_count) == (NTSC, 60)
    assert scan(out).audio_delay_s == pytest.approx(scan(source).audio_delay_s, abs=0.001)


def test_long_sound_does_not_drift(tmp_path: Path, ffmpeg_to: FfmpegRunner) -> None:
    source = ffmpeg_to(
        "minutes.mov",
        *("-f", "lavfi", "-i", "color=gray:s=32x32:r=2:d=60"),
        *("-f", "lavfi", "-i", "aevalsrc='0.8*gte(t,59.5)*lt(t,59.51)':s=44100:d=60"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "pcm_s16le"),
    )
    out = _carry(source, tmp_path / "out.mp4")
    assert probe(out).audio_duration_s == pytest.approx(60, abs=0.002)
    assert _click_s(out) == pytest.approx(59.5, abs=0.003)


# Atomicity and errors


def _fill(writer: VideoWriter, *frames: np.ndarray) -> None:
    with writer:
        for _ in range(60):
            for frame in frames:
                writer.write(frame)


def test_failure_in_the_block_leaves_the_older_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"older")
    broken = [_plain((64, 48), (1, 2, 3)), np.zeros((1, 1, 3), dtype=np.uint8)]
    with pytest.raises(InputError, match="expected a frame"):
        _fill(VideoWriter(path, (64, 48), NTSC), *broken)
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    assert path.read_bytes() == b"older"


def test_killed_writer_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    script = (
        "import numpy as np\nfrom fractions import Fraction\nfrom portrait_core.media import VideoWriter\n"
        f"writer = VideoWriter({str(tmp_path / 'out.mp4')!r}, (256, 256), Fraction(25))\n"
        "while True:\n"
        "    writer.write(np.random.randint(0, 255, (256, 256, 3), dtype=np.uint8))\n"
        "    print('.', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert all(".partial." in p.name for p in tmp_path.iterdir())


def test_disk_that_is_full_is_an_encode_error(tmp_path: Path) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))  # ffmpeg inherits it
    try:
        writer = VideoWriter(tmp_path / "out.mp4", (256, 256), NTSC)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    with pytest.raises(EncodeError, match="could not write"):
        _fill(writer, noise)
    assert list(tmp_path.iterdir()) == []


def test_values_that_cannot_be_used_are_refused(tmp_path: Path, counting_clip: Path) -> None:
    good = tmp_path / "out.mp4"
    cases: list[tuple[Any, ...]] = [
        (tmp_path / "out.avi", (64, 48), NTSC, {}, "written as .mp4"),
        (tmp_path / "no" / "out.mp4", (64, 48), NTSC, {}, "does not exist"),
        (good, (0, 48), NTSC, {}, "at least 2x2"),
        (good, (64, 48), 29.97, {}, "Fraction"),
        (good, (64, 48), NTSC, {"crf": 99}, "crf"),
        (good, (64, 48), NTSC, {"metadata": {"mood": "x"}}, "tags"),
        (good, (64, 48), NTSC, {"audio_from": tmp_path / "none.mp4"}, "does not exist"),
    ]
    for path, size, rate, options, reason in cases:
        with pytest.raises(InputError, match=reason):
            VideoWriter(path, size, rate, **options)
    with pytest.raises(InputError, match="no frame"), VideoWriter(good, (64, 48), NTSC):
        pass
    with pytest.raises(InputError, match="expected a frame"), VideoWriter(good, (64, 48), NTSC) as writer:
        writer.write(np.zeros((64, 48, 3), dtype=np.uint8))
    assert list(tmp_path.iterdir()) == []
