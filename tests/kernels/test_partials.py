"""Voices of partials and noise against sums in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rtgan.kernels import partials
from rtgan.kernels.partials import BANDS, HARMONICS, WAVER_MOST, Voice, Waver

RATE = 48000
HOP = 128
TABLE = partials.noise_table(RATE)
NONE = np.zeros(BANDS, np.float32)

Aims = list[tuple[NDArray[np.float32], NDArray[np.float32], float]]


def aims(frames: int, seed: int = 0, partial_count: int = HARMONICS) -> Aims:
    """Amplitudes, noise and pitch at the end of each frame."""
    rng = np.random.default_rng(seed)
    fall = 0.1 / np.arange(1, HARMONICS + 1) * (np.arange(HARMONICS) < partial_count)
    return [
        ((fall * rng.random(HARMONICS)).astype(np.float32), (0.01 * rng.random(BANDS)).astype(np.float32), float(f))
        for f in 220 * 2 ** (np.cumsum(rng.normal(0, 0.3, frames)) / 12)
    ]


def reference(voice: Voice, plan: Aims, stiffness: float) -> NDArray[np.float64]:
    """The same in float64, from the phases the voice begins with."""
    state = voice.memory.view(np.float32)
    phase = np.arctan2(state[HARMONICS : 2 * HARMONICS], state[:HARMONICS]).astype(np.float64)
    k = np.arange(1, HARMONICS + 1)
    stretch = k * np.sqrt((1 + stiffness * k * k) / (1 + stiffness))
    amps, gains, before = np.zeros(HARMONICS), np.zeros(BANDS), plan[0][2]
    row, out = voice._row, []
    for partial, bands, hertz in plan:
        fade = np.clip((0.475 - max(before, hertz) / RATE * stretch) / (0.475 - 0.42), 0, 1)
        i = np.arange(HOP)[:, None]
        begin, end = np.minimum(before / RATE * stretch, 0.5), np.minimum(hertz / RATE * stretch, 0.5)
        turns = begin * i + (end - begin) * i**2 / (2 * HOP)
        level = amps + (partial * fade - amps) * i / HOP
        noise = (gains + (bands - gains) * i / HOP) * TABLE[(row + i[:, 0]) % partials.TABLE_ROWS]
        out.append((level * np.sin(phase + 2 * np.pi * turns)).sum(1) + noise.sum(1))
        phase = phase + np.pi * (begin + end) * HOP
        amps, gains, before = partial * fade, bands.astype(np.float64), hertz
        row += HOP
    return np.concatenate(out)


def played(voice: Voice, plan: Aims, stiffness: float) -> NDArray[np.float32]:
    out, before = [], plan[0][2]
    for partial, bands, hertz in plan:
        voice.aim(partial, bands, before, hertz, HOP, stiffness)
        out.append(voice.more(HOP))
        before = hertz
    return np.concatenate(out)


@pytest.mark.parametrize("stiffness", [0.0, 4e-4])
def test_a_gliding_voice_is_the_sum_of_its_partials_and_its_noise(stiffness: float) -> None:
    plan = aims(60, partial_count=40)
    voice = Voice(RATE, 3, TABLE)
    expected = reference(voice, plan, stiffness)
    assert np.abs(expected).max() > 0.1
    assert np.abs(played(voice, plan, stiffness) - expected).max() < 2e-4 * np.abs(expected).max()


def test_a_long_note_keeps_its_pitch_and_its_level() -> None:
    voice, amps = Voice(RATE, 1, TABLE), np.zeros(HARMONICS, np.float32)
    amps[0] = 0.5
    sound = played(voice, [(amps, NONE, 27.5)] * (10 * RATE // HOP), 0.0)
    late = sound[-RATE:].astype(np.float64)
    assert np.abs(late).max() == pytest.approx(0.5, rel=1e-4)
    turns = np.unwrap(np.angle(np.fft.ifft(np.fft.fft(late) * (np.fft.fftfreq(len(late)) > 0))))[2000:-2000]
    hertz = np.polyfit(np.arange(len(turns)), turns, 1)[0] * RATE / (2 * np.pi)
    assert abs(1200 * np.log2(hertz / 27.5)) < 0.1


def test_nothing_folds_back_from_above_the_band() -> None:
    voice = Voice(RATE, 1, TABLE)
    amps = np.full(HARMONICS, 0.01, np.float32)
    hertz = 3100.0
    sound = played(voice, [(amps, NONE, hertz)] * 400, 0.0)[HOP:]
    power = np.abs(np.fft.rfft(sound * np.blackman(len(sound)))) ** 2
    at = np.fft.rfftfreq(len(sound), 1 / RATE)
    harmonic = np.abs(at / hertz - np.round(at / hertz)) < 0.02
    assert 10 * np.log10(power[~harmonic].max() / power.max()) < -60
    assert power[at > 0.48 * RATE].max() < 1e-6 * power.max()


def test_how_samples_are_cut_shows_in_no_bit() -> None:
    plan = aims(3)
    outs = []
    for cuts in ([HOP], [1] * HOP, [31, 33, 64], [100, 28]):
        voice, before, pieces = Voice(RATE, 5, TABLE), plan[0][2], []
        for partial, bands, hertz in plan:
            voice.aim(partial, bands, before, hertz, HOP)
            pieces.append(np.concatenate([voice.more(n) for n in cuts]))
            before = hertz
        outs.append(np.concatenate(pieces))
    assert all(np.array_equal(out.view(np.int32), outs[0].view(np.int32)) for out in outs)


def test_a_voice_that_falls_ends_in_silence_without_a_step() -> None:
    plan = aims(4)
    voice = Voice(RATE, 2, TABLE)
    before = played(voice, plan, 0.0)
    voice.fall(HOP)
    whole = np.concatenate([before, voice.more(HOP)])
    assert np.abs(np.diff(whole))[len(before) - 2 :].max() <= np.abs(np.diff(before)).max()
    assert abs(voice.more(1)[0]) < 1e-5


def test_the_bands_of_noise_are_even_loud_and_apart() -> None:
    edges = partials.band_edges_hz()
    assert edges[0] == 0 and edges[-1] == pytest.approx(24000) and (np.diff(edges) > 0).all()
    assert np.sqrt(np.mean(TABLE[:-32].astype(np.float64) ** 2, 0)) == pytest.approx(np.ones(BANDS), rel=1e-4)
    spectrum = np.abs(np.fft.rfft(TABLE[: partials.TABLE_ROWS], axis=0)) ** 2
    hertz = np.fft.rfftfreq(partials.TABLE_ROWS, 1 / RATE)
    for band in range(BANDS):
        inside = (hertz >= edges[band]) & (hertz <= edges[band + 1])
        assert spectrum[inside, band].sum() > 0.999 * spectrum[:, band].sum()
    assert not partials.noise_table(16000)[:, -1].any(), "nothing above the Nyquist frequency"


def wavering(frames: int, partials_: float, noise: float, keep: float, seed: int = 4) -> NDArray[np.float64]:
    """Logarithms of levels that are 1 without it, ``(frames, HARMONICS + BANDS)``."""
    waver, out = Waver(seed), np.ones((frames, HARMONICS + BANDS), np.float32)
    for row in out:
        waver.go(row, partials_, noise, keep)
    return np.log(out.astype(np.float64))


def test_levels_waver_as_the_recursion_in_float64_says() -> None:
    keep, frames = 0.9, 50
    bits, stray = 4 * 6364136223846793005 + 1442695040888963407, np.zeros(HARMONICS + BANDS)
    expected, spread = np.zeros((frames, HARMONICS + BANDS)), 0.0
    depth = np.where(np.arange(HARMONICS + BANDS) < HARMONICS, 0.4, 0.2)
    for row in expected:
        for k in range(HARMONICS + BANDS):
            bits = (bits * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            drawn = (((bits >> 40) & 0xFFFFFF) + ((bits >> 16) & 0xFFFFFF)) / 16777216 - 1
            stray[k] = keep * stray[k] + np.sqrt(6 * (1 - keep**2)) * drawn
        spread = keep**2 * spread + 1 - keep**2
        row[:] = depth * (np.clip(stray, -WAVER_MOST, WAVER_MOST) - 0.5 * depth * spread)
    assert np.abs(wavering(frames, 0.4, 0.2, keep) - expected).max() < 1e-5


def test_levels_waver_by_what_is_asked_for_each_by_itself_and_not_at_once() -> None:
    keep = np.exp(-1 / 40)
    logs = wavering(8000, 0.3, 0.1, float(keep))
    assert np.exp(logs[400:, :HARMONICS]).mean() == pytest.approx(1, abs=0.02), "amplitudes stay what they are"
    settled = logs[400:] + np.where(np.arange(HARMONICS + BANDS) < HARMONICS, 0.3**2 / 2, 0.1**2 / 2)
    assert np.abs(logs[0]).max() < 0.3 * np.sqrt(1 - keep**2) * np.sqrt(6) + 1e-6, "a note begins as the net says"
    # Held within two standard deviations, which takes a few per cent off.
    assert settled[:, :HARMONICS].std() == pytest.approx(0.3 * 0.96, rel=0.05)
    assert settled[:, HARMONICS:].std() == pytest.approx(0.1 * 0.96, rel=0.05)
    assert np.abs(settled[:, :HARMONICS]).max() <= 0.3 * WAVER_MOST + 1e-6
    later = np.mean(settled[40:] * settled[:-40]) / np.mean(settled**2)
    assert later == pytest.approx(np.exp(-1), abs=0.07)
    others = np.corrcoef(settled[:, :HARMONICS].T)
    assert np.abs(others - np.eye(HARMONICS)).mean() < 0.12
    assert np.array_equal(wavering(60, 0.3, 0.1, 0.9), wavering(60, 0.3, 0.1, 0.9))
    assert not np.allclose(wavering(60, 0.3, 0.1, 0.9), wavering(60, 0.3, 0.1, 0.9, seed=5))
    assert not wavering(60, 0.0, 0.0, 0.9).any()
