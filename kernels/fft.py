"""Real fast Fourier transform in float32, forward and inverse, callable from the audio thread.

A real signal of ``n`` samples is taken as ``n / 2`` complex numbers (even samples real, odd samples
imaginary), transformed, and unfolded. The complex transform works on split arrays in two steps: 8
interleaved subsequences are transformed side by side, one in each vector lane, by self-sorting passes of
radix 2, 3, 4, 5 and 8 (Stockham; Van Loan, "Computational Frameworks for the Fast Fourier Transform",
1992); then a last radix-8 step goes across the lanes.

A *plan* is one block of plain memory, an int64 header followed by float32 tables, so that its address is all
a node needs. How a node calls the transform, from compiled code, on raw addresses::

    forward(plan, x, window, re, im, scratch)     # x[n] -> re, im[n/2 + 1]; window 0 or the address of n gains
    inverse(plan, re, im, x, first, scratch)      # re, im -> x[first:n]; numpy's irfft, with 1/n

Both are force inlined and consist of one call through the function pointer in the plan. ``x`` of the inverse
is written from the last multiple of 16 at or below ``first``. The scratch of ``scratch_floats(n)`` numbers
belongs to one thread at a time; the plan is only read and may be shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from .native import NODES, cfunc, f32p, i64p, inline, intrinsic, kernel
from .vector import LANES, WORD, Vectors, emitted

# Words of the plan.
FORWARD, INVERSE, SIZE, HALF, ROWS, BUFFER, PASSES = 0, 1, 2, 3, 4, 5, 6
#: Addresses of the tables: lane step, unfolding, folding.
LANE_TABLE, UNFOLD_TABLE, FOLD_TABLE = 7, 8, 9
#: Per pass: radix and address of its twiddles.
PASS = 10
_MOST_PASSES = 16
_HEADER = PASS + 2 * _MOST_PASSES

Complex = tuple[Any, Any]
#: Words wanted to a zeroed, 64-byte aligned int64 array.
Allocate = Callable[[int], np.ndarray]


# --- Butterflies on pairs (real, imaginary) of vectors; the sign of the exponent is negative -------------------


def _plus(v: Vectors, a: Complex, b: Complex) -> Complex:
    return v.add(a[0], b[0]), v.add(a[1], b[1])


def _minus(v: Vectors, a: Complex, b: Complex) -> Complex:
    return v.sub(a[0], b[0]), v.sub(a[1], b[1])


def _times(v: Vectors, a: Complex, w: Complex) -> Complex:
    return (
        v.sub(v.mul(a[0], w[0]), v.mul(a[1], w[1])),
        v.add(v.mul(a[0], w[1]), v.mul(a[1], w[0])),
    )


def _scaled(v: Vectors, a: Complex, factor: float) -> Complex:
    c = v.constant(factor)
    return v.mul(a[0], c), v.mul(a[1], c)


def _plus_minus_j(v: Vectors, a: Complex, b: Complex) -> tuple[Complex, Complex]:
    """Return ``a - j b`` and ``a + j b``."""
    return (v.add(a[0], b[1]), v.sub(a[1], b[0])), (v.sub(a[0], b[1]), v.add(a[1], b[0]))


def _dft2(v: Vectors, x: list[Complex]) -> list[Complex]:
    return [_plus(v, x[0], x[1]), _minus(v, x[0], x[1])]


def _dft3(v: Vectors, x: list[Complex]) -> list[Complex]:
    total = _plus(v, x[1], x[2])
    side = _plus(v, x[0], _scaled(v, total, -0.5))
    turned = _scaled(v, _minus(v, x[1], x[2]), float(np.sqrt(0.75)))
    first, second = _plus_minus_j(v, side, turned)
    return [_plus(v, x[0], total), first, second]


def _dft4(v: Vectors, x: list[Complex]) -> list[Complex]:
    even, odd = _plus(v, x[0], x[2]), _plus(v, x[1], x[3])
    first, third = _plus_minus_j(v, _minus(v, x[0], x[2]), _minus(v, x[1], x[3]))
    return [_plus(v, even, odd), first, _minus(v, even, odd), third]


def _dft5(v: Vectors, x: list[Complex]) -> list[Complex]:
    c1, c2 = (float(np.cos(2 * np.pi * k / 5)) for k in (1, 2))
    s1, s2 = (float(np.sin(2 * np.pi * k / 5)) for k in (1, 2))
    outer, inner = _plus(v, x[1], x[4]), _plus(v, x[2], x[3])
    outer_odd, inner_odd = _minus(v, x[1], x[4]), _minus(v, x[2], x[3])
    a1 = _plus(v, _plus(v, x[0], _scaled(v, outer, c1)), _scaled(v, inner, c2))
    a2 = _plus(v, _plus(v, x[0], _scaled(v, outer, c2)), _scaled(v, inner, c1))
    b1 = _plus(v, _scaled(v, outer_odd, s1), _scaled(v, inner_odd, s2))
    b2 = _minus(v, _scaled(v, outer_odd, s2), _scaled(v, inner_odd, s1))
    y1, y4 = _plus_minus_j(v, a1, b1)
    y2, y3 = _plus_minus_j(v, a2, b2)
    return [_plus(v, x[0], _plus(v, outer, inner)), y1, y2, y3, y4]


def _dft8(v: Vectors, x: list[Complex]) -> list[Complex]:
    even = _dft4(v, x[0::2])
    odd = _dft4(v, x[1::2])
    # Twiddles (1 - j)/sqrt(2), -j, (-1 - j)/sqrt(2): the two oblique ones cost two products each.
    r = float(np.sqrt(0.5))
    re, im = odd[1]
    one = _scaled(v, (v.add(re, im), v.sub(im, re)), r)
    re, im = odd[3]
    three = _scaled(v, (v.sub(im, re), v.add(re, im)), r)
    y0, y4 = _plus(v, even[0], odd[0]), _minus(v, even[0], odd[0])
    y1, y5 = _plus(v, even[1], one), _minus(v, even[1], one)
    y2, y6 = _plus_minus_j(v, even[2], odd[2])
    # -(re + im) stands in the imaginary part of the third twiddled value.
    y3 = v.add(even[3][0], three[0]), v.sub(even[3][1], three[1])
    y7 = v.sub(even[3][0], three[0]), v.add(even[3][1], three[1])
    return [y0, y1, y2, y3, y4, y5, y6, y7]


_DFT = {2: _dft2, 3: _dft3, 4: _dft4, 5: _dft5, 8: _dft8}


# --- Passes ----------------------------------------------------------------------------------------------------
# Between the passes complex numbers lie in blocks of 16 floats, 8 real parts and 8 imaginary parts, so that one
# address serves both. Counts and strides are in blocks.

_BLOCK = 2 * LANES


def _load(v: Vectors, address: Any, at: Any) -> Complex:
    return v.load(address, at), v.load(address, v.builder.add(at, v.word(LANES)))


def _store(v: Vectors, value: Complex, address: Any, at: Any) -> None:
    v.store(value[0], address, at)
    v.store(value[1], address, v.builder.add(at, v.word(LANES)))


def _pass(radix: int, kind: str) -> Any:
    """One self-sorting pass ``x[k][p][q] -> y[p][j][q]`` over ``count`` values of p and ``stride`` of q.

    In the first pass the stride is 1. In the last one the count is 1 and there are no twiddles.
    """

    def body(v: Vectors, x: Any, y: Any, twiddles: Any, count: Any, stride: Any) -> None:
        builder = v.builder
        size = v.word(_BLOCK)
        step = size if kind == "first" else builder.mul(stride, size)
        jump = step if kind == "last" else builder.mul(count, step)

        def butterfly(source: Any, target: Any, w: list[Complex]) -> None:
            values = []
            for _ in range(radix):
                values.append(_load(v, x, source))
                source = builder.add(source, jump)
            for j, value in enumerate(_DFT[radix](v, values)):
                _store(v, _times(v, value, w[j - 1]) if w and j else value, y, target)
                target = builder.add(target, step)

        if kind == "last":
            with v.loop(v.word(0), step, size) as q:
                butterfly(q, q, [])
            return
        with v.loop(v.word(0), count, v.word(1)) as p:
            w = []
            at = builder.mul(p, v.word(2 * (radix - 1)))
            for j in range(radix - 1):
                re = builder.add(at, v.word(2 * j))
                w.append((v.broadcast(twiddles, re), v.broadcast(twiddles, builder.add(re, v.word(1)))))
            source = builder.mul(p, step)
            target = builder.mul(source, v.word(radix))
            if kind == "first":
                butterfly(source, target, w)
            else:
                with v.loop(v.word(0), step, size) as q:
                    butterfly(builder.add(source, q), builder.add(target, q), w)

    body.__name__ = f"_{kind}{radix}"
    body.__doc__ = f"Self-sorting pass of radix {radix}: {kind}."
    return emitted(5)(body)


_first2, _first3, _first4, _first5, _first8 = (_pass(radix, "first") for radix in (2, 3, 4, 5, 8))
_middle2, _middle3, _middle4, _middle5, _middle8 = (_pass(radix, "middle") for radix in (2, 3, 4, 5, 8))
_last2, _last3, _last4, _last5, _last8 = (_pass(radix, "last") for radix in (2, 3, 4, 5, 8))


@emitted(5)
def _across(v: Vectors, x: Any, re: Any, im: Any, table: Any, rows: Any) -> None:
    """Go across the 8 lanes: twiddle, radix 8, and put the spectrum into its natural order, no longer in blocks.

    Eight rows at a time; the last eight overlap their neighbours, which only repeats work. With fewer than 8
    rows the surplus lanes overrun into the following outputs, which are written later, and at the end into
    padding.
    """
    builder = v.builder
    spare = builder.sub(rows, v.word(LANES))
    spare = builder.select(builder.icmp_signed("<", spare, v.word(0)), v.word(0), spare)
    with v.loop(v.word(0), rows, v.word(LANES)) as block:
        row = builder.select(builder.icmp_signed("<", block, spare), block, spare)
        start = builder.mul(row, v.word(_BLOCK))
        pairs = [_load(v, x, builder.add(start, v.word(_BLOCK * i))) for i in range(8)]
        lanes = list(zip(v.transpose([p[0] for p in pairs]), v.transpose([p[1] for p in pairs]), strict=True))
        twiddle = builder.mul(block, v.word(2 * (LANES - 1)))
        for lane in range(1, 8):
            w = _load(v, table, builder.add(twiddle, v.word(_BLOCK * (lane - 1))))
            lanes[lane] = _times(v, lanes[lane], w)
        at = row
        for value in _dft8(v, lanes):
            v.store(value[0], re, at)
            v.store(value[1], im, at)
            at = builder.add(at, rows)


def _split_pairs(v: Vectors, x: Any, window: Any | None, y: Any, n: Any) -> None:
    with v.loop(v.word(0), n, v.word(_BLOCK)) as at:
        a, b = _load(v, x, at)
        if window is not None:
            gains = _load(v, window, at)
            a, b = v.mul(a, gains[0]), v.mul(b, gains[1])
        _store(v, (v.shuffle(a, b, range(0, 16, 2)), v.shuffle(a, b, range(1, 16, 2))), y, at)


@emitted(3)
def _split(v: Vectors, x: Any, y: Any, n: Any) -> None:
    """Turn samples into blocks of complex numbers: even ones real, odd ones imaginary."""
    _split_pairs(v, x, None, y, n)


@emitted(4)
def _split_windowed(v: Vectors, x: Any, window: Any, y: Any, n: Any) -> None:
    """Like `_split`, with a window."""
    _split_pairs(v, x, window, y, n)


@emitted(5)
def _join(v: Vectors, re: Any, im: Any, x: Any, first: Any, half: Any) -> None:
    """``re`` to even samples, ``im`` to odd ones, from pair number ``first`` (a multiple of 8)."""
    with v.loop(first, half, v.word(LANES)) as k:
        a, b = v.load(re, k), v.load(im, k)
        low, high = v.shuffle(a, b, [0, 8, 1, 9, 2, 10, 3, 11]), v.shuffle(a, b, [4, 12, 5, 13, 6, 14, 7, 15])
        _store(v, (low, high), x, v.builder.mul(k, v.word(2)))


def _mirrored(v: Vectors, re: Any, im: Any, k: Any, back: Any, w: Complex, scale: Any) -> tuple[Complex, Complex]:
    """With b the conjugates of the 8 numbers that end at ``back``: ``(a + b) scale`` and ``(a - b) w``."""
    a = v.load(re, k), v.load(im, k)
    back = v.builder.sub(back, v.word(LANES - 1))
    b = v.reverse(v.load(re, back)), v.reverse(v.load(im, back))
    total = v.mul(v.add(a[0], b[0]), scale), v.mul(v.sub(a[1], b[1]), scale)
    return total, _times(v, (v.sub(a[0], b[0]), v.add(a[1], b[1])), w)


@emitted(6)
def _unfold(v: Vectors, zr: Any, zi: Any, re: Any, im: Any, table: Any, half: Any) -> None:
    """Spectrum of the complex signal to spectrum of the real one, without its two ends.

    Bins k and half-k, from 1 to half/2, are made together: ``s/2 + d w`` and ``conj(s/2 - d w)``.
    """
    builder = v.builder
    stop = builder.add(builder.lshr(half, v.word(1)), v.word(1))
    with v.loop(v.word(1), stop, v.word(LANES)) as k:
        w = _load(v, table, builder.mul(builder.sub(k, v.word(1)), v.word(2)))
        back = builder.sub(half, k)
        total, turned = _mirrored(v, zr, zi, k, back, w, v.constant(0.5))
        v.store(v.add(total[0], turned[0]), re, k)
        v.store(v.add(total[1], turned[1]), im, k)
        back = builder.sub(back, v.word(LANES - 1))
        v.store(v.reverse(v.sub(total[0], turned[0])), re, back)
        v.store(v.reverse(v.sub(turned[1], total[1])), im, back)


@emitted(5)
def _fold(v: Vectors, re: Any, im: Any, z: Any, table: Any, half: Any) -> None:
    """Spectrum of the real signal to blocks of the complex one's, exchanging real and imaginary parts.

    The exchange, made good when the samples are written, turns a forward transform into an inverse one. The
    table begins with the scale, 1/n.
    """
    scale = v.broadcast(table, v.word(0))
    with v.loop(v.word(0), half, v.word(LANES)) as k:
        at = v.builder.mul(k, v.word(2))
        w = _load(v, table, v.builder.add(at, v.word(_BLOCK)))
        total, turned = _mirrored(v, re, im, k, v.builder.sub(half, k), w, scale)
        _store(v, (v.add(total[1], turned[1]), v.add(total[0], turned[0])), z, at)


@inline
def _complex(plan: int, a: int, b: int, table: int, re: int, im: int) -> None:
    """Transform the blocks at ``a``, with ``b`` to swap, to split numbers at ``re`` and ``im``."""
    header = i64p(plan)
    count = header[ROWS]
    stride = 1
    for i in range(header[PASSES]):
        radix = header[PASS + 2 * i]
        twiddles = header[PASS + 2 * i + 1]
        count //= radix
        if radix == 4:
            if count == 1:
                _last4(a, b, twiddles, count, stride)
            elif stride == 1:
                _first4(a, b, twiddles, count, stride)
            else:
                _middle4(a, b, twiddles, count, stride)
        elif radix == 8:
            if count == 1:
                _last8(a, b, twiddles, count, stride)
            elif stride == 1:
                _first8(a, b, twiddles, count, stride)
            else:
                _middle8(a, b, twiddles, count, stride)
        elif radix == 2:
            if count == 1:
                _last2(a, b, twiddles, count, stride)
            elif stride == 1:
                _first2(a, b, twiddles, count, stride)
            else:
                _middle2(a, b, twiddles, count, stride)
        elif radix == 3:
            if count == 1:
                _last3(a, b, twiddles, count, stride)
            elif stride == 1:
                _first3(a, b, twiddles, count, stride)
            else:
                _middle3(a, b, twiddles, count, stride)
        elif count == 1:
            _last5(a, b, twiddles, count, stride)
        elif stride == 1:
            _first5(a, b, twiddles, count, stride)
        else:
            _middle5(a, b, twiddles, count, stride)
        stride *= radix
        a, b = b, a
    _across(a, re, im, table, header[ROWS])


_SIX = types.void(*[types.int64] * 6)


def _entry(function: Any) -> Any:
    compiled = cfunc(_SIX, cache=True, error_model="numpy", boundscheck=False)(function)
    NODES[f"{function.__module__}.{function.__qualname__}"] = compiled
    return compiled


def _forward(plan: int, x: int, window: int, re: int, im: int, scratch: int) -> None:
    header = i64p(plan)
    half = header[HALF]
    step = header[BUFFER] * 4
    a, b, zr, zi = scratch, scratch + 2 * step, scratch + 4 * step, scratch + 5 * step
    if window == 0:
        _split(x, a, 2 * half)
    else:
        _split_windowed(x, window, a, 2 * half)
    _complex(plan, a, b, header[LANE_TABLE], zr, zi)
    _unfold(zr, zi, re, im, header[UNFOLD_TABLE], half)
    even, odd = f32p(zr)[0], f32p(zi)[0]
    f32p(re)[0] = even + odd
    f32p(im)[0] = 0.0
    f32p(re)[half] = even - odd
    f32p(im)[half] = 0.0


def _inverse(plan: int, re: int, im: int, x: int, first: int, scratch: int) -> None:
    header = i64p(plan)
    half = header[HALF]
    step = header[BUFFER] * 4
    a, b, zr, zi = scratch, scratch + 2 * step, scratch + 4 * step, scratch + 5 * step
    _fold(re, im, a, header[FOLD_TABLE], half)
    # The imaginary parts of the two ends count for nothing.
    scale = f32p(header[FOLD_TABLE])[0]
    f32p(a)[0] = (f32p(re)[0] - f32p(re)[half]) * scale
    f32p(a)[LANES] = (f32p(re)[0] + f32p(re)[half]) * scale
    _complex(plan, a, b, header[LANE_TABLE], zr, zi)
    _join(zi, zr, x, first // 16 * 8, half)


@intrinsic
def _call(typingctx: Any, function: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
    """Call ``void (int64 x 6)`` at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        ftype = ir.FunctionType(ir.VoidType(), [WORD] * 6)
        builder.call(builder.inttoptr(args[0], ftype.as_pointer()), list(args[1:]))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), codegen


