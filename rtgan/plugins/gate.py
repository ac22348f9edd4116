"""Noise gate."""

from __future__ import annotations

import math

import numpy as np

from rtgan.kernels.native import f32p, f64p, i64p, larger, node
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

(
    _CHANNELS, _STRIDE, _RATE, _COUNT, _HOLD_LEFT,
    _THRESHOLD_DB, _RANGE_DB, _ATTACK_MS, _HOLD_MS, _RELEASE_MS,
) = range(10)  # fmt: skip
# Float words: what the parameters come to, then the gate's own state.
_OPEN, _CLOSE, _FLOOR, _UP, _DOWN, _HOLD, _DECAY, _ENVELOPE, _GAIN = range(16, 25)
_DB = math.log(10.0) / 20.0
_HYSTERESIS_DB = 4.0
_DETECTOR_MS = 10.0
_OFF_DB = -90.0

#: Parameters are looked at once per this many samples, counted from the stream's start.
_GRID = 32


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    channels = w[_CHANNELS]
    stride = w[_STRIDE]
    for i in range(n):
        if w[_COUNT] % _GRID == 0:
            threshold = param_advance(w[_THRESHOLD_DB], float(_GRID))
            f[_OPEN] = math.exp(threshold * _DB)
            f[_CLOSE] = math.exp((threshold - _HYSTERESIS_DB) * _DB)
            if threshold <= _OFF_DB:
                f[_OPEN] = 0.0
                f[_CLOSE] = 0.0
            f[_FLOOR] = math.exp(param_advance(w[_RANGE_DB], float(_GRID)) * _DB)
            per_ms = w[_RATE] * 0.001
            f[_UP] = 1.0 - math.exp(-1.0 / (param_advance(w[_ATTACK_MS], float(_GRID)) * per_ms))
            f[_DOWN] = 1.0 - math.exp(-1.0 / (param_advance(w[_RELEASE_MS], float(_GRID)) * per_ms))
            f[_HOLD] = param_advance(w[_HOLD_MS], float(_GRID)) * per_ms
            f[_DECAY] = math.exp(-1.0 / (_DETECTOR_MS * per_ms))
        w[_COUNT] += 1
        peak = 0.0
        for c in range(channels):
            peak = larger(peak, abs(float(f32p(io + 4 * c * stride)[i])))
        envelope = larger(peak, f[_ENVELOPE] * f[_DECAY])
        f[_ENVELOPE] = envelope
        if envelope >= f[_OPEN]:
            w[_HOLD_LEFT] = np.int64(f[_HOLD]) + 1
        elif envelope < f[_CLOSE] and w[_HOLD_LEFT] > 0:
            w[_HOLD_LEFT] -= 1
        gain = f[_GAIN]
        if w[_HOLD_LEFT] > 0:
            gain += (1.0 - gain) * f[_UP]
            if gain > 0.9999:
                gain = 1.0
        else:
            gain += (f[_FLOOR] - gain) * f[_DOWN]
        f[_GAIN] = gain
        if gain < 1.0:
            g = np.float32(gain)
            for c in range(channels):
                f32p(io + 4 * c * stride)[i] *= g


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    w[_COUNT] = 0
    w[_HOLD_LEFT] = 0
    f[_ENVELOPE] = 0.0
    f[_GAIN] = 0.0


class Gate(Plugin):
    """Close the channel while nobody speaks."""

    id = "gate"
    name = "Gate"
    description = "Close the channel while nobody speaks; channels open and close together."
    params = ParamSet(
        [
            Param(
                "threshold_db", "Threshold", -90, 0, -50, unit="dBFS",
                description="Peak level that opens the gate; -90 leaves it open.",
            ),
            Param("range_db", "Range", -90, 0, -30, unit="dB", description="Level while closed."),
            Param("attack_ms", "Attack", 0.1, 50, 1, unit="ms", scale="log", description="Time to open."),
            Param("hold_ms", "Hold", 0, 2000, 150, unit="ms", description="Stays open this long after a word."),
            Param("release_ms", "Release", 5, 2000, 120, unit="ms", scale="log", description="Time to close."),
        ]
    )  # fmt: skip

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        words = activation.arena.int64(32)
        words[_CHANNELS] = activation.channels
        words[_STRIDE] = activation.stride_samples
        words[_RATE] = activation.sample_rate_hz
        for word, name in (
            (_THRESHOLD_DB, "threshold_db"), (_RANGE_DB, "range_db"), (_ATTACK_MS, "attack_ms"),
            (_HOLD_MS, "hold_ms"), (_RELEASE_MS, "release_ms"),
        ):  # fmt: skip
            words[word] = activation.params[name]
        settle = round(0.2 * activation.sample_rate_hz)
        return NativeNode(int(_process.address), address_of(words), int(_reset.address), settle_samples=settle)
