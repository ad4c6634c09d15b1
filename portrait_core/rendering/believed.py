"""Limits of the space in which a tuned generator's volume is believed.

The generator was tuned on one view of the head. What that view cannot see may be anything: bars beside the
hair and lumps behind the ears, which a turn of the head would bring to light. The photograph says that no
point of the person lies outside the person's outline; and what lies well behind the surface that the
portrait's camera sees is only believed near the fitted head.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from portrait_core.rendering.compositing import gaussian_blur, places_seen, sample
from portrait_core.rendering.surfaces import Surface

ROUND_OUTLINE = 0.02
"""Reach of the person beyond the outline in the photograph, over the face crop's side."""
SKIN_DEEP = 0.1
"""Thickness up to which what is seen is believed (box units; 5 cm on the embedded head)."""
ROUND_HEAD = 0.1
"""Reach of hair and ears beyond the fitted head (box units)."""
_CELLS, _COARSE = 96, 32
"""Cells along a side of the volume that keeps the answer, and of the one that distances are measured in."""


class Believed:
    """Tells of points of a volume that stands still whether it is believed there.

    Args:
        surface: what the portrait's camera sees of it.
        camera: that camera ``[1,25]``.
        coverage: of the person in its picture ``[1,1,M,M]`` in 0..1.
        face_side: of the face crop over the picture's.
        head: vertices of the fitted head ``[v,3]``, box units.
        box: side of the volume, box units.
    """

    def __init__(
        self,
        surface: Surface,
        camera: Float[Tensor, "1 25"],
        coverage: Float[Tensor, "1 1 m m"],
        face_side: float,
        head: Float[Tensor, "v 3"],
        box: float,
    ) -> None:
        self._box = box
        points = _centres(_CELLS, box).to(camera)[None]
        place = places_seen(camera, points[:, None])
        reach = max(1, round(ROUND_OUTLINE * face_side * coverage.shape[-1]))
        wide = F.max_pool2d(coverage, (2 * reach + 1, 1), 1, (reach, 0))  # rows, then columns: much less work
        wide = F.max_pool2d(wide, (1, 2 * reach + 1), 1, (0, reach))
        outline = gaussian_blur(wide, reach / 2)
        within = sample(outline, place)[0, 0, 0]
        front = sample(surface.depth, place)[0, 0, 0]
        behind = (points[0] - camera[0, 3:12:4]).norm(dim=-1) - front
        skin = 0.5 + (SKIN_DEEP - behind) / box
        near = 0.5 + (ROUND_HEAD - self._away(head)) / box
        found = torch.minimum(within, torch.maximum(skin, near))
        self._volume = found.reshape(1, 1, _CELLS, _CELLS, _CELLS)

    def _away(self, head: Float[Tensor, "v 3"]) -> Float[Tensor, " n"]:
        """Return the distance of every cell from the fitted head."""
        coarse = _centres(_COARSE, self._box)
        found, _ = cKDTree(head.cpu().numpy()).query(coarse.numpy())
        grid = torch.from_numpy(found.astype(np.float32)).reshape(1, 1, _COARSE, _COARSE, _COARSE)
        size = (_CELLS, _CELLS, _CELLS)
        fine = F.interpolate(grid, size, mode="trilinear", align_corners=False)
        return fine.flatten().to(head)

    def __call__(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
        """Return more than 0.5 where the volume is believed at box-frame ``points``, less elsewhere."""
        grid = (points * (2 / self._box)).reshape(1, -1, 1, 1, 3)
        found = F.grid_sample(self._volume, grid, padding_mode="border", align_corners=False)
        return found.reshape(points.shape[:2])


def _centres(cells: int, box: float) -> Float[Tensor, "n 3"]:
    """Return the centres of a volume's cells, x fastest."""
    along = ((torch.arange(cells) + 0.5) / cells - 0.5) * box
    z, y, x = torch.meshgrid(along, along, along, indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(-1, 3)
