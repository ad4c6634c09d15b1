"""Painted surface detail: one small texture atlas per person, multiplied onto vertex colours.

The skin's tile is a cylinder around the head, so that brows, stubble and freckles are drawn in millimetres;
the others hold an eye, hair strands, teeth and cloth. Values are ratios to the surface's own colour, except
that the eye's tile is its colour. A fourth channel is opacity (hair strands).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from portrait_core.face_model.easing import smoothstep
from portrait_core.training.surfaces import Array, wave_noise

SKIN_SIZE = (300, 512)  # rows, columns
SKIN_TOP_M, SKIN_BOTTOM_M = 0.115, -0.165
SKIN_AXIS_Z_M = -0.08
SKIN_TURN_RAD = np.radians(112.0)
EYE_SIZE = 128
EYE_SPAN_RAD = 1.6
HAIR_SIZE = (96, 384)
CLOTH_SIZE = (32, 256)
ATLAS_SIZE = (300 + 128, 512)
TEETH_SIZE = (32, 128)
EYE_ORIGIN, HAIR_ORIGIN, CLOTH_ORIGIN, TEETH_ORIGIN = (300, 0), (300, 128), (396, 128), (396, 384)
TOOTH_EDGES_M = (0.0, 0.0085, 0.0152, 0.0225, 0.0290)
# places on the average head in millimetres, on the subject's right; the other side is their mirror image
BROW_UPPER_MM = (
    (-60.0, 20.3, -4.1),
    (-51.6, 26.2, 8.8),
    (-44.0, 28.0, 17.0),
    (-30.6, 27.2, 25.0),
    (-16.3, 25.2, 28.9),
)
BROW_LOWER_MM = (
    (-57.0, 16.5, 2.8),
    (-50.5, 19.9, 12.8),
    (-42.0, 22.7, 20.0),
    (-30.2, 20.8, 26.0),
    (-14.4, 14.1, 28.2),
)
CHEEK_MM = (-50.2, -35.3, 9.5)
UNDER_EYE_MM = (-33.2, -6.6, 16.5)


@dataclass(frozen=True)
class Paint:
    """Colours and strengths of a person's surface detail; colours ``[3]`` in 0..1, the rest 0..1."""

    skin: Array
    hair: Array
    iris: Array
    brow: float
    brow_width: float
    beard: float
    moustache: float
    blush: float
    freckles: float
    eye_shade: float
    strands: float
    pattern: float
    cloth_ratio: Array


def skin_coordinates(position: Array) -> Array:
    """Return atlas pixel coordinates ``[N,2]`` (column, row) of points of the average head (metres)."""
    turn = np.arctan2(position[:, 0], position[:, 2] - SKIN_AXIS_Z_M)
    u = (np.clip(turn / SKIN_TURN_RAD, -1, 1) + 1) / 2
    v = np.clip((SKIN_TOP_M - position[:, 1]) / (SKIN_TOP_M - SKIN_BOTTOM_M), 0, 1)
    # The back of the head is mapped to a blank row, so that triangles across the seam show no face.
    v = v * (1 - np.clip((np.abs(turn) - SKIN_TURN_RAD) / np.radians(25.0), 0, 1))
    return np.stack([2 + u * (SKIN_SIZE[1] - 5), 2 + v * (SKIN_SIZE[0] - 5)], 1).astype(np.float32)


def both_sides(places_mm: Sequence[tuple[float, float, float]]) -> Array:
    """Return places given in millimetres, then their mirror images, in metres: ``[2n,3]``."""
    right = np.array(places_mm) / 1000.0
    return np.concatenate([right, right * [-1.0, 1.0, 1.0]])


def eye_coordinates(offset: Array) -> Array:
    """Return atlas coordinates ``[N,2]`` of eyeball vertices from their rest offset to the eye's centre."""
    unit = offset / np.linalg.norm(offset, axis=1, keepdims=True)
    polar = np.arccos(np.clip(unit[:, 2], -1, 1)) / EYE_SPAN_RAD
    around = unit[:, :2] / (np.linalg.norm(unit[:, :2], axis=1, keepdims=True) + 1e-9)
    xy = np.clip(polar, 0, 0.98)[:, None] * around * (EYE_SIZE / 2 - 2)
    centre = np.array([EYE_ORIGIN[1], EYE_ORIGIN[0]]) + EYE_SIZE / 2 - 0.5
    return (centre + xy * [1, -1]).astype(np.float32)


