"""What the music codec writes of the coefficients of `mdct`, and what it makes of them again.

Of a frame are told: whether it is silent, one long block or four short ones; how loud each band is, in steps of 3 dB;
of short blocks how loud each is beside the others; and coefficients, in steps that follow loudness by a rule that
both sides know. Chances depend on what was told before, by whole numbers alone, so that both sides agree on every
machine. What is told as zero is filled with noise, as loud as a net says.

One place for numbers that training and playing must agree on.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from . import entropy, mdct
from .native import inline, kernel, larger, smaller

RATE_HZ = 48000
FRAME, BLOCKS = mdct.FRAME, mdct.BLOCKS
#: First bins of the bands, of 25 Hz each, and where the last one ends: 20 kHz.
EDGES = np.array(
    [0, 8, 16, 24, 32, 40, 48, 64, 80, 96, 112, 136, 160, 192, 232, 280, 344, 424, 520, 640, 800], np.int64
)
BANDS = len(EDGES) - 1
BINS = int(EDGES[-1])
#: Kinds of frames.
SILENT, LONG, SHORT = 0, 1, 2
#: Energies in a band: 0 for nothing, then powers of two per coefficient.
LOUDEST, _NOUGHT = 47, 35
#: Energies of short blocks beside the frame's, powers of two, in two regions that meet at this band.
REGIONS, MEETING, _LEAST, _MOST = 2, 10, -16, 2
GAINS = REGIONS * BLOCKS
#: Qualities that a packet may be told in; steps of 1.5 dB, less is better.
QUALITIES = 128
_MIDDLE = 64
#: Where steps follow loudness by eighths, and how far a band hides behind its neighbours below and above: 1.5 dB.
_FOLLOW, _BELOW, _ABOVE = 4, 8, 14
#: A magnitude below this share of a step is rounded down.
_ROUND = 0.4
#: Magnitudes from here on are told by their excess.
LARGE, _LONGEST = 15, 14
#: Symbols that a large one takes beside two, at most.
MOST_EXTRA = 1 + _LONGEST

#: Symbols of every table, and its rows.
SYMBOLS = 2 * LOUDEST + 2
_CHANGES, _LEVELS, _NEAR, _AROUND = 7, 14, 6, 5
KIND_ROWS = 0
FIRST_ROWS = KIND_ROWS + 4
ENERGY_ROWS = FIRST_ROWS + BANDS
GAIN_ROWS = ENERGY_ROWS + BANDS * _CHANGES
VALUE_ROWS = GAIN_ROWS + REGIONS * 2
LENGTH_ROW = VALUE_ROWS + _LEVELS * _NEAR * _AROUND
EVEN_ROW = LENGTH_ROW + 1
ROWS = EVEN_ROW + 1

#: A row of the net: of each band its energy, the step beside it, the share of zeros, the energy told beside its own.
FEATURES = 4
ROW = BANDS * FEATURES

#: By how much one coefficient may lie above the mean of its band, in steps of 1.5 dB.
_PEAKS = np.array([(int(n) * int(n) - 1).bit_length() for n in np.diff(EDGES)], np.int64)


@inline
def _limited(x: Any, low: Any, high: Any) -> Any:
    return smaller(larger(x, low), high)


@inline
def _energy(total: Any, count: Any) -> Any:
    """Number of an energy."""
    if not total > 0.0:
        return 0
    return np.int64(_limited(math.floor(math.log2(total / count) + _NOUGHT + 0.5), 0.0, np.float64(LOUDEST)))


@inline
def _gain(kinds: Any, gains: Any, frame: Any, band: Any, k: Any) -> Any:
    """How much louder a short block is than its frame, powers of two of energy."""
    if kinds[frame] != SHORT:
        return 0
    return gains[frame, (0 if band < MEETING else BLOCKS) + k % BLOCKS]


@inline
def _left(whole: Any, told: Any, empty: Any) -> Any:
    """Energy of what is told as zero, each, by what is told of the band."""
    return larger(whole - told, 0.02 * whole) / empty


@inline
def _step(energies: Any, frame: Any, band: Any, gain: Any, quality: Any, tilt: Any) -> Any:
    """Quarter powers of two of a band's step."""
    level = 2 * (energies[frame, band] - _NOUGHT)
    if band > 0:
        level = larger(level, 2 * (energies[frame, band - 1] - _NOUGHT) - _ABOVE)
    if band + 1 < BANDS:
        level = larger(level, 2 * (energies[frame, band + 1] - _NOUGHT) - _BELOW)
    return _limited((_FOLLOW * (level + 2 * gain) >> 3) + quality - _MIDDLE + tilt[band], -160, 60)


