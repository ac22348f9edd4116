"""The compiled chain: a flat table of nodes, and the code that walks it.

A `Graph` is built on the main thread from plugins; what the audio thread sees of it is one address. Building
compiles nothing that was compiled before: nodes are C function pointers. Around every node the walker adds
what no plugin should have to write: bypass and mix against the input delayed by the node's own latency, and
the guard that silences and bypasses a node whose output is not finite, counts it, resets it and lets it back
in after a while.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rtgan.errors import RtganError, UsageError
from rtgan.events import FAULT, RECOVERED, ring_push
from rtgan.kernels import levels
from rtgan.kernels.native import call_node, f32p, f64p, i64p, inline, smaller
from rtgan.memory import Arena, address_of
from rtgan.params import (
    CURRENT,
    PARAM_BYTES,
    PARAM_SLOTS,
    SMOOTHING,
    TARGET,
    Param,
    param_glide,
    param_jump,
    param_next,
    param_set,
    param_settled,
)
from rtgan.plugin import Activation, NativeNode, Plugin, all_params

# Words of a graph.
(
    G_NODES, G_TABLE, G_CHANNELS, G_STRIDE, G_LATENCY, G_SERIAL, G_PARAMS, G_PARAM_COUNT, G_ROUTES, G_FADE,
) = range(10)  # fmt: skip
_G_WORDS = 16

# Words of a node.
(
    N_PROCESS, N_STATE, N_RESET, N_LATENCY, N_DRY, N_DRY_MASK, N_DRY_POSITION, N_BYPASS, N_MIX, N_PRESENT,
    N_DRY_GAIN, N_MODE, N_HOLD, N_HOLD_LENGTH, N_HOLD_FIRST, N_SETTLE, N_FAULTS, N_THROUGH, N_TWIN, N_RUNS,
    N_RUN_COUNT, N_MIDI,
) = range(22)  # fmt: skip
_N_WORDS = 24
_N_BYTES = 8 * _N_WORDS

_ACTIVE, _HELD, _WARMING = 0, 1, 2


@inline
def _all_finite(io: Any, stride: Any, channels: Any, n: Any) -> Any:
    good = True
    for c in range(channels):
        good = good and levels.all_finite(io + 4 * c * stride, n)
    return good


@inline
def _silence(io: Any, stride: Any, channels: Any, n: Any) -> None:
    for c in range(channels):
        samples = f32p(io + 4 * c * stride)
        for i in range(n):
            samples[i] = 0.0


@inline
def _run_node(
    node: Any, index: Any, serial: Any, channels: Any, stride: Any, io: Any, n: Any, telemetry: Any, position: Any
) -> None:
    w = i64p(node)
    mask = w[N_DRY_MASK]
    start = w[N_DRY_POSITION]
    for c in range(channels):
        ring = f32p(w[N_DRY] + 4 * c * (mask + 1))
        samples = f32p(io + 4 * c * stride)
        for i in range(n):
            ring[(start + i) & mask] = samples[i]
    w[N_DRY_POSITION] = start + n

    if w[N_MODE] == _HELD:
        w[N_HOLD] -= n
        if w[N_HOLD] <= 0:
            w[N_MODE] = _WARMING
            w[N_HOLD] = w[N_LATENCY] + w[N_SETTLE]
    else:
        call_node(w[N_PROCESS], w[N_STATE], io, n)
        if not _all_finite(io, stride, channels, n):
            _silence(io, stride, channels, n)
            w[N_FAULTS] += 1
            if w[N_RESET] != 0:
                call_node(w[N_RESET], w[N_STATE], 0, 0)
            w[N_MODE] = _HELD
            w[N_HOLD] = w[N_HOLD_LENGTH]
            w[N_HOLD_LENGTH] = smaller(2 * w[N_HOLD_LENGTH], 64 * w[N_HOLD_FIRST])
            param_jump(w[N_PRESENT], 0.0)
            param_jump(w[N_DRY_GAIN], 0.0)
            param_set(w[N_DRY_GAIN], 1.0)
            ring_push(telemetry, FAULT, position, index, serial, 0.0, 0.0, 0.0, 0.0)
            return
        if w[N_MODE] == _WARMING:
            w[N_HOLD] -= n
            if w[N_HOLD] <= 0:
                w[N_MODE] = _ACTIVE
                param_set(w[N_PRESENT], 1.0)
                ring_push(telemetry, RECOVERED, position, index, serial, 0.0, 0.0, 0.0, 0.0)

    if (
        param_settled(w[N_PRESENT])
        and param_settled(w[N_MIX])
        and param_settled(w[N_BYPASS])
        and param_settled(w[N_THROUGH])
        and f64p(w[N_PRESENT])[CURRENT] == 1.0
        and f64p(w[N_MIX])[CURRENT] == 100.0
        and f64p(w[N_BYPASS])[CURRENT] == 0.0
        and f64p(w[N_THROUGH])[CURRENT] == 0.0
    ):
        return
    latency = w[N_LATENCY]
    for i in range(n):
        wet = param_next(w[N_PRESENT]) * param_next(w[N_MIX]) * 0.01 * (1.0 - param_next(w[N_BYPASS]))
        wet *= 1.0 - param_next(w[N_THROUGH])
        dry = (1.0 - wet) * param_next(w[N_DRY_GAIN])
        at = (start + i - latency) & mask
        if wet >= 1.0:
            continue
        for c in range(channels):
            samples = f32p(io + 4 * c * stride)
            delayed = f32p(w[N_DRY] + 4 * c * (mask + 1))[at]
            if wet <= 0.0:
                samples[i] = delayed * dry
            else:
                samples[i] = samples[i] * wet + delayed * dry


@inline
def graph_run(graph: Any, io: Any, n: Any, telemetry: Any, position: Any) -> None:
    """[audio] Pass ``n`` samples at ``io`` through every node, in place."""
    g = i64p(graph)
    for k in range(g[G_NODES]):
        _run_node(g[G_TABLE] + k * _N_BYTES, k, g[G_SERIAL], g[G_CHANNELS], g[G_STRIDE], io, n, telemetry, position)


@inline
def graph_reset(graph: Any) -> None:
    """[audio] Bring every node back to the state of a fresh activation; parameters stay."""
    g = i64p(graph)
    for k in range(g[G_NODES]):
        w = i64p(g[G_TABLE] + k * _N_BYTES)
        if w[N_RESET] != 0:
            call_node(w[N_RESET], w[N_STATE], 0, 0)
        samples = f32p(w[N_DRY])
        for i in range(g[G_CHANNELS] * (w[N_DRY_MASK] + 1)):
            samples[i] = 0.0
        w[N_DRY_POSITION] = 0
        w[N_MODE] = _ACTIVE
        w[N_HOLD_LENGTH] = w[N_HOLD_FIRST]
        param_jump(w[N_PRESENT], 1.0)
        param_jump(w[N_DRY_GAIN], 1.0)


@inline
def graph_midi(graph: Any, message: Any, port: Any) -> None:
    """[audio] Hand a MIDI message to every node that plays notes, at the present sample."""
    g = i64p(graph)
    for k in range(g[G_NODES]):
        w = i64p(g[G_TABLE] + k * _N_BYTES)
        if w[N_MIDI] != 0:
            call_node(w[N_MIDI], w[N_STATE], message, port)


@inline
def graph_set(graph: Any, index: Any, value: Any, samples: Any) -> None:
    """[audio] Begin a parameter's ramp to a new value; over its own time, or over so many samples."""
    g = i64p(graph)
    if index >= 0 and index < g[G_PARAM_COUNT]:
        param_glide(g[G_PARAMS] + index * PARAM_BYTES, value, samples)


