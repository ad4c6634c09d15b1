"""The expression template (paper section 3.2): the portrait with another expression, at its own camera.

The morphable head is decoded with the portrait's shape and pose and another expression. Every pixel of the
moved skin looks up where the same surface point lies in the photograph. Eyes and mouth, where surfaces open
and close, are painted separately, see ``eyes`` and ``mouth``.
"""

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
from portrait_core.faces import landmark_regions as regions
from portrait_core.faces.alignment import landmark_residual_field
from portrait_core.faces.contours import Opening, pixel_grid, window
from portrait_core.faces.eyes import EyePainter
from portrait_core.faces.head import MorphableHead
from portrait_core.faces.mouth import MouthInterior, MouthPainter, visible_teeth
from portrait_core.faces.raster import interpolate, rasterize
from portrait_core.faces.texture import Image, PortraitTexture, smoothstep

Mask = NDArray[Any]
"""Boolean."""

_STILL_FROM_M, _STILL_AT_M = 0.008, 0.040
"""Skin this far outside the face's mask begins to hold still, and holds still entirely."""


class Template(NamedTuple):
    """Frames of an expression template; masks are float32 in 0..1."""

    image: NDArray[np.uint8]
    """``[B,S,S,3]``."""
    face_mask: NDArray[np.float32]
    """``[B,S,S]``: the whole face, mouth included."""
    mouth_mask: NDArray[np.float32]
    """``[B,S,S]``: what is behind the lips. The paper's M_face is ``face_mask * (1 - mouth_mask)``."""
    uncovered: NDArray[np.float32]
    """``[B,S,S]``: was face in the photograph and no longer is (filled in plausibly; not to be learnt)."""


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


