"""Where a stage's tasks run: threads of this process or Dask workers, with Prefect in charge or without.

Prefect needs a server for a flow run, and its temporary one takes 20 s of processor time to start. So a run
without a server submits the same tasks itself, with the same policy of retries; what is done is written in
the store either way.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from flows.clusters import DASK_CONFIG, dask_client, local_options
from portrait_core import stopping
from portrait_core.config import RunnerSettings, Settings
from tasks.policy import StageResult, run_by_name, with_retries
from tasks.threads import worker_count

if TYPE_CHECKING:
    from distributed import Client
    from prefect import Task
    from prefect.task_runners import TaskRunner


PREFECT_RUNS = ("threads", "local_cluster", "address")
"""Where the tasks of a flow run are Prefect's own. On the other clusters they are plain Dask tasks: a Prefect
task costs 230 to 420 ms there, a Dask task 3 to 8."""
LOOK_S, DESERTED_S = 10.0, 30.0
"""Seconds between two looks at the workers while a run waits for a task, and seconds without any worker after
which it says so: a nanny takes less to start another process."""
_log = logging.getLogger(__name__)


class Pending(Protocol):
    """A submitted task."""

    def result(self) -> StageResult:
        """Wait for it; raises what the task raised."""
        ...


class Runner(Protocol):
    """Takes tasks and runs them."""

    def submit(self, stage: Task[..., StageResult], turn: int = 0, **parameters: Any) -> Pending:
        """Start one task of a stage; of those that wait, the one of the lowest ``turn`` goes first."""
        ...

    def stop(self) -> None:
        """Ask the tasks at work to stop where they can go on later; wait for them, ``grace_s`` at most."""
        ...


class Turns:
    """As many tasks at once as there are places; of those that wait, the one of the lowest turn goes next.

    A clip that has begun is so finished before the ones behind it, which fill the gaps it leaves: with all
    clips alike, all would be half done at the end, and the last ones would keep one worker each busy.

    Args:
        places: how many there are; asked each time, since workers come and go.
    """

    def __init__(self, places: Callable[[], int]) -> None:
        self._places = places
        self._waiting: list[tuple[int, int]] = []
        self._working, self._taken = 0, count()
        self._changed = threading.Condition()

    def take(self, turn: int) -> None:
        """Wait for a place.

        Raises:
            StopRequested: the process was asked to stop meanwhile.
        """
        with self._changed:
            me = (turn, next(self._taken))
            self._waiting.append(me)
            try:
                while min(self._waiting) != me or self._working >= max(1, self._places()):
                    stopping.check()
                    self._changed.wait(timeout=1.0)
                self._working += 1
            finally:
                self._waiting.remove(me)
                self._changed.notify_all()

    def give(self, _: object = None) -> None:
        """Give a place back."""
        with self._changed:
            self._working -= 1
            self._changed.notify_all()

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until nobody has a place, so long at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._working, seconds)


class ThreadRunner:
    """Threads of this process."""

    def __init__(self, pool: ThreadPoolExecutor, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings.runner
        self._turns = Turns(lambda: worker_count(settings))

    def submit(self, stage: Task[..., StageResult], turn: int = 0, **parameters: Any) -> Pending:
        """Start one task of a stage, as soon as a thread is free."""
        self._turns.take(turn)
        try:
            future = self._pool.submit(run_by_name, *_call(stage, parameters, self._settings))
        except BaseException:
            self._turns.give()
            raise
        future.add_done_callback(self._turns.give)
        return future

    def stop(self) -> None:
        """See :class:`Runner`."""
        stopping.request()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._turns.wait_until_idle(self._settings.grace_s)


class _Collected:
    """A Dask future that is forgotten once its result is here: a worker's death would have it made again."""

    def __init__(self, future: Any, look: Callable[[], None]) -> None:
        self._future, self._look = future, look

    def result(self) -> StageResult:
        """Wait for it."""
        try:
            while not self._future.done():
                try:
                    self._future.result(timeout=LOOK_S)
                except TimeoutError:  # of the wait, or the task's own
                    self._look()
            result: StageResult = self._future.result()
            return result
        finally:
            self._future.release()


