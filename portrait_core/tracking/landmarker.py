"""478 face landmarks per frame: BlazeFace boxes, MediaPipe's face mesh, then its attention mesh.

The face mesh has 468 points; the attention mesh reads lips, eyes and irises again.

Kartynnik et al. 2019 (face mesh), Ablavatski et al. 2020 (iris), Grishchenko et al. 2020 (attention mesh). No
frame depends on another one, so any range of a video can be tracked anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from portrait_core.face_model.topology import (
    EYE_CONTOUR_LEFT,
    EYE_CONTOUR_RIGHT,
    IRIS_LEFT,
    IRIS_RIGHT,
    N_MESH,
    N_POINTS,
)
from portrait_core.tracking.attention import DEFAULT_LOOKS, AttentionReader
from portrait_core.tracking.detector import FaceBoxes, FaceDetector, open_session, search_levels
from portrait_core.tracking.regions import FACE_MARGIN, MESH_INPUT, Regions, mesh_regions, run_regions
from portrait_core.tracking.turns import is_upright, turn_points, turned_size

MIN_SCORE = 0.95
"""Face presence above which a region holds a face: people and paintings score over 0.999, cats up to 0.87."""
_IRIS_INPUT = 64
_EYE_MARGIN = 2.3
_MAX_CANDIDATES = 8
_MAX_PASSES = 5
_STEADY = 0.04  # largest change of a region between passes that counts as none, of its side
_SAME_FACE = 0.25  # regions closer than this, over their side, show one face


@dataclass(frozen=True)
class LandmarkFrames:
    """Landmarks of n frames.

    ``points [n,478,2]`` float32, continuous pixels (centres at +0.5), NaN where there is no face: the 468
    mesh points, then the right and the left iris (the subject's; centre, then its rim at the image's right,
    top, left, bottom);
    ``score [n]`` float32, the mesh model's face presence in 0..1; ``faces [n]`` int64, faces in the frame;
    ``ok [n]`` bool, whether a face was found.
    """

    points: NDArray[np.float32]
    score: NDArray[np.float32]
    faces: NDArray[np.int64]
    ok: NDArray[np.bool_]


@dataclass(frozen=True)
class AllFaces:
    """The faces of n frames, at most K of each.

    ``points [n,K,478,2]`` float32 as in :class:`LandmarkFrames`, NaN where there is no such face: the largest
    and most central face of a frame comes first; ``score [n,K]`` float32, the mesh model's face presence in
    0..1, in the first column the frame's best one even where none passes; ``faces [n]`` int64, faces in the
    frame.
    """

    points: NDArray[np.float32]
    score: NDArray[np.float32]
    faces: NDArray[np.int64]

    def main(self) -> LandmarkFrames:
        """Return the first face of each frame."""
        return LandmarkFrames(self.points[:, 0], self.score[:, 0], self.faces, self.faces > 0)


class FaceLandmarker:
    """Finds the faces of every frame and their 478 landmarks."""

    def __init__(
        self,
        detector: FaceDetector,
        mesh: onnxruntime.InferenceSession,
        iris: onnxruntime.InferenceSession,
        min_score: float = MIN_SCORE,
        attention: AttentionReader | None = None,
    ) -> None:
        self._detector = detector
        self._mesh = mesh
        self._iris = iris
        self._min_score = min_score
        self._attention = attention

    @classmethod
    def from_models(
        cls,
        models_dir: str | Path,
        threads: int = 1,
        min_score: float = MIN_SCORE,
        refine: bool = True,
        looks: int = DEFAULT_LOOKS,
    ) -> FaceLandmarker:
        """Open the models in ``models_dir`` (the repository's ``data/models``) with ``threads`` CPU threads.

        A region whose face presence is not above ``min_score`` (0..1) has no face. Without ``refine`` the
        landmarks are those of the face mesh and the iris model: another reading of the same face, which
        takes closed lips for a gap and is drawn to what most faces do. With it they are the mean of the first
        ``looks`` of :data:`~portrait_core.tracking.attention.LOOKS`.

        Raises:
            ValueError: if a model file is missing, ``threads`` is less than 1, or there are no such looks.
        """
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        folder = Path(models_dir)
        return cls(
            FaceDetector(open_session(folder / "face_detector_256.onnx", threads)),
            open_session(folder / "face_landmarks_468.onnx", threads),
            open_session(folder / "iris_landmarks.onnx", threads),
            min_score,
            # the face mesh has the last word on whether there is a face: readings must not alternate
            AttentionReader.from_models(folder, threads, 0.0, looks) if refine else None,
        )

    def detect(self, frames: NDArray[np.uint8]) -> LandmarkFrames:
        """Find the landmarks of ``frames [n,H,W,3]`` uint8 RGB.

        Of several faces the largest and most central one is taken. Where nothing on the frame passes the mesh
        model's face-presence gate (an animal, an empty room), ``ok`` is False.

        Raises:
            ValueError: if the frames are not ``[n,H,W,3]`` uint8.
        """
        return self.detect_all(frames, 1).main()

    def detect_all(
        self, frames: NDArray[np.uint8], most: int, turned: bool = False, thorough: bool = False
    ) -> AllFaces:
        """Find the landmarks of all faces in ``frames [n,H,W,3]`` uint8 RGB.

        Args:
            frames: the frames.
            most: number of faces per frame at most; the smallest and least central ones are left out.
            turned: look at frames without an upright face turned by quarters too, because the detector reads
                a face that lies on its side or stands on its head badly or not at all.
            thorough: look for small faces beside a large one too; takes several times as long.

        Raises:
            ValueError: if the frames are not ``[n,H,W,3]`` uint8.
        """
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise ValueError(
                f"expected frames [n,H,W,3] uint8 RGB, got {frames.shape} {frames.dtype}; add the leading "
                "axis or convert to RGB"
            )
        found = self._search(frames, most, thorough)
        for quarters in (3, 1, 2) if turned else ():
            missing = np.flatnonzero(~is_upright(found.points[:, 0]))
            if len(missing) == 0:
                break
            other = self._search(
                np.ascontiguousarray(np.rot90(frames[missing], quarters, (1, 2))), most, thorough
            )
            upright = is_upright(other.points[:, 0])
            better = missing[upright]
            found.points[better] = turn_points(
                other.points[upright], -quarters, turned_size(frames.shape[2:0:-1], quarters)
            )
            found.score[better], found.faces[better] = other.score[upright], other.faces[upright]
        return found

    def _search(self, frames: NDArray[np.uint8], most: int, thorough: bool) -> AllFaces:
        """Find faces in frames, level by level: each level serves the frames without a face so far.

        A thorough search takes the faces of all levels but the last one, which is for faces that fill the
        frame, together.
        """
        n = len(frames)
        found = AllFaces(
            np.full((n, most, N_POINTS, 2), np.nan, dtype=np.float32),
            np.zeros((n, most), dtype=np.float32),
            np.zeros(n, dtype=np.int64),
        )
        levels = search_levels(*frames.shape[2:0:-1])
        steps = [levels[:-1], levels[-1:]] if thorough else [[level] for level in levels]
        for step in steps:
            missing = np.flatnonzero(found.faces == 0)
            if len(missing) == 0:
                break
            parts = [
                _face_regions(self._detector.detect(frames, missing, level), missing, thorough)
                for level in step
            ]
            candidates = _joined(parts)
            if len(candidates.frame):
                self._accept(frames, candidates, found)
        return found

    def _accept(self, frames: NDArray[np.uint8], candidates: Regions, found: AllFaces) -> None:
        """Gate the candidates, and write the faces of their frames, which have none yet, into ``found``."""
        mesh, presence = self._run_mesh(frames, candidates)
        np.maximum.at(found.score[:, 0], candidates.frame, presence)
        good = np.flatnonzero(presence > self._min_score)
        regions = _distinct(mesh_regions(mesh[good], candidates.frame[good]))
        first, rank = _ranked_faces(regions, frames.shape[2:0:-1])
        shown = rank < found.points.shape[1]
        main, rank = regions.take(first[shown]), rank[shown]
        mesh, presence = self._settle(frames, main)
        found.score[main.frame, rank] = presence
        keep = presence > self._min_score
        settled = np.flatnonzero(keep)
        # boxes of one face, found in several squares, can come to rest on it only now
        lost = np.setdiff1d(settled, settled[_distinct_rows(mesh_regions(mesh[keep], main.frame[keep]))])
        keep[lost] = False
        if not keep.any():
            return
        rows, rank = main.frame[keep], rank[keep]
        read = self._read_closely(frames, rows, mesh[keep])
        # a face that fails the last gate leaves no gap before those behind it
        order = np.lexsort((rank, rows))
        rows, read, presence = rows[order], read[order], presence[keep][order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)
        found.score[np.unique(rows)] = 0.0
        found.points[rows, place], found.score[rows, place] = read, presence
        doubles = np.bincount(main.frame[lost], minlength=len(frames))
        found.faces[rows] = (np.bincount(regions.frame, minlength=len(frames)) - doubles)[rows]

    def _run_mesh(
        self, frames: NDArray[np.uint8], regions: Regions
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mesh landmarks ``[k,468,2]`` in pixels and face presence ``[k]`` in 0..1."""
        mesh, logit = run_regions(self._mesh, frames, regions, MESH_INPUT)
        points = mesh.reshape(-1, N_MESH, 3)[..., :2] / MESH_INPUT
        return regions.to_image(points), 1.0 / (1.0 + np.exp(-logit.reshape(-1)))

    def _settle(
        self, frames: NDArray[np.uint8], regions: Regions
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Run the mesh on the regions of its own landmarks until these stand still.

        The detector's box of a small face can be a fifth of a face off, and each pass removes about half of
        that.
        """
        mesh, presence = self._run_mesh(frames, regions)
        moving = np.arange(len(regions.frame))
        for _ in range(_MAX_PASSES - 1):
            before, after = regions.take(moving), mesh_regions(mesh[moving], regions.frame[moving])
            change = np.linalg.norm(after.center - before.center, axis=1) + np.abs(after.side - before.side)
            far = change > _STEADY * before.side
            moving, after = moving[far], after.take(np.flatnonzero(far))
            if len(moving) == 0:
                break
            mesh[moving], presence[moving] = self._run_mesh(frames, after)
            regions.center[moving], regions.side[moving] = after.center, after.side
            regions.angle[moving] = after.angle
        return mesh, presence

    def _read_closely(
        self, frames: NDArray[np.uint8], frame: NDArray[np.int64], mesh: NDArray[np.float64]
    ) -> NDArray[np.floating]:
        """Return all landmarks ``[k,478,2]`` of faces whose ``mesh [k,468,2]`` is known."""
        if self._attention is None:
            return self._add_irises(frames, frame, mesh)
        return self._attention.read_regions(frames, mesh_regions(mesh, frame))

    def _add_irises(
        self, frames: NDArray[np.uint8], frame: NDArray[np.int64], mesh: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Refine the eye contours of ``mesh [k,468,2]`` and append the irises: ``[k,478,2]``."""
        points = np.concatenate([mesh, np.full((len(mesh), N_POINTS - N_MESH, 2), np.nan)], axis=1)
        eyes = (
            (33, 133, EYE_CONTOUR_RIGHT, IRIS_RIGHT, False),
            (362, 263, EYE_CONTOUR_LEFT, IRIS_LEFT, True),
        )
        for first, second, contour, iris, mirrored in eyes:
            regions = _regions_between(mesh[:, first], mesh[:, second], frame)
            eye, rim = run_regions(self._iris, frames, regions, _IRIS_INPUT, mirrored)
            # mirroring swaps the rim's right and left
            order = iris[[0, 3, 2, 1, 4]] if mirrored else iris
            for target, values in ((contour, eye), (order, rim)):
                local = values.reshape(len(mesh), -1, 3)[..., :2] / _IRIS_INPUT
                if mirrored:
                    local[..., 0] = 1.0 - local[..., 0]
                points[:, target] = regions.to_image(local)
        return points


def _joined(parts: list[Regions]) -> Regions:
    """Return the regions of several parts, one after the other."""
    names = ("center", "side", "angle", "frame")
    return Regions(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _distinct(regions: Regions) -> Regions:
    """Drop regions that show the same face of the same frame as an earlier one."""
    return regions.take(_distinct_rows(regions))


def _distinct_rows(regions: Regions) -> NDArray[np.int64]:
    """Return the rows of regions that show another face than all earlier ones of their frame."""
    kept: list[int] = []
    for k in range(len(regions.frame)):
        same = [
            j
            for j in kept
            if regions.frame[j] == regions.frame[k]
            and np.linalg.norm(regions.center[j] - regions.center[k]) < _SAME_FACE * regions.side[j]
        ]
        if not same:
            kept.append(k)
    return np.array(kept, dtype=np.int64)


def _ranked_faces(regions: Regions, size: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the regions, frame by frame, and each one's rank in its frame from 0.

    The largest and most central region comes first; ``size`` is (width, height).
    """
    order = np.lexsort((-face_weight(regions.center, regions.side, size), regions.frame))
    frame = regions.frame[order]
    return order, np.arange(len(order)) - np.searchsorted(frame, frame)


def face_weight(
    center: NDArray[np.floating], side: NDArray[np.floating], size: tuple[int, ...]
) -> NDArray[np.floating]:
    """Weigh faces by their size and how central they are in a picture.

    Args:
        center: ``[k,2]`` middles in pixels.
        side: ``[k]`` sides in pixels.
        size: width and height of the picture in pixels.
    """
    off_center = np.linalg.norm(center / size - 0.5, axis=1).clip(0, 1)
    return side * (1.0 - 0.7 * off_center)


def _face_regions(found: list[FaceBoxes], frames: NDArray[np.int64], every: bool = False) -> Regions:
    """Return the mesh model's regions for the boxes in ``frames``, turned so that the eyes are level.

    The best few of a frame, or ``every`` one.
    """
    parts = [
        (frame, boxes, k)
        for frame, boxes in zip(frames, found, strict=True)
        for k in range(len(boxes) if every else min(len(boxes), _MAX_CANDIDATES))
    ]
    if not parts:
        return Regions(np.zeros((0, 2)), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    box = np.stack([boxes.box_px[k] for _, boxes, k in parts])
    eyes = np.stack([boxes.keypoints_px[k, 1] - boxes.keypoints_px[k, 0] for _, boxes, k in parts])
    return Regions(
        box.mean(axis=1),
        FACE_MARGIN * (box[:, 1] - box[:, 0]).max(axis=1),
        np.arctan2(eyes[:, 1], eyes[:, 0]),
        np.array([i for i, _, _ in parts], dtype=np.int64),
    )


def _regions_between(
    first: NDArray[np.float64], second: NDArray[np.float64], frame: NDArray[np.int64]
) -> Regions:
    """Return the iris model's regions around eyes with corners ``first`` (image left), ``second [k,2]``."""
    across = second - first
    return Regions(
        (first + second) / 2,
        _EYE_MARGIN * np.abs(across).max(axis=1).clip(1.0),
        np.arctan2(across[:, 1], across[:, 0]),
        frame,
    )
