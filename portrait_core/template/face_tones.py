"""The colours and the light of a photographed face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model import landmark_regions as regions
from portrait_core.face_model.contours import Opening

Image = NDArray[Any]

_CHEEKS_AND_BROW = [117, 346, 50, 280, 151, 108, 337, 6]
_BESIDE_MOUTH = [164, 18, 200, 205, 425, 57, 287]
"""Landmarks whose skin tells the face's colour, and the light around the mouth."""


@dataclass(frozen=True)
class _ToneMeasure:
    """Measurement of the colours of a face."""

    blur_px: float = 2
    """Deviation of the blur, in pixels."""
    lip_from: float = 0.35
    lip_to: float = 0.75
    """Places on the lower lip between its inner and outer contour, as shares: hair and noses' shadows lie on
    the upper lip."""
    saturation_percentile: float = 80
    highlight_percentile: float = 99.0
    mouth_light_percentile: float = 65
    shadow_percentile: float = 1.0
    black_percentile: float = 0.1
    line: float = 0.45
    """Luminance of the line between lips, over the lips'."""
    line_redder: float = 0.6
    """Difference of the line's colour from the lips', in that of the lips' from the skin's."""
    line_reach: float = 0.02
    """Reach of the search for a closed line's colour above and below its middle, in mouth widths."""
    max_line: float = 1.3
    max_line_more: float = 10.0
    """Largest luminance of a measured line: a multiple of the likely one, and grey levels more."""


_TONE = _ToneMeasure()


class FaceTones(NamedTuple):
    """Colours ``[3]`` and luminances of a photographed face."""

    skin: Image
    lip: Image
    lip_saturation: float
    highlight: float
    mouth_light: float
    shadow: float
    black: float

    @classmethod
    def of(cls, photo: Image, landmarks: NDArray[np.floating]) -> FaceTones:
        """Measure the photograph ``[W,W,3]`` with landmarks ``[478,2]``."""
        soft = cv2.GaussianBlur(photo, (0, 0), _TONE.blur_px)
        ring = landmarks[_CHEEKS_AND_BROW].astype(int).clip(0, len(photo) - 1)
        skin = np.median(soft[ring[:, 1], ring[:, 0]], axis=0)
        beside = landmarks[_BESIDE_MOUTH].astype(int).clip(0, len(photo) - 1)
        near = soft[beside[:, 1], beside[:, 0]]
        inner, outer = (landmarks[list(c.lower)] for c in (regions.INNER_LIPS, regions.OUTER_LIPS))
        share = np.linspace(_TONE.lip_from, _TONE.lip_to, 5)[:, None, None]
        places = ((1 - share) * inner[3:8] + share * outer[3:8]).reshape(-1, 2).astype(int)
        places = places.clip(0, len(photo) - 1)
        lips = soft[places[:, 1], places[:, 0]]
        saturation = (lips.max(1) - lips.min(1)) / np.maximum(lips.max(1), 1.0)
        face = np.zeros(photo.shape[:2], np.uint8)
        cv2.fillConvexPoly(face, cv2.convexHull(landmarks[list(regions.FACE_OVAL)].astype(np.int32)), 1)
        luminance = soft[face > 0].mean(-1)
        shadow = np.percentile(luminance, _TONE.shadow_percentile) if len(luminance) else 0.0
        return cls(
            skin=skin,
            lip=np.median(lips, axis=0),
            lip_saturation=float(np.percentile(saturation, _TONE.saturation_percentile)),
            highlight=float(np.percentile(soft.mean(-1), _TONE.highlight_percentile)),
            mouth_light=float(np.percentile(near.mean(-1), _TONE.mouth_light_percentile)),
            shadow=float(shadow),
            black=float(np.percentile(soft.mean(-1), _TONE.black_percentile)),
        )

    def between_lips(self) -> Image:
        """Return the likely colour ``[3]`` of the line between closed lips."""
        level = max(float(self.lip.mean()), 1.0)
        # in little light lips are redder, by as much as they are redder than the skin
        redder = self.lip / level - self.skin / max(float(self.skin.mean()), 1.0)
        redder = np.array([max(redder[0], 0.0), redder[1], min(redder[2], 0.0)])
        return np.maximum(_TONE.line * (self.lip + _TONE.line_redder * level * redder), 0.0)


def line_color(photo: Image, mouth: Opening, fallback: Image) -> Image:
    """Measure the colour ``[3]`` of the line between the photograph's closed lips.

    It is the darkest colour along the lips' middle.

    Args:
        photo: ``[W,W,3]``.
        mouth: the closed lips.
        fallback: the likely colour ``[3]``, which limits the measured one.
    """
    along = np.linspace(0.2, 0.8, 25, dtype=np.float32)
    upper, lower = mouth.edges(along)
    offset = np.linspace(-_TONE.line_reach, _TONE.line_reach, 7, dtype=np.float32)[:, None] * mouth.width
    x, y = mouth.position(np.broadcast_to(along, (7, 25)), (upper + lower) / 2 + offset)
    sample = cv2.remap(photo, x - 0.5, y - 0.5, cv2.INTER_LINEAR)
    darkest = np.take_along_axis(sample, sample.sum(-1).argmin(0)[None, :, None], 0)[0]
    color = np.median(darkest, axis=0)
    limit = _TONE.max_line * float(fallback.mean()) + _TONE.max_line_more
    return np.asarray(color * min(1.0, limit / max(float(color.mean()), 1.0)), np.float32)
