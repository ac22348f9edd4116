"""Ramps, meters, limiter, fades and the check for what is not a number."""

import numpy as np
import pytest

import rtgan  # noqa: F401
from rtgan.kernels import levels

SIZES = [[1], [64], [65], [128], [997], [3, 250, 1, 77]]


def _noise(channels=2, samples=3000, scale=1.0):
    return (scale * np.random.default_rng(0).standard_normal((channels, samples))).astype(np.float32)


def _in_blocks(x, sizes, function):
    parts, done, i = [], 0, 0
    while done < x.shape[1]:
        n = sizes[i % len(sizes)]
        part = np.ascontiguousarray(x[:, done : done + n])
        function(part)
        parts.append(part)
        done, i = done + n, i + 1
    return np.concatenate(parts, axis=1)


def _ramp(gain):
    state = np.zeros(levels.RAMP_WORDS)
    levels.ramp_set_array(state, gain, 0)
    return state


@pytest.mark.parametrize("sizes", SIZES)
def test_ramp_is_a_straight_line(sizes):
    x = _noise()
    state = _ramp(0.25)
    levels.ramp_set_array(state, 1.0, 1000)
    y = _in_blocks(x, sizes, lambda part: levels.ramp_apply_array(state, part))
    gain = np.minimum(0.25 + 0.75 * np.arange(1, 3001) / 1000, 1.0)
    assert np.array_equal(y[:, 1000:], x[:, 1000:])
    assert np.array_equal(y, x * gain.astype(np.float32)) or np.abs(y - x * gain).max() < 1e-6


def test_ramp_depends_on_no_block_size_and_turns_where_it_is():
    x = _noise()
    results = []
    for sizes in SIZES:
        state = _ramp(0.0)
        levels.ramp_set_array(state, 1.0, 700)
        results.append(_in_blocks(x, sizes, lambda part, state=state: levels.ramp_apply_array(state, part)))
    assert all(np.array_equal(result, results[0]) for result in results)
    state = _ramp(0.0)
    levels.ramp_set_array(state, 1.0, 100)
    ones = np.ones((1, 50), np.float32)
    levels.ramp_apply_array(state, ones)
    levels.ramp_set_array(state, 0.0, 100)
    back = np.ones((1, 120), np.float32)
    levels.ramp_apply_array(state, back)
    assert abs(ones[0, -1] - 0.5) < 1e-6 and abs(back[0, 0] - 0.495) < 1e-6
    assert (back[0, 99:] == 0).all()


def test_meter_agrees_with_numpy_in_any_blocks():
    x = _noise(1)
    x[0, 1234] = -9.5
    meters = []
    for sizes in SIZES:
        meter = np.zeros(levels.METER_WORDS)
        _in_blocks(x, sizes, lambda part, meter=meter: levels.meter_add_array(meter, part[0]))
        meters.append(meter)
    assert all(np.array_equal(meter, meters[0]) for meter in meters)
    assert meters[0][levels.METER_PEAK] == 9.5
    assert meters[0][levels.METER_SAMPLES] == 3000
    assert np.isclose(meters[0][levels.METER_SQUARES], (x.astype(np.float64) ** 2).sum(), rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_found_anywhere(bad):
    x = np.full(131, np.finfo(np.float32).max, np.float32)
    x[::2] = np.float32(1e-45)
    assert levels.all_finite_array(x)
    for at in range(131):
        dirty = x.copy()
        dirty[at] = bad
        assert not levels.all_finite_array(dirty)


def _limiter(x, sizes, ceiling=0.9):
    state = np.ones(1)
    release = levels.release_step(50, 48000)
    return _in_blocks(x, sizes, lambda part: levels.limit_array(state, part, ceiling, release)), state[0]


def test_limiter_leaves_what_is_below_untouched():
    x = np.clip(_noise(), -0.9, 0.9).astype(np.float32)
    y, gain = _limiter(x, [128], float(np.float32(0.9)))
    assert np.array_equal(y, x) and gain == 1.0


@pytest.mark.parametrize("sizes", SIZES)
def test_limiter_never_lets_a_peak_through_and_recovers(sizes):
    x = _noise(samples=60000, scale=0.1)
    x[0, 500:700] *= 80
    y, gain = _limiter(x, sizes)
    assert np.abs(y).max() <= np.float32(0.9)
    assert np.abs(y).max() > 0.899
    assert np.array_equal(y[:, :500], x[:, :500]) and gain == 1.0
    assert np.array_equal(y[:, 50000:], x[:, 50000:])
    # Linked: the quiet channel is turned down by the same gain.
    turned = np.abs(x[0, 500:700]) > 0.9
    ratios = y[:, 500:700][:, turned] / x[:, 500:700][:, turned]
    assert np.allclose(ratios[0], ratios[1], rtol=1e-5) and ratios.max() < 1
    assert np.array_equal(y, _limiter(x, [60000])[0])


@pytest.mark.parametrize("equal_power", [False, True])
def test_fades_start_at_the_old_and_end_at_the_new(equal_power):
    old, new = np.float32(1.0) * np.ones(1200, np.float32), np.zeros(1200, np.float32)
    falling, rising = np.empty(1200, np.float32), np.empty(1200, np.float32)
    levels.fade_array(old, new, 0, 1000, equal_power, falling)
    levels.fade_array(new, old, 0, 1000, equal_power, rising)
    assert falling[0] > 0.99 and (falling[999:] == 0).all() and (rising[999:] == 1).all()
    total = falling**2 + rising**2 if equal_power else falling + rising
    assert np.abs(total - 1).max() < 1e-6
    assert np.abs(np.diff(rising)).max() < 0.003
    late = np.empty(100, np.float32)
    levels.fade_array(old[:100], new[:100], 300, 1000, equal_power, late)
    assert np.array_equal(late, falling[300:400])
