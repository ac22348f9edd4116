"""The engine: one native callback, the same for a sound card and for a file.

`callback` is what PortAudio calls. It deinterleaves, drains the inbox at exact sample offsets, walks the
graph (or two graphs, while one fades into the other), limits, meters, records, fades and interleaves. It is a
numba cfunc on raw memory: no interpreter, no allocation, no lock, no system call. `Engine.render` calls the
very same function from Python to process arrays, which is why live and offline give the same samples.
"""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from rtgan import events, switchboard
from rtgan.errors import UsageError
from rtgan.events import (
    Record,
    Ring,
    ring_drop,
    ring_peek,
    ring_push,
    ring_refused,
    waiting_add,
    waiting_room,
    waiting_take,
    waiting_time,
)
from rtgan.graph import (
    G_FADE,
    G_KEEP,
    G_LATENCY,
    G_NODES,
    G_ROUTES,
    G_SERIAL,
    G_WHOLE,
    Graph,
    graph_above,
    graph_below,
    graph_burden,
    graph_bypass,
    graph_cost,
    graph_inherit,
    graph_level,
    graph_midi,
    graph_needs,
    graph_relief,
    graph_reset,
    graph_run,
    graph_set,
    graph_stem,
    graph_step,
    graph_tail,
    graph_trim,
    now,
)
from rtgan.kernels import levels, loudness, rings
from rtgan.kernels.channels import deinterleave, interleave
from rtgan.kernels.native import (
    NODES,
    call_foreign,
    call_node,
    call_stream,
    cfunc,
    exchange,
    f32p,
    f64p,
    flush_denormals,
    i32p,
    i64p,
    inline,
    kernel,
    larger,
    load_acquire,
    node,
    restore_denormals,
    smaller,
    store_release,
    ticks,
)
from rtgan.memory import Arena, address_of
from rtgan.params import (
    CURRENT,
    PARAM_BYTES,
    PARAM_SLOTS,
    SMOOTHING,
    TARGET,
    Param,
    ParamSet,
    param_glide,
    param_next,
    param_settled,
)
from rtgan.switchboard import (
    C_KIND,
    C_NUMBER,
    F_VALUE,
    FOUND_BYTES,
    PANIC_ACTION,
    R_BYTES,
    R_INDEX,
    R_NEXT,
    R_RAMP,
    R_SERIAL,
    T_COUNT,
    T_ROUTES,
    Route,
    Table,
)

# Integer words of an engine.
(
    E_MAX_BLOCK, E_CHANNELS, E_DEVICE_IN, E_DEVICE_OUT, E_IN_MAP, E_OUT_MAP, E_AVERAGE, E_WORK, E_NEXT_WORK,
    E_DRY, E_POSITION, E_ACTIVE, E_NEXT, E_SWAP_AT, E_SWAP_FADE, E_INBOX, E_TELEMETRY, E_TAPE, E_TAPE_FRAMES,
    E_TAPE_MAP, E_FADE, E_FADE_SAMPLES, E_STOPPED, E_IN_METER, E_OUT_METER, E_METER_SAMPLES, E_LIMITER,
    E_CALLBACKS, E_BUSY, E_BUSY_MAX, E_UNDERFLOWS, E_OVERFLOWS, E_BAD_INPUT, E_LIMITED, E_TRACE, E_TRACE_MASK,
    E_WAITING, E_EVENT, E_NATIVE, E_CLOCK, E_CLOCK_CLIENT, E_CLOCK_FRAME, E_CLOCK_POSITION, E_LATE, E_PANIC_ASKED,
    E_DECODER, E_FOUND, E_HOST, E_PANIC_AT, E_PANIC_SAMPLES, E_TAPING, E_TAPE_LOST, E_SCOPE, E_SHOWING, E_SWAP_WAIT,
    E_SCALES, E_WEIGHING, E_BESIDE, E_BESIDE_WORK,
    E_TICKS, E_LATE_CALLBACKS, E_STEPS_DOWN, E_PAUSE, E_CALM, E_WAIT, E_RETURNED, E_MONITORS, E_MONITOR_LIMITER,
    E_MONITOR_AVERAGE, E_MONITOR_MAP, E_MONITOR_WIDTH, E_MONITOR_FRAMES, E_MONITOR_USER,
    E_STEMS, E_STEM_COUNT, E_REFUSED, E_MICS, E_MIC_COUNT, E_TAPE_WIDTH, E_SWAP_TAIL, E_RINGING, E_RING_WORK,
    E_RING_LEFT, E_RING_QUIET,
) = range(84)  # fmt: skip
# Float words, behind the integer ones.
F_CEILING, F_RELEASE, F_SECONDS, F_BUDGET, F_LOAD, F_LATE = range(84, 90)
# A cache line of their own: both threads write it.
E_MAILBOX, E_PANIC, E_READING, E_MONITOR, E_LET_GO = range(96, 101)
# Parts of the callback that are called by address, because inlined wherever they are needed they would take longer to
# compile than all the rest of the product; and the piece of the block that runs.
(
    E_TAKE_INPUT, E_APPLY, E_BEGIN_PANIC, E_END_PANIC, E_RUN_GRAPHS, E_RUN, E_RING, E_DELIVER, E_MIND_LOAD,
    E_OFFSET, E_PIECE, E_SPENT,
) = range(104, 116)  # fmt: skip
_WORDS = 128

#: What belongs to the host and survives every preset; its id in events is serial 0, its name ``host.``.
HOST_PARAMS = ParamSet(
    [
        Param("volume_db", "Volume", -60, 12, 0, unit="dB", smoothing_ms=20,
              description="Level of everything; the lowest is silence."),
        Param("mute", "Mute", 0, 1, 0, smoothing_ms=10, scale="switch", description="Silence."),
        Param("bypass", "Bypass", 0, 1, 0, smoothing_ms=0, scale="switch",
              description="The input as it is, as late as the chain would make it."),
        Param("monitor_db", "Monitor", -60, 12, 0, unit="dB", smoothing_ms=20,
              description="Level of the monitor, whatever volume and mute say; the lowest is silence."),
        Param("monitor_mix", "Monitor mix", 0, 100, 0, unit="%", smoothing_ms=20,
              description="What the monitor hears: 0 the input as it comes, without any delay, 100 the chain."),
    ]
)  # fmt: skip
HOST = 0
_VOLUME, _MUTE, _BYPASS, _MONITOR_DB, _MONITOR_MIX, _PANIC_GAIN = range(6)
_HOST_PARAMS = 5
_DB = math.log(10.0) / 20.0
_SILENT_DB = HOST_PARAMS["volume_db"].minimum
_NEVER = 1 << 62
#: What a call into a native producer's clock may take before it is given up as stuck.
_CLOCK_WAIT_S = 1.0
#: A frame of JACK's clock that lies further from now than this is not believed.
_FAR = 1 << 22

#: A callback that takes a larger part of its time is late; so many in a row, and a node steps down. One is forgiven in
#: so many seconds, so that a machine that stalls now and then loses nothing by it.
_LATE, _MOST_LATE, _FORGIVE_S = 0.85, 3.0, 0.1
#: A device that lost a block was late by our fault only where we took so large a part of the time.
_OUR_PART = 0.25
#: The load that is left with a node that steps up, and the time over which load is averaged.
_CALM_LOAD, _LOAD_S = 0.7, 0.3
#: A node that costs less than this is worth nothing to be left out.
_LEAST_LOAD = 0.02
#: Seconds without a late callback before a node steps up: the first, twice as long each time it did not last so long
#: beyond twice the wait, up to the longest, after which it is tried whatever it costs.
_WAIT_S, _TRUST_S, _LONGEST_S = 1.0, 10.0, 64.0
#: The time in which a node is faded out.
_FADE_S = Graph.FADE_MS / 1000
#: Seconds in which a stream that begins is not judged.
_BEGIN_S = 0.25

#: A tail has ended that stays below this for the graph's latency and so many fades.
_QUIET, _QUIET_FADES = 1e-5, 4

_METER_EVERY = 1024
#: Largest input magnitude, as the bits of a float32: 100, which is 40 dB above full scale.
_LOUDEST_BITS = 0x42C80000
_CEILING = 10.0 ** (-0.1 / 20)
_RELEASE_MS = 80.0


