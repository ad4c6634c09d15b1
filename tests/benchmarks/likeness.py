"""How near results are to true frames: ``uv run python -m tests.benchmarks.likeness CLIP...``.

Self-reenactment as the field does it: the first frame of a clip is the portrait, the clip drives it, and
every result is compared with the frame that drove it, in the square of the portrait's crop, brought to one
size (pixels beyond the frame's border do not count, nor does the first frame). ``CLIP:START`` begins the clip
at a later frame. Rows of each clip: the still photograph, the pasted template (the expression template at the
portrait's camera, without the driver's pose), the result of the settings, and one result per ``--variant
NAME:section.field=value[,section.field=value...]``. The driver's expression in the first frame is taken for
that of the portrait (``template.neutral_frame=0``), as it is.

Of the head's travel through the picture as much is carried over as a neck allows; what is left counts as an
error of every row. With ``--follow-face`` the square moves and grows with the face instead, the driver's in
the true frames and in a clip of the whole photograph its own, so that heads are compared and not where they
are.

Columns: PSNR within the hull of the true face's landmarks and of the whole square; the perceptual distance of
the same by EfficientNet's features and, where the weights of VGG16 are on this machine, by LPIPS; identity,
the mean cosine of dlib's vectors; and flicker, the mean over pixels of how the error of a frame differs from
that of the frame before it, in grey levels of 255. A still photograph has the truth's own movement for its
flicker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from flows.reenact import prepare, run_job
from portrait_core.errors import ModelFileError
from portrait_core.inversion.features import build_features
from portrait_core.media import VideoWriter, at_most, frame_png, probe, read_frames
from portrait_core.metrics.identity import ShippedRecogniser, identity_embeddings
from portrait_core.metrics.likeness import Square, face_hull, identity_kept, measure_likeness
from portrait_core.pipeline import Job
from portrait_core.runtime.package_files import data_folder, sample_video
from portrait_core.settings import load_settings
from portrait_core.tracking.fit import FaceTrack
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.measure import seen, spread_evenly
from tasks.context import landmarker, read_track
from tasks.expressions import read_landmarks
from tasks.pages import for_generator, page_of
from tasks.stages.encode import CLIP
from tasks.stages.measure import driver_motion
from tasks.trackers import tracker
from tests.benchmarks.tables import Grid

PLAIN = (
    "runner.prefect=never",
    "output.side_by_side=false",
    "output.contact_sheet_frames=2",
    "output.crf=4",
    "template.neutral_frame=0",
)
"""Settings of every run, before those that are asked for. The codec should cost nothing, and what is carried
over is the change from the portrait's own frame."""
SIZES = (256, 512)
"""Least and most side of the compared squares in pixels; between them, that of the crop in the frame."""
IDENTITY_FRAMES = 20
"""Frames, evenly spread, whose identity is compared."""
STILL, TEMPLATE, RESULT = "still photograph", "pasted template", "result"
PHI, LPIPS = "Φ", "LPIPS"
MEASURES = {
    "face PSNR": "face\nPSNR dB",
    "crop PSNR": "crop\nPSNR dB",
    f"face {PHI}": f"face\n{PHI}",
    f"crop {PHI}": f"crop\n{PHI}",
    f"face {LPIPS}": f"face\n{LPIPS}",
    f"crop {LPIPS}": f"crop\n{LPIPS}",
    "identity": "identity\ncosine",
    "flicker": "flicker\nlevels",
}
"""Headings of what is measured; Φ, LPIPS and flicker are better when smaller."""

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Cut:
    """A clip to measure on, with its first frame as a portrait."""

    name: str
    video: Path
    portrait: Path
    frames: list[Pictures]


def cut_clip(name: str, most: int, folder: Path) -> Cut:
    """Cut a clip: ``CLIP`` or ``CLIP:START``, at most ``most`` frames.

    Raises:
        InputError: it is no video, or does not have a second frame from there.
    """
    found = re.fullmatch(r"(.+):(\d+)", name)
    path, start = (Path(found[1]), int(found[2])) if found else (Path(name), 0)
    info = probe(path)
    frames = list(read_frames(path, start, min(info.frame_count, start + most)))
    if len(frames) < 2:
        raise typer.BadParameter(f"{path} has {info.frame_count} frames; begin before the last but one")
    folder.mkdir()
    label = path.stem + (f"-{start}" if start else "")
    video, portrait = path, folder / f"{label}.png"
    if start:
        video = folder / f"{label}.mp4"
        write_clip(video, frames, info.frame_rate)
        # What the program reads is the truth.
        frames = list(read_frames(video))
    portrait.write_bytes(frame_png(frames[0]))
    return Cut(label, video, portrait, frames)


def write_clip(path: Path, frames: Sequence[Pictures], rate: Fraction) -> None:
    """Write frames nearly without loss."""
    with VideoWriter(path, (frames[0].shape[1], frames[0].shape[0]), rate, crf=1) as writer:
        for frame in frames:
            writer.write(frame)


