"""Stage ``person``: one person of the driving video, followed through it, where they can be believed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import InputError
from portrait_core.media import probe
from portrait_core.pipeline import Array, Job, Note, Stage
from portrait_core.pipeline.ledger import record_failures, unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import landmark_weights, recognition_weights
from portrait_core.store import Failure
from portrait_core.store.places import redact_place
from portrait_core.tracking.people import Persons, choose_person, find_persons
from portrait_core.tracking.trust import UNTRUSTED, scene_cuts, untrusted
from portrait_core.tracking.turns import clip_turn, turn_points
from tasks.context import input_frames, use_threads, video_file
from tasks.faces import FaceReader, FrameFaces, like_vector
from tasks.running import does

PEOPLE = "people"
"""Note of who is in the video, who drives, and which frames are not believed."""
_SHOWN = 12

PERSON = Stage(
    name="person",
    title="follow one person",
    version=1,
    unit="video",
    reads=("landmarks",),
    inputs=("video", "driver_face"),
    weights=(landmark_weights, recognition_weights),
    writes=(
        Array("landmarks", per="clip"),
        Array("cut", per="clip"),
        Array("turn", per="clip"),
        Note(PEOPLE),
    ),
)


@does(PERSON, precision="fp32")
def person(job: Job) -> StageResult:
    """Choose the person who drives, and keep their landmarks where these can be believed.

    A frame in which they cannot is NaN, is recorded, and shows its neighbour. Where the driver lies on the
    side or stands upside down for most of the clip, the clip counts as turned.

    Raises:
        InputError: the video does not show the person that is asked for, no frame can be believed, or the
            face is an animal's.
    """
    watch = Stopwatch("person", 0, 1)
    if not unfinished_runs(job, "person", 0, 1):
        return watch.result(0)
    rows = job.output("landmarks").read_together(("faces", "vectors", "animal", "thumbnail"))
    found = FrameFaces(rows["faces"], rows["vectors"], rows["animal"])
    info = probe(video_file(job))
    size, cuts = (info.width, info.height), scene_cuts(rows["thumbnail"])
    if not found.seen().any():
        raise InputError(
            f"no face was found in any of the {job.frames} frames of {redact_place(job.video)}; give a video "
            "in which one person's face is visible and at least 40 pixels wide"
        )
    turn = clip_turn(found.faces[:, 0])
    if turn:
        found, size = _turned(job, found, turn), size[:: -1 if turn % 2 else 1]
    persons = find_persons(found.faces, found.vectors, cuts, size)
    chosen = _chosen(job, persons, found)
    points = _points_of(persons, chosen, found)
    _refuse_animals(job, persons, chosen, found)
    wrong = untrusted(points, found.seen(), cuts, size)
    points = np.where(np.any(list(wrong.values()), axis=0)[:, None, None], np.nan, points)
    _refuse_none(job, points, wrong)
    _record(job, wrong)
    output = job.output("person")
    output.write_whole(
        {"landmarks": points.astype(np.float32), "cut": cuts, "turn": np.array([turn], np.int64)}
    )
    output.write_note(PEOPLE, _about(persons, chosen, found, wrong, turn))
    output.commit()
    return watch.result(1)


def _turned(job: Job, found: FrameFaces, turn: int) -> FrameFaces:
    """Return the faces of the turned clip; frames in which none is upright there are looked at again."""
    from portrait_core.tracking.turns import is_upright

    pictures = input_frames(job)
    faces = found.faces.copy()
    arrays = {"faces": faces, "vectors": found.vectors.copy(), "animal": found.animal.copy()}
    reader = FaceReader(job, use_threads(job, alone=True))
    for i, picture in enumerate(pictures):
        size = picture.shape[1], picture.shape[0]
        faces[i] = turn_points(found.faces[i], turn, size)
        if not is_upright(faces[i, :1])[0]:
            again = reader.read(np.ascontiguousarray(np.rot90(picture, turn))[None], i)
            for name, rows in again.arrays().items():
                arrays[name][i] = rows[0]
    return FrameFaces(**arrays)


def _chosen(job: Job, persons: Persons, found: FrameFaces) -> int:
    choice, _, place = job.settings.tracking.driver_face.partition(":")
    like = like_vector(job, place, "driver_face") if place else None
    try:
        return choose_person(persons, choice, found.faces, like)
    except InputError as error:
        raise InputError(f"{redact_place(job.video)} {error}") from None


def _points_of(persons: Persons, chosen: int, found: FrameFaces) -> NDArray[np.float32]:
    face = persons.faces_of(chosen)
    points = found.faces[np.arange(len(face)), face.clip(0)]
    return np.where((face >= 0)[:, None, None], points, np.float32(np.nan))


def _refuse_animals(job: Job, persons: Persons, chosen: int, found: FrameFaces) -> None:
    from portrait_core.metrics.animal_faces import ANIMAL

    asked = found.animal[persons.number == chosen]
    if job.settings.tracking.any_face or not np.isfinite(asked).any():
        return
    if (probability := float(np.nanmedian(asked))) > ANIMAL:
        raise InputError(
            f"the face in the driving video {redact_place(job.video)} is an animal's (probability "
            f"{probability:.2f}); give a video of a person, or --any-face to try it all the same"
        )


def _refuse_none(job: Job, points: NDArray[np.floating], wrong: dict[str, NDArray[np.bool_]]) -> None:
    if np.isfinite(points[:, 0, 0]).any():
        return
    counts = ", ".join(
        f"{UNTRUSTED[name]} in {frames.sum()}" for name, frames in wrong.items() if frames.any()
    )
    raise InputError(
        f"none of the {job.frames} frames of {redact_place(job.video)} shows a whole face ({counts}); give a "
        "video in which one person's face is inside the picture"
    )


def _record(job: Job, wrong: dict[str, NDArray[np.bool_]]) -> None:
    """Record frames that are not believed; those without a face were recorded when they were read."""
    key = job.stage_keys["person"]
    rows = [
        Failure("person", int(frame), "input", f"{UNTRUSTED[name]}; the frame shows its neighbour", key=key)
        for name, frames in wrong.items()
        if name != "no_face"
        for frame in np.flatnonzero(frames)
    ]
    record_failures(job, "person", rows)


def _about(
    persons: Persons, chosen: int, found: FrameFaces, wrong: dict[str, NDArray[np.bool_]], turn: int
) -> dict[str, Any]:
    several = np.isfinite(found.faces[:, :, 0, 0]).sum(axis=1) > 1
    return {
        "persons": len(persons),
        "driver": chosen,
        "frames_with_several": np.flatnonzero(several).tolist(),
        "turned_degrees": 90 * turn,
        "held": {name: np.flatnonzero(frames).tolist() for name, frames in wrong.items() if frames.any()},
    }