@node
def _take_input(engine: Any, source: Any, n: Any) -> None:
    """Deinterleave the chosen channels and count what no sound can be.

    What is not a number becomes silence; what is far above full scale, where filters overflow, is held there.
    """
    e = i64p(engine)
    channels = e[E_CHANNELS]
    block = e[E_MAX_BLOCK]
    # With strips the inputs have a place of their own, and the chain's input is their sum.
    mics = e[E_MICS]
    if source == 0:
        for c in range(e[E_MIC_COUNT]):
            silent = f32p(mics + 4 * c * block)
            for i in range(n):
                silent[i] = np.float32(0.0)
    else:
        deinterleave(source, e[E_DEVICE_IN], e[E_IN_MAP], mics, e[E_MIC_COUNT], block, n)
    for c in range(e[E_MIC_COUNT]):
        bits = i32p(mics + 4 * c * block)
        largest = 0
        for i in range(n):
            largest = larger(largest, bits[i] & 0x7FFFFFFF)
        if largest > _LOUDEST_BITS:
            for i in range(n):
                magnitude = bits[i] & 0x7FFFFFFF
                if magnitude > _LOUDEST_BITS:
                    bits[i] = 0 if magnitude >= 0x7F800000 else bits[i] - magnitude + _LOUDEST_BITS
                    e[E_BAD_INPUT] += 1
    if mics != e[E_WORK]:
        for c in range(channels):
            together = f32p(e[E_WORK] + 4 * c * block)
            for i in range(n):
                together[i] = np.float32(0.0)
            for m in range(e[E_MIC_COUNT]):
                heard = f32p(mics + 4 * m * block)
                for i in range(n):
                    together[i] += heard[i]
    for c in range(channels):
        work = e[E_WORK] + 4 * c * block
        levels.meter_add(e[E_IN_METER], work, n)
        if e[E_TAPING] != 0 or e[E_SHOWING] != 0 or e[E_MONITORS] != 0:
            samples = f32p(work)
            dry = f32p(e[E_DRY] + 4 * c * block)
            for i in range(n):
                dry[i] = samples[i]


@inline
def _take_graph(engine: Any) -> None:
    """Look into the mailbox; a new graph starts to run with the old one, one that ran beside it is heard at once."""
    e = i64p(engine)
    if e[E_NEXT] != 0 or load_acquire(engine + 8 * E_MAILBOX) == 0:
        return
    graph = exchange(engine + 8 * E_MAILBOX, 0)
    serial = i64p(graph)[G_SERIAL]
    if graph != e[E_BESIDE] and graph != e[E_ACTIVE]:
        graph_bypass(graph, f64p(e[E_HOST] + _BYPASS * PARAM_BYTES)[TARGET], 1)
    ring_push(e[E_TELEMETRY], events.SWAP_BEGUN, e[E_POSITION], 0, serial, 0.0, 0.0, 0.0, 0.0)
    if e[E_ACTIVE] == 0:
        e[E_ACTIVE] = graph
        ring_push(e[E_TELEMETRY], events.SWAP_DONE, e[E_POSITION], 0, serial, 0.0, 0.0, 0.0, 0.0)
    elif graph == e[E_BESIDE]:
        e[E_BESIDE] = 0
        e[E_NEXT] = graph
        # However slowly its preset fades in otherwise.
        i64p(graph)[G_FADE] = 0
        e[E_SWAP_AT] = 0
        e[E_SWAP_WAIT] = 0
        e[E_SWAP_TAIL] = 0
    elif graph != e[E_ACTIVE]:
        e[E_NEXT] = graph
        e[E_SWAP_AT] = 0
        e[E_SWAP_WAIT] = graph_inherit(graph, e[E_ACTIVE])
        if graph == e[E_RINGING]:
            e[E_RINGING] = 0
        e[E_SWAP_TAIL] = 0 if i64p(graph)[G_KEEP] != 0 else graph_tail(e[E_ACTIVE], graph)
        if e[E_SWAP_TAIL] > 0:
            # What goes in fades out so early that it comes out when the new graph fades in.
            e[E_SWAP_WAIT] = larger(e[E_SWAP_WAIT], i64p(e[E_ACTIVE])[G_LATENCY])
            e[E_RING_LEFT] = smaller(e[E_RING_LEFT], e[E_SWAP_FADE])
        for k in range(i64p(graph)[G_NODES]):
            level = np.float64(graph_level(graph, k))
            if level != events.FULL:
                ring_push(e[E_TELEMETRY], events.STEPPED, e[E_POSITION], k, serial, level, 0.0, 0.0, 0.0)


@inline
def _take_stems(engine: Any, offset: Any, n: Any, first: Any, done: Any, length: Any) -> None:
    """The stems of ``n`` samples: of the graph that plays, from sample ``first`` on fading over to the next one's."""
    e = i64p(engine)
    channels = e[E_CHANNELS]
    block = e[E_MAX_BLOCK]
    for s in range(e[E_STEM_COUNT]):
        playing = graph_stem(e[E_ACTIVE], s)
        for c in range(channels):
            at = 4 * (c * block + offset)
            target = e[E_STEMS] + 4 * s * channels * block + at
            a = f32p(playing + at)
            taken = f32p(target)
            for i in range(n):
                taken[i] = a[i]
            if e[E_NEXT] != 0:
                late = target + 4 * first
                coming = graph_stem(e[E_NEXT], s) + at + 4 * first
                levels.fade_equal_power(late, coming, late, n - first, done, length)


@inline
def _weigh(engine: Any, before: Any, behind: Any, graph: Any, io: Any, n: Any) -> None:
    """Take what comes out of a graph into the meter behind it, and tell of it ten times a second."""
    e = i64p(engine)
    told = i64p(behind)[loudness.COUNT] // loudness.STEP_SEGMENTS
    loudness.measure(behind, io, e[E_MAX_BLOCK], n)
    segments = i64p(behind)[loudness.COUNT]
    if segments // loudness.STEP_SEGMENTS != told:
        x = f64p(before)[loudness.POWER]
        y = f64p(behind)[loudness.POWER]
        serial = i64p(graph)[G_SERIAL]
        ring_push(e[E_TELEMETRY], events.LOUDNESS, e[E_POSITION] + n, segments, serial, x, y, 0.0, 0.0)


@inline
def _copy(source: Any, target: Any, channels: Any, stride: Any, n: Any) -> None:
    for c in range(channels):
        a = f32p(source + 4 * c * stride)
        b = f32p(target + 4 * c * stride)
        for i in range(n):
            b[i] = a[i]


@inline
def _fade_over(
    a: Any, b: Any, target: Any, channels: Any, stride: Any, n: Any, at: Any, length: Any, same: Any
) -> None:  # fmt: skip
    """Fade from ``a`` to ``b``, planar; ``at`` samples of the fade's ``length`` are done, below 0 it is still to come.

    Until then ``target`` is left as it is. Equal gain for what carries the same sound, so that identical ones null.
    """
    first = larger(0, smaller(n, -at))
    for c in range(channels):
        skip = 4 * (c * stride + first)
        if same:
            levels.fade_equal_gain(a + skip, b + skip, target + skip, n - first, at + first, length)
        else:
            levels.fade_equal_power(a + skip, b + skip, target + skip, n - first, at + first, length)


@inline
def _whole(engine: Any) -> Any:
    """Whether a graph that runs wants the device's calls as they are."""
    e = i64p(engine)
    found = i64p(e[E_ACTIVE])[G_WHOLE] if e[E_ACTIVE] != 0 else 0
    found |= i64p(e[E_NEXT])[G_WHOLE] if e[E_NEXT] != 0 else 0
    found |= i64p(e[E_BESIDE])[G_WHOLE] if e[E_BESIDE] != 0 else 0
    found |= i64p(e[E_RINGING])[G_WHOLE] if e[E_RINGING] != 0 else 0
    return found


@node
def _run(engine: Any, graph: Any, io: Any) -> None:
    """[audio] Run a graph on the present piece of the block, at ``io``."""
    e = i64p(engine)
    offset = e[E_OFFSET]
    mics = e[E_MICS] + 4 * offset
    graph_run(graph, io, e[E_PIECE], e[E_TELEMETRY], e[E_POSITION], e[E_TICKS], offset, mics)


@node
def _ring(engine: Any, offset: Any, n: Any) -> None:
    """[audio] Let what a graph made sound on behind its swap until it is silent or its time is over."""
    e = i64p(engine)
    graph = e[E_RINGING]
    channels = e[E_CHANNELS]
    block = e[E_MAX_BLOCK]
    work = e[E_RING_WORK]
    for c in range(channels):
        silent = f32p(work + 4 * c * block)
        for i in range(n):
            silent[i] = 0.0
    position = e[E_POSITION]
    call_node(e[E_RUN], engine, graph, work)
    graph_trim(graph, work, n)
    fade = e[E_SWAP_FADE]
    enough = i64p(graph)[G_LATENCY] + _QUIET_FADES * fade
    for i in range(n):
        if e[E_RING_LEFT] <= 0 or e[E_RING_QUIET] >= enough:
            e[E_RING_LEFT] = 0
            break
        gain = np.float32(smaller(1.0, e[E_RING_LEFT] / fade))
        loudest = np.float32(0.0)
        for c in range(channels):
            x = f32p(work + 4 * c * block)[i]
            loudest = larger(loudest, abs(x))
            f32p(e[E_WORK] + 4 * (c * block + offset))[i] += x * gain
        e[E_RING_LEFT] -= 1
        e[E_RING_QUIET] = 0 if loudest > np.float32(_QUIET) else e[E_RING_QUIET] + 1
    if e[E_RING_LEFT] <= 0:
        serial = i64p(graph)[G_SERIAL]
        e[E_RINGING] = 0
        ring_push(e[E_TELEMETRY], events.SWAP_DONE, position + n, serial, 0, 0.0, 0.0, 0.0, 0.0)


