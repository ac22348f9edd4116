"""Biquads, delay lines and interleaving against scipy and numpy."""

import numpy as np
import pytest
from scipy.signal import freqz, sosfilt

import rtgan  # noqa: F401
from rtgan.kernels import channels, delay, filters

SIZES = [[1], [64], [65], [128], [997], [3, 250, 1, 77]]


def _noise(count=2, samples=3000):
    return np.random.default_rng(0).standard_normal((count, samples)).astype(np.float32)


def _in_blocks(x, sizes, function):
    y, done, i = np.empty_like(x), 0, 0
    while done < x.shape[1]:
        n = sizes[i % len(sizes)]
        part = np.ascontiguousarray(x[:, done : done + n])
        function(part)
        y[:, done : done + n] = part
        done, i = done + n, i + 1
    return y


def _sections(count):
    designs = [
        filters.high_pass(80, 48000), filters.peak(1000, 48000, 6), filters.low_pass(12000, 48000),
        filters.notch(50, 48000), filters.peak(300, 48000, -9, 4.0),
    ]  # fmt: skip
    return np.stack(designs[:count])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_cascade_agrees_with_scipy_in_any_blocks(count):
    x = _noise()
    coefficients = _sections(count)
    sos = np.insert(coefficients, 3, 1.0, axis=1)
    reference = sosfilt(sos, x.astype(np.float64))
    results = []
    for sizes in SIZES:
        state = np.zeros((2, count, 2))
        results.append(_in_blocks(x, sizes, lambda part, s=state: filters.cascade_array(coefficients, s, part)))
    assert all(np.array_equal(result, results[0]) for result in results)
    assert np.abs(results[0] - reference).max() < 1e-6 * np.abs(reference).max()


def test_designs_do_what_they_say():
    def gain_db(coefficients, frequency_hz):
        _, h = freqz(coefficients[:3], [1, *coefficients[3:]], worN=[frequency_hz], fs=48000)
        return 20 * np.log10(np.abs(h[0]) + 1e-15)

    assert abs(gain_db(filters.low_pass(1000, 48000), 1000) + 3.01) < 0.01
    assert abs(gain_db(filters.low_pass(1000, 48000), 1)) < 0.01
    assert abs(gain_db(filters.high_pass(1000, 48000), 1000) + 3.01) < 0.01
    assert abs(gain_db(filters.high_pass(1000, 48000), 100) + 40) < 0.1
    assert abs(gain_db(filters.peak(1000, 48000, 6), 1000) - 6) < 0.01
    assert abs(gain_db(filters.peak(1000, 48000, -6), 20)) < 0.01
    assert gain_db(filters.notch(50, 48000), 50) < -200
    assert abs(gain_db(filters.notch(50, 48000), 100)) < 0.2


@pytest.mark.parametrize("frequency_hz, q", [(0, 1), (24000, 1), (100, 0)])
def test_impossible_designs_are_refused(frequency_hz, q):
    with pytest.raises(ValueError):
        filters.low_pass(frequency_hz, 48000, q)


@pytest.mark.parametrize("samples", [0, 1, 100, 1000])
def test_delay_is_exact_in_any_blocks(samples):
    x = _noise()
    expected = np.zeros_like(x)
    expected[:, samples:] = x[:, : x.shape[1] - samples]
    for sizes in SIZES:
        line = delay.build(samples, 2)
        y = _in_blocks(x, sizes, lambda part, line=line: delay.delay_array(line, part))
        assert np.array_equal(y, expected)


@pytest.mark.parametrize("width, columns", [(1, [0]), (2, [1, 0]), (2, [1, -1]), (6, [4, 2, 2])])
def test_interleaving_chooses_channels(width, columns):
    frames = np.random.default_rng(0).standard_normal((133, width)).astype(np.float32)
    planar = np.full((len(columns), 150), 7, np.float32)
    channels.deinterleave_array(frames, np.array(columns), planar)
    for row, column in zip(planar, columns, strict=True):
        assert np.array_equal(row[:133], frames[:, column] if column >= 0 else np.zeros(133))
        assert (row[133:] == 7).all()
    rows = np.arange(width) % (len(columns) + 1) - 1
    back = np.full_like(frames, 7)
    channels.interleave_array(planar, rows, back)
    for column, row in enumerate(rows):
        assert np.array_equal(back[:, column], planar[row, :133] if row >= 0 else np.zeros(133))


