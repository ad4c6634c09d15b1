"""The second device itself: equal bits, what it refuses, what it counts, and its tape."""

from __future__ import annotations

import copy
import io
import pickle
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.second_device import WORKS_WITH, counted, recorded, require


class _Doubled(torch.autograd.Function):
    """Doubles, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 2


class _Network(nn.Module):
    """A convolution, a norm, a function with its own gradient, a recomputed layer."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.norm(self.wide(x)), 0.2)
        x = _Doubled.apply(x)  # type: ignore[no-untyped-call]  # torch leaves Function.apply unannotated
        x = nn.functional.interpolate(x, (6, 6), mode="bilinear", align_corners=False)
        return checkpoint(lambda y: self.last(y.flatten(1)), x, use_reentrant=False)


class _Training:
    """A network and its optimiser on one device, started equally everywhere."""

    def __init__(self, device: torch.device | str) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.network = _Network().to(device)
            self.pictures = torch.randn(2, 2, 4, 4).to(device)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=0.01, fused=True)
        self.rng = torch.Generator(device=device).manual_seed(9)

    def step(self) -> Tensor:
        self.adam.zero_grad()
        noise = torch.randn(2, 2, 4, 4, generator=self.rng, device=self.pictures.device)
        loss = self.network(self.pictures + 0.1 * noise).square().mean()
        loss.backward()
        self.adam.step()
        return loss.detach()

    def state(self) -> list[Tensor]:
        return [value.detach().cpu() for value in self.network.state_dict().values()]


def _equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_forward_backward_and_fused_adam_equal_the_cpus_bit_for_bit(second: torch.device) -> None:
    here, there = _Training("cpu"), _Training(second)
    for _ in range(3):
        assert torch.equal(here.step(), there.step().cpu())
    assert _equal(here.state(), there.state())
    for a, b in zip(here.network.parameters(), there.network.parameters(), strict=True):
        assert b.grad is not None
        assert b.grad.device.type == "second"
        assert a.grad is not None
        assert torch.equal(a.grad, b.grad.cpu())


@pytest.mark.parametrize(
    "meeting",
    [
        lambda x, y: x + y,
        lambda x, y: torch.cat([x, y]),
        lambda x, y: torch.stack([x[0, 0], torch.tensor(1.0)]),
        lambda x, y: y.mul_(x),
        lambda x, y: torch.tensor(2.0).add_(x[0, 0]),
        lambda x, y: nn.functional.linear(x, y),
        lambda x, y: y[torch.zeros(2, dtype=torch.long, device=x.device)],
        lambda x, y: x.index_put_((torch.zeros(2, dtype=torch.long, device=x.device),), y[:2]),
    ],
)
def test_tensors_of_both_devices_do_not_meet(
    second: torch.device, meeting: Callable[[Tensor, Tensor], Tensor]
) -> None:
    with pytest.raises(RuntimeError, match=r"on the same device|indices should be either on cpu"):
        meeting(torch.ones(3, 3, device=second), torch.ones(3, 3))


def test_a_cpu_number_may_meet_a_tensor_of_the_device(second: torch.device) -> None:
    with counted() as waits:
        made = torch.ones(3, device=second) * torch.tensor(2.0)
    assert made.cpu().tolist() == [2, 2, 2]
    assert waits.copies == []


def test_cpu_indices_are_taken_and_counted_as_copies(second: torch.device) -> None:
    x = torch.arange(4.0).to(second)
    with counted() as waits:
        assert x[torch.tensor([3, 1])].device == second
        assert x[[0, 2]].device == second
    assert len(waits.copies) == 2


@pytest.mark.parametrize("take", [lambda x: x.numpy(), np.asarray, torch.from_dlpack, np.from_dlpack])
def test_numpy_and_dlpack_are_refused(second: torch.device, take: Callable[[Tensor], object]) -> None:
    with pytest.raises((TypeError, BufferError), match="second"):
        take(torch.ones(2, device=second))


