"""What counts as a howl in a spectrum, and what does not."""

import numpy as np
import pytest

import rtgan  # noqa: F401
from rtgan.kernels import howl

RATE, SIZE = 48000, 4096
LEAST = (10 ** (-50 / 20) * SIZE / 4) ** 2


def _find(x):
    spectrum = np.fft.rfft(x[:SIZE] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(SIZE) / SIZE)))
    found = howl.find_array(spectrum.real.astype(np.float32), spectrum.imag.astype(np.float32), 9, LEAST)
    return found * RATE / SIZE if found >= 0 else None


def _tones(**levels_db):
    t = np.arange(SIZE) / RATE
    return sum(
        10 ** (db / 20) * np.sin(2 * np.pi * float(f[1:]) * t + k) for k, (f, db) in enumerate(levels_db.items())
    )


@pytest.mark.parametrize("frequency_hz", [150, 440, 1234.5, 3000, 9876])
def test_a_lone_sine_is_found_at_its_frequency(frequency_hz):
    noise = 1e-3 * np.random.default_rng(0).standard_normal(SIZE)
    assert _find(_tones(**{f"f{frequency_hz}": -20}) + noise) == pytest.approx(frequency_hz, abs=1.5)


@pytest.mark.parametrize(
    "sound",
    [
        {"f440": -20, "f880": -50},
        {"f440": -20, "f1320": -45},
        {"f880": -20, "f440": -50},
        {"f440": -60},
        {"f440": -20, "f500": -30},
        {"f440": -20, "f3100": -16, "f5230": -14, "f7010": -15},
    ],
    ids=["octave", "twelfth", "an octave below", "faint", "a neighbour", "a chord"],
)
def test_what_has_harmonics_or_company_is_none(sound):
    assert _find(_tones(**sound)) is None


def test_silence_and_noise_are_none():
    assert _find(np.zeros(SIZE)) is None
    assert all(_find(0.1 * np.random.default_rng(k).standard_normal(SIZE)) is None for k in range(50))