def teeth_coordinates(position: Array, upper: bool) -> Array:
    """Return atlas coordinates ``[N,2]`` of upper or lower teeth on the average head; gums come first."""
    low, high = position[:, 1].min(), position[:, 1].max()
    down = (high - position[:, 1]) / (high - low)
    uv = np.stack([position[:, 0] / 0.072 + 0.5, down if upper else 1 - down], 1)
    return tile_coordinates(uv, TEETH_ORIGIN, TEETH_SIZE)


def tile_coordinates(uv: Array, origin: tuple[int, int], size: tuple[int, int]) -> Array:
    """Return atlas coordinates ``[N,2]`` of tile coordinates in 0..1, kept off the tile's border."""
    scale = np.array([size[1] - 3, size[0] - 3])
    return (np.array([origin[1], origin[0]]) + 1 + np.clip(uv, 0, 1) * scale).astype(np.float32)


class Painter:
    """Holds the fixed masks, and paints a :class:`Paint` into an atlas ``[428,512,4]``."""

    def __init__(self) -> None:
        rows, columns = np.arange(SKIN_SIZE[0]), np.arange(SKIN_SIZE[1])
        turn = ((columns - 2) / (SKIN_SIZE[1] - 5) * 2 - 1) * SKIN_TURN_RAD
        height = SKIN_TOP_M - (rows - 2) / (SKIN_SIZE[0] - 5) * (SKIN_TOP_M - SKIN_BOTTOM_M)
        self._x, self._y = np.meshgrid(turn * 0.1, height)  # about metres on the face
        rng = np.random.default_rng(7)
        self._grain = gaussian_filter(rng.normal(size=SKIN_SIZE), (1.2, 0.6))
        self._grain /= self._grain.std()
        self._mottle = wave_noise(self._x * 60, self._y * 60, 3)
        self._brow = [self._brow_mask(width).astype(np.float32) for width in (0.6, 1.0, 1.6)]
        self._beard, self._moustache = self._beard_masks()
        self._blush = self._spots(CHEEK_MM, 0.016)
        self._shade = self._spots(UNDER_EYE_MM, 0.008, 4.0)
        self._freckles = self._freckle_mask(rng)
        self._eye_polar, self._eye_streak = self._eye_maps()
        self._strand = self._strand_map(rng)
        self._teeth = self._teeth_map()
        self._cloth_column = np.arange(CLOTH_SIZE[1])
        # float32 halves the cost of painting
        self._texture = (1 + 0.018 * self._mottle + 0.012 * self._grain).astype(np.float32)
        self._stubble = np.clip(0.9 + 0.13 * self._grain, 0, 1.15).astype(np.float32)
        self._beard, self._moustache = (
            m.astype(np.float32) * self._stubble for m in (self._beard, self._moustache)
        )
        self._blush, self._shade = self._blush.astype(np.float32), self._shade.astype(np.float32)
        self._freckles = self._freckles.astype(np.float32)
        masks = [self._blush, self._shade, self._freckles, self._beard, self._moustache, *self._brow]
        self._rows = {id(mask): painted_rows(mask) for mask in masks}

    def _spots(self, place_mm: tuple[float, float, float], width_m: float, drop_px: float = 0.0) -> Array:
        """Draw soft spots at a place and its mirror image; ``drop_px`` moves them down."""
        total = np.zeros(SKIN_SIZE)
        for column, row in skin_coordinates(both_sides([place_mm])):
            x = (np.arange(SKIN_SIZE[1]) - column) / (width_m * 1250)
            y = (np.arange(SKIN_SIZE[0]) - row - drop_px) / (width_m * 1070 * 0.8)
            total += np.exp(-0.5 * (x[None] ** 2 + y[:, None] ** 2))
        return total

    def _brow_mask(self, width: float) -> Array:
        """Draw the brows between their upper and lower edges, with hairs; ``width`` scales thickness."""
        mask = np.zeros(SKIN_SIZE)
        column = np.arange(SKIN_SIZE[1])
        upper_sides = np.split(skin_coordinates(both_sides(BROW_UPPER_MM)), 2)
        lower_sides = np.split(skin_coordinates(both_sides(BROW_LOWER_MM)), 2)
        for side, upper, lower in zip(("right", "left"), upper_sides, lower_sides, strict=True):
            order = np.argsort(upper[:, 0])
            top = np.interp(column, upper[order, 0], upper[order, 1])
            bottom = np.interp(column, lower[order, 0], lower[order, 1])
            middle, half = (top + bottom) / 2, np.abs(bottom - top) / 2 * width * 0.95 + 1.0
            inner = np.abs(upper[-1, 0] - 256)
            ends = smoothstep(inner - 3, inner + 5, np.abs(column - 256.0))
            tail = np.abs(upper[0, 0] - 256)
            ends = ends * smoothstep(tail + 2, tail - 26, np.abs(column - 256.0)) ** 0.6
            here = (column > 256) == (side == "left")
            profile = np.exp(-(((np.arange(SKIN_SIZE[0])[:, None] - middle) / (half * ends**0.5 + 0.8)) ** 2))
            mask += profile * (ends * here)[None]
        hairs = np.clip(0.95 + 0.18 * self._grain, 0, 1.2)
        return np.clip(mask * hairs, 0, 1)

    def _beard_masks(self) -> tuple[Array, Array]:
        """Draw where a beard and a moustache grow."""
        x, y = np.abs(self._x), self._y
        line = np.interp(x, [0, 0.03, 0.06, 0.10, 0.115, 0.13], [-0.083, -0.083, -0.066, -0.045, -0.01, 0.01])
        beard = (
            smoothstep(0.004, -0.012, y - line) * smoothstep(-0.140, -0.118, y) * smoothstep(0.155, 0.135, x)
        )
        lip = np.exp(-((x / 0.032) ** 4) - ((y + 0.073) / 0.0135) ** 4)
        chin_strip = 1 - 0.5 * np.exp(-((x / 0.03) ** 4) - ((y + 0.088) / 0.006) ** 2)
        moustache = (
            np.exp(-((x / 0.031) ** 4)) * smoothstep(-0.052, -0.0575, y) * smoothstep(-0.073, -0.066, y)
        )
        moustache += (
            np.exp(-(((x - 0.033) / 0.007) ** 2)) * smoothstep(-0.06, -0.068, y) * smoothstep(-0.1, -0.085, y)
        )
        return beard * (1 - np.clip(1.3 * lip, 0, 1)) * chin_strip, np.clip(moustache, 0, 1)

    def _freckle_mask(self, rng: np.random.Generator) -> Array:
        dots = (rng.random(SKIN_SIZE) < 0.008) * rng.uniform(0.4, 1.0, SKIN_SIZE)
        dots = np.clip(gaussian_filter(dots, 0.9) * 5.0, 0, 1)
        where = np.exp(-((self._x / 0.055) ** 4) - ((self._y + 0.022) / 0.03) ** 2)
        return dots * where

    def _eye_maps(self) -> tuple[Array, Array]:
        c = np.arange(EYE_SIZE) - EYE_SIZE / 2 + 0.5
        x, y = np.meshgrid(c, -c)
        polar = np.hypot(x, y) / (EYE_SIZE / 2 - 2) * EYE_SPAN_RAD
        around = np.arctan2(y, x)
        streak = 1 + 0.14 * np.sin(17 * around) * np.cos(7 * around + 1) + 0.1 * np.sin(29 * around + 2)
        return polar, streak

    def _teeth_map(self) -> Array:
        """Draw the ratio ``[32,128,3]``: dark lines between teeth, gums in the first rows."""
        x = np.abs((np.arange(TEETH_SIZE[1]) + 0.5) / TEETH_SIZE[1] * 2 - 1) * 0.036
        gap = sum(np.exp(-(((x - edge) / 0.0006) ** 2)) for edge in TOOTH_EDGES_M)
        gum = smoothstep(0.42, 0.30, (np.arange(TEETH_SIZE[0]) + 0.5) / TEETH_SIZE[0])[:, None, None]
        tooth = np.ones((*TEETH_SIZE, 3)) * (1 - 0.4 * np.clip(gap, 0, 1))[None, :, None]
        return np.asarray(tooth + gum * (np.array([0.72, 0.36, 0.36]) - tooth))

    def _strand_map(self, rng: np.random.Generator) -> Array:
        """Draw strand noise of zero mean and unit variance, stretched along the strand (rows)."""
        noise = sum(
            gaussian_filter(rng.normal(size=HAIR_SIZE), (along, across), mode=("nearest", "wrap")) * weight
            for along, across, weight in ((14, 0.7, 1.0), (22, 2.2, 2.2), (30, 6.0, 4.0))
        )
        return np.asarray(noise / np.std(noise))

    def paint(self, paint: Paint) -> Array:
        """Draw the atlas."""
        atlas = np.ones((*ATLAS_SIZE, 4), dtype=np.float32)
        atlas[: SKIN_SIZE[0], :, :3] = self._paint_skin(paint)
        r, c = EYE_ORIGIN
        atlas[r : r + EYE_SIZE, c : c + EYE_SIZE, :3] = self._paint_eye(paint)
        r, c = HAIR_ORIGIN
        hair = atlas[r : r + HAIR_SIZE[0], c : c + HAIR_SIZE[1]]
        hair[..., :3] = np.clip(1 + (0.10 + 0.22 * paint.strands) * self._strand, 0.25, 2.2)[..., None]
        hair[..., 3] = np.clip(0.5 + 0.28 * self._strand, 0, 1)
        r, c = TEETH_ORIGIN
        atlas[r : r + TEETH_SIZE[0], c : c + TEETH_SIZE[1], :3] = self._teeth
        r, c = CLOTH_ORIGIN
        stripes = 0.5 + 0.5 * np.sin(self._cloth_column / CLOTH_SIZE[1] * 2 * np.pi * 28)
        cloth = 1 + paint.pattern * stripes[:, None] * (paint.cloth_ratio - 1)
        atlas[r : r + CLOTH_SIZE[0], c : c + CLOTH_SIZE[1], :3] = cloth
        return atlas

    def _paint_skin(self, paint: Paint) -> Array:
        hair_ratio = np.clip(paint.hair / np.maximum(paint.skin, 0.02), 0.05, 1.4)
        ratio = np.repeat(self._texture[..., None], 3, 2)

        def blend(strength: float, mask: Array, colour: Array | list[float]) -> None:
            if strength <= 0:
                return
            rows = self._rows[id(mask)]
            weight = np.minimum(np.float32(strength) * mask[rows], np.float32(0.95))
            for channel, value in enumerate(colour):  # in place, since this is much of a person's cost
                plane = ratio[rows, :, channel]
                plane += weight * (np.float32(value) - plane)

        blend(0.55 * paint.blush, self._blush, [1.02, 0.72, 0.70])
        blend(0.55 * paint.eye_shade, self._shade, [0.72, 0.62, 0.66])
        blend(0.75 * paint.freckles, self._freckles, [0.72, 0.56, 0.46])
        blend(paint.beard, self._beard, hair_ratio * 0.9)
        blend(paint.moustache, self._moustache, hair_ratio * 0.9)
        low = 0 if paint.brow_width < 0.5 else 1  # between two of the three widths
        share = paint.brow_width * 2 - low
        dark = np.minimum(hair_ratio * 0.7, 0.62)
        blend(1.25 * paint.brow * (1 - share), self._brow[low], dark)
        blend(1.25 * paint.brow * share, self._brow[low + 1], dark)
        return ratio

    def _paint_eye(self, paint: Paint) -> Array:
        polar = self._eye_polar[..., None]
        sclera = np.array([0.90, 0.875, 0.86]) * (1 - 0.10 * smoothstep(0.45, 1.0, polar) * [0.6, 1.2, 1.2])
        inner = smoothstep(0.36, 0.15, polar)
        iris = paint.iris * self._eye_streak[..., None] * (0.85 + 0.5 * inner)
        iris = iris * (1 - 0.65 * smoothstep(0.29, 0.36, polar))
        out = sclera + smoothstep(0.385, 0.345, polar) * (iris - sclera)
        return np.asarray(out + smoothstep(0.165, 0.13, polar) * (np.array([0.02, 0.02, 0.022]) - out))


def painted_rows(mask: Array) -> slice:
    """Return the rows that a mask covers."""
    rows = np.flatnonzero(mask.max(1) > 0.004)
    return slice(int(rows[0]), int(rows[-1]) + 1)