_DRAWS: list[Callable[[torch.Generator, Any], Tensor]] = [
    lambda rng, device: torch.randn(5, generator=rng, device=device),
    lambda rng, device: torch.rand(5, generator=rng, device=device),
    lambda rng, device: torch.randint(0, 9, (5,), generator=rng, device=device),
    lambda rng, device: torch.randperm(5, generator=rng, device=device),
    lambda rng, device: torch.empty(5, device=device).uniform_(1, 2, generator=rng),
    lambda rng, device: torch.bernoulli(torch.full((5,), 0.5, device=device), generator=rng),
    lambda rng, device: torch.multinomial(torch.ones(5, device=device), 3, generator=rng),
    lambda rng, device: torch.normal(torch.zeros(5, device=device), 1.0, generator=rng),
]


@pytest.mark.parametrize("draw", _DRAWS)
def test_draws_equal_the_cpus_of_the_same_seed_and_want_a_generator_of_their_device(
    second: torch.device, draw: Callable[[torch.Generator, Any], Tensor]
) -> None:
    here, there = (torch.Generator(device=device).manual_seed(3) for device in ("cpu", second))
    assert torch.equal(draw(here, "cpu"), draw(there, second).cpu())
    with pytest.raises(RuntimeError, match="Expected a 'second' device type"):
        draw(here, second)
    with pytest.raises(RuntimeError, match="Expected a 'cpu' device type"):
        draw(there, "cpu")


def test_generators_keep_their_interface(second: torch.device) -> None:
    rng = torch.Generator(device="second").manual_seed(1)
    assert isinstance(rng, torch.Generator)
    assert isinstance(torch.Generator(), torch.Generator)
    assert (rng.device, torch.Generator().device) == (second, torch.device("cpu"))
    kept, clone = rng.get_state(), rng.clone_state()
    first = torch.randn(3, generator=rng, device=second).cpu()
    assert torch.equal(torch.randn(3, generator=clone, device=second).cpu(), first)
    assert torch.equal(torch.randn(3, generator=rng.set_state(kept), device=second).cpu(), first)
    assert rng.initial_seed() == 1

    def annotated(rng: torch.Generator | None = None) -> None: ...

    assert "Generator" in str(annotated.__annotations__)


_WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool(x[0] > 0),
    "equal": lambda x: torch.equal(x, x),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 1),
    "masked_select": lambda x: x.masked_select(x > 1),
    "mask": lambda x: x[x > 1],
    "mask put": lambda x: x.clone().index_put_((x > 2,), x[:1]),
    "unique": lambda x: torch.unique(x),
    "repeats": lambda x: torch.repeat_interleave(x, x.long()),
    "inverse": lambda x: torch.linalg.inv(x.diag() + torch.ones_like(x.diag())),
}


@pytest.mark.parametrize("name", _WAITS)
def test_what_the_host_waits_for_is_a_read(second: torch.device, name: str) -> None:
    x = torch.arange(1.0, 4.0).to(second)
    with counted() as waits:
        _WAITS[name](x)
    assert len(waits.reads) == 1, str(waits)
    assert re.search(r"^tests/second_device/test_second_device.py:\d+ in <lambda>$", waits.reads[0].place)
    assert waits.copies == []


def test_what_has_a_known_shape_is_no_read(second: torch.device) -> None:
    x = torch.arange(1.0, 4.0).to(second)
    with counted() as waits:
        x[x > 2] = 0.0
        torch.repeat_interleave(x, x.long(), output_size=3)
        torch.where(x > 0, x, 0.0)
        x[1:].sum().sqrt()
    assert str(waits) == "no copies and no reads"


def test_copies_are_counted_with_their_places_in_every_thread(second: torch.device) -> None:
    x = torch.ones(3, device=second)

    def work() -> None:
        torch.ones(2).to(second)
        torch.tensor([1.0, 2.0], device=second)
        x.cpu()
        x.tolist()
        x.copy_(torch.zeros(3))

    with counted() as waits:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(waits.copies) == 5, str(waits)
    assert all("in work" in wait.place for wait in waits.copies)


