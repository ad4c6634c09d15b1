"""A head that turns on its neck before a body that stays: how far every point in space turns with it.

The paper turns the camera, and with it shoulders and background. Here the camera stays, and space is bent:
what belongs to the head turns about the neck's joint, what belongs to the body does not, and in between the
turn fades along the neck. The embedded head says how much of each its surface is (its skinning weights); the
space around, with hair, takes it from the surface near by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from portrait_core.face_model.head import JOINTS, MorphableHead

LOW, HIGH = (-0.72, -0.6, -0.48), (0.72, 0.6, 0.48)
"""Corners of the space that is bent (box units); beyond it the nearest point inside decides."""
CELLS = (48, 40, 32)
"""Points of the grid along x, y and z: about 1.5 cm apart on the embedded head."""
REACH, WIDENING = 0.03, 0.5
"""Width of the kernel that carries the surface's shares into space (box units), and its growth per distance
from the surface: far out, where a turn moves far, shares have to change slowly."""
SPACING = 0.03
"""Distance of the surface's points that are taken for it (box units): one per cell of that size."""
RING = 0.06
"""Height above the mesh's lower edge within which its vertices belong to the body (box units)."""
CERTAIN = 0.04
"""Shares so near to 0 or 1 are 0 or 1."""
BELOW = 0.1
"""Height beneath the mesh's lower edge over which what is left of the turn fades to nothing (box units)."""
COARSE_CELLS = (24, 20, 16)
"""Points along x, y and z of the coarse grid, on which the search for where points lie begins."""
ROUNDS, LAST_ROUNDS = 14, 4
"""Fixed-point rounds that find where a bent point came from, and those of them on the fine grid."""
_NECK = JOINTS.index("neck")


