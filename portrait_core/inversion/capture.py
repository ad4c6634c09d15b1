"""Steps captured as CUDA graphs: some 1,500 kernels of an optimisation step are started by one call.

A captured step runs the very kernels that were recorded, on the same memory. What changes from step to step
(learning rate, number of the step, drawn frames) lies in tensors on the device that are written between two
replays; random draws advance the generator that is registered with the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

Step = Callable[[], None]


class Capture(Protocol):
    """Records a step and gives what replays it."""

    plain_steps: int
    """Steps that are taken plainly before one is recorded: libraries choose their kernels and allocate their
    workspaces in them."""

    def warm(self, step: Step) -> None:
        """Take a step plainly, where a recording will be made."""

    def record(self, step: Step, rng: torch.Generator) -> Step:
        """Record a step without taking it, and give what takes it again and again."""


class CudaCapture:
    """CUDA graphs of one loop, as PyTorch makes them, which share their memory.

    The numbers are those of plain steps. Not run on a card.
    """

    plain_steps = 3

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()

    def warm(self, step: Step) -> None:
        """Take a step on the stream that records later."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            step()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, step: Step, rng: torch.Generator) -> Step:
        """See :class:`Capture`."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(rng)
        # other threads of the process load frames and write checkpoints meanwhile
        mode = "thread_local"
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode=mode):
            step()
        return graph.replay


def capture_for(device: torch.device, wanted: bool) -> Capture | None:
    """Return what captures the steps of one loop on a device, where that is wanted and the device can.

    The graphs and their memory end with the loop.
    """
    return CudaCapture() if wanted and device.type == "cuda" else None
