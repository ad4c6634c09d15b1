"""The rasteriser against a slow loop, and its edge cases."""

import numpy as np
import pytest
import torch

from portrait_core.face_model.raster import interpolate, rasterize, vertex_normals


def _slow(vertices: np.ndarray, faces: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:height, :width] + 0.5
    depth, face = np.full((height, width), np.inf), np.full((height, width), -1)
    for index, (i, j, k) in enumerate(faces):
        a, b, c = vertices[i], vertices[j], vertices[k]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if abs(area) < 1e-12 or min(a[2], b[2], c[2]) <= 1e-3:
            continue
        wa = ((b[0] - x) * (c[1] - y) - (c[0] - x) * (b[1] - y)) / area
        wb = ((c[0] - x) * (a[1] - y) - (a[0] - x) * (c[1] - y)) / area
        wc = 1 - wa - wb
        z = 1 / np.where(wa / a[2] + wb / b[2] + wc / c[2] > 0, wa / a[2] + wb / b[2] + wc / c[2], np.nan)
        hit = (wa >= 0) & (wb >= 0) & (wc >= 0) & (z < depth)
        depth[hit], face[hit] = z[hit], index
    return face, depth


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 24, 32), (3, 17, 9)])
def test_agrees_with_a_loop_over_triangles(batch: int, height: int, width: int) -> None:
    rng = np.random.default_rng(batch)
    vertices = rng.uniform([-4, -3, -0.2], [width + 4, height + 3, 2], (batch, 60, 3)).astype(np.float32)
    faces = rng.integers(0, 60, (80, 3))
    got = rasterize(torch.from_numpy(vertices), torch.from_numpy(faces), height, width)
    for b in range(batch):
        face, depth = _slow(vertices[b].astype(float), faces, height, width)
        assert (got.face_id[b].numpy() == face).mean() > 0.999
        same = (got.face_id[b].numpy() == face) & (face >= 0)
        assert np.abs(got.depth[b].numpy()[same] - depth[same]).max() < 1e-5
        assert np.isinf(got.depth[b].numpy()[got.face_id[b].numpy() < 0]).all()


def test_a_shared_edge_through_pixel_centres_leaves_no_gap() -> None:
    vertices = torch.tensor([[[0.5, 0.5, 1.0], [8.6, 0.5, 1.0], [8.6, 8.6, 1.0], [0.5, 8.6, 1.0]]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    got = rasterize(vertices, faces, 9, 9)
    assert (got.face_id >= 0).all()
    assert got.bary.sum(-1).numpy() == pytest.approx(np.ones((1, 9, 9)), abs=1e-6)


def test_interpolation_is_perspective_correct() -> None:
    # a strip that recedes from depth 1 to depth 3: half way across the image lies at depth 1.5, not 2
    vertices = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 10.0, 1.0], [11.0, 0.0, 3.0], [11.0, 10.0, 3.0]]])
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]])
    got = rasterize(vertices, faces, 10, 11)
    depth = interpolate(vertices[..., 2:], faces, got)[0, 5, 5, 0]
    assert depth == pytest.approx(1.5, abs=1e-5)
    assert got.depth[0, 5, 5] == pytest.approx(1.5, abs=1e-5)


def test_without_perspective_depth_is_affine_and_may_be_negative() -> None:
    strip = torch.tensor([[[0.0, 0.0, -1.0], [0.0, 10.0, -1.0], [11.0, 0.0, 3.0], [11.0, 10.0, 3.0]]])
    behind = strip + torch.tensor([0.0, 0.0, 2.0])
    faces = torch.tensor([[4, 5, 6], [6, 5, 7], [0, 1, 2], [2, 1, 3]])
    both = torch.cat([strip, behind], 1)
    got = rasterize(both, faces, 10, 11, perspective=False)
    assert (got.face_id >= 2).all()
    assert got.depth[0, 5, 5] == pytest.approx(1.0, abs=1e-5)  # half way
    assert interpolate(both[..., 2:], faces, got)[0, 5, 5, 0] == pytest.approx(1.0, abs=1e-5)


def test_culling_drops_faces_that_look_away() -> None:
    toward = torch.tensor([[[1.0, 9.0, 1.0], [9.0, 9.0, 1.0], [5.0, 1.0, 1.0]]])  # y up: counter-clockwise
    front, back = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 2, 1]])
    assert (rasterize(toward, front, 10, 10, cull_backfaces=True).face_id >= 0).any()
    assert not (rasterize(toward, back, 10, 10, cull_backfaces=True).face_id >= 0).any()


def test_nothing_to_draw() -> None:
    behind = torch.tensor([[[1.0, 1.0, -1.0], [9.0, 1.0, -1.0], [5.0, 9.0, -1.0]]])
    got = rasterize(behind, torch.tensor([[0, 1, 2]]), 10, 10)
    assert (got.face_id == -1).all()
    assert (interpolate(behind, torch.tensor([[0, 1, 2]]), got) == 0).all()


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="batch axis"):
        rasterize(torch.zeros(4, 3), torch.zeros(1, 3, dtype=torch.long), 4, 4)
    with pytest.raises(ValueError, match="triangles"):
        rasterize(torch.zeros(1, 4, 3), torch.zeros(1, 4, dtype=torch.long), 4, 4)


def test_normals_of_an_octahedron_point_outward() -> None:
    vertices = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])[None]
    faces = torch.tensor(
        [[4, 0, 2], [4, 2, 1], [4, 1, 3], [4, 3, 0], [5, 2, 0], [5, 1, 2], [5, 3, 1], [5, 0, 3]]
    )
    assert vertex_normals(vertices, faces).numpy() == pytest.approx(vertices.numpy(), abs=1e-6)
