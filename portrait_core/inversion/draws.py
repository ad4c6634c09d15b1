"""Frames, patches and cameras of a tuning's steps, drawn beforehand and brought to the device.

All draws depend on the seed and the step alone, so that a run that is resumed anywhere takes the same ones. A
step reads them from tensors on the device, at places that lie there too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from portrait_core.cameras import angles_from_labels, orbit_labels
from portrait_core.generators.patches import Patch, corners
from portrait_core.inversion.geometry import HeadGeometry, ViewRays
from portrait_core.inversion.loop import READ_EVERY
from portrait_core.inversion.resident import ResidentFrames
from portrait_core.settings import TuningSettings

RANDOM_YAW_RAD, RANDOM_PITCH_RAD = 0.5, 0.35
"""Random cameras lie within so much of the portrait's."""
RARE_WIDTH = 0.1
"""Width of the window that counts like latents, as a share of their mean squared distance."""
RARE_SAMPLE = 512
"""Latents that the others are compared with: enough for a density, and linear in the clip's length."""
FEATURES = "phi"
"""Name, with the layer's number behind it, of Φ's maps of a frame's target."""
_FRAMES, _PLACES, _VIEWS = range(3)
"""Uses of random numbers that have a seed of their own."""

LoadRows = Callable[[int, bool], Mapping[str, Tensor]]
"""Function from a frame's number to the rows that steps read, by name; True asks for Φ's maps too."""


@dataclass(frozen=True)
class Drawn:
    """Everything that one step works on, on the device.

    Attributes:
        frames: numbers of its frames ``[B]`` int64.
        rows: what is kept of those frames, by name ``[B, ...]``.
        features: Φ's maps of their images, where they are kept.
        patch: its patch.
        camera: a random camera near the portrait's ``[1,25]``.
        local_patch: the patch of its locality term.
        view: rays of the random camera, where the head is looked at from there.
    """

    frames: Tensor
    rows: Mapping[str, Tensor]
    features: list[Tensor] | None
    patch: Patch
    camera: Tensor
    local_patch: Patch
    view: ViewRays | None

    @property
    def first_rows(self) -> dict[str, Tensor]:
        """Rows of the first frame, which the terms of the head look at."""
        return {name: row[:1] for name, row in self.rows.items()}


