"""Commands that the deployment files tell a user to give, against the command line as it is."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer import Typer

from flows.cli.main import app
from portrait_core.settings import load_settings
from tests.deployments.files import DEPLOYMENTS

BEFORE = re.compile(
    r"(?:\.sbatch|(?:^|[\s`])(?:uv run |run --rm )?portrait) +((?:reenact|dataset|status|retry)\b[^`|]*)"
)
"""What stands before one of the program's commands."""
FILES = sorted(
    path
    for path in DEPLOYMENTS.rglob("*")
    if path.suffix in (".md", ".yaml", ".sbatch", ".sh") and path.is_file()
)


def _commands() -> list[Any]:
    found = []
    for file in FILES:
        lines = re.sub(r"\\\n\s*#?\s*", " ", file.read_text()).splitlines()
        for line in lines:
            for command in BEFORE.findall(line):
                found.append(pytest.param(command, id=f"{file.name}: {command[:60]}"))
    return found


def test_there_are_commands() -> None:
    assert len(_commands()) >= 12


@pytest.mark.parametrize("text", _commands())
def test_a_command_is_one_of_portrait(text: str) -> None:
    """Its words name a command, its options are that command's, and its settings exist."""
    words = shlex.split(text, comments=True)
    assert isinstance(app, Typer)
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"{text}: which command of {command.name}?"
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known
    load_settings("embedded", [value for name, value in pairwise(words) if name == "--set"])


def test_parameters_of_deployments_are_those_of_the_flow() -> None:
    from inspect import signature

    from flows.reenact import reenact

    texts = [(DEPLOYMENTS / name).read_text() for name in ("README.md", "prefect.yaml")]
    named = {name for text in texts for name in re.findall(r"--param (\w+)=", text)}
    assert named == {"portrait", "video", "store", "out"}
    assert named <= set(signature(reenact.fn).parameters)


def test_files_that_are_named_exist() -> None:
    text = (DEPLOYMENTS / "README.md").read_text()
    made = {f"deployments/{name}" for name in (".env", "inputs", "weights", "out", "tls")}
    made |= {"deployments/kubernetes/secret.yaml"}
    for name in set(re.findall(r"deployments/[\w./-]*\w", text)) - made:
        assert (DEPLOYMENTS.parent / name).exists(), name
    for name in set(re.findall(r"`((?:images|kubernetes|slurm|jobs|automations)/[\w./-]*)`", text)):
        assert Path(DEPLOYMENTS / name).exists() or (DEPLOYMENTS / "kubernetes" / name).exists(), name
