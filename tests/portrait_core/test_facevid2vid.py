"""Face-vid2vid in small: its arithmetic against loops, free views against cameras, frames in any order."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait_core.baselines import facevid2vid_checkpoint
from portrait_core.baselines.facevid2vid import FaceVid2VidAnimator
from portrait_core.baselines.facevid2vid_checkpoint import (
    Decoder,
    FaceVid2VidNetworks,
    FaceVid2VidWeights,
    read_facevid2vid,
)
from portrait_core.baselines.facevid2vid_generators import SpectralConvolution, generator_from_state
from portrait_core.baselines.facevid2vid_keypoints import (
    Antialias,
    HeadEstimator,
    HeadState,
    KeypointDetector,
    degrees_from_bins,
)
from portrait_core.baselines.facevid2vid_motion import (
    DenseMotion,
    keypoint_heatmaps,
    sample_flows,
    sparse_flows,
)
from portrait_core.baselines.facevid2vid_pose import (
    degrees_from_labels,
    pose_keypoints,
    relative_keypoints,
    relative_scale,
    rotation_from_degrees,
)
from portrait_core.cameras.labels import RADIUS, orbit_labels, project_to_crop
from portrait_core.errors import ModelFileError
from portrait_core.model_files.check import check_model, identify_model
from portrait_core.tracking.encoders import as_input
from tests.plain import facevid2vid as plain
from tests.portrait_core import facevid2vid_small as small

RNG = np.random.default_rng(0)
SOURCE, DRIVING, INITIAL = RNG.uniform(-0.8, 0.8, (3, small.KEYPOINTS, 3))
VOLUME = RNG.normal(size=(2, 3, 4, 5))
ATOL = 2e-6


def tensor(values: Any) -> Tensor:
    """One row of a batch, in single precision."""
    return torch.from_numpy(np.asarray(values)).float()[None]


def check(got: Tensor, wanted: Any, atol: float = ATOL) -> None:
    np.testing.assert_allclose(got.numpy(), np.asarray(wanted)[None], rtol=0, atol=atol)


@pytest.fixture(scope="module", params=["spade", "original"])
def networks(request: pytest.FixtureRequest) -> FaceVid2VidNetworks:
    return small.networks(request.param)


@pytest.fixture(scope="module")
def spade() -> FaceVid2VidNetworks:
    return small.networks()


@pytest.fixture(scope="module")
def animator(spade: FaceVid2VidNetworks) -> FaceVid2VidAnimator:
    return FaceVid2VidAnimator(spade, small.picture(9), small.picture)


@pytest.fixture(scope="module")
def absolute(spade: FaceVid2VidNetworks) -> FaceVid2VidAnimator:
    return FaceVid2VidAnimator(spade, small.picture(9), small.picture, relative=False)


def test_keypoints_are_expected_places(spade: FaceVid2VidNetworks) -> None:
    image, scores = as_input(torch.from_numpy(small.picture(0))[None]), []
    handle = spade.detector.kp.register_forward_hook(lambda _, __, made: scores.append(made))
    found = spade.detector(image)
    handle.remove()
    assert scores[0].shape[2:] == (3, 8, 8)
    check(found, plain.expected_places(scores[0][0].double().numpy()), 1e-5)


def test_angles_of_bins() -> None:
    scores = RNG.normal(size=66) * 3
    assert float(degrees_from_bins(tensor(scores))) == pytest.approx(plain.degrees(scores), abs=1e-4)
    sure = torch.full((1, 66), -1e4)
    sure[0, 40] = 0
    assert float(degrees_from_bins(sure)) == pytest.approx(21)


def test_poses_of_keypoints() -> None:
    degrees, t, exp = RNG.uniform(-60, 60, 3), RNG.normal(size=3), RNG.normal(size=3 * small.KEYPOINTS)
    check(rotation_from_degrees(tensor(degrees)), plain.rotation(*degrees))
    got = pose_keypoints(tensor(SOURCE), tensor(degrees), tensor(t), tensor(exp))
    check(got, plain.posed(SOURCE, degrees, t, exp))


def test_the_estimators_names_slip() -> None:
    network = small.estimator().eval()
    for layer, place in (("fc_roll", 0), ("fc_pitch", 1), ("fc_yaw", 2)):
        linear = network.get_submodule(layer)
        assert isinstance(linear, torch.nn.Linear)
        torch.nn.init.constant_(linear.weight, 0)
        torch.nn.init.constant_(linear.bias, -1e4)
        with torch.no_grad():
            linear.bias[10 * (place + 1)] = 0
    with torch.no_grad():
        degrees = network(torch.zeros(1, 3, 32, 32)).degrees()
    assert degrees[0].tolist() == [-69, -39, -9]


def test_a_head_states_translation_is_not_changed() -> None:
    t = tensor([0.1, 0.2, 0.3])
    for _ in range(2):
        pose_keypoints(tensor(SOURCE), tensor([1.0, 2.0, 3.0]), t, tensor(np.zeros(3 * small.KEYPOINTS)))
    assert torch.equal(t, tensor([0.1, 0.2, 0.3]))


def test_relative_mode() -> None:
    source, driving, initial = map(tensor, (SOURCE, DRIVING, INITIAL))
    got = relative_keypoints(source, driving, initial, relative_scale(source, initial))
    check(got, plain.relative(SOURCE, DRIVING, INITIAL))
    assert torch.equal(relative_keypoints(source, initial, initial, 3.0), source)
    flat = source * torch.tensor([1.0, 1.0, 0.0])
    with pytest.raises(ValueError, match="keypoints lie in one plane"):
        relative_scale(source, flat)


def test_heatmaps_and_flows() -> None:
    volume, shape = tensor(VOLUME), VOLUME.shape[1:]
    depth, height, width = shape
    check(keypoint_heatmaps(tensor(SOURCE), volume), plain.heatmaps(SOURCE, (depth, height, width)))
    flows = plain.flows(SOURCE, DRIVING, (depth, height, width))
    check(sparse_flows(tensor(SOURCE), tensor(DRIVING), volume), flows)
    check(sample_flows(volume, tensor(flows)), [plain.moved(VOLUME, flow) for flow in flows], 1e-5)


def test_dense_motion(spade: FaceVid2VidNetworks) -> None:
    network: DenseMotion = spade.generator.dense_motion_network
    volume, read, scores = tensor(RNG.normal(size=(4, 3, 4, 4))), [], []
    handles = (
        network.hourglass.register_forward_pre_hook(lambda _, given: read.append(given[0])),
        network.mask.register_forward_hook(lambda _, __, made: scores.append(made)),
    )
    motion = network(volume, tensor(SOURCE), tensor(DRIVING))
    for handle in handles:
        handle.remove()
    compressed = torch.relu(network.norm(network.compress(volume)))[0].double().numpy()
    check(read[0], plain.motion_input(compressed, SOURCE, DRIVING), 1e-5)
    check(motion.deformation, plain.deformation(scores[0][0].double().numpy(), SOURCE, DRIVING), 1e-5)
    assert float(motion.mask.std()) > 0.01
    assert motion.occlusion.shape == (1, 1, 4, 4)


def test_a_blur_with_every_fourth_pixel() -> None:
    image = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    places = np.arange(13) - 6.0
    row = np.exp(-(places**2) / (2 * 1.5**2))
    kernel = np.outer(row, row) / row.sum() ** 2
    padded = np.pad(image[0].double().numpy(), ((0, 0), (6, 6), (6, 6)))
    wanted = np.zeros((3, 5, 5))
    for y, x in itertools.product(range(5), range(5)):
        wanted[:, y, x] = (padded[:, 4 * y : 4 * y + 13, 4 * x : 4 * x + 13] * kernel).sum((1, 2))
    check(Antialias(13)(image), wanted)


def test_spectral_norm() -> None:
    layer = SpectralConvolution(3, 4, 3)
    weight = layer.weight_orig.detach().flatten(1)
    u, s, v = torch.linalg.svd(weight)
    layer.weight_u, layer.weight_v = u[:, 0].contiguous(), v[0].contiguous()
    x = torch.randn(1, 3, 5, 5)
    kernel = layer.weight_orig / s[0]
    wanted = torch.nn.functional.conv2d(x, kernel, layer.bias, padding=1)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    assert torch.allclose(layer(x), wanted, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("angles", [(0.5, 0, 0), (0, 0.4, 0), (0, 0, 0.3), (-0.6, 0.35, -0.2)])
def test_asked_degrees_turn_keypoints_as_the_camera_sees_the_head(angles: tuple[float, ...]) -> None:
    label = orbit_labels(*angles)
    head = RNG.normal(size=(small.KEYPOINTS, 3))  # y up, z towards the viewer
    world2cam = np.linalg.inv(label[0, :16].reshape(4, 4).astype(np.float64))
    seen = head @ world2cam[:3, :3].T + world2cam[:3, 3] - [0, 0, RADIUS]
    canonical = head * [1, -1, -1]
    none = np.zeros(3), np.zeros(3 * small.KEYPOINTS)
    got = pose_keypoints(tensor(canonical), tensor(degrees_from_labels(label)[0]), *map(tensor, none))
    check(got, seen, 1e-5)


@pytest.mark.parametrize(("place", "axis", "sign"), [(0, 0, -1), (1, 1, 1), (2, 0, 1)])
def test_signs_of_asked_degrees(place: int, axis: int, sign: int) -> None:
    """A camera to the right sees the nose at the left, one above sees it low, roll is clockwise."""
    angles = [0.0, 0.0, 0.0]
    angles[place] = 0.3
    label = orbit_labels(*angles)
    degrees = degrees_from_labels(label)[0]
    assert degrees[place] > 0
    assert np.abs(np.delete(degrees, place)).max() < 1e-4
    point = np.array([0, 0.3, 0]) if place == 2 else np.array([0, 0, 0.3])  # the forehead's top, the nose
    seen = project_to_crop(torch.from_numpy(label), tensor(point[None]), 256)[0, 0, :2] - 128
    moved = (rotation_from_degrees(tensor(degrees)) @ tensor(point * [1, -1, -1])[..., None])[0, :2, 0]
    assert float(seen[axis]) * sign > 10
    assert float(moved[axis]) * sign > 0.05


def test_labels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"camera labels are \[n,25\], got \(2, 16\)"):
        degrees_from_labels(np.zeros((2, 16)))


def test_sizes_come_from_the_entries(networks: FaceVid2VidNetworks) -> None:
    states = [network.state_dict() for network in networks]
    again = FaceVid2VidNetworks(
        KeypointDetector.from_state(states[0]),
        HeadEstimator.from_state(states[1]),
        generator_from_state(states[2]),
    )
    image = as_input(torch.from_numpy(small.picture(1))[None])
    assert torch.equal(again.detector(image), networks.detector(image))
    for one, other in zip(again.estimator(image), networks.estimator(image), strict=True):
        assert torch.equal(one, other)
    points = tensor(SOURCE), tensor(DRIVING)
    drawn = [one.generator.draw(one.generator.encode(image), *points).picture for one in (again, networks)]
    assert drawn[0].shape == image.shape
    assert torch.equal(*drawn)
    for state, build in zip(
        states, (KeypointDetector.from_state, HeadEstimator.from_state, generator_from_state), strict=True
    ):
        first = next(iter(state))
        with pytest.raises(ValueError, match="is missing"):
            build({name: value for name, value in state.items() if name != first})
        with pytest.raises(ValueError, match="more is unknown"):
            build({**state, "more": torch.zeros(1)})


def test_frames_in_any_order_and_grouping(animator: FaceVid2VidAnimator, spade: FaceVid2VidNetworks) -> None:
    frames = [0, 3, 1, 5, 2]
    batched = FaceVid2VidAnimator(spade, small.picture(9), small.picture, batch=2)
    cameras = [orbit_labels(0.1 * i, -0.05 * i)[0] for i in range(6)]
    for given in (None, [cameras[i] for i in frames]):
        together = animator.animate(frames, given)
        assert together.shape == (5, small.SIZE, small.SIZE, 3)
        assert together.dtype == np.uint8
        assert np.abs(together[0].astype(int) - together[3]).max() > 3
        alone = [animator.animate([i], None if given is None else [cameras[i]])[0] for i in frames]
        assert np.array_equal(together, alone)
        difference = batched.animate(frames, given).astype(int) - together
        assert np.abs(difference).max() <= 1
        assert (difference != 0).mean() < 1e-2
    assert animator.animate([]).shape == (0, small.SIZE, small.SIZE, 3)
    assert np.array_equal(animator.source, small.picture(9))


def drawn_with(networks: FaceVid2VidNetworks, keypoints: Tensor) -> np.ndarray:
    """The portrait with other keypoints, drawn without the animator."""
    image = as_input(torch.from_numpy(small.picture(9))[None])
    canonical, state = networks.detector(image), networks.estimator(image)
    source = pose_keypoints(canonical, state.degrees(), state.t, state.exp)
    drawn = networks.generator.draw(networks.generator.encode(image), source, keypoints)
    return (drawn.picture[0] * 255).round().byte().permute(1, 2, 0).numpy()


def states(networks: FaceVid2VidNetworks, *frames: int) -> list[HeadState]:
    return [networks.estimator(as_input(torch.from_numpy(small.picture(i))[None])) for i in frames]


def keypoints(networks: FaceVid2VidNetworks, state: HeadState) -> Tensor:
    canonical = networks.detector(as_input(torch.from_numpy(small.picture(9))[None]))
    return pose_keypoints(canonical, state.degrees(), state.t, state.exp)


def test_both_modes_without_cameras(
    spade: FaceVid2VidNetworks, animator: FaceVid2VidAnimator, absolute: FaceVid2VidAnimator
) -> None:
    driver, initial, source = (keypoints(spade, state) for state in states(spade, 4, 0, 9))
    assert np.array_equal(absolute.animate([4])[0], drawn_with(spade, driver))
    wanted = plain.relative(*(x[0].double().numpy() for x in (source, driver, initial)))
    difference = animator.animate([4])[0].astype(int) - drawn_with(spade, tensor(wanted))
    assert np.abs(difference).max() <= 1
    assert np.array_equal(animator.animate([0])[0], drawn_with(spade, source))
    assert np.abs(absolute.animate([0])[0].astype(int) - drawn_with(spade, source)).max() > 3
    later = FaceVid2VidAnimator(spade, small.picture(9), small.picture, initial=4)
    assert np.array_equal(later.animate([4])[0], drawn_with(spade, source))


def test_cameras_take_the_place_of_head_poses(
    spade: FaceVid2VidNetworks, animator: FaceVid2VidAnimator, absolute: FaceVid2VidAnimator
) -> None:
    label = orbit_labels(0.4, -0.2, 0.1)
    degrees = tensor(degrees_from_labels(label)[0])
    driver, initial, source = states(spade, 4, 0, 9)
    canonical = spade.detector(as_input(torch.from_numpy(small.picture(9))[None]))
    free = pose_keypoints(canonical, degrees, driver.t, driver.exp)
    assert np.array_equal(absolute.animate([4], [label[0]])[0], drawn_with(spade, free))
    scale = relative_scale(keypoints(spade, source), keypoints(spade, initial))
    t = source.t + (driver.t - initial.t) * scale
    exp = source.exp + (driver.exp - initial.exp) * scale
    free = pose_keypoints(canonical, degrees, t, exp)
    assert np.array_equal(animator.animate([4], [label[0]])[0], drawn_with(spade, free))


def test_what_cannot_be_animated_is_refused(
    spade: FaceVid2VidNetworks, animator: FaceVid2VidAnimator
) -> None:
    with pytest.raises(ValueError, match="1 cameras for 2 frames"):
        animator.animate([0, 1], [orbit_labels(0, 0)[0]])
    with pytest.raises(ValueError, match=r"the portrait is \[S,S,3\] uint8, got \(32, 30, 3\)"):
        FaceVid2VidAnimator(spade, small.picture(0)[:, :30], small.picture)
    with pytest.raises(
        ValueError, match=r"frame 7 of the driver is \(16, 16, 3\) uint8, expected \(32, 32, 3\)"
    ):
        FaceVid2VidAnimator(
            spade, small.picture(0), lambda i: small.picture(i)[::2, ::2], relative=False
        ).animate([7])
    with pytest.raises(ValueError, match="at least 1 frame"):
        FaceVid2VidAnimator(spade, small.picture(0), small.picture, batch=0)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of small networks are what the reader expects."""
    made = {"kp_detector": small.detector, "he_estimator": small.estimator}
    shapes = {name: build().state_dict() for name, build in made.items()}
    for decoder in ("spade", "original"):
        shapes[decoder] = small.networks(decoder).generator.state_dict()
    found = {part: {n: tuple(v.shape) for n, v in state.items()} for part, state in shapes.items()}
    monkeypatch.setattr(facevid2vid_checkpoint, "facevid2vid_shapes", found.__getitem__)


