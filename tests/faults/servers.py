"""Real servers to kill: Prefect's, a Dask scheduler with workers, an S3-speaking one."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

from flows.engine.environment import QUIET
from tests.faults.runs import Bench, Run

HOST = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def _until_it_listens(server: Run, port: int) -> Run:
    assert server.watch(lambda: listens(port)), f"the server ended:\n{server.output[-3000:]}"
    return server


def prefect_server(bench: Bench, port: int) -> Run:
    """``prefect server start``, with a database of its own."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    server = bench.start_other(command, "prefect-server", **QUIET, PREFECT_HOME=str(bench.folder / "prefect"))
    return _until_it_listens(server, port)


def dask_scheduler(bench: Bench, port: int) -> Run:
    """``dask scheduler``."""
    options = ["--host", HOST, "--port", str(port), "--no-dashboard", "--dashboard-address", f"{HOST}:0"]
    scheduler = bench.start_other([sys.executable, "-m", "dask", "scheduler", *options], "dask-scheduler")
    return _until_it_listens(scheduler, port)


def dask_worker(bench: Bench, port: int, name: str, *more: str, faults: str = "none") -> Run:
    """``dask worker`` with one thread and ``more`` options. Its nanny is the process; killed as a group,
    nothing restarts it."""
    options = ["--nthreads", "1", "--name", name, "--no-dashboard", "--dashboard-address", f"{HOST}:0"]
    folder = ["--local-directory", str(bench.folder / name)]
    command = [sys.executable, "-m", "dask", "worker", f"tcp://{HOST}:{port}", *options, *folder]
    return bench.start_other([*command, *more], name, faults=faults)


def s3_server(bench: Bench, port: int, failing_share: float) -> Run:
    """A moto server that answers a share of the requests with 503; see ``tests/faults/s3_server.py``."""
    control, log = s3_control(bench), bench.folder / "s3-requests.jsonl"
    control.write_text(json.dumps(failing_share))
    command = [sys.executable, "-m", "tests.faults.s3_server", str(port), str(control), str(log)]
    return _until_it_listens(bench.start_other(command, "s3-server"), port)


def s3_control(bench: Bench) -> Path:
    """The file with the share of requests that fail; it may be changed at any time."""
    return bench.folder / "s3-failing-share.json"


def s3_failures(bench: Bench) -> int:
    """How many requests were answered with 503."""
    log = bench.folder / "s3-requests.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0
