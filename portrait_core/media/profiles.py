"""Colour profiles of pictures: what a picture says about its colours, as a conversion to sRGB."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from portrait_core.media.dynamic_range import TRANSFERS, tone_mapping

MAX_PROFILE_BYTES = 1 << 23
"""Size of an embedded profile above which it is ignored; those of printing presses have up to 3 MB."""
Conversion = Callable[[Image.Image], Image.Image]

_log = logging.getLogger(__name__)
_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_DEVICES = frozenset({"scnr", "mntr", "prtr", "spac"})
# Grey levels by which a conversion may change any colour and still be left out, so that pictures in sRGB, as
# nearly all are, keep their exact pixels whatever profile says so.
_SAME = 2
# Chromaticities of red, green, blue and white by H.273's number of the primaries; the white is D65.
_D65 = (0.3127, 0.3290)
_PRIMARIES = {
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    6: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65),
    7: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.314, 0.351)),
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _D65),
}
# H.273's transfer functions that a picture shares with sRGB: those of a camera are shown by the same screen.
_SRGB_TRANSFERS = frozenset({1, 2, 6, 13, 14, 15})
_BT2020 = 9
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def conversion_to_srgb(image: Image.Image, name: str) -> Conversion | None:
    """Return the conversion of a picture's colours to sRGB.

    A profile that is damaged, too large, of another kind of colours than the picture, or that makes no
    picture is ignored with a warning: the pixels then count as sRGB. High dynamic range is tone mapped.

    Args:
        image: the picture, opened; of it, the conversion takes pieces.
        name: name of the file, for warnings.

    Returns:
        Function from a piece without alpha, in a mode of the picture's family (RGB, L or CMYK), to ``RGB``;
        None where pixels are sRGB already.
    """
    family = family_of(image.mode)
    codes = _codes_of(image)
    if codes is not None and codes[1] in TRANSFERS and family == "RGB":
        return tone_mapping(codes[1], _PRIMARIES.get(codes[0], _PRIMARIES[_BT2020]))
    try:
        profile = _profile_of(image)
        if profile is None:
            return None
        space = _SPACES.get(str(profile.profile.xcolor_space))
        if space != family and (family, space) != ("L", "RGB"):
            kind = str(profile.profile.xcolor_space).strip()
            raise ValueError(f"it is one of {kind!r} colours, and the picture has {family}")
        if str(profile.profile.device_class) not in _DEVICES:
            raise ValueError(f"its class is {str(profile.profile.device_class)!r}")
        convert = _transform(profile, str(space))
        before, after = _probe(str(space), convert)
    except (
        ImageCms.PyCMSError,
        OSError,
        ValueError,
        TypeError,
        struct.error,
        np.linalg.LinAlgError,
    ) as error:
        _log.warning("%s: its colour profile is ignored (%s); its colours count as sRGB", name, error)
        return None
    if space != "CMYK" and np.abs(after - before).max() <= _SAME:
        return None
    return convert


def family_of(mode: str) -> str:
    """Return the mode, ``RGB``, ``L`` or ``CMYK``, in which a profile reads pictures of a mode."""
    if mode in ("1", "L", "LA", "La", "I") or mode.startswith("I;16"):
        return "L"
    return "CMYK" if mode == "CMYK" else "RGB"


def _profile_of(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """Return what a picture says, by numbers of H.273, a profile, or PNG's chromaticities and gamma."""
    codes = _codes_of(image)
    if codes is not None and codes[0] in _PRIMARIES and codes[1] in _SRGB_TRANSFERS | set(_GAMMAS):
        return matrix_profile(_PRIMARIES[codes[0]], _GAMMAS.get(codes[1]))
    data = image.info.get("icc_profile")
    if data:
        if len(data) > MAX_PROFILE_BYTES:
            raise ValueError(f"it has {len(data):,} bytes, more than {MAX_PROFILE_BYTES:,}")
        return ImageCms.ImageCmsProfile(io.BytesIO(data))
    if image.format != "PNG" or "srgb" in image.info or not {"gamma", "chromaticity"} & set(image.info):
        return None
    flat = image.info.get("chromaticity")
    # PNG names the white first.
    points = [(flat[i], flat[i + 1]) for i in (2, 4, 6, 0)] if flat else _PRIMARIES[1]
    gamma = float(image.info.get("gamma", 1 / 2.2))
    # A gamma of 1/2.2 stands for sRGB.
    return matrix_profile(points, None if abs(gamma - 1 / 2.2) < 0.01 else 1 / max(gamma, 1e-6))


