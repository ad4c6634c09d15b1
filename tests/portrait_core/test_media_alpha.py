"""Videos with alpha, decoded again by ffmpeg with every channel."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from portrait_core.errors import InputError
from portrait_core.media import FORMATS, VideoWriter, probe, read_frames
from portrait_core.media.alpha import over_white
from portrait_core.media.binary import ffmpeg_binary
from portrait_core.media.reader import SCALER

WITH_ALPHA = sorted(suffix for suffix, form in FORMATS.items() if form.has_alpha)
NTSC = Fraction(30000, 1001)
COLOUR_DB = {".mov": 50.0, ".webm": 32.0}
"""Least PSNR of the colours: ProRes 4444, and VP9 at a crf of 4, which halves the chroma of the bars."""
ALPHA_LEVELS = {".mov": 1, ".webm": 4}
"""Most grey levels that alpha may be off by."""


def _frames(carphone: Path, size: tuple[int, int], count: int = 5) -> np.ndarray:
    """Frames ``[count,H,W,4]`` of a real clip with an ellipse whose soft edge moves; at the last column and
    row it is another colour and another alpha, so that a side that is cropped or padded shows."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    frames = []
    for i, picture in enumerate(read_frames(carphone, 0, count)):
        distance = np.hypot((x - width / 2 - 2 * i) / width, (y - height / 2) / height)
        alpha = np.clip(255 * (2 - 5 * distance), 0, 255).astype(np.uint8)
        colours = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        frame = np.dstack([colours, alpha])
        frame[:, -3:] = (30, 60, 200, 200)
        frame[-3:] = (200, 60, 30, 255)
        frames.append(frame)
    return np.stack(frames)


def _decoded(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Every frame ``[n,H,W,4]`` with straight alpha."""
    decoder = ["-c:v", "libvpx-vp9"] if path.suffix == ".webm" else []  # the usual one drops alpha
    command = [ffmpeg_binary(), "-loglevel", "error", *decoder, "-i", str(path)]
    command += ["-vf", f"scale=flags={SCALER},format=rgba", "-f", "rawvideo", "pipe:1"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, size[1], size[0], 4)


@pytest.mark.parametrize("size", [(128, 96), (131, 97)])
@pytest.mark.parametrize("suffix", WITH_ALPHA)
def test_colours_and_alpha_come_back_at_even_and_odd_sizes(
    tmp_path: Path, carphone: Path, suffix: str, size: tuple[int, int]
) -> None:
    path, frames = tmp_path / f"out{suffix}", _frames(carphone, size)
    with VideoWriter(path, size, NTSC, crf=4) as writer:
        for frame in frames:
            writer.write(frame)
    assert writer.encoded_size == size
    info = probe(path)
    assert (info.width, info.height, info.has_alpha) == (*size, True)
    assert (info.frame_rate, info.frame_count, info.is_vfr) == (NTSC, len(frames), False)
    error = _decoded(path, size).astype(np.float64) - frames
    assert np.abs(error[..., 3]).max() <= ALPHA_LEVELS[suffix]
    assert 20 * np.log10(255 / np.sqrt(np.square(error[..., :3]).mean())) > COLOUR_DB[suffix]


@pytest.mark.parametrize("suffix", WITH_ALPHA)
def test_what_is_transparent_and_what_is_opaque_stays_so(tmp_path: Path, carphone: Path, suffix: str) -> None:
    frames = _frames(carphone, (128, 96), 1)
    with VideoWriter(tmp_path / f"out{suffix}", (128, 96), NTSC) as writer:
        writer.write(frames[0])
    found = _decoded(tmp_path / f"out{suffix}", (128, 96))[0, ..., 3].astype(int)
    # Lossy alpha wavers by a few levels; nowhere may what is hidden show, or what is shown be hidden.
    assert found[frames[0, ..., 3] == 0].max() <= ALPHA_LEVELS[suffix]
    assert found[frames[0, ..., 3] == 255].min() >= 255 - ALPHA_LEVELS[suffix]


@pytest.mark.parametrize("suffix", WITH_ALPHA)
def test_a_reader_shows_such_a_video_over_white(tmp_path: Path, carphone: Path, suffix: str) -> None:
    frames = _frames(carphone, (128, 96), 2)
    with VideoWriter(tmp_path / f"out{suffix}", (128, 96), NTSC, crf=4) as writer:
        for frame in frames:
            writer.write(frame)
    for frame, shown in zip(frames, read_frames(tmp_path / f"out{suffix}"), strict=True):
        assert np.abs(over_white(frame).astype(int) - shown).mean() < 3


def test_frames_have_alpha_where_the_format_does(tmp_path: Path) -> None:
    for suffix, form in FORMATS.items():
        wrong = np.zeros((48, 64, 7 - form.channels), np.uint8)
        with (
            pytest.raises(InputError, match="expected a frame"),
            VideoWriter(tmp_path / f"out{suffix}", (64, 48), NTSC) as writer,
        ):
            writer.write(wrong)
    assert list(tmp_path.iterdir()) == []
