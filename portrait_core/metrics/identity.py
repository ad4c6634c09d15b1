"""Identity by face-recognition vectors of pictures, for measuring alone.

The paper takes ArcFace's (Deng et al. 2019, section 4), whose weights are for research only. Here it is
dlib's network (King 2017; Boost licence, weights in the public domain), which two packages carry that only
development installs. It was trained by Euclidean distance, with 0.6 between "same" and "other" people, not by
angle: every face lies within a narrow cone, so its cosines are far higher than ArcFace's and the two do not
compare. What compares are rows of one table, and the cosine of other people in it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.runtime.package_files import data_folder
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.measure import seen
from portrait_core.weights.locate import package_file

SIZE = 128
"""Numbers of a vector."""
SAME_PERSON = 0.6
"""Distance below which dlib calls two faces one person's."""
INSTALL = "uv pip install dlib-bin==20.0.1.post1 face_recognition_models==0.3.0"
_FIVE_POINTS = (263, 362, 33, 133, 2)
"""Face-mesh numbers of dlib's five points: outer and inner corner of the eye at the image's right, the same
of the other eye, the nose's base."""
_WEIGHTS = "models/dlib_face_recognition_resnet_model_v1.dat"
_BATCH = 32


class Recogniser:
    """dlib's face-recognition network.

    Faces are aligned by this project's landmarks, since dlib's own detector misses turned heads.
    """

    def __init__(self, dlib: Any, weights: Path) -> None:
        self._dlib, self._network = dlib, dlib.face_recognition_model_v1(str(weights))

    @classmethod
    def load(cls) -> Recogniser:
        """Return the recogniser.

        Raises:
            ValueError: unless ``dlib-bin`` and ``face_recognition_models`` are installed.
        """
        # its own import fails with a current setuptools
        weights = package_file("face_recognition_models", _WEIGHTS)
        present = {"dlib-bin": importlib.util.find_spec("dlib"), "face_recognition_models": weights.is_file()}
        missing = [name for name, there in present.items() if not there]
        if missing:
            raise ValueError(
                f"identity is measured with {' and '.join(missing)}, not installed; run: {INSTALL}"
            )
        import dlib

        return cls(dlib, weights)

    @classmethod
    def find(cls) -> Recogniser | None:
        """Return the recogniser, or None where its packages are not installed."""
        try:
            return cls.load()
        except ValueError:
            return None

    def describe(self, picture: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the vector ``[128]`` of a face by its landmarks ``[478,2]`` in a picture; NaN for NaN."""
        if not np.isfinite(points).all():
            return np.full(SIZE, np.nan)
        x0, y0, x1, y1 = (int(v) for v in (*points.min(0), *points.max(0)))
        corners = [self._dlib.point(*map(int, np.round(points[i]))) for i in _FIVE_POINTS]
        face = self._dlib.full_object_detection(self._dlib.rectangle(x0, y0, x1, y1), corners)
        return np.array(self._network.compute_face_descriptor(np.ascontiguousarray(picture), face))


def identity_embeddings(
    pictures: NDArray[np.uint8],
    recogniser: Recogniser | None = None,
    landmarker: FaceLandmarker | None = None,
) -> NDArray[np.float64]:
    """Return vectors ``[N,128]`` of the main faces of pictures; NaN where there is no face.

    This takes about 0.1 s per picture on one core. dlib takes whole pixels for the eyes' corners, so small
    pictures are better enlarged first: at least 256 pixels for a head and shoulders.

    Args:
        pictures: whole pictures, or crops of heads ``[N,H,W,3]`` uint8 RGB.
        recogniser: face recogniser; None: loaded anew.
        landmarker: face landmark network; None: loaded anew.

    Raises:
        ValueError: for another shape, or if the recogniser's packages are not installed.
    """
    pictures = np.asarray(pictures)
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
        raise ValueError(f"pictures are {pictures.dtype} {list(pictures.shape)}, expected uint8 [N,H,W,3]")
    recogniser = recogniser or Recogniser.load()
    landmarker = landmarker or FaceLandmarker.from_models(data_folder() / "models")
    vectors = np.full((len(pictures), SIZE), np.nan)
    for first in range(0, len(pictures), _BATCH):
        batch = pictures[first : first + _BATCH]
        points = landmarker.detect(batch).points
        for i in np.flatnonzero(seen(points)):
            vectors[first + i] = recogniser.describe(batch[i], points[i])
    return vectors


def cosine_similarity(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return cosines ``[...]`` of vectors ``[...,D]``, in -1..1 (the paper's table 3); NaN for NaN.

    Raises:
        ValueError: if a vector is zero.
    """
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    if (lengths == 0).any():
        raise ValueError("a zero vector has no direction; give identity vectors")
    return np.asarray((np.asarray(a) * b).sum(-1) / lengths)


def identity_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the Euclidean distances ``[...]`` of vectors ``[...,D]``, what dlib's network was trained by."""
    return np.asarray(np.linalg.norm(np.asarray(a) - b, axis=-1))
