"""The faces of pictures, with what tells whose they are: landmarks, recognition vectors, animal or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import InputError
from portrait_core.face_model.topology import N_POINTS
from portrait_core.inputs.known import verified_copy
from portrait_core.media import at_most, read_image
from portrait_core.pipeline import Job
from portrait_core.runtime.model_cache import cached
from portrait_core.store.places import redact_place
from portrait_core.tracking.landmarker import AllFaces
from portrait_core.tracking.people import Persons
from tasks.context import device_of, landmarker, recogniser

if TYPE_CHECKING:
    from portrait_core.metrics.animal_faces import AnimalReader

MOST_FACES = 4
"""Faces of a frame that are read; the smallest and least central ones of a crowd are left out."""
MOST_IN_PORTRAIT = 16
"""Faces of a photograph that are read: it is one picture, and a group can stand in it."""
_ANIMAL_EVERY = 8
"""Frames per frame of a clip in which it is asked whether faces are animals'."""


@dataclass(frozen=True)
class FrameFaces:
    """Faces of n frames, at most K of each; NaN where there are fewer.

    Attributes:
        faces: landmarks ``[n,K,478,2]`` float32 in pixels, the largest and most central face first.
        vectors: recognition vectors ``[n,K,128]`` float32.
        animal: ``[n,K]`` float32, probability that the face is an animal's; NaN where it was not asked.
    """

    faces: NDArray[np.float32]
    vectors: NDArray[np.float32]
    animal: NDArray[np.float32]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def seen(self) -> NDArray[np.bool_]:
        """Tell which frames have a face ``[n]``."""
        return np.asarray(np.isfinite(self.faces[:, 0, 0, 0]))

    @classmethod
    def joined(cls, parts: Sequence[FrameFaces]) -> FrameFaces:
        """Return the frames of several parts, one after the other."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


def no_faces(frames: int) -> FrameFaces:
    """Return frames without a face."""
    from portrait_core.metrics.face_recognition import WIDTH  # loads PyTorch

    def nothing(*shape: int) -> NDArray[np.float32]:
        return np.full((frames, MOST_FACES, *shape), np.nan, np.float32)

    return FrameFaces(nothing(N_POINTS, 2), nothing(WIDTH), nothing())


class FaceReader:
    """Reads the faces of pictures with the process's networks.

    Args:
        job: whose settings and weights count.
        threads: threads of the landmark networks.
    """

    def __init__(self, job: Job, threads: int) -> None:
        self._landmarker = landmarker(job, threads)
        self._recogniser, self._animals = recogniser(job, "person_recognition"), _animal_reader(job)

    def read_photograph(self, photograph: NDArray[np.uint8]) -> FrameFaces:
        """Read the faces of one photograph ``[H,W,3]``, small ones beside large ones too.

        At most :data:`MOST_IN_PORTRAIT`.
        """
        found = self._landmarker.detect_all(photograph[None], MOST_IN_PORTRAIT, turned=True, thorough=True)
        return self._described(photograph[None], found, [0])

    def read(self, pictures: NDArray[np.uint8], first: int = 0, every: int = _ANIMAL_EVERY) -> FrameFaces:
        """Read the faces of pictures, turned by quarters where none stands upright.

        Args:
            pictures: ``[n,H,W,3]`` uint8 RGB.
            first: number of the first picture in its clip.
            every: frames per frame in which it is asked whether faces are animals'.
        """
        found = self._landmarker.detect_all(pictures, MOST_FACES, turned=True)
        return self._described(pictures, found, range(-first % every, len(pictures), every))

    def _described(self, pictures: NDArray[np.uint8], found: AllFaces, asked: Iterable[int]) -> FrameFaces:
        """Add what tells whose faces they are; in the pictures ``asked`` whether they are animals' too."""
        # one by one, so that how frames are grouped into batches changes no bit
        rows = [
            [self._recogniser.embed(pictures[i : i + 1], points[k : k + 1])[0] for k in range(len(points))]
            for i, points in enumerate(found.points)
        ]
        animal = np.full(found.score.shape, np.nan, np.float32)
        for i in asked:
            animal[i] = self._animals.read(pictures[i], found.points[i])
        return FrameFaces(
            found.points,
            np.array(rows).reshape(*found.score.shape, self._recogniser.width).astype(np.float32),
            animal,
        )


def _animal_reader(job: Job) -> AnimalReader:
    from portrait_core.metrics.animal_faces import AnimalReader

    device = device_of(job)
    return cached("animal_reader", "efficientnet-lite0", lambda: AnimalReader(device), device)


def animal_persons(persons: Persons, found: FrameFaces) -> NDArray[np.bool_]:
    """Tell who is an animal, by the median of what was asked.

    Returns:
        ``[n]`` bool; False where nothing was asked.
    """
    from portrait_core.metrics.animal_faces import ANIMAL

    asked = [found.animal[persons.number == i] for i in range(1, len(persons) + 1)]
    return np.array(
        [bool((np.median(one[np.isfinite(one)]) if np.isfinite(one).any() else 0) > ANIMAL) for one in asked],
        bool,
    )


def like_vector(job: Job, place: str, name: str) -> NDArray[np.float64]:
    """Return the recognition vector of the main face of a picture that chooses a person.

    Args:
        job: whose settings and weights count.
        place: path or URL of the picture.
        name: input of the job with the picture's digest.

    Raises:
        InputError: it is another picture than the job was made with, or shows no face.
    """
    path = verified_copy(place, job.inputs[name], job.settings.runner.input_cache_bytes)
    picture = at_most(read_image(path), job.settings.media.portrait_max_side)[None]
    points = landmarker(job, job.settings.runner.threads_per_worker).detect(picture).points
    if not np.isfinite(points[0, 0, 0]):
        raise InputError(f"{redact_place(place)} shows no face to choose a person by; give another picture")
    return recogniser(job, "person_recognition").embed(picture, points)[0]
