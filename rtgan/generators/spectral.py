"""Fourier transforms as steps: products with small constant matrices, and factors between them.

A transform of ``r * m`` values is ``m`` transforms of ``r``, a factor on each value and ``r`` transforms of ``m``
(Cooley and Tukey 1965), until the matrices are small. What is not there costs nothing: imaginary parts of real input,
bins that nobody asked for, zeros behind the end.

A complex tensor is a view whose last axis has two elements, as torch lays it out. Here the parts come first:
``(1 or 2, ..., values)``, one for real values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan.generators.lowering import Lowering, Step, cut, permute, select
from rtgan.generators.program import View

#: Transforms up to this size are one product.
_DIRECT = 48


def _parts_first(view: View, axis: int) -> View:
    """A complex view with its parts first and ``axis`` last."""
    last = len(view.shape) - 1
    return permute(view, [last, *(k for k in range(last) if k != axis), axis])


def _real(view: View, axis: int) -> View:
    """A real view in the same order."""
    order = [*(k for k in range(len(view.shape)) if k != axis), axis]
    moved = permute(view, order)
    return View(view.storage, view.offset, (1, *moved.shape), (0, *moved.strides))


def _split(view: View, inner: int) -> View:
    """The last axis as ``(..., values / inner, inner)``."""
    *lead, n = view.shape
    *steps, d = view.strides
    return View(view.storage, view.offset, (*lead, n // inner, inner), (*steps, d * inner, d))


def _swap(view: View) -> View:
    rank = len(view.shape)
    return permute(view, [*range(rank - 2), rank - 1, rank - 2])


def _factor(n: int) -> int:
    """The first of two sizes: the factor next to the root; ``n`` where the transform is one product."""
    if n <= _DIRECT:
        return n
    return min((r for r in range(2, n + 1) if n % r == 0), key=lambda r: r + n // r)


def _circle(n: int, sign: int, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.complex128]:
    """``exp(2 pi j sign a b / n)`` for every ``a`` and ``b``."""
    turns = np.outer(first, second) % n
    return np.asarray(np.exp(sign * 2j * np.pi * turns / n))


def _product(
    low: Lowering, n: int, sign: int, source: View, target: View, first: int, scale: float, gains: NDArray[Any] | None
) -> None:
    matrix = _circle(n, sign, first + np.arange(target.shape[-1]), np.arange(source.shape[-1])) * scale
    if gains is not None:
        matrix = matrix * gains
    rank = len(source.shape)
    x = permute(source, [*range(1, rank - 1), 0, rank - 1])
    rows = {0: (matrix.real, -matrix.imag), 1: (matrix.imag, matrix.real)}
    for part in range(target.shape[0]):
        weight = np.concatenate(rows[part][: source.shape[0]], 1).astype(np.float32)
        low.emit(Step("linear", [select(target, 0, part)], [x], arrays={"weight": weight}, options={"inner": 2}))


def _transform(
    low: Lowering, n: int, sign: int, source: View, target: View, first: int = 0, scale: float = 1.0,
    gains: NDArray[Any] | None = None,
) -> None:  # fmt: skip
    """Values ``first ...`` of the transform of ``n``; those missing at the end of ``source`` are zero.

    ``gains`` belong to the source's values.
    """
    r = _factor(n)
    if r == n:
        _product(low, n, sign, source, target, first, scale, gains)
        return
    m, lead = n // r, source.shape[1:-1]
    wanted = target.shape[-1]
    if first:
        whole = low.temporary((*target.shape[:-1], n))
        _transform(low, n, sign, source, whole, 0, scale, gains)
        low.copy(target, cut(whole, len(whole.shape) - 1, first, wanted))
        return
    count = source.shape[-1]
    if count % m or gains is not None:
        spread = low.padded((*source.shape[:-1], -(-count // m) * m))
        inside = cut(spread, len(spread.shape) - 1, 0, count)
        low.map(inside, "mul", source, 1.0 if gains is None else low.constant(gains))
        source = spread
    # [part][row][i2][i1] to [part][row][i2][k1]
    middle, turned = low.temporary((2, *lead, m, r)), low.temporary((2, *lead, m, r))
    _product(low, r, sign, _swap(_split(source, m)), middle, 0, scale, None)
    circle = _circle(n, sign, np.arange(m), np.arange(r))
    for part, how in ((0, "sub"), (1, "add")):
        factors = circle if part == 0 else circle.imag + 1j * circle.real
        code = (("in", 0), ("in", 2), ("mul", 0, 1), ("in", 1), ("in", 3), ("mul", 3, 4), (how, 2, 5))
        ins = [select(middle, 0, 0), select(middle, 0, 1)]
        for values in (factors.real, factors.imag):
            constant = low.constant(values)
            ins.append(View(constant.storage, 0, ins[0].shape, (*([0] * len(lead)), r, 1)))
        low.emit(Step("map", [select(turned, 0, part)], ins, code))
    # k = k1 + r k2: rows k1, values k2.
    rows, last = _swap(turned), len(target.shape) - 1
    full, rest = divmod(wanted, r)
    if full:
        _transform(low, m, sign, rows, _swap(_split(cut(target, last, 0, full * r), r)))
    if rest:
        part_of = cut(target, last, full * r, rest)
        ends = View(part_of.storage, part_of.offset, (*part_of.shape, 1), (*part_of.strides, 0))
        _transform(low, m, sign, cut(rows, last, 0, rest), ends, full)


def _scale(normalisation: int, n: int) -> float:
    return (1.0, n**-0.5, 1.0 / n)[normalisation]


def _along(low: Lowering, x: View, out: View, axes: list[int], sign: int, scale: float) -> None:
    """Complex to complex along axis after axis."""
    for k, axis in enumerate(axes):
        target = out if k == len(axes) - 1 else low.temporary(x.shape)
        _transform(low, x.shape[axis], sign, _parts_first(x, axis), _parts_first(target, axis), 0, scale)
        x, scale = target, 1.0
    if not axes:
        low.copy(out, x)


def complex_to_complex(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    """``fft`` and ``ifft``: ``self`` and result have their parts last."""
    x = a["self"]
    axes = [d % (len(x.shape) - 1) for d in a["dim"]]
    scale = _scale(a["normalization"], math.prod(x.shape[d] for d in axes))
    _along(low, x, out[0], axes, -1 if a["forward"] else 1, scale)


def real_to_complex(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    """``rfft``, of the last axis named; along the others complex to complex."""
    x = a["self"]
    *others, axis = (d % len(x.shape) for d in a["dim"])
    scale = _scale(a["normalization"], math.prod(x.shape[d] for d in (*others, axis)))
    target = low.temporary(out[0].shape) if others else out[0]
    _transform(low, x.shape[axis], -1, _real(x, axis), _parts_first(target, axis), 0, scale)
    if others:
        _along(low, target, out[0], others, -1, 1.0)


def complex_to_real(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    """``irfft``: the bins that are not there are the conjugates of those that are."""
    x, n = a["self"], a["last_dim_size"]
    *others, axis = (d % (len(x.shape) - 1) for d in a["dim"])
    scale = _scale(a["normalization"], math.prod(x.shape[d] for d in others) * n)
    if others:
        target = low.temporary(x.shape)
        _along(low, x, target, others, 1, 1.0)
        x = target
    bins = n // 2 + 1
    gains = np.full(bins, 2.0)
    gains[0] = 1.0
    if n % 2 == 0:
        gains[-1] = 1.0
    source = cut(_parts_first(x, axis), len(x.shape) - 1, 0, bins)
    _transform(low, n, 1, source, _real(out[0], axis), 0, scale, gains)


HANDLERS = {"_fft_c2c": complex_to_complex, "_fft_r2c": real_to_complex, "_fft_c2r": complex_to_real}
