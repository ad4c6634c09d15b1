"""What the store and the orchestration cost beside the computing: ``python -m tests.benchmarks.overhead``.

The real flow, runners and store run stages that sleep (``tests.simulation``). A clip of 100 frames at 512
pixels with the paper's step counts and its 0.33 s a step keeps a GPU busy for two hours; the sleeps are that
divided by ``--faster``, and everything beyond them is overhead, which does not grow with them. So the share
is that of the measured overhead in the paper's two hours.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from tests.benchmarks.tables import Grid

FRAMES = 100
STEP_S = 0.33
PAPER = {"first": 2000 * STEP_S, "inversion": 100 * STEP_S, "tuning": 10_000 * STEP_S}
"""Seconds of the paper's optimisations: the first frame, each frame, the tuning."""
WHOLE_S = PAPER["first"] + FRAMES * PAPER["inversion"] + PAPER["tuning"]
RUNNERS = {
    "threads": ["runner.kind=threads"],
    "Dask, one worker process": ["runner.kind=local_cluster"],
}
CHAIN = ["template.size=512", "inversion.init=mean", "inversion.steps=100", "runner.workers=1"]


def one(store: str, changes: list[str], faster: float, checkpoints: int) -> float:
    """Wall seconds beyond the sleeps of one clip, run in this process."""
    from flows.engine.runners import open_runner
    from flows.engine.stages import StageRunner
    from portrait_core.pipeline.state import save_job
    from portrait_core.settings import load_settings
    from tests.simulation.stub import ENVIRONMENT, STUBS, StubSettings, stub_job

    seconds = {stage: value / faster for stage, value in PAPER.items()}
    os.environ[ENVIRONMENT] = StubSettings(seconds=seconds, checkpoints=checkpoints).model_dump_json()
    job = stub_job(store, "clip", FRAMES, load_settings("embedded", [*CHAIN, *changes]))
    begin = time.perf_counter()
    save_job(job)
    with open_runner(job.settings) as runner:
        stages = StageRunner(job, runner, print, functions=STUBS.__getitem__)
        stages.run_all()
    return time.perf_counter() - begin - WHOLE_S / faster


def overhead(faster: float) -> Grid:
    """The table of overheads."""
    rows = []
    for name, changes in RUNNERS.items():
        for checkpoints in (0, 20, 100):
            with tempfile.TemporaryDirectory() as folder:
                spent = one(folder, changes, faster, checkpoints)
            row = [name, str(checkpoints) if checkpoints else "none", f"{spent:.1f}"]
            rows.append([*row, f"{1000 * spent / FRAMES:.0f}", f"{100 * spent / WHOLE_S:.2f} %"])
            print(" ".join(rows[-1]), flush=True)
    headings = ["runner", "checkpoints", "overhead s", "ms a frame", "of the paper's time"]
    caption = (
        f"{FRAMES} frames of 512 pixels, all arrays written to a local disk, latents [14,512]; sleeps are "
        f"the paper's {WHOLE_S:,.0f} s divided by {faster:g}. Checkpoints are the tuning's, of 372 MB (31 M "
        "parameters and Adam's moments)."
    )
    return Grid("Overhead of store and orchestration", headings, rows, caption, n_text=1)


@contextlib.contextmanager
def _prefect_server() -> Iterator[str]:
    from tests.faults.servers import free_port

    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "PREFECT_HOME": home, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
        server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}/api"
        try:
            from flows.engine.environment import prefect_server_answers

            while not prefect_server_answers(url):
                time.sleep(0.5)
            yield url
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def startup() -> Grid:
    """Seconds from the command to the first committed frame, of the sample clip with the shipped models."""
    rows = []
    with _prefect_server() as server:
        for name, changes, env in (
            ("threads", [], {}),
            ("Dask, one worker process", ["runner.kind=local_cluster", "runner.workers=1"], {}),
            ("threads, a Prefect server running", [], {"PREFECT_API_URL": server}),
            ("threads, Prefect's temporary server", ["runner.prefect=always"], {}),
        ):
            times = [_first_frame(changes, env) for _ in range(2)]
            rows.append([name, *(f"{seconds:.1f}" for pair in times for seconds in pair)])
            print(" ".join(rows[-1]), flush=True)
    headings = ["runner", "first marker", "first frame", "again: marker", "frame"]
    return Grid("Seconds from the command to the first result", headings, rows, "First marker: the portrait.")


def _first_frame(changes: list[str], env: dict[str, str]) -> tuple[float, float]:
    folder = Path(tempfile.mkdtemp())
    settings = [part for change in changes for part in ("--set", change)]
    command = [
        sys.executable,
        "-m",
        "flows.cli.main",
        "demo",
        "--store",
        str(folder / "s"),
        "--out",
        str(folder / "o"),
    ]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*command, *settings], env={**os.environ, **env}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    seen: list[float] = []
    try:
        for pattern in ("portrait/*/portrait.*/done/*", "video/*/landmarks.*/done/*"):
            while not any(folder.glob(f"s/{pattern}")):
                if process.poll() is not None:
                    raise RuntimeError(f"the run ended with {process.returncode}")
                time.sleep(0.02)
            seen.append(time.perf_counter() - begin)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    return seen[0], seen[1]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faster", type=float, default=200, help="sleep the paper's times divided by this")
    parser.add_argument("--startup", action="store_true", help="only the times to the first frame")
    parser.add_argument("--overhead", action="store_true", help="only the overheads")
    asked = parser.parse_args()
    console = Console()
    if not asked.startup:
        console.print(overhead(asked.faster).for_terminal())
    if not asked.overhead:
        console.print(startup().for_terminal())


if __name__ == "__main__":
    main()
