"""The portrait taken apart: skin without its openings, the lines along their edges, colours to paint with.

A photograph of an open eye has no texture for a closed lid, and a photograph of teeth none for closed lips.
So the openings and the lines around them (lashes, creases, the line between the lips) are lifted off and
the skin under them is filled in smoothly; moving skin samples the filled image, and the lines are laid back
on where the edges have moved to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import spsolve

from portrait_core.face_model import landmark_regions as regions
from portrait_core.face_model.contours import Opening, pixel_grid, window
from portrait_core.face_model.easing import eased
from portrait_core.template.lip_hair import LipHair, find_hair
from portrait_core.template.lip_line import closed_lips, is_closed, without_gap

Image = NDArray[Any]
"""Colours 0..255 or weights 0..1, float32."""

LID_MARGIN = 0.30
"""How far above the upper lid's edge lines are lifted off (lashes and crease), in eye widths."""
LOWER_LID_MARGIN = 0.13
_CORNER_REACH = 0.22
"""How far beyond an eye's corners lashes are lifted off, in eye widths."""
_LIMBUS = 1.15
"""Radius of the iris with its soft rim, over the iris's."""
_LID_SHADE, _LID_SHADE_REACH = 0.3, 0.08
"""Share of light that the upper lid takes from the white of the eye at its edge, and how far down, in eye
widths."""
LASH_BAND = 0.11
"""Lines nearer to the edge than this travel with the edge; the rest (the crease) stays on the skin."""
LIP_MARGIN = 0.035
"""How far around the mouth's opening the line between closed lips reaches, in mouth widths."""
PARTED_LIP_MARGIN = 0.045
"""The same of parted lips: what shines or is dark between them lies on both sides of the landmarks there."""

_PARTED_CORNER = 0.10
"""How far beyond the corners of parted lips the dark between them reaches, in mouth widths."""
_GAP_UNDER_HAIR = 0.10
"""Mean gap between lips under a moustache, in mouth widths, below which they meet: landmarks guess there."""


def membrane_fill(image: Image, hole: NDArray[np.bool_]) -> Image:
    """Replace the pixels of ``hole [H,W]`` of an image ``[H,W,C]`` by the smooth surface (Laplace's equation)
    through the pixels around them.
    """
    out = image.copy()
    index = np.full(hole.shape, -1)
    ys, xs = np.nonzero(hole)
    if not len(ys):
        return out
    index[ys, xs] = np.arange(len(ys))
    rows, columns = [np.arange(len(ys))], [np.arange(len(ys))]
    diagonal = np.zeros(len(ys))
    right = np.zeros((len(ys), image.shape[2]))
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        y, x = ys + dy, xs + dx
        inside = (y >= 0) & (y < hole.shape[0]) & (x >= 0) & (x < hole.shape[1])
        diagonal += inside
        y, x = np.clip(y, 0, hole.shape[0] - 1), np.clip(x, 0, hole.shape[1] - 1)
        neighbour = np.where(inside, index[y, x], -1)
        known = inside & (neighbour < 0)
        right[known] += image[y[known], x[known]]
        unknown = neighbour >= 0
        rows.append(np.nonzero(unknown)[0])
        columns.append(neighbour[unknown])
    values = [diagonal + 1e-9] + [np.full(len(r), -1.0) for r in rows[1:]]
    matrix = sp.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(len(ys),) * 2
    )
    out[ys, xs] = spsolve(matrix.tocsc(), right).reshape(len(ys), -1)
    return out


@dataclass(frozen=True)
class EyeSource:
    """One eye of the portrait, in work pixels."""

    opening: Opening
    window: tuple[int, int, int, int]
    margin: float
    """Reach of the lifted lines above the upper edge, in pixels."""
    eyeball: Image
    """The eye's colours inside the window ``[h,w,3]``, completed under the lids."""
    sclera: Image
    """The same without the iris."""
    iris_center: Image
    iris_radius: float
    lash: Image
    """Colour of the lash line ``[3]``."""


