"""Second-order filters in transposed direct form II with float64 states, and their designs.

Designs after Bristow-Johnson, "Cookbook formulae for audio equalizer biquad filter coefficients" (2005).
Coefficients are five float64 ``b0 b1 b2 a1 a2``, with a0 divided out; a cascade is several of them in a row.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from .native import f32p, f64p, inline, kernel, smaller
from .vector import square_root

#: Float64 words of a section's coefficients, and of its state per channel.
COEFFICIENTS, STATE = 5, 2


@inline
def _one(coefficients: int, state: int, x: int, n: int) -> None:
    c = f64p(coefficients)
    s = f64p(state)
    samples = f32p(x)
    b0, b1, b2, a1, a2 = c[0], c[1], c[2], c[3], c[4]
    s1, s2 = s[0], s[1]
    for i in range(n):
        value = np.float64(samples[i])
        y = b0 * value + s1
        s1 = (b1 * value + s2) - a1 * y
        s2 = b2 * value - a2 * y
        samples[i] = y
    s[0], s[1] = s1, s2


@inline
def _two(coefficients: int, state: int, x: int, n: int) -> None:
    c = f64p(coefficients)
    s = f64p(state)
    samples = f32p(x)
    b0, b1, b2, a1, a2 = c[0], c[1], c[2], c[3], c[4]
    d0, d1, d2, e1, e2 = c[5], c[6], c[7], c[8], c[9]
    s1, s2, t1, t2 = s[0], s[1], s[2], s[3]
    for i in range(n):
        value = np.float64(samples[i])
        y = b0 * value + s1
        s1 = (b1 * value + s2) - a1 * y
        s2 = b2 * value - a2 * y
        z = d0 * y + t1
        t1 = (d1 * y + t2) - e1 * z
        t2 = d2 * y - e2 * z
        samples[i] = z
    s[0], s[1], s[2], s[3] = s1, s2, t1, t2


@inline
def cascade(coefficients: int, sections: int, state: int, x: int, n: int) -> None:
    """Filter ``n`` float32 of one channel, in place.

    ``coefficients`` is the address of ``5 * sections`` float64, ``state`` that of ``2 * sections`` of this
    channel. Sections run in pairs; the signal is rounded to float32 after each pair.
    """
    done = 0
    while done + 1 < sections:
        _two(coefficients + 8 * COEFFICIENTS * done, state + 8 * STATE * done, x, n)
        done += 2
    if done < sections:
        _one(coefficients + 8 * COEFFICIENTS * done, state + 8 * STATE * done, x, n)


@kernel(types.void(types.float64[:, ::1], types.float64[:, :, ::1], types.float32[:, ::1]))
def cascade_array(coefficients: Any, state: Any, x: Any) -> None:
    """`cascade` on ``x`` (channels, samples), in place.

    ``coefficients`` is (sections, 5), ``state`` (channels, sections, 2), zeros for silence before.
    """
    sections = coefficients.shape[0]
    if coefficients.shape[1] != COEFFICIENTS or state.shape != (x.shape[0], sections, STATE):
        raise ValueError("coefficients must be (sections, 5) and the state (channels, sections, 2)")
    for channel in range(x.shape[0]):
        cascade(
            coefficients.ctypes.data, sections, state.ctypes.data + 8 * STATE * sections * channel,
            x.ctypes.data + 4 * channel * x.shape[1], x.shape[1],
        )  # fmt: skip


def _angle(frequency_hz: float, sample_rate_hz: float, q: float) -> tuple[float, float]:
    if not 0 < frequency_hz < sample_rate_hz / 2:
        raise ValueError(f"a filter at {frequency_hz:g} Hz must lie between 0 and {sample_rate_hz / 2:g} Hz")
    if not q > 0:
        raise ValueError(f"the quality of a filter is {q:g} but must be above 0")
    omega = 2 * np.pi * frequency_hz / sample_rate_hz
    return float(np.cos(omega)), float(np.sin(omega)) / (2 * q)


def _normal(b0: float, b1: float, b2: float, a0: float, a1: float, a2: float) -> NDArray[np.float64]:
    return np.array([b0, b1, b2, a1, a2]) / a0


def low_pass(frequency_hz: float, sample_rate_hz: float, q: float = 2**-0.5) -> NDArray[np.float64]:
    """Coefficients of a low-pass, 12 dB per octave; ``frequency_hz`` is 3 dB down at the default quality."""
    c, alpha = _angle(frequency_hz, sample_rate_hz, q)
    return _normal((1 - c) / 2, 1 - c, (1 - c) / 2, 1 + alpha, -2 * c, 1 - alpha)


def high_pass(frequency_hz: float, sample_rate_hz: float, q: float = 2**-0.5) -> NDArray[np.float64]:
    """Coefficients of a high-pass, 12 dB per octave; ``frequency_hz`` is 3 dB down at the default quality."""
    c, alpha = _angle(frequency_hz, sample_rate_hz, q)
    return _normal((1 + c) / 2, -(1 + c), (1 + c) / 2, 1 + alpha, -2 * c, 1 - alpha)


def peak(frequency_hz: float, sample_rate_hz: float, gain_db: float, q: float = 1.0) -> NDArray[np.float64]:
    """Coefficients of a bell of ``gain_db`` at ``frequency_hz``."""
    c, alpha = _angle(frequency_hz, sample_rate_hz, q)
    a = 10.0 ** (gain_db / 40)
    return _normal(1 + alpha * a, -2 * c, 1 - alpha * a, 1 + alpha / a, -2 * c, 1 - alpha / a)


def notch(frequency_hz: float, sample_rate_hz: float, q: float = 10.0) -> NDArray[np.float64]:
    """Coefficients of a notch: nothing is left at ``frequency_hz``."""
    c, alpha = _angle(frequency_hz, sample_rate_hz, q)
    return _normal(1, -2 * c, 1, 1 + alpha, -2 * c, 1 - alpha)


# --- Designs on the audio thread -------------------------------------------------------------------------------

#: What `design` can make. A band passes its centre unchanged and nothing far from it.
HIGH_PASS, LOW_SHELF, PEAK, HIGH_SHELF, BAND = range(5)


@inline
def pass_through(coefficients: int) -> None:
    """Write the coefficients of a section that changes nothing."""
    c = f64p(coefficients)
    c[0] = 1.0
    for i in range(1, COEFFICIENTS):
        c[i] = 0.0


@inline
def design(kind: int, coefficients: int, frequency_hz: float, sample_rate_hz: float, q: float, gain_db: float) -> None:
    """Write the coefficients of a section of the cookbook; frequencies above 0.49 of the rate are held there.

    A gain of 0 dB gives a section that passes every bit.
    """
    c = f64p(coefficients)
    t = math.tan(math.pi * smaller(frequency_hz, 0.49 * sample_rate_hz) / sample_rate_hz)
    # Sine and cosine of the whole angle from the tangent of its half: one call instead of two.
    cosine = (1.0 - t * t) / (1.0 + t * t)
    alpha = t / ((1.0 + t * t) * q)
    a = math.exp(gain_db * (math.log(10.0) / 40.0))
    if kind == HIGH_PASS:
        b0, b1, b2 = 0.5 * (1.0 + cosine), -(1.0 + cosine), 0.5 * (1.0 + cosine)
        a0, a1, a2 = 1.0 + alpha, -2.0 * cosine, 1.0 - alpha
    elif kind == BAND:
        b0, b1, b2 = alpha, 0.0, -alpha
        a0, a1, a2 = 1.0 + alpha, -2.0 * cosine, 1.0 - alpha
    elif kind == PEAK:
        b0, b1, b2 = 1.0 + alpha * a, -2.0 * cosine, 1.0 - alpha * a
        a0, a1, a2 = 1.0 + alpha / a, -2.0 * cosine, 1.0 - alpha / a
    else:
        # The high shelf is the low shelf with the circle turned by half.
        sign = 1.0 if kind == LOW_SHELF else -1.0
        root = 2.0 * square_root(a) * alpha
        turned = sign * cosine
        b0, b2 = a * ((a + 1.0) - (a - 1.0) * turned + root), a * ((a + 1.0) - (a - 1.0) * turned - root)
        a0, a2 = (a + 1.0) + (a - 1.0) * turned + root, (a + 1.0) + (a - 1.0) * turned - root
        b1 = sign * 2.0 * a * ((a - 1.0) - (a + 1.0) * turned)
        a1 = -sign * 2.0 * ((a - 1.0) + (a + 1.0) * turned)
    c[0], c[1], c[2] = b0 / a0, b1 / a0, b2 / a0
    c[3], c[4] = a1 / a0, a2 / a0


@inline
def take_away(coefficients: int, state: int, x: int, n: int, depth: float) -> None:
    """Subtract ``depth`` times a section's output from ``n`` float32, in place: a notch where it is a band.

    The section goes on running at a depth of 0, which passes every bit.
    """
    c = f64p(coefficients)
    s = f64p(state)
    samples = f32p(x)
    b0, b1, b2, a1, a2 = c[0], c[1], c[2], c[3], c[4]
    s1, s2 = s[0], s[1]
    for i in range(n):
        value = np.float64(samples[i])
        y = b0 * value + s1
        s1 = (b1 * value + s2) - a1 * y
        s2 = b2 * value - a2 * y
        samples[i] = value - depth * y
    s[0], s[1] = s1, s2


_number = types.float64


@kernel(types.void(types.int64, types.float64[::1], _number, _number, _number, _number))
def design_array(kind: int, coefficients: Any, frequency_hz: float, rate_hz: float, q: float, gain_db: float) -> None:
    """`design` to ``coefficients`` (5)."""
    if coefficients.size != COEFFICIENTS:
        raise ValueError("a section has five coefficients")
    design(kind, coefficients.ctypes.data, frequency_hz, rate_hz, q, gain_db)


@kernel(types.void(types.float64[::1], types.float64[::1], types.float32[::1], types.float64))
def take_away_array(coefficients: Any, state: Any, x: Any, depth: float) -> None:
    """`take_away` on ``x`` (samples), in place; ``coefficients`` is (5), ``state`` (2)."""
    if coefficients.size != COEFFICIENTS or state.size != STATE:
        raise ValueError("a section has five coefficients and two words of state")
    take_away(coefficients.ctypes.data, state.ctypes.data, x.ctypes.data, x.size, depth)
