"""Models are loaded once a process."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from portrait_core.runtime.model_cache import cached, drop_unused, forget_models


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    forget_models()
    yield
    forget_models()


def test_threads_that_ask_at_once_share_one_model() -> None:
    loaded: list[object] = []
    barrier = Barrier(4)

    def load() -> object:
        loaded.append(object())
        return loaded[-1]

    def ask(_: int) -> object:
        barrier.wait()
        return cached("head", "digest", load)

    with ThreadPoolExecutor(4) as pool:
        got = set(map(id, pool.map(ask, range(4))))
    assert len(loaded) == len(got) == 1


def test_another_digest_or_variant_is_another_model() -> None:
    kept: list[list[int]] = [cached("head", d, list, v) for d in "ab" for v in (1, 2)]
    assert len(set(map(id, kept))) == 4


def test_the_model_unused_for_longest_is_dropped() -> None:
    first: list[int] = cached("head", "0", list)
    for i in range(1, 6):
        cached("head", str(i), list)
    assert cached("head", "0", list) is first  # used again, so "1" is now the oldest
    second: list[int] = cached("head", "1", list)
    for i in range(6, 17):
        cached("head", str(i), list)
    assert cached("head", "1", list) is not second


def test_a_failed_load_is_tried_again() -> None:
    def broken() -> list[int]:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        cached("head", "x", broken)
    assert cached("head", "x", lambda: [1]) == [1]


class Weights:
    """A model of one clip."""


def test_one_clips_model_goes_before_the_next_ones_is_loaded() -> None:
    first = weakref.ref(cached("tuned", "a", Weights, alone=True))
    assert first() is not None

    def load() -> Weights:
        assert first() is None, "the two need not fit into memory together"
        return Weights()

    second = cached("tuned", "b", load, alone=True)
    assert cached("tuned", "b", Weights, alone=True) is second


def test_what_a_task_is_at_work_with_stays_and_is_found_by_the_next_task() -> None:
    loaded: list[str] = []

    def ask(clip: str) -> Weights:
        def load() -> Weights:
            loaded.append(clip)
            return Weights()

        return cached("tuned", clip, load, alone=True)

    one, other = ask("a"), ask("b")  # tasks of two clips in two threads
    for _ in range(3):  # then each thread takes its clip's next range
        before = one
        del one
        one = ask("a")
        assert one is before
        del before
        other = ask("b")
    assert loaded == ["a", "b"]
    left = weakref.ref(one), weakref.ref(other)
    del one, other
    assert all(ref() is not None for ref in left), "until another clip comes"
    ask("c")
    assert [ref() for ref in left] == [None, None]
    assert loaded == ["a", "b", "c"]


def test_clips_models_push_no_shared_one_out() -> None:
    shared: list[list[int]] = [cached("head", str(i), list) for i in range(3)]
    for i in range(40):
        cached(f"kind {i % 20}", str(i), Weights, alone=True)
    assert all(cached("head", str(i), list) is model for i, model in enumerate(shared))


def test_a_kind_can_be_dropped_unless_it_is_in_use() -> None:
    used = cached("tuned", "a", Weights, alone=True)
    unused = weakref.ref(cached("poses", "a", Weights, alone=True))
    drop_unused("poses", "tuned")
    assert unused() is None
    assert cached("tuned", "a", Weights, alone=True) is used
