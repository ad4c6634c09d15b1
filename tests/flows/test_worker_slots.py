"""Who gets a worker next."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from flows.engine.runners import WorkerSlots
from portrait_core.runtime import cancellation


@pytest.fixture(autouse=True)
def _not_stopping() -> Iterator[None]:
    cancellation.clear()
    yield
    cancellation.clear()


def _wait_until_waiting(slots: WorkerSlots, count: int) -> None:
    while len(slots._waiting) < count:
        time.sleep(0.005)


def test_the_lowest_priority_number_goes_first_whenever_it_came() -> None:
    slots, order = WorkerSlots(lambda: 1), list[int]()

    def one(priority: int) -> None:
        slots.acquire(priority)
        order.append(priority)
        slots.release()

    slots.acquire(9)
    threads = []
    for i, priority in enumerate((5, 7, 1, 5)):
        threads.append(threading.Thread(target=one, args=(priority,)))
        threads[-1].start()
        _wait_until_waiting(slots, i + 1)
    slots.release()
    for thread in threads:
        thread.join(10)
    assert order == [1, 5, 5, 7]


def test_as_many_at_once_as_there_are_places_now() -> None:
    places = 1
    slots = WorkerSlots(lambda: places)
    slots.acquire(0)
    took = threading.Event()

    def take() -> None:
        slots.acquire(0)
        took.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not took.wait(0.2)
    places = 2  # a worker came; nobody says so
    assert took.wait(10)
    thread.join(10)


def test_who_waits_hears_of_a_stop() -> None:
    slots, heard = WorkerSlots(lambda: 1), threading.Event()
    slots.acquire(0)

    def wait() -> None:
        with pytest.raises(cancellation.StopRequested):
            slots.acquire(0)
        heard.set()

    thread = threading.Thread(target=wait)
    thread.start()
    _wait_until_waiting(slots, 1)
    cancellation.request()
    assert heard.wait(10)
    thread.join(10)
    slots.release()
    slots.wait_until_idle(10)
    assert not slots._busy
    assert not slots._waiting
