"""Notes on the audio thread: from the bytes of a message to voices that begin, bend, last and end.

`keys_midi` takes what `NativeNode.midi` is given and keeps a table of voices up to date; the instrument looks at the
table, makes sound and says when a voice has died away. Sixteen voices sound at most: the next one takes the place of
one that was let go, else of the oldest, which falls silent in slots behind them while the new one begins. A key that
sounds again damps its earlier voice. Sustain (CC 64) and sostenuto (CC 66) hold what is let go; all notes off (CC 123
and above), all sound off (CC 120), system reset and lost messages end notes in any case.

Pitch bend ranges and zones come by registered parameters 0 and 6: the numbers of MIDI 1.0 (MMA, 1996) and of MIDI
Polyphonic Expression 1.1 (MMA, 2022), where every note has a channel of its own and those of the zone's manager are
added.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtgan.kernels.native import f64p, i64p, inline, larger, smaller

#: Voices that sound at a time.
POLYPHONY = 16
#: Voices that there is memory for: what was taken away falls silent in the others.
SLOTS = 48
PORTS = 16
#: In place of a message: everything of the port is let go; of all ports, where the port is below 0.
LET_GO = 0xFF

# Words of the keys.
K_ORDER, K_MONO, K_DROPPED = range(3)
#: Float words: range of a bend that no message has set, and the pitch that was played last (negative: none).
F_BEND_RANGE, F_LAST = 8, 9
_ZONES = 16  # lower and upper members of each port
_KEYS = _ZONES + 2 * PORTS  # for each key: 0, or the order in which it was pressed
_KEY_CHANNELS = _KEYS + 128  # and by whom
_KEY_PORTS = _KEY_CHANNELS + 128
_CHANNELS = _KEY_PORTS + 128

# Words of a channel.
C_SUSTAIN, C_SOSTENUTO, C_MSB, C_LSB = range(4)
F_BEND, F_RANGE, F_PRESSURE, F_TIMBRE = range(4, 8)
_C_WORDS = 8
_VOICES = _CHANNELS + (PORTS + 1) * 16 * _C_WORDS

# Words of a voice.
V_STATE, V_NOTE, V_CHANNEL, V_PORT, V_ORDER, V_KEY, V_SOSTENUTO, V_CUT = range(8)
F_VELOCITY, F_TARGET, F_POLY, F_FROM = range(8, 12)
V_WORDS = 16
KEYS_WORDS = _VOICES + SLOTS * V_WORDS

#: States of a voice: none; to begin; sounding; to fall silent at once; falling.
FREE, BEGIN, SOUNDS, CUT, FALLS = range(5)


@inline
def voice_of(keys: Any, slot: Any) -> Any:
    """[audio] Address of a voice's words."""
    return keys + 8 * (_VOICES + slot * V_WORDS)


@inline
def _channel(keys: Any, port: Any, channel: Any) -> Any:
    # Voices without a key are of no port; no message reaches the channels behind those of all ports.
    place = port if port >= 0 and port < PORTS else PORTS
    return keys + 8 * (_CHANNELS + (place * 16 + channel) * _C_WORDS)


@inline
def _manager(keys: Any, port: Any, channel: Any) -> Any:
    """The manager channel of a member, else -1."""
    zones = i64p(keys + 8 * (_ZONES + 2 * (port & (PORTS - 1))))
    if channel >= 1 and channel <= zones[0]:
        return 0
    if channel <= 14 and channel >= 15 - zones[1]:
        return 15
    return -1


@inline
def _clear_channel(channel: Any, semitones: Any) -> None:
    w = i64p(channel)
    f = f64p(channel)
    w[C_SUSTAIN] = 0
    w[C_SOSTENUTO] = 0
    w[C_MSB] = 127
    w[C_LSB] = 127
    f[F_BEND] = 0.0
    f[F_RANGE] = semitones
    f[F_PRESSURE] = 0.0
    f[F_TIMBRE] = 0.5


@inline
def keys_reset(keys: Any) -> None:
    """[audio] No voices, pedals up, nothing bent, no zones; what sounds is gone at once."""
    w = i64p(keys)
    for k in range(F_BEND_RANGE):
        if k != K_MONO:
            w[k] = 0
    f64p(keys)[F_LAST] = -1.0
    for k in range(_ZONES, KEYS_WORDS):
        w[k] = 0
    for k in range((PORTS + 1) * 16):
        _clear_channel(keys + 8 * (_CHANNELS + k * _C_WORDS), -1.0)


