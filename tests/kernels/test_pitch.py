"""The pitch tracker against tones whose pitch is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rtgan.kernels import pitch

RATE = 48000


def voice(hertz: NDArray[np.float64] | float, seconds: float = 1.0, rate: int = RATE) -> NDArray[np.float32]:
    """A buzz of twelve partials through a resonance, at a pitch that may move."""
    pitches = np.broadcast_to(hertz, (round(seconds * rate),))
    phase = 2 * np.pi * np.cumsum(pitches) / rate
    partials = [np.sin(k * phase + k) / (1 + ((k * pitches - 700) / 500) ** 2) for k in range(1, 13)]
    return (0.2 * np.sum(partials, 0)).astype(np.float32)


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
@pytest.mark.parametrize("hertz", [70.0, 110.0, 196.0, 311.1, 440.0, 698.5, 987.8])
def test_steady_voices_are_heard_within_a_few_cents(hertz: float, rate: int) -> None:
    answers = pitch.track(voice(hertz, 0.5, rate), rate)[60:]
    cents = 1200 * np.log2(np.maximum(answers[:, 0], 1) / hertz)
    assert np.abs(cents).max() < 4
    assert answers[:, 1].min() > 0.8


def test_a_glide_is_followed_with_the_delay_that_is_stated() -> None:
    t = np.arange(2 * RATE) / RATE
    truth = 150 * 2 ** (t / 1.0)
    answers = pitch.track(voice(truth, 2.0), RATE)
    times = (np.arange(len(answers)) + 1) * pitch.step_samples(RATE) / RATE
    behind = times - np.interp(answers[:, 0], truth, t)
    assert 0.005 < np.median(behind[60:-5]) < 0.03
    assert np.abs(behind[60:-5] - np.median(behind[60:-5])).max() < 0.02


def test_noise_and_silence_have_no_pitch_and_a_noisy_voice_has_one() -> None:
    noise = (0.1 * np.random.default_rng(3).standard_normal(RATE)).astype(np.float32)
    assert (pitch.track(noise, RATE)[:, 0] > 0).mean() < 0.1
    assert not pitch.track(np.zeros(RATE, np.float32), RATE)[:, 0].any()
    answers = pitch.track(voice(220.0) + 0.15 * noise, RATE)[60:]
    assert np.mean(np.abs(1200 * np.log2(np.maximum(answers[:, 0], 1) / 220)) < 30) > 0.95


def test_the_level_is_that_of_the_sound() -> None:
    t = np.arange(RATE) / RATE
    tone = (0.1 * np.sin(2 * np.pi * 300 * t)).astype(np.float32)
    assert pitch.track(tone, RATE)[100:, 2] == pytest.approx(-23.0, abs=1.0)


def test_too_low_a_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="8000"):
        pitch.build(4000)
