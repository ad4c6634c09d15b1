"""What deployments give to their runs, and what becomes of runs that crash, on a real Prefect server.

The tests build on each other in their order: a server takes a minute to start.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from portrait_core.dataset.manifest import read_manifest
from tests.deployments.files import DEPLOYMENTS
from tests.deployments.page import SIZE, picture
from tests.deployments.prefect_server import AUTH, Server, prefect_server
from tests.deployments.processes import PREFECT, wait_until
from tests.faults.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TOYS = ("speak", "partial", "endless")
WITHIN_S = 15
"""How long after a crash the automation acts here. A worker is done with a crashed run in two seconds."""
VARIABLE = "PORTRAIT_TEST_KEY"
SECRET = "open-sesame-418"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows everything, and flows of a few lines with the settings of the dataset's."""
    folder = tmp_path_factory.mktemp("prefect-runs")
    with prefect_server(folder) as started:
        started.register("register")
        said = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())
        (real,) = [one for one in said["deployments"] if one["name"] == "portrait-dataset"]
        real["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_DEFAULT_RETRY_DELAY_SECONDS"] = "1"
        del real["schedules"]
        said["deployments"] = [
            real | {"name": "toy", "entrypoint": f"tests.deployments.toy_flows.{name}"} for name in TOYS
        ]
        (folder / "toys.yaml").write_text(yaml.safe_dump(said))
        command = [*PREFECT, "--no-prompt", "deploy", "--all", "--prefect-file", folder / "toys.yaml"]
        started.processes.finished("toys", command, **started.environment)
        yield started


@pytest.fixture(scope="module")
def worker(server: Server) -> Iterator[Run]:
    """A worker of the pool."""
    started = server.worker("worker")
    yield started
    started.destroy()


def _ended(server: Server, worker: Run, run: str) -> None:
    ended = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    wait_until(lambda: server.state(run) in ended, 120, lambda: worker.output)


def _awaits(server: Server, run: str) -> None:
    """Wait until a run that has crashed is to start again."""
    wait_until(
        lambda: server.states(run)[-1] == "AwaitingRetry", WITHIN_S + 60, lambda: str(server.states(run))
    )


def _keep(server: Server, name: str, *arguments: str, **variables: str) -> None:
    command = [sys.executable, DEPLOYMENTS / "credentials.py", *arguments]
    server.processes.finished(name, command, **server.environment, **variables)


def _log(server: Server, run: str) -> dict[str, Any]:
    """The messages of a run's log, each with the task run that it is of."""

    def read() -> dict[str, Any]:
        found = server.post("logs/filter", logs={"flow_run_id": {"any_": [run]}}, limit=200)
        return {one["message"]: one["task_run_id"] for one in found}

    # The last lines are sent when the process ends, after the state.
    wait_until(lambda: any(message.startswith("Finished in") for message in read()), 30, lambda: str(read()))
    return read()


def test_a_run_shows_its_log_and_has_the_credentials_of_the_pool(
    server: Server, worker: Run, tmp_path: Path
) -> None:
    _keep(server, "keep", VARIABLE, **{VARIABLE: SECRET})
    run = server.begin("speak/toy", variable=VARIABLE)
    _ended(server, worker, run)
    assert server.state(run) == "COMPLETED", server.message(run)
    said = _log(server, run)
    assert said[f"from the flow: {SECRET}"] is None
    assert said["from a thread"] is None
    assert said["from a task"] == said["from a thread of a task"] is not None
    assert "from a thread without context" not in said
    for path in ("deployments/filter", "flow_runs/filter", "work_pools/filter"):
        said_by_server = str(server.post(path))
        assert SECRET not in said_by_server, path
        assert AUTH[1] not in said_by_server, path
    if shutil.which("chromium") is None:
        pytest.skip(
            "chromium is not installed (Debian: apt-get install chromium); all but the page was checked"
        )
    text = picture(server.api.removesuffix("/api"), run, tmp_path / "page.png", ":".join(AUTH))
    assert f"from the flow: {SECRET}" in text
    with Image.open(tmp_path / "page.png") as page:
        assert page.size == SIZE
        assert len(np.unique(np.asarray(page.convert("L")))) > 50, "an empty page has few shades"


def test_credentials_that_are_forgotten_are_gone(server: Server, worker: Run) -> None:
    _keep(server, "forget", "--forget", VARIABLE)
    run = server.begin("speak/toy", variable=VARIABLE)
    _ended(server, worker, run)
    assert "from the flow: None" in _log(server, run)


def test_a_run_that_fails_is_tried_three_times_in_its_process(server: Server, worker: Run) -> None:
    run = server.begin("partial/toy")
    _ended(server, worker, run)
    begun = ["Running", "AwaitingRetry"]
    states = [name for name in server.states(run) if name not in ("Scheduled", "Pending", "Submitting")]
    assert states == [*begun, *begun, "Running", "Partial"]
    assert server.state(run) == "FAILED"


def test_a_run_whose_process_was_killed_starts_again(server: Server, worker: Run, tmp_path: Path) -> None:
    again = yaml.safe_load((DEPLOYMENTS / "automations" / "run-crashed-again.yaml").read_text())
    again["trigger"]["within"] = WITHIN_S
    (tmp_path / "sooner.yaml").write_text(yaml.safe_dump(again))
    server.change_automation("Run again what crashed", tmp_path / "sooner.yaml")
    run = server.begin("endless/toy", folder=str(tmp_path), words=["age=+20", "b"])
    begun = tmp_path / "begun.txt"

    def processes() -> list[int]:
        lines = begun.read_text().splitlines() if begun.exists() else []
        assert all(line.split()[1:] == ["age=+20", "b"] for line in lines)
        return [int(line.split()[0]) for line in lines]

    wait_until(lambda: len(processes()) == 1, 60, lambda: worker.output)
    os.kill(processes()[0], signal.SIGKILL)
    wait_until(lambda: len(processes()) == 2, WITHIN_S + 60, lambda: worker.output)
    os.kill(processes()[1], signal.SIGKILL)
    _awaits(server, run)
    assert not worker.is_over(), worker.output
    server.set_state(run, "CANCELLED")
    worker.destroy()


