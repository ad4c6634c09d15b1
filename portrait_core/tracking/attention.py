"""MediaPipe's attention mesh, which reads a detected face again, closely at lips, eyes and irises.

See Grishchenko et al. 2020. It finds no faces: it starts from landmarks that
:class:`~portrait_core.tracking.landmarker.FaceLandmarker` found, and shares neither weights nor features with
the networks that found them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from portrait_core.face_model.topology import (
    AROUND_EYES,
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
    MIRROR,
    N_MESH,
    N_POINTS,
    UPPER_LIP_INNER,
)
from portrait_core.tracking.detector import open_session
from portrait_core.tracking.regions import MESH_INPUT, Regions, mesh_regions, run_regions

MODEL = "face_mesh_attention.onnx"
PRESENCE = 0.95
"""Face presence, 0..1, below which the model detects no face."""
DEFAULT_LOOKS = 4
"""Number of looks at a face (:data:`LOOKS`) of which a reading is the mean."""

SMILING_GAP = 0.1
"""Gap between the lips, over the distance of the outer eye corners, that lips have before a jaw drops."""
CHIN_PER_LIP_GAP = 0.36
"""Share of the gap beyond that by which the network's chin is too high."""
CHIN_PER_LIP_SHIFT = 0.35
"""The same share of how far the close look finds the lower lip below the coarse mesh's.

Both shares are fitted to 120 pictures of rendered people whose chins are known; on 64 of others they leave
0.025 of the eyes' distance where 0.040 were missing. The limit keeps chins of photographed smiles where they
are, and the shift counts for no more than the gap beyond it."""

EYE_DRAG = 0.37
"""Part of a look aside by which the network moves the eyes themselves along with their irises.

Of known moves of irises alone, in six photographs, it reports .93; and it moves corners and lids, which do
not move, by .25. So two thirds are left of the look, which is the iris between the corners. On five held-out
people it reports .87, and moves corners and lids by .30."""
UP_LOST = 0.85
"""Part of a look up that is lost over that which is read.

Of the same moves up the network reports .61 and moves corners and lids by .28 (held out: .60 and .38). Here
the irises are moved on and the corners left: brows are measured over the corners, and the height of an iris
is read too unsteadily behind half-closed lids to move them."""
IRIS_RESTS_UP = 0.05
"""Height of irises that look straight ahead above the line between an eye's corners, over the eye's width."""
_EYES = (
    (IRIS_RIGHT[0], 33, 133, EYE_CONTOUR_RIGHT[:AROUND_EYES]),
    (IRIS_LEFT[0], 362, 263, EYE_CONTOUR_LEFT[:AROUND_EYES]),
)
"""Per eye the iris, the corners from the image's left to its right, and the points that are dragged along."""


@dataclass(frozen=True)
class Look:
    """One view of a face's square that the network is given.

    Attributes:
        shift: of the square across and down, over its side.
        scale: factor of its side.
        turn_rad: turn of the square.
        mirrored: whether the network sees the square mirrored left to right.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    turn_rad: float = 0.0
    mirrored: bool = False

    def square(self, regions: Regions) -> Regions:
        """Return the squares that this look takes of ``regions``."""
        shift = (regions.axes() @ np.array(self.shift)) * regions.side[:, None]
        return Regions(
            regions.center + shift, regions.side * self.scale, regions.angle + self.turn_rad, regions.frame
        )


LOOKS = (
    Look(),
    Look(mirrored=True),
    Look((0.01, 0.01), 1.03, 0.02),
    Look((-0.01, 0.01), 1.03, -0.02, mirrored=True),
)
"""Looks at a face, of which a reading is the mean, the first ones first.

The network reads each half of a face partly by the other one: a mirrored look errs the other way, so that
differences of right and left gain most. On rendered people (6 in 14 expressions) the correlation with the
truth rises from .74 to .88 with two looks and .90 with four for the mouth's corners' difference, from .71 to
.84 and .85 for the brows' difference, from .76 to .85 and .87 for a look up."""


