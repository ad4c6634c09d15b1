"""The wheel works where there is no checkout: its models and profiles are inside, and what lies in the user's
working folder does not get in its way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import FfmpegRunner

ROOT = Path(__file__).parents[2]

SMALL = (
    "media.max_frames=2",
    "output.frame=crop",
    "output.size=64",
    "inversion.first_steps=2",
    "inversion.steps=1",
    "tuning.steps=2",
)
"""Settings of a clip that takes seconds."""


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment of its own, which finds the libraries of this one."""

    script: Path
    """The command ``portrait``."""
    site: Path
    """The folder that it was installed into."""
    work: Path
    """A working folder whose ``flows``, ``tasks`` and ``portrait_core`` are the user's own."""

    def run(self, *arguments: str | Path) -> str:
        """Run a command in the working folder and return what it printed."""
        environment = {k: v for k, v in os.environ.items() if k not in ("PORTRAIT_DATA", "PYTHONPATH")}
        ended = subprocess.run(
            [str(self.script), *map(str, arguments)],
            cwd=self.work,
            env=environment | {"COLUMNS": "400"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout
        return ended.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")

    def uv(*arguments: str | Path) -> None:
        ended = subprocess.run(["uv", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr

    uv("build", "--wheel", "--out-dir", folder / "dist", ".")
    (wheel,) = (folder / "dist").glob("*.whl")
    uv("venv", "--python", sys.executable, folder / "venv")
    uv("pip", "install", "--python", folder / "venv/bin/python", "--no-deps", wheel)
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    work = folder / "work"
    for name in ("flows/__init__.py", "portrait_core/__init__.py", "tasks.py", "tests.py"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text("raise RuntimeError('this is the user\\'s own file')\n")
    return Installed(folder / "venv/bin/portrait", site, work)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_finds_its_models_and_profiles(installed: Installed) -> None:
    assert str(installed.site) in installed.run("doctor"), "it reads the checkout"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", [pytest.param("threads", marks=pytest.mark.each_change), "local_cluster"])
def test_it_animates_a_portrait(
    installed: Installed, kind: str, portrait: Path, carphone: Path, ffmpeg_to: FfmpegRunner
) -> None:
    video = ffmpeg_to("two.mp4", "-i", carphone, "-frames:v", 2)
    changes = [word for one in (*SMALL, f"runner.kind={kind}") for word in ("--set", one)]
    given: list[str | Path] = [
        "--portrait",
        portrait,
        "--video",
        video,
        "--store",
        f"store-{kind}",
        "--out",
        f"out-{kind}",
    ]
    installed.run("reenact", *given, *changes)
    out = installed.work / f"out-{kind}"
    assert (out / "reenactment.mp4").stat().st_size > 500
    assert json.loads((out / "summary.json").read_text())["frames"] == 2
