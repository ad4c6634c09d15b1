"""One-view inversion of people that no training saw, scored from other sides: ``uv run python -m
tests.benchmarks.inversion [WEIGHTS ...]``.

Each person is drawn from the front; the generator is inverted to that one picture, with the true camera, from
the scene's own coefficients (what a perfect tracker would give) or from the mean latent. Then both are drawn
from the sides: how far is the picture (perceptual, L1), how far the depth?
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from portrait_core.cameras import orbit_labels
from portrait_core.face_model.head import MorphableHead
from portrait_core.generators import TriPlaneGenerator, load_generator
from portrait_core.generators.scene_latents import latent_from_scene, sample_scene
from portrait_core.inversion.features import build_features, feature_distance
from portrait_core.inversion.latent import Inverter
from portrait_core.inversion.targets import FrameTarget, image_tensor, mask_tensor
from portrait_core.runtime.allocator import keep_freed_memory
from portrait_core.runtime.package_files import data_file
from portrait_core.settings import InversionSettings
from portrait_core.training.render import SceneRenderer, View
from portrait_core.training.scenes import HEAD_PATH, render_scene

SEED = 900_000
"""Of the people; training seeds begin at 1000 and count shards."""
YAWS_DEG = (0, -30, -15, 15, 30)
_AWAY_DEG = (0, 15, 30)
COLUMNS = ("feature 0", "15", "30", "L1 0", "15", "30", "depth 0", "15", "30")
"""Of :func:`cells`: degrees away from the front."""
Sums = dict[int, list[tuple[float, float, float]]]
"""Scores of views by their degrees away."""


def people(count: int) -> list[tuple[Tensor, list[View]]]:
    """Latents ``[1,120]`` of people that no training drew, and their views from ``YAWS_DEG``."""
    renderer = SceneRenderer(MorphableHead.load(HEAD_PATH))
    rng = np.random.default_rng(SEED)
    cameras = np.concatenate([orbit_labels(np.radians(yaw), 0.0) for yaw in YAWS_DEG])
    found = []
    for _ in range(count):
        scene = sample_scene(rng, renderer.head.expression_names)
        views, _ = render_scene(renderer, scene, cameras)
        found.append((torch.from_numpy(latent_from_scene(scene))[None], views))
    return found


def inverted(
    generator: TriPlaneGenerator, phi: torch.nn.Module, view: View, z: Tensor | None, steps: int
) -> Tensor:
    """Latent of one view after ``steps`` Adam steps from ``z``, or from the mean latent."""
    camera = torch.from_numpy(view.camera)[None]
    inverter = Inverter(
        generator,
        phi,
        camera,
        InversionSettings(first_steps=max(steps, 1), outside_weight=1.0, detail_weight=0.0),
        generator.settings.sampling,
        generator.settings.neural_resolution,
    )
    if steps == 0:
        return inverter.mean if z is None else generator.mapping(z)
    whole = mask_tensor(np.full(view.image.shape[:2], 255, np.uint8))
    target = FrameTarget(image_tensor(view.image), whole, whole * 0, whole * 0, whole * 0)
    return inverter.first(target, z).ws


@torch.no_grad()
def scores(
    generator: TriPlaneGenerator, phi: torch.nn.Module, ws: Tensor, view: View
) -> tuple[float, float, float]:
    """Perceptual distance, L1 and depth error (box units, inside the person) of one view."""
    camera = torch.from_numpy(view.camera)[None]
    out = generator.synthesis(ws, camera)
    perceptual, l1 = picture_scores(phi, out["image"], image_tensor(view.image)[None])
    depth = torch.from_numpy(view.depth.astype(np.float32))[None, None]
    made = F.interpolate(out["image_depth"], depth.shape[-2:], mode="bilinear", align_corners=False)
    inside = F.max_pool2d((depth == 0).float(), 5, 1, 2) == 0  # not at the silhouette
    apart = (made - depth).abs()[inside].mean()
    return perceptual, l1, float(apart)


@torch.no_grad()
def picture_scores(phi: torch.nn.Module, made: Tensor, wanted: Tensor) -> tuple[float, float]:
    """Perceptual distance and L1 of two pictures ``[1,3,S,S]`` in [-1,1]."""
    perceptual = feature_distance(phi(made), phi(wanted), torch.ones_like(wanted[:, :1]))
    return float(perceptual), float((made - wanted).abs().mean())


def add_scores(
    sums: Sums, generator: TriPlaneGenerator, phi: torch.nn.Module, ws: Tensor, views: list[View]
) -> None:
    """Score all views of a person of :func:`people`."""
    for yaw, view in zip(YAWS_DEG, views, strict=True):
        sums.setdefault(abs(yaw), []).append(scores(generator, phi, ws, view))


def cells(sums: Sums) -> list[str]:
    """Means under :data:`COLUMNS`."""
    means = {yaw: np.mean(rows, axis=0) for yaw, rows in sums.items()}
    return [f"{means[yaw][k]:.3f}" for k in range(3) for yaw in _AWAY_DEG]


def main(
    weights: Annotated[
        list[Path] | None, typer.Argument(help="Generator files. Default: the one in data/.")
    ] = None,
    count: Annotated[int, typer.Option(help="People.")] = 4,
    steps: Annotated[str, typer.Option(help="Adam steps, each a row.")] = "0,5,20,80",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Invert held-out synthetic people from one view, and score the other views."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    console = Console(width=100, highlight=False)
    counts = [int(part) for part in steps.split(",")]
    phi = build_features("efficientnet")
    console.print(
        f"{count} people, held out; about half a second a step on one thread. Columns: degrees away"
    )
    shown = people(count)
    for path in weights or [data_file("models/embedded_generator.safetensors")]:
        generator = load_generator(path)
        table = Table("start", "steps", *COLUMNS, title=str(path))
        start = time.perf_counter()
        for origin in ("fit", "mean"):
            for number in counts:
                sums: Sums = {}
                for z, views in shown:
                    # the coefficients that a tracker knows; colours, hair and light it does not
                    known = torch.cat([z[:, :79], torch.zeros_like(z[:, 79:])], 1)
                    ws = inverted(generator, phi, views[0], known if origin == "fit" else None, number)
                    add_scores(sums, generator, phi, ws, views)
                table.add_row(origin, str(number), *cells(sums))
        console.print(table)
        console.print(f"{time.perf_counter() - start:.0f} s", style="dim")


if __name__ == "__main__":
    typer.run(main)