class AttentionReader:
    """Reads the 478 landmarks of faces with known places."""

    def __init__(
        self, session: onnxruntime.InferenceSession, min_score: float = PRESENCE, looks: int = DEFAULT_LOOKS
    ) -> None:
        self._session = session
        self._min_score = min_score
        self._looks = LOOKS[:looks]

    @classmethod
    def from_models(
        cls,
        models_dir: str | Path,
        threads: int = 1,
        min_score: float = PRESENCE,
        looks: int = DEFAULT_LOOKS,
    ) -> AttentionReader:
        """Open the model in ``models_dir`` (the repository's ``data/models``) with ``threads`` CPU threads.

        Where the model's face presence is below ``min_score`` (0..1) there is no face. A reading is the mean
        of the first ``looks`` of :data:`LOOKS`; each costs a run of the network.

        Raises:
            ValueError: if the model's file is missing, ``threads`` is less than 1, or there are fewer or more
                looks.
        """
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        if not 1 <= looks <= len(LOOKS):
            raise ValueError(f"looks must be 1 to {len(LOOKS)}, got {looks}; set tracking.looks")
        return cls(open_session(Path(models_dir) / MODEL, threads), min_score, looks)

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
        """Read the face in each region of the frames: ``[k,478,2]``, NaN where the model sees no face.

        The first look says whether there is a face.
        """
        seen = [self._look(look, frames, regions) for look in self._looks]
        points = np.mean([each for each, _ in seen], axis=0).astype(np.float32)
        _hold_eyes(points)
        points[seen[0][1] < self._min_score] = np.nan
        return points

    def _look(
        self, look: Look, frames: NDArray[np.uint8], regions: Regions
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what one look reads: landmarks ``[k,478,2]`` in pixels, and face presence ``[k]``."""
        regions = look.square(regions)
        mesh, *refined, presence = run_regions(self._session, frames, regions, MESH_INPUT, look.mirrored)
        local = np.concatenate([mesh[..., :2], np.zeros((len(mesh), N_POINTS - N_MESH, 2))], axis=1)
        coarse_lip = local[:, LOWER_LIP_MIDDLE, 1].mean(1)
        targets = (LIPS_REFINED, EYE_CONTOUR_RIGHT, EYE_CONTOUR_LEFT, IRIS_RIGHT, IRIS_LEFT)
        for target, values in zip(targets, refined, strict=True):
            local[:, target] = values
        if look.mirrored:
            local[..., 0] = MESH_INPUT - local[..., 0]
            local = local[:, MIRROR]
        _lower_jaws(local, local[:, LOWER_LIP_MIDDLE, 1].mean(1) - coarse_lip)
        return regions.to_image(local / MESH_INPUT), presence


def _hold_eyes(points: NDArray[np.float32]) -> None:
    """Give looks back, in place, what the network takes of them (:data:`EYE_DRAG`, :data:`UP_LOST`).

    It is by the mean of both eyes' looks: crossed eyes do not move their corners.

    Args:
        points: ``[k,478,2]`` in pixels, y down.
    """
    looks, frames = [], []
    for iris, left, right, _ in _EYES:
        across = points[:, right] - points[:, left]
        frame = np.stack([across, np.stack([across[:, 1], -across[:, 0]], 1)], 1)  # to the right and up
        away = points[:, iris] - (points[:, left] + points[:, right]) / 2
        width = (across**2).sum(1)
        looks.append(np.einsum("kij,kj->ki", frame, away) / width[:, None])
        frames.append(frame)
    look = np.mean(looks, axis=0)
    for (iris, *_, around), frame in zip(_EYES, frames, strict=True):
        points[:, around] -= (EYE_DRAG * look[:, :1] * frame[:, 0])[:, None].astype(np.float32)
        up = UP_LOST * (look[:, 1:] - IRIS_RESTS_UP) * frame[:, 1]
        points[:, iris : iris + len(IRIS_RIGHT)] += up[:, None].astype(np.float32)


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
