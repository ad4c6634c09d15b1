"""The expression template, on a portrait drawn from the head itself, so that the right answer is known."""

import numpy as np
import pytest
import torch

from portrait_core.cameras import project_to_crop
from portrait_core.face_model import landmark_regions as regions
from portrait_core.face_model.contours import Opening
from portrait_core.face_model.head import MorphableHead
from portrait_core.template.template import TemplateRenderer
from portrait_core.template.texture import membrane_fill
from tests.portrait_core.drawn_portrait import SIZE, SKIN, DrawnPortrait, render, renderer_of


@pytest.fixture(scope="module")
def closed(head: MorphableHead) -> DrawnPortrait:
    """A portrait with closed lips."""
    return renderer_of(head, mouthShrugLower=0.3, mouthPressLeft=0.5, mouthPressRight=0.5)


@pytest.fixture(scope="module")
def smiling(head: MorphableHead) -> DrawnPortrait:
    """A portrait with parted lips."""
    return renderer_of(head, jawOpen=0.35, mouthUpperUpLeft=0.6, mouthUpperUpRight=0.6)


def _iris_pixels(image: np.ndarray, marks: np.ndarray, eye: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels near an eye are blue, as ``(x, y)``."""
    center = marks[eye[0]]
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    near = np.hypot(x - center[0], y - center[1]) < 12
    rgb = image.astype(int)
    blue = near & (rgb[..., 2] > rgb[..., 0] + 25)
    return x[blue], y[blue]


@pytest.mark.parametrize("which", ["closed", "smiling"])
def test_the_portraits_own_expression_gives_the_portrait_back(
    head: MorphableHead, which: str, request: pytest.FixtureRequest
) -> None:
    portrait = request.getfixturevalue(which)
    got = render(head, portrait)
    difference = np.abs(got.image[0].astype(int) - portrait[1])
    assert difference.mean() < 0.3
    assert (difference.max(-1) > 24).mean() < 0.003
    assert got.uncovered.max() == 0


def test_eyes_that_are_shut_in_the_photograph_are_its_own(head: MorphableHead) -> None:
    """Neither is the line between lids drawn over them, nor do they move where lids are shut further."""
    portrait = renderer_of(head, eyeBlinkLeft=0.92, eyeBlinkRight=0.92)
    got = render(head, portrait).image[0].astype(int)
    assert np.abs(got - portrait[1]).mean() < 0.02
    shut = render(head, portrait, eyeBlinkLeft=1.0, eyeBlinkRight=1.0).image[0].astype(int)
    assert np.abs(shut - portrait[1]).mean() < 0.05


def test_shapes_ranges_and_batches(head: MorphableHead, closed: DrawnPortrait) -> None:
    renderer = closed[0]
    expression = np.tile(renderer.skin.fit.expression, (2, 1))
    expression[1, head.index("jawOpen")] = 0.5
    jaw = head.jaw_from_expression(torch.from_numpy(expression)).numpy()
    both = renderer.render(expression, jaw)
    assert both.image.shape == (2, SIZE, SIZE, 3)
    assert both.image.dtype == np.uint8
    for mask in both[1:]:
        assert mask.shape == (2, SIZE, SIZE)
        assert mask.dtype == np.float32
        assert mask.min() >= 0
        assert mask.max() <= 1
    assert (both.image[1] == renderer.render(expression[1:], jaw[1:]).image[0]).all()
    assert 0.05 < both.face_mask[0].mean() < 0.5


def test_a_blink_hides_the_iris_of_its_eye_only(head: MorphableHead, closed: DrawnPortrait) -> None:
    _, portrait, marks = closed
    shut = render(head, closed, eyeBlinkLeft=1.0).image[0]
    left, right = regions.LEFT_IRIS, regions.RIGHT_IRIS
    assert len(_iris_pixels(portrait, marks, left)[0]) > 8
    assert len(_iris_pixels(shut, marks, left)[0]) == 0
    assert len(_iris_pixels(shut, marks, right)[0]) > 0.9 * len(_iris_pixels(portrait, marks, right)[0])
    lid = shut[int(marks[386, 1]) + 1, int(marks[386, 0])].astype(int)
    assert np.abs(lid - SKIN).max() < 70  # skin, not eyeball
    assert lid[0] > lid[2]


def test_lids_that_meet_do_so_in_an_arc(head: MorphableHead, closed: DrawnPortrait) -> None:
    """Also where the lower lid, seen from the side, has a steep end: no upright stroke is drawn there."""
    painter = closed[0]._eyes[0]
    along = np.linspace(0.0, 20.0, 9)
    steep = np.stack([along, [0, 6.0, 6.5, 6.5, 6.0, 5.0, 3.5, 2.0, 0]], axis=1)
    met, shut = painter.opening(Opening.from_points(steep, steep))
    steepest = [np.abs(np.diff(one.lower)).max() for one in (met, Opening.from_points(steep, steep))]
    assert shut == 1.0
    assert met.gap.max() < 0.1
    assert steepest[0] < 0.7 * steepest[1]
    assert 0.6 * 6.5 < met.lower.max() < 1.3 * 6.5


def test_half_a_blink_hides_part(head: MorphableHead, closed: DrawnPortrait) -> None:
    marks = closed[2]
    count = [
        len(_iris_pixels(render(head, closed, eyeBlinkRight=b).image[0], marks, regions.RIGHT_IRIS)[0])
        for b in (0.0, 0.35, 1.0)
    ]
    assert count[0] > count[1] > count[2]


def test_gaze_moves_the_iris(head: MorphableHead, closed: DrawnPortrait) -> None:
    marks = closed[2]
    ahead = _iris_pixels(closed[1], marks, regions.LEFT_IRIS)[0].mean()
    aside = render(head, closed, eyeLookOutLeft=0.8).image[0]
    assert _iris_pixels(aside, marks, regions.LEFT_IRIS)[0].mean() > ahead + 1.0


def test_opening_the_jaw_opens_the_mouth(head: MorphableHead, closed: DrawnPortrait) -> None:
    area = [render(head, closed, jawOpen=a).mouth_mask[0].sum() for a in (0.0, 0.3, 0.6)]
    assert area[0] < 12
    assert area[1] > area[0] + 20
    assert area[2] > 1.4 * area[1]


def test_open_lips_close(head: MorphableHead, smiling: DrawnPortrait) -> None:
    """Nothing bright (a tooth) is left between lips that the portrait parts."""
    renderer, portrait, marks = smiling
    expression = np.zeros((1, head.n_expression), np.float32)
    for name in ("mouthPressLeft", "mouthPressRight", "mouthRollLower", "mouthRollUpper"):
        expression[0, head.index(name)] = 0.5
    got = renderer.render(expression, np.zeros((1, 3), np.float32))
    before = render(head, smiling).mouth_mask[0].sum()
    assert got.mouth_mask[0].sum() < 0.25 * before
    x0, x1 = int(marks[61, 0]) + 4, int(marks[291, 0]) - 4
    y0, y1 = int(marks[13, 1]) - 3, int(marks[14, 1]) + 3
    assert (portrait[y0:y1, x0:x1].min(-1) > 190).any()  # the teeth of the portrait
    assert not (got.image[0, y0:y1, x0:x1].min(-1) > 190).any()


def test_a_chin_that_goes_up_uncovers(head: MorphableHead, smiling: DrawnPortrait) -> None:
    expression = np.zeros((1, head.n_expression), np.float32)
    got = smiling[0].render(expression, np.zeros((1, 3), np.float32))
    rows = np.nonzero(got.uncovered[0].max(1) > 0.5)[0]
    assert len(rows)
    assert rows.min() > smiling[2][14, 1]  # below the mouth
    assert render(head, smiling, jawOpen=0.8).uncovered.sum() < got.uncovered.sum()


def test_the_mesh_as_painted_projects_onto_the_painted_landmarks(
    head: MorphableHead, closed: DrawnPortrait
) -> None:
    renderer, _, marks = closed
    fit = renderer.skin.fit
    vertices = renderer.vertices_box(fit.expression[None], fit.jaw[None])
    pixels = project_to_crop(torch.as_tensor(fit.camera[None]), vertices, SIZE)
    on_mesh = head.landmarks(pixels)[0, :, :2].numpy()
    error = np.linalg.norm(on_mesh - marks, axis=1)
    assert np.quantile(error, 0.97) < 0.3
    assert error.max() < 2.0  # lips that cross are parted


def test_input_is_checked(head: MorphableHead, closed: DrawnPortrait) -> None:
    renderer, portrait, marks = closed
    with pytest.raises(ValueError, match="crop_image"):
        TemplateRenderer(head, portrait[:-1], renderer.skin.fit, marks)
    with pytest.raises(ValueError, match="landmark detector"):
        TemplateRenderer(head, portrait, renderer.skin.fit, np.full((478, 2), np.nan))
    with pytest.raises(ValueError, match="one jaw per frame"):
        renderer.render(np.zeros((2, head.n_expression)), np.zeros((1, 3)))


def test_an_opening_knows_inside_from_outside() -> None:
    upper = np.array([[10.0, 20], [20, 14], [30, 20]])
    lower = np.array([[10.0, 20], [20, 26], [30, 20]])
    opening = Opening.from_points(upper, lower)
    assert opening.width == pytest.approx(20)
    assert opening.gap.max() == pytest.approx(12, abs=0.01)
    x, y = np.array([20.0, 20.0, 5.0], np.float32), np.array([20.0, 10.0, 20.0], np.float32)
    assert opening.coverage(x, y).tolist() == [1.0, 0.0, 0.0]
    back = opening.position(*opening.local(x, y))
    assert np.stack(back) == pytest.approx(np.stack([x, y]), abs=1e-4)
    turned = Opening.from_points(upper[:, ::-1] * [1, -1], lower[:, ::-1] * [1, -1])  # a quarter turn
    assert turned.gap == pytest.approx(opening.gap, abs=1e-3)
    assert opening.with_gap(np.zeros(65, np.float32), 0.5).gap.max() == 0


def test_a_membrane_spans_a_hole_without_overshoot() -> None:
    ramp = np.dstack([np.tile(np.arange(12.0, dtype=np.float32), (9, 1))] * 2)
    hole = np.zeros((9, 12), bool)
    hole[2:7, 3:9] = True
    broken = np.where(hole[..., None], 500.0, ramp).astype(np.float32)
    assert membrane_fill(broken, hole) == pytest.approx(ramp, abs=1e-3)
    assert (membrane_fill(broken, np.zeros_like(hole)) == broken).all()
