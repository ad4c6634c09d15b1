"""The arithmetic of evaluation metrics (numbers in the reference folder's ``metrics_math``)."""

import numpy as np
import pytest

from portrait_core.metrics import coefficient_distances as cd
from portrait_core.metrics.coefficient_distances import Measure, Part, Variant, clip_distance
from portrait_core.metrics.distributions import (
    frechet_distance,
    frechet_distance_of_moments,
    squared_kernel_distance,
)
from portrait_core.metrics.identity import cosine_similarity
from tests.reference.published import ROOT, arrays, needs

FILE = ROOT / "metrics_math" / "fixture.npz"
RTOL = 1e-6
pytestmark = needs("metrics_math/fixture.npz")


@pytest.fixture(scope="module")
def fixture() -> dict[str, np.ndarray]:
    return arrays(FILE)


@pytest.mark.parametrize("pair", ["small", "wide"])
def test_frechet_distance(fixture: dict[str, np.ndarray], pair: str) -> None:
    a, b = (fixture[f"{pair}_{side}"].astype(np.float64) for side in "ab")
    for name in (f"{pair}_frechet", f"{pair}_frechet_eig"):
        assert frechet_distance(a, b) == pytest.approx(fixture[name], rel=RTOL), name
    moments = [value for x in (a, b) for value in (x.mean(0), np.cov(x, rowvar=False))]
    found = frechet_distance_of_moments(*moments)
    assert found == pytest.approx(fixture[f"{pair}_frechet_eig"], rel=RTOL)


def test_kernel_distance(fixture: dict[str, np.ndarray]) -> None:
    a, b = fixture["small_a"], fixture["small_b"]
    count = min(len(a), len(b))
    found = squared_kernel_distance(a[:count], b[:count])
    assert found == pytest.approx(fixture["small_kernel_full"], rel=RTOL)


def test_identity(fixture: dict[str, np.ndarray]) -> None:
    found = cosine_similarity(fixture["id_a"].astype(np.float64), fixture["id_b"].astype(np.float64))
    np.testing.assert_allclose(found, fixture["id_cosine"], rtol=RTOL, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "part", "measure"),
    [
        ("aed_l1_mean", cd.DEEP3D_EXPRESSION, Measure.MEAN_ABSOLUTE),
        ("aed_l2_norm_mean", cd.DEEP3D_EXPRESSION, Measure.MEAN_LENGTH),
        ("apd_angle_l1_mean", cd.DEEP3D_ANGLES, Measure.MEAN_ABSOLUTE),
        ("apd_angle_l2_norm_mean", cd.DEEP3D_ANGLES, Measure.MEAN_LENGTH),
        ("apd_angle_translation_l1_mean", cd.DEEP3D_ANGLES_TRANSLATION, Measure.MEAN_ABSOLUTE),
    ],
)
def test_coefficient_distances(
    fixture: dict[str, np.ndarray], name: str, part: Part, measure: Measure
) -> None:
    found = clip_distance(fixture["coeff_generated"], fixture["coeff_target"], Variant(part, measure))
    assert found.value == pytest.approx(fixture[name], rel=RTOL)
    assert found.frames == len(fixture["coeff_target"])


def test_every_array_is_compared(fixture: dict[str, np.ndarray]) -> None:
    compared = {
        *(f"{pair}_{end}" for pair in ("small", "wide") for end in ("a", "b", "frechet", "frechet_eig")),
        *("small_kernel_full", "id_a", "id_b", "id_cosine", "coeff_generated", "coeff_target"),
        *("aed_l1_mean", "aed_l2_norm_mean", "apd_angle_l1_mean", "apd_angle_l2_norm_mean"),
        "apd_angle_translation_l1_mean",
    }
    assert set(fixture) <= compared
