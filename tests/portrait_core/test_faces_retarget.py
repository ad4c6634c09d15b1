"""Transfer of expressions between people."""

import numpy as np
import pytest

from portrait_core.faces.head import MorphableHead
from portrait_core.faces.retarget import (
    LidModel,
    RetargetGains,
    driver_rest,
    match_lids,
    region_of,
    retarget,
    retarget_clip,
)

NAMES = ["browInnerUp", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookInLeft", "jawOpen", "mouthSmileLeft"]


@pytest.fixture(scope="module")
def head():
    return MorphableHead.load("data/models/embedded_head.safetensors")


def test_absolute_is_the_driver():
    driver = np.random.default_rng(0).uniform(0, 1, (5, 6))
    got = retarget(driver, np.full(6, 0.5), NAMES, "absolute", RetargetGains(jaw=1.0))
    assert got == pytest.approx(driver, abs=1e-6)


def test_relative_keeps_the_portraits_own_brows_and_the_drivers_lips():
    driver = np.tile([0.4, 0.1, 0.1, 0.2, 0.0, 0.3], (7, 1))
    driver[3] = [0.6, 0.1, 0.1, 0.2, 0.5, 0.0]
    portrait = np.array([0.1, 0.0, 0.0, 0.5, 0.9, 0.9])
    got = retarget(driver, portrait, NAMES, "relative", RetargetGains(jaw=1.0))
    assert got[0] == pytest.approx([0.1, 0.0, 0.0, 0.5, 0.0, 0.3], abs=1e-6)  # at rest: own brow and gaze
    assert got[3] == pytest.approx([0.3, 0.0, 0.0, 0.5, 0.5, 0.0], abs=1e-6)


def test_a_drivers_closed_mouth_closes_the_portraits():
    driver = np.zeros((20, 6))
    driver[:, 4] = np.linspace(0.06, 0.7, 20)
    driver[:4, 4] = 0.05
    got = retarget(driver, np.zeros(6), NAMES, "relative", RetargetGains(jaw=1.0))
    assert got[:4, 4] == pytest.approx(0, abs=1e-6)
    assert got[-1, 4] == pytest.approx(0.65, abs=1e-6)
    talking = np.maximum(driver, 0.4)  # never shut: little of it is a closed mouth
    assert retarget(talking, np.zeros(6), NAMES, "relative", RetargetGains(jaw=1.0))[0, 4] > 0.29


def test_a_jaw_may_drop_beyond_its_unit_and_nothing_else_may():
    driver = np.tile([0.9, 0.9, 0.9, 0.9, 0.75, 0.9], (2, 1))
    driver[1, 4] = 0.95
    gains = RetargetGains(mouth=1.5, eyes=1.5, brows=1.5, gaze=1.5, jaw=1.0)
    got = retarget(driver, np.zeros(6), NAMES, "absolute", gains)
    assert got[:, 4] == pytest.approx([1.125, 1.2], abs=1e-6)
    assert (np.delete(got, 4, axis=1) == 1).all()


def test_gains_apply_by_region():
    driver = np.zeros((3, 6))
    driver[1] = [0.2, 0.0, 0.0, 0.2, 0.2, 0.2]
    gains = RetargetGains(mouth=0.5, brows=2.0, gaze=0.0, jaw=1.0)
    got = retarget(driver, np.zeros(6), NAMES, "relative", gains)
    assert got[1] == pytest.approx([0.4, 0.0, 0.0, 0.0, 0.1, 0.1], abs=1e-6)
    assert [region_of(n) for n in NAMES] == ["brows", "eyes", "eyes", "gaze", "mouth", "mouth"]


def test_rest_ignores_bad_frames_and_long_blinks():
    driver = np.zeros((10, 6))
    driver[:6, 1] = 1.0  # shut for more than half of the clip
    driver[8:, 0] = 1.0
    rest = driver_rest(driver, NAMES, ok=np.arange(10) < 8)
    assert rest[0] == 0.0
    assert rest[1] < 1.0


def test_bad_input_says_what_to_do():
    with pytest.raises(ValueError, match="one head"):
        retarget(np.zeros((2, 5)), np.zeros(6), NAMES)
    with pytest.raises(ValueError, match="transfer"):
        retarget(np.zeros((2, 6)), np.zeros(6), NAMES, "both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        retarget(np.zeros((2, 6)), np.zeros(6), NAMES, gains=RetargetGains(eyes=-1.0))


def _clip(head, blink):
    driver = np.zeros((len(blink), head.n_expression), np.float32)
    driver[:, [head.index("eyeBlinkLeft"), head.index("eyeBlinkRight")]] = np.asarray(blink)[:, None]
    return driver


def test_lid_model_is_monotone_in_blink(head):
    lids = LidModel.of(head)
    opening = lids.opening(np.zeros(head.n_shape), _clip(head, np.linspace(0, 1, 9)))
    assert opening.shape == (9, 2)
    assert (np.diff(opening, axis=0) < 0).all()
    assert opening[0].min() > 0.25


def test_a_blink_shuts_narrow_eyes_too(head):
    """The portrait squints at rest, so that the driver's coefficients would overshoot or fall short."""
    lids = LidModel.of(head)
    driver = _clip(head, [0.0] * 8 + [0.4, 1.0, 0.0])
    portrait = np.zeros(head.n_expression)
    portrait[[head.index("eyeSquintLeft"), head.index("eyeSquintRight")]] = 0.6
    shape = np.random.default_rng(0).normal(size=head.n_shape) * 0.5
    first = retarget(driver, portrait, head.expression_names)
    got = match_lids(lids, np.zeros(head.n_shape), driver, shape, portrait, first)
    opening = lids.opening(shape, got)
    own, shut = lids.opening(shape, portrait[None])[0], lids.shut(shape)
    assert opening[0] == pytest.approx(own, abs=0.01)
    assert opening[9] == pytest.approx(np.minimum(shut, own), abs=0.01)
    assert (opening[8] < own - 0.03).all()
    assert (opening[8] > shut + 0.01).all()


def test_retarget_clip_gives_the_jaw_that_goes_with_it(head):
    driver = _clip(head, [0.0, 0.0, 0.0, 0.0])
    driver[2, head.index("jawOpen")] = 0.5
    shape = np.zeros(head.n_shape)
    expression, jaw = retarget_clip(head, shape, driver, shape, np.zeros(head.n_expression))
    assert expression.shape == driver.shape
    assert jaw[:, 0] == pytest.approx(
        expression[:, head.index("jawOpen")] * head.jaw_open_angle_rad, abs=1e-6
    )
    assert jaw[2, 0] > jaw[0, 0]
