"""What steps take on a CUDA card. Nobody has run this on one yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

from portrait_core.inversion import loop
from portrait_core.inversion.loop import READ_EVERY
from portrait_core.runtime.matrix_precision import matrix_precision
from tests.benchmarks.step.workloads import Enough, Workload

FRAMES = 100
"""Frames of the clip."""
_BLOCKS, _WARM_BLOCKS = 5, 2
"""Blocks of steps that are taken, and those of them that warm up: kernels are chosen, graphs captured, and
the frames of a clip of 100 loaded."""
_FLOP_STEPS = (1, 2)
"""Steps whose operations are counted: two in a row, of which each is of one kind where kinds alternate. They
are plain ones even where later steps are replayed."""
_SIDE, _PRODUCTS = 8192, 20
"""Side of the matrices, and number of their products, that the card's limit is measured with."""
_LATER_FRAMES = 4
"""Frames after the first that are inverted; the first of them warms up."""


class _Blocks:
    """Times the blocks of one loop.

    Events lie at the beginning of the second step of a block and behind the one before the last, between
    which the host reads nothing and prepares nothing. The clock on the wall runs from the end of a block,
    where the host has waited for the card to read the losses, to the end of the next.
    """

    def __init__(self) -> None:
        self._begins: dict[int, torch.cuda.Event] = {}
        self._stops: dict[int, torch.cuda.Event] = {}
        self._ends: list[float] = []
        self._flop: list[int] = []

    def run(self, call: Callable[[Any], object]) -> dict[str, float]:
        """Run a loop, which ``call`` starts with its ``on_step``, and return milliseconds per step: ``ms``
        inside blocks, ``whole_ms`` with their preparation and reading; and ``gflop`` per step."""
        take = loop._Steps.__call__
        with patch.object(loop._Steps, "__call__", self._timing(take)), suppress(Enough):
            call(self._on_step)
        torch.cuda.synchronize()
        inside = [
            self._begins[block].elapsed_time(stop) / (READ_EVERY - 2)
            for block, stop in self._stops.items()
            if block >= _WARM_BLOCKS
        ]
        ends = self._ends[_WARM_BLOCKS - 1 :]
        whole = [1e3 * (after - before) / READ_EVERY for before, after in pairwise(ends)]
        gflop = sum(self._flop) / len(self._flop) / 1e9
        return {"ms": median(inside), "whole_ms": median(whole), "gflop": gflop}

    def _timing(self, take: Callable[..., None]) -> Callable[..., None]:
        def timing(steps: Any, step: int) -> None:
            if step in _FLOP_STEPS:
                with FlopCounterMode(display=False) as flop:
                    take(steps, step)
                self._flop.append(flop.get_total_flops())
                return
            block, place = divmod(step, READ_EVERY)
            if place == 1:
                self._begins[block] = _event()
            take(steps, step)
            if place == READ_EVERY - 2:
                self._stops[block] = _event()

        return timing

    def _on_step(self, done: int, loss: float | None) -> None:
        if done % READ_EVERY:
            return
        torch.cuda.synchronize()
        self._ends.append(time.perf_counter())
        if done >= _BLOCKS * READ_EVERY:
            raise Enough


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _first_frame(work: Workload) -> dict[str, float]:
    """Time steps of a clip's first frame; a profile that takes few gets as many as are measured."""
    steps = max(work.settings.inversion.first_steps, _BLOCKS * READ_EVERY)
    inverter = work.inverter(first_steps=steps)
    target, start = work.inversion_target(0), work.start(inverter)
    return _Blocks().run(lambda on_step: inverter.first(target, start, on_step=on_step))


def _later_frames(work: Workload, first: dict[str, float]) -> dict[str, float]:
    """Time whole inversions of later frames, with all that belongs to a frame: its target, the features of
    it, capturing its graph. A step of them has the operations of one of the first frame."""
    inverter = work.inverter()
    times, ws = list[float](), inverter.mean
    for frame in range(1, _LATER_FRAMES + 1):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        ws, _ = inverter.next(ws, work.inversion_target(frame), frame)
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begin) / inverter.settings.steps)
    return {"whole_ms": median(times[1:]), "gflop": first["gflop"]}


def product_flops(work: Workload) -> float:
    """Measure FLOP/s of a large matrix product at the workload's precision, which is set by the caller."""
    dtype = torch.bfloat16 if work.arithmetic == "bf16" else torch.float32
    a, b = (torch.randn(_SIDE, _SIDE, device=work.device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    for _ in range(_PRODUCTS):
        torch.mm(a, b, out=out)
    begin = _event()
    for _ in range(_PRODUCTS):
        torch.mm(a, b, out=out)
    end = _event()
    torch.cuda.synchronize()
    return 2 * _SIDE**3 * _PRODUCTS / (begin.elapsed_time(end) / 1e3)


def _seconds_100(work: Workload, loops: dict[str, dict[str, float]]) -> float:
    """Reckon seconds of inversion and tuning of a clip of 100 frames from the steps' times with all that
    belongs to their blocks; pictures of the latents and the store are left out."""
    inversion, tuning = work.settings.inversion, work.settings.tuning
    spent = inversion.first_steps * loops["inversion, first frame"]["whole_ms"]
    if inversion.steps:
        spent += (FRAMES - 1) * inversion.steps * loops["inversion, later frame"]["whole_ms"]
    return (spent + tuning.steps * loops["tuning"]["whole_ms"]) / 1e3


def card_times(work: Workload) -> dict[str, Any]:
    """Measure inversion and tuning on the card that PyTorch sees, in this process.

    Returns:
        ``card`` (its name), ``precision``, ``limit`` (FLOP/s of a large product at that precision), ``loops``
        (by name, milliseconds and GFLOP per step; a later frame has whole times alone), ``seconds_100`` of a
        clip of 100 frames, and ``peak_mib``, the most memory that PyTorch had allocated.
    """
    with matrix_precision(work.arithmetic):
        limit = product_flops(work)
        loops = {"inversion, first frame": _first_frame(work)}
        if work.settings.inversion.steps:
            loops["inversion, later frame"] = _later_frames(work, loops["inversion, first frame"])
        tuner = work.tuner()
        loops["tuning"] = _Blocks().run(lambda on_step: tuner.run(on_step=on_step))
    return {
        "card": torch.cuda.get_device_name(),
        "precision": work.arithmetic,
        "limit": limit,
        "loops": loops,
        "seconds_100": _seconds_100(work, loops),
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
    }
