"""The audio thread's side of a model in a worker.

Sound goes out in blocks of the model's size, counted from the start of the stream, and comes back a constant number of
samples later: one block, and the margin that the worker has to answer. Just before a block is due the node looks for
its answer. What is not there in time, or is no sound, is replaced, with a fade at either end: the sound before it still
lasts for the length of the fade when this is decided. In its place stands the input, as late as the model would have
made it; or silence; or what came last, held.

Sound is held in grains of the last quarter of a second, each from another place of it, each fading into the next over
all of its second half. A grain begins where the past is most like what the one before goes on with (as in WSOLA,
Verhelst and Roelands, 1993), and the gain of their mixture goes by how alike they are: tones go on without beats, noise
without flutter, and nothing repeats as a buzz. It begins to fade after a quarter of a second and has gone after one. A
control signal keeps its last value.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan.kernels.native import (
    call_foreign,
    f32p,
    f64p,
    i64p,
    inline,
    inline_fast,
    larger,
    load_acquire,
    node,
    smaller,
    store_release,
)
from rtgan.memory import Arena, address_of
from rtgan.params import param_advance
from rtgan.worker.layout import NEEDED, SEMAPHORE, STATUS_BITS, WRITTEN, Layout

(
    _CHANNELS, _STRIDE, _BLOCK, _MASK, _FADE, _PARAMS, _PARAM_COUNT, _SHARED, _REQUESTS, _REQUEST_BYTES, _ANSWERS,
    _ANSWER_BYTES, _LATENCY, _FILL, _WRITTEN, _BASE, _AT, _EPOCH, _BEFORE, _NOW, _NEXT, _POST, _WAIT, _GONE,
) = range(24)  # fmt: skip
# Float words: gain of the input where an answer is missing; answers that were late, and that were no sound.
_DRY, _LATE, _BAD = 24, 25, 26
# How alike the grain that is held and the one before it are.
_ALIKE = 27
# What is held: whether anything is; what was heard last, in rings; what is heard instead of the next piece; the values
# to keep. Then samples heard; those heard when it began; those since then; where two grains are read; a random number.
(
    _HOLDS, _PAST, _PAST_MASK, _INSTEAD, _KEPT, _HEARD, _FROM, _HELD, _OLD, _NEW, _CHANCE, _HOP, _REACH, _MATCH,
    _HISTORY, _FULL, _GONE_AFTER,
) = range(28, 45)  # fmt: skip
_WORDS = 48
#: What may be heard where an answer is missing, and how it is called in a sentence; `keep` is for control signals.
FALLBACKS = {"dry": "its input", "silence": "silence", "hold": "what it last played", "keep": "its last value"}
#: Seconds of half a grain, of the search for its place either way, of what is compared, of what grains are taken from;
#: until what is held begins to fade, and until it has gone.
_HOP_S, _REACH_S, _MATCH_S, _HISTORY_S, _FULL_S, _GONE_S = 0.06, 0.008, 0.008, 0.25, 0.25, 1.0
_MATCH_STEP = 4

_FADE_SAMPLES = 64
#: Least samples that a worker may be given to answer in: the fade lies within them.
LEAST_MARGIN = 16
_WAIT_US = 50


@inline_fast
def _likeness(ring: Any, mask: Any, a: Any, b: Any, count: Any) -> Any:
    """Normalised correlation of two stretches of the past."""
    x = f32p(ring)
    both = np.float32(0.0)
    energy = np.float32(1e-12)
    other = np.float32(1e-12)
    for i in range(0, count, _MATCH_STEP):
        one = x[(a + i) & mask]
        two = x[(b + i) & mask]
        both += one * two
        energy += one * one
        other += two * two
    return np.float64(both) / math.sqrt(np.float64(energy) * np.float64(other))


@inline
def _most_alike(state: Any, about: Any, like: Any) -> Any:
    """The place near ``about`` from which the past is most as it is from ``like``; by the first channel."""
    w = i64p(state)
    best = np.int64(about)
    highest = _likeness(w[_PAST], w[_PAST_MASK], best, like, w[_MATCH])
    for step in (_MATCH_STEP, 1):
        reach = w[_REACH] if step > 1 else _MATCH_STEP - 1
        middle = best
        for k in range(-reach, reach + 1, step):
            likeness = _likeness(w[_PAST], w[_PAST_MASK], middle + k, like, w[_MATCH])
            if likeness > highest:
                highest = likeness
                best = middle + k
    f64p(state)[_ALIKE] = larger(0.0, highest)
    return best


@inline
def _begin_to_hold(state: Any) -> None:
    """From now on it is heard instead: first what goes on as the sound did until now."""
    w = i64p(state)
    w[_FROM] = w[_HEARD]
    w[_HELD] = 0
    mask = w[_PAST_MASK]
    for c in range(w[_CHANNELS]):
        f32p(w[_KEPT])[c] = f32p(w[_PAST] + 4 * c * (mask + 1))[(w[_HEARD] - 1) & mask]
    if w[_HOP] > 0:
        last = w[_HEARD] - w[_MATCH]
        w[_NEW] = _most_alike(state, last - w[_HOP] - w[_REACH] - _MATCH_STEP, last) + w[_MATCH] - w[_HOP]


@inline
def _next_grain(state: Any) -> None:
    w = i64p(state)
    w[_OLD] = w[_NEW] + w[_HOP]
    w[_CHANCE] = (w[_CHANCE] * 1664525 + 1013904223) & 0xFFFFFFFF
    edge = w[_REACH] + _MATCH_STEP
    room = w[_HISTORY] - 2 * w[_HOP] - 2 * edge
    w[_NEW] = _most_alike(state, w[_FROM] - w[_HISTORY] + edge + (w[_CHANCE] >> 8) % room, w[_OLD])


@inline
def _hold(state: Any, count: Any) -> None:
    """Write the next ``count`` samples of what is held beside what is heard."""
    w = i64p(state)
    f = f64p(state)
    size, mask, hop = w[_BLOCK], w[_PAST_MASK], w[_HOP]
    done = 0
    while done < count:
        held = w[_HELD]
        if hop == 0 or held >= w[_GONE_AFTER]:
            many = count - done
            for c in range(w[_CHANNELS]):
                out = f32p(w[_INSTEAD] + 4 * (c * size + done))
                value = f32p(w[_KEPT])[c] if hop == 0 else np.float32(0.0)
                for i in range(many):
                    out[i] = value
        else:
            at = held % hop
            if at == 0:
                _next_grain(state)
            many = smaller(smaller(count - done, hop - at), w[_GONE_AFTER] - held)
            step = 1.0 / np.float64(hop + 1)
            fading = 1.0 / np.float64(w[_GONE_AFTER] - w[_FULL])
            for c in range(w[_CHANNELS]):
                out = f32p(w[_INSTEAD] + 4 * (c * size + done))
                past = f32p(w[_PAST] + 4 * c * (mask + 1))
                for i in range(many):
                    share = np.float64(at + i + 1) * step
                    rest = 1.0 - share
                    gain = 1.0 - np.float64(larger(0, held + i - w[_FULL])) * fading
                    gain = gain * gain / math.sqrt(share * share + rest * rest + 2.0 * share * rest * f[_ALIKE])
                    old = np.float64(past[(w[_OLD] + at + i) & mask])
                    new = np.float64(past[(w[_NEW] + at + i) & mask])
                    out[i] = np.float32((old * rest + new * share) * gain)
        w[_HELD] = held + many
        done += many


@inline
def _decide(state: Any) -> None:
    """Whether the next block has been answered; offline the node waits for that, unless the worker has gone."""
    w = i64p(state)
    f = f64p(state)
    block = w[_BASE] + (w[_AT] + w[_FADE]) // w[_BLOCK]
    answer = w[_ANSWERS] + (block & w[_MASK]) * w[_ANSWER_BYTES]
    while w[_WAIT] != 0 and load_acquire(answer) >> STATUS_BITS != block + 1 and load_acquire(state + 8 * _GONE) == 0:
        call_foreign(w[_WAIT], _WAIT_US, 0, 0, 0)
    found = load_acquire(answer)
    w[_NEXT] = 0
    if found >> STATUS_BITS != block + 1:
        f[_LATE] += 1.0
    elif found & ((1 << STATUS_BITS) - 1) != 0:
        f[_BAD] += 1.0
    else:
        w[_NEXT] = 1
    store_release(w[_SHARED] + 8 * NEEDED, block + 1)
    if w[_HOLDS] != 0 and w[_NOW] != 0 and w[_NEXT] == 0:
        _begin_to_hold(state)


@inline
def _send(state: Any) -> None:
    """Hand the block that is full to the worker, with the values that hold at its end."""
    w = i64p(state)
    request = w[_REQUESTS] + (w[_WRITTEN] & w[_MASK]) * w[_REQUEST_BYTES]
    i64p(request)[0] = w[_EPOCH]
    values = f32p(request + 8 + 4 * w[_CHANNELS] * w[_BLOCK])
    params = i64p(w[_PARAMS])
    for k in range(w[_PARAM_COUNT]):
        values[k] = np.float32(param_advance(params[k], np.float64(w[_BLOCK])))
    w[_WRITTEN] += 1
    w[_FILL] = 0
    store_release(w[_SHARED] + 8 * WRITTEN, w[_WRITTEN])
    if w[_POST] != 0:
        call_foreign(w[_POST], w[_SHARED] + 8 * SEMAPHORE, 0, 0, 0)


@inline
def _take(state: Any, io: Any, count: Any) -> None:
    """Write ``count`` samples of the block that is heard now; no block ends and none is decided within them."""
    w = i64p(state)
    at, size, fade = w[_AT], w[_BLOCK], w[_FADE]
    slot = (w[_BASE] + at // size) & w[_MASK]
    offset = at % size
    # The input of this block still stands in its request.
    wet = w[_ANSWERS] + slot * w[_ANSWER_BYTES] + 8
    dry = w[_REQUESTS] + slot * w[_REQUEST_BYTES] + 8
    rising = w[_NOW] != 0 and w[_BEFORE] == 0 and offset < fade
    falling = w[_NOW] != 0 and w[_NEXT] == 0 and offset >= size - fade
    gain = np.float32(f64p(state)[_DRY])
    if w[_HOLDS] != 0 and (w[_NOW] == 0 or rising or falling):
        _hold(state, count)
        dry = w[_INSTEAD] - 4 * offset
    step = np.float32(1.0) / np.float32(fade + 1)
    for c in range(w[_CHANNELS]):
        x = f32p(dry + 4 * (c * size + offset))
        y = f32p(wet + 4 * (c * size + offset))
        out = f32p(io + 4 * c * w[_STRIDE])
        if w[_NOW] == 0:
            for i in range(count):
                out[i] = x[i] * gain
        elif not (rising or falling):
            for i in range(count):
                out[i] = y[i]
        else:
            for i in range(count):
                share = np.float32(1.0)
                if rising:
                    share = smaller(share, np.float32(offset + i + 1) * step)
                if falling:
                    share = smaller(share, np.float32(size - offset - i) * step)
                out[i] = y[i] * share + x[i] * gain * (np.float32(1.0) - share)
        if w[_HOLDS] != 0:
            mask = w[_PAST_MASK]
            past = f32p(w[_PAST] + 4 * c * (mask + 1))
            for i in range(count):
                past[(w[_HEARD] + i) & mask] = out[i]
    w[_HEARD] += count


@node
def process(state: int, io: int, n: int) -> None:
    """[audio] Sound out, answers in."""
    w = i64p(state)
    size, fade = w[_BLOCK], w[_FADE]
    done = 0
    while done < n:
        at = w[_AT]
        ahead = (at + fade) % size
        if at >= -fade and ahead == 0:
            _decide(state)
        if at >= 0 and at % size == 0:
            w[_BEFORE] = w[_NOW]
            w[_NOW] = w[_NEXT]
        count = smaller(smaller(n - done, size - w[_FILL]), smaller(size - ahead, size - at % size))
        # A fade ends in the middle of nothing that could be told from it: it is a piece of its own.
        if at >= 0 and at % size < fade:
            count = smaller(count, fade - at % size)
        request = w[_REQUESTS] + (w[_WRITTEN] & w[_MASK]) * w[_REQUEST_BYTES] + 8
        for c in range(w[_CHANNELS]):
            x = f32p(io + 4 * (c * w[_STRIDE] + done))
            kept = f32p(request + 4 * (c * size + w[_FILL]))
            for i in range(count):
                kept[i] = x[i]
        if at >= 0:
            _take(state, io + 4 * done, count)
        else:
            for c in range(w[_CHANNELS]):
                x = f32p(io + 4 * (c * w[_STRIDE] + done))
                for i in range(count):
                    x[i] = 0.0
        w[_AT] += count
        w[_FILL] += count
        if w[_FILL] == size:
            _send(state)
        done += count


@node
def reset(state: int, io: int, n: int) -> None:
    """[audio] Begin anew; the worker does so with the first block it gets from now on."""
    w = i64p(state)
    w[_BASE] = w[_WRITTEN]
    w[_FILL] = 0
    w[_AT] = -w[_LATENCY]
    w[_EPOCH] += 1
    w[_BEFORE] = 1
    w[_NOW] = 1
    w[_NEXT] = 1
    if w[_HOLDS] != 0:
        past = f32p(w[_PAST])
        for i in range(w[_CHANNELS] * (w[_PAST_MASK] + 1)):
            past[i] = 0.0
        w[_HEARD] = 0
        w[_CHANCE] = 1
    store_release(w[_SHARED] + 8 * NEEDED, w[_BASE])


def semaphore_functions() -> tuple[Any, int] | None:
    """The C library, and the address of its ``sem_post``; None where semaphores cannot be shared between processes."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    post = ctypes.cast(libc.sem_post, ctypes.c_void_p).value
    return (libc, post) if post else None


