"""The arithmetic of evaluation metrics, in cases whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from portrait_core.metrics import coefficient_distances as cd
from portrait_core.metrics import distributions, embedded_features, inception
from portrait_core.metrics.coefficient_distances import (
    PARTS,
    VARIANTS,
    Measure,
    Part,
    Variant,
    clip_distance,
    coefficient_distances,
)
from portrait_core.metrics.distributions import (
    frechet_distance,
    frechet_distance_of_moments,
    frechet_realisations,
    kernel_distance,
    squared_kernel_distance,
)
from portrait_core.metrics.intervals import bootstrap_interval
from portrait_core.metrics.keypoint_distance import keypoint_distance
from portrait_core.tracking.deca import split_code
from portrait_core.tracking.landmarks68 import MESH_TO_68

Array = np.ndarray


def _exact(count: int, mean: Array, root: Array, seed: int = 0) -> Array:
    """Features ``[count,D]`` whose mean and unbiased covariance ``root @ root.T`` are exactly these."""
    rows = np.random.default_rng(seed).standard_normal((count, len(mean)))
    rows -= rows.mean(0)
    white, _ = np.linalg.qr(rows)  # orthonormal columns, of mean 0
    return white * math.sqrt(count - 1) @ root.T + mean


def _moments(*sets: Array) -> list[Array]:
    return [value for x in sets for value in (x.mean(0), np.cov(x, rowvar=False))]


def test_the_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    # of covariances that commute: |m1 - m2|^2 + sum of (s1 - s2)^2
    s1, s2 = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.5, 3.5])
    m1, m2 = np.zeros(3), np.array([1.0, -2.0, 0.5])
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))
    a, b = _exact(50, m1, turn * s1), _exact(70, m2, turn * s2, seed=1)
    wanted = ((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(wanted, rel=1e-12)
    assert frechet_distance_of_moments(*_moments(a, b)) == pytest.approx(wanted, rel=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(a, a + 3) == pytest.approx(27, rel=1e-12)


@pytest.mark.parametrize(("n", "m", "size"), [(200, 150, 20), (30, 200, 60), (25, 40, 90)])
def test_the_short_form_is_the_plain_one(n: int, m: int, size: int) -> None:
    rng = np.random.default_rng(2)
    mix = rng.standard_normal((size, size))
    a, b = rng.standard_normal((n, size)) @ mix, 1 + rng.standard_normal((m, size)) @ mix * 1.3
    plain = frechet_distance_of_moments(*_moments(a, b))
    assert frechet_distance(a, b) == pytest.approx(plain, rel=1e-7)  # half of a singular root's digits


def test_single_precision_features_are_summed_in_double() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((300, 8)).astype(np.float32) + 4096 for _ in range(2))
    wide = frechet_distance(a.astype(np.float64), b.astype(np.float64))
    assert frechet_distance(a, b) == wide
    assert wide < 1


def test_features_that_no_distance_is_of_are_refused() -> None:
    good = np.random.default_rng(0).standard_normal((5, 3))
    holed = good.copy()
    holed[2, 1] = np.nan
    for a, b, words in (
        (good[:1], good, "the first set's features have shape"),
        (good, good[:, :2], r"expected \[at least 2,3\]"),
        (good, holed, "the second set's features have values that are not finite"),
    ):
        for measure in (frechet_distance, squared_kernel_distance, kernel_distance):
            with pytest.raises(ValueError, match=words):
                measure(a, b)
    with pytest.raises(ValueError, match=r"give \[D\], \[D\], \[D,D\] and \[D,D\]"):
        frechet_distance_of_moments(good[0], np.eye(3), good[1], np.eye(2))
    with pytest.raises(ValueError, match="features of clip 1 have shape"):
        frechet_realisations(good, [good, good[:0]], 3)
    with pytest.raises(ValueError, match="there are 1 clips"):
        frechet_realisations(good, [good], 3)
    with pytest.raises(ValueError, match="0 realisations"):
        frechet_realisations(good, [good, good], 0)


def _clips(lengths: list[int], size: int = 2) -> list[Array]:
    """Clips in which every frame's features name it: clip, frame."""
    return [
        np.stack([np.full(n, float(i)), np.arange(n, dtype=float)], 1)[:, :size]
        for i, n in enumerate(lengths)
    ]


def test_realisations_take_every_frame_once_before_any_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths, source = [6, 3, 4], np.random.default_rng(0).standard_normal((9, 2))
    taken: list[Array] = []
    real = distributions._Spread.of

    def noted(rows: Array) -> distributions._Spread:
        taken.append(np.asarray(rows))
        return real(rows)

    monkeypatch.setattr(distributions._Spread, "of", noted)
    found = frechet_realisations(source, _clips(lengths), 6, seed=4, variant="mine")
    assert found.variant == "mine"
    assert found.pictures == 3
    assert found.repeated == 3 + 2
    frames = np.stack(taken[1:])[..., 1]  # [R,K]
    for clip, length in enumerate(lengths):
        assert sorted(frames[:length, clip]) == list(range(length))
        assert len(set(frames[length:, clip])) == 6 - length  # without replacement the second time too
    np.testing.assert_allclose(found.values, [frechet_distance(source, rows) for rows in taken[1:]])
    assert found.mean == pytest.approx(found.values.mean())
    low, high = found.interval
    assert found.values.min() <= low < high <= found.values.max()


