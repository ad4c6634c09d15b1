"""The part of the canvas that is drawn anew in a frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from portrait_core.rendering.pose_renderer import MIN_MARGIN_RAYS

MARGIN_RAYS = 2
"""Margin around what changes, in rays, that is drawn too."""


@dataclass(frozen=True)
class Part:
    """A rectangle of the canvas.

    Attributes:
        rows, columns: of the canvas's pixels.
        places: of its pixels, x and y over the canvas's side ``[1,2,h,w]``.
        rays: rays along the canvas's side.
        size: the canvas's side in pixels.
    """

    rows: slice
    columns: slice
    places: Float[Tensor, "1 2 h w"]
    rays: int
    size: int

    @classmethod
    def of(cls, bounds: Int[Tensor, "2 2"] | None, rays: int, size: int, device: torch.device) -> Part:
        """Make the part around rays from the first to the last row and column of ``bounds``.

        ``bounds=None`` makes the part of all rays.
        """
        low, high = [0, 0], [rays, rays]
        if bounds is not None:
            low = [max(0, int(x) - MARGIN_RAYS) for x in bounds[0]]
            high = [min(rays, int(x) + 1 + MARGIN_RAYS) for x in bounds[1]]
        rows, columns = (
            slice(a * size // rays, -(-b * size // rays)) for a, b in zip(low, high, strict=True)
        )
        y, x = ((torch.arange(one.start, one.stop, device=device) + 0.5) / size for one in (rows, columns))
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        return cls(rows, columns, torch.stack([grid_x, grid_y])[None], rays, size)

    def cut(self, values: Float[Tensor, "1 c m m"]) -> Float[Tensor, "1 c h w"]:
        """Return this part of what fills the canvas."""
        return values[..., self.rows, self.columns]

    def seen_by_rays(self, step: int) -> tuple[slice, slice, Float[Tensor, "1 2 h w"]]:
        """Return the rays around the part, and the places of its pixels over their rectangle.

        Rows and columns of the rays are multiples of ``step``.
        """
        slices, places = [], []
        for axis, one in ((1, self.rows), (0, self.columns)):
            low = max(0, one.start * self.rays // self.size - MIN_MARGIN_RAYS)
            high = min(self.rays, -(-one.stop * self.rays // self.size) + MIN_MARGIN_RAYS)
            low, high = low // step * step, min(self.rays, -(-high // step) * step)
            slices.append(slice(low, high))
            places.append((self.places[:, axis] * self.rays - low) / (high - low))
        return slices[0], slices[1], torch.stack([places[1], places[0]], dim=1)