@inline
def voice_held(keys: Any, voice: Any) -> Any:
    """[audio] Whether a key or a pedal holds a voice."""
    v = i64p(voice)
    if v[V_KEY] != 0 or v[V_SOSTENUTO] != 0:
        return True
    if v[V_CUT] != 0:
        return False
    if i64p(_channel(keys, v[V_PORT], v[V_CHANNEL]))[C_SUSTAIN] != 0:
        return True
    manager = _manager(keys, v[V_PORT], v[V_CHANNEL])
    return manager >= 0 and i64p(_channel(keys, v[V_PORT], manager))[C_SUSTAIN] != 0


@inline
def _bent(keys: Any, channel: Any) -> Any:
    f = f64p(channel)
    return f[F_BEND] * (f[F_RANGE] if f[F_RANGE] >= 0.0 else f64p(keys)[F_BEND_RANGE])


@inline
def voice_bend(keys: Any, voice: Any) -> Any:
    """[audio] By how many semitones a voice is bent, its zone's bend included."""
    v = i64p(voice)
    bend = _bent(keys, _channel(keys, v[V_PORT], v[V_CHANNEL]))
    manager = _manager(keys, v[V_PORT], v[V_CHANNEL])
    if manager >= 0:
        bend += _bent(keys, _channel(keys, v[V_PORT], manager))
    return bend


@inline
def voice_pressure(keys: Any, voice: Any) -> Any:
    """[audio] How hard a voice's key is pressed, 0..1: the largest of the note's, its channel's and its zone's."""
    v = i64p(voice)
    pressure = larger(f64p(voice)[F_POLY], f64p(_channel(keys, v[V_PORT], v[V_CHANNEL]))[F_PRESSURE])
    manager = _manager(keys, v[V_PORT], v[V_CHANNEL])
    if manager >= 0:
        pressure = larger(pressure, f64p(_channel(keys, v[V_PORT], manager))[F_PRESSURE])
    return pressure


@inline
def voice_timbre(keys: Any, voice: Any) -> Any:
    """[audio] CC 74 of a note that has a channel of its own, 0..1; 0.5 for others, whose CC 74 is a control."""
    v = i64p(voice)
    if _manager(keys, v[V_PORT], v[V_CHANNEL]) < 0:
        return 0.5
    return f64p(_channel(keys, v[V_PORT], v[V_CHANNEL]))[F_TIMBRE]


@inline
def voice_alive(voice: Any) -> Any:
    """[audio] Whether a voice sounds or is to begin, and is not about to fall silent."""
    state = i64p(voice)[V_STATE]
    return state in (BEGIN, SOUNDS)


@inline
def voice_cut(voice: Any) -> None:
    """[audio] Let a voice fall silent at once; one that has not begun never does."""
    v = i64p(voice)
    v[V_STATE] = FREE if v[V_STATE] == BEGIN else CUT


@inline
def _slot_for_one_more(keys: Any) -> Any:
    """A free slot, after one voice has made room if as many sound as may; 0 if there is none."""
    count = 0
    victim = 0
    rank = 0
    for slot in range(SLOTS):
        voice = voice_of(keys, slot)
        if voice_alive(voice):
            count += 1
            v = i64p(voice)
            # First what was let go, then what a pedal holds, then keys; the oldest of each.
            kind = 2 if v[V_KEY] != 0 else (1 if voice_held(keys, voice) else 0)
            own = (kind << 48) + v[V_ORDER]
            if victim == 0 or own < rank:
                victim = voice
                rank = own
    if count >= POLYPHONY:
        voice_cut(victim)
    for slot in range(SLOTS):
        voice = voice_of(keys, slot)
        if i64p(voice)[V_STATE] == FREE:
            return voice
    # Slower voices could be taken away mid-fall, and would click.
    i64p(keys)[K_DROPPED] += 1
    return 0


@inline
def keys_begin(keys: Any, note: Any, velocity: Any, channel: Any, port: Any) -> Any:
    """[audio] Begin a voice; its address, or 0 where a flood of notes has left no room."""
    w = i64p(keys)
    voice = _slot_for_one_more(keys)
    if voice == 0:
        return 0
    v = i64p(voice)
    f = f64p(voice)
    v[V_STATE] = BEGIN
    v[V_NOTE] = note
    v[V_CHANNEL] = channel
    v[V_PORT] = port
    v[V_ORDER] = w[K_ORDER]
    v[V_KEY] = 1
    v[V_SOSTENUTO] = 0
    v[V_CUT] = 0
    f[F_VELOCITY] = velocity
    f[F_TARGET] = np.float64(note)
    f[F_POLY] = 0.0
    last = f64p(keys)[F_LAST]
    f[F_FROM] = last if last >= 0.0 else np.float64(note)
    f64p(keys)[F_LAST] = np.float64(note)
    return voice


