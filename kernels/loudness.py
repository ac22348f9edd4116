"""Loudness as a stream: ITU-R BS.1770-4, with the windows and gates of EBU Tech 3341.

The sound is K-weighted by two biquads, squared, and summed over segments of 10 ms. Momentary loudness is that of the
last 40 segments, short-term loudness that of the last 300, both renewed with every segment; integrated loudness
gates blocks of 400 ms that begin every 100 ms, at -70 LUFS and 10 LU below what passes that. All channels weigh the
same, as left, right and centre do. Nothing depends on how the samples are cut into blocks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from . import filters
from .fft import Allocate, aligned
from .native import f32p, f64p, i64p, inline, kernel, larger, smaller

#: Words of a meter: channels, samples of a segment, of which so many are in; whole segments so far; as floats the
#: momentary, short-term and integrated loudness in LUFS, and the power of the momentary window.
CHANNELS, SEGMENT, FILL, COUNT, MOMENTARY, SHORT_TERM, INTEGRATED, POWER, _GATED, _GATED_POWER = range(10)
#: Segments of the two windows, and from one gating block to the next.
MOMENTARY_SEGMENTS, SHORT_TERM_SEGMENTS, STEP_SEGMENTS = 40, 300, 10
#: What silence reads, and nothing below it: the absolute gate.
FLOOR_LUFS = -70.0
_RELATIVE_LU = 10.0
#: Blocks are counted in bins of a fiftieth of a loudness unit, from the gate to 10 LUFS.
_BINS, _PER_LU = 4000, 50.0
_PIECE = 64
_COEFFICIENTS = 16
_SCRATCH = _COEFFICIENTS + 2 * filters.COEFFICIENTS
_RING = _SCRATCH + _PIECE // 2
_BIN_COUNTS = _RING + SHORT_TERM_SEGMENTS
_BIN_POWERS = _BIN_COUNTS + _BINS
_CHANNEL = _BIN_POWERS + _BINS
#: Words of a channel: sum of squares of the segment, filter states.
_CHANNEL_WORDS = 1 + 2 * filters.STATE


def k_weighting(sample_rate_hz: float) -> NDArray[np.float64]:
    """Coefficients (2, 5) of the head's shelf and the low cut, for any rate.

    The standard gives them for 48 kHz only. These come from the analogue filters behind them (Brecht De Man,
    "Evaluation of implementations of the EBU R128 loudness measurement", AES 145, 2018) by the bilinear transform.
    """
    k = math.tan(math.pi * 1681.974450955533 / sample_rate_hz)
    q = 0.7071752369554196
    high = 10.0 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    a0 = 1 + k / q + k * k
    shelf = [
        (high + band * k / q + k * k) / a0, 2 * (k * k - high) / a0, (high - band * k / q + k * k) / a0,
        2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0,
    ]  # fmt: skip
    k = math.tan(math.pi * 38.13547087602444 / sample_rate_hz)
    q = 0.5003270373238773
    a0 = 1 + k / q + k * k
    return np.array([shelf, [1, -2, 1, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]])


def build(sample_rate_hz: int, channels: int, *, allocate: Allocate = aligned) -> NDArray[np.int64]:
    """State of a meter, an int64 block; keep it alive as long as its address is used."""
    if sample_rate_hz < 1000 or channels < 1:
        raise ValueError(f"loudness cannot be measured at {sample_rate_hz} Hz on {channels} channels")
    memory = allocate(_CHANNEL + _CHANNEL_WORDS * channels)
    memory[CHANNELS], memory[SEGMENT] = channels, round(sample_rate_hz / 100)
    memory[_COEFFICIENTS:_SCRATCH].view(np.float64)[:] = k_weighting(sample_rate_hz).ravel()
    reset_array(memory)
    return memory


@inline
def lufs(power: float) -> float:
    """Loudness of the K-weighted power of all channels together, at least `FLOOR_LUFS`."""
    if power <= 1.1724653e-7:  # that of the floor
        return FLOOR_LUFS
    return -0.691 + (10.0 / math.log(10.0)) * math.log(power)


@inline
def reset(state: int) -> None:
    """Forget everything heard."""
    w = i64p(state)
    f = f64p(state)
    w[FILL] = 0
    w[COUNT] = 0
    for i in range(MOMENTARY, INTEGRATED + 1):
        f[i] = FLOOR_LUFS
    for i in range(POWER, _GATED_POWER + 1):
        f[i] = 0.0
    for i in range(_RING, _CHANNEL + _CHANNEL_WORDS * w[CHANNELS]):
        f[i] = 0.0


@inline
def _integrate(state: int, power: float) -> None:
    """Take a gating block into the histogram, and read the integrated loudness off it."""
    f = f64p(state)
    counts = f64p(state + 8 * _BIN_COUNTS)
    powers = f64p(state + 8 * _BIN_POWERS)
    loudness = lufs(power)
    if loudness <= FLOOR_LUFS:
        return
    place = smaller(np.int64((loudness - FLOOR_LUFS) * _PER_LU), _BINS - 1)
    counts[place] += 1.0
    powers[place] += power
    f[_GATED] += 1.0
    f[_GATED_POWER] += power
    gate = lufs(f[_GATED_POWER] / f[_GATED]) - _RELATIVE_LU
    first = np.int64(larger(gate - FLOOR_LUFS, 0.0) * _PER_LU)
    count = 0.0
    total = 0.0
    for i in range(first, _BINS):
        count += counts[i]
        total += powers[i]
    f[INTEGRATED] = lufs(total / count)


@inline
def _segment(state: int) -> None:
    """Close a segment: renew what can be read."""
    w = i64p(state)
    f = f64p(state)
    ring = f64p(state + 8 * _RING)
    power = 0.0
    for channel in range(w[CHANNELS]):
        own = f64p(state + 8 * (_CHANNEL + _CHANNEL_WORDS * channel))
        power += own[0]
        own[0] = 0.0
    ring[w[COUNT] % SHORT_TERM_SEGMENTS] = power / w[SEGMENT]
    w[COUNT] += 1
    total = 0.0
    # From the newest backwards; what has not been yet is silence.
    for k in range(SHORT_TERM_SEGMENTS):
        total += ring[(w[COUNT] + SHORT_TERM_SEGMENTS - 1 - k) % SHORT_TERM_SEGMENTS]
        if k == MOMENTARY_SEGMENTS - 1:
            f[POWER] = total / MOMENTARY_SEGMENTS
    f[MOMENTARY] = lufs(f[POWER])
    f[SHORT_TERM] = lufs(total / SHORT_TERM_SEGMENTS)
    if w[COUNT] >= MOMENTARY_SEGMENTS and w[COUNT] % STEP_SEGMENTS == 0:
        _integrate(state, f[POWER])


@inline
def measure(state: int, io: int, stride: int, n: int) -> None:
    """Take ``n`` float32 of each planar channel into a meter; they are only read."""
    w = i64p(state)
    scratch = f32p(state + 8 * _SCRATCH)
    done = 0
    while done < n:
        count = smaller(smaller(n - done, w[SEGMENT] - w[FILL]), _PIECE)
        for channel in range(w[CHANNELS]):
            x = f32p(io + 4 * (channel * stride + done))
            at = state + 8 * (_CHANNEL + _CHANNEL_WORDS * channel)
            for i in range(count):
                scratch[i] = x[i]
            filters.cascade(state + 8 * _COEFFICIENTS, 2, at + 8, state + 8 * _SCRATCH, count)
            total = f64p(at)[0]
            for i in range(count):
                value = np.float64(scratch[i])
                total += value * value
            f64p(at)[0] = total
        done += count
        w[FILL] += count
        if w[FILL] == w[SEGMENT]:
            w[FILL] = 0
            _segment(state)


# --- For Python ------------------------------------------------------------------------------------------------


@kernel(types.void(types.int64[::1]))
def reset_array(memory: Any) -> None:
    """`reset` of a meter made by `build`."""
    reset(memory.ctypes.data)


@kernel(types.void(types.int64[::1], types.float32[:, ::1]))
def measure_array(memory: Any, x: Any) -> None:
    """`measure` of ``x`` (channels, samples)."""
    if memory[CHANNELS] != x.shape[0]:
        raise ValueError("the meter has another number of channels")
    measure(memory.ctypes.data, x.ctypes.data, x.shape[1], x.shape[1])