@inline
def graph_bypass(graph: Any, on: Any, jump: Any) -> None:
    """[audio] Bypass every node, whatever its own bypass says; by a ramp, or at once."""
    g = i64p(graph)
    for k in range(g[G_NODES]):
        through = i64p(g[G_TABLE] + k * _N_BYTES)[N_THROUGH]
        if jump:
            param_jump(through, on)
        else:
            param_set(through, on)


@inline
def graph_inherit(graph: Any, playing: Any) -> Any:
    """[audio] Let nodes of a new graph go on where their twins in the playing one are.

    A twin has the same code and was born with the same memory; it hears the same, as late, if what stands in front
    delays both equally and is not itself a cold node that delays.

    Returns
    -------
    int
        Samples that the new graph needs until its cold nodes sound like warm ones.
    """
    g = i64p(graph)
    p = i64p(playing)
    wait = 0
    ahead = 0
    cold = False
    for k in range(g[G_NODES]):
        w = i64p(g[G_TABLE] + k * _N_BYTES)
        twin = 0
        before = 0
        for j in range(p[G_NODES]):
            other = p[G_TABLE] + j * _N_BYTES
            if i64p(other)[N_TWIN] == w[N_TWIN] and before == ahead and not cold:
                twin = other
            before += i64p(other)[N_LATENCY]
        ahead += w[N_LATENCY]
        if twin == 0:
            wait += w[N_LATENCY] + w[N_SETTLE]
            cold = cold or w[N_LATENCY] > 0
            continue
        o = i64p(twin)
        into = i64p(w[N_RUNS])
        source = i64p(o[N_RUNS])
        for r in range(w[N_RUN_COUNT]):
            a = i64p(into[2 * r])
            b = i64p(source[2 * r])
            for i in range(into[2 * r + 1]):
                a[i] = b[i]
        w[N_DRY_POSITION] = o[N_DRY_POSITION]
        w[N_MODE] = o[N_MODE]
        w[N_HOLD] = o[N_HOLD]
        w[N_HOLD_LENGTH] = o[N_HOLD_LENGTH]
    return wait


