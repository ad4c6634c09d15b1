"""The morphable head: the embedded asset, and FLAME's arithmetic on a small made-up model."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from portrait_core.face_model.head import MorphableHead, axis_angle_to_matrix

HEAD = "data/models/embedded_head.safetensors"


@pytest.fixture(scope="module")
def head() -> MorphableHead:
    return MorphableHead.load(HEAD)


def _arrays(posedirs: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    regress = rng.uniform(0, 1, (5, 12))
    weights = rng.uniform(0, 1, (12, 5))
    arrays = {
        "v_template": rng.normal(size=(12, 3)),
        "shapedirs": rng.normal(size=(12, 3, 7)) * 0.1,
        "J_regressor": regress / regress.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        "f": np.array([[0, 1, 2], [3, 4, 5]]),
    }
    if posedirs:
        arrays["posedirs"] = rng.normal(size=(12, 3, 36)) * 0.01
    return arrays


def _flame_by_hand(arrays: dict[str, np.ndarray], betas: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """FLAME as its paper writes it: 4x4 transforms down the tree, in float64."""
    rest = arrays["v_template"] + arrays["shapedirs"] @ betas
    joints = arrays["J_regressor"] @ rest
    turn = Rotation.from_rotvec(pose).as_matrix()
    rest = rest + arrays["posedirs"] @ (turn[1:] - np.eye(3)).reshape(-1)
    world: list[np.ndarray] = []
    for joint, parent in enumerate([-1, 0, 1, 1, 1]):
        local = np.eye(4)
        local[:3, :3] = turn[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    out = np.zeros_like(rest)
    for joint in range(5):
        moved = (rest - joints[joint]) @ world[joint][:3, :3].T + world[joint][:3, 3]
        out += arrays["weights"][:, joint : joint + 1] * moved
    return out


def test_decodes_flame_arrays_as_the_paper_says() -> None:
    arrays, rng = _arrays(), np.random.default_rng(1)
    betas, pose = rng.normal(size=7), rng.normal(size=(5, 3)) * 0.5
    small = MorphableHead(arrays, {"n_shape": "4"})

    def t(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(x)).float()[None]

    got = small.decode(
        t(betas[:4]), t(betas[4:]), t(pose[2]), t(pose[3:].reshape(-1)), t(pose[1]), t(pose[0])
    )
    assert got[0].numpy() == pytest.approx(_flame_by_hand(arrays, betas, pose), abs=1e-5)
    assert small.expression_names == ["expression0", "expression1", "expression2"]


def test_fewer_components_mean_zeros_and_one_shape_serves_many_frames() -> None:
    small = MorphableHead(_arrays(posedirs=False), {"n_shape": "4"})
    expression = torch.randn(3, 3)
    full = small.decode(torch.tensor([[1.0, 2, 0, 0]]).expand(3, -1), expression)
    assert torch.equal(small.decode(torch.tensor([[1.0, 2]]), expression), full)


def test_rejects_what_it_cannot_decode() -> None:
    arrays = _arrays()
    with pytest.raises(ValueError, match="cut it"):
        MorphableHead(arrays, {"n_shape": "4"}).decode(torch.zeros(1, 5), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="n_shape"):
        MorphableHead(arrays, {"n_shape": "9"})
    with pytest.raises(ValueError, match="lacks"):
        MorphableHead({k: v for k, v in arrays.items() if k != "weights"}, {"n_shape": "4"})
    with pytest.raises(ValueError, match="no head model"):
        MorphableHead.load("nowhere.safetensors")
    with pytest.raises(ValueError, match="root first"):
        MorphableHead(arrays | {"kintree_table": np.array([[0, 0, 1, 1, 1], range(5)])}, {"n_shape": "4"})


def test_rodrigues_agrees_with_scipy_and_survives_zero() -> None:
    rotation = np.concatenate([np.random.default_rng(2).normal(size=(20, 3)), np.zeros((1, 3))])
    got = axis_angle_to_matrix(torch.from_numpy(rotation)).numpy()
    assert got == pytest.approx(Rotation.from_rotvec(rotation).as_matrix(), abs=1e-6)


def test_opening_the_jaw_lowers_the_chin_and_nothing_above(head: MorphableHead) -> None:
    expression = torch.zeros(2, head.n_expression)
    expression[1, head.index("jawOpen")] = 1.0
    marks = head.landmarks(
        head.decode(torch.zeros(1, head.n_shape), expression, head.jaw_from_expression(expression))
    )
    drop = marks[0, :, 1] - marks[1, :, 1]
    assert drop[152] > 0.015  # chin
    assert drop[14] - drop[13] > 0.015  # the lips part
    assert drop[[10, 33, 263, 6]].abs().max() < 1e-4  # forehead, eyes, nose bridge


def test_blinking_closes_the_named_eye(head: MorphableHead) -> None:
    expression = torch.zeros(2, head.n_expression)
    expression[1, head.index("eyeBlinkLeft")] = 1.0
    marks = head.landmarks(head.decode(torch.zeros(1, head.n_shape), expression))

    def gap(a: int, b: int) -> torch.Tensor:
        return (marks[:, a] - marks[:, b]).norm(dim=-1)

    left, right = gap(386, 374), gap(159, 145)
    assert left[1] < 0.35 * left[0]
    assert float(right[1]) == pytest.approx(float(right[0]), rel=1e-3)
    assert marks[0, 386, 0] > 0  # the subject's left is at +x


def test_box_frame_and_groups(head: MorphableHead) -> None:
    points = torch.randn(1, 5, 3)
    assert head.from_box(head.to_box(points)) == pytest.approx(points, abs=1e-6)
    assert head.to_box(torch.tensor([[[0.0, -0.012, -0.06]]])).abs().max() < 1e-6
    teeth = head.group_vertices("helper-upper-teeth")
    assert 0 < teeth.sum() < 200
    assert len(head.face_group) == len(head.faces)
    with pytest.raises(ValueError, match="no face group"):
        head.group("ears")
    with pytest.raises(ValueError, match="no mask"):
        head.mask("hair")
    with pytest.raises(ValueError, match="no expression unit"):
        head.index("smile")


def test_landmark_basis_is_what_decode_does_with_joints_at_rest(head: MorphableHead) -> None:
    indices = [33, 152, 386]
    mean, basis = head.landmark_basis(indices)
    code = torch.randn(1, head.n_shape) * 0.5
    expression = torch.rand(1, head.n_expression) * 0.3
    marks = head.landmarks(head.decode(code, expression))[0, indices]
    linear = mean + basis @ torch.cat([code, expression], 1)[0].double().numpy()
    assert marks.numpy() == pytest.approx(linear, abs=1e-5)
