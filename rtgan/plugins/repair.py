"""Concealment of lost sound: what a device or a network dropped is gone on with, out of what was there before."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rtgan.errors import RtganError
from rtgan.generators import library
from rtgan.kernels import conceal
from rtgan.kernels.native import call_net, call_node, f32p, f64p, i64p, inline, larger, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

(
    _CHANNELS, _STRIDE, _LANES, _TICK, _HISTORY, _FILL, _NET, _WEIGHTS, _ARENA_FLOATS, _INITIAL, _INPUT, _OUTPUT,
    _LONGEST, _SHORTEST, _BEGIN, _MAKE,
) = range(16)  # fmt: skip
# Float words: longest and shortest gap in samples, samples that were made up so far, for whoever reads it in seconds.
_LONG, _SHORT, _FILLED_S, _SECONDS = range(16, 20)
_WORDS = 24
# Words of a channel.
(
    _SOUND, _MASK, _CONCEALER, _ARENA, _MADE, _MADE_FROM, _MADE_TO, _ZEROS, _AGE, _ENDED, _LOST, _FADED, _FADE,
) = range(13)  # fmt: skip
_ALIKE = 13
_LANE_WORDS = 16
_LANE_BYTES = 8 * _LANE_WORDS

#: Share of the longest gap after which what is made up fades away.
_FADE_FROM = 0.6
#: A history below this power in its last 10 ms, -120 dBFS, has nothing to go on with.
_NOTHING = 1e-12
_NEVER = 1 << 40


@inline
def _square(x: Any) -> Any:
    return np.float64(x) * np.float64(x)


@inline
def _answer(state: Any, lane: Any, row: Any) -> None:
    """Show the net a row."""
    w = i64p(state)
    k = i64p(lane)
    known = f32p(row)
    into = f32p(k[_ARENA] + 4 * w[_INPUT])
    for i in range(conceal.ROW):
        into[i] = known[i]
    call_net(w[_NET], k[_ARENA], w[_WEIGHTS])


@node
def _begin(state: int, lane: int, at: int) -> None:
    """[audio] A gap begins at a sample of the frame that is due."""
    w = i64p(state)
    k = i64p(lane)
    c = k[_CONCEALER]
    history = w[_HISTORY]
    past = f32p(k[_SOUND] + 4 * at)
    into = f32p(i64p(c)[conceal.HISTORY])
    power = 0.0
    for i in range(history):
        into[i] = past[i]
    for i in range(history - 2 * w[_TICK], history):
        power += _square(past[i])
    k[_MADE_FROM] = 0
    k[_MADE_TO] = 0
    k[_AGE] = 0
    k[_FADE] = w[_TICK]
    if power < _NOTHING * 2 * w[_TICK]:
        # Silence goes on, and what ends it begins as it is.
        k[_AGE] = _NEVER
        k[_FADE] = 0
        return
    arena = f32p(k[_ARENA])
    initial = f32p(w[_INITIAL])
    for i in range(w[_ARENA_FLOATS]):
        arena[i] = initial[i]
    conceal.conceal_begin(c)
    for j in range(conceal.PAST + 1):
        _answer(state, lane, i64p(c)[conceal.ROWS] + 4 * j * conceal.ROW)


@node
def _make(state: int, lane: int, end: int) -> None:
    """[audio] Have the samples up to this age made up."""
    w = i64p(state)
    k = i64p(lane)
    c = k[_CONCEALER]
    hop = 2 * w[_TICK]
    made = f32p(k[_MADE])
    while k[_MADE_TO] < end:
        if k[_MADE_TO] - k[_MADE_FROM] == 3 * hop:
            for i in range(2 * hop):
                made[i] = made[i + hop]
            k[_MADE_FROM] += hop
        conceal.conceal_next(c)
        _answer(state, lane, i64p(c)[conceal.ROWS])
        conceal.conceal_shape(c, k[_ARENA] + 4 * w[_OUTPUT])
        out = f32p(i64p(c)[conceal.OUT])
        base = k[_MADE_TO] - k[_MADE_FROM]
        for i in range(hop):
            age = k[_MADE_TO] + i
            late = (age / f64p(state)[_LONG] - _FADE_FROM) / (1.0 - _FADE_FROM)
            late = smaller(larger(late, 0.0), 1.0)
            gain = 1.0 if late == 0.0 else 0.5 + 0.5 * math.cos(math.pi * late)
            made[base + i] = np.float32(np.float64(out[i]) * gain)
        k[_MADE_TO] += hop


@inline
def _made(state: Any, lane: Any, begin: Any, end: Any) -> Any:
    """The address of what is made up for the samples of this age."""
    k = i64p(lane)
    call_node(i64p(state)[_MAKE], state, lane, end)
    return k[_MADE] + 4 * (begin - k[_MADE_FROM])


@inline
def _fill(state: Any, lane: Any, at: Any, n: Any) -> None:
    """Write ``n`` lost samples of the frame that is due."""
    w = i64p(state)
    k = i64p(lane)
    out = f32p(k[_SOUND] + 4 * (w[_HISTORY] + at))
    age = k[_AGE]
    known = 0
    if age < f64p(state)[_LONG]:
        known = n
        made = f32p(_made(state, lane, age, age + n))
        for i in range(n):
            out[i] = made[i]
        f64p(state)[_FILLED_S] += n * f64p(state)[_SECONDS]
    for i in range(known, n):
        out[i] = 0.0
    k[_AGE] = age + n


@inline
def _return(state: Any, lane: Any, at: Any, n: Any) -> None:
    """Sound is back: find out how alike what came and what is made up are."""
    w = i64p(state)
    k = i64p(lane)
    k[_FADED] = 0
    f64p(lane)[_ALIKE] = 0.0
    if k[_AGE] >= f64p(state)[_LONG]:
        # Out of silence, no longer than it takes not to click: it may be a drum.
        k[_FADE] = smaller(k[_FADE], w[_TICK] // 5)
        return
    made = f32p(_made(state, lane, k[_AGE], k[_AGE] + n))
    real = f32p(k[_SOUND] + 4 * (w[_HISTORY] + at))
    both = 0.0
    own = 1e-18
    other = 1e-18
    for i in range(n):
        both += np.float64(made[i]) * np.float64(real[i])
        own += _square(made[i])
        other += _square(real[i])
    f64p(lane)[_ALIKE] = smaller(larger(both / math.sqrt(own * other), 0.0), 1.0)


@inline
def _join(state: Any, lane: Any, at: Any, n: Any) -> None:
    """Fade from what is made up to what came back, with gains that keep the power whatever they have in common."""
    w = i64p(state)
    k = i64p(lane)
    length = k[_FADE]
    own = 1.0 - f64p(lane)[_ALIKE] * f64p(lane)[_ALIKE]
    audible = k[_AGE] < f64p(state)[_LONG]
    made = f32p(_made(state, lane, k[_AGE], k[_AGE] + n) if audible else k[_MADE])
    real = f32p(k[_SOUND] + 4 * (w[_HISTORY] + at))
    for i in range(n):
        rise = math.sin(0.5 * math.pi * (k[_FADED] + i + 0.5) / length)
        value = rise * np.float64(real[i])
        if audible:
            fall = math.sqrt(larger(1.0 - rise * rise * own, 0.0)) - f64p(lane)[_ALIKE] * rise
            value += fall * np.float64(made[i])
        real[i] = np.float32(value)
    k[_FADED] += n


@inline
def _due(state: Any, lane: Any) -> None:
    """Repair the frame that is due."""
    w = i64p(state)
    k = i64p(lane)
    tick = w[_TICK]
    mask = f32p(k[_MASK])
    at = 0
    while at < tick:
        lost = mask[at] != 0.0
        end = at + 1
        while end < tick and (mask[end] != 0.0) == lost:
            end += 1
        n = end - at
        if lost:
            if k[_LOST] == 0 and k[_ENDED] >= 2 * tick:
                call_node(w[_BEGIN], state, lane, at)
            k[_LOST] = 1
            k[_ENDED] = 0
            _fill(state, lane, at, n)
        else:
            if k[_LOST] != 0:
                k[_LOST] = 0
                good = 0
                while good < tick and mask[at + good] == 0.0:
                    good += 1
                _return(state, lane, at, good)
            if k[_FADED] < k[_FADE]:
                _join(state, lane, at, smaller(n, k[_FADE] - k[_FADED]))
            # What was made up goes on for as long as it may be needed again.
            k[_ENDED] = smaller(k[_ENDED] + n, _NEVER)
            k[_AGE] = smaller(k[_AGE] + n, _NEVER)
        at = end


@inline
def _take(state: Any, lane: Any) -> None:
    """Find what is lost in the newest half of what waits: runs of exact zeros, and what is not a number."""
    w = i64p(state)
    k = i64p(lane)
    tick = w[_TICK]
    shortest = np.int64(f64p(state)[_SHORT] + 0.5)
    x = f32p(k[_SOUND] + 4 * w[_HISTORY])
    mask = f32p(k[_MASK])
    for i in range(tick, 2 * tick):
        mask[i] = 0.0
        if not abs(x[i]) < 1e6:
            x[i] = 0.0
            mask[i] = 1.0
        if x[i] == 0.0:
            k[_ZEROS] += 1
            if k[_ZEROS] == shortest:
                for j in range(i - shortest + 1, i):
                    mask[j] = 1.0
            if k[_ZEROS] >= shortest:
                mask[i] = 1.0
        else:
            k[_ZEROS] = 0


@inline
def _tick(state: Any) -> None:
    """Half a hop is complete: repair what is due, and move everything on."""
    w = i64p(state)
    f = f64p(state)
    tick = w[_TICK]
    f[_LONG] = param_advance(w[_LONGEST], float(tick)) * 0.001 / f[_SECONDS]
    f[_SHORT] = smaller(larger(param_advance(w[_SHORTEST], float(tick)) * 0.001 / f[_SECONDS], 2.0), float(tick))
    for c in range(w[_CHANNELS]):
        lane = w[_LANES] + c * _LANE_BYTES
        _take(state, lane)
        _due(state, lane)
        x = f32p(i64p(lane)[_SOUND])
        for i in range(w[_HISTORY] + tick):
            x[i] = x[i + tick]
        mask = f32p(i64p(lane)[_MASK])
        for i in range(tick):
            mask[i] = mask[i + tick]
    w[_FILL] = 0


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    start = 0
    while start < n:
        count = smaller(n - start, w[_TICK] - w[_FILL])
        for c in range(w[_CHANNELS]):
            samples = f32p(io + 4 * (c * w[_STRIDE] + start))
            sound = i64p(w[_LANES] + c * _LANE_BYTES)[_SOUND]
            newest = f32p(sound + 4 * (w[_HISTORY] + w[_TICK] + w[_FILL]))
            due = f32p(sound + 4 * (w[_HISTORY] - w[_TICK] + w[_FILL]))
            for i in range(count):
                newest[i] = samples[i]
                samples[i] = due[i]
        w[_FILL] += count
        start += count
        if w[_FILL] == w[_TICK]:
            _tick(state)


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    w[_FILL] = 0
    f64p(state)[_FILLED_S] = 0.0
    for c in range(w[_CHANNELS]):
        lane = w[_LANES] + c * _LANE_BYTES
        k = i64p(lane)
        sound = f32p(k[_SOUND])
        for i in range(w[_HISTORY] + 2 * w[_TICK]):
            sound[i] = 0.0
        mask = f32p(k[_MASK])
        for i in range(2 * w[_TICK]):
            mask[i] = 0.0
        k[_MADE_FROM] = 0
        k[_MADE_TO] = 0
        k[_ZEROS] = 0
        k[_AGE] = _NEVER
        k[_ENDED] = _NEVER
        k[_LOST] = 0
        k[_FADED] = 0
        k[_FADE] = 0
        f64p(lane)[_ALIKE] = 0.0


class Repair(Plugin):
    """Fill what was lost: runs of exact zeros, and what is not a number.

    Sound passes as it is, one frame late. A gap is gone on with by a kernel that repeats what was before it and a net
    that says how that changes; what comes back fades in. Each channel is looked after by itself.

    Parameters
    ----------
    model : str
        Name of a shipped model or path of a TorchScript file with a card whose task is "repair".
    """

    id = "repair"
    name = "Repair"
    description = "Fill dropouts of a device or a network with how the sound would have gone on."
    options = frozenset({"model"})
    params = ParamSet(
        [
            Param("longest_ms", "Longest gap", 20, 200, 200, unit="ms", smoothing_ms=0,
                  description="After this time a gap is silent; what fills it fades away over the last two fifths."),
            Param("shortest_ms", "Shortest gap", 0.2, 5, 1, unit="ms", scale="log", smoothing_ms=0,
                  description="So long a run of exact zeros counts as lost."),
        ]
    )  # fmt: skip

    def __init__(self, model: str = "repair") -> None:
        self.model = library.load(model)
        card = self.model.card
        if card.task != "repair" or (card.inputs, card.outputs) != (conceal.ROW, conceal.ANSWER):
            raise RtganError(f"the model {model} is for '{card.task}' and cannot repair")
        self.notice = "" if model in library.names() else f"model {self.model.path}, sha256 {card.sha256}"

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        net, arena, channels = self.model.net, activation.arena, activation.channels
        if not (net.inputs[0].contiguous and net.outputs[0].contiguous):
            raise RtganError(f"the model {self.model.path} does not lay its rows out in order")
        words, lanes = arena.int64(_WORDS), arena.int64(channels * _LANE_WORDS)
        hop = conceal.hop_of(activation.sample_rate_hz)
        tick = hop // 2
        concealers = []
        for lane in lanes.reshape(channels, _LANE_WORDS):
            concealer = conceal.build(activation.sample_rate_hz, allocate=arena.int64)
            concealers.append(concealer)
            history = int(concealer.words[conceal.HISTORY_SAMPLES])
            lane[_CONCEALER] = address_of(concealer.words)
            lane[_SOUND] = address_of(arena.float32(history + 2 * tick))
            lane[_MASK] = address_of(arena.float32(2 * tick))
            lane[_MADE] = address_of(arena.float32(3 * hop))
            lane[_ARENA] = address_of(arena.float32(-(-net.arena_floats // 16) * 16))
        words[_CHANNELS], words[_STRIDE], words[_LANES] = channels, activation.stride_samples, address_of(lanes)
        words[_TICK], words[_HISTORY] = tick, history
        words[_NET], words[_WEIGHTS] = net.address, arena.put(net.weights)
        words[_ARENA_FLOATS], words[_INITIAL] = net.arena_floats, arena.put(net.initial_arena)
        words[_INPUT], words[_OUTPUT] = net.inputs[0].offset, net.outputs[0].offset
        # By address: inlined wherever they are needed they take half a minute to compile.
        words[_BEGIN], words[_MAKE] = int(_begin.address), int(_make.address)
        words[_LONGEST], words[_SHORTEST] = activation.params["longest_ms"], activation.params["shortest_ms"]
        words.view(np.float64)[_SECONDS] = 1 / activation.sample_rate_hz
        _reset.ctypes(address_of(words), 0, 0)
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            latency_samples=hop,
            tail_samples=round(0.2 * activation.sample_rate_hz),
            settle_samples=history,
            readings={"filled_s": address_of(words) + 8 * _FILLED_S},
            keep=(net, concealers),
        )
