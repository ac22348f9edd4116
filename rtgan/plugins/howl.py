"""Guard against acoustic feedback."""

from __future__ import annotations

import math

import numpy as np

from rtgan.kernels import fft, filters, howl
from rtgan.kernels.native import f32p, f64p, i64p, inline, larger, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

(
    _CHANNELS, _STRIDE, _RATE, _COUNT, _PLAN, _SIZE, _HOP, _PLACE, _WINDOW, _HISTORY, _RE, _IM, _SCRATCH,
    _COEFFICIENTS, _MEMORY, _FIRST, _STEADY, _RANGE_DB, _RELEASE_S, _LEAST_DB,
) = range(20)  # fmt: skip
# Float words: where the last frame's peak lay, in bins; how many notches work; then the notches.
_LAST, _WORKING, _NOTCHES = 20, 21, 24
# Words of a notch: frequency (0: free), the depth it goes to, the depth it is at, both in dB.
_HZ, _WANTED_DB, _DEPTH_DB, _NOTCH_WORDS = 0, 1, 2, 4
_MOST = 8
_DB = math.log(10.0) / 20.0

_FRAME_S = 4096 / 48000
_LOWEST_HZ = 100.0
#: Frames in which a peak may not move before it counts as a howl, a third of a second; and how far it may, in bins.
_PERSIST, _DRIFT = 12, 0.3
#: Each time that it is found a notch gets so much deeper; this wide, and new ones no closer to it than that.
_STEP_DB, _QUALITY = 6.0, 20.0

#: The notches' depths move once per this many samples, counted from the stream's start.
_GRID = 32
#: How quickly they come down, in dB per second.
_SPEED_DB_PER_S = 300.0


@inline
def _notch(state: int, hz: float, most_db: float) -> None:
    """Deepen the notch at a frequency, or set one: a free one, or that of the least depth."""
    w = i64p(state)
    chosen = 0
    shallowest = 1e9
    for k in range(_MOST):
        notch = f64p(state + 8 * (_NOTCHES + _NOTCH_WORDS * k))
        if notch[_HZ] > 0.0 and abs(notch[_HZ] - hz) < hz / _QUALITY:
            notch[_WANTED_DB] = smaller(notch[_WANTED_DB] + _STEP_DB, most_db)
            return
        depth = notch[_WANTED_DB] if notch[_HZ] > 0.0 else -1.0
        if depth < shallowest:
            shallowest = depth
            chosen = k
    notch = f64p(state + 8 * (_NOTCHES + _NOTCH_WORDS * chosen))
    notch[_HZ] = hz
    notch[_WANTED_DB] = smaller(2.0 * _STEP_DB, most_db)
    at = w[_COEFFICIENTS] + 8 * filters.COEFFICIENTS * chosen
    filters.design(filters.BAND, at, hz, w[_RATE], _QUALITY, 0.0)


