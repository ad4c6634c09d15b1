"""Calibration of readers of expressions: slope, correlation and noise of a known change, by region.

Two kinds of pictures have a known truth, and complement each other. **Warped photographs**
(:mod:`portrait_core.training.known_pictures`) have real skin and light, but one region of the face moves
alone, as it does not in life: a reader trained on whole faces damps it, so the slopes show what it reports of
a change that the rest of the face does not confirm. **Rendered people** (:func:`draw_people`) move as the
head's blendshapes do, all regions together, but their skin, lips and teeth are painted, and the network's
landmarks are not the mesh's to the pixel: the slopes mix the reader's with the picture's. On real film a
reader's slopes are likely above the first; neither kind covers what skin hides (rolled lips, cheeks).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.cameras import orbit_labels, project_to_crop
from portrait_core.face_model.topology import EYE_OUTER
from portrait_core.generators.scene_latents import sample_expression, sample_scene
from portrait_core.training.known_pictures import (
    CHANGES,
    LOWER_INNER,
    UPPER_INNER,
    Change,
    Known,
    Subject,
    open_lips,
)
from portrait_core.training.render import IMAGE_SIZE, SceneRenderer

SIZES = (256, 512)
"""Sides of the crops in which readers are calibrated, in pixels."""
PHASES = ((0.0, 0.0), (0.37, -0.21))
"""Sub-pixel shifts (x, y) of every picture, in its pixels."""

LIPS_PARTED = (
    (0.0, 0.0),
    (0.06, 0.0),
    (0.12, 0.0),
    (0.2, 0.0),
    (0.08, 0.8),
    (0.12, 0.5),
    (0.2, 0.4),
    (0.2, 0.8),
)
"""Gaps of parted lips over the distance of the outer eye corners, and the share of teeth in each opening."""


@dataclass(frozen=True)
class Slope:
    """A reader's response to a change.

    Attributes:
        slope: slope of the reading over the truth, within each person and size; 1 reports all of the change.
        correlation: Pearson correlation of the same.
        off_line: root mean square distance of the readings from that line, in the region's unit.
        noise: standard deviation of the readings of one picture at several sub-pixel shifts, in that unit;
            NaN where every picture was read once.
        spread: standard deviation of the slopes of the single people who move; NaN where there is only one.
        people: number of people.
    """

    slope: float
    correlation: float
    off_line: float
    noise: float
    spread: float
    people: int


@dataclass(frozen=True)
class Readings:
    """Readings of one region beside their truth, ``[n]`` each.

    Attributes:
        truth, reading: in the region's unit.
        person: number of the person.
        group: number of the person and size: readings are compared within a group.
        picture: number of the picture; its sub-pixel shifts share one.
    """

    truth: NDArray[np.float64]
    reading: NDArray[np.float64]
    person: NDArray[np.int64]
    group: NDArray[np.int64]
    picture: NDArray[np.int64]

    def of(self, rows: NDArray[np.bool_]) -> Readings:
        """Return the readings that ``rows [n]`` selects."""
        return Readings(
            self.truth[rows], self.reading[rows], self.person[rows], self.group[rows], self.picture[rows]
        )


def slope_of(readings: Readings) -> Slope:
    """Compare readings with their truth, without those that are NaN.

    Raises:
        ValueError: the truth does not change within any group.
    """
    ok = readings.of(np.isfinite(readings.truth + readings.reading))
    x, y = centred(ok.truth, ok.group), centred(ok.reading, ok.group)
    moves = float(x @ x)
    if moves < 1e-12:
        raise ValueError("the truth does not change within a group; give pictures with several amounts")
    slope = float(x @ y) / moves
    people = np.unique(ok.person)
    each = [ok.person == k for k in people]
    # a person who hardly moves has no slope
    single = [_slope(x[k], y[k]) for k in each if x[k].std() > 0.5 * x.std()]
    size = float(np.sqrt(moves * (y @ y)))
    shaken = centred(ok.reading - ok.truth, ok.picture)
    free = len(shaken) - len(np.unique(ok.picture))
    return Slope(
        slope=slope,
        correlation=float(x @ y) / size if size > 1e-12 else 0.0,
        off_line=float(np.sqrt(np.mean((y - slope * x) ** 2))),
        noise=float(np.sqrt(shaken @ shaken / free)) if free else float("nan"),
        spread=float(np.std(single, ddof=1)) if len(single) > 1 else float("nan"),
        people=len(people),
    )


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(x @ y) / max(float(x @ x), 1e-12)


def centred(values: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """Subtract each group's mean from ``values [n]``."""
    _, index = np.unique(group, return_inverse=True)
    total = np.bincount(index, values) / np.bincount(index)
    return np.asarray(values - total[index], np.float64)


def change_photograph(
    subject: Subject, changes: Sequence[Change] = CHANGES
) -> Iterator[tuple[Change, Known]]:
    """Draw every amount of every change that does not fold the photograph over itself."""
    for change in changes:
        for amount in change.amounts:
            try:
                yield change, change.draw(subject, amount)
            except ValueError:  # too little space beside the moved region; the other amounts are drawn
                continue


def part_lips(subject: Subject, grey: bool = False) -> list[Known]:
    """Part the lips by several amounts, before a dark interior and before teeth.

    ``grey`` removes the colours.
    """
    drawn = [open_lips(subject, amount, teeth) for amount, teeth in LIPS_PARTED]
    if not grey:
        return drawn
    return [replace(known, image=without_colours(known.image)) for known in drawn]


def without_colours(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert ``image [H,W,3]`` to grey levels."""
    light = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.repeat(light[..., None], 3, axis=-1)


def opening(points: NDArray[np.float64]) -> float:
    """Return the lips' gap of landmarks ``[478,2]`` in pixels: the truth of ``mouth open``.

    It is the mean height between the inner lips over the middle third between the mouth's corners, over the
    distance of the outer eye corners.
    """
    across = points[EYE_OUTER[1]] - points[EYE_OUTER[0]]
    eyes = float(np.linalg.norm(across))
    along = points @ (across / eyes)
    down = points @ (np.array([-across[1], across[0]]) / eyes)
    first, last = along[61], along[291]
    places = np.linspace(first + (last - first) / 3, last - (last - first) / 3, 31)
    top, bottom = (np.interp(places, along[line], down[line]) for line in (UPPER_INNER, LOWER_INNER))
    return float(np.clip(bottom - top, 0, None).mean() / eyes)


def draw_people(
    renderer: SceneRenderer, people: int, expressions: int, seed: int = 0
) -> Iterator[tuple[int, Known]]:
    """Draw synthetic people near the front, each in several random expressions before the same camera.

    Yields:
        The person's number, and the picture with the head's landmarks projected into it.
    """
    rng = np.random.default_rng(seed)
    names = renderer.head.expression_names
    for person in range(people):
        scene = sample_scene(rng, names, spread=0.7)
        yaw, pitch, roll = rng.normal(0, [0.12, 0.06, 0.04])
        camera = orbit_labels(float(yaw), float(pitch), float(roll))[0].astype(np.float32)
        for _ in range(expressions):
            scene = replace(scene, expression=sample_expression(rng, list(names)))
            posed = renderer.person(scene)
            where = torch.from_numpy(np.asarray(posed.landmarks, np.float32))[None]
            points = project_to_crop(torch.from_numpy(camera)[None], where, IMAGE_SIZE)[0, :, :2]
            yield person, Known(renderer.view(posed, camera).image, points.double().numpy())
