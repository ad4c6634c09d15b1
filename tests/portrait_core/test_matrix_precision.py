"""PyTorch's switches of precision, which belong to the process, and threads that want different ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from portrait_core.runtime import cancellation
from portrait_core.runtime import matrix_precision as module
from portrait_core.runtime.matrix_precision import MatrixPrecision, matrix_precision

WAIT_S = 10.0
FOUND = ("none", "tf32")
"""What the switches are before each test."""


def _switches() -> tuple[str, str]:
    backends: Any = torch.backends
    return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision


def _set(values: tuple[str, str]) -> None:
    backends: Any = torch.backends
    backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision = values


@pytest.fixture(autouse=True)
def _as_found() -> Iterator[None]:
    before = _switches()
    _set(FOUND)
    cancellation.clear()
    yield
    cancellation.clear()
    assert _switches() == FOUND, "a block did not put the switches back"
    _set(before)


class Task(threading.Thread):
    """A block in a thread of its own, which lasts until it is let go."""

    def __init__(self, precision: MatrixPrecision) -> None:
        super().__init__(daemon=True)
        self._precision = precision
        self.entered, self._let_go = threading.Event(), threading.Event()
        self.seen: tuple[str, str] | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            with matrix_precision(self._precision):
                self.seen = _switches()
                self.entered.set()
                self._let_go.wait(WAIT_S)
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        """Let the block end, and wait for the thread."""
        self._let_go.set()
        self.join(WAIT_S)
        assert not self.is_alive()


def _until(reached: Callable[[], bool]) -> None:
    limit = time.monotonic() + WAIT_S
    while not reached():
        assert time.monotonic() < limit
        time.sleep(0.002)


def _waiting_task(precision: MatrixPrecision) -> Task:
    """A task that waits for its turn."""
    before = len(module._turns._waiting)
    task = Task(precision)
    _until(lambda: len(module._turns._waiting) > before)
    assert not task.entered.wait(0.05)
    return task


@pytest.mark.parametrize(("precision", "value"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "tf32")])
def test_the_switches_are_set_in_the_block_and_put_back_after_it(
    precision: MatrixPrecision, value: str
) -> None:
    with matrix_precision(precision):
        assert _switches() == (value, value)
    assert _switches() == FOUND


def test_the_switches_are_put_back_after_an_error() -> None:
    with pytest.raises(FloatingPointError), matrix_precision("fp32"):
        raise FloatingPointError
    assert _switches() == FOUND
    assert not module._turns._inside


def test_another_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="fp32, tf32 or bf16"), matrix_precision("fp16"):  # type: ignore[arg-type]  # what it must refuse
        pass


def test_tasks_of_one_precision_run_together_and_the_last_one_puts_the_switches_back() -> None:
    first, second = Task("tf32"), Task("bf16")
    assert first.entered.wait(WAIT_S)
    assert second.entered.wait(WAIT_S)
    first.end()
    assert _switches() == ("tf32", "tf32")
    second.end()
    assert _switches() == FOUND


def test_a_task_of_another_precision_waits_until_the_last_one_has_left() -> None:
    first, second = Task("tf32"), Task("tf32")
    assert first.entered.wait(WAIT_S)
    assert second.entered.wait(WAIT_S)
    other = _waiting_task("fp32")
    first.end()
    assert not other.entered.wait(0.05)
    second.end()
    assert other.entered.wait(WAIT_S)
    assert other.seen == ("ieee", "ieee")
    other.end()


def test_newcomers_do_not_pass_one_that_waits() -> None:
    first = Task("tf32")
    assert first.entered.wait(WAIT_S)
    other = _waiting_task("fp32")
    newcomer = _waiting_task("tf32")  # it could enter at once, were nobody waiting
    first.end()
    assert other.entered.wait(WAIT_S)
    assert not newcomer.entered.wait(0.05)
    other.end()
    assert newcomer.entered.wait(WAIT_S)
    newcomer.end()


def test_those_that_wait_for_the_same_precision_enter_together() -> None:
    first = Task("tf32")
    assert first.entered.wait(WAIT_S)
    others = [_waiting_task("fp32") for _ in range(3)]
    first.end()
    assert all(other.entered.wait(WAIT_S) for other in others)
    for other in others:
        other.end()


def test_a_thread_enters_again_even_while_another_precision_waits() -> None:
    with matrix_precision("tf32"):
        other = _waiting_task("fp32")
        with matrix_precision("bf16"):
            assert _switches() == ("tf32", "tf32")
        assert not other.entered.wait(0.05)
        assert _switches() == ("tf32", "tf32")
    assert other.entered.wait(WAIT_S)
    other.end()


def test_another_precision_inside_a_block_is_refused_rather_than_waited_for() -> None:
    with matrix_precision("tf32"):
        with pytest.raises(RuntimeError, match="leave the outer block first"), matrix_precision("fp32"):
            pass
        assert _switches() == ("tf32", "tf32")


def test_a_wait_ends_when_the_process_is_asked_to_stop() -> None:
    first = Task("tf32")
    assert first.entered.wait(WAIT_S)
    other = _waiting_task("fp32")
    cancellation.request()
    other.join(WAIT_S)
    assert isinstance(other.error, cancellation.StopRequested)
    assert not other.entered.is_set()
    cancellation.clear()
    late = Task("tf32")  # who gave up stands in nobody's way
    assert late.entered.wait(WAIT_S)
    late.end()
    first.end()


def test_a_free_turn_is_taken_even_when_the_process_is_asked_to_stop() -> None:
    cancellation.request()
    with matrix_precision("fp32"):  # the task's own loop decides where it stops
        assert _switches() == ("ieee", "ieee")


def test_many_tasks_never_see_the_other_precision() -> None:
    wrong: list[tuple[str, tuple[str, str]]] = []
    together, most, lock = {"ieee": 0, "tf32": 0}, {"ieee": 0, "tf32": 0}, threading.Lock()

    def work(number: int) -> None:
        precision: MatrixPrecision = "fp32" if number % 3 else "tf32"
        value = "ieee" if number % 3 else "tf32"
        with matrix_precision(precision):
            with lock:
                together[value] += 1
                most[value] = max(most[value], together[value])
            for _ in range(5):
                if (seen := _switches()) != (value, value):
                    wrong.append((value, seen))
                time.sleep(0.0005)
            with lock:
                together[value] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(120)))
    assert wrong == []
    assert most["ieee"] > 1
    assert not module._turns._inside
    assert not module._turns._waiting
