"""Sing an instrument: the pitch and the loudness of a voice play the synthesiser's net."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rtgan import notes
from rtgan.kernels import pitch
from rtgan.kernels.native import call_node, f32p, f64p, i64p, inline, larger, node, smaller
from rtgan.memory import address_of
from rtgan.params import PARAM_SLOTS, Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin
from rtgan.plugins import synth

(
    _CHANNELS, _STRIDE, _TRACKER, _PLAY, _SYNTH, _SYNTH_RESET, _KEYS, _STEP, _COUNT, _VOICED, _UNVOICED, _SLOT,
    _GATE, _SNAP, _SENSITIVITY,
) = range(15)  # fmt: skip
# Float words: the pitch and the velocity that are played, and the pitch for whoever reads it.
_NOTE, _VELOCITY, _HERTZ = range(16, 19)
_WORDS = 24

_OWN = ParamSet(
    [
        Param("gate_db", "Gate", -90, 0, -50, unit="dB", description="Level above which a voice is listened to."),
        Param("sensitivity_db", "Sensitivity", 6, 60, 34, unit="dB",
              description="Span of levels above the gate that becomes softest to hardest."),
        Param("snap", "Snap", 0, 1, 0, description="How far the pitch is drawn to the nearest semitone."),
    ]
)  # fmt: skip
#: What singing has no use for: keys, and what notes differ in from one to the next.
_HIDDEN = {"mono": 1.0, "bend_range": 2.0, "drone": 0.0, "drone_note": 45.0, "portamento_ms": 0.0, "dynamics": 1.0}
#: Answers of the tracker in a row before a note begins, and before it ends.
_BEGIN_STEPS, _END_STEPS = 2, 6
_PORT = -3
#: Share of the way to a new velocity in a step; a voice's level trembles.
_FOLLOW = 0.25


@inline
def _sung(state: Any) -> None:
    """What the tracker's newest answer does to the one voice."""
    w = i64p(state)
    f = f64p(state)
    tracker = f64p(w[_TRACKER])
    step = float(w[_STEP])
    gate = param_advance(w[_GATE], step)
    span = param_advance(w[_SENSITIVITY], step)
    snap = param_advance(w[_SNAP], step)
    level = tracker[pitch.LEVEL_DB]
    hertz = tracker[pitch.HERTZ]
    f[_HERTZ] = hertz
    voice = notes.voice_of(w[_KEYS], w[_SLOT])
    sounds = w[_SLOT] >= 0 and notes.voice_alive(voice) and i64p(voice)[notes.V_KEY] != 0
    if hertz > 0.0 and level > (gate - 6.0 if sounds else gate):
        w[_VOICED] += 1
        w[_UNVOICED] = 0
        played = 69.0 + 12.0 * math.log(hertz / 440.0) / math.log(2.0)
        nearest = math.floor(played + 0.5)
        played += (nearest - played) * smaller(larger(snap, 0.0), 1.0)
        velocity = smaller(larger((level - gate) / larger(span, 1.0), 0.05), 1.0)
        if not sounds and w[_VOICED] >= _BEGIN_STEPS:
            i64p(w[_KEYS])[notes.K_ORDER] += 1
            f[_VELOCITY] = velocity
            f[_NOTE] = played
            # One voice at a time: the one before, which may still die away, gives way.
            for slot in range(notes.SLOTS):
                other = notes.voice_of(w[_KEYS], slot)
                if notes.voice_alive(other):
                    notes.voice_cut(other)
            voice = notes.keys_begin(w[_KEYS], np.int64(nearest), velocity, 0, _PORT)
            w[_SLOT] = -1
            for slot in range(notes.SLOTS):
                if notes.voice_of(w[_KEYS], slot) == voice:
                    w[_SLOT] = slot
            if voice != 0:
                f64p(voice)[notes.F_FROM] = played
                f64p(voice)[notes.F_TARGET] = played
        elif sounds:
            f[_NOTE] = played
            f[_VELOCITY] += (velocity - f[_VELOCITY]) * _FOLLOW
            f64p(voice)[notes.F_TARGET] = f[_NOTE]
            f64p(voice)[notes.F_VELOCITY] = f[_VELOCITY]
    else:
        w[_VOICED] = 0
        w[_UNVOICED] += 1
        # A consonant does not end a note that goes on behind it; its pitch stays.
        if sounds and (w[_UNVOICED] >= _END_STEPS or level < gate - 12.0):
            i64p(voice)[notes.V_KEY] = 0
            i64p(voice)[notes.V_CUT] = 1


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    channels = w[_CHANNELS]
    share = 1.0 / channels
    start = 0
    while start < n:
        count = smaller(n - start, w[_STEP] - w[_COUNT])
        fresh = False
        for i in range(start, start + count):
            total = 0.0
            for c in range(channels):
                total += np.float64(f32p(io + 4 * c * w[_STRIDE])[i])
            fresh = pitch.pitch_hear(w[_TRACKER], total * share) or fresh
        w[_COUNT] += count
        call_node(w[_PLAY], w[_SYNTH], io + 4 * start, count)
        if w[_COUNT] == w[_STEP]:
            w[_COUNT] = 0
        if fresh:
            _sung(state)
        start += count


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    call_node(w[_SYNTH_RESET], w[_SYNTH], 0, 0)
    pitch.pitch_reset(w[_TRACKER])
    w[_COUNT] = 0
    w[_VOICED] = 0
    w[_UNVOICED] = 0
    w[_SLOT] = -1
    f[_NOTE] = 0.0
    f[_VELOCITY] = 0.0
    f[_HERTZ] = 0.0


