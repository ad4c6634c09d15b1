"""Location of the 468 face-mesh landmarks on the head, measured by the landmark model on drawn heads.

    python -m portrait_core.training.correspondence --out landmarks.npz
    python -m portrait_core.training.build_head --only-landmarks --landmarks landmarks.npz

Heads of known geometry are drawn at known poses; each detected landmark is a vote for the place on the
average head that is visible there. Half of the heads have the jaw open and the eyes wide, which separates the
edges of lips and lids; the lips' inner edge takes votes from those only. Votes are combined robustly, made
symmetric and put on the nearest triangle.

Known bias: the lower outer lip is placed a little inside the lip.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from portrait_core.cameras import orbit_labels, project_to_crop
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.raster import rasterize
from portrait_core.face_model.topology import MIRROR
from portrait_core.generators.scene_latents import APPEARANCE, N_SHAPE, Scene
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.training.render import SceneRenderer
from portrait_core.training.scenes import HEAD_PATH

Array = NDArray[np.float64]

N_MESH = 468
PICTURE_SIZE = 512
N_HEADS = 60
LIPS_INNER = (
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 95, 88, 178, 87, 14, 317, 402, 318, 324,
)  # fmt: skip
STEPS = 6
"""Samples per side of a triangle when a landmark is put on the surface."""


@dataclass(frozen=True)
class Drawing:
    """One drawn head: vertices in pixels ``[V,3]``, their visibility ``[V]``, whether the jaw is open."""

    picture: NDArray[np.uint8]
    pixels: Array
    seen: NDArray[np.bool_]
    opened: bool


def draw_heads(renderer: SceneRenderer, skin: NDArray[np.bool_], count: int, seed: int = 3) -> list[Drawing]:
    """Draw plain heads without hair: various shapes and poses, every other one with the jaw open."""
    rng = np.random.default_rng(seed)
    head, drawings = renderer.head, []
    for i in range(count):
        shape = np.clip(rng.normal(size=N_SHAPE), -2, 2).astype(np.float32) * (0.7 if i else 0.0)
        expression = np.zeros(len(head.expression_names), np.float32)
        if i % 2:
            expression[head.index("jawOpen")] = rng.uniform(0.35, 0.75)
            expression[[head.index("eyeWideLeft"), head.index("eyeWideRight")]] = 0.5
        appearance = np.clip(rng.normal(size=len(APPEARANCE)), -1, 1).astype(np.float32)
        appearance[APPEARANCE.index("hair_length")] = -2.4
        appearance[APPEARANCE.index("beard")] = appearance[APPEARANCE.index("moustache")] = -2.0
        person = renderer.person(Scene(shape, expression, appearance, tuple(head.expression_names)))
        angles = (rng.uniform(-0.45, 0.45), rng.uniform(-0.2, 0.2)) if i else (0.0, 0.0)
        label = orbit_labels(*angles)
        small = renderer.view(person, label[0]).image
        picture = np.asarray(
            cv2.resize(small, (PICTURE_SIZE, PICTURE_SIZE), interpolation=cv2.INTER_CUBIC), np.uint8
        )
        points = torch.from_numpy(person.points[: renderer.n_head])[None]
        pixels = project_to_crop(torch.from_numpy(label), points, PICTURE_SIZE)
        face = rasterize(pixels, head.faces, PICTURE_SIZE, PICTURE_SIZE).face_id
        seen = np.zeros(renderer.n_head, dtype=bool)
        seen[head.faces[face[face >= 0].unique()].reshape(-1).numpy()] = True
        drawings.append(Drawing(picture, pixels[0].numpy().astype(np.float64), seen & skin, bool(i % 2)))
    return drawings


def collect_votes(drawings: list[Drawing], points: Array, template: Array) -> list[Array]:
    """Return the votes ``[n,3]`` (metres on the average head) per landmark, from ``points [heads,478,2]``."""
    votes: list[list[Array]] = [[] for _ in range(N_MESH)]
    for drawing, landmarks in zip(drawings, points, strict=True):
        if not np.isfinite(landmarks).all():
            continue
        vertex = np.flatnonzero(drawing.seen)
        distance, near = cKDTree(drawing.pixels[vertex, :2]).query(landmarks[:N_MESH], k=3)
        weight = 1.0 / (distance + 0.5) ** 2
        place = np.einsum("lk,lkc->lc", weight / weight.sum(1, keepdims=True), template[vertex[near]])
        for landmark in range(N_MESH):
            if distance[landmark, 0] < 8 and (drawing.opened or landmark not in LIPS_INNER):
                votes[landmark].append(place[landmark])
    return [np.array(v) for v in votes]


def settle(votes: list[Array]) -> tuple[Array, Array]:
    """Combine votes to symmetric places ``[468,3]`` and their votes' mean distances ``[468]``, in metres."""
    place, spread = np.zeros((N_MESH, 3)), np.zeros(N_MESH)
    for landmark, cast in enumerate(votes):
        if len(cast) < 5:
            raise ValueError(
                f"landmark {landmark} has {len(cast)} votes, expected 5 or more; draw more heads"
            )
        middle = np.median(cast, 0)
        for _ in range(10):
            weight = 1.0 / (1e-3 + np.linalg.norm(cast - middle, axis=1))
            middle = (cast * weight[:, None]).sum(0) / weight.sum()
        place[landmark] = middle
        spread[landmark] = np.linalg.norm(cast - middle, axis=1).mean()
    return 0.5 * (place + place[MIRROR[:N_MESH]] * [-1, 1, 1]), spread


