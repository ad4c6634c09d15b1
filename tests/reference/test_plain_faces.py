"""The plain face models, encoders and cameras in ``tests/plain`` have the published numbers.

The default suite holds ours to them (``tests/portrait_core/test_faces_plain.py``), so a clone without the
reference folder checks the same formulas.
"""

import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat

from portrait_core.face_model.uv_maps import UvLayout, read_obj_layout
from portrait_core.weights.readers.flame_files import read_flame, read_landmark_embedding
from tests.plain import deca, deep3dface, encoders, flame
from tests.reference.published import ROOT, arrays, named, needs, seeded_state

Arrays = dict[str, NDArray[Any]]


def off(got: Any, wanted: NDArray[Any]) -> float:
    """The largest difference."""
    got = np.asarray(got, dtype=np.float64)
    assert got.shape == wanted.shape
    return float(np.abs(got - wanted).max())


def doubles(cases: Arrays, name: str) -> NDArray[np.float64]:
    """An array in double precision."""
    return np.asarray(cases[name], dtype=np.float64)


def flame_arrays() -> Arrays:
    """The model file's arrays under their own names."""
    found = read_flame(ROOT / "flame/generic_model_numpy.pkl")
    return {"J_regressor": found.j_regressor, "f": found.faces} | vars(found)


def embedding_arrays() -> Arrays:
    found = read_landmark_embedding(ROOT / "flame/landmark_embedding.npy")
    made: Arrays = {}
    for kind in ("static", "dynamic", "full"):
        index, weights = getattr(found, f"{kind}_faces"), getattr(found, f"{kind}_bary")
        rows = (index[None], weights[None]) if kind == "full" else (index, weights)
        made[f"{kind}_lmk_faces_idx"], made[f"{kind}_lmk_bary_coords"] = rows
    return made


@needs("flame/cases.npz")
def test_flame() -> None:
    cases, model, embedding = arrays(ROOT / "flame/cases.npz"), flame_arrays(), embedding_arrays()
    faces = model["f"]
    for i, (shape, exp, pose) in enumerate(
        zip(*(doubles(cases, n) for n in ("shape", "exp", "pose")), strict=True)
    ):
        posed, root = flame.decode(model, shape, exp, pose), pose[:3]
        assert off(posed.vertices, cases["vertices"][i]) < 1e-6
        assert flame.contour_row(root) == cases["dynamic_row"][i]
        marks = flame.landmarks2d(posed.vertices, faces, embedding, root)
        assert off(marks, cases["landmarks2d"][i]) < 1e-6
        assert off(flame.landmarks3d(posed.vertices, faces, embedding), cases["landmarks3d"][i]) < 1e-6
        eyes = flame.decode(model, shape, exp, pose, doubles(cases, "eye_pose")[i])
        assert off(eyes.vertices, cases["vertices_eye"][i]) < 1e-6
        assert off(eyes.joints, cases["joints_eye"][i]) < 1e-6
    whole = zip(*(doubles(cases, n) for n in ("shape300", "exp100", "pose_300_100")), strict=True)
    for (shape, exp, pose), wanted in zip(whole, cases["vertices_300_100"], strict=True):
        assert off(flame.decode(model, shape, exp, pose).vertices, wanted) < 1e-6
    for vector, wanted in zip(cases["rodrigues_in"], cases["rodrigues_out"], strict=True):
        assert off(flame.rodrigues(vector.astype(float)), wanted) < 1e-6


def images(cases: Arrays) -> torch.Tensor:
    return torch.from_numpy(cases["images_uint8"]).permute(0, 3, 1, 2) / 255.0


@needs("deca_encoder/cases.npz")
def test_deca_networks() -> None:
    folder = ROOT / "deca_encoder"
    cases = arrays(folder / "cases.npz")
    shapes, seeds = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("state_dict_shapes", "seeds")
    )
    states = {name: seeded_state(shapes[name], seeds[name]) for name in shapes}
    assert off(encoders.deca(states["E_flame"], images(cases)), cases["parameters"]) < 2e-5
    assert off(encoders.deca(states["E_detail"], images(cases)), cases["detail"]) < 2e-5
    code = [torch.from_numpy(cases[name]) for name in ("code_pose", "code_exp", "detail")]
    maps = encoders.deca_detail(states["D_detail"], code[0][:, 3:], code[1], code[2])
    name, (step,) = named(cases, r"uv_z_every(\d+)")
    assert off(maps[:, :, ::step, ::step], cases[name]) < 2e-5 * float(np.abs(cases[name]).max())


@pytest.fixture(scope="module")
def decoded() -> Arrays:
    return arrays(ROOT / "deca_decode/cases.npz")


@pytest.fixture(scope="module")
def layout() -> UvLayout:
    return read_obj_layout(ROOT / "deca_decode/mesh.obj")


