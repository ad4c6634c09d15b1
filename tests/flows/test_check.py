"""``portrait check`` shows what a run would use of two files, and keeps nothing but pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli.check_command import STRIP
from flows.cli.main import app
from portrait_core.runtime.package_files import sample_portrait, sample_video
from tests.conftest import FfmpegRunner

_INK = 235
"""Level of the lines around faces."""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def two_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The astronaut twice, the right one a little smaller."""
    left = skimage.data.astronaut()
    right = np.asarray(Image.fromarray(left).resize((448, 448)))
    picture = np.full((512, 960, 3), 200, np.uint8)
    picture[:, :512], picture[:448, 512:] = left, right
    path = tmp_path_factory.mktemp("pictures") / "two.png"
    Image.fromarray(picture).save(path)
    return path


def test_a_sound_pair_is_described_and_shown(tmp_path: Path) -> None:
    line = "check", "--portrait", sample_portrait(), "--video", sample_video(), "--frames", 4
    part = call(*line, "--out", tmp_path / "part", "--from", "1.0", "--to", "60f", "--rate", "9")
    assert part.exit_code == 0, part.output
    assert "30 frames" in part.output
    assert "--rate 9 does not apply" in part.output
    assert "from frame 30 of the video on, 1.00 s after its beginning" in part.output
    file = call(*line, "--out", tmp_path / "strip.png")
    assert file.exit_code == 2
    assert "--out" in file.output
    ended = call(*line, "--out", tmp_path / "out")
    said = " ".join(ended.output.split())
    assert ended.exit_code == 0, said
    assert "512x512 pixels, shown at 512x512, face" in said
    assert "193x144 pixels, 120 frames, 29.97 frames per second (30000/1001), 4.00 s, no sound" in said
    assert "persons 1, number 1 drives; looked at 4 of 120 frames, 0 cannot be used" in said
    assert "note the driver's face is" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == [STRIP]
    assert Image.open(tmp_path / "out" / STRIP).width > 800


def test_two_faces_are_refused_until_one_is_chosen(tmp_path: Path, two_faces: Path) -> None:
    line = (
        "check",
        "--portrait",
        two_faces,
        "--video",
        sample_video(),
        "--frames",
        1,
        "--out",
        tmp_path / "out",
    )
    refused = call(*line)
    assert refused.exit_code == 2
    assert "2 faces were found" in " ".join(refused.output.split())
    assert "--portrait-face" in refused.output
    shown = np.asarray(Image.open(tmp_path / "out" / STRIP)).astype(int)
    assert (np.abs(shown - _INK).sum(axis=2) < 60).sum() > 100, "the faces are marked"
    chosen = call(*line, "--set", "tracking.portrait_face=2")
    said = " ".join(chosen.output.split())
    assert chosen.exit_code == 0, said
    assert "the portrait shows 2 faces; number 2 is animated" in said
    like = call(*line, "--portrait-face", f"like:{sample_portrait()}")
    assert like.exit_code == 0, like.output


def test_persons_of_frames_that_were_looked_at_are_chosen_by_their_pictures(
    tmp_path: Path, two_faces: Path, ffmpeg_to: FfmpegRunner
) -> None:
    video = ffmpeg_to("two.mp4", "-loop", "1", "-i", two_faces, "-frames:v", "6", "-vf", "scale=640:-2")
    out = tmp_path / "out"
    line = "check", "--portrait", sample_portrait(), "--video", video, "--out", out, "--frames"
    some = call(*line, 2)
    said = " ".join(some.output.split())
    assert some.exit_code == 0, said
    assert "looked at 2 of 6 frames" in said
    assert "choose another by their picture (--driver-face like:IMAGE)" in said
    assert sorted(path.name for path in out.iterdir()) == [STRIP, "person_1.png", "person_2.png"]
    chosen = call(*line, 2, "--driver-face", f"like:{out / 'person_1.png'}")
    assert chosen.exit_code == 0, chosen.output
    assert "persons 2, number 1 drives" in " ".join(chosen.output.split())
    every = " ".join(call(*line, 6).output.split())
    assert "number 1 drives (--driver-face N chooses another)" in every
