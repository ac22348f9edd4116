"""Loudness leveller."""

from __future__ import annotations

import math

import numpy as np

from rtgan.kernels import loudness
from rtgan.kernels.native import f32p, f64p, i64p, inline, larger, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

(
    _CHANNELS, _STRIDE, _BEFORE, _BEHIND, _HEARD, _TARGET, _BOOST_DB, _CUT_DB, _SPEED, _GATE,
) = range(10)  # fmt: skip
# Float words: the gain in decibels at the segment's end, the gain at hand and its step per sample; powers heard.
_GAIN_DB, _GAIN, _STEP, _POWERS = 10, 11, 12, 16
_DB = math.log(10.0) / 20.0
#: Blocks of 400 ms, one every 100 ms, that decide: three seconds of speech, however long its pauses.
_BLOCKS = 30
_RELATIVE_LU = 10.0
_SEGMENT_S = 0.01


@inline
def _level(state: int) -> float:
    """Loudness of what was heard last, pauses between words left out by the standard's relative gate."""
    w = i64p(state)
    powers = f64p(state + 8 * _POWERS)
    count = smaller(w[_HEARD], _BLOCKS)
    total = 0.0
    for k in range(count):
        total += powers[k]
    gate = 0.1 * total / count
    total = 0.0
    passed = 0.0
    for k in range(count):
        if powers[k] > gate:
            total += powers[k]
            passed += 1.0
    return loudness.lufs(total / passed)


@inline
def _decide(state: int) -> None:
    """At the end of a segment: where the gain goes during the next one."""
    w = i64p(state)
    f = f64p(state)
    meter = f64p(w[_BEFORE])
    samples = np.float64(i64p(w[_BEFORE])[loudness.SEGMENT])
    target = param_advance(w[_TARGET], samples)
    boost = param_advance(w[_BOOST_DB], samples)
    cut = param_advance(w[_CUT_DB], samples)
    most = param_advance(w[_SPEED], samples) * _SEGMENT_S
    heard = meter[loudness.MOMENTARY] > param_advance(w[_GATE], samples)
    segments = i64p(w[_BEFORE])[loudness.COUNT]
    if heard and segments >= loudness.MOMENTARY_SEGMENTS and segments % loudness.STEP_SEGMENTS == 0:
        f64p(state + 8 * _POWERS)[w[_HEARD] % _BLOCKS] = meter[loudness.POWER]
        w[_HEARD] += 1
    gain = f[_GAIN_DB]
    wanted = gain
    if heard and w[_HEARD] > 0:
        wanted = target - _level(state)
    wanted = larger(smaller(wanted, boost), -cut)
    gain += larger(smaller(wanted - gain, most), -most)
    f[_GAIN] = math.exp(f[_GAIN_DB] * _DB)
    f[_GAIN_DB] = gain
    f[_STEP] = (math.exp(gain * _DB) - f[_GAIN]) / samples


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    before = i64p(w[_BEFORE])
    start = 0
    while start < n:
        count = smaller(n - start, before[loudness.SEGMENT] - before[loudness.FILL])
        here = io + 4 * start
        loudness.measure(w[_BEFORE], here, w[_STRIDE], count)
        gain = f[_GAIN]
        step = f[_STEP]
        for c in range(w[_CHANNELS]):
            x = f32p(here + 4 * c * w[_STRIDE])
            gain = f[_GAIN]
            for i in range(count):
                gain += step
                x[i] *= np.float32(gain)
        f[_GAIN] = gain
        loudness.measure(w[_BEHIND], here, w[_STRIDE], count)
        if before[loudness.FILL] == 0:
            _decide(state)
        start += count


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    loudness.reset(w[_BEFORE])
    loudness.reset(w[_BEHIND])
    w[_HEARD] = 0
    f[_GAIN_DB] = 0.0
    f[_GAIN] = 1.0
    f[_STEP] = 0.0


class Leveller(Plugin):
    """Bring speech to a loudness, slowly and within bounds; pauses are never pulled up.

    Loudness after ITU-R BS.1770-4: the last three seconds of what is louder than the gate, as EBU R 128 gates
    programmes. The readings are those of what goes out, integrated since the start.
    """

    id = "leveller"
    name = "Leveller"
    description = "Bring speech to a loudness, slowly and within bounds, and leave pauses as they are."
    params = ParamSet(
        [
            Param("target_lufs", "Target", -40, -8, -16, unit="LUFS", description="Loudness to come to."),
            Param("boost_db", "Most boost", 0, 30, 12, unit="dB", description="Most that soft speech is raised."),
            Param("cut_db", "Most cut", 0, 30, 12, unit="dB", description="Most that loud speech is lowered."),
            Param("speed_db_per_s", "Speed", 0.1, 12, 1.5, unit="dB/s", scale="log",
                  description="Most that the gain moves in a second."),
            Param("gate_lufs", "Gate", -70, -20, -45, unit="LUFS",
                  description="What is softer is a pause, in which the gain stands still."),
        ]
    )  # fmt: skip

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        arena = activation.arena
        words = arena.int64(_POWERS + _BLOCKS)
        words[_CHANNELS], words[_STRIDE] = activation.channels, activation.stride_samples
        before, behind = (
            address_of(loudness.build(activation.sample_rate_hz, activation.channels, allocate=arena.int64))
            for _ in range(2)
        )
        words[_BEFORE], words[_BEHIND] = before, behind
        for word, name in (
            (_TARGET, "target_lufs"), (_BOOST_DB, "boost_db"), (_CUT_DB, "cut_db"), (_SPEED, "speed_db_per_s"),
            (_GATE, "gate_lufs"),
        ):  # fmt: skip
            words[word] = activation.params[name]
        words.view(np.float64)[_GAIN] = 1.0
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            settle_samples=activation.sample_rate_hz,
            readings={
                "gain_db": address_of(words) + 8 * _GAIN_DB,
                "momentary_lufs": behind + 8 * loudness.MOMENTARY,
                "short_term_lufs": behind + 8 * loudness.SHORT_TERM,
                "integrated_lufs": behind + 8 * loudness.INTEGRATED,
            },
        )
