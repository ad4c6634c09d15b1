"""What a step asks of a device, counted on the second device (``tests/second_device``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from portrait_core.generators import TriPlaneGenerator
from portrait_core.inversion import loop
from portrait_core.inversion.adam import FusedAdam
from tests.benchmarks.step.workloads import Enough, Workload, until
from tests.second_device import counted, described
from tests.second_device.kernels import KernelMode

REST = "the rest"
PARTS = ("planes", "rays", "super-resolution", "Φ", REST, "backward", "Adam")
"""What a step is split into. The rest: latents, patches, masks, terms of the loss."""


@dataclass
class StepCount:
    """What one step did, by part of :data:`PARTS`.

    Attributes:
        kernels: operations on the device that are no views.
        flop: floating-point operations of convolutions and products.
        copies, reads: what made the host wait or moved data, with the places in the code.
        signature: a number that two steps share if they could be one captured graph.
    """

    kernels: Counter[str] = field(default_factory=Counter)
    flop: Counter[str] = field(default_factory=Counter)
    copies: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    signature: int = 0


class _Meter:
    """The step that is being counted, and the part of it that is at work.

    Backward passes run in a thread of their own while the one that asked for them waits, so that one part is
    at work at any time.
    """

    def __init__(self) -> None:
        self.count, self.part = StepCount(), REST
        self._flop, self._known = FlopCounterMode(display=False), 0

    @contextmanager
    def step(self) -> Iterator[StepCount]:
        """Count until the block ends."""
        self.count, self.part = StepCount(), REST
        with KernelMode(self._started), FlopCounterMode(display=False) as flop:
            self._flop, self._known = flop, 0
            yield self.count
            self._settle()

    def _started(self) -> None:
        self.count.kernels[self.part] += 1

    def _settle(self) -> None:
        total = self._flop.get_total_flops()
        self.count.flop[self.part] += total - self._known
        self._known = total

    def within(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Give the same function, during which ``part`` is at work; in a backward pass nothing changes."""

        @wraps(call)
        def counting(*args: Any, **kwargs: Any) -> Any:
            before = self.part
            self._settle()
            self.part = part if before != "backward" else before
            try:
                return call(*args, **kwargs)
            finally:
                self._settle()
                self.part = before

        return counting


def _places(phi: nn.Module) -> list[tuple[type, str, str]]:
    """Where each part is called: class, function, part."""
    return [
        (TriPlaneGenerator, "planes", "planes"),
        (TriPlaneGenerator, "render_rays", "rays"),
        (TriPlaneGenerator, "superresolve", "super-resolution"),
        (type(phi), "forward", "Φ"),
        (Tensor, "backward", "backward"),
        (FusedAdam, "step", "Adam"),
    ]


def count_steps(run: Callable[[], object], phi: nn.Module) -> dict[Hashable, list[StepCount]]:
    """Count all steps but the first of a loop that ``run`` starts, by what the loop calls their variants.

    The first step makes Adam's moments, which no later one does. It is taken with an objective that is 0: a
    step of the published size takes half a minute here. ``phi`` is the feature network that the loop uses.
    """
    meter, found, take, step_once = _Meter(), dict[Hashable, list[StepCount]](), *_originals()

    def counting(self: Any, step: int) -> None:
        adam = self._loop
        if step == self.first:
            adam.set_rate(step)
            step_once(adam, lambda _: sum(((p * 0).sum() for p in adam._named.values()), adam.at * 0), step)
            return
        with counted() as waits, meter.step() as count:
            take(self, step)
        count.copies, count.reads = ([str(w) for w in kind] for kind in (waits.copies, waits.reads))
        found.setdefault(adam.variant(step), []).append(count)

    def describing(self: Any, objective: Any, step: int) -> None:
        with described() as description:
            step_once(self, objective, step)
        meter.count.signature = hash(description.signature)

    with ExitStack() as stack:
        for owner, name, part in _places(phi):
            stack.enter_context(patch.object(owner, name, meter.within(part, getattr(owner, name))))
        stack.enter_context(patch.object(loop._Steps, "__call__", counting))
        stack.enter_context(patch.object(loop.AdamLoop, "step", describing))
        with suppress(Enough):
            run()
    return found


def _originals() -> tuple[Callable[..., Any], Callable[..., Any]]:
    return loop._Steps.__call__, loop.AdamLoop.step


def summary(profile: str, what: str, counts: list[StepCount]) -> dict[str, Any]:
    """Put counted steps of one variant into a row that JSON can hold."""
    first = counts[0]
    waits = [f"copy: {w}" for c in counts for w in c.copies] + [f"read: {w}" for c in counts for w in c.reads]
    same = len({count.signature for count in counts}) == 1
    return {
        "profile": profile,
        "what": what,
        "kernels": {part: first.kernels[part] for part in PARTS},
        "gflop": {part: first.flop[part] / 1e9 for part in PARTS},
        "copies": sum(len(c.copies) for c in counts) / len(counts),
        "reads": sum(len(c.reads) for c in counts) / len(counts),
        "waits": list(dict.fromkeys(waits)),
        "capturable": (same and not waits) if len(counts) > 1 else None,
        "steps": len(counts),
    }


def inversion_counts(work: Workload) -> list[dict[str, Any]]:
    """Count steps of a clip's first frame, and of a later one where those have steps."""
    inverter = work.inverter()
    target, start = work.inversion_target(0), work.start(inverter)
    wandering = not inverter.middle.is_whole
    names: dict[Any, str] = {0: "first frame, patch anywhere", 1: "first frame, middle"} if wandering else {}
    # the first makes Adam's moments; two steps of each kind are compared; of a whole image that is done at
    # a later frame, since they take long
    steps = 5 if wandering else 2
    found = count_steps(lambda: inverter.first(target, start, on_step=until(steps)), inverter.phi)
    rows = [
        summary(work.profile, f"inversion: {names.get(kind, 'first frame')}", each)
        for kind, each in sorted(found.items(), key=lambda item: bool(item[0]))
    ]
    if work.settings.inversion.steps:
        later = work.inverter(steps=3)
        found = count_steps(lambda: later.next(later.mean, work.inversion_target(1), 1), later.phi)
        rows += [summary(work.profile, "inversion: later frame", each) for each in found.values()]
    return rows


def tuning_counts(work: Workload) -> list[dict[str, Any]]:
    """Count steps of a clip's tuning."""
    tuner = work.tuner()
    found = count_steps(lambda: tuner.run(on_step=until(3)), tuner.phi)
    return [summary(work.profile, "tuning", each) for each in found.values()]
