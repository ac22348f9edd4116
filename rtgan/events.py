"""Events with sample offsets, and the lock-free ring that carries them to and from the audio thread.

One record is eight 64-bit words: kind, time in samples, two integers, four floats. The same single-producer,
single-consumer ring serves both directions: the inbox (main to audio: parameter changes, fades) and the
telemetry (audio to main: what happened, and when, to the sample). Neither side ever waits: a full ring
refuses the record and counts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from rtgan.kernels.native import f64p, i64p, inline, kernel, load_acquire, store_release
from rtgan.memory import Arena, address_of

# Kinds of records.
#: inbox: a = parameter index, b = serial of the graph it is meant for (0: the host), x = plain value,
#: y = samples of the ramp (0: the parameter's own)
SET_PARAM = 1
FADE_OUT = 2  #: inbox: ramp the output to silence and stay there
FADE_IN = 3  #: inbox: come back
RESET = 4  #: inbox: every node back to zero state
MIDI = 5  #: inbox and native ring: a = the bytes of a message, first lowest; b = port
PLAY = 9  #: inbox: a, b as in MIDI, for the nodes that play notes alone: a performance again, whose routes are known
PANIC = 6  #: inbox: silence, every node back to zero, what is held let go; then sound comes back
LET_GO = 7  #: inbox: retire the graph that runs beside the one that is heard, if it is b
STEP = 8  #: inbox: a = node index, b = graph serial, x = how much it may do: `FULL`, `LEAN` or `OUT`

APPLIED = 16  #: telemetry: a parameter change took effect; a, b, x, y as in SET_PARAM
METER = 17  #: telemetry: x = in peak, y = out peak, z = in mean square, w = out mean square; a = samples
FAULT = 18  #: telemetry: a = node index, b = graph serial; the node put out a non-finite value
RECOVERED = 19  #: telemetry: a = node index, b = graph serial
SWAP_BEGUN = 20  #: telemetry: a graph was taken from the mailbox; b = its serial
SWAP_DONE = 21  #: telemetry: b = serial of the graph now playing alone, a = serial of the one retired
STOPPED = 22  #: telemetry: the fade-out has reached silence
HEARD = 23  #: telemetry: a MIDI message took effect; a, b as in MIDI
ACTION = 24  #: telemetry: a controller asks for something only Python can do; a = action, b = graph serial, x = value
PANICKED = 25  #: telemetry: a panic begins
TAPING = 26  #: telemetry: the tape runs from here on
TAPE_LOST = 27  #: telemetry: a = frames that found no room on the tape, b = how many before them did
DEVICE_GONE = 28  #: from the host: the device calls no more
DEVICE_BACK = 29  #: from the host: it does again, or another one of its name
LOUDNESS = 30  #: telemetry: x, y = K-weighted power of 400 ms before and behind the graph b; a = segments so far

STEPPED = 31  #: telemetry: a, b, x as in STEP; y = load at that time. Who comes back is heard from RECOVERED on

#: What a node may do: all it can; with less; nothing, while its input passes.
FULL, LEAN, OUT = 0, 1, 2

#: "As soon as possible" as an event time.
NOW = -1

_WRITE, _READ, _MASK, _DROPPED, _RECORDS = 0, 8, 16, 17, 24
WORDS = 8


@inline
def ring_push(ring: Any, kind: Any, when: Any, a: Any, b: Any, x: Any, y: Any, z: Any, w: Any) -> Any:
    """[producer] Append a record; returns 1, or 0 if the ring was full."""
    r = i64p(ring)
    write = r[_WRITE]
    if write - load_acquire(ring + 8 * _READ) > r[_MASK]:
        r[_DROPPED] += 1
        return 0
    at = ring + 8 * (_RECORDS + WORDS * (write & r[_MASK]))
    words = i64p(at)
    floats = f64p(at)
    words[0] = kind
    words[1] = when
    words[2] = a
    words[3] = b
    floats[4] = x
    floats[5] = y
    floats[6] = z
    floats[7] = w
    store_release(ring + 8 * _WRITE, write + 1)
    return 1


@inline
def ring_peek(ring: Any) -> Any:
    """[consumer] Address of the oldest record, 0 if there is none."""
    r = i64p(ring)
    read = r[_READ]
    if load_acquire(ring + 8 * _WRITE) == read:
        return 0
    return ring + 8 * (_RECORDS + WORDS * (read & r[_MASK]))


@inline
def ring_drop(ring: Any) -> None:
    """[consumer] Release the oldest record."""
    store_release(ring + 8 * _READ, i64p(ring)[_READ] + 1)


@inline
def ring_refused(ring: Any) -> Any:
    """[any] How many records have found no room."""
    return i64p(ring)[_DROPPED]


# --- records in the order of time ---

_COUNT, _ORDER, _HEAP = 0, 1, 8
_KEY, _SEQUENCE = WORDS, WORDS + 1
_SLOT = WORDS + 2
#: Records that wait on the audio thread for their time.
WAITING = 8192
#: Words of the memory that holds them.
WAITING_WORDS = _HEAP + _SLOT * WAITING


@inline
def _copy(target: Any, source: Any, words: Any) -> None:
    t = i64p(target)
    s = i64p(source)
    for i in range(words):
        t[i] = s[i]


@inline
def _earlier(one: Any, other: Any) -> Any:
    a = i64p(one)
    b = i64p(other)
    return a[_KEY] < b[_KEY] or (a[_KEY] == b[_KEY] and a[_SEQUENCE] < b[_SEQUENCE])


@inline
def waiting_room(heap: Any) -> Any:
    """[audio] How many more records fit."""
    return WAITING - i64p(heap)[_COUNT]


@inline
def waiting_add(heap: Any, record: Any, when: Any) -> None:
    """[audio] Take a record, to be given back in the order of ``when``; equals in the order of arrival."""
    h = i64p(heap)
    at = h[_COUNT]
    h[_COUNT] += 1
    while at > 0:
        above = (at - 1) >> 1
        if i64p(heap + 8 * (_HEAP + _SLOT * above))[_KEY] <= when:
            break
        _copy(heap + 8 * (_HEAP + _SLOT * at), heap + 8 * (_HEAP + _SLOT * above), _SLOT)
        at = above
    slot = heap + 8 * (_HEAP + _SLOT * at)
    _copy(slot, record, WORDS)
    i64p(slot)[_KEY] = when
    i64p(slot)[_SEQUENCE] = h[_ORDER]
    h[_ORDER] += 1


@inline
def waiting_time(heap: Any, none: Any) -> Any:
    """[audio] Time of the first record; ``none`` if there is none."""
    h = i64p(heap)
    return h[_HEAP + _KEY] if h[_COUNT] > 0 else none


@inline
def waiting_take(heap: Any, record: Any) -> None:
    """[audio] Move the first record to ``record``; there must be one."""
    h = i64p(heap)
    _copy(record, heap + 8 * _HEAP, WORDS)
    h[_COUNT] -= 1
    count = h[_COUNT]
    last = heap + 8 * (_HEAP + _SLOT * count)
    at = 0
    while True:
        below = 2 * at + 1
        if below >= count:
            break
        first = heap + 8 * (_HEAP + _SLOT * below)
        if below + 1 < count and _earlier(first + 8 * _SLOT, first):
            first += 8 * _SLOT
            below += 1
        if _earlier(last, first):
            break
        _copy(heap + 8 * (_HEAP + _SLOT * at), first, _SLOT)
        at = below
    if at != count:
        _copy(heap + 8 * (_HEAP + _SLOT * at), last, _SLOT)


_I = types.int64
_F = types.float64


@kernel(types.int64(_I, _I, _I, _I, _I, _F, _F, _F, _F))
def _push(ring: Any, kind: Any, when: Any, a: Any, b: Any, x: Any, y: Any, z: Any, w: Any) -> Any:
    return ring_push(ring, kind, when, a, b, x, y, z, w)


@kernel(types.int64(_I, types.int64[::1], types.float64[::1]))
def _pop(ring: Any, words: Any, floats: Any) -> Any:
    at = ring_peek(ring)
    if at == 0:
        return 0
    for i in range(4):
        words[i] = i64p(at)[i]
        floats[i] = f64p(at)[4 + i]
    ring_drop(ring)
    return 1


@dataclass(frozen=True)
class Record:
    """One record out of a ring."""

    kind: int
    when: int
    a: int = 0
    b: int = 0
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    w: float = 0.0


class Ring:
    """The Python end of a record ring.

    Parameters
    ----------
    arena : Arena
        Where the ring lives.
    capacity : int
        Records it holds; a power of two.
    """

    def __init__(self, arena: Arena, capacity: int = 1024) -> None:
        if capacity & (capacity - 1):
            raise ValueError("the capacity of a ring is a power of two")
        self._memory = arena.int64(_RECORDS + WORDS * capacity)
        self._memory[_MASK] = capacity - 1
        self.address = address_of(self._memory)
        self._words: NDArray[np.int64] = np.zeros(4, np.int64)
        self._floats: NDArray[np.float64] = np.zeros(4, np.float64)

    def push(self, record: Record) -> bool:
        """[main, one producer at a time] Append; False if full."""
        r = record
        return bool(_push(self.address, r.kind, r.when, r.a, r.b, r.x, r.y, r.z, r.w))

    def drain(self) -> list[Record]:
        """[main, one consumer at a time] Everything that has arrived."""
        found = []
        while _pop(self.address, self._words, self._floats):
            w, f = self._words.tolist(), self._floats.tolist()
            found.append(Record(w[0], w[1], w[2], w[3], f[0], f[1], f[2], f[3]))
        return found

    @property
    def empty(self) -> bool:
        """Whether the consumer has taken everything."""
        return bool(self._memory[_WRITE] == self._memory[_READ])

    @property
    def dropped(self) -> int:
        """Records refused because the ring was full."""
        return int(self._memory[_DROPPED])