@node
def _run_graphs(engine: Any, offset: Any, n: Any) -> None:
    """Run the graph on ``n`` samples of the work buffer; two graphs and a cross-fade during a swap."""
    e = i64p(engine)
    channels = e[E_CHANNELS]
    block = e[E_MAX_BLOCK]
    io = e[E_WORK] + 4 * offset
    e[E_OFFSET] = offset
    e[E_PIECE] = n
    if e[E_ACTIVE] == 0:
        for c in range(channels):
            samples = f32p(io + 4 * c * block)
            for i in range(n):
                samples[i] = 0.0
        for s in range(e[E_STEM_COUNT]):
            for c in range(channels):
                silent = f32p(e[E_STEMS] + 4 * ((s * channels + c) * block + offset))
                for i in range(n):
                    silent[i] = 0.0
        return
    beside = e[E_BESIDE]
    if beside != 0:
        _copy(io, e[E_BESIDE_WORK], channels, block, n)
        call_node(e[E_RUN], engine, beside, e[E_BESIDE_WORK])
    if e[E_NEXT] == 0:
        # What is heard of two graphs at a time is the loudness of neither.
        scales = e[E_WEIGHING]
        if scales != 0:
            loudness.measure(i64p(scales)[0], io, block, n)
            if beside != 0:
                _weigh(engine, i64p(scales)[0], i64p(scales)[2], beside, e[E_BESIDE_WORK], n)
        call_node(e[E_RUN], engine, e[E_ACTIVE], io)
        if scales != 0:
            _weigh(engine, i64p(scales)[0], i64p(scales)[1], e[E_ACTIVE], io, n)
        graph_trim(e[E_ACTIVE], io, n)
        _take_stems(engine, offset, n, 0, 0, 1)
        return
    other = e[E_NEXT_WORK]
    _copy(io, other, channels, block, n)
    # The new graph is heard only once its cold nodes have seen their latency and settling time of input. Graphs of
    # the same delay carry the same sound. What has tails fades out in front, so that they are heard.
    begin = e[E_SWAP_WAIT]
    own = i64p(e[E_NEXT])[G_FADE]
    tail = e[E_SWAP_TAIL]
    length = own if own > 0 else e[E_SWAP_FADE]
    at = e[E_SWAP_AT]
    same = i64p(e[E_NEXT])[G_LATENCY] == i64p(e[E_ACTIVE])[G_LATENCY]
    nothing = e[E_RING_WORK]
    if tail > 0:
        length = larger(length, e[E_SWAP_FADE])
        for c in range(channels):
            silent = f32p(nothing + 4 * c * block)
            for i in range(n):
                silent[i] = 0.0
        _fade_over(io, nothing, io, channels, block, n, at - begin + i64p(e[E_ACTIVE])[G_LATENCY], length, same)
    call_node(e[E_RUN], engine, e[E_ACTIVE], io)
    call_node(e[E_RUN], engine, e[E_NEXT], other)
    graph_trim(e[E_ACTIVE], io, n)
    graph_trim(e[E_NEXT], other, n)
    first = larger(0, smaller(n, begin - at))
    if tail > 0:
        _fade_over(nothing, other, other, channels, block, n, at - begin, length, same)
        for c in range(channels):
            a = f32p(io + 4 * c * block)
            b = f32p(other + 4 * c * block)
            for i in range(first, n):
                a[i] += b[i]
    else:
        _fade_over(io, other, io, channels, block, n, at - begin, length, same)
    _take_stems(engine, offset, n, first, at + first - begin, length)
    e[E_SWAP_AT] = at + n
    if e[E_SWAP_AT] >= begin + length:
        retired = e[E_ACTIVE]
        new = i64p(e[E_NEXT])[G_SERIAL]
        if i64p(e[E_NEXT])[G_KEEP] != 0:
            retired = e[E_BESIDE]
            e[E_BESIDE] = e[E_ACTIVE]
        elif tail > 0 and e[E_RINGING] == 0:
            retired = 0
            e[E_RINGING] = e[E_ACTIVE]
            e[E_RING_LEFT] = i64p(e[E_ACTIVE])[G_LATENCY] + tail
            e[E_RING_QUIET] = 0
        old = i64p(retired)[G_SERIAL] if retired != 0 else 0
        e[E_ACTIVE] = e[E_NEXT]
        e[E_NEXT] = 0
        ring_push(e[E_TELEMETRY], events.SWAP_DONE, e[E_POSITION] + n, old, new, 0.0, 0.0, 0.0, 0.0)


@inline
def _set(engine: Any, serial: Any, index: Any, value: Any, samples: Any) -> None:
    """Begin the ramp of a parameter of a graph or of the host, and report it."""
    e = i64p(engine)
    done = 0
    if serial == HOST:
        if index >= 0 and index < _HOST_PARAMS:
            param_glide(e[E_HOST] + index * PARAM_BYTES, value, samples)
            done = 1
        if index == _BYPASS:
            if e[E_ACTIVE] != 0:
                graph_bypass(e[E_ACTIVE], value, 0)
            if e[E_NEXT] != 0:
                graph_bypass(e[E_NEXT], value, 0)
            if e[E_BESIDE] != 0:
                graph_bypass(e[E_BESIDE], value, 0)
            if e[E_RINGING] != 0:
                graph_bypass(e[E_RINGING], value, 0)
    else:
        if e[E_ACTIVE] != 0 and i64p(e[E_ACTIVE])[G_SERIAL] == serial:
            graph_set(e[E_ACTIVE], index, value, samples)
            done = 1
        if e[E_NEXT] != 0 and i64p(e[E_NEXT])[G_SERIAL] == serial:
            graph_set(e[E_NEXT], index, value, samples)
            done = 1
        if e[E_BESIDE] != 0 and i64p(e[E_BESIDE])[G_SERIAL] == serial:
            graph_set(e[E_BESIDE], index, value, samples)
            done = 1
    if done:
        length = np.float64(samples)
        ring_push(e[E_TELEMETRY], events.APPLIED, e[E_POSITION], index, serial, value, length, 0.0, 0.0)


@inline
def _step(engine: Any, serial: Any, index: Any, level: Any) -> None:
    """Let a node of a graph do all it can, do with less, or leave it out; and report it."""
    e = i64p(engine)
    done = 0
    if e[E_ACTIVE] != 0 and i64p(e[E_ACTIVE])[G_SERIAL] == serial:
        done = graph_step(e[E_ACTIVE], index, level)
    if e[E_NEXT] != 0 and i64p(e[E_NEXT])[G_SERIAL] == serial:
        done = graph_step(e[E_NEXT], index, level)
    if done:
        load = f64p(engine)[F_LOAD]
        to = np.float64(level)
        ring_push(e[E_TELEMETRY], events.STEPPED, e[E_POSITION], index, serial, to, load, 0.0, 0.0)


@inline
def _let_go(engine: Any) -> None:
    """Retire the graph that runs beside the one that is heard."""
    e = i64p(engine)
    serial = i64p(e[E_BESIDE])[G_SERIAL]
    e[E_BESIDE] = 0
    ring_push(e[E_TELEMETRY], events.SWAP_DONE, e[E_POSITION], serial, 0, 0.0, 0.0, 0.0, 0.0)


