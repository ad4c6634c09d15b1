"""Choice of the person of a driving video who drives, and of the frames in which they can be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import InputError
from portrait_core.pipeline import Job
from portrait_core.store.places import redact_place
from portrait_core.tracking.people import STILL, Persons, alive, changes, choose_person, find_persons
from portrait_core.tracking.trust import UNTRUSTED, untrusted
from portrait_core.tracking.turns import clip_turn, is_upright, rolls, turn_points, turned_size
from tasks.context import use_threads
from tasks.faces import FaceReader, FrameFaces, animal_persons, like_vector

_LYING = np.radians(60)
"""Turn of a face from which on it lies on its side: no head that is held up tilts so far."""
Pictures = Callable[[], Iterable[NDArray[np.uint8]]]


@dataclass(frozen=True)
class Followed:
    """One person of a clip of T frames.

    Attributes:
        found: the faces of its frames, turned upright.
        persons: who is who.
        driver: number of the person who drives.
        points: their landmarks ``[T,478,2]`` float32, NaN where they are not believed.
        wrong: frames ``[T]`` in which they are not, by reason, a name of
            :data:`portrait_core.tracking.trust.UNTRUSTED`.
        turn: quarters counter-clockwise by which the frames are turned so that faces stand upright.
        still: whether the driver's face never changes.
    """

    found: FrameFaces
    persons: Persons
    driver: int
    points: NDArray[np.float32]
    wrong: dict[str, NDArray[np.bool_]]
    turn: int
    still: bool

    def about(self) -> dict[str, Any]:
        """Return what a summary says of it, as plain values."""
        several = np.isfinite(self.found.faces[:, :, 0, 0]).sum(axis=1) > 1
        held = {name: np.flatnonzero(where).tolist() for name, where in self.wrong.items() if where.any()}
        return {
            "persons": len(self.persons),
            "driver": self.driver,
            "frames_with_several": np.flatnonzero(several).tolist(),
            "turned_degrees": 90 * self.turn,
            "frames_lying": np.flatnonzero(np.abs(rolls(self.points)) > _LYING).tolist(),
            "still": self.still,
            "held": held,
        }


def follow(
    job: Job, found: FrameFaces, cuts: NDArray[np.bool_], size: tuple[int, int], pictures: Pictures
) -> Followed:
    """Choose the person who drives, and the frames in which they can be believed.

    Args:
        job: whose settings choose.
        found: faces of T frames.
        cuts: ``[T]``: whether a new scene begins with the frame.
        size: width and height of the frames in pixels.
        pictures: yields the frames, for a clip whose faces lie turned.

    Raises:
        InputError: the video does not show the person that is asked for, no frame can be believed, or the
            face is an animal's.
    """
    if not found.seen().any():
        raise InputError(
            f"no face was found in any of the {len(cuts)} frames of {redact_place(job.video)}; give a video "
            "in which one person's face is visible and at least 40 pixels wide"
        )
    turn = clip_turn(found.faces[:, 0])
    if turn:
        found, size = _turned(job, found, turn, pictures), turned_size(size, turn)
    persons = find_persons(found.faces, found.vectors, cuts, size)
    changed = changes(persons, found.faces)
    driver = _chosen(job, persons, found, changed)
    points = _points_of(persons, driver, found)
    _refuse_animals(job, persons, driver, found)
    wrong = untrusted(points, found.seen(), cuts, size)
    points = np.where(np.any(list(wrong.values()), axis=0)[:, None, None], np.float32(np.nan), points)
    _refuse_none(job, points, wrong)
    return Followed(found, persons, driver, points, wrong, turn, bool(changed[driver - 1] < STILL))


def _turned(job: Job, found: FrameFaces, turn: int, pictures: Pictures) -> FrameFaces:
    """Return the faces of the turned clip; frames in which none is upright there are looked at again."""
    faces = found.faces.copy()
    arrays = {"faces": faces, "vectors": found.vectors.copy(), "animal": found.animal.copy()}
    reader = FaceReader(job, use_threads(job, alone=True))
    for i, picture in enumerate(pictures()):
        faces[i] = turn_points(found.faces[i], turn, (picture.shape[1], picture.shape[0]))
        if not is_upright(faces[i, :1])[0]:
            again = reader.read(np.ascontiguousarray(np.rot90(picture, turn))[None], i)
            for name, rows in again.arrays().items():
                arrays[name][i] = rows[0]
    return FrameFaces(**arrays)


def _chosen(job: Job, persons: Persons, found: FrameFaces, changed: NDArray[np.float64]) -> int:
    """Return the number of the person who drives: unless named, no animal or picture beside a person."""
    choice, _, place = job.settings.tracking.driver_face.partition(":")
    like = like_vector(job, place, "driver_face") if place else None
    if not job.settings.tracking.any_face:
        persons = persons.among(~animal_persons(persons, found))
    try:
        return choose_person(alive(persons, changed), choice, found.faces, like)
    except InputError as error:
        raise InputError(f"{redact_place(job.video)} {error}") from None


def _points_of(persons: Persons, driver: int, found: FrameFaces) -> NDArray[np.float32]:
    face = persons.faces_of(driver)
    points = found.faces[np.arange(len(face)), face.clip(0)]
    return np.where((face >= 0)[:, None, None], points, np.float32(np.nan))


def _refuse_animals(job: Job, persons: Persons, driver: int, found: FrameFaces) -> None:
    from portrait_core.metrics.animal_faces import ANIMAL

    asked = found.animal[persons.number == driver]
    if job.settings.tracking.any_face or not np.isfinite(asked).any():
        return
    if (probability := float(np.nanmedian(asked))) > ANIMAL:
        raise InputError(
            f"the face in the driving video {redact_place(job.video)} is an animal's (probability "
            f"{probability:.2f}); give a video of a person, or --any-face to try it all the same"
        )


def _refuse_none(job: Job, points: NDArray[np.floating], wrong: dict[str, NDArray[np.bool_]]) -> None:
    """Refuse a clip of which nothing would move: one without a frame that can be believed, or with one."""
    usable = int(np.isfinite(points[:, 0, 0]).sum())
    if usable >= min(2, len(points)):
        return
    counts = ", ".join(f"{UNTRUSTED[name]} in {where.sum()}" for name, where in wrong.items() if where.any())
    which = f"only one of the {len(points)} frames" if usable else f"none of the {len(points)} frames"
    raise InputError(
        f"{which} of {redact_place(job.video)} shows a whole face ({counts}); give a video in which one "
        "person's face is inside the picture, or --driver-face to choose another person"
    )
