"""Start of a clip's inversion, and its continuation from frame to frame (paper section 3.2)."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.inversion.clip_data import ClipData
from portrait_core.inversion.latent import FirstLatent, Inverter
from portrait_core.inversion.targets import FrameTarget
from portrait_core.weights.readers.npy_files import read_npz


@dataclass(frozen=True)
class Anchor:
    """The frame from which a clip's inversion starts: 0, unless its template could not be made."""

    frame: int
    latent: FirstLatent

    def to_bytes(self) -> bytes:
        """Return frame, ``ws`` and ``appearance`` as the content of an ``.npz`` file."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            frame=np.array(self.frame),
            ws=self.latent.ws.cpu().numpy(),
            appearance=self.latent.appearance,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, device: torch.device | str) -> Anchor:
        """Read what :meth:`to_bytes` gave; ``ws`` come on ``device``, without the losses."""
        stored = read_npz(data)
        ws = torch.from_numpy(stored["ws"]).to(device)
        return cls(int(stored["frame"]), FirstLatent(ws, stored["appearance"], []))


class LatentChain:
    """The last good latent before a frame: a frame that failed is passed over.

    Args:
        anchor: where the clip's inversion starts.
        chained: whether frames start from the ones before them at all.
        newest: gives the last frame before a frame that was kept, -1 where there is none.
        read: reads a kept frame's ``ws [1,rows,w]``.
        cuts: ``[T]`` whether a new scene of the driver begins with the frame; the chain begins anew there.
    """

    def __init__(
        self,
        anchor: Anchor,
        chained: bool,
        newest: Callable[[int], int],
        read: Callable[[int], Tensor],
        cuts: NDArray[np.bool_],
    ) -> None:
        self._anchor, self._chained, self._newest, self._read = anchor, chained, newest, read
        self._scenes = np.cumsum(cuts)
        self._latest: tuple[int, Tensor] | None = None

    def before(self, frame: int) -> Float[Tensor, "1 rows w"]:
        """Return where a chain goes on at ``frame``."""
        if not self._chained or frame <= self._anchor.frame:
            return self._anchor.latent.ws
        made, ws = self._latest or (-1, self._anchor.latent.ws)  # perhaps not kept yet
        last = max(made, self._newest(frame))
        if last < 0 or self._scenes[last] != self._scenes[frame]:
            return self._anchor.latent.ws
        return ws if last == made else self._read(last)

    def advance(self, frame: int, ws: Float[Tensor, "1 rows w"]) -> None:
        """Take a frame's latent for the newest one."""
        self._latest = frame, ws


def tracker_start(inverter: Inverter, clip: ClipData, frame: int) -> Float[Tensor, "1 z"] | None:
    """Return the z of the tracker's coefficients of a frame, as a start.

    It is None where the settings start from the mean latent.
    """
    if inverter.settings.init != "tracker":
        return None
    return inverter.tracker_start(clip.shape, clip.head.in_units(frame), clip.head.unit_names)


def invert_frame(
    inverter: Inverter,
    clip: ClipData,
    anchor: Anchor,
    frame: int,
    previous: Float[Tensor, "1 rows w"],
    target: FrameTarget,
) -> Float[Tensor, "1 rows w"]:
    """Find a frame's latent.

    Args:
        inverter: of the clip.
        clip: whose tracked coefficients move the latent, with ``init=tracker``.
        anchor: where the clip's inversion started.
        frame: its number.
        previous: the last good latent before it.
        target: what it shall show.
    """
    ws = _frame_start(inverter, clip, anchor, frame, previous)
    if inverter.settings.steps and frame != anchor.frame:
        ws, _ = inverter.next(ws, target, frame)
    return ws


def _frame_start(inverter: Inverter, clip: ClipData, anchor: Anchor, frame: int, previous: Tensor) -> Tensor:
    """Return a frame's first latent: moved by the tracker's coefficients, or the last good one before."""
    if frame == anchor.frame:
        return anchor.latent.ws
    z0, z = (tracker_start(inverter, clip, i) for i in (anchor.frame, frame))
    if z0 is not None and z is not None:
        return inverter.moved(anchor.latent, z0, z)
    return previous if inverter.settings.warm_start else anchor.latent.ws