@dataclass(frozen=True)
class Bending:
    """A bend of space.

    Attributes:
        displacement: from where something is seen to where it lies at the portrait's own pose
            ``[1,3,z,y,x]``, box units.
        shares: of the turn ``[1,1,z,y,x]``, at the portrait's own pose.
        pivot: ``[3]``, box units.
        axis: of the turn ``[3]``, a unit vector.
        angle_rad: of the turn.
        shift: of the head ``[3]``, box units, shared out as the turn is.
    """

    displacement: Float[Tensor, "1 3 z y x"]
    shares: Float[Tensor, "1 1 z y x"]
    pivot: Float[Tensor, " 3"]
    axis: Float[Tensor, " 3"]
    angle_rad: float
    shift: Float[Tensor, " 3"]

    def __call__(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
        """Return where what is seen at ``points`` lies at the portrait's own pose, box units."""
        return points + _read(self.displacement, points)

    def seen_at(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
        """Invert :meth:`__call__`: where ``points`` of the portrait's own pose are seen, box units."""
        share = _read(self.shares, points)
        return turned(points, self.pivot, self.axis, self.angle_rad * share) + share * self.shift


def turned(
    points: Float[Tensor, "*n 3"],
    pivot: Float[Tensor, " 3"],
    axis: Float[Tensor, " 3"],
    angles_rad: Float[Tensor, "*n 1"],
) -> Float[Tensor, "*n 3"]:
    """Turn every point about an axis through ``pivot`` by its own angle (Rodrigues' formula)."""
    arm = points - pivot
    along = (arm @ axis)[..., None] * axis
    aside = torch.linalg.cross(axis.expand_as(arm), arm)
    return pivot + along + (arm - along) * torch.cos(angles_rad) + aside * torch.sin(angles_rad)


def resting(head: MorphableHead, shape: Float[Tensor, " s"]) -> Float[Tensor, "v 3"]:
    """Return the mesh of a head with a person's shape and without expression, box frame."""
    return head.to_box(head.decode(shape[None], shape.new_zeros(1, head.n_expression)))[0]


def neck_joint(head: MorphableHead, vertices: Float[Tensor, "v 3"]) -> Float[Tensor, " 3"]:
    """Return the joint about which a head turns, of its mesh in the box frame."""
    return head.joints_of(vertices[None])[0, _NECK]


class Neck:
    """Shares of the head's turn in the space around one portrait. Read-only.

    Args:
        head: a morphable head with a neck's joint.
        vertices: its mesh with the portrait's shape ``[V,3]``, box frame.
        device: where points are bent.
    """

    def __init__(
        self, head: MorphableHead, vertices: Float[Tensor, "v 3"], device: torch.device | str = "cpu"
    ) -> None:
        self.pivot = neck_joint(head, vertices).to(device)
        """The neck's joint ``[3]``, box units."""
        self.points, self.coarse = _grid().to(device), _grid(COARSE_CELLS).to(device)
        # shares are made once, of many distances, on the host: the same on every device
        vertices = vertices.detach().cpu()
        skin = head.group_vertices("body").cpu() if "body" in head.group_names else slice(None)
        shares = _surface_shares(vertices[skin], head.head_weights().cpu()[skin])
        edge = float(vertices[:, 1].min())
        body = _body(edge)
        values = _spread(
            torch.cat([vertices[skin], body]), torch.cat([shares, torch.zeros(len(body))]), _grid()
        )
        # exactly 0 on the body and 1 on the head, so that the one keeps its pixels and the other its shape
        values = ((values - CERTAIN) / (1 - 2 * CERTAIN)).clamp(0, 1)
        values = values * ((_grid()[:, 1] - edge) / BELOW + 1).clamp(0, 1)
        self.shares = values.reshape(1, 1, *CELLS[::-1]).to(device)
        """Share of the turn ``[1,1,z,y,x]`` in 0..1 on the grid."""

    def bend(self, turn: NDArray[np.floating], shift: NDArray[np.floating] | None = None) -> Bending:
        """Bend space by a turn ``[3,3]`` of the head about the neck's joint and a shift ``[3]`` after it.

        Both are in the box frame and its units.
        """
        vector = Rotation.from_matrix(np.asarray(turn)).as_rotvec()
        angle = float(np.linalg.norm(vector))
        axis = self.points.new_tensor(vector / max(angle, 1e-9))
        aside = self.points.new_tensor(np.zeros(3) if shift is None else shift)
        move = axis, angle, aside
        roughly = self._lies(self.coarse, self.coarse, move, ROUNDS - LAST_ROUNDS)
        guess = self.points + _read(_as_grid(roughly - self.coarse, COARSE_CELLS), self.points[None])[0]
        lies = self._lies(self.points, guess, move, LAST_ROUNDS)
        moved = _as_grid(lies - self.points, CELLS)
        return Bending(moved, self.shares, self.pivot, axis, angle, aside)

    def _lies(self, seen: Tensor, lies: Tensor, move: tuple[Tensor, float, Tensor], rounds: int) -> Tensor:
        """Find where points ``seen [n,3]`` lie at the portrait's own pose, from a first guess.

        A point moves by a fraction of the turn that depends on where the point lies.
        """
        axis, angle, aside = move
        for i in range(rounds):
            share = _read(self.shares, lies[None])[0]
            found = turned(seen - share * aside, self.pivot, axis, -angle * share)
            # whole steps would overshoot in the neck, where the turn fades quickly
            lies = found if i == rounds - 1 else 0.5 * (lies + found)
        return lies


def _as_grid(values: Float[Tensor, "n c"], cells: tuple[int, int, int]) -> Float[Tensor, "1 c z y x"]:
    return values.T.reshape(1, -1, *cells[::-1]).contiguous()


def _grid(cells: tuple[int, int, int] = CELLS) -> Float[Tensor, "n 3"]:
    along = [torch.linspace(low, high, n) for low, high, n in zip(LOW, HIGH, cells, strict=True)]
    z, y, x = torch.meshgrid(along[2], along[1], along[0], indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(-1, 3)


def _read(grid: Float[Tensor, "1 c z y x"], points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n c"]:
    """Read a grid at box-frame points, trilinearly; beyond it its border."""
    axes = zip(points.unbind(-1), LOW, HIGH, strict=True)
    unit = torch.stack([(along - low) * (2 / (high - low)) - 1 for along, low, high in axes], dim=-1)
    flat = unit.reshape(1, 1, 1, -1, 3)
    found = F.grid_sample(grid, flat, padding_mode="border", align_corners=True)
    return found[0, :, 0, 0].T.reshape(*points.shape[:-1], grid.shape[1])


def _surface_shares(vertices: Tensor, weights: Tensor) -> Tensor:
    """Return the fraction of the turn of each vertex: 0 where the mesh ends below, 1 on the head."""
    height = vertices[:, 1]
    ring = weights[height < height.min() + RING]
    rest = float(ring.quantile(0.9))
    return ((weights - rest) / (1 - rest)).clamp(0, 1)


def _body(edge: float) -> Float[Tensor, "n 3"]:
    """Return points of a body beneath the mesh, whose lower edge lies at height ``edge``.

    They are shoulders, as wide as the space that is bent.
    """
    along = [torch.arange(low, high, 2 * SPACING) for low, high in zip(LOW, HIGH, strict=True)]
    x, z = torch.meshgrid(along[0], along[2], indexing="ij")
    return torch.stack([x, torch.full_like(x, edge - SPACING), z], dim=-1).reshape(-1, 3)


def _spread(vertices: Tensor, shares: Tensor, points: Tensor) -> Tensor:
    """Return the fractions at points in space: those of the surface near by, weighted by distance."""
    _, cell = torch.unique((vertices / SPACING).round(), dim=0, return_inverse=True)
    count = torch.zeros(int(cell.max()) + 1).index_add_(0, cell, torch.ones(len(cell)))[:, None]
    thinned = (
        torch.zeros(len(count), 4).index_add_(0, cell, torch.cat([vertices, shares[:, None]], dim=1)) / count
    )
    found = []
    for part in points.split(8192):
        away = torch.cdist(part, thinned[:, :3])
        width = REACH + WIDENING * away.amin(dim=1, keepdim=True)
        found.append(torch.softmax(-0.5 * (away / width).square(), dim=1) @ thinned[:, 3])
    return torch.cat(found)
