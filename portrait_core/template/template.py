"""The expression template (paper section 3.2): the portrait with another expression, at its own camera.

The morphable head is decoded with the portrait's shape and pose and another expression. Every pixel of the
moved skin looks up where the same surface point lies in the photograph (``skin``). Eyes and mouth, where
surfaces open and close, are painted separately (``eyes``, ``mouth``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.face_model import landmark_regions as regions
from portrait_core.face_model.contours import Opening
from portrait_core.face_model.easing import eased
from portrait_core.face_model.head import MorphableHead
from portrait_core.template.eyes import EyePainter
from portrait_core.template.mouth import MouthPainter
from portrait_core.template.mouth_colors import MouthPalette
from portrait_core.template.mouth_interior import UPPER_TEETH_BELOW_LIPS_M, MouthInterior
from portrait_core.template.skin import Mask, MovingSkin, PortraitFit, SkinView, large_parts
from portrait_core.template.texture import Image, PortraitTexture
from portrait_core.template.visible_teeth import find_teeth
from portrait_core.tracking.mouth_inside import MouthInside, ToldMouth

__all__ = ["PortraitFit", "Template", "TemplateRenderer"]


@dataclass(frozen=True)
class _Finish:
    """Laying the drawn face over the photograph; lengths as shares of the work image's side."""

    min_gap_px: float = 0.5
    """Largest height of an opening up to which no mouth interior is drawn, in work pixels."""
    edge_blur_px: float = 1.2
    """Deviation of the blur of the skin's outline, in work pixels."""
    min_lost: float = 0.02
    """Smallest side of a disoccluded part."""
    rim: float = 0.008
    """Width of the rim around disoccluded parts, for the photograph's own soft edge."""
    fill_reach: float = 0.03
    """Reach around disoccluded pixels within which the face is not filled from."""
    fill_radius_px: float = 3.0
    """Radius of in-painting, in work pixels."""
    fill_blur_px: float = 0.8
    """Deviation of the blur of the filled part's edge, in work pixels."""
    min_face: float = 0.01
    """Face mask above which a pixel counts as face beside a hole."""
    chin_blur: float = 0.018
    chin_gain: float = 1.5
    chin_shade: float = 0.35
    """Deviation of the shadow of a chin that has come down, its gain before it is limited to 1, and the share
    of the light that it takes."""


@dataclass(frozen=True)
class _Changed:
    """Choice of the crop's pixels that averaged drawn ones replace; lengths in pixels of the crop."""

    still: float = 0.15
    moved_over: float = 0.5
    """Motion that counts as none, and the further motion over which a pixel becomes the drawn one."""
    same: float = 1.0
    differs_over: float = 4.0
    """Difference of colour in grey levels that counts as none, and the further one."""
    blur: float = 0.7
    """Deviation of the blur of the decision."""
    gain: float = 1.5
    """Gain of the blurred decision before it is limited to 1."""


_FINISH, _CHANGED = _Finish(), _Changed()
_UPPER_LOWER_LIP = [13, 14]
"""Landmarks of the inner lips' middles."""
_EYES = (
    (regions.RIGHT_EYE, regions.RIGHT_IRIS),
    (regions.LEFT_EYE, regions.LEFT_IRIS),
)


class Template(NamedTuple):
    """Frames of an expression template; masks are float32 in 0..1."""

    image: NDArray[np.uint8]
    """``[B,S,S,3]``."""
    face_mask: NDArray[np.float32]
    """``[B,S,S]``: the whole face, mouth included."""
    mouth_mask: NDArray[np.float32]
    """``[B,S,S]``: the mouth interior. The paper's M_face is ``face_mask * (1 - mouth_mask)``."""
    uncovered: NDArray[np.float32]
    """``[B,S,S]``: disoccluded pixels, face in the photograph and no longer (filled in; not to be learnt)."""


