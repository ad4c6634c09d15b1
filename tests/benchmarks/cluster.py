"""Many clips on many simulated GPUs: ``python -m tests.benchmarks.cluster --frames 20 --workers 64``.

The real dataset flow, a real Dask scheduler with real workers and the real store; stages sleep for as long as
a GPU would compute (``tests.simulation``), with lengths of clips and seconds drawn at random. Workers are
Dask workers of one thread each, many to a process: two cores carry sixty-four of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from tests.benchmarks.tables import Grid

QUIET_DASK = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    # Off as in `settings.env`; and ticks each 20 ms of sixty-four workers would fill two cores.
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
}
PAPER_SHARES = {"first": 0.091, "inversion": 0.45, "tuning": 0.45, "render": 0.009}
"""Shares of a clip's GPU time at the paper's step counts (660 s, 3,300 s, 3,300 s, and 60 s of rendering)."""


def clips_of(store: str, count: int, frames: int, settings: Any) -> list[Any]:
    """Clips of lengths drawn from a log-normal distribution around ``frames``."""
    from flows.dataset_run import Clip
    from tests.simulation.stub import stub_job

    lengths = np.random.default_rng(0).lognormal(np.log(frames) - 0.125, 0.5, count).clip(4).astype(int)
    made = []
    for i, length in enumerate(lengths):
        name = f"clip-{i:04d}"
        made.append(Clip(i + 2, name, stub_job(store, name, int(length), settings, portrait=f"p-{i % 7}")))
    return made


def stub_of(clip_seconds: float, frames: int) -> Any:
    """Seconds of the stages of a clip of ``frames`` that takes ``clip_seconds`` of a GPU."""
    from tests.simulation.stub import StubSettings

    shares = {stage: clip_seconds * share for stage, share in PAPER_SHARES.items()}
    for stage in ("inversion", "render"):
        shares[stage] /= frames
    return StubSettings(size=64, latent=(14, 512), generator_mb=1.0, seconds=shares, spread=0.2)


def gpu_seconds(clips: list[Any], stub: Any) -> tuple[float, float]:
    """Seconds of GPU in all clips, and in the longest chain of one."""
    from portrait_core.pipeline import FrameRange
    from tests.simulation.stub import drawn_seconds

    totals, chains = [], []
    for clip in clips:
        name = clip.job.label

        def spent(stage: str, count: int, name: str = name) -> float:
            return sum(drawn_seconds(stub, name, stage, FrameRange(i, i + 1)) for i in range(count))

        chain = spent("first", 1) + spent("inversion", clip.job.frames) + spent("tuning", 1)
        totals.append(chain + spent("render", clip.job.frames))
        chains.append(chain)
    return sum(totals), max(chains)


@contextlib.contextmanager
def cluster(workers: int, env: Mapping[str, str]) -> Iterator[tuple[str, list[psutil.Process]]]:
    """A scheduler and workers as processes of their own; address and processes, the scheduler's first."""
    from tests.faults.servers import HOST, free_port

    port = free_port()
    here = {**os.environ, **env, **QUIET_DASK, "OMP_NUM_THREADS": "1"}
    quiet: dict[str, Any] = {"env": here, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    address = f"tcp://{HOST}:{port}"
    lines = [["dask", "scheduler", "--host", HOST, "--port", str(port), "--no-dashboard"]]
    lines += [["tests.simulation.workers", address, str(count)] for count in _split(workers)]
    processes = [subprocess.Popen([sys.executable, "-m", *line], **quiet) for line in lines]
    try:
        yield address, [psutil.Process(process.pid) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _split(workers: int, processes: int = 4) -> list[int]:
    return [len(part) for part in np.array_split(np.arange(workers), min(processes, workers))]


def simulate(workers: int, count: int, frames: int, clip_seconds: float) -> dict[str, float]:
    """Run the clips on so many workers; what came out."""
    from flows.dataset_run import DatasetRun
    from flows.display.progress import Tally
    from flows.engine.runners import open_runner
    from portrait_core.settings import load_settings
    from tests.simulation.stub import ENVIRONMENT, STUBS

    stub = stub_of(clip_seconds, frames)
    os.environ[ENVIRONMENT] = stub.model_dump_json()
    store = tempfile.mkdtemp()
    changes = ["inversion.init=mean", "inversion.steps=100", "runner.frames_per_task=24", "template.size=64"]
    try:
        with cluster(workers, {ENVIRONMENT: stub.model_dump_json()}) as (address, processes):
            places = ["runner.kind=address", f"runner.address={address}", f"runner.workers={workers}"]
            settings = load_settings("embedded", [*changes, *places])
            clips = clips_of(store, count, frames, settings)
            with open_runner(settings) as runner:
                _ready(runner, workers)
                before, cpu, begin = _core_seconds(processes), time.process_time(), time.perf_counter()
                run = DatasetRun(runner, settings, None, Tally(), functions=STUBS.__getitem__)
                results = run.run(clips, lambda clip: clip)
                makespan = time.perf_counter() - begin
                spent = [now - then for now, then in zip(_core_seconds(processes), before, strict=True)]
                own = time.process_time() - cpu
        total, chain = gpu_seconds(clips, stub)
        outcomes = Counter(result.outcome for result in results)
        frames_made = sum(clip.job.frames for clip in clips)
        return {
            "done": outcomes["done"],
            "frames": frames_made,
            "makespan": makespan,
            "bound": max(total / workers, chain),
            "utilisation": total / workers / makespan,
            "occupied": _task_seconds(clips) / workers / makespan,
            "scheduler": spent[0] / makespan,
            "flow": own / makespan,
            "workers": sum(spent[1:]) / makespan,
        }
    finally:
        shutil.rmtree(store, ignore_errors=True)


def _task_seconds(clips: list[Any]) -> float:
    """Seconds that tasks of all clips held a worker."""
    from portrait_core.pipeline.history import read_cost
    from portrait_core.pipeline.ledger import find_output

    jobs = [clip.job for clip in clips]
    # by output: clips of one portrait share what was made of it
    spent = {
        find_output(job, stage).path: read_cost(job, stage).task_seconds
        for job in jobs
        for stage in job.stages
    }
    return sum(spent.values())


def _core_seconds(processes: list[psutil.Process]) -> list[float]:
    return [sum(process.cpu_times()[:2]) for process in processes]


def _ready(runner: Any, workers: int) -> None:
    """Wait for the workers and let them import what they need, which is no part of the makespan."""
    runner._client.wait_for_workers(workers, timeout=60)
    runner._client.run(import_module, "tests.simulation.stub")


def requests_a_frame(frames: int = 48) -> Counter[str]:
    """Store requests of one clip, by kind, for each of its frames (threads, one worker)."""
    from flows.engine.runners import open_runner
    from flows.engine.stages import StageRunner
    from portrait_core.settings import load_settings
    from portrait_core.store.files import Files
    from tests.simulation.stub import ENVIRONMENT, STUBS, stub_job

    os.environ[ENVIRONMENT] = stub_of(0.0, frames).model_dump_json()
    counted: Counter[str] = Counter()
    kinds = {
        "put": "put",
        "get": "get",
        "get_range": "get",
        "list": "list",
        "sizes": "list",
        "delete": "delete",
    }
    originals = {name: getattr(Files, name) for name in kinds}

    def counting(name: str) -> Any:
        def call(self: Files, things: Any, *more: Any, **named: Any) -> Any:
            if not isinstance(things, str):
                things = things if isinstance(things, dict) else list(things)
            counted[kinds[name]] += 1 if isinstance(things, str) else len(things)
            return originals[name](self, things, *more, **named)

        return call

    for name in originals:
        setattr(Files, name, counting(name))
    try:
        changes = ["inversion.init=mean", "inversion.steps=100", "template.size=64", "runner.workers=1"]
        settings = load_settings("embedded", changes)
        with tempfile.TemporaryDirectory() as store, open_runner(settings) as runner:
            StageRunner(
                stub_job(store, "clip", frames, settings), runner, functions=STUBS.__getitem__
            ).run_all()
    finally:
        for name, original in originals.items():
            setattr(Files, name, original)
    return Counter({name: round(count / frames, 1) for name, count in counted.items()})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=0, help="clips in all; 0 means 8 a worker")
    parser.add_argument("--frames", type=int, default=100, help="mean length of a clip")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=60.0, help="of GPU for a clip of that length")
    asked = parser.parse_args()
    rows = []
    for workers in asked.workers:
        count = asked.clips or 8 * workers
        got = simulate(workers, count, asked.frames, asked.seconds)
        row = [
            str(workers),
            str(count),
            f"{got['frames']:.0f}",
            f"{got['makespan']:.0f}",
            f"{got['bound']:.0f}",
        ]
        shares = [
            f"{100 * got[name]:.0f} %" for name in ("utilisation", "occupied", "scheduler", "flow", "workers")
        ]
        rows.append([*row, f"{got['makespan'] / got['bound']:.2f}", *shares, f"{got['done']:.0f}"])
        print(" ".join(rows[-1]), flush=True)
    headings = ["GPUs", "clips", "frames", "makespan s", "bound s", "ratio", "GPU busy", "worker busy"]
    headings += ["scheduler core", "flow core", "workers' cores", "done"]
    requests = ", ".join(f"{count} {name}" for name, count in sorted(requests_a_frame().items()))
    caption = (
        f"Clips of {asked.frames} frames on average (log-normal, 0.5), {asked.seconds:g} s of GPU each. "
        f"Bound: all GPU time over all GPUs, or the longest chain. Store requests a frame: {requests}."
    )
    console = Console(width=120)
    grid = Grid("Simulated cluster", headings, rows, caption)
    console.print(grid.for_terminal())
    print(grid.markdown())


if __name__ == "__main__":
    main()