def test_realisations_are_seeded_and_more_add_to_fewer() -> None:
    rng = np.random.default_rng(5)
    source, clips = rng.standard_normal((20, 6)), [rng.standard_normal((n, 6)) for n in [9] * 20]
    few, many = (frechet_realisations(source, clips, n, seed=1) for n in (3, 9))
    np.testing.assert_array_equal(few.values, many.values[:3])
    assert many.repeated == 0
    assert not np.allclose(few.values, frechet_realisations(source, clips, 3, seed=2).values)


def test_the_kernel_distance_is_the_sum_over_pairs() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((4, 3)), rng.standard_normal((5, 3)) + 1

    def k(p: Array, q: Array) -> float:
        return float((p @ q / 3 + 1) ** 3)

    own = [np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    between = np.mean([k(p, q) for p in x for q in y])
    assert squared_kernel_distance(x, y) == pytest.approx(own[0] + own[1] - 2 * between, rel=1e-12)


def test_the_kernel_distance_has_no_bias() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((2, 2000, 5))
    same = kernel_distance(a, b, subsets=200, subset_size=50, seed=1)
    assert abs(same.mean) < 4 * same.deviation / math.sqrt(200)
    assert same.values.min() < 0
    assert kernel_distance(a, b + 0.5, subsets=50, subset_size=50).mean > 5 * same.deviation
    assert kernel_distance(a, b[:30], subsets=2).subset_size == 30
    again = kernel_distance(a, b, subsets=200, subset_size=50, seed=1)
    np.testing.assert_array_equal(same.values, again.values)


def test_each_measure_of_differences_is_its_formula() -> None:
    target = np.zeros((2, 6))
    result = np.array([[3.0, 0, 4, 9, 9, 9], [0, 0, -12, 9, 9, 9]])  # the jaw's numbers do not count
    wanted = {
        Measure.ROOT_MEAN_SQUARE: math.sqrt((9 + 16 + 144) / 6),
        Measure.MEAN_ABSOLUTE: (3 + 4 + 12) / 6,
        Measure.MEAN_LENGTH: (5 + 12) / 2,
    }
    for measure, value in wanted.items():
        found = clip_distance(result, target, Variant(cd.DECA_ROTATION, measure))
        assert found.value == pytest.approx(value), measure
    assert set(wanted) == set(Measure)


def test_every_variant_has_a_name_of_its_own_that_says_all_of_it() -> None:
    assert len(VARIANTS) == len(PARTS) * len(Measure)
    for name, variant in VARIANTS.items():
        assert name == variant.name
        assert variant.part.model in name
        assert variant.measure.value in name
    assert (
        Variant(cd.DEEP3D_EXPRESSION).name
        == "AED, Deep3DFaceRecon, 64 expression coefficients, root mean square"
    )
    for named in (embedded_features.VARIANT, embedded_features.KERNEL_VARIANT):
        assert named not in (inception.VARIANT, inception.KERNEL_VARIANT)
        assert not named.startswith(("FID", "KID"))


def test_columns_are_those_of_the_published_layouts() -> None:
    assert cd.DEEP3D_EXPRESSION.columns == tuple(range(80, 144))
    assert cd.DEEP3D_ANGLES.columns == (224, 225, 226)
    assert cd.DEEP3D_ANGLES_TRANSLATION.columns == (224, 225, 226, 254, 255, 256)
    code = split_code(torch.arange(236.0)[None])
    assert cd.DECA_ROTATION.take(code.pose.numpy()).tolist() == [[200, 201, 202]]
    assert cd.DECA_EXPRESSION.take(code.exp.numpy()).tolist() == [list(range(150, 200))]
    assert cd.EMBEDDED_EXPRESSION.take(np.arange(60.0)[None]).tolist() == [list(range(52))]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.model} {part.what}")
def test_rows_of_another_width_are_refused(part: Part) -> None:
    rows = np.zeros((4, part.width - 1))
    with pytest.raises(ValueError, match=f"coefficients of {part.model}"):
        clip_distance(rows, rows, Variant(part))
    with pytest.raises(ValueError, match="compare equal clips"):
        clip_distance(np.zeros((4, part.width)), np.zeros((3, part.width)), Variant(part))


