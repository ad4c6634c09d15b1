import io
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from portrait_core.inversion.loop import READ_EVERY, AdamLoop, Checkpoint, ParameterGroup, ramp
from portrait_core.runtime import cancellation
from tests.portrait_core import tiny


def build(
    checkpoint: Checkpoint | None = None, steps: int = 20, checkpoint_s: float = 0.0, **more: Any
) -> tuple[torch.Tensor, AdamLoop, Callable[[int], torch.Tensor]]:
    rng = torch.Generator().manual_seed(3)
    x = torch.zeros(4, requires_grad=True)
    loop = AdamLoop([ParameterGroup({"x": x})], steps, lambda s: 0.1, rng, checkpoint, checkpoint_s, **more)
    return x, loop, lambda step: ((x - torch.randn(4, generator=rng)) ** 2).sum()


def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one() -> None:
    x, loop, objective = build()
    losses = loop.run(objective)

    memory = tiny.Memory()
    _, stopped, objective = build(memory)

    def until_eight(step: int) -> torch.Tensor:
        if step == 8:
            raise KeyboardInterrupt
        return objective(step)

    with pytest.raises(KeyboardInterrupt):
        stopped.run(until_eight)
    again, resumed, objective = build(memory)
    assert len(resumed.losses) == 8  # a checkpoint is due after every step
    assert resumed.run(objective) == losses
    assert torch.equal(again, x)


def test_a_loss_that_is_not_finite_is_named_at_the_end_of_its_block() -> None:
    x, loop, _ = build(steps=3 * READ_EVERY)
    taken = []

    def objective(step: int) -> torch.Tensor:
        taken.append(step)
        return (x * (float("nan") if step == READ_EVERY + 3 else 1.0)).sum()

    with pytest.raises(FloatingPointError, match=f"step {READ_EVERY + 3}"):
        loop.run(objective)
    assert taken[-1] == 2 * READ_EVERY - 1


def test_a_state_that_has_diverged_is_not_kept() -> None:
    memory = tiny.Memory()
    _, loop, objective = build(memory)

    with pytest.raises(FloatingPointError, match="step 6"):
        loop.run(lambda step: objective(step) * (float("nan") if step == 6 else 1.0))
    assert len(build(memory)[1].losses) == 6


def test_checkpoints_are_due_by_time() -> None:
    memory = tiny.Memory()
    _, loop, objective = build(memory, checkpoint_s=3600.0)
    loop.run(objective)
    assert memory.data is None


def test_a_thread_writes_the_checkpoint_while_steps_go_on() -> None:
    going, written = threading.Event(), list[str]()

    class Slow(tiny.Memory):
        def write(self, data: bytes) -> None:
            if not written:
                assert going.wait(60), "no step was taken while this was written"
            written.append(threading.current_thread().name)
            super().write(data)

    memory = Slow()
    _, loop, objective = build(memory, steps=4)
    steps = []

    def noted(step: int) -> torch.Tensor:
        steps.append(step)
        if step == 1:  # the write of the state after step 0 waits for this
            going.set()
        return objective(step)

    loop.run(noted)
    assert len(written) == 3
    assert not any("MainThread" in name for name in written)
    assert len(build(memory, steps=4)[1].losses) == 3


def test_a_checkpoint_that_cannot_be_written_fails_the_loop() -> None:
    class Full(tiny.Memory):
        def write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    _, loop, objective = build(Full(), steps=5)
    with pytest.raises(OSError, match="No space left"):
        loop.run(objective)


def test_a_loop_that_is_finished_is_not_lost_to_its_last_checkpoint() -> None:
    class Away(tiny.Memory):
        def write(self, data: bytes) -> None:
            super().write(data)
            if len(build(self, steps=5)[1].losses) == 4:
                raise OSError("the store is away for a moment")

    _, loop, objective = build(Away(), steps=5)
    assert len(loop.run(objective)) == 5


def test_blocks_are_prepared_before_their_first_step_and_again_after_a_resumption() -> None:
    said = []

    def prepared(memory: tiny.Memory) -> tuple[AdamLoop, Callable[[int], torch.Tensor]]:
        _, loop, objective = build(memory, steps=2 * READ_EVERY + 5, prepare=lambda steps: said.append(steps))
        return loop, objective

    memory = tiny.Memory()
    loop, objective = prepared(memory)

    def until_sixty(step: int) -> torch.Tensor:
        if step == 60:
            raise KeyboardInterrupt
        return objective(step)

    with pytest.raises(KeyboardInterrupt):
        loop.run(until_sixty)
    assert said == [range(50), range(50, 100)]
    loop, objective = prepared(memory)
    loop.run(objective)
    assert said[2:] == [range(60, 100), range(100, 105)]