def run(cut: Cut, store: str, out: Path, changes: Sequence[str], profile: str) -> Job:
    """Animate the clip's first frame by the clip; the files are in ``out``."""
    settings = load_settings(profile, [*PLAIN, f"media.max_frames={len(cut.frames)}", *changes])
    job = prepare(str(cut.portrait), str(cut.video), store, settings)
    run_job(job, out, lambda line: typer.echo(line, err=True))
    return job


class Comparison:
    """A clip's true frames in the portrait's crop, to which results are compared.

    With ``follow_face`` the crop of each true frame is moved and grown as the driver's face is since the
    first frame: a head's travel through the picture then counts as no error.

    Args:
        cut: the clip.
        job: a finished run of it, whose portrait's crop and landmarks of the driver are taken.
        size: side of the square in pixels; 0 takes the crop's own within :data:`SIZES`.
        follow_face: whether the square follows the face.
    """

    def __init__(self, cut: Cut, job: Job, size: int, follow_face: bool = False) -> None:
        track = read_track(job.output("portrait"))
        side = float(track.crop_side_px[0])
        # A portrait that is too large was scaled down before it was tracked.
        scale = max(1.0, max(cut.frames[0].shape) / job.settings.media.portrait_max_side)
        chosen = size or int(np.clip(round(side * scale), *SIZES))
        x, y = (float(value) for value in track.crop_center_px[0])
        self.photograph = Square((x, y), side, chosen)
        squares = [self.photograph.scaled(scale)] * len(cut.frames)
        if follow_face:
            squares = following(squares, read_track(job.output("fit")))
        self.follow_face = follow_face
        self.photograph_size = at_most(cut.frames[0], job.settings.media.portrait_max_side).shape[:2]
        height, width = cut.frames[0].shape[:2]
        self.inside = [square.inside(height, width) for square in squares]
        self.truths = [square.cut(frame) for square, frame in zip(squares, cut.frames, strict=True)]
        points = job.output("person").read("landmarks")
        self.faces = [
            face_hull(square.points(row), chosen) for square, row in zip(squares, points, strict=True)
        ]

    def of_crop(self, frame: Pictures) -> Pictures:
        """Bring a picture ``[N,N,3]`` of the portrait's crop to the compared size."""
        return Square.whole(frame.shape[0], self.photograph.size).cut(frame)

    def of_photograph(self, frame: Pictures) -> Pictures:
        """Cut the square out of a frame of a clip of the whole photograph, which H.264 may have padded at the
        right and the bottom.

        Raises:
            ValueError: for a frame of another size.
        """
        return self.photograph.cut(self.unpadded(frame))

    def unpadded(self, frame: Pictures) -> Pictures:
        """Give a frame of a clip of the whole photograph without what H.264 may have padded.

        Raises:
            ValueError: for a frame of another size.
        """
        height, width = self.photograph_size
        if frame.shape[:2] != (height + height % 2, width + width % 2):
            raise ValueError(
                f"the clip has {frame.shape[1]}x{frame.shape[0]} pixels and the photograph {width}x{height}; "
                "the setting output.frame must say which of the two frames the clip has"
            )
        return frame[:height, :width]


def results_of(job: Job, out: Path, comparison: Comparison) -> Iterator[Pictures]:
    """Give the frames of a run's clip, of the crop or of the whole photograph, in the compared square."""
    frames = read_frames(out / CLIP)
    if job.settings.output.frame == "crop":
        return (comparison.of_crop(frame) for frame in frames)
    if not comparison.follow_face:
        return (comparison.of_photograph(frame) for frame in frames)
    pictures = [comparison.unpadded(frame) for frame in frames]
    points = read_landmarks(landmarker(job, 1), pictures, job.settings.tracking.batch)
    track = tracker(job).clip(points, seen(points), lambda: iter(pictures))
    squares = following([comparison.photograph] * len(pictures), track)
    return (square.cut(picture) for square, picture in zip(squares, pictures, strict=True))


def following(squares: Sequence[Square], track: FaceTrack) -> list[Square]:
    """Move and grow a square per frame as a track's face does since the first frame."""
    travel = track.crop_center_px - track.crop_center_px[0]
    growth = track.crop_side_px / track.crop_side_px[0]
    return [
        square.moved((float(by[0]), float(by[1])), float(factor))
        for square, by, factor in zip(squares, travel, growth, strict=True)
    ]


class Ruler:
    """The networks that compare, loaded once."""

    def __init__(self) -> None:
        self.networks: dict[str, nn.Module] = {PHI: build_features("efficientnet")}
        try:
            self.networks[LPIPS] = build_features("lpips")
        except ModelFileError:
            typer.echo("LPIPS is not measured: the weights of VGG16 are not on this machine", err=True)
        self.recogniser = ShippedRecogniser.load()
        self.landmarker = FaceLandmarker.from_models(data_folder() / "models")

    def identities(self, pictures: Sequence[Pictures]) -> NDArray[np.float64]:
        """Identity vectors of some of a clip's frames after the first."""
        chosen = spread_evenly(np.arange(1, len(pictures)), IDENTITY_FRAMES)
        some = np.stack([pictures[i] for i in chosen])
        return identity_embeddings(some, self.recogniser, self.landmarker)

    def row(self, pictures: Sequence[Pictures], comparison: Comparison) -> dict[str, float]:
        """Measure one clip ``T`` of ``[S,S,3]``; the first frame, the portrait itself, is left out."""
        true = comparison.truths[1:], comparison.faces[1:], comparison.inside[1:]
        found = measure_likeness(pictures[1:], *true, self.networks).means()
        known, shown = self.identities(comparison.truths), self.identities(pictures)
        found["identity"] = identity_kept(shown, known)
        return found


