"""Still images read."""

from __future__ import annotations

import logging
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from portrait_core.errors import InputError
from portrait_core.media import at_most, read_image
from portrait_core.media.profiles import matrix_profile
from portrait_core.settings.limits import Limits, current_limits, use_limits

RAMP = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3


def test_plain_image(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert image.flags.writeable
    np.testing.assert_array_equal(image, RAMP)


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
def test_exif_orientation(tmp_path: Path, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(RAMP, turns))


def test_alpha_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[..., 0] = 255
    rgba[..., 3] = [[0, 51], [204, 255]]
    Image.fromarray(rgba).save(tmp_path / "a.png")
    expected = [[[255, 255, 255], [255, 204, 204]], [[255, 51, 51], [255, 0, 0]]]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)
    palette = Image.fromarray(rgba).convert("P")
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    assert read_image(tmp_path / "p.png")[0, 0].tolist() == [255, 255, 255]


def test_sixteen_bits_grey_and_cmyk(tmp_path: Path) -> None:
    deep = np.array([[0, 257 * 10], [257 * 200, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png")[..., 1].tolist() == [[0, 10], [200, 255]]
    Image.fromarray(RAMP[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png")[..., 2], RAMP[..., 0])
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    assert np.abs(read_image(tmp_path / "cmyk.jpg").mean((0, 1)) - [255, 0, 0]).max() < 3


def test_what_is_no_image_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "float.tif")
    for name, reason in {
        "text.png": "not a readable image.*PNG or JPEG",
        "empty.png": "is empty",
        "cut.jpg": "not a readable image",
        "float.tif": "floating-point",
        "nowhere.png": "does not exist",
        ".": "is a folder",
    }.items():
        with pytest.raises(InputError, match=reason):
            read_image(tmp_path / name)


def test_a_large_image_is_scaled_down_and_a_small_one_stays() -> None:
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    assert at_most(image, 40) is image
    assert at_most(image, 20).shape == (15, 20, 3)


# Colour profiles

D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
SPACES = {
    "Display P3": (((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), D65), None),
    "Adobe RGB": (((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65), 563 / 256),
    "ProPhoto": (((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), D50), 1.8),
}
# Rows X, Y, Z, from the standards' own tables; ProPhoto's is relative to D50, the others' to D65.
TO_XYZ = {
    "sRGB": "0.4124564 0.3575761 0.1804375 0.2126729 0.7151522 0.0721750 0.0193339 0.1191920 0.9503041",
    "Display P3": "0.4865709 0.2656677 0.1982173 0.2289746 0.6917385 0.0792869 0 0.0451134 1.0439444",
    "Adobe RGB": "0.5767309 0.1855540 0.1881852 0.2973769 0.6273491 0.0752741 0.0270343 0.0706872 0.9911085",
    "ProPhoto": "0.7976749 0.1351917 0.0313534 0.2880402 0.7118741 0.0000857 0 0 0.8252100",
    "D65 to D50": "1.0478112 0.0228866 -0.050127 0.0295424 0.9904844 -0.0170491 -0.0092345 0.0150436 0.75213",
}
SHOWN = [(200, 150, 120), (90, 60, 45), (128, 128, 128), (255, 255, 255), (0, 0, 0), (220, 70, 60)]
SKIN = np.array([SHOWN])


def _matrix(name: str) -> np.ndarray:
    return np.array(TO_XYZ[name].split(), float).reshape(3, 3)


def _encoded(shown: np.ndarray, space: str) -> np.ndarray:
    """Values in a space for sRGB colours ``[...,3]`` uint8, by the formulas of the standards."""
    value = shown / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = light @ _matrix("sRGB").T
    if space == "ProPhoto":
        xyz = xyz @ _matrix("D65 to D50").T
    light = np.clip(xyz @ np.linalg.inv(_matrix(space)).T, 0, 1)
    gamma = SPACES[space][1]
    if gamma is None:
        value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    else:
        value = light ** (1 / gamma)
    return np.round(255 * value).astype(np.uint8)


def _icc(space: str) -> bytes:
    return matrix_profile(*SPACES[space]).tobytes()


@pytest.mark.parametrize("space", list(SPACES))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg", "a.heic"])
def test_colours_are_shown_as_the_profile_says(tmp_path: Path, name: str, space: str) -> None:
    stored = np.repeat(np.repeat(_encoded(SKIN, space), 16, 0), 16, 1)
    best: dict[str, dict[str, Any]] = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 100}}
    image = Image.fromarray(stored)
    if name == "a.heic":
        pillow_heif.from_pillow(image).save(tmp_path / name, quality=-1, chroma=444, icc_profile=_icc(space))
    else:
        image.save(tmp_path / name, icc_profile=_icc(space), **best.get(name, {}))
    found = read_image(tmp_path / name)[8, 8::16].astype(int)
    # A step of 8 bits in a wide space is two of sRGB, and more in the dark.
    assert np.abs(found - SKIN[0]).max() <= (6 if name in ("a.jpg", "a.heic") else 4)
    assert np.abs(stored[8, 8::16].astype(int) - SKIN[0]).max() > 8


def test_bands_turns_and_alpha_keep_their_colours(tmp_path: Path) -> None:
    stored = np.tile(_encoded(np.full((1, 1, 3), (200, 150, 120)), "ProPhoto"), (700, 500, 1))
    alpha = np.full((700, 500), 255, np.uint8)
    alpha[:350] = 0
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.dstack([stored, alpha]))
    image.save(tmp_path / "a.png", icc_profile=_icc("ProPhoto"), exif=exif)
    found = read_image(tmp_path / "a.png")
    assert found.shape == (500, 700, 3)
    assert (found[:, 350:] == 255).all()
    assert np.abs(found[:, :350].reshape(-1, 3).astype(int) - (200, 150, 120)).max() <= 3


def test_pixels_in_srgb_stay_exactly_as_they_are(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(RAMP).save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RAMP)


def _png(path: Path, pixels: np.ndarray, **chunks: bytes) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    content = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    content += b"".join(chunk(kind.encode(), data) for kind, data in chunks.items())
    content += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def test_chunks_of_png_stand_for_a_profile(tmp_path: Path) -> None:
    points = (D65, *SPACES["Adobe RGB"][0][:3])
    chromaticities = struct.pack(">8I", *(round(v * 100000) for point in points for v in point))
    adobe = {"gAMA": struct.pack(">I", round(100000 * 256 / 563)), "cHRM": chromaticities}
    _png(tmp_path / "adobe.png", _encoded(SKIN, "Adobe RGB"), **adobe)
    _png(tmp_path / "p3.png", _encoded(SKIN, "Display P3"), cICP=bytes([12, 13, 0, 1]))
    for name in ("adobe.png", "p3.png"):
        assert np.abs(read_image(tmp_path / name).astype(int) - SKIN).max() <= 4
    linear = np.round(255 * (SKIN / 255) ** 2.2).astype(np.uint8)
    _png(tmp_path / "linear.png", linear, gAMA=struct.pack(">I", 100000))
    found = read_image(tmp_path / "linear.png").astype(int)
    assert np.abs(found - SKIN)[SKIN.max(-1) > 50].max() <= 6
    points_of_srgb = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    usual = {"gAMA": struct.pack(">I", 45455), "cHRM": struct.pack(">8I", *points_of_srgb)}
    _png(tmp_path / "usual.png", RAMP, **usual)
    _png(tmp_path / "zero.png", RAMP, gAMA=bytes(4), cHRM=bytes(32))
    for name in ("usual.png", "zero.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name), RAMP)


def _in_dynamic_range(transfer: int) -> np.ndarray:
    """Codes of :data:`SKIN` in a high dynamic range of BT.2020, where 203 cd/m² are white."""
    light = np.where(SKIN / 255 <= 0.04045, SKIN / 255 / 12.92, ((SKIN / 255 + 0.055) / 1.055) ** 2.4)
    into = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    nits = light @ into.T * 203
    if transfer == 16:
        root = (nits / 10000) ** (2610 / 16384)
        code = ((107 / 128 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32)
    else:
        luma = (nits / 1000 @ np.array([0.2627, 0.6780, 0.0593]))[..., None]
        scene = nits / 1000 / np.maximum(luma, 1e-9) ** (0.2 / 1.2)
        bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        code = np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)
    return np.round(255 * code).astype(np.uint8)


@pytest.mark.parametrize("transfer", [16, 18], ids=["PQ", "HLG"])
@pytest.mark.parametrize("name", ["a.png", "a.heic", "a.avif"])
def test_pictures_in_high_dynamic_range_are_tone_mapped(tmp_path: Path, name: str, transfer: int) -> None:
    codes = np.repeat(np.repeat(_in_dynamic_range(transfer), 16, 0), 16, 1)
    path = tmp_path / name
    if name == "a.png":
        _png(path, codes, cICP=bytes([9, transfer, 0, 1]))
    elif name == "a.heic":
        numbers = {"color_primaries": 9, "transfer_characteristics": transfer, "matrix_coefficients": 9}
        image = pillow_heif.from_pillow(Image.fromarray(codes))
        image.save(path, quality=-1, chroma=444, save_nclx_profile=True, full_range_flag=1, **numbers)
    else:
        Image.fromarray(codes).save(path, quality=100, subsampling="4:4:4")
        data = path.read_bytes()  # Pillow names BT.709 and sRGB
        at = data.index(b"colrnclx") + 8
        path.write_bytes(data[:at] + struct.pack(">HH", 9, transfer) + data[at + 4 :])
    found = read_image(path)[8, 8::16].astype(int)
    plain = SKIN[0].max(-1) < 180  # what is brighter is compressed
    assert np.abs(found - SKIN[0])[plain].max() <= (6 if name == "a.png" else 9)
    assert (found.max(-1)[~plain] < SKIN[0].max(-1)[~plain] + 4).all()
    assert np.abs(codes[8, 8::16].astype(int) - SKIN[0]).max() > 30


@pytest.mark.parametrize(
    ("profile", "mode"),
    [
        (b"no profile at all", "RGB"),
        (_icc("Display P3")[:200], "RGB"),
        (_icc("Display P3").replace(b"RGB ", b"CMYK", 1), "RGB"),
        (_icc("Display P3").replace(b"mntr", b"link", 1), "RGB"),
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), "RGB"),
        (_icc("Display P3"), "CMYK"),
        (bytes(9 << 20), "RGB"),
        (matrix_profile(SPACES["Display P3"][0], 9.9).tobytes().replace(b"rXYZ", b"xXYZ", 1), "RGB"),
    ],
    ids=["text", "cut", "of ink", "link", "Lab", "of light", "large", "without red"],
)
def test_a_profile_that_cannot_be_used_is_ignored_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, profile: bytes, mode: str
) -> None:
    image = Image.fromarray(RAMP).convert(mode)
    image.save(tmp_path / "a.tif", icc_profile=profile)
    with caplog.at_level(logging.WARNING):
        found = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))
    assert "a.tif: its colour profile is ignored" in caplog.text


