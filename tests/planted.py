"""Plugins that exist only to prove the plumbing."""

from __future__ import annotations

import numpy as np

from rtgan.generators import blocks
from rtgan.generators.compile import compile
from rtgan.generators.program import Program, Storage, View
from rtgan.kernels.native import f32p, i64p, node
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_next
from rtgan.plugin import Activation, NativeNode, Plugin
from rtgan.worker import node as worker
from rtgan.worker.layout import GOOD, STATUS_BITS, Layout


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


class Unattended(Plugin):
    """A node whose worker has answered every other block of its first minutes, and will never answer again."""

    id = "unattended"
    name = "Unattended"
    description = "A node whose worker has gone."
    params = ParamSet([Param("gain_db", "Gain", -6, 6, 0, unit="dB", description="A value that goes along.")])

    def activate(self, activation: Activation) -> NativeNode:
        layout = Layout(activation.channels, 128, 1, 8192)
        shared = activation.arena.int64(layout.size_bytes // 8)
        answers = shared[layout.answers :].reshape(layout.slots, -1)
        for block in range(0, layout.slots, 2):
            answers[block, 0] = (block + 1) << STATUS_BITS | GOOD
        functions = worker.semaphore_functions()
        side = worker.build(
            activation.arena, layout, address_of(shared), activation.stride_samples, 64, [activation.params["gain_db"]],
            "hold", activation.sample_rate_hz, functions[1] if functions else 0,
        )  # fmt: skip
        return NativeNode(
            int(worker.process.address), side.address, int(worker.reset.address), latency_samples=side.latency_samples
        )


class Halved(Plugin):
    """A lowered model that multiplies by a half."""

    id = "halved"
    name = "Halved"
    description = "A lowered model that multiplies by a half."

    def activate(self, activation: Activation) -> NativeNode:
        given, made = (View(k, 0, (1, 1, 64), (64, 64, 1)) for k in range(2))
        half = {"op": "mul", "args": {"self": {"t": given.json()}, "other": 0.5}, "out": [made.json()], "at": ""}
        storages = [Storage(64, "input", -1), Storage(64, "temp", -1)]
        program = Program([half], storages, [given], [made], np.zeros(0, np.float32))
        return blocks.activate(compile(program, use_cache=False), 64, 1, 1, 0, 0, activation)
