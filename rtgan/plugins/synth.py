"""Neural synthesiser: a net says what every note sounds like, partials and noise sound it."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from rtgan import notes
from rtgan.errors import RtganError, UsageError
from rtgan.generators import library
from rtgan.kernels import partials
from rtgan.kernels.native import call_net, f32p, f64p, i64p, inline, larger, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

(
    _CHANNELS, _STRIDE, _KEYS, _VOICES, _LANES, _MONO, _TABLE, _NET, _WEIGHTS, _NET_ARENA, _INPUT, _OUTPUT,
    _TIMBRES, _LATENTS, _HOP, _PARAMS, _VALUES, _SHARES, _COUNT, _DRONES,
) = range(20)  # fmt: skip
_RATE, _WALK, _VIBRATO, _FROM_LEVEL, _FROM_INPUT, _SOUNDING = range(24, 30)
_WORDS = 32

# Words of a voice beside its oscillators.
_LEFT, _PARTIALS, _ROW, _SEED, _FRESH = range(5)
_TIME, _PITCH, _GLIDE, _GAIN, _ATTACK, _TURNS, _EFFORT = range(8, 15)
_V_WORDS = 16
_V_WAVER = 8 * (_V_WORDS + partials.VOICE_WORDS)
_V_BYTES = _V_WAVER + 8 * partials.WAVER_WORDS

_PARAMETERS = ParamSet(
    [
        Param("level_db", "Level", -60, 12, 0, unit="dB", description="Level of the notes; the lowest is silence."),
        Param("input_db", "Input", -60, 0, -60, unit="dB",
              description="How much of what comes in is heard beside the notes; the lowest is none."),
        Param("morph", "Morph", 0, 1, 0, description="From one timbre to the other."),
        Param("brightness", "Brightness", -1, 1, 0, description="Share of the upper partials."),
        Param("noise_db", "Noise", -40, 12, 0, unit="dB", description="Breath, bow and hammer."),
        Param("dynamics", "Dynamics", 0, 1, 1, description="How much it matters how hard a key is struck."),
        Param("attack_ms", "Attack", 0, 4000, 0, unit="ms", description="Time in which a note swells."),
        Param("release", "Release", 0.1, 10, 1, scale="log", description="Times the timbre's own dying away."),
        Param("vibrato", "Vibrato", 0, 1, 0, description="Depth in semitones; pressure adds to it."),
        Param("vibrato_hz", "Vibrato rate", 0.5, 12, 5.2, unit="Hz", scale="log", description="Speed of the vibrato."),
        Param("portamento_ms", "Portamento", 0, 3000, 0, unit="ms", description="Time from one pitch to the next."),
        Param("mono", "Mono", 0, 1, 0, scale="switch", description="One voice that plays legato."),
        Param("bend_range", "Bend range", 0, 48, 2, smoothing_ms=0,
              description="Semitones of a full bend, until a controller says otherwise."),
        Param("tune", "Tune", -12, 12, 0, description="Semitones by which everything is moved."),
        Param("variation", "Variation", 0, 1, 0.3,
              description="How much repeated notes differ, beside how they waver."),
        Param("waver", "Waver", 0, 2, 1,
              description="How much partials and noise waver; at 1 as in the recordings learned from."),
        Param("seed", "Seed", 0, 127, 0, smoothing_ms=0, description="Names the series of variations."),
        Param("latent_1", "Latent 1", -3, 3, 0, smoothing_ms=60, description="What the net found notes to differ in."),
        Param("latent_2", "Latent 2", -3, 3, 0, smoothing_ms=60, description="What the net found notes to differ in."),
        Param("latent_3", "Latent 3", -3, 3, 0, smoothing_ms=60, description="What the net found notes to differ in."),
        Param("latent_4", "Latent 4", -3, 3, 0, smoothing_ms=60, description="What the net found notes to differ in."),
        Param("walk", "Walk", 0, 1, 0, description="How far latents and morph wander by themselves."),
        Param("walk_hz", "Walk rate", 0.01, 2, 0.07, unit="Hz", scale="log", description="How fast they wander."),
        Param("drone", "Drone", 0, 4, 0, smoothing_ms=0,
              description="Voices that sound without a key: root, fifth, octave, twelfth."),
        Param("drone_note", "Drone note", 12, 96, 45, smoothing_ms=0, description="Root of the drone."),
    ]
)  # fmt: skip
(
    _P_LEVEL, _P_INPUT, _P_MORPH, _P_BRIGHT, _P_NOISE, _P_DYNAMICS, _P_ATTACK, _P_RELEASE, _P_VIBRATO, _P_VIBRATO_HZ,
    _P_PORTAMENTO, _P_MONO, _P_BEND, _P_TUNE, _P_VARIATION, _P_WAVER, _P_SEED, _P_LATENT, _P_LATENT_2, _P_LATENT_3,
    _P_LATENT_4, _P_WALK, _P_WALK_HZ, _P_DRONE, _P_DRONE_NOTE,
) = range(len(_PARAMETERS))  # fmt: skip
_PARAMETER_COUNT = len(_PARAMETERS)
_MOST_LATENTS = 4
# Rows of what is known of timbres: shares at both ends of the morph, whether it sustains, its release in seconds, the
# range it was learned in, what brings it to one level, and how much softer the softest is, in dB; by how much partials
# and noise waver, in nepers, and for how long, in seconds.
(
    _ONE, _OTHER, _SUSTAINS, _RELEASE, _LOWEST, _HIGHEST, _LEVEL, _SOFTER, _WAVER, _NOISE_WAVER, _WAVER_S,
) = range(11)  # fmt: skip
_ROWS = 11

_DB = math.log(10.0) / 20.0
_OFF_DB = -60.0
#: Parameters are looked at once per this many samples, counted from the stream's start.
_GRID = partials.CELL
#: Held notes of timbres that sustain go to and fro between these moments; no recording is longer.
_FOLD_FROM_S, _FOLD_TO_S = 1.0, 2.4
#: Beyond this moment others fade out by the second time constant.
_LAST_S, _LAST_DECAY_S = 4.5, 1.5
#: In which a voice that is taken away falls silent, and the length of a frame at 48 kHz.
_FALL_SAMPLES = 128
_HOP_HZ = 375.0
#: A voice below this amplitude has ended.
_INAUDIBLE = 2e-6
#: Velocity at which a timbre's own span of levels is reached.
_SOFTEST = 0.15
_LN_1000 = math.log(1000.0)
_DRONE_PORT = -2


@inline
def _random(seed: Any, number: Any) -> Any:
    """-1..1 from two integers, by multiplying and folding (Steele, Lea and Flood, "SplitMix", OOPSLA 2014)."""
    x = (seed + 1) * 0x1E3779B97F4A7C15 + (number + 1) * 0x3F58476D1CE4E5B9
    x ^= (x >> 30) & 0x3FFFFFFFF
    x *= 0x3F58476D1CE4E5B9
    x ^= (x >> 27) & 0x1FFFFFFFFF
    x *= 0x14D049BB133111EB
    x ^= (x >> 31) & 0x1FFFFFFFF
    return ((x >> 20) & 0xFFFFFF) / 8388608.0 - 1.0


@inline
def _look(state: Any) -> None:
    """Every parameter once per grid; what is not a number counts as 0, the rest is held in range."""
    w = i64p(state)
    values = f64p(w[_VALUES])
    count = _PARAMETER_COUNT
    for k in range(count):
        value = param_advance(i64p(w[_PARAMS])[k], float(_GRID))
        low = values[count + 2 * k]
        high = values[count + 2 * k + 1]
        values[k] = smaller(larger(value, low), high) if value == value else smaller(larger(0.0, low), high)
    keys = i64p(w[_KEYS])
    keys[notes.K_MONO] = 1 if values[_P_MONO] >= 0.5 else 0
    f64p(w[_KEYS])[notes.F_BEND_RANGE] = values[_P_BEND]
    f = f64p(state)
    seconds = _GRID / f[_RATE]
    # Slow enough never to be far from where they were; folded, so that years of it lose no precision.
    f[_WALK] += values[_P_WALK_HZ] * seconds
    f[_VIBRATO] += values[_P_VIBRATO_HZ] * seconds
    if f[_VIBRATO] >= 1.0:
        f[_VIBRATO] -= 1.0
    if f[_WALK] >= 1e4:
        f[_WALK] -= 1e4


@inline
def _drones(state: Any) -> None:
    """Begin the drone's voices that are wanted, let go of those that are not."""
    w = i64p(state)
    values = f64p(w[_VALUES])
    wanted = np.int64(values[_P_DRONE] + 0.5)
    root = np.int64(values[_P_DRONE_NOTE] + 0.5)
    sounding = 0
    alive = 0
    for slot in range(notes.SLOTS):
        voice = notes.voice_of(w[_KEYS], slot)
        v = i64p(voice)
        if not notes.voice_alive(voice):
            continue
        alive += 1
        if v[notes.V_PORT] == _DRONE_PORT:
            if v[notes.V_CHANNEL] < wanted and v[notes.V_CUT] == 0:
                sounding |= 1 << v[notes.V_CHANNEL]
                f64p(voice)[notes.F_TARGET] = root + _drone_step(v[notes.V_CHANNEL])
            else:
                v[notes.V_KEY] = 0
                v[notes.V_CUT] = 1
    for k in range(wanted):
        if (sounding >> k) & 1 == 0 and alive < notes.POLYPHONY:
            i64p(w[_KEYS])[notes.K_ORDER] += 1
            voice = notes.keys_begin(w[_KEYS], root, 0.6, k, _DRONE_PORT)
            if voice != 0:
                f64p(voice)[notes.F_TARGET] = root + _drone_step(k)
                f64p(voice)[notes.F_FROM] = root + _drone_step(k)
    w[_DRONES] = wanted


