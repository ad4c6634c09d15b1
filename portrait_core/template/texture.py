"""The portrait taken apart: skin without its openings, the lines along their edges, colours to paint with.

A photograph of an open eye has no texture for a closed lid, and a photograph of teeth none for closed lips.
So the openings and the lines around them (lashes, creases, the line between the lips) are lifted off, and
the skin under them is filled in smoothly. Moving skin samples the filled image, and the lines are laid on
again where the edges have moved to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import spsolve

from portrait_core.face_model import landmark_regions as regions
from portrait_core.face_model.contours import Opening, pixel_grid, window
from portrait_core.face_model.easing import eased
from portrait_core.template.face_tones import FaceTones, line_color
from portrait_core.template.lip_hair import LipHair, find_hair
from portrait_core.template.lip_line import closed_lips, is_closed, without_gap

Image = NDArray[Any]
"""Colours 0..255 or weights 0..1, float32."""

LASH_BAND = 0.11
"""Distance from the edge, in eye widths, within which lines travel with the edge; lines farther away (the
crease) stay on the skin."""
LIP_MARGIN = 0.035
"""Reach of the line between closed lips around the mouth's opening, in mouth widths."""
PARTED_LIP_MARGIN = 0.045
"""Reach of the lines along parted lips, in mouth widths: gleams and darkness between the lips lie on both
sides of the landmarks there."""

_PARTED_CORNER = 0.10
"""Reach of the darkness between parted lips beyond their corners, in mouth widths."""
_LIP_WINDOW = 5
"""Margin of the window around the lips, in reaches of their lines."""
_GAP_UNDER_HAIR = 0.10
"""Mean gap between lips under a moustache, in mouth widths, below which they meet: landmarks guess there."""
_SURE_COVERAGE = 0.95
"""Coverage from which on a pixel lies inside an opening."""


@dataclass(frozen=True)
class _LidLift:
    """Lifting off eyes and the lines around them; lengths in eye widths."""

    max_above: float = 0.30
    min_above: float = 0.13
    """Largest and smallest reach above the upper lid's edge (lashes and crease)."""
    brow_room: float = 0.6
    """Share of the room under the brow that may be lifted off."""
    below: float = 0.13
    """Reach below the lower lid's edge."""
    corner: float = 0.22
    """Reach of lashes beyond the corners."""
    window: float = 0.2
    """Margin of the eye's window beyond the lifted lines."""
    closing: float = 0.32
    """Thickness of dark features that do not colour the filling."""
    blur: float = 0.2
    """Deviation of the blur of the filling's surroundings, in sizes of the closing."""
    lit_percentile: float = 60
    lit_share: float = 0.3
    """Percentile of the surroundings' brightness from which on they are lit, and the share of their colour in
    the filling: a closed lid bulges into the light that its open socket lacks."""


@dataclass(frozen=True)
class _EyeLook:
    """Completing an eyeball; radii in those of the iris, lengths in eye widths."""

    limbus: float = 1.15
    """Radius of the iris with its soft rim."""
    disc_edge: float = 0.25
    """Width of the iris's soft edge."""
    free_over: float = 0.4
    """Distance beyond the limbus over which the white of the eye becomes the photograph's."""
    rim: float = 0.015
    rim_px: float = 0.5
    """Deviation of the blur of the opening's rim, in eye widths and in pixels; the two are added."""
    lid_shade: float = 0.3
    """Share of the light that the upper lid takes from the white of the eye at its edge."""
    lid_shade_reach: float = 0.08
    """Reach of this shade."""
    lash_strip: float = 0.05
    lash_half: float = 0.4
    """Half height of the strip along the upper edge that lashes are measured in, and half its length as a
    share of the chord."""
    lash_percentile: float = 12
    """Percentile of the strip's luminance up to which a pixel is lash."""
    min_white: int = 12
    """Fewest pixels of white that its colour is measured from."""
    white_percentile: float = 75
    """Percentile of the white's colours that is its bright colour."""
    vein: float = 0.03
    vein_blur: float = 0.4
    """Half size of the window over which lashes and veins are smoothed, over the width of the eye's window,
    and the deviation of the blur in sizes of it."""
    fallback_skin: float = 0.35
    fallback_gray: float = 0.55
    """Shares of the skin's colour and of its luminance in the white of an eye that shows none."""
    hidden_percentile: float = 25
    """Percentile of the eye's colours that fills what no mirroring reaches."""


_LID, _EYE = _LidLift(), _EyeLook()


