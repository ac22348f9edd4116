"""Compressor, de-esser and the limiter's gain against float64 references."""

import math

import numpy as np
import pytest
from scipy.ndimage import minimum_filter1d, uniform_filter1d

import rtgan  # noqa: F401
from rtgan.kernels import dynamics

RATE = 48000


def _noise(channels=2, samples=4000):
    loudness = np.repeat(np.random.default_rng(1).choice([0.01, 0.1, 0.7], samples // 500), 500)
    return (np.random.default_rng(0).standard_normal((channels, samples)) * loudness).astype(np.float32)


def _compressor(threshold, knee, ratio, attack_ms, release_ms):
    state = np.zeros(dynamics.COMPRESSOR_WORDS)
    state[:5] = (
        threshold, knee, 1 - 1 / ratio, dynamics.smoothing(attack_ms, RATE), dynamics.smoothing(release_ms, RATE)
    )  # fmt: skip
    return state


def _in_blocks(x, sizes, function):
    done = i = 0
    while done < x.shape[1]:
        n = min(sizes[i % len(sizes)], x.shape[1] - done)
        part = np.ascontiguousarray(x[:, done : done + n])
        function(part, done, n)
        x[:, done : done + n] = part
        done, i = done + n, i + 1


def _reference_gains(x, threshold, knee, ratio, attack_ms, release_ms):
    """The equations of Giannoulis, Massberg and Reiss (2012), written down as they stand there."""
    levels = 20 * np.log10(np.maximum(np.abs(x.astype(np.float64)).max(axis=0), 1e-10))
    over = levels - threshold
    curve = np.where(over > knee / 2, threshold + over / ratio, levels)
    if knee:
        inside = np.abs(over) <= knee / 2
        curve = np.where(inside, levels + (1 / ratio - 1) * (over + knee / 2) ** 2 / (2 * knee), curve)
    attack, release = math.exp(-1 / (attack_ms * RATE / 1000)), math.exp(-1 / (release_ms * RATE / 1000))
    held = smooth = 0.0
    gains = []
    for wanted in levels - curve:
        held = max(wanted, release * held + (1 - release) * wanted)
        smooth = attack * smooth + (1 - attack) * held
        gains.append(10 ** (-smooth / 20))
    return np.array(gains)


@pytest.mark.parametrize("knee, ratio", [(0, 4), (6, 3), (24, 20), (6, 1)])
def test_the_compressor_is_that_of_the_paper_in_any_blocks(knee, ratio):
    setting = (-24.0, knee, ratio, 5.0, 60.0)
    x = _noise()
    results = []
    for sizes in ([4000], [1], [64, 65, 3]):
        state, gains = _compressor(*setting), np.zeros(x.shape[1], np.float32)

        def part(piece, done, n, state=state, gains=gains):
            dynamics.compress_array(state, piece, gains[done : done + n])

        _in_blocks(x.copy(), sizes, part)
        results.append(gains)
    assert all(np.array_equal(r, results[0]) for r in results)
    assert np.abs(results[0] - _reference_gains(x, *setting)).max() < 1e-6


def test_the_static_curve_has_the_ratio_it_says():
    for level, wanted in ((-30.0, 0.0), (-20.0, 0.75), (-8.0, 9.0)):
        state = _compressor(-20.0, 8.0, 4.0, 0.1, 5.0)
        gains = np.zeros(RATE, np.float32)
        x = np.full((1, RATE), 10 ** (level / 20), np.float32)
        dynamics.compress_array(state, x, gains)
        assert 20 * math.log10(gains[-1]) == pytest.approx(-wanted, abs=0.01)


def _deesser(channels, corner_hz=5000.0, threshold=-9.0, reach=8.0):
    state = np.zeros(dynamics.D_FILTERS + 2 * channels)
    state[:7] = (
        math.tan(math.pi * corner_hz / RATE), threshold, reach,
        *(dynamics.smoothing(t, RATE) for t in (4.0, 1.0, 50.0, 1000.0)),
    )  # fmt: skip
    return state


def _level(x):
    return 10 * np.log10(np.mean(np.square(x[..., x.shape[-1] // 2 :], dtype=np.float64)))


def test_the_deesser_is_a_shelf_of_its_range_and_leaves_vowels_alone():
    t = np.arange(RATE) / RATE
    for frequency, wanted in ((16000, -8.0), (5000, 20 * math.log10(math.sqrt((1 + 10**-0.8) / 2)))):
        sharp = (0.2 * np.sin(2 * np.pi * frequency * t)).astype(np.float32)[None]
        out = sharp.copy()
        dynamics.deess_array(_deesser(1, threshold=-30.0), out)
        assert _level(out) - _level(sharp) == pytest.approx(wanted, abs=0.15)
    vowel = sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 30))
    for quiet in ((0.1 * vowel).astype(np.float32)[None], 1e-4 * sharp):
        out = quiet.copy()
        dynamics.deess_array(_deesser(1), out)
        # The first wave sets in like a click, which is treble.
        assert np.array_equal(out[:, RATE // 2 :], quiet[:, RATE // 2 :])


def test_the_deesser_does_not_depend_on_blocks():
    x = _noise(2)
    outs = []
    for sizes in ([4000], [1], [64, 65, 3]):
        state, out = _deesser(2), x.copy()
        _in_blocks(out, sizes, lambda piece, done, n, state=state: dynamics.deess_array(state, piece))
        outs.append(out)
    assert all(np.array_equal(o, outs[0]) for o in outs)
    assert _level(outs[0]) < _level(x) - 3


@pytest.mark.parametrize("length, hold", [(72, 8), (2, 1), (48, 0)])
def test_the_limiters_gain_is_the_averaged_minimum(length, hold):
    rng = np.random.default_rng(2)
    wanted = np.where(rng.random(5000) < 0.01, rng.uniform(0.1, 1, 5000), 1.0)
    state = dynamics.lookahead(length, hold)
    state.view(np.float64)[dynamics.L_RELEASE] = 1.0
    found = wanted.copy()
    dynamics.lookahead_gain_array(state, found)
    window = length + 2 * hold
    padded = np.concatenate([np.ones(window + length), wanted])
    lowest = minimum_filter1d(padded, window, origin=(window - 1) // 2)
    reference = uniform_filter1d(lowest, length, origin=(length - 1) // 2)[window + length :]
    assert np.abs(found - reference).max() < 1e-12
    # Flat around the sample that wanted it, `length + hold - 1` samples later.
    for at in np.flatnonzero(wanted[: -2 * window] < 1):
        middle = at + length + hold - 1
        assert found[middle - hold : middle + hold + 1].max() <= wanted[at] + 1e-12
    dynamics.lookahead_reset_array(state)
    again = wanted.copy()
    dynamics.lookahead_gain_array(state, again)
    assert np.array_equal(again, found)
