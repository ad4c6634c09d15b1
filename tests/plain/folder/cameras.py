"""The folder's cameras and crops: ``eg3d_camera``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from portrait_core.tracking import ffhq_align
from portrait_core.tracking.five_points import STANDARD_FACE
from tests.plain import deep3dface
from tests.plain.folder.common import picture, rounded, write_arrays
from tests.plain.folder.faces import five

FOV = "23_500"
"""Degrees of a field of view, as its array is named."""


def write(folder: Path, seed: int) -> None:
    """``labels.npz``, ``crops.npz``, ``ffhq_align.npz`` and their pictures."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(folder, rng)
    write_crops(folder, rng)
    write_squares(folder, rng)


def write_labels(folder: Path, rng: np.random.Generator) -> None:
    """Poses, labels and look-at cameras."""
    angle, trans = (rounded(rng.normal(size=(5, 3)) * scale) for scale in (0.4, 0.8))
    codes = list(zip(angle, trans, strict=True))
    idr = np.array([[2985.29, 0, 512], [0, 2985.29, 512], [0, 0, 1]])
    out: dict[str, Any] = {"angle": angle.astype(np.float32), "trans": trans.astype(np.float32)}
    out |= {
        "idr_pose": np.stack([deep3dface.pose(*code) for code in codes]),
        "idr_intrinsics": np.stack([idr] * 5),
    }
    for mode in ("orig", "cor", "simplify"):
        labels = [deep3dface.label(*code, mode) for code in codes]
        out[f"label_{mode}"] = np.stack(labels)
        if mode != "simplify":
            out[f"label_{mode}_mirror"] = np.stack([deep3dface.mirrored(label) for label in labels])
    rows = np.concatenate(
        [rng.uniform(0.6, 2.5, (4, 2)), rng.normal(size=(4, 3)) * 0.2, rng.uniform(2, 3, (4, 1))], 1
    )
    out |= {"lookat_args_h_v_pivot_radius": rows}
    out["lookat_cam2world"] = np.stack([deep3dface.orbit(r[0], r[1], r[2:5], r[5]) for r in rows])
    focal = 1 / (np.tan(float(FOV.replace("_", ".")) * 3.14159 / 360) * 1.414)
    out[f"fov_{FOV}_intrinsics"] = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
    write_arrays(folder / "labels.npz", out, exact=tuple(out))


def write_crops(folder: Path, rng: np.random.Generator) -> None:
    """The generator's crops, one of which is stored as a whole."""
    output, standard, stored = 256, rounded(STANDARD_FACE), 2
    size = rng.integers(420, 800, (4, 2))
    points = five(rng, size)
    found = [deep3dface.align(*one, standard, 1024, 300) for one in zip(points, size, strict=True)]
    crops = []
    for i, (wh, aligned) in enumerate(zip(size, found, strict=True)):
        image = picture(rng, *(int(n) for n in wh))
        crops.append(deep3dface.generator_crop(image, aligned, output))
        if i == stored:
            Image.fromarray(image).save(folder / f"wild_source_{i}.png")
            Image.fromarray(crops[-1]).save(folder / f"wild_crop_{i}.png")
    out: dict[str, Any] = {"detections5": points, "size_wh": size, "lm3d_std": standard.astype(np.float32)}
    out["trans_params"] = np.array(
        [[*wh, one.scale, *one.translation] for wh, one in zip(size, found, strict=True)]
    )
    out |= {
        "lm_in_1024": np.stack([one.points for one in found]),
        "resize_wh": np.array([one.resized for one in found]),
    }
    out["align_box"] = np.array([[*one.corner, *(n + 1024 for n in one.corner)] for one in found], float)
    out |= {"center_box": np.tile([162.0, 162, 862, 862], (4, 1)), "output_wh": np.full((4, 2), output)}
    out["crops_every16"] = np.stack(crops)[:, ::16, ::16]
    write_arrays(folder / "crops.npz", out, exact=tuple(out))


def write_squares(folder: Path, rng: np.random.Generator) -> None:
    """FFHQ's squares, enlarged and padded: ours, as there is no plain implementation of the padding."""
    output, step = 750, 25
    rows: dict[str, list[Any]] = {}
    for i, wh in enumerate(((520, 480), (400, 450))):
        image = picture(rng, *wh)
        Image.fromarray(image).save(folder / f"ffhq_source_{i}.png")
        marks = rng.normal(size=(68, 2)) * 25 + np.array(wh) / 2
        marks[36:42] -= [45, 30]
        marks[42:48] += [45, -30]
        found = ffhq_align.prepare_quad(image, ffhq_align.oriented_quad(marks), output)
        row = {
            "landmarks68": marks,
            "size_wh": np.array(wh),
            "quad_final_plus_half": found.quad,
            "image_size_before_transform": np.array(found.image.shape[1::-1]),
            "first_crop_box": np.array(found.crop_box or [-1] * 4),
            f"aligned{output}_every{step}": ffhq_align.align_ffhq(image, marks, output)[::step, ::step],
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    out = {name: np.stack(values) for name, values in rows.items()}
    write_arrays(folder / "ffhq_align.npz", out, exact=tuple(out))