@dataclass(frozen=True)
class PortraitTexture:
    """The portrait at work size, colours 0..255 as float32."""

    photo: Image
    skin: Image
    """The photograph with eyes, mouth and the lines around them filled over."""
    lines: Image
    """``photo - skin``."""
    eyes: tuple[EyeSource, EyeSource]
    """The subject's right eye, then the left."""
    mouth: Opening
    """Where the photograph's lips part; without height, on the line between them, where they meet."""
    lips_meet: bool
    skin_color: Image
    """Mean colour of the face ``[3]``."""
    lip_line: Image
    """Colour of the line between closed lips ``[3]``."""
    lip_color: Image
    """Colour of the lips ``[3]``."""
    lip_saturation: float
    """Saturation of the more colourful part of the lips, 0..1."""
    highlight: float
    """Luminance of the picture's brightest parts, 0..255."""
    mouth_light: float
    """Luminance of the skin around the mouth where it is lit, 0..255."""
    shadow: float
    """Luminance of the face's darkest parts, 0..255."""
    hair: LipHair | None
    """The hair over the upper lip, if there is any."""

    @classmethod
    def build(cls, photo: Image, landmarks: NDArray[np.floating]) -> PortraitTexture:
        """Take a portrait apart.

        Args:
            photo: ``[W,W,3]`` float32, 0..255.
            landmarks: ``[478,2]`` in its pixels.
        """
        skin = photo.copy()
        eyes = []
        for curves, iris, brow in (
            (regions.RIGHT_EYE, regions.RIGHT_IRIS, regions.RIGHT_BROW_LOWER),
            (regions.LEFT_EYE, regions.LEFT_IRIS, regions.LEFT_BROW_LOWER),
        ):
            opening = Opening.from_points(landmarks[list(curves.upper)], landmarks[list(curves.lower)])
            margin = _lid_margin(opening, landmarks[list(brow)])
            box = window(
                landmarks[list(curves.upper + curves.lower)], margin + 0.2 * opening.width, len(photo)
            )
            _lift(skin, opening, box, margin, LOWER_LID_MARGIN * opening.width, 0.32 * opening.width)
            eyes.append(_eye_source(photo, skin, opening, box, margin, landmarks[list(iris)]))
        tones = _FaceTones.of(photo, landmarks)
        lips = regions.INNER_LIPS
        mouth = Opening.from_points(landmarks[list(lips.upper)], landmarks[list(lips.lower)])
        hair = find_hair(photo, mouth, landmarks, float(tones.skin.mean()))
        # hair hides the line, and has darker ones of its own
        meet = is_closed(photo, mouth) if hair is None else mouth.mean_gap < _GAP_UNDER_HAIR * mouth.width
        if meet:
            mouth = closed_lips(photo, mouth) if hair is None else without_gap(mouth)
        reach = (LIP_MARGIN if meet else PARTED_LIP_MARGIN) * mouth.width
        box = window(landmarks[list(lips.upper + lips.lower)], 5 * reach, len(photo))
        _lift(skin, mouth, box, reach, reach, corner=0.0 if meet else _PARTED_CORNER * mouth.width)
        line = tones.between_lips()
        if meet:
            line = _line_color(photo, mouth, line)
        return cls(
            photo=photo,
            skin=skin,
            lines=photo - skin,
            eyes=(eyes[0], eyes[1]),
            mouth=mouth,
            lips_meet=meet,
            skin_color=tones.skin,
            lip_line=line,
            lip_color=tones.lip,
            lip_saturation=tones.lip_saturation,
            highlight=tones.highlight,
            mouth_light=tones.mouth_light,
            shadow=tones.shadow,
            hair=hair,
        )


