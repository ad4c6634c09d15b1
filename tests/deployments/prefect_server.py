"""A Prefect server as ``deployments/server.sh`` starts it, asked over its API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.deployments.files import DEPLOYMENTS, IMAGES, program_env
from tests.deployments.processes import PREFECT, Processes, postgres
from tests.faults.runs import Run
from tests.faults.servers import HOST, free_port

AUTH = ("portrait", "a-password-of-tests-418")
"""Name and password that the server was started with."""


class Server:
    """A Prefect server, asked over its API by one who knows the password."""

    def __init__(self, processes: Processes, database: str) -> None:
        self.processes = processes
        self.port, self.page = free_port(), free_port()
        self.api = f"http://{HOST}:{self.port}/api"
        common = program_env(IMAGES[0]) | {"PREFECT_API_AUTH_STRING": ":".join(AUTH)}
        self.environment = common | {"PREFECT_API_URL": self.api, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
        command = [DEPLOYMENTS / "server.sh", "--host", HOST, "--port", str(self.port)]
        known = common | {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
        known["PREFECT_SERVER_UI_API_URL"] = self.api
        known["PREFECT_SERVER_UI_STATIC_DIRECTORY"] = str(processes.folder / "pages")
        processes.listening("server", command, self.port, **known)

    def get(self, path: str) -> Any:
        """What the server says."""
        return httpx.get(f"{self.api}/{path}", auth=AUTH, timeout=30).raise_for_status().json()

    def post(self, path: str, **body: Any) -> Any:
        """What the server answers."""
        answer = httpx.post(f"{self.api}/{path}", json=body, auth=AUTH, headers=self.token, timeout=30)
        return answer.raise_for_status().json()

    @cached_property
    def token(self) -> dict[str, str]:
        """The headers by which a client of the server is known (CSRF); they hold for an hour."""
        client = str(uuid4())
        token = self.get(f"csrf-token?client={client}")["token"]
        return {"Prefect-Csrf-Client": client, "Prefect-Csrf-Token": token}

    def register(self, name: str) -> None:
        """Tell the server everything, as a user does."""
        self.processes.finished(name, ["bash", DEPLOYMENTS / "register.sh"], **self.environment)

    def worker(self, name: str, **more: str) -> Run:
        """A worker of the pool, as the compose file starts it."""
        command = [*PREFECT, "worker", "start", "--pool", "portrait", "--limit", "1", "--with-healthcheck"]
        ports = {"PREFECT_WORKER_WEBSERVER_PORT": str(self.page), "PREFECT_WORKER_QUERY_SECONDS": "2"}
        return self.processes.start(name, command, **self.environment, **ports, **more)

    def begin(self, deployment: str = "reenact/portrait", **parameters: Any) -> str:
        """Queue a run of a deployment; its id."""
        found = self.get(f"deployments/name/{deployment}")["id"]
        made = self.post(f"deployments/{found}/create_flow_run", parameters=parameters)
        return str(made["id"])

    def state(self, run: str) -> str:
        """The type of a run's state."""
        return str(self.get(f"flow_runs/{run}")["state_type"])

    def states(self, run: str) -> list[str]:
        """The names of the states that a run has been in, in order."""
        found = self.get(f"flow_run_states/?flow_run_id={run}")
        return [str(one["name"]) for one in sorted(found, key=lambda one: str(one["timestamp"]))]

    def set_state(self, run: str, kind: str) -> None:
        """Put a run into a state, whatever the rules say."""
        self.post(f"flow_runs/{run}/set_state", state={"type": kind}, force=True)

    def message(self, run: str) -> str:
        """What is said with a run's state."""
        return str(self.get(f"flow_runs/{run}")["state"]["message"])

    def heartbeats(self, run: str) -> int:
        """How many signs of life a run has given."""
        asked = {"event": {"name": ["prefect.flow-run.heartbeat"]}}
        asked |= {"resource": {"id": [f"prefect.flow-run.{run}"]}}
        return len(self.post("events/filter", filter=asked)["events"])

    def change_automation(self, name: str, file: Path) -> None:
        """Replace an automation by what a file says."""
        (found,) = [one["id"] for one in self.post("automations/filter") if one["name"] == name]
        command = [*PREFECT, "automation", "update", "--id", found, "--from-file", file]
        self.processes.finished(file.stem, command, **self.environment)


@contextmanager
def prefect_server(folder: Path) -> Iterator[Server]:
    """A server on PostgreSQL."""
    processes = Processes(folder)
    with postgres() as database:
        try:
            yield Server(processes, database)
        finally:
            processes.end()