class FrameOrder:
    """Draws the frames of every step.

    Every frame comes once before any comes twice, in an order that depends on the seed and the pass alone;
    but a share of the draws goes to rare expressions: a blink lasts five frames of a hundred, and is what a
    viewer misses first.

    Args:
        ws: latents of the clip ``[T,rows,w]``.
        settings: seed, batch and share.
    """

    def __init__(self, ws: Float[Tensor, "t rows w"], settings: TuningSettings) -> None:
        self._settings, self._total = settings, len(ws)
        self.batch = min(settings.batch, self._total)
        self._rarity = rarity(ws.flatten(1).cpu())

    def of(self, step: int) -> list[int]:
        """Draw the frames of a step."""
        seed, frames = self._settings.seed, []
        own = torch.Generator().manual_seed(_mixed(seed, step, _FRAMES))
        for place in range(step * self.batch, (step + 1) * self.batch):
            if float(torch.rand((), generator=own)) < self._settings.rare_share:
                frames.append(int(torch.multinomial(self._rarity, 1, generator=own)))
            else:
                order = torch.Generator().manual_seed(seed + 1 + place // self._total)
                frames.append(int(torch.randperm(self._total, generator=order)[place % self._total]))
        return frames


class TuningDraws:
    """All draws of a tuning, and the block of steps whose frames and rays are on the device.

    Args:
        ws: latents of the clip ``[T,rows,w]``.
        camera: the portrait's label ``[1,25]``.
        settings: of the tuning.
        resolution: the neural resolution.
        load: loads a frame's rows onto the device.
        geometry: the clip's head, where it is looked at.
        memory_bytes: memory that frames may take on the device.
    """

    def __init__(
        self,
        ws: Float[Tensor, "t rows w"],
        camera: Float[Tensor, "1 25"],
        settings: TuningSettings,
        resolution: int,
        load: LoadRows,
        geometry: HeadGeometry | None,
        memory_bytes: int,
    ) -> None:
        self._settings, self._resolution, self._geometry = settings, resolution, geometry
        self._device, self._order = ws.device, FrameOrder(ws, settings)
        rng = torch.Generator().manual_seed(_mixed(settings.seed, 0, _PLACES))
        kinds = (Patch.near_centre, Patch.random)  # by turns
        patches = [kinds[i % 2](settings.patch, resolution, rng) for i in range(settings.steps)]
        local = [Patch.random(settings.locality_patch, resolution, rng) for _ in range(settings.steps)]
        self._corners, self._local = (corners(drawn, self._device) for drawn in (patches, local))
        self._cameras = _random_cameras(camera, settings.steps, rng)
        self._frames = torch.zeros(READ_EVERY, self._order.batch, dtype=torch.int64, device=self._device)
        self._slots = torch.zeros_like(self._frames)
        self._views: ViewRays | None = None
        whole = settings.patch >= resolution and settings.lpips_weight > 0
        self._features = whole and _bytes(load(0, True)) * len(ws) <= memory_bytes
        """True where Φ's maps of all frames are kept. Those of a part of them would be thrown out before they
        are drawn again."""
        at_once = READ_EVERY * self._order.batch
        rows = partial(_rows, load, self._features)
        self._resident = ResidentFrames(rows, len(ws), memory_bytes, at_once)

    def prepare(self, steps: range) -> None:
        """Bring to the device what a block of steps reads."""
        drawn = {step: self._order.of(step) for step in steps}
        places = self._resident.admit(frame for frames in drawn.values() for frame in frames)
        block = slice(steps.start % READ_EVERY, steps.start % READ_EVERY + len(steps))
        self._frames[block].copy_(torch.tensor(list(drawn.values())))
        self._slots[block].copy_(torch.tensor([[places[f] for f in frames] for frames in drawn.values()]))
        if self._geometry is not None:
            self._look(self._geometry, {step: frames[0] for step, frames in drawn.items()}, places)

    def _look(self, geometry: HeadGeometry, frames: Mapping[int, int], places: Mapping[int, int]) -> None:
        """Look at the head of each step's first frame from the step's camera."""
        for step, frame in frames.items():
            place = torch.full((1,), places[frame], dtype=torch.int64, device=self._device)
            small = self._resident.rows("small", place)[0]
            seed = _mixed(self._settings.seed, step, _VIEWS)
            view = geometry.view(frame, small, self._cameras[step : step + 1], seed)
            if self._views is None:
                self._views = ViewRays(*(part.new_zeros(READ_EVERY, *part.shape) for part in view))
            for kept, part in zip(self._views, view, strict=True):
                kept[step % READ_EVERY].copy_(part)

    def at(self, step: Tensor) -> Drawn:
        """Return what the step ``[1]`` int64, which is on the device, works on."""
        place = step % READ_EVERY
        slots = self._slots.index_select(0, place)[0]
        layers = [name for name in self._resident.names if name.startswith(FEATURES)]
        rows = {
            name: self._resident.rows(name, slots)
            for name in self._resident.names
            if name not in layers and name != "small"
        }
        return Drawn(
            self._frames.index_select(0, place)[0],
            rows,
            [self._resident.rows(name, slots) for name in layers] if self._features else None,
            self._patch(self._corners, step, self._settings.patch),
            self._cameras.index_select(0, step),
            self._patch(self._local, step, self._settings.locality_patch),
            None if self._views is None else ViewRays(*(v.index_select(0, place) for v in self._views)),
        )

    def _patch(self, places: Tensor, step: Tensor, size: int) -> Patch:
        if size >= self._resolution:
            return Patch.whole(self._resolution)
        row, column = places.index_select(0, step)[0].unbind()
        return Patch(row, column, size, self._resolution)


def _rows(load: LoadRows, features: bool, frame: int) -> Mapping[str, Tensor]:
    return load(frame, features)


def _bytes(rows: Mapping[str, Tensor]) -> int:
    return sum(row.numel() * row.element_size() for row in rows.values())


def _mixed(seed: int, step: int, use: int) -> int:
    """Return the seed of one use in one step: what is drawn then does not depend on where a run was resumed.

    PyTorch's generators on a CPU look at the last 32 bits of a seed alone, so the three are hashed into them.
    """
    said = hashlib.sha256(f"{seed} {use} {step}".encode()).digest()
    return int.from_bytes(said[:4], "little")


def _random_cameras(camera: Float[Tensor, "1 25"], count: int, rng: torch.Generator) -> Float[Tensor, "n 25"]:
    """Draw cameras around the portrait's, at its roll."""
    yaw, pitch, roll = angles_from_labels(camera.cpu().numpy())[0]
    moves = (torch.rand(count, 2, generator=rng, dtype=torch.float64) * 2 - 1).numpy()
    angles = moves * (RANDOM_YAW_RAD, RANDOM_PITCH_RAD) + (yaw, pitch)
    labels = [torch.from_numpy(orbit_labels(float(y), float(p), roll)) for y, p in angles]
    return torch.cat(labels).to(camera) if labels else camera[:0]


def rarity(latents: Float[Tensor, "t n"]) -> Float[Tensor, " t"]:
    """Return how seldom a clip shows what a frame shows: one over the share of latents like its own."""
    others = latents[:: math.ceil(len(latents) / RARE_SAMPLE)]
    squared = torch.cdist(latents, others).square()
    alike = torch.exp(-squared / (2 * RARE_WIDTH * squared.mean() + 1e-12))
    return 1 / alike.mean(1).clamp(min=1 / len(others))
