"""Hair as a sheet of strands from the crown over the skull, then hanging, with volume and a ragged edge.

The sheet is a grid of azimuths around the crown times arc length along the strand. Its base is the skull of
the average head; the length, the front edge and the volume are parameters of the person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from portrait_core.face_model.easing import smoothstep
from portrait_core.training.surfaces import Array, Follower, Skin, grid_faces, grid_normals, wave_noise

COLUMNS = 76
ROWS = 23
CENTRE_M = np.array([0.0, 0.025, -0.075])
TILT_RAD = np.radians(20.0)
HANG_RAD = np.radians(116.0)
"""Polar angle from the crown where long hair leaves the skull and hangs."""
TABLE_ROWS, TABLE_DEGREES = 28, 135.0
"""Rows and polar range of the skull's table, which is indexed by polar angle and azimuth."""
ARC_M = 0.1
"""Metres of strand per radian on the skull (about its radius)."""
# how far short hair reaches down the skull, in degrees from the crown, by azimuth (0 front, 180 back):
# forehead, temple, sideburn before the ear, over the ear, behind it, nape
SHORT_AZIMUTH = np.array([0.0, 35.0, 55.0, 68.0, 78.0, 88.0, 97.0, 108.0, 118.0, 140.0, 180.0])
SHORT_REACH = np.array([80.0, 81.0, 87.0, 99.0, 105.0, 100.0, 96.0, 100.0, 114.0, 126.0, 128.0])


@dataclass(frozen=True)
class HairStyle:
    """Parameters of a hair cut.

    ``cover`` 0 bald to 1 full; ``length_m`` of the hanging part (0 = short); ``volume_m`` thickness over the
    crown; ``fringe_rad`` how far the front reaches beyond the hairline; ``recede_rad`` how far the hairline
    recedes; ``wave`` 0..1 lumps; ``sweep`` -1..1 asymmetry of the fringe.
    """

    cover: float
    length_m: float
    volume_m: float
    fringe_rad: float
    recede_rad: float
    wave: float
    sweep: float


