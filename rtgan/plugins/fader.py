"""The end of a strip: its level, and who speaks there."""

from __future__ import annotations

import math

import numpy as np

from rtgan.kernels import delay
from rtgan.kernels.native import f32p, f64p, i64p, larger, node
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_next, param_settled
from rtgan.plugin import Activation, NativeNode, Plugin

(
    _CHANNELS, _STRIDE, _LEVEL_DB, _MUTE, _KEY_DB, _LANE, _DELAY, _LANE_DELAY, _VOICE, _SPEAKS,
) = range(10)  # fmt: skip
# Float words: what the parameters come to, then levels heard, then readings; the last is the mixer's to write.
_GAIN, _KEY, _DECAY, _FALL, _ENVELOPE, _METER, _PEAK_DB, _SPEAKING, _DUCKED_DB = range(16, 25)
_DB = math.log(10.0) / 20.0
_SILENT_DB, _OFF_DB = -60.0, -90.0
_DETECTOR_MS, _METER_MS = 10.0, 300.0
#: The chance of voice from which on somebody speaks.
_CHANCE = 0.5


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    channels = w[_CHANNELS]
    stride = w[_STRIDE]
    # What the parameters come to is this graph's, whoever it goes on for.
    f[_GAIN] = -1.0
    f[_KEY] = -1.0
    delay.delay(w[_DELAY], io, stride, n)
    voice = f32p(w[_VOICE])
    speaks = f32p(w[_SPEAKS])
    if w[_LANE] != 0:
        lane = f32p(w[_LANE])
        for i in range(n):
            voice[i] = lane[i]
        delay.delay(w[_LANE_DELAY], w[_VOICE], n, n)
    for i in range(n):
        if not (param_settled(w[_LEVEL_DB]) and param_settled(w[_MUTE])) or f[_GAIN] < 0.0:
            db = param_next(w[_LEVEL_DB])
            f[_GAIN] = (math.exp(db * _DB) if db > _SILENT_DB else 0.0) * (1.0 - param_next(w[_MUTE]))
        if not param_settled(w[_KEY_DB]) or f[_KEY] < 0.0:
            key = param_next(w[_KEY_DB])
            f[_KEY] = math.exp(key * _DB) if key > _OFF_DB else 0.0
        gain = np.float32(f[_GAIN])
        peak = 0.0
        for c in range(channels):
            x = f32p(io + 4 * c * stride)
            x[i] *= gain
            peak = larger(peak, abs(np.float64(x[i])))
        f[_ENVELOPE] = larger(peak, f[_ENVELOPE] * f[_DECAY])
        f[_METER] = larger(peak, f[_METER] * f[_FALL])
        # Where nothing is known of voice, below 0, level alone decides.
        heard = w[_LANE] == 0 or voice[i] < np.float32(-0.5) or voice[i] >= np.float32(_CHANCE)
        loud = f[_ENVELOPE] >= f[_KEY] and f[_GAIN] > 0.0
        speaks[i] = np.float32(1.0) if heard and loud else np.float32(0.0)
    f[_PEAK_DB] = math.log(larger(f[_METER], 1e-6)) / _DB
    f[_SPEAKING] = np.float64(speaks[n - 1])


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    delay.delay_reset(w[_DELAY])
    delay.delay_reset(w[_LANE_DELAY])
    f[_ENVELOPE] = 0.0
    f[_METER] = 0.0
    f[_SPEAKING] = 0.0


class Fader(Plugin):
    """Bring a strip to its level, as late as the slowest strip, and tell the mixer whether somebody speaks.

    Its lane ``speaks`` is 1 while the sound behind it is louder than ``key_db`` and, behind a denoiser, a voice.

    Parameters
    ----------
    input : str
        The input that the strip takes its sound from, counted from 1, or two with a comma between them.
    """

    id = "fader"
    name = "Fader"
    description = "Bring a strip to its level, and turn it down while somebody speaks in a strip of higher priority."
    params = ParamSet(
        [
            Param("level_db", "Level", -60, 12, 0, unit="dB", description="Level in the mix; the lowest is silence."),
            Param("mute", "Mute", 0, 1, 0, smoothing_ms=10, scale="switch", description="Silence."),
            Param("pan", "Pan", -100, 100, 0, unit="%", description="Place from left to right."),
            Param("duck_db", "Duck", 0, 60, 0, unit="dB",
                  description="How far it goes down while somebody speaks in a strip of higher priority."),
            Param("priority", "Priority", 0, 9, 5, smoothing_ms=0,
                  description="Who speaks here ducks the strips of lower priority."),
            Param("key_db", "Key", -90, 0, -45, unit="dBFS",
                  description="Peak level from which on somebody speaks here."),
        ]
    )  # fmt: skip
    options = frozenset({"input"})
    required = ("input",)
    steady = True

    def __init__(self, input: str) -> None:
        self.inputs = tuple(int(channel) - 1 for channel in input.split(","))

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        arena, rate = activation.arena, activation.sample_rate_hz
        words = arena.int64(32)
        floats = words.view(np.float64)
        words[_CHANNELS], words[_STRIDE] = activation.channels, activation.stride_samples
        for word, name in ((_LEVEL_DB, "level_db"), (_MUTE, "mute"), (_KEY_DB, "key_db")):
            words[word] = activation.params[name]
        late = activation.align_samples
        words[_LANE] = activation.lanes.get("voice", 0)
        words[_DELAY] = address_of(delay.build(late, activation.channels, allocate=arena.int64))
        words[_LANE_DELAY] = address_of(delay.build(late, 1, allocate=arena.int64))
        words[_VOICE], words[_SPEAKS] = (address_of(arena.float32(activation.max_block)) for _ in range(2))
        floats[_DECAY], floats[_FALL] = (math.exp(-1000.0 / (ms * rate)) for ms in (_DETECTOR_MS, _METER_MS))
        floats[_PEAK_DB] = -120.0
        readings = {"peak_db": _PEAK_DB, "speaking": _SPEAKING, "ducked_db": _DUCKED_DB}
        return NativeNode(
            int(_process.address), address_of(words), int(_reset.address), latency_samples=late,
            settle_samples=round(0.2 * rate), lanes={"speaks": int(words[_SPEAKS])},
            readings={name: address_of(words) + 8 * word for name, word in readings.items()},
        )  # fmt: skip
