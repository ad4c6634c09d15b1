"""Models are loaded once a process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from portrait_core.models.cache import cached, forget_models


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
    first: list[int] = cached("tuned", "0", list)
    for i in range(1, 6):
        cached("tuned", str(i), list)
    assert cached("tuned", "0", list) is first  # used again, so "1" is now the oldest
    second: list[int] = cached("tuned", "1", list)
    for i in range(6, 16):
        cached("tuned", str(i), list)
    assert cached("tuned", "1", list) is not second


def test_a_failed_load_is_tried_again() -> None:
    def broken() -> list[int]:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        cached("head", "x", broken)
    assert cached("head", "x", lambda: [1]) == [1]
