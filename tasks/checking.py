"""A look at a portrait and a driving video before any work: what a run would use of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import InputError
from portrait_core.face_model.topology import N_MESH
from portrait_core.media import VideoInfo, probe
from portrait_core.pipeline import Job
from portrait_core.report.pictures import boxed, contact_sheet
from portrait_core.tracking.turns import TILTED_DEGREES
from tasks.context import input_frames, use_threads, video_file
from tasks.faces import MOST_FACES, FaceReader, FrameFaces
from tasks.following import Followed, follow

if TYPE_CHECKING:
    from tasks.stages.portrait import SeenPortrait

Picture = NDArray[np.uint8]
MOST_LOOKED_AT = 60
"""Frames of a video that are looked at, evenly spread over it."""
_SHOWN = 8
_SMALL_PX = 100
"""Width of a face in pixels below which an expression is read roughly."""


@dataclass
class _Side:
    """Findings about one input.

    Attributes:
        tiles: small pictures of it with its faces marked, by title.
        warnings: what a user should know, one line each.
        refused: why a run would end; empty where it would not.
    """

    tiles: dict[str, Picture] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    refused: str = ""


@dataclass
class CheckedPortrait(_Side):
    """Findings about a portrait.

    Attributes:
        seen: the portrait as it would be shown; None where it is refused.
    """

    seen: SeenPortrait | None = None


@dataclass
class CheckedVideo(_Side):
    """Findings about a driving video.

    Attributes:
        info: its properties.
        looked_at: numbers of the frames that were looked at.
        followed: the people in these frames; None where the video is refused.
        persons: a picture of each person's face, by number.
    """

    info: VideoInfo | None = None
    looked_at: list[int] = field(default_factory=list)
    followed: Followed | None = None
    persons: dict[int, Picture] = field(default_factory=dict)

    def every_frame(self, job: Job) -> bool:
        """Tell whether all frames were looked at: only then persons have the numbers that a run gives."""
        return len(self.looked_at) == job.frames


def face_reader(job: Job) -> FaceReader:
    """Return the process's reader of faces, with all of its threads."""
    return FaceReader(job, use_threads(job, alone=True))


def strip_of(*sides: _Side) -> Picture | None:
    """Draw the small pictures of inputs in one row; None where there is none."""
    tiles = {title: tile for side in sides for title, tile in side.tiles.items()}
    return contact_sheet({"looked at": list(tiles.values())}, list(tiles), 224) if tiles else None


def check_portrait(job: Job, reader: FaceReader) -> CheckedPortrait:
    """Look at a portrait as the stage does."""
    from tasks.stages.portrait import look_at_portrait, read_photograph

    checked = CheckedPortrait()
    try:
        photograph = read_photograph(job, reader)
        # shown with all of its faces' numbers, should one of them have to be named
        faces, numbers = photograph.found.faces[0], photograph.persons.number[0]
        marks = {int(number): (faces[k], False) for k, number in enumerate(numbers) if number}
        checked.tiles["portrait"] = boxed(photograph.small, _boxes(marks))
        seen = checked.seen = look_at_portrait(job, reader, photograph)
    except InputError as error:
        checked.refused = str(error)
        return checked
    number = int(seen.about["face"])
    if seen.about["part"] == seen.about["whole"]:
        marks[number] = faces[int((numbers == number).argmax())], True
    else:
        marks = {number: (seen.points[0], True)}
    checked.tiles["portrait"] = boxed(seen.image, _boxes(marks))
    checked.warnings = _portrait_warnings(seen)
    return checked


def check_video(job: Job, reader: FaceReader, most: int = MOST_LOOKED_AT) -> CheckedVideo:
    """Look at frames of a video as the stages do.

    Frames between those that are looked at are not, so that persons have the numbers of a run only where
    every frame is; elsewhere a person is chosen by their picture.

    Args:
        job: a job with the video.
        reader: of its faces.
        most: frames to look at, evenly spread over the clip.
    """
    checked = CheckedVideo()
    try:
        _look_at_video(job, reader, checked, most)
    except InputError as error:
        checked.refused = str(error)
        if checked.looked_at and not checked.every_frame(job):
            checked.refused += f" (looked at {len(checked.looked_at)} of {job.frames} frames)"
    return checked