class DaskRunner:
    """Workers of a Dask cluster, each with one task at a time: when one dies, its task is the suspect."""

    def __init__(self, client: Client, settings: RunnerSettings) -> None:
        self._client = client
        self._settings = settings
        self._turns = Turns(self._places)
        self._deserted_at, self._told = math.inf, False

    def submit(self, stage: Task[..., StageResult], turn: int = 0, **parameters: Any) -> Pending:
        """Start one task of a stage, as soon as a worker is free."""
        self._turns.take(turn)
        try:
            call = _call(stage, parameters, self._settings)
            future = self._client.submit(run_by_name, *call, pure=False, key=None)
        except BaseException:
            self._turns.give()
            raise
        future.add_done_callback(self._turns.give)
        return _Collected(future, self._look)

    def _places(self) -> int:
        """Count the threads of all workers. When there have been none for a while, it is said, once: the run
        waits, since some clusters start workers hours later, but a worker without a nanny does not come back
        by itself."""
        places = sum(self._client.nthreads().values())
        now = time.monotonic()
        if places:
            self._deserted_at = math.inf
        elif now < self._deserted_at:
            self._deserted_at, self._told = now, False
        elif now - self._deserted_at > DESERTED_S and not self._told:
            self._told = True
            where = self._client.scheduler.address if self._client.scheduler else "no address"
            _log.warning(
                "there is no worker at the scheduler %s: the run waits for one. Ctrl-C ends it; what is "
                "finished is kept",
                where,
            )
        return places

    def _look(self) -> None:
        with suppress(OSError, RuntimeError):  # the scheduler is gone too, by which waiting for the task ends
            self._places()

    def stop(self) -> None:
        """See :class:`Runner`. Workers that others use too are not asked: what they are at, they finish."""
        stopping.request()
        if self._settings.kind != "address":  # in the workers' event loops, beside the tasks
            self._client.run(stopping.request, on_error="ignore")
        self._turns.wait_until_idle(self._settings.grace_s)


class PrefectRunner:
    """The task runner of the Prefect flow that is running."""

    def __init__(self, settings: RunnerSettings) -> None:
        self._settings = settings

    def submit(self, stage: Task[..., StageResult], turn: int = 0, **parameters: Any) -> Pending:
        """Start one task of a stage."""
        ready = with_retries(stage, self._settings.retries, self._settings.retry_delay_s)
        future: Pending = ready.submit(**parameters)
        return future

    def stop(self) -> None:
        """See :class:`Runner`. Prefect waits for its own tasks."""
        stopping.request()


def _call(
    stage: Task[..., StageResult], parameters: dict[str, Any], settings: RunnerSettings
) -> tuple[str, str, dict[str, Any], int, float]:
    function = stage.fn
    return function.__module__, function.__name__, parameters, settings.retries, settings.retry_delay_s


@contextmanager
def open_runner(settings: Settings, plain: bool = False) -> Iterator[Runner]:
    """A runner for tasks: Prefect's inside a flow run, unless ``plain``; else threads or Dask as the settings
    say."""
    from prefect.context import FlowRunContext

    runner = settings.runner
    inside = FlowRunContext.get()
    if inside is not None and not plain and _suits(inside.task_runner, settings):
        yield PrefectRunner(runner)
    elif runner.kind == "threads":
        pool = ThreadPoolExecutor(worker_count(settings), thread_name_prefix="stage")
        try:
            yield ThreadRunner(pool, settings)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    else:
        with dask_client(settings) as client:
            yield DaskRunner(client, runner)


def _suits(task_runner: TaskRunner[Any], settings: Settings) -> bool:
    """Whether a flow run's task runner is the one that the settings ask for: a deployment's run has Prefect's
    default one, which knows neither the cluster nor how many tasks at once."""
    from prefect.task_runners import ThreadPoolTaskRunner

    if settings.runner.kind == "threads":
        at_once = getattr(task_runner, "_max_workers", None)
        return isinstance(task_runner, ThreadPoolTaskRunner) and at_once == worker_count(settings)
    return settings.runner.kind in PREFECT_RUNS and not isinstance(task_runner, ThreadPoolTaskRunner)


def prefect_task_runner(settings: Settings) -> TaskRunner[Any]:
    """The Prefect task runner of the settings, for the flow's ``with_options``."""
    from prefect.task_runners import ThreadPoolTaskRunner

    if settings.runner.kind not in PREFECT_RUNS or settings.runner.kind == "threads":
        return ThreadPoolTaskRunner(max_workers=worker_count(settings))
    import dask
    from prefect_dask import DaskTaskRunner

    dask.config.set(DASK_CONFIG)
    if settings.runner.kind == "address":
        return DaskTaskRunner(address=settings.runner.address)
    return DaskTaskRunner(cluster_kwargs=local_options(settings))
