"""Painting one eye: the eyeball in a moved opening, lashes on its edges, the line of a closed lid."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.contours import Opening, pixel_grid
from portrait_core.template.texture import LASH_BAND, EyeSource, Image, PortraitTexture, smoothstep

_DEAD = 0.12
"""Share of the portrait's opening under which the lids count as met."""
_WIDEST = 1.6
"""Largest opening painted, over the portrait's own: beyond it there is nothing to paint with."""
_LEAST_RANGE = 0.04
"""Least difference between the gaps of the portrait's own lids and of shut ones, in eye widths."""
_LOWER_SHARE = 0.12
"""How much of a blink the lower lid takes."""


class EyePainter:
    """Paints one eye of a portrait.

    The mesh's lids do not touch at full blink when measured between landmarks, and the photograph's do not
    lie exactly on the mesh's, so openings are scaled: the mesh's closed gap maps to 0, its gap at the
    portrait's own expression to the photograph's gap.
    """

    def __init__(self, texture: PortraitTexture, source: EyeSource, mesh: Opening, closed: Opening):
        """``mesh``: the mesh's opening at the portrait's expression; ``closed``: with the lid shut."""
        self.texture, self.source = texture, source
        self._open = _middle(mesh.gap)
        # a portrait's own eyes are as in its photograph, however little they are open
        self._shut = min(_middle(closed.gap), self._open - _LEAST_RANGE * mesh.width)
        self._own = source.opening.gap
        x0, y0, x1, y1 = source.window
        along, height = source.opening.local(*pixel_grid(source.window))
        upper, _ = source.opening.edges(along)
        band = LASH_BAND * source.opening.width
        above = smoothstep((upper - height - band) / (0.5 * band) + 0.5)
        self._crease = texture.lines[y0:y1, x0:x1] * above[..., None]

    def opening(self, mesh: Opening) -> tuple[Opening, float]:
        """The opening to paint for a mesh opening, and how far it is closed (0 as the portrait, 1 shut)."""
        share = (_middle(mesh.gap) - self._shut) / (self._open - self._shut)
        if share < 1.0:
            share = max(share - _DEAD, 0.0) / (1.0 - _DEAD)
        gap, closed = self._own * np.float32(min(share, _WIDEST)), float(np.clip(1.0 - share, 0.0, 1.0))
        return _as_arc(mesh.with_gap(gap, _LOWER_SHARE), closed), closed

    def paint(self, canvas: Image, opening: Opening, closed: float, gaze_px: NDArray[np.floating]) -> None:
        """Paint into ``canvas [W,W,3]`` (0..255), in place.

        Args:
            canvas: skin, already moved, with the openings filled over.
            opening, closed: from :meth:`opening`.
            gaze_px: shift of the iris ``[2]`` from the portrait's, in pixels.
        """
        x0, y0, x1, y1 = self.source.window
        x, y = pixel_grid(self.source.window)
        area = canvas[y0:y1, x0:x1]
        along, height = opening.local(x, y)
        upper, lower = opening.edges(along)
        area += (1.0 - 0.5 * closed) * self._edge_lines(along, height, upper, lower)
        cover = opening.coverage(x, y)[..., None]
        depth = np.maximum(height - upper, 0.0) / (0.09 * opening.width)
        shadow = 1.0 - 0.4 * closed * np.exp(-depth)[..., None]
        area += cover * (self._eyeball(gaze_px) * shadow - area)
        area += self._lid_line(along, height - upper, closed, opening.width)[..., None] * (
            self.source.lash - area
        )

    def add_crease(self, skin: Image, closed: float) -> None:
        """Add to ``skin [W,W,3]``, in place, the lines that stay on it: the crease, which fades as the lid
        unfolds.
        """
        x0, y0, x1, y1 = self.source.window
        skin[y0:y1, x0:x1] += (1.0 - closed) * self._crease

    def _edge_lines(self, along: Image, height: Image, upper: Image, lower: Image) -> Image:
        """Lashes and lid rims of the photograph, carried from its edges to the new ones unstretched."""
        opening, total = self.source.opening, np.zeros((*along.shape, 3), np.float32)
        source_upper, source_lower = opening.edges(along)
        band = LASH_BAND * opening.width
        for edge, source_edge, sign in ((upper, source_upper, -1.0), (lower, source_lower, 1.0)):
            offset = height - edge
            mx, my = opening.position(along, source_edge + offset)
            sample = cv2.remap(self.texture.lines, mx - 0.5, my - 0.5, cv2.INTER_LINEAR)
            outside = np.clip(sign * offset + 0.5, 0.0, 1.0)
            weight = outside * (1.0 - smoothstep((sign * offset - band) / (0.5 * band) + 0.5))
            ends = smoothstep((np.minimum(along, 1 - along) + 0.18) / 0.08)
            total += (weight * ends)[..., None] * sample
        return total

    def _eyeball(self, gaze_px: NDArray[np.floating]) -> Image:
        source = self.source
        limit = np.array([0.3, 0.15]) * source.opening.width
        shift = np.clip(gaze_px, -limit, limit)
        if np.abs(shift).max() < 0.25:
            return source.eyeball
        x, y = pixel_grid(source.window)
        x0, y0 = source.window[:2]
        px, py = x - np.float32(shift[0]), y - np.float32(shift[1])
        moved = cv2.remap(
            source.eyeball, px - x0 - 0.5, py - y0 - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        distance = np.hypot(px - source.iris_center[0], py - source.iris_center[1])
        disc = smoothstep((1.05 * source.iris_radius - distance) / (0.2 * source.iris_radius) + 0.5)
        return source.sclera + disc[..., None] * (moved - source.sclera)

    def _lid_line(self, along: Image, below: Image, closed: float, width: float) -> Image:
        """Strength 0..1 of the dark line where the lids meet; lashes hang below the edge. As broad as lashes
        are: a hair line of half a pixel would be lost on the generator.
        """
        strength = 0.85 * smoothstep(np.asarray((closed - 0.55) / 0.4))
        reach = np.where(below < 0, 0.025, 0.06) * width
        inside = smoothstep(np.minimum(along, 1.0 - along) / 0.12)
        return strength * inside * np.exp(-np.square(below / reach))


def _as_arc(opening: Opening, closed: float) -> Opening:
    """Straighten the line where lids meet: they lie on the ball of the eye, in an arc from corner to corner,
    where the lower lid of an open eye seen from the side has a steep end.
    """
    shift = closed * (_ARC @ opening.lower - opening.lower).astype(np.float32)
    return replace(opening, upper=opening.upper + shift, lower=opening.lower + shift)


def _arc_projection(samples: int) -> NDArray[np.float64]:
    """Give the matrix ``[n,n]`` that fits a parabola, higher on one side than on the other if need be, to
    heights between the corners.
    """
    u = np.linspace(0.0, 1.0, samples)
    shapes = np.stack([u * (1.0 - u), u * (1.0 - u) * (2.0 * u - 1.0)], axis=1)
    return np.asarray(shapes @ np.linalg.pinv(shapes))


_ARC = _arc_projection(65)


def _middle(gap: Image) -> float:
    """Mean height over the middle of an eye, where lids differ most between open and shut."""
    return float(gap[16:49].mean())
