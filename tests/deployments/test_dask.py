"""A Dask cluster of separate processes, started with the commands and the environment of the compose file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client

from tests.deployments.files import DEPLOYMENTS, compose, container_env, run_python
from tests.deployments.processes import Processes, wait_until
from tests.faults.servers import HOST, free_port, listens

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Cluster:
    """The services of the compose file on this machine: names of services become addresses of processes."""

    def __init__(self, processes: Processes, certificates: Path) -> None:
        self._processes = processes
        self._certificates = certificates
        self._services = compose()["services"]
        self.dask, self.dashboard, self.worker_page, self.s3 = (free_port() for _ in range(4))
        (named,) = [w for w in self._services["dask-worker"]["command"] if "://dask-scheduler:" in w]
        self.address = self._here(named)

    def environment(self, service: str) -> dict[str, str]:
        """What a container of the service finds."""
        env = container_env(self._services[service])
        return {name: self._here(value) for name, value in env.items()} | {"PORTRAIT_MODELS": ""}

    def start(self, service: str, port: int, **env: str) -> None:
        """Start a service with its own command."""
        command = [self._here(word) for word in self._services[service]["command"]]
        self._processes.listening(service, command, port, **self.environment(service), **env)

    def is_well(self, service: str) -> bool:
        """What the service's health check says."""
        check = [self._here(word) for word in self._services[service]["healthcheck"]["test"][1:]]
        return self._processes.start(f"healthy-{service}", check).wait(60) == 0

    def _here(self, word: str) -> str:
        ports = {"8786": self.dask, "8787": self.dashboard, "8790": self.worker_page, "8333": self.s3}
        for name in ("dask-scheduler", "s3"):
            word = word.replace(f"://{name}:", f"://{HOST}:")
        for named, port in ports.items():
            word = word.replace(named, str(port)) if word.endswith(named) or f":{named}/" in word else word
        return word.replace("/app/deployments", str(DEPLOYMENTS)).replace("/tls/", f"{self._certificates}/")

    def client(self) -> Client:
        """A client with the certificates of the command line's container."""
        read = dask.config.collect(paths=[], env=self.environment("portrait"))
        with dask.config.set(dask.config.merge(dask.config.config, read)):
            return Client(self.address, set_as_default=False, timeout=60)


@pytest.fixture
def cluster(processes: Processes, tmp_path: Path) -> Cluster:
    """A scheduler as the compose file starts it."""
    run_python(DEPLOYMENTS / "certificates.py", tmp_path / "tls")
    made = Cluster(processes, tmp_path / "tls")
    made.start("dask-scheduler", made.dask)
    return made


def test_a_run_with_the_store_in_a_bucket(
    cluster: Cluster, processes: Processes, parameters: dict[str, Any], tmp_path: Path
) -> None:
    moto = [sys.executable, "-m", "moto.server", "--host", HOST, "--port", str(cluster.s3)]
    processes.listening("s3", moto, cluster.s3)
    bucket = [sys.executable, DEPLOYMENTS / "bucket.py"]
    for again in ("", "-again"):
        processes.finished(f"bucket{again}", bucket, **cluster.environment("setup"))
    cluster.start("dask-worker", cluster.worker_page, PORTRAIT_WORKERS="2")
    with cluster.client() as client:
        client.wait_for_workers(2, timeout=120)
        assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures) == 0
        limits = client.run(
            lambda dask_worker: (dask_worker.memory_manager.memory_limit, dask_worker.state.nthreads)
        )
        assert set(limits.values()) == {(None, 1)}
    assert cluster.is_well("dask-scheduler")
    assert cluster.is_well("dask-worker")
    changes = [*parameters["overrides"], "runner.kind=address", f"runner.address={cluster.address}"]
    places = {"--portrait": parameters["portrait"], "--video": parameters["video"]}
    places |= {"--store": "s3://portrait/store", "--out": str(tmp_path / "out")}
    given = [part for pair in places.items() for part in pair] + [p for c in changes for p in ("--set", c)]
    command = [sys.executable, "-m", "flows.cli.main", "reenact", *given]
    processes.finished("reenact", command, **cluster.environment("portrait"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["frames"] == 6


def test_one_worker_a_gpu(cluster: Cluster, processes: Processes) -> None:
    command = [DEPLOYMENTS / "workers.sh", cluster.address]
    workers = processes.start(
        "workers", command, **cluster.environment("dask-worker"), CUDA_VISIBLE_DEVICES="2,GPU-5a"
    )
    with cluster.client() as client:
        client.wait_for_workers(2, timeout=120)
        seen = client.run(lambda: os.environ.get("CUDA_VISIBLE_DEVICES"))
        assert sorted(seen.values()) == ["2", "GPU-5a"]
        described = client.scheduler_info(n_workers=-1)["workers"].values()
        assert [worker["resources"] for worker in described] == [{"GPU": 1}] * 2
        client.shutdown()
    wait_until(workers.is_over, 60, "workers end with their scheduler")
    assert not listens(cluster.dask)
