"""De-esser."""

from __future__ import annotations

import math

import numpy as np

from rtgan.kernels import dynamics
from rtgan.kernels.native import f64p, i64p, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

_CHANNELS, _STRIDE, _RATE, _COUNT, _FREQUENCY_HZ, _THRESHOLD_DB, _RANGE_DB = range(7)
_DEESSER = 8
#: How long it listens for what is in the sound; how quickly it turns down and comes back; how long it remembers how
#: loud the voice was.
_DETECTOR_MS, _ATTACK_MS, _RELEASE_MS, _FADE_MS = 4.0, 1.0, 50.0, 1000.0

#: Parameters are looked at once per this many samples, counted from the stream's start.
_GRID = 32


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state + 8 * _DEESSER)
    start = 0
    while start < n:
        phase = w[_COUNT] % _GRID
        if phase == 0:
            frequency = smaller(param_advance(w[_FREQUENCY_HZ], float(_GRID)), 0.45 * w[_RATE])
            f[dynamics.D_CORNER] = math.tan(math.pi * frequency / w[_RATE])
            f[dynamics.D_THRESHOLD_DB] = param_advance(w[_THRESHOLD_DB], float(_GRID))
            f[dynamics.D_RANGE_DB] = param_advance(w[_RANGE_DB], float(_GRID))
        count = smaller(n - start, _GRID - phase)
        dynamics.deess(state + 8 * _DEESSER, io + 4 * start, w[_CHANNELS], w[_STRIDE], count)
        w[_COUNT] += count
        start += count


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state + 8 * _DEESSER)
    w[_COUNT] = 0
    for k in range(dynamics.D_BAND, dynamics.D_FILTERS + 2 * w[_CHANNELS]):
        f[k] = 0.0


class DeEsser(Plugin):
    """Soften sharp s and sh: treble is turned down while it is too large a part of the sound.

    It goes by the share of the treble, not by its level, so that it works alike for soft and loud speakers.
    """

    id = "deesser"
    name = "De-esser"
    description = "Soften sharp s and sh by turning treble down while it is too large a part of the sound."
    params = ParamSet(
        [
            Param("frequency_hz", "Frequency", 2000, 12000, 5000, unit="Hz", smoothing_ms=50, scale="log",
                  description="Treble begins here."),
            Param("threshold_db", "Threshold", -30, 0, -9, unit="dB",
                  description="Level of the treble against the whole sound above which it is turned down."),
            Param("range_db", "Range", 0, 24, 8, unit="dB", description="Most that it is turned down."),
        ]
    )  # fmt: skip

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        words = activation.arena.int64(_DEESSER + dynamics.D_FILTERS + 2 * activation.channels)
        words[_CHANNELS], words[_STRIDE] = activation.channels, activation.stride_samples
        words[_RATE] = activation.sample_rate_hz
        for word, name in (
            (_FREQUENCY_HZ, "frequency_hz"), (_THRESHOLD_DB, "threshold_db"), (_RANGE_DB, "range_db"),
        ):  # fmt: skip
            words[word] = activation.params[name]
        floats = words[_DEESSER:].view(np.float64)
        for place, time_ms in (
            (dynamics.D_DETECT, _DETECTOR_MS), (dynamics.D_ATTACK, _ATTACK_MS), (dynamics.D_RELEASE, _RELEASE_MS),
            (dynamics.D_FADE, _FADE_MS),
        ):  # fmt: skip
            floats[place] = dynamics.smoothing(time_ms, activation.sample_rate_hz)
        settle = round(0.2 * activation.sample_rate_hz)
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            tail_samples=round(0.02 * activation.sample_rate_hz),
            settle_samples=settle,
            readings={"gain_reduction_db": address_of(words) + 8 * (_DEESSER + dynamics.D_REDUCTION)},
        )
