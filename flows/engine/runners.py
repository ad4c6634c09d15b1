"""Runners: threads of this process or Dask workers that execute a stage's tasks, with or without Prefect."""

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


CHECK_INTERVAL_S, NO_WORKERS_WARNING_S = 10.0, 30.0
"""Seconds between two checks of the workers while a run waits for a task, and seconds without any worker
after which a warning is logged. A nanny needs less time than that to start another process."""
_log = logging.getLogger(__name__)


ProgressCheck = Callable[[], None]
"""Function called every :data:`CHECK_INTERVAL_S` during a wait; raises StalledTaskError on a stall."""


class Pending(Protocol):
    """A submitted task."""

    def done(self) -> bool:
        """Tell whether the task has ended."""
        ...

    def result(self, check_progress: ProgressCheck = lambda: None) -> StageResult:
        """Wait for the result.

        Raises:
            Exception: what the task raised, or what ``check_progress`` raised.
        """
        ...


class Runner(Protocol):
    """Protocol of what executes tasks."""

    def submit(self, call: Call, priority: int = 0, check_progress: ProgressCheck = lambda: None) -> Pending:
        """Start one task as soon as a worker is free.

        Args:
            call: the task.
            priority: number of the task's job; of the tasks that wait, the one with the lowest number goes
                first.
            check_progress: called about once per second during the wait; what it raises ends the wait.
        """
        ...

    def stop(self) -> None:
        """Ask the running tasks to stop where they can continue later, and wait ``grace_s`` at most."""
        ...

    def drop_loaded_models(self) -> None:
        """Make the worker processes load their models again, after one was recomputed under its key."""
        ...


class WorkerSlots:
    """Limits how many tasks run at once; of those that wait, the lowest priority goes first.

    A clip that has begun is thereby finished before the clips behind it, which fill the gaps that it leaves.
    If all clips had the same priority, all would be half done at the end, and each of the last ones would
    occupy one worker only.

    Args:
        slot_count: returns the number of slots; called at every check, since workers come and go.
    """

    def __init__(self, slot_count: Callable[[], int]) -> None:
        self._slot_count = slot_count
        self._waiting: list[tuple[int, int]] = []
        self._busy, self._arrivals = 0, count()
        self._changed = threading.Condition()

    def acquire(self, priority: int, check_progress: ProgressCheck = lambda: None) -> None:
        """Wait for a slot, and check the progress about once per second.

        Raises:
            StopRequested: the process was asked to stop during the wait.
            Exception: raised by ``check_progress``.
        """
        with self._changed:
            place = (priority, next(self._arrivals))
            self._waiting.append(place)
            try:
                while min(self._waiting) != place or self._busy >= max(1, self._slot_count()):
                    cancellation.check()
                    self._changed.wait(timeout=1.0)
                    self._changed.release()  # the check may take long
                    try:
                        check_progress()
                    finally:
                        self._changed.acquire()
                self._busy += 1
            finally:
                self._waiting.remove(place)
                self._changed.notify_all()

    def release(self, _: object = None) -> None:
        """Release a slot."""
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until no slot is in use, at most ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, seconds)


