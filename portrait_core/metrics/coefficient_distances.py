"""APD and AED: distances of head poses and expressions, as coefficients that a face model's regressor reads.

The paper gives both per clip as the root mean squared error between the encodings of the result and of the
target (section 4.1), by Deep3DFaceRecon, and in its supplement by DECA too. It does not say which numbers
make up a pose. Later authors under the same names take mean absolute differences, or lengths of differences,
and pose with or without translation. So a :class:`Variant` says all of it, and its name stands beside every
number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from portrait_core.tracking.deca import CODE_SIZES
from portrait_core.tracking.deep3d import COEFFICIENT_SIZES

Array = NDArray[np.float64]
Coefficients = NDArray[np.floating]

UNITS = 52
"""Named units of expression of the embedded head; directions beyond them are left out."""


class Measure(Enum):
    """What is made of the differences of T frames and D coefficients of a clip; the values are names."""

    ROOT_MEAN_SQUARE = "root mean square"
    """Root of the mean square over frames and coefficients: the paper's words."""
    MEAN_ABSOLUTE = "mean absolute"
    """Mean over frames and coefficients."""
    MEAN_LENGTH = "mean of L2 norms"
    """Mean over frames of the length of the difference, which grows with D."""

    def of(self, difference: Array) -> float:
        """Reduce differences ``[T,D]``."""
        if self is Measure.ROOT_MEAN_SQUARE:
            return float(np.sqrt(np.square(difference).mean()))
        if self is Measure.MEAN_ABSOLUTE:
            return float(np.abs(difference).mean())
        return float(np.linalg.norm(difference, axis=1).mean())


@dataclass(frozen=True)
class Part:
    """The coefficients that are compared.

    Attributes:
        distance: ``APD`` for poses, ``AED`` for expressions.
        model: face model whose coefficients they are.
        what: what they are, in a phrase.
        width: number of coefficients in a row that is given.
        columns: those that are compared.
        more: True if rows may have more than ``width`` numbers, which are left out.
        angles: True for angles in radians that differ by less than half a turn, 2 pi being 0.
    """

    distance: Literal["APD", "AED"]
    model: str
    what: str
    width: int
    columns: tuple[int, ...]
    more: bool = False
    angles: bool = False

    def take(self, rows: Coefficients) -> Array:
        """Take the columns of rows ``[T,width]``.

        Raises:
            ValueError: for rows of another width.
        """
        rows = np.asarray(rows, np.float64)
        fits = rows.ndim == 2 and (rows.shape[1] == self.width or (self.more and rows.shape[1] > self.width))
        if not fits:
            least = "at least " if self.more else ""
            raise ValueError(
                f"coefficients of {self.model} for {self.distance} have shape {list(rows.shape)}, expected "
                f"[T,{least}{self.width}]"
            )
        return np.asarray(rows[:, list(self.columns)], np.float64)


@dataclass(frozen=True)
class Variant:
    """One definition of APD or AED."""

    part: Part
    measure: Measure = Measure.ROOT_MEAN_SQUARE

    @property
    def name(self) -> str:
        """Name to stand beside the number: ``AED, DECA, 50 expression coefficients, mean absolute``."""
        return f"{self.part.distance}, {self.part.model}, {self.part.what}, {self.measure.value}"


def _columns(sizes: dict[str, int], *names: str) -> tuple[int, ...]:
    ends = np.cumsum(list(sizes.values()))
    starts = dict(zip(sizes, ends - list(sizes.values()), strict=True))
    return tuple(int(starts[name]) + i for name in names for i in range(sizes[name]))


_DEEP3D, _DECA, _EMBEDDED = "Deep3DFaceRecon", "DECA", "embedded tracker"
_N_DEEP3D = sum(COEFFICIENT_SIZES.values())

