"""Gain ramps, meters, the safety limiter, cross-fades, and the check for what is not a number.

All states are float64 words in raw memory. Nothing here depends on how the samples are cut into blocks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from .native import f32p, f64p, i32p, inline, kernel, larger, smaller
from .vector import square_root

# --- Gain ramp -------------------------------------------------------------------------------------------------

#: Words of a ramp. The gain is ``target - step * remaining``, which never drifts.
RAMP_TARGET, RAMP_STEP, RAMP_REMAINING = 0, 1, 2
RAMP_WORDS = 3


@inline
def ramp_gain(ramp: int) -> float:
    """Present gain of a ramp."""
    r = f64p(ramp)
    return r[RAMP_TARGET] - r[RAMP_STEP] * r[RAMP_REMAINING]  # type: ignore[no-any-return]


@inline
def ramp_set(ramp: int, target: float, samples: int) -> None:
    """Go to a gain in a straight line, over so many samples from now (0: at once)."""
    r = f64p(ramp)
    gain = ramp_gain(ramp)
    r[RAMP_TARGET] = target
    r[RAMP_REMAINING] = float(samples)
    r[RAMP_STEP] = (target - gain) / samples if samples > 0 else 0.0


@inline
def ramp_apply(ramp: int, io: int, channels: int, stride: int, n: int) -> None:
    """Multiply all channels, in place; a settled gain of 1 leaves them untouched to the bit."""
    r = f64p(ramp)
    target, step, remaining = r[RAMP_TARGET], r[RAMP_STEP], r[RAMP_REMAINING]
    moving = smaller(n, int(remaining))
    for channel in range(channels):
        x = f32p(io + 4 * channel * stride)
        for i in range(moving):
            x[i] *= np.float32(target - step * (remaining - (i + 1)))
        settled = np.float32(target)
        if settled != np.float32(1.0):
            for i in range(moving, n):
                x[i] *= settled
    r[RAMP_REMAINING] = remaining - moving


# --- Meter -----------------------------------------------------------------------------------------------------

#: Words of a meter: largest magnitude, sum of squares, samples.
METER_PEAK, METER_SQUARES, METER_SAMPLES = 0, 1, 2
METER_WORDS = 3


@inline
def meter_add(meter: int, x: int, n: int) -> None:
    """Take ``n`` samples into a meter."""
    m = f64p(meter)
    samples = f32p(x)
    bits = i32p(x)
    largest = 0
    squares = m[METER_SQUARES]
    for i in range(n):
        # Magnitudes of float32 are in the order of their bits, which the vectoriser likes better.
        largest = larger(largest, bits[i] & 0x7FFFFFFF)
    for i in range(n):
        value = np.float64(samples[i])
        squares += value * value
    for i in range(n):
        if bits[i] & 0x7FFFFFFF == largest:
            m[METER_PEAK] = larger(m[METER_PEAK], abs(np.float64(samples[i])))
            break
    m[METER_SQUARES] = squares
    m[METER_SAMPLES] += n


@inline
def meter_rms(meter: int) -> float:
    """Root mean square since the meter was cleared."""
    m = f64p(meter)
    return square_root(m[METER_SQUARES] / m[METER_SAMPLES]) if m[METER_SAMPLES] > 0.0 else 0.0


@inline
def meter_clear(meter: int) -> None:
    """Start a new measurement."""
    m = f64p(meter)
    m[METER_PEAK] = 0.0
    m[METER_SQUARES] = 0.0
    m[METER_SAMPLES] = 0.0


# --- What is not a number --------------------------------------------------------------------------------------


@inline
def all_finite(x: int, n: int) -> bool:
    """Whether none of ``n`` float32 is infinite or not a number; on the bits, so that no flag can hide it."""
    bits = i32p(x)
    largest = 0
    for i in range(n):
        largest = larger(largest, bits[i] & 0x7FFFFFFF)
    return largest < 0x7F800000


# --- Safety limiter --------------------------------------------------------------------------------------------


def release_step(release_ms: float, sample_rate_hz: float) -> float:
    """Part of the way back to a gain of 1 that a limiter goes per sample; ``release_ms`` is its time constant."""
    return 1.0 - math.exp(-1000.0 / (release_ms * sample_rate_hz))


@inline
def limit(state: int, io: int, channels: int, stride: int, n: int, ceiling: float, release: float) -> int:
    """Keep all magnitudes at or below ``ceiling``, in place, all channels by the same gain.

    The attack is instant, the release exponential (see `release_step`). ``state`` is the address of one
    float64, the gain, 1.0 at rest; as long as it is 1.0 and nothing is above the ceiling the samples pass
    untouched to the bit. Returns the number of samples at which the gain was pulled down.
    """
    top = np.float32(ceiling)
    gain = f64p(state)[0]
    pulled = 0
    if gain == 1.0:
        loud = False
        for channel in range(channels):
            x = f32p(io + 4 * channel * stride)
            for i in range(n):
                loud |= abs(x[i]) > top
        if not loud:
            return 0
    for i in range(n):
        peak = np.float32(0.0)
        for channel in range(channels):
            peak = larger(peak, abs(f32p(io + 4 * channel * stride)[i]))
        gain += (1.0 - gain) * release
        if gain > 0.99999:
            gain = 1.0
        if peak * gain > top:
            gain = top / peak
            pulled += 1
        if gain < 1.0:
            for channel in range(channels):
                x = f32p(io + 4 * channel * stride)
                # Rounding may land one step above the ceiling.
                x[i] = larger(smaller(np.float32(x[i] * gain), top), -top)
    f64p(state)[0] = gain
    return pulled


# --- Cross-fades -----------------------------------------------------------------------------------------------


@inline
def fade_equal_gain(old: int, new: int, target: int, n: int, position: int, length: int) -> None:
    """Fade from ``old`` to ``new`` with gains that add to 1, for sources that carry the same sound.

    ``position`` of the ``length`` samples of the fade are already done; past its end ``new`` comes untouched.
    ``target`` may be either source.
    """
    a = f32p(old)
    b = f32p(new)
    y = f32p(target)
    for i in range(n):
        if position + i + 1 >= length:
            y[i] = b[i]
        else:
            t = np.float32((position + i + 1) / length)
            y[i] = a[i] + (b[i] - a[i]) * t


@inline
def fade_equal_power(old: int, new: int, target: int, n: int, position: int, length: int) -> None:
    """Fade with gains whose squares add to 1, for sources that differ; otherwise as `fade_equal_gain`.

    The gains are the square roots of ``3 t^2 - 2 t^3`` and of its complement: no corner at either end.
    """
    a = f32p(old)
    b = f32p(new)
    y = f32p(target)
    for i in range(n):
        if position + i + 1 >= length:
            y[i] = b[i]
        else:
            t = (position + i + 1) / length
            power = t * t * (3.0 - 2.0 * t)
            y[i] = np.float32(a[i] * square_root(1.0 - power) + b[i] * square_root(power))


# --- For Python ------------------------------------------------------------------------------------------------

_planar = types.float32[:, ::1]
_floats = types.float32[::1]
_words = types.float64[::1]


@kernel(types.void(_words, types.float64, types.int64))
def ramp_set_array(ramp: Any, target: float, samples: int) -> None:
    """`ramp_set` on ``ramp`` (RAMP_WORDS)."""
    ramp_set(ramp.ctypes.data, target, samples)


@kernel(types.void(_words, _planar))
def ramp_apply_array(ramp: Any, x: Any) -> None:
    """`ramp_apply` on ``x`` (channels, samples), in place."""
    ramp_apply(ramp.ctypes.data, x.ctypes.data, x.shape[0], x.shape[1], x.shape[1])


@kernel(types.void(_words, _floats))
def meter_add_array(meter: Any, x: Any) -> None:
    """`meter_add` of ``x`` (samples) to ``meter`` (METER_WORDS)."""
    meter_add(meter.ctypes.data, x.ctypes.data, x.size)


@kernel(types.boolean(_floats))
def all_finite_array(x: Any) -> bool:
    """`all_finite` of ``x`` (samples)."""
    return all_finite(x.ctypes.data, x.size)


@kernel(types.int64(_words, _planar, types.float64, types.float64))
def limit_array(state: Any, x: Any, ceiling: float, release: float) -> int:
    """`limit` on ``x`` (channels, samples), in place; ``state`` is the gain (1)."""
    return limit(state.ctypes.data, x.ctypes.data, x.shape[0], x.shape[1], x.shape[1], ceiling, release)


@kernel(types.void(_floats, _floats, types.int64, types.int64, types.boolean, _floats))
def fade_array(old: Any, new: Any, position: int, length: int, equal_power: bool, out: Any) -> None:
    """Either fade of ``old`` and ``new`` to ``out`` (samples each)."""
    if old.size < out.size or new.size < out.size:
        raise ValueError("a source of the fade is shorter than its result")
    if equal_power:
        fade_equal_power(old.ctypes.data, new.ctypes.data, out.ctypes.data, out.size, position, length)
    else:
        fade_equal_gain(old.ctypes.data, new.ctypes.data, out.ctypes.data, out.size, position, length)
