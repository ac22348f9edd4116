"""Loudness against the standard's table, EBU Tech 3341's signals, and pyloudnorm."""

import numpy as np
import pytest
from scipy.signal import sosfilt

import rtgan  # noqa: F401
from rtgan.kernels import loudness

RATE = 48000

#: ITU-R BS.1770-4, tables 1 and 2: b0 b1 b2 a1 a2.
TABLES = np.array(
    [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, -1.99004745483398, 0.99007225036621],
    ]
)


def _tone(levels, rate=RATE, channels=2, frequency=1000.0):
    """A stereo sine in phase, of (dBFS, seconds) one after the other."""
    level = np.concatenate([np.full(round(seconds * rate), 10 ** (db / 20)) for db, seconds in levels])
    sine = np.sin(2 * np.pi * frequency * np.arange(len(level)) / rate)
    return np.tile((level * sine).astype(np.float32), (channels, 1))


def _readings(x, rate=RATE, sizes=(480,)):
    """Momentary, short-term and integrated loudness after every block."""
    meter = loudness.build(rate, len(x))
    values = meter.view(np.float64)
    found, done, i = [], 0, 0
    while done < x.shape[1]:
        n = sizes[i % len(sizes)]
        loudness.measure_array(meter, np.ascontiguousarray(x[:, done : done + n]))
        found.append(values[loudness.MOMENTARY : loudness.INTEGRATED + 1].copy())
        done, i = done + n, i + 1
    return np.array(found).T


def _reference(x, rate):
    """Integrated loudness, written down as the standard has it, in float64."""
    weighted = sosfilt(np.insert(loudness.k_weighting(rate), 3, 1.0, axis=1), x.astype(np.float64))
    step, length = rate // 10, rate * 4 // 10
    starts = range(0, x.shape[1] - length + 1, step)
    powers = np.array([np.square(weighted[:, s : s + length]).mean(axis=1).sum() for s in starts])
    powers = powers[-0.691 + 10 * np.log10(powers + 1e-20) > -70]
    return -0.691 + 10 * np.log10(powers[powers > powers.mean() / 10].mean())


def test_the_weighting_is_that_of_the_standards_tables():
    assert np.abs(loudness.k_weighting(48000) - TABLES).max() < 1e-6


@pytest.mark.parametrize(
    "levels",
    [
        [(-23, 20)],
        [(-33, 20)],
        [(-36, 10), (-23, 60), (-36, 10)],
        [(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)],
        [(-26, 20), (-20, 20.1), (-26, 20)],
    ],
    ids=["1", "2", "3", "4", "5"],
)
def test_integrated_loudness_of_tech_3341(levels):
    momentary, short, integrated = _readings(_tone(levels))
    wanted = -33.0 if levels == [(-33, 20)] else -23.0
    assert integrated[-1] == pytest.approx(wanted, abs=0.1)
    if len(levels) == 1:
        assert np.abs(momentary[40:] - wanted).max() < 0.1 and np.abs(short[300:] - wanted).max() < 0.1


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_short_term_and_momentary_loudness_of_tech_3341(rate):
    size = (rate // 100,)
    _, short, _ = _readings(_tone([(-20, 1.34), (-30, 1.66)] * 5, rate), rate, size)
    assert np.abs(short[300:] + 23).max() < 0.1, "case 9"
    momentary, _, _ = _readings(_tone([(-20, 0.18), (-30, 0.22)] * 25, rate), rate, size)
    assert np.abs(momentary[100:] + 23).max() < 0.1, "case 12"


def test_the_largest_loudness_of_tones_that_begin_anywhere():
    for i in range(20):
        before, level = 0.01 * i, -38.0 + i
        momentary, short, _ = _readings(_tone([(-200, before), (level, 0.4), (-200, 1)]))
        assert momentary.max() == pytest.approx(level, abs=0.1), "case 14"
        if i % 5 == 0:
            momentary, short, _ = _readings(_tone([(-200, 5 * before), (level, 3), (-200, 1)]))
            assert short.max() == pytest.approx(level, abs=0.1), "case 11"


@pytest.mark.parametrize("rate, channels", [(44100, 1), (48000, 2), (96000, 2)])
def test_integrated_loudness_is_that_of_the_reference_and_of_pyloudnorm(rate, channels):
    rng = np.random.default_rng(3)
    envelope = np.repeat(10 ** rng.uniform(-3, 0, 24), rate // 2)
    x = (0.2 * envelope * rng.standard_normal((channels, len(envelope)))).astype(np.float32)
    found = _readings(x, rate)[2][-1]
    assert found == pytest.approx(_reference(x, rate), abs=0.02)
    pyloudnorm = pytest.importorskip("pyloudnorm")
    meter = pyloudnorm.Meter(rate, filter_class="DeMan")
    assert found == pytest.approx(meter.integrated_loudness(x.T.astype(np.float64)), abs=0.05)


def test_no_block_size_shows_and_silence_reads_the_floor():
    x = np.random.default_rng(0).standard_normal((2, 48000)).astype(np.float32)
    ends = [_readings(x, sizes=sizes)[:, -1] for sizes in ((48000,), (1, 64, 997), (65,))]
    assert all(np.array_equal(end, ends[0]) for end in ends)
    assert (_readings(np.zeros((1, 96000), np.float32)) == loudness.FLOOR_LUFS).all()
