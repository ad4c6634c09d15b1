"""How precisely CUDA multiplies float32 matrices while a task runs.

PyTorch's switches for that belong to the whole process. Tasks that share a process therefore take turns:
those that want the same precision run together, and those that want another wait until these have left.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from portrait_core.runtime import cancellation

MatrixPrecision = Literal["fp32", "tf32", "bf16"]
_Switches = tuple[str, str]
"""``fp32_precision`` of PyTorch's matrix products and convolutions on CUDA, in this order."""
_LOOK_S = 0.2
"""Seconds between two looks at whether the process is asked to stop."""


class _Turns:
    """Threads inside, all of one mode, and those that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[object, str]] = []
        self._inside: Counter[int] = Counter()
        """How often each thread has entered and not left, by its identifier."""
        self._mode = ""
        self._before: _Switches = ("", "")
        """The switches as they were before the first thread entered."""

    def enter(self, mode: str) -> None:
        """Enter once nobody of another mode is inside, and nobody of another mode has waited for longer.

        Raises:
            RuntimeError: the thread is inside with another mode; it would wait for itself.
            StopRequested: the process was asked to stop while the thread waited.
        """
        me = threading.get_ident()
        with self._changed:
            if not self._inside[me]:
                self._wait(mode)
            elif mode != self._mode:
                raise RuntimeError(
                    f"matrix precision {mode} inside {self._mode}: leave the outer block first, since other "
                    f"threads may be at work with its precision"
                )
            if not self._inside.total():
                self._mode, self._before = mode, _switches()
                _set_switches((mode, mode))
            self._inside[me] += 1

    def _wait(self, mode: str) -> None:
        ticket = (object(), mode)
        self._waiting.append(ticket)
        try:
            while not self._may_enter(ticket):
                cancellation.check()
                self._changed.wait(_LOOK_S)
        finally:
            self._waiting.remove(ticket)
            self._changed.notify_all()

    def _may_enter(self, ticket: tuple[object, str]) -> bool:
        """Whether everything inside, and everything that waited before, is of the ticket's mode."""
        mode = ticket[1]
        if self._inside.total() and self._mode != mode:
            return False
        ahead = self._waiting[: self._waiting.index(ticket)]
        return all(other == mode for _, other in ahead)

    def leave(self) -> None:
        """Leave; the last one puts the switches back."""
        me = threading.get_ident()
        with self._changed:
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
            if not self._inside:
                _set_switches(self._before)
                self._changed.notify_all()


_turns = _Turns()


@contextmanager
def matrix_precision(precision: MatrixPrecision) -> Iterator[None]:
    """Let CUDA multiply float32 exactly (``fp32``) or in TF32 (``tf32`` and ``bf16``) while the block runs.

    Afterwards the switches are what they were. Blocks of the same precision run at the same time in as many
    threads as want to. A block of the other precision waits until they have left; blocks that come after it
    do not pass it, so that it waits for those inside alone. A thread may open another block of its own
    precision inside its block at any time. ``tf32`` and ``bf16`` are the same precision here: what runs in
    bfloat16 is chosen where a generator is loaded. On a CPU nothing changes.

    Threads that a block starts and waits for compute with its precision and must open no block themselves: a
    thread that waits for its turn behind another task would keep the block from ending, and so that task from
    beginning.

    Args:
        precision: of products of float32 matrices and of convolutions.

    Raises:
        ValueError: for another precision.
        RuntimeError: inside a block of the other precision, in the same thread.
        StopRequested: the process was asked to stop while the block waited
        (:mod:`portrait_core.runtime.cancellation`).
    """
    if precision not in ("fp32", "tf32", "bf16"):
        raise ValueError(f"precision must be fp32, tf32 or bf16, got {precision!r}")
    _turns.enter("ieee" if precision == "fp32" else "tf32")
    try:
        yield
    finally:
        _turns.leave()


def _switches() -> _Switches:
    import torch  # here: it is slow to import, and what wraps tasks is imported by the command line too

    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return matmul.fp32_precision, conv.fp32_precision


def _set_switches(values: _Switches) -> None:
    import torch

    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    matmul.fp32_precision, conv.fp32_precision = values