class _FaceTones(NamedTuple):
    """Colours ``[3]`` and luminances of a photographed face."""

    skin: Image
    lip: Image
    lip_saturation: float
    highlight: float
    mouth_light: float
    shadow: float

    @classmethod
    def of(cls, photo: Image, landmarks: NDArray[np.floating]) -> _FaceTones:
        """Measure the photograph ``[W,W,3]`` with landmarks ``[478,2]``."""
        soft = cv2.GaussianBlur(photo, (0, 0), 2)
        ring = landmarks[[117, 346, 50, 280, 151, 108, 337, 6]].astype(int).clip(0, len(photo) - 1)
        skin = np.median(soft[ring[:, 1], ring[:, 0]], axis=0)
        beside = landmarks[[164, 18, 200, 205, 425, 57, 287]].astype(int).clip(0, len(photo) - 1)
        near = soft[beside[:, 1], beside[:, 0]]
        # the lower lip between its contours: hair and noses' shadows lie on the upper one
        inner, outer = (landmarks[list(c.lower)] for c in (regions.INNER_LIPS, regions.OUTER_LIPS))
        share = np.linspace(0.35, 0.75, 5)[:, None, None]
        places = ((1 - share) * inner[3:8] + share * outer[3:8]).reshape(-1, 2).astype(int)
        places = places.clip(0, len(photo) - 1)
        lips = soft[places[:, 1], places[:, 0]]
        saturation = (lips.max(1) - lips.min(1)) / np.maximum(lips.max(1), 1.0)
        face = np.zeros(photo.shape[:2], np.uint8)
        cv2.fillConvexPoly(face, cv2.convexHull(landmarks[list(regions.FACE_OVAL)].astype(np.int32)), 1)
        luminance = soft[face > 0].mean(-1)
        shadow = np.percentile(luminance, 1.0) if len(luminance) else 0.0
        return cls(
            skin=skin,
            lip=np.median(lips, axis=0),
            lip_saturation=float(np.percentile(saturation, 80)),
            highlight=float(np.percentile(soft.mean(-1), 99.0)),
            mouth_light=float(np.percentile(near.mean(-1), 65)),
            shadow=float(shadow),
        )

    def between_lips(self) -> Image:
        """Likely colour ``[3]`` of the line between closed lips."""
        level = max(float(self.lip.mean()), 1.0)
        # where little light comes lips are redder, by as much as they are redder than the skin
        redder = self.lip / level - self.skin / max(float(self.skin.mean()), 1.0)
        redder = np.array([max(redder[0], 0.0), redder[1], min(redder[2], 0.0)])
        return np.maximum(0.45 * (self.lip + 0.6 * level * redder), 0.0)


def _line_color(photo: Image, mouth: Opening, fallback: Image) -> Image:
    """Colour of the line between the photograph's closed lips: the darkest along its middle."""
    along = np.linspace(0.2, 0.8, 25, dtype=np.float32)
    upper, lower = mouth.edges(along)
    offset = np.linspace(-0.02, 0.02, 7, dtype=np.float32)[:, None] * mouth.width
    x, y = mouth.position(np.broadcast_to(along, (7, 25)), (upper + lower) / 2 + offset)
    sample = cv2.remap(photo, x - 0.5, y - 0.5, cv2.INTER_LINEAR)
    darkest = np.take_along_axis(sample, sample.sum(-1).argmin(0)[None, :, None], 0)[0]
    color = np.median(darkest, axis=0)
    most = 1.3 * float(fallback.mean()) + 10.0
    return np.asarray(color * min(1.0, most / max(float(color.mean()), 1.0)), np.float32)


def _lid_margin(opening: Opening, brow: NDArray[np.floating]) -> float:
    """Lift lines up to the crease, but never into the brow."""
    along, height = opening.local(brow[:, 0], brow[:, 1])
    upper, _ = opening.edges(along)
    room = float(np.min(upper - height))
    return float(np.clip(0.6 * room, 0.13 * opening.width, LID_MARGIN * opening.width))


def _lift(
    skin: Image,
    opening: Opening,
    box: tuple[int, int, int, int],
    above: float,
    below: float,
    closing: float = 0.0,
    corner: float = 0.0,
) -> None:
    """Fill the opening and its surroundings in ``skin``, in place.

    ``corner``: least reach beyond the corners in pixels.

    ``closing``: dark features thinner than this (pixels) around the hole, such as a crease, do not colour
    the filling.
    """
    x0, y0, x1, y1 = box
    along, height = opening.local(*pixel_grid(box))
    upper, lower = opening.edges(along)
    beyond = np.maximum(np.maximum(-along, along - 1.0), 0.0) * opening.width
    corner = max(corner, _CORNER_REACH * opening.width * (closing > 0), above, below)
    taper = 1.0 - np.clip(beyond / corner, 0.0, 1.0)
    hole = (height > upper - above * taper) & (height < lower + below * taper) & (taper > 0)
    patch = skin[y0:y1, x0:x1]
    if closing < 1.0:
        skin[y0:y1, x0:x1] = membrane_fill(patch, hole)
        return
    k = 2 * round(closing / 2) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (k, k))
    bright: Image = cv2.morphologyEx(patch, cv2.MORPH_CLOSE, kernel)
    filled = membrane_fill(cv2.GaussianBlur(bright, (0, 0), 0.2 * k), hole)
    around = patch[~hole]
    lit = around[around.sum(1) >= np.percentile(around.sum(1), 60)].mean(0)
    filled = 0.7 * filled + 0.3 * lit  # a closed lid bulges into the light that its open socket lacks
    soft = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 0.2 * k)[..., None]
    skin[y0:y1, x0:x1] = patch + eased(2.0 * soft - 0.3) * (filled - patch)