# Without a worker


def _submit(server: Server, name: str, manifest: Path, *more: str) -> list[str]:
    command = [sys.executable, "-m", "flows.cli.main", "dataset", "submit", manifest, "--shards", "3"]
    store = ["--store", str(manifest.parent / "store")]
    return server.processes.finished(name, [*command, *store, *more], **server.environment).splitlines()


def _runs(server: Server) -> list[dict[str, Any]]:
    found = server.post("flow_runs/filter", flows={"name": {"any_": ["reenact-dataset"]}}, sort="NAME_ASC")
    return [dict(one) for one in found]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven rows; nothing opens what they name."""
    folder = tmp_path_factory.mktemp("submit")
    lines = ["portrait,video,licence,consent"]
    for i in range(7):
        for name in (f"p{i}.png", f"v{i}.mp4"):
            (folder / name).write_bytes(b"not opened")
        lines.append(f"p{i}.png,v{i}.mp4,CC0,form {i}")
    (folder / "faces.csv").write_text("\n".join(lines))
    return folder / "faces.csv"


def test_submit_gives_each_shard_a_manifest_of_its_own(server: Server, manifest: Path) -> None:
    said = _submit(server, "submit", manifest, "--set", "tuning.steps=3")
    assert said[-1] == "3 shards: 3 new"
    runs = _runs(server)
    assert [run["name"] for run in runs] == [f"faces-000{i}-of-0003" for i in range(3)]
    assert {tuple(sorted(run["tags"])) for run in runs} == {("dataset", "faces", "portrait", "shard")}
    shards = []
    for run in runs:
        asked = run["parameters"]
        assert (asked["shard"], asked["shards"], asked["overrides"]) == (0, 1, ["tuning.steps=3"])
        assert asked["store"] == str(manifest.parent / "store")
        shards.append(read_manifest(asked["manifest"]).rows)
    assert sorted(len(rows) for rows in shards) == [2, 2, 3]
    together = sorted((row for rows in shards for row in rows), key=lambda row: row.number)
    assert together == list(read_manifest(str(manifest)).rows)


def test_submit_given_again_schedules_nothing_twice(server: Server, manifest: Path) -> None:
    before = _runs(server)
    server.set_state(before[1]["id"], "FAILED")
    said = _submit(server, "submit-again", manifest, "--set", "tuning.steps=3")
    assert "faces-0001-of-0003: 2 clips, submitted before, Failed" in said
    assert said[-1] == "3 shards: 3 submitted before; --again creates new runs"
    assert [run["id"] for run in _runs(server)] == [run["id"] for run in before]
    assert (
        _submit(server, "submit-new", manifest, "--set", "tuning.steps=3", "--again")[-1] == "3 shards: 3 new"
    )
    assert _submit(server, "submit-other", manifest, "--set", "tuning.steps=4")[-1] == "3 shards: 3 new"
    with manifest.open("a") as file:
        file.write("\np0.png,v1.mp4,CC0,form 8")
    assert _submit(server, "submit-more", manifest, "--set", "tuning.steps=3")[-1] == "3 shards: 3 new"
    assert len(_runs(server)) == 12


def test_submit_refuses_a_deployment_that_is_not_there(server: Server, manifest: Path) -> None:
    command = [sys.executable, "-m", "flows.cli.main", "dataset", "submit", manifest, "--shards", "2"]
    command += ["--store", str(manifest.parent / "other"), "--deployment", "reenact-dataset/none"]
    run = server.processes.start("submit-none", command, **server.environment)
    assert run.wait() == 2
    assert "knows no deployment 'reenact-dataset/none'" in run.output
    assert not (manifest.parent / "other").exists()


def _crash(server: Server, run: str) -> None:
    server.set_state(run, "RUNNING")
    server.set_state(run, "CRASHED")


def test_a_run_starts_again_three_times_and_no_more(server: Server) -> None:
    runs = _runs(server)
    run, other = runs[0]["id"], runs[3]["id"]
    for crashes in (1, 2, 3):
        _crash(server, run)
        _awaits(server, run)
        assert server.states(run).count("AwaitingRetry") == crashes
    now = server.get(f"flow_runs/{run}")
    assert (now["parameters"], now["name"]) == (runs[0]["parameters"], runs[0]["name"])
    _crash(server, run)
    # The automation has looked at both when it has acted on the one that crashed later.
    _crash(server, other)
    _awaits(server, other)
    assert server.states(run)[-1] == "Crashed"


def test_runs_that_failed_were_cancelled_or_are_not_ours_are_left_alone(server: Server) -> None:
    runs = _runs(server)
    failed, cancelled, ours = (runs[i]["id"] for i in (4, 5, 6))
    stranger = str(server.post("flow_runs/", flow_id=runs[0]["flow_id"], state={"type": "PENDING"})["id"])
    server.set_state(failed, "RUNNING")
    server.set_state(failed, "FAILED")
    _crash(server, cancelled)
    server.set_state(cancelled, "CANCELLED")
    _crash(server, stranger)
    _crash(server, ours)
    _awaits(server, ours)
    assert server.states(failed)[-1] == "Failed"
    assert server.states(cancelled)[-1] == "Cancelled"
    assert server.states(stranger)[-1] == "Crashed"