def _runs(arena: Arena, pieces: Sequence[tuple[int, int, bool]]) -> Iterator[tuple[int, int]]:
    """Address and words of every stretch of memory that nodes write and that holds no address."""
    for address, size, constant in pieces:
        if constant:
            continue
        inside = arena.words(address, size)[1]
        edges = np.flatnonzero(np.diff(np.concatenate(([True], inside, [True]))))
        for first, last in edges.reshape(-1, 2):
            yield address + 8 * int(first), int(last - first)


def _birth(arena: Arena, node: NativeNode, pieces: Sequence[tuple[int, int, bool]], number: int) -> int:
    """A number that two nodes share only if they run the same code and begin with the same memory.

    Addresses within the arena differ with it and do not count, only where they stand. ``number`` tells nodes of one
    chain apart that are twins of each other.
    """
    digest = hashlib.blake2b(digest_size=8)
    head = (node.process, node.reset, node.latency_samples, node.settle_samples, number)
    digest.update(np.array(head, np.int64).tobytes())
    for address, size, _ in pieces:
        words, inside = arena.words(address, size)
        digest.update(np.where(inside, -1, words).tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True) | 1


_serials = itertools.count(1)


@dataclass
class ChainItem:
    """A plugin in a chain with the values it starts from.

    Parameters
    ----------
    plugin : Plugin
    values : dict of str to float
        Plain values by parameter id, the host's own (``bypass``, ``mix``) included; what is missing takes
        its default.
    label : str
        The name by which the chain's user addresses it; empty for the plugin's id.
    """

    plugin: Plugin
    values: dict[str, float] = field(default_factory=dict)
    label: str = ""


def _activated(plugin: Plugin, activation: Activation) -> NativeNode:
    if not plugin.rates_hz or activation.sample_rate_hz in plugin.rates_hz:
        return plugin.activate(activation)
    # Most chains need no resampler, and a start to play does not load one for nothing.
    from rtgan.resampling import resampled

    return resampled(plugin, activation)


