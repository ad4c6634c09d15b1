"""The folder's face models and encoders: ``flame``, ``deca_encoder``, ``deca_decode`` and ``deep3dface``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.transform import ProjectiveTransform
from skimage.transform import warp as skimage_warp

from portrait_core.face_model.uv_maps import UvLayout, read_obj_layout
from portrait_core.tracking.checkpoints import deca_encoder_shapes, deep3d_shapes
from portrait_core.tracking.deca import DecaEncoder, DetailDecoder
from portrait_core.tracking.five_points import STANDARD_FACE
from portrait_core.weights.readers.torch_files import network_shapes
from tests import official_files
from tests.plain import deca, deep3dface, encoders, flame, stylegan2
from tests.plain.folder.common import picture, rounded, write_arrays, write_json

RINGS = 8
Array = NDArray[np.float64]


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    """Normal numbers that single precision holds."""
    return rounded(rng.normal(size=shape) * scale)


def write_flame(folder: Path, seed: int) -> None:
    """The model in both layouts, its landmarks and ``cases.npz``."""
    rng, count = np.random.default_rng(seed), 7
    folder.mkdir(parents=True, exist_ok=True)
    model = official_files.flame_arrays(seed, RINGS)
    for layout in ("numpy", "chumpy"):
        official_files.write_flame(folder / f"generic_model_{layout}.pkl", layout, model)
    places = {
        name: value % (8 * RINGS) if name.endswith("idx") else value
        for name, value in official_files.landmark_arrays(seed).items()
    }
    tensors = {name: torch.from_numpy(v) for name, v in places.items() if name.startswith("dynamic")}
    changes: dict[str, Any] = places | tensors
    official_files.write_landmark_embedding(folder / "landmark_embedding.npy", **changes)
    codes = {
        "shape": normal(rng, count, 60),
        "exp": normal(rng, count, 40),
        "pose": normal(rng, count, 6, scale=0.3),
    }
    codes |= {"eye_pose": normal(rng, count, 6, scale=0.2)}
    codes["pose"][:, 1] = rounded(np.array([0, 0.2, -0.2, 0.5, -0.5, 0.9, -0.9]))
    whole = {
        "shape300": normal(rng, 3, 300),
        "exp100": normal(rng, 3, 100),
        "pose_300_100": normal(rng, 3, 6, scale=0.3),
    }
    vectors = normal(rng, 9, 3)
    vectors[0] = 0
    rows: dict[str, list[Any]] = {}
    for shape, exp, pose, eyes in zip(*codes.values(), strict=True):
        still, turned = flame.decode(model, shape, exp, pose), flame.decode(model, shape, exp, pose, eyes)
        found = {
            "vertices": still.vertices,
            "landmarks2d": flame.landmarks2d(still.vertices, model["f"], places, pose[:3]),
            "landmarks3d": flame.landmarks3d(still.vertices, model["f"], places),
            "vertices_eye": turned.vertices,
            "landmarks2d_eye": flame.landmarks2d(turned.vertices, model["f"], places, pose[:3]),
            "joints_eye": turned.joints,
            "dynamic_row": flame.contour_row(pose[:3]),
        }
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    out: dict[str, Any] = codes | whole | {name: np.stack(values) for name, values in rows.items()}
    out["vertices_300_100"] = np.stack(
        [flame.decode(model, *code).vertices for code in zip(*whole.values(), strict=True)]
    )
    out |= {
        "rodrigues_in": vectors,
        "rodrigues_out": np.stack([flame.rodrigues(vector) for vector in vectors]),
    }
    write_arrays(folder / "cases.npz", out)


def crops(rng: np.random.Generator, count: int) -> tuple[NDArray[np.uint8], torch.Tensor]:
    """Crops of 224 pixels as they are stored, and as the networks take them."""
    stored = np.stack([picture(rng, 224, 224) for _ in range(count)])
    return stored, torch.from_numpy(stored).permute(0, 3, 1, 2).double() / 255


def features(state: dict[str, torch.Tensor], name: str, images: torch.Tensor) -> torch.Tensor:
    """What the backbone below ``name`` makes of images."""
    return encoders.resnet50(stylegan2.scope(state, name), images)


@torch.no_grad()
def write_deca_encoder(folder: Path, seed: int) -> None:
    """``state_dict_shapes.json``, ``seeds.json`` and ``cases.npz``."""
    shapes = {"E_flame": deca_encoder_shapes(), "D_detail": network_shapes(DetailDecoder)}
    shapes["E_detail"] = network_shapes(lambda: DecaEncoder(128))
    seeds = {name: seed + i for i, name in enumerate(shapes)}
    write_json(folder / "state_dict_shapes.json", {name: dict(one) for name, one in shapes.items()})
    write_json(folder / "seeds.json", seeds)
    state = {
        name: {key: value.double() for key, value in official_files.seeded_state(one, seeds[name]).items()}
        for name, one in shapes.items()
    }
    stored, images = crops(np.random.default_rng(seed), 3)
    out = {"images_uint8": stored, "features": features(state["E_flame"], "encoder", images)}
    code = encoders.deca(state["E_flame"], images)
    parts = dict(
        zip(
            ("shape", "tex", "exp", "pose", "cam", "light"),
            code.split([100, 50, 50, 6, 3, 27], 1),
            strict=True,
        )
    )
    parts["light"] = parts["light"].reshape(-1, 9, 3)
    detail = encoders.deca(state["E_detail"], images)
    maps = encoders.deca_detail(state["D_detail"], parts["pose"][:, 3:], parts["exp"], detail)
    out |= {"parameters": code, "detail": detail, "uv_z_every8": maps[:, :, ::8, ::8]}
    write_arrays(folder / "cases.npz", out | {f"code_{name}": part for name, part in parts.items()})


def write_deca_decode(folder: Path, seed: int) -> None:
    """``mesh.obj``, ``cases.npz``, ``crop.npz`` and ``crop_source.png``."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    official_files.write_head_template(folder / "mesh.obj", RINGS)
    layout = read_obj_layout(folder / "mesh.obj")
    lines = [line.split() for line in (folder / "mesh.obj").read_text().splitlines()]
    points = np.array([[float(word) for word in line[1:]] for line in lines if line[0] == "v"])
    write_arrays(folder / "cases.npz", decoded(rng, layout, points))
    write_deca_crops(folder, rng)


