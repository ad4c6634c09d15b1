"""TF32 on a machine without tensor cores: the factors of products are rounded, and everything else stays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_DROPPED = 23 - 10
"""Bits of a float32's mantissa that TF32 has no room for."""

aten = torch.ops.aten
# places of the two factors among the arguments; a convolution's backward pass has three
_FACTORS: dict[Any, tuple[int, ...]] = {
    aten.mm: (0, 1),
    aten.bmm: (0, 1),
    aten.addmm: (1, 2),
    aten.baddbmm: (1, 2),
    aten.convolution: (0, 1),
    aten._convolution: (0, 1),
    aten.convolution_backward: (0, 1, 2),
}


def rounded(x: Tensor) -> Tensor:
    """Round float32 to 10 bits of mantissa, to nearest and ties to even; other dtypes stay."""
    if x.dtype != torch.float32:
        return x
    bits = x.view(torch.int32)
    odd = (bits >> _DROPPED) & 1
    return ((bits + (2 ** (_DROPPED - 1) - 1) + odd) & -(2**_DROPPED)).view(torch.float32)


class _RoundFactors(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        places = _FACTORS.get(func.overloadpacket, ())
        args = tuple(rounded(arg) if i in places else arg for i, arg in enumerate(args))
        return func(*args, **(kwargs or {}))


@contextmanager
def emulated() -> Iterator[None]:
    """Round the factors of every matrix product and convolution, forward and backward, on the path that our
    generator takes on other devices than a CPU."""
    with (
        patch("portrait_core.generators.cpu.suits", lambda *_: False),
        _RoundFactors(),  # type: ignore[no-untyped-call]  # torch leaves the constructor unannotated
    ):
        yield
