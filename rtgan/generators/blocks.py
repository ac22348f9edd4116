"""A lowered model of sound on the audio thread: fed in blocks of its own size, run where one is full.

A block is answered in the call in which it is full. Its delay is what of one may be left at the end of a call: nothing
where calls are of one length that holds whole blocks, and a block where nothing is known of them. Where they turn out
to be of another length than announced, it is a block late from then on, without a click, and says so. Parameters go
along as their values at the ends of the last block and of this one. A model of one channel runs once for each, with
memory of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtgan.errors import RtganError
from rtgan.generators.compile import Net
from rtgan.kernels.native import call_net, f32p, i64p, inline, node, smaller
from rtgan.memory import address_of
from rtgan.params import param_advance
from rtgan.plugin import Activation, NativeNode

(
    _CHANNELS, _STRIDE, _BLOCK, _FILL, _NET, _WEIGHTS, _ARENAS, _ARENA_BYTES, _ARENA_FLOATS, _INITIAL, _INPUT, _PAST,
    _VALUES, _OUTPUT, _STREAMS, _TAKES, _GIVES, _IN, _OUT, _PARAMS, _PARAM_COUNT, _BEGUN, _LAST, _MASK, _MADE, _HEARD,
    _REST, _SLIPPED, _STEP, _STEP_LEFT,
) = range(30)  # fmt: skip
_WORDS = 32
#: Samples over which the step of a slip dies away.
_SMOOTH = 64


@inline
def _enter(state: Any, arena: Any, stream: Any) -> None:
    """What the model hears of the block that is full."""
    w = i64p(state)
    size, channels = w[_BLOCK], w[_CHANNELS]
    target = f32p(arena + 4 * w[_INPUT])
    share = np.float32(1.0 / channels)
    for c in range(w[_TAKES]):
        if w[_STREAMS] > 1 or w[_TAKES] == channels:
            source = f32p(w[_IN] + 4 * size * (stream + c))
            for i in range(size):
                target[c * size + i] = source[i]
        else:
            for i in range(size):
                total = np.float32(0.0)
                for k in range(channels):
                    total += f32p(w[_IN] + 4 * (size * k + i))[0] * share
                target[c * size + i] = total


@inline
def _leave(state: Any, arena: Any, stream: Any) -> None:
    """Put its answer behind those before."""
    w = i64p(state)
    size, channels, gives, mask, made = w[_BLOCK], w[_CHANNELS], w[_GIVES], w[_MASK], w[_MADE]
    source = f32p(arena + 4 * w[_OUTPUT])
    if w[_STREAMS] > 1:
        out = f32p(w[_OUT] + 4 * (mask + 1) * stream)
        for i in range(size):
            out[(made + i) & mask] = source[i]
        return
    share = np.float32(1.0 / gives)
    for c in range(channels):
        out = f32p(w[_OUT] + 4 * (mask + 1) * c)
        if channels == 1:
            for i in range(size):
                total = np.float32(0.0)
                for k in range(gives):
                    total += source[k * size + i] * share
                out[(made + i) & mask] = total
        else:
            row = c if gives > 1 else 0
            for i in range(size):
                out[(made + i) & mask] = source[row * size + i]


@inline
def _run(state: Any) -> None:
    w = i64p(state)
    last = f32p(w[_LAST])
    params = i64p(w[_PARAMS])
    count = w[_PARAM_COUNT]
    for k in range(count):
        value = np.float32(param_advance(params[k], np.float64(w[_BLOCK])))
        past = last[k] if w[_BEGUN] != 0 else value
        last[k] = value
        for s in range(w[_STREAMS]):
            arena = w[_ARENAS] + s * w[_ARENA_BYTES]
            f32p(arena + 4 * w[_PAST])[k] = past
            f32p(arena + 4 * w[_VALUES])[k] = value
    w[_BEGUN] = 1
    for s in range(w[_STREAMS]):
        arena = w[_ARENAS] + s * w[_ARENA_BYTES]
        _enter(state, arena, s)
        call_net(w[_NET], arena, w[_WEIGHTS])
        _leave(state, arena, s)
    w[_MADE] += w[_BLOCK]


@inline
def _slip(state: Any) -> None:
    """Be a whole block late from now on; what stepped by that is remembered, to die away."""
    w = i64p(state)
    mask = w[_MASK]
    back = w[_BLOCK] - w[_REST]
    for c in range(w[_CHANNELS]):
        out = f32p(w[_OUT] + 4 * (mask + 1) * c)
        before = out[(w[_HEARD] - 1) & mask] if w[_HEARD] > 0 else np.float32(0.0)
        behind = out[(w[_HEARD] - back) & mask] if w[_HEARD] >= back else np.float32(0.0)
        f32p(w[_STEP])[c] = before - behind
    w[_HEARD] -= back
    w[_STEP_LEFT] = _SMOOTH
    w[_SLIPPED] = 1


@node
def process(state: int, io: int, n: int) -> None:
    """[audio] Sound in, answers out."""
    w = i64p(state)
    size, mask = w[_BLOCK], w[_MASK]
    done = 0
    while done < n:
        fill = w[_FILL]
        count = smaller(n - done, size - fill)
        for c in range(w[_CHANNELS]):
            x = f32p(io + 4 * (c * w[_STRIDE] + done))
            into = f32p(w[_IN] + 4 * (size * c + fill))
            for i in range(count):
                into[i] = x[i]
        w[_FILL] = fill + count
        done += count
        if fill + count == size:
            w[_FILL] = 0
            _run(state)
    if w[_HEARD] + n > w[_MADE] and w[_SLIPPED] == 0:
        _slip(state)
    heard = w[_HEARD]
    for c in range(w[_CHANNELS]):
        x = f32p(io + 4 * c * w[_STRIDE])
        out = f32p(w[_OUT] + 4 * (mask + 1) * c)
        for i in range(n):
            x[i] = out[(heard + i) & mask] if heard + i >= 0 else np.float32(0.0)
        if w[_STEP_LEFT] > 0:
            share = f32p(w[_STEP])[c] / np.float32(_SMOOTH)
            for i in range(smaller(n, w[_STEP_LEFT])):
                x[i] += share * np.float32(w[_STEP_LEFT] - i)
    w[_STEP_LEFT] -= smaller(n, w[_STEP_LEFT])
    w[_HEARD] = heard + n


@node
def reset(state: int, io: int, n: int) -> None:
    """[audio] As if nothing had been heard."""
    w = i64p(state)
    w[_FILL] = 0
    w[_BEGUN] = 0
    w[_MADE] = 0
    w[_HEARD] = -w[_REST]
    w[_SLIPPED] = 0
    w[_STEP_LEFT] = 0
    initial = f32p(w[_INITIAL])
    for s in range(w[_STREAMS]):
        arena = f32p(w[_ARENAS] + s * w[_ARENA_BYTES])
        for k in range(w[_ARENA_FLOATS]):
            arena[k] = initial[k]
    heard = f32p(w[_IN])
    for i in range(w[_CHANNELS] * w[_BLOCK]):
        heard[i] = 0.0
    answer = f32p(w[_OUT])
    for i in range(w[_CHANNELS] * (w[_MASK] + 1)):
        answer[i] = 0.0


def activate(
    net: Net, block: int, takes: int, gives: int, delay_samples: int, tail_samples: int, activation: Activation
) -> NativeNode:
    """A node of a net ``(1, takes, block)[, values before, values now] -> (1, gives, block)`` [main].

    The values are those of the plugin's parameters, in their order.
    """
    if not all(place.contiguous for place in (*net.inputs, net.outputs[0])):
        raise RtganError("the lowered model does not lay its sound out in order")
    arena, channels = activation.arena, activation.channels
    streams = channels if takes == gives == 1 else 1
    size = -(-net.arena_floats // 16) * 16
    arenas = arena.float32(streams, size)
    arenas[:, : net.arena_floats] = net.initial_arena
    addresses = list(activation.params.values()) if len(net.inputs) > 1 else []
    words = arena.int64(_WORDS)
    words[_CHANNELS], words[_STRIDE], words[_BLOCK] = channels, activation.stride_samples, block
    words[_NET], words[_WEIGHTS] = net.address, arena.put(net.weights)
    words[_ARENAS], words[_ARENA_BYTES], words[_ARENA_FLOATS] = address_of(arenas), 4 * size, net.arena_floats
    words[_INITIAL] = arena.put(net.initial_arena)
    words[_INPUT], words[_OUTPUT] = net.inputs[0].offset, net.outputs[0].offset
    if addresses:
        words[_PAST], words[_VALUES] = net.inputs[1].offset, net.inputs[2].offset
        words[_PARAMS] = arena.put(np.array(addresses, np.int64))
        words[_LAST] = address_of(arena.float32(len(addresses)))
    words[_PARAM_COUNT] = len(addresses)
    words[_STREAMS], words[_TAKES], words[_GIVES] = streams, takes, gives
    length = 1 << (4 * block + activation.max_block).bit_length()
    words[_IN], words[_OUT] = address_of(arena.float32(channels, block)), address_of(arena.float32(channels, length))
    words[_MASK], words[_STEP] = length - 1, address_of(arena.float32(channels))
    rest = activation.rest(block) if activation.rest is not None else block
    words[_REST], words[_HEARD] = rest, -rest
    rate = activation.sample_rate_hz
    return NativeNode(
        int(process.address),
        address_of(words),
        int(reset.address),
        latency_samples=rest + max(0, delay_samples),
        tail_samples=tail_samples,
        settle_samples=rate // 4,
        slips=address_of(words[_SLIPPED:]) if rest < block else 0,
        keep=(net,),
    )
