"""What values decide: order, extremes and their places, running sums, reading and writing by index, as steps.

Whole numbers are float32 here, exact up to 16,777,216.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rtgan.generators.lowering import Lowering, Step, Unsupported, broadcast, cut, insert, permute, select
from rtgan.generators.program import View, row_major


def _last(view: View, axis: int) -> View:
    """The view with one axis moved to the end."""
    return permute(view, [*(k for k in range(len(view.shape)) if k != axis), axis])


def _flat(low: Lowering, view: View) -> View:
    """All values in one row."""
    dense = low.dense(view, len(view.shape))
    return View(dense.storage, dense.offset, (view.size,), (1,))


def _counting(low: Lowering, shape: tuple[int, ...], axis: int) -> View:
    """0, 1, 2 ... along one axis."""
    values = np.arange(shape[axis], dtype=np.float32)
    return broadcast(low.constant(values.reshape([-1 if k == axis else 1 for k in range(len(shape))])), shape)


# -- order -------------------------------------------------------------------------------------------------------


def _ordered(low: Lowering, x: View, axis: int, descending: bool) -> tuple[View, View]:
    """The values in order and their places, in new memory of the same shape; equal values keep their order."""
    keys, ranks = low.temporary(x.shape), low.temporary(x.shape)
    low.map(keys, "key", x)
    if descending:
        low.map(keys, "neg", keys)
    low.emit(Step("rank", [_last(ranks, axis)], [_last(keys, axis)]))
    values, places = low.temporary(x.shape), low.temporary(x.shape)
    for out, source in ((values, x), (places, _counting(low, x.shape, axis))):
        scatter(low, out, source, {axis: ranks})
    return values, places


def _sort(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    x = a["self"]
    axis = a.get("dim", -1) % max(1, len(x.shape))
    for target, source in zip(out, _ordered(low, x, axis, bool(a.get("descending"))), strict=True):
        low.copy(target, source)


def _argsort(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    low.copy(out[0], _ordered(low, a["self"], a["dim"] % len(a["self"].shape), bool(a["descending"]))[1])


def _topk(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    x = a["self"]
    axis = a["dim"] % len(x.shape)
    for target, source in zip(out, _ordered(low, x, axis, bool(a["largest"])), strict=True):
        low.copy(target, cut(source, axis, 0, a["k"]))


def _chosen(low: Lowering, x: View, dim: int | None, keep: bool, out: list[View], place: int) -> None:
    """Values and indices that stand at one place of the order."""
    if dim is None:
        x, dim, keep = _flat(low, x), 0, False
    axis = dim % len(x.shape)
    for target, source in zip(out, _ordered(low, x, axis, False), strict=False):
        low.copy(target, cut(source, axis, place, 1) if keep else select(source, axis, place))


def _median(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    x, dim = a["self"], a.get("dim")
    count = x.size if dim is None else x.shape[dim]
    _chosen(low, x, dim, bool(a.get("keepdim")), out, (count - 1) // 2)


def _kthvalue(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    _chosen(low, a["self"], a["dim"], bool(a["keepdim"]), out, a["k"] - 1)


def _reduced(low: Lowering, out: View, x: View, axis: int, how: str) -> None:
    low.emit(Step("reduce", [out], [_last(x, axis)], options={"how": how, "axes": 1, "scale": 1.0}))


def _extreme(low: Lowering, x: View, dim: int | None, keep: bool, values: View | None, places: View, how: str) -> None:
    """The largest or smallest along an axis and where it stands first."""
    if dim is None:
        x = _flat(low, x)
        places = View(places.storage, places.offset, (), ())
        dim, keep = 0, False
    axis = dim % len(x.shape)
    if keep:
        places, values = select(places, axis, 0), None if values is None else select(values, axis, 0)
    best = low.temporary(places.shape)
    _reduced(low, best, x, axis, how)
    if values is not None:
        low.copy(values, best)
    there, where, found = low.temporary(x.shape), low.temporary(x.shape), low.temporary(places.shape)
    low.map(there, "eq", x, broadcast(insert(best, axis), x.shape))
    last = float(x.shape[axis] - 1)
    low.map(where, "where", there, _counting(low, x.shape, axis), last)
    _reduced(low, found, where, axis, "min")
    low.copy(places, found)


def _arg_of(how: str) -> Any:
    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        _extreme(low, a["self"], a.get("dim"), bool(a.get("keepdim")), None, out[0], how)

    return lower


def _with_places(how: str) -> Any:
    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        _extreme(low, a["self"], a["dim"], bool(a.get("keepdim")), out[0], out[1], how)

    return lower


def _scan_of(how: str) -> Any:
    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        x = a["self"]
        if not x.shape:
            low.copy(out[0], x)
            return
        axis = a["dim"] % len(x.shape)
        low.emit(Step("scan", [_last(out[0], axis)], [_last(x, axis)], options={"how": how}))

    return lower


def _extreme_so_far(sign: int) -> Any:
    """``cummax`` and ``cummin``: the largest so far and where it last stood."""

    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        x = a["self"]
        axis = a["dim"] % len(x.shape)
        if sign < 0:
            turned = low.temporary(x.shape)
            low.map(turned, "neg", x)
            x = turned
        best, there, where, last = (low.temporary(x.shape) for _ in range(4))
        low.emit(Step("scan", [_last(best, axis)], [_last(x, axis)], options={"how": "max"}))
        low.map(there, "eq", x, best)
        low.map(where, "where", there, _counting(low, x.shape, axis), 0.0)
        low.emit(Step("scan", [_last(last, axis)], [_last(where, axis)], options={"how": "max"}))
        if sign < 0:
            low.map(out[0], "neg", best)
        else:
            low.copy(out[0], best)
        low.copy(out[1], last)

    return lower


# -- by index ----------------------------------------------------------------------------------------------------


def _index_view(low: Lowering, index: Any, shape: tuple[int, ...]) -> View:
    return broadcast(low.constant(index) if isinstance(index, np.ndarray) else index, shape)


def take(low: Lowering, out: View, x: View, walks: list[int], indices: dict[int, Any]) -> None:
    """``out`` from ``x``: axis ``k`` of ``out`` walks along axis ``walks[k]`` of ``x`` (-1: along none).

    ``indices`` says for the other axes of ``x`` where they stand, in the shape of ``out``.
    """
    views = [_index_view(low, v, out.shape) for v in indices.values()]
    low.emit(Step("gather", [out], [x, *views], options={"walks": walks, "axes": list(indices)}))


def scatter(
    low: Lowering, out: View, x: View, indices: dict[int, Any], walks: list[int] | None = None, add: bool = False
) -> None:
    """Write ``x`` into ``out``, which keeps what is not written; the other way round as `take`."""
    walks = walks if walks is not None else [-1 if k in indices else k for k in range(len(x.shape))]
    views = [_index_view(low, v, x.shape) for v in indices.values()]
    options = {"walks": walks, "axes": list(indices), "add": add}
    low.emit(Step("scatter", [out], [out, x, *views], options=options))


def _gather(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    axis = a["dim"] % len(a["self"].shape)
    walks = [-1 if k == axis else k for k in range(len(out[0].shape))]
    take(low, out[0], a["self"], walks, {axis: a["index"]})


def chosen_by(low: Lowering, out: View, x: View, axis: int, index: Any) -> None:
    """One axis of ``x`` by an index of one axis."""
    shape = [-1 if k == axis else 1 for k in range(len(out.shape))]
    if isinstance(index, np.ndarray):
        index = low.constant(index.reshape(shape))
    else:
        (step,) = index.strides or (0,)
        strides = tuple(step if k == axis else 0 for k in range(len(shape)))
        index = View(index.storage, index.offset, out.shape, strides)
    take(low, out, x, [-1 if k == axis else k for k in range(len(out.shape))], {axis: index})


def _embedding(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    weight, index = a["weight"], a["indices"]
    lead = len(out[0].shape) - 1
    index = insert(low.constant(index) if isinstance(index, np.ndarray) else index, lead)
    take(low, out[0], weight, [-1] * lead + [1], {0: index})


def _take_flat(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    take(low, out[0], _flat(low, a["self"]), [-1] * len(out[0].shape), {0: _wrapped(low, a["index"], a["self"].size)})


def _wrapped(low: Lowering, index: Any, count: int) -> Any:
    """Negative indices count from the end."""
    if isinstance(index, np.ndarray):
        return np.where(index < 0, index + count, index)
    out = low.temporary(index.shape)
    low.map(out, "wrap", index, literals=[count])
    return out


def _placed(low: Lowering, rank: int, shape: tuple[int, ...], indices: list[Any]) -> tuple[list[int], dict[int, Any]]:
    """Where each axis of an indexed tensor comes from, and the indices, each in as many axes as the tensor has."""
    used = [k for k, i in enumerate(indices) if i is not None]
    wide = max(i.ndim if isinstance(i, np.ndarray) else len(i.shape) for i in indices if i is not None)
    together = used == list(range(used[0], used[-1] + 1))
    start = used[0] if together else 0
    walks = [k for k in range(rank) if k not in used]
    walks[start:start] = [-1] * wide
    placed = {}
    for k in used:
        index = low.constant(indices[k]) if isinstance(indices[k], np.ndarray) else indices[k]
        for _ in range(len(shape) - start - wide):
            index = insert(index, len(index.shape))
        placed[k] = index
    return walks, placed


def index(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    """Indices for some axes, as NumPy has it."""
    x = a["self"]
    indices = [None if i is None else _wrapped(low, i, x.shape[k]) for k, i in enumerate(a["indices"])]
    walks, placed = _placed(low, len(x.shape), out[0].shape, indices)
    take(low, out[0], x, walks, placed)


def _index_put(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    x = a["self"]
    low.copy(out[0], x)
    indices = [None if i is None else _wrapped(low, i, x.shape[k]) for k, i in enumerate(a["indices"])]
    used = {k for k, i in enumerate(indices) if i is not None}
    shapes = [i.shape for i in indices if i is not None]
    common = np.broadcast_shapes(*shapes)
    rest = [n for k, n in enumerate(x.shape) if k not in used]
    together = sorted(used) == list(range(min(used), max(used) + 1))
    at = min(used) if together else 0
    shape = (*rest[:at], *common, *rest[at:])
    walks, placed = _placed(low, len(x.shape), shape, indices)
    values = a["values"]
    values = low.constant(values) if isinstance(values, np.ndarray) else values
    scatter(low, out[0], broadcast(values, shape), placed, walks, bool(a.get("accumulate")))


def _scatter_of(add: bool) -> Any:
    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        low.copy(out[0], a["self"])
        axis, at = a["dim"] % len(out[0].shape), a["index"]
        shape = at.shape
        if a.get("reduce") is not None:
            raise Unsupported("scatter with a reduction is not known")
        source: Any = a.get("src", a.get("value"))
        if isinstance(source, View):
            for k, n in enumerate(shape):
                source = cut(source, k, 0, n)
        elif isinstance(source, np.ndarray):
            source = low.constant(source[tuple(slice(n) for n in shape)] if source.ndim else source)
        else:
            source = low.constant(float(source))
        scatter(low, out[0], broadcast(source, shape), {axis: at}, None, add)

    return lower


def _along_of(add: bool) -> Any:
    """``index_copy``, ``index_add`` and ``index_fill``."""

    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        low.copy(out[0], a["self"])
        if float(a.get("alpha", 1)) != 1:
            raise Unsupported("index_add with a factor is not known")
        axis, at = a["dim"] % len(out[0].shape), a["index"]
        count = math.prod(at.shape)
        shape = tuple(count if k == axis else n for k, n in enumerate(out[0].shape))
        source = a.get("source", a.get("value"))
        if not isinstance(source, View):
            source = low.constant(source)
        at = low.constant(at) if isinstance(at, np.ndarray) else at
        step = at.strides[0] if at.strides else 0
        placed = View(at.storage, at.offset, shape, tuple(step if k == axis else 0 for k in range(len(shape))))
        scatter(low, out[0], broadcast(source, shape), {axis: placed}, None, add)

    return lower


def _overlap_add(low: Lowering, out: View, frames: View, axis: int, step: int) -> None:
    """Add windows ``frames[..., t, ..., k]`` to ``out[..., t * step + k, ...]``: the last axis lies within ``axis``."""
    low.copy(out, 0.0)
    last = len(frames.shape) - 1
    count, size = frames.shape[axis], frames.shape[last]
    for start in range(0, size, step):
        length = min(step, size - start)
        d = out.strides[axis]
        shape = (*(count if k == axis else n for k, n in enumerate(out.shape)), length)
        strides = (*(d * step if k == axis else s for k, s in enumerate(out.strides)), d)
        target = View(out.storage, out.offset + start * d, shape, strides)
        low.map(target, "add", target, cut(frames, last, start, length))


def _unfold_backward(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    axis = a["dim"] % len(out[0].shape)
    _overlap_add(low, out[0], a["grad_in"], axis, a["step"])


def _col2im(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    columns, target = a["self"], out[0]
    if len(columns.shape) == 2:
        columns, target = insert(columns, 0), insert(target, 0)
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = (a[k] for k in ("kernel_size", "dilation", "padding", "stride"))
    batch, channels, height, width = target.shape
    spread = low.temporary((batch, channels, height + 2 * ph, width + 2 * pw)) if ph or pw else target
    low.copy(spread, 0.0)
    rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    across = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    columns = low.dense(columns, 3)
    parts = View(
        columns.storage, columns.offset, (batch, channels, kh, kw, rows, across),
        row_major((batch, channels, kh, kw, rows, across)),
    )  # fmt: skip
    # Taps no further apart than a step do not overlap: they are added together.
    tall, wide = (sh if dh == 1 else 1), (sw if dw == 1 else 1)
    b, c, h, w = spread.strides
    for i in range(0, kh, tall):
        for j in range(0, kw, wide):
            m, n = min(tall, kh - i), min(wide, kw - j)
            shape = (batch, channels, m, n, rows, across)
            place = View(
                spread.storage, spread.offset + i * dh * h + j * dw * w, shape, (b, c, h * dh, w * dw, sh * h, sw * w)
            )
            low.map(place, "add", place, cut(cut(parts, 2, i, m), 3, j, n))
    if spread is not target:
        low.copy(target, cut(cut(spread, 2, ph, height), 3, pw, width))


HANDLERS = {
    "sort": _sort, "argsort": _argsort, "topk": _topk, "median": _median, "kthvalue": _kthvalue,
    "argmax": _arg_of("max"), "argmin": _arg_of("min"), "max": _with_places("max"), "min": _with_places("min"),
    "cumsum": _scan_of("add"), "cumprod": _scan_of("mul"), "cummax": _extreme_so_far(1), "cummin": _extreme_so_far(-1),
    "gather": _gather, "embedding": _embedding, "take": _take_flat, "index_put": _index_put,
    "scatter": _scatter_of(False), "scatter_add": _scatter_of(True),
    "index_copy": _along_of(False), "index_add": _along_of(True), "index_fill": _along_of(False),
    "unfold_backward": _unfold_backward, "col2im": _col2im,
}  # fmt: skip
