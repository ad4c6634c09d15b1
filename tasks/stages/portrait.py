"""Stage ``portrait``: the face of the portrait, and the crop that everything is made in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import InputError
from portrait_core.media import at_most
from portrait_core.pipeline import Array, Job, Note, Stage
from portrait_core.pipeline.ledger import unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import landmark_weights, recognition_weights, tracking_weights
from portrait_core.store.places import redact_place
from portrait_core.template.registry import FACE_MODELS
from portrait_core.tracking.people import Persons, find_persons
from portrait_core.tracking.portrait_part import Part, part_around, whole_part
from portrait_core.tracking.trust import face_is_cut, head_is_cut
from portrait_core.tracking.turns import rolls
from tasks.context import TRACK, given_portrait, track_arrays, use_threads
from tasks.faces import FaceReader, FrameFaces, animal_persons, like_vector
from tasks.running import does
from tasks.trackers import tracker

FACE = "face"
"""Note of the faces in the portrait, the chosen one, and the part of the photograph that is shown."""
_DOMINATES = 0.4
"""Weight of the second face over the first one's from which on it must be said who is animated."""
_SAME_PLACE = 0.5
"""Distance of two readings of one face, over its side, from which on they show two faces."""

PORTRAIT = Stage(
    name="portrait",
    title="track portrait",
    version=8,
    unit="portrait",
    inputs=("portrait", "portrait_face"),
    settings=("media.portrait_max_side", "media.portrait_part", "tracking", "template.size"),
    weights=(landmark_weights, recognition_weights, tracking_weights),
    writes=(
        *(Array(name, per="clip") for name in (*TRACK, "landmarks", "crop", "photograph")),
        *(
            Array(name, per="clip", when=row.is_chosen)
            for row in FACE_MODELS.values()
            for name in row.kept_arrays
        ),
        Note(FACE),
    ),
)


@does(PORTRAIT, precision="fp32")
def portrait(job: Job) -> StageResult:
    """Track the portrait: one face, its shape, expression, pose, and the crop that everything is made in.

    Raises:
        InputError: when there is no face in it, several and none is chosen, a face that the picture cuts, or
            an animal's.
    """
    watch = Stopwatch("portrait", 0, 1)
    if not unfinished_runs(job, "portrait", 0, 1):
        return watch.result(0)
    reader = FaceReader(job, use_threads(job, alone=False))
    seen = look_at_portrait(job, reader, read_photograph(job, reader))
    image, points = seen.image, seen.points
    tracked = tracker(job).portrait(image, points, job.settings.template.size)
    output = job.output("portrait")
    output.write_whole(track_arrays(tracked.track))
    pictures = {"photograph": image[None], "crop": tracked.crop[None]}
    output.write_whole({"landmarks": points, **pictures, **tracked.more})
    output.write_note(FACE, seen.about)
    output.commit()
    return watch.result(1)


@dataclass(frozen=True)
class SeenPortrait:
    """A portrait as the clip shows it, and the face to animate.

    Attributes:
        image: ``[H,W,3]`` uint8: the photograph, scaled down, or the part of it around a small face.
        points: landmarks ``[1,478,2]`` of the face in its pixels.
        about: what is told of it: number of faces, the chosen one's number from the left, the part of the
            given photograph in its own pixels, whether the photograph cuts the head, and the face's
            clockwise turn.
    """

    image: NDArray[np.uint8]
    points: NDArray[np.float32]
    about: dict[str, Any]


@dataclass(frozen=True)
class Photograph:
    """A portrait as it was given, and who is in it.

    Attributes:
        given: ``[H,W,3]`` uint8.
        small: a copy, at most ``media.portrait_max_side`` pixels long.
        found: the faces of the copy.
        persons: who is who, counted from the left.
    """

    given: NDArray[np.uint8]
    small: NDArray[np.uint8]
    found: FrameFaces
    persons: Persons


def read_photograph(job: Job, reader: FaceReader) -> Photograph:
    """Read all faces of the portrait."""
    given = given_portrait(job)
    small = at_most(given, job.settings.media.portrait_max_side)
    found = reader.read_photograph(small)
    size = small.shape[1], small.shape[0]
    return Photograph(given, small, found, find_persons(found.faces, found.vectors, np.zeros(1, bool), size))


