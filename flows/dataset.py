"""The flow ``reenact_dataset``: many clips at once on one set of workers; one that fails stops no other.

A clip's inversion is a chain, so workers are kept busy by many clips, not by one: about two a worker are at
work, the longest first, so that no long one is left at the end. The first of them has a worker as soon as it
wants one, the others fill the gaps (:class:`flows.runners.Turns`). What each did is in the store, as always;
a second run of the same command goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from prefect import flow

from flows.environment import server_for_run, server_went_away
from flows.progress import ArtifactBoard, Board, TerminalBoard
from flows.reenact import prepare
from flows.runners import Runner, open_runner
from flows.stages import TASKS, StageError, StageRunner, gpu_gone, stops_forgotten
from portrait_core import stopping
from portrait_core.classification import classify
from portrait_core.config import Settings, load_settings
from portrait_core.inputs import local_copy
from portrait_core.manifest import Row, read_manifest
from portrait_core.sharding import shard as rows_of_shard
from portrait_core.stopping import StopRequested
from tasks.context import finished, set_aside
from tasks.deliver import deliver
from tasks.job import Job, Stage
from tasks.policy import StageResult
from tasks.retention import Policy, drop
from tasks.status import keep_job
from tasks.threads import worker_count

if TYPE_CHECKING:
    from prefect import Task
    from rich.console import Console

Outcome = Literal["done", "held", "failed", "aside", "stopped"]
CLIPS_A_WORKER = 2


@dataclass(frozen=True)
class ClipResult:
    """What became of a row.

    Attributes:
        number: of the row.
        name: of its output.
        outcome: ``held``: done, with frames that show a neighbour. ``aside``: it would only fail again, see
            ``portrait retry``.
        message: why, unless it is done.
        frames: of the clip.
        seconds: of this run.
    """

    number: int
    name: str
    outcome: Outcome
    message: str = ""
    frames: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Clip:
    """A row with its job."""

    row: Row
    job: Job


class DatasetRun:
    """Runs clips on one runner.

    Args:
        runner: where every clip's tasks run.
        settings: of the run: how many clips at once.
        out: folder with a folder a clip; None leaves the clips in the store.
        board: hears what happens.
        keep: what of a finished clip is dropped; None keeps all.
        tasks: what does each stage.
    """

    def __init__(
        self,
        runner: Runner,
        settings: Settings,
        out: Path | None,
        board: Board,
        keep: Policy | None = None,
        tasks: Mapping[Stage, tuple[Task[..., StageResult], ...]] = TASKS,
    ) -> None:
        self._runner, self._out, self._board, self._keep, self._tasks = runner, out, board, keep, tasks
        self._at_once = settings.runner.clips or CLIPS_A_WORKER * worker_count(settings)
        self._gone: tuple[Row, BaseException] | None = None
        """Error of the clip in which the GPU was lost to this process; None while it is there."""

    def run(self, clips: Sequence[Clip]) -> list[ClipResult]:
        """Run clips, the longest first, and say what became of each.

        Raises:
            StageError: this process cannot use the GPU any more. The clips at work were stopped, and the
                others not begun: all of them wait for the next run.
        """
        ordered = sorted(clips, key=lambda clip: clip.job.frames, reverse=True)
        pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="clip")
        futures = [pool.submit(self._clip, clip, turn) for turn, clip in enumerate(ordered)]
        try:
            results = [self._told(future) for future in as_completed(futures)]
        except KeyboardInterrupt:
            for future in futures:
                future.cancel()
            self._runner.stop()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if self._gone is not None:
            row, error = self._gone
            count = sum(result.outcome == "stopped" for result in results)
            raise StageError(
                f"row {row.number}, {row.name}: {error}. It finds {count} of {len(clips)} clips to do"
            ) from error.__cause__
        return results

    def _told(self, future: Future[ClipResult]) -> ClipResult:
        result = future.result()
        self._board.ended(result)
        return result

    def _clip(self, clip: Clip, turn: int) -> ClipResult:
        row, job, begin = clip.row, clip.job, time.perf_counter()

        def result(outcome: Outcome, message: str = "") -> ClipResult:
            return ClipResult(row.number, row.name, outcome, message, job.frames, time.perf_counter() - begin)

        if self._gone is not None:
            return result("stopped")
        try:
            if why := set_aside(job):
                return result("aside", why)
            self._board.began(row.name)
            held = self._run_one(row, job, turn)
        except StopRequested:
            return result("stopped")
        except Exception as error:
            if gpu_gone(error):
                self._gone = row, error
                return result("stopped")
            return result("failed", f"{classify(error)}: {error}")
        return result("held", f"{held} frames show a neighbour") if held else result("done")

    def _run_one(self, row: Row, job: Job, turn: int) -> int:
        """Finish one clip; how many of its frames show a neighbour."""
        keep_job(job)
        begin = time.perf_counter()

        def report(line: str) -> None:
            self._board.said(row.name, line)

        stages = StageRunner(job, self._runner, report, tasks=self._tasks, turn=turn)
        stages.all()
        if self._keep is not None and finished(job):
            drop(job, self._keep)
        summary = deliver(
            job, self._out / row.name if self._out else None, stages.records, time.perf_counter() - begin
        )
        return sum(len(frames) for frames in summary.held_frames.values())


def clips_of(
    rows: Sequence[Row], store: str, overrides: Sequence[str]
) -> tuple[list[Clip], list[ClipResult]]:
    """Look at the inputs of rows, several at a time.

    Returns:
        The clips, and the rows whose inputs cannot be used.
    """
    load = lru_cache(maxsize=None)(load_settings)

    def look(row: Row) -> Clip | ClipResult:
        try:
            settings = load(row.profile, (*overrides, *row.overrides))
            job = prepare(str(local_copy(row.portrait)), str(local_copy(row.video)), store, settings)
        except Exception as error:
            return ClipResult(row.number, row.name, "failed", f"{classify(error)}: {error}")
        return Clip(row, job)

    with ThreadPoolExecutor(8, thread_name_prefix="look") as pool:
        looked = list(pool.map(look, rows))
    bad = [one for one in looked if isinstance(one, ClipResult)]
    return [one for one in looked if isinstance(one, Clip)], bad


def run_dataset(
    rows: Sequence[Row],
    store: str,
    out: Path | None,
    profile: str,
    overrides: Sequence[str],
    board: Board,
    keep: Policy | None = None,
) -> list[ClipResult]:
    """Run the clips of a manifest's rows; a result for each row, in their order.

    Raises:
        StageError: this process cannot use the GPU any more (:meth:`DatasetRun.run`).
    """
    stopping.clear()
    settings = load_settings(profile, overrides)
    clips, bad = clips_of(rows, store, overrides)
    board.begin(len(rows))
    for result in bad:
        board.ended(result)
    with stops_forgotten(), open_runner(settings, plain=True) as runner, _updated(board):
        results = DatasetRun(runner, settings, out, board, keep).run(clips)
    return sorted([*bad, *results], key=lambda result: result.number)


@contextmanager
def _updated(board: Board) -> Iterator[None]:
    """Let the board show itself every few seconds while the block runs, and once more at its end."""
    stop = threading.Event()

    def show() -> None:
        while not stop.wait(board.interval_s):
            board.show()

    # with this thread's context: Prefect asks which flow run an artifact is of
    thread = threading.Thread(target=copy_context().run, args=(show,), name="board", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)
        board.show()


class Parameters(TypedDict):
    """Parameters of a flow run of :func:`reenact_dataset`."""

    manifest: str
    store: str
    out: str | None
    profile: str
    overrides: list[str]
    shard: int
    shards: int
    keep: Policy | None
    require_consent: bool


@flow(name="reenact-dataset", persist_result=False, validate_parameters=True)
def reenact_dataset(
    manifest: str,
    store: str,
    out: str | None = None,
    profile: str = "embedded",
    overrides: Sequence[str] = (),
    shard: int = 0,
    shards: int = 1,
    keep: Policy | None = None,
    require_consent: bool = True,
) -> dict[str, int]:
    """Run one shard of a manifest.

    Args:
        manifest: CSV or Parquet, path or URL (``portrait dataset check``).
        store: URL or folder that keeps every stage's output; the same one resumes.
        out: folder with a folder a clip; None leaves the clips in the store.
        profile: of rows that name none.
        overrides: ``section.field=value`` strings for every row.
        shard: which part of the manifest, from 0.
        shards: how many parts there are.
        keep: what of a finished clip is dropped (``portrait clean``); None keeps all.
        require_consent: refuse rows without licence and consent.

    Returns:
        Clips by outcome.
    """
    found = read_manifest(manifest, profile, require_consent=require_consent, changes=overrides)
    rows = rows_of_shard(found.rows, shard, shards)
    board = ArtifactBoard()
    results = run_dataset(rows, store, Path(out) if out else None, profile, overrides, board, keep)
    return board.counts(results)


def start_dataset(
    rows: Sequence[Row], settings: Settings, console: Console, parameters: Parameters
) -> dict[str, int]:
    """Run a shard's ``rows`` as a flow run when a Prefect server answers, else without; clips by outcome."""

    def report(line: str) -> None:
        console.print(line, soft_wrap=True)

    server = server_for_run(settings.runner.prefect, report)
    if server is not None:
        try:
            return reenact_dataset(**parameters)
        except Exception as error:
            if gpu_gone(error) or not server_went_away(server, report):
                raise
    out, board = parameters["out"], TerminalBoard(console)
    asked = parameters["store"], Path(out) if out else None, parameters["profile"], parameters["overrides"]
    return board.counts(run_dataset(rows, *asked, board, parameters["keep"]))
