"""Painting one eye: the eyeball in a moved opening, lashes on its edges, the line of a closed lid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.contours import N_EDGE, LocalPixels, Opening, pixel_grid
from portrait_core.face_model.easing import eased
from portrait_core.template.texture import LASH_BAND, EyeSource, Image, PortraitTexture


@dataclass(frozen=True)
class _Lids:
    """Motion of openings with the mesh's lids."""

    dead: float = 0.12
    """Share of the portrait's opening under which the lids count as met."""
    max_open: float = 1.6
    """Largest opening painted, over the portrait's own: beyond it there is nothing to paint with."""
    min_range: float = 0.04
    """Smallest difference between the gaps of the portrait's own lids and of shut ones, in eye widths."""
    lower_share: float = 0.12
    """Share of a blink that the lower lid takes."""


@dataclass(frozen=True)
class _Lines:
    """Carrying of the photograph's lines around an eye; lengths along the chord are shares of it."""

    fade: float = 0.5
    """Width over which the lash band's lines fade, in lash bands."""
    closed: float = 0.5
    """Share of their strength that lashes and lid rims lose on a shut eye."""
    beyond: float = 0.18
    """Length beyond the corners at which lines end."""
    ends: float = 0.08
    """Length over which lines end."""


@dataclass(frozen=True)
class _Ball:
    """Painting of the eyeball."""

    shadow: float = 0.4
    """Share of the light that a closing lid takes at its edge."""
    shadow_reach: float = 0.09
    """Reach of this shadow, in eye widths."""
    max_gaze: tuple[float, float] = (0.3, 0.15)
    """Largest shift of the iris across and up, in eye widths."""
    min_gaze_px: float = 0.25
    """Shift of the iris below which the photograph's eyeball is used, in pixels."""
    disc: float = 1.05
    disc_edge: float = 0.2
    """Radius of the moved disc and width of its soft edge, in radii of the iris."""


@dataclass(frozen=True)
class _LidLine:
    """The dark line where lids meet.

    It is as broad as lashes are: a hair line of half a pixel would be lost on the generator.
    """

    strength: float = 0.85
    closed_from: float = 0.55
    closed_over: float = 0.4
    """Closing at which the line begins, and the further closing over which it gains its strength."""
    above: float = 0.025
    below: float = 0.06
    """Reach above and below the edge, in eye widths; lashes hang below it."""
    ends: float = 0.12
    """Share of the chord at the corners over which the line grows."""


_LIDS, _LINES, _BALL, _LINE = _Lids(), _Lines(), _Ball(), _LidLine()


