"""Face boxes with BlazeFace (Bazarevsky et al. 2019), on whole frames and, where that fails, on tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from portrait_core.errors import ModelFileError
from portrait_core.tracking.crop import sample_square

_INPUT = 256
_STRIDES_AND_ANCHORS = ((16, 2), (32, 6))  # feature-map stride, anchors a cell
_MIN_SCORE = 0.5
_OVERLAP = 0.3
_SMALLEST_TILE = 200
_MOST_ARENA = 1 << 32  # bytes


@dataclass(frozen=True)
class Square:
    """A square of the image: centre and side in continuous pixels."""

    center_px: tuple[float, float]
    side_px: float


@dataclass(frozen=True)
class FaceBoxes:
    """Faces found in one frame, best score first.

    ``box_px [k,2,2]`` low and high corner; ``keypoints_px [k,6,2]`` right eye, left eye (the subject's),
    nose, mouth, right and left ear; ``score [k]`` in 0..1.
    """

    box_px: NDArray[np.float64]
    keypoints_px: NDArray[np.float64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.score)


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open an ONNX model on the CPU with ``threads`` threads inside an operator.

    Raises:
        ModelFileError: if the file is missing.
    """
    if not path.is_file():
        raise ModelFileError(f"model {path} is missing; pass the repository's data/models folder")
    return start_session(str(path), threads)


def start_session(model: str | bytes, threads: int, *, bounded: bool = False) -> onnxruntime.InferenceSession:
    """Open an ONNX model, given as a path or as its bytes, as :func:`open_session` does.

    Args:
        model: path or bytes of the model.
        threads: threads inside an operator.
        bounded: whether its values, with those of all such sessions of the process, take 4 GiB at most: for
            networks that a user brings, which can make arrays of any size while they run.
    """
    options = onnxruntime.SessionOptions()
    if bounded:
        _share_bounded_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], enable_fallback=False
    )


@cache
def _share_bounded_arena() -> None:
    """Make the memory of bounded sessions, which the runtime keeps for the whole process."""
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    unset = dict.fromkeys(
        ("arena_extend_strategy", "initial_chunk_size_bytes", "max_dead_bytes_per_chunk"), -1
    )
    onnxruntime.create_and_register_allocator(
        place, onnxruntime.OrtArenaCfg({"max_mem": _MOST_ARENA, **unset})
    )


class FaceDetector:
    """MediaPipe's 256-pixel "back camera" BlazeFace."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._anchors = _anchors()

    def detect(
        self, frames: NDArray[np.uint8], which: NDArray[np.int64], squares: Sequence[Square]
    ) -> list[FaceBoxes]:
        """Find faces in the frames ``which`` of ``frames [n,H,W,3]`` uint8.

        The detector sees the same squares of each frame (one level of :func:`search_levels`), black outside
        of the frame, and its detections are merged.
        """
        found = []
        for frame in frames[which]:
            points, score = [], []
            for square in squares:
                tile = sample_square(frame, square.center_px, square.side_px, 0.0, _INPUT, beyond="black")
                local, confidence = self._run(tile)
                points.append(local * square.side_px + square.center_px - square.side_px / 2)
                score.append(confidence)
            found.append(_merge(np.concatenate(points), np.concatenate(score)))
        return found

    def _run(self, tile: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return one square's candidates: points ``[k,8,2]`` in 0..1 (box corners, keypoints), scores."""
        image = tile[None].astype(np.float32) / 127.5 - 1.0
        values, logits = (np.asarray(v[0], np.float64) for v in self._session.run(None, {"image": image}))
        keep = np.flatnonzero(logits[:, 0] > np.log(_MIN_SCORE / (1 - _MIN_SCORE)))
        points = values[keep].reshape(-1, 8, 2) / _INPUT
        half = points[:, 1] / 2
        points[:, 2:] += self._anchors[keep, None]
        center = points[:, 0] + self._anchors[keep]
        points[:, 0], points[:, 1] = center - half, center + half
        score = 1.0 / (1.0 + np.exp(-np.clip(logits[keep, 0], -80, 80)))
        valid = (half > 0).all(axis=1)
        return points[valid], score[valid]


def search_levels(width: int, height: int) -> list[list[Square]]:
    """Return the squares to search, level by level; each level serves frames without a face so far.

    First the whole frame; then overlapping tiles of 1/1.5, 1/2.5 and 1/4 of its longer side, for small faces
    (left out where the tile would show no more detail); last the frame at half its size, for faces
    that fill it.
    """
    long = float(max(width, height))
    middle = (width / 2, height / 2)
    levels = [[Square(middle, long)]]
    for side in (long / 1.5, long / 2.5, long / 4):
        if side >= _SMALLEST_TILE:
            xs, ys = (_tile_centers(extent, side) for extent in (width, height))
            levels.append([Square((float(x), float(y)), side) for y in ys for x in xs])
    levels.append([Square(middle, 2 * long)])
    return levels


def _tile_centers(extent: int, side: float) -> NDArray[np.float64]:
    """Return centres of tiles that cover ``extent`` and share at least a quarter with their neighbours."""
    if extent <= side:
        return np.array([extent / 2])
    count = int(np.ceil((extent - side) / (0.75 * side))) + 1
    return np.linspace(side / 2, extent - side / 2, count)


def _anchors() -> NDArray[np.float64]:
    """Return the centres of the detector's 896 anchors, ``[896,2]`` in 0..1, in its outputs' order."""
    layers = []
    for stride, repeats in _STRIDES_AND_ANCHORS:
        cells = _INPUT // stride
        line = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(line, line, indexing="ij")
        layers.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), repeats, axis=0))
    return np.concatenate(layers)


def _merge(points: NDArray[np.float64], score: NDArray[np.float64]) -> FaceBoxes:
    """Merge overlapping candidates into their score-weighted mean (weighted non-maximum suppression)."""
    order = np.argsort(-score, kind="stable")
    points, score = points[order], score[order]
    kept_points, kept_score = [], []
    while len(score):
        same = _overlap(points[0], points) > _OVERLAP
        same[0] = True
        kept_points.append(np.average(points[same], axis=0, weights=score[same]))
        kept_score.append(score[0])
        points, score = points[~same], score[~same]
    merged = np.array(kept_points).reshape(-1, 8, 2)
    return FaceBoxes(merged[:, :2], merged[:, 2:], np.array(kept_score))


def _overlap(one: NDArray[np.float64], many: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return intersection over union of one box with many, ``[k]``; points are ``[8,2]`` and ``[k,8,2]``."""
    low = np.maximum(one[0], many[:, 0])
    high = np.minimum(one[1], many[:, 1])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    area = (many[:, 1] - many[:, 0]).prod(axis=1)
    return np.asarray(shared / (area + (one[1] - one[0]).prod() - shared))
