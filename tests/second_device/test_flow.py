"""Training, editing with and reading by a flow on the second device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from portrait_core.attribute_editing.latent_edits import AttributeEdit, AttributeEditor, StyleFlowModel
from portrait_core.attribute_editing.latent_reader import LatentReader
from portrait_core.attribute_editing.settings import (
    SolverSettings,
    StyleFlowArchitecture,
    StyleFlowTrainingOptions,
)
from portrait_core.attribute_editing.styleflow import StyleFlow
from portrait_core.attribute_editing.styleflow_files import load_styleflow, save_styleflow
from portrait_core.attribute_editing.styleflow_training import StyleFlowTrainer
from tests.portrait_core import tiny
from tests.portrait_core.test_flow_training import SCHEMA, samples, state_of
from tests.second_device import Waits, counted, recorded

pytestmark = [pytest.mark.slow, pytest.mark.each_change]

_STEPS = SolverSettings(method="rk4", steps=2)


def _trainer(device: torch.device | str, **changes: object) -> StyleFlowTrainer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow = StyleFlow(StyleFlowArchitecture(width=4, hidden=(16, 16), context=2))
    settings = StyleFlowTrainingOptions(epochs=2, batch=5, solver=_STEPS, checkpoint_s=0)
    learnt, held_out = samples(37).split(12)
    return StyleFlowTrainer(flow.to(device), SCHEMA, learnt, settings.model_copy(update=changes), held_out)


def _trained(made: StyleFlowTrainer) -> tuple[list[float], list[object], dict[str, torch.Tensor]]:
    passes: list[object] = []
    losses = made.run(on_pass=lambda *said: passes.append(said))
    return losses, passes, {name: value.cpu() for name, value in state_of(made).items()}


@pytest.mark.parametrize(
    "changes",
    [{}, {"noise": "rademacher", "shuffle": False, "jitter": 0.1}, {"solver": SolverSettings(rtol=1e-3)}],
)
def test_a_training_equals_the_cpus_bit_for_bit(second: torch.device, changes: dict[str, object]) -> None:
    (losses, passes, state), (here_losses, here_passes, here) = (
        _trained(_trainer(device, **changes)) for device in (second, "cpu")
    )
    assert losses == here_losses
    assert passes == here_passes
    assert all(torch.equal(state[name], here[name]) for name in here)


def test_a_training_step_copies_and_reads_nothing(second: torch.device) -> None:
    made = _trainer(second, jitter=0.1)
    made.flow.train().requires_grad_(True)
    adam = torch.optim.Adam(made.flow.parameters(), lr=1e-3, fused=True)

    def step(number: int) -> None:
        adam.zero_grad(set_to_none=True)
        made._objective(number).backward()
        adam.step()

    step(0)  # the order of the pass is copied, and Adam makes its state
    with counted() as waits:
        for number in range(1, made.steps_per_pass):
            step(number)
    assert str(waits) == str(Waits())
    with counted() as waits:
        step(made.steps_per_pass)
    assert (len(waits.copies), len(waits.reads)) == (1, 0), str(waits)


def test_a_whole_training_reads_only_in_its_loop_and_after_a_pass(second: torch.device) -> None:
    made = _trainer(second)
    with counted() as waits:
        made.run()
    elsewhere = [str(wait) for wait in (*waits.copies, *waits.reads) if "inversion/loop.py" not in wait.place]
    # the order of each pass, and the held-out density after it
    assert len([place for place in elsewhere if "_places" in place]) == 2
    others = [place for place in elsewhere if "_places" not in place]
    assert all("held_out_density" in place or "_checked" in place for place in others), others


def test_a_training_step_is_one_tape(second: torch.device) -> None:
    made = _trainer(second)
    made.flow.train().requires_grad_(True)
    made._objective(0).backward()
    with recorded() as first:
        made._objective(1)
    with recorded() as again:
        made._objective(1)
    assert first.signature == again.signature
    assert first.inputs == again.inputs


def test_a_checkpoint_of_one_device_goes_on_on_the_other(second: torch.device) -> None:
    whole = _trained(_trainer("cpu"))
    for first, then in ((second, "cpu"), ("cpu", second)):
        memory = tiny.Memory()

        def stop(done: int, _: float | None) -> None:
            if done == 9:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            _trainer(first).run(memory, stop)
        resumed = _trainer(then)
        assert resumed.run(memory, on_pass=lambda *_: None) == whole[0]
        assert all(torch.equal(value.cpu(), whole[2][name]) for name, value in state_of(resumed).items())


@pytest.mark.parametrize("solver", [SolverSettings(), _STEPS])
def test_edits_and_readings_equal_the_cpus_and_files_are_read_by_both(
    second: torch.device, solver: SolverSettings, tmp_path: Path
) -> None:
    made = _trainer(second)
    made.run()
    learnt, held_out = samples().split(12)
    model = StyleFlowModel(made.flow, SCHEMA, LatentReader.fit(learnt, held_out))
    save_styleflow(model, tmp_path / "flow.safetensors")
    edited = []
    for device in (second, "cpu"):
        model = load_styleflow(tmp_path / "flow.safetensors", device)
        assert model.reader is not None
        w = held_out.w[:3].to(device)
        editor = AttributeEditor(model, w, model.reader.read(w), solver)
        editor.apply(AttributeEdit({"a": 1.5, "b": -0.5}, strength=0.5))
        edited.append(editor.apply(AttributeEdit({"b": 0.25})))
    assert edited[0].device == second
    assert torch.equal(edited[0].cpu(), edited[1])


def test_a_reader_is_fitted_on_the_device(second: torch.device) -> None:
    learnt, held_out = samples().split(12)
    there = [type(part)(part.w.to(second), part.labels.to(second)) for part in (learnt, held_out)]
    here, made = LatentReader.fit(learnt, held_out), LatentReader.fit(there[0], there[1])
    assert here.r2 == made.r2
    assert all(torch.equal(here.tensors()[name], value.cpu()) for name, value in made.tensors().items())


def test_samples_are_split_alike_on_both_devices(second: torch.device) -> None:
    here = samples()
    there = type(here)(here.w.to(second), here.labels.to(second))
    for one, other in zip(here.split(12), there.split(12), strict=True):
        assert torch.equal(one.w, other.w.cpu())
