"""Real servers, started as the deployment files say, each a process of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.runs import Run, environment, start_cold
from tests.faults.servers import HOST, free_port, listens

PROGRAMS = Path(sys.executable).parent
PREFECT = (sys.executable, "-m", "prefect")


def wait_until(reached: Callable[[], bool], deadline_s: float, what: str | Callable[[], str]) -> None:
    """Wait until something is so."""
    limit = time.monotonic() + deadline_s
    while not reached():
        if time.monotonic() > limit:
            raise AssertionError(f"not within {deadline_s:.0f} s: {what() if callable(what) else what}")
        time.sleep(0.5)


class Processes:
    """Everything that a test started; :meth:`end` ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs: list[Run] = []

    def start(self, name: str, command: Sequence[object], **env: str) -> Run:
        """Start a program; what it prints is in ``NAME.txt``."""
        path = os.pathsep.join([str(PROGRAMS), os.environ["PATH"]])
        known = environment(PREFECT_HOME=str(self.folder / "prefect"), PATH=path) | env
        program = shutil.which(str(command[0]), path=path) or str(command[0])
        run = start_cold([program, *map(str, command[1:])], self.folder / f"{name}.txt", known)
        self._runs.append(run)
        return run

    def listening(self, name: str, command: Sequence[object], port: int, **env: str) -> Run:
        """Start a server and wait until it listens."""
        server = self.start(name, command, **env)
        assert server.watch(lambda: listens(port), 180), f"{name} ended:\n{server.output[-3000:]}"
        return server

    def finished(self, name: str, command: Sequence[object], **env: str) -> str:
        """Run a command to its end, which must be good; what it printed."""
        run = self.start(name, command, **env)
        code = run.wait(300)
        assert code == 0, f"{name} ended with {code}:\n{run.output[-3000:]}"
        return run.output

    def end(self) -> None:
        """End what is still running, the last first."""
        for run in reversed(self._runs):
            if not run.is_over():
                run.destroy()


def _postgres_programs() -> Path:
    """The folder of PostgreSQL's programs; Debian has them outside PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists():
            return folder
    pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")


def _someone() -> dict[str, Any]:
    """For subprocess: who runs PostgreSQL, which refuses root."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name for entry in pwd.getpwall()}
    return {"user": "postgres" if "postgres" in known else "nobody", "cwd": "/"}


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server with a database ``prefect``; gives the address that Prefect's server is given."""
    programs, who, port = _postgres_programs(), _someone(), free_port()
    # pytest's folders are closed to other users
    with tempfile.TemporaryDirectory(prefix="portrait-postgres-", ignore_cleanup_errors=True) as folder:
        if "user" in who:
            shutil.chown(folder, str(who["user"]))
        data = f"{folder}/data"

        def call(name: str, *arguments: str) -> None:
            command = [str(programs / name), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **who)
            assert done.returncode == 0, done.stderr

        options = f"-p {port} -c listen_addresses={HOST} -c unix_socket_directories={folder} -c fsync=off"
        call("initdb", "-D", data, "-A", "trust", "-U", "prefect", "--no-sync")
        # pg_ctl waits for the ends of its standard output, which the server would inherit
        start = ["-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start"]
        subprocess.run([programs / "pg_ctl", *start], check=True, stdout=subprocess.DEVNULL, **who)
        try:
            call("createdb", "-h", HOST, "-p", str(port), "-U", "prefect", "prefect")
            yield f"postgresql+asyncpg://prefect@{HOST}:{port}/prefect"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