@node
def _mind_load(engine: Any, frames: Any, flags: Any) -> None:
    """Step down before sound breaks, and up again when there is time for it."""
    e = i64p(engine)
    f = f64p(engine)
    budget = f[F_BUDGET]
    if budget <= 0.0 or e[E_ACTIVE] == 0 or frames <= 0:
        return
    rate = 1.0 / f[F_SECONDS]
    seconds = frames * f[F_SECONDS]
    load = e[E_SPENT] / (frames * budget)
    share = smaller(1.0, seconds / _LOAD_S)
    # One stall says little about the load, however long it was.
    f[F_LOAD] += share * (smaller(load, 2.0) - f[F_LOAD])
    graph_cost(e[E_ACTIVE], frames, share, _LATE * budget)
    late = load > _LATE or (flags & 15 != 0 and f[F_LOAD] > _OUR_PART)
    if late:
        e[E_LATE_CALLBACKS] += 1
        e[E_CALM] = 0
    else:
        e[E_CALM] += frames
    if e[E_PAUSE] > 0:
        e[E_PAUSE] -= frames
        return
    if not late:
        f[F_LATE] = larger(0.0, f[F_LATE] - seconds / _FORGIVE_S)
        if e[E_NEXT] == 0 and e[E_CALM] >= e[E_WAIT]:
            graph = e[E_ACTIVE]
            node = graph_relief(graph)
            if node >= 0:
                fits = f[F_LOAD] + graph_needs(graph, node) / budget <= _CALM_LOAD
                if fits or e[E_CALM] >= np.int64(_LONGEST_S * rate):
                    e[E_CALM] = 0
                    e[E_RETURNED] = e[E_POSITION]
                    _step(engine, i64p(graph)[G_SERIAL], node, graph_above(graph, node))
        return
    f[F_LATE] += 1.0
    if f[F_LATE] < _MOST_LATE:
        return
    f[F_LATE] = 0.0
    if e[E_BESIDE] != 0:
        # What nobody hears goes first.
        _let_go(engine)
        e[E_PAUSE] = 2 * frames
        return
    if e[E_RINGING] != 0 and e[E_RING_LEFT] > e[E_SWAP_FADE]:
        # Then what sounds on.
        e[E_RING_LEFT] = e[E_SWAP_FADE]
        e[E_PAUSE] = e[E_SWAP_FADE] + 2 * frames
        return
    graph = e[E_ACTIVE]
    node = graph_burden(graph, _LEAST_LOAD * budget)
    if node < 0 and e[E_NEXT] != 0:
        graph = e[E_NEXT]
        node = graph_burden(graph, 0.0)
    if node < 0:
        return
    e[E_STEPS_DOWN] += 1
    # The fade is still to be paid for.
    e[E_PAUSE] = np.int64(_FADE_S * rate) + 2 * frames
    if e[E_POSITION] - e[E_RETURNED] < np.int64(_TRUST_S * rate) + 2 * e[E_WAIT]:
        e[E_WAIT] = smaller(2 * e[E_WAIT], np.int64(_LONGEST_S * rate))
    else:
        e[E_WAIT] = np.int64(_WAIT_S * rate)
    _step(engine, i64p(graph)[G_SERIAL], node, graph_below(graph, node))


@inline
def _table(engine: Any) -> Any:
    """The routes in force: those of the graph that came last."""
    e = i64p(engine)
    graph = e[E_NEXT] if e[E_NEXT] != 0 else e[E_ACTIVE]
    if graph == 0:
        return 0
    return load_acquire(graph + 8 * G_ROUTES)


@node
def _begin_panic(engine: Any, _: Any, __: Any) -> None:
    """Fade to silence and let go of what is held; `_end_panic` follows at the sample at which it is reached."""
    e = i64p(engine)
    e[E_PANIC_ASKED] = 0
    if e[E_PANIC_AT] != 0:
        return
    ring_push(e[E_TELEMETRY], events.PANICKED, e[E_POSITION], 0, 0, 0.0, 0.0, 0.0, 0.0)
    param_glide(e[E_HOST] + _PANIC_GAIN * PARAM_BYTES, 0.0, e[E_PANIC_SAMPLES])
    e[E_PANIC_AT] = e[E_POSITION] + e[E_PANIC_SAMPLES]
    switchboard.decoder_reset(e[E_DECODER])
    table = _table(engine)
    for k in range(i64p(table)[T_COUNT] if table != 0 else 0):
        route = i64p(table)[T_ROUTES] + R_BYTES * k
        r = i64p(route)
        if switchboard.route_release(route) != 0 and r[R_INDEX] >= 0:
            _set(engine, r[R_SERIAL], r[R_INDEX], f64p(route)[F_VALUE], r[R_RAMP])


@inline
def _reset(engine: Any) -> None:
    e = i64p(engine)
    if e[E_ACTIVE] != 0:
        graph_reset(e[E_ACTIVE])
    if e[E_NEXT] != 0:
        graph_reset(e[E_NEXT])
    if e[E_BESIDE] != 0:
        graph_reset(e[E_BESIDE])
    if e[E_RINGING] != 0:
        graph_reset(e[E_RINGING])


@node
def _end_panic(engine: Any, _: Any, __: Any) -> None:
    """Every node back to zero; sound comes back."""
    e = i64p(engine)
    _reset(engine)
    param_glide(e[E_HOST] + _PANIC_GAIN * PARAM_BYTES, 1.0, e[E_FADE_SAMPLES])
    e[E_PANIC_AT] = 0


@inline
def _play(engine: Any, message: Any, port: Any) -> None:
    """Hand a MIDI message to what plays notes, and report it."""
    e = i64p(engine)
    ring_push(e[E_TELEMETRY], events.HEARD, e[E_POSITION], message, port, 0.0, 0.0, 0.0, 0.0)
    if e[E_ACTIVE] != 0:
        graph_midi(e[E_ACTIVE], message, port)
    if e[E_NEXT] != 0:
        graph_midi(e[E_NEXT], message, port)
    if e[E_BESIDE] != 0:
        graph_midi(e[E_BESIDE], message, port)


@inline
def _midi(engine: Any, message: Any, port: Any) -> None:
    """Carry out a MIDI message at the present position."""
    e = i64p(engine)
    _play(engine, message, port)
    status = message & 0xF0
    if status == 0xF0 or status < 0x80:
        return
    found = e[E_FOUND]
    count = switchboard.decode(e[E_DECODER], port, message, found)
    table = _table(engine)
    # All sound off, all controllers reset and all notes off: nothing of this channel and port stays held. None is a
    # panic: keyboards send them at every stop, and a neighbour's must not silence a show.
    number = (message >> 8) & 0x7F
    release = status == 0xB0 and (number == 120 or number == 121 or number >= 123)
    everything = False
    k = 0
    route = 0
    walked = 0
    while table != 0:
        # One loop for both: routes that a control touches, then routes that are to be let go.
        fires = False
        if k < count:
            control = found + FOUND_BYTES * k
            c = i64p(control)
            if route == 0:
                route = switchboard.route_first(table, c[C_KIND], c[C_NUMBER])
                if route == 0:
                    k += 1
                    continue
            if switchboard.route_answers(route, c[C_KIND], c[C_NUMBER], message & 15, port):
                fires = switchboard.route_fires(route, control) != 0
        elif release and walked < i64p(table)[T_COUNT]:
            route = i64p(table)[T_ROUTES] + R_BYTES * walked
            walked += 1
            if switchboard.route_serves(route, message & 15, port):
                fires = switchboard.route_release(route) != 0
        else:
            break
        r = i64p(route)
        if fires:
            value = f64p(route)[F_VALUE]
            if r[R_INDEX] >= 0:
                _set(engine, r[R_SERIAL], r[R_INDEX], value, r[R_RAMP])
            elif r[R_INDEX] == PANIC_ACTION:
                everything = True
            else:
                graph = e[E_NEXT] if e[E_NEXT] != 0 else e[E_ACTIVE]
                action = switchboard.action_number(r[R_INDEX])
                serial = i64p(graph)[G_SERIAL]
                ring_push(e[E_TELEMETRY], events.ACTION, e[E_POSITION], action, serial, value, 0.0, 0.0, 0.0)
        if k < count:
            route = r[R_NEXT]
            if route == 0:
                k += 1
    if everything:
        e[E_PANIC_ASKED] = 1


@inline
def _take_events(engine: Any) -> None:
    """Move what has arrived to where it waits for its time."""
    e = i64p(engine)
    waiting = e[E_WAITING]
    position = e[E_POSITION]
    while waiting_room(waiting) > 0:
        record = ring_peek(e[E_INBOX])
        if record == 0:
            break
        waiting_add(waiting, record, larger(i64p(record)[1], position))
        ring_drop(e[E_INBOX])
    while waiting_room(waiting) > 0:
        record = ring_peek(e[E_NATIVE])
        if record == 0:
            break
        when = position
        if e[E_CLOCK] != 0:
            # Frames of JACK's clock: 32 bits that wrap.
            away = ((i64p(record)[1] - e[E_CLOCK_FRAME] + 0x80000000) & 0xFFFFFFFF) - 0x80000000
            when = e[E_CLOCK_POSITION] + away
            if when < position or away > _FAR:
                e[E_LATE] += 1
                when = position
        waiting_add(waiting, record, when)
        ring_drop(e[E_NATIVE])


@inline
def _read_clock(engine: Any) -> None:
    """Which frame of JACK's clock this callback begins with."""
    e = i64p(engine)
    if load_acquire(engine + 8 * E_CLOCK) == 0:
        return
    # First this flag, then the function again: who takes it away sees the one or is seen by the other.
    exchange(engine + 8 * E_READING, 1)
    clock = load_acquire(engine + 8 * E_CLOCK)
    frame = e[E_CLOCK_FRAME]
    if clock != 0:
        frame = call_foreign(clock, e[E_CLOCK_CLIENT], 0, 0, 0) & 0xFFFFFFFF
    store_release(engine + 8 * E_READING, 0)
    # Several callbacks within one of JACK's periods begin with the same frame: the first one holds.
    if frame != e[E_CLOCK_FRAME]:
        e[E_CLOCK_FRAME] = frame
        e[E_CLOCK_POSITION] = e[E_POSITION]


