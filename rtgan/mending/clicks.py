"""Clicks: a few samples that something was added to, found and replaced.

A sound's own impulses, a stroke or a consonant, excite its resonances and live on in what follows; a click is added
behind them and is gone with its last sample. Linear prediction tells the two apart: the residual of a click is the
predictor itself, so that a matched filter over it gains over every excitation (Vaseghi and Rayner 1990; Godsill and
Rayner, "Digital Audio Restoration", 1998, chapter 5). What is found is replaced by the samples that leave the least
residual (Janssen, Veldhuis and Vries 1986), and stays as it was unless that makes the residual as small as around it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtgan.kernels import autoregression
from rtgan.mending.spans import runs

Sound = NDArray[np.float32]
Wide = NDArray[np.float64]

#: A frame, of which the middle half is searched; order of the prediction; the longest click.
_FRAME_S, _ORDER_S, _LONGEST_S = 0.043, 1 / 1200, 0.002
#: Least height of the matched filter where a click is looked for, and of the residual as far as it reaches, in
#: deviations.
_HIGH, _LOW = 8.0, 4.0
#: Samples that may look whole within a click: what explains it with the fewest is taken.
_WHOLE_WITHIN = (2, 6, 16, 40)
#: Residual over a click, against that around it, afterwards; and before against afterwards (powers).
_LIKE_AROUND, _WORSE_BEFORE = 4.0, 12.0
#: Least change that is worth it, -70 dBFS.
_AUDIBLE = 3e-4
_PASSES = 3
#: How often a predictor is learned anew without what stands out, and from how many deviations on.
_LOOKS, _SUSPECT = 4, 6.0


def _order(rate_hz: int) -> int:
    return max(8, round(_ORDER_S * rate_hz))


def interpolated(x: Wide, unknown: NDArray[np.intp], a: Wide) -> Wide:
    """A stretch of sound whose unknown samples, in order, are those that leave the least residual.

    Parameters
    ----------
    x : ndarray of float64, (samples,)
    unknown : ndarray of int, (count,)
        At least the order away from both ends.
    a : ndarray of float64, (order + 1,)
        Coefficients of the prediction, the first of them 1.
    """
    order = len(a) - 1
    first, last = int(unknown[0]) - order, int(unknown[-1]) + order + 1
    y = x.copy()
    y[unknown] = 0
    residual = np.convolve(y[first:last], a)[: last - first]
    # What stands before is left out of the sum: it does not meet an unknown sample.
    residual[:order] = 0
    matched = np.correlate(residual, a, "full")[order:]
    own = np.zeros(last - first)
    likeness = np.convolve(a, a[::-1])[order:]
    own[: min(len(own), order + 1)] = likeness[: len(own)]
    own[0] *= 1 + 1e-9
    y[unknown] = np.linalg.solve(own[np.abs(unknown[:, None] - unknown)], -matched[unknown - first])
    return y


def _extent(
    ahead: NDArray[np.bool_], back: NDArray[np.bool_], at: int, whole_within: int, longest: int
) -> tuple[int, int] | None:
    """First and last sample of the click around a sample; None for what lasts longer than a click.

    Nothing of a click is in the residual before it, and nothing behind it in that of the reversed sound.
    """
    ends = []
    for step, stands_out in ((-1, ahead), (1, back)):
        end = near = at
        while abs(near - end) <= whole_within and abs(near - at) <= longest and 0 < near < len(stands_out) - 1:
            near += step
            if stands_out[near]:
                end = near
        ends.append(end)
    return (ends[0], ends[1]) if ends[1] - ends[0] < longest else None


def _learned(frame: Wide, order: int) -> tuple[Wide, Wide, float]:
    """Coefficients of a frame, clicks or not, its residual, and how large that usually is."""
    a = np.empty(order + 1)
    room, moments = np.empty((2, len(frame))), np.empty((order + 1, order + 1))
    autoregression.burg(frame, a, room[0], room[1])
    for again in range(_LOOKS + 1):
        residual = np.convolve(frame, a)[: len(frame)]
        residual[:order] = 0
        size = np.abs(residual[order:])
        usual = float(np.median(size)) / 0.6745 + 1e-9
        if again == _LOOKS or size.max() < _SUSPECT * usual:
            break
        # What a click spoils counts for little (least squares, weighed as for Cauchy's distribution).
        weight = 1 / (1 + np.square(size / (2 * usual)))
        autoregression.weighed(frame, weight, moments)
        moments[np.diag_indices(order + 1)] += 1e-9 * float(np.trace(moments)) / order + 1e-12
        a[1:] = -np.linalg.solve(moments[1:, 1:], moments[1:, 0])
    return a, residual, usual


def _mended(frame: Wide, search: slice, rate_hz: int) -> list[NDArray[np.intp]]:
    """Replace the clicks in the part of a frame that is searched; returns which samples were replaced."""
    order, longest = _order(rate_hz), round(_LONGEST_S * rate_hz)
    a, residual, usual = _learned(frame, order)
    matched = np.abs(np.correlate(residual, a, "full")[order : order + len(frame)])
    height = matched / (usual * np.sqrt(float(a @ a)))
    ahead = np.abs(residual) > _LOW * usual
    back = np.abs(np.convolve(frame[::-1], a)[: len(frame)][::-1]) > _LOW * usual
    inner = slice(max(search.start, 2 * order), min(search.stop, len(frame) - 2 * order - longest))
    replaced: list[NDArray[np.intp]] = []
    passed = -1
    for at in np.flatnonzero(height[inner] > _HIGH) + inner.start:
        if at <= passed:
            continue
        for whole_within in _WHOLE_WITHIN:
            extent = _extent(ahead, back, int(at), whole_within, longest)
            if extent is None or extent[0] < 2 * order or extent[1] >= len(frame) - 2 * order:
                break
            unknown = np.arange(extent[0], extent[1] + 1)
            passed = extent[1]
            made = interpolated(frame, unknown, a)
            over = slice(extent[0], extent[1] + order + 1)
            now = np.convolve(made[over.start - order : over.stop], a)[order : order + over.stop - over.start]
            beside = np.concatenate((residual[max(order, over.start - 256) : over.start],
                                     residual[over.stop : over.stop + 256]))  # fmt: skip
            # One more click beside this one says nothing about the sound.
            calm = np.sort(np.square(beside))[: max(1, int(0.95 * len(beside)))]
            around = max(usual * usual, float(calm.mean()))
            # Samples that may be chosen freely make a residual small by themselves: only `order` terms count.
            after, before = float(now @ now) / order, float(np.mean(np.square(residual[over])))
            if after < _LIKE_AROUND * around and before > _WORSE_BEFORE * after:
                if np.abs(made[unknown] - frame[unknown]).max() > _AUDIBLE:
                    frame[unknown] = made[unknown]
                    residual[over] = now
                    replaced.append(unknown)
                break
    return replaced


def removed(sound: Sound, rate_hz: int, leave: NDArray[np.bool_] | None = None) -> tuple[Sound, int]:
    """One channel without its clicks, and how many there were.

    Parameters
    ----------
    sound : ndarray of float32, (samples,)
    rate_hz : int
    leave : ndarray of bool, (samples,), optional
        Where nothing is looked for.
    """
    frame = round(_FRAME_S * rate_hz)
    hop = frame // 2
    lead = frame // 4
    x = np.pad(sound.astype(np.float64), (lead, frame))
    # Where a recording is cut off its beginning and its end are no clicks.
    left = np.ones(len(x), bool)
    ends = 2 * _order(rate_hz)
    left[lead + ends : max(lead + ends, lead + len(sound) - ends)] = False
    if leave is not None:
        left[lead : lead + len(sound)] |= leave
    hit = np.zeros(len(x), bool)
    waiting = list(range(0, len(sound), hop))
    for _ in range(_PASSES):
        again = set()
        for start in waiting:
            own = x[start : start + frame]
            if np.abs(own).max() < _AUDIBLE:
                continue
            piece = own.copy()
            for samples in _mended(piece, slice(lead, lead + hop), rate_hz):
                if not left[start + samples].any():
                    x[start + samples] = piece[samples]
                    hit[start + samples] = True
                    again |= {start - hop, start, start + hop}
        waiting = sorted(s for s in again if 0 <= s < len(sound))
    out = np.where(hit[lead : lead + len(sound)], x[lead : lead + len(sound)].astype(np.float32), sound)
    return out, len(runs(hit))