def _look_at_video(job: Job, reader: FaceReader, checked: CheckedVideo, most: int) -> None:
    info = checked.info = probe(video_file(job))
    chosen = np.unique(np.linspace(0, job.frames - 1, min(most, job.frames)).round().astype(int))
    checked.looked_at = chosen.tolist()
    places = np.linspace(0, len(chosen) - 1, min(_SHOWN, len(chosen))).round().astype(int)
    shown = set(chosen[places].tolist())
    kept: dict[int, Picture] = {}
    parts: list[FrameFaces] = []
    for i, picture in _frames(job, checked.looked_at):
        parts.append(reader.read(picture[None], i, every=1))
        if i in shown:
            kept[i] = picture
    found = FrameFaces.joined(parts)
    # frames between which others were left out have nothing to do with each other
    cuts = np.full(len(chosen), len(chosen) < job.frames)
    checked.tiles = {f"frame {i}": boxed(picture, []) for i, picture in kept.items()}
    again = (picture for _, picture in _frames(job, checked.looked_at))
    try:
        checked.followed = follow(job, found, cuts, (info.width, info.height), lambda: again)
    except InputError:
        _mark_faces(checked, kept, found)
        raise
    checked.warnings = _video_warnings(checked, job)
    _mark_persons(checked, kept)
    _cut_out_persons(checked, job)


def _frames(job: Job, wanted: list[int]) -> Iterator[tuple[int, Picture]]:
    """Yield frames by number, reading the video once."""
    which = set(wanted)
    return ((i, picture) for i, picture in zip(count(), input_frames(job), strict=False) if i in which)


def _cut_out_persons(checked: CheckedVideo, job: Job) -> None:
    """Cut each of several persons out of the frame in which their face is largest."""
    followed = checked.followed
    assert followed is not None
    if len(followed.persons) < 2:
        return
    mesh = followed.found.faces[:, :, :N_MESH]
    side = np.ptp(mesh, axis=2).max(axis=-1)
    wanted: dict[int, list[tuple[int, int]]] = {}
    for number in range(1, len(followed.persons) + 1):
        shown = np.where(followed.persons.number == number, side, -1)
        row, face = map(int, np.unravel_index(int(shown.argmax()), shown.shape))
        wanted.setdefault(row, []).append((number, face))
    for i, picture in _frames(job, [checked.looked_at[row] for row in wanted]):
        row = checked.looked_at.index(i)
        upright = np.ascontiguousarray(np.rot90(picture, followed.turn))
        for number, face in wanted[row]:
            checked.persons[number] = _cut(upright, followed.found.faces[row, face])


def _mark_persons(checked: CheckedVideo, kept: Mapping[int, Picture]) -> None:
    """Mark every person's face in the frames that are shown."""
    followed = checked.followed
    assert followed is not None
    for i, picture in kept.items():
        row = checked.looked_at.index(i)
        upright = np.ascontiguousarray(np.rot90(picture, followed.turn))
        marks = {
            int(number): (followed.found.faces[row, k], number == followed.driver)
            for k, number in enumerate(followed.persons.number[row])
            if number
        }
        checked.tiles[f"frame {i}"] = boxed(upright, _boxes(marks))


def _mark_faces(checked: CheckedVideo, kept: Mapping[int, Picture], found: FrameFaces) -> None:
    """Mark the faces of a video that is refused: nobody has a number yet."""
    for i, picture in kept.items():
        faces = found.faces[checked.looked_at.index(i)]
        seen = faces[np.isfinite(faces[:, 0, 0])]
        checked.tiles[f"frame {i}"] = boxed(
            picture,
            [(box, "", False) for box, _, _ in _boxes({k: (points, False) for k, points in enumerate(seen)})],
        )


