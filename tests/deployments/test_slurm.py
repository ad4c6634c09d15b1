"""The Slurm scripts under a real Slurm, one machine playing a node with two GPUs (which are no GPUs)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.files import DEPLOYMENTS, ROOT
from tests.deployments.processes import PROGRAMS, Processes, wait_until
from tests.faults.servers import HOST, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
DAEMONS = ("munged", "slurmctld", "slurmd")

CONF = """
ClusterName=test
SlurmctldHost={node}({host})
SlurmctldPort={control}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
# More CPUs and memory than there are.
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={node} NodeAddr={host} CPUs=16 RealMemory=256000 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """A cluster of one node."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        node = socket.gethostname().split(".")[0]
        self.folder = folder
        self._env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self._env["PATH"] = os.pathsep.join([str(PROGRAMS), os.environ["PATH"]])
        self._env.pop("PREFECT_API_URL", None)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        ports = {"control": free_port(), "daemon": free_port()}
        (folder / "slurm.conf").write_text(CONF.format(node=node, host=HOST, folder=folder, **ports))
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o400)
        files = {"key-file": "key", "socket": "munge.sock", "pid-file": "pid", "log-file": "log"}
        munge = [f"--{option}={folder / name}" for option, name in (files | {"seed-file": "seed"}).items()]
        conf = str(folder / "slurm.conf")
        processes.start("munged", ["munged", "--foreground", "--force", *munge])
        wait_until((folder / "munge.sock").exists, 30, "munged")
        processes.start("slurmctld", ["slurmctld", "-D", "-f", conf], SLURM_CONF=conf)
        processes.start("slurmd", ["slurmd", "-D", "-f", conf, "-N", node], SLURM_CONF=conf)
        wait_until(lambda: "idle" in self.call("sinfo", "-h"), 60, "a node that is idle")

    def call(self, *command: str | Path) -> str:
        """One of Slurm's commands."""
        done = subprocess.run(
            list(map(str, command)), cwd=ROOT, env=self._env, capture_output=True, text=True, check=False
        )
        return done.stdout

    def run(self, script: str, options: list[str], arguments: list[str]) -> tuple[str, str]:
        """Submit a batch script and wait for its end: its state and what it printed."""
        output = self.folder / f"{script}-%a.txt"
        file = DEPLOYMENTS / "slurm" / script
        job = self.call("sbatch", "--parsable", f"--output={output}", *options, file, *arguments).strip()
        assert job
        wait_until(lambda: not self.call("squeue", "-h").strip(), 600, f"job {job} ends")
        texts = [path.read_text() for path in sorted(self.folder.glob(f"{script}-*.txt"))]
        return self.call("scontrol", "show", "job", job), "\n".join(texts)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    """A running Slurm."""
    missing = [name for name in (*DAEMONS, "srun") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (Debian: apt-get install slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("slurmd wants to be root")
    # munge wants no folder on the way to its socket that others may not enter
    with tempfile.TemporaryDirectory(prefix="portrait-slurm-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        processes = Processes(tmp_path)
        try:
            yield Slurm(processes, Path(folder))
        finally:
            processes.end()


def test_a_run_on_dask_workers(slurm: Slurm, parameters: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    places = {"portrait": parameters["portrait"], "video": parameters["video"], "out": out}
    given = [part for name, value in places.items() for part in (f"--{name}", str(value))]
    given += [part for change in parameters["overrides"] for part in ("--set", change)]
    resources = ["--ntasks=2", "--cpus-per-task=1", "--mem-per-cpu=100M"]
    state, said = slurm.run("dask.sbatch", resources, ["reenact", "--store", str(tmp_path / "store"), *given])
    assert "JobState=COMPLETED" in state, said
    assert json.loads((out / "summary.json").read_text())["frames"] == 6


def test_every_shard_has_a_gpu_of_its_own(slurm: Slurm, tmp_path: Path) -> None:
    command = tmp_path / "portrait"
    command.write_text('#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES: $*"; sleep 2\n')
    command.chmod(0o755)
    home = tmp_path / "home"
    (home / ".venv").mkdir(parents=True)
    (home / ".venv" / "bin").symlink_to(tmp_path)
    (home / "deployments").symlink_to(DEPLOYMENTS)
    options = ["--array=0-3", "--mem-per-cpu=100M", f"--export=ALL,PORTRAIT_HOME={home}"]
    _, said = slurm.run("array.sbatch", options, ["dataset", "run"])
    lines = [line.split(": ") for line in said.splitlines() if line]
    assert sorted(line for _, line in lines) == [f"dataset run --shard {i}/4" for i in range(4)]
    assert {gpu for gpu, _ in lines} == {"0", "1"}