@inline
def forward(plan: int, x: int, window: int, re: int, im: int, scratch: int) -> None:
    """Transform ``n`` float32 at ``x``, times those at ``window`` unless 0, to ``re`` and ``im``. For nodes."""
    _call(i64p(plan)[FORWARD], plan, x, window, re, im, scratch)


@inline
def inverse(plan: int, re: int, im: int, x: int, first: int, scratch: int) -> None:
    """Transform ``re`` and ``im`` back to the samples from ``first`` on (at ``x + 4 * first``). For nodes."""
    _call(i64p(plan)[INVERSE], plan, re, im, x, first, scratch)


# --- Plans -----------------------------------------------------------------------------------------------------


def aligned(words: int) -> np.ndarray:
    """Zeroed int64 memory that starts at a multiple of 64 bytes."""
    block = np.zeros(words + 8, np.int64)
    start = (-block.ctypes.data % 64) // 8
    return block[start : start + words]


def factors(rows: int) -> list[int]:
    """Radices of the passes for a length, or an empty list for 1. ValueError for a prime factor above 5."""
    threes = fives = 0
    while rows % 3 == 0:
        threes, rows = threes + 1, rows // 3
    while rows % 5 == 0:
        fives, rows = fives + 1, rows // 5
    power = rows.bit_length() - 1
    if rows != 1 << power:
        raise ValueError(f"{rows} has a prime factor above 5")
    # The last pass needs no twiddles, so that a large radix is best spent there.
    last = [] if power % 2 == 0 else [8] if power > 1 else [2]
    fours = (power - sum({8: 3, 2: 1}[radix] for radix in last)) // 2
    return [3] * threes + [4] * fours + [5] * fives + last


