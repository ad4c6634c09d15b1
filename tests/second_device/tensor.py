"""Tensors of the second device, and how operations on them run."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from tests.second_device import tape, waits
from tests.second_device.arguments import changed, leaves
from tests.second_device.generators import PLAIN, drawing_for_second, of_second

NAME = "second"
"""The device's name."""

aten = torch.ops.aten
_INDEXING = {aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_}
_TAKES_CPU_NUMBERS = {aten.index_fill, aten.index_fill_, aten.masked_fill, aten.masked_fill_, aten.where}
"""Operations, beside pointwise ones, that take a 0-dimensional CPU tensor beside tensors of a device."""


class SecondTensor(torch.Tensor):
    """A tensor of the second device.

    Attributes:
        data_here: the CPU tensor that holds its numbers, of the same shape, strides and dtype.
        is_number: whether it was made of a Python number, which the host knows without waiting.
    """

    data_here: torch.Tensor
    is_number: bool

    @staticmethod
    def __new__(cls, data_here: torch.Tensor) -> SecondTensor:
        """Wrap a CPU tensor, which is not copied."""
        made: SecondTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            data_here.size(),
            strides=data_here.stride(),
            storage_offset=data_here.storage_offset(),
            dtype=data_here.dtype,
            layout=data_here.layout,
            device=torch.device(NAME, 0),
        )
        made.data_here, made.is_number = data_here, False
        return made

    # PyTorch's stubs know neither this way to switch it off nor the signature below, which its manual gives
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as said above

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # as said above
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]  # mypy refuses PyTorch's own
        return f"second({self.data_here!r})"

    def numpy(self, *_: object, **__: object) -> NoReturn:
        """Refuse, as a tensor of CUDA does.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"can't convert {NAME}:0 device type tensor to numpy; use Tensor.cpu() to copy it to host memory"
        )

    def __array__(self, *_: object, **__: object) -> NoReturn:
        self.numpy()

    def tolist(self) -> Any:
        """The numbers as lists, by a copy to the CPU."""
        return self.detach().cpu().tolist()

    def __dlpack__(self, *_: object, **__: object) -> NoReturn:
        raise BufferError(f"a tensor of the device {NAME} has no DLPack capsule; use Tensor.cpu() first")

    def __dlpack_device__(self) -> NoReturn:
        raise BufferError(f"the device {NAME} is unknown to DLPack; use Tensor.cpu() first")

    @property
    def data(self) -> torch.Tensor:
        """The tensor outside autograd, sharing its numbers."""
        return self.detach()

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        if not isinstance(value, SecondTensor):
            raise RuntimeError(
                "the data of a tensor of the second device cannot become a tensor of another device"
            )
        with torch._C._DisableTorchDispatch():
            torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]  # a descriptor, which the stubs call a Tensor
        self.data_here = value.data_here

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        if not self.is_leaf:
            raise RuntimeError("only tensors created by the user can be deep-copied; detach this one first")
        made = self.detach().clone()
        made.requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made, requires_grad=self.requires_grad)
        memo[id(self)] = made
        if self.grad is not None:
            made.grad = self.grad.__deepcopy__(memo)
        return made

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        """Pickle as other devices without storages do, so that ``torch.load`` knows how to move it."""
        rebuild: Any = torch._utils._rebuild_device_tensor_from_cpu_tensor
        made = (rebuild, (self.detach().cpu(), self.dtype, str(self.device), self.requires_grad))
        if not isinstance(self, torch.nn.Parameter):
            return made
        return torch._utils._rebuild_parameter, (self.detach(), self.requires_grad, {})


def here(value: Any) -> Any:
    """The CPU tensors in place of those of the second device, wherever they are in ``value``."""
    return changed(value, SecondTensor, lambda t: t.data_here)


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation that has a tensor of the second device, or is asked for one.

    Raises:
        RuntimeError: for tensors of both devices, and for generators of another device.
    """
    tensors = [t for t in leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    if func is aten.copy_.default and len({type(t) is SecondTensor for t in tensors}) == 2:
        return copy_between(args[1], args[0])
    target = kwargs.get("device")
    to_cpu = target is not None and torch.device(target).type != NAME
    if not (to_cpu and func is aten._to_copy.default):
        _check_devices(func, args, tensors)
    elif target is not None and torch.device(target).type != "meta":
        waits.copied(func)
    waits.note_reads(func, args, kwargs)
    args, kwargs = _with_own_generators(func, args, kwargs, to_cpu)
    if target is not None and not to_cpu:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args, kwargs = here(args), here(kwargs)
    made = _compute(func, args, kwargs)
    if to_cpu:
        return made
    tape.note(func, args, kwargs, made, _compute, [t for t in tensors if not isinstance(t, SecondTensor)])
    return _wrapped(func, made, [t for t in tensors if isinstance(t, SecondTensor)])


def _compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with drawing_for_second():
        return func(*args, **kwargs)


def copy_between(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Copy from one device into a tensor of the other, and return that."""
    waits.copied(aten.copy_.default)
    here(target).copy_(here(source))
    return target


def _check_devices(func: Any, args: tuple[Any, ...], tensors: list[torch.Tensor]) -> None:
    strangers = [t for t in tensors if not isinstance(t, SecondTensor)]
    if not strangers:
        return
    packet = func.overloadpacket
    written = args[0] if func._schema.arguments and _is_written(func._schema.arguments[0]) else None
    numbers = torch.Tag.pointwise in func.tags or packet in _TAKES_CPU_NUMBERS
    if packet in _INDEXING and isinstance(args[0], SecondTensor):
        value = args[2] if len(args) > 2 else args[0]
        if isinstance(value, SecondTensor) or value.numel() == 1:
            for _ in range(sum(1 for t in strangers if t is not value)):
                waits.copied(func)
            return
    elif numbers and all(t.dim() == 0 for t in strangers) and not any(t is written for t in strangers):
        return
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but {func} got "
        + ", ".join(f"{t.device} {list(t.shape)}" for t in tensors)
    )


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _with_own_generators(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], to_cpu: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with the generators that the test made: an operation gets other Python objects."""

    def own(generator: Any) -> Any:
        found = of_second(generator)
        if found is None and not to_cpu:
            raise RuntimeError(
                f"Expected a '{NAME}' device type for generator but found '{generator.device.type}' ({func})"
            )
        return found or generator

    return changed(args, PLAIN, own), changed(kwargs, PLAIN, own)


def _wrapped(func: Any, made: Any, given: list[SecondTensor]) -> Any:
    """Results as tensors of the device; where an operation returns what it was given, the same object, with
    the shape that it has now."""

    def find(tensor: torch.Tensor) -> torch.Tensor:
        for t in given:
            if t.data_here is tensor:
                return t
        return SecondTensor(tensor)

    for t in given:
        if t.shape != t.data_here.shape or t.stride() != t.data_here.stride():
            t.data = SecondTensor(t.data_here)
        if _is_written(func._schema.arguments[0]) and t is given[0]:
            t.is_number = func.overloadpacket is aten.fill_ and t.dim() == 0
    return changed(made, torch.Tensor, find)
