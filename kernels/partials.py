"""Voices out of partials and noise: oscillators that turn, gains that glide, noise in bands.

A partial is a complex number turned a little every sample; what it is turned by is itself turned where the pitch
glides, so that a frame carries a linear sweep in one phase with the frame before. Amplitudes glide linearly over a
frame. Partials near the Nyquist frequency are faded out, none lies above it. Noise is read from a table of bands of
one long periodic noise, weighed by gains that glide too. No value depends on how samples are cut into calls.

Additive synthesis after McAulay and Quatieri (IEEE Trans. ASSP, 1986) and Serra and Smith (Computer Music Journal,
1990); partials of stiff strings after Fletcher (JASA, 1964).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from .fft import Allocate, aligned
from .native import f32p, f64p, i64p, inline, kernel, larger, smaller
from .vector import LANES, Vectors, emitted, square_root

HARMONICS = 96
BANDS = 24
#: Most samples of one call.
CELL = 32
#: Rows of the noise table, one for each sample; a voice begins anywhere in it.
TABLE_ROWS = 1 << 16
#: Size of a voice.
VOICE_FLOATS = 8 * HARMONICS + 2 * BANDS
VOICE_WORDS = VOICE_FLOATS // 2
#: Size of what makes a voice's levels waver.
WAVER_WORDS = ((HARMONICS + BANDS) // 2 + 2 + 7) // 8 * 8
_WAVER_SPREAD, _WAVER_BITS = WAVER_WORDS - 2, WAVER_WORDS - 1
#: How many standard deviations they waver at most.
WAVER_MOST = 2.0
_RE, _IM, _TURN_RE, _TURN_IM, _SWEEP_RE, _SWEEP_IM, _AMP, _STEP = (k * HARMONICS for k in range(8))
_GAIN = 8 * HARMONICS
_GAIN_STEP = _GAIN + BANDS
_PAIR = 2 * LANES
#: Partials are faded out between these parts of the sample rate.
_FADE_FROM, _FADE_TO = 0.42, 0.475


def band_edges_hz() -> NDArray[np.float64]:
    """Edges of the noise bands, ``(BANDS + 1,)``: even on the mel scale from 0 to 24 kHz."""
    mel = np.linspace(0, 2595 * np.log10(1 + 24000 / 700), BANDS + 1)
    return np.asarray(700 * (10 ** (mel / 2595) - 1), np.float64)


def noise_table(sample_rate_hz: int, seed: int = 1) -> NDArray[np.float32]:
    """Noise in bands, ``(TABLE_ROWS + CELL, BANDS)``, periodic with `TABLE_ROWS`, each of RMS 1 [main].

    Bands above the Nyquist frequency are silent.
    """
    rng = np.random.default_rng(seed)
    spectrum = np.exp(2j * np.pi * rng.random(TABLE_ROWS // 2 + 1))
    hertz = np.fft.rfftfreq(TABLE_ROWS, 1 / sample_rate_hz)
    edges = band_edges_hz()
    table = np.zeros((TABLE_ROWS + CELL, BANDS), np.float32)
    for band in range(BANDS):
        inside = (hertz >= edges[band]) & (hertz < edges[band + 1]) & (hertz > 0) & (hertz < sample_rate_hz / 2)
        if inside.any():
            samples = np.fft.irfft(np.where(inside, spectrum, 0), TABLE_ROWS)
            table[:TABLE_ROWS, band] = samples / np.sqrt(np.mean(samples**2))
    table[TABLE_ROWS:] = table[:CELL]
    return table


@emitted(4)
def _turn_partials(v: Vectors, voice: Any, lanes: Any, n: Any, partials: Any) -> None:
    """Add ``partials`` (a multiple of 16) to ``n`` rows of 8 lanes and go on by ``n`` samples."""
    builder = v.builder
    rows = (_RE, _IM, _TURN_RE, _TURN_IM, _SWEEP_RE, _SWEEP_IM, _AMP, _STEP)
    # The optimiser keeps these in registers; two groups at a time hide how long a multiplication takes.
    held = [[builder.alloca(v.constant(0).type) for _ in rows] for _ in range(2)]
    with v.loop(v.word(0), partials, v.word(_PAIR)) as first:
        at = [builder.add(first, v.word(LANES * g)) for g in range(2)]
        for g in range(2):
            for slot, row in zip(held[g], rows, strict=True):
                builder.store(v.load(voice, builder.add(at[g], v.word(row))), slot)
        with v.loop(v.word(0), n, v.word(1)) as i:
            row = builder.mul(i, v.word(LANES))
            total = v.load(lanes, row)
            for g in range(2):
                re, im, tr, ti, sr, si, amp, step = (builder.load(slot, typ=v.constant(0).type) for slot in held[g])
                total = v.add(total, v.mul(amp, im))
                turned = (
                    v.sub(v.mul(re, tr), v.mul(im, ti)), v.add(v.mul(re, ti), v.mul(im, tr)),
                    v.sub(v.mul(tr, sr), v.mul(ti, si)), v.add(v.mul(tr, si), v.mul(ti, sr)),
                )  # fmt: skip
                for slot, value in zip(held[g], turned, strict=False):
                    builder.store(value, slot)
                builder.store(v.add(amp, step), held[g][6])
            v.store(total, lanes, row)
        for g in range(2):
            for k in (0, 1, 2, 3, 6):
                v.store(builder.load(held[g][k], typ=v.constant(0).type), voice, builder.add(at[g], v.word(rows[k])))


@emitted(4)
def _weigh_noise(v: Vectors, gains: Any, rows: Any, lanes: Any, n: Any) -> None:
    """Add ``n`` rows of the noise table, weighed by gains that go on by their steps, to rows of 8 lanes."""
    builder = v.builder
    vector = v.constant(0).type
    held = [builder.alloca(vector) for _ in range(BANDS // LANES)]
    for k, slot in enumerate(held):
        builder.store(v.load(gains, v.word(LANES * k)), slot)
    with v.loop(v.word(0), n, v.word(1)) as i:
        row = builder.mul(i, v.word(LANES))
        bands = builder.mul(i, v.word(BANDS))
        total = v.load(lanes, row)
        for k, slot in enumerate(held):
            gain = builder.load(slot, typ=vector)
            total = v.add(total, v.mul(gain, v.load(rows, builder.add(bands, v.word(LANES * k)))))
            builder.store(v.add(gain, v.load(gains, v.word(BANDS + LANES * k))), slot)
        v.store(total, lanes, row)
    for k, slot in enumerate(held):
        v.store(builder.load(slot, typ=vector), gains, v.word(LANES * k))


@inline
def voice_begin(voice: Any, seed: Any) -> None:
    """[audio] Silence, and phases that follow from ``seed``."""
    x = f32p(voice)
    for k in range(VOICE_FLOATS):
        x[k] = np.float32(0.0)
    # A linear congruential generator (Knuth, MMIX) is as random as phases need to be.
    bits = seed * 6364136223846793005 + 1442695040888963407
    for k in range(HARMONICS):
        bits = bits * 6364136223846793005 + 1442695040888963407
        phase = ((bits >> 40) & 0xFFFFFF) * (2.0 * math.pi / 16777216.0)
        x[_RE + k] = np.float32(math.cos(phase))
        x[_IM + k] = np.float32(math.sin(phase))
        x[_TURN_RE + k] = np.float32(1.0)
        x[_SWEEP_RE + k] = np.float32(1.0)


@inline
def voice_tune(voice: Any, turns_from: Any, turns_to: Any, stiffness: Any, samples: Any) -> None:
    """[audio] Let the fundamental glide within ``samples``; in turns, that is cycles, per sample.

    Lengths of the turning numbers, which rounding changes, are set right.
    """
    x = f32p(voice)
    level = 1.0 / square_root(1.0 + stiffness)
    for k in range(HARMONICS):
        number = k + 1.0
        partial = number * square_root(1.0 + stiffness * number * number) * level
        # What lies above the band is silent and stands still.
        begin = 2.0 * math.pi * smaller(partial * turns_from, 0.5)
        sweep = (2.0 * math.pi * smaller(partial * turns_to, 0.5) - begin) / samples
        # The middle of the first sample's sweep, so that the phase is that of the line, not of its left edge.
        begin += 0.5 * sweep
        x[_TURN_RE + k] = np.float32(math.cos(begin))
        x[_TURN_IM + k] = np.float32(math.sin(begin))
        x[_SWEEP_RE + k] = np.float32(math.cos(sweep))
        x[_SWEEP_IM + k] = np.float32(math.sin(sweep))


@inline
def voice_aim(
    voice: Any, partials: Any, bands: Any, level: Any, damping: Any, turns: Any, stiffness: Any, samples: Any
) -> Any:
    """[audio] Let amplitudes glide within ``samples`` to those given, and set the lengths of partials right.

    Parameters
    ----------
    partials, bands : address of HARMONICS and BANDS float32
    level : float
        Factor for all.
    damping : float
        Further factor from partial to partial, 1 or less.
    turns : float
        The highest fundamental of the frame, in cycles per sample.

    Returns
    -------
    int
        How many partials, a multiple of 16, `voice_add` has to turn.
    """
    x = f32p(voice)
    wanted = f32p(partials)
    share = 1.0 / samples
    factor = level
    needed = 0
    base = turns / square_root(1.0 + stiffness)
    for k in range(HARMONICS):
        number = k + 1.0
        at = number * square_root(1.0 + stiffness * number * number) * base
        fade = smaller(larger((_FADE_TO - at) / (_FADE_TO - _FADE_FROM), 0.0), 1.0)
        amp = np.float64(wanted[k]) * factor * fade
        factor *= damping
        present = np.float64(x[_AMP + k])
        x[_STEP + k] = np.float32((amp - present) * share)
        if amp > 1e-7 or present > 1e-7:
            needed = k + 1
        re = np.float64(x[_RE + k])
        im = np.float64(x[_IM + k])
        length = 1.5 - 0.5 * (re * re + im * im)
        x[_RE + k] = np.float32(re * length)
        x[_IM + k] = np.float32(im * length)
    noise = f32p(bands)
    for k in range(BANDS):
        gain = np.float64(noise[k]) * level
        x[_GAIN_STEP + k] = np.float32((gain - np.float64(x[_GAIN + k])) * share)
    return (needed + _PAIR - 1) // _PAIR * _PAIR


@inline
def waver_begin(waver: Any, seed: Any) -> None:
    """[audio] Steady, and what follows follows from ``seed``."""
    x = f32p(waver)
    for k in range(HARMONICS + BANDS):
        x[k] = np.float32(0.0)
    f64p(waver)[_WAVER_SPREAD] = 0.0
    i64p(waver)[_WAVER_BITS] = seed * 6364136223846793005 + 1442695040888963407


@inline
def waver_go(waver: Any, levels: Any, partials: Any, noise: Any, keep: Any) -> None:
    """[audio] A frame on: each level wanders about its own by itself, as a first-order autoregression.

    In the mean amplitudes stay what they are; power grows with the square of the depth, by 1 dB at a depth of 0.5.

    Parameters
    ----------
    levels : address of HARMONICS + BANDS float32
        What is multiplied.
    partials, noise : float
        Standard deviations, in nepers, once a note has sounded for some time constants; no partial strays further than
        twice that.
    keep : float
        Share of a frame's straying that is left in the next.
    """
    x = f32p(waver)
    y = f32p(levels)
    # Two uniform numbers make a triangle, whose variance is a sixth.
    push = math.sqrt(6.0 * (1.0 - keep * keep)) / 16777216.0
    bits = i64p(waver)[_WAVER_BITS]
    spread = f64p(waver)[_WAVER_SPREAD] * keep * keep + 1.0 - keep * keep
    f64p(waver)[_WAVER_SPREAD] = spread
    for k in range(HARMONICS + BANDS):
        bits = bits * 6364136223846793005 + 1442695040888963407
        drawn = ((bits >> 40) & 0xFFFFFF) + ((bits >> 16) & 0xFFFFFF) - 16777216
        stray = np.float64(x[k]) * keep + push * drawn
        x[k] = np.float32(stray)
        depth = partials if k < HARMONICS else noise
        held = smaller(larger(stray, -WAVER_MOST), WAVER_MOST)
        # The mean of a lognormal number lies above its median by half the variance.
        y[k] = np.float32(np.float64(y[k]) * math.exp(depth * (held - 0.5 * depth * spread)))
    i64p(waver)[_WAVER_BITS] = bits


@inline
def voice_fall(voice: Any, samples: Any) -> None:
    """[audio] Let everything glide to silence within ``samples``, from wherever it is."""
    x = f32p(voice)
    share = np.float32(-1.0 / samples)
    for k in range(HARMONICS):
        x[_STEP + k] = x[_AMP + k] * share
    for k in range(BANDS):
        x[_GAIN_STEP + k] = x[_GAIN + k] * share


@inline
def voice_add(voice: Any, partials: Any, table: Any, row: Any, lanes: Any, n: Any) -> None:
    """[audio] Add ``n <= CELL`` samples to rows of 8 lanes and go on; ``row`` is the place in the noise table."""
    _turn_partials(voice, lanes, n, partials)
    _weigh_noise(voice + 4 * _GAIN, table + 4 * BANDS * row, lanes, n)


@inline
def lanes_sum(lanes: Any, out: Any, n: Any) -> None:
    """[audio] Sum the 8 lanes of ``n`` rows to samples and clear them."""
    x = f32p(lanes)
    y = f32p(out)
    for i in range(n):
        total = np.float32(0.0)
        for k in range(LANES):
            total += x[LANES * i + k]
            x[LANES * i + k] = np.float32(0.0)
        y[i] = total


_I = types.int64
_F = types.float64


@kernel(types.void(_I, _I))
def _begin(voice: Any, seed: Any) -> None:
    voice_begin(voice, seed)


@kernel(types.int64(_I, _I, _I, _F, _F, _F, _F, _F))
def _frame(
    voice: Any, partials: Any, bands: Any, turns_from: Any, turns_to: Any, stiffness: Any, samples: Any, level: Any
) -> Any:
    voice_tune(voice, turns_from, turns_to, stiffness, samples)
    return voice_aim(voice, partials, bands, level, 1.0, larger(turns_from, turns_to), stiffness, samples)


@kernel(types.void(_I, _I))
def _waver_begin(waver: Any, seed: Any) -> None:
    waver_begin(waver, seed)


@kernel(types.void(_I, _I, _F, _F, _F))
def _waver_go(waver: Any, levels: Any, partials: Any, noise: Any, keep: Any) -> None:
    waver_go(waver, levels, partials, noise, keep)


@kernel(types.void(_I, _F))
def _fall(voice: Any, samples: Any) -> None:
    voice_fall(voice, samples)


@kernel(types.void(_I, _I, _I, _I, _I, _I, _I))
def _add(voice: Any, partials: Any, table: Any, row: Any, lanes: Any, out: Any, n: Any) -> None:
    done = 0
    while done < n:
        count = smaller(n - done, CELL)
        voice_add(voice, partials, table, (row + done) % TABLE_ROWS, lanes, count)
        lanes_sum(lanes, out + 4 * done, count)
        done += count


class Waver:
    """What makes one voice's levels waver, for Python: for tests and measurements [one thread].

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int = 0, *, allocate: Allocate = aligned) -> None:
        self.memory = allocate(WAVER_WORDS)
        _waver_begin(self.memory.ctypes.data, seed)

    def go(self, levels: NDArray[np.float32], partials: float, noise: float, keep: float) -> None:
        """See `waver_go`; changes ``levels`` ``(HARMONICS + BANDS,)``."""
        _waver_go(self.memory.ctypes.data, levels.ctypes.data, partials, noise, keep)


