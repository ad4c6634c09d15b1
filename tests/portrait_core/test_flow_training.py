"""Training of flows: what is learnt, and that a resumed training is the uninterrupted one, bit for bit."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait_core.attribute_editing.conditions import Condition, Conditions
from portrait_core.attribute_editing.settings import (
    SolverSettings,
    StyleFlowArchitecture,
    StyleFlowTrainingOptions,
)
from portrait_core.attribute_editing.styleflow import StyleFlow, standard_normal
from portrait_core.attribute_editing.styleflow_training import (
    LabelledLatents,
    StyleFlowTrainer,
    draw_noise,
    negative_log_likelihood,
    published_offset,
)
from portrait_core.errors import InputError
from portrait_core.runtime import cancellation
from tests.portrait_core import tiny

SCHEMA = Conditions(attributes=tuple(Condition(name=name, low=-3, high=3) for name in ("a", "b")))
QUICK = SolverSettings(method="rk4", steps=2)


def samples(n: int = 64, rows: int = 1) -> LabelledLatents:
    """Latents that their attributes move, bend and stretch."""
    rng = torch.Generator().manual_seed(5)
    labels, noise = torch.randn(n, 2, generator=rng), torch.randn(n, rows, 4, generator=rng)
    a, b = labels.T[:, :, None]
    w = noise * torch.exp(0.5 * b)[..., None]
    w = w + torch.stack([2 * a, -a, b, 0 * a], -1)
    w[..., 3] = w[..., 3] + 0.5 * w[..., 0] ** 2
    return LabelledLatents(w, labels)


def trainer(settings: StyleFlowTrainingOptions | None = None, **changes: Any) -> StyleFlowTrainer:
    torch.manual_seed(0)
    flow = StyleFlow(StyleFlowArchitecture(width=4, hidden=(16, 16), context=2))
    settings = settings or StyleFlowTrainingOptions(epochs=3, batch=5, solver=QUICK, checkpoint_s=0)
    learnt, held_out = samples().split(12)
    return StyleFlowTrainer(flow, SCHEMA, learnt, settings.model_copy(update=changes), held_out)


def state_of(made: StyleFlowTrainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.flow.state_dict().items()}


@pytest.mark.parametrize(
    ("stop_at", "changes"),
    [
        (3, {}),
        (14, {}),
        (25, {"noise": "rademacher", "shuffle": False, "decay_fraction": 0.5, "jitter": 0.1}),
    ],
)
def test_a_resumed_training_is_bit_equal(stop_at: int, changes: dict[str, Any]) -> None:
    whole, passes = trainer(**changes), []
    losses = whole.run(on_pass=lambda *args: passes.append(args))
    assert len(losses) == whole.steps == 3 * 10  # of 52, two sit out each pass
    memory = tiny.Memory()

    def stop(done: int, _: float | None) -> None:
        if done == stop_at:
            cancellation.request()

    try:
        with pytest.raises(cancellation.StopRequested):
            trainer(**changes).run(memory, stop)
        killed = trainer(**changes)
        cancellation.clear()
        again = []
        assert killed.run(memory, on_pass=lambda *args: again.append(args)) == losses
    finally:
        cancellation.clear()
    first, second = state_of(whole), state_of(killed)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert float(first["chain.0.step"]) == 30
    assert again == passes[-len(again) :]


def test_a_killed_training_goes_on_from_its_checkpoint() -> None:
    losses = (whole := trainer()).run()
    memory = tiny.Memory()

    def kill(done: int, _: float | None) -> None:
        if done == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer().run(memory, kill)
    resumed = trainer()
    first = []
    assert resumed.run(memory, lambda done, _: first.append(done)) == losses
    assert first[0] == 18  # the one after the last checkpoint
    assert all(torch.equal(value, state_of(resumed)[name]) for name, value in state_of(whole).items())


def test_every_sample_comes_once_a_pass_in_a_new_order() -> None:
    made = trainer(batch=4, epochs=2)
    passes = [torch.cat([made._places(step) for step in range(n * 13, n * 13 + 13)]) for n in (0, 1)]
    for places in passes:
        assert places.sort().values.tolist() == list(range(52))
    assert passes[0].tolist() != passes[1].tolist()
    plain = trainer(batch=4, epochs=2, shuffle=False)
    assert plain._places(14).tolist() == [4, 5, 6, 7]


def test_it_learns_the_density() -> None:
    made = trainer(StyleFlowTrainingOptions(epochs=30, batch=13, learning_rate=0.01, solver=QUICK))
    before, densities = made.held_out_density(), list[float | None]()
    losses = made.run(on_pass=lambda done, loss, density: densities.append(density))
    assert np.mean(losses[-20:]) < np.mean(losses[:4]) - 1
    after = made.held_out_density()
    assert after == densities[-1]
    assert after is not None
    assert before is not None
    assert after > before + 1
    assert not made.flow.training


def test_the_loss_is_the_negative_log_density() -> None:
    made = trainer()
    flow, found = made.flow.eval(), made.samples.at(torch.arange(6))
    noise = torch.randn_like(found.w)
    loss, prior, delta = negative_log_likelihood(flow, found.w, found.labels, noise)
    density = flow.log_density(found.w, found.labels, noise=noise)
    assert float(loss.detach()) == pytest.approx(-float(density.sum(1).mean().detach()), rel=1e-5)
    assert torch.allclose(prior - delta, density.sum(1), atol=1e-4)
    # the published constant: log(2 pi) / 2 times the width, for every element
    z = torch.randn(1, 3, 4)
    theirs = (-0.5 * z**2 - 0.5 * 4 * np.log(2 * np.pi)).sum()
    assert float(standard_normal(z).sum() - theirs) == pytest.approx(published_offset(4, 3), rel=1e-5)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_gradients_by_the_adjoint_are_those_through_the_solver(method: Any) -> None:
    solver = SolverSettings(method=method, steps=24, rtol=1e-8, atol=1e-8)
    made = trainer()
    with torch.no_grad():
        for parameter in made.flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    flow, found = made.flow.double().eval(), made.samples.at(torch.arange(6))
    w, labels, noise = found.w.double(), found.labels.double(), torch.randn_like(found.w.double())
    gradients = []
    for adjoint in (False, True):
        chosen = solver.model_copy(update={"adjoint": adjoint})
        loss = negative_log_likelihood(flow, w, labels, noise, chosen).loss
        gradients.append(torch.autograd.grad(loss, list(flow.parameters())))
    for one, other, (name, _) in zip(*gradients, flow.named_parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5, rtol=1e-4), name
        assert float(one.abs().max()) > 0, name


def test_statistics_follow_the_batches_and_serve_the_next() -> None:
    made = trainer()
    flow, batch = made.flow.train(), samples(20, rows=2)
    mean = flow.get_buffer("chain.0.running_mean")
    negative_log_likelihood(flow, batch.w, batch.labels, torch.randn_like(batch.w), QUICK)
    rows = batch.w.flatten(0, 1)
    assert torch.allclose(mean, 0.1 * rows.mean(0), atol=1e-6)
    assert torch.allclose(flow.get_buffer("chain.0.running_var"), 0.9 + 0.1 * rows.var(0), atol=1e-5)
    kept = mean.clone()
    flow.eval()(batch.w, batch.labels)
    flow.train()(batch.w, batch.labels, reverse=True)
    assert torch.equal(mean, kept)


def test_jitter_keeps_empty_directions_from_being_chased() -> None:
    flat = samples(64)
    flat.w[..., 3] = 0  # a plane: its density has no bound
    stretches = []
    for jitter in (0.0, 0.3):
        torch.manual_seed(0)
        flow = StyleFlow(StyleFlowArchitecture(width=4, hidden=(16, 16), context=2))
        settings = StyleFlowTrainingOptions(
            epochs=12, batch=16, learning_rate=0.02, jitter=jitter, solver=QUICK
        )
        StyleFlowTrainer(flow, SCHEMA, flat, settings).run()
        w = flat.w.repeat_interleave(2, 1)
        w[:, 1, 3] += 0.01
        z = flow(w, flat.labels)
        stretches.append(float((z[:, 1] - z[:, 0]).norm(dim=-1).mean()) / 0.01)
    assert stretches[1] < 0.8 * stretches[0]


def test_noise_has_unit_variance() -> None:
    like = torch.zeros(500, 2, 10)
    for kind in ("gaussian", "rademacher"):
        noise = draw_noise(like, kind, torch.Generator().manual_seed(0))
        assert float(noise.mean()) == pytest.approx(0, abs=0.03)
        assert float(noise.var()) == pytest.approx(1, abs=0.03)
    assert set(noise.unique().tolist()) == {-1, 1}


def test_what_cannot_be_trained_on() -> None:
    with pytest.raises(InputError, match=r"latents \[3, 4\] and labels \[3, 2\]"):
        LabelledLatents(torch.zeros(3, 4), torch.zeros(3, 2))
    with pytest.raises(InputError, match="not finite"):
        LabelledLatents(torch.full((3, 1, 4), torch.nan), torch.zeros(3, 2))
    with pytest.raises(InputError, match="cannot hold out 64 of 64"):
        samples().split(64)
    with pytest.raises(InputError, match="52 samples do not fill a batch of 53"):
        trainer(batch=53)
    with pytest.raises(InputError, match="two rows"):
        trainer(batch=1)
    with pytest.raises(InputError, match="values of b are not finite"):
        StyleFlowTrainer(
            trainer().flow,
            SCHEMA,
            LabelledLatents(torch.zeros(8, 1, 4), torch.tensor([[0, torch.inf]]).expand(8, 2)),
            StyleFlowTrainingOptions(),
        )
    with pytest.raises(InputError, match="width 4 and 2 attributes"):
        StyleFlowTrainer(
            trainer().flow,
            SCHEMA,
            LabelledLatents(torch.zeros(8, 1, 6), torch.zeros(8, 2)),
            StyleFlowTrainingOptions(),
        )