def check_size(n: int) -> None:
    """Refuse a size for which there is no transform.

    Raises
    ------
    ValueError
        Unless ``n`` is 16 times a product of 2, 3 and 5, from 32 to 65536.
    """
    try:
        if n % 16 or not 32 <= n <= 65536:
            raise ValueError
        factors(n // 16)
    except ValueError:
        raise ValueError(
            f"a transform of {n} samples is not possible: give 16 times a product of 2, 3 and 5, from 32 to 65536"
        ) from None


def scratch_floats(n: int) -> int:
    """Float32 of scratch memory that a transform of ``n`` samples needs."""
    return 6 * _buffer_floats(n)


def _buffer_floats(n: int) -> int:
    return -(-max(n // 2, 64) // 16) * 16 + 16


def _pairs(values: Iterable[complex]) -> np.ndarray:
    """Re, im, re, im, ..."""
    return np.array(list(values), np.complex128).astype(np.complex64).view(np.float32)


def _blocks(values: np.ndarray) -> np.ndarray:
    """Rows of 8 complex numbers to 8 real parts followed by 8 imaginary parts."""
    return np.stack([values.real, values.imag], axis=-2).astype(np.float32).reshape(-1)


@cache
def _entries() -> tuple[Any, Any]:
    return _entry(_forward), _entry(_inverse)


def plan(n: int, allocate: Allocate = aligned) -> np.ndarray:
    """Prepare transforms of ``n`` real samples.

    Parameters
    ----------
    n
        16 times a product of 2, 3 and 5, from 32 to 65536.
    allocate
        Source of zeroed int64 memory, given the number of words.

    Returns
    -------
    numpy.ndarray
        Int64 block that holds everything; keep it alive as long as its address (``.ctypes.data``) is used.

    Raises
    ------
    ValueError
        For any other size.
    """
    check_size(n)
    half, rows = n // 2, n // 16
    tables: list[np.ndarray] = []
    radices = factors(rows)
    left = rows
    for radix in radices:
        count = left // radix
        p, j = np.meshgrid(np.arange(count), np.arange(1, radix), indexing="ij")
        tables.append(_pairs(np.exp(-2j * np.pi * p * j / left).ravel()))
        left = count
    starts = np.minimum(np.arange(0, rows, LANES), max(rows - LANES, 0))
    k = starts[:, None, None] + np.arange(LANES)
    lane = np.arange(1, 8)[None, :, None]
    tables.append(_blocks(np.exp(-2j * np.pi * k * lane / half)))
    k = 1 + np.arange(-(-(half // 2) // LANES) * LANES).reshape(-1, LANES)
    tables.append(_blocks(-0.5j * np.exp(-2j * np.pi * k / n)))
    k = np.arange(half).reshape(-1, LANES)
    scale = np.full((1, LANES), 1.0 / n, np.complex128)
    tables.append(np.concatenate([_blocks(scale), _blocks(1j / n * np.exp(2j * np.pi * k / n))]))

    lengths = [-(-table.size // 16) * 8 for table in tables]
    header = -(-_HEADER // 8) * 8
    block = allocate(header + sum(lengths))
    forward_entry, inverse_entry = _entries()
    block[FORWARD], block[INVERSE] = forward_entry.address, inverse_entry.address
    block[SIZE], block[HALF], block[ROWS], block[BUFFER] = n, half, rows, _buffer_floats(n)
    block[PASSES] = len(radices)
    places = []
    at = header
    for table, length in zip(tables, lengths, strict=True):
        block[at : at + length].view(np.float32)[: table.size] = table
        places.append(block.ctypes.data + 8 * at)
        at += length
    for i, radix in enumerate(radices):
        block[PASS + 2 * i], block[PASS + 2 * i + 1] = radix, places[i]
    block[LANE_TABLE], block[UNFOLD_TABLE], block[FOLD_TABLE] = places[len(radices) :]
    return block


# --- For Python ------------------------------------------------------------------------------------------------

_floats = types.float32[::1]
_words = types.int64[::1]


@inline
def _check(plan: Any, x: Any, re: Any, im: Any, scratch: Any) -> None:
    n = plan[SIZE]
    if x.size < n or re.size < n // 2 + 1 or im.size < n // 2 + 1 or scratch.size < 6 * plan[BUFFER]:
        raise ValueError("an array is shorter than the plan asks for")


@kernel(types.void(_words, _floats, _floats, _floats, _floats))
def rfft(plan: np.ndarray, x: np.ndarray, re: np.ndarray, im: np.ndarray, scratch: np.ndarray) -> None:
    """Write the spectrum ``re + j im`` (n/2 + 1 bins) of ``x`` (n samples), as numpy.fft.rfft; any thread."""
    _check(plan, x, re, im, scratch)
    forward(plan.ctypes.data, x.ctypes.data, 0, re.ctypes.data, im.ctypes.data, scratch.ctypes.data)


@kernel(types.void(_words, _floats, _floats, _floats, _floats))
def irfft(plan: np.ndarray, re: np.ndarray, im: np.ndarray, x: np.ndarray, scratch: np.ndarray) -> None:
    """Write the samples ``x`` (n) of a spectrum (n/2 + 1 bins), as numpy.fft.irfft (with 1/n); any thread."""
    _check(plan, x, re, im, scratch)
    inverse(plan.ctypes.data, re.ctypes.data, im.ctypes.data, x.ctypes.data, 0, scratch.ctypes.data)
