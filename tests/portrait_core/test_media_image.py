"""Still images read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from portrait_core.errors import InputError
from portrait_core.media import at_most, read_image

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
