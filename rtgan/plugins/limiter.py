"""Look-ahead limiter."""

from __future__ import annotations

import math

import numpy as np

from rtgan.kernels.native import f32p, f64p, i64p, larger, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

(
    _CHANNELS, _STRIDE, _RATE, _COUNT, _LOOKAHEAD, _DELAY, _NEED, _HELD, _CEILING_DB, _DRIVE_DB, _RELEASE_MS,
) = range(11)  # fmt: skip
_CEILING, _DRIVE, _RELEASE, _ENVELOPE = range(16, 20)  # float words
_DB = math.log(10.0) / 20.0
_LOOKAHEAD_MS = 1.0
_GRID = 32


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    channels = w[_CHANNELS]
    stride = w[_STRIDE]
    length = w[_LOOKAHEAD]
    need = f64p(w[_NEED])
    held = f64p(w[_HELD])
    for i in range(n):
        if w[_COUNT] % _GRID == 0:
            f[_CEILING] = math.exp(param_advance(w[_CEILING_DB], float(_GRID)) * _DB)
            f[_DRIVE] = math.exp(param_advance(w[_DRIVE_DB], float(_GRID)) * _DB)
            f[_RELEASE] = 1.0 - math.exp(-1.0 / (param_advance(w[_RELEASE_MS], float(_GRID)) * 0.001 * w[_RATE]))
        at = w[_COUNT] % length
        slot = w[_COUNT] % (length + 1)
        w[_COUNT] += 1
        drive = np.float32(f[_DRIVE])
        peak = 0.0
        for c in range(channels):
            x = f32p(io + 4 * c * stride)
            if drive != np.float32(1.0):
                x[i] *= drive
            peak = larger(peak, abs(float(x[i])))
        wanted = 1.0
        if peak > f[_CEILING]:
            wanted = f[_CEILING] / peak
        need[slot] = wanted
        # The lowest gain that any sample of the window needs, let go slowly, then averaged over the window:
        # the gain has come all the way down by the time the peak leaves the delay line.
        lowest = 1.0
        for k in range(length + 1):
            lowest = smaller(lowest, need[k])
        envelope = f[_ENVELOPE]
        envelope += (1.0 - envelope) * f[_RELEASE]
        if envelope > 0.99999:
            envelope = 1.0
        envelope = smaller(envelope, lowest)
        f[_ENVELOPE] = envelope
        held[at] = envelope
        total = 0.0
        for k in range(length):
            total += held[k]
        gain = np.float32(total / length)
        for c in range(channels):
            x = f32p(io + 4 * c * stride)
            line = f32p(w[_DELAY] + 4 * c * length)
            # The sample about to be overwritten went in `length` samples ago.
            delayed = line[at]
            line[at] = x[i]
            x[i] = delayed * gain


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    w[_COUNT] = 0
    f64p(state)[_ENVELOPE] = 1.0
    f64p(w[_NEED])[w[_LOOKAHEAD]] = 1.0
    for k in range(w[_LOOKAHEAD]):
        f64p(w[_NEED])[k] = 1.0
        f64p(w[_HELD])[k] = 1.0
    for k in range(w[_LOOKAHEAD] * w[_CHANNELS]):
        f32p(w[_DELAY])[k] = 0.0


class Limiter(Plugin):
    """Keep peaks under a ceiling, with 1 ms of look-ahead so that it does not distort."""

    id = "limiter"
    name = "Limiter"
    description = "Keep peaks under a ceiling, with 1 ms of look-ahead so that it does not distort."
    params = ParamSet(
        [
            Param("ceiling_db", "Ceiling", -24, 0, -1, unit="dBFS", description="No sample goes above."),
            Param("drive_db", "Drive", -12, 24, 0, unit="dB", description="Gain in front of the limiter."),
            Param("release_ms", "Release", 10, 1000, 100, unit="ms", scale="log", description="Recovery time."),
        ]
    )

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        arena = activation.arena
        length = max(2, round(_LOOKAHEAD_MS * activation.sample_rate_hz / 1000))
        words = arena.int64(32)
        # The window reaches from the sample that comes in to the one that goes out, both included.
        need, held = arena.float64(length + 1), arena.float64(length)
        need[:] = 1.0
        held[:] = 1.0
        words.view(np.float64)[_ENVELOPE] = 1.0
        words[_CHANNELS] = activation.channels
        words[_STRIDE] = activation.stride_samples
        words[_RATE] = activation.sample_rate_hz
        words[_LOOKAHEAD] = length
        words[_DELAY] = address_of(arena.float32(activation.channels, length))
        words[_NEED], words[_HELD] = address_of(need), address_of(held)
        words[_CEILING_DB] = activation.params["ceiling_db"]
        words[_DRIVE_DB] = activation.params["drive_db"]
        words[_RELEASE_MS] = activation.params["release_ms"]
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            latency_samples=length,
            settle_samples=round(0.5 * activation.sample_rate_hz),
        )
