"""Distances of animated frames from true ones: self-reenactment, as the field measures it.

The first frame of a clip is the portrait and the clip itself drives it, so every result has a true frame.
Both are brought to one square of pixels and compared there: by pixels (PSNR) and by perceptual features, of
the face and of the whole square, and by how the error changes from frame to frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from portrait_core.inversion.features import feature_distance
from portrait_core.metrics.identity import cosine_similarity
from portrait_core.tracking.crop import crop_image

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Square:
    """A square of a picture, and the size at which it is compared.

    Attributes:
        center_px: ``(x, y)`` of its centre in continuous pixels of the picture.
        side_px: side in pixels of the picture.
        size: side in pixels of what is compared.
    """

    center_px: tuple[float, float]
    side_px: float
    size: int

    @classmethod
    def whole(cls, side_px: int, size: int) -> Square:
        """Take the whole of a square picture of ``side_px`` pixels."""
        return cls((side_px / 2, side_px / 2), side_px, size)

    def scaled(self, factor: float) -> Square:
        """Return the same square of the picture made ``factor`` times as large."""
        x, y = self.center_px
        return Square((x * factor, y * factor), self.side_px * factor, self.size)

    def moved(self, by_px: tuple[float, float], growth: float) -> Square:
        """Return the square moved by ``(x, y)`` pixels of the picture and ``growth`` times as large."""
        x, y = self.center_px
        return Square((x + by_px[0], y + by_px[1]), self.side_px * growth, self.size)

    def cut(self, picture: Picture) -> Picture:
        """Cut the square out of a picture ``[H,W,3]`` and bring it to its size ``[S,S,3]``.

        See :func:`~portrait_core.tracking.crop.crop_image`.
        """
        return crop_image(picture, self.center_px, self.side_px, self.size)

    def inside(self, height: int, width: int) -> Mask:
        """Tell which pixels ``[S,S]`` lie inside a picture of ``height`` by ``width`` pixels.

        There is no truth beyond its border.
        """
        steps = (np.arange(self.size) + 0.5) * (self.side_px / self.size) - self.side_px / 2
        x, y = self.center_px[0] + steps, self.center_px[1] + steps
        return np.asarray(((y >= 0) & (y <= height))[:, None] & ((x >= 0) & (x <= width)))

    def points(self, points_px: NDArray[np.floating]) -> NDArray[np.float64]:
        """Bring points ``[n,2]`` in pixels of the picture to pixels of the square."""
        corner = np.asarray(self.center_px) - self.side_px / 2
        return np.asarray((points_px - corner) * (self.size / self.side_px), np.float64)


def face_hull(points: NDArray[np.floating], size: int) -> Mask:
    """Fill the convex hull of a face's landmarks.

    Args:
        points: ``[n,2]`` in pixels of the square; NaN where no face was found.
        size: side of the square in pixels.

    Returns:
        ``[size,size]``; nothing where there is no face.
    """
    mask = np.zeros((size, size), np.uint8)
    if len(points) and np.isfinite(points).all():
        # Pixel centres lie at +0.5, cv2's at whole numbers.
        hull = cv2.convexHull(np.round(points - 0.5).astype(np.int32))
        cv2.fillConvexPoly(mask, hull, 1)
    return mask.astype(bool)


def psnr_db(result: Picture, truth: Picture, mask: Mask) -> float:
    """Compare two pictures ``[H,W,3]`` within a mask ``[H,W]``.

    Returns:
        Peak signal-to-noise ratio in dB, with a peak of 255: infinite for equal pictures, NaN for an empty
        mask.

    Raises:
        ValueError: for pictures or a mask of different sizes, or pictures that are not uint8.
    """
    _check(result, truth, mask)
    if not mask.any():
        return float("nan")
    error = np.square(result[mask].astype(np.float64) - truth[mask]).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def error_change(results: tuple[Picture, Picture], truths: tuple[Picture, Picture], mask: Mask) -> float:
    """Measure how the error of a frame differs from that of the frame before it.

    This is flicker, and movement of the truth that the result does not follow.

    Args:
        results: pictures ``[H,W,3]`` of a frame and the next.
        truths: true ones of the same frames.
        mask: ``[H,W]``.

    Returns:
        Mean over pixels and channels of ``|(result - truth) - (result before - truth before)|``, in grey
        levels of 255: 0 for an error that stays as it is, NaN for an empty mask.

    Raises:
        ValueError: for pictures or a mask of different sizes, or pictures that are not uint8.
    """
    for result, truth in zip(results, truths, strict=True):
        _check(result, truth, mask)
    if not mask.any():
        return float("nan")
    before, now = (
        result[mask].astype(np.int16) - truth[mask].astype(np.int16)
        for result, truth in zip(results, truths, strict=True)
    )
    return float(np.abs(now - before).mean())


FLICKER = "flicker, mean change of the error from frame to frame, grey levels of 255"
"""Name of :func:`error_changes`, to stand beside every such number."""


def error_changes(results: Sequence[Picture], truths: Sequence[Picture]) -> NDArray[np.float64]:
    """Measure :func:`error_change` of whole pictures at every frame of a clip.

    Args:
        results: T pictures ``[H,W,3]``, uint8 RGB.
        truths: the true ones.

    Returns:
        ``[T]`` in grey levels of 255; NaN for the first frame, which has none before it.
    """
    found = np.full(len(results), np.nan)
    for i in range(1, len(results)):
        whole = np.ones(truths[i].shape[:2], bool)
        found[i] = error_change((results[i - 1], results[i]), (truths[i - 1], truths[i]), whole)
    return found


def perceptual_distance(phi: nn.Module, result: Picture, truth: Picture, mask: Mask) -> float:
    """Compare two pictures ``[H,W,3]`` by a network's features (:func:`feature_distance`).

    Pixels are weighted by a mask ``[H,W]``; the result is NaN for an empty one.

    Raises:
        ValueError: for pictures or a mask of different sizes, or pictures that are not uint8.
    """
    _check(result, truth, mask)
    if not mask.any():
        return float("nan")
    device = next(phi.parameters()).device
    both = torch.from_numpy(np.stack([result, truth])).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    weight = torch.from_numpy(mask).to(device)[None, None].float()
    with torch.no_grad():
        maps: list[Tensor] = phi(both)
        distance = feature_distance([m[:1] for m in maps], [m[1:] for m in maps], weight)
    return float(distance)


@dataclass(frozen=True)
class Likeness:
    """Results of :func:`measure_likeness`.

    Attributes:
        values: by measure, a value per frame ``[T]``: ``face PSNR`` and ``crop PSNR`` in dB; ``face NAME``
            and ``crop NAME`` for each network of features; ``flicker`` (:func:`error_change`) in grey levels
            of 255, NaN for the first frame, which has none before it.
    """

    values: Mapping[str, NDArray[np.float64]]

    def means(self) -> dict[str, float]:
        """Return the mean of every measure over the frames that have it; NaN where none has."""
        return {name: mean_of(values) for name, values in self.values.items()}


def measure_likeness(
    results: Iterable[Picture],
    truths: Iterable[Picture],
    faces: Sequence[Mask],
    inside: Sequence[Mask],
    networks: Mapping[str, nn.Module],
) -> Likeness:
    """Compare a clip with its truth, frame by frame.

    Args:
        results: ``T`` pictures ``[S,S,3]``, uint8 RGB.
        truths: the true ones.
        faces: the face of each true one ``[S,S]``.
        inside: where each true one is known ``[S,S]`` (:meth:`Square.inside`).
        networks: networks of features by name, such as those of
            :func:`portrait_core.inversion.features.build_features`.

    Raises:
        ValueError: for pictures or masks of different sizes or numbers, or pictures that are not uint8.
    """
    found: dict[str, list[float]] = {}
    before: tuple[Picture, Picture, Mask] | None = None
    for result, truth, face, known in zip(results, truths, faces, inside, strict=True):
        for where, mask in (("face", face & known), ("crop", known)):
            found.setdefault(f"{where} PSNR", []).append(psnr_db(result, truth, mask))
            for name, phi in networks.items():
                distance = perceptual_distance(phi, result, truth, mask)
                found.setdefault(f"{where} {name}", []).append(distance)
        change = float("nan")
        if before is not None:
            change = error_change((before[0], result), (before[1], truth), before[2] & known)
        found.setdefault("flicker", []).append(change)
        before = result, truth, known
    return Likeness({name: np.array(values) for name, values in found.items()})


def identity_kept(results: NDArray[np.floating], truths: NDArray[np.floating]) -> float:
    """Compare identity vectors ``[T,D]`` of a clip with those of its truth.

    Returns:
        Mean cosine over the frames in which both show a face; NaN where none does.
    """
    return mean_of(cosine_similarity(results, truths))


def mean_of(values: NDArray[np.floating]) -> float:
    """Return the mean of what is not NaN; NaN where all is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _check(result: Picture, truth: Picture, mask: Mask) -> None:
    if result.shape != truth.shape or result.ndim != 3 or mask.shape != result.shape[:2]:
        raise ValueError(
            f"a result {result.shape}, its truth {truth.shape} and the mask {mask.shape} must be of one "
            "size; crop both pictures to the same square"
        )
    if result.dtype != np.uint8 or truth.dtype != np.uint8:
        raise ValueError(f"pictures must be uint8 of 0 to 255; got {result.dtype} and {truth.dtype}")
