"""What every portrait of a benchmark run shares: head, tracker, perceptual features, face recogniser."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.reproject import HeadSurface
from portrait_core.inversion.features import build_features
from portrait_core.metrics.identity import ShippedRecogniser
from portrait_core.photograph.matte import PersonSegmenter
from portrait_core.runtime.package_files import data_file
from portrait_core.settings import Settings
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.training.render import SceneRenderer

Picture = NDArray[np.uint8]


def package_file(package: str, name: str) -> Path | None:
    """A file inside an installed package, which is not imported; None where there is none."""
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations or []) if spec else []
    return next((path for place in places if (path := Path(place) / name).is_file()), None)


@dataclass(frozen=True)
class Tools:
    """Loaded models."""

    head: MorphableHead
    surface: HeadSurface
    scenes: SceneRenderer
    landmarker: FaceLandmarker
    segmenter: PersonSegmenter
    phi: nn.Module
    recogniser: ShippedRecogniser

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
            segmenter=PersonSegmenter.from_models(models),
            phi=build_features(settings.inversion.phi, None if weights is None else data_file(weights)),
            recogniser=ShippedRecogniser.load(),
        )
