"""Poses and expressions by the networks that users bring: Deep3DFaceRecon and DECA."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from portrait_core.model_files.needs import weight_file
from portrait_core.pipeline import Job
from portrait_core.runtime.model_cache import cached
from portrait_core.tracking.measure import seen
from tasks.context import device_of

if TYPE_CHECKING:
    from portrait_core.tracking.deca import DecaEncoder
    from portrait_core.tracking.deep3d import Deep3DEncoder

Picture = NDArray[np.uint8]
Points = NDArray[np.floating]


class Reading(NamedTuple):
    """Poses ``[T,·]`` and expressions ``[T,·]`` of T frames; NaN where no face was seen."""

    pose: NDArray[np.float32]
    expression: NDArray[np.float32]


def read_coefficients(
    job: Job, estimator: str, pictures: Iterable[Picture], points: Points
) -> NDArray[np.float32]:
    """Read the coefficients of pictures with one of the networks.

    Args:
        job: a job, whose settings and weights are used.
        estimator: ``deep3d`` or ``deca``.
        pictures: T pictures ``[H,W,3]``.
        points: their landmarks ``[T,478,2]``; NaN where no face was seen.

    Returns:
        ``deep3d``: rows ``[T,260]`` (:mod:`portrait_core.baselines.pirenderer_windows`); ``deca``: its codes
        ``[T,236]``. NaN where no face was seen.
    """
    ok, size, batch = seen(points), _SIZES[estimator], job.settings.evaluation.batch
    found = np.full((len(points), size), np.nan, np.float32)
    if not ok.any():
        return found
    encode = _ENCODERS[estimator](job, points)
    for frames, shown in _seen_batches(pictures, ok, batch):
        found[frames] = encode(shown, points[frames])
    return found


def split_reading(estimator: str, coefficients: NDArray[np.floating]) -> Reading:
    """Return poses and expressions, as ``portrait_core.metrics.coefficient_distances`` takes them.

    Args:
        estimator: ``deep3d`` or ``deca``.
        coefficients: rows ``[T,·]`` of :func:`read_coefficients`.
    """
    rows = np.asarray(coefficients, np.float32)
    if estimator == "deep3d":
        from portrait_core.tracking.deep3d import N_COEFFICIENTS

        return Reading(rows[:, :N_COEFFICIENTS], rows[:, :N_COEFFICIENTS])
    import torch

    from portrait_core.tracking.deca import split_code

    code = split_code(torch.from_numpy(rows))
    return Reading(code.pose.numpy(), code.exp.numpy())


def deep3d_encoder(job: Job) -> Deep3DEncoder:
    """Return the process's network of Deep3DFaceRecon."""

    def load() -> Deep3DEncoder:
        from portrait_core.tracking.checkpoints import read_deep3d
        from portrait_core.tracking.deep3d import Deep3DEncoder

        state = read_deep3d(weight_file(job.settings, "read_deep3d")).net_recon
        return Deep3DEncoder.from_state(state).to(device_of(job))

    return cached("deep3d", job.weights["read_deep3d"], load, device_of(job))


def standard_face(job: Job) -> NDArray[np.float64]:
    """Return the five points of the standard face, which Deep3DFaceRecon's crops are aligned to."""
    from portrait_core.tracking import five_points
    from portrait_core.weights.readers.mat_files import read_similarity_landmarks

    path = weight_file(job.settings, "read_deep3d_landmarks")
    return five_points.standard_face(read_similarity_landmarks(path).landmarks)


Encode = Callable[[NDArray[np.uint8], Points], NDArray[np.float32]]


def _deep3d(job: Job, points: Points) -> Encode:
    """Return the encoder of pictures by Deep3DFaceRecon, within one square for the clip, as PIRenderer's."""
    from portrait_core.baselines.crops import clip_square, cut, points_in_square
    from portrait_core.baselines.pirenderer_windows import rows_from_pictures

    network, face, square = deep3d_encoder(job), standard_face(job), clip_square(points)

    def encode(pictures: NDArray[np.uint8], found: Points) -> NDArray[np.float32]:
        squares = np.stack([cut(picture, *square) for picture in pictures])
        rows: NDArray[np.float32] = rows_from_pictures(
            squares, points_in_square(found, *square), network, face
        )
        return rows

    return encode


def _deca(job: Job, points: Points) -> Encode:
    """Return the encoder of pictures by DECA."""
    import torch

    from portrait_core.tracking.deca import DecaEncoder
    from portrait_core.tracking.deca_crop import crop_faces
    from portrait_core.tracking.landmarks68 import mesh_to_68

    device = device_of(job)

    def load() -> DecaEncoder:
        from portrait_core.tracking.checkpoints import read_deca

        return DecaEncoder.from_state(read_deca(weight_file(job.settings, "read_deca")).e_flame).to(device)

    network = cached("deca", job.weights["read_deca"], load, device)

    def encode(pictures: NDArray[np.uint8], found: Points) -> NDArray[np.float32]:
        crops = crop_faces(pictures, mesh_to_68(found), device=device).images
        with torch.no_grad():
            return np.asarray(network(crops).cpu().numpy(), np.float32)

    return encode


_SIZES = {"deep3d": 260, "deca": 236}
_ENCODERS: dict[str, Callable[[Job, Points], Encode]] = {"deep3d": _deep3d, "deca": _deca}


def _seen_batches(
    pictures: Iterable[Picture], ok: NDArray[np.bool_], size: int
) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
    """Yield numbers and pictures of frames that show a face, at most ``size`` of them at a time."""
    frames: list[int] = []
    waiting: list[Picture] = []
    for frame, picture in enumerate(pictures):
        if ok[frame]:
            frames.append(frame)
            waiting.append(picture)
        if len(frames) == size:
            yield frames, np.stack(waiting)
            frames, waiting = [], []
    if frames:
        yield frames, np.stack(waiting)
