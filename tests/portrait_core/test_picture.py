"""Frames drawn with the photograph's own pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from portrait_core.cameras import labels_from_rotations, orbit_labels
from portrait_core.config import load_settings
from portrait_core.faces.head import MorphableHead
from portrait_core.inversion.targets import image_tensor
from portrait_core.models.needs import weight_file
from portrait_core.rendering.motion import CameraMotion, HeadMotion
from portrait_core.rendering.neck import Neck
from portrait_core.rendering.page import Page
from portrait_core.rendering.picture import Canvas, FrameInputs, PictureRenderer
from portrait_core.rendering.surfaces import continued
from tests.portrait_core import tiny

SIDE, OWN = 48, torch.from_numpy(orbit_labels(0.1, 0.05))


def _page() -> Page:
    return Page.of((100, 90), (52.5, 40.25), 47.5, "photograph", 1024, 32)


def _layers(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A photograph of noise, and layers that have little to do with it."""
    draw = np.random.default_rng(seed)
    photograph, front, back = (draw.integers(0, 256, (90, 100, 3), np.uint8) for _ in range(3))
    y, x = np.mgrid[:90, :100]
    coverage = np.clip(2 - np.hypot(x - 52, y - 45) / 15, 0, 1).astype(np.float32)
    return photograph, coverage, front, back


def _renderer(motion: str, page: Page) -> tuple[PictureRenderer, np.ndarray]:
    parts = _layers()
    canvas = Canvas(*(page.canvas.cut(part) for part in parts), page.window.within(page.canvas))
    model, settings = (
        tiny.generator(),
        load_settings("embedded", ["render.samples=6", "render.importance_samples=4"]),
    )
    head = MorphableHead.load(weight_file(settings, "head"))
    moves: HeadMotion | CameraMotion = CameraMotion(page)
    if motion == "head":
        moves = HeadMotion(Neck(head, head.to_box(head.template[None])[0]), OWN, page)
    first = model.mapping(
        torch.randn(1, model.settings.z_dim, generator=torch.Generator().manual_seed(3)), None
    )
    face = torch.zeros(1, 1, page.window.side, page.window.side)
    face[..., 14:30, 16:32] = 1.0
    camera = page.camera(OWN, page.canvas)
    arguments = (model, first, face, camera, canvas, moves, settings.render, settings.composite)
    return PictureRenderer(*arguments), parts[0]


def _inputs(renderer: PictureRenderer, page: Page, photograph: np.ndarray) -> FrameInputs:
    template = image_tensor(np.asarray(page.window.cut(photograph)))[None]
    side = page.window.side
    face = renderer.first_face[..., :side, :side] * 0
    face[..., 14:30, 16:32] = 1.0
    return FrameInputs(renderer.first, template, face, torch.zeros_like(face))


@pytest.mark.parametrize("motion", ["head", "camera"])
def test_at_its_own_pose_and_expression_the_photograph_comes_out_to_the_bit(motion: str) -> None:
    page = _page()
    renderer, photograph = _renderer(motion, page)
    drawn = renderer.render(_inputs(renderer, page, photograph), OWN)
    found = page.finished(photograph, drawn.image)
    outside = page.finished(np.zeros((90, 100, 1), np.uint8), drawn.mask[..., None])[..., 0] == 0
    np.testing.assert_array_equal(found[outside], photograph[outside])
    # inside the face it is the template, here the photograph's too, up to layers that do not add up to it
    assert drawn.mask.max() == 255


def test_a_head_that_turns_leaves_the_body_its_pixels_to_the_bit() -> None:
    page = _page()
    renderer, photograph = _renderer("head", page)
    drawn = renderer.render(_inputs(renderer, page, photograph), torch.from_numpy(orbit_labels(-0.4, 0.2)))
    changed = (page.finished(photograph, drawn.image) != photograph).any(-1)
    assert changed.mean() > 0.1, "a head has turned"
    low = page.canvas.y + int(0.95 * page.canvas.side)
    assert not changed[min(low, 89) :].any()


def test_what_turns_is_looked_up_where_the_head_took_it() -> None:
    """Of a head that rolls by 20 degrees pixels lie elsewhere in the photograph, those of the body where they
    are."""
    page = _page()
    renderer, _ = _renderer("head", page)
    turn = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    flip = labels_from_rotations(np.eye(3)[None])
    assert flip.shape == (1, 25)
    own = renderer.motion._own  # type: ignore[attr-defined]
    view = renderer.motion.view(torch.from_numpy(labels_from_rotations((own @ turn)[None])), renderer.rays)
    look = renderer.source.lookup(renderer._base(view))
    head = look.move[..., renderer.rays // 4, renderer.rays // 2]
    assert head.norm() > 0.05
    still = look.move[..., -1, renderer.rays // 2]
    assert still.norm() < 1e-4


def test_known_depths_stay_and_others_lie_between_them() -> None:
    values = torch.rand(1, 1, 19, 19, generator=torch.Generator().manual_seed(0))
    known = torch.zeros_like(values)
    known[..., 3:12, 5:14] = 1.0
    found = continued(values, known)
    inside = known > 0
    assert torch.equal(found[inside], values[inside])
    assert found.min() >= values[inside].min() - 1e-6
    assert found.max() <= values[inside].max() + 1e-6


def test_without_any_known_depth_nothing_is_infinite() -> None:
    assert torch.isfinite(continued(torch.rand(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))).all()


def test_nothing_of_a_head_stays_where_it_was_when_it_turned_away() -> None:
    page = _page()
    renderer, _ = _renderer("head", page)
    bend = renderer.motion.view(torch.from_numpy(orbit_labels(-0.4, 0.2)), renderer.rays).bend
    assert bend is not None
    points = renderer.surface.points.reshape(1, -1, 3)
    moved = (bend.seen_at(points) - points).norm(dim=-1).reshape(renderer.surface.weight.shape) > 0.01
    assert (renderer.surface.weight[moved] > 0.5).any(), "there was a head"
    left = renderer._left(bend)
    assert (left.weight[moved] == 0).all()
    unmoved = (bend.seen_at(points) - points).norm(dim=-1).reshape(left.weight.shape) < 1e-6
    assert torch.equal(left.weight[unmoved], renderer.surface.weight[unmoved])
