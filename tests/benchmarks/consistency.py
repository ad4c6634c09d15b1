"""Do the heads of table 3 turn as asked? ``uv run python -m tests.benchmarks.consistency``.

The cells of the paper's table 3 by the pipeline ``subjects``, as ``tasks/table3.py`` makes them, with two
things beside them: the pose that the tracker reads off the views, for a method whose heads do not turn would
score best; and a row of the synthetic people themselves, those of the 3D generator's row, drawn as meshes.
About a second a person on one core; the store keeps what is done. The table, its sheet of people and a CSV
file are written to ``--out``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console

import tasks.pipelines  # noqa: F401 - registers the pipelines
from portrait_core.attribute_editing.scene_attributes import sample_scenes
from portrait_core.attribute_editing.subjects import FIRST_SAMPLE, scaled_view
from portrait_core.cameras import angles_from_labels, orbit_labels
from portrait_core.face_model.head import MorphableHead
from portrait_core.generators.scene_latents import scene_from_latent
from portrait_core.metrics.consistency import Consistency, compare_views, draw_views
from portrait_core.metrics.identity import identity_embeddings
from portrait_core.report.table3 import COLUMNS, ROWS
from portrait_core.runtime.allocator import keep_freed_memory
from portrait_core.runtime.package_files import data_file
from portrait_core.settings import Settings, TrackingSettings, load_settings
from portrait_core.tracking.fit import fit_clip
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.measure import seen
from portrait_core.training.render import SceneRenderer
from tasks.stages.subjects import subjects
from tasks.table3 import deliver_table3, table3_jobs
from tests.benchmarks.tables import Grid

MESHES = "meshes"
HEADINGS = [
    "method", "edit", "cosine", "of others", "centred", "distance", "same", "pairs",
    "pose error\nyaw / pitch", "yaw\ncorr. / slope", "pitch\ncorr. / slope",
]  # fmt: skip
CAPTION = (
    "Cosine and distance of a person's two views (the paper's are ArcFace's: not comparable); of others: "
    "cosine of two people's; centred: cosine after a row's mean vector is taken off; same: distance below "
    "dlib's threshold; pairs: a face in both views; pose error in degrees; correlation and slope of the pose "
    "read by the tracker on the pose asked."
)


class PoseReader:
    """Reads yaw and pitch off views, whose two of a person show one head."""

    def __init__(self) -> None:
        self.head = MorphableHead.load(data_file("models/embedded_head.safetensors"))
        self.landmarker = FaceLandmarker.from_models(data_file("models"))
        self._alone = TrackingSettings(smooth_pose=0.0, smooth_expression=0.0)

    def read(self, views: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Yaw and pitch ``[N,2,2]`` in radians of views ``[N,2,S,S,3]``; NaN without a face."""
        angles = np.full((len(views), 2, 2), math.nan)
        for i, pair in enumerate(views):
            points = self.landmarker.detect(pair).points
            found = seen(points)
            if found.any():
                track = fit_clip(self.head, points, found, self._alone)
                angles[i, found] = angles_from_labels(track.cameras)[found, :2]
        return angles


def meshes(reader: PoseReader, settings: Settings) -> Consistency:
    """The people of the 3D generator's row, drawn as meshes from the same sides."""
    chosen, renderer = settings.consistency, SceneRenderer(reader.head)
    scenes = sample_scenes(chosen.subjects, FIRST_SAMPLE, settings.seed, chosen.truncation)
    asked = draw_views(chosen.subjects, settings.seed, chosen.yaw_deg, chosen.pitch_deg)
    views = []
    for z, sides in zip(scenes.numpy(), asked, strict=True):
        person = renderer.person(scene_from_latent(z, reader.head.expression_names))
        pair = [renderer.view(person, orbit_labels(yaw, pitch)[0]).image for yaw, pitch in sides]
        views.append(np.stack([scaled_view(one, chosen.size, chosen.detail) for one in pair]))
    pictures = np.stack(views)
    flat = pictures.reshape(-1, *pictures.shape[2:])
    vectors = identity_embeddings(flat, landmarker=reader.landmarker)
    return compare_views(vectors.reshape(len(views), 2, -1), asked, reader.read(pictures))


def cells(method: str, edit: str, result: Consistency) -> list[str]:
    """A row of the benchmark's table."""
    if not result.found:
        return [method, edit, *["-"] * (len(HEADINGS) - 2)]
    (yaw, pitch), error = result.turning(), result.pose_error_deg()
    return [
        method,
        edit,
        f"{result.mean:.3f} ± {result.deviation:.3f}",
        f"{result.mean_of_others:.3f}",
        f"{result.mean_centred:.3f} ± {np.nanstd(result.centred):.3f}",
        f"{np.nanmean(result.distance):.2f}",
        f"{100 * result.same_person:.0f} %",
        f"{result.found}/{len(result.cosine)}",
        f"{error[0]:.1f} / {error[1]:.1f}",
        f"{yaw[0]:.2f} / {yaw[1]:.2f}",
        f"{pitch[0]:.2f} / {pitch[1]:.2f}",
    ]


def main(
    change: Annotated[list[str] | None, typer.Option("--set", help="section.field=value; several.")] = None,
    row: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join((MESHES, *ROWS))}; several. Default: all.")
    ] = None,
    edit: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(filter(None, COLUMNS))}; several. Default: none.")
    ] = None,
    store: Annotated[str, typer.Option(help="Keeps what is done.")] = "build/consistency/store",
    out: Annotated[Path, typer.Option(help="Folder of the table.")] = Path("build/consistency"),
) -> None:
    """Measure multi-view consistency, and how far heads turn."""
    torch.set_num_threads(1)
    keep_freed_memory()
    settings = load_settings("embedded", change or [])
    console, reader, rows = Console(width=150, highlight=False), PoseReader(), list[list[str]]()
    wanted = row or [MESHES, *ROWS]
    if MESHES in wanted:
        rows.append(cells(MESHES, COLUMNS[""].lower(), meshes(reader, settings)))
    table = table3_jobs(store, settings, [name for name in ROWS if name in wanted], ["", *(edit or [])])
    for (gan, column), job in table.jobs.items():
        job.open_store().check_format(write=True)
        console.print(f"{job.label}: {subjects(job=job, start=0, stop=job.frames).seconds:.0f} s")
        found = job.output("subjects").read_together(("views", "identity", "asked"))
        result = compare_views(found["identity"], found["asked"], reader.read(found["views"]))
        rows.append(cells(ROWS[gan], COLUMNS[column].lower(), result))
    deliver_table3(table, out)
    title = f"Multi-view consistency, {settings.consistency.subjects} people"
    grid = Grid(title, HEADINGS, rows, CAPTION, n_text=2)
    console.print(grid.for_terminal())
    (out / "turning.md").write_text(grid.markdown(), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