@inline
def _drone_step(number: Any) -> Any:
    return 0.0 if number == 0 else (7.0 if number == 1 else (12.0 if number == 2 else 19.0))


@inline
def _begin(state: Any, slot: Any) -> None:
    """A voice's first moment."""
    w = i64p(state)
    values = f64p(w[_VALUES])
    key = notes.voice_of(w[_KEYS], slot)
    own = w[_VOICES] + _V_BYTES * slot
    o = i64p(own)
    f = f64p(own)
    seed = np.int64(values[_P_SEED]) * 1000003
    o[_SEED] = seed + i64p(key)[notes.V_ORDER]
    partials.voice_begin(own + 8 * _V_WORDS, o[_SEED])
    partials.waver_begin(own + _V_WAVER, o[_SEED])
    o[_LEFT] = 0
    o[_PARTIALS] = 0
    o[_ROW] = np.int64((_random(o[_SEED], 99) + 1.0) * 0.5 * (partials.TABLE_ROWS - 1))
    o[_FRESH] = 1
    f[_TIME] = 0.0
    glides = values[_P_PORTAMENTO] > 0.0
    f[_PITCH] = f64p(key)[notes.F_FROM] if glides else f64p(key)[notes.F_TARGET]
    f[_GLIDE] = f64p(key)[notes.F_TARGET]
    f[_GAIN] = 1.0
    f[_ATTACK] = 0.0 if values[_P_ATTACK] > 0.0 else 1.0
    f[_TURNS] = 0.0
    i64p(key)[notes.V_STATE] = notes.SOUNDS


