"""The part of a photograph that a clip shows holds the head with its shoulders, whatever its proportions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from portrait_core.tracking.portrait_part import part_around, whole_part


def face(x: float, y: float, side: float) -> NDArray[np.float64]:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (478, 2)) * side + (x, y)


@pytest.mark.parametrize(
    ("size", "longest"), [((8000, 800), 2048), ((800, 8000), 2048), ((4000, 3000), 2048), ((4000, 3000), 512)]
)
def test_the_head_fits_into_the_part(size: tuple[int, int], longest: int) -> None:
    middle = size[0] / 2, size[1] / 2
    points = face(*middle, 170)
    part = part_around(points, size, longest)
    assert min(part.width, part.height) >= 3 * 169
    assert part.width <= size[0]
    assert part.height <= size[1]
    assert max(part.shown) <= longest
    ratio = part.width / part.shown[0], part.height / part.shown[1]
    assert ratio == pytest.approx((ratio[0], ratio[0]), rel=0.01)
    assert ratio[0] < max(size) / longest, "the face keeps more of its pixels than in the whole photograph"
    photograph = np.zeros((size[1], size[0], 3), np.uint8)
    assert part.cut(photograph).shape[1::-1] == part.shown


def test_a_large_face_leaves_the_photograph_whole() -> None:
    size = (4000, 3000)
    assert part_around(face(2000, 1500, 900), size, 2048) == whole_part(size, 2048)
    assert part_around(face(300, 200, 100), (600, 400), 2048) == whole_part((600, 400), 2048)