def decoded(rng: np.random.Generator, layout: UvLayout, points: Array) -> dict[str, Any]:
    """Projections, normals, maps and pictures of a few meshes."""
    count, crop, texels, shown, raster, hw = 2, 160, 48, 80, (50, 70), (300, 420)
    vertices = rounded(points + rng.normal(size=(count, *points.shape)) * 0.002)
    cam = rounded(np.array([7.0, 0, 0]) + rng.normal(size=(count, 3)) * [0.5, 0.01, 0.01])
    tform = np.tile(np.eye(3), (count, 1, 1))
    tform[:, :2] += rng.normal(size=(count, 2, 3)) * [0.2, 0.2, 20]
    marks, tform = normal(rng, count, 68, 3, scale=0.08), rounded(tform)
    images = np.stack([picture(rng, crop, crop) for _ in range(count)])
    mask = rounded(rng.uniform(size=(1, 1, texels, texels)))
    light = rounded(rng.normal(size=(count, 9, 3)) * 0.3 + [[1.5]] * 9)
    flat = deca.uv_ndc(layout.uv.astype(float))
    drawn = deca.rasterize(flat, layout.uv_faces, texels, texels)
    rows: dict[str, list[Any]] = {}
    for i in range(count):
        ndc = deca.to_ndc(vertices[i], cam[i])
        landmarks = deca.to_ndc(marks[i], cam[i])
        normals = deca.vertex_normals(vertices[i], layout.faces)
        maps = drawn.interpolate(ndc, layout.faces)
        texture = deca.sample(np.moveaxis(images[i] / 255.0, -1, 0).copy(), maps[..., :2])
        other = deca.rasterize(ndc, layout.faces, *raster)
        values = other.interpolate(vertices[i], layout.faces)
        found = {
            "batch_orth_proj": deca.project(vertices[i], cam[i]),
            "trans_verts": ndc,
            "landmarks3d": landmarks,
            "landmarks2d": landmarks[:, :2],
            f"landmarks2d_pixels_{crop}": (landmarks[:, :2] + 1) * crop / 2,
            "vertex_normals": normals,
            "transform_points": deca.transform_points(ndc, tform[i], crop, hw),
            "transform_points_pixels": deca.transform_points(ndc, tform[i], crop),
            "world2uv_trans_verts": np.moveaxis(maps, -1, 0),
            "world2uv_normals": np.moveaxis(drawn.interpolate(normals, layout.faces), -1, 0),
            "uv_texture": texture,
            "uv_texture_gt_no_tex_model": texture * mask[0] + 0.7 * (1 - mask[0]),
            "raster_h{}_w{}".format(*raster): np.concatenate(
                [np.moveaxis(values, -1, 0), (other.face >= 0)[None].astype(float)]
            ),
        }
        found |= seen(layout, ndc, normals, texture, light[i], shown)
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    height, width = 30, 44
    grid = []
    for x in range(2, width - 3):
        for y in range(5, height - 6):
            a = y * width + x
            grid += [[a, a + width, a + 1], [a + 1, a + width, a + width + 1]]
    out: dict[str, Any] = {name: np.stack(values) for name, values in rows.items()}
    out |= {"vertices": vertices, "cam": cam, "landmarks": marks, "tform": tform, "images_uint8": images}
    out |= {"transform_points_hw": np.array(hw), "uv_mask": mask, "light": light}
    out |= {"uv_cover": (drawn.face >= 0).astype(np.uint8), "constant_factor": np.array(deca.HARMONICS)}
    out |= {"uv_stable": deca.steady(flat, layout.uv_faces, texels, texels)}
    return out | {
        "dense_triangles_head": np.array(grid[:6]),
        "dense_triangles_shape": np.array([len(grid), 3]),
    }