@inline
def _look(state: int, most_db: float, least: float) -> None:
    """At the end of a hop: a peak where there was one before, time and again, is a howl."""
    w = i64p(state)
    f = f64p(state)
    # The history is written twice, a frame apart, so that every frame lies in one piece.
    fft.forward(w[_PLAN], w[_HISTORY] + 4 * w[_PLACE], w[_WINDOW], w[_RE], w[_IM], w[_SCRATCH])
    place = howl.find(w[_RE], w[_IM], w[_SIZE] // 2 + 1, w[_FIRST], least)
    if place < 0.0 or abs(place - f[_LAST]) > _DRIFT:
        w[_STEADY] = 0
    f[_LAST] = place
    if place < 0.0:
        return
    w[_STEADY] += 1
    if w[_STEADY] >= _PERSIST:
        _notch(state, place * w[_RATE] / w[_SIZE], most_db)
        # While it stays it is found again, after half the time.
        w[_STEADY] = _PERSIST // 2


@inline
def _take_in(state: int, io: int, n: int) -> None:
    """Write the mean of the channels to the history."""
    w = i64p(state)
    size = w[_SIZE]
    history = f32p(w[_HISTORY])
    share = np.float32(1.0 / w[_CHANNELS])
    for i in range(n):
        value = np.float32(0.0)
        for c in range(w[_CHANNELS]):
            value += f32p(io + 4 * c * w[_STRIDE])[i]
        history[w[_PLACE]] = value * share
        history[w[_PLACE] + size] = value * share
        w[_PLACE] = 0 if w[_PLACE] + 1 == size else w[_PLACE] + 1


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    seconds = _GRID / w[_RATE]
    start = 0
    while start < n:
        phase = w[_COUNT] % _GRID
        if phase == 0:
            most = param_advance(w[_RANGE_DB], float(_GRID))
            release = param_advance(w[_RELEASE_S], float(_GRID))
            # The largest bin of a sine of amplitude 1 under a Hann window is a quarter of the frame's length.
            least = math.exp(param_advance(w[_LEAST_DB], float(_GRID)) * _DB) * 0.25 * w[_SIZE]
            if w[_COUNT] % w[_HOP] == 0:
                _look(state, most, least * least)
            working = 0.0
            for k in range(_MOST):
                notch = f64p(state + 8 * (_NOTCHES + _NOTCH_WORDS * k))
                if notch[_HZ] > 0.0:
                    notch[_WANTED_DB] = smaller(notch[_WANTED_DB] - most / release * seconds, most)
                    down = notch[_DEPTH_DB] + _SPEED_DB_PER_S * seconds
                    up = notch[_DEPTH_DB] - _SPEED_DB_PER_S * seconds
                    notch[_DEPTH_DB] = larger(smaller(notch[_WANTED_DB], down), larger(up, 0.0))
                    if notch[_WANTED_DB] <= 0.0 and notch[_DEPTH_DB] <= 0.0:
                        notch[_HZ] = 0.0
                        for c in range(w[_CHANNELS]):
                            memory = f64p(w[_MEMORY] + 8 * filters.STATE * (c * _MOST + k))
                            memory[0] = 0.0
                            memory[1] = 0.0
                    else:
                        working += 1.0
            f[_WORKING] = working
        count = smaller(n - start, _GRID - phase)
        here = io + 4 * start
        _take_in(state, here, count)
        for k in range(_MOST):
            notch = f64p(state + 8 * (_NOTCHES + _NOTCH_WORDS * k))
            if notch[_HZ] > 0.0:
                depth = 1.0 - math.exp(-notch[_DEPTH_DB] * _DB)
                for c in range(w[_CHANNELS]):
                    memory = w[_MEMORY] + 8 * filters.STATE * (c * _MOST + k)
                    at = w[_COEFFICIENTS] + 8 * filters.COEFFICIENTS * k
                    filters.take_away(at, memory, here + 4 * c * w[_STRIDE], count, depth)
        w[_COUNT] += count
        start += count


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    w[_COUNT] = 0
    w[_PLACE] = 0
    w[_STEADY] = 0
    f[_LAST] = 0.0
    f[_WORKING] = 0.0
    for i in range(_NOTCH_WORDS * _MOST):
        f64p(state + 8 * _NOTCHES)[i] = 0.0
    for i in range(filters.STATE * _MOST * w[_CHANNELS]):
        f64p(w[_MEMORY])[i] = 0.0
    for i in range(2 * w[_SIZE]):
        f32p(w[_HISTORY])[i] = 0.0


class Howl(Plugin):
    """Stop acoustic feedback: find a howl and notch it out; let the notch go when the howl has gone.

    Detection after van Waterschoot and Moonen, JAES 58 (2010), see `rtgan.kernels.howl`: a lone peak without
    harmonics that stands still for a third of a second. A whistle or a test tone does that too.
    """

    id = "howl"
    name = "Howl guard"
    description = "Stop acoustic feedback with narrow notches that come and go by themselves."
    params = ParamSet(
        [
            Param("range_db", "Range", 0, 48, 24, unit="dB", description="Most that a notch takes away."),
            Param("release_s", "Release", 2, 600, 60, unit="s", scale="log",
                  description="Time in which a notch of that depth is let go."),
            Param("threshold_db", "Threshold", -80, -10, -50, unit="dBFS",
                  description="Level of a howl from which on something is done."),
        ]
    )  # fmt: skip

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        arena, rate = activation.arena, activation.sample_rate_hz
        size = 1 << max(6, round(math.log2(_FRAME_S * rate)))
        words = arena.int64(_NOTCHES + _NOTCH_WORDS * _MOST)
        plan = fft.plan(size, arena.int64)
        words[_CHANNELS], words[_STRIDE], words[_RATE] = activation.channels, activation.stride_samples, rate
        words[_PLAN], words[_SIZE], words[_HOP] = address_of(plan), size, size // 4
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        words[_WINDOW] = arena.put(window.astype(np.float32))
        words[_HISTORY] = address_of(arena.float32(2 * size))
        words[_RE], words[_IM] = (address_of(arena.float32(size // 2 + 32)) for _ in range(2))
        words[_SCRATCH] = address_of(arena.float32(fft.scratch_floats(size)))
        words[_COEFFICIENTS] = address_of(arena.float64(filters.COEFFICIENTS * _MOST))
        words[_MEMORY] = address_of(arena.float64(filters.STATE * _MOST * activation.channels))
        words[_FIRST] = math.ceil(_LOWEST_HZ * size / rate)
        for word, name in ((_RANGE_DB, "range_db"), (_RELEASE_S, "release_s"), (_LEAST_DB, "threshold_db")):
            words[word] = activation.params[name]
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            tail_samples=round(0.5 * rate),
            settle_samples=rate,
            readings={"notches": address_of(words) + 8 * _WORKING},
            keep=(plan,),
        )
