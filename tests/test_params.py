import math

import pytest

from rtgan.errors import UsageError
from rtgan.params import Param

LINEAR = Param("gain_db", "Gain", -60, 24, 0, unit="dB")
LOG = Param("cutoff_hz", "Cutoff", 10, 2000, 80, unit="Hz", scale="log")
SWITCH = Param("bypass", "Bypass", 0, 1, 0, scale="switch")


@pytest.mark.parametrize("param", [LINEAR, LOG])
def test_normalised_and_plain_values_are_inverse(param: Param) -> None:
    for k in range(101):
        plain = param.plain(k / 100)
        assert param.minimum <= plain <= param.maximum
        assert math.isclose(param.normalise(plain), k / 100, abs_tol=1e-9)


def test_what_lies_outside_the_controller_range_is_clamped() -> None:
    assert LINEAR.plain(-3) == -60
    assert LOG.plain(7) == 2000
    assert SWITCH.plain(0.4) == 0
    assert SWITCH.plain(0.6) == 1


@pytest.mark.parametrize("value", ["loud", "", "nan", "inf", float("nan"), None, [1], 25, -61, True])
def test_a_bad_value_is_refused_with_the_allowed_range(value: object) -> None:
    with pytest.raises(UsageError, match="-60 to 24 dB"):
        LINEAR.check(value)


@pytest.mark.parametrize(("value", "plain"), [("on", 1), ("off", 0), (True, 1), (0, 0), ("1", 1)])
def test_a_switch_takes_words_and_numbers(value: object, plain: float) -> None:
    assert SWITCH.check(value) == plain


def test_a_switch_refuses_what_is_neither() -> None:
    with pytest.raises(UsageError, match="on or off"):
        SWITCH.check(0.5)


def test_text_carries_the_unit() -> None:
    assert LINEAR.text(-6) == "-6 dB"
    assert SWITCH.text(1) == "on"
