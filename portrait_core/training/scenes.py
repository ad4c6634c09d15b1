"""Synthetic training pictures of people for the embedded generator, deterministic by seed.

    python -m portrait_core.training.scenes --out DIR --shards 0:60 --views 2

writes ``shard_0000.npz`` ... (100 people each, seed 1000 + shard number) with ``z [n,120]`` f32,
``image [n,v,256,256,3]`` u8, ``alpha [n,v,256,256]`` u8, ``depth [n,v,128,128]`` f16, ``camera [n,v,25]``
f32, ``key_points [n,v,3,2]`` f32 and ``wall [n,64,64,3]`` u8; see :class:`View` for their meaning. With
``--expressions E`` each person comes E times in a row, with the same cameras and other expressions; with
``--glasses`` twice in a row, without glasses and with them.

The background is a picture on the plane z = -0.4 (box units), x and y in -0.8..0.8, apart from the
foreground, which lies in the box |x|, |y|, |z| <= 0.36.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.face_model.head import MorphableHead
from portrait_core.generators.scene_latents import (
    APPEARANCE,
    Scene,
    fitted_names,
    latent_from_scene,
    sample_camera,
    sample_expression,
    sample_scene,
    scene_from_latent,
    z_from_fit,
)
from portrait_core.runtime.whole_files import partial_file
from portrait_core.training.glasses import WORN_FROM
from portrait_core.training.render import Person, SceneRenderer, View

__all__ = [
    "Person", "Scene", "SceneRenderer", "View", "fitted_names", "latent_from_scene", "make_shard",
    "render_scene", "sample_camera", "sample_scene", "scene_from_latent", "z_from_fit",
]  # fmt: skip

HEAD_PATH = Path(__file__).resolve().parents[2] / "data" / "models" / "embedded_head.safetensors"
PEOPLE_PER_SHARD = 100
FIRST_SEED = 1000
BARE, WORN = (-2.5, WORN_FROM), (WORN_FROM, 2.5)
"""Ranges of ``glasses`` in which the two pictures of a person with ``--glasses`` are drawn."""


def render_scene(
    renderer: SceneRenderer, scene: Scene, cameras: NDArray[np.floating]
) -> tuple[list[View], NDArray[np.uint8]]:
    """Draw a scene from cameras ``[v,25]``, and return the views and the background picture ``[64,64,3]``."""
    person = renderer.person(scene)
    return [renderer.view(person, np.asarray(c, dtype=np.float32)) for c in cameras], person.wall


def make_shard(
    renderer: SceneRenderer,
    seed: int,
    people: int,
    views: int,
    expressions: int = 1,
    spread: float = 1.0,
    glasses: bool = False,
) -> dict[str, NDArray[np.generic]]:
    """Draw ``people`` persons with ``expressions`` expressions each, from the same ``views`` cameras.

    The same seed gives the same arrays. A person's expressions are adjacent. With ``glasses`` a person comes
    with one expression, once without glasses and once with them, in place of several expressions.

    Raises:
        ValueError: several expressions are asked for together with glasses.
    """
    if glasses and expressions > 1:
        raise ValueError("a person comes with several expressions, or without and with glasses, not both")
    rng = np.random.default_rng(seed)
    names = renderer.head.expression_names
    latents, walls, rows = [], [], []
    for _ in range(people):
        scene = sample_scene(rng, names, spread)
        cameras = np.stack([sample_camera(rng) for _ in range(views)])
        scenes = [scene]
        if glasses:
            scenes = [wearing(scene, rng.uniform(*values)) for values in (BARE, WORN)]
        for _ in range(1, expressions):
            scenes.append(replace(scene, expression=sample_expression(rng, list(names))))
        for scene in scenes:
            pictures, wall = render_scene(renderer, scene, cameras)
            latents.append(latent_from_scene(scene))
            walls.append(wall)
            rows.append(pictures)
    fields = ("image", "alpha", "depth", "camera", "key_points")
    shard: dict[str, NDArray[np.generic]] = {
        field: np.stack([np.stack([getattr(view, field) for view in row]) for row in rows])
        for field in fields
    }
    adjacent = np.array(len(latents) // people)
    return shard | {"z": np.stack(latents), "wall": np.stack(walls), "expressions": adjacent}


def wearing(scene: Scene, value: float) -> Scene:
    """Return the scene with another value of ``glasses``."""
    appearance = scene.appearance.copy()
    appearance[APPEARANCE.index("glasses")] = value
    return replace(scene, appearance=appearance)


def write_shard(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Write an npz atomically."""
    with partial_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def shard_range(text: str) -> range:
    """Parse ``A:B``."""
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise argparse.ArgumentTypeError(f"expected A:B with A < B, for example 0:60, got {text!r}")
    return range(int(first), int(last))


def main(argv: list[str] | None = None) -> None:
    """Write the shards that do not exist yet."""
    parser = argparse.ArgumentParser(description="Draw synthetic people for training.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=shard_range, default=range(60), help="A:B, default 0:60")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--people", type=int, default=PEOPLE_PER_SHARD)
    parser.add_argument("--expressions", type=int, default=1, help="number of expressions per person")
    parser.add_argument("--glasses", action="store_true", help="draw each person without and with glasses")
    parser.add_argument("--spread", type=float, default=1.0, help="below 1, people are nearer to the average")
    parser.add_argument("--head", type=Path, default=HEAD_PATH)
    arguments = parser.parse_args(argv)
    people, views, expressions = arguments.people, arguments.views, arguments.expressions
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    renderer = SceneRenderer(MorphableHead.load(arguments.head))
    for number in arguments.shards:
        path = arguments.out / f"shard_{number:04d}.npz"
        if path.exists():
            continue
        start = time.perf_counter()
        seed = FIRST_SEED + number
        shard = make_shard(renderer, seed, people, views, expressions, arguments.spread, arguments.glasses)
        write_shard(path, shard)
        rate = len(shard["z"]) * views / (time.perf_counter() - start)
        print(f"{path.name}: {rate:.1f} views/s", flush=True)


if __name__ == "__main__":
    main()