@inline
def _note_on(keys: Any, note: Any, velocity: Any, channel: Any, port: Any) -> None:
    w = i64p(keys)
    w[K_ORDER] += 1
    w[_KEYS + note] = w[K_ORDER]
    w[_KEY_CHANNELS + note] = channel
    w[_KEY_PORTS + note] = port
    mono = w[K_MONO] != 0
    taken = 0
    for slot in range(SLOTS):
        voice = voice_of(keys, slot)
        v = i64p(voice)
        if not voice_alive(voice):
            continue
        if mono:
            if v[V_KEY] != 0 and taken == 0:
                # Legato: the voice goes on at another pitch.
                v[V_NOTE] = note
                v[V_CHANNEL] = channel
                v[V_PORT] = port
                f64p(voice)[F_TARGET] = np.float64(note)
                f64p(keys)[F_LAST] = np.float64(note)
                taken = 1
            else:
                voice_cut(voice)
        elif v[V_NOTE] == note and v[V_CHANNEL] == channel and v[V_PORT] == port:
            v[V_KEY] = 0
            v[V_SOSTENUTO] = 0
            v[V_CUT] = 1
    if taken == 0:
        keys_begin(keys, note, velocity, channel, port)


@inline
def _note_off(keys: Any, note: Any, channel: Any, port: Any) -> None:
    w = i64p(keys)
    if w[_KEY_CHANNELS + note] == channel and w[_KEY_PORTS + note] == port:
        w[_KEYS + note] = 0
    back = -1
    if w[K_MONO] != 0:
        order = 0
        for key in range(128):
            if w[_KEYS + key] > order:
                order = w[_KEYS + key]
                back = key
    for slot in range(SLOTS):
        voice = voice_of(keys, slot)
        v = i64p(voice)
        if voice_alive(voice) and v[V_NOTE] == note and v[V_CHANNEL] == channel and v[V_PORT] == port and v[V_KEY] != 0:
            if back >= 0:
                v[V_NOTE] = back
                v[V_CHANNEL] = w[_KEY_CHANNELS + back]
                v[V_PORT] = w[_KEY_PORTS + back]
                f64p(voice)[F_TARGET] = np.float64(back)
                f64p(keys)[F_LAST] = np.float64(back)
            else:
                v[V_KEY] = 0


@inline
def _is_of(keys: Any, key_port: Any, key_channel: Any, port: Any, channel: Any) -> Any:
    """Whether what a port and channel play is meant by a message to a port and a channel, or its manager; -1: any."""
    of_port = port < 0 or key_port == port
    return of_port and (channel < 0 or key_channel == channel or _manager(keys, key_port, key_channel) == channel)


@inline
def _let_go(keys: Any, channel: Any, port: Any, silent: Any) -> None:
    """End the notes of a channel, -1 for all, of a port, -1 for all; at once where ``silent``."""
    w = i64p(keys)
    for key in range(128):
        if _is_of(keys, w[_KEY_PORTS + key], w[_KEY_CHANNELS + key], port, channel):
            w[_KEYS + key] = 0
    for slot in range(SLOTS):
        voice = voice_of(keys, slot)
        v = i64p(voice)
        if not voice_alive(voice) or not _is_of(keys, v[V_PORT], v[V_CHANNEL], port, channel):
            continue
        v[V_KEY] = 0
        v[V_SOSTENUTO] = 0
        v[V_CUT] = 1
        if silent:
            voice_cut(voice)


@inline
def _sostenuto(keys: Any, channel: Any, port: Any, on: Any) -> None:
    w = i64p(_channel(keys, port, channel))
    if w[C_SOSTENUTO] == on:
        return
    w[C_SOSTENUTO] = on
    for slot in range(SLOTS):
        voice = voice_of(keys, slot)
        v = i64p(voice)
        own = v[V_CHANNEL] == channel or _manager(keys, v[V_PORT], v[V_CHANNEL]) == channel
        if voice_alive(voice) and v[V_PORT] == port and own:
            # The pedal takes the keys that are down as it goes down, no later ones.
            v[V_SOSTENUTO] = 1 if on != 0 and v[V_KEY] != 0 else 0


