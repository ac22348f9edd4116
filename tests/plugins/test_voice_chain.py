"""The plugins of a voice chain as people use them: each does what it says, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import freqz, resample
from support import speechlike

from rtgan import events, presets
from rtgan.engine import Engine
from rtgan.errors import UsageError
from rtgan.graph import ChainItem, Graph
from rtgan.kernels import filters, loudness
from rtgan.plugin import Plugin
from rtgan.plugins.compressor import Compressor
from rtgan.plugins.deesser import DeEsser
from rtgan.plugins.denoise import Denoise
from rtgan.plugins.eq import Eq
from rtgan.plugins.gate import Gate
from rtgan.plugins.howl import Howl
from rtgan.plugins.hum import Hum
from rtgan.plugins.leveller import Leveller
from rtgan.plugins.truepeak import TruePeak

RATE = 48000
Sound = NDArray[np.float32]


class Chain:
    """Plugins in an engine; sound goes through as (samples,) or (samples, channels), in blocks."""

    def __init__(self, *plugins: tuple[Plugin, dict[str, float]], rate: int = RATE, channels: int = 1) -> None:
        self.engine = Engine(rate, channels)
        items = [ChainItem(plugin, dict(values)) for plugin, values in plugins]
        self.graph = Graph(items, rate, self.engine.max_block, channels)
        self.engine.publish(self.graph)

    def run(self, sound: Sound, block: int = 480, note: str = "") -> Sound:
        """What comes out; with ``note``, the reading of that name after every block instead."""
        frames = np.ascontiguousarray(sound if sound.ndim == 2 else sound[:, None], np.float32)
        parts, noted = [], []
        for start in range(0, len(frames), block):
            parts.append(self.engine.render(frames[start : start + block]))
            if note:
                noted.append(self.graph.readings[note])
        out = np.concatenate(parts)
        return np.array(noted) if note else out if sound.ndim == 2 else out[:, 0]

    def set(self, name: str, value: float, when: int = events.NOW) -> None:
        assert self.engine.set_param(self.graph, self.graph.find(name)[0], value, when)


def sine(frequency: float, seconds: float, level_db: float = -20.0, rate: int = RATE) -> Sound:
    t = np.arange(round(seconds * rate)) / rate
    return (10 ** (level_db / 20) * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


def db(sound: Sound) -> float:
    return float(10 * np.log10(np.mean(np.square(sound, dtype=np.float64)) + 1e-20))


# --- equaliser ---


def test_the_equaliser_has_the_response_of_its_sections() -> None:
    values = {
        "low_cut_hz": 80.0, "low_hz": 200.0, "low_db": 5.0, "peak2_hz": 2500.0, "peak2_db": -9.0, "peak2_q": 3.0,
        "high_hz": 7000.0, "high_db": 4.0,
    }  # fmt: skip
    chain = Chain((Eq(), values))
    impulse = np.zeros(1 << 16, np.float32)
    impulse[0] = 0.1
    found = 20 * np.log10(np.abs(np.fft.rfft(chain.run(impulse) / 0.1)) + 1e-9)
    wanted = np.zeros(len(found))
    c = np.zeros(5)
    for kind, hz, q, gain in (
        (filters.HIGH_PASS, 80, 2**-0.5, 0), (filters.LOW_SHELF, 200, 2**-0.5, 5), (filters.PEAK, 2500, 3, -9),
        (filters.HIGH_SHELF, 7000, 2**-0.5, 4),
    ):  # fmt: skip
        filters.design_array(kind, c, hz, RATE, q, gain)
        wanted += 20 * np.log10(np.abs(freqz(c[:3], [1, *c[3:]], len(found), include_nyquist=True)[1]) + 1e-9)
    heard = slice(round(20 * (1 << 16) / RATE), None)
    assert np.abs(found - wanted)[heard].max() < 0.02


@pytest.mark.parametrize(
    "turned, start, end", [("peak2_db", -24.0, 24.0), ("peak2_hz", 100.0, 15000.0), ("low_cut_hz", 10.0, 900.0)]
)
def test_turning_the_equaliser_makes_no_noise(turned: str, start: float, end: float) -> None:
    chain = Chain((Eq(), {"peak2_db": 12.0, turned: start}))
    tone = sine(440, 1.0)
    chain.run(tone)
    chain.set(f"eq.{turned}", end)
    out = chain.run(tone)
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out))))
    # A change of 50 ms spreads the tone, but nothing lands two octaves away.
    assert 20 * np.log10(spectrum[2500:].max() / spectrum.max()) < -85


# --- compressor ---


def test_the_compressor_turns_down_by_its_ratio_and_says_so() -> None:
    chain = Chain((Compressor(), {"threshold_db": -30.0, "ratio": 4.0, "knee_db": 0.0, "release_ms": 1000.0}))
    noted = chain.run(sine(200, 2.0, -10.0), note="compressor.gain_reduction_db")
    assert noted[-1] == pytest.approx(15.0, abs=0.5)
    quiet = sine(200, 0.5, -35.0)
    assert np.array_equal(Chain((Compressor(), {"threshold_db": -30.0, "knee_db": 0.0})).run(quiet), quiet)


def test_looking_ahead_is_latency_and_catches_the_first_peak() -> None:
    burst = np.concatenate([np.zeros(4800, np.float32), sine(1000, 0.2, -3.0)])
    values = {"threshold_db": -30.0, "ratio": 20.0, "attack_ms": 1.0}
    peaks = {}
    for ahead in (0, 5):
        chain = Chain((Compressor(lookahead_ms=ahead), values))
        assert chain.graph.latency_samples == 48 * ahead
        out = chain.run(burst)
        assert np.flatnonzero(np.abs(out) > 1e-6)[0] == np.flatnonzero(np.abs(burst) > 1e-6)[0] + 48 * ahead
        peaks[ahead] = np.abs(out).max()
    assert peaks[5] < 0.2 * peaks[0]


SETTING = "schema: 2\nname: X\nchain:\n- plugin: compressor\n  lookahead_ms: {}\n"


def test_a_setting_stands_in_a_preset_and_is_checked_there() -> None:
    preset = presets.parse(SETTING.format("2.5"), "x.yaml")
    item = preset.items()[0]
    assert isinstance(item.plugin, Compressor) and item.plugin.lookahead_ms == 2.5
    assert "lookahead_ms: 2.5\n" in presets.dump(preset)
    assert presets.parse(presets.dump(preset)) == preset
    for wrong in ("50", "-1", "soon"):
        with pytest.raises(UsageError, match=r"^x\.yaml:5: .*lookahead_ms.*allowed: 0 to 20 ms$"):
            presets.parse(SETTING.format(wrong), "x.yaml")
    with pytest.raises(UsageError, match=r"lookahead_ms.*allowed: 0 to 20 ms"):
        Compressor(lookahead_ms=-1)


# --- de-esser ---


def test_the_deesser_takes_the_edge_off_an_s_at_any_level() -> None:
    rng = np.random.default_rng(0)
    hiss = rng.standard_normal(RATE // 5)
    spectrum = np.fft.rfft(hiss)
    spectrum[: 6000 // 5] = 0
    hiss = (np.fft.irfft(spectrum) * 0.1).astype(np.float32)
    voice = speechlike(1.0)
    for level in (1.0, 0.05):
        sound = (level * np.concatenate([voice, hiss, voice])).astype(np.float32)
        chain = Chain((DeEsser(), {}))
        out = chain.run(sound)
        ess = slice(RATE + 960, RATE + len(hiss))
        assert db(out[ess]) - db(sound[ess]) == pytest.approx(-8, abs=1.5)
        noted = Chain((DeEsser(), {})).run(sound, note="deesser.gain_reduction_db")
        assert noted.max() == pytest.approx(8, abs=0.1) and np.median(noted[:50]) < 0.5


# --- gate ---


def _syllables(rate: int) -> Sound:
    """A voice that begins after 2 s and speaks for 2 s, in a room with noise and loud clicks."""
    voice = np.concatenate([np.zeros(2 * rate), speechlike(2.0, rate), np.zeros(2 * rate)]).astype(np.float32)
    noise = 0.003 * np.random.default_rng(4).standard_normal(len(voice)).astype(np.float32)
    for at in (rate, rate + rate // 2, 5 * rate):
        noise[at : at + 3] += (0.6, -0.6, 0.3)
    return voice + noise


@pytest.mark.parametrize("rate", [48000, 44100])
def test_behind_a_denoiser_the_gate_opens_for_a_voice_and_for_nothing_else(rate: int) -> None:
    sound = _syllables(rate)
    gate = {"threshold_db": -60.0, "range_db": -60.0, "voice": 50.0, "hold_ms": 300.0}
    opened = {}
    for preroll in (0, 100):
        chain = Chain((Denoise(), {"amount_db": 6.0}), (Gate(preroll_ms=preroll), gate), rate=rate)
        alone = Chain((Denoise(), {"amount_db": 6.0}), rate=rate)
        late = chain.graph.latency_samples - alone.graph.latency_samples
        assert late == round(preroll * rate / 1000)
        out, before = chain.run(sound), alone.run(sound)
        out, before = out[late:], before[: len(out) - late]
        late_voice = alone.graph.latency_samples
        clicks, word = (
            slice(rate // 2, 19 * rate // 10),
            slice(2 * rate + late_voice, 2 * rate + late_voice + rate // 20),
        )
        assert np.abs(out[clicks]).max() < 2e-3 < 0.02 < np.abs(before[clicks]).max()
        opened[preroll] = db(out[word]) - db(before[word])
    assert opened[100] > -0.1, "the first 50 ms of the first syllable are all there"
    # By level alone the same gate opens for the clicks.
    chain = Chain((Denoise(), {"amount_db": 6.0}), (Gate(), {**gate, "voice": 0.0}), rate=rate)
    assert np.abs(chain.run(sound)[clicks]).max() > 0.02


def test_without_a_denoiser_in_front_the_gate_goes_by_level() -> None:
    sound = speechlike(1.0)
    by_level, by_voice = (Chain((Gate(), {"voice": v})).run(sound) for v in (0.0, 90.0))
    assert np.array_equal(by_level, by_voice)


@pytest.mark.parametrize("rate", [48000, 44100])
def test_a_gate_that_listens_to_a_denoiser_shows_no_block_size(rate: int) -> None:
    sound = _syllables(rate)
    sound = sound[2 * rate - rate // 4 : 3 * rate]
    outs = []
    for block in (64, 480, 997):
        chain = Chain((Denoise(), {}), (Gate(preroll_ms=20), {"voice": 60.0, "hold_ms": 50.0}), rate=rate)
        outs.append(chain.run(sound, block))
    assert np.array_equal(outs[0], outs[1]) and np.array_equal(outs[0], outs[2])


def test_the_gates_pre_roll_is_its_latency() -> None:
    click = np.zeros(RATE // 2, np.float32)
    click[RATE // 4 :] = speechlike(0.75)[-RATE // 4 :]
    chain = Chain((Gate(preroll_ms=10), {"threshold_db": -40.0, "attack_ms": 1.0}))
    out = chain.run(click)
    assert chain.graph.latency_samples == 480
    assert db(out[480:] - click[:-480]) < db(click) - 40


# --- leveller ---


def _loudness(sound: Sound) -> float:
    meter = loudness.build(RATE, 1)
    loudness.measure_array(meter, np.ascontiguousarray(sound[None]))
    return float(meter.view(np.float64)[loudness.INTEGRATED])


@pytest.mark.parametrize("level_db", [-14.0, 0.0, 8.0])
def test_the_leveller_brings_soft_and_loud_speech_to_its_target(level_db: float) -> None:
    sound = (10 ** (level_db / 20) * speechlike(40.0)).astype(np.float32)
    chain = Chain((Leveller(), {"target_lufs": -20.0, "boost_db": 24.0, "speed_db_per_s": 3.0}))
    out = chain.run(sound)
    late = out[20 * RATE :]
    assert _loudness(late) == pytest.approx(-20, abs=0.7)
    readings = chain.graph.readings
    assert readings["leveller.integrated_lufs"] == pytest.approx(_loudness(out), abs=0.1)
    assert readings["leveller.short_term_lufs"] == pytest.approx(-20, abs=3)
    assert readings["leveller.gain_db"] == pytest.approx(-20 - _loudness(sound[20 * RATE :]), abs=1)
    gains = np.abs(np.diff(Chain((Leveller(), {"target_lufs": -8.0})).run(sound, note="leveller.gain_db")))
    assert gains.max() <= 0.015 + 1e-9, "1.5 dB in a second is what it says"


def test_the_leveller_stays_within_its_bounds_and_leaves_pauses_alone() -> None:
    speech, pause = (0.2 * speechlike(10.0)).astype(np.float32), np.zeros(20 * RATE, np.float32)
    pause += (1e-4 * np.random.default_rng(0).standard_normal(len(pause))).astype(np.float32)
    chain = Chain((Leveller(), {"target_lufs": -16.0, "boost_db": 6.0, "speed_db_per_s": 6.0}))
    assert chain.run(pause, note="leveller.gain_db").max() == 0
    assert chain.run(speech, note="leveller.gain_db")[-1] == pytest.approx(6.0, abs=1e-6)
    noted = chain.run(pause, note="leveller.gain_db")
    assert np.abs(noted[60:] - noted[60]).max() == 0


# --- true peak ---


@pytest.mark.parametrize("ceiling_db", [-1.0, -6.0])
def test_no_true_peak_is_above_the_ceiling(ceiling_db: float) -> None:
    n = np.arange(RATE)
    rng = np.random.default_rng(1)
    spectrum = np.zeros(RATE // 2 + 1, complex)
    spectrum[20:20000] = rng.standard_normal(19980) + 1j * rng.standard_normal(19980)
    noise = np.fft.irfft(spectrum)
    bursts = np.sin(2 * np.pi * n / 4 + np.pi / 4) * (np.sin(2 * np.pi * 7 * n / RATE) > 0)
    signals = {
        "quarter of the rate": 0.99 * np.sin(2 * np.pi * n / 4 + np.pi / 4),
        "sixth of the rate": 1.15 * np.sin(2 * np.pi * n / 6 + np.pi / 3),
        "19 kHz": 1.2 * np.sin(2 * np.pi * 19000 * n / RATE),
        "bursts": 0.95 * bursts,
        "noise": 1.5 * noise / np.abs(noise).max(),
        "voice": 5 * speechlike(1.0),
        "steps": np.sign(np.sin(2 * np.pi * 331 * n / RATE)) * 0.9,
    }
    for name, signal in signals.items():
        # Faded at both ends: resampling takes its input for a period.
        shaped = (signal * np.clip(np.minimum(n, n[::-1]) / 480, 0, 1)).astype(np.float32)
        chain = Chain((TruePeak(), {"ceiling_db": ceiling_db}))
        out = chain.run(np.concatenate([shaped, np.zeros(4800, np.float32)]))
        peak = np.abs(resample(out.astype(np.float64), 16 * len(out))).max()
        assert 20 * np.log10(peak) <= ceiling_db, name
        assert 20 * np.log10(peak) > ceiling_db - 0.6, f"{name}: turned down more than needed"
    quiet = speechlike(0.5)
    chain = Chain((TruePeak(), {}))
    assert np.array_equal(chain.run(quiet)[chain.graph.latency_samples :], quiet[: -chain.graph.latency_samples])
    assert chain.run(5 * quiet, note="truepeak.gain_reduction_db").max() > 3


# --- hum ---


@pytest.mark.parametrize("mains", [50.0, 60.0])
def test_hum_goes_and_the_voice_stays(mains: float) -> None:
    hum = sum(sine(mains * k, 4.0, -40 - 3 * k) for k in range(1, 9))
    out = Chain((Hum(), {"mains_hz": mains})).run(hum)
    assert db(out[2 * RATE :]) < db(hum) - 50
    voice = speechlike(4.0)
    out = Chain((Hum(), {"mains_hz": mains})).run(voice)
    assert db(out[RATE:] - voice[RATE:]) < db(voice) - 10 and abs(db(out[RATE:]) - db(voice[RATE:])) < 0.5
    other = sine(mains * 1.5, 4.0)
    assert db(Chain((Hum(), {"mains_hz": mains})).run(other)[RATE:]) == pytest.approx(db(other), abs=0.2)


# --- feedback ---


def _loop(guarded: bool, seconds: float, gain: float) -> NDArray[np.float64]:
    """Peak of every tenth of a second on a stage whose loudspeaker the microphone hears."""
    chain = Chain((Howl(), {} if guarded else {"bypass": 1.0}))
    rng = np.random.default_rng(2)
    delay, block = 240, 48  # the way to the microphone, in samples, and what a driver asks for at once
    room = rng.standard_normal(480) * np.exp(-np.arange(480) / 60)
    room *= gain / np.abs(np.fft.rfft(room, 1 << 14)).max()
    voice = (0.05 * speechlike(seconds)).astype(np.float32)
    out = np.zeros(len(voice) + delay + len(room) + block)
    peaks = []
    for start in range(0, len(voice), block):
        history = out[start : start + len(room) + block - 1]
        mic = voice[start : start + block] + np.convolve(history, room, "valid")[:block]
        played = chain.run(np.clip(mic, -1, 1).astype(np.float32), block)
        out[start + len(room) + delay - 1 :][:block] = played
        peaks.append(np.abs(played).max())
    return np.array(peaks).reshape(-1, 100).max(axis=1)


def test_a_loop_that_howls_is_calmed() -> None:
    wild, calm = _loop(False, 8.0, 1.3), _loop(True, 8.0, 1.3)
    assert wild[-10:].min() > 0.9, "without the guard it howls at full level"
    assert calm[-20:].max() < 0.25


@pytest.mark.parametrize("vibrato_hz", [0.0, 5.5])
def test_sung_and_spoken_sound_is_left_alone(vibrato_hz: float) -> None:
    t = np.arange(6 * RATE) / RATE
    sounds = [speechlike(6.0)]
    for pitch in (110.0, 233.0, 440.0, 880.0):
        phase = 2 * np.pi * pitch * t + (pitch * 0.03 / max(vibrato_hz, 1)) * np.sin(2 * np.pi * vibrato_hz * t)
        # As dark as a hummed tone: 12 dB per octave.
        sounds.append((0.2 * sum(np.sin(k * phase) / k**2 for k in range(1, 12))).astype(np.float32))
    for sound in sounds:
        chain = Chain((Howl(), {}))
        assert np.array_equal(chain.run(sound), sound)
        assert chain.graph.readings["howl.notches"] == 0


def test_a_notch_is_let_go_when_the_howl_has_gone() -> None:
    chain = Chain((Howl(), {"release_s": 2.0}))
    tone = sine(2345.0, 2.0)
    out = chain.run(tone)
    assert db(out[-RATE // 2 :]) < db(tone) - 18 and chain.graph.readings["howl.notches"] == 1
    chain.run(np.zeros(3 * RATE, np.float32))
    assert chain.graph.readings["howl.notches"] == 0
    # Back again: untouched until it has stayed for a while.
    assert db(chain.run(tone)[: RATE // 5]) == pytest.approx(db(tone), abs=0.1)
