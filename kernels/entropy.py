"""An arithmetic coder with tables of frequencies: what is likely takes few bits.

Witten, Neal and Cleary, "Arithmetic Coding for Data Compression", CACM 1987: 32-bit registers, renormalised bit by
bit, two bits to end with, so that short messages pay nothing for it. A decoder given other bits than were written
decodes other symbols; it reads zeros behind the end and never leaves its tables.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .native import inline, kernel

#: Sum of the frequencies of a table, each of which is at least 1.
WHOLE = 1 << 15
_TOP, _HALF, _QUARTER = (1 << 32) - 1, 1 << 31, 1 << 30

_tables = types.Array(types.uint16, 2, "C", readonly=True)


def cumulated(counts: np.ndarray) -> np.ndarray:
    """Tables (..., symbols + 1) for the coder, uint16 from 0 to `WHOLE`, of counts or chances (..., symbols)."""
    counts = np.asarray(counts, np.float64)
    symbols = counts.shape[-1]
    share = counts / np.maximum(counts.sum(-1, keepdims=True), 1e-12) * (WHOLE - symbols)
    out = np.zeros((*counts.shape[:-1], symbols + 1), np.uint16)
    out[..., 1:] = np.floor(np.cumsum(share, -1) + 1e-6) + np.arange(1, symbols + 1)
    out[..., -1] = WHOLE
    return out


_bytes = types.Array(types.uint8, 1, "C", readonly=True)


@inline
def _emit(out: Any, bits: Any, bit: Any, waiting: Any) -> Any:
    """A bit, and as many of its opposite as were waiting; the number of bits then."""
    for k in range(waiting + 1):
        if (bit == 1) == (k == 0):
            out[bits >> 3] |= np.uint8(128 >> (bits & 7))
        bits += 1
    return bits


@kernel(types.int64(_tables, types.int64[::1], types.int64[::1], types.uint8[::1]))
def encode(tables: np.ndarray, rows: np.ndarray, symbols: np.ndarray, out: np.ndarray) -> Any:
    """Write symbols, each by the table of its row, to zeroed ``out``; how many bytes, or -1 for too little room."""
    low, high, waiting, bits = np.int64(0), np.int64(_TOP), np.int64(0), np.int64(0)
    room = 8 * len(out) - 2
    for k in range(len(symbols)):
        table = tables[rows[k]]
        span = high - low + 1
        high = low + span * np.int64(table[symbols[k] + 1]) // WHOLE - 1
        low = low + span * np.int64(table[symbols[k]]) // WHOLE
        while True:
            if high < _HALF or low >= _HALF:
                bit = np.int64(low >= _HALF)
                if bits + waiting >= room:
                    return -1
                bits = _emit(out, bits, bit, waiting)
                waiting = np.int64(0)
                low -= bit * _HALF
                high -= bit * _HALF
            elif low >= _QUARTER and high < _HALF + _QUARTER:
                waiting += 1
                low -= _QUARTER
                high -= _QUARTER
            else:
                break
            low = 2 * low
            high = 2 * high + 1
    # Any number that begins with these bits lies between the two.
    if bits + waiting >= room:
        return -1
    bits = _emit(out, bits, np.int64(low >= _QUARTER), waiting + 1)
    return (bits + 7) >> 3


@inline
def start(state: Any, data: Any) -> None:
    """`begin`, for kernels."""
    state[0], state[1], state[2], state[3] = 0, _TOP, 0, 32
    for k in range(4):
        state[2] = state[2] * 256 + (np.int64(data[k]) if k < len(data) else 0)


@kernel(types.void(types.int64[::1], _bytes))
def begin(state: np.ndarray, data: np.ndarray) -> None:
    """Prepare four words for `decode`."""
    start(state, data)


@inline
def take(tables: Any, row: Any, state: Any, data: Any) -> Any:
    """`decode`, for kernels."""
    low, high, value, bits = state[0], state[1], state[2], state[3]
    table = tables[row]
    span = high - low + 1
    place = ((value - low + 1) * WHOLE - 1) // span
    first, last = np.int64(0), np.int64(len(table) - 1)
    while last - first > 1:
        middle = (first + last) >> 1
        if np.int64(table[middle]) <= place:
            first = middle
        else:
            last = middle
    high = low + span * np.int64(table[first + 1]) // WHOLE - 1
    low = low + span * np.int64(table[first]) // WHOLE
    while True:
        if high < _HALF:
            off = np.int64(0)
        elif low >= _HALF:
            off = np.int64(_HALF)
        elif low >= _QUARTER and high < _HALF + _QUARTER:
            off = np.int64(_QUARTER)
        else:
            break
        byte = bits >> 3
        bit = (np.int64(data[byte]) >> (7 - (bits & 7))) & 1 if byte < len(data) else np.int64(0)
        low = 2 * (low - off)
        high = 2 * (high - off) + 1
        value = 2 * (value - off) + bit
        bits += 1
    state[0], state[1], state[2], state[3] = low, high, value, bits
    return first


@kernel(types.int64(_tables, types.int64, types.int64[::1], _bytes))
def decode(tables: np.ndarray, row: int, state: np.ndarray, data: np.ndarray) -> Any:
    """Next symbol, by the table of a row."""
    return take(tables, row, state, data)
