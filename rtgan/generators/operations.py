"""What each recorded operation means in steps: one short function per operation, by its name in ATen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan.generators import chance, choosing, spectral
from rtgan.generators.lowering import (
    Floats,
    Lowering,
    Step,
    Unsupported,
    broadcast,
    cut,
    flip,
    insert,
    permute,
    select,
)
from rtgan.generators.program import Program, View, row_major

#: More runs than this of constant indices are read one by one.
_MOST_RUNS = 16
_Handler = Callable[["Lowering", dict[str, Any], list[View]], None]
_HANDLERS: dict[str, _Handler] = {}


def _op(*names: str) -> Callable[[_Handler], _Handler]:
    def enter(function: _Handler) -> _Handler:
        for name in names:
            _HANDLERS[name] = function
        return function

    return enter


def _either(a: dict[str, Any], *names: str) -> Any:
    """The argument under the first of its names that the operation has."""
    return next(a[n] for n in names if n in a)


# -- elementwise -------------------------------------------------------------------------------------------------

_UNARY = (
    "neg", "abs", "exp", "log", "log2", "log10", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal", "square", "sigmoid",
    "tanh", "relu", "relu6", "selu", "silu", "mish", "softsign", "hardswish", "hardsigmoid", "floor", "ceil", "round",
    "trunc", "erf", "sin", "cos", "atan", "sign", "tanhshrink", "log_sigmoid", "logical_not",
)  # fmt: skip


def _unary(name: str) -> _Handler:
    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        low.map(out[0], name, a["self"])

    return lower


for _name in _UNARY:
    _HANDLERS[_name] = _unary(_name)
_HANDLERS["bitwise_not"] = _unary("logical_not")

for _name, _function in {
    "mul": "mul", "multiply": "mul", "maximum": "max", "minimum": "min", "atan2": "atan2", "eq": "eq", "ne": "ne",
    "gt": "gt", "ge": "ge", "lt": "lt", "le": "le", "logical_and": "mul", "logical_or": "max", "bitwise_and": "mul",
    "bitwise_or": "max", "logical_xor": "ne", "greater": "gt", "less": "lt",
}.items():  # fmt: skip

    def _lower_binary(low: Lowering, a: dict[str, Any], out: list[View], function: str = _function) -> None:
        low.map(out[0], function, a["self"], a["other"])

    _HANDLERS[_name] = _lower_binary


def _sum_of(sign: int, swapped: bool) -> _Handler:
    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        x, y, alpha = a["self"], a["other"], float(a.get("alpha", 1))
        if swapped:
            x, y = y, x
        if alpha != 1:
            scaled = low.temporary((x if swapped else y).shape if isinstance(x if swapped else y, View) else ())
            low.map(scaled, "mul", x if swapped else y, alpha)
            x, y = (scaled, y) if swapped else (x, scaled)
        low.map(out[0], "add" if sign > 0 else "sub", x, y)

    return lower


_HANDLERS.update(add=_sum_of(1, False), sub=_sum_of(-1, False), subtract=_sum_of(-1, False))


@_op("rsub")
def _rsub(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    x = a["self"]
    if float(a.get("alpha", 1)) != 1:
        x = low.temporary(x.shape)
        low.map(x, "mul", a["self"], float(a["alpha"]))
    low.map(out[0], "sub", a["other"], x)


@_op("div", "divide", "true_divide")
def _div(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    divisor = low.operand(a["other"])
    mode = a.get("rounding_mode")
    target = out[0] if mode is None else low.temporary(out[0].shape)
    if isinstance(divisor, float) and divisor and math.log2(abs(divisor)).is_integer():
        low.map(target, "mul", a["self"], 1.0 / divisor)
    else:
        low.map(target, "div", a["self"], divisor)
    if mode is not None:
        low.map(out[0], mode, target)


@_op("pow")
def _pow(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    base, exponent = low.operand(a["self"]), low.operand(a["exponent"])
    if isinstance(exponent, float):
        low.map(out[0], "power", base, literals=[exponent])
    elif isinstance(base, float) and base > 0:
        scaled = low.temporary(out[0].shape)
        low.map(scaled, "mul", exponent, math.log(base))
        low.map(out[0], "exp", scaled)
    else:
        low.map(out[0], "pow", base, exponent)


@_op("leaky_relu")
def _leaky(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    low.map(out[0], "leaky_relu", a["self"], literals=[a["negative_slope"]])


@_op("prelu", "_prelu_kernel")
def _prelu(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    slope = low.value(a["weight"])
    if slope.size > 1 and slope.ndim == 1:
        slope = slope.reshape([-1 if k == 1 else 1 for k in range(len(out[0].shape))])
    low.map(out[0], "prelu", a["self"], low.constant(slope))


@_op("elu", "celu")
def _elu(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    alpha = float(a.get("alpha", 1.0))
    scale = float(a.get("scale", 1.0))
    inner = float(a.get("input_scale", 1.0 / alpha if "scale" not in a else 1.0))
    low.map(out[0], "elu", a["self"], literals=[alpha, scale, inner])


@_op("gelu")
def _gelu(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    low.map(out[0], "gelu" if a.get("approximate", "none") == "none" else "gelu_tanh", a["self"])


@_op("softplus")
def _softplus(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    low.map(out[0], "softplus", a["self"], literals=[a.get("beta", 1), a.get("threshold", 20)])


@_op("hardtanh", "clamp", "clip", "clamp_min", "clamp_max")
def _clamp(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    lower, upper = a.get("min", a.get("min_val")), a.get("max", a.get("max_val"))
    value = a["self"]
    if lower is not None:
        target = out[0] if upper is None else low.temporary(out[0].shape)
        low.map(target, "max", lower, value)
        value = target
    if upper is not None:
        low.map(out[0], "min", upper, value)


@_op("threshold")
def _threshold(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    low.map(out[0], "threshold", a["self"], literals=[a["threshold"], a["value"]])


@_op("where")
def _where(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    low.map(out[0], "where", a["condition"], a["self"], a["other"])


@_op("masked_fill")
def _masked_fill(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    low.map(out[0], "where", a["mask"], a["value"], a["self"])


@_op("lerp")
def _lerp(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    low.map(out[0], "lerp", a["self"], a["end"], a["weight"])


def _addc_of(function: str) -> _Handler:
    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        product = low.temporary(out[0].shape)
        low.map(product, function, a["tensor1"], a["tensor2"])
        scaled = low.temporary(out[0].shape)
        low.map(scaled, "mul", product, float(a.get("value", 1)))
        low.map(out[0], "add", a["self"], scaled)

    return lower


_HANDLERS.update(addcmul=_addc_of("mul"), addcdiv=_addc_of("div"))


@_op("glu")
def _glu(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    axis = a["dim"] % len(a["self"].shape)
    half = a["self"].shape[axis] // 2
    gate = low.temporary(out[0].shape)
    low.map(gate, "sigmoid", cut(a["self"], axis, half, half))
    low.map(out[0], "mul", cut(a["self"], axis, 0, half), gate)


@_op("nan_to_num")
def _nan_to_num(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    most = float(np.finfo(np.float32).max)
    values = [a.get("nan"), a.get("posinf"), a.get("neginf")]
    low.map(
        out[0],
        "finite",
        a["self"],
        literals=[v if v is not None else d for v, d in zip(values, (0, most, -most), strict=True)],
    )


# -- moving values ----------------------------------------------------------------------------------------------


@_op(
    "start",
    "clone",
    "contiguous",
    "copy",
    "to",
    "_to_copy",
    "lift_fresh_copy",
    "dropout",
    "expand_copy",
    "alias_copy",
)
def _copy(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    if "src" in a:
        low.copy(out[0], a["src"])
    else:
        low.copy(out[0], _either(a, "self", "input"))


@_op("reshape", "_reshape_copy", "view_copy", "flatten", "_unsafe_view")
def _reshape(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    source = a["self"]
    if not out[0].contiguous:
        raise Unsupported("a reshape into a strided tensor is not known")
    low.copy(View(out[0].storage, out[0].offset, source.shape, row_major(source.shape)), source)


@_op("zero")
def _zero(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    low.copy(out[0], 0.0)


@_op("fill")
def _fill(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    low.copy(out[0], a["value"])


@_op("cat", "concat")
def _cat(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    axis, start = a["dim"] % len(out[0].shape), 0
    for part in a["tensors"]:
        part = low.constant(part) if isinstance(part, np.ndarray) else part
        if part.shape == (0,):
            continue
        low.copy(cut(out[0], axis, start, part.shape[axis]), part)
        start += part.shape[axis]


@_op("stack")
def _stack(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    axis = a["dim"] % len(out[0].shape)
    for k, part in enumerate(a["tensors"]):
        low.copy(select(out[0], axis, k), low.constant(part) if isinstance(part, np.ndarray) else part)


def _pads(pad: Sequence[int], rank: int) -> list[tuple[int, int]]:
    pairs = [(0, 0)] * rank
    for k in range(len(pad) // 2):
        pairs[rank - 1 - k] = (pad[2 * k], pad[2 * k + 1])
    return pairs


@_op("constant_pad_nd", "pad")
def _pad(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    source, target = a["self"], out[0]
    mode = a.get("mode", "constant")
    value = float(a.get("value") or 0.0)
    for axis, (before, after) in enumerate(_pads(a["pad"], len(source.shape))):
        if before < 0:
            source = cut(source, axis, -before, source.shape[axis] + before)
        if after < 0:
            source = cut(source, axis, 0, source.shape[axis] + after)
    inside = target
    borders = []
    for axis, (before, after) in enumerate(_pads(a["pad"], len(source.shape))):
        before, after = max(before, 0), max(after, 0)
        inside = cut(inside, axis, before, inside.shape[axis] - before - after)
        borders.append((axis, before, after))
    low.copy(inside, source)
    if mode == "constant":
        memory = low.memory[target.storage]
        if target.size != memory.size:
            raise Unsupported("a pad into part of a tensor is not known")
        memory.data = np.full(memory.size, value, np.float32)
        return
    filled = inside
    for axis, before, after in reversed(borders):
        length, step = filled.shape[axis], target.strides[axis]
        if mode == "reflect":
            head, tail = cut(filled, axis, 1, before), cut(filled, axis, length - 1 - after, after)
            head, tail = flip(head, axis), flip(tail, axis)
        elif mode == "replicate":
            head, tail = cut(filled, axis, 0, 1), cut(filled, axis, length - 1, 1)
        else:
            head, tail = cut(filled, axis, length - before, before), cut(filled, axis, 0, after)
        start = View(filled.storage, filled.offset - before * step, filled.shape, filled.strides)
        low.copy(cut(start, axis, 0, before), head)
        low.copy(cut(start, axis, before + length, after), tail)
        filled = cut(start, axis, 0, before + length + after)


@_op("repeat", "tile")
def _repeat(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    times = list(_either(a, "repeats", "dims"))
    target, source = out[0], a["self"]
    while len(times) < len(source.shape):
        times.insert(0, 1)
    while len(source.shape) < len(times):
        source = insert(source, 0)
    for axis, count in enumerate(times):
        at, n = 2 * axis, source.shape[2 * axis]
        shape = (*target.shape[:at], count, n, *target.shape[at + 1 :])
        step = target.strides[at]
        target = View(
            target.storage, target.offset, shape, (*target.strides[:at], step * n, step, *target.strides[at + 1 :])
        )
        source = insert(source, at)
    low.copy(target, source)


@_op("repeat_interleave")
def _repeat_interleave(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    source, axis = a["self"], a["dim"]
    axis %= len(source.shape)
    for k in range(a["repeats"]):
        low.copy(cut(out[0], axis, k, source.shape[axis], a["repeats"]), source)


@_op("flip")
def _flip(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    source = a["self"]
    for axis in a["dims"]:
        source = flip(source, axis % len(source.shape))
    low.copy(out[0], source)


@_op("roll")
def _roll(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    source = a["self"]
    for k, (axis, by) in enumerate(zip(a["dims"], a["shifts"], strict=True)):
        axis %= len(out[0].shape)
        target = out[0] if k == len(a["dims"]) - 1 else low.temporary(out[0].shape)
        n = target.shape[axis]
        shift = by % n
        low.copy(cut(target, axis, shift, n - shift), cut(source, axis, 0, n - shift))
        if shift:
            low.copy(cut(target, axis, 0, shift), cut(source, axis, n - shift, shift))
        source = target


def _take(low: Lowering, out: View, source: View, axis: int, index: NDArray[np.int64]) -> None:
    """Copy runs of evenly spaced indices; one by one where there are many."""
    wanted = [int(i) % source.shape[axis] for i in index]
    runs: list[tuple[int, int, int]] = []
    start = 0
    while start < len(wanted):
        end = start + 1
        step = wanted[end] - wanted[start] if end < len(wanted) else 1
        while end < len(wanted) and wanted[end] - wanted[end - 1] == step:
            end += 1
        runs.append((start, end, step))
        start = end
    if len(runs) > _MOST_RUNS:
        choosing.chosen_by(low, out, source, axis, np.array(wanted))
        return
    for start, end, step in runs:
        low.copy(cut(out, axis, start, end - start), cut(source, axis, wanted[start], end - start, step))


@_op("index_select")
def _index_select(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    axis, index = a["dim"] % len(a["self"].shape), a["index"]
    if isinstance(index, np.ndarray):
        _take(low, out[0], a["self"], axis, index.ravel())
    else:
        choosing.chosen_by(low, out[0], a["self"], axis, index)


@_op("index")
def _index(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    used = [(k, i) for k, i in enumerate(a["indices"]) if i is not None]
    if len(used) == 1 and isinstance(used[0][1], np.ndarray) and used[0][1].ndim == 1:
        _take(low, out[0], a["self"], used[0][0], used[0][1])
    else:
        choosing.index(low, a, out)


@_op("slice_scatter", "select_scatter")
def _scatter(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    low.copy(out[0], a["self"])
    axis = a["dim"] % len(out[0].shape)
    if "index" in a:
        low.copy(select(out[0], axis, a["index"] % out[0].shape[axis]), a["src"])
        return
    start = a["start"] or 0
    start = start + out[0].shape[axis] if start < 0 else start
    low.copy(cut(out[0], axis, start, a["src"].shape[axis], a["step"]), a["src"])


@_op("im2col")
def _im2col(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    source = insert(a["self"], 0) if len(a["self"].shape) == 3 else a["self"]
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = (a[k] for k in ("kernel_size", "dilation", "padding", "stride"))
    batch, channels, height, width = source.shape
    if ph or pw:
        spread = low.padded((batch, channels, height + 2 * ph, width + 2 * pw))
        low.copy(cut(cut(spread, 2, ph, height), 3, pw, width), source)
        source = spread
    rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    columns = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    b, c, h, w = source.strides
    windows = View(
        source.storage,
        source.offset,
        (batch, channels, kh, kw, rows, columns),
        (b, c, h * dh, w * dw, h * sh, w * sw),
    )
    shape = windows.shape
    low.copy(View(out[0].storage, out[0].offset, shape, row_major(shape)), windows)


@_op("upsample_nearest1d", "upsample_nearest2d")
def _nearest(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    source, target = _either(a, "input", "self"), out[0]
    for axis in range(2, len(out[0].shape)):
        at = 2 * axis - 2
        factor, odd = divmod(target.shape[at], source.shape[at])
        if odd:
            raise Unsupported("only whole factors of nearest upsampling are known")
        shape = (*target.shape[:at], source.shape[at], factor, *target.shape[at + 1 :])
        step = target.strides[at]
        target = View(
            target.storage,
            target.offset,
            shape,
            (*target.strides[:at], step * factor, step, *target.strides[at + 1 :]),
        )
        source = insert(source, at + 1)
    low.copy(target, source)


@_op("chance")
def _chance(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    count = out[0].size
    target = View(out[0].storage, out[0].offset, (count,), (1,))
    if not out[0].contiguous:
        raise Unsupported("random values in a strided tensor are not known")
    states = []
    for k in range(2 if a["kind"] == "normal" else 1):
        words = chance.begin(a["seed"], 2 * a["number"] + k, count)
        state = low.kept(words.view(np.float32))
        low.map(state, "xorshift", state)
        states.append(state)
    low.map(target, a["kind"], *states)


# -- products ----------------------------------------------------------------------------------------------------


def _linear(low: Lowering, out: View, x: View, weight: Floats, bias: Floats | None) -> None:
    step = Step("linear", [out], [x], arrays={"weight": weight.astype(np.float32)})
    if bias is not None:
        step.arrays["bias"] = bias.astype(np.float32)
    low.emit(step)


@_op("linear")
def _linear_op(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    if not low.is_constant(a["weight"]):
        _product(low, out[0], a["input"], permute(a["weight"], (1, 0)))
        if a.get("bias") is not None:
            low.map(out[0], "add", out[0], a["bias"])
        return
    _linear(
        low, out[0], a["input"], low.value(a["weight"]), low.value(a["bias"]) if a.get("bias") is not None else None
    )


@_op("matmul", "mm", "bmm", "mv", "dot")
def _matmul(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    x = a["self"]
    y = _either(a, "other", "mat2", "vec", "tensor")
    target = out[0]
    if len(x.shape) == 1:
        x, target = insert(x, 0), insert(target, max(len(target.shape) - 1, 0) if len(y.shape) > 1 else 0)
    if len(y.shape) == 1:
        y, target = insert(y, 1), insert(target, len(target.shape))
    _product(low, target, x, y)


def _product(low: Lowering, out: View, x: View, y: View, bias: Floats | None = None) -> None:
    if low.is_constant(y) and all(n == 1 for n in y.shape[:-2]):
        matrix = low.value(y).reshape(y.shape[-2:])
        _linear(low, out, x, matrix.T, bias)
        return
    if low.is_constant(x) and all(n == 1 for n in x.shape[:-2]) and bias is None:
        # W @ y is a linear layer on the columns of y.
        order = (*range(len(out.shape) - 2), len(out.shape) - 1, len(out.shape) - 2)
        matrix = low.value(x).reshape(x.shape[-2:])
        columns = broadcast(y, (*out.shape[:-2], *y.shape[-2:]))
        _linear(low, permute(out, order), permute(columns, order), matrix, None)
        return
    lead = out.shape[:-2]
    y = low.dense(broadcast(y, (*lead, *y.shape[-2:])))
    low.emit(Step("matmul", [out], [broadcast(x, (*lead, *x.shape[-2:])), y]))
    if bias is not None:
        low.map(out, "add", out, low.constant(bias))


@_op("addmm", "baddbmm", "addmv")
def _addmm(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    x, y = _either(a, "mat1", "batch1", "mat"), _either(a, "mat2", "batch2", "vec")
    alpha, beta = float(a.get("alpha", 1)), float(a.get("beta", 1))
    target = out[0]
    if len(y.shape) == 1:
        y, target = insert(y, 1), insert(target, 1)
    product = low.temporary(target.shape)
    if alpha == 1 and beta == 1 and low.is_constant(a["self"]) and len(a["self"].shape) == 1 and len(out[0].shape) == 2:
        _product(low, target, x, y, np.broadcast_to(low.value(a["self"]), (target.shape[-1],)))
        return
    _product(low, product, x, y)
    flat = View(product.storage, product.offset, out[0].shape, row_major(out[0].shape))
    scaled, addend = low.temporary(flat.shape), low.temporary(flat.shape)
    low.map(scaled, "mul", flat, alpha)
    low.map(addend, "mul", a["self"], beta)
    low.map(out[0], "add", scaled, addend)


@_op("scaled_dot_product_attention")
def _attention(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    q, k, v = a["query"], a["key"], a["value"]
    if a.get("dropout_p", 0.0) or a.get("enable_gqa"):
        raise Unsupported("attention is known without dropout and grouped queries only")
    scale = a["scale"] if a.get("scale") is not None else 1.0 / math.sqrt(q.shape[-1])
    scores = low.temporary((*out[0].shape[:-2], q.shape[-2], k.shape[-2]))
    order = (*range(len(k.shape) - 2), len(k.shape) - 1, len(k.shape) - 2)
    _product(low, scores, q, permute(k, order))
    low.map(scores, "mul", scores, float(scale))
    mask = a.get("attn_mask")
    if a.get("is_causal"):
        low.map(scores, "add", scores, low.constant(np.triu(np.full(scores.shape[-2:], -np.inf), 1)))
    elif mask is not None:
        low.map(scores, "add", scores, mask)
    weights = low.temporary(scores.shape)
    low.emit(Step("softmax", [weights], [scores], options={"log": False}))
    _product(low, out[0], weights, v)


# -- convolutions ------------------------------------------------------------------------------------------------


def _pair(values: Any, rank: int, default: int) -> list[int]:
    values = [values] if isinstance(values, int) else list(values)
    values = values * rank if len(values) == 1 else values
    return [default] * (2 - rank) + values if values else [default] * 2


def _convolution(
    low: Lowering, out: View, x: View, weight: Floats, bias: Floats | None, stride: Any, padding: Any, dilation: Any,
    groups: int, transposed: bool,
) -> None:  # fmt: skip
    rank = weight.ndim - 2
    if rank > 2:
        raise Unsupported("three-dimensional convolution is not known")
    if len(x.shape) == rank + 1:
        x, out = insert(x, 0), insert(out, 0)
    if rank == 1:
        x, out, weight = insert(x, 2), insert(out, 2), weight[:, :, None, :]
    kernel = weight.shape[2:]
    step, spread = _pair(stride, rank, 1), _pair(dilation, rank, 1)
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(spread, kernel, strict=True)]
        edges = [(t // 2, t - t // 2) for t in total]
    else:
        edges = [(p, p) for p in _pair(padding, rank, 0)]
    step_out = Step("conv", [out], [x], options={"stride": step, "dilation": spread, "edges": edges, "groups": groups})
    step_out.options["transposed"] = transposed
    step_out.arrays["weight"] = np.ascontiguousarray(weight, np.float32)
    channels = out.shape[1]
    step_out.arrays["bias"] = np.zeros(channels, np.float32) if bias is None else bias.astype(np.float32)
    low.emit(step_out)


def _conv_of(transposed: bool | None) -> _Handler:
    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        turned = bool(a["transposed"]) if transposed is None else transposed
        bias = low.value(a["bias"]) if a.get("bias") is not None else None
        _convolution(
            low, out[0], a["input"], low.value(a["weight"]), bias, a["stride"], a["padding"], a["dilation"],
            a["groups"], turned,
        )  # fmt: skip

    return lower


for _name in ("conv1d", "conv2d"):
    _HANDLERS[_name] = _conv_of(False)
for _name in ("conv_transpose1d", "conv_transpose2d"):
    _HANDLERS[_name] = _conv_of(True)
for _name in ("convolution", "_convolution", "convolution_overrideable"):
    _HANDLERS[_name] = _conv_of(None)


# -- recurrent layers --------------------------------------------------------------------------------------------


def _layers(low: Lowering, a: dict[str, Any], out: list[View], gates: int) -> None:
    x, params = a["input"], list(a["params"])
    if a.get("train") and a.get("dropout"):
        raise Unsupported("dropout between recurrent layers is not known")
    states = a["hx"] if isinstance(a["hx"], list) else [a["hx"]]
    directions = 2 if a["bidirectional"] else 1
    y, finals = out[0], out[1:]
    if len(x.shape) == 2:
        x, y = insert(x, 0 if a["batch_first"] else 1), insert(y, 0 if a["batch_first"] else 1)
        states, finals = [insert(s, 1) for s in states], [insert(f, 1) for f in finals]
    if not a["batch_first"]:
        x, y = permute(x, (1, 0, 2)), permute(y, (1, 0, 2))
    batch, steps, _ = x.shape
    hidden = states[0].shape[2]
    per = 4 if a["has_biases"] else 2
    if len(params) != per * directions * a["num_layers"]:
        raise Unsupported("recurrent layers with projections are not known")
    for layer in range(a["num_layers"]):
        last = layer == a["num_layers"] - 1
        target = y if last else low.temporary((batch, steps, hidden * directions))
        for way in range(directions):
            index = layer * directions + way
            w = [low.value(p) for p in params[index * per : (index + 1) * per]]
            if per == 2:
                w += [np.zeros(gates * hidden, np.float32)] * 2
            place = cut(target, 2, way * hidden, hidden)
            _recurrent(
                low,
                place,
                x,
                [select(s, 0, index) for s in states],
                [select(f, 0, index) for f in finals],
                w,
                gates,
                way == 1,
            )
        x = target


def _recurrent(
    low: Lowering,
    y: View,
    x: View,
    states: list[View],
    finals: list[View],
    w: list[Floats],
    gates: int,
    reverse: bool,
) -> None:
    states = [low.dense(s) for s in states]
    targets = [y, *finals]
    dense = [
        t if View(t.storage, 0, t.shape[-1:], t.strides[-1:]).contiguous else low.temporary(t.shape) for t in targets
    ]
    arrays = dict(zip(("w_input", "w_hidden", "b_input", "b_hidden"), w, strict=True))
    low.emit(Step("recurrent", dense, [x, *states], arrays=arrays, options={"gates": gates, "reverse": reverse}))
    for t, d in zip(targets, dense, strict=True):
        if t is not d:
            low.copy(t, d)


@_op("gru")
def _gru(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    _layers(low, a, out, 3)


@_op("lstm")
def _lstm(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    _layers(low, a, out, 4)


def _cell(gates: int) -> _Handler:
    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        x = a["input"]
        states = a["hx"] if isinstance(a["hx"], list) else [a["hx"]]
        results = list(out)
        if len(x.shape) == 1:
            x, states, results = insert(x, 0), [insert(s, 0) for s in states], [insert(o, 0) for o in results]
        hidden = states[0].shape[-1]
        w = [low.value(a["w_ih"]), low.value(a["w_hh"])]
        w += [
            low.value(a[k]) if a.get(k) is not None else np.zeros(gates * hidden, np.float32) for k in ("b_ih", "b_hh")
        ]
        y = low.temporary((x.shape[0], 1, hidden))
        _recurrent(low, y, insert(x, 1), states, results, w, gates, False)

    return lower


_HANDLERS.update(gru_cell=_cell(3), lstm_cell=_cell(4))


# -- normalisation and reductions --------------------------------------------------------------------------------


@_op("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def _batch_norm(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    if a.get("training"):
        raise Unsupported("batch_norm in training mode is not known")
    mean, variance = low.value(a["running_mean"]).astype(np.float64), low.value(a["running_var"]).astype(np.float64)
    scale = 1.0 / np.sqrt(variance + a["eps"])
    if a.get("weight") is not None:
        scale = scale * low.value(a["weight"])
    shift = -mean * scale
    if a.get("bias") is not None:
        shift = shift + low.value(a["bias"])
    x = _either(a, "input", "self")
    shape = [-1 if k == 1 else 1 for k in range(len(x.shape))]
    low.map(out[0], "affine", x, low.constant(scale.reshape(shape)), low.constant(shift.reshape(shape)))


def _rows(view: View, rank: int) -> View:
    """The view with its last ``rank`` axes, which lie dense, as one."""
    lead = len(view.shape) - rank
    size = math.prod(view.shape[lead:])
    return View(view.storage, view.offset, (*view.shape[:lead], size), (*view.strides[:lead], 1))


@_op("layer_norm", "native_layer_norm")
def _layer_norm(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    rank = len(a["normalized_shape"])
    x = low.dense(a["input"], rank)
    step = Step("normalise", [_rows(out[0], rank)], [_rows(x, rank)], options={"eps": float(a["eps"]), "periods": 1})
    for name in ("weight", "bias"):
        if a.get(name) is not None:
            step.arrays[name] = low.value(a[name]).reshape(1, -1)
    low.emit(step)


@_op("group_norm", "instance_norm", "native_group_norm")
def _group_norm(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    x = a["input"]
    if a.get("use_input_stats") is False:
        _batch_norm(low, a, out)
        return
    if a.get("running_mean") is not None:
        raise Unsupported("instance_norm that learns statistics is not known")
    batch, channels = x.shape[:2]
    groups = a.get("num_groups", a.get("group", channels))
    x = low.dense(x, len(x.shape) - 1)
    rest = math.prod(x.shape[2:])
    shape = (batch, groups, channels // groups * rest)

    def grouped(v: View) -> View:
        return View(v.storage, v.offset, shape, (v.strides[0], shape[2], 1))

    step = Step("normalise", [grouped(out[0])], [grouped(x)], options={"eps": float(a["eps"]), "periods": groups})
    for name in ("weight", "bias"):
        if a.get(name) is not None:
            step.arrays[name] = np.repeat(low.value(a[name]), rest).reshape(groups, -1)
    low.emit(step)


def _softmax_of(log: bool) -> _Handler:
    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        x, target = a["self"], out[0]
        axis = a["dim"] % len(x.shape)
        order = (*(k for k in range(len(x.shape)) if k != axis), axis)
        x, target = low.dense(permute(x, order)), permute(target, order)
        direct = target if target.strides[-1] == 1 else low.temporary(target.shape)
        low.emit(Step("softmax", [direct], [x], options={"log": log}))
        if direct is not target:
            low.copy(target, direct)

    return lower


_HANDLERS.update({"softmax": _softmax_of(False), "_softmax": _softmax_of(False)})
_HANDLERS.update({"log_softmax": _softmax_of(True), "_log_softmax": _softmax_of(True)})


def _axes(dim: Any, rank: int) -> list[int]:
    if dim is None or dim == []:
        return list(range(rank))
    return sorted({d % rank for d in ([dim] if isinstance(dim, int) else dim)}) if rank else []


def _reduce(low: Lowering, out: View, x: View, dim: Any, keep: bool, how: str, scale: float = 1.0) -> None:
    axes = _axes(dim, len(x.shape))
    if not axes:
        low.copy(out, x)
        return
    kept = [k for k in range(len(x.shape)) if k not in axes]
    if keep:
        for axis in reversed(axes):
            out = select(out, axis, 0)
    low.emit(
        Step("reduce", [out], [permute(x, [*kept, *axes])], options={"how": how, "axes": len(axes), "scale": scale})
    )


def _reduction_of(name: str) -> _Handler:
    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        x = a["self"]
        count = math.prod(x.shape[k] for k in _axes(a.get("dim"), len(x.shape)))
        how = {"sum": "add", "mean": "add", "amax": "max", "amin": "min", "prod": "mul"}[name]
        _reduce(low, out[0], x, a.get("dim"), bool(a.get("keepdim")), how, 1.0 / count if name == "mean" else 1.0)

    return lower


for _name in ("sum", "mean", "amax", "amin", "prod"):
    _HANDLERS[_name] = _reduction_of(_name)


@_op("linalg_vector_norm", "norm")
def _norm(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    x, order = a["self"], a.get("ord", a.get("p", 2))
    order = 2.0 if order is None else float(order)
    powers, total = low.temporary(x.shape), low.temporary(out[0].shape)
    low.map(powers, "square" if order == 2 else "abs", x)
    if order not in (1, 2, math.inf, -math.inf):
        if not order:
            raise Unsupported("the norm of order 0 is not known")
        low.map(powers, "power", powers, literals=[order])
    plain = order == 1 or math.isinf(order)
    how = {math.inf: "max", -math.inf: "min"}.get(order, "add")
    _reduce(low, out[0] if plain else total, powers, a.get("dim"), bool(a.get("keepdim")), how)
    if order == 2:
        low.map(out[0], "sqrt", total)
    elif not plain:
        low.map(out[0], "power", total, literals=[1.0 / order])


def _variance(low: Lowering, a: dict[str, Any], variance: View, mean_out: View | None, root: bool) -> None:
    x = a["self"]
    axes = _axes(a.get("dim"), len(x.shape))
    count = math.prod(x.shape[k] for k in axes)
    correction = a.get("correction")
    if correction is None:
        correction = 1 if a.get("unbiased", True) else 0
    kept_shape = tuple(1 if k in axes else n for k, n in enumerate(x.shape))
    mean, squares = low.temporary(kept_shape), low.temporary(x.shape)
    _reduce(low, mean, x, axes, True, "add", 1.0 / count)
    centred = low.temporary(x.shape)
    low.map(centred, "sub", x, mean)
    low.map(squares, "square", centred)
    target = low.temporary(variance.shape) if root else variance
    _reduce(low, target, squares, axes, bool(a.get("keepdim")), "add", 1.0 / max(count - float(correction), 1e-30))
    if root:
        low.map(variance, "sqrt", target)
    if mean_out is not None:
        low.copy(View(mean_out.storage, mean_out.offset, mean_out.shape, mean_out.strides),
                 View(mean.storage, 0, mean_out.shape, row_major(mean_out.shape)))  # fmt: skip


@_op("var")
def _var(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    _variance(low, a, out[0], None, False)


@_op("std")
def _std(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    _variance(low, a, out[0], None, True)


@_op("var_mean")
def _var_mean(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    _variance(low, a, out[0], out[1], False)


@_op("std_mean")
def _std_mean(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
    _variance(low, a, out[0], out[1], True)


def _numbers(values: Any, rank: int, default: int) -> list[int]:
    numbers: list[int] = [values] if isinstance(values, int) else list(values or [default])
    return numbers * rank if len(numbers) == 1 else numbers


def _pool_of(rank: int, how: str, adaptive: bool) -> _Handler:
    def lower(low: Lowering, a: dict[str, Any], out: list[View]) -> None:
        x = a["self"]
        lead = len(x.shape) - rank
        counts, sizes = out[0].shape[lead:], x.shape[lead:]
        if adaptive:
            if any(n % m for n, m in zip(sizes, counts, strict=True)):
                raise Unsupported("adaptive pooling is known for whole factors only")
            kernel = [n // m for n, m in zip(sizes, counts, strict=True)]
            stride, padding, spread = kernel, [0] * rank, [1] * rank
        else:
            kernel = _numbers(a["kernel_size"], rank, 1)
            stride = _numbers(a.get("stride") or kernel, rank, 1)
            padding, spread = _numbers(a.get("padding"), rank, 0), _numbers(a.get("dilation"), rank, 1)
        # What the windows reach behind the end, which is more than the padding with ceil_mode.
        reach = [
            max(0, (m - 1) * s + (k - 1) * d + 1 - n - p)
            for m, s, k, d, n, p in zip(counts, stride, kernel, spread, sizes, padding, strict=True)
        ]
        if any(padding) or any(reach):
            edges = [n + p + r for n, p, r in zip(sizes, padding, reach, strict=True)]
            spacious = low.padded((*x.shape[:lead], *edges))
            if how == "max":
                low.memory[spacious.storage].data = np.full(spacious.size, -np.inf, np.float32)
            inside = spacious
            for axis, (p, n) in enumerate(zip(padding, sizes, strict=True)):
                inside = cut(inside, lead + axis, p, n)
            low.copy(inside, x)
            x = spacious
        shape = (*out[0].shape, *kernel)
        strides = (
            *x.strides[:lead], *(d * s for d, s in zip(x.strides[lead:], stride, strict=True)),
            *(d * s for d, s in zip(x.strides[lead:], spread, strict=True)),
        )  # fmt: skip
        windows = View(x.storage, x.offset, shape, strides)
        axes = list(range(len(out[0].shape), len(shape)))
        scale = 1.0
        shares = None
        if how == "add":
            scale = 1.0 / (a.get("divisor_override") or math.prod(kernel))
            if not adaptive and not a.get("divisor_override") and (any(padding) or any(reach)):
                # Of each window counts what lies within the sound or, with its padding, within that.
                counted = []
                for m, s, k, n, p in zip(counts, stride, kernel, sizes, padding, strict=True):
                    start = np.arange(m) * s - p
                    edge = p if a.get("count_include_pad", True) else 0
                    counted.append((np.minimum(start + k, n + edge) - np.maximum(start, -edge)).astype(np.float64))
                shares = 1.0 / math.prod(np.ix_(*counted))
                scale = 1.0
        _reduce(low, out[0], windows, axes, False, how, scale)
        if shares is not None:
            low.map(out[0], "mul", out[0], low.constant(shares))

    return lower


_HANDLERS.update(
    avg_pool1d=_pool_of(1, "add", False), avg_pool2d=_pool_of(2, "add", False), max_pool1d=_pool_of(1, "max", False),
    adaptive_avg_pool1d=_pool_of(1, "add", True), adaptive_avg_pool2d=_pool_of(2, "add", True),
    _adaptive_avg_pool2d=_pool_of(2, "add", True), max_pool2d=_pool_of(2, "max", False),
)  # fmt: skip

_HANDLERS.update(spectral.HANDLERS)
_HANDLERS.update(choosing.HANDLERS)

#: Names of the operations that can be lowered.
SUPPORTED = frozenset(_HANDLERS)


def lower(program: Program) -> Lowering:
    """The steps of a recorded program.

    Raises
    ------
    Unsupported
        Naming the operation.
    """
    low = Lowering(program)
    for op in program.ops:
        handler = _HANDLERS.get(op["op"])
        if handler is None:
            raise Unsupported(f"the operation aten::{op['op']} is not known to this version of rtgan")
        arguments = {name: low.argument(value) for name, value in op["args"].items()}
        try:
            handler(low, arguments, [View.from_json(o) for o in op["out"]])
        except (KeyError, TypeError, ValueError, IndexError, StopIteration) as error:
            raise Unsupported(
                f"the operation aten::{op['op']} has arguments that rtgan cannot lower ({error})"
            ) from error
    return low
