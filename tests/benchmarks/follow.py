"""How much of drivers' expressions arrives in portraits, before the generator: ``uv run python -m
tests.benchmarks.follow --portrait FILE --driver FILE ...``.

Prints, for every pair and region that moves, slope and correlation of the retargeted head and of the
template on the driver, beside the highest correlation that the reader's noise leaves, in how many frames the
lips are closed where the driver's are, and the medians over all pairs. The template is read by the landmark
networks and by colour, and, in a stage of its own, by optical flow
(:mod:`portrait_core.metrics.picture_flow`). Two more rows compare both readers with the retargeted head
rather than with the driver: what they report of what was to be painted. Where the portrait is a frame of the
driving clip (``--portrait CLIP:FRAME``), both are the same person, and what is missing is the painting's and
no other face's. ``--sheet`` draws a strip per pair: the driver, then the template.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from portrait_core.face_model.directions import with_directions
from portrait_core.face_model.head import MorphableHead
from portrait_core.media import probe, read_frames
from portrait_core.metrics.follow import Follow, Measured, count_closed_lips, follow_stages, measure_regions
from portrait_core.metrics.lip_colors import measure_lips
from portrait_core.metrics.picture_flow import carried_landmarks, measure_flow, middle_frame, with_eyes_held
from portrait_core.metrics.reader_slopes import FLOW_READER, READER
from portrait_core.runtime.package_files import data_file, data_folder, sample_portrait, sample_video
from portrait_core.settings import TemplateSettings, TrackingSettings
from portrait_core.template.embedded_face import embedded_renderer
from portrait_core.template.moves import embedded_moves, mouth_moves, mouth_of
from portrait_core.tracking.crop import crop_image, points_in_crop
from portrait_core.tracking.embedded_tracker import EmbeddedTracker
from portrait_core.tracking.fit import FaceTrack, fit_clip
from portrait_core.tracking.head_frame import head_landmarks, lift, lift_clip
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.measure import seen, spread_evenly
from portrait_core.tracking.mouth_inside import MouthInside, read_mouth_inside
from portrait_core.tracking.projection import Pose
from tasks.expressions import read_landmarks
from tests.benchmarks.readers import picture_of
from tests.benchmarks.tables import Grid

LEAST_SEEN = 0.5
"""Share of the templates in which flow has to see a region."""


class Reader:
    """Reads faces of pictures and fits the embedded head to them."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.head = with_directions(MorphableHead.load(data_file("models/embedded_head.safetensors")))
        self.settings = TrackingSettings()
        self.landmarker = FaceLandmarker.from_models(data_folder() / "models")

    def points(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        return read_landmarks(self.landmarker, frames, self.settings.batch)

    def measured(
        self,
        frames: NDArray[np.uint8],
        points: NDArray[np.float32],
        track: FaceTrack,
        which: NDArray[np.intp] | None = None,
        painted: bool = False,
    ) -> Measured:
        found = Measured.of(lift_clip(self.head, points, track), which, from_pictures=painted)
        return found.with_regions(measure_lips(lambda: iter(frames), points))

    def flowed(
        self,
        templates: NDArray[np.uint8],
        points: NDArray[np.float32],
        track: FaceTrack,
        head: NDArray[np.float64],
        which: NDArray[np.intp],
    ) -> tuple[Measured, int]:
        """Read templates by optical flow from one of them, whose landmarks and depth are used for all.

        Args:
            templates: ``[n,S,S,3]``.
            points: their landmarks ``[n,478,2]`` in pixels; NaN where no face was read.
            track: fitted to those.
            head: landmarks of the head that was painted ``[T,478,3]``.
            which: frames of the templates ``[n]``.

        Returns:
            What is read, and the frame at which the flow starts.
        """
        known = np.flatnonzero(seen(points))
        start = int(known[middle_frame(measure_regions(head[which[known]]))])
        pixels = carried_landmarks(templates, templates[start], points[start])
        pose = Pose(track.rotation[start], track.crop_center_px[start], float(track.crop_side_px[start]))
        rest = head_landmarks(self.head, track.shape, track.expression[[start]], track.jaw[[start]])[0]
        lifted = np.stack([lift(each, pose, rest) for each in pixels])
        return Measured(measure_flow(lifted), which, from_pictures=True), int(which[start])


def clip_frames(path: Path, most: int) -> NDArray[np.uint8]:
    """Read the first ``most`` frames of a video, or all of a shorter one."""
    return np.stack(list(read_frames(path, 0, min(most, probe(path).frame_count))))


def compare(
    reader: Reader,
    image: NDArray[np.uint8],
    frames: NDArray[np.uint8],
    points: NDArray[np.float32],
    track: FaceTrack,
    inside: MouthInside,
    size: int,
) -> tuple[dict[str, dict[str, Follow]], dict[str, int], NDArray[np.uint8]]:
    """Animate a portrait, the picture ``image [H,W,3]``, by a clip up to the template.

    Returns:
        How the retargeted head and the template follow; in how many frames lips are closed
        (:func:`count_closed_lips`); a strip ``[2S,6S,3]``.
    """
    head, settings = reader.head, reader.settings
    found = reader.landmarker.detect(image[None]).points
    own = EmbeddedTracker(head, settings).portrait(image, found, size)
    crop = own.track.crop_center_px[0], own.track.crop_side_px[0]
    paint = TemplateSettings(size=size)
    moves = embedded_moves(head, own.track, track, paint) | mouth_moves(inside, paint)
    marks = points_in_crop(found[0], *crop, size)
    chosen = spread_evenly(np.flatnonzero(seen(points)), 60)
    renderer = embedded_renderer(head, own.track, own.crop, marks, own.track.cameras[0], paint)
    posed = moves["expression"][chosen], moves["jaw"][chosen]
    drawn = renderer.render(*posed, mouth_of(moves, chosen))
    read = reader.points(drawn.image)
    refit = fit_clip(head, read, seen(read), settings, shape=own.track.shape)
    driver = reader.measured(frames, points, track)
    retargeted = head_landmarks(head, own.track.shape, moves["expression"], moves["jaw"])
    template = reader.measured(drawn.image, read, refit, chosen, painted=True)
    flowed, middle = reader.flowed(drawn.image, read, refit, retargeted, chosen)
    painted = painted_lips(retargeted[chosen], renderer.painted_lips(*posed), head)
    stages = compared(driver, retargeted, template, flowed, middle)
    stages |= follow_stages(driver, {"lips as painted": Measured(painted, chosen)})
    shown = spread_evenly(np.arange(len(chosen)), 6)
    faces = [
        crop_image(frames[i], track.crop_center_px[i], float(track.crop_side_px[i]), size)
        for i in chosen[shown]
    ]
    strip = np.concatenate([np.concatenate(faces, 1), np.concatenate(list(drawn.image[shown]), 1)])
    return stages, count_closed_lips(driver, template), strip


def painted_lips(
    points: NDArray[np.float64], below_m: NDArray[np.float64], head: MorphableHead
) -> dict[str, NDArray[np.float64]]:
    """Measure the lips where they are painted, whatever a reader sees of them.

    Args:
        points: landmarks of the head that was painted ``[n,478,3]``.
        below_m: how far below its lips they are painted ``[n,2]``, in metres.
        head: whose box the landmarks are in.
    """
    moved = points.copy()
    moved[:, [13, 14], 1] -= below_m / head.box_unit_m
    return {name: measure_regions(moved)[name] for name in ("lip gap", "corners' lift")}


def compared(
    driver: Measured, retargeted: NDArray[np.float64], template: Measured, flowed: Measured, middle: int
) -> dict[str, dict[str, Follow]]:
    """Compare every stage with the driver, and both readings of the templates with the retargeted head.

    Args:
        driver: of all T frames.
        retargeted: the head's landmarks ``[T,478,3]``.
        template: read by the landmark networks and by colour.
        flowed: read by optical flow.
        middle: frame of the clip whose template the flow starts at.
    """
    head, held = Measured.of(retargeted), Measured.of(with_eyes_held(retargeted, middle))
    return (
        follow_stages(driver, {"retargeted": head, "template": template}, READER)
        | {"template, by optical flow": follow_seen(driver, flowed)}
        | follow_stages(head, {"template on the head": template}, READER)
        | {"optical flow on the head": follow_seen(held, flowed)}
    )


def follow_seen(driver: Measured, flowed: Measured) -> dict[str, Follow]:
    """Compare what optical flow saw: each region over the frames in which it was seen, if they are enough."""
    found: dict[str, Follow] = {}
    for name, values in flowed.regions.items():
        if np.isfinite(values).mean() >= LEAST_SEEN:
            one = replace(flowed, regions={name: values})
            found |= follow_stages(driver, {"flow": one}, FLOW_READER)["flow"]
    return found


def cell(ones: list[Follow]) -> str:
    """Give the medians of slope, correlation and of the highest correlation that can be read."""
    slope, correlation, highest = (
        median(getattr(one, name) for one in ones) for name in ("slope", "correlation", "highest_correlation")
    )
    return f"{slope:.2f} / {correlation:.2f}" + (f" ({highest:.2f})" if highest < 1 else "")


def main(
    portrait: Annotated[list[str] | None, typer.Option(help="A portrait, or CLIP:FRAME.")] = None,
    driver: Annotated[list[Path] | None, typer.Option(help="A driving video.")] = None,
    frames: Annotated[int, typer.Option(help="Use the first so many frames of each.")] = 400,
    size: Annotated[int, typer.Option(help="Side of the template in pixels.")] = 256,
    sheet: Annotated[Path | None, typer.Option(help="Folder for a strip per pair.")] = None,
) -> None:
    """Print how much arrives."""
    reader, rows, every = Reader(), list[list[str]](), dict[tuple[str, str], list[Follow]]()
    for video in driver or [sample_video()]:
        film = clip_frames(video, frames)
        points = reader.points(film)
        track = fit_clip(reader.head, points, seen(points), reader.settings)
        inside = read_mouth_inside(partial(iter, film), points)
        for name_of_portrait in portrait or [str(sample_portrait())]:
            image, stem = picture_of(name_of_portrait), Path(name_of_portrait).stem
            stages, closed, strip = compare(reader, image, film, points, track, inside, size)
            for stage, found in stages.items():
                for name, one in found.items():
                    rows.append([video.stem, stem, stage, name, cell([one])])
                    every.setdefault((stage, name), []).append(one)
            lips = f"{closed['result_frames']} of {closed['driver_frames']}"
            rows.append([video.stem, stem, "template", "lips closed", lips])
            if sheet:
                sheet.mkdir(parents=True, exist_ok=True)
                Image.fromarray(strip).save(sheet / f"{video.stem}--{stem}.png")
    for (stage, name), ones in every.items():
        rows.append(["median", f"of {len(ones)}", stage, name, cell(ones)])
    headings = ["driver", "portrait", "stage", "region", "slope / r (of at most)"]
    Console(highlight=False, width=140).print(
        Grid("follow by region", headings, rows, n_text=4).for_terminal()
    )


if __name__ == "__main__":
    typer.run(main)
