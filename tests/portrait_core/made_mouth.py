"""A face of flat colours whose mouth is open by a known height and shows known teeth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.training.known_pictures import LOWER_INNER, LOWER_OUTER, UPPER_INNER, UPPER_OUTER

EYES = 80.0
"""Distance of the outer eye corners of the made face, in pixels."""
SKIN, LIPS, INSIDE, TOOTH = (205, 160, 140), (165, 95, 95), (45, 22, 22), (222, 214, 205)
LINE = (110, 45, 48)
CENTRE = np.array([128.0, 170.0])


def landmarks(gap: float) -> NDArray[np.float32]:
    """Landmarks ``[478,2]`` of the made face whose inner lips are ``gap`` pixels apart."""
    points = np.tile(CENTRE - np.array([0, 60]), (478, 1))
    points[33], points[263] = CENTRE + np.array([-EYES / 2, -75]), CENTRE + np.array([EYES / 2, -75])
    for left, right, down in ((50, 280, -30), (205, 425, -15), (101, 330, -40)):
        points[left], points[right] = CENTRE + np.array([-33, down]), CENTRE + np.array([33, down])
    t = np.linspace(-1, 1, 11)
    arch = np.sqrt(np.clip(1 - t**2, 0, 1))
    for line, half, height in (
        (UPPER_OUTER, 26, -9 - gap / 2),
        (LOWER_OUTER, 26, 11 + gap / 2),
        (UPPER_INNER, 23, -gap / 2),
        (LOWER_INNER, 23, gap / 2),
    ):
        points[line] = CENTRE + np.stack([t * half, arch * height], -1)
    return points.astype(np.float32)


def made(
    gap: float,
    teeth: float = 0.0,
    shine: bool = False,
    lower_teeth: float = 0.0,
    rest: tuple[int, int, int] = INSIDE,
    hair: bool = False,
) -> NDArray[np.uint8]:
    """A face of flat colours.

    Args:
        gap: distance of the lips in pixels.
        teeth, lower_teeth: share of the opening that shows teeth, from above and from below.
        shine: whether the lower lip shines.
        rest: colour of the rest of the opening.
        hair: whether a moustache hides the upper lip.
    """
    image = np.full((256, 256, 3), SKIN, np.uint8)
    points = landmarks(gap)

    def fill(ring: NDArray[np.floating], colour: tuple[int, int, int]) -> None:
        cv2.fillPoly(image, [np.round(ring * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)

    fill(points[np.concatenate([UPPER_OUTER, LOWER_OUTER[::-1]])], LIPS)
    # light that comes through closed lips is red
    inside = rest if gap > 3 else LINE
    top, bottom = points[UPPER_INNER], points[LOWER_INNER]
    fill(np.concatenate([top, bottom[::-1]]), inside)
    if hair:
        fill(np.concatenate([points[UPPER_OUTER] - [0, 10], top[::-1]]), INSIDE)
    if teeth:
        fill(np.concatenate([top, (top + teeth * (bottom - top))[::-1]]), TOOTH)
    if lower_teeth:
        fill(np.concatenate([bottom + lower_teeth * (top - bottom), bottom[::-1]]), TOOTH)
    if shine:
        cv2.ellipse(image, (128, 178), (7, 1), 0, 0, 360, (205, 140, 135), -1)
    # neither the edges nor the light of a photograph are perfect
    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.8) + noise, 0, 255).astype(np.uint8)