@inline
def _value_row(above: Any, values: Any, kinds: Any, frame: Any, k: Any) -> Any:
    """Row of a coefficient's magnitude: by how far its band lies above the step, and what was told around it."""
    short = kinds[frame] == SHORT
    near = 0
    if short:
        if k - BLOCKS >= 0:
            near += 2 * abs(values[frame, k - BLOCKS])
        if k % BLOCKS > 0:
            near += 2 * abs(values[frame, k - 1])
    else:
        if k >= 1:
            near += 2 * abs(values[frame, k - 1])
        if k >= 2:
            near += abs(values[frame, k - 2])
    if near > 2:
        near = 3 if near < 5 else 4 if near < 9 else 5
    around = 4
    if not short and frame > 0 and kinds[frame - 1] == LONG:
        around = 2 * abs(values[frame - 1, k])
        if k > 0:
            around += abs(values[frame - 1, k - 1])
        if k + 1 < BINS:
            around += abs(values[frame - 1, k + 1])
        around = around if around < 2 else 2 if around < 5 else 3
    level = _limited((above + 18) >> 1, 0, _LEVELS - 1)
    return VALUE_ROWS + (level * _NEAR + near) * _AROUND + around


@inline
def _energy_row(energies: Any, kinds: Any, frame: Any, band: Any) -> Any:
    if frame == 0 or kinds[frame - 1] == SILENT:
        return FIRST_ROWS + band
    change = 0
    if band > 0:
        change = _limited(energies[frame, band - 1] - energies[frame - 1, band - 1], -3, 3)
    return ENERGY_ROWS + band * _CHANGES + change + 3


@inline
def _energy_guess(energies: Any, kinds: Any, frame: Any, band: Any) -> Any:
    if frame > 0 and kinds[frame - 1] != SILENT:
        return energies[frame - 1, band]
    return energies[frame, band - 1] if band > 0 else LOUDEST // 2


_longs, _bytes = types.int64[::1], types.Array(types.uint8, 1, "C", readonly=True)
_spectra, _words = types.float32[:, ::1], types.int64[:, ::1]
_values, _table = types.int32[:, ::1], types.Array(types.uint16, 2, "C", readonly=True)


@kernel(types.void(_spectra, _longs, _words, _words))
def weigh(spectra: np.ndarray, kinds: np.ndarray, energies: np.ndarray, gains: np.ndarray) -> None:
    """Energies (frames, BANDS) and gains (frames, GAINS) of spectra; a frame of nothing becomes silent."""
    parts = np.zeros(BLOCKS)
    for frame in range(spectra.shape[0]):
        most = 0
        for band in range(BANDS):
            total = 0.0
            for k in range(EDGES[band], EDGES[band + 1]):
                total += np.float64(spectra[frame, k]) * np.float64(spectra[frame, k])
            energies[frame, band] = _energy(total, EDGES[band + 1] - EDGES[band])
            most = larger(most, energies[frame, band])
        gains[frame] = 0
        if most == 0:
            kinds[frame] = SHORT if kinds[frame] == SHORT else SILENT
        if kinds[frame] != SHORT:
            continue
        for region in range(REGIONS):
            parts[:] = 0.0
            for k in range(0 if region == 0 else EDGES[MEETING], EDGES[MEETING] if region == 0 else BINS):
                parts[k % BLOCKS] += np.float64(spectra[frame, k]) * np.float64(spectra[frame, k])
            mean = parts.sum() / BLOCKS
            for block in range(BLOCKS):
                gain = math.log2(parts[block] / mean) if parts[block] > 0.0 else -99.0
                gain = _limited(math.floor(gain + 0.5), np.float64(_LEAST), np.float64(_MOST))
                gains[frame, BLOCKS * region + block] = np.int64(gain)


