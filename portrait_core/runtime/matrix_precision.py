"""Precision of float32 matrix products on CUDA while a task runs.

PyTorch's switches for it belong to the whole process. Tasks that share a process therefore take turns: tasks
of the same precision run together, and tasks of another precision wait until these have left.
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
"""``fp32_precision`` of PyTorch's matrix products and of its convolutions on CUDA, in this order."""
_STOP_CHECK_S = 0.2
"""Seconds between two checks whether the process is asked to stop."""


class _Turns:
    """The threads inside a block, all of one mode, and the threads that wait, in order of arrival."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[object, str]] = []
        self._inside: Counter[int] = Counter()
        """Number of blocks that each thread has open, by the thread's identifier."""
        self._mode = ""
        self._before: _Switches = ("", "")
        """Switches as they were before the first thread entered."""

    def enter(self, mode: str) -> None:
        """Enter once no thread of another mode is inside or has waited for longer.

        Raises:
            RuntimeError: the thread is inside with another mode, so it would wait for itself.
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
                self._changed.wait(_STOP_CHECK_S)
        finally:
            self._waiting.remove(ticket)
            self._changed.notify_all()

    def _may_enter(self, ticket: tuple[object, str]) -> bool:
        """Tell whether all threads inside, and all that waited before, have the ticket's mode."""
        mode = ticket[1]
        if self._inside.total() and self._mode != mode:
            return False
        ahead = self._waiting[: self._waiting.index(ticket)]
        return all(other == mode for _, other in ahead)

    def leave(self) -> None:
        """Leave; the last thread to leave restores the switches."""
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
    """Let CUDA multiply float32 exactly (``fp32``) or in TF32 (``tf32``, ``bf16``) while the block runs.

    Afterwards the switches are as they were. Any number of threads may be in blocks of the same precision at
    the same time. A block of the other precision waits until they have left; blocks that come after it do not
    overtake it, so it waits only for the threads that are inside. A thread may open another block of its own
    precision inside its block at any time. ``tf32`` and ``bf16`` are the same precision here: bfloat16 is
    chosen where a generator is loaded. Nothing changes on a CPU.

    Threads that a block starts and waits for compute with its precision and must not open blocks themselves.
    Such a thread could wait for its turn behind another task, while the block waits for the thread and the
    task waits for the block.

    Args:
        precision: precision of products of float32 matrices and of convolutions.

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
    import torch  # here: it is slow to import, and the command line imports this module

    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return matmul.fp32_precision, conv.fp32_precision


def _set_switches(values: _Switches) -> None:
    import torch

    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    matmul.fp32_precision, conv.fp32_precision = values
