"""A recording's floor: found where it is quietest, taken away, and nothing else with it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rtgan.train.floor import cleared, floor_of, in_frames

RATE = 16000
Floats = NDArray[np.float32]


def _db(x: Floats) -> float:
    return float(10 * np.log10(np.mean(np.square(x, dtype=np.float64)) + 1e-20))


@pytest.fixture
def parts() -> tuple[Floats, Floats]:
    """Bursts of tones with pauses between them, and a hiss."""
    rng = np.random.default_rng(0)
    time = np.arange(6 * RATE) / RATE
    words = sum(np.sin(2 * np.pi * f * time) for f in (180.0, 360.0, 1450.0, 3300.0)) * (
        np.sin(2 * np.pi * time) > -0.4
    )
    return (0.1 * words).astype(np.float32), rng.normal(0, 0.002, len(time)).astype(np.float32)


def test_short_time_spectra_left_alone_give_the_signal_back() -> None:
    signal = np.random.default_rng(1).normal(0, 0.1, 5000).astype(np.float32)
    assert np.allclose(in_frames(signal, 512, lambda s: s), signal, atol=1e-6)


def test_the_floor_is_lowered_and_what_is_above_it_stays(parts: tuple[Floats, Floats]) -> None:
    words, hiss = parts
    recorded = words + hiss
    out = cleared(recorded, RATE, floor_of(recorded, RATE), 20.0)
    pauses = np.convolve(np.abs(words), np.ones(2000), "same") == 0
    loud = np.convolve(np.abs(words) == 0, np.ones(2000), "same") == 0
    assert pauses.sum() > RATE and loud.sum() > RATE
    assert -20.5 < _db(out[pauses]) - _db(recorded[pauses]) < -15
    # The tones are as they were, and what is around them is nearer to them than it was.
    spectrum, before = (np.abs(np.fft.rfft(x[loud])) for x in (out, recorded))
    peaks = before > 0.3 * before.max()
    assert np.allclose(spectrum[peaks], before[peaks], rtol=0.02)
    assert _db(out[loud] - words[loud]) < _db(hiss[loud]) - 3


def test_without_pauses_of_their_own_or_without_sound_nothing_breaks() -> None:
    silence = np.zeros(RATE, np.float32)
    assert not floor_of(silence, RATE).any() and not cleared(silence, RATE, floor_of(silence, RATE), 20.0).any()
    # Digital silence between words is no floor: what is measured is where something sounds.
    hiss = np.random.default_rng(2).normal(0, 0.01, 4 * RATE).astype(np.float32)
    held = hiss.copy()
    held[RATE : 3 * RATE] = 0
    assert float(np.abs(10 * np.log10(floor_of(held, RATE)[4:-4] / floor_of(hiss, RATE)[4:-4])).mean()) < 1
    short = hiss[:100]
    assert cleared(short, RATE, floor_of(short, RATE), 20.0).shape == short.shape
