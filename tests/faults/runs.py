"""Runs of the command line as processes of their own: start, watch, kill, give the command again.

Two ways to start one: ``cold``, a new interpreter, as a user does; ``warm``, forked from a server that has
imported everything and done nothing, so that fifty kills cost their work and not fifty imports. Either is a
process with its own pid, memory and death.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path

from tests.faults.events import Event, Log
from tests.faults.injected import FAULTS, FOLDER

ROOT = Path(__file__).parents[2]
PRELOAD = "DASK_DISTRIBUTED__WORKER__PRELOAD"
DEADLINE_S = 400
"""No single wait takes longer on a busy machine unless something hangs."""
DONE, STOPPED, INTERRUPTED, KILLED = 0, 1, 130, -signal.SIGKILL

_FOLDERS = re.compile(r"/(?:[^\s/]+/)+")
_PRELOADED = [
    "torch",
    "onnxruntime",
    "av",
    "zarr",
    "pandas",
    "prefect",
    "flows.cli.main",
    "flows.reenact",
    "flows.display.terminal",
    "tasks.fitting",
    "portrait_core.inversion.latent",
    "portrait_core.inversion.tuning",
    "portrait_core.rendering.pose_renderer",
]


class Run:
    """A started process. ``wait_for(seconds)`` gives its exit code, or None while it lives."""

    def __init__(self, pid: int, wait_for: Callable[[float], int | None], output: Path, group: bool) -> None:
        self.pid = pid
        self._wait_for = wait_for
        self._output = output
        self._group = group

    @property
    def output(self) -> str:
        """All that was printed into the file so far."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._wait_for(0) is not None

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Its exit code; negative for a signal. One that hangs is killed, and fails the test."""
        code = self._wait_for(deadline_s)
        if code is None:
            self.destroy()
            raise AssertionError(f"still running after {deadline_s:.0f} s:\n{self.output[-3000:]}")
        return code

    def send(self, signal_: signal.Signals) -> None:
        """Send a signal to the process alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal_)

    def kill(self) -> int:
        """SIGKILL, and its exit code: another one if it had ended before."""
        self.send(signal.SIGKILL)
        return self.wait(60)

    def destroy(self) -> None:
        """End it and what it started, whatever state it is in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL) if self._group else os.kill(self.pid, signal.SIGKILL)

    def watch(self, reached: Callable[[], bool], deadline_s: float = DEADLINE_S) -> bool:
        """Wait until something is so; False when the process ended first."""
        limit = time.monotonic() + deadline_s
        while not reached():
            if self.is_over():
                return reached()
            if time.monotonic() > limit:
                self.destroy()
                raise AssertionError(f"not reached within {deadline_s:.0f} s:\n{self.output[-3000:]}")
            time.sleep(0.02)
        return True


def environment(**more: str) -> dict[str, str]:
    """The environment of every process: one thread a library, nobody's Prefect server."""
    mine = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    path = os.pathsep.join(part for part in (str(ROOT), mine.get("PYTHONPATH", "")) if part)
    fixed = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    fixed["COLUMNS"] = "200"  # messages in one line
    return {**mine, **fixed, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}


def start_cold(command: Sequence[str], output: Path, env: dict[str, str]) -> Run:
    """A process of any program, in a session of its own."""
    with output.open("ab") as file:
        process = subprocess.Popen(
            list(command),
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=env,
            cwd=ROOT,
            start_new_session=True,
            # A test run in the background of a shell has SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def wait_for(seconds: float) -> int | None:
        try:
            return process.wait(seconds) if seconds else process.poll()
        except subprocess.TimeoutExpired:
            return None

    return Run(process.pid, wait_for, output, group=True)


def start_warm(arguments: Sequence[str], output: Path, env: dict[str, str]) -> Run:
    """``tests.faults.injected`` forked from the server of imported modules."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with _environ(environment(PREFECT_LOGGING_LEVEL="ERROR")):
        forkserver.ensure_running()
    process = context.Process(target=_forked, args=(list(arguments), str(output), env))
    process.start()
    assert process.pid is not None

    def wait_for(seconds: float) -> int | None:
        process.join(seconds)
        return process.exitcode

    return Run(process.pid, wait_for, output, group=False)


def _forked(arguments: list[str], output: str, env: dict[str, str]) -> None:
    handle = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for standard in (1, 2):
        os.dup2(handle, standard)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - lives as long as the process
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    from tests.faults.injected import main

    main(arguments)


@contextlib.contextmanager
def _environ(wanted: dict[str, str]) -> Iterator[None]:
    """The server inherits this process's environment, and its libraries read theirs when imported."""
    before = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass
class Bench:
    """One store with its command line, its faults, and the log of what was written."""

    folder: Path
    arguments: Callable[[str], list[str]]
    """The command line, given the store."""
    store: str = ""
    env: dict[str, str] = field(default_factory=dict)
    starts: int = 0
    """How often the command was given."""
    runs: list[Run] = field(default_factory=list)
    """All that was started, servers too."""
    last: Run | None = None
    """The last run of the command."""
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        (self.folder / "faults").mkdir(parents=True, exist_ok=True)
        self._log = Log(self.folder / "faults" / "events.jsonl")
        self.store = self.store or str(self.folder / "store")

    def start(self, faults: str = "none", *, warm: bool = True, **env: str) -> Run:
        """Give the command."""
        self.starts += 1
        output = self.folder / f"output-{self.starts:02d}.txt"
        line = [faults, "--", *self.arguments(self.store)]
        known = self.environment(faults, **env)
        if warm:
            run = start_warm(line, output, known)
        else:
            run = start_cold([sys.executable, "-m", "tests.faults.injected", *line], output, known)
        self.runs.append(run)
        self.last = run
        return run

    def environment(self, faults: str = "none", **env: str) -> dict[str, str]:
        """What its processes get; Dask workers learn the faults from it, and log to the same file."""
        mine = {FOLDER: str(self.folder / "faults"), FAULTS: faults, PRELOAD: "tests.faults.preload"}
        return environment(**mine, **self.env, **env)

    def start_other(self, command: Sequence[str], name: str, faults: str = "none", **env: str) -> Run:
        """Start another program that the run needs: a server, a worker."""
        run = start_cold(command, self.folder / f"{name}.txt", self.environment(faults, **env))
        self.runs.append(run)
        return run

    def finish(self, attempts: int = 1, *, warm: bool = True, **env: str) -> Run:
        """Give the command again until it is done, so many times at most; the last run."""
        for _ in range(attempts):
            run = self.start(warm=warm, **env)
            if run.wait() == DONE:
                break
        return run

    @property
    def is_finished(self) -> bool:
        """Whether the last run of the command ended well."""
        return self.last is not None and self.last.wait(1) == DONE

    @property
    def events(self) -> list[Event]:
        """What was written to the store so far."""
        return self._log.events()

    def reached(self, stage: str, count: int = 1) -> bool:
        """Whether a stage has so many markers."""
        markers = [e for e in self.events if (e.sort, e.stage, e.moment) == ("marker", stage, "end")]
        return len(markers) >= count

    def clean_up(self) -> None:
        """End what a failed test left running."""
        for run in self.runs:
            if not run.is_over():
                run.destroy()


def last_line(output: str) -> str:
    """The last thing that the user read, folders left out."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " ".join(_FOLDERS.sub("", lines[-1]).split()) if lines else ""
