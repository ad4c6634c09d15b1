"""The flow ``reenact_dataset``: many clips at once on one set of workers; a failing clip stops no other.

Rows are prepared a little ahead of the clips at work, so that the first clip begins at once; of the clips
that are ready the longest goes next. All results are in the store: a second run of the same command
continues.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from flows.dataset_run import Clip, ClipResult, DatasetRun, Item
from flows.display.progress import ArtifactBoard, Board, TerminalBoard
from flows.engine.environment import refuse_secrets, server_for_run, server_went_away
from flows.engine.runners import open_runner
from flows.engine.stages import gpu_gone, stop_request_cleared
from flows.engine.task_runs import own_process, process_left, settings_of_flow
from flows.reenact import prepare
from portrait_core.dataset.manifest import Row, read_manifest
from portrait_core.dataset.sharding import shard as rows_of_shard
from portrait_core.pipeline import Policy
from portrait_core.runtime import cancellation
from portrait_core.settings import Settings, load_settings
from portrait_core.settings.trust import settings_of_row
from portrait_core.store import Store

if TYPE_CHECKING:
    from rich.console import Console

_ended: ContextVar[list[ClipResult] | None] = ContextVar("ended", default=None)
"""Results of a flow run called in this process: a state other than Completed carries none."""

Prepare = Callable[[Row], Clip | ClipResult]
"""Function that returns a row's clip, or the result that says what is wrong with its inputs."""


def row_preparer(store: str, overrides: Sequence[str], command: Settings) -> Prepare:
    """Return a function that prepares the clip of a row.

    It returns the clip, or the result that says what is wrong with its inputs. Only the ``command``'s
    settings say where the work is done.
    """

    @cache
    def load(profile: str, own: tuple[str, ...]) -> Settings:
        return settings_of_row(profile, overrides, own, command)

    def prepare_row(row: Row) -> Clip | ClipResult:
        try:
            settings = load(row.profile, tuple(row.overrides))
            job = prepare(row.portrait, row.video, store, settings, row.name)
        except Exception as error:
            return ClipResult.of_inputs(row.number, row.name, error)
        return Clip(row.number, row.name, job)

    return prepare_row


def run_dataset(
    rows: Sequence[Row],
    store: str,
    out: Path | None,
    profile: str,
    overrides: Sequence[str],
    board: Board,
    keep: Policy | None = None,
) -> list[ClipResult]:
    """Run the clips of a manifest's rows, and return a result per row, in their order.

    Raises:
        StageError: this process cannot use the GPU any more, or the store does not answer
            (:meth:`DatasetRun.run`).
    """
    settings = load_settings(profile, overrides)
    Store(store, settings.runner.storage_options).check_format(write=True)
    return run_clips(rows, row_preparer(store, overrides, settings), settings, out, board, keep)


def run_clips(
    items: Sequence[Item],
    prepare_item: Callable[[Item], Clip | ClipResult],
    settings: Settings,
    out: Path | None,
    board: Board,
    keep: Policy | None = None,
) -> list[ClipResult]:
    """Run clips on the runner that the settings name, and return a result per clip, ordered by number.

    Args:
        items: what the clips are made from.
        prepare_item: returns the clip of an item, or the result that says what is wrong with it.
        settings: settings of the run.
        out: folder with a folder per clip; None leaves the clips in the store.
        board: is told of every event.
        keep: what is dropped of a finished clip; None keeps all.

    Raises:
        StageError: see :meth:`DatasetRun.run`.
    """
    cancellation.clear()
    board.begin(len(items))
    with stop_request_cleared(), open_runner(settings) as runner, _updated(board):
        results = DatasetRun(runner, settings, out, board, keep).run(items, prepare_item)
    return sorted(results, key=lambda result: result.number)


@contextmanager
def _updated(board: Board) -> Iterator[None]:
    """Update the board every few seconds while the block runs, and once more at its end."""
    stop = threading.Event()

    def show() -> None:
        while not stop.wait(board.interval_s):
            board.show()

    # with this thread's context, from which Prefect finds the flow run of an artifact
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
) -> State[dict[str, int]]:
    """Run one shard of a manifest.

    Args:
        manifest: CSV or Parquet, path or URL (``portrait dataset check``).
        store: URL or folder that keeps every stage's output; the same store resumes the run.
        out: folder with a folder per clip; None leaves the clips in the store.
        profile: profile of rows that name none.
        overrides: ``section.field=value`` strings for every row.
        shard: number of the shard, from 0.
        shards: number of shards.
        keep: what is dropped of a finished clip (``portrait clean``); None keeps all.
        require_consent: refuse rows without licence and consent.

    Returns:
        The numbers of clips per outcome, in a state named ``Partial``, which is not green, where some clips
        are missing, and ``Failed`` where all are.
    """
    settings_of_flow(profile, overrides)
    contents = read_manifest(manifest, profile, require_consent=require_consent, changes=overrides)
    rows = rows_of_shard(contents.rows, shard, shards)
    board = ArtifactBoard()
    with process_left():
        results = run_dataset(rows, store, Path(out) if out else None, profile, overrides, board, keep)
    return ended(results)


def ended(results: Sequence[ClipResult]) -> State[dict[str, int]]:
    """Return the state with which a flow run of clips ends.

    Raises:
        RuntimeError: some clips are missing, and Prefect will run the flow again. Returning a failed state
            would end the process instead. Another run costs about twenty requests per clip.
    """
    counts = ArtifactBoard.counts(results)
    if (shared := _ended.get()) is not None:
        shared[:] = results
    missing = sum(count for outcome, count in counts.items() if outcome not in ("done", "held"))
    if not missing:
        return Completed(data=counts)
    summary = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    if _is_retried():
        raise RuntimeError(f"clips: {summary}")
    nothing = missing == sum(counts.values())
    return Failed(name="Failed" if nothing else "Partial", message=f"clips: {summary}")


def _is_retried() -> bool:
    """Tell whether Prefect would run the flow again if it failed now."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow is None:
        return False
    return context.flow_run.run_count <= context.flow.retries


def start_dataset(
    rows: Sequence[Row], settings: Settings, console: Console, parameters: Parameters
) -> list[ClipResult]:
    """Run a shard's ``rows``, as a flow run when a Prefect server answers; return a result per row."""

    def report(line: str) -> None:
        console.print(line, soft_wrap=True)

    server = server_for_run(settings.runner.prefect, report)
    if server is not None:
        refuse_secrets(parameters.values())
        try:
            return called(reenact_dataset, parameters)
        except Exception as error:
            if gpu_gone(error) or not server_went_away(server, report):
                raise
    out, board = parameters["out"], TerminalBoard(console)
    inputs = parameters["store"], Path(out) if out else None, parameters["profile"], parameters["overrides"]
    return run_dataset(rows, *inputs, board, parameters["keep"])


def called(run: Any, parameters: Any) -> list[ClipResult]:
    """Call a flow of clips in this process, and return its results, whatever its state is named."""
    results: list[ClipResult] = []
    token = _ended.set(results)
    own_process.set(False)
    try:
        state = run(**parameters, return_state=True)
    finally:
        _ended.reset(token)
    if not results:
        state.result()  # raises the error that ended it
    return results
