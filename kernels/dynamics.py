"""Gain that follows level: compressor, de-esser, and the gain of a limiter that looks ahead.

Every kernel measures all channels together and writes one gain per sample; `apply` multiplies. States are words in
raw memory, float64 where nothing else is said. Nothing here depends on how the samples are cut into blocks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from .fft import Allocate, aligned
from .native import f32p, f64p, i64p, inline, kernel, larger, smaller

_DB = math.log(10.0) / 20.0
_TO_DB = 20.0 / math.log(10.0)
#: Below any sound: what the logarithm of silence is held at.
_SILENCE = 1e-10


@inline
def apply(gains: int, io: int, channels: int, stride: int, n: int) -> None:
    """Multiply all channels by ``n`` float32 gains, in place."""
    g = f32p(gains)
    for channel in range(channels):
        x = f32p(io + 4 * channel * stride)
        for i in range(n):
            x[i] *= g[i]


def smoothing(time_ms: float, sample_rate_hz: float) -> float:
    """Part of the old value that a one-pole average of this time constant keeps per sample."""
    return math.exp(-1000.0 / (time_ms * sample_rate_hz))


# --- Compressor ------------------------------------------------------------------------------------------------

#: Words of a compressor: threshold and width of the knee in dB, 1 - 1/ratio, what attack and release keep per
#: sample; then its state: released and smoothed reduction in dB.
C_THRESHOLD, C_KNEE, C_SLOPE, C_ATTACK, C_RELEASE, C_HELD, C_REDUCTION = range(7)
COMPRESSOR_WORDS = 7


@inline
def compress(state: int, io: int, channels: int, stride: int, n: int, gains: int) -> None:
    """Write the gains of a feed-forward compressor for ``n`` samples, which are only read.

    A quadratic knee in decibels, and the smooth decoupled peak detector on the reduction: Giannoulis, Massberg and
    Reiss, "Digital dynamic range compressor design - a tutorial and analysis", JAES 60 (2012), equations 4 and 17.
    """
    w = f64p(state)
    g = f32p(gains)
    threshold, knee, slope = w[C_THRESHOLD], w[C_KNEE], w[C_SLOPE]
    attack, release = w[C_ATTACK], w[C_RELEASE]
    held, reduction = w[C_HELD], w[C_REDUCTION]
    for i in range(n):
        peak = _SILENCE
        for channel in range(channels):
            peak = larger(peak, abs(np.float64(f32p(io + 4 * channel * stride)[i])))
        over = _TO_DB * math.log(peak) - threshold
        wanted = 0.0
        if 2.0 * over >= knee:
            wanted = slope * over
        elif 2.0 * over > -knee:
            wanted = slope * (over + 0.5 * knee) * (over + 0.5 * knee) / (2.0 * knee)
        held = larger(wanted, release * held + (1.0 - release) * wanted)
        reduction = attack * reduction + (1.0 - attack) * held
        g[i] = np.float32(math.exp(-reduction * _DB))
    w[C_HELD], w[C_REDUCTION] = held, reduction


# --- De-esser --------------------------------------------------------------------------------------------------

#: Words of a de-esser: tangent of half the corner's angle, share of the band in the power of the whole sound that is
#: let alone, most reduction, both in dB; what detector, attack, release and the memory of loudness keep per sample;
#: then its state: both powers, the largest of late, and the reduction in dB. Behind them two words of filter state for
#: each channel.
(
    D_CORNER, D_THRESHOLD_DB, D_RANGE_DB, D_DETECT, D_ATTACK, D_RELEASE, D_FADE, D_BAND, D_WHOLE, D_LOUD, D_REDUCTION,
) = range(11)  # fmt: skip
D_FILTERS = 12
_BUTTERWORTH = math.sqrt(2.0)
#: What is this much softer than the voice was just now, 20 dB, is no s but the room's hiss; nor is what is softer than
#: -65 dBFS.
_ASIDE, _FAINT = 10.0**-2, 10.0**-6.5


@inline
def deess(state: int, io: int, channels: int, stride: int, n: int) -> None:
    """Turn down what lies above the corner while it holds too much of the sound, in place.

    A high shelf of moving gain from one state-variable filter of fixed corner (Zavalishin, "The Art of VA Filter
    Design", 2018), so that nothing but a factor moves; a reduction of 0 dB passes every bit.
    """
    w = f64p(state)
    corner = w[D_CORNER]
    a1 = 1.0 / (1.0 + corner * (corner + _BUTTERWORTH))
    a2 = corner * a1
    a3 = corner * a2
    detect, attack, release, fade = w[D_DETECT], w[D_ATTACK], w[D_RELEASE], w[D_FADE]
    band, whole, loud, reduction = w[D_BAND], w[D_WHOLE], w[D_LOUD], w[D_REDUCTION]
    for i in range(n):
        high_power = 0.0
        power = 0.0
        # The gain is that of the samples before, so that one pass filters, measures and turns down.
        root = math.exp(-0.5 * reduction * _DB)
        shelf = root * root - 1.0
        middle_gain = (root - 1.0) * _BUTTERWORTH
        for channel in range(channels):
            s = f64p(state + 8 * (D_FILTERS + 2 * channel))
            x = f32p(io + 4 * channel * stride)
            value = np.float64(x[i])
            given = value - s[1]
            middle = a1 * s[0] + a2 * given
            low = s[1] + a2 * s[0] + a3 * given
            s[0] = 2.0 * middle - s[0]
            s[1] = 2.0 * low - s[1]
            high = value - _BUTTERWORTH * middle - low
            high_power += high * high
            power += value * value
            x[i] = np.float32(value + shelf * high + middle_gain * middle)
        band = detect * band + (1.0 - detect) * (high_power / channels)
        whole = detect * whole + (1.0 - detect) * (power / channels)
        loud = larger(whole, fade * loud)
        wanted = 0.0
        if band > larger(_ASIDE * loud, _FAINT):
            # A band with more power than the whole has the phase to thank for it.
            share_db = 0.5 * _TO_DB * math.log(band / larger(whole, band))
            wanted = smaller(larger(share_db - w[D_THRESHOLD_DB], 0.0), w[D_RANGE_DB])
        keep = attack if wanted > reduction else release
        reduction = wanted + keep * (reduction - wanted)
        if reduction < 1e-4:
            reduction = 0.0
    w[D_BAND], w[D_WHOLE], w[D_LOUD], w[D_REDUCTION] = band, whole, loud, reduction


# --- The gain of a limiter ---------------------------------------------------------------------------------------

#: Words of the state: length of the average and of the minimum, samples so far, ends of the queue, mask of its places;
#: as floats the part of the way back per sample, the envelope and the sum of the average.
L_LENGTH, L_HOLD, L_COUNT, L_FIRST, L_LAST, L_MASK, L_RELEASE, L_ENVELOPE, L_TOTAL = range(9)
_L_HEADER = 16


def lookahead(length_samples: int, hold_samples: int, *, allocate: Allocate = aligned) -> NDArray[np.int64]:
    """State of `lookahead_gain`, an int64 block; keep it alive as long as its address is used.

    Parameters
    ----------
    length_samples
        Time in which the gain comes down, in a straight line.
    hold_samples
        Time for which it is there already, or still there, on either side of the sample that wanted it.
    allocate
        Source of zeroed int64 memory, given the number of words.

    Notes
    -----
    The gain for a sample is ready ``length_samples + hold_samples - 1`` samples after it.
    """
    window = length_samples + 2 * hold_samples
    size = 1 << window.bit_length()
    memory = allocate(_L_HEADER + 2 * size + length_samples)
    memory[L_LENGTH], memory[L_HOLD], memory[L_MASK] = length_samples, window, size - 1
    lookahead_reset_array(memory)
    return memory


@inline
def lookahead_reset(state: int) -> None:
    """Back to a gain of 1."""
    w = i64p(state)
    f = f64p(state)
    w[L_COUNT] = 0
    w[L_FIRST] = 0
    w[L_LAST] = 0
    f[L_ENVELOPE] = 1.0
    f[L_TOTAL] = np.float64(w[L_LENGTH])
    held = f64p(state + 8 * (_L_HEADER + 2 * (w[L_MASK] + 1)))
    for k in range(w[L_LENGTH]):
        held[k] = 1.0


@inline
def lookahead_gain(state: int, wanted: float) -> float:
    """Take the gain that the newest sample wants, at most 1; return the gain for the sample that leaves the delay.

    The lowest gain of a window (a monotonic queue), let go slowly, averaged over a part of the window.
    """
    w = i64p(state)
    f = f64p(state)
    mask = w[L_MASK]
    values = f64p(state + 8 * _L_HEADER)
    times = i64p(state + 8 * (_L_HEADER + mask + 1))
    held = f64p(state + 8 * (_L_HEADER + 2 * (mask + 1)))
    length = w[L_LENGTH]
    now = w[L_COUNT]
    w[L_COUNT] = now + 1
    first, last = w[L_FIRST], w[L_LAST]
    while last > first and values[(last - 1) & mask] >= wanted:
        last -= 1
    values[last & mask] = wanted
    times[last & mask] = now
    last += 1
    while times[first & mask] <= now - w[L_HOLD]:
        first += 1
    w[L_FIRST], w[L_LAST] = first, last
    envelope = f[L_ENVELOPE] + (1.0 - f[L_ENVELOPE]) * f[L_RELEASE]
    if envelope > 0.99999:
        envelope = 1.0
    envelope = smaller(envelope, values[first & mask])
    f[L_ENVELOPE] = envelope
    at = now % length
    f[L_TOTAL] += envelope - held[at]
    held[at] = envelope
    return smaller(f[L_TOTAL] / length, 1.0)  # type: ignore[no-any-return]


# --- For Python ------------------------------------------------------------------------------------------------

_planar = types.float32[:, ::1]
_words = types.float64[::1]


@kernel(types.void(_words, _planar, types.float32[::1]))
def compress_array(state: Any, x: Any, gains: Any) -> None:
    """`compress` of ``x`` (channels, samples) to ``gains`` (samples); ``state`` is (COMPRESSOR_WORDS)."""
    if state.size != COMPRESSOR_WORDS or gains.size != x.shape[1]:
        raise ValueError("the state or the gains of the compressor have the wrong length")
    compress(state.ctypes.data, x.ctypes.data, x.shape[0], x.shape[1], x.shape[1], gains.ctypes.data)


@kernel(types.void(_words, _planar))
def deess_array(state: Any, x: Any) -> None:
    """`deess` on ``x`` (channels, samples), in place; ``state`` is (D_FILTERS + 2 channels)."""
    if state.size != D_FILTERS + 2 * x.shape[0]:
        raise ValueError("the state of the de-esser has the wrong length")
    deess(state.ctypes.data, x.ctypes.data, x.shape[0], x.shape[1], x.shape[1])


@kernel(types.void(types.int64[::1]))
def lookahead_reset_array(memory: Any) -> None:
    """`lookahead_reset` of a state made by `lookahead`."""
    lookahead_reset(memory.ctypes.data)


@kernel(types.void(types.int64[::1], _words))
def lookahead_gain_array(memory: Any, wanted: Any) -> None:
    """`lookahead_gain` of every number in ``wanted``, in place."""
    for i in range(wanted.size):
        wanted[i] = lookahead_gain(memory.ctypes.data, wanted[i])