class HairSheet:
    """The hair surface: constant topology, positions from a style and a head."""

    def __init__(self, skin: Skin, triangles: Array) -> None:
        """Take ``triangles [T,3,3]``: the average head's skin without the ears, in metres."""
        self.azimuth = ((np.arange(COLUMNS) + 0.5) / COLUMNS * 2 - 1) * np.pi  # front in the middle
        self.along = np.linspace(0.0, 1.0, ROWS)
        self.faces = grid_faces(ROWS, COLUMNS, closed=True)
        polar = np.radians(np.linspace(0, TABLE_DEGREES, TABLE_ROWS))
        direction = self._direction(*np.meshgrid(polar, self.azimuth, indexing="ij")).reshape(-1, 3)
        radius = farthest_hit(CENTRE_M, direction, triangles, limit_m=0.155).reshape(TABLE_ROWS, COLUMNS)
        radius = fill_holes(radius)  # the ears left holes
        self._skull = CENTRE_M + direction.reshape(TABLE_ROWS, COLUMNS, 3) * radius[..., None]
        self._follower = Follower(skin, self._skull.reshape(-1, 3).astype(np.float32))
        a, b = np.meshgrid(self.along, self.azimuth / np.pi, indexing="ij")
        self.texture_uv = np.stack([(b + 1) / 2, a], -1).reshape(-1, 2).astype(np.float32)
        self._ragged = wave_noise(np.cos(self.azimuth) * 9, np.sin(self.azimuth) * 9, 5)
        self._lump = wave_noise(np.cos(b * np.pi) * 3.0, np.sin(b * np.pi) * 3.0 + a * 1.2, 6)

    def _direction(self, polar: Array, azimuth: Array) -> Array:
        c, s = np.cos(TILT_RAD), np.sin(TILT_RAD)
        x = np.sin(polar) * np.sin(azimuth)
        forward = np.sin(polar) * np.cos(azimuth)
        return np.stack([x, c * np.cos(polar) + s * forward, -s * np.cos(polar) + c * forward], -1)

    def reach(self, style: HairStyle) -> tuple[Array, Array]:
        """Return each strand's end ``[COLUMNS]``: polar angle on the skull, and metres of hanging hair."""
        degrees = np.degrees(np.abs(self.azimuth))
        short = np.radians(np.interp(degrees, SHORT_AZIMUTH, SHORT_REACH))
        front = smoothstep(62.0, 40.0, degrees)
        swept = 1.0 + 0.6 * style.sweep * np.sin(self.azimuth)
        short = short + front * (style.fringe_rad * swept - style.recede_rad)
        short = short - smoothstep(75.0, 45.0, degrees) * 0.4 * style.recede_rad
        long = smoothstep(0.0, 0.05, style.length_m) * smoothstep(44.0, 70.0, degrees)
        polar = short + long * np.maximum(HANG_RAD - short, 0.0)
        ragged = 0.022 + 0.03 * front * smoothstep(0.0, 0.2, style.fringe_rad)
        hang = (
            long * style.length_m * (1 + 0.06 * self._ragged) * (0.88 + 0.12 * smoothstep(60, 110, degrees))
        )
        polar = (polar + ragged * self._ragged * (1 - long)) * smoothstep(-0.1, 0.35, style.cover)
        return polar, hang

    def build(self, style: HairStyle, displacement: Array) -> tuple[Array, Array]:
        """Return positions ``[N,3]`` (metres) and unit normals ``[N,3]`` of a style.

        The sheet follows the head's displacement ``[V,3]`` from the average.
        """
        polar_end, hang = self.reach(style)
        arc = self.along[:, None] * (polar_end * ARC_M + hang)[None]
        polar = np.minimum(arc / ARC_M, polar_end[None])
        drop = np.maximum(arc - polar_end[None] * ARC_M, 0.0)
        azimuth = np.broadcast_to(self.azimuth, polar.shape)
        base, moved = self._lookup(polar, displacement)
        outward = self._direction(polar, azimuth)
        thick = self._thickness(style, polar, drop, hang)
        points = base + moved + outward * thick[..., None]
        points[..., 1] -= drop
        side = np.stack([np.sin(azimuth), np.zeros_like(azimuth), np.cos(azimuth)], -1)
        points += (
            side
            * (0.006 * np.sin(np.minimum(drop / 0.06, 1.5)) - 0.10 * np.maximum(drop - 0.06, 0))[..., None]
        )
        flat = points.reshape(-1, 3).astype(np.float32)
        return flat, grid_normals(flat, ROWS, COLUMNS, closed=True)

    def _lookup(self, polar: Array, displacement: Array) -> tuple[Array, Array]:
        """Interpolate skull point and displacement at each (polar, column) from the tabulated ones."""
        rows = np.clip(np.degrees(polar) / TABLE_DEGREES * (TABLE_ROWS - 1), 0, TABLE_ROWS - 1.001)
        low = rows.astype(int)
        t = (rows - low)[..., None]
        column = np.broadcast_to(np.arange(COLUMNS), polar.shape)
        moved = self._follower(displacement).reshape(TABLE_ROWS, COLUMNS, 3)
        table = self._skull
        base = table[low, column] * (1 - t) + table[low + 1, column] * t
        return base, moved[low, column] * (1 - t) + moved[low + 1, column] * t

    def _thickness(self, style: HairStyle, polar: Array, drop: Array, hang: Array) -> Array:
        """Return the sheet's distance from the skull (m), smallest at the crown's point and at the edge."""
        degrees = np.degrees(np.abs(self.azimuth))[None]
        side = smoothstep(40, 75, degrees)
        full = style.volume_m * (1 - 0.3 * side) * (0.55 + 0.45 * smoothstep(0.0, 0.9, polar))
        long = smoothstep(0.0, 0.05, style.length_m)
        over_ear = long * smoothstep(50, 80, degrees) * smoothstep(165, 120, degrees)
        full = full + np.maximum(0.028 - full, 0) * over_ear * smoothstep(0.7, 1.75, polar)
        to_tip = (1 - self.along)[:, None] * (polar.max(0) * ARC_M + hang)[None]
        aside = self._distance_aside(polar)
        body = 0.5 + 0.35 * smoothstep(70, 95, degrees)  # hanging hair keeps some body at its front edge
        kept_aside = body * smoothstep(0.0, 0.04, drop)
        # flat on the skin where the strands fade out, so that the edge leaves no slit
        taper = smoothstep(0.0, 1.0, (np.minimum(to_tip, aside) - 0.005) / (0.012 + 0.7 * full))
        taper = np.maximum(taper, kept_aside)
        lumps = np.clip(1 + (0.05 + 0.13 * style.wave) * self._lump, 0.7, 1.4)
        kept = (
            taper + (1 - taper) * long * smoothstep(50, 66, degrees) * 0.75
        )  # hanging ends keep their thickness
        return np.asarray(0.001 + taper * 0.005 + kept * full * lumps)

    def _distance_aside(self, polar: Array) -> Array:
        """Return metres along the skull from each grid point to the nearest neighbouring strand's end."""
        end = polar[-1]
        end = (np.roll(end, 1) + end + np.roll(end, -1)) / 3
        best = np.full(polar.shape, 1.0)
        for shift in range(-12, 13):
            gap = np.abs(shift) * 2 * np.pi / COLUMNS * np.sin(np.minimum(polar, np.pi / 2))
            short_by = np.maximum(np.roll(end, shift)[None] - polar, 0.0)
            best = np.minimum(best, np.hypot(gap, short_by))
        return best * ARC_M

    def edge_fade(self, style: HairStyle) -> Array:
        """Return opacity ``[N]``: strands fade over their last millimetres, hanging ones over more."""
        polar_end, hang = self.reach(style)
        to_tip = (1 - self.along)[:, None] * (polar_end * ARC_M + hang)[None]
        soft = smoothstep(0.0, 0.011 + np.minimum(0.15 * hang, 0.015)[None], to_tip)
        return (soft * smoothstep(0.0, 0.3, style.cover)).reshape(-1).astype(np.float32)


def farthest_hit(origin: Array, direction: Array, triangles: Array, limit_m: float) -> Array:
    """Return the distance ``[n]`` along each ray to its last triangle within ``limit_m``; NaN without any."""
    a = triangles[:, 0] - origin
    edge1, edge2 = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    across, normal = np.cross(a, edge1), np.cross(edge1, edge2)
    distance = np.full(len(direction), np.nan)
    numerator = (across * edge2).sum(1)  # a . (edge1 x edge2), by cyclic symmetry
    second = np.cross(edge2, a)
    for i, ray in enumerate(direction):
        along = normal @ ray
        along = np.where(np.abs(along) < 1e-12, np.nan, along)
        t, u, v = numerator / along, (second @ ray) / along, (across @ ray) / along
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (t < limit_m)
        if hit.any():
            distance[i] = t[hit].max()
    return distance


def fill_holes(table: Array) -> Array:
    """Fill NaNs from their neighbours (columns wrap), then smooth a little."""
    known = np.isfinite(table)
    value, weight = np.where(known, table, 0.0), known.astype(float)
    wide = [gaussian_filter(x, (0.5, 4.0), mode=("nearest", "wrap")) for x in (value, weight)]
    filled = np.where(known, value, wide[0] / np.maximum(wide[1], 1e-9))
    return np.asarray(gaussian_filter(filled, (0.6, 0.8), mode=("nearest", "wrap")))