@dataclass(frozen=True)
class Side:
    """The audio thread's side, laid out.

    Attributes
    ----------
    words : ndarray of int64
        Its state.
    latency_samples : int
    late_is : str
        One of `FALLBACKS`.
    """

    words: NDArray[np.int64]
    latency_samples: int
    late_is: str

    @property
    def address(self) -> int:
        """What `process` and `reset` take."""
        return address_of(self.words)

    @property
    def readings(self) -> dict[str, int]:
        """Addresses of what others may read: answers that came late, and that were no sound."""
        return {"late": self.address + 8 * _LATE, "bad": self.address + 8 * _BAD}

    @property
    def late(self) -> int:
        """Answers that came late."""
        return int(self.words.view(np.float64)[_LATE])

    @property
    def bad(self) -> int:
        """Answers that were no sound."""
        return int(self.words.view(np.float64)[_BAD])

    def wait(self) -> None:
        """Wait for every answer from now on; before the audio thread gets the node."""
        self.words[_WAIT] = ctypes.cast(ctypes.CDLL(None).usleep, ctypes.c_void_p).value or 0

    def give_up(self) -> None:
        """Wait no more: the worker has gone."""
        self.words[_GONE] = 1


def build(
    arena: Arena, layout: Layout, shared: int, stride_samples: int, margin_samples: int, params: Sequence[int],
    late_is: str = "dry", rate_hz: int = 48000, post: int = 0,
) -> Side:  # fmt: skip
    """Lay out a node [main].

    Parameters
    ----------
    arena : Arena
    layout : Layout
    shared : int
        Address of the shared memory.
    stride_samples : int
        Between the channels of ``io``.
    margin_samples : int
        What the worker has to answer in, from `LEAST_MARGIN`.
    params : sequence of int
        Addresses of the parameters whose values go with every block.
    late_is : str
        What is heard where an answer is missing, one of `FALLBACKS`.
    rate_hz : int
        Of ``io``.
    post : int
        Address of ``sem_post``; 0 for a worker that looks by itself.
    """
    words = arena.int64(_WORDS)
    words[_CHANNELS], words[_STRIDE], words[_BLOCK] = layout.channels, stride_samples, layout.block
    words[_MASK] = layout.slots - 1
    words[_FADE] = min(_FADE_SAMPLES, layout.block // 2, margin_samples)
    words[_PARAMS] = arena.put(np.array(params, np.int64)) if params else 0
    words[_PARAM_COUNT] = len(params)
    words[_SHARED] = shared
    words[_REQUESTS], words[_REQUEST_BYTES] = shared + 8 * layout.requests, 8 * layout.request_words
    words[_ANSWERS], words[_ANSWER_BYTES] = shared + 8 * layout.answers, 8 * layout.answer_words
    words[_LATENCY] = layout.block + margin_samples
    words[_AT] = -words[_LATENCY]
    words[_BEFORE] = words[_NOW] = words[_NEXT] = 1
    words[_POST] = post
    words.view(np.float64)[_DRY] = float(late_is != "silence")
    if late_is in ("hold", "keep"):
        _lay_out_hold(words, arena, layout, rate_hz if late_is == "hold" else 0)
    return Side(words, int(words[_LATENCY]), late_is)


def _lay_out_hold(words: NDArray[np.int64], arena: Arena, layout: Layout, rate_hz: int) -> None:
    """Memory and lengths of what is held; no rate for what keeps its last value."""
    length = 1 << math.ceil((_HISTORY_S + _GONE_S) * rate_hz).bit_length()
    words[_HOLDS], words[_CHANCE] = 1, 1
    words[_PAST], words[_PAST_MASK] = address_of(arena.float32(layout.channels, length)), length - 1
    words[_INSTEAD] = address_of(arena.float32(layout.channels, layout.block))
    words[_KEPT] = address_of(arena.float32(layout.channels))
    for word, seconds in (
        (_HOP, _HOP_S), (_REACH, _REACH_S), (_MATCH, _MATCH_S), (_HISTORY, _HISTORY_S), (_FULL, _FULL_S),
        (_GONE_AFTER, _GONE_S),
    ):  # fmt: skip
        words[word] = int(seconds * rate_hz)


def margin_for(block: int, period_samples: int) -> int:
    """What a worker gets to answer in where nobody says: a block, and always three quarters of its time in truth.

    Blocks are sent and looked for in the device's callbacks, which come once in a period; 0 where that is not known.
    """
    return max(block, LEAST_MARGIN, period_samples + _FADE_SAMPLES + 3 * block // 4 if period_samples else 0)


def slots_for(block: int, margin_samples: int) -> int:
    """Slots that hold every block from its request to its last sample."""
    return 1 << (margin_samples // block + 4).bit_length()