def test_a_finished_loop_does_nothing() -> None:
    memory = tiny.Memory()
    _, loop, objective = build(memory, steps=0)
    assert loop.run(objective) == []
    assert memory.data is None


def test_the_rate_rises_holds_and_falls() -> None:
    factors = [ramp(step, 100, warmup=5, decay_fraction=0.4) for step in range(100)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[30] == 1.0
    assert factors[60] == pytest.approx(1.0)
    assert factors[80] == pytest.approx(0.5)
    assert 0 < factors[99] < 0.05
    assert ramp(80, 100, 0, 0.4, "cosine") == pytest.approx(0.5)
    assert ramp(70, 100, 0, 0.4, "cosine") > ramp(70, 100, 0, 0.4)
    assert ramp(5, 100, 0, 0.0) == 1.0


def test_a_loop_that_is_asked_to_stop_keeps_its_last_step_and_goes_on_to_the_same_result() -> None:
    x, loop, objective = build()
    losses = loop.run(objective)
    memory = tiny.Memory()
    _, stopped, objective = build(memory, checkpoint_s=3600.0)

    def until_seven(step: int) -> torch.Tensor:
        if step == 6:
            cancellation.request()
        return objective(step)

    try:
        with pytest.raises(cancellation.StopRequested):
            stopped.run(until_seven)
    finally:
        cancellation.clear()
    again, resumed, objective = build(memory)
    assert len(resumed.losses) == 7  # not only the step of the last regular checkpoint
    assert resumed.run(objective) == losses
    assert torch.equal(again, x)


def test_a_state_of_another_kind_of_device_goes_on_with_draws_of_its_own() -> None:
    memory = tiny.Memory()
    _, loop, objective = build(memory, steps=8)
    loop.run(objective)
    assert memory.data is not None
    state = torch.load(io.BytesIO(memory.data), weights_only=True)
    state["rng"] = torch.zeros(16, dtype=torch.uint8)  # a CUDA generator's seed and offset
    buffer = io.BytesIO()
    torch.save(state, buffer)
    memory.data = buffer.getvalue()
    _, again, objective = build(memory, steps=8)
    assert again.run(objective)[:7] == loop.losses[:7]
    assert again.losses[7] != loop.losses[7]


def test_steps_are_those_of_pytorchs_adam() -> None:
    torch.manual_seed(0)
    start, targets = [torch.randn(5), torch.randn(3, 2)], [torch.randn(5), torch.randn(3, 2)]
    mine, theirs = ([value.clone().requires_grad_() for value in start] for _ in range(2))

    def loss(values: list[torch.Tensor], step: int) -> torch.Tensor:
        pairs = list(zip(values, targets, strict=True))[
            : 1 + (step > 2)
        ]  # the second has no gradient at first
        return sum(((v - t).square().sum() for v, t in pairs), torch.zeros(()))

    groups = [ParameterGroup({"a": mine[0]}), ParameterGroup({"b": mine[1]}, 3.0)]
    loop = AdamLoop(groups, 9, lambda step: 0.1 / (1 + step), torch.Generator(), betas=(0.8, 0.95))
    loop.run(lambda step: loss(mine, step))
    adam = torch.optim.Adam(
        [{"params": [theirs[0]]}, {"params": [theirs[1]]}],
        lr=torch.tensor(0.1),
        betas=(0.8, 0.95),
        fused=True,
    )
    for step in range(9):
        for group, factor in zip(adam.param_groups, (1.0, 3.0), strict=True):
            group["lr"] = torch.tensor(0.1 / (1 + step) * factor)
        adam.zero_grad()
        loss(theirs, step).backward()
        adam.step()
    assert all(map(torch.equal, mine, theirs))


def test_a_loop_does_not_bring_pytorchs_compiler_into_the_process() -> None:
    code = (
        "import sys, torch\n"
        "from portrait_core.inversion.loop import AdamLoop, ParameterGroup\n"
        "x = torch.ones(3, requires_grad=True)\n"
        "loop = AdamLoop([ParameterGroup({'x': x})], 2, lambda step: 0.1, torch.Generator())\n"
        "loop.run(lambda step: x.square().sum())\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
