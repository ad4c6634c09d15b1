"""The portrait's skin in motion: where each visible point of the moved face lies in the photograph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from portrait_core.cameras import project_to_crop
from portrait_core.face_model import landmark_regions as regions
from portrait_core.face_model.alignment import LandmarkSpline
from portrait_core.face_model.contours import pixel_grid, window
from portrait_core.face_model.easing import eased
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.raster import Fragments, interpolate, rasterize
from portrait_core.template.texture import Image

Mask = NDArray[Any]
"""Booleans ``[h,w]``."""
_HIDDEN_BEHIND = 0.016
"""Distance behind the photograph's front surface from which on skin was hidden in it, in box units (8 mm)."""
_STILL_FROM_M, _STILL_AT_M = 0.008, 0.040
"""Distances outside the face's mask at which skin begins to hold still, and holds still entirely, in
metres."""
_MIN_FREEDOM = 0.01
"""Freedom above which a vertex moves."""
_MARGIN = 0.06
"""Margin of the region drawn around the moving skin, over the work image's side."""
_MIN_HIDDEN = 0.02
"""Smallest side of a part of hidden skin, over the work image's side."""
_OUTLINE_BLUR = 0.7
"""Deviation of the blur that takes the steps out of the coarse outline, in pixels of the coarse grid."""
_FLOW_BLURS_PX = (1.0, 4.0)
"""Deviations of the blurs that continue a flow into pixels without one, in pixels of half the grid."""
_MIN_WEIGHT = 0.02
"""Smallest blurred weight from which a flow is continued."""


@dataclass(frozen=True)
class PortraitFit:
    """The 3DMM fit of a portrait, as tracking gives it."""

    shape: NDArray[np.floating]
    """``[S]``."""
    expression: NDArray[np.floating]
    """``[E]``."""
    jaw: NDArray[np.floating]
    """``[3]`` axis-angle, radians."""
    camera: NDArray[np.floating]
    """``[25]`` camera label."""


class SkinView(NamedTuple):
    """The moved skin in the region that is drawn, ``[h,w]``."""

    covered: Mask
    """Skin, eyes and mouth that have their place in the photograph."""
    face: Image
    """Part of each covered pixel that is face, 0..1."""
    flow: Image
    """Displacement from a pixel to the place of its surface point in the photograph ``[h,w,2]``, in
    pixels."""
    hidden: Mask
    """Skin that the photograph does not show (the throat behind its chin); not part of ``covered``."""


