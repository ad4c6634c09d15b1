"""Time of videos: every codec and container by its time stamps, and what is repeated and left out."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from portrait_core.media import VideoInfo, probe, read_frames
from portrait_core.media.probe import scan
from portrait_core.media.rates import UNTIMED, clip_range, constant_rate, continued, frame_at, slots_of
from tests.benchmarks.containers import B_FRAMES, CODECS, compare, write_video
from tests.conftest import FfmpegRunner

GREY = ("-f", "lavfi", "-i", "color=black:s=64x48:r=25:d=1.2,format=gray,geq=lum=8*N")
"""Thirty pictures: picture i is grey ``8 i``."""
VARYING = ("-vf", "select='lt(mod(n,7),5)',scale=out_range=tv,format=yuv420p", "-fps_mode", "vfr")
"""Two pictures of seven are left out."""
FINE = ("-enc_time_base", "1:1000")
SHOWN = [i - max(0, i % 7 - 4) for i in range(30)]
"""Picture that each frame shows then."""


def _numbers(frames: Iterable[NDArray[np.uint8]]) -> list[int]:
    return [round(float(frame.mean()) / 8) for frame in frames]


def _counts(info: VideoInfo) -> tuple[int, Fraction, bool, int, int]:
    return info.frame_count, info.frame_rate, info.is_vfr, info.repeated, info.dropped


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("vp8.webm", ("-c:v", "libvpx", "-b:v", "1M", "-deadline", "realtime", "-cpu-used", "8")),
        ("hidden.webm", ("-c:v", "libvpx", "-b:v", "1M", "-auto-alt-ref", "1", "-lag-in-frames", "12")),
        ("vp9.webm", ("-c:v", "libvpx-vp9", "-b:v", "1M", "-deadline", "realtime", "-cpu-used", "8")),
        ("empty.avi", ("-c:v", "ffv1")),
        ("empty264.avi", ("-c:v", "libx264", "-bf", "0", "-crf", "5")),
        ("asf.wmv", ("-c:v", "wmv2", "-q:v", "2", "-pix_fmt", "yuv420p")),
        ("flash.flv", ("-c:v", "libx264", "-bf", "2", "-crf", "5")),
        ("phone.mp4", ("-c:v", "libx264", "-bf", "2", "-crf", "5")),
    ],
)
def test_missing_pictures_are_repeated_by_their_time_in_every_codec(
    ffmpeg_to: FfmpegRunner, name: str, codec: tuple[str, ...]
) -> None:
    video = ffmpeg_to(f"time-{name}", *GREY, *VARYING, "-an", *codec)
    info = probe(video)
    count = info.frame_count
    assert _counts(info)[1:] == (Fraction(25), True, info.frame_count - _pictures(video), 0)
    assert 29 <= count <= 30  # how long the last picture stays is not always said
    numbers = np.array(_numbers(read_frames(video)))
    assert np.abs(numbers - SHOWN[:count]).max() <= 1
    changes = np.flatnonzero(np.diff(numbers)) + 1
    assert changes.tolist() == [i for i in range(1, count) if SHOWN[i] != SHOWN[i - 1]]
    assert _numbers(read_frames(video, 9, 17)) == numbers[9:17].tolist()


def _pictures(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_hidden_pictures_of_vp8_take_no_time(tmp_path: Path, ffmpeg_to: FfmpegRunner) -> None:
    noise = ("-f", "lavfi", "-i", "testsrc2=s=128x96:r=25:d=2,noise=alls=20:allf=t")
    hidden = (
        "-c:v",
        "libvpx",
        "-b:v",
        "100k",
        "-auto-alt-ref",
        "1",
        "-lag-in-frames",
        "16",
        "-cpu-used",
        "5",
    )
    log = ("-arnr-maxframes", "7", "-passlogfile", tmp_path / "log")
    ffmpeg_to("time-first", *noise, *hidden, *log, "-pass", "1", "-f", "null")
    video = ffmpeg_to("time-alt.webm", *noise, *hidden, *log, "-pass", "2")
    with av.open(str(video)) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size) > 50
    assert _counts(probe(video)) == (50, Fraction(25), False, 0, 0)


def test_surplus_pictures_are_left_out_and_counted(ffmpeg_to: FfmpegRunner) -> None:
    uneven = "settb=1/1000,setpts='if(lt(N,20),N,20+(N-20)/4)/25/TB'"
    codec = ("-fps_mode", "passthrough", *FINE, "-c:v", "ffv1")
    video = ffmpeg_to("time-burst.mkv", *GREY, "-vf", uneven, *codec)
    info = probe(video)
    assert (info.frame_rate, info.is_vfr) == (Fraction(25), True)
    assert (info.frame_count - info.repeated) + info.dropped == 30
    assert info.dropped >= 5


def test_a_gap_holds_the_picture_before_it(ffmpeg_to: FfmpegRunner) -> None:
    video = ffmpeg_to(
        "time-gap.mkv",
        *GREY,
        "-vf",
        "setpts='(N+if(gte(N,10),75))/25/TB'",
        "-fps_mode",
        "vfr",
        "-c:v",
        "ffv1",
    )
    assert _counts(probe(video)) == (105, Fraction(25), True, 75, 0)
    assert _numbers(read_frames(video, 8, 88)) == [8, *[9] * 76, 10, 11, 12]


def test_two_recordings_joined_end_to_end_are_one_video(tmp_path: Path, ffmpeg_to: FfmpegRunner) -> None:
    codec = ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2", "-pix_fmt", "yuv420p")
    one = ffmpeg_to("time-one.ts", *GREY, *codec)
    late = ffmpeg_to("time-late.ts", *GREY, *codec, "-output_ts_offset", "40")
    for order in ((one, one), (one, late), (late, one)):
        joined = tmp_path / "joined.ts"
        joined.write_bytes(b"".join(part.read_bytes() for part in order))
        info = probe(joined)
        assert info.frame_rate == 25
        assert abs(info.frame_count - 60) <= 1
        numbers = np.array(_numbers(read_frames(joined)))
        assert np.abs(numbers[:29] - np.arange(29)).max() <= 1
        assert np.abs(numbers[-29:] - np.arange(1, 30)).max() <= 1


def test_pictures_that_come_too_late_are_left_out_without_damage(ffmpeg_to: FfmpegRunner) -> None:
    late = "settb=1/1000,setpts='if(eq(N,10),8.5,N)/25/TB'"
    video = ffmpeg_to("time-tardy.mkv", *GREY, "-vf", late, "-fps_mode", "passthrough", *FINE, "-c:v", "ffv1")
    numbers = _numbers(read_frames(video))
    assert len(numbers) == probe(video).frame_count == 30
    assert numbers[:8] + numbers[11:] == [*range(8), *range(11, 30)]


def test_negative_first_stamps_and_one_picture(ffmpeg_to: FfmpegRunner) -> None:
    early = ("-vf", "setpts=PTS-0.4/TB", "-avoid_negative_ts", "disabled")
    video = ffmpeg_to("time-early.mp4", *GREY, *early, "-c:v", "libx264", "-bf", "2")
    assert probe(video).frame_rate == 25
    assert probe(video).frame_count == len(list(read_frames(video)))
    for name in ("time-single.avi", "time-single.webm", "time-single.ts", "time-single.m2v"):
        codec = ("-c:v", "libvpx") if name == "time-single.webm" else ("-c:v", "mpeg2video", "-q:v", "2")
        one = ffmpeg_to(name, *GREY, "-frames:v", "1", *codec)
        assert _counts(probe(one)) == (1, Fraction(25), False, 0, 0)
        assert len(list(read_frames(one))) == 1


@pytest.mark.parametrize(
    ("name", "more"), [("time-sd.mpg", ("-bf", "2")), ("time-dvd.vob", ("-bf", "2")), ("time-plain.mpg", ())]
)
def test_times_of_program_streams_are_given_to_their_own_pictures(
    ffmpeg_to: FfmpegRunner, name: str, more: tuple[str, ...]
) -> None:
    sound = ("-f", "lavfi", "-i", "sine=f=300:r=48000:d=2.4", "-c:a", "mp2")
    pictures = ("-f", "lavfi", "-i", "color=black:s=160x120:r=25:d=2.4,format=gray,geq=lum=4*N")
    video = ffmpeg_to(name, *pictures, *sound, "-c:v", "mpeg2video", "-q:v", "2", *more)
    assert _counts(probe(video)) == (60, Fraction(25), False, 0, 0)
    numbers = np.array([float(frame.mean()) / 4 for frame in read_frames(video)])
    assert np.abs(np.diff(numbers)[5:-5] - 1).max() < 0.6


def test_a_recording_that_begins_late_is_not_cut_short(ffmpeg_to: FfmpegRunner) -> None:
    video = ffmpeg_to("time-begins.mkv", *GREY, "-c:v", "ffv1", "-output_ts_offset", "7")
    assert _counts(probe(video)) == (30, Fraction(25), False, 0, 0)


def test_a_pause_after_the_first_picture_of_an_avi_delays_no_sound(ffmpeg_to: FfmpegRunner) -> None:
    sound = ("-f", "lavfi", "-i", "sine=f=300:r=48000:d=2", "-c:a", "pcm_s16le")
    later = ("-itsoffset", "0.4", *GREY, *sound, "-map", "0:v", "-map", "1:a")
    video = ffmpeg_to("time-pause.avi", *later, "-c:v", "mpeg4", "-q:v", "2", "-bf", "2")
    assert scan(video).audio_delay_s == pytest.approx(-0.4, abs=0.09)


CHECKED = [
    ("h264", "mp4"), ("h264", "mkv"), ("h264", "avi"), ("h264", "ts"), ("h264", "flv"), ("hevc", "mov"),
    ("vp8", "webm"), ("vp8", "avi"), ("vp8alt", "webm"), ("vp9", "webm"), ("vp9", "ivf"), ("mpeg4", "avi"),
    ("mpeg4", "3gp"), ("mpeg2", "mpg"), ("mpeg2", "ts"), ("mjpeg", "avi"), ("prores", "mov"), ("ffv1", "mkv"),
    ("wmv2", "avi"), ("gif", "gif"), ("apng", "apng"), ("raw", "y4m"),
]  # fmt: skip


@pytest.mark.parametrize(("codec", "suffix"), CHECKED)
def test_time_and_sound_are_those_of_ffmpegs_own_reading(tmp_path: Path, codec: str, suffix: str) -> None:
    video = tmp_path / f"video.{suffix}"
    encoder = CODECS[codec] if suffix == "avi" else B_FRAMES.get(codec, CODECS[codec])
    assert write_video(video, encoder, varying=True, late=True)
    ours, differences = compare(video)
    assert ours is not None
    assert differences == ""


# Arithmetic


def test_times_go_on_where_they_start_anew_and_where_they_are_missing() -> None:
    base = Fraction(1, 100)
    missing = np.array([UNTIMED, 4, 8, UNTIMED, 16], np.int64)
    assert continued(missing, base, False).tolist() == [0, 4, 8, 12, 16]
    anew = np.array([0, 4, 8, -200, -196, 5000, 5004], np.int64)
    assert continued(anew, base, False).tolist() == [0, 4, 8, 12, 16, 20, 24]
    assert continued(np.array([0, 1, 5000]), base, True).tolist() == [0, 1, 5000]
    assert continued(np.array([0, 4, 3, 8]), base, False).tolist() == [0, 4, 4, 8]


def test_the_rate_of_a_video_with_missing_pictures_is_its_own() -> None:
    rate, base = Fraction(30000, 1001), Fraction(1, 1000)
    numbers = [i for i in range(2000) if i % 50]
    ticks = np.array([round(i / rate / base) for i in numbers], np.int64)
    assert constant_rate(ticks, base, [rate]) == (rate, True)


def test_a_rate_is_fine_enough_for_every_picture_where_most_are_missing() -> None:
    """Every other picture of 25 per second is there, and some of those between, which 12.5 would lose."""
    shown = [0, 2, 4, 6, 7, 8, 10, 12, 14, 15, 16, 18, 20, 22, 24]
    ticks = np.array(shown, np.int64) * 40
    rate, varies = constant_rate(ticks, Fraction(1, 1000), [])
    assert (rate, varies) == (Fraction(25), True)
    slots = slots_of(ticks, Fraction(1, 1000), rate, varies, 25)
    assert set(np.unique(slots)) == set(range(len(shown)))


@pytest.mark.parametrize(
    ("moment", "frame"), [("0", 0), ("12.5", 312), ("1:02.5", 1562), ("1:00:00", 90000), ("300f", 300)]
)
def test_places_in_a_video_are_seconds_minutes_or_frames(moment: str, frame: int) -> None:
    assert frame_at(moment, Fraction(25)) == frame


def test_a_range_ends_with_the_video_and_may_be_empty() -> None:
    assert clip_range("1", "3", None, Fraction(25), 60) == (25, 35)
    assert clip_range("10f", "30f", 12, Fraction(25), 60) == (10, 12)
    assert clip_range("3", None, None, Fraction(25), 60) == (75, 0)
