"""A Prefect server on PostgreSQL, told what to run by the deployment files, and a worker of its pool.

The tests build on each other in their order: a server takes a minute to start.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from PIL import Image

from tests.deployments.files import DEPLOYMENTS, IMAGES, image_env
from tests.deployments.processes import PREFECT, Processes, postgres, wait_until
from tests.faults.runs import Run
from tests.faults.servers import HOST, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

FLOWS = (
    "flows.reenact.reenact",
    "flows.dataset.reenact_dataset",
    "flows.edit_attributes.edit_attributes",
    "flows.train_styleflow.train_styleflow",
)
WITHIN_S = 45
"""The automation's patience here. Heartbeats are 30 s apart, the least that Prefect takes."""


class Server:
    """A Prefect server, asked over its API."""

    def __init__(self, processes: Processes, database: str) -> None:
        self.processes = processes
        self.port, self.page = free_port(), free_port()
        self.api = f"http://{HOST}:{self.port}/api"
        common = {name: value for name, value in image_env(IMAGES[0]).items() if name not in ("PATH",)}
        self.environment = common | {"PREFECT_API_URL": self.api, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
        command = [*PREFECT, "server", "start", "--host", HOST, "--port", str(self.port)]
        known = common | {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
        processes.listening("server", command, self.port, **known)

    def get(self, path: str) -> Any:
        """What the server says."""
        return httpx.get(f"{self.api}/{path}", timeout=30).raise_for_status().json()

    def post(self, path: str, **body: Any) -> Any:
        """What the server answers."""
        return httpx.post(f"{self.api}/{path}", json=body, timeout=30).raise_for_status().json()

    def worker(self, name: str) -> Run:
        """A worker of the pool, as the compose file starts it."""
        command = [*PREFECT, "worker", "start", "--pool", "portrait", "--limit", "1", "--with-healthcheck"]
        ports = {"PREFECT_WORKER_WEBSERVER_PORT": str(self.page), "PREFECT_WORKER_QUERY_SECONDS": "2"}
        return self.processes.start(name, command, **self.environment, **ports)

    def begin(self, **parameters: Any) -> str:
        """Queue a run of ``reenact``; its id."""
        deployment = self.get("deployments/name/reenact/portrait")["id"]
        made = self.post(f"deployments/{deployment}/create_flow_run", parameters=parameters)
        return str(made["id"])

    def state(self, run: str) -> str:
        """The type of a run's state."""
        return str(self.get(f"flow_runs/{run}")["state_type"])

    def message(self, run: str) -> str:
        """What is said with a run's state."""
        return str(self.get(f"flow_runs/{run}")["state"]["message"])

    def heartbeats(self, run: str) -> int:
        """How many signs of life a run has given."""
        asked = {"event": {"name": ["prefect.flow-run.heartbeat"]}}
        asked |= {"resource": {"id": [f"prefect.flow-run.{run}"]}}
        return len(self.post("events/filter", filter=asked)["events"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on PostgreSQL."""
    processes = Processes(tmp_path_factory.mktemp("prefect"))
    with postgres() as database:
        try:
            yield Server(processes, database)
        finally:
            processes.end()


def _process_of(run: Run) -> psutil.Process:
    """The process of the flow that a worker has started."""
    children = psutil.Process(run.pid).children(recursive=True)
    flows = [child for child in children if "prefect" in " ".join(child.cmdline())]
    assert flows, [child.cmdline() for child in children]
    return flows[-1]


def test_the_server_is_told_everything_twice(server: Server) -> None:
    for name in ("register", "register-again"):
        server.processes.finished(name, ["bash", DEPLOYMENTS / "register.sh"], **server.environment)
    deployed = server.post("deployments/filter")
    assert {one["entrypoint"] for one in deployed} == set(FLOWS)
    for one in deployed:
        assert (one["work_pool_name"], one["pull_steps"]) == ("portrait", [])
        assert one["global_concurrency_limit"]["limit"] > 0
    assert server.get("work_pools/portrait")["type"] == "process"
    (automation,) = server.post("automations/filter")
    assert automation["enabled"]
    assert automation["trigger"]["within"] == 600


def test_a_worker_picks_runs_up(server: Server, parameters: dict[str, Any], tmp_path: Path) -> None:
    store, out = str(tmp_path / "store"), str(tmp_path / "out")
    asked = parameters | {"store": store, "out": out}
    command = [*PREFECT, "deployment", "run", "reenact/portrait", "--params", json.dumps(asked)]
    server.processes.finished("run", command, **server.environment)
    worker = server.worker("worker-1")
    _completes(server, worker, "reenact")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"] == 6
    check = [sys.executable, DEPLOYMENTS / "healthy.py", f"http://{HOST}:{server.page}/health"]
    server.processes.finished("healthy", check)
    nobody, manifest = tmp_path / "nobody.png", tmp_path / "clips.csv"
    Image.new("RGB", (256, 256), "grey").save(nobody)
    given = (("clip", parameters["portrait"]), ("nobody", nobody))
    rows = [f"{name},{picture},{parameters['video']},CC0,test\n" for name, picture in given]
    manifest.write_text("name,portrait,video,licence,consent\n" + "".join(rows))
    changes = [part for change in parameters["overrides"] for part in ("--set", change)]
    submit = [sys.executable, "-m", "flows.cli", "dataset", "submit", manifest, "--shards", "1"]
    places = ["--store", store, "--out", out]
    server.processes.finished("submit", [*submit, *places, *changes], **server.environment)
    _completes(server, worker, "reenact-dataset")
    assert (tmp_path / "out" / "clip" / "reenactment.mp4").is_file()
    shown = {one["key"]: one for one in server.post("artifacts/latest/filter")}
    assert shown["dataset-progress"]["data"] == 100.0
    assert "2 of 2 clips: 1 done, 1 failed" in shown["dataset-progress"]["description"]
    (failed,) = json.loads(shown["dataset-failures"]["data"])
    assert (failed["row"], failed["clip"], failed["outcome"]) == (3, "nobody", "failed")
    assert "no human face" in failed["why"]
    worker.destroy()


def _completes(server: Server, worker: Run, flow: str) -> None:
    """Wait until the only run of a flow has ended well."""
    (run,) = [one["id"] for one in server.post("flow_runs/filter", flows={"name": {"any_": [flow]}})]
    ended = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    wait_until(lambda: server.state(run) in ended, 400, lambda: worker.output)
    assert server.state(run) == "COMPLETED", server.message(run)


def _started(server: Server, worker: Run, parameters: dict[str, Any], folder: Path) -> str:
    """A run that goes on for ever, once it is at work and has given a sign of life."""
    endless = [*parameters["overrides"], "tuning.steps=1000000"]
    places = {"store": str(folder / "store"), "out": str(folder / "out")}
    run = server.begin(**(parameters | places | {"overrides": endless}))
    wait_until(lambda: server.state(run) == "RUNNING", 200, lambda: worker.output)
    wait_until(lambda: server.heartbeats(run) > 0, 60, "a heartbeat")
    return run


def test_a_worker_notices_that_its_flow_was_killed(
    server: Server, parameters: dict[str, Any], tmp_path: Path
) -> None:
    worker = server.worker("worker-2")
    run = _started(server, worker, parameters, tmp_path)
    _process_of(worker).kill()
    wait_until(lambda: server.state(run) == "CRASHED", 60, lambda: worker.output)
    worker.destroy()


def test_the_automation_notices_that_a_host_is_gone(
    server: Server, parameters: dict[str, Any], tmp_path: Path
) -> None:
    (automation,) = server.post("automations/filter")
    shorter = yaml.safe_load((DEPLOYMENTS / "automations" / "crash-zombies.yaml").read_text())
    shorter["trigger"]["within"] = WITHIN_S
    file = tmp_path / "shorter.yaml"
    file.write_text(yaml.safe_dump(shorter))
    command = [*PREFECT, "automation", "update", "--id", automation["id"], "--from-file", file]
    server.processes.finished("shorter", command, **server.environment)
    worker = server.worker("worker-3")
    run = _started(server, worker, parameters, tmp_path)
    wait_until(lambda: server.heartbeats(run) > 1, 60, "two heartbeats: a living run is left alone")
    flow = _process_of(worker)
    # The worker first: it would report the death of its flow.
    worker.kill()
    flow.kill()
    assert server.state(run) == "RUNNING"
    wait_until(lambda: server.state(run) == "CRASHED", WITHIN_S + 120, "the automation")
    assert "No sign of life" in server.message(run)
