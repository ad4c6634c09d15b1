"""What tracking costs with the paper's networks: ``uv run python -m tests.benchmarks.paper_tracking --help``.

Weights are drawn from a seed and the head is a mesh of FLAME's size: times are those of the published files,
faces are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from portrait_core.face_model import flame
from portrait_core.face_model.orthographic import to_ndc
from portrait_core.face_model.uv_maps import UvLayout, UvMapper
from portrait_core.tracking.deca import DecaEncoder
from portrait_core.tracking.deca_crop import crop_faces
from portrait_core.tracking.deep3d import Deep3DEncoder
from portrait_core.tracking.encoders import as_input
from portrait_core.tracking.five_points import STANDARD_FACE, five_of_68
from portrait_core.tracking.wild_crop import crop_in_the_wild, generator_crops, pose_crops
from portrait_core.weights.readers.flame_files import FlameArrays, LandmarkEmbedding
from tests.benchmarks.tables import device_name

_COLUMNS, _ROWS = 73, 69
"""A sheet of as many vertices as FLAME has, give or take fourteen."""


def sheet() -> tuple[FlameArrays, LandmarkEmbedding, UvLayout]:
    """A curved sheet in FLAME's arrays, with random directions and landmarks."""
    rng = np.random.default_rng(0)
    u, v = np.meshgrid(np.linspace(0, 1, _COLUMNS), np.linspace(0, 1, _ROWS))
    uv = np.stack([u, v], -1).reshape(-1, 2)
    x, y = (uv * 0.2 - 0.1).T
    template = np.stack([x, y, 0.1 * np.cos(8 * x)], 1)
    corner = (np.arange(_ROWS - 1)[:, None] * _COLUMNS + np.arange(_COLUMNS - 1)).reshape(-1, 1)
    lower, upper = (corner + np.array(k) for k in ([0, 1, _COLUMNS], [1, _COLUMNS + 1, _COLUMNS]))
    faces = np.concatenate([lower, upper])
    n = len(template)
    arrays = FlameArrays(
        v_template=template,
        shapedirs=rng.normal(size=(n, 3, 400)) * 1e-4,
        posedirs=rng.normal(size=(n, 3, 36)) * 1e-4,
        j_regressor=np.full((5, n), 1 / n),
        weights=np.full((n, 5), 0.2),
        kintree_table=np.array([[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        faces=faces,
    )

    def places(*shape: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.integers(0, len(faces), shape), np.full((*shape, 3), 1 / 3)

    embedding = LandmarkEmbedding(*places(51), *places(79, 17), *places(68))
    return arrays, embedding, UvLayout(uv.astype(np.float32), faces, faces)


def landmarks(count: int, height: int, width: int) -> np.ndarray:
    """68 points ``[count,68,2]`` of a face that fills about half of the image's height."""
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (68, 2))
    for places, point in zip(((36, 39), (42, 45), (30,), (48,), (54,)), STANDARD_FACE, strict=True):
        points[list(places)] = point[:2] * [1, -1]
    placed = points * 0.5 * height + [width / 2, height / 2]
    return np.repeat(placed[None], count, axis=0)


def steps(count: int, height: int, width: int, texture: int) -> dict[str, Callable[[], object]]:
    """What is measured, by name, for ``count`` frames."""
    torch.manual_seed(0)
    frames = np.random.default_rng(2).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    marks = landmarks(count, height, width)
    points = five_of_68(marks)
    deca, deep3d = DecaEncoder().eval(), Deep3DEncoder().eval()
    arrays, embedding, layout = sheet()
    head = flame.flame_head(arrays, landmarks=embedding)
    slide, mapper = flame.FlameLandmarks(embedding, head.faces), UvMapper(layout, texture)
    crops = crop_faces(frames, marks)
    code = deca.encode(crops.images)
    cam = torch.tensor([[8.0, 0.0, 0.0]]).expand(count, 3)
    aligned = as_input(torch.from_numpy(pose_crops(frames, points)))
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    mesh = flame.decode(head, code.shape, code.exp, code.pose).vertices

    def decode() -> object:
        posed = flame.decode(head, code.shape, code.exp, code.pose)
        return slide(posed.vertices, code.pose[:, :3]), to_ndc(posed.vertices, cam)

    return {
        "DECA crop": lambda: crop_faces(frames, marks),
        "DECA encoder": lambda: deca.encode(crops.images, count),
        "FLAME decode, landmarks, projection": decode,
        f"texture {texture} from the frame": lambda: mapper.sample_source(
            images, to_ndc(mesh, cam), crops.tform
        ),
        "Deep3D crop": lambda: pose_crops(frames, points),
        "Deep3D encoder": lambda: deep3d.encode(aligned, count),
        "EG3D crop": lambda: generator_crops(frames, points),
        "EG3D crop and label, one call": lambda: crop_in_the_wild(frames, points, deep3d, batch=count),
    }


@torch.no_grad()
def milliseconds(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median elapsed and CPU time of a call, after one that does not count."""
    call()
    taken = []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        call()
        taken.append((time.perf_counter() - start, time.process_time() - start_cpu))
    elapsed, cpu = (median(values) * 1e3 for values in zip(*taken, strict=True))
    return elapsed, cpu


def main(
    batches: Annotated[str, typer.Option(help="Frames in a call, each a column.")] = "1,4,16",
    size: Annotated[str, typer.Option(help="Width x height of the frames.")] = "1280x720",
    texture: Annotated[int, typer.Option(help="Side of the texture.")] = 1024,
    repeats: Annotated[int, typer.Option(help="Timed calls of each kind.")] = 3,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Milliseconds a frame of each step of tracking, one frame or several in a call."""
    torch.set_num_threads(threads)
    width, height = (int(part) for part in size.split("x"))
    counts = [int(part) for part in batches.split(",")]
    columns = [
        {name: milliseconds(call, repeats) for name, call in steps(n, height, width, texture).items()}
        for n in counts
    ]
    title = f"ms a frame, elapsed and CPU; {size}, {threads} thread(s), {device_name('cpu')}"
    table = Table("step", *(f"batch {n}" for n in counts), title=title)
    for name in columns[0]:
        cells = (
            f"{column[name][0] / n:,.1f}  {column[name][1] / n:,.1f}"
            for n, column in zip(counts, columns, strict=True)
        )
        table.add_row(name, *cells)
    Console(width=110, highlight=False).print(table)


if __name__ == "__main__":
    typer.run(main)
