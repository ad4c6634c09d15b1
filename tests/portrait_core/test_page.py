"""Where everything lies in the output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from portrait_core.cameras import orbit_labels, project_to_crop
from portrait_core.rendering.page import CROP_ROOM, ROOM, Page, Square

PHOTOGRAPH = (720, 1280)


def _page(frame: str = "photograph", side: float = 300.5, largest: int = 1024) -> Page:
    return Page.of(PHOTOGRAPH, (350.25, 400.75), side, frame, largest, 256)  # type: ignore[arg-type]  # one of its words


def _picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (PHOTOGRAPH[1], PHOTOGRAPH[0], 3), np.uint8)


def test_the_photograph_keeps_its_own_pixels() -> None:
    page, picture = _page(), _picture()
    assert (page.width, page.height) == PHOTOGRAPH
    np.testing.assert_array_equal(page.sheet(picture), picture)


def test_a_photograph_with_too_large_a_face_is_scaled_down_to_the_largest() -> None:
    page = _page(side=600.0, largest=300)
    assert page.side == pytest.approx(300)
    assert (page.width, page.height) == (360, 640)
    assert page.sheet(_picture()).shape == (640, 360, 3)


@pytest.mark.parametrize(("side", "size"), [(300.5, 300), (100.0, 256), (900.0, 512)])
def test_the_crop_is_as_large_as_its_face_within_its_limits(side: float, size: int) -> None:
    page = _page("crop", side, 512)
    assert page.delivered is not None
    assert page.delivered.side == size
    assert page.window == page.delivered
    assert page.canvas.side >= CROP_ROOM * size


@pytest.mark.parametrize("frame", ["photograph", "crop"])
def test_windows_hold_the_crop_and_the_canvas_holds_a_head_that_turns(frame: str) -> None:
    page = _page(frame)
    for square, room in ((page.window, 1.0), (page.canvas, ROOM if frame == "photograph" else CROP_ROOM)):
        for place, corner in zip(page.center, (square.x, square.y), strict=True):
            assert corner <= place - room * page.side / 2 + 1e-3
            assert corner + square.side >= place + room * page.side / 2 - 1e-3
        assert square.side % 2 == 0


@pytest.mark.parametrize(
    ("frame", "side", "largest"),
    [("photograph", 300.5, 1024), ("crop", 900.0, 512), ("photograph", 600.0, 300)],
)
def test_a_squares_camera_sees_points_where_the_page_has_them(frame: str, side: float, largest: int) -> None:
    page, label = _page(frame, side, largest), torch.from_numpy(orbit_labels(0.2, -0.1))
    points = torch.rand(1, 20, 3, generator=torch.Generator().manual_seed(1)) * 0.4 - 0.2
    in_crop = project_to_crop(label, points, 1)[0, :, :2].numpy() * side
    photograph = in_crop + np.array([350.25, 400.75]) - side / 2
    for square in (page.window, page.canvas):
        seen = project_to_crop(page.camera(label, square), points, square.side)[0, :, :2].numpy()
        np.testing.assert_allclose(seen, page.points(photograph, square), atol=2e-3)


def test_the_sheet_has_points_of_the_photograph_where_the_page_says() -> None:
    picture = np.zeros((PHOTOGRAPH[1], PHOTOGRAPH[0]), np.float32)
    y, x = np.mgrid[: PHOTOGRAPH[1], : PHOTOGRAPH[0]] + 0.5
    picture += np.exp(-((x - 370) ** 2 + (y - 420) ** 2) / (2 * 20**2)).astype(np.float32)
    for page in (_page("crop", 900.0, 512), _page("crop", 200.0), _page(side=600.0, largest=300)):
        sheet = page.sheet(picture)
        rows, columns = np.mgrid[: page.height, : page.width] + 0.5
        found = [float((sheet * place).sum() / sheet.sum()) for place in (columns, rows)]
        wanted = page.points(np.array([[370.0, 420.0]]), Square(0, 0, 1))[0]
        np.testing.assert_allclose(found, wanted, atol=0.05)


def test_a_canvas_is_laid_back_pixel_on_pixel_where_the_page_is() -> None:
    page, picture = _page(), _picture()
    canvas = np.asarray(page.canvas.cut(page.sheet(picture)), np.uint8)
    np.testing.assert_array_equal(page.finished(picture, canvas), picture)
    changed = canvas.copy()
    changed[200, 210] = 255 - changed[200, 210]
    found = page.finished(picture, changed)
    assert [tuple(place) for place in np.argwhere((found != picture).all(-1))] == [
        (page.canvas.y + 200, page.canvas.x + 210)
    ]


def test_a_canvas_beyond_the_photographs_border_mirrors_it_and_is_cut_when_laid_back() -> None:
    page = Page.of((200, 150), (30.0, 20.0), 100.0, "photograph", 1024, 256)
    picture = np.random.default_rng(1).integers(0, 256, (150, 200, 3), np.uint8)
    canvas = np.asarray(page.canvas.cut(picture), np.uint8)
    assert page.canvas.x < 0
    assert page.canvas.y < 0
    beyond = -page.canvas.y
    near, inside = canvas[beyond - 1].astype(float), canvas[beyond].astype(float)
    assert np.corrcoef(near.ravel(), inside.ravel())[0, 1] > 0.9
    assert np.abs(np.corrcoef(canvas[0].ravel(), inside.ravel())[0, 1]) < 0.5
    np.testing.assert_array_equal(page.finished(picture, canvas), picture)
