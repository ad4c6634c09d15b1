"""Random numbers of the generators, drawn on the device where they are used."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(shape: tuple[int, ...], rng: torch.Generator | None, like: Tensor) -> Tensor:
    """Draw numbers in [0,1) with ``like``'s dtype on its device.

    Raises:
        ValueError: if ``rng`` belongs to another device.
    """
    _check_device(rng, like.device)
    return torch.rand(shape, generator=rng, device=like.device, dtype=like.dtype)


def normal(shape: tuple[int, ...], rng: torch.Generator | None, like: Tensor) -> Tensor:
    """Draw standard normal numbers with ``like``'s dtype on its device.

    Raises:
        ValueError: if ``rng`` belongs to another device.
    """
    _check_device(rng, like.device)
    return torch.randn(shape, generator=rng, device=like.device, dtype=like.dtype)


def _check_device(rng: torch.Generator | None, device: torch.device) -> None:
    # drawing elsewhere and copying would make the host wait for the device at every call
    if rng is None:
        return
    own = rng.device
    # a device without an index is the current one
    same_index = own.index is None or device.index is None or own.index == device.index
    if own.type != device.type or not same_index:
        raise ValueError(
            f"the random generator is on {own}, but the numbers are needed on {device}; "
            f"make it with torch.Generator(device={str(device)!r})"
        )