def seen(
    layout: UvLayout, ndc: Array, normals: Array, texture: Array, light: Array, size: int
) -> dict[str, NDArray[Any]]:
    """One mesh's picture and what it is made of."""
    drawn = deca.rasterize(ndc, layout.faces, size, size)
    hit = drawn.face >= 0
    turned = deca.vertex_normals(ndc, layout.faces)
    grid = drawn.interpolate(deca.uv_ndc(layout.uv.astype(float)), layout.uv_faces)[..., :2]
    shown = drawn.interpolate(normals, layout.faces)
    inward = drawn.interpolate(turned, layout.faces)[..., 2]
    albedo = deca.sample(texture, grid) * hit
    shading = np.moveaxis(deca.shade(shown, light), -1, 0)
    facing = hit & (inward < 0.15)
    return {
        "render_images": albedo * shading,
        "render_albedo": albedo,
        "render_alpha": hit[None].astype(np.uint8),
        "render_pos_mask": (inward < -0.05)[None].astype(np.uint8),
        "render_grid": grid,
        "render_shading": shading,
        "render_normal_images": np.moveaxis(shown, -1, 0),
        "render_transformed_normals": turned,
        "render_images_unlit": albedo,
        "shape_images": np.tile(deca.overlay(shown) * facing, (3, 1, 1)),
        "shape_alpha": facing[None].astype(np.uint8),
        "render_stable": deca.steady(ndc, layout.faces, size, size),
    }


def write_deca_crops(folder: Path, rng: np.random.Generator) -> None:
    """``crop.npz`` and ``crop_source.png``."""
    size, source = 160, picture(rng, 380, 300)
    Image.fromarray(source).save(folder / "crop_source.png")
    points = rng.uniform([60, 50], [300, 240], (3, 68, 2)) + np.array([[[0, 0]], [[40, 30]], [[-70, -10]]])
    table, tforms, images = [], [], []
    for marks in points:
        box = np.stack([marks.min(0), marks.max(0)], 1).ravel()
        squares = [deca.square(box, rule) for rule in ("kpt68", "bbox")]
        table.append(
            [*box, *(number for one in squares for number in (one.face_size, *one.center, one.size))]
        )
        tforms.append(squares[0].transform(size))
        images.append(warped(source, tforms[-1], size))
    (height, width), last = source.shape[:2], size - 1
    corners = np.array([[0, 0], [0, height - 1], [width - 1, 0]], float)
    whole = deca.similarity(corners, np.array([[0, 0], [0, last], [last, 0]], float))
    out = {
        "landmarks68": points,
        "box_table": np.array(table),
        "tform": np.stack(tforms),
        "crop_0": images[0],
    }
    out |= {"crops_every5": np.stack(images)[:, :, ::5, ::5], "tform_iscrop_false": whole}
    out |= {"crop_iscrop_false_every5": warped(source, whole, size)[:, ::5, ::5]}
    write_arrays(folder / "crop.npz", out, exact=("landmarks68", "box_table"))


def warped(source: NDArray[np.uint8], tform: Array, size: int) -> Array:
    """A crop ``[3,size,size]`` by scikit-image."""
    inverse = ProjectiveTransform(matrix=np.linalg.inv(tform))
    return np.moveaxis(skimage_warp(source / 255.0, inverse, output_shape=(size, size), order=1), -1, 0)


