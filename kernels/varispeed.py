"""A resampler whose speed may change at every block: what keeps two clocks together.

The ratio stays close to one, so one filter serves: a windowed sinc (Kaiser window) that is tabulated at 512
places between two samples, with straight lines between the places (Smith, "Digital Audio Resampling", 2002). At
a speed of exactly 1 and a whole position the samples pass as they are, late by `AHEAD`.

Use inside a node, on raw addresses::

    push(state, source, stride, wanted(state, speed, n))
    pull(state, target, stride, speed, n)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from .fft import Allocate, aligned
from .native import f32p, f64p, i64p, inline, kernel
from .resample import dot

Floats = NDArray[np.float32]

# Words of the state: channels, address of the table, address of the first channel's history, samples in it (a power
# of two, kept twice), bytes to the next, inputs so far, whole part of the next output's position.
CHANNELS, TABLE, HISTORY, LENGTH, HISTORY_STRIDE, WRITTEN, WHOLE = range(7)
#: Float word: the rest of the position, 0 to 1.
FRACTION = 7
#: Two float32 for the two places around a position.
_PAIR = 8
_HEADER = 16

PLACES, TAPS = 512, 48
#: Samples after a position that its output waits for.
AHEAD = TAPS // 2
_BETA = 10.06  # 100 dB


@inline
def reset(state: int) -> None:
    """Forget everything heard."""
    s = i64p(state)
    s[WRITTEN] = 0
    s[WHOLE] = 0
    f64p(state)[FRACTION] = 0.0
    history = f32p(s[HISTORY])
    for i in range(s[CHANNELS] * s[HISTORY_STRIDE] // 4):
        history[i] = 0.0


@inline
def wanted(state: int, speed: float, n: int) -> int:
    """Count the inputs that must be pushed before ``n`` outputs can be pulled at this speed."""
    s = i64p(state)
    if n == 0:
        return 0
    last = s[WHOLE] + np.int64(f64p(state)[FRACTION] + speed * (n - 1))
    # One more than the last output needs: its position is summed up in steps and may be rounded another way.
    need = last + AHEAD + 2 - s[WRITTEN]
    return need if need > 0 else 0


@inline
def push(state: int, source: int, width: int, n: int) -> None:
    """Take ``n`` interleaved frames of ``width`` float32; the first channels of them are used."""
    s = i64p(state)
    length = s[LENGTH]
    written = s[WRITTEN]
    samples = f32p(source)
    for channel in range(s[CHANNELS]):
        history = f32p(s[HISTORY] + channel * s[HISTORY_STRIDE])
        for i in range(n):
            at = (written + i) & (length - 1)
            history[at] = samples[i * width + channel]
            history[at + length] = samples[i * width + channel]
    s[WRITTEN] = written + n


@inline
def pull(state: int, target: int, width: int, speed: float, n: int) -> None:
    """Write ``n`` interleaved frames, each ``speed`` inputs after the one before."""
    s = i64p(state)
    mask = s[LENGTH] - 1
    whole, fraction = s[WHOLE], f64p(state)[FRACTION]
    pair = f32p(state + 8 * _PAIR)
    frames = f32p(target)
    for i in range(n):
        place = fraction * PLACES
        below = np.int64(place)
        between = np.float32(place - below)
        oldest = 4 * ((whole + AHEAD + 1 - TAPS) & mask)
        table = s[TABLE] + 4 * TAPS * below
        for channel in range(s[CHANNELS]):
            history = s[HISTORY] + channel * s[HISTORY_STRIDE] + oldest
            dot(history, table, TAPS, state + 8 * _PAIR)
            dot(history, table + 4 * TAPS, TAPS, state + 8 * _PAIR + 4)
            frames[i * width + channel] = pair[0] + between * (pair[1] - pair[0])
        fraction += speed
        step = np.int64(fraction)
        whole += step
        fraction -= step
    s[WHOLE] = whole
    f64p(state)[FRACTION] = fraction


@cache
def _table() -> Floats:
    """Taps for each place and the one behind the last, oldest input first."""
    distance = np.arange(AHEAD + 1 - TAPS, AHEAD + 1) - np.arange(PLACES + 1)[:, None] / PLACES
    inside = np.sqrt(np.maximum(1 - (distance / AHEAD) ** 2, 0))
    table = np.where(np.abs(distance) < AHEAD, np.sinc(distance) * np.i0(_BETA * inside), 0.0)
    table /= table.sum(axis=1, keepdims=True)
    return table.astype(np.float32)


@dataclass(frozen=True)
class Varispeed:
    """A variable resampler that is ready to run; keep it alive as long as a node uses `address`.

    Attributes
    ----------
    memory
        The state, an int64 block with all buffers behind it.
    channels, max_block
        As given to `build`.
    """

    memory: NDArray[np.int64]
    channels: int
    max_block: int

    @property
    def address(self) -> int:
        """Address of the state, the first argument of all functions here."""
        return int(self.memory.ctypes.data)

    def process(self, x: Floats, speed: float, n: int) -> Floats:
        """Write the next ``n`` outputs (n, channels), from frames ``x`` that hold at least the inputs they need.

        What ``x`` holds beyond is left; the number taken is ``memory[WRITTEN]`` after less before.
        """
        out = np.empty((n, self.channels), np.float32)
        if n > self.max_block or x.shape[1:] != (self.channels,):
            raise ValueError(f"at most {self.max_block} frames of {self.channels} channels are possible")
        if not _process(self.memory, np.ascontiguousarray(x, np.float32), out, speed):
            raise ValueError("the outputs need more inputs than there are")
        return out


@kernel(types.boolean(types.int64[::1], types.float32[:, ::1], types.float32[:, ::1], types.float64))
def _process(memory: Any, x: Any, out: Any, speed: float) -> bool:
    need = wanted(memory.ctypes.data, speed, out.shape[0])
    if need > x.shape[0]:
        return False
    push(memory.ctypes.data, x.ctypes.data, x.shape[1], need)
    pull(memory.ctypes.data, out.ctypes.data, out.shape[1], speed, out.shape[0])
    return True


@kernel(types.void(types.int64[::1]))
def _reset(memory: Any) -> None:
    reset(memory.ctypes.data)


def build(channels: int, max_block: int, *, allocate: Allocate = aligned) -> Varispeed:
    """Lay out and fill the state of a variable resampler.

    The pass band reaches 0.41 of the sample rate; speeds from 0.9 to 1.1 are meant.

    Parameters
    ----------
    channels
        Channels, resampled alike.
    max_block
        Most outputs pulled at once.
    allocate
        Source of zeroed int64 memory that starts at a multiple of 64 bytes, given the number of words.

    Returns
    -------
    Varispeed
        The state, reset.

    Raises
    ------
    ValueError
        When a count is not positive.
    """
    if min(channels, max_block) < 1:
        raise ValueError("channels and block size of a resampler must be positive")
    table = _table()
    length = 1 << (max_block + max_block // 8 + 2 * TAPS).bit_length()
    memory = allocate(_HEADER + table.size // 2 + channels * length)
    memory[_HEADER : _HEADER + table.size // 2].view(np.float32)[:] = table.ravel()
    start = memory.ctypes.data
    memory[CHANNELS], memory[TABLE] = channels, start + 8 * _HEADER
    memory[HISTORY] = start + 8 * (_HEADER + table.size // 2)
    memory[LENGTH], memory[HISTORY_STRIDE] = length, 8 * length
    _reset(memory)
    return Varispeed(memory, channels, max_block)
