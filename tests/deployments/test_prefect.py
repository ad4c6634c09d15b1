"""A Prefect server on PostgreSQL, told what to run by the deployment files, and a worker of its pool.

The tests build on each other in their order: a server takes a minute to start.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from PIL import Image

from tests.deployments.files import DEPLOYMENTS
from tests.deployments.prefect_server import Server, prefect_server
from tests.deployments.processes import PREFECT, wait_until
from tests.faults.runs import Run
from tests.faults.servers import HOST

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

FLOWS = (
    "flows.reenact.reenact",
    "flows.dataset.reenact_dataset",
    "flows.edit_attributes.edit_attributes",
    "flows.train_styleflow.train_styleflow",
    "flows.evaluate.evaluate",
    "flows.evaluate_people.evaluate_people",
)
WITHIN_S = 45
"""The automation's patience here. Heartbeats are 30 s apart, the least that Prefect takes."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on PostgreSQL."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as started:
        yield started


def _process_of(run: Run) -> psutil.Process:
    """The process of the flow that a worker has started."""
    children = psutil.Process(run.pid).children(recursive=True)
    flows = [child for child in children if "prefect" in " ".join(child.cmdline())]
    assert flows, [child.cmdline() for child in children]
    return flows[-1]


def test_the_server_is_told_everything_twice(server: Server) -> None:
    for name in ("register", "register-again"):
        server.register(name)
    deployed = server.post("deployments/filter")
    assert {one["entrypoint"] for one in deployed} == set(FLOWS)
    for one in deployed:
        assert (one["work_pool_name"], one["pull_steps"]) == ("portrait", [])
        assert one["global_concurrency_limit"]["limit"] > 0
    assert server.get("work_pools/portrait")["type"] == "process"
    told = {one["name"]: one for one in server.post("automations/filter")}
    assert sorted(told) == ["Crash zombie flow runs", "Run again what crashed"]
    assert all(automation["enabled"] for automation in told.values())
    assert told["Crash zombie flow runs"]["trigger"]["within"] == 600
    (nightly,) = [schedule for one in deployed for schedule in one["schedules"]]
    assert (nightly["slug"], nightly["active"]) == ("nightly", False)


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
    submit = [sys.executable, "-m", "flows.cli.main", "dataset", "submit", manifest, "--shards", "1"]
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
    server.set_state(run, "CANCELLED")  # or it would start again
    worker.destroy()


def test_a_run_whose_host_is_gone_crashes_and_starts_again(
    server: Server, parameters: dict[str, Any], tmp_path: Path
) -> None:
    shorter = yaml.safe_load((DEPLOYMENTS / "automations" / "crash-zombies.yaml").read_text())
    shorter["trigger"]["within"] = WITHIN_S
    file = tmp_path / "shorter.yaml"
    file.write_text(yaml.safe_dump(shorter))
    server.change_automation("Crash zombie flow runs", file)
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
    second = server.worker("worker-4")
    wait_until(lambda: server.states(run).count("Running") == 2, 200, lambda: str(server.states(run)))
    begun = server.heartbeats(run)
    wait_until(lambda: server.heartbeats(run) > begun, 60, "a heartbeat: it is at work again")
    names = [name for name in server.states(run) if name not in ("Scheduled", "Pending", "Submitting")]
    assert names == ["Running", "Crashed", "AwaitingRetry", "Running"]
    second.destroy()
