"""Parametric equaliser."""

from __future__ import annotations

from rtgan.kernels import filters
from rtgan.kernels.native import f64p, i64p, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

_CHANNELS, _STRIDE, _RATE, _COUNT, _PARAMS, _LAST, _COEFFICIENTS, _MEMORY = range(8)
_SECTIONS = 6
_LOW_CUT, _LOW, _HIGH = 0, 1, 5
_BUTTERWORTH = 2**-0.5
_OFF_HZ = 10.0

#: Coefficients follow what is turned once per this many samples, counted from the stream's start.
_GRID = 16


def _band(number: int, frequency_hz: float) -> list[Param]:
    return [
        Param(f"peak{number}_hz", f"Peak {number} frequency", 20, 20000, frequency_hz, unit="Hz", smoothing_ms=50,
              scale="log", description="Centre of the bell."),
        Param(f"peak{number}_db", f"Peak {number} gain", -24, 24, 0, unit="dB", smoothing_ms=50,
              description="Gain at the centre."),
        Param(f"peak{number}_q", f"Peak {number} quality", 0.3, 10, 1, smoothing_ms=50, scale="log",
              description="Centre over width; more is narrower."),
    ]  # fmt: skip


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    p = i64p(w[_PARAMS])
    start = 0
    while start < n:
        phase = w[_COUNT] % _GRID
        if phase == 0:
            for k in range(_SECTIONS):
                last = f64p(w[_LAST] + 24 * k)
                frequency = param_advance(p[3 * k], float(_GRID))
                gain = param_advance(p[3 * k + 1], float(_GRID)) if p[3 * k + 1] != 0 else 0.0
                q = param_advance(p[3 * k + 2], float(_GRID)) if p[3 * k + 2] != 0 else _BUTTERWORTH
                if frequency == last[0] and gain == last[1] and q == last[2]:
                    continue
                last[0], last[1], last[2] = frequency, gain, q
                at = w[_COEFFICIENTS] + 8 * filters.COEFFICIENTS * k
                if k == _LOW_CUT:
                    if frequency <= _OFF_HZ:
                        filters.pass_through(at)
                    else:
                        filters.design(filters.HIGH_PASS, at, frequency, w[_RATE], q, 0.0)
                elif k == _LOW:
                    filters.design(filters.LOW_SHELF, at, frequency, w[_RATE], q, gain)
                elif k == _HIGH:
                    filters.design(filters.HIGH_SHELF, at, frequency, w[_RATE], q, gain)
                else:
                    filters.design(filters.PEAK, at, frequency, w[_RATE], q, gain)
        count = smaller(n - start, _GRID - phase)
        for c in range(w[_CHANNELS]):
            memory = w[_MEMORY] + 8 * filters.STATE * _SECTIONS * c
            filters.cascade(w[_COEFFICIENTS], _SECTIONS, memory, io + 4 * (c * w[_STRIDE] + start), count)
        w[_COUNT] += count
        start += count


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    for i in range(filters.STATE * _SECTIONS * w[_CHANNELS]):
        f64p(w[_MEMORY])[i] = 0.0
    w[_COUNT] = 0


class Eq(Plugin):
    """Shape the tone: low cut, low shelf, three bells, high shelf.

    Sections of Bristow-Johnson's cookbook in transposed direct form II. A gain of 0 dB passes every bit.
    """

    id = "eq"
    name = "Equaliser"
    description = "Shape the tone with a low cut, two shelves and three bells."
    params = ParamSet(
        [
            Param("low_cut_hz", "Low cut", _OFF_HZ, 1000, _OFF_HZ, unit="Hz", smoothing_ms=50, scale="log",
                  description="Below this 12 dB per octave are taken away; 10 leaves it out."),
            Param("low_hz", "Low shelf frequency", 20, 2000, 120, unit="Hz", smoothing_ms=50, scale="log",
                  description="Where half of the shelf's gain is reached."),
            Param("low_db", "Low shelf gain", -24, 24, 0, unit="dB", smoothing_ms=50, description="Gain of the bass."),
            *_band(1, 300),
            *_band(2, 1500),
            *_band(3, 4000),
            Param("high_hz", "High shelf frequency", 500, 20000, 8000, unit="Hz", smoothing_ms=50, scale="log",
                  description="Where half of the shelf's gain is reached."),
            Param("high_db", "High shelf gain", -24, 24, 0, unit="dB", smoothing_ms=50,
                  description="Gain of the treble."),
        ]
    )  # fmt: skip

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        arena = activation.arena
        words, params = arena.int64(8), arena.int64(3 * _SECTIONS)
        for k, section in enumerate(("low_cut", "low", "peak1", "peak2", "peak3", "high")):
            for i, unit in enumerate(("hz", "db", "q")):
                params[3 * k + i] = activation.params.get(f"{section}_{unit}", 0)
        words[_CHANNELS], words[_STRIDE] = activation.channels, activation.stride_samples
        words[_RATE] = activation.sample_rate_hz
        words[_PARAMS], words[_LAST] = address_of(params), address_of(arena.float64(3 * _SECTIONS))
        words[_COEFFICIENTS] = address_of(arena.float64(filters.COEFFICIENTS * _SECTIONS))
        words[_MEMORY] = address_of(arena.float64(filters.STATE * _SECTIONS * activation.channels))
        rate = activation.sample_rate_hz
        # The lowest bells, the narrowest and the widest of the deepest cut, take two seconds to fall by 60 dB.
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            tail_samples=2 * rate,
            settle_samples=rate // 4,
        )
