"""The compiled chain: a flat table of nodes, and the code that walks it.

A `Graph` is built on the main thread from plugins; what the audio thread sees of it is one address. Building
compiles nothing that was compiled before: nodes are C function pointers. Around every node the walker adds
what no plugin should have to write: bypass and mix against the input delayed by the node's own latency, and
the guard that silences and bypasses a node whose output is not finite, counts it, resets it and lets it back
in after a while. The same way a node is left out while the machine cannot keep up (`graph_step`).
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rtgan.errors import RtganError, UsageError
from rtgan.events import FAULT, FULL, LEAN, OUT, RECOVERED, ring_push
from rtgan.kernels import levels
from rtgan.kernels.native import call_node, f32p, f64p, i64p, inline, larger, smaller, ticks
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
from rtgan.plugin import Activation, NativeNode, Plugin, StripEnd, all_params

# Words of a graph.
(
    G_NODES, G_TABLE, G_CHANNELS, G_STRIDE, G_LATENCY, G_SERIAL, G_PARAMS, G_PARAM_COUNT, G_ROUTES, G_FADE, G_TRIM,
    G_KEEP, G_STEMS, G_STEM_COUNT, G_STRIPS, G_STRIP_MAP, G_STRIP_CHANNELS, G_WHOLE,
) = range(18)  # fmt: skip
_G_WORDS = 24

# Words of a node.
(
    N_PROCESS, N_STATE, N_RESET, N_LATENCY, N_DRY, N_DRY_MASK, N_DRY_POSITION, N_BYPASS, N_MIX, N_PRESENT,
    N_DRY_GAIN, N_MODE, N_HOLD, N_HOLD_LENGTH, N_HOLD_FIRST, N_SETTLE, N_FAULTS, N_THROUGH, N_TWIN, N_RUNS,
    N_RUN_COUNT, N_ORDER, N_LEVEL, N_LEAN, N_TICKS, N_STEM, N_MIDI, N_STRIP, N_WIDTH, N_AHEAD, N_STEADY,
) = range(31)  # fmt: skip
# Float words, behind the integer ones: ticks in a sample, as of late.
N_COST = 31
N_TAIL = 32
_N_WORDS = 40
_N_BYTES = 8 * _N_WORDS

# Heard; left out after a fault; running unheard until it sounds like a warm one, after a fault and after having been
# left out for the load; fading out; left out until called. All but the first and the last are for N_HOLD samples.
_ACTIVE, _HELD, _WARMING, _TRIAL, _LEAVING, _LEFT = range(6)

#: Above every place in the order in which nodes are left out.
_LAST = 100


@inline
def now(clock: Any) -> Any:
    """The processor's counter, or what stands at an address in its place."""
    return ticks() if clock == 0 else i64p(clock)[0]


#: How far a graph is turned down behind its last node, to be compared at one loudness. It belongs to no preset; its
#: number in events is the one behind the last parameter's.
TRIM = Param("trim_db", "Trim", -24, 0, 0, unit="dB", smoothing_ms=20, description="Level while A and B are compared.")
_DB = math.log(10.0) / 20.0


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
    node: Any, index: Any, serial: Any, channels: Any, stride: Any, io: Any, n: Any, telemetry: Any, position: Any,
    clock: Any,
) -> None:  # fmt: skip
    w = i64p(node)
    mask = w[N_DRY_MASK]
    start = w[N_DRY_POSITION]
    for c in range(channels):
        ring = f32p(w[N_DRY] + 4 * c * (mask + 1))
        samples = f32p(io + 4 * c * stride)
        for i in range(n):
            ring[(start + i) & mask] = samples[i]
    w[N_DRY_POSITION] = start + n

    if w[N_MODE] != _HELD and w[N_MODE] != _LEFT:
        begin = now(clock)
        call_node(w[N_PROCESS], w[N_STATE], io, n)
        w[N_TICKS] += now(clock) - begin
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
    _blend(node, channels, stride, io, n, start)
    if w[N_MODE] == _ACTIVE or w[N_MODE] == _LEFT:
        return
    w[N_HOLD] -= n
    if w[N_HOLD] > 0:
        return
    if w[N_MODE] == _HELD:
        w[N_MODE] = _WARMING
        w[N_HOLD] = w[N_LATENCY] + w[N_SETTLE]
    elif w[N_MODE] != _LEAVING:
        w[N_MODE] = _ACTIVE
        param_set(w[N_PRESENT], 1.0)
        ring_push(telemetry, RECOVERED, position + n, index, serial, 0.0, 0.0, 0.0, 0.0)
    else:
        w[N_MODE] = _LEFT
        _reset_node(node)