class EyePainter:
    """Paints one eye of a portrait.

    The mesh's lids do not touch at full blink when measured between landmarks, and the photograph's do not
    lie exactly on the mesh's, so openings are scaled: the mesh's closed gap maps to 0, its gap at the
    portrait's own expression to the photograph's gap.
    """

    def __init__(self, texture: PortraitTexture, source: EyeSource, mesh: Opening, closed: Opening) -> None:
        """Prepare the painter.

        Args:
            texture: the portrait, taken apart.
            source: the eye's part of it.
            mesh: the mesh's opening at the portrait's expression, in work pixels.
            closed: the mesh's opening with the lid shut.
        """
        self.texture, self.source = texture, source
        # over the middle half, where lids differ most between open and shut
        self._open = mesh.mean_gap
        # a portrait's own eyes are as in its photograph, however little they are open
        # lids that pass each other in a full blink are shut where they meet
        self._shut = min(max(closed.mean_gap, 0.0), self._open - _LIDS.min_range * mesh.width)
        self._own = source.opening.gap
        x0, y0, x1, y1 = source.window
        pixels = source.opening.pixels(*pixel_grid(source.window))
        band = LASH_BAND * source.opening.width
        above = eased((pixels.upper - pixels.height - band) / (_LINES.fade * band) + 0.5)
        self._crease = texture.lines[y0:y1, x0:x1] * above[..., None]

    def opening(self, mesh: Opening) -> tuple[Opening, float]:
        """Return the opening to paint for a mesh opening, and its closing: 0 as the portrait, 1 shut."""
        share = (mesh.mean_gap - self._shut) / (self._open - self._shut)
        if share < 1.0:
            share = max(share - _LIDS.dead, 0.0) / (1.0 - _LIDS.dead)
        gap, closed = (
            self._own * np.float32(min(share, _LIDS.max_open)),
            float(np.clip(1.0 - share, 0.0, 1.0)),
        )
        return _as_arc(mesh.with_gap(gap, _LIDS.lower_share), closed), closed

    def paint(self, canvas: Image, opening: Opening, closed: float, gaze_px: NDArray[np.floating]) -> None:
        """Paint the eye into ``canvas``, in place.

        Args:
            canvas: moved skin with the openings filled over ``[W,W,3]``, 0..255.
            opening: the opening from :meth:`opening`.
            closed: its closing from :meth:`opening`.
            gaze_px: shift of the iris ``[2]`` from the portrait's, in pixels.
        """
        x0, y0, x1, y1 = self.source.window
        area = canvas[y0:y1, x0:x1]
        pixels = opening.pixels(*pixel_grid(self.source.window))
        area += (1.0 - _LINES.closed * closed) * self._edge_lines(pixels)
        depth = np.maximum(pixels.below_upper, 0.0) / (_BALL.shadow_reach * opening.width)
        shadow = 1.0 - _BALL.shadow * closed * np.exp(-depth)[..., None]
        area += pixels.coverage()[..., None] * (self._eyeball(gaze_px) * shadow - area)
        area += self._lid_line(pixels, closed)[..., None] * (self.source.lash - area)

    def add_crease(self, skin: Image, closed: float) -> None:
        """Add the lines that stay on the skin (the crease) to ``skin [W,W,3]``, in place.

        They fade as the lid unfolds.
        """
        x0, y0, x1, y1 = self.source.window
        skin[y0:y1, x0:x1] += (1.0 - closed) * self._crease

    def _edge_lines(self, pixels: LocalPixels) -> Image:
        """Carry the photograph's lashes and lid rims to the new edges, unstretched: ``[h,w,3]``."""
        opening, total = self.source.opening, np.zeros((*pixels.along.shape, 3), np.float32)
        source_upper, source_lower = opening.edges(pixels.along)
        band = LASH_BAND * opening.width
        ends = eased((pixels.to_corner + _LINES.beyond) / _LINES.ends)
        for edge, source_edge, sign in (
            (pixels.upper, source_upper, -1.0),
            (pixels.lower, source_lower, 1.0),
        ):
            offset = pixels.height - edge
            mx, my = opening.position(pixels.along, source_edge + offset)
            sample = cv2.remap(self.texture.lines, mx - 0.5, my - 0.5, cv2.INTER_LINEAR)
            outside = np.clip(sign * offset + 0.5, 0.0, 1.0)
            weight = outside * (1.0 - eased((sign * offset - band) / (_LINES.fade * band) + 0.5))
            total += (weight * ends)[..., None] * sample
        return total

    def _eyeball(self, gaze_px: NDArray[np.floating]) -> Image:
        """Return the eyeball ``[h,w,3]`` with the iris shifted by ``gaze_px [2]``."""
        source = self.source
        limit = np.array(_BALL.max_gaze) * source.opening.width
        shift = np.clip(gaze_px, -limit, limit)
        if np.abs(shift).max() < _BALL.min_gaze_px:
            return source.eyeball
        x, y = pixel_grid(source.window)
        x0, y0 = source.window[:2]
        px, py = x - np.float32(shift[0]), y - np.float32(shift[1])
        moved = cv2.remap(
            source.eyeball, px - x0 - 0.5, py - y0 - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        distance = np.hypot(px - source.iris_center[0], py - source.iris_center[1])
        radius = source.iris_radius
        disc = eased((_BALL.disc * radius - distance) / (_BALL.disc_edge * radius) + 0.5)
        return source.sclera + disc[..., None] * (moved - source.sclera)

    def _lid_line(self, pixels: LocalPixels, closed: float) -> Image:
        """Return the strength ``[h,w]``, 0..1, of the dark line where the lids meet."""
        below = pixels.below_upper
        strength = _LINE.strength * eased(np.asarray((closed - _LINE.closed_from) / _LINE.closed_over))
        reach = np.where(below < 0, _LINE.above, _LINE.below) * pixels.width
        inside = eased(pixels.to_corner / _LINE.ends)
        return strength * inside * np.exp(-np.square(below / reach))


def _as_arc(opening: Opening, closed: float) -> Opening:
    """Straighten the line where lids meet, as far as they are ``closed`` (0..1).

    They lie on the ball of the eye, in an arc from corner to corner, where the lower lid of an open eye seen
    from the side has a steep end.
    """
    shift = closed * (_ARC @ opening.lower - opening.lower).astype(np.float32)
    return replace(opening, upper=opening.upper + shift, lower=opening.lower + shift)


def _arc_projection(samples: int) -> NDArray[np.float64]:
    """Return the matrix ``[n,n]`` that fits an arc to heights at n even steps between the corners.

    The arc is a parabola, higher on one side than on the other if need be.
    """
    u = np.linspace(0.0, 1.0, samples)
    shapes = np.stack([u * (1.0 - u), u * (1.0 - u) * (2.0 * u - 1.0)], axis=1)
    return np.asarray(shapes @ np.linalg.pinv(shapes))


_ARC = _arc_projection(N_EDGE)
