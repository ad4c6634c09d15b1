import pytest
import torch

from portrait_core import stopping
from portrait_core.inversion.loop import AdamLoop, ParameterGroup, ramp
from tests.portrait_core import tiny


def build(checkpoint=None, steps=20):
    rng = torch.Generator().manual_seed(3)
    x = torch.zeros(4, requires_grad=True)
    loop = AdamLoop([ParameterGroup({"x": x})], steps, lambda s: 0.1, rng, checkpoint, every=5)
    return x, loop, lambda step: ((x - torch.randn(4, generator=rng)) ** 2).sum()


def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one():
    x, loop, objective = build()
    losses = loop.run(objective)

    memory = tiny.Memory()
    _, stopped, objective = build(memory)

    def until_eight(step):
        if step == 8:
            raise KeyboardInterrupt
        return objective(step)

    with pytest.raises(KeyboardInterrupt):
        stopped.run(until_eight)
    again, resumed, objective = build(memory)
    assert len(resumed.losses) == 5  # the last checkpoint before the interruption
    assert resumed.run(objective) == losses
    assert torch.equal(again, x)


def test_a_loss_that_is_not_finite_stops_the_loop():
    x, loop, _ = build()
    with pytest.raises(FloatingPointError, match="step 0"):
        loop.run(lambda step: (x * float("nan")).sum())


def test_a_finished_loop_does_nothing():
    memory = tiny.Memory()
    _, loop, objective = build(memory, steps=0)
    assert loop.run(objective) == []
    assert memory.data is None


def test_the_rate_rises_holds_and_falls():
    factors = [ramp(step, 100, warmup=5, decay_fraction=0.4) for step in range(100)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[30] == 1.0
    assert factors[60] == pytest.approx(1.0)
    assert factors[80] == pytest.approx(0.5)
    assert 0 < factors[99] < 0.05


def test_a_loop_that_is_asked_to_stop_keeps_its_last_step_and_goes_on_to_the_same_result():
    x, loop, objective = build()
    losses = loop.run(objective)
    memory = tiny.Memory()
    _, stopped, objective = build(memory)

    def until_seven(step):
        if step == 6:
            stopping.request()
        return objective(step)

    try:
        with pytest.raises(stopping.StopRequested):
            stopped.run(until_seven)
    finally:
        stopping.clear()
    again, resumed, objective = build(memory)
    assert len(resumed.losses) == 7  # not only the step of the last regular checkpoint
    assert resumed.run(objective) == losses
    assert torch.equal(again, x)
