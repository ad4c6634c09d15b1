"""Registering the second device with PyTorch, once per process."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch.utils import backend_registration

from tests.second_device import generators, tape
from tests.second_device.tensor import NAME, SecondTensor, copy_between

WORKS_WITH = ("2.13",)
"""Releases of PyTorch, major and minor, with which the device was tried."""


class _Module:
    """What ``torch.second`` is: the functions that PyTorch asks of a device's module."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def synchronize(self, device: object = None) -> None:
        """Return at once: arithmetic is done when an operation returns."""

    def manual_seed_all(self, seed: int) -> None:
        """Do nothing: draws without a generator take the CPU's, which is seeded by whoever calls this."""

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def _is_in_bad_fork(self) -> bool:
        return False

    class device:  # noqa: N801 - PyTorch asks for this name
        """A block in which the device is the current one, as it always is."""

        def __init__(self, index: object) -> None:
            self.index = index

        def __enter__(self) -> None:
            """Change nothing."""

        def __exit__(self, *_: object) -> None:
            """Change nothing."""


def register_early() -> None:
    """Register the device, where this PyTorch can have it, before anything in the process differentiates.

    PyTorch starts a thread for every device at the first backward pass of a process, and a device that comes
    later has none. That thread takes over the number of threads that is set when it starts: one, so that a
    backward pass on the device rounds as one on the CPU with one thread.
    """
    if _release() not in WORKS_WITH:
        return
    _register()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.ones(1, device=torch.device(NAME)).requires_grad_().sum().backward()
    torch.set_num_threads(before)


def _release() -> str:
    return ".".join(torch.__version__.split(".")[:2])


def require() -> torch.device:
    """The second device, registered in this process.

    Skips the test, with the reason, where PyTorch's release is not one of :data:`WORKS_WITH`.
    """
    if _release() not in WORKS_WITH:
        pytest.skip(
            f"The second device is not tried with PyTorch {torch.__version__}: it works with "
            f"{' and '.join(WORKS_WITH)}, whose interface for devices written in Python is experimental."
        )
    _register()
    return torch.device(NAME, 0)


@cache
def _register() -> torch.library.Library:
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty.memory_format", _empty, "PrivateUse1")
    library.impl("empty_strided", _empty_strided, "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    generators.register(library)
    return library


def _empty(
    size: list[int], *, dtype: torch.dtype | None = None, memory_format: Any = None, **_: object
) -> torch.Tensor:
    made = torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format)
    tape.note_empty(made)
    return SecondTensor(made)


def _empty_strided(
    size: list[int], stride: list[int], *, dtype: torch.dtype | None = None, **_: object
) -> torch.Tensor:
    made = torch.empty_strided(size, stride, dtype=dtype)
    tape.note_empty(made)
    return SecondTensor(made)


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """Copy where PyTorch does not ask the tensor's class, as for indices given as lists."""
    if isinstance(source, SecondTensor) and isinstance(target, SecondTensor):
        target.data_here.copy_(source.data_here)
        tape.note(
            torch.ops.aten.copy_.default, (target.data_here, source.data_here), {}, target.data_here, _plainly
        )
        return target
    return copy_between(source, target)


def _plainly(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)
