"""True peaks against EBU Tech 3341's signals and scipy's resampling."""

import numpy as np
import pytest
from scipy.signal import resample

import rtgan  # noqa: F401
from rtgan.kernels import truepeak

RATE = 48000


def _peaks(x, sizes=(997,)):
    memory, found = truepeak.build(1), np.zeros(len(x), np.float32)
    done = i = 0
    while done < len(x):
        n = min(sizes[i % len(sizes)], len(x) - done)
        truepeak.peaks_array(memory, np.ascontiguousarray(x[done : done + n]), found[done : done + n])
        done, i = done + n, i + 1
    return found


def _db(x):
    return 20 * np.log10(x)


@pytest.mark.parametrize(
    "part, phase, level, wanted",
    [(4, 0, 0.5, -6.0), (4, 45, 0.5, -6.0), (6, 60, 0.5, -6.0), (8, 67.5, 0.5, -6.0), (4, 45, 1.41, 3.0)],
    ids=["15", "16", "17", "18", "19"],
)
def test_sines_of_tech_3341(part, phase, level, wanted):
    n = np.arange(RATE)
    # Tapered at both ends, for a sine that sets in at once really has higher peaks.
    taper = np.clip(np.minimum(n, n[::-1]) / 2400, 0, 1)
    found = _peaks((level * taper * np.sin(2 * np.pi * n / part + np.deg2rad(phase))).astype(np.float32))
    assert -0.4 < _db(found.max()) - wanted < 0.2


@pytest.mark.parametrize("highest_hz", [1000, 10000, 20000])
def test_peaks_between_the_samples_are_those_of_sixteenfold_resampling(highest_hz):
    size = 4800
    for seed in range(20):
        rng = np.random.default_rng(seed)
        spectrum = np.zeros(size // 2 + 1, complex)
        last = highest_hz * size // RATE
        spectrum[1:last] = rng.standard_normal(last - 1) + 1j * rng.standard_normal(last - 1)
        x = np.fft.irfft(spectrum)
        x = np.tile(0.5 * x / np.abs(x).max(), 3).astype(np.float32)  # periodic, so that resampling has no ends
        reference = np.abs(resample(x[:size].astype(np.float64), 16 * size)).max()
        assert _db(_peaks(x)[size:].max() / reference) == pytest.approx(0, abs=0.06)


def test_a_peak_is_where_it_says_and_blocks_do_not_show():
    x = np.zeros(1000, np.float32)
    x[300:302] = 0.5  # the peak lies between the two
    found = _peaks(x)
    assert found.argmax() == 300 + truepeak.LATENCY and found.max() > 0.6
    rng = np.random.default_rng(0)
    x = rng.standard_normal(5000).astype(np.float32)
    assert all(np.array_equal(_peaks(x, sizes), _peaks(x)) for sizes in ([1], [64], [65, 3, 128]))
    assert (_peaks(x)[truepeak.LATENCY :] >= np.abs(x[: -truepeak.LATENCY])).all()