class TemplateRenderer:
    """Renders one portrait with other expressions."""

    def __init__(
        self,
        head: MorphableHead,
        portrait: NDArray[np.uint8],
        fit: PortraitFit,
        landmarks_px: NDArray[np.floating],
        supersample: int = 2,
        feather_px: float = 4.0,
    ):
        """Take the portrait apart; about a second at 256.

        Args:
            head: the morphable head with 478 landmarks.
            portrait: face crop ``[S,S,3]`` uint8.
            fit: the fit whose camera belongs to this crop.
            landmarks_px: landmarks ``[478,2]`` found in the crop, in its pixels (centres at +0.5).
            supersample: render at so many times the size.
            feather_px: width of the face mask's soft edge, in pixels of the crop.

        Raises:
            ValueError: if the crop is not square uint8, or the landmarks are not 478 finite points.
        """
        portrait, landmarks_px = np.asarray(portrait), np.asarray(landmarks_px)
        if portrait.ndim != 3 or portrait.shape[0] != portrait.shape[1] or portrait.dtype != np.uint8:
            raise ValueError(
                f"portrait must be [S,S,3] uint8, got {portrait.shape} {portrait.dtype}; crop it"
            )
        if landmarks_px.shape != (regions.N_LANDMARKS, 2) or not np.isfinite(landmarks_px).all():
            raise ValueError(
                f"landmarks must be [{regions.N_LANDMARKS},2] and finite, got {landmarks_px.shape}; "
                "run the landmark detector on this crop"
            )
        self.head, self.fit, self.size = head, fit, portrait.shape[0]
        self.scale, self.work, self.feather_px = supersample, portrait.shape[0] * supersample, feather_px
        self._portrait = portrait
        photo = cv2.resize(portrait, (self.work, self.work), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        self.texture = PortraitTexture.build(photo, landmarks_px * supersample)
        self._prepare_mesh(landmarks_px * supersample)
        self._prepare_painters()

    # -- preparation -------------------------------------------------------------------------------------

    def _prepare_mesh(self, landmarks: NDArray[np.floating]) -> None:
        head = self.head
        self._source_m = self._decode(self.fit.expression[None], self.fit.jaw[None])
        projected = self._project(self._source_m)
        on_mesh = head.landmarks(projected)[0, :, :2].numpy()
        self._offset = torch.from_numpy(landmark_residual_field(head, on_mesh, landmarks))
        self._freedom = torch.from_numpy(_freedom(head))
        self._source_px = projected[0].clone()
        self._source_px[:, :2] += self._offset
        inside = head.mask("inside_mouth") > 0.5
        body = (
            (head.face_group == 0) & ~inside[head.faces].all(1) & (self._freedom[head.faces].amax(1) > 0.01)
        )
        self._skin_faces = head.faces[body]
        moving = self._source_px[self._freedom > 0.01, :2].numpy()
        self._roi = window(moving, 0.06 * self.work, self.work)
        coverage, _, _ = self._rasterize_skin(self._source_px)
        self._source_coverage = self._fill_openings(coverage, self._landmarks(self._source_px))

    def _prepare_painters(self) -> None:
        head, fit = self.head, self.fit
        source = self._landmarks(self._source_px)
        shut = fit.expression.copy()
        for name in ("eyeBlinkLeft", "eyeBlinkRight"):
            shut[head.index(name)] = 1.0
        closed = self._landmarks(self._moved(self._decode(shut[None], fit.jaw[None]))[0])
        self._eyes = [
            EyePainter(self.texture, eye, _opening(source, curves), _opening(closed, curves))
            for eye, curves in zip(self.texture.eyes, (regions.RIGHT_EYE, regions.LEFT_EYE), strict=True)
        ]
        neutral = self._decode(np.zeros((1, head.n_expression)), np.zeros((1, 3)))[0]
        span = torch.linalg.vector_norm(self._source_px[:, :2].amax(0) - self._source_px[:, :2].amin(0))
        metres = torch.linalg.vector_norm(self._source_m[0, :, :2].amax(0) - self._source_m[0, :, :2].amin(0))
        self._px_per_m = float(span / metres)
        tooth, drop = self._photo_teeth(neutral)
        self._interior = MouthInterior(head, neutral, self.texture.skin_color, tooth, drop)
        self._mouth = MouthPainter(self.texture, self._interior)

    def _photo_teeth(self, neutral: Tensor) -> tuple[Image | None, float]:
        """Colour of the photograph's teeth, and how much lower they reach than a resting lip would tell."""
        teeth = visible_teeth(self.texture)
        mouth = self.texture.mouth
        if float(mouth.gap[16:49].mean()) < 0.03 * mouth.width or (teeth > 0.5).sum() < 12:
            return None, 0.0
        color = np.median(self.texture.photo[teeth > 0.5], axis=0)
        lips_m = float(self.head.landmarks(neutral[None])[0, [13, 14], 1].mean())
        lower_m = float(self.head.landmarks(self._source_m)[0, 14, 1])
        # the biting edge is at least where the lower lip cuts it off in the photograph
        return np.asarray(color, np.float32), max(0.0, lips_m - 0.0015 - lower_m)

    # -- geometry ----------------------------------------------------------------------------------------

    def _decode(self, expression: NDArray[np.floating], jaw: NDArray[np.floating]) -> Tensor:
        shape = torch.as_tensor(np.asarray(self.fit.shape)[None], dtype=torch.float32)
        return self.head.decode(
            shape, torch.as_tensor(expression, dtype=torch.float32), torch.as_tensor(jaw, dtype=torch.float32)
        )

    def _project(self, vertices_m: Tensor) -> Tensor:
        camera = torch.as_tensor(np.asarray(self.fit.camera)[None], dtype=torch.float32)
        camera = camera.expand(len(vertices_m), -1)
        return project_to_crop(camera, self.head.to_box(vertices_m), self.work)

    def _moved(self, vertices_m: Tensor) -> Float[Tensor, "b v 3"]:
        """Work pixels of moved vertices; skin outside the face holds still."""
        projected = self._project(vertices_m)
        projected[..., :2] += self._offset
        return self._source_px + self._freedom[:, None] * (projected - self._source_px)

    def _landmarks(self, vertices_px: Tensor) -> NDArray[np.float32]:
        return np.asarray(self.head.landmarks(vertices_px[None])[0, :, :2].numpy())

    def _rasterize_skin(self, vertices_px: Tensor) -> tuple[Mask, Image, Image]:
        """Coverage ``[h,w]``, photograph positions ``[h,w,2]`` and face mask ``[h,w]`` of the moving skin in
        the region drawn."""
        x0, y0, x1, y1 = self._roi
        local = vertices_px - vertices_px.new_tensor([x0, y0, 0.0])
        fragments = rasterize(local[None], self._skin_faces, y1 - y0, x1 - x0, cull_backfaces=True)
        attributes = torch.cat([self._source_px[:, :2], self.head.mask("face")[:, None]], 1)
        seen = interpolate(attributes[None], self._skin_faces, fragments)[0].numpy()
        return (fragments.face_id[0] >= 0).numpy(), seen[..., :2], seen[..., 2]

    def _fill_openings(self, coverage: Mask, landmarks: NDArray[np.float32]) -> Mask:
        filled = coverage.astype(np.uint8)
        for curves in (regions.RIGHT_EYE, regions.LEFT_EYE, regions.INNER_LIPS):
            outline = landmarks[list(curves.upper + curves.lower[::-1])] - self._roi[:2]
            cv2.fillPoly(filled, [np.round(outline).astype(np.int32)], 1)
        kernel = np.ones((5, 5), np.uint8)
        return cv2.morphologyEx(filled, cv2.MORPH_CLOSE, kernel).astype(bool)

    # -- rendering ---------------------------------------------------------------------------------------

    def render(self, expression: NDArray[np.floating], jaw: NDArray[np.floating]) -> Template:
        """Render expressions ``[B,E]`` with jaw rotations ``[B,3]`` (axis-angle, radians).

        Raises:
            ValueError: if the numbers of expressions and jaws differ.
        """
        expression, jaw = np.asarray(expression, np.float32), np.asarray(jaw, np.float32)
        if len(expression) != len(jaw):
            raise ValueError(f"got {len(expression)} expressions and {len(jaw)} jaws; pass one jaw a frame")
        frames = [self._render_one(e, j) for e, j in zip(expression, jaw, strict=True)]
        return Template(*(np.stack(part) for part in zip(*frames, strict=True)))

    def _render_one(
        self, expression: NDArray[np.floating], jaw: NDArray[np.floating]
    ) -> tuple[NDArray[np.generic], ...]:
        vertices_m = self._decode(expression[None], jaw[None])
        vertices_px = self._moved(vertices_m)[0]
        landmarks = self._landmarks(vertices_px)
        seen, position, in_face = self._rasterize_skin(vertices_px)
        coverage = self._fill_openings(seen, landmarks)
        face = (coverage & ((in_face > 0.5) | ~seen)).astype(np.float32)
        canvas, alpha, changed = self._warp_skin(coverage, position, landmarks)
        for painter, curves, iris in zip(
            self._eyes,
            (regions.RIGHT_EYE, regions.LEFT_EYE),
            (regions.RIGHT_IRIS, regions.LEFT_IRIS),
            strict=True,
        ):
            painter.paint(canvas, _opening(landmarks, curves), self._gaze(vertices_px, iris))
        mouth = self._paint_mouth(canvas, vertices_m[0], landmarks)
        return self._finish(canvas, alpha, changed, coverage, face, mouth)

    def _warp_skin(
        self, coverage: Mask, position: Image, landmarks: NDArray[np.float32]
    ) -> tuple[Image, Image, Image]:
        """Moved skin over the whole work image, its opacity, and how much each pixel has changed."""
        x0, y0, x1, y1 = self._roi
        x, y = pixel_grid(self._roi)
        valid = np.asarray(position.any(-1))
        flow = np.where(valid[..., None], position - np.stack([x, y], -1), 0.0).astype(np.float32)
        flow = _extrapolate(flow, valid)
        map_x, map_y = x + flow[..., 0] - 0.5, y + flow[..., 1] - 0.5
        lines = self.texture.lines.copy()
        for painter, curves in zip(self._eyes, (regions.RIGHT_EYE, regions.LEFT_EYE), strict=True):
            painter.lines_on_skin(lines, painter.opening(_opening(landmarks, curves))[1])
        self._clear_mouth_lines(lines)
        source = self.texture.skin + lines
        canvas = self.texture.photo.copy()
        canvas[y0:y1, x0:x1] = cv2.remap(
            source, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        soft = cv2.GaussianBlur(cv2.erode(coverage.astype(np.float32), np.ones((3, 3))), (0, 0), 1.2)
        alpha = smoothstep(soft)
        changed = smoothstep((np.hypot(flow[..., 0], flow[..., 1]) - 0.15 * self.scale) / (0.5 * self.scale))
        return canvas, alpha, changed

    def _clear_mouth_lines(self, lines: Image) -> None:
        x0, y0, x1, y1 = MouthPainter.window(self.texture.mouth, self.work)
        lines[y0:y1, x0:x1] = 0.0

    def _gaze(self, vertices_px: Tensor, iris: tuple[int, ...]) -> NDArray[np.float32]:
        moved = self._landmarks(vertices_px)[iris[0]]
        return np.asarray(moved - self._landmarks(self._source_px)[iris[0]])

    def _paint_mouth(self, canvas: Image, vertices_m: Tensor, landmarks: NDArray[np.float32]) -> Image:
        opening = _opening(landmarks, regions.INNER_LIPS)
        rendered = None
        if float(opening.gap.max()) > 0.5:
            shifted = vertices_m + self._interior.shift
            px = self._project(shifted[None])[0]
            px[:, :2] += self._offset
            box = MouthPainter.window(opening, self.work)
            rendered = (self._interior.render(px, shifted, box, self._px_per_m)[0], box)
        source = self._landmarks(self._source_px)
        jaw_px = float(np.linalg.norm(landmarks[14] - source[14]))
        return self._mouth.paint(canvas, opening, rendered, jaw_px)

    def _finish(
        self,
        canvas: Image,
        alpha: Image,
        changed: Image,
        coverage: Mask,
        face: Image,
        mouth: Image,
    ) -> tuple[NDArray[np.generic], ...]:
        x0, y0, x1, y1 = self._roi
        uncovered = self._uncovered(coverage)
        base = self._fill_uncovered(uncovered, coverage)
        layer = base[y0:y1, x0:x1]
        layer += alpha[..., None] * (canvas[y0:y1, x0:x1] - layer)
        image = self._down_image(base, changed)
        whole = np.zeros((self.work, self.work), np.float32)
        whole[y0:y1, x0:x1] = face
        face_mask = self._down(cv2.GaussianBlur(whole, (0, 0), 0.5 * self.feather_px * self.scale))
        gone = np.zeros_like(whole)
        gone[y0:y1, x0:x1] = uncovered
        # twice minus one: the soft edge lies inside the face, where the template is trusted
        return image, np.clip(2.0 * face_mask - 1.0, 0.0, 1.0), self._down(mouth), self._down(gone)

    def _uncovered(self, coverage: Mask) -> Mask:
        """Pixels of the region drawn that lost their face, with a rim for the photograph's own soft edge."""
        lost = (self._source_coverage & ~coverage).astype(np.uint8)
        core: Mask = cv2.morphologyEx(lost, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        k = 2 * max(1, round(0.006 * self.work)) + 1
        return cv2.dilate(core, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (k, k))).astype(bool) & ~coverage

    def _fill_uncovered(self, uncovered: Mask, coverage: Mask) -> Image:
        """The photograph with uncovered pixels in-painted from what surrounds the face, not from the face."""
        base = self.texture.photo.copy()
        if not uncovered.any():
            return base
        x0, y0, x1, y1 = self._roi
        reach = 2 * max(2, round(0.03 * self.work)) + 1
        near = cv2.dilate(uncovered.astype(np.uint8), np.ones((reach, reach), np.uint8)).astype(bool)
        hole = uncovered | (near & (coverage | self._source_coverage))
        known = np.asarray(np.clip(base[y0:y1, x0:x1], 0, 255), dtype=np.uint8)
        filled: Any = cv2.inpaint(known, hole.astype(np.uint8), 3.0, cv2.INPAINT_TELEA)
        soft = cv2.GaussianBlur(uncovered.astype(np.float32), (0, 0), 0.8)[..., None]
        soft = np.maximum(soft, uncovered[..., None])
        layer = base[y0:y1, x0:x1]
        layer += soft * (filled - layer)
        return base

    def _down(self, image: Image) -> Image:
        return cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_AREA)

    def _down_image(self, image: Image, flow_changed: Image) -> NDArray[np.uint8]:
        """Average to the crop's size; pixels that did not change keep the photograph's own values."""
        x0, y0, x1, y1 = self._roi
        changed = np.zeros((self.work, self.work), np.float32)
        difference = np.abs(image[y0:y1, x0:x1] - self.texture.photo[y0:y1, x0:x1]).max(-1)
        changed[y0:y1, x0:x1] = np.maximum(flow_changed, smoothstep((difference - 1.0) / 4.0))
        weight = self._down(cv2.GaussianBlur(changed, (0, 0), 0.7 * self.scale))[..., None]
        weight = np.clip(1.5 * weight, 0.0, 1.0)
        out = self._portrait + weight * (self._down(image) - self._portrait)
        return np.clip(np.round(out), 0, 255).astype(np.uint8)


def _opening(landmarks: NDArray[np.float32], curves: regions.Curves) -> Opening:
    return Opening.from_points(landmarks[list(curves.upper)], landmarks[list(curves.lower)])


def _freedom(head: MorphableHead) -> NDArray[np.float32]:
    """How far each vertex may move, 0..1: all of the face and what is inside it, fading outside of it."""
    template = head._array("v_template").cpu().numpy()
    in_face = (head.mask("face") > 0.5).cpu().numpy()
    distance = cKDTree(template[in_face]).query(template)[0]
    freedom = 1.0 - smoothstep((distance - _STILL_FROM_M) / (_STILL_AT_M - _STILL_FROM_M))
    inner = (head.mask("inside_mouth") > 0.5).cpu().numpy()
    for name in head.group_names[1:]:
        inner |= head.group_vertices(name).cpu().numpy()
    return np.where(inner, 1.0, freedom).astype(np.float32)


def _extrapolate(flow: Image, valid: Mask) -> Image:
    """Continue a flow ``[h,w,2]`` smoothly into pixels that have none, fading out with distance."""
    out, weight = flow.copy(), valid.astype(np.float32)
    missing = ~valid
    known = np.dstack([flow, weight])
    for sigma in (2.0, 5.0, 12.0):
        if not missing.any():
            break
        small = cv2.resize(known, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        blurred = cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma), (flow.shape[1], flow.shape[0]))
        reached = missing & (blurred[..., 2] > 0.02)
        out[reached] = blurred[reached, :2] / blurred[reached, 2:]
        missing &= ~reached
    return out
