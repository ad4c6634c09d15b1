"""The documents' way from folders of portraits and videos to a finished dataset, as it is written there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import FfmpegRunner

ROOT = Path(__file__).parents[2]


def _commands(document: str, heading: str = "") -> str:
    """Return the first block of commands of a document, or of one of its sections."""
    text = (ROOT / document).read_text()
    if heading:
        text = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    assert blocks, f"{document} has no commands"
    return str(blocks[0])


def _run(commands: str, folder: Path) -> str:
    """Run commands one after the other in a folder, where ``uv run`` is this checkout's."""
    environment = {**os.environ, "UV_PROJECT": str(ROOT), "UV_NO_SYNC": "1", "COLUMNS": "150"}
    environment.pop("PREFECT_API_URL", None)
    ended = subprocess.run(
        ["bash", "-exc", commands],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_commands_on_own_files_and_on_resuming_run(
    tmp_path: Path, portrait: Path, carphone: Path, ffmpeg_to: FfmpegRunner
) -> None:
    Image.open(portrait).save(tmp_path / "face.jpg")
    shutil.copy(ffmpeg_to("six.mp4", "-i", carphone, "-frames:v", 6), tmp_path / "driver.mp4")
    _run(_commands("README.md", "Your own files"), tmp_path)
    assert json.loads((tmp_path / "runs" / "face" / "summary.json").read_text())["frames"] == 6
    said = _run(_commands("docs/resuming.md"), tmp_path)
    assert "tuning.steps 160 -> 400" in said


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_commands_make_a_dataset(
    tmp_path: Path, portrait: Path, carphone: Path, ffmpeg_to: FfmpegRunner
) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "drivers").mkdir()
    image = Image.open(portrait)
    image.save(tmp_path / "faces" / "left.png")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "faces" / "right.png")
    shutil.copy(ffmpeg_to("eight.mp4", "-i", carphone, "-frames:v", 8), tmp_path / "drivers" / "eight.mp4")
    said = _run(_commands("docs/datasets.md", "Datasets"), tmp_path)
    assert "2 clips: 2 done" in said
    for summary in (tmp_path / "runs" / "clips").glob("*/summary.json"):
        assert json.loads(summary.read_text())["frames"] == 8
        assert (summary.parent / "reenactment.mp4").stat().st_size > 1000
    assert len(list((tmp_path / "runs" / "clips").glob("*/summary.json"))) == 2
