import numpy as np
import pytest

from portrait_core.template.flame_retarget import retarget_codes

RNG = np.random.default_rng(0)
DRIVER, JAW, OWN = RNG.normal(size=(5, 50)), RNG.normal(size=(5, 3)) * 0.1, RNG.normal(size=50)
OK = np.array([True, True, False, True, True])


def test_the_papers_transfer_takes_the_driver_as_it_is() -> None:
    expression, jaw = retarget_codes(DRIVER, JAW, OWN, OK)
    assert expression == pytest.approx(DRIVER, abs=1e-6)
    assert jaw == pytest.approx(JAW, abs=1e-7)


def test_relative_keeps_the_portraits_rest() -> None:
    expression, jaw = retarget_codes(DRIVER, JAW, OWN, OK, "relative", mouth_gain=1.5)
    assert np.median(expression[OK], axis=0) == pytest.approx(OWN, abs=1e-6)
    assert np.diff(expression, axis=0) == pytest.approx(np.diff(DRIVER, axis=0), abs=1e-6)
    assert jaw == pytest.approx(1.5 * JAW, abs=1e-7)


def test_codes_of_different_encoders_do_not_mix() -> None:
    with pytest.raises(ValueError, match="one encoder"):
        retarget_codes(DRIVER, JAW, OWN[:10], OK)
