"""What a lost stretch of sound may have been: the sound before it, gone on with.

A gap is filled in two steps. The *extension* repeats the last cycle of the sound: short-term prediction takes the
sound's resonances out of its recent past, what remains is repeated with the lag at which the past resembles itself
most, and put through the same resonances, so that it begins where the sound broke off, without a step (after the idea
of ITU-T G.711 Appendix I, there without the predictor; Levinson and Durbin's recursion). It is then *shaped*, a frame
of about 20 ms every 10 ms: in each of `BANDS` bands so much of the extension stays, and so much noise of the band's own
level is added. How much is somebody else's to say, a net's for instance, out of a row of numbers about each frame:

===============  ==================================================================================================
``BANDS``        level of each band, decades below the loudest recent frame, in halves
``BANDS``        likeness of each band to what it was one lag ago, -1..1; 0 in frames before the gap
4                1 in a frame of the gap, seconds since its beginning, likeness at the lag, the lag in units of 10 ms
===============  ==================================================================================================

One `conceal_begin` per gap, which writes the rows of the `PAST` frames before it; then `conceal_next` and
`conceal_shape` in turn, a hop of sound each. Everything works on the memory that `build` lays out, at any sample rate;
nothing of it depends on how a stream is cut into blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from . import fft
from .fft import Allocate, aligned
from .native import f32p, f64p, i32p, i64p, inline, inline_fast, kernel, larger, smaller

#: Bands' centres in hertz; shares fall linearly to the neighbours.
CENTRES_HZ = (
    0, 100, 200, 300, 400, 500, 600, 800, 1000, 1200, 1400, 1600, 2000, 2400, 2800, 3200, 4000, 4800, 5600, 6800,
    8000, 9600, 12000, 15600, 20000,
)  # fmt: skip
BANDS = len(CENTRES_HZ)
#: Frames before the gap that a net is shown, the one that ends with the gap's second half not counted.
PAST = 10
#: Numbers in a row, and in an answer: shares of the extension, then of noise.
ROW = 2 * BANDS + 4
ANSWER = 2 * BANDS
_IS_LOST, _SINCE, _LIKENESS, _LAG = range(2 * BANDS, 2 * BANDS + 4)

#: Order of the short-term prediction, and the length it is learned from.
_ORDER, _LEARN_S = 32, 0.03
#: Lags that are looked at, the length that is compared, and the rate at which it is done first.
_SHORTEST_S, _LONGEST_S, _COMPARE_S, _COARSE_HZ = 0.004, 0.0165, 0.012, 12000
_HOP_S = 0.01
_FLOOR = 1e-12
_LOG10 = 1.0 / math.log(10.0)
#: How far below the loudest a level counts, in decades of power.
_DEPTH = 6.0

# Words of a concealer.
(
    HOP, HISTORY, HISTORY_SAMPLES, ROWS, OUT, _PLAN, _SCRATCH, _WINDOW, _BIN_BAND, _BIN_SHARE, _BAND_NORM, _BINS,
    RE, IM, POWER, _FRAME, _TAIL, _CYCLE, _LAG_SAMPLES, _AT, _COEFFICIENTS, _WORK, _LEARN, _LEARN_WINDOW, _COARSE,
    _COARSE_STEP, _SEED, _FRAMES, _OTHER_RE, _OTHER_IM, _SHORTEST, _LONGEST, _COMPARE, _COARSE_SAMPLES,
) = range(34)  # fmt: skip
# Float words.
STRENGTH, _REFERENCE, _SECONDS = range(40, 43)
_WORDS = 48


@inline_fast
def _product(a: Any, b: Any, n: Any) -> Any:
    """Sum of products of two stretches of float32."""
    x = f32p(a)
    y = f32p(b)
    total = np.float32(0.0)
    for i in range(n):
        total += x[i] * y[i]
    return np.float64(total)


@inline
def _learn(c: Any, end: Any) -> None:
    """Coefficients of the short-term prediction of the sound that ends at an address."""
    w = i64p(c)
    n = w[_LEARN]
    work = w[_WORK]
    x = f32p(end - 4 * n)
    window = f32p(w[_LEARN_WINDOW])
    y = f32p(work)
    for i in range(n):
        y[i] = x[i] * window[i]
    a = f64p(w[_COEFFICIENTS])
    r = f64p(w[_COEFFICIENTS] + 8 * (_ORDER + 1))
    before = f64p(w[_COEFFICIENTS] + 16 * (_ORDER + 1))
    for k in range(_ORDER + 1):
        # A window over the lags widens resonances by 40 Hz; without it they ring on.
        r[k] = _product(work, work + 4 * k, n - k) * before[_ORDER + 1 + k]
    error = r[0] + 1e-9
    for k in range(_ORDER + 1):
        a[k] = 0.0
    a[0] = 1.0
    for m in range(1, _ORDER + 1):
        total = r[m]
        for k in range(1, m):
            total += a[k] * r[m - k]
        reflection = -total / error
        for k in range(1, m):
            before[k] = a[k]
        for k in range(1, m):
            a[k] = before[k] + reflection * before[m - k]
        a[m] = reflection
        error *= 1.0 - reflection * reflection


@inline
def _likeness(end: Any, lag: Any, n: Any) -> Any:
    """Normalised correlation of the last ``n`` samples and those a lag earlier."""
    here = end - 4 * n
    both = _product(here, here - 4 * lag, n)
    own = _product(here, here, n)
    other = _product(here - 4 * lag, here - 4 * lag, n)
    return both / math.sqrt(own * other + 1e-18)


@inline
def _find_lag(c: Any, end: Any) -> None:
    """The lag at which the sound resembles its own past most: first at a low rate, then to the sample."""
    w = i64p(c)
    f = f64p(c)
    step = w[_COARSE_STEP]
    count = w[_COARSE_SAMPLES]
    slow = f32p(w[_COARSE])
    x = f32p(end - 4 * count * step)
    for i in range(count):
        total = np.float32(0.0)
        for k in range(step):
            total += x[i * step + k]
        slow[i] = total
    slow_end = w[_COARSE] + 4 * count
    n = w[_COMPARE] // step
    best = w[_SHORTEST] // step
    most = -2.0
    for lag in range(w[_SHORTEST] // step, w[_LONGEST] // step + 1):
        value = _likeness(slow_end, lag, n)
        if value > most:
            most = value
            best = lag
    near = best * step
    most = -2.0
    w[_LAG_SAMPLES] = near
    for lag in range(larger(near - step, w[_SHORTEST]), smaller(near + step, w[_LONGEST]) + 1):
        value = _likeness(end, lag, w[_COMPARE])
        if value > most:
            most = value
            w[_LAG_SAMPLES] = lag
    f[STRENGTH] = larger(most, 0.0)


@inline
def _take_cycle(c: Any, end: Any) -> None:
    """The last cycle of what prediction leaves, its end bent towards its beginning."""
    w = i64p(c)
    lag = w[_LAG_SAMPLES]
    a = f64p(w[_COEFFICIENTS])
    x = f32p(end - 8 * lag)
    cycle = f32p(w[_CYCLE])
    for i in range(2 * lag):
        total = 0.0
        for k in range(_ORDER + 1):
            total += a[k] * np.float64(x[i - k])
        cycle[i] = np.float32(total)
    bend = lag // 8
    for i in range(lag):
        late = larger(0, i - (lag - bend) + 1) / (bend + 1.0)
        cycle[i] = np.float32((1.0 - late) * np.float64(cycle[lag + i]) + late * np.float64(cycle[i]))
    w[_AT] = 0


@inline
def _extend(c: Any, target: Any, n: Any) -> None:
    """Go on with the sound that ends at ``target`` by ``n`` samples."""
    w = i64p(c)
    a = f64p(w[_COEFFICIENTS])
    y = f32p(target)
    cycle = f32p(w[_CYCLE])
    at = w[_AT]
    lag = w[_LAG_SAMPLES]
    for i in range(n):
        total = np.float64(cycle[at])
        for k in range(1, _ORDER + 1):
            total -= a[k] * np.float64(y[i - k])
        y[i] = np.float32(smaller(larger(total, -8.0), 8.0))
        at += 1
        if at == lag:
            at = 0
    w[_AT] = at


@inline
def _analyse(c: Any, frame: Any, re: Any, im: Any) -> None:
    w = i64p(c)
    fft.forward(w[_PLAN], frame, w[_WINDOW], re, im, w[_SCRATCH])


@inline
def _bands(c: Any, re: Any, im: Any, other_re: Any, other_im: Any, target: Any) -> None:
    """Mean of ``re * other_re + im * other_im`` over the bins of each band."""
    w = i64p(c)
    a = f32p(re)
    b = f32p(im)
    d = f32p(other_re)
    e = f32p(other_im)
    band = i32p(w[_BIN_BAND])
    share = f32p(w[_BIN_SHARE])
    norm = f32p(w[_BAND_NORM])
    out = f32p(target)
    for k in range(BANDS):
        out[k] = 0.0
    for k in range(w[_BINS]):
        value = a[k] * d[k] + b[k] * e[k]
        high = value * share[k]
        out[band[k]] += value - high
        out[band[k] + 1] += high
    for k in range(BANDS):
        out[k] *= norm[k]


@inline
def _levels(c: Any, row: Any) -> None:
    """The first part of a row, out of the power in the bands."""
    w = i64p(c)
    f = f64p(c)
    power = f32p(w[POWER])
    into = f32p(row)
    for k in range(BANDS):
        level = _LOG10 * math.log(np.float64(power[k]) + _FLOOR) - f[_REFERENCE]
        into[k] = np.float32(1.0 + 0.5 * smaller(larger(level, -_DEPTH), 2.0))


@inline
def _lost_part(c: Any, row: Any, seconds: Any) -> None:
    w = i64p(c)
    f = f64p(c)
    into = f32p(row)
    likeness = f32p(w[_FRAME] + 16 * w[HOP])
    for k in range(BANDS):
        into[BANDS + k] = likeness[k]
    into[_IS_LOST] = 1.0
    into[_SINCE] = np.float32(10.0 * seconds)
    into[_LIKENESS] = np.float32(f[STRENGTH])
    into[_LAG] = np.float32(w[_LAG_SAMPLES] / (1.0 * w[HOP]))


@inline
def conceal_begin(c: Any) -> None:
    """A gap begins behind the history: find out how the sound goes on, and write `PAST` + 1 rows.

    The last of them is of the frame whose middle is the gap's beginning, which is not shaped.
    """
    w = i64p(c)
    f = f64p(c)
    hop = w[HOP]
    end = w[HISTORY] + 4 * w[HISTORY_SAMPLES]
    _learn(c, end)
    _find_lag(c, end)
    _take_cycle(c, end)
    # Levels are told relative to the loudest frame, which is known once all have been looked at.
    loudest = _FLOOR
    power = f32p(w[POWER])
    for j in range(PAST):
        _analyse(c, end - 4 * (PAST + 1 - j) * hop, w[RE], w[IM])
        _bands(c, w[RE], w[IM], w[RE], w[IM], w[POWER])
        total = 0.0
        row = f32p(w[ROWS] + 4 * j * ROW)
        for k in range(BANDS):
            total += np.float64(power[k])
            row[k] = power[k]
        loudest = larger(loudest, total / BANDS)
    f[_REFERENCE] = _LOG10 * math.log(loudest)
    for j in range(PAST):
        row = f32p(w[ROWS] + 4 * j * ROW)
        for k in range(BANDS):
            power[k] = row[k]
        for k in range(BANDS, ROW):
            row[k] = 0.0
        _levels(c, w[ROWS] + 4 * j * ROW)
    # RE and IM hold the last frame: how alike is each band of it to what it was one lag before?
    _analyse(c, end - 4 * (2 * hop + w[_LAG_SAMPLES]), w[_OTHER_RE], w[_OTHER_IM])
    likeness = w[_FRAME] + 16 * hop
    _bands(c, w[RE], w[IM], w[_OTHER_RE], w[_OTHER_IM], likeness)
    _bands(c, w[_OTHER_RE], w[_OTHER_IM], w[_OTHER_RE], w[_OTHER_IM], likeness + 4 * BANDS)
    both = f32p(likeness)
    other = f32p(likeness + 4 * BANDS)
    for k in range(BANDS):
        own = math.sqrt(np.float64(power[k]) * np.float64(other[k]) + 1e-18)
        both[k] = np.float32(np.float64(both[k]) / own)
    # The frame in the middle of which the gap begins: its second half is the extension's.
    frame = f32p(w[_FRAME])
    past = f32p(end - 4 * hop)
    for i in range(hop):
        frame[i] = past[i]
    _extend(c, w[_FRAME] + 4 * hop, hop)
    window = f32p(w[_WINDOW])
    tail = f32p(w[_TAIL])
    for i in range(hop):
        tail[i] = frame[hop + i] * window[hop + i] * window[hop + i]
    _analyse(c, w[_FRAME], w[RE], w[IM])
    _bands(c, w[RE], w[IM], w[RE], w[IM], w[POWER])
    row_at = w[ROWS] + 4 * PAST * ROW
    _levels(c, row_at)
    _lost_part(c, row_at, 0.0)
    w[_FRAMES] = 0
    w[_SEED] = 1


@inline
def conceal_next(c: Any) -> None:
    """The next frame of the extension: its spectrum, the power in its bands, and its row (the first of `ROWS`)."""
    w = i64p(c)
    hop = w[HOP]
    frame = f32p(w[_FRAME])
    for i in range(hop):
        frame[i] = frame[hop + i]
    _extend(c, w[_FRAME] + 4 * hop, hop)
    _analyse(c, w[_FRAME], w[RE], w[IM])
    _bands(c, w[RE], w[IM], w[RE], w[IM], w[POWER])
    w[_FRAMES] += 1
    _levels(c, w[ROWS])
    _lost_part(c, w[ROWS], w[_FRAMES] * f64p(c)[_SECONDS])


@inline
def conceal_shape(c: Any, answer: Any) -> None:
    """Shape the newest frame by shares of the extension and of noise, and write the hop that is complete to `OUT`."""
    w = i64p(c)
    hop = w[HOP]
    re = f32p(w[RE])
    im = f32p(w[IM])
    power = f32p(w[POWER])
    band = i32p(w[_BIN_BAND])
    share = f32p(w[_BIN_SHARE])
    stays = f32p(answer)
    noise = f32p(answer + 4 * BANDS)
    seed = w[_SEED]
    for k in range(w[_BINS]):
        b = band[k]
        high = share[k]
        low = np.float32(1.0) - high
        gain = stays[b] * low + stays[b + 1] * high
        level = noise[b] * low + noise[b + 1] * high
        level *= np.float32(math.sqrt(np.float64(power[b] * low + power[b + 1] * high)))
        # Uniform numbers of unit power, real and imaginary part together.
        seed = (seed * 1664525 + 1013904223) & 0xFFFFFFFF
        x = np.float32(seed) * np.float32(2.0 / 4294967296.0) - np.float32(1.0)
        seed = (seed * 1664525 + 1013904223) & 0xFFFFFFFF
        y = np.float32(seed) * np.float32(2.0 / 4294967296.0) - np.float32(1.0)
        scale = level * np.float32(1.2247449)
        re[k] = gain * re[k] + scale * x
        im[k] = gain * im[k] + scale * y
    w[_SEED] = seed
    im[0] = np.float32(0.0)
    im[w[_BINS] - 1] = np.float32(0.0)
    shaped = w[_WORK]
    fft.inverse(w[_PLAN], w[RE], w[IM], shaped, 0, w[_SCRATCH])
    window = f32p(w[_WINDOW])
    made = f32p(shaped)
    tail = f32p(w[_TAIL])
    out = f32p(w[OUT])
    for i in range(hop):
        out[i] = tail[i] + made[i] * window[i]
        tail[i] = made[hop + i] * window[hop + i]


def hop_of(sample_rate_hz: int) -> int:
    """Samples of about 10 ms, such that a frame of two hops can be transformed."""
    wanted = sample_rate_hz * _HOP_S
    fits = []
    for hop in range(16, 4096, 8):
        left = hop // 8
        for factor in (2, 3, 5):
            while left % factor == 0:
                left //= factor
        if left == 1:
            fits.append(hop)
    return min(fits, key=lambda hop: abs(hop - wanted))


def band_tables(sample_rate_hz: int, bins: int) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    """For each bin the band below it and the share of the one above; for each band what makes a sum a mean."""
    hertz = np.arange(bins) * (sample_rate_hz / 2 / (bins - 1))
    centres = np.array(CENTRES_HZ, np.float64)
    band = np.clip(np.searchsorted(centres, hertz, side="right") - 1, 0, BANDS - 2)
    share = np.clip((hertz - centres[band]) / (centres[band + 1] - centres[band]), 0, 1)
    count = np.bincount(band, 1 - share, BANDS) + np.bincount(band + 1, share, BANDS)
    norm = np.where(count > 0, 1 / np.maximum(count, 1e-9), 0)
    return band.astype(np.int32), share.astype(np.float32), norm.astype(np.float32)


@dataclass(frozen=True)
class Concealer:
    """The words of a concealer, and what owns the memory they point to."""

    words: NDArray[np.int64]
    keep: list[Any] = field(default_factory=list)

    @property
    def address(self) -> int:
        """What the functions here take."""
        return int(self.words.ctypes.data)


def build(sample_rate_hz: int, *, allocate: Allocate = aligned) -> Concealer:
    """A concealer for one channel; before `conceal_begin` its owner writes `HISTORY`, the newest sample last.

    Parameters
    ----------
    sample_rate_hz : int
    allocate : callable
        Source of zeroed int64 memory, given the number of words.
    """
    hop = hop_of(sample_rate_hz)
    bins = hop + 1
    keep: list[Any] = []

    def taken(count: int) -> NDArray[np.int64]:
        keep.append(allocate(count))
        whole: NDArray[np.int64] = keep[-1]
        return whole

    def floats(count: int) -> NDArray[np.float32]:
        return taken(-(-count // 16) * 8).view(np.float32)

    def at(values: NDArray[Any]) -> int:
        return int(values.ctypes.data)

    words = taken(_WORDS)
    longest, learn = round(_LONGEST_S * sample_rate_hz), round(_LEARN_S * sample_rate_hz)
    compare = round(_COMPARE_S * sample_rate_hz)
    step = max(1, round(sample_rate_hz / _COARSE_HZ))
    words[HOP], words[_BINS] = hop, bins
    words[HISTORY_SAMPLES] = history = (PAST + 2) * hop
    words[HISTORY] = at(floats(history))
    words[ROWS] = at(floats((PAST + 1) * ROW))
    words[OUT], words[_TAIL] = at(floats(hop)), at(floats(hop))
    words[_PLAN] = at(fft.plan(2 * hop, taken))
    words[_SCRATCH] = at(floats(fft.scratch_floats(2 * hop)))
    # The frame, its past for the prediction, then how alike bands are.
    words[_FRAME] = at(floats(4 * hop + 2 * BANDS))
    words[_CYCLE] = at(floats(2 * longest + 16))
    words[_COEFFICIENTS] = at(coefficients := taken(4 * (_ORDER + 1)))
    lags = np.arange(_ORDER + 1) / sample_rate_hz
    coefficients.view(np.float64)[3 * (_ORDER + 1) :] = np.exp(-0.5 * (2 * np.pi * 40 * lags) ** 2)
    coefficients.view(np.float64)[3 * (_ORDER + 1)] *= 1 + 1e-5
    words[_WORK] = at(floats(max(2 * hop + 16, learn)))
    words[_COARSE_STEP], words[_COARSE_SAMPLES] = step, (compare + longest) // step + 2
    words[_COARSE] = at(floats(int(words[_COARSE_SAMPLES])))
    words[_LEARN], words[_COMPARE], words[_LONGEST] = learn, compare, longest
    words[_SHORTEST] = round(_SHORTEST_S * sample_rate_hz)
    for name in (RE, IM, _OTHER_RE, _OTHER_IM):
        words[name] = at(floats(bins))
    words[POWER] = at(floats(BANDS))
    window = floats(2 * hop)
    window[: 2 * hop] = np.sin(np.pi * (np.arange(2 * hop) + 0.5) / (2 * hop))
    # What came last counts most: the window rises slowly and falls in its last eighth.
    rise = learn - learn // 8
    learned = floats(learn)
    learned[:rise] = np.sin(0.5 * np.pi * (np.arange(rise) + 0.5) / rise)
    learned[rise:learn] = np.cos(0.5 * np.pi * (np.arange(learn - rise) + 0.5) / (learn - rise))
    words[_WINDOW], words[_LEARN_WINDOW] = at(window), at(learned)
    band, share, norm = band_tables(sample_rate_hz, bins)
    for name, values in ((_BIN_BAND, band), (_BIN_SHARE, share), (_BAND_NORM, norm)):
        kept = taken(-(-len(values) // 2)).view(values.dtype)
        kept[: len(values)] = values
        words[name] = at(kept)
    words.view(np.float64)[_SECONDS] = hop / sample_rate_hz
    return Concealer(words, keep)


_I, _F = types.int64, types.float32


@kernel(types.void(_I, _F[::1], _F[:, ::1], _F[:, ::1], _F[:, ::1], _F[:, ::1], _F[::1]))
def rehearse(c: Any, history: Any, rows: Any, re: Any, im: Any, power: Any, first: Any) -> None:
    """What there is to shape behind a history, for who learns to do it.

    Parameters
    ----------
    c : int
        Address of a concealer.
    history : ndarray of float32, (history samples,)
    rows : ndarray of float32, (PAST + 1 + frames, ROW)
        Written: the rows of all frames.
    re, im, power : ndarray of float32, (frames, bins), (frames, bins), (frames, BANDS)
        Written: spectra of the extension's frames under the analysis window, and the power in their bands.
    first : ndarray of float32, (hop,)
        Written: what the unshaped frame before gives to the first hop.
    """
    w = i64p(c)
    into = f32p(w[HISTORY])
    for i in range(w[HISTORY_SAMPLES]):
        into[i] = history[i]
    conceal_begin(c)
    known = f32p(w[ROWS])
    for j in range(PAST + 1):
        for k in range(ROW):
            rows[j, k] = known[j * ROW + k]
    tail = f32p(w[_TAIL])
    for i in range(w[HOP]):
        first[i] = tail[i]
    real = f32p(w[RE])
    imaginary = f32p(w[IM])
    level = f32p(w[POWER])
    for j in range(len(re)):
        conceal_next(c)
        for k in range(ROW):
            rows[PAST + 1 + j, k] = known[k]
        for k in range(w[_BINS]):
            re[j, k] = real[k]
            im[j, k] = imaginary[k]
        for k in range(BANDS):
            power[j, k] = level[k]
