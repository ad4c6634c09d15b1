"""What readers of expressions report of changes that are known: ``uv run python -m tests.benchmarks.readers
--help``.

Prints, by region, the slope, correlation and noise of the face landmarks
(:func:`portrait_core.metrics.follow.measure_regions`) and of the colours between the lips
(:func:`portrait_core.metrics.lip_colors.measure_lips`) on photographs warped by a known field and on rendered
people, and of optical flow (:mod:`portrait_core.metrics.picture_flow`) on the same pictures of one size, for
the people of the table and for held-out ones. A person is a file: a picture, or ``CLIP:FRAME``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console

from portrait_core.face_model.head import MorphableHead
from portrait_core.media import read_frames
from portrait_core.media.image import read_image
from portrait_core.metrics.follow import measure_regions
from portrait_core.metrics.lip_colors import measure_lips
from portrait_core.metrics.picture_flow import (
    FLOW_REGIONS,
    carried_landmarks,
    measure_flow,
    middle_frame,
    with_eyes_held,
)
from portrait_core.runtime.package_files import data_file, data_folder, sample_portrait
from portrait_core.tracking.attention import DEFAULT_LOOKS
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.training.known_pictures import Known, Subject
from portrait_core.training.reader_calibration import (
    PHASES,
    SIZES,
    Readings,
    Slope,
    change_photograph,
    draw_people,
    opening,
    part_lips,
    slope_of,
)
from portrait_core.training.render import SceneRenderer
from tests.benchmarks.tables import Grid

EYES_OPEN = 0.2
"""True opening of both lids, over the eye's width, from which gaze is compared."""
UP = np.array([1.0, -1.0])
Rows = dict[str, list[tuple[float, float, int, int, int]]]
"""Truth, reading, person, group and picture, by region."""


def picture_of(name: str) -> NDArray[np.uint8]:
    """Read a picture, or a frame of ``CLIP:FRAME``."""
    clip, colon, frame = name.rpartition(":")
    if colon and frame.isdigit() and Path(clip).exists():
        return np.asarray(next(iter(read_frames(clip, int(frame), int(frame) + 1))))
    return read_image(name)


def subject_of(landmarker: FaceLandmarker, picture: NDArray[np.uint8]) -> Subject:
    """Cut the face and read it again on the canvas: those points are the truth of the unchanged picture."""
    found = landmarker.detect(picture[None])
    if not found.ok[0]:
        raise typer.BadParameter("no face in one of the pictures; name another")
    subject = Subject.of(picture, found.points[0])
    again = landmarker.detect(subject.image[None])
    return Subject(subject.image, again.points[0].astype(np.float64)) if again.ok[0] else subject


def read(landmarker: FaceLandmarker, known: Known) -> dict[str, tuple[float, float]]:
    """Truth and reading of every region of a picture."""
    points = landmarker.detect(known.image[None]).points
    truth, reading = measure_regions(known.points[None] * UP), measure_regions(points * UP)
    return {name: (float(truth[name][0]), float(reading[name][0])) for name in truth}


def warped(landmarker: FaceLandmarker, names: Sequence[str]) -> Rows:
    """Read warped photographs: of each change only the region that it moves."""
    rows: Rows = defaultdict(list)
    picture = 0
    for person, name in enumerate(names):
        subject = subject_of(landmarker, picture_of(name))
        for change, known in change_photograph(subject):
            for i, size in enumerate(SIZES):
                picture += 1
                for phase in PHASES:
                    pair = read(landmarker, known.seen(size, phase))[change.region]
                    rows[change.region].append((*pair, person, person * len(SIZES) + i, picture))
    return rows


def rendered(landmarker: FaceLandmarker, people: int, expressions: int, seed: int) -> Rows:
    """Read rendered people: every picture says something of every region."""
    rows: Rows = defaultdict(list)
    for picture, (person, known) in enumerate(draw_people(scene_renderer(), people, expressions, seed)):
        pairs = read(landmarker, known)
        shut = min(pairs["lid right"][0], pairs["lid left"][0]) < EYES_OPEN
        for region, pair in pairs.items():
            if shut and region.startswith("gaze"):  # nobody sees where a closed eye looks
                continue
            rows[region].append((*pair, person, person, picture))
    return rows


def flowed(landmarker: FaceLandmarker, names: Sequence[str]) -> Rows:
    """Read warped photographs by the flow from the unchanged one: of each change only the region it moves."""
    rows: Rows = defaultdict(list)
    for person, name in enumerate(names):
        subject = subject_of(landmarker, picture_of(name))
        start = Known(subject.image, subject.points).seen(SIZES[0])
        for change, known in change_photograph(subject):
            if change.region in FLOW_REGIONS and not np.array_equal(known.image, subject.image):
                seen = known.seen(SIZES[0])
                carried = carried_landmarks([seen.image], start.image, start.points)
                pair = (measure_flow(p * UP)[change.region][0] for p in (seen.points[None], carried))
                picture = len(rows[change.region])
                rows[change.region].append((*pair, person, person, picture))
    return rows