def test_angles_of_the_tracker_differ_by_less_than_half_a_turn() -> None:
    result, target = np.array([[3.1, 0, 0]]), np.array([[-3.1, 0, 0]])
    near = clip_distance(result, target, Variant(cd.EMBEDDED_ANGLES, Measure.MEAN_LENGTH))
    assert near.value == pytest.approx(2 * math.pi - 6.2)


def test_clips_count_alike_and_frames_without_a_face_are_counted() -> None:
    variant = Variant(cd.EMBEDDED_ANGLES, Measure.MEAN_ABSOLUTE)
    zeros, lost = np.zeros((4, 3)), np.full((4, 3), np.nan)
    holed = zeros + 1
    holed[1:3, 2] = np.nan
    found = coefficient_distances(
        [(zeros + 0.1, zeros), (holed, zeros), (zeros[:1] + 0.3, zeros[:1]), (zeros, lost)], variant
    )
    assert [(clip.frames, clip.missing) for clip in found.clips] == [(4, 0), (2, 2), (1, 0), (0, 4)]
    np.testing.assert_allclose(found.values, [0.1, 1, 0.3, np.nan])
    assert found.mean == pytest.approx(1.4 / 3)
    assert (found.missing, found.unmeasured) == (6, 1)
    assert math.isnan(coefficient_distances([(lost, lost)], variant).mean)


def test_the_root_mean_square_of_a_clip_is_over_its_frames_together() -> None:
    result, zeros = np.array([[3.0] * 3, [4.0] * 3]) / 10, np.zeros((2, 3))
    found = coefficient_distances([(result, zeros)], Variant(cd.EMBEDDED_ANGLES))
    assert found.mean == pytest.approx(math.sqrt((0.09 + 0.16) / 2))  # and not the mean of frames, 0.35


def test_keypoints_are_compared_in_pixels_of_256() -> None:
    points = np.random.default_rng(8).uniform(0, 512, (3, 478, 3))
    moved = points.copy()
    moved[..., 0] += 6
    moved[..., 1] -= 2
    moved[..., 2] += 99  # depth does not count
    others = np.setdiff1d(np.arange(478), MESH_TO_68)
    moved[:, others] += 50  # nor do other points
    found = keypoint_distance(moved, points, 512)
    np.testing.assert_allclose(found.values, (6 + 2) / 2 * 256 / 512)
    assert found.mean == pytest.approx(2)
    assert "256 x 256" in found.variant
    moved[1], points[2] = np.nan, np.nan
    found = keypoint_distance(moved, points, 512)
    assert (found.frames, found.missing_results, found.missing_targets) == (1, 1, 1)
    assert found.mean == pytest.approx(2)
    assert math.isnan(keypoint_distance(moved[1:], points[1:], 512).mean)
    with pytest.raises(ValueError, match="compare equal clips"):
        keypoint_distance(moved[:2], points, 512)
    with pytest.raises(ValueError, match="side of 0"):
        keypoint_distance(moved, points, 0)


def test_the_interval_is_that_of_the_mean_of_gaussian_values() -> None:
    # of many values the bootstrap's interval is mean +- 1.96 sigma / sqrt(N)
    values = norm.ppf((np.arange(400) + 0.5) / 400) * 3 + 10
    found = bootstrap_interval(values, seed=1)
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.mean == pytest.approx(10)
    assert found.high - 10 == pytest.approx(half, rel=0.05)
    assert 10 - found.low == pytest.approx(half, rel=0.05)
    narrow = bootstrap_interval(values, seed=1, level=0.5)
    assert narrow.high - 10 == pytest.approx(0.6745 / 1.96 * half, rel=0.07)
    assert (found.clips, found.missing, found.level) == (400, 0, 0.95)
    assert bootstrap_interval(values, seed=1) == found
    assert bootstrap_interval(values, seed=2) != found


def test_the_interval_does_not_depend_on_how_draws_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(9).exponential(size=30)
    whole = bootstrap_interval(values, seed=3, resamples=1000)
    monkeypatch.setattr("portrait_core.metrics.intervals._AT_ONCE", 31)
    assert bootstrap_interval(values, seed=3, resamples=1000) == whole


def test_clips_without_a_value_are_left_out_and_counted() -> None:
    found = bootstrap_interval(np.array([1.0, np.nan, 2.0, 3.0]))
    assert (found.mean, found.clips, found.missing) == (2.0, 3, 1)
    assert 1 <= found.low < found.high <= 3
    for values, mean in (([np.nan], math.nan), ([], math.nan), ([4.0, np.nan], 4.0)):
        lone = bootstrap_interval(np.array(values))
        np.testing.assert_equal(lone.mean, mean)
        assert math.isnan(lone.low)
        assert math.isnan(lone.high)
    for wrong, level, words in (
        (np.array([1.0, np.inf]), 0.95, "infinite"),
        (np.ones((2, 2)), 0.95, "one number per clip"),
        (np.ones(3), 1.0, "between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=words):
            bootstrap_interval(wrong, level=level)
