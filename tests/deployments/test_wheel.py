"""The wheel works where there is no checkout: its models and profiles are inside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_installed_wheel_finds_its_models_and_profiles(tmp_path: Path) -> None:
    def uv(*arguments: str | Path) -> None:
        ended = subprocess.run(["uv", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr

    uv("build", "--wheel", "--out-dir", tmp_path / "dist", ".")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    uv("pip", "install", "--python", sys.executable, "--no-deps", "--target", tmp_path / "target", wheel)
    (tmp_path / "elsewhere").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PORTRAIT_DATA"}
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", "doctor"],
        cwd=tmp_path / "elsewhere",
        env=environment | {"PYTHONPATH": str(tmp_path / "target"), "COLUMNS": "400"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert str(tmp_path / "target") in ended.stdout, "it reads the checkout"
