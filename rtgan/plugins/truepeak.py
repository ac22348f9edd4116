"""True-peak limiter."""

from __future__ import annotations

import math

import numpy as np

from rtgan.kernels import delay, dynamics, truepeak
from rtgan.kernels.native import f32p, f64p, i64p, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

(
    _CHANNELS, _STRIDE, _RATE, _COUNT, _DELAY, _DETECTOR, _LOOKAHEAD, _GAINS, _CEILING_DB, _RELEASE_MS,
) = range(10)  # fmt: skip
_CEILING, _REDUCTION = 10, 11  # float words
_DB = math.log(10.0) / 20.0
#: How long the gain comes down, and how long it is there already before a peak and still behind it.
_LOOKAHEAD_MS, _HOLD_MS = 1.5, 0.25
#: What interpolation and the moving gain may miss, in sounds up to 20 kHz.
_MARGIN_DB = 0.15

#: Parameters are looked at once per this many samples, counted from the stream's start.
_GRID = 32


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    gains = f32p(w[_GAINS])
    start = 0
    while start < n:
        phase = w[_COUNT] % _GRID
        if phase == 0:
            f[_CEILING] = math.exp((param_advance(w[_CEILING_DB], float(_GRID)) - _MARGIN_DB) * _DB)
            release = param_advance(w[_RELEASE_MS], float(_GRID)) * 0.001 * w[_RATE]
            f64p(w[_LOOKAHEAD])[dynamics.L_RELEASE] = 1.0 - math.exp(-1.0 / release)
        count = smaller(n - start, _GRID - phase)
        here = io + 4 * start
        for i in range(count):
            gains[i] = np.float32(0.0)
        for c in range(w[_CHANNELS]):
            truepeak.peaks(w[_DETECTOR] + 8 * truepeak.WORDS * c, here + 4 * c * w[_STRIDE], count, w[_GAINS])
        ceiling = f[_CEILING]
        gain = 1.0
        for i in range(count):
            peak = np.float64(gains[i])
            gain = dynamics.lookahead_gain(w[_LOOKAHEAD], ceiling / peak if peak > ceiling else 1.0)
            gains[i] = np.float32(gain)
        f[_REDUCTION] = 0.0 if gain > 0.99999 else -math.log(gain) / _DB
        delay.delay(w[_DELAY], here, w[_STRIDE], count)
        dynamics.apply(w[_GAINS], here, w[_CHANNELS], w[_STRIDE], count)
        w[_COUNT] += count
        start += count


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    w[_COUNT] = 0
    f64p(state)[_REDUCTION] = 0.0
    truepeak.reset(w[_DETECTOR], w[_CHANNELS])
    dynamics.lookahead_reset(w[_LOOKAHEAD])
    delay.delay_reset(w[_DELAY])


class TruePeak(Plugin):
    """Keep what a converter or a codec makes of the samples under a ceiling, not only the samples.

    Peaks between the samples are found by interpolation (ITU-R BS.1770-4, annex 2); all channels are turned down
    by the same gain, early enough that it moves slowly.
    """

    id = "truepeak"
    name = "True-peak limiter"
    description = "Keep peaks under a ceiling, those between the samples too."
    params = ParamSet(
        [
            Param("ceiling_db", "Ceiling", -24, 0, -1, unit="dBTP", description="No true peak goes above."),
            Param("release_ms", "Release", 10, 1000, 100, unit="ms", scale="log", description="Recovery time."),
        ]
    )

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        arena = activation.arena
        length, hold = (max(2, round(t * activation.sample_rate_hz / 1000)) for t in (_LOOKAHEAD_MS, _HOLD_MS))
        latency = truepeak.LATENCY + length + hold - 1
        words = arena.int64(16)
        words[_CHANNELS], words[_STRIDE] = activation.channels, activation.stride_samples
        words[_RATE] = activation.sample_rate_hz
        words[_DELAY] = address_of(delay.build(latency, activation.channels, allocate=arena.int64))
        words[_DETECTOR] = address_of(truepeak.build(activation.channels, allocate=arena.int64))
        words[_LOOKAHEAD] = address_of(dynamics.lookahead(length, hold, allocate=arena.int64))
        words[_GAINS] = address_of(arena.float32(_GRID))
        words[_CEILING_DB], words[_RELEASE_MS] = activation.params["ceiling_db"], activation.params["release_ms"]
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            latency_samples=latency,
            settle_samples=round(0.5 * activation.sample_rate_hz),
            readings={"gain_reduction_db": address_of(words) + 8 * _REDUCTION},
        )
