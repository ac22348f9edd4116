"""What strips are mixed with."""

from __future__ import annotations

import math

import numpy as np

from rtgan.kernels.native import f32p, f64p, i64p, larger, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

_CHANNELS, _STRIDE, _RATE, _COUNT, _STRIPS, _ATTACK_MS, _HOLD_MS, _RELEASE_MS = range(8)
# Float words: what the parameters come to.
_DOWN, _UP, _HOLD = 8, 9, 10
_HEADER = 16

# Words of a strip, behind the mixer's own.
_BUFFER, _SECOND, _SPEAKS, _PAN, _DUCK_DB, _PRIORITY, _DUCKED_DB, _LEFT = range(8)
# Float words of a strip: its gain, where that goes while it is ducked, its rank, both sides' gains and their steps.
_GAIN, _FLOOR, _RANK, _SIDE, _SIDE_STEP, _OTHER, _OTHER_STEP = range(8, 15)
_WORDS = 16
_DB = math.log(10.0) / 20.0
#: Parameters are looked at once per this many samples, counted from the stream's start.
_GRID = 32


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    stride = w[_STRIDE]
    stereo = w[_CHANNELS] > 1
    left = f32p(io)
    right = f32p(io + 4 * stride) if stereo else f32p(io)
    for i in range(n):
        if w[_COUNT] % _GRID == 0:
            per_ms = w[_RATE] * 0.001
            f[_DOWN] = 1.0 - math.exp(-1.0 / (param_advance(w[_ATTACK_MS], float(_GRID)) * per_ms))
            f[_UP] = 1.0 - math.exp(-1.0 / (param_advance(w[_RELEASE_MS], float(_GRID)) * per_ms))
            f[_HOLD] = param_advance(w[_HOLD_MS], float(_GRID)) * per_ms
            for k in range(w[_STRIPS]):
                at = state + 8 * (_HEADER + k * _WORDS)
                s = i64p(at)
                own = f64p(at)
                pan = 0.01 * param_advance(s[_PAN], float(_GRID))
                side = smaller(1.0, 1.0 - pan) if stereo else 1.0
                other = smaller(1.0, 1.0 + pan)
                if w[_COUNT] == 0:
                    own[_SIDE] = side
                    own[_OTHER] = other
                own[_SIDE_STEP] = (side - own[_SIDE]) / _GRID
                own[_OTHER_STEP] = (other - own[_OTHER]) / _GRID
                own[_FLOOR] = math.exp(-param_advance(s[_DUCK_DB], float(_GRID)) * _DB)
                own[_RANK] = param_advance(s[_PRIORITY], float(_GRID))
        w[_COUNT] += 1
        top = -1.0
        for k in range(w[_STRIPS]):
            at = state + 8 * (_HEADER + k * _WORDS)
            s = i64p(at)
            if f32p(s[_SPEAKS])[i] > np.float32(0.5):
                s[_LEFT] = np.int64(f[_HOLD]) + 1
            elif s[_LEFT] > 0:
                s[_LEFT] -= 1
            if s[_LEFT] > 0:
                top = larger(top, f64p(at)[_RANK])
        one = np.float32(0.0)
        two = np.float32(0.0)
        for k in range(w[_STRIPS]):
            at = state + 8 * (_HEADER + k * _WORDS)
            s = i64p(at)
            own = f64p(at)
            gain = own[_GAIN]
            if top > own[_RANK]:
                gain += (own[_FLOOR] - gain) * (f[_DOWN] if own[_FLOOR] < gain else f[_UP])
            else:
                gain += (1.0 - gain) * f[_UP]
                if gain > 0.9999:
                    gain = 1.0
            own[_GAIN] = gain
            own[_SIDE] += own[_SIDE_STEP]
            own[_OTHER] += own[_OTHER_STEP]
            one += f32p(s[_BUFFER])[i] * np.float32(gain * own[_SIDE])
            two += f32p(s[_SECOND])[i] * np.float32(gain * own[_OTHER])
        left[i] = one
        if stereo:
            right[i] = two
    for k in range(w[_STRIPS]):
        at = state + 8 * (_HEADER + k * _WORDS)
        f64p(i64p(at)[_DUCKED_DB])[0] = 0.0 - math.log(larger(f64p(at)[_GAIN], 1e-5)) / _DB


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    w[_COUNT] = 0
    for k in range(w[_STRIPS]):
        at = state + 8 * (_HEADER + k * _WORDS)
        i64p(at)[_LEFT] = 0
        f64p(at)[_GAIN] = 1.0
        f64p(i64p(at)[_DUCKED_DB])[0] = 0.0


class Mixer(Plugin):
    """Add up the strips, each at its place, turned down while somebody speaks in a strip of higher priority.

    Bypassed it adds up the inputs as they are, as late as the strips.
    """

    id = "mixer"
    name = "Mixer"
    description = "Add up the strips, and turn down those that make room for a voice."
    params = ParamSet(
        [
            Param("attack_ms", "Attack", 1, 500, 30, unit="ms", scale="log", description="Time to turn down."),
            Param("hold_ms", "Hold", 0, 5000, 500, unit="ms", description="Stays down this long after a word."),
            Param("release_ms", "Release", 10, 5000, 400, unit="ms", scale="log", description="Time to come back."),
        ]
    )  # fmt: skip
    mixes = True
    steady = True

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        strips = activation.strips
        words = activation.arena.int64(_HEADER + _WORDS * len(strips))
        words[_CHANNELS], words[_STRIDE] = activation.channels, activation.stride_samples
        words[_RATE], words[_STRIPS] = activation.sample_rate_hz, len(strips)
        for word, name in ((_ATTACK_MS, "attack_ms"), (_HOLD_MS, "hold_ms"), (_RELEASE_MS, "release_ms")):
            words[word] = activation.params[name]
        for strip, row in zip(strips, words[_HEADER:].reshape(-1, _WORDS), strict=True):
            row[_BUFFER] = strip.buffer
            row[_SECOND] = strip.buffer + 4 * (strip.channels - 1) * activation.stride_samples
            row[_SPEAKS], row[_DUCKED_DB] = strip.lanes["speaks"], strip.readings["ducked_db"]
            for word, name in ((_PAN, "pan"), (_DUCK_DB, "duck_db"), (_PRIORITY, "priority")):
                row[word] = strip.params[name]
            row.view(np.float64)[_GAIN] = 1.0
        settle = round(0.2 * activation.sample_rate_hz)
        return NativeNode(int(_process.address), address_of(words), int(_reset.address), settle_samples=settle)