@inline
def _reset_node(node: Any) -> None:
    w = i64p(node)
    if w[N_RESET] != 0:
        call_node(w[N_RESET], w[N_STATE], 0, 0)


@inline
def _blend(node: Any, channels: Any, stride: Any, io: Any, n: Any, start: Any) -> None:
    """Bypass, mix, and what is left out: the input, as late as the node makes it, in the place of its output."""
    w = i64p(node)
    mask = w[N_DRY_MASK]
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
def graph_run(graph: Any, io: Any, n: Any, telemetry: Any, position: Any, clock: Any, offset: Any, mics: Any) -> None:
    """[audio] Pass ``n`` samples at ``io`` through every node, in place; ``clock`` as for `now`.

    Stems are written from ``offset`` on. Strips take theirs from ``mics``, planar with the same stride.
    """
    g = i64p(graph)
    for s in range(g[G_STRIP_CHANNELS]):
        heard = f32p(mics + 4 * i64p(g[G_STRIP_MAP])[s] * g[G_STRIDE])
        strip = f32p(g[G_STRIPS] + 4 * s * g[G_STRIDE])
        for i in range(n):
            strip[i] = heard[i]
    done = 0
    while done < n:
        # What a node does next begins at its very sample, for every node and lane, whatever the blocks.
        piece = n - done
        for k in range(g[G_NODES] if g[G_WHOLE] == 0 else 0):
            w = i64p(g[G_TABLE] + k * _N_BYTES)
            if w[N_MODE] != _ACTIVE and w[N_MODE] != _LEFT:
                piece = smaller(piece, larger(w[N_HOLD], 1))
        for k in range(g[G_NODES]):
            node = g[G_TABLE] + k * _N_BYTES
            w = i64p(node)
            at = (io if w[N_STRIP] == 0 else g[G_STRIPS] + 4 * (w[N_STRIP] - 1) * g[G_STRIDE]) + 4 * done
            when = position + done
            _run_node(node, k, g[G_SERIAL], w[N_WIDTH], g[G_STRIDE], at, piece, telemetry, when, clock)
            stem = w[N_STEM]
            for c in range(g[G_CHANNELS] if stem != 0 else 0):
                # What has one channel is the same in both.
                samples = f32p(at + 4 * smaller(c, w[N_WIDTH] - 1) * g[G_STRIDE])
                taken = f32p(stem + 4 * (c * g[G_STRIDE] + offset + done))
                for i in range(piece):
                    taken[i] = samples[i]
        done += piece


@inline
def graph_stem(graph: Any, number: Any) -> Any:
    """[audio] Address of a stem, planar with the graph's stride; of silence if the chain has no such plugin."""
    g = i64p(graph)
    return i64p(g[G_STEMS])[number] if number < g[G_STEM_COUNT] else i64p(g[G_STEMS])[g[G_STEM_COUNT]]


@inline
def graph_reset(graph: Any) -> None:
    """[audio] Bring every node back to the state of a fresh activation; parameters stay, and what is left out."""
    g = i64p(graph)
    for k in range(g[G_NODES]):
        node = g[G_TABLE] + k * _N_BYTES
        w = i64p(node)
        _reset_node(node)
        samples = f32p(w[N_DRY])
        for i in range(w[N_WIDTH] * (w[N_DRY_MASK] + 1)):
            samples[i] = 0.0
        w[N_DRY_POSITION] = 0
        w[N_MODE] = _ACTIVE if w[N_LEVEL] != OUT else _LEFT
        w[N_HOLD_LENGTH] = w[N_HOLD_FIRST]
        param_jump(w[N_PRESENT], 1.0 if w[N_LEVEL] != OUT else 0.0)
        param_jump(w[N_DRY_GAIN], 1.0)


