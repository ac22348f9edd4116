"""Plugins that exist only to prove the plumbing."""

from __future__ import annotations

from rtgan.kernels.native import f32p, i64p, node
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_next
from rtgan.plugin import Activation, NativeNode, Plugin


@node
def _poison(state: int, io: int, n: int) -> None:
    """Copy, but put out NaN while the switch is on."""
    w = i64p(state)
    w[3] += 1
    for i in range(n):
        if param_next(w[2]) > 0.5:
            f32p(io)[i] = float("nan")


@node
def _poison_reset(state: int, io: int, n: int) -> None:
    i64p(state)[4] += 1


class Poison(Plugin):
    """Put out values that are not numbers while the switch is on."""

    id = "poison"
    name = "Poison"
    description = "Put out values that are not numbers while the switch is on."
    params = ParamSet([Param("on", "On", 0, 1, 0, smoothing_ms=0, scale="switch")])

    def activate(self, activation: Activation) -> NativeNode:
        self.words = activation.arena.int64(8)
        self.words[2] = activation.params["on"]
        return NativeNode(int(_poison.address), address_of(self.words), int(_poison_reset.address))


@node
def _delay(state: int, io: int, n: int) -> None:
    w = i64p(state)
    length = w[2]
    for i in range(n):
        at = (w[3] + i) % length
        for c in range(w[0]):
            line = f32p(w[4] + 4 * c * length)
            x = f32p(io + 4 * c * w[1])
            held = line[at]
            line[at] = x[i]
            x[i] = held
    w[3] += n


class Delay(Plugin):
    """A pure delay that declares itself as latency."""

    id = "delay"
    name = "Delay"
    description = "A pure delay that declares itself as latency."
    length = 100

    def activate(self, activation: Activation) -> NativeNode:
        words = activation.arena.int64(8)
        line = activation.arena.float32(activation.channels, self.length)
        words[0], words[1], words[2] = activation.channels, activation.stride_samples, self.length
        words[4] = address_of(line)
        return NativeNode(int(_delay.address), address_of(words), latency_samples=self.length)


@node
def _overrun(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f32p(w[0])[w[1]] = 1.0


class Overrun(Plugin):
    """Write one float behind its own memory."""

    id = "overrun"
    name = "Overrun"
    description = "Write one float behind its own memory."

    def activate(self, activation: Activation) -> NativeNode:
        words = activation.arena.int64(2)
        words[:] = address_of(activation.arena.float32(16)), 16
        return NativeNode(int(_overrun.address), address_of(words))


class FixedRate(Delay):
    """A delay that only runs at 48 kHz."""

    id = "fixed-rate"
    name = "Fixed rate"
    description = "A delay that only runs at 48 kHz."
    rates_hz = (48000,)
    length = 384