@inline
def _configure(keys: Any, channel: Any, port: Any, value: Any) -> None:
    """Registered parameter 0, range of the bend, or 6, zones."""
    state = _channel(keys, port, channel)
    w = i64p(state)
    if w[C_MSB] != 0:
        return
    if w[C_LSB] == 0:
        manager = _manager(keys, port, channel)
        for other in range(16):
            # Within a zone the range of one member is that of all.
            if other == channel or (manager >= 0 and _manager(keys, port, other) == manager):
                f64p(_channel(keys, port, other))[F_RANGE] = np.float64(value)
    elif w[C_LSB] == 6 and (channel == 0 or channel == 15) and value <= 15:
        # The zone that was set last wins the channels that both claim.
        zones = i64p(keys + 8 * (_ZONES + 2 * (port & (PORTS - 1))))
        mine = 0 if channel == 0 else 1
        zones[mine] = value
        zones[1 - mine] = smaller(zones[1 - mine], larger(0, 14 - value))
        for member in range(16):
            inside = _manager(keys, port, member) == channel
            if inside or member == channel:
                _let_go(keys, member, port, 0)
                msb = w[C_MSB]
                _clear_channel(_channel(keys, port, member), 48.0 if inside else 2.0)
                if member == channel:
                    w[C_MSB] = msb
                    w[C_LSB] = 6


@inline
def _control(keys: Any, channel: Any, port: Any, number: Any, value: Any) -> None:
    state = _channel(keys, port, channel)
    w = i64p(state)
    if number == 64:
        w[C_SUSTAIN] = 1 if value >= 64 else 0
    elif number == 66:
        _sostenuto(keys, channel, port, 1 if value >= 64 else 0)
    elif number == 74:
        f64p(state)[F_TIMBRE] = value / 127.0
    elif number == 101:
        w[C_MSB] = value
    elif number == 100:
        w[C_LSB] = value
    elif number == 98 or number == 99:
        w[C_MSB] = 127
        w[C_LSB] = 127
    elif number == 6:
        _configure(keys, channel, port, value)
    elif number == 38 and w[C_MSB] == 0 and w[C_LSB] == 0:
        f = f64p(state)
        f[F_RANGE] = np.float64(np.int64(larger(f[F_RANGE], 0.0))) + value / 100.0
    elif number == 121:
        f64p(state)[F_BEND] = 0.0
        f64p(state)[F_PRESSURE] = 0.0
        w[C_SUSTAIN] = 0
        _sostenuto(keys, channel, port, 0)
    elif number == 120:
        _let_go(keys, channel, port, 1)
    elif number >= 123:
        _let_go(keys, channel, port, 0)


@inline
def keys_midi(keys: Any, message: Any, port: Any) -> None:
    """[audio] Take a message of one to three bytes, the first lowest, at the present sample."""
    kind = message & 0xF0
    channel = message & 0x0F
    one = (message >> 8) & 0x7F
    two = (message >> 16) & 0x7F
    if message & 0xFF == LET_GO:
        _let_go(keys, -1, port, 0)
        for k in range(PORTS * 16):
            if port < 0 or k // 16 == port & (PORTS - 1):
                w = i64p(keys + 8 * (_CHANNELS + k * _C_WORDS))
                w[C_SUSTAIN] = 0
                w[C_SOSTENUTO] = 0
    elif kind == 0x90 and two > 0:
        _note_on(keys, one, two / 127.0, channel, port)
    elif kind == 0x80 or kind == 0x90:
        _note_off(keys, one, channel, port)
    elif kind == 0xA0:
        for slot in range(SLOTS):
            voice = voice_of(keys, slot)
            v = i64p(voice)
            if voice_alive(voice) and v[V_NOTE] == one and v[V_CHANNEL] == channel and v[V_PORT] == port:
                f64p(voice)[F_POLY] = two / 127.0
    elif kind == 0xB0:
        _control(keys, channel, port, one, two)
    elif kind == 0xD0:
        f64p(_channel(keys, port, channel))[F_PRESSURE] = one / 127.0
    elif kind == 0xE0:
        bend = two * 128 + one - 8192
        f64p(_channel(keys, port, channel))[F_BEND] = bend / 8192.0 if bend < 0 else bend / 8191.0