def test_maps_that_name_what_is_not_there_are_refused():
    frames, planar = np.zeros((8, 2), np.float32), np.zeros((2, 8), np.float32)
    with pytest.raises(ValueError, match="column"):
        channels.deinterleave_array(frames, np.array([0, 2]), planar)
    with pytest.raises(ValueError, match="channel"):
        channels.interleave_array(planar, np.array([0, 2]), frames)


def _cookbook(kind, frequency_hz, q, gain_db):
    """Bristow-Johnson's formulae as they stand in the cookbook."""
    w, a = 2 * np.pi * frequency_hz / 48000, 10 ** (gain_db / 40)
    c, alpha, r = np.cos(w), np.sin(w) / (2 * q), np.sqrt(a)
    return {
        filters.HIGH_PASS: lambda: ((1 + c) / 2, -(1 + c), (1 + c) / 2, 1 + alpha, -2 * c, 1 - alpha),
        filters.BAND: lambda: (alpha, 0, -alpha, 1 + alpha, -2 * c, 1 - alpha),
        filters.PEAK: lambda: (1 + alpha * a, -2 * c, 1 - alpha * a, 1 + alpha / a, -2 * c, 1 - alpha / a),
        filters.LOW_SHELF: lambda: (
            a * ((a + 1) - (a - 1) * c + 2 * r * alpha), 2 * a * ((a - 1) - (a + 1) * c),
            a * ((a + 1) - (a - 1) * c - 2 * r * alpha), (a + 1) + (a - 1) * c + 2 * r * alpha,
            -2 * ((a - 1) + (a + 1) * c), (a + 1) + (a - 1) * c - 2 * r * alpha,
        ),
        filters.HIGH_SHELF: lambda: (
            a * ((a + 1) + (a - 1) * c + 2 * r * alpha), -2 * a * ((a - 1) + (a + 1) * c),
            a * ((a + 1) + (a - 1) * c - 2 * r * alpha), (a + 1) - (a - 1) * c + 2 * r * alpha,
            2 * ((a - 1) - (a + 1) * c), (a + 1) - (a - 1) * c - 2 * r * alpha,
        ),
    }[kind]()  # fmt: skip


@pytest.mark.parametrize("kind", [filters.HIGH_PASS, filters.LOW_SHELF, filters.PEAK, filters.HIGH_SHELF, filters.BAND])
def test_designs_of_the_audio_thread_are_those_of_the_cookbook(kind):
    found = np.zeros(5)
    for frequency_hz in (20, 1000, 12000, 20000):
        for q, gain_db in ((0.1, 24), (2**-0.5, -24), (10, 3)):
            filters.design_array(kind, found, frequency_hz, 48000, q, gain_db)
            b0, b1, b2, a0, a1, a2 = _cookbook(kind, frequency_hz, q, gain_db)
            assert np.allclose(found, np.array([b0, b1, b2, a1, a2]) / a0, rtol=1e-9, atol=1e-12)
    filters.design_array(kind, found, 40000, 48000, 1, 0)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("kind", [filters.LOW_SHELF, filters.PEAK, filters.HIGH_SHELF])
def test_a_design_of_no_gain_passes_every_bit(kind):
    coefficients, x = np.zeros(5), _noise(1)
    filters.design_array(kind, coefficients, 700, 48000, 1.3, 0)
    y = x.copy()
    filters.cascade_array(coefficients[None], np.zeros((1, 1, 2)), y)
    assert np.array_equal(x, y)


def test_a_band_taken_away_is_a_notch_and_at_no_depth_nothing():
    coefficients, x = np.zeros(5), _noise(1)[0]
    filters.design_array(filters.BAND, coefficients, 1000, 48000, 4, 0)
    notch = np.insert(filters.notch(1000, 48000, 4), 3, 1.0)
    y, state = x.copy(), np.zeros(2)
    filters.take_away_array(coefficients, state, y, 1.0)
    assert np.abs(y - sosfilt(notch[None], x.astype(np.float64))).max() < 1e-6 * np.abs(x).max()
    y = x.copy()
    filters.take_away_array(coefficients, state, y, 0.0)
    assert np.array_equal(x, y)
