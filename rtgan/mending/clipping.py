"""Clipped sound: stretches cut off at a level, and what they may have been.

Of all sounds that agree with the samples that are left, and lie beyond the level where it was cut off, the one with the
fewest partials is looked for: A-SPADE (Kitić, Bertin and Gribonval, "Sparsity and cosparsity for audio declipping",
2015), in overlapping frames, with a transform of twice as many bins. Of the methods that Záviška et al. compare ("A
Survey and an Extensive Evaluation of Popular Audio Declipping Methods", 2021) it is among the best that need no model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtgan.mending.spans import runs

Sound = NDArray[np.float32]
Lost = NDArray[np.bool_]

#: Samples within this share of the level, and so many in a row, are a flat top; so many of them are clipping.
_NEAR, _IN_A_ROW, _OFTEN = 1e-4, 3, 8
#: How far a neighbour of a flat top is below it at least, in units of what counts as flat: the top of a wave is round.
_CORNER = 16
#: Below this level, -46 dBFS, nothing is taken for clipped.
_LEAST = 5e-3
#: Frames of 64 ms, four over each sample, and how many of them at once.
_FRAME_S, _OVERLAP, _BATCH = 0.064, 4, 32
#: Bins allowed in addition with each step, share of the power that may be left over, and steps at most.
_MORE_BINS, _ENOUGH, _STEPS = 4, 1e-4, 300


def _cut(sound: Sound) -> Lost:
    """Samples of flat tops at the highest level of one polarity."""
    level = float(sound.max(initial=0.0))
    near = _NEAR * level + 1.0 / 32768
    none = np.zeros(len(sound), bool)
    if level < _LEAST:
        return none
    top = sound >= level - near
    edges = runs(top)
    count = 0
    for begin, end in edges[edges[:, 1] - edges[:, 0] >= _IN_A_ROW]:
        sides = sound[[max(begin - 1, 0), min(end, len(sound) - 1)]]
        count += bool(level - sides.min() > _CORNER * near)
    return top if count >= _OFTEN else none


def cut_off(sound: Sound) -> tuple[Lost, Lost]:
    """Which samples of one channel are clipped, above and below."""
    return _cut(sound), _cut(-sound)


def _sparsest(frames: Sound, low: Sound, high: Sound) -> Sound:
    """For each frame the sound between the bounds that has the fewest partials."""
    n = frames.shape[1]
    made = frames.copy()
    left = np.arange(len(frames))
    x = frames
    doubt = np.zeros((len(frames), n + 1), np.complex64)
    power = np.square(frames, dtype=np.float64).sum(1) + 1e-12
    for step in range(1, _STEPS + 1):
        wanted = np.fft.rfft(x, 2 * n, norm="ortho").astype(np.complex64) + doubt
        size = np.square(wanted.real) + np.square(wanted.imag)
        bins = min(step * _MORE_BINS, n + 1)
        least = np.partition(size, n + 1 - bins)[:, n + 1 - bins, None]
        sparse = np.where(size >= least, wanted, np.complex64(0))
        x = np.clip(np.fft.irfft(sparse - doubt, 2 * n, norm="ortho")[:, :n].astype(np.float32), low, high)
        rest = np.fft.rfft(x, 2 * n, norm="ortho").astype(np.complex64) - sparse
        doubt += rest
        done = 2 * (np.square(rest.real) + np.square(rest.imag)).sum(1) < _ENOUGH * power
        if done.any() or step == _STEPS:
            over = done | (step == _STEPS)
            made[left[over]] = x[over]
            keep = ~over
            if not keep.any():
                break
            left, x, doubt, power, low, high = (v[keep] for v in (left, x, doubt, power, low, high))
    return made


def restored(sound: Sound, above: Lost, below: Lost, rate_hz: int) -> Sound:
    """One channel with what was clipped restored: beyond the level, and every other sample as it was.

    Parameters
    ----------
    sound : ndarray of float32, (samples,)
    above, below : ndarray of bool, (samples,)
        See `cut_off`.
    rate_hz : int
    """
    n = max(_OVERLAP, round(_FRAME_S * rate_hz) // _OVERLAP * _OVERLAP)
    hop = n // _OVERLAP
    frames = -(-(len(sound) + n) // hop)
    ends = n - hop, frames * hop + hop - len(sound)
    padded, up, down = np.pad(sound, ends), np.pad(above, ends), np.pad(below, ends)
    window: Sound = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)).astype(np.float32)
    # Windowed twice, so many frames over each sample add to one.
    whole = window * np.float32(2 / _OVERLAP)
    starts = [s for s in range(0, len(padded) - n + 1, hop) if up[s : s + n].any() or down[s : s + n].any()]
    made = np.zeros(len(padded), np.float32)
    for at in range(0, len(starts), _BATCH):
        own = np.array(starts[at : at + _BATCH])
        place = own[:, None] + np.arange(n)
        cut = padded[place] * window
        low = np.where(down[place], np.float32(-np.inf), cut)
        high = np.where(up[place], np.float32(np.inf), cut)
        for start, frame in zip(starts[at : at + _BATCH], _sparsest(cut, low, high) * whole, strict=True):
            made[start : start + n] += frame
    out = made[n - hop : n - hop + len(sound)]
    return np.where(above, np.maximum(out, sound), np.where(below, np.minimum(out, sound), sound))