def measure_clip(
    cut: Cut,
    ruler: Ruler,
    animate: Callable[[str], tuple[Job, Path]],
    names: Sequence[str],
    size: int = 0,
    follow_face: bool = False,
) -> dict[str, Any]:
    """Measure every row of a clip; ``animate`` runs the settings of a name and tells its folder.

    Returns:
        ``frames``, ``size`` in pixels, ``turn_deg``: how far yaw and pitch of the driver reach from the first
        frame's, and ``rows``: the measures by row.
    """
    rows: dict[str, dict[str, float]] = {}
    about: dict[str, Any] = {}
    for name in names:
        job, out = animate(name)
        comparison = Comparison(cut, job, size, follow_face)
        if not rows:
            angles = driver_motion(job).angles_deg[:, :2]
            turn = np.nanmax(np.abs(angles - angles[0]), axis=0)
            about = {"frames": len(cut.frames), "size": comparison.photograph.size}
            about["turn_deg"] = [round(float(value), 1) for value in turn]
            rows[STILL] = ruler.row([comparison.truths[0]] * len(cut.frames), comparison)
            templates = job.output("template").read("template")
            page, side = page_of(job), comparison.photograph.size
            rows[TEMPLATE] = ruler.row([for_generator(page, side, one) for one in templates], comparison)
        rows[name] = ruler.row(list(results_of(job, out, comparison)), comparison)
    return {**about, "rows": rows}


def table(name: str, found: Mapping[str, Any]) -> Grid:
    """Lay out a clip's rows."""
    measured = [key for key in MEASURES if key in found["rows"][STILL]]
    digits = {"face PSNR": 2, "crop PSNR": 2, "flicker": 2}
    rows = [
        [row, *(f"{values[key]:.{digits.get(key, 3)}f}" for key in measured)]
        for row, values in found["rows"].items()
    ]
    yaw, pitch = found["turn_deg"]
    title = f"{name}: {found['frames']} frames, {found['size']} px, turns {yaw:.0f}° and nods {pitch:.0f}°"
    return Grid(title, ["", *(MEASURES[key] for key in measured)], rows)


def parse_variant(text: str) -> tuple[str, list[str]]:
    """Split ``NAME:section.field=value,section.field=value``."""
    name, colon, changes = text.partition(":")
    parts = re.split(r",(?=[a-z_]+\.)", changes)  # a value may hold commas itself
    if not (name and colon and changes) or any("=" not in part for part in parts):
        raise typer.BadParameter(f"a variant is NAME:section.field=value[,...]; got {text}")
    if name in (STILL, TEMPLATE, RESULT):
        raise typer.BadParameter(f"{name} is a row of its own; give the variant another name")
    return name, parts


def main(
    clip: Annotated[list[str] | None, typer.Argument(help="A clip, or CLIP:START.")] = None,
    frames: Annotated[int, typer.Option(min=2, help="Use at most so many frames of each clip.")] = 60,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="section.field=value, of every result.")
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="NAME:section.field=value[,...]: one more result, beside --set.")
    ] = None,
    profile: Annotated[str, typer.Option(help="A profile's name or file.")] = "embedded",
    size: Annotated[int, typer.Option(help="Side of the compared square in pixels; 0: the crop's own.")] = 0,
    follow_face: Annotated[
        bool, typer.Option("--follow-face", help="The compared squares follow the faces.")
    ] = False,
    store: Annotated[
        str | None, typer.Option(help="Store that keeps the runs; default: none is kept.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder that keeps the clips.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers here.")] = None,
) -> None:
    """Print how near results are to the truth."""
    variants = {RESULT: list[str](), **dict(parse_variant(text) for text in variant or [])}
    ruler, found = Ruler(), dict[str, Any]()
    console = Console(highlight=False, width=120)
    with TemporaryDirectory() as name:
        folder = Path(name)
        for i, one in enumerate(clip or [str(sample_video())]):
            cut = cut_clip(one, frames, folder / str(i))
            results = (out or folder / "out") / cut.name

            def animate(row: str, cut: Cut = cut, results: Path = results) -> tuple[Job, Path]:
                place = results / re.sub(r"\W+", "_", row)
                changes = [*(change or []), *variants[row]]
                return run(cut, store or str(folder / "store"), place, changes, profile), place

            found[cut.name] = measure_clip(cut, ruler, animate, list(variants), size, follow_face)
            console.print(table(cut.name, found[cut.name]).for_terminal())
            if json_file:
                json_file.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
