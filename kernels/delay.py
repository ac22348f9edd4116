"""Delay by a whole number of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from .fft import Allocate, aligned
from .native import f32p, i64p, inline, kernel, smaller

#: Words of the state: delay in samples, channels, place in the ring; the rings lie behind.
SAMPLES, CHANNELS, PLACE = 0, 1, 2
_HEADER = 8


@inline
def delay(state: int, io: int, stride: int, n: int) -> None:
    """Delay ``n`` samples of each planar channel, in place."""
    s = i64p(state)
    length = s[SAMPLES]
    done = 0
    while length > 0 and done < n:
        place = s[PLACE]
        count = smaller(n - done, length - place)
        for channel in range(s[CHANNELS]):
            x = f32p(io + 4 * (channel * stride + done))
            ring = f32p(state + 8 * _HEADER + 4 * (channel * length + place))
            for i in range(count):
                value = x[i]
                x[i] = ring[i]
                ring[i] = value
        done += count
        s[PLACE] = 0 if place + count == length else place + count


@inline
def delay_reset(state: int) -> None:
    """Forget everything heard."""
    s = i64p(state)
    s[PLACE] = 0
    ring = f32p(state + 8 * _HEADER)
    for i in range(s[CHANNELS] * s[SAMPLES]):
        ring[i] = 0.0


def build(samples: int, channels: int, *, allocate: Allocate = aligned) -> NDArray[np.int64]:
    """State of a delay line, an int64 block; keep it alive as long as its address is used.

    Raises
    ------
    ValueError
        For a negative delay or no channels.
    """
    if samples < 0 or channels < 1:
        raise ValueError(f"a delay of {samples} samples on {channels} channels is not possible")
    memory = allocate(_HEADER + (samples * channels + 1) // 2)
    memory[SAMPLES], memory[CHANNELS] = samples, channels
    return memory


@kernel(types.void(types.int64[::1], types.float32[:, ::1]))
def delay_array(memory: Any, x: Any) -> None:
    """`delay` on ``x`` (channels, samples), in place."""
    if memory[CHANNELS] != x.shape[0]:
        raise ValueError("the delay line has another number of channels")
    delay(memory.ctypes.data, x.ctypes.data, x.shape[1], x.shape[1])
