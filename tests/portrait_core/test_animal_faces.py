"""Animals are told from people by a network that has never seen a landmark."""

from __future__ import annotations

import numpy as np
import skimage.data

from portrait_core.metrics.animal_faces import ANIMAL, AnimalReader
from tests.portrait_core import stand_in


def test_a_cat_is_an_animal_and_an_astronaut_is_none() -> None:
    reader = AnimalReader()
    points = stand_in.landmarker().detect(skimage.data.astronaut()[None]).points
    assert reader.read(skimage.data.astronaut(), points)[0] < ANIMAL / 2
    mesh = points[0] - points[0].mean(axis=0)
    on_cat = (mesh * (140 / np.ptp(mesh[:, 0])) + (230, 130))[None]
    assert reader.read(skimage.data.cat(), on_cat)[0] > ANIMAL


def test_where_there_is_no_face_nothing_is_asked() -> None:
    found = AnimalReader().read(skimage.data.cat(), np.full((3, 478, 2), np.nan, np.float32))
    assert np.isnan(found).all()
