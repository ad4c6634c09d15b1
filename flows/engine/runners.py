"""Where a stage's tasks run: threads of this process or Dask workers, the same with a Prefect server and
without.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from flows.engine.clusters import dask_client
from portrait_core.pipeline.classification import StalledTaskError
from portrait_core.pipeline.results import StageResult
from portrait_core.runtime import cancellation
from portrait_core.runtime.model_cache import forget_models
from portrait_core.settings import RunnerSettings, Settings
from portrait_core.settings.threads import worker_count
from tasks.running import Call, run_call

if TYPE_CHECKING:
    from distributed import Client


LOOK_S, DESERTED_S = 10.0, 30.0
"""Seconds between two looks at the workers while a run waits for a task, and seconds without any worker after
which it says so: a nanny takes less to start another process."""
_log = logging.getLogger(__name__)


Look = Callable[[], None]
"""Called every :data:`LOOK_S` while a task is waited for; raises StalledTaskError when it got no further for
too long."""


class Pending(Protocol):
    """A submitted task."""

    def done(self) -> bool:
        """Tell whether it has ended."""
        ...

    def result(self, look: Look = lambda: None) -> StageResult:
        """Wait for it; raises what the task raised, and what ``look`` raised."""
        ...


class Runner(Protocol):
    """Takes tasks and runs them."""

    def submit(self, call: Call, turn: int = 0, look: Look = lambda: None) -> Pending:
        """Start one task; of those that wait, the one of the lowest ``turn`` goes first. ``look`` is called
        about once a second while it waits; what it raises ends the waiting.
        """
        ...

    def stop(self) -> None:
        """Ask the tasks at work to stop where they can go on later; wait for them, ``grace_s`` at most."""
        ...

    def forget(self) -> None:
        """Let the processes that do the work load their models again: a stage was made again, under the key
        that it had.
        """
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

    def take(self, turn: int, look: Look = lambda: None) -> None:
        """Wait for a place, looking about once a second.

        Raises:
            StopRequested: the process was asked to stop meanwhile.
            Exception: by ``look``.
        """
        with self._changed:
            me = (turn, next(self._taken))
            self._waiting.append(me)
            try:
                while min(self._waiting) != me or self._working >= max(1, self._places()):
                    cancellation.check()
                    self._changed.wait(timeout=1.0)
                    self._changed.release()  # the look may take long
                    try:
                        look()
                    finally:
                        self._changed.acquire()
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

    def submit(self, call: Call, turn: int = 0, look: Look = lambda: None) -> Pending:
        """Start one task, as soon as a thread is free."""
        self._turns.take(turn, look)
        try:
            future = self._pool.submit(run_call, call)
        except BaseException:
            self._turns.give()
            raise
        future.add_done_callback(self._turns.give)
        return _Watched(future)

    def forget(self) -> None:
        """See :class:`Runner`."""
        forget_models()

    def stop(self) -> None:
        """See :class:`Runner`."""
        cancellation.request()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._turns.wait_until_idle(self._settings.grace_s)


class _Watched:
    """A thread's task."""

    def __init__(self, future: Future[StageResult]) -> None:
        self._future = future

    def done(self) -> bool:
        """See :class:`Pending`."""
        return self._future.done()

    def result(self, look: Look = lambda: None) -> StageResult:
        """See :class:`Pending`. A thread that hangs cannot be ended: the run has to end."""
        while not self._future.done():
            try:
                return self._future.result(timeout=LOOK_S)
            except TimeoutError:  # of the wait, or the task's own
                if not self._future.done():
                    look()
        return self._future.result()


class _Collected:
    """A Dask future that is forgotten once its result is here: a worker's death would have it made again."""

    def __init__(self, future: Any, check: Callable[[], bool], end: Callable[[Any], None]) -> None:
        self._future, self._check, self._end = future, check, end

    def done(self) -> bool:
        """See :class:`Pending`."""
        return bool(self._future.done())

    def result(self, look: Look = lambda: None) -> StageResult:
        """See :class:`Pending`. The worker of a task that hangs is ended."""
        try:
            while not self._future.done():
                try:
                    self._future.result(timeout=LOOK_S)
                except TimeoutError:  # of the wait, or the task's own
                    if self._check() and not self._future.done():
                        look()
            result: StageResult = self._future.result()
            return result
        except StalledTaskError:
            self._end(self._future)
            raise
        finally:
            self._future.release()


class DaskRunner:
    """Workers of a Dask cluster, each with one task at a time: when one dies, its task is the suspect."""

    def __init__(self, client: Client, settings: RunnerSettings) -> None:
        self._client = client
        self._settings = settings
        self._turns = Turns(self._places)
        self._deserted_at, self._told = math.inf, False

    def submit(self, call: Call, turn: int = 0, look: Look = lambda: None) -> Pending:
        """Start one task, as soon as a worker is free."""
        self._turns.take(turn, lambda: look() if self._look() else None)
        try:
            future = self._client.submit(run_call, call, pure=False, key=None)
        except BaseException:
            self._turns.give()
            raise
        future.add_done_callback(self._turns.give)
        return _Collected(future, self._look, self._end_worker)

    def _places(self) -> int:
        """Count the threads of all workers. When there have been none for a while, it is said, once: the run
        waits, since some clusters start workers hours later, but a worker without a nanny does not come back
        by itself.
        """
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

    def _look(self) -> bool:
        """Tell whether there are workers: without any, nothing can get further."""
        with suppress(OSError, RuntimeError):  # the scheduler is gone too, by which waiting for the task ends
            return self._places() > 0
        return False

    def _end_worker(self, future: Any) -> None:
        """End the worker that a task hangs on; its nanny starts another one. A worker that others use too is
        left alone: another flow's task may be what it is at.
        """
        with suppress(OSError, RuntimeError, ValueError):
            at_work = self._client.processing()
            hung = [address for address, keys in at_work.items() if future.key in keys]
            future.cancel(force=True)
            if self._settings.kind == "address":
                return
            self._client.restart_workers(hung, timeout=60, raise_for_error=False)

    def forget(self) -> None:
        """See :class:`Runner`."""
        with suppress(OSError, RuntimeError):
            self._client.run(forget_models, on_error="ignore")

    def stop(self) -> None:
        """See :class:`Runner`. Workers that others use too are not asked: what they are at, they finish."""
        cancellation.request()
        if self._settings.kind != "address":  # in the workers' event loops, beside the tasks
            self._client.run(cancellation.request, on_error="ignore")
        self._turns.wait_until_idle(self._settings.grace_s)


@contextmanager
def open_runner(settings: Settings) -> Iterator[Runner]:
    """Open a runner for tasks: threads or Dask, as the settings say."""
    runner = settings.runner
    if runner.kind == "threads":
        pool = ThreadPoolExecutor(worker_count(settings), thread_name_prefix="stage")
        try:
            yield ThreadRunner(pool, settings)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    else:
        with dask_client(settings) as client:
            made = DaskRunner(client, runner)
            if runner.kind == "address":  # its workers may remember what was made again since
                made.forget()
            yield made
