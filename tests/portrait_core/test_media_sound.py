"""The sound of a clip: which track, cut with the picture, in a codec that players know, in step."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from portrait_core.media import FORMATS, VideoWriter, probe
from portrait_core.media.binary import ffmpeg_binary
from portrait_core.media.probe import scan
from tests.conftest import FfmpegRunner

RATE = Fraction(25)
PICTURE = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=3")
CLICKS = ("-f", "lavfi", "-i", "aevalsrc='0.8*lt(mod(t+0.75,1),0.002)*sin(2*PI*3000*t)':s=48000:d=3")
"""Clicks at 0.25, 1.25 and 2.25 seconds."""
SOURCES = {
    "aac.mp4": ("libx264", "aac"),
    "alac.mov": ("libx264", "alac"),
    "opus.webm": ("libvpx-vp9", "libopus"),
    "vorbis.mkv": ("libx264", "libvorbis"),
    "mp3.mp4": ("libx264", "libmp3lame"),
    "ac3.mkv": ("libx264", "ac3"),
    "pcm.mov": ("libx264", "pcm_s16le"),
    "aac.ts": ("libx264", "aac"),
    "aac.flv": ("libx264", "aac"),
    "mp2.mpg": ("mpeg2video", "mp2"),
    "wma.wmv": ("wmv2", "wmav2"),
}


def _source(ffmpeg_to: FfmpegRunner, name: str) -> Path:
    video, audio = SOURCES[name]
    fast = ("-deadline", "realtime", "-cpu-used", "8") if video == "libvpx-vp9" else ()
    return ffmpeg_to(f"clicks_{name}", *PICTURE, *CLICKS, "-c:v", video, *fast, "-c:a", audio)


def _clip(path: Path, source: Path, count: int, start_s: float = 0.0) -> str:
    """Write a clip with the sound of ``source``, and return what became of it."""
    channels = FORMATS[path.suffix].channels
    with VideoWriter(
        path, (64, 48), RATE, audio_from=source, audio_start_s=start_s, frame_count=count
    ) as writer:
        for i in range(count):
            writer.write(np.full((48, 64, channels), 3 * i % 256, np.uint8))
    return writer.sound


def _heard(path: Path) -> tuple[list[float], float]:
    """Seconds of the clicks and of the end of the sound after the first picture, as ffmpeg decodes them."""
    command = [ffmpeg_binary(), "-v", "error", "-i", str(path), "-map", "0:a:0", "-ac", "1"]
    raw = subprocess.run([*command, "-ar", "48000", "-f", "f32le", "-"], capture_output=True, check=True)
    samples = np.abs(np.frombuffer(raw.stdout, np.float32))
    with av.open(str(path)) as video:
        picture = next(video.decode(video=0)).time
    with av.open(str(path)) as video:
        sound = next(video.decode(audio=0)).time
    assert picture is not None
    assert sound is not None
    loud = np.flatnonzero(samples > 0.15)
    first = loud[np.r_[True, np.diff(loud) > 4800]] if len(loud) else loud
    return [float(i) / 48000 + sound - picture for i in first], len(samples) / 48000 + sound - picture


def test_codecs_that_players_of_mp4_do_not_know_are_encoded(ffmpeg_to: FfmpegRunner, tmp_path: Path) -> None:
    for name, (_, codec) in SOURCES.items():
        said = _clip(tmp_path / "a.mp4", _source(ffmpeg_to, name), 75)
        source = codec.removeprefix("lib").replace("mp3lame", "mp3")
        kept = source in ("aac", "alac")
        assert said == (f"{source}, copied" if kept else f"{source}, encoded as aac")
        assert scan(tmp_path / "a.mp4").audio_codec == (source if kept else "aac")
        assert probe(_source(ffmpeg_to, name)).audio_codec == source


@pytest.mark.parametrize("name", list(SOURCES))
def test_clicks_stay_in_step_whether_the_sound_is_whole_or_cut(
    ffmpeg_to: FfmpegRunner, tmp_path: Path, name: str
) -> None:
    source, out = _source(ffmpeg_to, name), tmp_path / "a.mp4"
    before, _ = _heard(source)
    assert len(before) == 3
    _clip(out, source, 75)
    np.testing.assert_allclose(_heard(out)[0], before, atol=0.0005)
    assert "cut and encoded as aac" in _clip(out, source, 10)
    clicks, end = _heard(out)
    np.testing.assert_allclose(clicks, before[:1], atol=0.0005)
    assert end == pytest.approx(0.4, abs=0.03)
    _clip(out, source, 40, start_s=1.04)
    clicks, end = _heard(out)
    np.testing.assert_allclose(clicks, np.array(before[1:]) - 1.04, atol=0.0005)
    assert end == pytest.approx(1.6, abs=0.03)


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_sound_ends_with_the_picture_in_every_format(
    ffmpeg_to: FfmpegRunner, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"a{suffix}"
    _clip(out, _source(ffmpeg_to, "aac.mp4"), 10)
    info = probe(out)
    assert (info.frame_count, info.duration_s) == (10, 0.4)
    assert info.audio_duration_s == pytest.approx(0.4, abs=0.002)
    assert _heard(out)[0] == pytest.approx([0.25], abs=0.001)


def test_sound_that_is_shorter_later_or_elsewhere_is_left_so(ffmpeg_to: FfmpegRunner, tmp_path: Path) -> None:
    source, out = _source(ffmpeg_to, "pcm.mov"), tmp_path / "a.mp4"
    short = ffmpeg_to("short.mkv", "-i", source, "-af", "atrim=end=1", "-c:v", "copy", "-c:a", "flac")
    late = ffmpeg_to(
        "late.mkv", "-i", source, "-itsoffset", "1", "-i", source,
        *("-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "flac"),
    )  # fmt: skip
    assert _clip(out, short, 75) == "flac, encoded as aac"
    assert _heard(out)[1] == pytest.approx(1.0, abs=0.03)
    _clip(out, late, 75)
    assert _heard(out)[0] == pytest.approx([1.25, 2.25], abs=0.001)
    _clip(out, late, 50, start_s=0.48)
    assert _heard(out)[0] == pytest.approx([0.77, 1.77], abs=0.001)
    for silent, start_s in ((short, 1.2), (late, 0.0)):
        assert _clip(out, silent, 10, start_s) == "none"
        assert not probe(out).has_audio


@pytest.mark.parametrize(
    ("name", "audio"),
    [("late.ts", "mp2"), ("late.mpg", "mp2"), ("late.ogv", "libvorbis"), ("late.flv", "aac")],
)
def test_sound_that_begins_later_stays_so_in_every_container(
    ffmpeg_to: FfmpegRunner, tmp_path: Path, name: str, audio: str
) -> None:
    video = {"late.flv": "libx264", "late.ogv": "libtheora"}.get(name, "mpeg2video")
    tracks = ("-map", "0:v", "-map", "1:a", "-c:v", video, "-c:a", audio)
    late = ffmpeg_to(name, *PICTURE, "-itsoffset", "0.5", *CLICKS, *tracks)
    assert scan(late).audio_delay_s == pytest.approx(0.5, abs=0.03)
    _clip(tmp_path / "a.mp4", late, 75)
    assert _heard(tmp_path / "a.mp4")[0] == pytest.approx([0.75, 1.75, 2.75], abs=0.012)
    _clip(tmp_path / "a.mp4", late, 50, start_s=0.6)
    assert _heard(tmp_path / "a.mp4")[0] == pytest.approx([0.15, 1.15], abs=0.012)


def test_a_gap_in_the_sound_stays_a_gap(ffmpeg_to: FfmpegRunner, tmp_path: Path) -> None:
    drop = ("-bsf:a", "noise=drop='between(n,30,90)'")
    gap = ffmpeg_to("gap.mkv", "-i", _source(ffmpeg_to, "pcm.mov"), "-c:v", "copy", "-c:a", "libopus", *drop)
    _clip(tmp_path / "a.mp4", gap, 75)
    assert _heard(tmp_path / "a.mp4")[0] == pytest.approx([0.25, 2.25], abs=0.002)


@pytest.mark.parametrize("most", [True, False])
def test_damaged_sound_does_not_cost_the_picture(ffmpeg_to: FfmpegRunner, tmp_path: Path, most: bool) -> None:
    data = _source(ffmpeg_to, "ac3.mkv").read_bytes()
    packets = data.count(b"\x0b\x77")
    # Without its first bytes a packet of AC-3 does not decode.
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(data.replace(b"\x0b\x77", b"\0\0", packets - 5 if most else -1))
    assert _clip(tmp_path / "a.mp4", broken, 75) == "ac3, encoded as aac"
    assert probe(tmp_path / "a.mp4").frame_count == 75


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("5.1", 2), ("12 channels", 2)])
def test_at_most_two_channels_are_encoded(
    ffmpeg_to: FfmpegRunner, tmp_path: Path, layout: str, channels: int
) -> None:
    count = {"mono": 1, "5.1": 6}.get(layout, 12)
    pan = f"pan={layout.replace(' channels', 'C')}|" + "|".join(f"c{i}=c0" for i in range(count))
    source = ffmpeg_to(
        f"{count}.mov", *PICTURE, *CLICKS, "-af", pan, "-ar", "22050", "-c:v", "libx264", "-c:a", "pcm_s16le"
    )
    _clip(tmp_path / "a.mp4", source, 75)
    with av.open(str(tmp_path / "a.mp4")) as clip:
        context = clip.streams.audio[0].codec_context
        assert (context.channels, context.sample_rate) == (channels, 44100)
    assert _heard(tmp_path / "a.mp4")[0] == pytest.approx([0.25, 1.25, 2.25], abs=0.001)


@pytest.mark.parametrize(
    ("flags", "taken"),
    [
        (("default", "0"), 0),
        (("0", "default"), 1),
        (("0", "0"), 0),
        (("default+visual_impaired", "0"), 1),
        (("default+comment", "original"), 1),
        (("default+visual_impaired", "visual_impaired"), 0),
    ],
)
def test_the_track_that_players_take_is_taken(
    ffmpeg_to: FfmpegRunner, flags: tuple[str, str], taken: int
) -> None:
    name = "_".join(flags).replace("+", "_")
    video = ffmpeg_to(
        f"{name}.mkv",
        *(*PICTURE, *CLICKS, "-f", "lavfi", "-i", "anullsrc=d=3", "-map", "0", "-map", "1", "-map", "2"),
        *("-c:v", "libx264", "-c:a", "aac", "-disposition:a:0", flags[0], "-disposition:a:1", flags[1]),
    )
    assert scan(video).audio_stream == 1 + taken