@needs("deca_decode/cases.npz")
def test_deca_projection_and_normals(decoded: Arrays, layout: UvLayout) -> None:
    cases, size = decoded, decoded["images_uint8"].shape[1]
    hw = tuple(int(n) for n in cases["transform_points_hw"])
    for i, cam in enumerate(cases["cam"].astype(float)):
        vertices, marks = (cases[name][i].astype(float) for name in ("vertices", "landmarks"))
        ndc, tform = deca.to_ndc(vertices, cam), cases["tform"][i].astype(float)
        assert off(deca.project(vertices, cam), cases["batch_orth_proj"][i]) < 1e-5
        assert off(ndc, cases["trans_verts"][i]) < 1e-5
        assert off(deca.to_ndc(marks, cam), cases["landmarks3d"][i]) < 1e-5
        got = deca.transform_points(ndc, tform, size, (hw[0], hw[1]))
        assert off(got, cases["transform_points"][i]) < 1e-5
        pixels = deca.transform_points(ndc, tform, size)
        assert off(pixels, cases["transform_points_pixels"][i]) < size / 2 * 1e-5
        assert off(deca.vertex_normals(vertices, layout.faces), cases["vertex_normals"][i]) < 1e-5


def shown(cases: Arrays, values: str, i: int) -> NDArray[Any]:
    """Attributes of row ``i``: in the published rasteriser's maps, those of the first row
    (see ``test_deca_decode.py``)."""
    maps = cases["world2uv_trans_verts"]
    return np.asarray(cases[values][0 if (maps == maps[:1]).all() else i].astype(float))


@needs("deca_decode/cases.npz")
def test_deca_maps(decoded: Arrays, layout: UvLayout) -> None:
    cases, stable, size = decoded, decoded["uv_stable"], len(decoded["uv_cover"])
    places = deca.uv_ndc(layout.uv.astype(float))
    drawn = deca.rasterize(places, layout.uv_faces, size, size)
    assert np.array_equal((drawn.face >= 0)[stable], cases["uv_cover"].astype(bool)[stable])
    # the folder's mask leaves out no more and no less than moving the map does, but for a few texels
    assert (deca.steady(places, layout.uv_faces, size, size) == stable).mean() > 0.98
    for i, image in enumerate(cases["images_uint8"].astype(float) / 255):
        maps = drawn.interpolate(shown(cases, "trans_verts", i), layout.faces)
        assert off(maps[stable], np.moveaxis(cases["world2uv_trans_verts"][i], 0, -1)[stable]) < 1e-4
        texture = deca.sample(np.moveaxis(image, -1, 0).copy(), maps[..., :2])
        assert off(texture[:, stable], cases["uv_texture"][i][:, stable]) < 1e-4


@needs("deca_decode/cases.npz")
def test_deca_picture(decoded: Arrays, layout: UvLayout) -> None:
    cases = decoded
    height, width = cases["render_images"].shape[2:]
    for i, ndc in enumerate(cases["trans_verts"].astype(float)):
        stable = cases["render_stable"][i]
        drawn = deca.rasterize(ndc, layout.faces, height, width)
        alpha = drawn.face >= 0
        grid = drawn.interpolate(deca.uv_ndc(layout.uv.astype(float)), layout.uv_faces)[..., :2]
        normals = drawn.interpolate(shown(cases, "vertex_normals", i), layout.faces)
        inward = drawn.interpolate(shown(cases, "render_transformed_normals", i), layout.faces)[..., 2]
        albedo = (
            np.moveaxis(deca.sample(cases["uv_texture"][i].astype(float), grid), 0, -1) * alpha[..., None]
        )
        shading = deca.shade(normals, cases["light"][i].astype(float))
        wanted: dict[str, NDArray[Any]] = {
            "render_alpha": alpha,
            "render_pos_mask": inward < -0.05,
            "render_albedo": albedo,
            "render_images": albedo * shading,
            "render_images_unlit": albedo,
            "render_shading": shading,
            "render_normal_images": normals,
            "shape_alpha": alpha & (inward < 0.15),
        }
        for name, value in wanted.items():
            published = np.moveaxis(cases[name][i], 0, -1)
            assert off(value.reshape(published.shape)[stable], published[stable]) < 1e-4, name
        assert off(grid[stable], cases["render_grid"][i][stable]) < 1e-4
        grey = deca.overlay(normals) * wanted["shape_alpha"]
        assert off(grey[stable], cases["shape_images"][i][0][stable]) < 1e-4


@needs("deca_decode/crop.npz")
def test_deca_crop_boxes() -> None:
    crops = arrays(ROOT / "deca_decode/crop.npz")
    size = crops["crop_0"].shape[1]
    for row, tform in zip(crops["box_table"], crops["tform"], strict=True):
        found = [deca.square(row[:4], rule) for rule in ("kpt68", "bbox")]
        got = np.concatenate([[one.face_size, *one.center, one.size] for one in found])
        assert off(got, row[4:]) < 1e-5
        assert off(found[0].transform(size), tform) / float(np.abs(tform).max()) < 1e-6
    width, height = Image.open(ROOT / "deca_decode/crop_source.png").size
    corners = np.array([[0, 0], [0, height - 1], [width - 1, 0]], float)
    target = np.array([[0, 0], [0, size - 1], [size - 1, 0]], float)
    assert off(deca.similarity(corners, target), crops["tform_iscrop_false"]) < 1e-5


