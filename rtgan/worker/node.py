"""The audio thread's side of a model in a worker.

Sound goes out in blocks of the model's size, counted from the start of the stream, and comes back a constant number of
samples later: one block, and the margin that the worker has to answer. Just before a block is due the node looks for
its answer. What is not there in time, or is no sound, is replaced by the input, as late as the model would have made
it, with a fade at either end: the sound before it still lasts for the length of the fade when this is decided.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan.kernels.native import call_foreign, f32p, f64p, i64p, inline, load_acquire, node, smaller, store_release
from rtgan.memory import Arena, address_of
from rtgan.params import param_advance
from rtgan.worker.layout import NEEDED, SEMAPHORE, STATUS_BITS, WRITTEN, Layout

(
    _CHANNELS, _STRIDE, _BLOCK, _MASK, _FADE, _PARAMS, _PARAM_COUNT, _SHARED, _REQUESTS, _REQUEST_BYTES, _ANSWERS,
    _ANSWER_BYTES, _LATENCY, _FILL, _WRITTEN, _BASE, _AT, _EPOCH, _BEFORE, _NOW, _NEXT, _POST, _WAIT, _GONE,
) = range(24)  # fmt: skip
# Float words: gain of the input where an answer is missing; answers that were late, and that were no sound.
_DRY, _LATE, _BAD = 24, 25, 26
_WORDS = 32

_FADE_SAMPLES = 64
#: Least samples that a worker may be given to answer in: the fade lies within them.
LEAST_MARGIN = 16
_WAIT_US = 50


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
    """

    words: NDArray[np.int64]
    latency_samples: int

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
    dry: float = 1.0, post: int = 0,
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
    dry : float
        Gain of the input where an answer is missing.
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
    words.view(np.float64)[_DRY] = dry
    return Side(words, int(words[_LATENCY]))


def margin_for(block: int, period_samples: int) -> int:
    """What a worker gets to answer in where nobody says: a block, and always three quarters of its time in truth.

    Blocks are sent and looked for in the device's callbacks, which come once in a period; 0 where that is not known.
    """
    return max(block, LEAST_MARGIN, period_samples + _FADE_SAMPLES + 3 * block // 4 if period_samples else 0)


def slots_for(block: int, margin_samples: int) -> int:
    """Slots that hold every block from its request to its last sample."""
    return 1 << (margin_samples // block + 4).bit_length()
