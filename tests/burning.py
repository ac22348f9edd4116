"""A plugin that takes time, as much as it is told: the processor's, or that of a clock of the test's own."""

from __future__ import annotations

import numpy as np

from rtgan.engine import TickRate
from rtgan.kernels import delay
from rtgan.kernels.native import f32p, f64p, i64p, node, ticks
from rtgan.memory import address_of
from rtgan.params import CURRENT, Param, ParamSet
from rtgan.plugin import Activation, NativeNode, Plugin

_STRIDE, _CHANNELS, _LINE, _LOAD, _CLOCK, _LEAN = range(6)
_TICKS = 6  # a float: those of a sample
LATENCY = 100


@node
def _burn(state: int, io: int, n: int) -> None:
    w = i64p(state)
    delay.delay(w[_LINE], io, w[_STRIDE], n)
    for c in range(w[_CHANNELS]):
        x = f32p(io + 4 * c * w[_STRIDE])
        for i in range(n):
            x[i] *= 0.5
    cost = f64p(state)[_TICKS] * n * f64p(w[_LOAD])[CURRENT] / 100.0
    if i64p(w[_LEAN])[0] != 0:
        cost *= 0.5
    if w[_CLOCK] != 0:
        i64p(w[_CLOCK])[0] += np.int64(cost)
        return
    begin = ticks()
    while ticks() - begin < cost:
        pass


@node
def _reset(state: int, io: int, n: int) -> None:
    delay.delay_reset(i64p(state)[_LINE])


class Burn(Plugin):
    """Half as loud, a hundred samples late, and as slow as it is told."""

    id = "burn"
    name = "Burn"
    description = "Half as loud, a hundred samples late, and as slow as it is told."
    params = ParamSet([Param("load", "Load", 0, 10000, 0, unit="%", smoothing_ms=0)])
    clock = 0
    ticks_per_second = 0.0
    leans = False

    def activate(self, activation: Activation) -> NativeNode:
        words = activation.arena.int64(8)
        self.line = delay.build(LATENCY, activation.channels, allocate=activation.arena.int64)
        words[_STRIDE], words[_CHANNELS] = activation.stride_samples, activation.channels
        words[_LINE], words[_LOAD] = address_of(self.line), activation.params["load"]
        words[_CLOCK], words[_LEAN] = self.clock, address_of(activation.arena.int64(1))
        rate = self.ticks_per_second or TickRate().per_second()
        words.view("float64")[_TICKS] = rate / activation.sample_rate_hz
        return NativeNode(
            int(_burn.address), address_of(words), int(_reset.address), latency_samples=LATENCY, settle_samples=4000,
            lean=int(words[_LEAN]) if self.leans else 0,
        )  # fmt: skip
