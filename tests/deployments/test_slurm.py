"""The Slurm scripts and ``runner.kind=slurm`` under a real Slurm, one machine playing a node with two GPUs
(which are no GPUs)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.engine import queues
from flows.engine.clusters import open_cluster
from portrait_core.settings import load_settings
from tests.deployments.files import DEPLOYMENTS, ROOT
from tests.deployments.processes import PROGRAMS, Processes, wait_until
from tests.faults.runs import Run
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


QUEUE = ("runner.kind=slurm", "runner.workers=2", "runner.cluster.memory=1GB")


class Slurm:
    """A cluster of one node."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        node = socket.gethostname().split(".")[0]
        self.folder = folder
        self._processes = processes
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

    @property
    def variables(self) -> dict[str, str]:
        """What a process needs to speak to it."""
        return {name: self._env[name] for name in ("SLURM_CONF", "PATH")}

    def jobs(self) -> list[str]:
        """Ids of the jobs that run or wait."""
        return self.call("squeue", "-h", "-o", "%i").split()

    def call(self, *command: str | Path) -> str:
        """One of Slurm's commands."""
        done = subprocess.run(
            list(map(str, command)), cwd=ROOT, env=self._env, capture_output=True, text=True, check=False
        )
        return done.stdout

    def reenact(self, name: str, folder: Path, parameters: dict[str, Any], *changes: str) -> Run:
        """Start ``portrait reenact``, whose workers are jobs."""
        pytest.importorskip("dask_jobqueue", reason="the extra slurm is not installed")
        given = ["--store", folder / "store", "--out", folder / "out"]
        given += ["--portrait", parameters["portrait"], "--video", parameters["video"]]
        for change in (*parameters["overrides"], *QUEUE, f"runner.cluster.log_directory={folder}", *changes):
            given += ["--set", change]
        command = [sys.executable, "-m", "flows.cli.main", "reenact", *given]
        return self._processes.start(name, command, **self.variables)

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
            _end_steps(str(Path(folder) / "slurm.conf"))


def _end_steps(conf: str) -> None:
    """End what tells a controller that is gone, for ever, that its job has ended."""
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error):
            if process.name() == "slurmstepd" and process.environ().get("SLURM_CONF") == conf:
                process.kill()


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


def _markers(store: Path, stage: str) -> int:
    """How many commit markers a stage has."""
    return len(list(store.glob(f"*/*/{stage}.*/done/*")))


def test_workers_that_are_jobs(slurm: Slurm, parameters: dict[str, Any], tmp_path: Path) -> None:
    """A whole run; one of its two workers is cancelled in the middle."""
    run = slurm.reenact("reenact", tmp_path, parameters, f"runner.cluster.shared_temp_directory={tmp_path}")
    assert run.watch(lambda: _markers(tmp_path / "store", "inversion") > 0), run.output
    first, _ = slurm.jobs()
    said = slurm.call("scontrol", "show", "job", first)
    assert ("JobName=portrait" in said, "TimeLimit=1-00:00:00" in said, "gpu" in said) == (True, True, False)
    slurm.call("scancel", first)
    assert not run.is_over()
    assert run.wait(600) == 0, run.output[-3000:]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"] == 6
    wait_until(lambda: not slurm.jobs(), 60, "jobs end with their run")


def test_jobs_end_when_their_run_is_killed(slurm: Slurm, parameters: dict[str, Any], tmp_path: Path) -> None:
    run = slurm.reenact("reenact", tmp_path, parameters, "tuning.steps=1000000")
    assert run.watch(lambda: _markers(tmp_path / "store", "landmarks") > 0), run.output
    assert len(slurm.jobs()) == 2
    run.send(signal.SIGKILL)
    wait_until(lambda: not slurm.jobs(), 180, "jobs without a scheduler end")


def test_a_job_that_is_lost_is_submitted_again(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue", reason="the extra slurm is not installed")
    import dask
    from distributed import Client

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in slurm.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(queues, "KEEP_S", 1.0)
    places = [f"runner.cluster.{name}={tmp_path}" for name in ("log_directory", "shared_temp_directory")]
    changes = [*QUEUE, *places, "runner.threads_per_worker=3"]
    settings = load_settings("embedded", changes)
    waits = {"distributed.deploy.lost-worker-timeout": "2s"}
    with dask.config.set(waits), open_cluster(settings) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=120)
        assert cluster.scheduler_address.startswith("tls://")
        before = slurm.jobs()
        assert [slurm.call("squeue", "-h", "-j", job, "-o", "%C") for job in before] == ["3\n"] * 2
        found = client.run(_what_a_worker_finds)
        assert sorted(one.pop("CUDA_VISIBLE_DEVICES") for one in found.values()) == ["0", "1"]
        wanted = {"OMP_NUM_THREADS": "3", "threads": 1, "memory": None, "connect": "60s"}
        assert list(found.values()) == [wanted] * 2
        slurm.call("scancel", before[0])
        wait_until(lambda: len(set(slurm.jobs()) - set(before)) == 1, 120, "another job")
        wait_until(lambda: len(client.nthreads()) == 2, 120, "another worker")
    wait_until(lambda: not slurm.jobs(), 60, "jobs end with their cluster")


def _what_a_worker_finds(dask_worker: Any) -> dict[str, Any]:
    import dask

    limits = {"threads": dask_worker.state.nthreads, "memory": dask_worker.memory_manager.memory_limit}
    named = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    return limits | named | {"connect": dask.config.get("distributed.comm.timeouts.connect")}


def test_a_job_that_slurm_refuses(slurm: Slurm, parameters: dict[str, Any], tmp_path: Path) -> None:
    run = slurm.reenact("reenact", tmp_path, parameters, "runner.cluster.queue=nowhere")
    assert run.wait(120) == 2, run.output
    assert "invalid partition specified: nowhere" in run.output
    assert "Traceback" not in run.output
