"""Counting the operations of the second device that a card would start kernels for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.second_device.arguments import leaves
from tests.second_device.tensor import SecondTensor

aten = torch.ops.aten
_NO_KERNELS = {
    aten._unsafe_view,
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.new_empty,
    aten.new_empty_strided,
    aten._local_scalar_dense,
}
"""Operations that compute nothing, beside views."""


def is_kernel(func: Any) -> bool:
    """Say whether an operation computes something: it is no view, and makes no empty tensor."""
    if func.overloadpacket in _NO_KERNELS:
        return False
    returned = [r.alias_info for r in func._schema.returns]
    return not any(alias is not None and not alias.is_write for alias in returned)


class KernelMode(TorchDispatchMode):
    """Calls ``note`` for every operation on the second device that is a kernel, in backward passes too."""

    def __init__(self, note: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self._note = note

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if is_kernel(func) and any(isinstance(t, SecondTensor) for t in leaves((args, kwargs or {}, made))):
            self._note()
        return made
