"""``.dockerignore``: what the program needs gets into images, and nothing that a user has put anywhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deployments.context import sent
from tests.deployments.files import DEPLOYMENTS, ROOT, run

USERS = (
    ".env",
    "face.jpg",
    "driver.mp4",
    "manifest.csv",
    "pairs.yaml",
    "profile.yaml",
    "settings.json",
    "generator.safetensors",
    "detector.onnx",
    "weights.pt",
    "weights.pkl",
    "arrays.npz",
    "dask-key.pem",
    "id_rsa",
    "secret.env",
    "notes.md",
    "run.sh",
)
"""Files as users have them."""
FOLDERS = (
    "deployments/inputs",
    "deployments/weights",
    "deployments/out/face",
    "deployments/tls",
    "deployments/kubernetes",
    "deployments/profiles/mine",
    "data/weights",
    "data/models/mine",
    "runs/store/clips",
)
"""Folders that a checkout does not have, and users do."""
PROGRAM = ("portrait_core", "tasks", "flows", "data/models")


def _tracked() -> list[str]:
    """The files that git knows; the test is skipped where there is no checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a user's files in every folder of it, and empty files for the program's own."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in _tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name in (".dockerignore", "deployments/images/cpu.Dockerfile"):
        shutil.copy(ROOT / name, folder / name)
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        for name in USERS:
            (place / name).write_text("a user's")
    (folder / "deployments" / "profiles" / "linked.yaml").symlink_to("/etc/hostname")
    return folder


def test_nothing_of_a_user_gets_into_an_image(checkout: Path) -> None:
    got = sent(checkout)
    assert {name for name, content in got.items() if content == b"a user's"} == set()


def test_only_files_of_the_program_do(checkout: Path) -> None:
    """The builder's own instructions are sent too, and copied by no image."""
    strangers = set(sent(checkout)) - set(_tracked())
    assert strangers == set()


def test_every_file_of_the_program_does() -> None:
    got = set(sent(ROOT))
    needed = {name for name in _tracked() if name.startswith(tuple(f"{top}/" for top in PROGRAM))}
    needed -= {name for name in needed if name.endswith((".md", ".json")) and not name.startswith("data/")}
    assert needed - got == set()


def test_every_file_that_containers_call_does() -> None:
    got = set(sent(ROOT))
    texts = [path.read_text() for path in DEPLOYMENTS.rglob("*.yaml")]
    called = {word.strip('",[]') for text in texts for word in text.split() if "/app/deployments/" in word}
    assert called
    assert {f"deployments/{name.split('/app/deployments/')[1]}" for name in called} <= got


@pytest.mark.parametrize("script", ["server.sh", "workers.sh", "register.sh"])
def test_what_a_script_reads_does(script: str, tmp_path: Path) -> None:
    """A script that lacks a file beside it ends otherwise than by asking for what the user must give."""
    for name, content in sent(ROOT).items():
        if name.startswith("deployments/"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    (tmp_path / "bin").mkdir()
    for name in ("dask", "prefect", "python"):
        command = tmp_path / "bin" / name
        command.write_text("#!/bin/sh\nexit 0\n")
        command.chmod(0o755)
    known = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    known |= {"PREFECT_API_URL": "http://127.0.0.1:4200/api"}
    known |= {"PREFECT_API_AUTH_STRING": "portrait:a-password-of-tests-418", "PORTRAIT_ALLOW_PLAIN": "1"}
    done = run("bash", tmp_path / "deployments" / script, "tcp://127.0.0.1:1", **known)
    assert (done.returncode, done.stderr) == (0, "")