def write(path: Path, decoder: Decoder, **changes: Any) -> FaceVid2VidNetworks:
    networks = small.networks(decoder)
    optimiser = torch.optim.Adam([torch.zeros(3, requires_grad=True)], lr=2e-4)
    content: dict[str, Any] = {
        "optimizer_generator": optimiser.state_dict(),
        "epoch": 189,
        "discriminator": {},
    }
    content |= {
        "generator": networks.generator.state_dict(),
        "kp_detector": networks.detector.state_dict(),
        "he_estimator": networks.estimator.state_dict(),
    }
    torch.save(content | changes, path)
    return networks


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("decoder", ["spade", "original"])
def test_a_checkpoint_tells_its_generator(tmp_path: Path, decoder: Decoder) -> None:
    path = tmp_path / "00000189-checkpoint.pth.tar"
    written = write(path, decoder)
    weights = read_facevid2vid(path)
    assert weights.decoder == decoder
    read = FaceVid2VidNetworks.from_weights(weights)
    assert type(read.generator) is type(written.generator)
    for one, other in zip(read, written, strict=True):
        assert not one.training
        assert all(torch.equal(other.state_dict()[name], value) for name, value in one.state_dict().items())
    model = identify_model(path)
    assert model is not None
    assert model.name == "facevid2vid"
    report = check_model(path, model)
    assert report.content.startswith(
        "Face-vid2vid with SPADE's decoder"
        if decoder == "spade"
        else "Face-vid2vid with the paper's own decoder"
    )
    assert report.digest == "no digest is known of it"


