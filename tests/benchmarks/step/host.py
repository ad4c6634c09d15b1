"""What the host itself has to do for a step: preparing frames, and on a CPU the step too."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from statistics import mean
from typing import Any
from unittest.mock import patch

import cv2

from portrait_core.inversion import loop
from portrait_core.inversion.clip_data import ClipData
from portrait_core.inversion.geometry import HeadGeometry
from portrait_core.inversion.reconstruction import Reconstruction
from tests.benchmarks.step.workloads import Enough, Workload, until

_FRAMES = 10
"""Frames whose preparation in inversion is measured."""
_ON_DEVICE = (
    (Reconstruction, "wanted", "Φ"),
    (HeadGeometry, "frame_rows", "head"),
    (HeadGeometry, "view", "head"),
)
"""Preparation that a card computes, where there is one: class, function, column."""


class _Clock:
    """CPU seconds of this process by column; what a card would compute is told apart from the host's own."""

    def __init__(self) -> None:
        self.spent = defaultdict[str, float](float)

    def within(self, column: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Give the same function, whose time is of ``column``."""

        @wraps(call)
        def timing(*args: Any, **kwargs: Any) -> Any:
            begin = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.spent[column] += time.process_time() - begin

        return timing

    @contextmanager
    def running(self) -> Iterator[dict[str, float]]:
        """Measure until the block ends; the result then holds ``own`` too."""
        self.spent.clear()
        with ExitStack() as stack:
            for owner, name, column in _ON_DEVICE:
                stack.enter_context(patch.object(owner, name, self.within(column, getattr(owner, name))))
            begin = time.process_time()
            yield self.spent
            self.spent["own"] = time.process_time() - begin - self.spent["Φ"] - self.spent["head"]


def _row(work: Workload, what: str, spent: dict[str, float], steps: int, note: str) -> dict[str, Any]:
    parts = {name: 1e3 * spent[name] / steps for name in ("own", "Φ", "head")}
    return {"profile": work.profile, "what": what, "note": note, **parts}


def tuning_preparation(work: Workload) -> list[dict[str, Any]]:
    """Measure the preparation of a tuning's blocks, in milliseconds per step: at a clip's first block, which
    loads frames, and at the first block that loads none (or the last one). The steps themselves are passed
    over."""
    cv2.setNumThreads(1)
    for frame in range(work.frames):
        work.tuning_target(frame)  # reads the masks from the store, which is not measured
    tuner, blocks, loads = work.tuner(), list[tuple[range, int, dict[str, float]]](), Counter[str]()
    make, load = loop.AdamLoop.__post_init__, ClipData.target

    def made(self: Any) -> None:
        make(self)
        prepare, clock = self.prepare, _Clock()

        def prepared(steps: range) -> None:
            loads.clear()
            with clock.running() as spent:
                prepare(steps)
            blocks.append((steps, loads["frames"], spent.copy()))

        self.prepare = prepared

    def loading(*args: Any, **kwargs: Any) -> Any:
        loads["frames"] += 1
        return load(*args, **kwargs)

    def on_step(done: int, loss: float | None) -> None:
        if blocks[-1][1] == 0:
            raise Enough

    with (
        patch.object(loop.AdamLoop, "__post_init__", made),
        patch.object(ClipData, "target", loading),
        patch.object(loop._Steps, "__call__", lambda self, step: None),
        suppress(Enough),
    ):
        tuner.run(on_step=on_step)
    rows = []
    for name, (steps, loaded, spent) in (("first", blocks[0]), ("later", blocks[-1])):
        note = f"{loaded} of {work.frames} frames loaded for {len(steps)} steps"
        rows.append(_row(work, f"tuning: {name} pass", spent, len(steps), note))
    return rows


def inversion_preparation(work: Workload) -> list[dict[str, Any]]:
    """Measure what a frame's inversion does beside its steps, in milliseconds per step of the frame."""
    cv2.setNumThreads(1)
    for frame in range(_FRAMES):
        work.inversion_target(frame)
    steps = work.settings.inversion.steps or work.settings.inversion.first_steps
    inverter, clock = work.inverter(steps=0), _Clock()
    inverter.next(inverter.mean, work.inversion_target(0), 0)
    with clock.running() as spent:
        for frame in range(_FRAMES):
            inverter.next(inverter.mean, work.inversion_target(frame), frame)
    which = "a frame" if work.settings.inversion.steps else "the first frame"
    note = f"{which}'s preparation over its {steps} steps"
    return [_row(work, "inversion", spent, steps * _FRAMES, note)]


def cpu_seconds(work: Workload, measured: int) -> list[dict[str, Any]]:
    """Measure CPU seconds per step of both loops on this CPU: means over ``measured`` steps, whose number
    should be even, because two kinds of steps alternate."""
    inverter = work.inverter()
    target, start = work.inversion_target(0), work.start(inverter)
    rows = [_seconds(work, "inversion", lambda stop: inverter.first(target, start, on_step=stop), measured)]
    tuner = work.tuner()
    return [*rows, _seconds(work, "tuning", lambda stop: tuner.run(on_step=stop), measured)]


def _seconds(work: Workload, what: str, run: Callable[[Any], object], measured: int) -> dict[str, Any]:
    found, take = list[float](), loop._Steps.__call__

    def timing(self: Any, step: int) -> None:
        begin = time.process_time()
        take(self, step)
        found.append(time.process_time() - begin)

    with patch.object(loop._Steps, "__call__", timing), suppress(Enough):
        run(until(measured + 1))
    return {"profile": work.profile, "what": what, "cpu_s": mean(found[1:]), "steps": len(found) - 1}
