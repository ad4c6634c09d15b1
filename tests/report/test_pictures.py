"""The contact sheet and side-by-side rows show every image, in its place."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from portrait_core.report import contact_sheet, frame_sheet, png_bytes, side_by_side, telling_frames


def _plain(value: int, size: int = 40) -> np.ndarray:
    return np.full((size, size, 3), value, np.uint8)


def test_telling_frames_hold_the_extremes_in_time_order() -> None:
    rng = np.random.default_rng(0)
    lip, eye, angles = rng.random(60), rng.random(60), rng.normal(size=(60, 3))
    lip[17], eye[42], angles[30, 0], angles[9, 1] = 5, -5, 50, -50
    lip[3] = np.nan
    frames = telling_frames(lip, eye, angles, 9)
    assert frames == sorted(set(frames))
    assert len(frames) == 9
    assert {0, 9, 17, 30, 42} <= set(frames)


@pytest.mark.parametrize(("total", "count", "expected"), [(3, 8, 3), (1, 8, 1), (50, 4, 4), (20, 16, 16)])
def test_telling_frames_are_as_many_as_there_are(total: int, count: int, expected: int) -> None:
    still = np.ones(total)
    frames = telling_frames(still, still, np.ones((total, 3)), count)
    assert len(set(frames)) == expected
    assert all(0 <= i < total for i in frames)


def test_telling_frames_of_a_clip_without_faces_are_spread() -> None:
    nothing = np.full(30, np.nan)
    assert len(telling_frames(nothing, nothing, np.full((30, 3), np.nan), 5)) == 5


def test_sheet_places_rows_and_columns() -> None:
    sheet = contact_sheet({"a": [_plain(10), _plain(20)], "b": [_plain(30), _plain(40, 90)]}, ["0", "1"], 64)
    height, width = sheet.shape[:2]
    left, top = width - 2 * 64, height - 2 * 64
    centres = sheet[top + 32 :: 64, left + 32 :: 64, 0]
    assert centres.tolist() == [[10, 20], [30, 40]]
    assert sheet[: top - 2, left:].max() > 100, "the headings are written"
    assert sheet[top:, :left].max() > 100, "the labels are written"


def test_sheet_refuses_rows_of_another_length() -> None:
    with pytest.raises(ValueError, match=r"'b'"):
        contact_sheet({"a": [_plain(1)], "b": []}, ["0"])


@pytest.mark.parametrize("size", [64, 101, 256])
def test_side_by_side_has_even_sides_and_the_images_in_order(size: int) -> None:
    row = side_by_side({"one": _plain(50), "two": _plain(150)}, size)
    assert row.shape[0] % 2 == row.shape[1] % 2 == 0
    assert (row[-size // 2, size // 2] == 50).all()
    assert (row[-size // 2, size + size // 2] == 150).all()


def test_a_sheet_of_frames_asks_each_of_them_once() -> None:
    asked = []

    def columns(frame: int) -> dict[str, np.ndarray]:
        asked.append(frame)
        return {"a": _plain(frame), "b": _plain(frame + 100)}

    sheet = frame_sheet([3, 8], columns)
    assert asked == [3, 8]
    rows = {"a": [_plain(3), _plain(8)], "b": [_plain(103), _plain(108)]}
    assert np.array_equal(sheet, contact_sheet(rows, ["frame 3", "frame 8"]))


def test_a_png_keeps_every_pixel() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(picture)))), picture)