class Voice:
    """One voice for Python: for tests, measurements and drawings [one thread].

    Parameters
    ----------
    sample_rate_hz : int
    seed : int
        Of the phases and of the place in the noise.
    table : ndarray, optional
        Of `noise_table`; made by default.
    """

    def __init__(
        self,
        sample_rate_hz: int,
        seed: int = 0,
        table: NDArray[np.float32] | None = None,
        *,
        allocate: Allocate = aligned,
    ) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.memory = allocate(VOICE_WORDS)
        self.table = noise_table(sample_rate_hz) if table is None else table
        self._lanes = allocate(CELL * LANES // 2)
        self._row = seed * 7919 % TABLE_ROWS
        self._partials = 0
        _begin(self.memory.ctypes.data, seed)

    def aim(
        self,
        partials: NDArray[np.float32],
        bands: NDArray[np.float32],
        from_hz: float,
        to_hz: float,
        samples: int,
        stiffness: float = 0.0,
    ) -> None:
        """Let amplitudes ``(HARMONICS,)``, noise ``(BANDS,)`` and pitch reach their aim in so many samples."""
        self._partials = _frame(
            self.memory.ctypes.data, partials.ctypes.data, bands.ctypes.data, from_hz / self.sample_rate_hz,
            to_hz / self.sample_rate_hz, stiffness, float(samples), 1.0,
        )  # fmt: skip

    def fall(self, samples: int) -> None:
        """Let everything die away in so many samples."""
        _fall(self.memory.ctypes.data, float(samples))

    def more(self, samples: int) -> NDArray[np.float32]:
        """Go on for ``samples``."""
        out = np.empty(samples, np.float32)
        _add(
            self.memory.ctypes.data, self._partials, self.table.ctypes.data, self._row, self._lanes.ctypes.data,
            out.ctypes.data, samples,
        )  # fmt: skip
        self._row = (self._row + samples) % TABLE_ROWS
        return out