@inline
def _glided(state: Any, key: Any, own: Any, hop_s: Any) -> Any:
    """The pitch of a voice at the end of the next frame, portamento worked in."""
    f = f64p(own)
    portamento = f64p(i64p(state)[_VALUES])[_P_PORTAMENTO]
    target = f64p(key)[notes.F_TARGET]
    distance = target - f[_PITCH]
    if portamento <= 0.0:
        f[_PITCH] = target
    else:
        # Exponential, as of a capacitor that is charged: 95 % of the way in the time given.
        step = distance * (1.0 - math.exp(-3.0 * hop_s * 1000.0 / portamento))
        f[_PITCH] = target if abs(distance) < 0.003 else f[_PITCH] + step
    return f[_PITCH]


@inline
def _tick(state: Any, slot: Any) -> None:
    """The next frame of a voice: what the net says of its end is where everything glides to."""
    w = i64p(state)
    s = f64p(state)
    values = f64p(w[_VALUES])
    key = notes.voice_of(w[_KEYS], slot)
    own = w[_VOICES] + _V_BYTES * slot
    o = i64p(own)
    f = f64p(own)
    hop = w[_HOP]
    hop_s = hop / s[_RATE]
    timbres = w[_TIMBRES]
    shares = f64p(w[_SHARES])
    into = f32p(w[_NET_ARENA] + 4 * w[_INPUT])

    walk = values[_P_WALK]
    turn = 2.0 * math.pi * s[_WALK]
    morph = values[_P_MORPH] + walk * 0.5 * math.sin(turn * 0.61 + 1.3 * slot)
    morph = smaller(larger(morph, 0.0), 1.0)
    sustains = 0.0
    release_s = 0.0
    lowest = 0.0
    highest = 0.0
    level_db = 0.0
    softer_db = 0.0
    waver = 0.0
    noise_waver = 0.0
    waver_s = 0.0
    for k in range(timbres):
        share = shares[_ONE * timbres + k] * (1.0 - morph) + shares[_OTHER * timbres + k] * morph
        into[3 + k] = np.float32(share)
        sustains += share * shares[_SUSTAINS * timbres + k]
        release_s += share * shares[_RELEASE * timbres + k]
        lowest += share * shares[_LOWEST * timbres + k]
        highest += share * shares[_HIGHEST * timbres + k]
        level_db += share * shares[_LEVEL * timbres + k]
        softer_db += share * shares[_SOFTER * timbres + k]
        waver += share * shares[_WAVER * timbres + k]
        noise_waver += share * shares[_NOISE_WAVER * timbres + k]
        waver_s += share * shares[_WAVER_S * timbres + k]
    for k in range(w[_LATENTS]):
        latent = values[_P_LATENT + k] + 0.8 * values[_P_VARIATION] * _random(o[_SEED], k)
        latent += walk * 1.5 * math.sin(turn * (0.37 + 0.23 * k) + 2.1 * k + 1.7 * slot)
        into[3 + timbres + k] = np.float32(smaller(larger(latent, -4.0), 4.0))

    # What is played: pitch, how hard, for how long.
    pressure = notes.voice_pressure(w[_KEYS], key)
    pitch = _glided(state, key, own, hop_s) + notes.voice_bend(w[_KEYS], key) + values[_P_TUNE]
    depth = values[_P_VIBRATO] + 0.3 * pressure * sustains
    swell = smaller(f[_TIME] * 2.0, 1.0)
    pitch += depth * swell * math.sin(2.0 * math.pi * s[_VIBRATO] + 0.7 * slot)
    # Nothing that is blown or bowed stands still.
    alive = values[_P_VARIATION] * sustains
    own_turn = 2.0 * math.pi * f[_TIME]
    breath = math.sin(1.3 * own_turn + 3.0 * _random(o[_SEED], 20)) + 0.6 * math.sin(
        4.7 * own_turn + 3.0 * _random(o[_SEED], 21)
    )
    pitch += 0.012 * alive * math.sin(2.3 * own_turn + 3.0 * _random(o[_SEED], 22))
    pitch = smaller(larger(pitch, -12.0), 150.0)
    velocity = f64p(key)[notes.F_VELOCITY]
    velocity = 0.7 + (velocity - 0.7) * values[_P_DYNAMICS]
    velocity = smaller(velocity + 0.4 * pressure * sustains + 0.05 * alive * breath, 1.0)
    f[_TIME] += hop_s
    seconds = f[_TIME]
    beyond = larger(seconds - _LAST_S, 0.0)
    folded = seconds
    if folded > _FOLD_TO_S:
        way = (folded - _FOLD_TO_S) / (_FOLD_TO_S - _FOLD_FROM_S)
        way -= 2.0 * math.floor(0.5 * way)
        folded = _FOLD_TO_S - (_FOLD_TO_S - _FOLD_FROM_S) * (way if way < 1.0 else 2.0 - way)
    seconds = sustains * folded + (1.0 - sustains) * smaller(seconds, _LAST_S)
    # Beyond the range that a timbre was learned in, its ends are moved.
    into[0] = np.float32(smaller(larger(pitch, lowest - 2.0), highest + 2.0))
    into[1] = np.float32(velocity)
    into[2] = np.float32(seconds)
    call_net(w[_NET], w[_NET_ARENA], w[_WEIGHTS])
    out = w[_NET_ARENA] + 4 * w[_OUTPUT]
    stiffness = smaller(larger(np.float64(f32p(out)[partials.HARMONICS + partials.BANDS]), 0.0), 0.02)
    stiffness *= 1.0 - sustains

    if values[_P_WAVER] > 0.0 and waver + noise_waver > 0.0:
        amount = values[_P_WAVER]
        partials.waver_go(own + _V_WAVER, out, amount * waver, amount * noise_waver, math.exp(-hop_s / waver_s))

    # Level: swelling, dying away, breath of its own.
    if f[_ATTACK] < 1.0:
        attack_s = 0.001 * values[_P_ATTACK]
        f[_ATTACK] = smaller(f[_ATTACK] + hop_s / larger(attack_s, hop_s), 1.0)
    if not notes.voice_held(w[_KEYS], key):
        f[_GAIN] *= math.exp(-_LN_1000 * hop_s / larger(release_s * values[_P_RELEASE], 0.004))
    level = f[_GAIN] * f[_ATTACK] * math.exp(-beyond * (1.0 - sustains) / _LAST_DECAY_S)
    level *= math.exp(_DB * (level_db - softer_db * (1.0 - velocity) / (1.0 - _SOFTEST)))
    bright = values[_P_BRIGHT] + 2.0 * (notes.voice_timbre(w[_KEYS], key) - 0.5)
    bright = smaller(larger(bright, -1.0), 1.0)
    turns = 440.0 * math.exp((pitch - 69.0) * (math.log(2.0) / 12.0)) / s[_RATE]
    hertz = turns * s[_RATE]
    # By so many dB a kilohertz; what dies away loses its upper partials first.
    damping = math.exp(_DB * hertz * 0.001 * (bright * (9.0 if bright < 0.0 else 1.5)))
    damping *= math.exp(0.02 * math.log(larger(f[_GAIN], 1e-6)))
    noise = math.exp(values[_P_NOISE] * _DB) if values[_P_NOISE] > -40.0 else 0.0
    bands = f32p(out + 4 * partials.HARMONICS)
    loudest = 0.0
    for k in range(partials.BANDS):
        bands[k] = np.float32(np.float64(bands[k]) * noise)
        loudest = larger(loudest, np.float64(bands[k]))
    for k in range(partials.HARMONICS):
        loudest = larger(loudest, np.float64(f32p(out)[k]))
    begin = f[_TURNS] if o[_FRESH] == 0 else turns
    if o[_FRESH] != 0 or begin != turns or f[_EFFORT] != stiffness:
        partials.voice_tune(own + 8 * _V_WORDS, begin, turns, stiffness, float(hop))
        # A glide ends at its aim; the frame after it stands still there.
        f[_EFFORT] = stiffness if begin == turns else -1.0
    o[_PARTIALS] = partials.voice_aim(
        own + 8 * _V_WORDS, out, out + 4 * partials.HARMONICS, level, damping, larger(begin, turns), stiffness,
        float(hop),
    )  # fmt: skip
    f[_TURNS] = turns
    o[_FRESH] = 0
    o[_LEFT] = hop
    if loudest * level < _INAUDIBLE and f[_TIME] > 0.05:
        notes.voice_cut(key)


