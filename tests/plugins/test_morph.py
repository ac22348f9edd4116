"""Singing an instrument: it follows the voice's pitch and loudness, and falls silent with it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rtgan.engine import Engine
from rtgan.graph import ChainItem, Graph
from rtgan.kernels import pitch
from rtgan.plugins.morph import Morph

RATE = 48000
Sound = NDArray[np.float32]


def sung(hertz: NDArray[np.float64] | float, seconds: float, gain: float = 0.1) -> Sound:
    """A voice-like buzz that swells and ends within 20 ms."""
    pitches = np.broadcast_to(hertz, (round(seconds * RATE),))
    phase = 2 * np.pi * np.cumsum(pitches) / RATE
    sound = np.sum([np.sin(k * phase + k) / (1 + ((k * pitches - 600) / 500) ** 2) for k in range(1, 11)], 0)
    ends = np.minimum(1, np.minimum(np.arange(len(sound)), np.arange(len(sound))[::-1]) / (0.02 * RATE))
    return (gain * ends * sound).astype(np.float32)


def played(sound: Sound, block: int = 256, channels: int = 1, **values: float) -> Sound:
    engine = Engine(RATE, channels, max_block=1024)
    graph = Graph([ChainItem(Morph(timbre="sax"), {"vibrato": 0.0, **values}, "it")], RATE, 1024, channels)
    engine.publish(graph)
    frames = np.ascontiguousarray(np.repeat(sound[:, None], channels, 1))
    out = np.concatenate([engine.render(frames[i : i + block]) for i in range(0, len(frames), block)])
    assert engine.memory_intact and graph.faults == {"it": 0}
    return out[:, 0]


def silence(seconds: float) -> Sound:
    return np.zeros(round(seconds * RATE), np.float32)


@pytest.mark.parametrize("hertz", [110.0, 233.1, 440.0, 622.3])
def test_the_instrument_plays_the_pitch_that_is_sung(hertz: float) -> None:
    out = played(np.concatenate([silence(0.1), sung(hertz, 1.0), silence(0.1)]))
    answers = pitch.track(out[RATE // 2 : RATE], RATE)[40:]
    heard = np.median(answers[answers[:, 0] > 0, 0])
    assert abs(1200 * np.log2(heard / hertz)) < 10


def test_it_begins_soon_after_the_voice_and_ends_with_it() -> None:
    out = played(np.concatenate([silence(0.2), sung(220.0, 0.8), silence(1.0)]))
    level = np.array([np.sqrt(np.mean(out[i : i + 240] ** 2)) for i in range(0, len(out), 240)])
    first = np.flatnonzero(level > 0.1 * level.max())[0] * 240 / RATE
    assert 0.2 < first < 0.2 + 0.1
    assert not out[: round(0.2 * RATE)].any()
    assert level[-20:].max() < 1e-3 * level.max()


def test_louder_singing_plays_louder() -> None:
    levels = [float(np.sqrt(np.mean(played(sung(220.0, 0.8, gain))[RATE // 3 :] ** 2))) for gain in (0.01, 0.05, 0.3)]
    assert levels[0] < 0.6 * levels[1] < 0.5 * levels[2]


def test_a_glide_is_followed_without_a_click() -> None:
    t = np.arange(RATE) / RATE
    steady = played(sung(440.0, 1.0))[RATE // 3 :]
    gliding = played(sung(220 * 2**t, 1.0))[RATE // 3 : -RATE // 10]
    assert np.abs(np.diff(gliding, 2)).max() < 3 * np.abs(np.diff(steady, 2)).max()
    answers = pitch.track(gliding, RATE)[40:-10]
    assert np.all(np.diff(answers[answers[:, 0] > 0, 0]) > -3)


def test_noise_plays_nothing() -> None:
    noise = (0.1 * np.random.default_rng(2).standard_normal(RATE)).astype(np.float32)
    out = played(noise)
    assert np.sqrt(np.mean(out**2)) < 0.2 * np.sqrt(np.mean(played(sung(220.0, 1.0, 0.1)) ** 2))


def test_how_blocks_are_cut_shows_in_no_bit() -> None:
    rng = np.random.default_rng(1)
    sound = np.concatenate([silence(0.05), sung(200 * 2 ** np.linspace(0, 0.5, 14400), 0.3), silence(0.05)])
    sound += (0.002 * rng.standard_normal(len(sound))).astype(np.float32)
    outs = [played(sound, block, input_db=-6, snap=0.5) for block in (256, 64, 1, 997)]
    assert np.abs(outs[0]).max() > 0.01
    assert all(np.array_equal(out.view(np.int32), outs[0].view(np.int32)) for out in outs)


def test_snapped_it_plays_semitones() -> None:
    out = played(sung(440 * 2 ** (0.35 / 12), 1.0), snap=1.0)
    answers = pitch.track(out[RATE // 3 :], RATE)[40:]
    assert abs(1200 * np.log2(np.median(answers[:, 0]) / 440)) < 4
