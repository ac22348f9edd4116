"""The resampler against exact tones and a direct computation in double precision; delays to the sample."""

import numpy as np
import pytest
from numba import types
from scipy.signal import resample_poly

import rtgan  # noqa: F401
from rtgan.kernels import resample
from rtgan.kernels.native import kernel

PAIRS = [(44100, 48000), (48000, 44100), (48000, 88200), (96000, 44100), (48000, 16000), (16000, 48000)]


@kernel(types.int64(types.int64[::1], types.float32[:, ::1], types.int64, types.float32[:, ::1], types.int64))
def _push_pull(memory, x, n, out, limit):
    resample.push(memory.ctypes.data, x.ctypes.data, x.shape[1], n)
    return resample.pull(memory.ctypes.data, out.ctypes.data, out.shape[1], limit)


def _tones(rate_hz, frequencies_hz, count):
    t = np.arange(count) / rate_hz
    return np.stack([np.sin(2 * np.pi * f * t) for f in frequencies_hz])


@pytest.mark.parametrize("rates", PAIRS)
def test_tones_come_through_with_100_db(rates):
    given, wanted = rates
    frequencies = 997.0, 0.44 * min(rates)
    y = resample.build(given, wanted, 2, 512).process(_tones(given, frequencies, given // 5).astype(np.float32))
    reference = _tones(wanted, frequencies, y.shape[1])
    assert y.shape[1] > wanted // 5 - 200
    # The ends see the silence around the signal.
    error, reference = (y - reference)[:, 300:-300], reference[:, 300:-300]
    assert (10 * np.log10((reference**2).mean(axis=1) / (error**2).mean(axis=1)) > 100).all()


@pytest.mark.parametrize("rates", PAIRS)
def test_the_short_filter_trades_the_highest_tones_for_a_fourth_of_the_delay(rates):
    given, wanted = rates
    low = min(rates)
    short, long = (resample.build(given, wanted, 3, 512, short=kind) for kind in (True, False))
    assert 4 * (short.ahead_samples - 1) < long.ahead_samples
    frequencies = 997.0, 0.36 * low, 0.38 * low
    y = short.process(_tones(given, frequencies, given // 5).astype(np.float32))[:, 300:-300]
    reference = _tones(wanted, frequencies, y.shape[1] + 600)[:, 300:-300]
    wrong = 10 * np.log10(((y - reference) ** 2).mean(axis=1) / (reference**2).mean(axis=1))
    assert wrong[0] < -60 and wrong[1] < -50 and wrong[2] < -40, wrong
    if 1.3 * wanted < given:
        y = resample.build(given, wanted, 1, 512, short=True).process(
            _tones(given, (0.63 * low,), given // 5).astype(np.float32)
        )
        assert np.abs(y[:, 300:-300]).max() < 10 ** (-55 / 20)


@pytest.mark.parametrize("rates", [(96000, 44100), (48000, 16000)])
def test_the_stop_band_is_100_db_down(rates):
    given, wanted = rates
    y = resample.build(given, wanted, 2, 512).process(
        _tones(given, (0.551 * wanted, 0.49 * given), given // 5).astype(np.float32)
    )
    assert np.abs(y[:, 300:-300]).max() < 1e-5


@pytest.mark.parametrize("rates", PAIRS)
def test_agrees_with_scipy_given_the_same_filter(rates):
    given, wanted = rates
    built = resample.build(given, wanted, 1, 512)
    up, down = int(built.memory[resample.PHASES]), given * int(built.memory[resample.PHASES]) // wanted
    ahead, table = resample._filter(given, wanted, False)
    # The table, phase by phase, is the prototype filter at the fine rate, centred `ahead` samples from its end.
    prototype = table.astype(np.float64)[:, ::-1].T.ravel()
    centre = ahead * up
    x = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
    fine = np.zeros(2000 * up)
    fine[::up] = x
    from scipy.signal import fftconvolve

    # An input at distance d = n - pos weighs table[phase][d + taps - 1 - ahead]; reversed it is a convolution.
    reference = fftconvolve(fine, prototype)[centre::down]
    y = built.process(x[None])[0]
    assert np.abs(y - reference[: y.size]).max() < 2e-5
    assert np.abs(y - resample_poly(x.astype(np.float64), up, down)[: y.size]).std() < 0.5


@pytest.mark.parametrize("rates", PAIRS)
def test_the_block_size_changes_no_bit(rates):
    x = np.random.default_rng(0).standard_normal((2, 3000)).astype(np.float32)
    rng = np.random.default_rng(1)
    results = []
    for sizes in ([3000], [1], [64], [65], [128], [997], list(rng.integers(1, 300, 1000))):
        resampler = resample.build(*rates, 2, 256)
        parts, done, i = [], 0, 0
        while done < 3000:
            n = int(sizes[i % len(sizes)])
            parts.append(resampler.process(x[:, done : done + n]))
            done, i = done + n, i + 1
        results.append(np.concatenate(parts, axis=1))
    for result in results[1:]:
        assert np.array_equal(result, results[0])


def test_an_offset_moves_the_output_by_phases():
    x = np.random.default_rng(0).standard_normal((1, 2000)).astype(np.float32)
    plain = resample.build(44100, 48000, 1, 512).process(x)
    # 147 phases are one output sample.
    later = resample.build(44100, 48000, 1, 512, offset=3 * 147).process(x)
    earlier = resample.build(44100, 48000, 1, 512, offset=-5 * 147).process(x)
    assert np.array_equal(later, plain[:, 3:])
    assert np.array_equal(earlier[:, 5:], plain)


@pytest.mark.parametrize("inner_latency", [0, 7, 480])
@pytest.mark.parametrize("rates", [(44100, 48000), (48000, 44100), (96000, 48000), (48000, 16000), (16000, 48000)])
def test_there_and_back_has_the_declared_whole_delay(rates, inner_latency):
    host, inside = rates
    samples, most = 5000, 256
    x = _tones(host, (997.0, 0.4 * min(rates)), samples).astype(np.float32)
    trip = resample.round_trip(host, inside, 2, most, inner_latency)
    rng = np.random.default_rng(2)
    sizes = [1] * 50 + [most] * 3 + list(rng.integers(1, most + 1, 200))
    waiting = np.zeros((2, inner_latency), np.float32)
    inner = np.empty((2, trip.max_inner_block), np.float32)
    y = np.empty_like(x)
    done = 0
    for size in sizes:
        n = min(int(size), samples - done)
        block = np.ascontiguousarray(x[:, done : done + n])
        made = _push_pull(trip.inner.memory, block, n, inner, inner.shape[1])
        assert made <= trip.max_inner_block
        delayed = np.concatenate([waiting, inner[:, :made]], axis=1)
        waiting = delayed[:, made:]
        out = np.empty((2, n), np.float32)
        given = np.ascontiguousarray(delayed[:, :made])
        assert _push_pull(trip.outer.memory, given, made, out, n) == n
        y[:, done : done + n] = out
        done += n
    assert done == samples
    latency = trip.latency_samples
    settled = 2 * trip.inner.ahead_samples + 100
    assert np.abs(y[:, latency + settled :] - x[:, settled : samples - latency]).max() < 2e-5
    assert np.abs(y[:, : max(0, latency - settled)]).max(initial=0) < 1e-6


def test_what_is_not_possible_is_refused():
    with pytest.raises(ValueError, match="above 1024"):
        resample.build(44100, 48001, 1, 64)
    with pytest.raises(ValueError, match="positive"):
        resample.build(44100, 48000, 0, 64)
    with pytest.raises(ValueError, match="shape"):
        resample.build(44100, 48000, 2, 64).process(np.zeros((1, 10), np.float32))