def look_at_portrait(job: Job, reader: FaceReader, photograph: Photograph) -> SeenPortrait:
    """Find the face to animate.

    Args:
        job: whose settings choose.
        reader: of faces.
        photograph: the portrait, read.

    Raises:
        InputError: when there is no face in it, several and none is chosen, a face that the picture cuts, or
            an animal's.
    """
    found, persons, given = photograph.found, photograph.persons, photograph.given
    chosen = _chosen(job, photograph)
    size = photograph.small.shape[1], photograph.small.shape[0]
    _refuse(job, found, chosen, size)
    image, part, points = _shown(job, reader, photograph, chosen)
    about = {
        "faces": len(persons),
        "face": int(persons.number[0, chosen]),
        "part": [part.x, part.y, part.width, part.height],
        "whole": [0, 0, given.shape[1], given.shape[0]],
        "shown": list(part.shown),
        "head_cut": head_is_cut(found.faces[0, chosen], size),
        "tilt_degrees": round(float(np.degrees(rolls(points[0])))),
    }
    return SeenPortrait(image, points, about)


def _shown(
    job: Job, reader: FaceReader, photograph: Photograph, chosen: int
) -> tuple[NDArray[np.uint8], Part, NDArray[np.float32]]:
    """Return the part of the photograph that is shown, where it is, and the face's landmarks in it."""
    given, small = photograph.given, photograph.small
    longest, size = job.settings.media.portrait_max_side, (given.shape[1], given.shape[0])
    points, whole = photograph.found.faces[0, chosen], whole_part(size, longest)
    scale = np.array(size) / small.shape[1::-1]
    part = part_around(points * scale, size, longest)
    if job.settings.media.portrait_part == "whole" or part == whole:
        return small, whole, points[None]
    image = part.cut(given)
    seen = reader.read_photograph(image).faces[0]
    placed = (points * scale - (part.x, part.y)) * (np.array(part.shown) / (part.width, part.height))
    apart = np.linalg.norm(seen.mean(axis=1) - placed.mean(axis=0), axis=1)
    side = float((placed.max(axis=0) - placed.min(axis=0)).max())
    # another face, should this one not be found again, is not it
    if np.isnan(apart).all() or np.nanmin(apart) > _SAME_PLACE * side:
        return small, whole, points[None]
    return image, part, seen[None, int(np.nanargmin(apart))]


def _chosen(job: Job, photograph: Photograph) -> int:
    """Return the number of the face to animate, among the frame's faces."""
    found, persons, name = photograph.found, photograph.persons, redact_place(job.portrait)
    if not found.seen()[0]:
        edit = ", ".join(job.settings.edit.attributes)
        after = "; give a photograph in which one face looks toward the camera and is at least 60 pixels wide"
        if job.edited is not None:
            after = (
                f" after its edit ({edit}): look at it with `portrait edit`, and ask for less (edit.strength)"
            )
        raise InputError(f"no human face was found in the portrait {name}{after}")
    choice, _, place = job.settings.tracking.portrait_face.partition(":")
    if choice == "largest":
        able = persons.among(_humans(job, persons, found))
        weights = np.sort(able.weight)[::-1]
        if len(weights) > 1 and weights[1] > _DOMINATES * weights[0]:
            raise InputError(
                f"{len(persons)} faces were found in the portrait {name}; say which one to animate with "
                "--portrait-face N, counted from the left (`portrait check` shows the numbers), or "
                "--portrait-face like:IMAGE, or crop the portrait so that only that person is left"
            )
        return int(persons.faces_of(int(able.weight.argmax()) + 1)[0])
    from portrait_core.tracking.people import choose_person

    like = like_vector(job, place, "portrait_face") if place else None
    try:
        return int(persons.faces_of(choose_person(persons, choice, found.faces, like))[0])
    except InputError as error:
        raise InputError(f"the portrait {name} {error}") from None


def _humans(job: Job, persons: Persons, found: FrameFaces) -> NDArray[np.bool_]:
    """Tell who may be taken without being named: no animal beside a person."""
    if job.settings.tracking.any_face:
        return np.ones(len(persons), bool)
    return ~animal_persons(persons, found)


def _refuse(job: Job, found: FrameFaces, chosen: int, size: tuple[int, int]) -> None:
    """Refuse a face that the picture cuts, and an animal's."""
    from portrait_core.metrics.animal_faces import ANIMAL

    name = redact_place(job.portrait)
    if face_is_cut(found.faces[0, chosen], size):
        raise InputError(
            f"the face in the portrait {name} is cut by the edge of the picture; give a photograph that "
            "shows it from the brows to the chin"
        )
    probability = float(found.animal[0, chosen])
    if probability > ANIMAL and not job.settings.tracking.any_face:
        raise InputError(
            f"the face in the portrait {name} is an animal's (probability {probability:.2f}); give a "
            "portrait of a person, or --any-face to try it all the same"
        )
