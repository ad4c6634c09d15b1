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


def _commands() -> str:
    """The block of commands in the document on datasets."""
    section = (ROOT / "docs" / "datasets.md").read_text().split("\n## Datasets\n")[1].split("\n## ")[0]
    found = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    assert found, "the document has no commands on datasets"
    return str(found[0])


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
    environment = {**os.environ, "UV_PROJECT": str(ROOT), "UV_NO_SYNC": "1", "COLUMNS": "150"}
    environment.pop("PREFECT_API_URL", None)
    ended = subprocess.run(
        ["bash", "-exc", _commands()],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout
    assert "2 clips: 2 done" in ended.stdout
    for summary in (tmp_path / "runs" / "clips").glob("*/summary.json"):
        assert json.loads(summary.read_text())["frames"] == 8
        assert (summary.parent / "reenactment.mp4").stat().st_size > 1000
    assert len(list((tmp_path / "runs" / "clips").glob("*/summary.json"))) == 2
