"""Acoustic feedback: which bin of a spectrum howls.

Criteria after van Waterschoot and Moonen, "Comparative evaluation of howling detection criteria in notch-filter-based
howling suppression", JAES 58 (2010): the peak against a threshold (PTPR), against the whole spectrum (PAPR), against
its neighbours (PNPR) and against its harmonics (PHPR). How long it stays where it is (their interframe peak magnitude
persistence) is for the caller to count, frame by frame. A howl is a lone, steady sine; sung and spoken
sounds have harmonics, and none of them stands still.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from .native import f32p, inline, kernel, larger, smaller

#: Least part of the spectrum's power within the peak's main lobe.
_SHARE = 0.5
#: Least ratios of power, as 10^(dB/10): to neighbours 15 dB, to harmonics 33 dB.
_NEIGHBOURS, _HARMONICS = 10.0**1.5, 10.0**3.3
#: Bins of a Hann window's main lobe on either side, and the neighbours looked at.
_LOBE, _NEAR, _FAR = 2, 4, 8


@inline
def _power(re: Any, im: Any, k: Any) -> Any:
    return np.float64(re[k]) * np.float64(re[k]) + np.float64(im[k]) * np.float64(im[k])


@inline
def _around(re: Any, im: Any, bins: Any, k: Any) -> Any:
    """The largest power near a bin, 0 beyond either end."""
    found = 0.0
    for i in range(larger(k - 1, 0), smaller(k + 2, bins)):
        found = larger(found, _power(re, im, i))
    return found


@inline
def find(re_at: int, im_at: int, bins: int, first: int, least: float) -> float:
    """The place of a howl in the spectrum of a Hann-windowed frame, in bins, or -1.

    ``re_at`` and ``im_at`` are addresses of ``bins`` float32; nothing below the bin ``first`` counts, and no peak
    whose power is below ``least``.
    """
    re = f32p(re_at)
    im = f32p(im_at)
    top = first
    largest = 0.0
    total = 0.0
    for k in range(first, bins):
        power = _power(re, im, k)
        total += power
        if power > largest:
            largest = power
            top = k
    if largest < least or top - _FAR < 0 or top + _FAR >= bins:
        return -1.0
    lobe = 0.0
    for k in range(top - _LOBE, top + _LOBE + 1):
        lobe += _power(re, im, k)
    if lobe < _SHARE * total:
        return -1.0
    for k in range(_NEAR, _FAR + 1):
        if largest < _NEIGHBOURS * larger(_power(re, im, top - k), _power(re, im, top + k)):
            return -1.0
    # Where the peak lies between the bins: the parabola through the logarithms of three.
    before, behind = _power(re, im, top - 1), _power(re, im, top + 1)
    place = np.float64(top)
    if before > 0.0 and behind > 0.0:
        a, b, c = math.log(before), math.log(largest), math.log(behind)
        if a - 2.0 * b + c < 0.0:
            place += 0.5 * (a - c) / (a - 2.0 * b + c)
    # Half, one and a half, twice, thrice and four times the frequency, as in the paper.
    for twice in (1, 3, 4, 6, 8):
        harmonic = np.int64(0.5 * twice * place + 0.5)
        if harmonic > _FAR and harmonic < bins and largest < _HARMONICS * _around(re, im, bins, harmonic):
            return -1.0
    return place


_floats = types.float32[::1]


@kernel(types.float64(_floats, _floats, types.int64, types.float64))
def find_array(re: Any, im: Any, first: int, least: float) -> float:
    """`find` in a spectrum of real and imaginary parts."""
    if re.size != im.size:
        raise ValueError("real and imaginary parts differ in length")
    return find(re.ctypes.data, im.ctypes.data, re.size, first, least)  # type: ignore[no-any-return]