@inline
def _sound(state: Any, n: Any) -> Any:
    """Add up to a grid's length of every voice to the lanes; whether there was any."""
    w = i64p(state)
    sounding = 0
    for slot in range(notes.SLOTS):
        key = notes.voice_of(w[_KEYS], slot)
        k = i64p(key)
        if k[notes.V_STATE] == notes.FREE:
            continue
        sounding += 1
        own = w[_VOICES] + _V_BYTES * slot
        o = i64p(own)
        if k[notes.V_STATE] == notes.BEGIN:
            _begin(state, slot)
        done = 0
        while done < n and k[notes.V_STATE] != notes.FREE:
            if k[notes.V_STATE] == notes.CUT:
                partials.voice_fall(own + 8 * _V_WORDS, float(_FALL_SAMPLES))
                o[_LEFT] = _FALL_SAMPLES
                k[notes.V_STATE] = notes.FALLS
            elif o[_LEFT] == 0:
                if k[notes.V_STATE] == notes.FALLS:
                    k[notes.V_STATE] = notes.FREE
                else:
                    _tick(state, slot)
                continue
            count = smaller(n - done, o[_LEFT])
            partials.voice_add(own + 8 * _V_WORDS, o[_PARTIALS], w[_TABLE], o[_ROW], w[_LANES] + 32 * done, count)
            o[_ROW] = (o[_ROW] + count) & (partials.TABLE_ROWS - 1)
            o[_LEFT] -= count
            done += count
    f64p(state)[_SOUNDING] = np.float64(sounding)
    return sounding > 0


