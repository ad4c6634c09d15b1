"""The paper's tracker: DECA and FLAME for expressions, Deep3DFaceRecon for cameras."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.face_model.flame import FlameLandmarks, flame_head
from portrait_core.face_model.head import MorphableHead
from portrait_core.tracking.array_names import DECA_CODE
from portrait_core.tracking.checkpoints import read_deca, read_deep3d
from portrait_core.tracking.deca import DecaEncoder
from portrait_core.tracking.deep3d import Deep3DEncoder
from portrait_core.tracking.fit import FaceTrack
from portrait_core.tracking.five_points import standard_face
from portrait_core.tracking.paper_tracker import LandmarkError, PaperTracker, face_track, track_clip
from portrait_core.tracking.trackers import Frames, TrackedPortrait
from portrait_core.weights.readers.flame_files import LandmarkEmbedding, read_flame, read_landmark_embedding
from portrait_core.weights.readers.mat_files import read_similarity_landmarks


def load_networks(
    deca: Path, deep3d: Path, landmarks: Path, device: torch.device | str, batch: int
) -> PaperTracker:
    """Load both encoders.

    Args:
        deca: file of DECA, as published.
        deep3d: file of Deep3DFaceRecon, as published.
        landmarks: file of Deep3DFaceRecon's standard face.
        device: device of the networks.
        batch: faces per batch.
    """
    return PaperTracker(
        DecaEncoder.from_state(read_deca(deca).e_flame).to(device),
        Deep3DEncoder.from_state(read_deep3d(deep3d).net_recon).to(device),
        standard_face(read_similarity_landmarks(landmarks).landmarks),
        batch,
    )


@dataclass(frozen=True)
class MarkedFlame:
    """FLAME on the CPU, and the landmarks on it."""

    head: MorphableHead
    embedding: LandmarkEmbedding

    @classmethod
    def load(cls, flame: Path, landmarks: Path) -> MarkedFlame:
        """Load the published files of FLAME and of DECA's landmarks on it."""
        marks = read_landmark_embedding(landmarks)
        return cls(flame_head(read_flame(flame), landmarks=marks), marks)

    def error(self) -> LandmarkError:
        """Return the measure of a track's distance from the detected landmarks."""
        return LandmarkError(self.head, FlameLandmarks(self.embedding, self.head.faces))


class DecaTracker:
    """Encodes every frame by itself: the :class:`~portrait_core.tracking.trackers.Tracker` of the paper.

    Args:
        networks: DECA and Deep3DFaceRecon.
        error: measure of a track's distance from landmarks.
    """

    def __init__(self, networks: PaperTracker, error: LandmarkError) -> None:
        self._networks, self._error = networks, error

    def portrait(self, image: NDArray[np.uint8], points: NDArray[np.float32], size: int) -> TrackedPortrait:
        """Find DECA's code and EG3D's crop with its camera.

        Args:
            image: the portrait ``[H,W,3]`` uint8.
            points: its landmarks ``[1,478,2]``, in pixels.
            size: side of the crop in pixels.
        """
        encoded = self._networks.track([image], points, size)
        code = np.concatenate([values.reshape(1, -1).numpy() for values in encoded.code], axis=1)
        place = encoded.wild.placement
        kept = (code, encoded.tform.numpy(), np.concatenate([place.factor, place.shift], axis=1))
        track = face_track(encoded, self._error.of(encoded, points))
        return TrackedPortrait(track, encoded.wild.images[0], dict(zip(DECA_CODE, kept, strict=True)))

    def clip(
        self,
        points: NDArray[np.float32],
        ok: NDArray[np.bool_],
        frames: Frames,
        shape: NDArray[np.floating] | None = None,
        cuts: NDArray[np.bool_] | None = None,
    ) -> FaceTrack:
        """Track T frames with landmarks ``[T,478,2]``; ``shape`` and ``cuts`` change nothing."""
        return track_clip(self._networks, self._error, frames(), points, ok)