class MovingSkin:
    """Moves one portrait's mesh. Positions are in pixels of an image of ``size`` (the work image).

    The mesh is rasterised ``coarse`` times smaller than that: its displacement is smooth, and sharp edges
    (lids, lips) are painted afterwards.
    """

    def __init__(
        self, head: MorphableHead, fit: PortraitFit, landmarks: NDArray[np.floating], size: int, coarse: int
    ):
        """Fit the mesh to the landmarks.

        Args:
            head: the morphable head, on the CPU.
            fit: the portrait's.
            landmarks: as detected in the work image ``[478,2]``.
            size: side of the work image in pixels, a multiple of ``coarse``.
            coarse: pixels of the work image per pixel of the rasterised mesh.
        """
        self.head, self.fit, self.size, self._coarse = head, fit, size, coarse
        self.source_m = self.decode(fit.expression[None], fit.jaw[None])
        spline = LandmarkSpline(head)
        projected = self.project(self.source_m)
        on_mesh = head.landmarks(projected)[0, :, :2].numpy()
        self.offset = torch.from_numpy(spline.residual_field(on_mesh, landmarks))
        self._freedom = torch.from_numpy(_freedom(head))
        self.source_px = projected[0].clone()
        self.source_px[:, :2] += self.offset
        inside = head.mask("inside_mouth") > 0.5
        body = (head.face_group == 0) & ~inside[head.faces].all(1)
        self._faces = head.faces[body & (self._freedom[head.faces].amax(1) > _MIN_FREEDOM)]
        self._attributes = torch.cat([self.source_px, head.mask("face")[:, None]], 1)[None]
        box = window(self.source_px[self._freedom > _MIN_FREEDOM, :2].numpy(), _MARGIN * size, size)
        low, high = np.array(box[:2]) // coarse * coarse, -(-np.array(box[2:]) // coarse) * coarse
        self.roi = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        self.grid = pixel_grid(self.roi)
        self.source_landmarks = self.landmarks(self.source_px)
        self._source_depth = np.full((1, 1), np.inf, np.float32)  # nothing hidden at its own place
        own = self.view(self.source_px)
        self.source_covered, self.source_face = own.covered, own.face > 0.5
        self._source_depth = self._rasterize(self.source_px)[0].depth[0].nan_to_num(posinf=1e3).numpy()
        span = torch.linalg.vector_norm(self.source_px[:, :2].amax(0) - self.source_px[:, :2].amin(0))
        metres = self.source_m[0, :, :2]
        self.px_per_m = float(span / torch.linalg.vector_norm(metres.amax(0) - metres.amin(0)))

    def decode(self, expression: NDArray[np.floating], jaw: NDArray[np.floating]) -> Float[Tensor, "b v 3"]:
        """Return the vertices of the portrait's shape with other expressions, in metres."""
        shape = torch.as_tensor(np.asarray(self.fit.shape)[None], dtype=torch.float32)
        expression_t = torch.as_tensor(expression, dtype=torch.float32)
        return self.head.decode(shape, expression_t, torch.as_tensor(jaw, dtype=torch.float32))

    def project(self, vertices_m: Tensor) -> Float[Tensor, "b v 3"]:
        """Project vertices to work pixels and depth by the portrait's camera, without corrections."""
        camera = torch.as_tensor(np.asarray(self.fit.camera)[None], dtype=torch.float32)
        return project_to_crop(camera.expand(len(vertices_m), -1), self.head.to_box(vertices_m), self.size)

    def moved(self, vertices_m: Tensor) -> Float[Tensor, "b v 3"]:
        """Return the corrected work pixels of moved vertices; skin outside the face holds still."""
        projected = self.project(vertices_m)
        projected[..., :2] += self.offset
        return self.source_px + self._freedom[:, None] * (projected - self.source_px)

    def vertices_box(
        self, expression: NDArray[np.floating], jaw: NDArray[np.floating]
    ) -> Float[Tensor, "b v 3"]:
        """Return the mesh exactly as painted, in the box frame: corrected pixels lifted at their depth."""
        px = self.moved(self.decode(expression, jaw))
        camera = torch.as_tensor(np.asarray(self.fit.camera), dtype=torch.float32)
        cam2world, k = camera[:16].view(4, 4), camera[16:].view(3, 3)
        ray = (px[..., :2] / self.size - k[:2, 2]) / k[[0, 1], [0, 1]]
        local = torch.cat([ray * px[..., 2:], px[..., 2:]], -1)
        return local @ cam2world[:3, :3].T + cam2world[:3, 3]

    def landmarks(self, vertices_px: Tensor) -> NDArray[np.float32]:
        """Return the landmarks ``[478,2]`` of vertices ``[V,3]``."""
        return np.asarray(self.head.landmarks(vertices_px[None])[0, :, :2].numpy())

    def _rasterize(self, vertices_px: Tensor) -> tuple[Fragments, Image]:
        """Rasterise coarsely: fragments, and the photograph's ``(x, y, depth)`` and face mask there."""
        x0, y0, x1, y1 = self.roi
        k = self._coarse
        local = (vertices_px - vertices_px.new_tensor([x0, y0, 0.0])) / vertices_px.new_tensor([k, k, 1.0])
        fragments = rasterize(local[None], self._faces, (y1 - y0) // k, (x1 - x0) // k, cull_backfaces=True)
        return fragments, interpolate(self._attributes, self._faces, fragments)[0].numpy()

    def view(self, vertices_px: Tensor) -> SkinView:
        """Return the portrait's camera's view of vertices ``[V,3]`` in work pixels."""
        x0, y0, x1, y1 = self.roi
        k = self._coarse
        fragments, values = self._rasterize(vertices_px)
        seen = (fragments.face_id[0] >= 0).numpy()
        hidden = large_parts(
            seen & (values[..., 3] < 0.5) & self._behind(values), _MIN_HIDDEN * self.size / k
        )
        marks = self.landmarks(vertices_px)
        covered = self._fill_openings(seen & ~hidden, marks)
        # the sockets behind open eyes are not face on the mesh, but the eyes drawn over them are
        face = self._fill_openings(covered & ((values[..., 3] > 0.5) | ~seen), marks) & covered
        x, y = pixel_grid((0, 0, seen.shape[1], seen.shape[0]))
        weight = (seen & ~hidden).astype(np.float32)
        dx, dy = values[..., 0] - (x * k + x0), values[..., 1] - (y * k + y0)
        flow = _extrapolate(np.dstack([dx * weight, dy * weight, weight]))
        fine = [
            cv2.resize(np.asarray(part, np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
            for part in (covered, face, flow, hidden)
        ]
        covered = cv2.GaussianBlur(fine[0], (0, 0), _OUTLINE_BLUR * k) > 0.5
        return SkinView(covered, fine[1], fine[2], (fine[3] > 0.5) & ~covered)

    def _behind(self, values: Image) -> Mask:
        """Find surface points that lie behind the photograph's front surface at their place."""
        depth = self._source_depth
        if depth.size == 1:
            return np.zeros(values.shape[:2], bool)
        x = (values[..., 0] - self.roi[0]) / self._coarse - 0.5
        y = (values[..., 1] - self.roi[1]) / self._coarse - 0.5
        front = cv2.remap(depth, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(values[..., 2] > front + _HIDDEN_BEHIND)

    def _fill_openings(self, seen: Mask, landmarks: NDArray[np.float32]) -> Mask:
        filled = seen.astype(np.uint8)
        for curves in (regions.RIGHT_EYE, regions.LEFT_EYE, regions.INNER_LIPS):
            outline = (landmarks[list(curves.upper + curves.lower[::-1])] - self.roi[:2]) / self._coarse
            cv2.fillPoly(filled, [np.round(outline - 0.5).astype(np.int32)], 1)
        closed: Mask = cv2.morphologyEx(filled, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        return closed.astype(bool)


def large_parts(mask: Mask, side_px: float) -> Mask:
    """Keep the connected parts of ``mask [h,w]`` that are larger than ``side_px`` squared.

    Smaller ones are wobbles of an outline.
    """
    thick = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    _, label, stats, _ = cv2.connectedComponentsWithStats(thick, connectivity=8)
    kept = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] > side_px**2)
    return np.isin(label, kept[kept > 0])


def _freedom(head: MorphableHead) -> NDArray[np.float32]:
    """Return each vertex's freedom to move, 0..1: 1 on the face and inside it, fading outside of it."""
    template = head._array("v_template").cpu().numpy()
    in_face = (head.mask("face") > 0.5).cpu().numpy()
    distance = cKDTree(template[in_face]).query(template)[0]
    freedom = 1.0 - eased((distance - _STILL_FROM_M) / (_STILL_AT_M - _STILL_FROM_M))
    inner = (head.mask("inside_mouth") > 0.5).cpu().numpy()
    for name in head.group_names[1:]:
        inner |= head.group_vertices(name).cpu().numpy()
    return np.where(inner, 1.0, freedom).astype(np.float32)


def _extrapolate(weighted: Image) -> Image:
    """Continue displacements into pixels without one: ``[h,w,3]`` (x, y, weight 0 or 1) to ``[h,w,2]``."""
    height, width = weighted.shape[:2]
    missing = weighted[..., 2] == 0
    out = weighted[..., :2].copy()
    small = cv2.resize(weighted, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    for sigma in _FLOW_BLURS_PX:
        blurred = cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma), (width, height))
        reached = missing & (blurred[..., 2] > _MIN_WEIGHT)
        out[reached] = blurred[reached, :2] / blurred[reached, 2:]
        missing &= ~reached
    return out
