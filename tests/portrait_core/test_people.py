"""Faces of single frames become persons, and one of them drives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from portrait_core.errors import InputError
from portrait_core.tracking.people import STILL, Persons, alive, changes, choose_person, find_persons

SIZE = (960, 480)
FACE = np.random.default_rng(0).uniform(-0.5, 0.5, (478, 2))
ANNA, BEN = np.eye(2, 128)
"""Vectors of two people, farther apart than any two of one person."""


def face(x: float, side: float) -> NDArray[np.float64]:
    """Landmarks of a face of ``side`` pixels at column ``x``."""
    return FACE * side + (x, 240)


Shown = tuple[float, float, NDArray[np.float64]]
"""Column and side of a face, and who it is."""


def clip(*frames: Sequence[Shown]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Landmarks and vectors of frames, each a list of faces: column, side, who."""
    points = np.full((len(frames), 3, 478, 2), np.nan)
    vectors = np.full((len(frames), 3, 128), np.nan)
    for i, faces in enumerate(frames):
        for k, (x, side, who) in enumerate(faces):
            points[i, k] = face(x, side)
            vectors[i, k] = who + np.random.default_rng(i * 3 + k).normal(0, 0.01, 128)
    return points, vectors


def persons(points: NDArray[np.float64], vectors: NDArray[np.float64], cuts: tuple[int, ...] = ()) -> Persons:
    return find_persons(points, vectors, np.isin(np.arange(len(points)), cuts), SIZE)


def test_two_people_keep_their_numbers_when_the_other_becomes_the_larger_one() -> None:
    frames = [
        sorted([(240, 190 + 6 * i, ANNA), (720, 250 - 6 * i, BEN)], key=lambda one: -one[1])
        for i in range(12)
    ]
    points, vectors = clip(*frames)
    found = persons(points, vectors)
    assert len(found) == 2
    ben = found.faces_of(2)
    assert [float(points[i, k, :, 0].mean()) > 480 for i, k in enumerate(ben)] == [True] * 12
    assert choose_person(found, "largest", points) == 2, "the one who is larger when the clip begins"
    assert choose_person(found, "1", points) == 1


def test_a_passer_by_is_another_person_however_large() -> None:
    frames = [
        [(300, 150, ANNA)] if i not in (5, 6, 7) else [(600, 300, BEN), (300, 150, ANNA)] for i in range(12)
    ]
    points, vectors = clip(*frames)
    found = persons(points, vectors)
    assert choose_person(found, "largest", points) == 1
    assert found.faces_of(1).tolist() == [0] * 5 + [1] * 3 + [0] * 4


def test_a_person_is_known_again_after_a_cut_and_the_other_one_is_not_taken_for_them() -> None:
    frames = [[(300, 150, ANNA)]] * 6 + [[(310, 150, BEN)]] * 3 + [[(700, 220, ANNA)]] * 6
    found = persons(*clip(*frames), cuts=(6, 9))
    assert found.number[:, 0].tolist() == [1] * 6 + [2] * 3 + [1] * 6


def test_an_exchange_in_the_same_place_without_a_cut_is_noticed() -> None:
    frames = [[(300, 150, ANNA)]] * 5 + [[(302, 150, BEN)]] * 2 + [[(300, 150, ANNA)]] * 5
    assert persons(*clip(*frames)).number[:, 0].tolist() == [1] * 5 + [2] * 2 + [1] * 5


def test_a_face_that_is_away_for_a_moment_stays_the_same_person() -> None:
    points, vectors = clip(*[[(300, 150, ANNA)] if i not in (4, 5) else [] for i in range(10)])
    vectors[:] = np.nan  # place alone tells
    found = persons(points, vectors)
    assert len(found) == 1
    assert found.faces_of(1).tolist() == [0] * 4 + [-1] * 2 + [0] * 4


def test_somebody_is_chosen_by_likeness() -> None:
    points, vectors = clip(*[[(240, 200, ANNA), (720, 150, BEN)]] * 4)
    found = persons(points, vectors)
    assert choose_person(found, "like", points, BEN) == 2
    with pytest.raises(InputError, match=r"nobody like the given picture \(the nearest is 1\.4"):
        choose_person(found, "like", points, np.eye(128)[7])
    with pytest.raises(InputError, match="shows 2 persons, and number 3 is asked for"):
        choose_person(found, "3", points)


def test_a_long_clip_of_a_flickering_crowd_is_sorted_out() -> None:
    random = np.random.default_rng(3)
    frames = [
        [(240, 200, ANNA)] * bool(random.random() > 0.3) + [(720, 150, BEN)] * bool(random.random() > 0.3)
        for _ in range(400)
    ]
    found = persons(*clip(*frames))
    assert len(found) == 2


def test_one_person_who_fades_into_another_one_is_two() -> None:
    weights = np.clip((np.arange(40) - 14) / 12, 0, 1)
    frames = [[(300.0, 150.0, (1 - w) * ANNA + w * BEN)] for w in weights]
    found = persons(*clip(*frames))
    number = found.number[:, 0]
    assert len(found) == 2
    assert set(number[:14]) == {1}
    assert set(number[26:]) == {2}
    turning = [[(300.0, 150.0, ANNA + 0.45 * abs(np.sin(i / 6)) * BEN)] for i in range(40)]
    assert len(persons(*clip(*turning))) == 1, "a face that turns changes less"


def test_a_picture_on_the_wall_never_moves_however_the_camera_does() -> None:
    points, vectors = clip(*[[(240, 200, ANNA), (720, 150, BEN)]] * 12)
    jaw = FACE[:, 1] > 0.2
    for i in range(12):
        points[i, 0, jaw, 1] += 3 * np.sin(i)
        c, s = np.cos(0.02 * i), np.sin(0.02 * i)
        points[i, 1] = points[i, 1] @ np.array([[c, -s], [s, c]]) * (1 + 0.01 * i) + (5 * i, 2 * i)
    found = persons(points, vectors)
    changed = changes(found, points)
    assert (changed < STILL).tolist() == [False, True]
    assert np.isnan(changes(persons(points[:6], vectors[:6]), points[:6])).all(), "too few frames to tell"
    larger = replace(found, weight=np.array([50.0, 200.0]))
    assert choose_person(alive(larger, changed), "largest", points) == 1
    passing = replace(found, weight=np.array([30.0, 200.0]))
    assert alive(passing, changed) is passing, "a passer-by drives no clip"
