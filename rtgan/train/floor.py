"""The floor of a recording: what its room and its microphone say behind every word, and the recording without it.

A net whose targets are recordings as they are learns to keep their hiss. The floor is measured where a recording is
quietest in each band (Martin, "Noise power spectral density estimation based on optimal smoothing and minimum
statistics", IEEE TSAP 2001, over the whole recording instead of a stretch) and taken away by Wiener's rule.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray

from .data import Array

Spectra = NDArray[np.complex64]

FRAME_S = 0.032
_QUIET_SHARE = 0.1
"""Share of moments that are taken for pauses: readers make more."""
_BIAS = 1.5
"""The quietest tenth of smoothed powers lies so far below their mean."""
_OVER = 2.0
"""How much more than the floor is taken away: what sticks out of it now and then is floor as well."""
_SMOOTH = (5, 3)


def in_frames(signal: Array, frame: int, change: Callable[[Spectra], Spectra]) -> Array:
    """The signal with its short-time spectra ``(frames, bins)`` changed."""
    pieces = np.lib.stride_tricks.sliding_window_view(np.pad(signal, (frame, 2 * frame)), frame)[:: frame // 2]
    window = np.sqrt(np.hanning(frame + 1)[:-1]).astype(np.float32)
    changed = scipy.fft.irfft(change(scipy.fft.rfft(pieces * window)), frame) * window
    out = np.zeros((len(pieces) + 1) * (frame // 2), np.float32)
    halves = changed.astype(np.float32).reshape(len(pieces), 2, frame // 2)
    out[: -(frame // 2)] = halves[:, 0].ravel()
    out[frame // 2 :] += halves[:, 1].ravel()
    return out[frame : frame + len(signal)]


def _frame(sample_rate_hz: int) -> int:
    return round(FRAME_S * sample_rate_hz / 2) * 2


def _smooth_power(spectra: Spectra) -> Array:
    power = np.square(spectra.real) + np.square(spectra.imag)
    return np.asarray(scipy.ndimage.uniform_filter(power, _SMOOTH, mode="nearest"), np.float32)


def floor_of(signal: Array, sample_rate_hz: int) -> Array:
    """Power ``(bins,)`` of a recording's floor, in the frames of `cleared`; moments of digital silence do not count."""
    found: list[Array] = []

    def look(spectra: Spectra) -> Spectra:
        power = _smooth_power(spectra)
        sounding = power[power.sum(1) > 1e-9]
        found.append(
            np.quantile(sounding, _QUIET_SHARE, 0).astype(np.float32) * np.float32(_BIAS)
            if len(sounding)
            else np.zeros(power.shape[1], np.float32)
        )
        return spectra

    in_frames(signal, _frame(sample_rate_hz), look)
    return found[0]


def cleared(signal: Array, sample_rate_hz: int, floor: Array, depth_db: float) -> Array:
    """A recording whose floor lies up to `depth_db` lower than it did; what is well above it stays as it is."""
    least = np.float32(10 ** (-depth_db / 20))

    def clear(spectra: Spectra) -> Spectra:
        power = _smooth_power(spectra)
        gain = 1 - np.float32(_OVER) * floor / np.maximum(power, 1e-12)
        return spectra * np.maximum(gain, least)

    return in_frames(signal, _frame(sample_rate_hz), clear)