def five(rng: np.random.Generator, size_wh: NDArray[np.int64]) -> Array:
    """Detections ``[n,5,2]`` of faces in images of these sizes."""
    count = len(size_wh)
    face = STANDARD_FACE[:, :2] * [1, -1] * rng.uniform(50, 130, (count, 1, 1))
    return rounded(
        face + size_wh[:, None] * rng.uniform(0.35, 0.65, (count, 1, 2)) + rng.normal(size=(count, 5, 2)) * 2
    )


@torch.no_grad()
def write_deep3dface(folder: Path, seed: int) -> None:
    """The regressor's, the Basel face's and the alignment's files."""
    rng = np.random.default_rng(seed)
    shapes = deep3d_shapes()
    write_json(folder / "state_dict_shapes.json", dict(shapes))
    write_json(folder / "seeds.json", {"net_recon": seed})
    state = {name: value.double() for name, value in official_files.seeded_state(shapes, seed).items()}
    stored, images = crops(rng, 3)
    coefficients = encoders.deep3d(state, images)
    parts = coefficients.split([80, 64, 80, 3, 27, 3], 1)
    angles = normal(rng, 6, 3)
    model = official_files.write_bfm(folder / "BFM_model_front_synthetic.mat", seed, RINGS)
    codes = normal(rng, 4, 257) * rounded(np.repeat([1.0, 1, 1, 0.4, 0.3, 0.3], [80, 64, 80, 3, 27, 3]))
    codes = rounded(codes)
    faces = [deep3dface.face(model, code) for code in codes]
    names = ("shape", "normals", "face_vertex", "face_texture", "face_color", "landmarks68")
    out: dict[str, Any] = {"images_uint8": stored, "features": features(state, "backbone", images)}
    out |= {"coeffs": coefficients, "angles": angles, "bfm_coeffs": codes}
    out |= {
        f"split_{n}": part
        for n, part in zip(("id", "exp", "tex", "angle", "gamma", "trans"), parts, strict=True)
    }
    out["rotation"] = np.stack([deep3dface.rotation(angle) for angle in angles])
    out |= {
        f"bfm_{name}": np.stack(values) for name, values in zip(names, zip(*faces, strict=True), strict=True)
    }
    write_arrays(folder / "cases.npz", out)
    write_alignments(folder, rng)


def write_alignments(folder: Path, rng: np.random.Generator) -> None:
    """``align.npz`` and ``align_source.png``."""
    target, count = 224, 6
    standard = rounded(STANDARD_FACE)
    size = rng.integers(250, 700, (count, 2))
    points, marks = five(rng, size), normal(rng, count, 68, 2, scale=100)
    found = [deep3dface.align(*one, standard, target, 102) for one in zip(points, size, strict=True)]
    image = picture(rng, 330, 290)
    Image.fromarray(image).save(folder / "align_source.png")
    own = five(rng, np.array([[330, 290]]))[0]
    aligned = deep3dface.align(own, np.array([330, 290]), standard, target, 102)
    pairs = [(marks[:, a] + marks[:, b]) / 2 for a, b in ((36, 39), (42, 45))]
    out: dict[str, Any] = {"lm3d_std": standard, "detections5": points, "size_wh": size, "lm68": marks}
    out |= {"lm68_to_5": np.stack([*pairs, marks[:, 30], marks[:, 48], marks[:, 54]], 1)}
    out |= {
        "pos_t": np.stack([one.translation for one in found]),
        "pos_s": np.array([one.size for one in found]),
    }
    out["trans_params"] = np.array(
        [[*wh, one.scale, *one.translation] for wh, one in zip(size, found, strict=True)]
    )
    out |= {
        "lm_new": np.stack([one.points for one in found]),
        "resize_wh": np.array([one.resized for one in found]),
    }
    out["crop_box"] = np.array([[*one.corner, *(n + target for n in one.corner)] for one in found], float)
    out |= {"image_detections5": own, "image_lm_new": aligned.points}
    out |= {"image_trans_params": np.array([330, 290, aligned.scale, *aligned.translation])}
    out |= {"image_aligned_uint8": np.asarray(deep3dface.cut(image, aligned, target))}
    exact = ("pos_t", "pos_s", "trans_params", "lm_new", "crop_box", "image_trans_params", "image_lm_new")
    write_arrays(folder / "align.npz", out, exact)
