"""Compressor."""

from __future__ import annotations

import math

from rtgan.kernels import delay, dynamics
from rtgan.kernels.native import f64p, i64p, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin
from rtgan.plugins.gain import apply_gain_db

(
    _CHANNELS, _STRIDE, _RATE, _COUNT, _DELAY, _GAINS,
    _THRESHOLD_DB, _RATIO, _KNEE_DB, _ATTACK_MS, _RELEASE_MS, _MAKEUP_DB,
) = range(12)  # fmt: skip
_COMPRESSOR = 16

#: Parameters are looked at once per this many samples, counted from the stream's start.
_GRID = 32


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state + 8 * _COMPRESSOR)
    start = 0
    while start < n:
        phase = w[_COUNT] % _GRID
        if phase == 0:
            f[dynamics.C_THRESHOLD] = param_advance(w[_THRESHOLD_DB], float(_GRID))
            f[dynamics.C_KNEE] = param_advance(w[_KNEE_DB], float(_GRID))
            f[dynamics.C_SLOPE] = 1.0 - 1.0 / param_advance(w[_RATIO], float(_GRID))
            per_ms = w[_RATE] * 0.001
            f[dynamics.C_ATTACK] = math.exp(-1.0 / (param_advance(w[_ATTACK_MS], float(_GRID)) * per_ms))
            f[dynamics.C_RELEASE] = math.exp(-1.0 / (param_advance(w[_RELEASE_MS], float(_GRID)) * per_ms))
        count = smaller(n - start, _GRID - phase)
        here = io + 4 * start
        dynamics.compress(state + 8 * _COMPRESSOR, here, w[_CHANNELS], w[_STRIDE], count, w[_GAINS])
        delay.delay(w[_DELAY], here, w[_STRIDE], count)
        dynamics.apply(w[_GAINS], here, w[_CHANNELS], w[_STRIDE], count)
        w[_COUNT] += count
        start += count
    apply_gain_db(w[_MAKEUP_DB], io, w[_STRIDE], w[_CHANNELS], n)


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state + 8 * _COMPRESSOR)
    w[_COUNT] = 0
    f[dynamics.C_HELD] = 0.0
    f[dynamics.C_REDUCTION] = 0.0
    delay.delay_reset(w[_DELAY])


class Compressor(Plugin):
    """Turn loud passages down; all channels by the same gain.

    Parameters
    ----------
    lookahead_ms : float or str
        How much earlier than the sound the gain moves; this is the latency.
    """

    id = "compressor"
    name = "Compressor"
    description = "Turn loud passages down, all channels by the same gain."
    params = ParamSet(
        [
            Param("threshold_db", "Threshold", -60, 0, -20, unit="dBFS", description="Peak level that it begins at."),
            Param("ratio", "Ratio", 1, 20, 3, scale="log",
                  description="How many decibels more come in for one more that goes out."),
            Param("knee_db", "Knee", 0, 24, 6, unit="dB", description="Range of levels over which it sets in."),
            Param("attack_ms", "Attack", 0.1, 200, 8, unit="ms", scale="log", description="Time to turn down."),
            Param("release_ms", "Release", 5, 2000, 120, unit="ms", scale="log", description="Time to come back."),
            Param("makeup_db", "Make-up", -12, 24, 0, unit="dB", description="Gain behind it."),
        ]
    )  # fmt: skip
    settings = ParamSet(
        [
            Param("lookahead_ms", "Look-ahead", 0, 20, 0, unit="ms",
                  description="How much earlier than the sound the gain moves, which is its latency."),
        ]
    )  # fmt: skip

    def __init__(self, lookahead_ms: float | str = 0) -> None:
        self.lookahead_ms = self.settings["lookahead_ms"].check(lookahead_ms, "lookahead_ms")

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        arena = activation.arena
        latency = round(self.lookahead_ms * activation.sample_rate_hz / 1000)
        words = arena.int64(_COMPRESSOR + dynamics.COMPRESSOR_WORDS)
        words[_CHANNELS], words[_STRIDE] = activation.channels, activation.stride_samples
        words[_RATE] = activation.sample_rate_hz
        words[_DELAY] = address_of(delay.build(latency, activation.channels, allocate=arena.int64))
        words[_GAINS] = address_of(arena.float32(_GRID))
        for word, name in (
            (_THRESHOLD_DB, "threshold_db"), (_RATIO, "ratio"), (_KNEE_DB, "knee_db"), (_ATTACK_MS, "attack_ms"),
            (_RELEASE_MS, "release_ms"), (_MAKEUP_DB, "makeup_db"),
        ):  # fmt: skip
            words[word] = activation.params[name]
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            latency_samples=latency,
            settle_samples=round(0.5 * activation.sample_rate_hz),
            readings={"gain_reduction_db": address_of(words) + 8 * (_COMPRESSOR + dynamics.C_REDUCTION)},
        )
