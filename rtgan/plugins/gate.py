"""Noise gate."""

from __future__ import annotations

import math

import numpy as np

from rtgan.kernels import delay, dynamics
from rtgan.kernels.native import f32p, f64p, i64p, larger, node
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

(
    _CHANNELS, _STRIDE, _RATE, _COUNT, _HOLD_LEFT,
    _THRESHOLD_DB, _RANGE_DB, _ATTACK_MS, _HOLD_MS, _RELEASE_MS, _VOICE, _LANE, _DELAY, _GAINS,
) = range(14)  # fmt: skip
# Float words: what the parameters come to, then the gate's own state.
_OPEN, _CLOSE, _FLOOR, _UP, _DOWN, _HOLD, _DECAY, _ENVELOPE, _GAIN, _SURE, _UNSURE, _REDUCTION = range(16, 28)
_DB = math.log(10.0) / 20.0
_HYSTERESIS_DB = 4.0
_DETECTOR_MS = 10.0
_OFF_DB = -90.0
#: The chance of voice at which it may close, as a part of the one at which it opens.
_VOICE_HYSTERESIS = 0.6

#: Parameters are looked at once per this many samples, counted from the stream's start.
_GRID = 32


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    channels = w[_CHANNELS]
    stride = w[_STRIDE]
    lane = f32p(w[_LANE])
    gains = f32p(w[_GAINS])
    preroll = i64p(w[_DELAY])[delay.SAMPLES]
    for i in range(n):
        if w[_COUNT] % _GRID == 0:
            threshold = param_advance(w[_THRESHOLD_DB], float(_GRID))
            f[_OPEN] = math.exp(threshold * _DB)
            f[_CLOSE] = math.exp((threshold - _HYSTERESIS_DB) * _DB)
            if threshold <= _OFF_DB:
                f[_OPEN] = 0.0
                f[_CLOSE] = 0.0
            f[_FLOOR] = math.exp(param_advance(w[_RANGE_DB], float(_GRID)) * _DB)
            per_ms = w[_RATE] * 0.001
            f[_UP] = 1.0 - math.exp(-1.0 / (param_advance(w[_ATTACK_MS], float(_GRID)) * per_ms))
            f[_DOWN] = 1.0 - math.exp(-1.0 / (param_advance(w[_RELEASE_MS], float(_GRID)) * per_ms))
            f[_HOLD] = param_advance(w[_HOLD_MS], float(_GRID)) * per_ms + preroll
            f[_DECAY] = math.exp(-1.0 / (_DETECTOR_MS * per_ms))
            f[_SURE] = 0.01 * param_advance(w[_VOICE], float(_GRID))
            f[_UNSURE] = f[_SURE] * _VOICE_HYSTERESIS
        w[_COUNT] += 1
        peak = 0.0
        for c in range(channels):
            peak = larger(peak, abs(float(f32p(io + 4 * c * stride)[i])))
        envelope = larger(peak, f[_ENVELOPE] * f[_DECAY])
        f[_ENVELOPE] = envelope
        # Where nothing is known of voice, below 0, level alone decides.
        chance = 1.0
        if f[_SURE] > 0.0 and w[_LANE] != 0 and lane[i] > np.float32(-0.5):
            chance = np.float64(lane[i])
        if envelope >= f[_OPEN] and chance >= f[_SURE]:
            w[_HOLD_LEFT] = np.int64(f[_HOLD]) + 1
        elif (envelope < f[_CLOSE] or chance < f[_UNSURE]) and w[_HOLD_LEFT] > 0:
            w[_HOLD_LEFT] -= 1
        gain = f[_GAIN]
        if w[_HOLD_LEFT] > 0:
            gain += (1.0 - gain) * f[_UP]
            if gain > 0.9999:
                gain = 1.0
        else:
            gain += (f[_FLOOR] - gain) * f[_DOWN]
        f[_GAIN] = gain
        gains[i] = np.float32(gain)
    f[_REDUCTION] = -math.log(larger(f[_GAIN], 1e-5)) / _DB
    # What is heard lies behind what was listened to by the pre-roll, and so does the hold.
    delay.delay(w[_DELAY], io, stride, n)
    dynamics.apply(w[_GAINS], io, channels, stride, n)


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    w[_COUNT] = 0
    w[_HOLD_LEFT] = 0
    f[_ENVELOPE] = 0.0
    f[_GAIN] = 0.0
    f[_REDUCTION] = 0.0
    delay.delay_reset(w[_DELAY])


class Gate(Plugin):
    """Close the channel while nobody speaks.

    It goes by level, and by the chance of voice where a denoiser in front tells it (the lane ``voice``).

    Parameters
    ----------
    preroll_ms : float or str
        How much earlier than the sound it opens, so that no syllable loses its beginning; this is the latency.
    """

    id = "gate"
    name = "Gate"
    description = "Close the channel while nobody speaks; channels open and close together."
    params = ParamSet(
        [
            Param(
                "threshold_db", "Threshold", -90, 0, -50, unit="dBFS",
                description="Peak level that opens the gate; -90 leaves it open.",
            ),
            Param("range_db", "Range", -90, 0, -30, unit="dB", description="Level while closed."),
            Param("attack_ms", "Attack", 0.1, 50, 1, unit="ms", scale="log", description="Time to open."),
            Param("hold_ms", "Hold", 0, 2000, 150, unit="ms", description="Stays open this long after a word."),
            Param("release_ms", "Release", 5, 2000, 120, unit="ms", scale="log", description="Time to close."),
            Param(
                "voice", "Voice", 0, 95, 0, unit="%",
                description="Chance of voice that it takes to open, behind a denoiser; 0 goes by level alone.",
            ),
        ]
    )  # fmt: skip
    settings = ParamSet(
        [
            Param("preroll_ms", "Pre-roll", 0, 500, 0, unit="ms",
                  description="How much earlier than the sound it opens, which is its latency."),
        ]
    )  # fmt: skip

    def __init__(self, preroll_ms: float | str = 0) -> None:
        self.preroll_ms = self.settings["preroll_ms"].check(preroll_ms, "preroll_ms")

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        words = activation.arena.int64(32)
        words[_CHANNELS] = activation.channels
        words[_STRIDE] = activation.stride_samples
        words[_RATE] = activation.sample_rate_hz
        for word, name in (
            (_THRESHOLD_DB, "threshold_db"), (_RANGE_DB, "range_db"), (_ATTACK_MS, "attack_ms"),
            (_HOLD_MS, "hold_ms"), (_RELEASE_MS, "release_ms"), (_VOICE, "voice"),
        ):  # fmt: skip
            words[word] = activation.params[name]
        latency = round(self.preroll_ms * activation.sample_rate_hz / 1000)
        words[_LANE] = activation.lanes.get("voice", 0)
        words[_DELAY] = address_of(delay.build(latency, activation.channels, allocate=activation.arena.int64))
        words[_GAINS] = address_of(activation.arena.float32(activation.max_block))
        settle = round(0.2 * activation.sample_rate_hz)
        return NativeNode(
            int(_process.address), address_of(words), int(_reset.address), latency_samples=latency,
            settle_samples=settle, readings={"gain_reduction_db": address_of(words) + 8 * _REDUCTION},
        )  # fmt: skip
