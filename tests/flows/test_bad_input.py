"""What cannot be used gets one clear paragraph and exit code 2, before any heavy work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli.main import app
from flows.cli.outcome import BAD_INPUT
from portrait_core.runtime.package_files import sample_portrait
from tests.conftest import FfmpegRunner


def _reenact(tmp_path: Path, small: list[str], portrait: Path, video: Path, *more: str) -> Result:
    settings = [part for change in small for part in ("--set", change)]
    places = [
        "--portrait",
        portrait,
        "--video",
        video,
        "--store",
        tmp_path / "store",
        "--out",
        tmp_path / "out",
    ]
    return CliRunner().invoke(app, ["reenact", *map(str, places), *settings, *more])


def _said(result: Result) -> str:
    """The error's text, with line breaks undone."""
    assert result.exit_code == BAD_INPUT, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


@pytest.fixture
def cat() -> Path:
    """The cat that scikit-image ships."""
    return sample_portrait().with_name("chelsea.png")


def test_a_cat_is_no_portrait(tmp_path: Path, small: list[str], cat: Path, carphone: Path) -> None:
    assert "no human face was found in the portrait" in _said(_reenact(tmp_path, small, cat, carphone))
    assert not list((tmp_path / "store").glob("video/*/*.*/done")), "the video was not touched"


def test_two_people_are_no_portrait(tmp_path: Path, small: list[str], portrait: Path, carphone: Path) -> None:
    person = np.asarray(Image.open(portrait).convert("RGB"))
    Image.fromarray(np.concatenate([person, person], axis=1)).save(tmp_path / "two.png")
    said = _said(_reenact(tmp_path, small, tmp_path / "two.png", carphone))
    assert "2 faces were found" in said
    assert "crop the portrait" in said


def test_text_that_poses_as_a_video(tmp_path: Path, small: list[str], portrait: Path) -> None:
    (tmp_path / "notes.mp4").write_text("not a video, " * 500)
    said = _said(_reenact(tmp_path, small, portrait, tmp_path / "notes.mp4"))
    assert "notes.mp4" in said


def test_a_folder_is_no_video(tmp_path: Path, small: list[str], portrait: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = _said(_reenact(tmp_path, small, portrait, tmp_path / "empty"))
    assert "is a folder" in said


def test_a_missing_portrait(tmp_path: Path, small: list[str], carphone: Path) -> None:
    said = _said(_reenact(tmp_path, small, tmp_path / "nobody.jpg", carphone))
    assert "nobody.jpg does not exist" in said


def test_one_frame_is_no_driving_video(
    tmp_path: Path, small: list[str], portrait: Path, carphone: Path, ffmpeg_to: FfmpegRunner
) -> None:
    one = ffmpeg_to("one.mp4", "-i", carphone, "-frames:v", 1, "-c:v", "libx264")
    assert "has one frame" in _said(_reenact(tmp_path, small, portrait, one))


def test_a_video_without_a_face(
    tmp_path: Path, small: list[str], portrait: Path, ffmpeg_to: FfmpegRunner
) -> None:
    empty = ffmpeg_to("wall.mp4", "-f", "lavfi", "-i", "testsrc=s=176x144:r=30:d=0.2", "-c:v", "libx264")
    assert "no face was found in any of the 6 frames" in _said(_reenact(tmp_path, small, portrait, empty))


def test_a_tiny_portrait(tmp_path: Path, small: list[str], carphone: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "tiny.png")
    assert "40x40 pixels" in _said(_reenact(tmp_path, small, tmp_path / "tiny.png", carphone))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("tuning.stepps=4", "did you mean: tuning.steps"),
        ("tuning.steps=few", "tuning.steps: got 'few'"),
        ("generator.weights=models/none.safetensors", "none.safetensors"),
    ],
)
def test_wrong_settings(
    tmp_path: Path, small: list[str], portrait: Path, carphone: Path, change: str, words: str
) -> None:
    assert words in _said(_reenact(tmp_path, small, portrait, carphone, "--set", change))


def test_an_unknown_profile(tmp_path: Path, small: list[str], portrait: Path, carphone: Path) -> None:
    said = _said(_reenact(tmp_path, small, portrait, carphone, "--profile", "papr"))
    assert "embedded, fast, paper" in said
