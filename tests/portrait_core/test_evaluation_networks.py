"""Networks that evaluation compares pictures by, and distances of pictures from their true ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage import data
from torch import Tensor

from portrait_core.errors import ModelFileError
from portrait_core.inversion.features import feature_distance
from portrait_core.metrics import picture_distances as pd
from portrait_core.metrics.embedded_features import EmbeddedFeatures
from portrait_core.metrics.inception import Inception, inception_shapes, read_inception
from portrait_core.metrics.picture_distances import LpipsAlex, perceptual_networks, picture_distances, ssim
from portrait_core.metrics.picture_features import picture_features
from portrait_core.model_files.check import check_model
from portrait_core.model_files.needs import evaluation_sources
from portrait_core.pipeline.weights import assessing_weights
from portrait_core.settings import load_settings
from portrait_core.weights.registry import MODELS
from tests import official_files
from tests.plain import inception as plain
from tests.plain.stylegan2 import scope

INCEPTION = "pt_inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return official_files.seeded_state(inception_shapes(), 19)


@pytest.fixture(scope="module")
def network(state: dict[str, Tensor]) -> Inception:
    return Inception.from_state(state)


def _close(got: Tensor, wanted: Tensor) -> None:
    assert got.shape == wanted.shape
    assert float((got - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.parametrize(
    ("block", "channels", "size", "formula"),
    [
        ("Mixed_5b", 192, 35, plain.mixed35),
        ("Mixed_5d", 288, 35, plain.mixed35),
        ("Mixed_6b", 768, 17, plain.mixed17),
        ("Mixed_6e", 768, 17, plain.mixed17),
        ("Mixed_7b", 1280, 8, lambda p, x: plain.mixed8(p, x, last=False)),
        ("Mixed_7c", 2048, 8, lambda p, x: plain.mixed8(p, x, last=True)),
    ],
)
def test_the_altered_blocks_are_the_formulas(
    network: Inception,
    state: dict[str, Tensor],
    block: str,
    channels: int,
    size: int,
    formula: Callable[[plain.Params, Tensor], Tensor],
) -> None:
    x = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(0))
    _close(network.get_submodule(block)(x), formula(scope(state, block), x))


def test_all_but_the_pools_is_torchvisions(
    network: Inception, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models.inception import Inception3

    theirs = Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()
    assert list(theirs.state_dict()) == list(inception_shapes())
    theirs.load_state_dict(state)
    mean, largest = F.avg_pool2d, F.max_pool2d
    last: list[bool] = []

    def pool(x: Tensor, **options: Any) -> Tensor:
        return largest(x, **options) if last else mean(x, **options, count_include_pad=False)

    theirs.Mixed_7c.register_forward_pre_hook(lambda *_: last.append(True))
    pictures = torch.rand(1, 3, 400, 512, generator=torch.Generator().manual_seed(1))
    found = network(pictures)
    monkeypatch.setattr(F, "avg_pool2d", pool)
    theirs.fc = torch.nn.Identity()
    x = F.interpolate(pictures, (299, 299), mode="bilinear", align_corners=False, antialias=False)
    with torch.no_grad():
        wanted = theirs(2 * x - 1)
    assert last
    _close(found, wanted)
    assert found.std() > 1e-9


def test_inceptions_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / INCEPTION
    official_files.write_inception(path)
    found = read_inception(path)
    assert {name: tuple(value.shape) for name, value in found.items()} == inception_shapes()
    report = check_model(path, MODELS["inception"])
    assert "566 tensors, 23.9 million numbers" in report.content
    assert not report.sound  # by its digest it is not the published file
    counter = "Conv2d_1a_3x3.bn.num_batches_tracked"
    official_files.write_inception(path, **{counter: None})
    assert read_inception(path)[counter] == 0  # older releases of PyTorch wrote no counters
    assert Inception.load(path)(torch.zeros(1, 3, 8, 8)).shape == (1, 2048)


def test_another_network_in_inceptions_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / INCEPTION
    for changes, words in (
        ({"fc.weight": torch.zeros(1).expand(1000, 2048)}, r"fc\.weight has shape \[1000, 2048\]"),
        ({"AuxLogits.fc.bias": torch.zeros(3)}, "AuxLogits.*is it torchvision's network"),
        ({"Mixed_7c.branch1x1.conv.weight": None}, r"Mixed_7c\.branch1x1\.conv\.weight is missing"),
        ({"Conv2d_1a_3x3.bn.num_batches_tracked": torch.zeros(1).expand(10**12)}, "has shape"),
    ):
        official_files.write_inception(path, **changes)
        with pytest.raises(ModelFileError, match=words) as caught:
            read_inception(path)
        assert "github.com/mseitzer/pytorch-fid" in str(caught.value)
        assert "Apache-2.0" in str(caught.value)
    torch.save([1, 2], path)
    with pytest.raises(ModelFileError, match="expected weights by name"):
        read_inception(path)
    monkeypatch.setenv("PORTRAIT_MODELS", str(tmp_path / "none"))
    with pytest.raises(ModelFileError, match="1 file of weights is missing"):
        Inception.load()


def _pictures(count: int, size: int = 40) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def test_features_are_one_row_per_picture_in_any_batches() -> None:
    pictures, features = _pictures(5), EmbeddedFeatures()
    whole = picture_features(pictures, features)
    assert whole.shape == (5, features.feature_size)
    assert not features.training
    np.testing.assert_array_equal(whole, picture_features(pictures, features))
    np.testing.assert_allclose(picture_features(pictures, features, batch=2), whole, atol=2e-4)
    np.testing.assert_allclose(picture_features(pictures[3:4], features)[0], whole[3], atol=2e-4)
    assert np.abs(whole[0] - whole[1]).max() > 0.1
    assert picture_features(pictures[:0], features).shape == (0, features.feature_size)
    with pytest.raises(ValueError, match="expected uint8"):
        picture_features(pictures.astype(np.float32), features)


def test_the_embedded_features_know_an_espresso() -> None:
    features = EmbeddedFeatures()
    with torch.no_grad():
        x = torch.from_numpy(data.coffee()).permute(2, 0, 1)[None].float() / 255
        likely = features.network._fc(features(x)).softmax(1)[0]
    assert int(likely.argmax()) == 967  # of ImageNet's classes
    assert likely[967] > 0.8  # a wrong normalisation leaves it less sure


def test_lpips_with_alexnet_is_the_packages(tmp_path: Path) -> None:
    path = tmp_path / "alexnet-owt-7be5be79.pth"
    official_files.write_alexnet(path)
    ours = LpipsAlex(path)
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    stored = torch.load(path, weights_only=True)
    names = {name: f"features.{name.split('.', 1)[1]}" for name in theirs.net.state_dict()}
    theirs.net.load_state_dict({name: stored[old] for name, old in names.items()})
    a, b = torch.rand(2, 1, 3, 72, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        wanted = theirs(a, b).item()
    assert feature_distance(ours(a), ours(b)).item() == pytest.approx(wanted, rel=1e-4)
    assert feature_distance(ours(a), ours(a)) == 0


def test_networks_are_those_whose_files_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT_MODELS", str(tmp_path))
    assert list(perceptual_networks()) == [pd.EMBEDDED]
    official_files.write_alexnet(tmp_path / "alexnet-owt-7be5be79.pth")
    assert list(perceptual_networks()) == [pd.EMBEDDED, pd.LPIPS_ALEX]
    assert not pd.EMBEDDED.startswith("LPIPS")
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"no network")
    with pytest.raises(ModelFileError, match=r"vgg16-397923af\.pth"):
        perceptual_networks()  # a wrong file is not passed over


def test_networks_of_lpips_that_a_setting_names_are_among_an_evaluations_weights() -> None:
    settings = load_settings("embedded", ["evaluation.lpips=[alexnet, vgg16]"])
    sources = evaluation_sources(settings)
    assert (sources["lpips_alexnet"], sources["lpips_vgg16"]) == ("alexnet", "vgg16")
    digests = dict.fromkeys(sources, "0" * 64)
    assert {"lpips_alexnet", "lpips_vgg16"} <= set(assessing_weights(digests))
    assert not any("lpips" in name for name in evaluation_sources(load_settings("embedded")))


def test_pixels_are_compared_by_the_formulas() -> None:
    truth = np.full((32, 32, 3), 100, np.uint8)
    result = truth.copy()
    result[:16] += 20
    result[16:] -= 10
    found = picture_distances([result, truth], [truth, truth])
    assert list(found.values) == [pd.L1, pd.PSNR, pd.SSIM]
    np.testing.assert_allclose(found.values[pd.L1], [15 / 255, 0])
    np.testing.assert_allclose(found.values[pd.PSNR], [10 * math.log10(255**2 / 250), np.inf])
    assert found.values[pd.SSIM][1] == 1
    assert found.means()[pd.L1] == pytest.approx(7.5 / 255)
    with pytest.raises(ValueError, match="zip"):
        picture_distances([result], [truth, truth])


def test_structural_similarity_is_the_formula_in_the_middle() -> None:
    """Wang et al. 2004 at one pixel: an 11 x 11 window of sigma 1.5, K1 0.01, K2 0.03."""
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 256, (2, 11, 11, 3)).astype(np.uint8)
    steps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(steps, steps)[..., None] / steps.sum() ** 2
    a, b = x.astype(float), y.astype(float)
    mean_a, mean_b = (window * a).sum((0, 1)), (window * b).sum((0, 1))
    var_a, var_b = (window * (a - mean_a) ** 2).sum((0, 1)), (window * (b - mean_b) ** 2).sum((0, 1))
    covariance = (window * (a - mean_a) * (b - mean_b)).sum((0, 1))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    wanted = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    wanted /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    assert ssim(x, y) == pytest.approx(wanted.mean(), rel=1e-6)
    with pytest.raises(ValueError, match="at least 11"):
        ssim(x[:8], y[:8])
    with pytest.raises(ValueError, match="same square"):
        ssim(x, np.concatenate([y, y]))


def test_a_perceptual_distance_bears_its_networks_name() -> None:
    truth = _pictures(1, 64)[0]
    blurred = np.repeat(np.repeat(truth[::4, ::4], 4, 0), 4, 1)
    networks = perceptual_networks()
    found = picture_distances([truth, blurred], [truth, truth], networks).values[pd.EMBEDDED]
    assert found[0] == 0
    assert found[1] > 0.1
