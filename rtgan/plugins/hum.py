"""Notches for mains hum."""

from __future__ import annotations

from rtgan.kernels import filters
from rtgan.kernels.native import f64p, i64p, larger, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

(
    _CHANNELS, _STRIDE, _RATE, _COUNT, _COEFFICIENTS, _MEMORY, _MAINS_HZ, _HARMONICS, _WIDTH_HZ,
) = range(9)  # fmt: skip
_LAST_MAINS, _LAST_WIDTH, _DEPTH = 9, 10, 11  # float words
_MOST = 24

#: Parameters are looked at once per this many samples, counted from the stream's start.
_GRID = 32


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    start = 0
    while start < n:
        phase = w[_COUNT] % _GRID
        if phase == 0:
            mains = param_advance(w[_MAINS_HZ], float(_GRID))
            width = param_advance(w[_WIDTH_HZ], float(_GRID))
            f[_DEPTH] = param_advance(w[_HARMONICS], float(_GRID))
            if mains != f[_LAST_MAINS] or width != f[_LAST_WIDTH]:
                f[_LAST_MAINS], f[_LAST_WIDTH] = mains, width
                for k in range(_MOST):
                    at = w[_COEFFICIENTS] + 8 * filters.COEFFICIENTS * k
                    centre = mains * (k + 1)
                    filters.design(filters.BAND, at, centre, w[_RATE], centre / width, 0.0)
        count = smaller(n - start, _GRID - phase)
        for k in range(_MOST):
            depth = larger(smaller(f[_DEPTH] - k, 1.0), 0.0)
            for c in range(w[_CHANNELS]):
                memory = w[_MEMORY] + 8 * filters.STATE * (c * _MOST + k)
                if depth > 0.0:
                    here = io + 4 * (c * w[_STRIDE] + start)
                    filters.take_away(w[_COEFFICIENTS] + 8 * filters.COEFFICIENTS * k, memory, here, count, depth)
                else:
                    # It begins from rest when it is wanted again.
                    f64p(memory)[0] = 0.0
                    f64p(memory)[1] = 0.0
        w[_COUNT] += count
        start += count


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    w[_COUNT] = 0
    for i in range(filters.STATE * _MOST * w[_CHANNELS]):
        f64p(w[_MEMORY])[i] = 0.0


class Hum(Plugin):
    """Take mains hum and its harmonics away with narrow notches.

    All notches have the same width in hertz, so that they ring no longer than the lowest has to.
    """

    id = "hum"
    name = "Hum"
    description = "Take mains hum and its harmonics away with narrow notches."
    params = ParamSet(
        [
            Param("mains_hz", "Mains", 45, 65, 50, unit="Hz", smoothing_ms=50,
                  description="Frequency of the mains: 50 in most of the world, 60 in the Americas."),
            Param("harmonics", "Harmonics", 0, _MOST, 8, smoothing_ms=50,
                  description="Notches at so many multiples of the mains frequency; 0 takes nothing away."),
            Param("width_hz", "Width", 0.5, 10, 2, unit="Hz", smoothing_ms=50, scale="log",
                  description="Width of each notch where it is 3 dB down."),
        ]
    )  # fmt: skip

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        arena = activation.arena
        words = arena.int64(16)
        words[_CHANNELS], words[_STRIDE] = activation.channels, activation.stride_samples
        words[_RATE] = activation.sample_rate_hz
        words[_COEFFICIENTS] = address_of(arena.float64(filters.COEFFICIENTS * _MOST))
        words[_MEMORY] = address_of(arena.float64(filters.STATE * _MOST * activation.channels))
        words[_MAINS_HZ], words[_HARMONICS] = activation.params["mains_hz"], activation.params["harmonics"]
        words[_WIDTH_HZ] = activation.params["width_hz"]
        # The narrowest notch takes 4.4 s to fall by 60 dB.
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            tail_samples=round(4.5 * activation.sample_rate_hz),
            settle_samples=round(0.5 * activation.sample_rate_hz),
        )