def membrane_fill(image: Image, hole: NDArray[np.bool_]) -> Image:
    """Fill a hole by the smooth surface (Laplace's equation) through the pixels around it.

    Args:
        image: ``[H,W,C]``.
        hole: ``[H,W]``.

    Returns:
        A filled copy ``[H,W,C]``.
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
    """The eye's colours inside the window without the iris ``[h,w,3]``."""
    iris_center: Image
    """``[2]``."""
    iris_radius: float
    """In pixels."""
    lash: Image
    """Colour of the lash line ``[3]``."""


@dataclass(frozen=True)
class PortraitTexture:
    """The portrait at work size, colours 0..255 as float32."""

    photo: Image
    """The photograph ``[W,W,3]``."""
    skin: Image
    """The photograph with eyes, mouth and the lines around them filled over ``[W,W,3]``."""
    lines: Image
    """``photo - skin``."""
    eyes: tuple[EyeSource, EyeSource]
    """The subject's right eye, then the left."""
    mouth: Opening
    """The photograph's opening between the lips; where they meet, the line between them, without height."""
    lips_meet: bool
    """True if the photograph's lips meet."""
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
    black: float
    """Luminance of the picture's darkest parts, 0..255."""
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
                landmarks[list(curves.upper + curves.lower)], margin + _LID.window * opening.width, len(photo)
            )
            _lift(skin, opening, box, margin, _LID.below * opening.width, _LID.closing * opening.width)
            eyes.append(_eye_source(photo, skin, opening, box, margin, landmarks[list(iris)]))
        tones = FaceTones.of(photo, landmarks)
        lips = regions.INNER_LIPS
        mouth = Opening.from_points(landmarks[list(lips.upper)], landmarks[list(lips.lower)])
        hair = find_hair(photo, mouth, landmarks, float(tones.skin.mean()))
        # hair hides the line, and has darker ones of its own
        meet = is_closed(photo, mouth) if hair is None else mouth.mean_gap < _GAP_UNDER_HAIR * mouth.width
        if meet:
            mouth = closed_lips(photo, mouth) if hair is None else without_gap(mouth)
        reach = (LIP_MARGIN if meet else PARTED_LIP_MARGIN) * mouth.width
        box = window(landmarks[list(lips.upper + lips.lower)], _LIP_WINDOW * reach, len(photo))
        _lift(skin, mouth, box, reach, reach, corner=0.0 if meet else _PARTED_CORNER * mouth.width)
        line = tones.between_lips()
        if meet:
            line = line_color(photo, mouth, line)
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
            black=tones.black,
            hair=hair,
        )