class TemplateRenderer:
    """Renders one portrait on the embedded head with other expressions."""

    def __init__(
        self,
        head: MorphableHead,
        portrait: NDArray[np.uint8],
        fit: PortraitFit,
        landmarks_px: NDArray[np.floating],
        supersample: int = 2,
        feather_px: float = 4.0,
    ) -> None:
        """Take the portrait apart; about half a second at 256 pixels.

        Args:
            head: the morphable head with 478 landmarks, on the CPU, where OpenCV draws what it gives.
            portrait: face crop ``[S,S,3]`` uint8.
            fit: the fit whose camera belongs to this crop.
            landmarks_px: landmarks ``[478,2]`` found in the crop, in its pixels (centres at +0.5).
            supersample: side of the work image over the crop's.
            feather_px: width of the face mask's soft edge, in pixels of the crop.

        Raises:
            ValueError: if the crop is not square uint8, or the landmarks are not 478 finite points.
        """
        portrait, landmarks_px = np.asarray(portrait), np.asarray(landmarks_px)
        if portrait.ndim != 3 or portrait.shape[0] != portrait.shape[1] or portrait.dtype != np.uint8:
            got = f"{portrait.shape} {portrait.dtype}"
            raise ValueError(f"portrait must be [S,S,3] uint8, got {got}; crop it with crop_image")
        if landmarks_px.shape != (regions.N_LANDMARKS, 2) or not np.isfinite(landmarks_px).all():
            raise ValueError(
                f"landmarks must be [{regions.N_LANDMARKS},2] and finite, got {landmarks_px.shape}; "
                "run the landmark detector on this crop"
            )
        self.head, self.size, self.scale = head, portrait.shape[0], supersample
        self.feather_px, self._portrait = feather_px, portrait
        work = self.size * supersample
        photo = cv2.resize(portrait, (work, work), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        landmarks = landmarks_px * supersample
        self.texture = PortraitTexture.build(photo, landmarks)
        self.skin = MovingSkin(head, fit, landmarks, work, supersample)
        self._eyes = self._eye_painters()
        self._mouth = self._mouth_painter()

    def _eye_painters(self) -> list[EyePainter]:
        fit, head = self.skin.fit, self.head
        # shut from rest: lids that squint as well would cross
        shut = np.zeros(head.n_expression, np.float32)
        for name in ("eyeBlinkLeft", "eyeBlinkRight"):
            shut[head.index(name)] = 1.0
        closed_px = self.skin.moved(self.skin.decode(shut[None], fit.jaw[None]))[0]
        closed, source = self.skin.landmarks(closed_px), self.skin.source_landmarks
        return [
            EyePainter(self.texture, eye, _opening(source, curves), _opening(closed, curves))
            for eye, (curves, _) in zip(self.texture.eyes, _EYES, strict=True)
        ]

    def _mouth_painter(self) -> MouthPainter:
        head = self.head
        neutral = self.skin.decode(np.zeros((1, head.n_expression)), np.zeros((1, 3)))[0]
        rest, own = (head.landmarks(m)[0, _UPPER_LOWER_LIP, 1] for m in (neutral[None], self.skin.source_m))
        # where lips meet, the photograph shows where the upper one rests
        line, drop = float(rest.mean()) + self.texture.lips_meet * float(own[0] - rest[0]), 0.0
        teeth = find_teeth(self.texture, self.skin.px_per_m)
        palette = MouthPalette.estimate(self.texture, teeth.sure)
        if palette.teeth_seen:
            # the biting edge is at least as far below the upper lip as the photograph shows it
            shown_m = teeth.shown_px / self.skin.px_per_m
            drop = max(0.0, float(rest[0] - own[0]) + shown_m - UPPER_TEETH_BELOW_LIPS_M)
        interior = MouthInterior(head, neutral, palette, line, drop)
        source = _opening(self.skin.source_landmarks, regions.INNER_LIPS)
        return MouthPainter(self.texture, interior, source, teeth.upper)

    def vertices_box(
        self, expression: NDArray[np.floating], jaw: NDArray[np.floating]
    ) -> Float[Tensor, "b v 3"]:
        """Return the mesh of expressions ``[B,E]`` and jaws ``[B,3]`` as painted, in the box frame."""
        return self.skin.vertices_box(np.asarray(expression), np.asarray(jaw))

    def painted_lips(
        self, expression: NDArray[np.floating], jaw: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Return how far below the head's own lips they are painted, at the middle of the mouth.

        Args:
            expression: ``[B,E]``.
            jaw: rotations ``[B,3]`` (axis-angle, radians).

        Returns:
            Of the upper and of the lower lip ``[B,2]``, in metres. It changes from frame to frame by what is
            taken off the gap of the landmarks.
        """
        lips = []
        for one in zip(np.asarray(expression, np.float32), np.asarray(jaw, np.float32), strict=True):
            vertices_m = self.skin.decode(*(part[None] for part in one))
            mesh = _opening(self.skin.landmarks(self.skin.moved(vertices_m)[0]), regions.INNER_LIPS)
            lips.append([_middles(opening)[:, 1] for opening in (self._mouth.opening(mesh), mesh)])
        painted, own = np.swapaxes(lips, 0, 1)
        return np.asarray((painted - own) / self.skin.px_per_m, np.float64)

    def render(
        self,
        expression: NDArray[np.floating],
        jaw: NDArray[np.floating],
        inside: MouthInside | None = None,
    ) -> Template:
        """Render frames.

        Args:
            expression: ``[B,E]``.
            jaw: rotations ``[B,3]`` (axis-angle, radians).
            inside: what the driver's mouth shows in the B frames; None lets the lips alone tell.

        Raises:
            ValueError: if the numbers of expressions and jaws differ or are 0.
        """
        expression, jaw = np.asarray(expression, np.float32), np.asarray(jaw, np.float32)
        if len(expression) != len(jaw) or not len(jaw):
            raise ValueError(f"got {len(expression)} expressions and {len(jaw)} jaws; pass one jaw per frame")
        told = [None] * len(jaw) if inside is None else inside.frames()
        frames = [self._frame(*one) for one in zip(expression, jaw, told, strict=True)]
        image, face, mouth, uncovered = (np.stack(part) for part in zip(*frames, strict=True))
        return Template(image, face, mouth, uncovered)

    def _frame(
        self, expression: NDArray[np.float32], jaw: NDArray[np.float32], told: ToldMouth | None
    ) -> tuple[Image, ...]:
        vertices_m = self.skin.decode(expression[None], jaw[None])
        vertices_px = self.skin.moved(vertices_m)[0]
        marks = self.skin.landmarks(vertices_px)
        view = self.skin.view(vertices_px)
        lids = [
            painter.opening(_opening(marks, curves))
            for painter, (curves, _) in zip(self._eyes, _EYES, strict=True)
        ]
        canvas = self._warp(view, [closed for _, closed in lids])
        for painter, (opening, closed), (_, iris) in zip(self._eyes, lids, _EYES, strict=True):
            gaze = marks[iris[0]] - self.skin.source_landmarks[iris[0]]
            painter.paint(canvas, opening, closed, gaze)
        mouth = self._paint_mouth(canvas, vertices_m[0], marks, told)
        return self._finish(canvas, view, mouth)

    def _warp(self, view: SkinView, closed: list[float]) -> Image:
        """Return the work image ``[W,W,3]`` with moved skin in the region drawn and openings filled over.

        Args:
            view: the moved skin.
            closed: closing of each eye, 0 as the portrait, 1 shut.
        """
        x0, y0, x1, y1 = self.skin.roi
        x, y = self.skin.grid
        source = self.texture.skin.copy()
        for painter, shut in zip(self._eyes, closed, strict=True):
            painter.add_crease(source, shut)
        canvas = self.texture.photo.copy()
        canvas[y0:y1, x0:x1] = cv2.remap(
            source,
            x + view.flow[..., 0] - 0.5,
            y + view.flow[..., 1] - 0.5,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return canvas

    def _paint_mouth(
        self, canvas: Image, vertices_m: Tensor, marks: NDArray[np.float32], told: ToldMouth | None
    ) -> Image:
        """Paint the mouth into ``canvas [W,W,3]``, in place, and return its mask ``[W,W]``."""
        opening = self._mouth.opening(_opening(marks, regions.INNER_LIPS))
        interior = None
        if float(opening.gap.max()) > _FINISH.min_gap_px:
            gap_m = opening.mean_gap / self.skin.px_per_m
            placed = self._mouth.interior.placed(vertices_m, told, gap_m)
            px = self.skin.project(placed.vertices_m[None])[0]
            px[:, :2] += self.skin.offset + torch.from_numpy(self._mouth.offset)
            box = MouthPainter.window(opening, len(canvas))
            interior = self._mouth.interior.render(px, placed.vertices_m, box, self.skin.px_per_m)
            interior = interior._replace(upper_drop_px=placed.upper_drop_m * self.skin.px_per_m, told=told)
        return self._mouth.paint(canvas, opening, interior)

    def _finish(self, canvas: Image, view: SkinView, mouth: Image) -> tuple[Image, ...]:
        """Lay the face over the photograph and average down to the crop's size."""
        x0, y0, x1, y1 = self.skin.roi
        uncovered = self._uncovered(view)
        base = self._background(uncovered, view)
        alpha = cv2.GaussianBlur(
            cv2.erode(view.covered.astype(np.float32), np.ones((3, 3))), (0, 0), _FINISH.edge_blur_px
        )
        alpha = eased(alpha) * ~uncovered
        drawn = base + alpha[..., None] * (canvas[y0:y1, x0:x1] - base)
        image = self._average(drawn, view.flow)
        face = np.zeros(canvas.shape[:2], np.float32)
        face[y0:y1, x0:x1] = view.face
        soft = self._down(cv2.GaussianBlur(face, (0, 0), 0.5 * self.feather_px * self.scale))
        gone = np.zeros_like(face)
        gone[y0:y1, x0:x1] = uncovered
        # twice minus one: the soft edge lies inside the face, where the template is trusted
        return image, np.clip(2.0 * soft - 1.0, 0.0, 1.0), self._down(mouth), self._down(gone)

    def _uncovered(self, view: SkinView) -> Mask:
        """Find the disoccluded pixels of the region drawn, with a rim for the photograph's own soft edge."""
        lost = (self.skin.source_covered & ~view.covered) | view.hidden
        core = large_parts(lost, _FINISH.min_lost * self.skin.size).astype(np.uint8)
        k = 2 * max(1, round(_FINISH.rim * self.skin.size)) + 1
        rim = cv2.dilate(core, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (k, k))).astype(bool)
        return rim & (view.face <= 0.5)

    def _background(self, uncovered: Mask, view: SkinView) -> Image:
        """Return the photograph behind the face in the region drawn ``[h,w,3]``.

        Disoccluded pixels are in-painted from the surroundings of the face (not from the face); a chin that
        has come down throws a shadow.
        """
        x0, y0, x1, y1 = self.skin.roi
        size = self.skin.size
        base = self.texture.photo[y0:y1, x0:x1].copy()
        if uncovered.any():
            reach = 2 * max(2, round(_FINISH.fill_reach * size)) + 1
            near = cv2.dilate(uncovered.astype(np.uint8), np.ones((reach, reach), np.uint8)).astype(bool)
            hole = uncovered | (near & ((view.face > _FINISH.min_face) | self.skin.source_face))
            known = np.asarray(np.clip(base, 0, 255), dtype=np.uint8)
            filled = cv2.inpaint(known, hole.astype(np.uint8), _FINISH.fill_radius_px, cv2.INPAINT_TELEA)
            # also under the face's rim, whose soft edge would let the old chin through
            soft = np.maximum(cv2.GaussianBlur(hole.astype(np.float32), (0, 0), _FINISH.fill_blur_px), hole)
            base += soft[..., None] * (filled - base)
        gained = (view.covered & ~self.skin.source_covered).astype(np.float32)
        if gained.any():
            shade = cv2.GaussianBlur(gained, (0, 0), _FINISH.chin_blur * size)
            base *= 1.0 - _FINISH.chin_shade * np.clip(_FINISH.chin_gain * shade, 0.0, 1.0)[..., None]
        return base

    def _down(self, image: Image) -> Image:
        return cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_AREA)

    def _average(self, drawn: Image, flow: Image) -> NDArray[np.uint8]:
        """Average the region drawn into the crop ``[S,S,3]``.

        Pixels that did not change keep the photograph's own values, which averaging a magnified copy would
        soften.
        """
        x0, y0, x1, y1 = self.skin.roi
        red, green, blue = cv2.split(np.abs(drawn - self.texture.photo[y0:y1, x0:x1]))
        difference = np.maximum(np.maximum(red, green), blue)
        motion = np.hypot(flow[..., 0], flow[..., 1]) / self.scale
        moved = eased((motion - _CHANGED.still) / _CHANGED.moved_over)
        changed = np.maximum(moved, eased((difference - _CHANGED.same) / _CHANGED.differs_over))
        k = self.scale
        size = ((x1 - x0) // k, (y1 - y0) // k)
        weight = cv2.resize(
            cv2.GaussianBlur(changed, (0, 0), _CHANGED.blur * k), size, interpolation=cv2.INTER_AREA
        )
        weight = np.clip(_CHANGED.gain * weight, 0.0, 1.0)[..., None]
        out = self._portrait.copy()
        own = out[y0 // k : y1 // k, x0 // k : x1 // k]
        value = own + weight * (cv2.resize(drawn, size, interpolation=cv2.INTER_AREA) - own)
        own[:] = np.clip(np.round(value), 0, 255).astype(np.uint8)
        return out


def _middles(opening: Opening) -> Image:
    """Return the middles ``[2,2]`` of the upper and of the lower edge, in pixels."""
    middle = np.array([0.5], np.float32)
    return np.concatenate([np.stack(opening.position(middle, edge), 1) for edge in opening.edges(middle)])


def _opening(landmarks: NDArray[np.float32], curves: regions.Curves) -> Opening:
    return Opening.from_points(landmarks[list(curves.upper)], landmarks[list(curves.lower)])
