"""What every portrait of a benchmark run shares: head, tracker, perceptual features, face recogniser."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from portrait_core.config import Settings
from portrait_core.embedded.render import SceneRenderer
from portrait_core.faces.head import MorphableHead
from portrait_core.faces.reproject import HeadSurface
from portrait_core.inversion.features import build_features
from portrait_core.resources import data_file
from portrait_core.tracking.landmarker import FaceLandmarker

Picture = NDArray[np.uint8]

_FIVE_POINTS = (263, 362, 33, 133, 2)
"""Face-mesh numbers of dlib's five points: outer and inner corner of the eye at the image's right, the same
of the other eye, the nose's base."""
_RECOGNITION_MODEL = "models/dlib_face_recognition_resnet_model_v1.dat"


def package_file(package: str, name: str) -> Path | None:
    """A file inside an installed package, which is not imported; None where there is none."""
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations or []) if spec else []
    return next((path for place in places if (path := Path(place) / name).is_file()), None)


class Recogniser:
    """dlib's face-recognition network: vectors nearer than 0.6 to each other are the same person's.

    Faces are aligned by this project's landmarks, since dlib's own detector misses turned heads.
    """

    def __init__(self, dlib: Any, weights: Path) -> None:
        self._dlib, self._network = dlib, dlib.face_recognition_model_v1(str(weights))

    @classmethod
    def find(cls) -> Recogniser | None:
        """The recogniser, or None unless ``dlib-bin`` and ``face_recognition_models`` are installed."""
        weights = package_file("face_recognition_models", _RECOGNITION_MODEL)
        if weights is None or importlib.util.find_spec("dlib") is None:
            return None
        import dlib

        return cls(dlib, weights)

    def describe(self, picture: Picture, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Vector ``[128]`` of the face with landmarks ``[478,2]`` in a picture ``[H,W,3]``; NaN for NaN."""
        if not np.isfinite(points).all():
            return np.full(128, np.nan)
        x0, y0, x1, y1 = (int(v) for v in (*points.min(0), *points.max(0)))
        corners = [self._dlib.point(*map(int, np.round(points[i]))) for i in _FIVE_POINTS]
        face = self._dlib.full_object_detection(self._dlib.rectangle(x0, y0, x1, y1), corners)
        return np.array(self._network.compute_face_descriptor(np.ascontiguousarray(picture), face))


@dataclass(frozen=True)
class Tools:
    """Loaded models; ``recogniser`` is None where none is installed."""

    head: MorphableHead
    surface: HeadSurface
    scenes: SceneRenderer
    landmarker: FaceLandmarker
    phi: nn.Module
    recogniser: Recogniser | None

    @classmethod
    def load(cls, settings: Settings) -> Tools:
        """Load what the settings name."""
        head = MorphableHead.load(data_file(settings.tracking.head))
        models, least = data_file(settings.tracking.models), settings.tracking.min_face_score
        weights = settings.inversion.phi_weights
        return cls(
            head=head,
            surface=HeadSurface(head),
            scenes=SceneRenderer(head),
            landmarker=FaceLandmarker.from_models(models, min_score=least),
            phi=build_features(settings.inversion.phi, None if weights is None else data_file(weights)),
            recogniser=Recogniser.find(),
        )