def _boxes(
    marks: Mapping[int, tuple[NDArray[np.floating], bool]],
) -> list[tuple[NDArray[np.floating], str, bool]]:
    boxes = []
    for number, (points, strong) in marks.items():
        mesh = points[:N_MESH]
        boxes.append((np.stack([mesh.min(axis=0), mesh.max(axis=0)]), str(number), strong))
    return boxes


def _cut(picture: Picture, points: NDArray[np.floating]) -> Picture:
    from portrait_core.tracking.crop import crop_image

    mesh = points[:N_MESH]
    side = 1.8 * float((mesh.max(axis=0) - mesh.min(axis=0)).max())
    return crop_image(picture, mesh.mean(axis=0), side, 256)


def _portrait_warnings(seen: SeenPortrait) -> list[str]:
    about, warnings = seen.about, []
    width = face_width(seen.points[0])
    if about["faces"] > 1:
        warnings.append(f"the portrait shows {about['faces']} faces; number {about['face']} is animated")
    if about["head_cut"]:
        warnings.append("the portrait's head is cut by the edge: what is missing is mirrored and blurred")
    if width < _SMALL_PX:
        warnings.append(f"the portrait's face is {width:.0f} pixels wide: the clip is as coarse as that")
    if about["part"] != about["whole"]:
        warnings.append(
            "the portrait's face is small: the clip shows the part of the photograph around it "
            "(--set media.portrait_part=whole shows all of it)"
        )
    if (tilt := abs(about["tilt_degrees"])) > TILTED_DEGREES:
        warnings.append(f"the portrait's face is tilted by {tilt} degrees; is the picture upright?")
    return warnings


def _video_warnings(checked: CheckedVideo, job: Job) -> list[str]:
    followed, warnings = checked.followed, list[str]()
    assert followed is not None
    about: dict[str, Any] = followed.about()
    several, looked_at = about["persons"] > 1, len(checked.looked_at)
    if several and checked.every_frame(job):
        warnings.append(
            f"the video shows {about['persons']} persons; number {about['driver']} drives (--driver-face N "
            "chooses another)"
        )
    elif several:
        warnings.append(
            f"the video shows {about['persons']} persons; number {about['driver']} drives; choose another by "
            "their picture (--driver-face like:IMAGE): a run looks at all frames and may count otherwise"
        )
    if crowded := int(np.isfinite(followed.found.faces[:, -1, 0, 0]).sum()):
        warnings.append(
            f"a crowd in {crowded} frames: of each frame the {MOST_FACES} largest and most central faces are "
            "read; for somebody else, crop the video around them"
        )
    if about["turned_degrees"]:
        warnings.append(f"faces lie turned in the video: it is turned by {about['turned_degrees']} degrees")
    if lying := about["frames_lying"]:
        warnings.append(
            f"the driver's face lies on its side or upside down in {len(lying)} of {looked_at} frames: the "
            "head does too"
        )
    if about["still"]:
        warnings.append("the driver's face never moves: is it a picture? (--driver-face chooses another)")
    if (held := sum(map(len, about["held"].values()))) > looked_at / 2:
        warnings.append(
            f"{held} of {looked_at} frames cannot be used, and the clip stands still there; --from and --to "
            "take a part of the video"
        )
    widths = [face_width(points) for points in followed.points[np.isfinite(followed.points[:, 0, 0])]]
    if np.median(widths) < _SMALL_PX:
        warnings.append(
            f"the driver's face is {np.median(widths):.0f} pixels wide: expressions are read roughly"
        )
    if checked.info is not None and checked.info.is_vfr:
        warnings.append(f"the video's frame rate varies: it is shown at {float(job.rate):.5g} per second")
    return warnings


def face_width(points: NDArray[np.floating]) -> float:
    """Return the width of a face in pixels.

    Args:
        points: landmarks ``[478,2]`` in pixels.
    """
    return float(np.linalg.norm(points[454] - points[234]))