@inline
def graph_step(graph: Any, index: Any, level: Any) -> Any:
    """[audio] Let a node do all it can, do with less, or leave it out; returns 1, or 0 if it cannot.

    Who is left out fades to its own input, as late as declared, and is not run; who comes back runs unheard for its
    latency and settling time, then fades in.
    """
    g = i64p(graph)
    if index < 0 or index >= g[G_NODES] or level < FULL or level > OUT:
        return 0
    node = g[G_TABLE] + index * _N_BYTES
    w = i64p(node)
    if level == LEAN and w[N_LEAN] == 0:
        return 0
    w[N_LEVEL] = level
    if w[N_LEAN] != 0:
        i64p(w[N_LEAN])[0] = 1 if level == LEAN else 0
    if level == OUT:
        if w[N_MODE] == _ACTIVE:
            param_set(w[N_PRESENT], 0.0)
            w[N_MODE] = _LEAVING
            w[N_HOLD] = np.int64(f64p(w[N_PRESENT])[SMOOTHING])
        elif w[N_MODE] != _LEAVING and w[N_MODE] != _LEFT:
            # Nobody hears it, so that it may go at once.
            w[N_MODE] = _LEFT
            _reset_node(node)
    elif w[N_MODE] == _LEAVING:
        w[N_MODE] = _ACTIVE
        param_set(w[N_PRESENT], 1.0)
    elif w[N_MODE] == _LEFT:
        w[N_MODE] = _TRIAL
        w[N_HOLD] = w[N_LATENCY] + w[N_SETTLE]
    return 1


@inline
def graph_cost(graph: Any, frames: Any, share: Any, most: Any) -> None:
    """[audio] Learn what each node costs from the last ``frames``, by so large a share of the news.

    What took more than ``most`` ticks a sample was interrupted by somebody else, and says no more than that.
    """
    g = i64p(graph)
    for k in range(g[G_NODES]):
        node = g[G_TABLE] + k * _N_BYTES
        w = i64p(node)
        f = f64p(node)
        if w[N_LEVEL] == FULL and w[N_MODE] == _ACTIVE:
            f[N_COST] += share * (smaller(w[N_TICKS] / frames, most) - f[N_COST])
        w[N_TICKS] = 0


@inline
def graph_burden(graph: Any, least: Any) -> Any:
    """[audio] The node that is to step down next, -1 for none.

    First who is on trial after having been left out, then who can do with less, then who can be left out; each in the
    order that preset and plugin give, and the costliest of equals. Who costs less than ``least`` ticks a sample stays.
    """
    g = i64p(graph)
    best = -1
    rank = 0
    cost = 0.0
    for k in range(g[G_NODES]):
        node = g[G_TABLE] + k * _N_BYTES
        w = i64p(node)
        own = f64p(node)[N_COST]
        trial = w[N_MODE] == _TRIAL
        if w[N_ORDER] == 0 or w[N_LEVEL] == OUT or (own < least and not trial):
            continue
        place = w[N_ORDER] + (0 if graph_below(graph, k) == LEAN else _LAST)
        if trial:
            place = 0
        if best < 0 or place < rank or (place == rank and own > cost):
            best = k
            rank = place
            cost = own
    return best


@inline
def graph_relief(graph: Any) -> Any:
    """[audio] The node that is to step up next, in the reverse order, the cheapest of equals; -1 for none.

    One at a time: nobody while another is on its way.
    """
    g = i64p(graph)
    best = -1
    rank = 0
    cost = 0.0
    for k in range(g[G_NODES]):
        node = g[G_TABLE] + k * _N_BYTES
        w = i64p(node)
        if w[N_MODE] == _TRIAL or w[N_MODE] == _LEAVING:
            return -1
        if w[N_ORDER] == 0 or w[N_LEVEL] == FULL:
            continue
        place = w[N_ORDER] + (_LAST if w[N_LEVEL] == OUT else 0)
        own = f64p(node)[N_COST]
        if best < 0 or place > rank or (place == rank and own < cost):
            best = k
            rank = place
            cost = own
    return best


