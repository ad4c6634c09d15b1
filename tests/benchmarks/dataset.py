"""A real dataset, run in four ways: ``python -m tests.benchmarks.dataset --portraits faces --videos clips``.

On one worker; on two; on two of which one is killed before the whole run is, and the same command again; and
with the store on an S3-speaking server. The clips of all four are compared.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
from rich.console import Console

from tests.benchmarks.tables import Grid
from tests.faults.runs import Run, environment, start_cold
from tests.faults.servers import HOST, free_port, listens

SMALL = ["inversion.first_steps=3", "tuning.steps=3", "runner.frames_per_task=4"]
SMALL += ["generator.samples=8", "generator.importance_samples=6", "tuning.novel_view_rays=64"]
SMALL += ["render.samples=8", "render.importance_samples=6", "template.supersample=1", "runner.pack=false"]
"""Few steps and rays: the arithmetic of a clip is not the point here, and two cores have to carry it. Nothing
is packed, so that every frame's marker stays to be looked at."""
BUCKET = "dataset"


def portrait(folder: Path, name: str, *arguments: str | Path, **env: str) -> Run:
    """Start ``portrait dataset`` as a process of its own."""
    command = [sys.executable, "-m", "flows.cli.main", "dataset", *map(str, arguments)]
    return start_cold(command, folder / f"{name}.log", environment(**env))


def finished(run: Run, allowed: tuple[int, ...] = (0,)) -> None:
    """Wait for a run.

    Raises:
        RuntimeError: it failed.
    """
    code = run.wait(7200)
    if code not in allowed:
        raise RuntimeError(f"exit code {code}:\n{run.output[-3000:]}")


def markers(store: Path) -> dict[str, int]:
    """Commit markers of a local store, and when they were written."""
    found = {}
    for path in store.glob("*/*/*/done/*"):
        if path.suffix != ".partial":
            found[str(path.relative_to(store))] = path.stat().st_mtime_ns
    return found


def digests(store: str) -> dict[str, str]:
    """What every clip of a store consists of."""
    from flows.display.views import content_digest
    from portrait_core.pipeline.state import read_jobs
    from portrait_core.settings import Settings
    from portrait_core.store import Store

    return {job.label: content_digest(job) for job in read_jobs(Store(store), "", Settings())}


def one_of_its_workers(run: Run) -> psutil.Process:
    """A process in which Dask computes."""
    below = psutil.Process(run.pid).children(recursive=True)
    return max((p for p in below if "spawn_main" in " ".join(p.cmdline())), key=lambda p: p.cpu_times().user)


class Dataset:
    """The manifest, and its runs.

    Args:
        folder: for manifest, stores, clips and logs.
        settings: ``section.field=value`` of all runs.
    """

    def __init__(self, folder: Path, settings: list[str]) -> None:
        self.folder, self.settings = folder, settings
        self.wanted: dict[str, str] = {}
        self.rows: list[list[str]] = []

    def start(self, name: str, workers: int, store: str, again: int = 0, **env: str) -> Run:
        """Give the command."""
        kind = ["runner.kind=local_cluster", f"runner.workers={workers}", "runner.threads_per_worker=1"]
        changes = [part for change in (*self.settings, *kind) for part in ("--set", change)]
        places: list[str | Path] = ["--store", store, "--out", self.folder / f"{name}-out"]
        manifest = self.folder / "clips.csv"
        return portrait(self.folder, f"{name}{again or ''}", "run", manifest, *places, *changes, **env)

    def told(self, name: str, workers: int, store: str, seconds: float, happened: str, again: str) -> None:
        """A line of the table."""
        found = digests(store)
        self.wanted = self.wanted or found
        equal = sum(found.get(clip) == digest for clip, digest in self.wanted.items())
        row = [name, str(workers), happened, str(len(found)), f"{seconds:.0f}", again]
        self.rows.append([*row, f"{equal} of {len(self.wanted)}"])
        print(" | ".join(self.rows[-1]), flush=True)

    def plain(self, name: str, workers: int, store: str, **env: str) -> None:
        """A run that nothing disturbs."""
        begin = time.perf_counter()
        finished(self.start(name, workers, store, 0, **env))
        self.told(name, workers, store, time.perf_counter() - begin, "", "0")

    def killed(self, name: str, workers: int, reference: Path) -> None:
        """A run whose worker is killed after a third of its commits, and itself after two thirds."""
        store, total = self.folder / name, len(markers(reference))
        begin = time.perf_counter()
        run = self.start(name, workers, str(store))
        run.watch(lambda: len(markers(store)) > total / 3, 7200)
        kept = markers(store)
        one_of_its_workers(run).kill()
        run.watch(lambda: len(markers(store)) > 2 * total / 3, 7200)
        kept |= {marker: at for marker, at in markers(store).items() if marker not in kept}
        os.killpg(run.pid, signal.SIGKILL)
        run.wait(60)
        finished(self.start(name, workers, str(store), again=2))
        seconds = time.perf_counter() - begin
        now = markers(store)
        again = sum(now.get(marker) != at for marker, at in kept.items())
        happened = f"worker killed at 1/3, run killed at 2/3 ({len(kept)} of {total} commits)"
        self.told(name, workers, str(store), seconds, happened, str(again))


def s3(folder: Path) -> tuple[Run, Mapping[str, str]]:
    """An S3-speaking server with a bucket, and the environment in which it is found."""
    import s3fs

    port = free_port()
    server = start_cold(
        [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)], folder / "s3.log", environment()
    )
    server.watch(lambda: listens(port))
    env = {
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    env["AWS_DEFAULT_REGION"] = "us-east-1"
    os.environ.update(env)
    s3fs.S3FileSystem().mkdir(BUCKET)
    return server, env


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portraits", required=True, help="folder of portraits")
    parser.add_argument("--videos", required=True, help="folder of driving videos")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="on top of few steps")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    inputs = ["--portraits", asked.portraits, "--videos", asked.videos]
    finished(
        portrait(folder, "init", "init", folder / "clips.csv", *inputs, "--licence", "x", "--consent", "x")
    )
    dataset = Dataset(folder, [*SMALL, *asked.settings])
    try:
        dataset.plain("one worker", 1, str(folder / "one"))
        dataset.plain("two workers", 2, str(folder / "two"))
        dataset.killed("two, killed", 2, folder / "one")
        server, env = s3(folder)
        try:
            dataset.plain("two, S3", 2, f"s3://{BUCKET}/store", **env)
        finally:
            server.destroy()
    except BaseException:
        print(f"logs are in {folder}", file=sys.stderr)
        raise
    headings = ["run", "workers", "what happened", "clips", "seconds", "commits done again", "equal"]
    caption = f"{len(markers(folder / 'one'))} commits a run; settings {' '.join(dataset.settings)}."
    grid = Grid("A real dataset", headings, dataset.rows, caption, n_text=1)
    Console(width=140).print(grid.for_terminal())
    print(grid.markdown())
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