def _codes_of(image: Image.Image) -> tuple[int, int] | None:
    """Return H.273's numbers of primaries and transfer function that a picture names, else None.

    In PNG they stand above a profile, in other formats below it.
    """
    named = image.info.get("nclx_profile")
    if not named or (image.info.get("icc_profile") and image.format != "PNG"):
        return None
    return int(named["color_primaries"]), int(named["transfer_characteristics"])


def _transform(profile: ImageCms.ImageCmsProfile, space: str) -> Conversion:
    transform = ImageCms.buildTransform(
        profile,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        space,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )

    def convert(piece: Image.Image) -> Image.Image:
        # A grey picture may have a profile of RGB.
        ready = piece if piece.mode == space else piece.convert(space)
        found = ImageCms.applyTransform(ready, transform)
        assert found is not None  # it is changed in place only when asked for
        return found

    return convert


def _probe(space: str, convert: Conversion) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Convert a few colours of a space; return them as RGB, before and after.

    Raises:
        ValueError: no picture comes out: white is dark, or black is bright.
    """
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    if space == "L":
        colours = steps[None]
    else:
        colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(1, -1, 3)
    if space == "CMYK":
        # Paper, and all inks.
        colours = np.array([[[0, 0, 0, 0], [255, 255, 255, 255]]], np.uint8)
    piece = Image.fromarray(colours, space)
    before = np.asarray(piece.convert("RGB"), np.int64)
    after = np.asarray(convert(piece), np.int64)
    ends = after[0, [0, -1]].mean(-1)
    black, white = ends[::-1] if space == "CMYK" else ends
    if white < 160 or black > 96:
        raise ValueError("it makes white dark, or black bright")
    return before, after


def matrix_profile(points: Sequence[tuple[float, float]], gamma: float | None) -> ImageCms.ImageCmsProfile:
    """Make a profile of RGB colours.

    Args:
        points: chromaticities (x, y) of red, green, blue and white.
        gamma: exponent of light over value; None is the curve of sRGB.

    Raises:
        ValueError: no colours have such chromaticities.
    """
    if min(y for _, y in points) <= 0 or (gamma is not None and not 0.2 < gamma < 10):
        raise ValueError("its chromaticities or its gamma are not plausible")
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in points]).T
    white = columns[:, 3]
    to_xyz = columns[:, :3] * np.linalg.solve(columns[:, :3], white)
    # Profiles are relative to D50, to which the eye's adaptation is modelled.
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white)) @ _BRADFORD @ to_xyz
    if not np.isfinite(adapted).all() or np.abs(adapted).max() > 4:
        raise ValueError("its chromaticities are not plausible")
    tags = [(b"wtpt", _xyz(_D50)), (b"cprt", b"text\0\0\0\0none\0"), (b"desc", _description("made of tags"))]
    curve = _curve(gamma)
    for letter, column in zip(b"rgb", adapted.T, strict=True):
        tags += [(bytes([letter]) + b"XYZ", _xyz(column)), (bytes([letter]) + b"TRC", curve)]
    return ImageCms.ImageCmsProfile(io.BytesIO(_profile(tags)))


def _profile(tags: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return an ICC profile, version 2, of a screen."""
    start = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for key, content in tags:
        table += key + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    kind = b"\x02\x40\0\0mntrRGB XYZ " + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    header = struct.pack(">I", start + len(data)) + bytes(4) + kind + bytes(28) + _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + table + data


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(float(v) * 65536)) for v in values)


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    value = np.linspace(0, 1, 1024)
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    codes = np.round(light * 65535).astype(">u2").tobytes()
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + codes


def _description(text: str) -> bytes:
    words = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(words)) + words + bytes(78)