@inline
def _volume(db: Any) -> Any:
    return 0.0 if db <= _SILENT_DB else math.exp(db * _DB)


@inline
def _mix_monitor(engine: Any, offset: Any, n: Any) -> None:
    """What the monitor hears of ``n`` samples: the input as it came, and what the chain made of it."""
    e = i64p(engine)
    if e[E_MONITORS] == 0:
        return
    level = e[E_HOST] + _MONITOR_DB * PARAM_BYTES
    mix = e[E_HOST] + _MONITOR_MIX * PARAM_BYTES
    channels = e[E_CHANNELS]
    stride = e[E_MAX_BLOCK]
    moving = not (param_settled(level) and param_settled(mix))
    gain = _volume(f64p(level)[CURRENT])
    wet = gain * f64p(mix)[CURRENT] * 0.01
    for i in range(offset, offset + n):
        if moving:
            gain = _volume(param_next(level))
            wet = gain * param_next(mix) * 0.01
        for c in range(channels):
            heard = f32p(e[E_DRY] + 4 * c * stride)[i]
            made = f32p(e[E_WORK] + 4 * c * stride)[i]
            f32p(e[E_WORK] + 4 * (channels + c) * stride)[i] = heard * np.float32(gain - wet) + made * np.float32(wet)


@inline
def _host_gain(engine: Any, offset: Any, n: Any) -> None:
    """Volume, mute and panic on ``n`` samples of the work buffer; at rest every bit passes."""
    e = i64p(engine)
    volume = e[E_HOST] + _VOLUME * PARAM_BYTES
    mute = e[E_HOST] + _MUTE * PARAM_BYTES
    panic = e[E_HOST] + _PANIC_GAIN * PARAM_BYTES
    channels = e[E_CHANNELS]
    stride = e[E_MAX_BLOCK]
    io = e[E_WORK] + 4 * offset
    if param_settled(volume) and param_settled(mute) and param_settled(panic):
        gain = np.float32(_volume(f64p(volume)[CURRENT]) * (1.0 - f64p(mute)[CURRENT]) * f64p(panic)[CURRENT])
        if gain == np.float32(1.0):
            return
        for c in range(channels):
            samples = f32p(io + 4 * c * stride)
            for i in range(n):
                samples[i] *= gain
        return
    monitors = channels if e[E_MONITORS] != 0 else 0
    for i in range(n):
        silence = param_next(panic)
        gain = np.float32(_volume(param_next(volume)) * (1.0 - param_next(mute)) * silence)
        for c in range(channels):
            f32p(io + 4 * c * stride)[i] *= gain
        for c in range(monitors):
            f32p(io + 4 * (channels + c) * stride)[i] *= np.float32(silence)


@node
def _apply(engine: Any, record: Any, _: Any) -> None:
    """Carry out one event at the present position."""
    e = i64p(engine)
    words = i64p(record)
    floats = f64p(record)
    kind = words[0]
    if kind == events.SET_PARAM:
        _set(engine, words[3], words[2], floats[4], np.int64(floats[5]))
    elif kind == events.MIDI:
        _midi(engine, words[2], words[3])
    elif kind == events.STEP:
        _step(engine, words[3], words[2], np.int64(floats[4]))
    elif kind == events.PLAY:
        _play(engine, words[2], words[3])
    elif kind == events.PANIC:
        e[E_PANIC_ASKED] = 1
    elif kind == events.FADE_OUT:
        levels.ramp_set(e[E_FADE], 0.0, e[E_FADE_SAMPLES])
        e[E_STOPPED] = 0
    elif kind == events.FADE_IN:
        levels.ramp_set(e[E_FADE], 1.0, e[E_FADE_SAMPLES])
        e[E_STOPPED] = 0
    elif kind == events.RESET:
        _reset(engine)
    elif kind == events.LET_GO and e[E_BESIDE] != 0 and i64p(e[E_BESIDE])[G_SERIAL] == words[3]:
        _let_go(engine)


@inline
def _record(engine: Any, n: Any) -> None:
    """Show dry and wet to whoever looks, and append them to the tape, with the stems.

    What finds no room on the tape is told, so that its reader can keep the time.
    """
    e = i64p(engine)
    tape = e[E_TAPING]
    if tape == 0 and e[E_SHOWING] == 0:
        return
    channels = e[E_CHANNELS]
    block = e[E_MAX_BLOCK]
    # All lies in one memory, behind the wet channels' buffers: one map takes it, dry and wet first.
    if e[E_SHOWING] != 0:
        interleave(e[E_WORK], block, e[E_TAPE_MAP], e[E_TAPE_FRAMES], 2 * channels, n)
        rings.ring_show(e[E_SHOWING], e[E_TAPE_FRAMES], n)
    if tape == 0:
        return
    if e[E_SHOWING] == 0 or e[E_TAPE_WIDTH] > 2 * channels:
        interleave(e[E_WORK], block, e[E_TAPE_MAP], e[E_TAPE_FRAMES], e[E_TAPE_WIDTH], n)
    lost = e[E_TAPE_LOST]
    if lost != 0 and rings.ring_free(tape) >= n:
        before = i64p(tape)[rings.WRITTEN]
        if ring_push(e[E_TELEMETRY], events.TAPE_LOST, e[E_POSITION], lost, before, 0.0, 0.0, 0.0, 0.0) != 0:
            lost = 0
    if lost == 0:
        lost = n - rings.ring_write(tape, e[E_TAPE_FRAMES], n)
    else:
        lost += n
        i64p(tape)[rings.OVERRUNS] += n
    e[E_TAPE_LOST] = lost


@inline
def _average(io: Any, channels: Any, stride: Any, n: Any) -> None:
    """All channels into the first."""
    share = np.float32(1.0 / channels)
    mono = f32p(io)
    for i in range(n):
        mono[i] *= share
    for c in range(1, channels):
        more = f32p(io + 4 * c * stride)
        for i in range(n):
            mono[i] += more[i] * share


@inline
def _give_output(engine: Any, target: Any, n: Any) -> None:
    """Fade, map the chain's channels to the device's, interleave; every sample of the device is written."""
    e = i64p(engine)
    channels = e[E_CHANNELS]
    block = e[E_MAX_BLOCK]
    monitor = e[E_WORK] + 4 * channels * block
    levels.ramp_apply(e[E_FADE], e[E_WORK], 2 * channels if e[E_MONITORS] != 0 else channels, block, n)
    fade = f64p(e[E_FADE])
    if fade[levels.RAMP_REMAINING] <= 0.0 and fade[levels.RAMP_TARGET] == 0.0 and e[E_STOPPED] == 0:
        e[E_STOPPED] = 1
        ring_push(e[E_TELEMETRY], events.STOPPED, e[E_POSITION], 0, 0, 0.0, 0.0, 0.0, 0.0)
    if e[E_MONITORS] != 0 and e[E_MONITOR_AVERAGE] != 0:
        _average(monitor, channels, block, n)
    elsewhere = load_acquire(engine + 8 * E_MONITOR)
    if elsewhere != 0:
        interleave(monitor, block, e[E_MONITOR_MAP], e[E_MONITOR_FRAMES], e[E_MONITOR_WIDTH], n)
        call_stream(elsewhere, e[E_MONITOR_FRAMES], 0, n, 0, 0, e[E_MONITOR_USER])
    if target == 0:
        return
    if e[E_AVERAGE] != 0:
        _average(e[E_WORK], channels, block, n)
    interleave(e[E_WORK], block, e[E_OUT_MAP], target, e[E_DEVICE_OUT], n)


@node
def _deliver(engine: Any, target: Any, n: Any) -> None:
    """[audio] Limit, measure, record and give out what has been made."""
    e = i64p(engine)
    f = f64p(engine)
    channels = e[E_CHANNELS]
    block = e[E_MAX_BLOCK]
    e[E_LIMITED] += levels.limit(e[E_LIMITER], e[E_WORK], channels, block, n, f[F_CEILING], f[F_RELEASE])
    if e[E_MONITORS] != 0:
        monitor = e[E_WORK] + 4 * channels * block
        levels.limit(e[E_MONITOR_LIMITER], monitor, channels, block, n, f[F_CEILING], f[F_RELEASE])
    for c in range(channels):
        levels.meter_add(e[E_OUT_METER], e[E_WORK] + 4 * c * block, n)
    _record(engine, n)
    _give_output(engine, target, n)
    e[E_METER_SAMPLES] += n
    if e[E_METER_SAMPLES] >= _METER_EVERY:
        into = f64p(e[E_IN_METER])
        out = f64p(e[E_OUT_METER])
        samples = e[E_METER_SAMPLES] * channels
        ring_push(
            e[E_TELEMETRY], events.METER, e[E_POSITION], e[E_METER_SAMPLES], 0,
            into[levels.METER_PEAK], out[levels.METER_PEAK],
            into[levels.METER_SQUARES] / samples, out[levels.METER_SQUARES] / samples,
        )  # fmt: skip
        e[E_METER_SAMPLES] = 0
        levels.meter_clear(e[E_IN_METER])
        levels.meter_clear(e[E_OUT_METER])


