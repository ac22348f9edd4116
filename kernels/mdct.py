"""The lapped transform of the music codec: frames of 960 samples, each as one block of 960 or four of 240.

A modified discrete cosine transform (Princen and Bradley, IEEE TASSP 1986) as rotations of what lies symmetrically
about each border of blocks, and a cosine transform of the fourth kind (DCT-IV) of each block. Both are orthonormal,
so that energies are those of samples, and what undoes them is their transpose, for every order of blocks: at a border
of a short block the overlap is short.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from . import fft
from .native import f32p, inline, kernel

#: Samples of a frame, and of a short block.
FRAME = 960
SHORT = 240
BLOCKS = FRAME // SHORT
#: Half of an overlap, long and short.
_LONG_HALF, _SHORT_HALF = FRAME // 2, SHORT // 2
#: Parts of a frame that are looked at for attacks; one is an attack that has so many times the energy of the mean of
#: those in the frame's length before it, and more than nothing.
_PARTS, _ATTACK, _NOTHING = 8, 12.0, 1e-6
_PART = FRAME // _PARTS

_ROOM = 2 * FRAME + 16
# Floats of the tables: slopes (cosines, then sines) of both kinds, then for each length twiddles in, twiddles out.
_SLOPES, _TWIDDLES = 0, 4 * _LONG_HALF
_TABLE = _TWIDDLES + 8 * FRAME


def _slope(half: int) -> np.ndarray:
    """Cosines and sines of the rotations at a border, outwards: the power-complementary window of Vorbis."""
    place = (half + 0.5 + np.arange(half)) / (2 * half)
    angle = np.pi / 2 * np.sin(np.pi / 2 * place) ** 2
    return np.concatenate([np.sin(angle), np.cos(angle)])


def _twiddles(length: int) -> np.ndarray:
    inwards = np.exp(-1j * np.pi * np.arange(length) / (2 * length))
    outwards = np.exp(-1j * np.pi * (2 * np.arange(length) + 1) / (4 * length)) * np.sqrt(2 / length)
    return np.concatenate([inwards.real, inwards.imag, outwards.real, outwards.imag])


class Plan:
    """Tables and memory of the transform, for one thread."""

    def __init__(self) -> None:
        self.long, self.short = fft.plan(2 * FRAME), fft.plan(2 * SHORT)
        self.tables = np.zeros(_TABLE, np.float32)
        for at, part in (
            (_SLOPES, _slope(_LONG_HALF)),
            (_SLOPES + 2 * _LONG_HALF, _slope(_SHORT_HALF)),
            (_TWIDDLES, _twiddles(FRAME)),
            (_TWIDDLES + 4 * FRAME, _twiddles(SHORT)),
        ):
            self.tables[at : at + len(part)] = part
        #: Re and im going in, re and im of each coming out, and what the transform needs.
        self.memory = np.zeros(6 * _ROOM + fft.scratch_floats(2 * FRAME), np.float32)
        self.arguments = (self.long, self.short, self.tables, self.memory)


@inline
def _dct(plan: Any, tables: Any, memory: Any, x: Any, length: Any) -> None:
    """Replace ``length`` floats at an address by their orthonormal DCT-IV, which is its own inverse."""
    table = f32p(tables + 4 * (_TWIDDLES if length == FRAME else _TWIDDLES + 4 * FRAME))
    given = f32p(x)
    re = f32p(memory)
    im = f32p(memory + 4 * _ROOM)
    for n in range(length):
        re[n] = given[n] * table[n]
        im[n] = given[n] * table[length + n]
        re[length + n] = 0.0
        im[length + n] = 0.0
    scratch = memory + 24 * _ROOM
    fft.forward(plan, memory, 0, memory + 8 * _ROOM, memory + 12 * _ROOM, scratch)
    fft.forward(plan, memory + 4 * _ROOM, 0, memory + 16 * _ROOM, memory + 20 * _ROOM, scratch)
    a_re = f32p(memory + 8 * _ROOM)
    a_im = f32p(memory + 12 * _ROOM)
    b_re = f32p(memory + 16 * _ROOM)
    b_im = f32p(memory + 20 * _ROOM)
    for k in range(length):
        given[k] = table[2 * length + k] * (a_re[k] - b_im[k]) - table[3 * length + k] * (a_im[k] + b_re[k])


@inline
def _border(tables: Any, x: Any, at: Any, short: Any, back: Any) -> None:
    """Rotate what lies about sample ``at``, or rotate it back."""
    half = _SHORT_HALF if short else _LONG_HALF
    table = f32p(tables + 4 * (_SLOPES + 2 * _LONG_HALF if short else _SLOPES))
    samples = f32p(x)
    for i in range(half):
        a = samples[at - 1 - i]
        b = samples[at + i]
        c = table[i]
        s = -table[half + i] if back else table[half + i]
        samples[at - 1 - i] = c * a - s * b
        samples[at + i] = s * a + c * b


_words, _floats = types.int64[::1], types.float32[::1]


@kernel(types.boolean(_floats))
def attacks(x: np.ndarray) -> Any:
    """Whether a sound begins so suddenly in the second of two frames that it needs short blocks."""
    energies = np.zeros(2 * _PARTS)
    for part in range(2 * _PARTS):
        for i in range(part * _PART, (part + 1) * _PART):
            # Differences: attacks are bright.
            d = np.float64(x[i] - x[i - 1]) if i > 0 else 0.0
            energies[part] += d * d
    for part in range(_PARTS, 2 * _PARTS):
        before = 0.0
        for k in range(part - _PARTS, part):
            before += energies[k]
        if energies[part] > _NOTHING and energies[part] * _PARTS > _ATTACK * before:
            return True
    return False


@kernel(types.void(_words, _words, _floats, _floats, _floats, types.int64[::1], types.float32[:, ::1]))
def analyse(
    long: np.ndarray, short: np.ndarray, tables: np.ndarray, memory: np.ndarray, x: np.ndarray, shorts: np.ndarray,
    out: np.ndarray,
) -> None:  # fmt: skip
    """Coefficients (frames, FRAME) of frames whose borders lie in ``x`` from sample FRAME on; ``x`` is used up.

    ``shorts`` says of the frame before, of each frame, and of the one behind whether it has short blocks, whose
    coefficients come interleaved: those of one frequency side by side.
    """
    place, table, room = x.ctypes.data, tables.ctypes.data, memory.ctypes.data
    frames = out.shape[0]
    for k in range(frames + 1):
        _border(table, place, FRAME * (k + 1), shorts[k] != 0 or shorts[k + 1] != 0, False)
    for k in range(frames):
        begin = FRAME * (k + 1)
        if shorts[k + 1] != 0:
            for block in range(1, BLOCKS):
                _border(table, place, begin + SHORT * block, True, False)
            for block in range(BLOCKS):
                _dct(short.ctypes.data, table, room, place + 4 * (begin + SHORT * block), SHORT)
                for i in range(SHORT):
                    out[k, BLOCKS * i + block] = x[begin + SHORT * block + i]
        else:
            _dct(long.ctypes.data, table, room, place + 4 * begin, FRAME)
            for i in range(FRAME):
                out[k, i] = x[begin + i]


@kernel(types.void(_words, _words, _floats, _floats, types.float32[:, ::1], types.int64[::1], _floats))
def synthesise(
    long: np.ndarray, short: np.ndarray, tables: np.ndarray, memory: np.ndarray, given: np.ndarray,
    shorts: np.ndarray, x: np.ndarray,
) -> None:  # fmt: skip
    """Undo `analyse`: frames of coefficients to ``x`` behind its first FRAME samples, the frame before's.

    That frame, as the last call left it, is finished; the last of ``x`` waits for the one behind it. ``shorts``
    begins with the frame before.
    """
    place, table, room = x.ctypes.data, tables.ctypes.data, memory.ctypes.data
    for k in range(given.shape[0]):
        begin = FRAME * (k + 1)
        if shorts[k + 1] != 0:
            for block in range(BLOCKS):
                for i in range(SHORT):
                    x[begin + SHORT * block + i] = given[k, BLOCKS * i + block]
                _dct(short.ctypes.data, table, room, place + 4 * (begin + SHORT * block), SHORT)
            for block in range(1, BLOCKS):
                _border(table, place, begin + SHORT * block, True, True)
        else:
            for i in range(FRAME):
                x[begin + i] = given[k, i]
            _dct(long.ctypes.data, table, room, place + 4 * begin, FRAME)
        _border(table, place, begin, shorts[k] != 0 or shorts[k + 1] != 0, True)
