"""The paper's tracker: DECA's code and EG3D's camera of frames, by landmarks of the embedded detector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.cameras import rotations_from_labels
from portrait_core.errors import InputError
from portrait_core.face_model import flame
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.orthographic import ndc_to_source, to_ndc
from portrait_core.tracking.deca import DecaCode, DecaEncoder
from portrait_core.tracking.deca_crop import crop_faces
from portrait_core.tracking.deep3d import Deep3DEncoder
from portrait_core.tracking.fit import FaceTrack
from portrait_core.tracking.five_points import STANDARD_FACE
from portrait_core.tracking.landmarks68 import five_points, mesh_to_68
from portrait_core.tracking.wild_crop import OUTPUT_SIZE, WildCrops, crop_in_the_wild

_EYE_CORNERS = [36, 45]
"""The outer corners of the eyes among the 68 landmarks."""


@dataclass(frozen=True)
class PaperFrames:
    """Outputs of the paper's networks for n frames; tensors on the CPU."""

    code: DecaCode
    """Shape, expression, pose (head, jaw), camera."""
    tform: Float[Tensor, "n 3 3"]
    """Frame to DECA's crop, pixels with centres at integers, float64."""
    wild: WildCrops
    """Generator crops ``[n,size,size,3]``, camera labels ``[n,25]`` and places of the crops."""

    @property
    def jaw(self) -> Float[Tensor, "n 3"]:
        """The jaw's rotation, axis-angle in radians."""
        return self.code.pose[:, 3:]


class PaperTracker:
    """Holds both networks. Frames are independent of each other, and may be given in any grouping.

    Args:
        deca: the network of expressions.
        deep3d: the network of poses.
        standard: the standard face's five points, which crops are aligned to.
        batch: faces per batch of the networks.
    """

    def __init__(
        self,
        deca: DecaEncoder,
        deep3d: Deep3DEncoder,
        standard: NDArray[np.float64] = STANDARD_FACE,
        batch: int = 16,
    ):
        self.deca, self.deep3d, self.standard, self.batch = deca, deep3d, standard, batch

    @torch.no_grad()
    def track(
        self,
        frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
        landmarks: NDArray[np.floating],
        size: int = OUTPUT_SIZE,
    ) -> PaperFrames:
        """Encode frames that have a face.

        Args:
            frames: n images ``[H,W,3]`` uint8 RGB.
            landmarks: ``[n,468 or 478,2]`` continuous pixels, from ``FaceLandmarker``; all finite.
            size: side of the generator's crops; 0 makes none.

        Raises:
            ValueError: if numbers or shapes do not fit together, or landmarks are not finite.
            InputError: if the points of a frame are no face.
        """
        device = next(self.deca.parameters()).device
        crops = crop_faces(frames, mesh_to_68(landmarks), device=device)
        code = self.deca.encode(crops.images, self.batch)
        points = five_points(landmarks)
        wild = crop_in_the_wild(
            frames, points, self.deep3d, standard=self.standard, batch=self.batch, size=size
        )
        return PaperFrames(DecaCode(*(part.cpu() for part in code)), crops.tform.cpu(), wild)


class LandmarkError:
    """Distance of FLAME, decoded and projected, from detected landmarks: the error of a track's fit.

    Args:
        head: FLAME on the CPU, as the codes of a tracker.
        slide: its 68 landmarks.
    """

    def __init__(self, head: MorphableHead, slide: flame.FlameLandmarks):
        self._head, self._slide = head, slide

    @torch.no_grad()
    def of(self, found: PaperFrames, landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the mean distance of the 68 points over that of the outer eye corners ``[n]``."""
        code = found.code
        vertices = flame.decode(self._head, code.shape, code.exp, code.pose).vertices
        marks = self._slide(vertices, code.pose[:, :3])
        projected = ndc_to_source(to_ndc(marks, code.cam), found.tform)[..., :2].numpy()
        seen = mesh_to_68(landmarks) + 0.5
        eyes = np.linalg.norm(np.diff(seen[:, _EYE_CORNERS], axis=1)[:, 0], axis=1)
        return (np.linalg.norm(projected - seen, axis=2).mean(1) / eyes).astype(np.float32)


def face_track(found: PaperFrames, fit_error: NDArray[np.float32]) -> FaceTrack:
    """Build the track of n frames that all have a face.

    Shape (the frames' mean), expression and jaw are DECA's; cameras, and with them the head's rotation, are
    Deep3DFaceRecon's; the square is the generator's crop (the mean of its sides, which may differ by the
    rounding of EG3D's resizing).
    """
    place, code = found.wild.placement, found.code
    size = found.wild.images.shape[1] or OUTPUT_SIZE
    rows: dict[str, NDArray[np.floating]] = {
        "expression": code.exp.numpy(),
        "jaw": found.jaw.numpy(),
        "rotation": rotations_from_labels(found.wild.cameras),
        "crop_center_px": (size / 2 - place.shift) / place.factor,
        "crop_side_px": size / place.factor.mean(1),
        "cameras": found.wild.cameras,
        "fit_error": fit_error,
    }
    shape = np.asarray(code.shape.numpy().mean(0), np.float32)
    ok = np.ones(len(fit_error), bool)
    return FaceTrack(shape=shape, ok=ok, **{name: np.asarray(x, np.float32) for name, x in rows.items()})


def track_clip(
    tracker: PaperTracker,
    error: LandmarkError,
    frames: Iterable[NDArray[np.uint8]],
    points: NDArray[np.floating],
    ok: NDArray[np.bool_],
) -> FaceTrack:
    """Track a clip given frame by frame; holds one batch of frames at a time.

    Args:
        tracker: the networks.
        error: measure of the fit.
        frames: T images ``[H,W,3]`` uint8.
        points: landmarks ``[T,478,2]``.
        ok: frames with a face ``[T]``; the others take the track of their neighbour.

    Raises:
        ValueError: if no frame has a face.
    """
    parts = []
    for index, batch in _batches(frames, ok, tracker.batch):
        found = tracker.track(batch, points[index], size=0)
        parts.append((face_track(found, error.of(found, points[index])), len(index)))
    if not parts:
        raise InputError(f"none of {len(ok)} frames has a face; give landmarks of a clip that shows one")
    good = np.flatnonzero(ok)
    source = np.maximum(np.searchsorted(good, np.arange(len(ok)), side="right") - 1, 0)
    rows = {
        name: np.concatenate([getattr(part, name) for part, _ in parts])[source]
        for name in ("expression", "jaw", "rotation", "crop_center_px", "crop_side_px", "cameras")
    }
    errors = np.concatenate([part.fit_error for part, _ in parts])[source]
    shape = np.average([part.shape for part, _ in parts], axis=0, weights=[n for _, n in parts])
    whole = replace(parts[0][0], **rows)
    return replace(
        whole,
        shape=shape.astype(np.float32),
        fit_error=np.where(ok, errors, np.nan).astype(np.float32),
        ok=np.asarray(ok, bool),
    )


def _batches(
    frames: Iterable[NDArray[np.uint8]], ok: NDArray[np.bool_], size: int
) -> Iterator[tuple[list[int], list[NDArray[np.uint8]]]]:
    """Yield frames that are ok, with their numbers, at most ``size`` at a time."""
    index: list[int] = []
    batch: list[NDArray[np.uint8]] = []
    for i, frame in enumerate(frames):
        if i < len(ok) and ok[i]:
            index.append(i)
            batch.append(frame)
        if len(batch) == size:
            yield index, batch
            index, batch = [], []
    if batch:
        yield index, batch
