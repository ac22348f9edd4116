"""High-pass filter."""

from __future__ import annotations

import math

from rtgan.kernels.native import f32p, f64p, i64p, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

_CHANNELS, _STRIDE, _CUTOFF, _RATE, _MEMORY, _COUNT = range(6)
_G, _A1, _A2, _A3, _LAST = 8, 9, 10, 11, 12  # float words: coefficients, and the cutoff they belong to
_DAMPING = math.sqrt(2.0)  # Butterworth

#: Coefficients follow a moving cutoff once per this many samples, counted from the stream's start.
_GRID = 16


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    start = 0
    while start < n:
        phase = w[_COUNT] % _GRID
        if phase == 0:
            cutoff = param_advance(w[_CUTOFF], float(_GRID))
            if cutoff != f[_LAST]:
                f[_LAST] = cutoff
                g = math.tan(math.pi * cutoff / w[_RATE])
                f[_G] = g
                f[_A1] = 1.0 / (1.0 + g * (g + _DAMPING))
                f[_A2] = g * f[_A1]
                f[_A3] = g * f[_A2]
        count = smaller(n - start, _GRID - phase)
        for c in range(w[_CHANNELS]):
            x = f32p(io + 4 * (c * w[_STRIDE] + start))
            s = f64p(w[_MEMORY] + 16 * c)
            s1 = s[0]
            s2 = s[1]
            for i in range(count):
                v0 = float(x[i])
                v3 = v0 - s2
                v1 = f[_A1] * s1 + f[_A2] * v3
                v2 = s2 + f[_A2] * s1 + f[_A3] * v3
                s1 = 2.0 * v1 - s1
                s2 = 2.0 * v2 - s2
                x[i] = v0 - _DAMPING * v1 - v2
            s[0] = s1
            s[1] = s2
        w[_COUNT] += count
        start += count


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    for c in range(2 * w[_CHANNELS]):
        f64p(w[_MEMORY])[c] = 0.0
    w[_COUNT] = 0


class HighPass(Plugin):
    """Take away rumble, handling noise and plosives below a cutoff, 12 dB per octave.

    A trapezoidal state-variable filter (Zavalishin, "The Art of VA Filter Design", 2018): it stays stable and
    silent while the cutoff moves.
    """

    id = "highpass"
    name = "High-pass"
    description = "Take away rumble, handling noise and plosives below a cutoff, 12 dB per octave."
    params = ParamSet(
        [
            Param(
                "cutoff_hz", "Cutoff", 10, 2000, 80, unit="Hz", scale="log", smoothing_ms=50,
                description="Frequency that is 3 dB down.",
            )
        ]
    )  # fmt: skip

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        words = activation.arena.int64(16)
        memory = activation.arena.float64(2 * activation.channels)
        words[_CHANNELS] = activation.channels
        words[_STRIDE] = activation.stride_samples
        words[_CUTOFF] = activation.params["cutoff_hz"]
        words[_RATE] = activation.sample_rate_hz
        words[_MEMORY] = address_of(memory)
        tail = round(0.25 * activation.sample_rate_hz)  # what the lowest cutoff takes to fall by 80 dB
        return NativeNode(
            int(_process.address), address_of(words), int(_reset.address), tail_samples=tail, settle_samples=tail
        )