def test_grey_pictures_have_profiles_of_grey_or_of_rgb(tmp_path: Path) -> None:
    grey = np.full((4, 4), 128, np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png", icc_profile=_icc("ProPhoto"))
    value = (128 / 255) ** 1.8
    expected = 255 * (1.055 * value ** (1 / 2.4) - 0.055)
    assert np.abs(read_image(tmp_path / "a.png") - expected).max() <= 2


# HEIF


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
@pytest.mark.parametrize("name", ["IMG_0042.HEIC", "named.jpg"])
def test_a_phones_picture_is_read_and_turned_once(
    tmp_path: Path, orientation: int, turns: int, name: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.repeat(np.repeat(np.arange(24, dtype=np.uint8).reshape(6, 4) * 10, 16, 0), 16, 1)
    image = Image.fromarray(np.stack([pixels] * 3, -1))
    pillow_heif.from_pillow(image).save(tmp_path / "a.heic", quality=-1, chroma=444, exif=exif.tobytes())
    (tmp_path / "a.heic").rename(tmp_path / name)
    found = read_image(tmp_path / name).astype(int)
    assert found.shape == (*np.rot90(pixels, turns).shape, 3)
    assert np.abs(found[..., 1] - np.rot90(pixels, turns)).max() <= 2


def test_the_main_picture_of_several_is_read_and_ten_bits_become_eight(tmp_path: Path) -> None:
    several = pillow_heif.HeifFile()
    for grey in (40, 200):
        several.add_from_pillow(Image.new("RGB", (64, 48), (grey,) * 3))
    several.save(tmp_path / "a.heic", quality=-1, primary_index=1)
    assert np.abs(read_image(tmp_path / "a.heic").astype(int) - 200).max() <= 2
    deep = np.full((48, 64, 3), 128 * 257, np.uint16)
    pillow_heif.encode("RGB;16", (64, 48), deep.tobytes(), tmp_path / "deep.heic", quality=-1)
    assert np.abs(read_image(tmp_path / "deep.heic").astype(int) - 128).max() <= 2


def test_hostile_heif_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(Image.new("RGB", (512, 512), (90, 90, 90))).save(path, quality=10)
    whole = path.read_bytes()
    before = current_limits()
    use_limits(Limits(picture_pixels=100_000))
    try:
        with pytest.raises(InputError, match=r"262,144 pixels.*limits.picture_pixels"):
            read_image(path)
    finally:
        use_limits(before)
    size = struct.pack(">II", 512, 512)
    for broken in (
        whole.replace(b"ispe\0\0\0\0" + size, b"ispe\0\0\0\0" + struct.pack(">II", 64, 64)),
        whole[: len(whole) // 2],
        whole[:40],
    ):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="not a readable image"):
            read_image(path)


def test_no_other_reader_of_this_process_opens_heif(tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(Image.new("RGB", (64, 48))).save(path)
    program = (
        "import sys, PIL.Image\nfrom portrait_core.media import read_image\nread_image(sys.argv[1])\n"
        "try:\n    PIL.Image.open(sys.argv[1])\nexcept OSError as error:\n    print(error)"
    )
    # a process of its own: other packages may have taught this one
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert "cannot identify" in done.stdout


def _profile_of_ink() -> bytes:
    """A printing press whose paper is (95, 0, 0) of Lab, magenta (50, 70, 0), and each other ink black."""
    corners = np.array([(95, 0, 0) if i == 0 else (50, 70, 0) if i == 4 else (5, 0, 0) for i in range(16)])
    table = np.round(corners * (2.55, 1, 1) + (0, 128, 128)).astype(np.uint8)
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).reshape(-1).tolist())
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + 4 * identity + table.tobytes() + 3 * identity
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    words = b"desc\0\0\0\0" + struct.pack(">I", 4) + b"ink\0" + bytes(78)
    tags = {b"desc": words, b"wtpt": white, b"cprt": b"text\0\0\0\0none", b"A2B0": lut}
    start, data, index = 128 + 4 + 12 * len(tags), b"", struct.pack(">I", len(tags))
    for key, content in tags.items():
        index += key + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    kind = b"\x02\x40\0\0prtrCMYKLab " + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    header = struct.pack(">I", start + len(data)) + bytes(4) + kind + bytes(28) + white[8:]
    return header.ljust(128, b"\0") + index + data


@pytest.mark.parametrize("name", ["a.tif", "a.jpg"])
def test_ink_is_shown_as_its_profile_says(tmp_path: Path, name: str) -> None:
    ink = np.zeros((16, 48, 4), np.uint8)
    ink[:, 16:32, 1] = 255
    ink[:, 32:] = 255
    best: dict[str, Any] = {"quality": 100} if name == "a.jpg" else {}
    Image.fromarray(ink, "CMYK").save(tmp_path / name, icc_profile=_profile_of_ink(), **best)
    paper, magenta, black = read_image(tmp_path / name)[8, 8::16].astype(int)
    f = (50 + 16) / 116
    xyz = np.array([0.9642 * (f + 70 / 500) ** 3, f**3, 0.8249 * f**3])
    light = np.linalg.solve(_matrix("D65 to D50") @ _matrix("sRGB"), xyz)
    expected = 255 * (1.055 * np.clip(light, 0.0031308, 1) ** (1 / 2.4) - 0.055)
    assert np.abs(magenta - expected).max() <= 6
    assert paper.min() > 235
    assert black.max() < 30