@inline
def graph_level(graph: Any, index: Any) -> Any:
    """[audio] How much a node may do."""
    return i64p(i64p(graph)[G_TABLE] + index * _N_BYTES)[N_LEVEL]


@inline
def graph_below(graph: Any, index: Any) -> Any:
    """[audio] The level below a node's own."""
    w = i64p(i64p(graph)[G_TABLE] + index * _N_BYTES)
    return LEAN if w[N_LEVEL] == FULL and w[N_LEAN] != 0 else OUT


@inline
def graph_above(graph: Any, index: Any) -> Any:
    """[audio] The level above a node's own."""
    w = i64p(i64p(graph)[G_TABLE] + index * _N_BYTES)
    return LEAN if w[N_LEVEL] == OUT and w[N_LEAN] != 0 else FULL


@inline
def graph_needs(graph: Any, index: Any) -> Any:
    """[audio] Ticks a sample that a node took when it did all it can."""
    return f64p(i64p(graph)[G_TABLE] + index * _N_BYTES)[N_COST]


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
    if index >= 0 and index <= g[G_PARAM_COUNT]:
        param_glide(g[G_PARAMS] + index * PARAM_BYTES, value, samples)


@inline
def graph_trim(graph: Any, io: Any, n: Any) -> None:
    """[audio] Turn ``n`` samples at ``io`` down by the graph's trim; at rest at 0 dB every bit passes."""
    g = i64p(graph)
    trim = g[G_TRIM]
    if param_settled(trim) and f64p(trim)[CURRENT] == 0.0:
        return
    for i in range(n):
        gain = np.float32(math.exp(param_next(trim) * _DB))
        for c in range(g[G_CHANNELS]):
            f32p(io + 4 * c * g[G_STRIDE])[i] *= gain


@inline
def graph_bypass(graph: Any, on: Any, jump: Any) -> None:
    """[audio] Bypass every node but the steady, whatever its own bypass says; by a ramp, or at once."""
    g = i64p(graph)
    for k in range(g[G_NODES]):
        w = i64p(g[G_TABLE] + k * _N_BYTES)
        if w[N_STEADY] != 0:
            continue
        through = w[N_THROUGH]
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
    longest = 0
    strip = 0
    cold = False
    chill = False
    for k in range(g[G_NODES]):
        w = i64p(g[G_TABLE] + k * _N_BYTES)
        if w[N_STRIP] != strip:
            # Strips run side by side; what they are mixed to waits for all of them.
            longest = larger(longest, wait)
            chill = chill or cold
            strip = w[N_STRIP]
            wait = longest if strip == 0 else 0
            cold = chill and strip == 0
        twin = 0
        for j in range(p[G_NODES]):
            other = p[G_TABLE] + j * _N_BYTES
            o = i64p(other)
            # Who must never be left out does not begin as one that is.
            fits = w[N_ORDER] != 0 or o[N_LEVEL] == FULL
            if o[N_TWIN] == w[N_TWIN] and o[N_AHEAD] == w[N_AHEAD] and fits and not cold:
                twin = other
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
        w[N_LEVEL] = o[N_LEVEL]
        f64p(g[G_TABLE] + k * _N_BYTES)[N_COST] = f64p(twin)[N_COST]
    return wait


@inline
def graph_tail(graph: Any, coming: Any) -> Any:
    """[audio] How long a graph sounds on where another one takes over; 0 where that one takes its tails over too."""
    g = i64p(graph)
    c = i64p(coming)
    total = 0
    # Strips hear what no fade in front of the chain reaches.
    for k in range(g[G_NODES] if g[G_STRIP_CHANNELS] == 0 else 0):
        w = i64p(g[G_TABLE] + k * _N_BYTES)
        tail = w[N_TAIL]
        for j in range(c[G_NODES]):
            if i64p(c[G_TABLE] + j * _N_BYTES)[N_TWIN] == w[N_TWIN]:
                tail = 0
        total += tail
    return total


