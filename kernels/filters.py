"""Second-order filters in transposed direct form II with float64 states, and their designs.

Designs after Bristow-Johnson, "Cookbook formulae for audio equalizer biquad filter coefficients" (2005).
Coefficients are five float64 ``b0 b1 b2 a1 a2``, with a0 divided out; a cascade is several of them in a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from .native import f32p, f64p, inline, kernel

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