@inline
def _gain(db: Any) -> Any:
    return math.exp(db * _DB) if db > _OFF_DB else 0.0


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    values = f64p(w[_VALUES])
    mono = f32p(w[_MONO])
    done = 0
    while done < n:
        place = w[_COUNT] % _GRID
        if place == 0:
            if w[_COUNT] == 0:
                for k in range(_PARAMETER_COUNT):
                    values[k] = f64p(i64p(w[_PARAMS])[k])[0]
            # Levels glide over a grid's length from where they were.
            f[_FROM_LEVEL] = _gain(values[_P_LEVEL])
            f[_FROM_INPUT] = _gain(values[_P_INPUT])
            _look(state)
            if w[_DRONES] != 0 or values[_P_DRONE] >= 0.5:
                _drones(state)
        count = smaller(n - done, _GRID - place)
        sounds = _sound(state, count)
        if sounds:
            partials.lanes_sum(w[_LANES], w[_MONO], count)
        level = _gain(values[_P_LEVEL])
        through = _gain(values[_P_INPUT])
        level_step = (level - f[_FROM_LEVEL]) / _GRID
        input_step = (through - f[_FROM_INPUT]) / _GRID
        for c in range(w[_CHANNELS]):
            x = f32p(io + 4 * (c * w[_STRIDE] + done))
            for i in range(count):
                at = place + i + 1.0
                value = np.float64(x[i]) * (through - input_step * (_GRID - at))
                if sounds:
                    value += np.float64(mono[i]) * (level - level_step * (_GRID - at))
                x[i] = np.float32(value)
        w[_COUNT] += count
        done += count


