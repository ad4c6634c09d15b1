"""Generators of the second device, and the refusal of draws with a generator of another device.

PyTorch 2.13 cannot make generators for PrivateUse1. A subclass stands in, whose numbers a CPU generator
draws: one seed gives the same bits on both devices. The name ``torch.Generator`` becomes a class that makes
either kind.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

PLAIN = torch._C.Generator
"""PyTorch's own class of generators."""

_known: weakref.WeakValueDictionary[int, SecondGenerator] = weakref.WeakValueDictionary()
"""Generators of the second device by the address of what PyTorch holds: operations get another Python
object."""
_inside = threading.local()

_DRAWS = (
    "bernoulli.out",
    "bernoulli_.Tensor",
    "bernoulli_.float",
    "binomial",
    "cauchy_",
    "exponential_",
    "geometric_",
    "log_normal_",
    "multinomial",
    "multinomial.out",
    "normal.Tensor_Tensor",
    "normal.Tensor_Tensor_out",
    "normal.Tensor_float",
    "normal.Tensor_float_out",
    "normal.float_Tensor",
    "normal.float_Tensor_out",
    "normal_",
    "poisson",
    "random_",
    "random_.from",
    "random_.to",
    "randperm.generator_out",
    "uniform_",
)
"""The CPU's operations that take a generator."""


class SecondGenerator(PLAIN):
    """A generator of the second device."""

    _cdata: int
    """Address of what PyTorch holds; its stubs leave it out."""

    def __init__(self, device: object = None) -> None:
        _known[self._cdata] = self

    def __new__(cls, device: object = None) -> SecondGenerator:
        """Make one with PyTorch's default seed; ``device`` has been looked at by whoever calls."""
        made: SecondGenerator = PLAIN.__new__(cls)
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # read-only in PyTorch too, whatever its stubs say
        """The second device."""
        return torch.device(torch._C._get_privateuse1_backend_name(), 0)

    def manual_seed(self, seed: int) -> SecondGenerator:
        """Set the seed, and return the generator."""
        super().manual_seed(seed)
        return self

    def set_state(self, state: torch.Tensor) -> SecondGenerator:
        """Set a state that ``get_state`` gave, and return the generator."""
        super().set_state(state)
        return self

    def clone_state(self) -> SecondGenerator:
        """Another generator of this device in the same state."""
        return SecondGenerator().set_state(self.get_state())

    graphsafe_get_state = clone_state

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.get_state(),)

    def __deepcopy__(self, memo: dict[int, Any]) -> SecondGenerator:
        return self.clone_state()


def _restored(state: torch.Tensor) -> SecondGenerator:
    return SecondGenerator().set_state(state)


class _MakesEither(type):
    def __call__(cls, device: torch.device | str = "cpu") -> Any:
        chosen = torch.device(device)
        is_second = chosen.type == torch._C._get_privateuse1_backend_name()
        return SecondGenerator() if is_second else PLAIN(device=chosen)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, PLAIN)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, PLAIN)


class Generator(metaclass=_MakesEither):
    """What ``torch.Generator`` names while the second device is registered."""


def address(generator: torch._C.Generator) -> int:
    """The address of what PyTorch holds of a generator."""
    return generator._cdata  # type: ignore[attr-defined]  # the stubs leave it out


def of_second(generator: object) -> SecondGenerator | None:
    """The second device's generator that ``generator`` is, or None."""
    return _known.get(address(generator)) if isinstance(generator, PLAIN) else None


@contextmanager
def drawing_for_second() -> Iterator[None]:
    """Let the CPU draw with a generator of the second device, in this thread, until the block ends."""
    before = getattr(_inside, "allowed", False)
    _inside.allowed = True
    try:
        yield
    finally:
        _inside.allowed = before


def register(library: torch.library.Library) -> None:
    """Give ``torch.Generator`` its new meaning, and make the CPU's draws refuse a generator of the second
    device."""
    torch.Generator = Generator  # type: ignore[misc, assignment]  # this is the registration
    for name in _DRAWS:
        library.impl(name, _refusing(name), "CPU", with_keyset=True, allow_override=True)


def _refusing(name: str) -> Any:
    kernel = torch.library.get_kernel(f"aten::{name}", "CPU")

    def draw(keyset: Any, *args: Any, **kwargs: Any) -> Any:
        generator = kwargs.get("generator")
        if generator is not None and of_second(generator) and not getattr(_inside, "allowed", False):
            raise RuntimeError(f"Expected a 'cpu' device type for generator but found 'second' ({name})")
        return kernel.call_boxed(keyset, *args, **kwargs)

    return draw
