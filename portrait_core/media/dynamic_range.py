"""Tone mapping of still pictures of high dynamic range, as :mod:`.colors` does of videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from portrait_core.media.colors import KNEE, PEAK_NITS, WHITE_NITS

PQ, HLG = 16, 18
"""H.273's numbers of the transfer functions of high dynamic range."""
TRANSFERS = frozenset({PQ, HLG})
_HLG_GAMMA = 1.2  # of a screen of PEAK_NITS
_SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.3127, 0.3290))
Floats = NDArray[np.float64]


def tone_mapping(
    transfer: int, points: Sequence[tuple[float, float]]
) -> Callable[[Image.Image], Image.Image]:
    """Return the conversion of a picture of high dynamic range to sRGB.

    White is that of :data:`~portrait_core.media.colors.WHITE_NITS`; brighter light is compressed from
    :data:`~portrait_core.media.colors.KNEE` on, and what is darker stays exact.

    Args:
        transfer: :data:`PQ` or :data:`HLG`.
        points: chromaticities (x, y) of red, green, blue and white.

    Returns:
        Function from a piece in mode ``RGB`` to another.
    """
    to_xyz = _rgb_to_xyz(points)
    to_srgb = (np.linalg.inv(_rgb_to_xyz(_SRGB)) @ to_xyz).T
    codes = np.arange(256) / 255
    light = _nits_of_pq(codes) / WHITE_NITS if transfer == PQ else _scene_of_hlg(codes)

    def convert(piece: Image.Image) -> Image.Image:
        linear = light[np.asarray(piece)]
        if transfer == HLG:
            luminance = linear @ to_xyz[1]
            linear *= (luminance ** (_HLG_GAMMA - 1) * PEAK_NITS / WHITE_NITS)[..., None]
        return Image.fromarray(_as_srgb(_compressed(linear @ to_srgb)))

    return convert


def _rgb_to_xyz(points: Sequence[tuple[float, float]]) -> Floats:
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in points]).T
    return np.asarray(columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3]))


def _nits_of_pq(codes: Floats) -> Floats:
    """Return the luminance in cd/m² of codes of 0 to 1 (SMPTE ST 2084)."""
    root = codes ** (32 / 2523)
    return np.asarray(
        10000 * (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)
    )


def _scene_of_hlg(codes: Floats) -> Floats:
    """Return the light of the scene, 0 to 1, of codes of 0 to 1 (ITU-R BT.2100)."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    return np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - c) / a) + b) / 12)


def _compressed(linear: Floats) -> Floats:
    """Scale each pixel so that its brightest colour is at most about 1: Möbius' curve, as ffmpeg has it."""
    peak = PEAK_NITS / WHITE_NITS
    brightest = np.maximum(linear.max(axis=-1), 1e-6)
    a = -KNEE * KNEE * (peak - 1) / (KNEE * KNEE - 2 * KNEE + peak)
    b = (KNEE * KNEE - 2 * KNEE * peak + peak) / (peak - 1)
    curve = (b * b + 2 * b * KNEE + KNEE * KNEE) / (b - a) * (brightest + a) / (brightest + b)
    return np.asarray(linear * (np.where(brightest <= KNEE, brightest, curve) / brightest)[..., None])


def _as_srgb(linear: Floats) -> NDArray[np.uint8]:
    light = np.clip(linear, 0, 1)
    value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * value).astype(np.uint8)