DEEP3D_ANGLES = Part("APD", _DEEP3D, "3 angles", _N_DEEP3D, _columns(COEFFICIENT_SIZES, "angle"))
"""Rotations about x, y and z in radians, of rows of 257."""
DEEP3D_ANGLES_TRANSLATION = Part(
    "APD", _DEEP3D, "3 angles and translation", _N_DEEP3D, _columns(COEFFICIENT_SIZES, "angle", "trans")
)
"""The same, and the translation in decimetres, of rows of 257."""
DEEP3D_EXPRESSION = Part(
    "AED", _DEEP3D, "64 expression coefficients", _N_DEEP3D, _columns(COEFFICIENT_SIZES, "exp")
)
"""Expression of rows of 257."""
DECA_ROTATION = Part("APD", _DECA, "global rotation (3 of 6 pose numbers)", CODE_SIZES["pose"], (0, 1, 2))
"""Axis-angle in radians, of ``DecaCode.pose``; the jaw's is left out."""
DECA_EXPRESSION = Part(
    "AED", _DECA, "50 expression coefficients", CODE_SIZES["exp"], tuple(range(CODE_SIZES["exp"]))
)
"""``DecaCode.exp``."""
EMBEDDED_ANGLES = Part("APD", _EMBEDDED, "yaw, pitch and roll", 3, (0, 1, 2), angles=True)
"""Radians, as ``angles_from_labels`` gives them."""
EMBEDDED_EXPRESSION = Part("AED", _EMBEDDED, "52 units", UNITS, tuple(range(UNITS)), more=True)
"""The fitted head's expression."""

PARTS = (
    DEEP3D_ANGLES,
    DEEP3D_ANGLES_TRANSLATION,
    DEEP3D_EXPRESSION,
    DECA_ROTATION,
    DECA_EXPRESSION,
    EMBEDDED_ANGLES,
    EMBEDDED_EXPRESSION,
)
VARIANTS = {variant.name: variant for variant in (Variant(part, m) for part in PARTS for m in Measure)}
"""Every variant by its name."""


@dataclass(frozen=True)
class ClipDistance:
    """Distance of one clip.

    Attributes:
        value: NaN where no frame was compared.
        frames: number of frames that were compared.
        missing: number of frames that were not, since a face was not found in the result or in the target.
    """

    value: float
    frames: int
    missing: int


@dataclass(frozen=True)
class CoefficientDistances:
    """One variant's distances of many clips.

    Attributes:
        variant: the definition.
        clips: one per clip, in order.
    """

    variant: Variant
    clips: tuple[ClipDistance, ...]

    @property
    def values(self) -> Array:
        """Value of each clip ``[K]``, NaN where none of its frames was compared."""
        return np.array([clip.value for clip in self.clips])

    @property
    def mean(self) -> float:
        """Mean over the clips that have a value, each counting alike; NaN where none has."""
        known = self.values[~np.isnan(self.values)]
        return float(known.mean()) if len(known) else float("nan")

    @property
    def missing(self) -> int:
        """Number of frames of all clips that were not compared."""
        return sum(clip.missing for clip in self.clips)

    @property
    def unmeasured(self) -> int:
        """Number of clips without a value."""
        return int(np.isnan(self.values).sum())


def clip_distance(result: Coefficients, target: Coefficients, variant: Variant) -> ClipDistance:
    """Compare a clip with its target, frame by frame (section 4.1).

    Args:
        result: coefficients of the result's T frames ``[T,width]``; NaN in a row where no face was found.
        target: those of the target's frames.
        variant: the definition; its part says what a row holds.

    Raises:
        ValueError: for rows of another width, or clips of different lengths.
    """
    first, second = variant.part.take(result), variant.part.take(target)
    if len(first) != len(second):
        raise ValueError(
            f"the result has {len(first)} frames and its target {len(second)}; compare equal clips"
        )
    difference = first - second
    if variant.part.angles:
        difference = (difference + np.pi) % (2 * np.pi) - np.pi
    seen = np.asarray(np.isfinite(difference).all(axis=1))
    count = int(seen.sum())
    value = variant.measure.of(difference[seen]) if count else float("nan")
    return ClipDistance(value, count, len(seen) - count)


def coefficient_distances(
    clips: Iterable[tuple[Coefficients, Coefficients]], variant: Variant
) -> CoefficientDistances:
    """Compare clips with their targets: pairs of ``[T_i,width]``; see :func:`clip_distance`."""
    return CoefficientDistances(
        variant, tuple(clip_distance(result, target, variant) for result, target in clips)
    )
