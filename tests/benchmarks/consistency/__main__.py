"""Is a head the same person from every side? ``uv run python -m tests.benchmarks.consistency``.

The paper's table 3 and figure 5 with the embedded generators: 128 random people, each from two random sides
(yaw within 30 degrees, pitch within 20), alone and with an edit; identity vectors of the two pictures are
compared. Pose of the 2D generator is an attribute that its StyleFlow moves; the 3D generator's camera moves.
Two rows say what the numbers could be: the synthetic people themselves, drawn as meshes, and the 2D generator
with its pose set in z, where training put it.

The flows are trained first, 10,000 samples each, and kept in ``--work`` (minutes). Then about a second a
picture on one core. ``--picture FILE`` draws one person by all methods, as the paper's figure 5.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from portrait_core.cameras import angles_from_labels
from portrait_core.face_model.head import MorphableHead
from portrait_core.generators import load_generator
from portrait_core.generators.scene_latents import N_SHAPE, N_SHAPE_HEAD
from portrait_core.generators.scene_latents_2d import latents_2d
from portrait_core.metrics.consistency import SUBJECTS, Consistency, draw_views, multi_view_consistency
from portrait_core.metrics.identity import ShippedRecogniser, cosine_similarity, identity_embeddings
from portrait_core.report.pictures import contact_sheet
from portrait_core.runtime.allocator import keep_freed_memory
from portrait_core.runtime.package_files import data_file
from portrait_core.settings import TrackingSettings
from portrait_core.tracking.fit import fit_clip
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.measure import seen
from portrait_core.training.render import SceneRenderer
from tests.benchmarks.consistency import flows, labels, methods
from tests.benchmarks.consistency.methods import Edit, Method
from tests.benchmarks.tables import Grid

SAMPLES, TRAINING_SEED, SUBJECT_SEED = 10_000, 1, 2
METHODS = ("meshes", "3D", "2D, flow", "2D, z")
_PICTURE_YAWS = (-30, -15, 0, 15, 30)
_WIDTH = 150


@dataclass(frozen=True)
class Measures:
    """What looks at pictures: two of each subject, in order."""

    head: MorphableHead
    landmarker: FaceLandmarker
    recogniser: ShippedRecogniser
    shapes: NDArray[np.float32]

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Identity vectors ``[n,128]``."""
        return identity_embeddings(pictures, self.recogniser, self.landmarker)

    def pose(self, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Yaw and pitch ``[n,2]`` in radians. A subject's shape is known, and its views are no clip."""
        points = self.landmarker.detect(pictures).points
        alone = TrackingSettings(smooth_pose=0.0, smooth_expression=0.0)
        angles = np.full((len(points), 2), np.nan)
        for i, shape in enumerate(self.shapes):
            two = slice(2 * i, 2 * i + 2)
            found = seen(points[two])
            if found.any():
                track = fit_clip(self.head, points[two], found, alone, shape=shape)
                angles[two][found] = angles_from_labels(track.cameras)[found, :2]
        return angles


class Bench:
    """Generators, flows and the subjects."""

    def __init__(
        self, subjects: int, work: Path, samples: int, epochs: int, say: Callable[[str], None]
    ) -> None:
        self.head = MorphableHead.load(data_file("models/embedded_head.safetensors"))
        self.generator = load_generator(data_file("models/embedded_generator.safetensors"))
        self.generator_2d = load_generator(data_file("models/embedded_2d.safetensors"), kind="stylegan2")
        z, pose = flows.draw_scenes(samples, TRAINING_SEED)
        train = partial(flows.trained_flow, epochs=epochs)
        with torch.no_grad():
            w = self.generator.mapping(z)[:, 0]
            posed = torch.from_numpy(latents_2d(z.numpy(), pose[:, 0], pose[:, 1]))
            w_2d = self.generator_2d.mapping(posed)[:, 0]
        self.flow, line = train(
            work / "flow_3d.safetensors", w, labels.scene_labels(z), labels.SCENE_CONDITIONS
        )
        say(line)
        self.flow_2d, line = train(
            work / "flow_2d.safetensors", w_2d, labels.posed_labels(z, pose), labels.POSED_CONDITIONS
        )
        say(line)
        self.z, self.own_pose = flows.draw_scenes(subjects, SUBJECT_SEED)
        self.scenes = SceneRenderer(self.head)

    def method(self, name: str, edit: Edit) -> Method:
        """One way to show the subjects; see :data:`METHODS`."""
        if name == "meshes":
            return methods.scenes(self.scenes, self.z, edit)
        if name == "3D":
            return methods.moved_camera(self.generator, self.flow, self.z, edit)
        if name == "2D, z":
            return methods.set_latent(self.generator_2d, self.z, edit)
        return methods.moved_latent(self.generator_2d, self.flow_2d, self.z, self.own_pose, edit)

    def measures(self) -> Measures:
        """Tracker and recogniser."""
        return Measures(
            self.head,
            FaceLandmarker.from_models(data_file("models")),
            ShippedRecogniser.load(),
            np.pad(self.z[:, :N_SHAPE].numpy(), ((0, 0), (0, N_SHAPE_HEAD - N_SHAPE))),
        )


def cells(name: str, edit: Edit, result: Consistency) -> list[str]:
    """A row of the table."""
    (yaw, pitch), error = result.turning(), result.pose_error_deg()
    if not result.found:
        return [name, edit.name, *["-"] * (len(HEADINGS) - 2)]
    return [
        name,
        f"+ {edit.name}" if edit.name else "pose only",
        f"{result.mean:.3f} ± {result.deviation:.3f}",
        f"{np.nanmean(result.others):.3f}",
        f"{np.nanmean(result.centred):.3f} ± {np.nanstd(result.centred):.3f}",
        f"{np.nanmean(result.distance):.2f}",
        f"{100 * result.same_person:.0f} %",
        f"{result.found}/{len(result.cosine)}",
        f"{error[0]:.1f} / {error[1]:.1f}",
        f"{yaw[0]:.2f} / {yaw[1]:.2f}",
        f"{pitch[0]:.2f} / {pitch[1]:.2f}",
    ]


HEADINGS = [
    "method", "edit", "cosine", "of others", "centred", "distance", "same", "pairs",
    "pose error\nyaw / pitch", "yaw\ncorr. / slope", "pitch\ncorr. / slope",
]  # fmt: skip
CAPTION = (
    "Cosine and distance of dlib's vectors of one person's two views (the paper's are ArcFace's: not "
    "comparable); of others: cosine of two people's; centred: cosine after a row's mean vector is taken off; "
    "same: distance below 0.6; pairs: a face in both views; "
    "pose error in degrees; correlation and slope of the pose read by the tracker on the pose asked."
)


def grid(rows: list[list[str]], subjects: int) -> Grid:
    """The table."""
    ends = frozenset(i for i in range(len(rows) - 1) if rows[i][1] != rows[i + 1][1])
    title = f"Multi-view consistency, {subjects} people"
    return Grid(title, HEADINGS, rows, CAPTION, n_text=2, section_ends=ends)


def draw(bench: Bench, measures: Measures, edits: list[Edit], subject: int) -> NDArray[np.uint8]:
    """One person from five sides by the 3D and the 2D generator, without and with each edit, with the cosine
    to its frontal picture."""
    rows = {}
    for edit in edits:
        for name in ("3D", "2D, flow"):
            show = bench.method(name, edit)
            pictures = np.stack([show(subject, float(np.radians(yaw)), 0.0) for yaw in _PICTURE_YAWS])
            vectors = measures.embed(pictures)
            alike = cosine_similarity(vectors, vectors[len(vectors) // 2])
            sides = np.delete(alike, len(vectors) // 2)
            label = f"{name.split(',')[0]}{' + ' + edit.name if edit.name else ''}"
            rows[f"{label}\nID {np.nanmean(sides):.3f}"] = list(pictures)
    return contact_sheet(rows, [f"{yaw:+d}°" if yaw else "0°" for yaw in _PICTURE_YAWS], tile=192)


def main(
    subjects: Annotated[int, typer.Option(min=2, help="People.")] = SUBJECTS,
    edit: Annotated[
        list[str] | None, typer.Option(help="attribute=value; several. Default: beard=1.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(METHODS)}. Default: all.")] = None,
    work: Annotated[Path, typer.Option(help="Folder that keeps flows and scores.")] = Path(
        "build/consistency"
    ),
    samples: Annotated[int, typer.Option(help="That each flow learns from.")] = SAMPLES,
    epochs: Annotated[int, typer.Option(help="Of their training.")] = 20,
    picture: Annotated[Path | None, typer.Option(help="Draw one person here.")] = None,
    person: Annotated[int, typer.Option(help="Which.")] = 0,
    table: Annotated[bool, typer.Option(help="Measure the table.")] = True,
    seed: Annotated[int, typer.Option(help="Of the views.")] = 0,
) -> None:
    """Measure multi-view consistency as the paper's table 3 does."""
    torch.set_num_threads(1)
    keep_freed_memory()
    console = Console(width=_WIDTH, highlight=False)
    edits = [Edit(), *(_edit(text) for text in edit or ["beard=1"])]
    bench = Bench(subjects, work, samples, epochs, console.print)
    measures, rows = bench.measures(), []
    views, scores = draw_views(subjects, seed), {}
    for one in edits if table else []:
        for name in only or METHODS:
            start = time.perf_counter()
            result = multi_view_consistency(bench.method(name, one), views, measures.embed, measures.pose)
            rows.append(cells(name, one, result))
            scores[f"{name} {one.name}".strip()] = result.cosine.round(4).tolist()
            console.print(f"{name} {one.name}: {time.perf_counter() - start:.0f} s")
            # after every row, for a long run may be stopped
            (work / "scores.json").write_text(json.dumps(scores))
            (work / "table.md").write_text(grid(rows, subjects).markdown())
    if rows:
        console.print(grid(rows, subjects).for_terminal())
    if picture is not None:
        Image.fromarray(draw(bench, measures, edits, person)).save(picture)


def _edit(text: str) -> Edit:
    name, _, value = text.partition("=")
    try:
        return Edit(name, labels.SCENE_CONDITIONS.checked_target(name, float(value)))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}; expected attribute=value") from None


if __name__ == "__main__":
    typer.run(main)
