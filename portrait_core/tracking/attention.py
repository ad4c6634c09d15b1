"""MediaPipe's attention mesh, which reads a detected face again, closely at lips, eyes and irises.

See Grishchenko et al. 2020. It finds no faces: it starts from landmarks that
:class:`~portrait_core.tracking.landmarker.FaceLandmarker` found, and shares neither weights nor features with
the networks that found them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from portrait_core.face_model.topology import (
    EYE_CONTOUR_LEFT,
    EYE_CONTOUR_RIGHT,
    EYE_OUTER,
    IRIS_LEFT,
    IRIS_RIGHT,
    JAW_POINTS,
    JAW_SHARES,
    LIPS_REFINED,
    LOWER_LIP_INNER,
    LOWER_LIP_MIDDLE,
    N_MESH,
    N_POINTS,
    UPPER_LIP_INNER,
)
from portrait_core.tracking.detector import open_session
from portrait_core.tracking.regions import MESH_INPUT, Regions, mesh_regions, run_regions

MODEL = "face_mesh_attention.onnx"
PRESENCE = 0.95
"""Face presence, 0..1, below which the model detects no face."""

SMILING_GAP = 0.1
"""Gap between the lips, over the distance of the outer eye corners, that lips have before a jaw drops."""
CHIN_PER_LIP_GAP = 0.36
"""Share of the gap beyond that by which the network's chin is too high."""
CHIN_PER_LIP_SHIFT = 0.35
"""The same share of how far the close look finds the lower lip below the coarse mesh's.

Both shares are fitted to 120 pictures of rendered people whose chins are known; on 64 of others they leave
0.025 of the eyes' distance where 0.040 were missing. The limit keeps chins of photographed smiles where they
are, and the shift counts for no more than the gap beyond it."""


class AttentionReader:
    """Reads the 478 landmarks of faces with known places."""

    def __init__(self, session: onnxruntime.InferenceSession, min_score: float = PRESENCE) -> None:
        self._session = session
        self._min_score = min_score

    @classmethod
    def from_models(
        cls, models_dir: str | Path, threads: int = 1, min_score: float = PRESENCE
    ) -> AttentionReader:
        """Open the model in ``models_dir`` (the repository's ``data/models``) with ``threads`` CPU threads.

        Where the model's face presence is below ``min_score`` (0..1) there is no face.

        Raises:
            ValueError: if the model's file is missing or ``threads`` is less than 1.
        """
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        return cls(open_session(Path(models_dir) / MODEL, threads), min_score)

    def read(self, frames: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Read landmarks again, on the squares around known ones.

        Args:
            frames: ``[n,H,W,3]`` uint8 RGB.
            points: ``[n,478,2]``, the face's landmarks in pixels of each frame, NaN where there is no face.

        Returns:
            ``[n,478,2]`` in the same order and pixels: the attention mesh, with its refined lips (80 points),
            eyes (71 each) and irises (5 each) in it; NaN where there is no face, by the points or by the
            model.

        Raises:
            ValueError: if the frames are not ``[n,H,W,3]`` uint8, or there are not 478 points for each.
        """
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise ValueError(
                f"expected frames [n,H,W,3] uint8 RGB, got {frames.shape} {frames.dtype}; add the leading "
                "axis or convert to RGB"
            )
        if points.shape != (len(frames), N_POINTS, 2):
            raise ValueError(
                f"expected points [{len(frames)},{N_POINTS},2], one face for each frame, got {points.shape}; "
                "find them with FaceLandmarker.detect"
            )
        result = np.full(points.shape, np.nan, np.float32)
        known = np.flatnonzero(np.isfinite(points).all((1, 2)))
        if len(known) == 0:
            return result
        regions = mesh_regions(points[known, :N_MESH].astype(np.float64), known)
        result[known] = self.read_regions(frames, regions)
        return result

    def read_regions(self, frames: NDArray[np.uint8], regions: Regions) -> NDArray[np.float32]:
        """Read the face in each region of the frames: ``[k,478,2]``, NaN where the model sees no face."""
        mesh, *refined, presence = run_regions(self._session, frames, regions, MESH_INPUT)
        local = np.concatenate([mesh[..., :2], np.zeros((len(mesh), N_POINTS - N_MESH, 2))], axis=1)
        coarse_lip = local[:, LOWER_LIP_MIDDLE, 1].mean(1)
        targets = (LIPS_REFINED, EYE_CONTOUR_RIGHT, EYE_CONTOUR_LEFT, IRIS_RIGHT, IRIS_LEFT)
        for target, values in zip(targets, refined, strict=True):
            local[:, target] = values
        _lower_jaws(local, local[:, LOWER_LIP_MIDDLE, 1].mean(1) - coarse_lip)
        points = regions.to_image(local / MESH_INPUT).astype(np.float32)
        points[presence < self._min_score] = np.nan
        return points


def _lower_jaws(points: NDArray[np.float64], lower_lip_px: NDArray[np.float64]) -> None:
    """Lower chins with their lower lips, in place.

    The network reports about half of how far a chin drops: its chin stays behind, and comes to lie upon the
    lower lip of a wide-open mouth.

    Args:
        points: ``[k,478,2]`` in pixels of upright regions.
        lower_lip_px: distance of the attention mesh's lower lip below the coarse mesh's ``[k]``, in pixels.
    """
    eyes = np.linalg.norm(points[:, EYE_OUTER[1]] - points[:, EYE_OUTER[0]], axis=1)
    gap = points[:, LOWER_LIP_INNER, 1] - points[:, UPPER_LIP_INNER, 1]
    dropped = np.maximum(gap - SMILING_GAP * eyes, 0.0)
    shift = np.minimum(lower_lip_px, dropped)  # lips that hardly part say nothing of the jaw
    drop = CHIN_PER_LIP_GAP * dropped + CHIN_PER_LIP_SHIFT * shift
    points[:, JAW_POINTS, 1] += np.maximum(drop, 0.0)[:, None] * JAW_SHARES