def onto_surface(place: Array, triangles: Array) -> tuple[NDArray[np.int64], Array]:
    """Return the nearest of many samples per triangle: index ``[n]`` and barycentric weights ``[n,3]``."""
    steps = [(a, b, STEPS - a - b) for a in range(STEPS + 1) for b in range(STEPS + 1 - a)]
    bary = np.array(steps) / STEPS
    samples = np.einsum("sk,tkc->tsc", bary, triangles).reshape(-1, 3)
    _, best = cKDTree(samples).query(place)
    return best // len(bary), bary[best % len(bary)]


def measure(renderer: SceneRenderer, landmarker: FaceLandmarker, count: int = N_HEADS) -> dict[str, Array]:
    """Measure ``tri [468,3]`` vertex indices, ``bary [468,3]`` and ``spread [468]`` in metres."""
    head = renderer.head
    template, faces = head.get_buffer("v_template").double().numpy(), head.faces.numpy()
    body = head.group_vertices("body").numpy()
    skin = body & (head.mask("inside_mouth").numpy() < 0.5)
    drawings = draw_heads(renderer, skin, count)
    detected = landmarker.detect(np.stack([d.picture for d in drawings]))
    print(f"faces found in {int(detected.ok.sum())} of {count} drawn heads")
    place, spread = settle(collect_votes(drawings, detected.points.astype(np.float64), template))
    outer = np.any([d.seen for d in drawings if not d.opened], axis=0)
    candidates = faces[outer[faces].all(1)]
    triangle, bary = onto_surface(place, template[candidates])
    return {"tri": candidates[triangle], "bary": bary, "spread": spread}


def main() -> None:
    """Measure, print the distance from the head's present landmarks, and write the table."""
    parser = argparse.ArgumentParser(description="Place the face-mesh landmarks on the head.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--head", type=Path, default=HEAD_PATH)
    parser.add_argument("--heads", type=int, default=N_HEADS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    head = MorphableHead.load(arguments.head)
    reader = FaceLandmarker.from_models(arguments.head.parent, refine=False)
    table = measure(SceneRenderer(head), reader, arguments.heads)
    template = head.get_buffer("v_template")
    now = head.landmarks(template[None])[0, :N_MESH].numpy()
    new = (template.numpy()[table["tri"]] * table["bary"][..., None]).sum(1)
    moved = 1e3 * np.linalg.norm(new - now, axis=1)
    print(f"spread: median {1e3 * np.median(table['spread']):.2f} mm")
    print(f"from the present landmarks: median {np.median(moved):.2f} mm, largest {moved.max():.1f} mm")
    np.savez(arguments.out, tri=table["tri"], bary=table["bary"], spread=table["spread"])


if __name__ == "__main__":
    main()