def _runs(arena: Arena, pieces: Sequence[tuple[int, int, bool]]) -> Iterator[tuple[int, int]]:
    """Address and words of every stretch of memory that nodes write and that holds no address."""
    for address, size, constant in pieces:
        if constant:
            continue
        inside = arena.words(address, size)[1]
        edges = np.flatnonzero(np.diff(np.concatenate(([True], inside, [True]))))
        for first, last in edges.reshape(-1, 2):
            yield address + 8 * int(first), int(last - first)


def _birth(
    arena: Arena, node: NativeNode, pieces: Sequence[tuple[int, int, bool]], number: int, sources: Sequence[int]
) -> int:
    """A number that two nodes share only if they run the same code on the same inputs and begin with the same memory.

    Addresses within the arena differ with it and do not count, only where they stand. ``number`` tells nodes of one
    chain apart that are twins of each other.
    """
    digest = hashlib.blake2b(digest_size=8)
    head = (node.process, node.reset, node.latency_samples, node.settle_samples, number, *sources)
    digest.update(np.array(head, np.int64).tobytes())
    for address, size, _ in pieces:
        words, inside = arena.words(address, size)
        digest.update(np.where(inside, -1, words).tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True) | 1


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
    shed : int or None
        In the place of the plugin's own `rtgan.plugin.Plugin.shed`.
    strip : str
        The strip that it stands in, whose last item is its fader; empty for what all strips are mixed to.
    """

    plugin: Plugin
    values: dict[str, float] = field(default_factory=dict)
    label: str = ""
    shed: int | None = None
    strip: str = ""


def _activated(plugin: Plugin, activation: Activation) -> NativeNode:
    if not plugin.rates_hz or activation.sample_rate_hz in plugin.rates_hz:
        return plugin.activate(activation)
    # Most chains need no resampler, and a start to play does not load one for nothing.
    from rtgan.resampling import resampled

    return resampled(plugin, activation)


class _Desk:
    """The strips of a chain while its nodes are activated: where each runs, how late it is, what its fader gives.

    Parameters
    ----------
    chain : sequence of ChainItem
    channels, max_block, mics : int
    arena : Arena

    Attributes
    ----------
    order : list of int
        Numbers of the items as they are to be activated: strips, then faders, which align them, then the rest.
    sources : dict of str to tuple of int
        Inputs of each strip.
    place : dict of str to int
        The first channel of each strip in ``buffer``, from 1.
    ahead : dict of str to int
        Latency so far, of each strip and of what all are mixed to.
    ends : list of StripEnd
    """

    def __init__(self, chain: Sequence[ChainItem], channels: int, max_block: int, mics: int, arena: Arena) -> None:
        self.sources = {item.strip: item.plugin.inputs for item in chain if item.plugin.inputs}
        self._channels, self._stride = channels, max_block
        self.place: dict[str, int] = {}
        total = 0
        for strip, inputs in self.sources.items():
            if max(inputs) >= mics:
                raise RtganError(f"the strip {strip} needs input {max(inputs) + 1}, and there are {mics}")
            if len(inputs) > channels:
                raise RtganError(f"the strip {strip} has {len(inputs)} channels, and what it is mixed to {channels}")
            self.place[strip] = 1 + total
            total += len(inputs)
        self.buffer = arena.float32(total, max_block) if total else None
        self.ahead = dict.fromkeys(("", *self.sources), 0)
        self.order = sorted(range(len(chain)), key=lambda k: bool(chain[k].plugin.inputs) + 2 * (not chain[k].strip))
        self.ends: list[StripEnd] = []

    def width(self, item: ChainItem) -> int:
        """Channels of what an item stands in."""
        return len(self.sources[item.strip]) if item.strip else self._channels

    @property
    def longest(self) -> int:
        """Latency of the slowest strip."""
        return max((late for strip, late in self.ahead.items() if strip), default=0)

    @property
    def slowest(self) -> str:
        """The strip that all are as late as; empty without strips."""
        return max(self.sources, key=lambda strip: self.ahead[strip], default="")

    def built(self, item: ChainItem, node: NativeNode, params: Mapping[str, int]) -> None:
        """Take down what an activated item adds."""
        if item.plugin.inputs:
            assert self.buffer is not None
            buffer = address_of(self.buffer[self.place[item.strip] - 1])
            self.ends.append(StripEnd(buffer, self.width(item), params, node.lanes, node.readings))
        else:
            self.ahead[item.strip] += node.latency_samples


def _rest_of(call: int) -> Callable[[int], int]:
    """`rtgan.plugin.Activation.rest` for calls of so many samples."""
    return lambda block: block - math.gcd(call, block)


_serials = itertools.count(1)


class Graph:
    """A chain of activated plugins in memory of its own, ready to be published to an engine [main].

    Parameters
    ----------
    chain : sequence of ChainItem
    sample_rate_hz, max_block, channels : int
        What the engine runs at.
    crossfade_ms : float, optional
        How long the engine fades over to this graph; its own choice by default.
    trim_db : float
        What `TRIM` begins with.
    stems : sequence of str
        Labels of plugins behind which the sound is kept piece by piece; of those that are not there, silence.
    mics : int
        Inputs that strips may take their sound from.
    period_samples : int
        Samples of a call of the device, as far as that is known; 0 where it is not.
    regular : bool
        Whether every call brings as many.

    Attributes
    ----------
    latency_samples, tail_samples : int
        Sums over the chain, at the engine's rate; of strips the longest counts, with which the others are aligned.
    parts : list of (str, int)
        Latency by label, of the longest strip and of what all are mixed to.
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
        trim_db: float = 0.0,
        stems: Sequence[str] = (),
        mics: int = 0,
        period_samples: int = 0,
        regular: bool = False,
    ) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.channels = channels
        self._period_samples = period_samples
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
        slots = arena.float64(PARAM_SLOTS * (count + 1)).reshape(-1, PARAM_SLOTS)
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

        slots[count, [CURRENT, TARGET]] = TRIM.check(trim_db, TRIM.id)
        slots[count, SMOOTHING] = round(TRIM.smoothing_ms * sample_rate_hz / 1000)

        desk = _Desk(self.chain, channels, max_block, mics, arena)
        nodes: dict[int, NativeNode] = {}
        lanes: dict[str, dict[str, int]] = {}
        births: list[int] = []
        call = min(period_samples, max_block)
        # Longer calls come in pieces.
        rest = _rest_of(call) if regular and call and period_samples % call == 0 else None
        for k in desk.order:
            item, row_words = self.chain[k], table[k]
            addresses = {p: address_of(slots[self.index[f"{item.label}.{p}"]]) for p in all_params(type(item.plugin))}
            width, known = desk.width(item), lanes.setdefault(item.strip, {})
            activation = Activation(
                sample_rate_hz, max_block, width, max_block, arena, addresses, dict(known),
                desk.longest - desk.ahead[item.strip] if item.plugin.inputs else 0,
                tuple(desk.ends) if item.plugin.mixes else (), period_samples, rest,
            )  # fmt: skip
            first = len(arena.pieces)
            try:
                node = _activated(item.plugin, activation)
            except ValueError as problem:
                raise RtganError(f"{item.label} cannot be activated at {sample_rate_hz} Hz: {problem}") from problem
            if item.plugin.mixes:
                # What it makes of the inputs is as late as the strips made it.
                node = replace(node, latency_samples=desk.longest)
            nodes[k] = node
            known.update(node.lanes)
            own, sources = arena.pieces[first:], desk.sources.get(item.strip, ())
            births.append(birth := _birth(arena, node, own, 0, sources))
            if births.count(birth) > 1:
                birth = _birth(arena, node, own, births.count(birth), sources)
            length = 1 << (node.latency_samples + max_block).bit_length()
            dry = arena.float32(width, length)
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
            row_words[N_ORDER] = item.plugin.shed if item.shed is None else item.shed
            row_words[N_LEAN] = node.lean
            row_words[N_TAIL] = node.tail_samples if item.plugin.rings else 0
            row_words[N_STRIP], row_words[N_WIDTH] = desk.place.get(item.strip, 0), width
            row_words[N_AHEAD], row_words[N_STEADY] = desk.ahead[item.strip], item.plugin.steady
            # Behind the node's own pieces: the dry sound, and the ramps of the guard and of a common bypass.
            runs = np.array([*_runs(arena, arena.pieces[first:])], np.int64)
            row_words[N_TWIN], row_words[N_RUNS], row_words[N_RUN_COUNT] = birth, arena.put(runs), len(runs)
            desk.built(item, node, addresses)
        self.nodes = [nodes[k] for k in range(len(self.chain))]
        self.parts = [
            (item.label, node.latency_samples)
            for item, node in zip(self.chain, self.nodes, strict=True)
            if not (item.plugin.mixes or item.plugin.inputs) and item.strip in ("", desk.slowest)
        ]
        if desk.buffer is not None:
            words[G_STRIPS], words[G_STRIP_CHANNELS] = address_of(desk.buffer), len(desk.buffer)
            words[G_STRIP_MAP] = arena.put(np.array([*itertools.chain(*desk.sources.values())], np.int64))
        silence = address_of(arena.float32(channels, max_block))
        places = arena.int64(len(stems) + 1)
        places[:] = silence
        rows = {item.label: row for item, row in zip(self.chain, table, strict=False)}
        for number, label in enumerate(stems):
            if label in rows:
                places[number] = rows[label][N_STEM] = address_of(arena.float32(channels, max_block))
        words[G_STEMS], words[G_STEM_COUNT] = address_of(places), len(stems)
        self.latency_samples = desk.ahead[""]
        self.tail_samples = sum(n.tail_samples for n in self.nodes)
        words[G_WHOLE] = any(node.slips for node in self.nodes)
        words[G_NODES] = len(self.chain)
        words[G_TABLE] = address_of(table)
        words[G_CHANNELS] = channels
        words[G_STRIDE] = max_block
        words[G_LATENCY] = self.latency_samples
        words[G_SERIAL] = self.serial
        words[G_PARAMS] = address_of(slots)
        words[G_PARAM_COUNT] = count
        words[G_TRIM] = address_of(slots[count])
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

    @property
    def trim_db(self) -> float:
        """What `TRIM` is at or on its way to."""
        return float(self._slots[-1, TARGET])

    def keep_old(self, on: bool) -> None:
        """Whether the graph that this one takes over from goes on to run beside it, unheard."""
        self._words[G_KEEP] = on

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

    def wait_for_workers(self) -> None:
        """Let nodes wait for whoever answers them in another process, as a file has the time to; before it plays."""
        for node in self.nodes:
            if node.wait is not None:
                node.wait()

    @property
    def problems(self) -> list[str]:
        """What went wrong outside the audio thread so far, a sentence each."""
        return [problem for node in self.nodes if node.problems is not None for problem in node.problems()]

    @property
    def calls_samples(self) -> int:
        """Length of the device's calls, where a node's delay counts on it; else 0."""
        return self._period_samples if any(node.slips for node in self.nodes) else 0

    @property
    def slipped(self) -> bool:
        """Whether a call was not as long as all were to be, so that it is later than it says."""
        return any(node.slips and ctypes.c_int64.from_address(node.slips).value for node in self.nodes)

    @property
    def faults(self) -> dict[str, int]:
        """Non-finite outputs so far, by label."""
        return {item.label: int(row[N_FAULTS]) for item, row in zip(self.chain, self._table, strict=False)}

    @property
    def shed(self) -> dict[str, str]:
        """What is spared while the machine cannot keep up, by label: it is ``reduced`` or left ``out``."""
        found = {}
        for item, row in zip(self.chain, self._table, strict=False):
            if row[N_LEVEL] == OUT or row[N_MODE] == _TRIAL:
                found[item.label] = "out"
            elif row[N_LEVEL] == LEAN:
                found[item.label] = "reduced"
        return found


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
        out.append(ChainItem(item.plugin, dict(item.values), label, item.shed, item.strip))
    return out
