"""Targets of frames, kept on the device: within a stated memory, each frame is loaded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

SHARE_OF_DEVICE = 4
"""A device keeps at most a quarter of its memory for frames, where the settings name no limit."""
HOST_BYTES = 1 << 30
"""The same on a CPU."""


def resident_bytes(device: torch.device, limit_mib: int | None) -> int:
    """Return the bytes that a loop may keep of its frames on a device.

    They are those of the setting, else a fraction of a card's memory, or :data:`HOST_BYTES`.
    """
    if limit_mib is not None:
        return limit_mib << 20
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory) // SHARE_OF_DEVICE
    return HOST_BYTES


class ResidentFrames:
    """Rows of several arrays, by frame, in buffers on one device.

    The frames of a block of steps are admitted together, outside the steps; a step reads their rows by
    places that lie on the device. Of a clip that fits, every frame is loaded once; of a longer one, the
    frames that were not drawn for longest make room.

    Args:
        load: gives a frame's rows by name, of equal shapes and types for all frames.
        count: frames of the clip.
        limit_bytes: memory that the buffers may take.
        at_once: frames that are admitted together, at most; there is room for so many whatever the limit.
    """

    def __init__(
        self, load: Callable[[int], Mapping[str, Tensor]], count: int, limit_bytes: int, at_once: int
    ) -> None:
        self._load, self._count = load, count
        self._limit, self._least = limit_bytes, min(count, at_once)
        self._buffers: dict[str, Tensor] = {}
        self._places: OrderedDict[int, int] = OrderedDict()
        self.loads = 0
        """Frames loaded so far."""

    @property
    def names(self) -> list[str]:
        """Names of the arrays; none before the first frame is loaded."""
        return list(self._buffers)

    @property
    def capacity(self) -> int:
        """Frames that there is room for; 0 before the first frame is loaded."""
        return len(next(iter(self._buffers.values()))) if self._buffers else 0

    def admit(self, frames: Iterable[int]) -> dict[int, int]:
        """Bring frames into the buffers, and give the place of each."""
        wanted = list(dict.fromkeys(frames))
        for frame in wanted:
            if frame in self._places:
                self._places.move_to_end(frame)
        for frame in wanted:
            if frame not in self._places:
                self._take(frame)
        return {frame: self._places[frame] for frame in wanted}

    def _take(self, frame: int) -> None:
        rows = self._load(frame)
        self.loads += 1
        if not self._buffers:
            self._allocate(rows)
        place = len(self._places)
        if place == self.capacity:
            _, place = self._places.popitem(last=False)
        for name, row in rows.items():
            self._buffers[name][place].copy_(row)
        self._places[frame] = place

    def _allocate(self, rows: Mapping[str, Tensor]) -> None:
        size = sum(row.numel() * row.element_size() for row in rows.values())
        room = min(self._count, max(self._least, self._limit // max(1, size)))
        self._buffers = {
            name: torch.zeros((room, *row.shape), dtype=row.dtype, device=row.device)
            for name, row in rows.items()
        }

    def rows(self, name: str, places: Tensor) -> Tensor:
        """Return an array's rows ``[n, ...]`` at places ``[n]`` int64 on the device."""
        return self._buffers[name].index_select(0, places)