class Graph:
    """A chain of activated plugins in memory of its own, ready to be published to an engine [main].

    Parameters
    ----------
    chain : sequence of ChainItem
    sample_rate_hz, max_block, channels : int
        What the engine runs at.
    crossfade_ms : float, optional
        How long the engine fades over to this graph; its own choice by default.

    Attributes
    ----------
    latency_samples, tail_samples : int
        Sums over the chain, at the engine's rate.
    parts : list of (str, int)
        Latency by label.
    """

    FADE_MS = 5.0
    HOLD_MS = 1000.0

    def __init__(
        self,
        chain: Sequence[ChainItem],
        sample_rate_hz: int,
        max_block: int,
        channels: int,
        crossfade_ms: float | None = None,
    ) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.channels = channels
        self.serial = next(_serials)
        self.arena = arena = Arena()
        self.chain = labelled(chain)
        self.index: dict[str, int] = {}
        self.declared: list[Param] = []
        for item in self.chain:
            for param in all_params(type(item.plugin)).values():
                self.index[f"{item.label}.{param.id}"] = len(self.declared)
                self.declared.append(param)

        count = len(self.declared)
        slots = arena.float64(PARAM_SLOTS * max(1, count)).reshape(-1, PARAM_SLOTS)
        self._slots = slots
        words = arena.int64(_G_WORDS)
        table = arena.int64(_N_WORDS * max(1, len(self.chain))).reshape(-1, _N_WORDS)
        self._words, self._table = words, table
        for item in self.chain:
            for param in all_params(type(item.plugin)).values():
                value = param.check(item.values.get(param.id, param.default), f"{item.label}.{param.id}")
                row = slots[self.index[f"{item.label}.{param.id}"]]
                row[CURRENT] = row[TARGET] = value
                row[SMOOTHING] = round(param.smoothing_ms * sample_rate_hz / 1000)

        self.nodes: list[NativeNode] = []
        self.parts: list[tuple[str, int]] = []
        lanes: dict[str, int] = {}
        births: list[int] = []
        for item, row_words in zip(self.chain, table, strict=False):
            addresses = {p: address_of(slots[self.index[f"{item.label}.{p}"]]) for p in all_params(type(item.plugin))}
            activation = Activation(sample_rate_hz, max_block, channels, max_block, arena, addresses, dict(lanes))
            first = len(arena.pieces)
            try:
                node = _activated(item.plugin, activation)
            except ValueError as problem:
                raise RtganError(f"{item.label} cannot be activated at {sample_rate_hz} Hz: {problem}") from problem
            self.nodes.append(node)
            lanes.update(node.lanes)
            self.parts.append((item.label, node.latency_samples))
            own = arena.pieces[first:]
            births.append(birth := _birth(arena, node, own, 0))
            if births.count(birth) > 1:
                birth = _birth(arena, node, own, births.count(birth))
            length = 1 << (node.latency_samples + max_block).bit_length()
            dry = arena.float32(channels, length)
            ramps = arena.float64(3 * PARAM_SLOTS).reshape(3, PARAM_SLOTS)
            ramps[:2, CURRENT] = ramps[:2, TARGET] = 1.0
            ramps[:, SMOOTHING] = round(self.FADE_MS * sample_rate_hz / 1000)
            row_words[N_PROCESS] = node.process
            row_words[N_STATE] = node.state
            row_words[N_RESET] = node.reset
            row_words[N_MIDI] = node.midi
            row_words[N_LATENCY] = node.latency_samples
            row_words[N_DRY] = address_of(dry)
            row_words[N_DRY_MASK] = length - 1
            row_words[N_BYPASS] = addresses["bypass"]
            row_words[N_MIX] = addresses["mix"]
            row_words[N_PRESENT] = address_of(ramps[0])
            row_words[N_DRY_GAIN] = address_of(ramps[1])
            row_words[N_THROUGH] = address_of(ramps[2])
            row_words[N_HOLD_LENGTH] = row_words[N_HOLD_FIRST] = round(self.HOLD_MS * sample_rate_hz / 1000)
            row_words[N_SETTLE] = node.settle_samples
            # Behind the node's own pieces: the dry sound, and the ramps of the guard and of a common bypass.
            runs = np.array([*_runs(arena, arena.pieces[first:])], np.int64)
            row_words[N_TWIN], row_words[N_RUNS], row_words[N_RUN_COUNT] = birth, arena.put(runs), len(runs)
        self.latency_samples = sum(n.latency_samples for n in self.nodes)
        self.tail_samples = sum(n.tail_samples for n in self.nodes)
        words[G_NODES] = len(self.chain)
        words[G_TABLE] = address_of(table)
        words[G_CHANNELS] = channels
        words[G_STRIDE] = max_block
        words[G_LATENCY] = self.latency_samples
        words[G_SERIAL] = self.serial
        words[G_PARAMS] = address_of(slots)
        words[G_PARAM_COUNT] = count
        words[G_FADE] = round((crossfade_ms or 0.0) * sample_rate_hz / 1000)
        self.address = address_of(words)

    def find(self, name: str) -> tuple[int, Param]:
        """Index and declaration of ``label.param``; `UsageError` names what is known."""
        if name in self.index:
            index = self.index[name]
            return index, self.declared[index]
        label, _, param = name.partition(".")
        known = {item.label: item for item in self.chain}
        if label not in known:
            raise UsageError(f"there is no '{label}' in this chain; it holds: {', '.join(known) or 'nothing'}")
        names = ", ".join(all_params(type(known[label].plugin)))
        raise UsageError(f"'{label}' has no parameter '{param}'; it has: {names}")

    def slot(self, index: int) -> int:
        """Address of a parameter as the audio thread sees it."""
        return address_of(self._slots[index])

    def value(self, name: str) -> float:
        """The plain value that a parameter is at or on its way to."""
        return float(self._slots[self.find(name)[0], TARGET])

    def values(self) -> Mapping[str, float]:
        """Every parameter's value by ``label.param``."""
        return {name: float(self._slots[i, TARGET]) for name, i in self.index.items()}

    @property
    def readings(self) -> dict[str, float]:
        """What the nodes let others read, by ``plugin.reading``, as of now."""
        found = ((item.label, node.readings) for item, node in zip(self.chain, self.nodes, strict=True))
        return {
            f"{label}.{name}": ctypes.c_double.from_address(address).value
            for label, readings in found
            for name, address in readings.items()
        }

    @property
    def faults(self) -> dict[str, int]:
        """Non-finite outputs so far, by label."""
        return {item.label: int(row[N_FAULTS]) for item, row in zip(self.chain, self._table, strict=False)}


def labelled(chain: Sequence[ChainItem]) -> list[ChainItem]:
    """The chain with a label of its own for every item: the plugin's id, numbered where it stands twice."""
    taken: set[str] = set()
    out = []
    for item in chain:
        wanted = item.label or item.plugin.id
        label = wanted
        number = 2
        while label in taken:
            label = f"{wanted}-{number}"
            number += 1
        taken.add(label)
        out.append(ChainItem(item.plugin, dict(item.values), label))
    return out
