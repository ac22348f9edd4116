"""What the codec hears: short-time power spectra of speech at 16 kHz, two to a packet of 20 ms.

The logarithm of a spectrum is told as three things: which comb (the spectrum of a pulse train, one of a table, common
to both frames of a packet), how deep it is in each of a few bands, and what remains.

One place for numbers that training and playing must agree on.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from .stft import wola_windows

Floats = NDArray[np.float32]

RATE_HZ = 16000
N_FFT = 512
HOP = 160
BINS = N_FFT // 2 + 1
#: Spectra in a packet; samples that a packet stands for.
FRAMES = 2
PACKET = FRAMES * HOP
#: Combs, the first of which is none; bands with a depth each.
COMBS = 256
BANDS = 4
#: Length of a packet's row: what remains of its spectra, then depths.
ROW = FRAMES * (BINS + BANDS)
#: Added to power, where 1 is the density of white noise with unit RMS.
FLOOR = 1e-7
#: Bins to either side over which a spectrum is smoothed to find its fine structure.
REACH = 10
#: Least likeness (cosine) of fine structure and comb, and the range of a depth.
LEAST_LIKENESS, DEEPEST = 0.25, 1.3
_LOWEST_HZ, _HIGHEST_HZ = 62.0, 420.0
_VALLEY = 0.03
_EDGES_HZ = (1000, 2000, 4000)


def windows() -> tuple[Floats, Floats]:
    """Analysis window (periodic Hann, of unit energy) and the synthesis window that reconstructs with it."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    return wola_windows(N_FFT, HOP, (hann / np.sqrt(np.sum(hann**2))).astype(np.float32))


def smoothing() -> Floats:
    """Matrix (BINS, BINS) that makes a spectrum smooth: the mean of 2 REACH + 1 bins, fewer at the ends."""
    near = np.abs(np.arange(BINS)[:, None] - np.arange(BINS)) <= REACH
    return np.asarray(near / near.sum(0), np.float32)


def bands() -> Floats:
    """Which bin belongs to which band, (BANDS, BINS)."""
    hertz = np.arange(BINS) * (RATE_HZ / N_FFT)
    return np.eye(BANDS, dtype=np.float32)[:, np.searchsorted(_EDGES_HZ, hertz, "right")]


@cache
def combs() -> Floats:
    """Fine structure of logarithmic spectra of pulse trains (COMBS, BINS), from low pitch to high; row 0 is zero."""
    analysis, _ = windows()
    out = np.zeros((COMBS, BINS))
    pitches = np.geomspace(_LOWEST_HZ, _HIGHEST_HZ, COMBS - 1)
    time = (np.arange(N_FFT) - N_FFT / 2) / RATE_HZ
    for row, hertz in enumerate(pitches, 1):
        harmonics = 2 * np.pi * hertz * np.arange(1, int(RATE_HZ / 2 / hertz) + 1)[:, None]
        logs = []
        for place in np.arange(4) / (4 * hertz):
            power = np.abs(np.fft.rfft(np.cos(harmonics * (time + place)).sum(0) * analysis)) ** 2
            logs.append(np.log(power / power.max() + _VALLEY))
        mean = np.mean(logs, 0)
        out[row] = mean - mean @ smoothing()
    return out.astype(np.float32)


@cache
def likeness_table() -> Floats:
    """Combs ready for the search, (COMBS, BINS): their product with a fine structure of unit length is a cosine."""
    weight = listening()
    length = np.sqrt((combs() ** 2 * weight).sum(1, keepdims=True))
    return np.asarray(combs() * weight / np.maximum(length, 1e-9), np.float32)


def listening() -> Floats:
    """How much each bin counts in the search for the comb: the lower half, above rumble."""
    hertz = np.arange(BINS) * (RATE_HZ / N_FFT)
    return ((hertz >= 60) / (1 + (hertz / 2500) ** 4)).astype(np.float32)
