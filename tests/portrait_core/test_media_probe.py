"""What probing says of videos, and of what is no video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from portrait_core.errors import InputError
from portrait_core.media import VideoInfo, probe, read_frames
from portrait_core.media.rates import constant_rate, frame_count, slots_of
from tests.conftest import FfmpegRunner

NTSC = Fraction(30000, 1001)


def test_sample_driver(carphone: Path) -> None:
    assert probe(carphone) == VideoInfo(
        width=193,  # 176 pixels, each 128/117 times as wide as it is high
        height=144,
        frame_rate=NTSC,
        frame_count=120,
        duration_s=4.004,
        has_audio=False,
        audio_duration_s=0.0,
        rotation_deg=0,
        is_vfr=False,
        has_alpha=False,
        bit_depth=8,
        pixel_aspect=Fraction(128, 117),
    )


@pytest.mark.parametrize("name", ["remuxed.mkv", "remuxed.ts", "remuxed.mov", "remuxed.avi", "raw.h264"])
def test_rate_and_count_are_exact_in_every_container(
    ffmpeg_to: FfmpegRunner, counting_clip: Path, name: str
) -> None:
    codec = ["-an", "-pix_fmt", "yuv420p", "-bf", "2"] if name == "raw.h264" else ["-c", "copy"]
    video = ffmpeg_to(name, "-i", counting_clip, *codec)
    info = probe(video)
    assert (info.frame_rate, info.frame_count, info.is_vfr) == (NTSC, 60, False)
    assert info.has_audio == (name != "raw.h264")
    if info.has_audio:
        assert info.audio_duration_s == pytest.approx(2.0, abs=0.05)


def test_vp8_and_gif(ffmpeg_to: FfmpegRunner, counting_clip: Path) -> None:
    webm = ffmpeg_to("vp8.webm", "-i", counting_clip, "-an", "-c:v", "libvpx", "-auto-alt-ref", "1")
    assert (probe(webm).frame_rate, probe(webm).frame_count) == (NTSC, 60)
    gif = ffmpeg_to("ten.gif", "-f", "lavfi", "-i", "testsrc2=s=62x46:r=10:d=1")
    assert (probe(gif).frame_rate, probe(gif).frame_count) == (Fraction(10), 10)


def test_one_frame_and_still_image_are_videos(ffmpeg_to: FfmpegRunner, carphone: Path) -> None:
    for name in ("one.mp4", "one.png"):
        video = ffmpeg_to(name, "-i", carphone, "-frames:v", "1")
        assert probe(video).frame_count == 1
        assert len(list(read_frames(video))) == 1


def test_leading_pictures_that_an_edit_list_hides_do_not_count(
    ffmpeg_to: FfmpegRunner, counting_clip: Path
) -> None:
    cut = ffmpeg_to("cut.mp4", "-ss", "0.7", "-i", counting_clip, "-c", "copy")
    frames = list(read_frames(cut))
    assert len(frames) == probe(cut).frame_count
    assert int(frames[0].mean() / 4) == 21  # the first picture at or after 0.7 s


def test_deep_colours(ffmpeg_to: FfmpegRunner) -> None:
    gradient = ("-f", "lavfi", "-i", "color=0x8040c0:s=32x32:r=5:d=0.4")
    ten = ffmpeg_to("ten.mkv", *gradient, "-c:v", "ffv1", "-pix_fmt", "yuv444p10le")
    sixteen = ffmpeg_to("sixteen.mov", *gradient, "-c:v", "png", "-pix_fmt", "rgb48be")
    assert (probe(ten).bit_depth, probe(sixteen).bit_depth) == (10, 16)
    for video in (ten, sixteen):
        frame = next(iter(read_frames(video)))
        assert frame.dtype == np.uint8
        assert np.abs(frame.reshape(-1, 3).mean(0) - [0x80, 0x40, 0xC0]).max() < 2


def _not_videos(folder: Path, ffmpeg_to: FfmpegRunner, counting_clip: Path) -> dict[str, tuple[Path, str]]:
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    (folder / "story.txt").write_text("nor is this\n" * 100)
    (folder / "empty.mp4").write_bytes(b"")
    whole = counting_clip.read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    (folder / "headless.mp4").write_bytes(whole[len(whole) // 2 :])
    audio = ffmpeg_to("audio.m4a", "-i", counting_clip, "-vn", "-c", "copy")
    none = ffmpeg_to("none.mkv", "-i", counting_clip, "-an", "-c:v", "copy", "-frames:v", "0")
    return {
        "text": (folder / "text.mp4", "not a readable video.*text file.*give a video"),
        "txt": (folder / "story.txt", "(text file|not a readable video)"),
        "empty": (folder / "empty.mp4", "is empty.*copy the video again"),
        "truncated": (folder / "cut.mp4", "is truncated.*copy it again"),
        "headless": (folder / "headless.mp4", "not a readable video"),
        "folder": (folder, "is a folder"),
        "missing": (folder / "nowhere.mp4", "does not exist"),
        "audio only": (audio, "holds sound, no video"),
        "no frames": (none, "(no frame|not a readable video|holds nothing, no video)"),
    }


def test_what_is_no_video_is_refused_with_a_reason(
    tmp_path: Path, ffmpeg_to: FfmpegRunner, counting_clip: Path
) -> None:
    for name, (path, reason) in _not_videos(tmp_path, ffmpeg_to, counting_clip).items():
        with pytest.raises(InputError, match=reason):
            pytest.fail(f"{name} passed: {probe(path)}")


def test_file_names_are_taken_literally(tmp_path: Path, counting_clip: Path) -> None:
    for name in ("-i.mp4", "a b'c\"%03d.mp4", "http:x.mp4", "clip[1],scale=2.mp4"):
        (tmp_path / name).write_bytes(counting_clip.read_bytes())
        assert len(list(read_frames(tmp_path / name, 58, 60))) == 2


def test_playlist_opens_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "list.mp4").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n"
    )
    with pytest.raises(InputError):
        probe(tmp_path / "list.mp4")


def test_a_replaced_file_is_probed_again(tmp_path: Path, carphone: Path, counting_clip: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(carphone.read_bytes())
    assert probe(path).frame_count == 120
    path.write_bytes(counting_clip.read_bytes())
    assert probe(path).frame_count == 60


# Rates: pure arithmetic


def _ticks(rate: Fraction, time_base: Fraction, count: int) -> np.ndarray:
    return np.array([round(i / rate / time_base) for i in range(count)], dtype=np.int64)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(25), NTSC, Fraction(60000, 1001)])
@pytest.mark.parametrize("time_base", [Fraction(1, 1000), Fraction(1, 90000), Fraction(1, 600)])
def test_rounded_time_stamps_keep_their_rate(rate: Fraction, time_base: Fraction) -> None:
    ticks = _ticks(rate, time_base, 5000) + 17
    assert constant_rate(ticks, time_base, [rate]) == (rate, False)


def test_declared_rate_is_not_replaced_by_a_near_standard_one() -> None:
    odd = Fraction(2997, 100)
    assert constant_rate(_ticks(odd, Fraction(1, 2997), 300), Fraction(1, 2997), [odd]) == (odd, False)


def test_wrongly_declared_rate_is_not_believed() -> None:
    ticks = _ticks(NTSC, Fraction(1, 1000), 900)
    assert constant_rate(ticks, Fraction(1, 1000), [Fraction(600), Fraction(29)]) == (NTSC, False)


def test_varying_rate_takes_the_nearest_standard_or_the_average() -> None:
    base = Fraction(1, 90000)
    phone = np.cumsum(np.tile([2900, 3100, 3000, 3000], 50))
    assert constant_rate(phone, base, []) == (Fraction(30), True)
    slow = np.cumsum(np.tile([170000, 190000, 180001], 5))
    rate, varies = constant_rate(slow, base, [])
    assert varies
    assert float(rate) == pytest.approx(0.5, rel=0.05)


def test_slots_hold_over_gaps_and_leave_out_surplus() -> None:
    ticks = np.array([0, 100, 400, 410, 500])  # 10 frames a second in ms; a gap, then one too many
    count = frame_count(ticks, Fraction(1, 1000), Fraction(10), True, 200)
    slots = slots_of(ticks, Fraction(1, 1000), Fraction(10), True, count)
    assert slots.tolist() == [0, 1, 1, 1, 3, 4, 4]
