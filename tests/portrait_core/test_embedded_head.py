"""The checked-in morphable head: what its arrays promise."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait_core.face_model.head import MorphableHead
from portrait_core.runtime.package_files import data_folder
from portrait_core.training.build_head import hinge, jaw_corrective
from portrait_core.training.head_parts import front_hit, joint_regressor

ASSET = data_folder() / "models" / "embedded_head.safetensors"


@pytest.fixture(scope="module")
def head() -> MorphableHead:
    return MorphableHead.load(ASSET)


def _units(head: MorphableHead, **values: float) -> torch.Tensor:
    expression = torch.zeros(1, len(head.expression_names))
    for name, value in values.items():
        expression[0, head.index(name)] = value
    return expression


def _decode(head: MorphableHead, **values: float) -> np.ndarray:
    expression = _units(head, **values)
    return head.decode(torch.zeros(1, 50), expression, head.jaw_from_expression(expression))[0].numpy()


def _group(head: MorphableHead, name: str) -> np.ndarray:
    return np.unique(head.faces[head.face_group == head.group(name)].numpy())


def test_asset_and_its_description_agree(head: MorphableHead) -> None:
    described = json.loads(Path(ASSET).with_suffix(".json").read_text())
    assert described["expression_names"] == head.expression_names
    assert described["arrays"]["v_template"]["shape"] == [head.n_vertices, 3]
    assert len(head.expression_names) == 52
    assert head.n_shape == 50


def test_average_head_is_a_head_in_metres(head: MorphableHead) -> None:
    rest = _decode(head)
    assert 0.25 < np.ptp(rest[:, 1]) < 0.33
    eyes = [rest[_group(head, f"helper-{side}-eye")].mean(0) for side in "lr"]
    np.testing.assert_allclose(0.5 * (eyes[0] + eyes[1]), 0, atol=1e-3)
    assert eyes[0][0] > 0.025  # the subject's left eye is at the image's right
    nose = rest[np.argmax(rest[:, 2])]
    assert abs(nose[0]) < 2e-3
    assert -0.06 < nose[1] < -0.02


def test_jaw_pose_and_corrective_reproduce_jaw_open(head: MorphableHead) -> None:
    """The chin and the lower teeth go down, the upper teeth stay, and no part tears from its neighbours."""
    rest, opened = _decode(head), _decode(head, jawOpen=1.0)
    lower, upper = _group(head, "helper-lower-teeth"), _group(head, "helper-upper-teeth")
    np.testing.assert_allclose(opened[upper], rest[upper], atol=2e-4)
    assert (opened - rest)[lower, 1].max() < -0.005
    edge = head.faces.numpy()[:, :2]
    length = [np.linalg.norm(v[edge[:, 0]] - v[edge[:, 1]], axis=1) for v in (rest, opened)]
    assert (length[1] - length[0]).max() < 0.02


def test_shape_components_are_independent_of_the_units(head: MorphableHead) -> None:
    """A joint must not follow an expression, or a blend shape would bend the neck."""
    regressor = head.get_buffer("J_regressor")
    basis = head.get_buffer("shapedirs")
    moved = torch.einsum("jv,vck->jck", regressor[:3], basis[..., 50:]).abs().max()
    assert float(moved) < 2e-4
    rest = head.get_buffer("v_template")
    pivot = (regressor @ rest)[2]
    np.testing.assert_allclose(pivot.numpy(), [0, -0.053, -0.055], atol=1e-5)


@pytest.mark.parametrize(
    ("unit", "axis", "sign"),
    [
        ("eyeLookOutLeft", 0, 1),
        ("eyeLookInLeft", 0, -1),
        ("eyeLookUpLeft", 1, 1),
        ("eyeLookDownLeft", 1, -1),
    ],
)
def test_gaze_units_turn_the_iris(head: MorphableHead, unit: str, axis: int, sign: int) -> None:
    posed = [torch.from_numpy(v)[None] for v in (_decode(head), _decode(head, **{unit: 1.0}))]
    centre = [head.landmarks(v)[0, 473].numpy() for v in posed]
    assert sign * (centre[1] - centre[0])[axis] > 0.002


def test_iris_points_lie_on_the_front_of_their_eye(head: MorphableHead) -> None:
    points = head.landmarks(torch.from_numpy(_decode(head))[None])[0].numpy()
    for first, side in ((468, "r"), (473, "l")):
        eye = _decode(head)[_group(head, f"helper-{side}-eye")]
        offset = points[first : first + 5] - eye.mean(0)
        assert (offset[:, 2] > 0.012).all()
        np.testing.assert_allclose(np.linalg.norm(offset[1:, :2], axis=1), 0.00585, rtol=0.05)
        assert offset[1, 0] > 0.005  # right in the image, top, left, bottom
        assert offset[2, 1] > 0.005
        assert offset[3, 0] < -0.005
        assert offset[4, 1] < -0.005


def test_blink_closes_the_lids(head: MorphableHead) -> None:
    def gap(v: np.ndarray) -> float:
        p = head.landmarks(torch.from_numpy(v)[None])[0].numpy()
        return float(np.linalg.norm(p[159] - p[145]))

    assert gap(_decode(head, eyeBlinkRight=1.0)) < 0.45 * gap(_decode(head))


def test_jaw_corrective_is_exact_for_any_target() -> None:
    rng = np.random.default_rng(0)
    v, move, weight = rng.normal(size=(40, 3)), rng.normal(size=(40, 3)), rng.random(40)
    pivot = np.array([0.0, -0.05, -0.05])
    rest = v + jaw_corrective(v, move, weight, pivot, 0.4) - pivot
    posed = rest + weight[:, None] * (rest @ (hinge(0.4) - np.eye(3)).T) + pivot
    np.testing.assert_allclose(posed, v + move, atol=1e-12)


def test_joint_regressor_follows_a_shift_and_ignores_moving_vertices() -> None:
    rng = np.random.default_rng(1)
    v = rng.normal(size=(300, 3)) * 0.1
    joints = np.array([[0, 0, 0], [0, 0, 0], [0.01, -0.02, 0.0], v[:5].mean(0), v[5:9].mean(0)])
    still = np.ones(300, dtype=bool)
    still[:100] = False
    shift = np.array([1.0, 2.0, 3.0])
    regressor = joint_regressor(v, joints, still, [np.arange(5), np.arange(5, 9)])
    np.testing.assert_allclose(regressor @ (v + shift), joints + shift, atol=1e-9)
    assert not regressor[:3, :100].any()


def test_front_hit_takes_the_nearest_triangle() -> None:
    square = np.array(
        [[[-1, -1, 0], [2, -1, 0], [-1, 2, 0]], [[-1, -1, 1], [2, -1, 1], [-1, 2, 1]]], dtype=float
    )
    triangle, weight = front_hit(square, np.array([0.0, 0.0]))
    assert triangle == 1
    np.testing.assert_allclose(weight @ square[1], [0, 0, 1], atol=1e-12)