@inline
def _chunk(engine: Any, source: Any, target: Any, n: Any) -> None:
    """One piece of at most ``max_block`` frames, door to door."""
    e = i64p(engine)
    tape = load_acquire(engine + 8 * E_TAPE)
    if tape != 0 and e[E_TAPING] == 0:
        ring_push(e[E_TELEMETRY], events.TAPING, e[E_POSITION], 0, 0, 0.0, 0.0, 0.0, 0.0)
        e[E_TAPE_LOST] = 0
    e[E_TAPING] = tape
    e[E_SHOWING] = load_acquire(engine + 8 * E_SCOPE)
    e[E_WEIGHING] = load_acquire(engine + 8 * E_SCALES)
    call_node(e[E_TAKE_INPUT], engine, source, n)
    _take_graph(engine)
    _take_events(engine)
    if load_acquire(engine + 8 * E_PANIC) != 0:
        e[E_PANIC_ASKED] = exchange(engine + 8 * E_PANIC, 0)
    # A message that found no room may have been the end of a note: no note may hang.
    refused = ring_refused(e[E_NATIVE])
    lost = refused != e[E_REFUSED] or load_acquire(engine + 8 * E_LET_GO) != 0
    if lost:
        e[E_REFUSED] = refused
        exchange(engine + 8 * E_LET_GO, 0)
    start = 0
    while start < n:
        while waiting_time(e[E_WAITING], _NEVER) <= e[E_POSITION]:
            waiting_take(e[E_WAITING], e[E_EVENT])
            call_node(e[E_APPLY], engine, e[E_EVENT], 0)
        if lost:
            # Behind what was told before it: that may be the beginning of the note.
            lost = False
            _play(engine, 0xFF, -1)
        if e[E_PANIC_ASKED] != 0:
            call_node(e[E_BEGIN_PANIC], engine, 0, 0)
        if e[E_PANIC_AT] != 0 and e[E_PANIC_AT] <= e[E_POSITION]:
            call_node(e[E_END_PANIC], engine, 0, 0)
        change = smaller(waiting_time(e[E_WAITING], _NEVER), e[E_PANIC_AT] if e[E_PANIC_AT] != 0 else _NEVER)
        # Who counts on whole calls gets them: changes wait for the next one then.
        stop = n if _whole(engine) != 0 else smaller(n, start + change - e[E_POSITION])
        ringing = e[E_RINGING]
        call_node(e[E_RUN_GRAPHS], engine, start, stop - start)
        # What has just been swapped out has run on this piece already.
        if ringing != 0:
            call_node(e[E_RING], engine, start, stop - start)
        _mix_monitor(engine, start, stop - start)
        _host_gain(engine, start, stop - start)
        e[E_POSITION] += stop - start
        start = stop
    call_node(e[E_DELIVER], engine, target, n)


@cfunc(
    types.int32(types.int64, types.int64, types.int64, types.int64, types.int64, types.int64),
    cache=True,
    error_model="numpy",
    boundscheck=False,
)
def callback(source: Any, target: Any, frames: Any, time_info: Any, flags: Any, engine: Any) -> int:
    """[audio] ``PaStreamCallback``; ``engine`` is the address of an engine's words."""
    control = flush_denormals()
    e = i64p(engine)
    begin = now(e[E_TICKS])
    if flags & 5:
        e[E_UNDERFLOWS] += 1
    if flags & 10:
        e[E_OVERFLOWS] += 1
    _read_clock(engine)
    done = 0
    while done < frames:
        n = smaller(frames - done, e[E_MAX_BLOCK])
        chunk_source = source
        if source != 0:
            chunk_source = source + 4 * done * e[E_DEVICE_IN]
        chunk_target = target
        if target != 0:
            chunk_target = target + 4 * done * e[E_DEVICE_OUT]
        _chunk(engine, chunk_source, chunk_target, n)
        done += n
    spent = now(e[E_TICKS]) - begin
    e[E_SPENT] = spent
    call_node(e[E_MIND_LOAD], engine, frames, flags)
    if e[E_TRACE] != 0:
        i64p(e[E_TRACE])[e[E_CALLBACKS] & e[E_TRACE_MASK]] = spent
    e[E_BUSY] += spent
    if spent > e[E_BUSY_MAX]:
        e[E_BUSY_MAX] = spent
    e[E_CALLBACKS] += 1
    restore_denormals(control)
    return 0


NODES[f"{__name__}.callback"] = callback


@kernel(types.int64(types.int64, types.int64))
def _exchange(address: Any, value: Any) -> Any:
    return exchange(address, value)


@kernel(types.void(types.int64, types.int64))
def _store(address: Any, value: Any) -> None:
    store_release(address, value)


@kernel(types.int64())
def _ticks() -> Any:
    return ticks()


class TickRate:
    """How fast the processor's counter runs, measured against the system's clock."""

    def __init__(self) -> None:
        self._zero = (time.perf_counter(), _ticks())
        self._per_second = 0.0

    def per_second(self) -> float:
        """Ticks in a second; 0 where the processor has no counter."""
        now = (time.perf_counter(), _ticks())
        elapsed = now[0] - self._zero[0]
        if elapsed < 0.02:
            time.sleep(0.02)
            return self.per_second()
        return float((now[1] - self._zero[1]) / elapsed)


@dataclass(frozen=True)
class Counters:
    """What an engine has counted since it was made."""

    position_samples: int
    callbacks: int
    busy_ticks: int
    busy_max_ticks: int
    underflows: int
    overflows: int
    bad_input_samples: int
    limited_samples: int
    telemetry_dropped: int
    tape_dropped_frames: int
    events_dropped: int
    events_late: int
    callbacks_late: int
    steps_down: int

    @property
    def xruns(self) -> int:
        """Blocks the device lost or repeated."""
        return self.underflows + self.overflows