class ThreadRunner:
    """Runs tasks on threads of this process."""

    def __init__(self, pool: ThreadPoolExecutor, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings.runner
        self._slots = WorkerSlots(lambda: worker_count(settings))

    def submit(self, call: Call, priority: int = 0, check_progress: ProgressCheck = lambda: None) -> Pending:
        """Start one task as soon as a thread is free."""
        self._slots.acquire(priority, check_progress)
        try:
            future = self._pool.submit(run_call, call)
        except BaseException:
            self._slots.release()
            raise
        future.add_done_callback(self._slots.release)
        return _ThreadTask(future)

    def drop_loaded_models(self) -> None:
        """Make this process load its models again."""
        forget_models()

    def stop(self) -> None:
        """Stop as :class:`Runner` says."""
        cancellation.request()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._slots.wait_until_idle(self._settings.grace_s)


class _ThreadTask:
    """A task on a thread."""

    def __init__(self, future: Future[StageResult]) -> None:
        self._future = future

    def done(self) -> bool:
        """Tell whether the task has ended."""
        return self._future.done()

    def result(self, check_progress: ProgressCheck = lambda: None) -> StageResult:
        """Wait as :class:`Pending` says. A thread that hangs cannot be ended: the run has to end."""
        while not self._future.done():
            try:
                return self._future.result(timeout=CHECK_INTERVAL_S)
            except TimeoutError:  # of the wait, or the task's own
                if not self._future.done():
                    check_progress()
        return self._future.result()


class _DaskTask:
    """A Dask future that is released once its result is here, so that no death of a worker recomputes it."""

    def __init__(self, future: Any, check: Callable[[], bool], end: Callable[[Any], None]) -> None:
        self._future, self._check, self._end = future, check, end

    def done(self) -> bool:
        """Tell whether the task has ended."""
        return bool(self._future.done())

    def result(self, check_progress: ProgressCheck = lambda: None) -> StageResult:
        """Wait as :class:`Pending` says, and end the worker of a task that hangs."""
        try:
            while not self._future.done():
                try:
                    self._future.result(timeout=CHECK_INTERVAL_S)
                except TimeoutError:  # of the wait, or the task's own
                    if self._check() and not self._future.done():
                        check_progress()
            result: StageResult = self._future.result()
            return result
        except StalledTaskError:
            self._end(self._future)
            raise
        finally:
            self._future.release()


class DaskRunner:
    """Runs tasks on Dask workers, one task per worker at a time: a dead worker identifies its task."""

    def __init__(self, client: Client, settings: RunnerSettings) -> None:
        self._client = client
        self._settings = settings
        self._slots = WorkerSlots(self._slot_count)
        self._without_workers_since, self._warned = math.inf, False

    def submit(self, call: Call, priority: int = 0, check_progress: ProgressCheck = lambda: None) -> Pending:
        """Start one task as soon as a worker is free."""
        self._slots.acquire(priority, lambda: check_progress() if self._has_workers() else None)
        try:
            future = self._client.submit(run_call, call, pure=False, key=None)
        except BaseException:
            self._slots.release()
            raise
        future.add_done_callback(self._slots.release)
        return _DaskTask(future, self._has_workers, self._end_worker)

    def _slot_count(self) -> int:
        """Count the threads of all workers, and warn once when there have been none for a while.

        The run waits, since some clusters start workers hours later; but a worker without a nanny does not
        return by itself.
        """
        places = sum(self._client.nthreads().values())
        now = time.monotonic()
        if places:
            self._without_workers_since = math.inf
        elif now < self._without_workers_since:
            self._without_workers_since, self._warned = now, False
        elif now - self._without_workers_since > NO_WORKERS_WARNING_S and not self._warned:
            self._warned = True
            where = self._client.scheduler.address if self._client.scheduler else "no address"
            _log.warning(
                "the scheduler %s has no worker: the run waits for one. Ctrl-C ends it; finished work is "
                "kept",
                where,
            )
        return places

    def _has_workers(self) -> bool:
        """Tell whether there are workers; without any, no task can progress."""
        with suppress(OSError, RuntimeError):  # the scheduler is gone too, which ends the wait for the task
            return self._slot_count() > 0
        return False

    def _end_worker(self, future: Any) -> None:
        """End the worker on which a task hangs; its nanny starts another one.

        A worker that other flows share is left alone: it may be running one of their tasks.
        """
        with suppress(OSError, RuntimeError, ValueError):
            at_work = self._client.processing()
            hung = [address for address, keys in at_work.items() if future.key in keys]
            future.cancel(force=True)
            if self._settings.kind == "address":
                return
            self._client.restart_workers(hung, timeout=60, raise_for_error=False)

    def drop_loaded_models(self) -> None:
        """Make the workers load their models again."""
        with suppress(OSError, RuntimeError):
            self._client.run(forget_models, on_error="ignore")

    def stop(self) -> None:
        """Stop as :class:`Runner` says. Shared workers are not asked to stop: they finish their tasks."""
        cancellation.request()
        if self._settings.kind != "address":  # in the workers' event loops, beside the tasks
            self._client.run(cancellation.request, on_error="ignore")
        self._slots.wait_until_idle(self._settings.grace_s)


@contextmanager
def open_runner(settings: Settings) -> Iterator[Runner]:
    """Open the runner that the settings name: threads or Dask."""
    runner = settings.runner
    if runner.kind == "threads":
        pool = ThreadPoolExecutor(worker_count(settings), thread_name_prefix="stage")
        try:
            yield ThreadRunner(pool, settings)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    else:
        with dask_client(settings) as client:
            dask_runner = DaskRunner(client, runner)
            if runner.kind == "address":  # its workers may hold models that were recomputed since
                dask_runner.drop_loaded_models()
            yield dask_runner