def _lid_margin(opening: Opening, brow: NDArray[np.floating]) -> float:
    """Return the reach of lifted lines above the upper edge in pixels: to the crease, never into the brow."""
    along, height = opening.local(brow[:, 0], brow[:, 1])
    upper, _ = opening.edges(along)
    room = float(np.min(upper - height))
    return float(
        np.clip(_LID.brow_room * room, _LID.min_above * opening.width, _LID.max_above * opening.width)
    )


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

    Args:
        skin: ``[W,W,3]``.
        opening: the opening.
        box: window around it.
        above: reach above the upper edge, in pixels.
        below: reach below the lower edge, in pixels.
        closing: thickness in pixels of dark features around the hole, such as a crease, that do not colour
            the filling.
        corner: smallest reach beyond the corners, in pixels.
    """
    x0, y0, x1, y1 = box
    pixels = opening.pixels(*pixel_grid(box))
    beyond = np.maximum(np.maximum(-pixels.along, pixels.along - 1.0), 0.0) * opening.width
    corner = max(corner, _LID.corner * opening.width * (closing > 0), above, below)
    taper = 1.0 - np.clip(beyond / corner, 0.0, 1.0)
    hole = (pixels.height > pixels.upper - above * taper) & (pixels.height < pixels.lower + below * taper)
    hole &= taper > 0
    patch = skin[y0:y1, x0:x1]
    if closing < 1.0:
        skin[y0:y1, x0:x1] = membrane_fill(patch, hole)
        return
    k = 2 * round(closing / 2) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (k, k))
    bright: Image = cv2.morphologyEx(patch, cv2.MORPH_CLOSE, kernel)
    filled = membrane_fill(cv2.GaussianBlur(bright, (0, 0), _LID.blur * k), hole)
    around = patch[~hole]
    lit = around[around.sum(1) >= np.percentile(around.sum(1), _LID.lit_percentile)].mean(0)
    filled = (1.0 - _LID.lit_share) * filled + _LID.lit_share * lit
    soft = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), _LID.blur * k)[..., None]
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
    pixels = opening.pixels(x, y)
    coverage = pixels.coverage()
    seen = coverage > _SURE_COVERAGE
    white = seen & (distance > _EYE.limbus * radius)
    sclera = _sclera(patch, white, skin[y0:y1, x0:x1], pixels.below_upper / opening.width)
    disc = eased((radius - distance) / (_EYE.disc_edge * radius) + 0.5)[..., None]
    full = _complete_iris(patch, seen, center, box) * disc + sclera * (1 - disc)
    inside = (coverage > 0).astype(np.float32)
    rim = cv2.GaussianBlur(inside, (0, 0), _EYE.rim * opening.width + _EYE.rim_px)
    soft = np.maximum(inside, eased(2.0 * rim))[..., None]
    eyeball = patch * soft + full * (1 - soft)
    iris_free = soft * eased((distance / radius - _EYE.limbus) / _EYE.free_over)[..., None]
    strip = np.abs(pixels.below_upper) < _EYE.lash_strip * opening.width
    strip &= np.abs(pixels.along - 0.5) < _EYE.lash_half
    dark = patch[strip] if strip.any() else patch.reshape(-1, 3)
    luminance = dark.mean(1)
    lash = dark[luminance <= np.percentile(luminance, _EYE.lash_percentile)].mean(0)
    clean_sclera = patch * iris_free + sclera * (1 - iris_free)
    return EyeSource(opening, box, margin, eyeball, clean_sclera, center, radius, lash.astype(np.float32))


def _sclera(patch: Image, known: NDArray[Any], skin: Image, below_lid: Image) -> Image:
    """Continue the white of the eye under the iris, smoothly and in the upper lid's shade.

    Args:
        patch: the photograph in the eye's window ``[h,w,3]``.
        known: pixels that show white ``[h,w]``.
        skin: the skin in the window ``[h,w,3]``.
        below_lid: distance below the upper lid's edge ``[h,w]``, in eye widths.

    Returns:
        ``[h,w,3]``.
    """
    if known.sum() < _EYE.min_white:
        color, gray = skin.reshape(-1, 3).mean(0), skin.reshape(-1, 3).mean()
        fallback = _EYE.fallback_skin * color + _EYE.fallback_gray * gray
        return np.broadcast_to(fallback, patch.shape).astype(np.float32)
    # thin dark features (lashes, veins) would streak through the continuation
    k = 2 * max(1, round(_EYE.vein * patch.shape[1])) + 1
    near = cv2.GaussianBlur(known.astype(np.float32), (0, 0), _EYE.vein_blur * k)[..., None]
    clean = cv2.GaussianBlur(patch * known[..., None], (0, 0), _EYE.vein_blur * k) / np.maximum(near, 1e-3)
    smooth = membrane_fill(clean.astype(np.float32), ~known)
    bright = np.percentile(patch[known], _EYE.white_percentile, axis=0)
    shade = 1.0 - _EYE.lid_shade * np.exp(-np.maximum(below_lid, 0.0) / _EYE.lid_shade_reach)
    return np.maximum(smooth, bright * shade[..., None]).astype(np.float32)


def _complete_iris(
    patch: Image, seen: NDArray[np.bool_], center: Image, box: tuple[int, int, int, int]
) -> Image:
    """Fill the part of the iris that lids hide by mirroring it through its centre, then across its axes."""
    x, y = pixel_grid(box)
    out = patch.copy()
    todo = ~seen
    for flip_x, flip_y in ((-1, -1), (1, -1), (-1, 1)):
        mx = center[0] + flip_x * (x - center[0]) - box[0] - 0.5
        my = center[1] + flip_y * (y - center[1]) - box[1] - 0.5
        color = cv2.remap(patch, mx, my, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        good = cv2.remap(seen.astype(np.float32), mx, my, cv2.INTER_LINEAR) > _SURE_COVERAGE
        use = todo & good
        out[use] = color[use]
        todo &= ~use
    if todo.any() and seen.any():
        out[todo] = np.percentile(patch[seen], _EYE.hidden_percentile, axis=0)
    return out


def sample(image: Image, x: Image, y: Image, border: int = cv2.BORDER_CONSTANT) -> Image:
    """Return the values of an image at pixel positions ``x, y``, each ``[h,w]``, linearly between centres."""
    return np.asarray(cv2.remap(image, x - 0.5, y - 0.5, cv2.INTER_LINEAR, borderMode=border))
