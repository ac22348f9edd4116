"""The denoiser as people use it: noise goes, voice stays, the stereo image too."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support import speechlike

import rtgan
from rtgan.engine import Engine
from rtgan.events import FULL, LEAN
from rtgan.graph import ChainItem, Graph
from rtgan.offline import Renderer, Step
from rtgan.plugins.denoise import Denoise
from rtgan.presets import Entry, Preset

RATE = 48000


def _clean(sound: NDArray[np.float32], **params: float) -> NDArray[np.float32]:
    return rtgan.process(sound, RATE, preset=Preset("test", (Entry("denoise", params),)))


@pytest.fixture(scope="module")
def noisy() -> NDArray[np.float32]:
    """Two seconds of speech-like sound in noise behind one second of noise, mono (1, samples)."""
    noise = np.random.default_rng(5).standard_normal(3 * RATE).astype(np.float32) * np.float32(0.02)
    noise[RATE:] += speechlike(2.0)
    return noise[None]


def _decibel(sound: NDArray[np.float32]) -> float:
    return float(10 * np.log10(np.mean(np.square(sound, dtype=np.float64)) + 1e-20))


def test_noise_alone_is_turned_down_but_by_no_more_than_the_amount(noisy: NDArray[np.float32]) -> None:
    pause = slice(RATE // 2, RATE)
    before = _decibel(noisy[0, pause])
    assert _decibel(_clean(noisy)[0, pause]) < before - 15
    assert before - 7 < _decibel(_clean(noisy, amount_db=6)[0, pause]) < before - 3


def test_linked_channels_keep_their_balance_and_unlinked_ones_go_alone(noisy: NDArray[np.float32]) -> None:
    stereo = np.concatenate((noisy, noisy * np.float32(0.25)))
    linked = _clean(stereo)
    assert np.abs(linked[1] * 4 - linked[0]).max() < 1e-5 * np.abs(linked).max()
    alone = np.concatenate((noisy, noisy[:, ::-1]))
    apart = _clean(alone, link=0)
    for channel in (0, 1):
        assert np.array_equal(apart[channel], _clean(alone[channel : channel + 1])[0])
    assert not np.array_equal(_clean(alone)[0], apart[0])


def test_sensitivity_decides_how_readily_sound_counts_as_noise(noisy: NDArray[np.float32]) -> None:
    levels = [_decibel(_clean(noisy, sensitivity=s)[0, RATE // 2 : RATE]) for s in (-50, 0, 50)]
    assert levels[0] > levels[1] + 3 and levels[1] > levels[2] + 1


def test_the_chance_of_voice_can_be_read_while_it_plays(noisy: NDArray[np.float32]) -> None:
    engine = Engine(RATE)
    graph = Graph([ChainItem(Denoise())], RATE, engine.max_block, 1)
    engine.publish(graph)
    chances = []
    for start in range(0, noisy.shape[1], 480):
        engine.render(np.ascontiguousarray(noisy[:, start : start + 480].T))
        chances.append(graph.readings["denoise.voice"])
    assert all(0 <= c <= 1 for c in chances)
    assert np.mean(chances[120:]) > np.mean(chances[20:100]) + 0.2


@pytest.mark.parametrize("model", ["voice", "voice-live"])
def test_with_less_time_it_still_denoises_as_late_as_ever_and_turns_back(
    noisy: NDArray[np.float32], model: str
) -> None:
    preset = Preset("test", (Entry("denoise", options={"model": model}),))
    turns = [Step(RATE // 4 + 7, "denoise", level=LEAN), Step(2 * RATE + 33, "denoise", level=FULL)]
    full = rtgan.process(noisy, RATE, preset)[0]
    outs = [rtgan.process(noisy, RATE, preset, steps=turns)[0]]
    renderer = Renderer(preset, RATE, 1, max_block=64)
    latency = renderer.latency_samples
    outs.append(renderer.perform(noisy, turns, flush=latency)[0, latency:])
    assert np.array_equal(outs[0], outs[1]), "whatever the blocks"
    lean, pause, speech = outs[0], slice(RATE // 2, RATE), slice(RATE, 2 * RATE)
    assert np.array_equal(lean[: RATE // 4 - latency], full[: RATE // 4 - latency])
    assert not np.array_equal(lean[speech], full[speech])
    assert _decibel(lean[pause]) < _decibel(noisy[0, pause]) - 12
    assert _decibel(lean[speech] - full[speech]) < _decibel(full[speech]) - 8
    assert _decibel(lean[-RATE // 2 :] - full[-RATE // 2 :]) < _decibel(full[-RATE // 2 :]) - 15
    assert np.abs(np.diff(lean)).max() <= 1.2 * np.abs(np.diff(full)).max(), "a click"
