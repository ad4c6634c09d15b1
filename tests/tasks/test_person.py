"""One person of the driving video is followed: the stage ``person`` on faces that are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from portrait_core.errors import InputError
from portrait_core.pipeline import Job
from portrait_core.settings import load_settings
from portrait_core.store import file_digest
from tasks.context import FrameArrays
from tasks.faces import FrameFaces, no_faces
from tasks.stages.person import PEOPLE, person
from tests.conftest import FfmpegRunner
from tests.portrait_core import stand_in
from tests.simulation.stub import stub_job

FRAMES = 12
ANNA, BEN = np.eye(2, 128, dtype=np.float32)
Maker = Callable[..., Job]


@pytest.fixture(scope="module")
def face() -> NDArray[np.float32]:
    """Landmarks of a face of about 170 pixels around the origin."""
    found = stand_in.landmarker().detect(skimage.data.astronaut()[None]).points[0]
    return np.asarray(found - found.mean(axis=0), np.float32)


@pytest.fixture
def made(tmp_path: Path, ffmpeg_to: FfmpegRunner) -> Maker:
    """Makes a job whose faces were read."""
    video = ffmpeg_to("grey.mp4", "-f", "lavfi", "-i", "color=gray:s=640x480:r=25:d=0.48")

    def make(faces: FrameFaces, *changes: str) -> Job:
        job = stub_job(str(tmp_path / "store"), "clip", FRAMES, load_settings("embedded", changes))
        job = job.model_copy(
            update={"video": str(video), "inputs": job.inputs | {"video": file_digest(video)}}
        )
        small = np.zeros((FRAMES, 16, 16, 3), np.uint8)
        FrameArrays(job, "landmarks").keep(0, faces.arrays() | {"thumbnail": small})
        return job

    return make


def show(
    faces: FrameFaces, frame: int, place: int, points: NDArray[np.float32], who: NDArray[np.float32]
) -> None:
    faces.faces[frame, place], faces.vectors[frame, place] = points, who


def test_frames_without_the_driver_are_held_recorded_and_counted(
    made: Maker, face: NDArray[np.float32]
) -> None:
    faces = no_faces(FRAMES)
    for i in range(FRAMES):
        show(faces, i, 0, face + np.array([300 + i, 240], np.float32), ANNA)
    faces.faces[2] = np.nan  # nobody
    show(faces, 5, 0, face + np.array([306, 240], np.float32), BEN)  # somebody else in the same place
    show(faces, 8, 0, face + np.array([5, 240], np.float32), ANNA)  # half outside
    show(faces, 10, 1, face * np.float32(0.5) + np.array([560, 100], np.float32), BEN)  # beside her
    job = made(faces)
    assert person(job=job).frames_done == 1
    points = job.output("person").read("landmarks")
    assert np.flatnonzero(np.isnan(points[:, 0, 0])).tolist() == [2, 5, 8]
    np.testing.assert_array_equal(points[10], faces.faces[10, 0])
    about = job.output("person").read_fields(PEOPLE)
    assert about["held"] == {"no_face": [2], "another_person": [5], "outside_picture": [8]}
    assert (about["persons"], about["driver"], about["frames_with_several"]) == (2, 1, [10])
    rows = job.unit("person").failures()
    assert rows[["frame", "cls"]].values.tolist() == [[5, "input"], [8, "input"]]
    assert "the person who drives is not in the picture" in rows["message"].iloc[0]


def test_another_person_is_asked_for(made: Maker, face: NDArray[np.float32]) -> None:
    faces = no_faces(FRAMES)
    for i in range(FRAMES):
        show(faces, i, 0, face + np.array([200, 240], np.float32), ANNA)
        show(faces, i, 1, face * np.float32(0.6) + np.array([500, 240], np.float32), BEN)
    job = made(faces, "tracking.driver_face=2")
    person(job=job)
    np.testing.assert_array_equal(job.output("person").read("landmarks"), faces.faces[:, 1])


def test_a_video_that_cannot_drive_is_refused_with_the_reason(made: Maker, face: NDArray[np.float32]) -> None:
    with pytest.raises(InputError, match="no face was found in any of the 12 frames of"):
        person(job=made(no_faces(FRAMES)))


@pytest.mark.parametrize("allowed", [False, True])
def test_an_animal_drives_only_where_that_is_allowed(
    made: Maker, face: NDArray[np.float32], allowed: bool
) -> None:
    faces = no_faces(FRAMES)
    for i in range(FRAMES):
        show(faces, i, 0, face + np.array([300, 240], np.float32), ANNA)
    faces.animal[::8, 0] = 0.9
    job = made(faces, f"tracking.any_face={str(allowed).lower()}")
    if allowed:
        assert person(job=job).frames_done == 1
    else:
        with pytest.raises(InputError, match=r"is an animal's \(probability 0.90\).*--any-face"):
            person(job=job)


@pytest.mark.parametrize(
    ("beside", "change", "driver", "still"),
    [
        ("picture", "tracking.any_face=false", 2, False),
        ("picture", "tracking.driver_face=1", 1, True),
        ("dog", "tracking.any_face=false", 2, False),
        ("dog", "tracking.any_face=true", 1, False),
    ],
)
def test_who_drives_unless_named_is_no_picture_and_no_animal(
    made: Maker, face: NDArray[np.float32], beside: str, change: str, driver: int, still: bool
) -> None:
    faces = no_faces(FRAMES)
    for i in range(FRAMES):
        talking = face * np.where(face[:, 1:] > 30, np.float32(1 + 0.04 * np.sin(i)), 1) * np.float32(0.6)
        larger = (
            face
            if beside == "picture"
            else face * np.float32(1 + 0.03 * np.sin(i * np.arange(956)).reshape(478, 2))
        )
        show(faces, i, 0, larger + np.array([200, 240], np.float32), ANNA)
        show(faces, i, 1, talking + np.array([500, 240], np.float32), BEN)
    if beside == "dog":
        faces.animal[::8, 0] = 0.9
    job = made(faces, change)
    person(job=job)
    about = job.output("person").read_fields(PEOPLE)
    assert (about["driver"], about["still"]) == (driver, still)


def test_a_face_that_lies_for_a_part_of_the_clip_is_told(made: Maker, face: NDArray[np.float32]) -> None:
    faces = no_faces(FRAMES)
    for i in range(FRAMES):
        points = face if i < 8 else np.stack([face[:, 1], -face[:, 0]], axis=1)
        show(faces, i, 0, points + np.array([300, 240], np.float32), ANNA)
    job = made(faces)
    person(job=job)
    about = job.output("person").read_fields(PEOPLE)
    assert (about["turned_degrees"], about["frames_lying"]) == (0, [8, 9, 10, 11])


def test_one_frame_is_no_motion(made: Maker, face: NDArray[np.float32]) -> None:
    faces = no_faces(FRAMES)
    show(faces, 4, 0, face + np.array([300, 240], np.float32), ANNA)
    with pytest.raises(InputError, match=r"only one of the 12 frames .* shows a whole face .*--driver-face"):
        person(job=made(faces))


def test_a_face_that_is_never_whole_is_refused_with_the_counts(
    made: Maker, face: NDArray[np.float32]
) -> None:
    faces = no_faces(FRAMES)
    for i in range(FRAMES):
        show(faces, i, 0, face * np.float32(12) + np.array([320, 240], np.float32), ANNA)
    with pytest.raises(InputError, match=r"none of the 12 frames .* lies partly outside the picture in 12"):
        person(job=made(faces))