@pytest.mark.usefixtures("small_files")
def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "00000189-checkpoint.pth.tar"
    state = write(path, "original").detector.state_dict()
    beta = {name: value for name, value in state.items() if name != "down.weight"}
    nothing = {"first.conv.weight": torch.zeros(1)}
    for changes, words in (
        ({"kp_detector": beta}, "Vox-256-Beta.*another order; bring Vox-256-New"),
        ({"generator": nothing}, "has neither of decoder.conv_img.weight and final.weight"),
        ({"generator": 3}, "has neither"),
        (
            {"kp_detector": {**state, "kp.bias": torch.zeros(2)}},
            r"kp_detector does not fit: kp.bias has shape \[2\]",
        ),
        ({"he_estimator": {}}, "he_estimator is a dict, expected weights by name"),
    ):
        write(path, "original", **changes)
        with pytest.raises(ModelFileError, match=words) as caught:
            read_facevid2vid(path)
        assert "MediaFire" in str(caught.value)
        assert "CC BY-NC 4.0" in str(caught.value)
    torch.save({"epoch": 3}, path)
    with pytest.raises(ModelFileError, match="it lacks generator; it holds epoch"):
        read_facevid2vid(path)


def test_weights_name_their_decoder() -> None:
    assert {"spade", "original"} == set(facevid2vid_checkpoint.GENERATORS)
    assert "decoder" in FaceVid2VidWeights.__dataclass_fields__
