"""Two devices with clocks of their own: what is lost is counted, nothing breaks, the delay stays bounded."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from support import ROOT, Jack

from rtgan.engine import Engine
from rtgan.graph import Graph
from rtgan.io.bridge import Bridge


class Devices:
    """An input and an output whose clocks differ: the input's is faster by ``drift``, callbacks come late by chance."""

    def __init__(self, in_block: int, out_block: int, drift: float, late_ms: float = 0.0) -> None:
        self.engine = Engine(48000, 1)
        self.engine.publish(Graph([], 48000, 1024, 1))
        self.clock = np.zeros(1, np.int64)
        self.bridge = Bridge(
            self.engine.callback_address, self.engine.address, 1, 1, 48000, 2 * max(in_block, out_block),
            self.clock.ctypes.data,
        )  # fmt: skip
        kind = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * 6)
        self._take, self._give = kind(self.bridge.take_address), kind(self.bridge.give_address)
        self._blocks, self._drift, self._late = (in_block, out_block), drift, late_ms * 48
        self._rng = np.random.default_rng(5)
        self.read = self.written = 0

    def stop(self, samples: int) -> None:
        """The output's device loses so many samples: nobody asks for them."""
        self.written += samples

    def play(self, sound: np.ndarray, frames: int) -> np.ndarray:
        """The next frames that come out, in whole blocks; ``sound`` is what the microphone hears, from the start."""
        into, outof = self._blocks
        out = np.zeros(frames // outof * outof, np.float32)
        late = self._rng.exponential(self._late, 3 * frames // min(into, outof) + 8).astype(np.int64)
        calls = done = 0
        take, give, address, clock = self._take, self._give, self.bridge.address, self.clock
        heard, made = sound.ctypes.data, out.ctypes.data
        # In samples of the output's clock; a callback that is late finds the clock advanced.
        rate = 1 + self._drift
        while done < len(out):
            calls += 1
            next_in, next_out = (self.read + into) / rate, self.written + outof
            if next_in <= next_out:
                clock[0] = int(next_in) + int(late[calls])
                take(heard + 4 * (self.read % len(sound)), 0, into, 0, 0, address)
                self.read += into
            else:
                clock[0] = int(next_out) + int(late[calls])
                give(0, made + 4 * done, outof, 0, 0, address)
                self.written += outof
                done += outof
        return out


def behind(sound: np.ndarray, devices: Devices, out: np.ndarray) -> float:
    """How many samples ago the newest that came out was heard."""
    tail = out[-8192:].astype(np.float64)
    size = 1 << 20
    product = np.fft.irfft(np.conj(np.fft.rfft(tail, size)) * np.fft.rfft(sound, size), size)
    return devices.read - (int(np.argmax(product)) + 8192)


@pytest.mark.parametrize(("in_block", "out_block"), [(128, 128), (441, 256), (64, 997)])
def test_without_drift_the_sound_comes_through_as_it_is(
    in_block: int, out_block: int, rng: np.random.Generator
) -> None:
    sound = np.convolve(rng.standard_normal(300000), np.hanning(16) / 8, "same").astype(np.float32) * 0.1
    devices = Devices(in_block, out_block, 0.0)
    out = devices.play(sound, 192000)
    assert devices.bridge.slips == 0
    start = int(np.flatnonzero(out)[0])
    first = int(np.argmax(np.correlate(sound[:20000], out[start + 4000 : start + 12000], "valid")))
    difference = out[start + 4000 : -4000] - sound[first : first + len(out) - start - 8000]
    # The loop moves the place by a small part of a sample.
    assert np.sqrt(np.mean(difference**2)) < 0.02 * np.sqrt(np.mean(sound**2))
    assert 0 < behind(sound, devices, out) <= 4 * max(in_block, out_block) + 64


def drifting(seconds: int, drift: float, late_ms: float) -> None:
    """A sine through clocks that drift: no click, no wrong pitch, no slip, no growing delay."""
    frequency = 1000  # whole periods in a second: the sound goes round
    turn = 2 * np.pi * frequency / (48000 * (1 + drift))
    # The microphone hears the true pitch, so that its samples have a slightly lower one; rounds must close.
    periods = round(frequency * 10)
    length = round(periods * 2 * np.pi / turn)
    length -= length % 256
    turn = 2 * np.pi * periods / length
    sound = (0.5 * np.sin(turn * np.arange(length))).astype(np.float32)
    true_turn = turn * (1 + drift)
    devices = Devices(256, 256, drift, late_ms)
    last = devices.play(sound, 48000)[-2:]
    delays, cents = [], []
    for _ in range(seconds // 10):
        out = devices.play(sound, 480000)
        joined = np.concatenate([last, out]).astype(np.float64)
        last = out[-2:]
        # A sine is told by the two samples before: what is left is a click, or a jump of the pitch.
        left = joined[2:] + joined[:-2] - 2 * np.cos(true_turn) * joined[1:-1]
        assert np.abs(left).max() < 10 ** (-80 / 20), "a click"
        spun = (out * np.exp(-1j * true_turn * np.arange(len(out)))).reshape(-1, len(out) // 20).mean(axis=1)
        slip = np.angle(spun[1:] / spun[:-1]) / (len(out) // 20)
        cents.append(1200 * np.log2(1 + np.abs(slip).max() / true_turn))
        delays.append(devices.bridge.waiting - devices.bridge.fill)
    assert max(cents) < 1.0
    if seconds >= 120:
        assert max(cents[-3:]) < 0.1, "once the loop has settled"
    assert devices.bridge.slips == 0
    # A block may have come in or gone out just now; beyond that 56 frames while the loop learns, and chance.
    assert np.abs(delays).max() <= 256 + 100, "the delay creeps"
    assert devices.bridge.speed == pytest.approx(1 + drift, abs=60e-6)


@pytest.mark.parametrize(("drift", "late_ms"), [(200e-6, 0.0), (-200e-6, 0.3)])
def test_clocks_that_drift_are_held_together(drift: float, late_ms: float) -> None:
    drifting(120, drift, late_ms)


@pytest.mark.slow
@pytest.mark.parametrize("drift", [200e-6, -200e-6])
def test_an_hour_of_drift(drift: float) -> None:
    drifting(3600, drift, 0.3)


@pytest.mark.parametrize("drift", [0.01, -0.01])
def test_what_cannot_be_followed_is_counted_and_the_delay_stays_bounded(drift: float) -> None:
    sound = np.random.default_rng(3).standard_normal(400000).astype(np.float32) * 0.1
    devices = Devices(128, 128, drift)
    out = devices.play(sound, 6 * 48000)
    assert 1 <= devices.bridge.slips <= 12
    assert -256 <= behind(sound, devices, out) <= 6 * 256, "the newest input is never far away"


@pytest.mark.parametrize("lost", [170, 1000, 6000])
def test_after_an_overload_the_delay_is_back_within_a_second_without_a_click(lost: int) -> None:
    turn = 2 * np.pi * 100 / 48000
    sound = (0.5 * np.sin(turn * np.arange(48000))).astype(np.float32)
    devices = Devices(128, 256, 0.0, late_ms=0.3)
    devices.play(sound, 3 * 48000)
    before = devices.bridge.waiting
    for slips in (1, 2, 3):
        devices.stop(lost)
        out = devices.play(sound, 48000)
        assert abs(devices.bridge.waiting - before) <= 256, "the delay creeps"
        assert devices.bridge.slips == slips
        # A fade of 5 ms between two places of the sine.
        assert np.abs(np.diff(out)).max() <= 0.5 * turn + 1.0 / 240
        devices.play(sound, 48000)


@pytest.mark.jack
@pytest.mark.slow
def test_two_real_streams_carry_sound(jack: Callable[..., Jack]) -> None:
    script = """
import time
from rtgan.engine import Engine
from rtgan.graph import Graph
from rtgan.io import devices
system = devices.choose("system", "input")
engine = Engine(48000, 1, device_in=1, device_out=2, out_map=(0, 1))
engine.publish(Graph([], 48000, 1024, 1))
stream = devices.Stream(system, system, 48000, 0, 1, 2, engine.callback_address, engine.address, split=True)
stream.start()
time.sleep(1.5)
assert stream.active and stream.ring_ms > 0
assert engine.counters.position_samples > 24000
assert stream.close()
print("carried")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env={**jack(256).env, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "carried" in done.stdout
