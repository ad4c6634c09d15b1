"""Recording operations and running them again: what a CUDA graph does, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.second_device import waits
from tests.second_device.arguments import leaves
from tests.second_device.generators import address

Described = tuple[Any, ...]


@dataclass(frozen=True)
class Operation:
    """One operation with the tensors that hold its numbers on the CPU.

    Attributes:
        func: PyTorch's operation.
        args: its arguments, ``kwargs`` those with names; tensors are the CPU's.
        made: what it returned, in the same form.
        run: how to run ``func`` on such arguments.
        numbers: values of those arguments that are 0-dimensional CPU tensors, which a graph would hold fast.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: Any
    run: Callable[..., Any]
    numbers: tuple[float, ...] = ()

    def describe(self) -> Described:
        """Its name, arguments that are no tensors, and shape, strides and type of those that are."""
        arguments = tuple(_described(leaf) for leaf in leaves((self.args, self.kwargs)))
        return str(self.func), arguments, self.numbers

    def replay(self) -> None:
        """Run it again, and leave its results where they were left when it was recorded."""
        again = self.run(self.func, self.args, self.kwargs)
        for before, now in zip(leaves(self.made), leaves(again), strict=True):
            if isinstance(before, torch.Tensor) and not _same_memory(before, now):
                before.copy_(now)


@dataclass
class Tape:
    """Recorded operations, which keep all their tensors alive.

    Attributes:
        operations: what was run, in its order.
        made_empty: CPU tensors that were made without an operation, to be filled by one.
    """

    operations: list[Operation] = field(default_factory=list)
    made_empty: list[torch.Tensor] = field(default_factory=list)

    def add(self, operation: Operation) -> None:
        """Take note of an operation."""
        self.operations.append(operation)

    def add_empty(self, tensor: torch.Tensor) -> None:
        """Take note of a new CPU tensor without content."""
        self.made_empty.append(tensor)

    @property
    def signature(self) -> tuple[Described, ...]:
        """The operations with all that a graph would hold fast, tensors' places apart (see :attr:`inputs`):
        two steps with equal signatures and inputs can be one captured graph."""
        return tuple(operation.describe() for operation in self.operations)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Addresses of the tensors that were there before recording, in the order in which they are read or
        written first; a graph would use those very places again."""
        made = {_storage(tensor) for tensor in self.made_empty}
        found: dict[int, None] = {}
        for operation in self.operations:
            for leaf in leaves((operation.args, operation.kwargs)):
                if isinstance(leaf, torch.Tensor) and (place := _storage(leaf)) not in made:
                    found[place] = None
            made |= {_storage(t) for t in leaves(operation.made) if isinstance(t, torch.Tensor)}
            made -= found.keys()
        return tuple(found)

    @torch.no_grad()
    def replay(self) -> None:
        """Run the operations again on the same tensors: in-place results stay in place, new ones are written
        into those recorded, draws advance their generators."""
        for operation in self.operations:
            operation.replay()


class Description:
    """A tape's signature without the tape: no tensor is kept alive, and nothing can be run again."""

    def __init__(self) -> None:
        self._described: list[Described] = []

    def add(self, operation: Operation) -> None:
        """Take note of an operation."""
        self._described.append(operation.describe())

    def add_empty(self, tensor: torch.Tensor) -> None:
        """Pass over a new tensor, which is no operation."""

    @property
    def signature(self) -> tuple[Described, ...]:
        """The same as :attr:`Tape.signature`."""
        return tuple(self._described)


_recording: list[Tape | Description] = []


@contextmanager
def described() -> Iterator[Description]:
    """Describe every operation on the second device, in all threads, until the block ends. Nothing is
    forbidden."""
    description = Description()
    with _noting(description):
        yield description


@contextmanager
def recorded() -> Iterator[Tape]:
    """Record every operation on the second device, in all threads, until the block ends.

    Raises:
        RuntimeError: inside, on a copy between the devices, a read by the host or a shape that depends on the
            data: what capturing a CUDA graph refuses.
    """
    tape = Tape()
    with _noting(tape), waits.forbidden("recording a tape, as capturing a CUDA graph does,"):
        yield tape


@contextmanager
def _noting(notes: Tape | Description) -> Iterator[None]:
    if _recording:
        raise RuntimeError("a tape is being recorded already; end that block first")
    _recording.append(notes)
    try:
        yield
    finally:
        _recording.clear()


def note(
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    made: Any,
    run: Callable[..., Any],
    strangers: Sequence[torch.Tensor] = (),
) -> None:
    """Add an operation to the tape that is being recorded, if any; tensors are those on the CPU,
    ``strangers`` those that were there before."""
    if _recording:
        numbers = tuple(float(one) for one in strangers if one.dim() == 0)
        _recording[-1].add(Operation(func, args, kwargs, made, run, numbers))


def note_empty(tensor: torch.Tensor) -> None:
    """Tell the tape that is being recorded, if any, of a new CPU tensor without content."""
    if _recording:
        _recording[-1].add_empty(tensor)


def _described(leaf: Any) -> Described:
    if isinstance(leaf, torch.Tensor):
        return "tensor", tuple(leaf.shape), leaf.stride(), leaf.storage_offset(), leaf.dtype
    return (type(leaf).__name__, leaf if not isinstance(leaf, torch._C.Generator) else address(leaf))


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _same_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or (
        one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()
    )
