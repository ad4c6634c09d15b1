"""``passwords.py`` and ``pin.py``: what an installation makes once, before anything starts."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from pathlib import Path

import pytest
import yaml

from tests.deployments.files import DEPLOYMENTS, run

KEYS = {"AWS_ACCESS_KEY_ID": "AKIA-OURS", "AWS_SECRET_ACCESS_KEY": 'a "quoted": #key'}
DIGEST = "sha256:" + "5a" * 32


def _passwords(folder: Path, *options: str, **environment: str) -> tuple[int, str]:
    env = {"PATH": os.environ["PATH"]} | environment
    done = run(sys.executable, DEPLOYMENTS / "passwords.py", "--folder", folder, *options, **env)
    return done.returncode, done.stderr


def _variables(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_two_installations_have_other_passwords(tmp_path: Path) -> None:
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        assert _passwords(tmp_path / name) == (0, "")
        made.append(_variables(tmp_path / name / ".env"))
    example = _variables(DEPLOYMENTS / ".env.example")
    assert made[0].keys() == example.keys()
    empty = {name for name, value in example.items() if not value}
    assert {n for n in example if made[0][n] != made[1][n]} == empty
    assert all(len(made[0][name]) >= 64 for name in empty)
    assert re.fullmatch("portrait:[0-9a-f]{64}", made[0]["PREFECT_API_AUTH_STRING"])


def test_its_owner_alone_reads_it_and_it_is_never_replaced(tmp_path: Path) -> None:
    assert _passwords(tmp_path)[0] == 0
    made = tmp_path / ".env"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    before = made.read_text()
    code, said = _passwords(tmp_path)
    assert (code, made.read_text()) == (1, before)
    assert "its passwords are in use" in said


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to(tmp_path / "elsewhere")
    assert _passwords(tmp_path)[0] == 1
    assert not (tmp_path / "elsewhere").exists()


def test_the_keys_of_a_store_that_exists_are_taken(tmp_path: Path) -> None:
    (tmp_path / "kubernetes").mkdir()
    assert _passwords(tmp_path, **KEYS)[0] == 0
    assert _passwords(tmp_path, "--kubernetes", **KEYS)[0] == 0
    assert _variables(tmp_path / ".env").items() >= KEYS.items()
    secret = yaml.safe_load((tmp_path / "kubernetes" / "secret.yaml").read_text())
    assert secret["stringData"].items() >= KEYS.items()


def test_a_secret_of_kubernetes_wants_the_store_s_keys_and_keeps_to_the_schema(tmp_path: Path) -> None:
    (tmp_path / "kubernetes").mkdir()
    code, said = _passwords(tmp_path, "--kubernetes")
    assert (code, "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: not set" in said) == (1, True)
    assert _passwords(tmp_path, "--kubernetes", **KEYS)[0] == 0
    made = tmp_path / "kubernetes" / "secret.yaml"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    schemas.validate(yaml.safe_load(made.read_text()), "1.37", strict=True)


@pytest.fixture
def unpinned(tmp_path: Path) -> Path:
    """A copy of the files that name images, and commands that answer for the registries."""
    for name in ("images", "kubernetes"):
        shutil.copytree(DEPLOYMENTS / name, tmp_path / "deployments" / name)
    for path in DEPLOYMENTS.glob("compose*.yaml"):
        shutil.copy(path, tmp_path / "deployments")
    (tmp_path / "bin").mkdir()
    _answers(tmp_path, f"echo {DIGEST}")
    return tmp_path


def _answers(folder: Path, script: str) -> None:
    command = folder / "bin" / "docker"
    command.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n{script}\n')
    command.chmod(0o755)


def _pin(folder: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, DEPLOYMENTS / "pin.py", "--folder", folder / "deployments", *options]
    done = run(*command, PATH=f"{folder}/bin")
    return done.returncode, done.stderr


def _named(folder: Path) -> list[str]:
    """Every image that a file names, but for what compose builds."""
    texts = [
        p.read_text() for p in (folder / "deployments").rglob("*") if p.suffix in (".yaml", ".Dockerfile")
    ]
    return [
        name for text in texts for name in re.findall(r"(?:^FROM |^ +image: )([^\s$]+)", text, re.MULTILINE)
    ]


def test_before_the_first_pin_no_builder_and_no_cluster_takes_an_image(unpinned: Path) -> None:
    """A digest has 64 digits: nothing parses a reference with any other, and its text says what to do."""
    for name in _named(unpinned):
        assert name == "portrait-reenactment:cuda" or re.search(
            r"@sha256:(run-deployments-pin\.py|[0-9a-f]{64})$", name
        )


def test_pins_are_written_behind_every_tag(unpinned: Path) -> None:
    assert _pin(unpinned) == (0, "")
    images = {name for name in _named(unpinned) if name != "portrait-reenactment:cuda"}
    assert len(images) == 4
    assert all(name.endswith(f"@{DIGEST}") for name in images), images
    asked = (unpinned / "asked").read_text().splitlines()
    assert len(asked) == 4, "each image is asked for once"
    assert "buildx imagetools inspect postgres:16 --format {{.Manifest.Digest}}" in asked
    before = _named(unpinned)
    assert _pin(unpinned) == (0, "")
    assert _named(unpinned) == before


def test_the_program_s_image_is_pinned_when_it_is_named(unpinned: Path) -> None:
    assert _pin(unpinned, "--program", "registry.example:5000/portrait:cuda") == (0, "")
    assert set(_named(unpinned)) >= {f"registry.example:5000/portrait:cuda@{DIGEST}"}
    assert "portrait-reenactment:cuda" not in _named(unpinned)
    _answers(unpinned, f"echo {DIGEST.replace('5a', '6b')}")
    assert _pin(unpinned) == (0, "")
    kept = [name for name in _named(unpinned) if "registry.example" in name]
    assert all(name.endswith(DIGEST) for name in kept), (
        "another image of the program is taken only when asked for"
    )


@pytest.mark.parametrize("script", ["echo denied >&2; exit 1", "echo latest", "true"])
def test_nothing_is_written_when_a_registry_does_not_answer(unpinned: Path, script: str) -> None:
    _answers(unpinned, script)
    before = _named(unpinned)
    code, said = _pin(unpinned)
    assert (code, _named(unpinned)) == (1, before)
    assert "no digest of" in said
