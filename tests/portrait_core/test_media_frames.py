"""Frames read from videos: order, ranges, orientation, alpha, damage, memory."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from portrait_core.errors import DecodeError, InputError
from portrait_core.media import probe, read_frames
from tests.conftest import FfmpegRunner


def _numbers(frames: Iterable[NDArray[np.uint8]]) -> list[int]:
    return [int(frame.mean() / 4) for frame in frames]


def test_frames_come_in_order_with_their_colours(counting_clip: Path) -> None:
    frames = list(read_frames(counting_clip))
    assert _numbers(frames) == list(range(60))
    assert max(np.abs(frame.astype(int) - 4 * i - 1).max() for i, frame in enumerate(frames)) <= 3
    assert {(frame.shape, frame.dtype) for frame in frames} == {((48, 64, 3), np.dtype(np.uint8))}


SOURCES = {
    "same.mkv": ("-c", "copy"),
    "same.ts": ("-c", "copy"),
    "same.avi": ("-c", "copy"),
    "same.h264": ("-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", "2"),
    "open.mp4": ("-an", "-c:v", "libx264", "-x264-params", "open-gop=1:keyint=9:bframes=3:b-adapt=0"),
    "hevc.mp4": ("-an", "-c:v", "libx265", "-x265-params", "keyint=9:bframes=3:log-level=none"),
    "intra.mov": ("-an", "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p"),
    "vp9.webm": ("-an", "-c:v", "libvpx-vp9", "-g", "10", "-cpu-used", "8", "-deadline", "realtime"),
    "cut2.mp4": ("-c", "copy"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_ranges_agree_with_reading_from_the_beginning(
    ffmpeg_to: FfmpegRunner, counting_clip: Path, name: str
) -> None:
    seek = ("-ss", "0.55") if name.startswith("cut") else ()
    video = ffmpeg_to(name, *seek, "-i", counting_clip, *SOURCES[name])
    whole = list(read_frames(video))
    assert len(whole) == probe(video).frame_count
    first = _numbers(whole)[0]
    assert np.abs(np.array(_numbers(whole)) - np.arange(first, first + len(whole))).max() <= 1
    for start, stop in [(0, 1), (11, 14), (13, 14), (27, 38), (len(whole) - 1, len(whole))]:
        part = list(read_frames(video, start, stop))
        assert len(part) == stop - start
        for i, frame in enumerate(part, start):
            np.testing.assert_array_equal(frame, whole[i])


def test_ranges_of_the_sample_driver(carphone: Path) -> None:
    whole = list(read_frames(carphone))
    for start, stop in [(0, 40), (40, 80), (80, 120), (119, 120)]:
        np.testing.assert_array_equal(list(read_frames(carphone, start, stop)), whole[start:stop])


def test_range_outside_the_video_is_refused_at_the_call(counting_clip: Path) -> None:
    for start, stop in [(0, 61), (-1, 3), (5, 4)]:
        with pytest.raises(InputError, match="frames 0 to 59"):
            read_frames(counting_clip, start, stop)
    assert list(read_frames(counting_clip, 60)) == []


def test_varying_rate_is_resampled_without_shifting_anything(
    ffmpeg_to: FfmpegRunner, counting_clip: Path
) -> None:
    video = ffmpeg_to(
        "vfr.mp4",
        *("-i", counting_clip, "-an", "-vf", "select='lt(mod(n,7),5)',scale=in_range=full:out_range=full"),
        *("-fps_mode", "vfr", "-c:v", "libx264", "-qp", "0", "-color_range", "pc", "-g", "10"),
    )
    info = probe(video)
    assert info.is_vfr
    assert info.frame_rate == probe(counting_clip).frame_rate
    shown = [i - max(0, i % 7 - 4) for i in range(info.frame_count)]  # 5 and 6 of 7 hold the one before
    assert info.frame_count == 60
    assert _numbers(read_frames(video)) == shown
    assert _numbers(read_frames(video, 19, 33)) == shown[19:33]


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_rotation_is_applied(ffmpeg_to: FfmpegRunner, angle: int) -> None:
    plain = ffmpeg_to("plain.mp4", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.2", "-qp", "0")
    turned = ffmpeg_to(f"turned{angle}.mp4", "-display_rotation", angle, "-i", plain, "-c", "copy")
    info = probe(turned)
    assert info.rotation_deg == angle
    expected = np.rot90(next(iter(read_frames(plain))), angle // 90)
    frame = next(iter(read_frames(turned)))
    assert frame.shape == expected.shape == (info.height, info.width, 3)
    # Chroma is interpolated after turning: small differences at colour edges.
    assert np.abs(frame.astype(int) - expected.astype(int)).mean() < 4


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("alpha.mov", ("-c:v", "png")),
        ("alpha.webm", ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p")),
        ("alpha.mkv", ("-c:v", "ffv1", "-pix_fmt", "bgra")),
    ],
)
def test_alpha_is_composited_over_white(ffmpeg_to: FfmpegRunner, name: str, codec: tuple[str, ...]) -> None:
    video = ffmpeg_to(name, "-f", "lavfi", "-i", "color=red@0.5:s=32x32:r=5:d=0.4,format=rgba", *codec)
    assert probe(video).has_alpha
    frame = next(iter(read_frames(video)))
    assert np.abs(frame.reshape(-1, 3).mean(0) - [255, 127.5, 127.5]).max() < 2


def test_odd_sizes(ffmpeg_to: FfmpegRunner) -> None:
    video = ffmpeg_to("odd.mkv", "-f", "lavfi", "-i", "testsrc2=s=63x47:r=5:d=0.6,format=yuv444p")
    assert [frame.shape for frame in read_frames(video)] == [(47, 63, 3)] * 3


def test_untagged_high_definition_is_bt709(ffmpeg_to: FfmpegRunner) -> None:
    video = ffmpeg_to(
        "hd.mkv",
        *("-f", "lavfi", "-i", "color=0x20c040:s=1280x720:r=5:d=0.2"),
        *("-vf", "scale=out_color_matrix=bt709,format=yuv444p,setparams=colorspace=unknown", "-c:v", "ffv1"),
    )
    frame = next(iter(read_frames(video)))
    assert np.abs(frame.reshape(-1, 3).mean(0) - [0x20, 0xC0, 0x40]).max() < 4


# Damage


def _packets(video: Path) -> list[tuple[int, int]]:
    """(position, size) of each video packet in the file."""
    with av.open(str(video)) as container:
        return [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos is not None]


def _drain(frames: Iterator[np.ndarray]) -> tuple[list[np.ndarray], DecodeError | None]:
    delivered = []
    try:
        for frame in frames:
            delivered.append(frame)
    except DecodeError as error:
        return delivered, error
    return delivered, None


@pytest.fixture
def still_coded(ffmpeg_to: FfmpegRunner, counting_clip: Path) -> Path:
    """The counting clip with every picture coded by itself."""
    return ffmpeg_to("stills.mov", "-i", counting_clip, "-an", "-c:v", "png")


def test_picture_that_does_not_decode_is_held_and_reported(tmp_path: Path, still_coded: Path) -> None:
    data = bytearray(still_coded.read_bytes())
    for number in (20, 21, 40):
        position, size = _packets(still_coded)[number]
        data[position : position + size] = bytes(size)
    broken = tmp_path / "broken.mov"
    broken.write_bytes(data)
    delivered, error = _drain(read_frames(broken))
    assert error is not None
    assert error.frames == (20, 21, 40)
    assert "3 frames are damaged (20, 21, 40)" in str(error)
    assert _numbers(delivered) == [{20: 19, 21: 19, 40: 39}.get(i, i) for i in range(60)]
    assert pickle.loads(pickle.dumps(error)).frames == (20, 21, 40)
    assert _numbers(read_frames(broken, 22, 40)) == list(range(22, 40))  # a sound range is not reported


def test_tail_that_does_not_decode_is_held_to_the_full_count(tmp_path: Path, still_coded: Path) -> None:
    data = bytearray(still_coded.read_bytes())
    for position, size in _packets(still_coded)[50:]:
        data[position : position + size] = bytes(size)
    broken = tmp_path / "tail.mov"
    broken.write_bytes(data)
    delivered, error = _drain(read_frames(broken))
    assert error is not None
    assert error.frames == tuple(range(50, 60))
    assert _numbers(delivered) == [*range(50), *[49] * 10]


def test_concealed_damage_is_reported(tmp_path: Path, ffmpeg_to: FfmpegRunner) -> None:
    clip = ffmpeg_to(
        "moving.mp4", "-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=2", "-g", "10", "-crf", "20"
    )
    sound = list(read_frames(clip))
    data = bytearray(clip.read_bytes())
    packets = _packets(clip)
    for position, size in packets[22:25]:
        for offset in range(size // 3, size, 7):
            data[position + offset] ^= 0xFF
    broken = tmp_path / "flipped.mp4"
    broken.write_bytes(data)
    delivered, error = _drain(read_frames(broken))
    assert error is not None
    assert len(delivered) == 50
    assert set(error.frames) <= set(range(20, 30))
    assert error.frames
    np.testing.assert_array_equal(delivered[:20], sound[:20])
    np.testing.assert_array_equal(delivered[30:], sound[30:])


def test_nothing_that_decodes_is_an_input_error(tmp_path: Path, still_coded: Path) -> None:
    data = bytearray(still_coded.read_bytes())
    for position, size in _packets(still_coded):
        data[position : position + size] = bytes(size)
    broken = tmp_path / "nothing.mov"
    broken.write_bytes(data)
    with pytest.raises(InputError, match="no frame of its video"):
        probe(broken)


# Resources


def test_memory_does_not_grow_with_the_clip(ffmpeg_to: FfmpegRunner) -> None:
    video = ffmpeg_to(
        "long.mp4", "-f", "lavfi", "-i", "color=gray:s=320x240:r=30:d=20", "-preset", "ultrafast"
    )
    probe(video)
    tracemalloc.start()
    count = sum(1 for _ in read_frames(video))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 600
    assert peak < 10 * 320 * 240 * 3


def test_stopping_early_ends_ffmpeg(counting_clip: Path) -> None:
    before = set(psutil.Process().children())  # another test's, not collected yet
    frames = read_frames(counting_clip)
    next(frames)
    ours = set(psutil.Process().children()) - before
    assert any("ffmpeg" in child.name() for child in ours)
    frames.close()
    assert not ours & set(psutil.Process().children())
