"""Who gets a worker next."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from flows.engine.runners import Turns
from portrait_core.runtime import cancellation


@pytest.fixture(autouse=True)
def _not_stopping() -> Iterator[None]:
    cancellation.clear()
    yield
    cancellation.clear()


def _wait_until_waiting(turns: Turns, count: int) -> None:
    while len(turns._waiting) < count:
        time.sleep(0.005)


def test_the_lowest_turn_goes_first_whenever_it_came() -> None:
    turns, order = Turns(lambda: 1), list[int]()

    def one(turn: int) -> None:
        turns.take(turn)
        order.append(turn)
        turns.give()

    turns.take(9)
    threads = []
    for i, turn in enumerate((5, 7, 1, 5)):
        threads.append(threading.Thread(target=one, args=(turn,)))
        threads[-1].start()
        _wait_until_waiting(turns, i + 1)
    turns.give()
    for thread in threads:
        thread.join(10)
    assert order == [1, 5, 5, 7]


def test_as_many_at_once_as_there_are_places_now() -> None:
    places = 1
    turns = Turns(lambda: places)
    turns.take(0)
    took = threading.Event()

    def take() -> None:
        turns.take(0)
        took.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not took.wait(0.2)
    places = 2  # a worker came; nobody says so
    assert took.wait(10)
    thread.join(10)


def test_who_waits_hears_of_a_stop() -> None:
    turns, heard = Turns(lambda: 1), threading.Event()
    turns.take(0)

    def wait() -> None:
        with pytest.raises(cancellation.StopRequested):
            turns.take(0)
        heard.set()

    thread = threading.Thread(target=wait)
    thread.start()
    _wait_until_waiting(turns, 1)
    cancellation.request()
    assert heard.wait(10)
    thread.join(10)
    turns.give()
    turns.wait_until_idle(10)
    assert not turns._working
    assert not turns._waiting