class Engine:
    """The native engine and its memory [main-thread object; one engine, one audio thread].

    Parameters
    ----------
    sample_rate_hz : int
    channels : int
        Channels of the chain.
    device_in, device_out : int
        Channels per frame of the interleaved buffers that the callback is given.
    in_map : sequence of int
        For each chain channel the device's input channel (from 0); length ``channels``, or ``mics`` if there are any.
    out_map : sequence of int
        The device's output channels (from 0) to write. A mono chain goes to all of them; a chain of several
        channels into one output is averaged.
    monitor_map : sequence of int
        The device's output channels (from 0) that carry the monitor, none of them in ``out_map``; see `monitor_to` for
        another device.
    max_block : int
        Larger callbacks are split.
    tape_frames : int
        Room of the recording ring, a power of two; 0 for no recording.
    stems : int
        Stems of the graphs that the recording holds behind dry and wet.
    mics : int
        Inputs for the strips of graphs, each of which the recording holds behind the stems; the chain's input is their
        sum then. 0 for none.
    """

    FADE_MS = 30.0
    SWAP_FADE_MS = 30.0
    PANIC_MS = 5.0

    def __init__(
        self,
        sample_rate_hz: int,
        channels: int = 1,
        device_in: int | None = None,
        device_out: int | None = None,
        in_map: tuple[int, ...] | None = None,
        out_map: tuple[int, ...] | None = None,
        monitor_map: tuple[int, ...] = (),
        max_block: int = 1024,
        tape_frames: int = 0,
        stems: int = 0,
        mics: int = 0,
    ) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.channels = channels
        self.mics = mics
        self.max_block = max_block
        in_map = tuple(range(mics or channels)) if in_map is None else in_map
        out_map = tuple(range(channels)) if out_map is None else out_map
        self.device_in = max(in_map) + 1 if device_in is None else device_in
        self.device_out = max(*out_map, *monitor_map, 0) + 1 if device_out is None else device_out
        outs = (*out_map, *monitor_map)
        if len(in_map) != (mics or channels) or max(in_map) >= self.device_in or max(outs) >= self.device_out:
            raise ValueError("the channel maps do not fit the device")
        self.arena = arena = Arena()
        words = arena.int64(_WORDS)
        self._words = words
        self._floats = words.view(np.float64)
        self.address = address_of(words)
        columns = arena.int64(len(in_map))
        columns[:] = in_map
        # The output map answers for every column of the device: the chain's channel, or -1 for silence.
        rows = arena.int64(self.device_out)
        rows[:] = -1
        for k, column in enumerate(out_map):
            rows[column] = k % channels
        for k, column in enumerate(monitor_map):
            rows[column] = channels + k % channels
        # Planar buffers in one piece: the chain's, the monitor's, the incoming graph's, the input as it came, stems,
        # and every channel of what strips take.
        buffers = arena.float32((4 + stems) * channels + mics, max_block)
        self.tape_width = (2 + stems) * channels + mics
        words[E_TAPE_WIDTH] = self.tape_width
        tape_map = arena.int64(self.tape_width)
        tape_map[:] = 2 * channels + np.arange(self.tape_width)
        tape_map[:channels] = 3 * channels + np.arange(channels)
        tape_map[channels : 2 * channels] = np.arange(channels)
        # One that nobody hears, and one for what sounds on.
        words[E_BESIDE_WORK] = address_of(arena.float32(channels, max_block))
        words[E_RING_WORK] = address_of(arena.float32(channels, max_block))
        self.inbox = Ring(arena, 4096)
        #: MIDI of a native producer such as a JACK client; its times are frames of that client's clock.
        self.native = Ring(arena, 4096)
        self.telemetry = Ring(arena, 16384)
        self._host = arena.float64((_HOST_PARAMS + 1) * PARAM_SLOTS).reshape(-1, PARAM_SLOTS)
        for row, param in zip(self._host, HOST_PARAMS.values(), strict=False):
            row[CURRENT] = row[TARGET] = param.default
            row[SMOOTHING] = round(param.smoothing_ms * sample_rate_hz / 1000)
        self._host[_PANIC_GAIN, [CURRENT, TARGET]] = 1.0
        self._fade = arena.float64(levels.RAMP_WORDS)
        self._fade[levels.RAMP_TARGET] = 1.0
        self._limiter = arena.float64(1)
        self._limiter[0] = 1.0
        words[E_MAX_BLOCK] = max_block
        words[E_CHANNELS] = channels
        words[E_DEVICE_IN] = self.device_in
        words[E_DEVICE_OUT] = self.device_out
        words[E_IN_MAP], words[E_OUT_MAP] = address_of(columns), address_of(rows)
        words[E_AVERAGE] = len(out_map) == 1 and channels > 1
        words[E_WORK], words[E_NEXT_WORK], words[E_DRY] = (address_of(buffers[k * channels]) for k in (0, 2, 3))
        words[E_STEMS], words[E_STEM_COUNT] = address_of(buffers) + 16 * channels * max_block, stems
        words[E_MICS], words[E_MIC_COUNT] = address_of(buffers[-mics] if mics else buffers), mics or channels
        words[E_MONITORS] = bool(monitor_map)
        words[E_MONITOR_AVERAGE] = len(monitor_map) == 1 and channels > 1
        words[E_MONITOR_FRAMES] = address_of(arena.float32(max_block, 2))
        sources = arena.int64(2)
        sources[1] = 1 % channels
        words[E_MONITOR_MAP] = address_of(sources)
        words[E_SWAP_FADE] = round(self.SWAP_FADE_MS * sample_rate_hz / 1000)
        words[E_INBOX] = self.inbox.address
        words[E_TELEMETRY] = self.telemetry.address
        words[E_NATIVE] = self.native.address
        words[E_WAITING] = address_of(arena.int64(events.WAITING_WORDS))
        words[E_EVENT] = address_of(arena.int64(events.WORDS))
        words[E_DECODER] = address_of(arena.int64(switchboard.DECODER_WORDS))
        words[E_FOUND] = address_of(arena.int64(switchboard.FOUND_WORDS))
        words[E_HOST] = address_of(self._host)
        words[E_PANIC_SAMPLES] = round(self.PANIC_MS * sample_rate_hz / 1000)
        words[E_CLOCK_FRAME] = -1
        words[E_FADE] = address_of(self._fade)
        words[E_FADE_SAMPLES] = round(self.FADE_MS * sample_rate_hz / 1000)
        words[E_IN_METER] = address_of(arena.float64(levels.METER_WORDS))
        words[E_OUT_METER] = address_of(arena.float64(levels.METER_WORDS))
        words[E_LIMITER] = address_of(self._limiter)
        self._monitor_limiter = arena.float64(1)
        self._monitor_limiter[0] = 1.0
        words[E_MONITOR_LIMITER] = address_of(self._monitor_limiter)
        parts = (_take_input, _apply, _begin_panic, _end_panic, _run_graphs, _run, _ring, _deliver, _mind_load)
        words[E_TAKE_INPUT : E_MIND_LOAD + 1] = [part.address for part in parts]
        self._floats[F_CEILING] = _CEILING
        self._floats[F_RELEASE] = levels.release_step(_RELEASE_MS, sample_rate_hz)
        self._floats[F_SECONDS] = 1 / sample_rate_hz
        words[E_WAIT] = round(_WAIT_S * sample_rate_hz)
        words[E_RETURNED] = -_NEVER
        words[E_TAPE_MAP] = address_of(tape_map)
        words[E_TAPE_FRAMES] = address_of(arena.float32(max_block, self.tape_width))
        self._scope: rings.Ring | None = None
        self._scales: list[NDArray[np.int64]] = []
        self.tape: rings.Ring | None = None
        if tape_frames:
            self.run_tape(tape_frames)
        self.callback_address = int(callback.address)
        self._call = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * 6)(self.callback_address)
        self._graphs: dict[int, Graph] = {}
        self._tables: dict[int, Table] = {}
        self._retired: list[tuple[int, Table]] = []
        # How often a graph was published, how often of these it has still to be taken; retired, but to be taken again.
        self._given: Counter[int] = Counter()
        self._due: Counter[int] = Counter()
        self._over: set[int] = set()
        self._ended: list[int] = []
        self._send = threading.Lock()

    # --- control [main] ---

    def publish(self, graph: Graph, keep: bool = False) -> int:
        """Hand a graph to the audio thread, which fades over to it.

        With ``keep`` the graph that was heard runs on beside it, and can be published again: it is heard at once then.
        One runs beside at most; `let_go` ends it.

        Returns
        -------
        int
            Serial of a graph that was still waiting and has been replaced; 0 if there was none.
        """
        self._graphs[graph.serial] = graph
        self._given[graph.serial] += 1
        self._due[graph.serial] += 1
        graph.keep_old(keep)
        if graph.serial in self._tables:
            self._resume(graph, self._tables[graph.serial])
        replaced = _exchange(self.address + 8 * E_MAILBOX, graph.address)
        if replaced:
            for serial, waiting in list(self._graphs.items()):
                if waiting.address == replaced:
                    self._due[serial] -= 1
                    # What had run before it was published again may still run.
                    if serial != graph.serial and (self._given[serial] == 1 or serial in self._over):
                        self._drop(serial)
                        self._tables.pop(serial, None)
                        return serial
        return 0

    def send(self, record: Record) -> bool:
        """Put an event into the inbox; False if it is full. Any thread but the audio thread."""
        with self._send:
            return self.inbox.push(record)

    def set_param(
        self, graph: Graph | None, index: int, value: float, when: int = events.NOW, ramp_samples: int = 0
    ) -> bool:
        """Change a parameter, at an absolute sample position or as soon as possible.

        ``graph`` None: one of `HOST_PARAMS`. ``ramp_samples`` 0: the parameter's own smoothing.
        """
        serial = HOST if graph is None else graph.serial
        return self.send(Record(events.SET_PARAM, when, index, serial, value, ramp_samples))

    def let_go(self, serial: int) -> bool:
        """Retire the graph of this serial if it is the one that runs beside; False if the inbox is full."""
        return self.send(Record(events.LET_GO, events.NOW, 0, serial))

    def midi(self, message: bytes, when: int = events.NOW, port: int = 0) -> bool:
        """Send a MIDI message of one to three bytes through the routes; False if the inbox is full."""
        return self.send(Record(events.MIDI, when, int.from_bytes(message, "little"), port))

    def monitor_to(self, function: int, user: int, width: int) -> None:
        """Give the monitor, frames of one or two channels, to a ``PaStreamCallback`` as its input; 0 ends it.

        While no stream runs. The function must not wait.
        """
        words = self._words
        words[E_MONITORS], words[E_MONITOR_AVERAGE] = function != 0, width == 1 and self.channels > 1
        words[E_MONITOR_WIDTH], words[E_MONITOR_USER] = width, user
        _store(self.address + 8 * E_MONITOR, function)

    def mind_load(self, ticks_per_second: float, clock: int = 0) -> None:
        """Let nodes step down from now on while callbacks take longer than they may. While no stream runs.

        Parameters
        ----------
        ticks_per_second : float
            Of the processor's counter; 0 to let everything play whatever it takes, as at the start.
        clock : int
            Address of an int64 in the place of the processor's counter.
        """
        self._words[E_TICKS] = clock
        self._words[E_PAUSE] = round(_BEGIN_S * self.sample_rate_hz)
        self._floats[F_BUDGET] = ticks_per_second / self.sample_rate_hz
        self._floats[F_LATE] = 0.0

    def step(self, graph: Graph, label: str, level: int) -> bool:
        """Let a plugin do all it can (`rtgan.events.FULL`), with less (``LEAN``) or leave it out (``OUT``).

        False if the inbox is full; `UsageError` if the chain has no such plugin.
        """
        labels = [item.label for item in graph.chain]
        if label not in labels:
            raise UsageError(f"there is no '{label}' in this chain; it holds: {', '.join(labels) or 'nothing'}")
        return self.send(Record(events.STEP, events.NOW, labels.index(label), graph.serial, level))

    def end_notes(self) -> None:
        """End every note: a message has been lost, which may have been the end of one. Any thread."""
        _exchange(self.address + 8 * E_LET_GO, 1)

    def panic(self) -> None:
        """Silence, everything back to zero, sound comes back; needs no room in the inbox. Any thread."""
        _exchange(self.address + 8 * E_PANIC, 1)

    def route(self, graph: Graph, routes: Sequence[Route]) -> None:
        """Give a graph the controllers that move it, and the host, while it plays. One thread at a time.

        What the routes in force know of a controller (held, engaged, where it was) is kept by those of the same
        control, target and mode, here and again when the graph is published. A message that takes effect between
        that moment and the first callback with the new routes is not known to them.
        """
        table = Table(routes)
        self._resume(graph, table)
        _exchange(graph.address + 8 * G_ROUTES, table.address)
        callbacks = int(self._words[E_CALLBACKS])
        # A callback may still be walking the table before: it goes when two more have been counted.
        self._retired = [(at, old) for at, old in self._retired if callbacks < at + 2]
        if graph.serial in self._tables:
            self._retired.append((callbacks, self._tables[graph.serial]))
        self._tables[graph.serial] = table

    def _resume(self, graph: Graph, table: Table) -> None:
        address = int(self._words[E_NEXT]) or int(self._words[E_ACTIVE])
        for playing in list(self._graphs.values()):
            before = self._tables.get(playing.serial)
            if playing.address == address and before is not None and before is not table:
                for index, value in table.resume(before, graph.index, playing.index).items():
                    self.set_param(None, index, value)

    def action(self, record: Record) -> str:
        """What an ACTION record asks for; empty if its graph has gone."""
        table = self._tables.get(record.b)
        return table.actions[record.a] if table is not None and record.a < len(table.actions) else ""

    def run_tape(self, frames: int) -> rings.Ring:
        """Record dry and wet from the next piece on, into a ring of so many frames (a power of two)."""
        if self.tape is None:
            self.tape = rings.build(frames, self.tape_width, allocate=self.arena.int64)
        _store(self.address + 8 * E_TAPE, self.tape.address)
        return self.tape

    def stop_tape(self, called: bool = True) -> None:
        """Record no more, from the next piece on; now, where no stream calls, so that another tape is told of anew."""
        _store(self.address + 8 * E_TAPE, 0)
        if not called:
            self._words[E_TAPING] = 0

    def show(self, scope: rings.Ring) -> None:
        """Write dry and wet, (frames, 2 * channels), over the oldest of a ring from the next piece on.

        The ring is kept for as long as the engine; who reads it need not keep up (`rtgan.kernels.rings.ring_show`).
        """
        if self._scope is not None:
            raise ValueError("this engine shows its sound already")
        self._scope = scope
        _store(self.address + 8 * E_SCOPE, scope.address)

    def weigh(self) -> None:
        """Measure loudness before and behind the graphs from the next piece on, and report it: LOUDNESS."""
        if not self._scales:
            meters = [loudness.build(self.sample_rate_hz, self.channels, allocate=self.arena.int64) for _ in range(3)]
            self._scales = [*meters, self.arena.int64(3)]
            self._scales[3][:] = [address_of(meter) for meter in meters]
            _store(self.address + 8 * E_SCALES, address_of(self._scales[3]))

    def follow_clock(self, function: int, client: int) -> bool:
        """Read a native producer's clock, ``uint32 function(client)``, at every callback; 0: no longer.

        Returns
        -------
        bool
            True once the audio thread is not in the clock followed before and will not call it again: its client
            may go. False if it has been in there for a second; nothing is followed then.
        """
        _exchange(self.address + 8 * E_CLOCK, 0)
        until = time.monotonic() + _CLOCK_WAIT_S
        while self._words[E_READING]:
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        self._words[E_CLOCK_CLIENT] = client
        _store(self.address + 8 * E_CLOCK, function)
        return True

    def host_slot(self, name: str) -> int:
        """Address of a host parameter as the audio thread sees it."""
        return address_of(self._host[HOST_PARAMS.index(name)])

    @property
    def host_values(self) -> dict[str, float]:
        """The host's parameters by id."""
        return {name: float(row[TARGET]) for name, row in zip(HOST_PARAMS, self._host, strict=False)}

    def start_silent(self) -> None:
        """Begin at zero gain, so that the first sound fades in. While no stream runs."""
        # Not by an event: where no device has called for a while, the inbox may be full of what was played meanwhile.
        self._fade[:] = 0.0
        levels.ramp_set_array(self._fade, 1.0, int(self._words[E_FADE_SAMPLES]))
        self._words[E_STOPPED] = 0

    def poll(self) -> list[Record]:
        """Everything the audio thread reported; frees graphs it has let go. One thread at a time."""
        records = self.telemetry.drain()
        # What was asked for just before the end of a graph is looked up once its records have been handed out.
        for serial in self._ended:
            self._tables.pop(serial, None)
        self._ended = []
        for record in records:
            if record.kind == events.SWAP_BEGUN:
                self._due[record.b] -= 1
                self._over.discard(record.b)
            elif record.kind == events.SWAP_DONE and record.a:
                if self._due[record.a] > 0:
                    self._over.add(record.a)
                else:
                    self._ended.append(record.a)
                    self._drop(record.a)
        return records

    def _drop(self, serial: int) -> None:
        self._graphs.pop(serial, None)
        for counted in (self._given, self._due):
            del counted[serial]
        self._over.discard(serial)

    def holds(self, serial: int) -> bool:
        """Whether the audio thread may still run a graph, as far as `poll` knows."""
        return serial in self._graphs

    @property
    def counters(self) -> Counters:
        """A reading of the counters."""
        w = self._words
        return Counters(
            position_samples=int(w[E_POSITION]),
            callbacks=int(w[E_CALLBACKS]),
            busy_ticks=int(w[E_BUSY]),
            busy_max_ticks=int(w[E_BUSY_MAX]),
            underflows=int(w[E_UNDERFLOWS]),
            overflows=int(w[E_OVERFLOWS]),
            bad_input_samples=int(w[E_BAD_INPUT]),
            limited_samples=int(w[E_LIMITED]),
            telemetry_dropped=self.telemetry.dropped,
            tape_dropped_frames=self.tape.overruns if self.tape else 0,
            events_dropped=self.inbox.dropped + self.native.dropped,
            events_late=int(w[E_LATE]),
            callbacks_late=int(w[E_LATE_CALLBACKS]),
            steps_down=int(w[E_STEPS_DOWN]),
        )

    def forget_worst(self) -> None:
        """Start the worst-case timing anew."""
        self._words[E_BUSY_MAX] = 0

    def trace(self, callbacks: int) -> NDArray[np.int64]:
        """Keep the duration in ticks of each of the last ``callbacks`` (a power of two) callbacks."""
        durations = self.arena.int64(callbacks)
        self._words[E_TRACE_MASK] = callbacks - 1
        self._words[E_TRACE] = address_of(durations)
        return durations

    @property
    def memory_intact(self) -> bool:
        """Whether nothing wrote outside its memory, in the engine and in the graphs it knows."""
        return self.arena.intact() and all(g.arena.intact() for g in self._graphs.values())

    # --- offline [any thread, while no stream runs] ---

    def render(self, frames: NDArray[np.float32], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Run the callback over interleaved frames.

        Parameters
        ----------
        frames : ndarray of float32, (frames, device_in), C-contiguous
        out : ndarray of float32, (frames, device_out), optional

        Returns
        -------
        ndarray of float32, (frames, device_out)
        """
        if frames.dtype != np.float32 or not frames.flags.c_contiguous or frames.shape[1:] != (self.device_in,):
            raise ValueError("frames must be float32, C-contiguous, (frames, device_in)")
        if out is None:
            out = np.empty((len(frames), self.device_out), np.float32)
        self._call(address_of(frames), address_of(out), len(frames), 0, 0, self.address)
        return out