@node
def _midi(state: int, message: int, port: int) -> None:
    notes.keys_midi(i64p(state)[_KEYS], message, port)


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    notes.keys_reset(w[_KEYS])
    w[_COUNT] = 0
    w[_DRONES] = 0
    f[_WALK] = 0.0
    f[_VIBRATO] = 0.0
    f[_SOUNDING] = 0.0


def keys_of(instrument: NativeNode) -> int:
    """Address of the voices of an activated synthesiser (`rtgan.notes`), for a node that plays it by itself."""
    return int(np.ctypeslib.as_array(ctypes.cast(instrument.state, ctypes.POINTER(ctypes.c_int64)), (_WORDS,))[_KEYS])


class Synth(Plugin):
    """Play notes with a net that has learned instruments.

    Parameters
    ----------
    model : str
        Name of a shipped model or path of a TorchScript file with a card whose task is "synth".
    timbre, towards : str
        The timbres at both ends of the parameter ``morph``; the second is the first by default.
    """

    id = "synth"
    name = "Synth"
    description = "Play notes with a net that has learned instruments, and everything between them."
    options = frozenset({"model", "timbre", "towards"})
    params = _PARAMETERS

    def __init__(self, model: str = "tones", timbre: str = "", towards: str = "") -> None:
        self.model = library.load(model)
        card = self.model.card
        if card.task != "synth":
            raise RtganError(f"the model {model} is for '{card.task}' and cannot play notes")
        self.timbres = card.timbres
        names = [t.name for t in self.timbres]
        self.ends = []
        for wanted in (timbre or names[0], towards or timbre or names[0]):
            if wanted not in names:
                raise UsageError(f"the model {model} has no timbre '{wanted}'; it has: {', '.join(names)}")
            self.ends.append(names.index(wanted))
        self.notice = "" if model in library.names() else f"model {self.model.path}, sha256 {card.sha256}"

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        net, arena = self.model.net, activation.arena
        if not (net.inputs[0].contiguous and net.outputs[0].contiguous):
            raise RtganError(f"the model {self.model.path} does not lay its rows out in order")
        count = len(self.timbres)
        words = arena.int64(_WORDS)
        floats = words.view(np.float64)
        table = partials.noise_table(activation.sample_rate_hz)
        net_arena = arena.float32(-(-net.arena_floats // 16) * 16)
        net_arena[: net.arena_floats] = net.initial_arena
        shares = arena.float64(_ROWS * count).reshape(_ROWS, count)
        shares[_ONE, self.ends[0]] = shares[_OTHER, self.ends[1]] = 1.0
        shares[_SUSTAINS] = [float(t.sustains) for t in self.timbres]
        shares[_RELEASE] = [t.release_ms / 1000 for t in self.timbres]
        shares[_LOWEST], shares[_HIGHEST] = [t.lowest for t in self.timbres], [t.highest for t in self.timbres]
        shares[_LEVEL] = [t.level_db for t in self.timbres]
        shares[_SOFTER] = [t.dynamics_db for t in self.timbres]
        shares[_WAVER] = [t.waver_db * _DB for t in self.timbres]
        shares[_NOISE_WAVER] = [t.noise_waver_db * _DB for t in self.timbres]
        shares[_WAVER_S] = [t.waver_ms / 1000 for t in self.timbres]
        addresses = arena.int64(len(_PARAMETERS))
        addresses[:] = [activation.params[name] for name in _PARAMETERS]
        values = arena.float64(3 * len(_PARAMETERS))
        values[len(_PARAMETERS) :] = np.ravel([(p.minimum, p.maximum) for p in _PARAMETERS.values()])
        words[_CHANNELS], words[_STRIDE] = activation.channels, activation.stride_samples
        words[_KEYS] = address_of(arena.int64(notes.KEYS_WORDS))
        words[_VOICES] = address_of(arena.int64(notes.SLOTS * _V_BYTES // 8))
        words[_LANES] = address_of(arena.float32(8 * _GRID))
        words[_MONO] = address_of(arena.float32(_GRID))
        words[_TABLE] = arena.put(table)
        words[_NET], words[_WEIGHTS] = net.address, arena.put(net.weights)
        words[_NET_ARENA] = address_of(net_arena)
        words[_INPUT], words[_OUTPUT] = net.inputs[0].offset, net.outputs[0].offset
        words[_TIMBRES], words[_LATENTS] = count, min(_MOST_LATENTS, self.model.card.latents)
        words[_HOP] = max(_GRID, round(activation.sample_rate_hz / _HOP_HZ))
        words[_PARAMS], words[_VALUES] = address_of(addresses), address_of(values)
        words[_SHARES] = address_of(shares)
        floats[_RATE] = activation.sample_rate_hz
        _reset.ctypes(address_of(words), 0, 0)
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            midi=int(_midi.address),
            tail_samples=2 * activation.sample_rate_hz,
            readings={"voices": address_of(words) + 8 * _SOUNDING},
            keep=(net,),
        )