def test_a_replayed_tape_takes_the_steps_that_plain_ones_take(second: torch.device) -> None:
    plain, taped = _Training("cpu"), _Training(second)
    losses = [plain.step() for _ in range(5)]
    taped.step()
    with recorded() as first:
        taped.step()
    with recorded() as tape:
        loss = taped.step()
    assert tape.signature == first.signature
    assert tape.inputs == first.inputs
    for expected in losses[3:]:
        tape.replay()
        assert torch.equal(loss.cpu(), expected)
    assert _equal(plain.state(), taped.state())


def test_steps_that_differ_have_other_signatures_or_inputs(second: torch.device) -> None:
    x, y = torch.ones(3, device=second), torch.ones(3, device=second)

    def tape(step: Callable[[], object]) -> tuple[object, object]:
        with recorded() as made:
            step()
        return made.signature, made.inputs

    assert tape(lambda: x * 2) == tape(lambda: x * 2)
    assert tape(lambda: x * 2)[0] != tape(lambda: x * 3)[0]
    assert tape(lambda: x * torch.tensor(2.0))[0] != tape(lambda: x * torch.tensor(3.0))[0]
    assert tape(lambda: x[:2] * 2)[0] != tape(lambda: x[1:] * 2)[0]
    assert tape(lambda: x * 2)[1] != tape(lambda: y * 2)[1]


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.cpu(),
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: x[[0, 1]],
    ],
)
def test_recording_refuses_what_capture_refuses(
    second: torch.device, wait: Callable[[Tensor], object]
) -> None:
    x = torch.ones(3, device=second)
    with pytest.raises(RuntimeError, match=r"forbids .*test_second_device\.py:\d+"), recorded():
        wait(x)


def test_modules_are_copied_moved_and_cast(second: torch.device) -> None:
    network = _Training(second).network
    twin = copy.deepcopy(network)
    assert isinstance(twin.last.weight, nn.Parameter)
    with torch.no_grad():
        twin.last.weight.zero_()
    assert network.last.weight.abs().sum().item() > 0
    wide = network.last.weight.detach().cpu()
    assert torch.equal(network.to(torch.bfloat16).last.weight.detach().cpu(), wide.bfloat16())
    assert network.to("cpu").last.weight.device.type == "cpu"


def test_states_are_saved_and_loaded_on_either_device(second: torch.device, tmp_path: Path) -> None:
    training, other = _Training(second), _Training(second)
    training.step()
    buffer = io.BytesIO()
    torch.save({"network": training.network.state_dict(), "adam": training.adam.state_dict()}, buffer)
    buffer.seek(0)
    state = torch.load(buffer, map_location="cpu", weights_only=True)
    assert {value.device.type for value in state["network"].values()} == {"cpu"}
    other.network.load_state_dict(state["network"])
    other.adam.load_state_dict(state["adam"])
    assert {value["exp_avg"].device.type for value in other.adam.state_dict()["state"].values()} == {"second"}
    assert _equal(training.state(), other.state())
    buffer.seek(0)
    assert torch.load(buffer)["network"]["last.bias"].device == second

    save_file({name: value.cpu() for name, value in training.network.state_dict().items()}, tmp_path / "a")
    other.network.load_state_dict(load_file(tmp_path / "a"))
    assert pickle.loads(pickle.dumps(training.network.last.weight)).device == second


def test_shapes_change_in_place_and_where_results_are_asked_for(second: torch.device) -> None:
    x, empty = torch.ones(2, 3, device=second), torch.empty(0, device=second)
    assert x.t_().shape == (3, 2)
    assert torch.add(x, x, out=empty).shape == (3, 2)
    assert torch.equal(torch.eye(3, device=second).cpu(), torch.eye(3))
    assert empty.sum().item() == 12


def test_other_releases_skip_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.11.0+cpu")
    with pytest.raises(
        pytest.skip.Exception, match=r"not tried with PyTorch 2\.11\.0\+cpu: it works with 2\.13"
    ):
        require()
    assert WORKS_WITH == ("2.13",)
