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
        deca, deep3d: files of the networks, as published.
        landmarks: file of Deep3DFaceRecon's standard face.
        device: where they compute.
        batch: faces at a time.
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
        """Give what says how far a track is from the detected landmarks."""
        return LandmarkError(self.head, FlameLandmarks(self.embedding, self.head.faces))


class DecaTracker:
    """Encodes every frame by itself; see :class:`~portrait_core.tracking.trackers.Tracker`.

    Args:
        networks: DECA's and Deep3DFaceRecon's.
        error: says how far a track is from landmarks.
    """

    def __init__(self, networks: PaperTracker, error: LandmarkError) -> None:
        self._networks, self._error = networks, error

    def portrait(self, image: NDArray[np.uint8], points: NDArray[np.float32], size: int) -> TrackedPortrait:
        """Give DECA's code and EG3D's crop with its camera, of a portrait ``[H,W,3]`` with landmarks
        ``[1,478,2]``.
        """
        found = self._networks.track([image], points, size)
        code = np.concatenate([part.reshape(1, -1).numpy() for part in found.code], axis=1)
        place = found.wild.placement
        kept = (code, found.tform.numpy(), np.concatenate([place.factor, place.shift], axis=1))
        track = face_track(found, self._error.of(found, points))
        return TrackedPortrait(track, found.wild.images[0], dict(zip(DECA_CODE, kept, strict=True)))

    def clip(
        self,
        points: NDArray[np.float32],
        ok: NDArray[np.bool_],
        frames: Frames,
        shape: NDArray[np.floating] | None = None,
        neighbours: bool = True,
    ) -> FaceTrack:
        """Track T frames with landmarks ``[T,478,2]``; ``shape`` and ``neighbours`` change nothing."""
        return track_clip(self._networks, self._error, frames(), points, ok)