class Morph(Plugin):
    """Play one voice of a net that has learned instruments with the voice that comes in.

    The input passes without delay where ``input_db`` lets it; the instrument follows by what the pitch tracker needs to
    hear, about 35 ms of a note that begins and 20 ms of one that moves.

    Parameters
    ----------
    model : str
        Name of a shipped model or path of a TorchScript file with a card whose task is "synth".
    timbre, towards : str
        The timbres at both ends of the parameter ``morph``; the second is the first by default.
    """

    id = "morph"
    name = "Morph"
    description = "Sing an instrument, whose pitch and loudness follow the voice."
    options = frozenset({"model", "timbre", "towards"})
    params = ParamSet([*_OWN.values(), *(p for name, p in synth.Synth.params.items() if name not in _HIDDEN)])

    def __init__(self, model: str = "tones", timbre: str = "", towards: str = "") -> None:
        self.instrument = synth.Synth(model, timbre, towards)
        self.notice = self.instrument.notice

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        arena = activation.arena
        params = dict(activation.params)
        for name, value in _HIDDEN.items():
            slots = arena.float64(PARAM_SLOTS)
            slots[:2] = value
            params[name] = address_of(slots)
        instrument = self.instrument.activate(
            Activation(
                activation.sample_rate_hz, activation.max_block, activation.channels, activation.stride_samples, arena,
                params,
            )
        )  # fmt: skip
        tracker = pitch.build(activation.sample_rate_hz, allocate=arena.int64)
        words = arena.int64(_WORDS)
        words[_CHANNELS], words[_STRIDE] = activation.channels, activation.stride_samples
        words[_TRACKER] = address_of(tracker)
        words[_PLAY], words[_SYNTH], words[_SYNTH_RESET] = instrument.process, instrument.state, instrument.reset
        words[_KEYS] = synth.keys_of(instrument)
        words[_STEP] = pitch.step_samples(activation.sample_rate_hz)
        words[_SLOT] = -1
        words[_GATE], words[_SNAP] = activation.params["gate_db"], activation.params["snap"]
        words[_SENSITIVITY] = activation.params["sensitivity_db"]
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            tail_samples=instrument.tail_samples,
            readings={"pitch_hz": address_of(words) + 8 * _HERTZ, **instrument.readings},
            keep=(instrument.keep,),
        )
