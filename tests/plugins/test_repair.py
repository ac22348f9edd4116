"""Gaps of every kind, as the repair plugin fills them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from test_contract import Rig, delayed, same_bits

from rtgan.generators import library

Sound = NDArray[np.float32]
RATE = 48000


def voiced(seconds: float, hertz: float = 140.0, rate: int = RATE) -> Sound:
    """A vowel that does not move: 20 partials."""
    t = np.arange(round(seconds * rate)) / rate
    k = np.arange(1, 21)[:, None]
    sound = (np.sin(2 * np.pi * k * hertz * t + k * k) / k).sum(0)
    sound += 1e-4 * np.random.default_rng(0).standard_normal(len(t))
    return (0.15 * sound).astype(np.float32)


def lost(sound: Sound, begin: int, samples: int, value: float = 0.0) -> Sound:
    out = sound.copy()
    out[begin : begin + samples] = value
    return out


def power_db(sound: Sound) -> float:
    return float(10 * np.log10(np.mean(np.square(sound, dtype=np.float64)) + 1e-20))


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_a_lost_packet_of_a_vowel_is_gone_on_with(rate: int) -> None:
    sound, begin, length = voiced(0.6, rate=rate), round(0.35 * rate) + 17, rate // 50
    rig = Rig("repair", rate)
    out = rig.run(lost(sound, begin, length))[rig.latency :]
    wanted = sound[: len(out)]
    gap = slice(begin, begin + length)
    assert power_db(out[gap] - wanted[gap]) < power_db(wanted[gap]) - 8, "nearer than silence by far"
    untouched = np.ones(len(out), bool)
    untouched[begin : begin + length + rate // 180] = False
    assert same_bits(np.ascontiguousarray(out[untouched]), np.ascontiguousarray(wanted[untouched]))
    assert np.abs(np.diff(out)).max() < 1.5 * np.abs(np.diff(sound)).max(), "no click where it begins or ends"


def test_what_is_not_a_number_is_filled_as_silence_is() -> None:
    sound = voiced(0.5)
    outs = [Rig("repair").run(lost(sound, 17000, 1500, value)) for value in (0.0, np.nan, -np.inf)]
    assert power_db(outs[0][17600:18900]) > -40
    assert same_bits(outs[1], outs[0]) and same_bits(outs[2], outs[0])


def test_a_long_gap_fades_to_silence_and_sound_comes_back() -> None:
    sound = voiced(1.2)
    rig = Rig("repair")
    out = rig.run(lost(sound, 20000, 24000))[rig.latency :]
    first, last = (power_db(out[at : at + 2400]) for at in (20000, 20000 + 7200))
    assert first > power_db(sound) - 10 and last < first
    assert not out[20000 + 9600 : 44000].any(), "silent after the longest gap"
    assert same_bits(out[44100:], sound[44100 : len(out)]), "back after a millisecond"
    assert np.abs(np.diff(out)).max() < 1.5 * np.abs(np.diff(sound)).max()


def test_silence_that_nothing_was_lost_in_stays_and_ends_without_a_fade() -> None:
    sound = np.concatenate([np.zeros(30000, np.float32), voiced(0.2)])
    rig = Rig("repair")
    assert same_bits(rig.run(sound), delayed(sound, rig.latency))


def test_zeros_shorter_than_the_shortest_gap_pass() -> None:
    sound = lost(voiced(0.4), 15000, 47)
    rig = Rig("repair")
    assert same_bits(rig.run(sound), delayed(sound, rig.latency))
    assert not same_bits(Rig("repair", values={"shortest_ms": 0.5}).run(sound), delayed(sound, rig.latency))


def holes(seed: int) -> Callable[[Sound], Sound]:
    def cut(sound: Sound) -> Sound:
        rng = np.random.default_rng(seed)
        out = sound.copy()
        for _ in range(40):
            begin = int(rng.integers(0, len(out)))
            length = int(np.exp(rng.uniform(0, np.log(8000))))
            out[begin : begin + length] = rng.choice([0.0, 0.0, np.nan, np.inf, 3e38])
        return out

    return cut


@pytest.mark.parametrize("seed", range(2))
def test_gaps_of_any_kind_anywhere_are_filled_alike_for_every_block_size(seed: int) -> None:
    sound = holes(seed)(voiced(0.7, 90.0 + 60 * seed))
    outs = []
    for block in (256, 1, 997):
        rig = Rig("repair", channels=2)
        outs.append(rig.run(np.stack([sound, sound[::-1]], 1), block))
        assert rig.faults == 0
    assert np.isfinite(outs[0]).all() and np.abs(outs[0]).max() < 1
    assert same_bits(outs[1], outs[0]) and same_bits(outs[2], outs[0])


def test_it_tells_how_much_was_filled() -> None:
    rig = Rig("repair")
    rig.run(lost(voiced(0.5), 15000, 2400))
    assert rig.graph.readings["it.filled_s"] == pytest.approx(0.05, abs=1e-6)


def test_a_model_for_something_else_is_refused() -> None:
    from rtgan.errors import RtganError
    from rtgan.plugin import plugin_class

    with pytest.raises(RtganError, match="cannot repair"):
        plugin_class("repair")(model="voice")  # type: ignore[call-arg]
    assert "fills gaps" in library.describe("repair").lower()