def flowed_people(people: int, expressions: int, seed: int) -> Rows:
    """Read rendered people by the flow from each one's middle expression, the corners of the eyes held."""
    rows: Rows = defaultdict(list)
    seen: dict[int, list[Known]] = defaultdict(list)
    for person, known in draw_people(scene_renderer(), people, expressions, seed):
        seen[person].append(known)
    for person, knowns in seen.items():
        points = np.stack([known.points for known in knowns])
        regions = measure_regions(points * UP)
        start = middle_frame(regions)
        carried = carried_landmarks([k.image for k in knowns], knowns[start].image, points[start])
        truth, reading = measure_flow(with_eyes_held(points, start) * UP), measure_flow(carried * UP)
        shut = np.minimum(regions["lid right"], regions["lid left"]) < EYES_OPEN
        for region in FLOW_REGIONS:
            for i in np.flatnonzero(~(shut | shut[start])) if region.startswith("gaze") else range(len(shut)):
                if i != start:  # read without flow
                    picture = len(rows[region])
                    rows[region].append((truth[region][i], reading[region][i], person, person, picture))
    return rows


def scene_renderer() -> SceneRenderer:
    """The renderer of synthetic people."""
    return SceneRenderer(MorphableHead.load(data_file("models/embedded_head.safetensors")))


def coloured(landmarker: FaceLandmarker, names: Sequence[str], grey: bool) -> Rows:
    """Read parted lips by their colours, all pictures of a person and size as one clip; beside it the
    landmarks' lip gap of the same pictures."""
    rows: Rows = defaultdict(list)
    for person, name in enumerate(names):
        drawn = part_lips(subject_of(landmarker, picture_of(name)), grey)
        for i, size in enumerate(SIZES):
            seen = [known.seen(size) for known in drawn]
            images = np.stack([known.image for known in seen])
            points = landmarker.detect(images).points
            found = measure_lips(partial(iter, images), points) | {
                "lip gap of landmarks": measure_regions(points * UP)["lip gap"]
            }
            truth = {
                "teeth shown": np.array([known.teeth * opening(known.points) for known in seen]),
                "mouth open": np.array([opening(known.points) for known in seen]),
                "lip gap of landmarks": measure_regions(np.stack([k.points for k in seen]) * UP)["lip gap"],
            }
            for region, values in found.items():
                group = person * len(SIZES) + i
                pictures = group * len(seen) + np.arange(len(seen))
                for pair in zip(truth[region], values, pictures, strict=True):
                    rows[region].append((pair[0], pair[1], person, group, int(pair[2])))
    return rows


def slopes(rows: Rows) -> dict[str, Slope]:
    """Slopes by region."""
    found = {}
    for region, values in rows.items():
        truth, reading, *numbers = np.array(values).T
        found[region] = slope_of(Readings(truth, reading, *(n.astype(np.int64) for n in numbers)))
    return found


def table(title: str, columns: dict[str, dict[str, Slope]]) -> Grid:
    """Slope (spread over people), correlation, noise by region, for each kind of pictures."""
    headings = ["region"]
    for name in columns:
        headings += [f"{name}\nslope", "± people", "r", "off line", "noise"]
    rows = []
    for region in next(iter(columns.values())):
        row = [region]
        for found in columns.values():
            s = found[region]
            row += [f"{s.slope:.2f}", f"{s.spread:.2f}", f"{s.correlation:.2f}", f"{s.off_line:.3f}"]
            row.append(f"{s.noise:.4f}")
        rows.append(row)
    return Grid(title, headings, rows, "± people: standard deviation of single people's slopes.")


def main(
    person: Annotated[list[str] | None, typer.Option(help="A picture or CLIP:FRAME for the table.")] = None,
    held_out: Annotated[list[str] | None, typer.Option(help="Another person, reported apart.")] = None,
    rendered_people: Annotated[int, typer.Option(help="Synthetic people of each set.")] = 12,
    expressions: Annotated[int, typer.Option(help="Expressions of each.")] = 8,
    plain: Annotated[
        bool, typer.Option(help="The plain face mesh and iris model, without the attention mesh.")
    ] = False,
    looks: Annotated[int, typer.Option(help="Looks at each face, 1 to 4.")] = DEFAULT_LOOKS,
) -> None:
    """Print the readers' slopes."""
    torch.set_num_threads(1)
    console = Console(highlight=False, width=160)
    landmarker = FaceLandmarker.from_models(data_folder() / "models", 1, 0.5, refine=not plain, looks=looks)
    people = person or [str(sample_portrait())]
    columns = {"people": slopes(warped(landmarker, people))}
    if held_out:
        columns["held out"] = slopes(warped(landmarker, held_out))
    console.print(table("landmarks on warped photographs", columns).for_terminal())
    columns = {"people": slopes(flowed(landmarker, people))}
    if held_out:
        columns["held out"] = slopes(flowed(landmarker, held_out))
    console.print(table("optical flow on warped photographs", columns).for_terminal())
    for grey in (False, True):
        columns = {
            title: slopes(coloured(landmarker, names, grey))
            for title, names in (("people", people), ("held out", held_out or []))
            if names
        }
        kind = "black-and-white" if grey else "coloured"
        console.print(table(f"lips parted in {kind} photographs", columns).for_terminal())
    if rendered_people:
        columns = {
            name: slopes(rendered(landmarker, rendered_people, expressions, seed))
            for name, seed in (("people", 0), ("held out", 1))
        }
        console.print(table("landmarks on rendered people", columns).for_terminal())
        columns = {
            name: slopes(flowed_people(rendered_people, expressions, seed))
            for name, seed in (("people", 0), ("held out", 1))
        }
        console.print(table("optical flow on rendered people", columns).for_terminal())


if __name__ == "__main__":
    typer.run(main)