@needs("deep3dface/cases.npz")
def test_deep3dface() -> None:
    folder = ROOT / "deep3dface"
    cases = arrays(folder / "cases.npz")
    shapes, seeds = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("state_dict_shapes", "seeds")
    )
    (seed,) = seeds.values()
    assert off(encoders.deep3d(seeded_state(shapes, seed), images(cases)), cases["coeffs"]) < 2e-5
    for angle, wanted in zip(cases["angles"], cases["rotation"], strict=True):
        assert off(deep3dface.rotation(angle.astype(float)), wanted) < 1e-6
    model = loadmat(str(folder / "BFM_model_front_synthetic.mat"))
    model = {name: value for name, value in model.items() if not name.startswith("__")}
    for i, code in enumerate(cases["bfm_coeffs"].astype(float)):
        face = deep3dface.face(model, code)
        for part in ("shape", "normals", "texture", "color"):
            name = f"bfm_{part}" if part in ("shape", "normals") else f"bfm_face_{part}"
            assert off(getattr(face, part), cases[name][i]) < 2e-5, name
        assert off(face.camera_vertices, cases["bfm_face_vertex"][i]) < 2e-5
        wanted = cases["bfm_landmarks68"]
        assert off(face.landmarks, wanted[i]) < 1e-6 * float(np.abs(wanted).max())


@needs("deep3dface/align.npz")
def test_alignment() -> None:
    cases = arrays(ROOT / "deep3dface/align.npz")
    standard, target = cases["lm3d_std"].astype(float), len(cases["image_aligned_uint8"])
    for i, (points, size) in enumerate(zip(cases["detections5"], cases["size_wh"], strict=True)):
        found = deep3dface.align(points.astype(float), size, standard, target, 102)
        assert off([*size, found.scale, *found.translation], cases["trans_params"][i]) < 1e-3
        assert off(found.points, cases["lm_new"][i]) < 1e-3
        assert list(found.resized) == cases["resize_wh"][i].tolist()
        assert [*found.corner, *(n + target for n in found.corner)] == cases["crop_box"][i].tolist()
    image = np.asarray(Image.open(ROOT / "deep3dface/align_source.png").convert("RGB"))
    size = np.array(image.shape[1::-1])
    found = deep3dface.align(cases["image_detections5"].astype(float), size, standard, target, 102)
    got = np.asarray(deep3dface.cut(image, found, target)).astype(int)
    assert off(got, cases["image_aligned_uint8"]) <= 1


@needs("eg3d_camera/labels.npz")
def test_eg3d_cameras() -> None:
    labels = arrays(ROOT / "eg3d_camera/labels.npz")
    codes = list(zip(labels["angle"].astype(float), labels["trans"].astype(float), strict=True))
    for i, code in enumerate(codes):
        assert off(deep3dface.pose(*code), labels["idr_pose"][i]) < 1e-6
        for mode in ("orig", "cor", "simplify"):
            label = deep3dface.label(*code, mode)
            assert off(label, labels[f"label_{mode}"][i]) < 1e-6
            if f"label_{mode}_mirror" in labels:
                assert off(deep3dface.mirrored(label), labels[f"label_{mode}_mirror"][i]) < 1e-6
    rows = zip(labels["lookat_args_h_v_pivot_radius"], labels["lookat_cam2world"], strict=True)
    for (h, v, *pivot, radius), wanted in rows:
        assert off(deep3dface.orbit(h, v, np.array(pivot), radius), wanted) < 1e-6


@needs("eg3d_camera/crops.npz")
def test_eg3d_crops() -> None:
    crops = arrays(ROOT / "eg3d_camera/crops.npz")
    name, (step,) = named(crops, r"crops_every(\d+)")
    for i, points in enumerate(crops["detections5"]):
        found = deep3dface.align(points, crops["size_wh"][i], crops["lm3d_std"].astype(float), 1024, 300)
        assert off(found.points, crops["lm_in_1024"][i]) < 1e-3
        assert list(found.resized) == crops["resize_wh"][i].tolist()
        assert [*found.corner, *(n + 1024 for n in found.corner)] == crops["align_box"][i].tolist()
        source = ROOT / f"eg3d_camera/wild_source_{i}.png"
        if source.exists():
            image = np.asarray(Image.open(source).convert("RGB"))
            got = deep3dface.generator_crop(image, found, int(crops["output_wh"][i, 0])).astype(int)
            assert off(got[::step, ::step], crops[name][i]) <= 2