@kernel(types.void(_spectra, _longs, _words, _words, types.int64, _longs, _values))
def quantise(
    spectra: np.ndarray, kinds: np.ndarray, energies: np.ndarray, gains: np.ndarray, quality: int, tilt: np.ndarray,
    values: np.ndarray,
) -> None:  # fmt: skip
    """Whole numbers (frames, BINS) that coefficients are told as."""
    for frame in range(spectra.shape[0]):
        for band in range(BANDS):
            for k in range(EDGES[band], EDGES[band + 1]):
                values[frame, k] = 0
                gain = _gain(kinds, gains, frame, band, k)
                step = _step(energies, frame, band, gain, quality, tilt)
                above = 2 * (energies[frame, band] - _NOUGHT + gain) - step
                if energies[frame, band] == 0 or above + _PEAKS[band] < -2:
                    continue
                size = abs(np.float64(spectra[frame, k])) * 2.0 ** (-0.25 * step)
                told = np.int32(_limited(math.floor(size + _ROUND), 0.0, np.float64(1 << _LONGEST)))
                values[frame, k] = -told if spectra[frame, k] < 0.0 else told


@kernel(types.int64(_longs, _words, _words, _values, types.int64, _longs, _longs, _longs))
def tell(
    kinds: np.ndarray, energies: np.ndarray, gains: np.ndarray, values: np.ndarray, quality: int, tilt: np.ndarray,
    rows: np.ndarray, symbols: np.ndarray,
) -> Any:  # fmt: skip
    """Write what frames are told as: symbols, and the row of each; how many."""
    at = 0
    for frame in range(len(kinds)):
        kind = kinds[frame]
        rows[at], symbols[at] = KIND_ROWS + (kinds[frame - 1] if frame > 0 else 3), kind
        at += 1
        if kind == SILENT:
            continue
        for band in range(BANDS):
            guess = _energy_guess(energies, kinds, frame, band)
            rows[at] = _energy_row(energies, kinds, frame, band)
            symbols[at] = energies[frame, band] - guess + LOUDEST
            at += 1
        if kind == SHORT:
            for k in range(GAINS):
                rows[at], symbols[at] = GAIN_ROWS + 2 * (k // BLOCKS) + (k % BLOCKS > 0), gains[frame, k] - _LEAST
                at += 1
        for band in range(BANDS):
            for k in range(EDGES[band], EDGES[band + 1]):
                gain = _gain(kinds, gains, frame, band, k)
                above = 2 * (energies[frame, band] - _NOUGHT + gain)
                above -= _step(energies, frame, band, gain, quality, tilt)
                if energies[frame, band] == 0 or above + _PEAKS[band] < -2:
                    continue
                size = abs(np.int64(values[frame, k]))
                rows[at] = _value_row(above, values, kinds, frame, k)
                symbols[at] = smaller(size, LARGE)
                at += 1
                if size >= LARGE:
                    excess = size - LARGE + 1
                    length = 0
                    while excess >> (length + 1) > 0:
                        length += 1
                    rows[at], symbols[at] = LENGTH_ROW, length
                    at += 1
                    for bit in range(length):
                        rows[at], symbols[at] = EVEN_ROW, (excess >> bit) & 1
                        at += 1
                if size > 0:
                    rows[at], symbols[at] = EVEN_ROW, 1 if values[frame, k] < 0 else 0
                    at += 1
    return at


@kernel(types.boolean(_table, _bytes, types.int64, _longs, _longs, _words, _words, _values))
def understand(
    tables: np.ndarray, data: np.ndarray, quality: int, tilt: np.ndarray, kinds: np.ndarray, energies: np.ndarray,
    gains: np.ndarray, values: np.ndarray,
) -> Any:  # fmt: skip
    """Read what `tell` wrote; whether it can have written it."""
    state = np.zeros(4, np.int64)
    entropy.start(state, data)
    for frame in range(len(kinds)):
        kind = entropy.take(tables, KIND_ROWS + (kinds[frame - 1] if frame > 0 else 3), state, data)
        if kind > SHORT:
            return False
        kinds[frame] = kind
        energies[frame] = 0
        gains[frame] = 0
        values[frame] = 0
        if kind == SILENT:
            continue
        for band in range(BANDS):
            symbol = entropy.take(tables, _energy_row(energies, kinds, frame, band), state, data)
            energy = symbol - LOUDEST + _energy_guess(energies, kinds, frame, band)
            if energy < 0 or energy > LOUDEST:
                return False
            energies[frame, band] = energy
        if kind == SHORT:
            for k in range(GAINS):
                gain = entropy.take(tables, GAIN_ROWS + 2 * (k // BLOCKS) + (k % BLOCKS > 0), state, data) + _LEAST
                if gain > _MOST:
                    return False
                gains[frame, k] = gain
        for band in range(BANDS):
            for k in range(EDGES[band], EDGES[band + 1]):
                gain = _gain(kinds, gains, frame, band, k)
                above = 2 * (energies[frame, band] - _NOUGHT + gain)
                above -= _step(energies, frame, band, gain, quality, tilt)
                if energies[frame, band] == 0 or above + _PEAKS[band] < -2:
                    continue
                size = entropy.take(tables, _value_row(above, values, kinds, frame, k), state, data)
                if size > LARGE:
                    return False
                if size == LARGE:
                    length = entropy.take(tables, LENGTH_ROW, state, data)
                    if length > _LONGEST:
                        return False
                    excess = np.int64(1) << length
                    for bit in range(length):
                        excess |= (entropy.take(tables, EVEN_ROW, state, data) & 1) << bit
                    size += excess - 1
                if size > 0 and entropy.take(tables, EVEN_ROW, state, data) == 1:
                    size = -size
                values[frame, k] = size
    return True


@kernel(types.void(_longs, _words, _words, _values, types.int64, _longs, _spectra))
def features(
    kinds: np.ndarray, energies: np.ndarray, gains: np.ndarray, values: np.ndarray, quality: int, tilt: np.ndarray,
    rows: np.ndarray,
) -> None:  # fmt: skip
    """Rows (frames, ROW) of the net, of what was told."""
    for frame in range(len(kinds)):
        for band in range(BANDS):
            step = _step(energies, frame, band, 0, quality, tilt)
            level = 2 * (energies[frame, band] - _NOUGHT)
            zeros = 0
            told = 0.0
            for k in range(EDGES[band], EDGES[band + 1]):
                zeros += values[frame, k] == 0
                told += np.float64(values[frame, k]) * np.float64(values[frame, k])
            count = EDGES[band + 1] - EDGES[band]
            there = energies[frame, band] > 0 and kinds[frame] != SILENT
            row = FEATURES * band
            rows[frame, row] = np.float32(0.1 * (level + 30)) if there else np.float32(-4.0)
            rows[frame, row + 1] = np.float32(_limited(0.1 * (level - step), -3.0, 3.0)) if there else np.float32(0.0)
            rows[frame, row + 2] = np.float32(zeros / count)
            share = 2.0 * math.log2(told / count + 1e-3) + step - level
            rows[frame, row + 3] = np.float32(_limited(0.2 * share, -3.0, 3.0)) if there else np.float32(-3.0)


@kernel(types.void(_longs, _words, _words, _values, types.int64, _longs, _spectra, types.int64, _spectra))
def fill(
    kinds: np.ndarray, energies: np.ndarray, gains: np.ndarray, values: np.ndarray, quality: int, tilt: np.ndarray,
    louder: np.ndarray, first: int, spectra: np.ndarray,
) -> None:  # fmt: skip
    """Coefficients (frames, FRAME) of what was told, with noise where that is zero.

    ``louder`` (frames, BANDS) says by how many powers of two of energy the noise is louder than what is left of the
    band's energy; ``first`` is the number of the first frame, which the noise depends on and nothing else.
    """
    for frame in range(len(kinds)):
        spectra[frame] = 0.0
        if kinds[frame] == SILENT:
            continue
        seed = np.uint64(first + frame + 1) * np.uint64(0x9E3779B97F4A7C15)
        for band in range(BANDS):
            if energies[frame, band] == 0:
                continue
            begin, end = EDGES[band], EDGES[band + 1]
            whole = 2.0 ** np.float64(energies[frame, band] - _NOUGHT) * (end - begin)
            # No coefficient of the band can be louder than all of it, whatever a packet says.
            most = 1.5 * math.sqrt(whole)
            told = 0.0
            empty = 0.0
            for k in range(begin, end):
                gain = _gain(kinds, gains, frame, band, k)
                if values[frame, k] == 0:
                    empty += 2.0 ** np.float64(gain)
                    continue
                size = 2.0 ** (0.25 * _step(energies, frame, band, gain, quality, tilt)) * values[frame, k]
                size = _limited(size, -most, most)
                spectra[frame, k] = np.float32(size)
                told += size * size
            if empty == 0.0:
                continue
            left = _left(whole, told, empty)
            left *= 2.0 ** np.float64(_limited(np.float64(louder[frame, band]), -12.0, 4.0))
            for k in range(begin, end):
                seed = seed * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
                if values[frame, k] != 0:
                    continue
                gain = _gain(kinds, gains, frame, band, k)
                size = math.sqrt(left * 2.0 ** np.float64(gain))
                if told > 0.0:
                    size = smaller(size, 0.45 * 2.0 ** (0.25 * _step(energies, frame, band, gain, quality, tilt)))
                spectra[frame, k] = np.float32(size if seed >> np.uint64(63) == np.uint64(0) else -size)


@kernel(types.void(_spectra, _longs, _words, _words, _values, types.int64, _longs, _spectra))
def wanted(
    spectra: np.ndarray, kinds: np.ndarray, energies: np.ndarray, gains: np.ndarray, values: np.ndarray, quality: int,
    tilt: np.ndarray, louder: np.ndarray,
) -> None:  # fmt: skip
    """What `fill` should have been told for the noise to be as loud as what it stands for; -99 where there is none."""
    for frame in range(len(kinds)):
        for band in range(BANDS):
            louder[frame, band] = np.float32(-99.0)
            if kinds[frame] == SILENT or energies[frame, band] == 0:
                continue
            whole = 2.0 ** np.float64(energies[frame, band] - _NOUGHT) * (EDGES[band + 1] - EDGES[band])
            told = 0.0
            empty = 0.0
            sizes = 0.0
            zeros = 0
            for k in range(EDGES[band], EDGES[band + 1]):
                gain = _gain(kinds, gains, frame, band, k)
                if values[frame, k] == 0:
                    empty += 2.0 ** np.float64(gain)
                    sizes += abs(np.float64(spectra[frame, k])) * 2.0 ** (-0.5 * gain)
                    zeros += 1
                else:
                    size = 2.0 ** (0.25 * _step(energies, frame, band, gain, quality, tilt)) * values[frame, k]
                    told += size * size
            if sizes > 0.0:
                # Normally distributed numbers have this energy by their mean size; of others, whose energy lies in a
                # few, the many that are small decide.
                ratio = math.log2(0.5 * math.pi * (sizes / zeros) ** 2 / _left(whole, told, empty))
                louder[frame, band] = np.float32(_limited(ratio, -12.0, 4.0))