def _eye_source(
    photo: Image,
    skin: Image,
    opening: Opening,
    box: tuple[int, int, int, int],
    margin: float,
    iris: NDArray[np.floating],
) -> EyeSource:
    x0, y0, x1, y1 = box
    patch = photo[y0:y1, x0:x1]
    x, y = pixel_grid(box)
    center = iris[0].astype(np.float32)
    radius = float(np.linalg.norm(iris[1:] - iris[0], axis=1).mean())
    distance = np.hypot(x - center[0], y - center[1])
    seen = opening.coverage(x, y) > 0.95
    along, height = opening.local(x, y)
    upper, _ = opening.edges(along)
    white = seen & (distance > _LIMBUS * radius)
    sclera = _sclera(patch, white, skin[y0:y1, x0:x1], (height - upper) / opening.width)
    disc = eased((radius - distance) / (0.25 * radius) + 0.5)[..., None]
    full = _complete_iris(patch, seen, center, box) * disc + sclera * (1 - disc)
    inside = (opening.coverage(x, y) > 0).astype(np.float32)
    rim = cv2.GaussianBlur(inside, (0, 0), 0.015 * opening.width + 0.5)
    soft = np.maximum(inside, eased(2.0 * rim))[..., None]
    eyeball = patch * soft + full * (1 - soft)
    iris_free = soft * eased((distance / radius - _LIMBUS) / 0.4)[..., None]
    strip = (np.abs(height - upper) < 0.05 * opening.width) & (np.abs(along - 0.5) < 0.4)
    dark = patch[strip] if strip.any() else patch.reshape(-1, 3)
    luminance = dark.mean(1)
    lash = dark[luminance <= np.percentile(luminance, 12)].mean(0)
    clean_sclera = patch * iris_free + sclera * (1 - iris_free)
    return EyeSource(opening, box, margin, eyeball, clean_sclera, center, radius, lash.astype(np.float32))


def _sclera(patch: Image, known: NDArray[Any], skin: Image, below_lid: Image) -> Image:
    """A smooth white of the eye ``[h,w,3]``: that which is seen, continued under the iris in the upper lid's
    shade. ``below_lid``: how far pixels lie under its edge, in eye widths.
    """
    fallback = 0.35 * skin.reshape(-1, 3).mean(0) + 0.55 * skin.reshape(-1, 3).mean()
    if known.sum() < 12:
        return np.broadcast_to(fallback, patch.shape).astype(np.float32)
    # thin dark features (lashes, veins) would streak through the continuation
    k = 2 * max(1, round(0.03 * patch.shape[1])) + 1
    near = cv2.GaussianBlur(known.astype(np.float32), (0, 0), 0.4 * k)[..., None]
    clean = cv2.GaussianBlur(patch * known[..., None], (0, 0), 0.4 * k) / np.maximum(near, 1e-3)
    smooth = membrane_fill(clean.astype(np.float32), ~known)
    bright = np.percentile(patch[known], 75, axis=0)
    shade = 1.0 - _LID_SHADE * np.exp(-np.maximum(below_lid, 0.0) / _LID_SHADE_REACH)
    return np.maximum(smooth, bright * shade[..., None]).astype(np.float32)


def _complete_iris(
    patch: Image, seen: NDArray[np.bool_], center: Image, box: tuple[int, int, int, int]
) -> Image:
    """Fill what the lids hide of the iris by mirroring it through its centre, then across its axis."""
    x, y = pixel_grid(box)
    out = patch.copy()
    todo = ~seen
    for flip_x, flip_y in ((-1, -1), (1, -1), (-1, 1)):
        mx = center[0] + flip_x * (x - center[0]) - box[0] - 0.5
        my = center[1] + flip_y * (y - center[1]) - box[1] - 0.5
        color = cv2.remap(patch, mx, my, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        good = cv2.remap(seen.astype(np.float32), mx, my, cv2.INTER_LINEAR) > 0.95
        use = todo & good
        out[use] = color[use]
        todo &= ~use
    if todo.any() and seen.any():
        out[todo] = np.percentile(patch[seen], 25, axis=0)
    return out
