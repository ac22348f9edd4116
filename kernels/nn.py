"""Neural layers for one frame at a time, written as explicit-vector IR for their exact shapes.

Each function emits one layer into a `Code`. Tensors are float32 addresses with literal strides, so that views
cost nothing; weights come packed by the ``pack_*`` function beside each layer. `compile_layer` turns a single
layer into something callable on arrays, for tests and benchmarks; `rtgan.generators` strings layers together.

Threads: emission and packing on the main thread; the code itself runs anywhere: it allocates nothing, calls
nothing and keeps no state but the memory it is given.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import nn_jit
from .nn_code import Code, Machine, Vec, pieces

Floats = NDArray[np.float32]

#: ``post(code, v, channel)`` finishes a layer's output in its registers; ``channel(k)`` gives the k-th
#: per-channel constant for the lanes of ``v``.
Post = Callable[[Code, Vec, Callable[[int], Vec]], Vec]


def _pow2(n: int) -> int:
    return 1 << max(0, (n - 1).bit_length())


def collapse(shape: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """Drop dimensions of size one and merge neighbours that every operand walks through evenly."""
    merged: list[tuple[int, ...]] = []
    for size, *steps in zip(shape, *strides, strict=True):
        if size == 1:
            continue
        if merged and all(o == s * size for o, s in zip(merged[-1][1:], steps, strict=True)):
            merged[-1] = (merged[-1][0] * size, *steps)
        else:
            merged.append((size, *steps))
    return [m[0] for m in merged], [[m[k + 1] for m in merged] for k in range(len(strides))]


# -- elementwise ------------------------------------------------------------------------------------------------


def elementwise(
    e: Code,
    shape: Sequence[int],
    out: tuple[str, Sequence[int]],
    inputs: Sequence[tuple[str, Sequence[int]]],
    function: Callable[[list[Vec], int], Vec],
) -> None:
    """``out = function(inputs, lanes)`` over any strides; stride 0 broadcasts.

    Runs in ascending order and reads each vector before it writes: an input may be ``out`` itself, or the same
    tensor shifted towards higher addresses (a delay line moving down).
    """
    sizes, steps = collapse(shape, out[1], *(s for _, s in inputs))
    pointers = [out[0], *(p for p, _ in inputs)]
    if not sizes:
        sizes, steps = [1], [[1] for _ in steps]
    ranked = sorted(
        range(len(sizes)),
        key=lambda d: (
            min(sizes[d], 2 * e.machine.lanes)
            * (2 * (steps[0][d] == 1) + sum(s[d] in (0, 1) for s in steps[1:]) + sum(s[d] == 2 for s in steps) / 4),
            d,
        ),
    )
    inner = ranked[-1]
    outer = [d for d in range(len(sizes)) if d != inner]
    count, strides = sizes[inner], [s[inner] for s in steps]
    full, rest = divmod(count, e.machine.lanes)

    def run(indices: list[str]) -> None:
        here = [
            e.at(p, *((i, s[d]) for i, d in zip(indices, outer, strict=True)))
            for p, s in zip(pointers, steps, strict=True)
        ]

        def chunk(at: list[str], n: int) -> None:
            values = [e.load_strided(p, s, n) for p, s in zip(at[1:], strides[1:], strict=True)]
            e.store_strided(at[0], strides[0], function(values, n))

        def advance(index: str | int, width: int) -> list[str]:
            if isinstance(index, int):
                return [e.at(p, index * s) for p, s in zip(here, strides, strict=True)]
            return [e.at(p, (index, width * s)) for p, s in zip(here, strides, strict=True)]

        unroll = 4 if full > 8 else max(full, 1)

        def block(index: str, carried: list[Vec]) -> list[Vec]:
            at = advance(index, unroll * e.machine.lanes)
            for u in range(unroll):
                chunk([e.at(p, u * e.machine.lanes * s) for p, s in zip(at, strides, strict=True)], e.machine.lanes)
            return carried

        blocks = full // unroll
        e.loop(blocks, block)
        for u in range(blocks * unroll, full):
            chunk(advance(u * e.machine.lanes, 1), e.machine.lanes)
        for start, width in pieces(rest, e.machine.lanes):
            chunk(advance(full * e.machine.lanes + start, 1), width)

    e.nest([sizes[d] for d in outer], run)


# -- products with packed weights --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How a matrix product is cut: ``rows`` inputs at once against panels of ``vectors`` vectors of ``width`` lanes."""

    width: int
    total: int
    vectors: int
    rows: int

    @staticmethod
    def of(machine: Machine, rows: int, outputs: int) -> Plan:
        """Tiles that fill the registers with independent sums."""
        width = min(machine.lanes, _pow2(outputs))
        total = -(-outputs // width)
        budget = machine.registers * 3 // 4
        if rows == 1:
            vectors = min(total, machine.registers // 2)
            block = 1
        else:
            vectors = min(total, 3 if machine.registers == 16 else 4)
            block = min(rows, max(1, min(budget // vectors, 8)))
            if block < rows and rows % block:
                block = next((b for b in range(block, block // 2, -1) if rows % b == 0), block)
            if block * vectors < budget:
                vectors = min(total, max(vectors, budget // block))
        panels = -(-total // vectors)
        return Plan(width, total, -(-total // panels), block)


def contract(
    e: Code,
    extents: Sequence[tuple[int, int]],
    xs: list[str],
    streams: list[str],
    sums: list[list[Vec]],
    stride: int | None = None,
) -> list[list[Vec]]:
    """``sums[r][j] += x[r][k] * w[k][j]`` over a nest of ``k``.

    Parameters
    ----------
    extents
        (count, stride of x) of each loop over ``k``, outermost first.
    xs
        Addresses of the rows.
    streams
        Addresses of the weights; each holds the vectors of an equal share of the sums, ``stride`` floats from one
        ``k`` to the next. Weights that come from memory come faster in a few streams than in one.
    sums
        Accumulators, one vector of weights wide each.
    """
    rows, vectors, width = len(sums), len(sums[0]), sums[0][0].n
    share = vectors // len(streams)
    step = share * width if stride is None else stride
    total = int(np.prod([n for n, _ in extents]))
    # Fused multiply-add has a latency of about eight issue slots: short rows of sums are split in parallel ones.
    split = max(1, min(4, 8 // (rows * vectors), extents[-1][0], total))
    state = [[list(r) for r in sums]] + [
        [[e.const(width, 0.0)] * vectors for _ in range(rows)] for _ in range(split - 1)
    ]
    shape = [(s, r, j) for s in range(split) for r in range(rows) for j in range(vectors)]

    def pack(values: list[list[list[Vec]]]) -> list[Vec]:
        return [values[s][r][j] for s, r, j in shape]

    def unpack(flat: list[Vec]) -> list[list[list[Vec]]]:
        it = iter(flat)
        return [[[next(it) for _ in range(vectors)] for _ in range(rows)] for _ in range(split)]

    def one(at: list[str], weights: list[str], k: int, x_step: int, values: list[list[list[Vec]]]) -> None:
        ws = [e.load(e.at(weights[j // share], k * step + j % share * width), width) for j in range(vectors)]
        for r in range(rows):
            x = e.splat(e.load(e.at(at[r], k * x_step)), width)
            for j in range(vectors):
                values[k % split][r][j] = e.fma(x, ws[j], values[k % split][r][j])

    def level(depth: int, at: list[str], weights: list[str], flat: list[Vec]) -> list[Vec]:
        count, x_step = extents[depth]
        below = int(np.prod([n for n, _ in extents[depth + 1 :]]))
        if depth < len(extents) - 1:
            return e.loop(
                count,
                lambda i, c: level(
                    depth + 1, [e.at(p, (i, x_step)) for p in at], [e.at(p, (i, below * step)) for p in weights], c
                ),
                flat,
            )
        unroll = split * max(1, min(count, 32 // max(1, rows * vectors), 8) // split)

        def body(i: str, carried: list[Vec]) -> list[Vec]:
            values = unpack(carried)
            here = [e.at(p, (i, unroll * x_step)) for p in at]
            there = [e.at(p, (i, unroll * step)) for p in weights]
            for k in range(unroll):
                one(here, there, k, x_step, values)
            return pack(values)

        whole = count // unroll
        flat = e.loop(whole, body, flat)
        values = unpack(flat)
        for k in range(count - whole * unroll):
            at_k = whole * unroll + k
            one([e.at(p, at_k * x_step) for p in at], [e.at(p, at_k * step) for p in weights], 0, 0, values)
        return pack(values)

    values = unpack(level(0, xs, streams, pack(state)))
    return [[e.sum(values[s][r][j] for s in range(split)) for j in range(vectors)] for r in range(rows)]


def pack_linear(machine: Machine, rows: int, weight: Floats) -> Floats:
    """Weights (outputs, inputs) as panels [panel][input][lane]; lanes beyond the last output are zero."""
    outputs, inputs = weight.shape
    plan = Plan.of(machine, rows, outputs)
    padded = np.zeros((plan.total * plan.width, inputs), np.float32)
    padded[:outputs] = weight
    panel = plan.vectors * plan.width
    blocks = [padded[i : i + panel].T.ravel() for i in range(0, len(padded), panel)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def pack_vector(machine: Machine, values: Floats) -> Floats:
    """A per-output vector with zeros up to a whole number of registers."""
    n = len(values)
    out = np.zeros(-(-n // machine.lanes) * machine.lanes, np.float32)
    out[:n] = values
    return out


def linear(
    e: Code,
    rows: Sequence[tuple[int, int, int]],
    inputs: Sequence[tuple[int, int]],
    outputs: int,
    out: str,
    out_stride: int,
    x: str,
    w: str,
    bias: str | None,
    post: Post | None = None,
    channels: Sequence[str] = (),
    w_stride: int | None = None,
) -> None:
    """``out[row, n] = post(bias[n] + sum_k x[row, k] w[k, n])``: linear layers, and convolutions seen by channel.

    Parameters
    ----------
    rows
        (count, stride of x, stride of out) of each loop over rows, outermost first.
    inputs
        (count, stride of x) of each loop over the inputs.
    outputs, out_stride
        Number of outputs and the distance between two of them.
    w
        From `pack_linear` for the innermost count of rows; or, with ``w_stride``, a plain row-major matrix
        [input][output] whose rows lie that far apart.
    bias, channels
        Vectors from `pack_vector`.
    """
    inner, x_row, out_row = rows[-1] if rows else (1, 0, 0)
    plan = Plan.of(e.machine, inner, outputs)
    depth = int(np.prod([n for n, _ in inputs]))
    panel = plan.vectors * plan.width
    whole = outputs // panel

    def tile(block: int, xs0: str, out0: str, w0: str, column: tuple[str, int] | int, count: int) -> None:
        """``count`` outputs of ``block`` rows; ``column`` says where they begin."""

        def place(vector: str) -> str:
            return e.at(vector, column)

        vectors = -(-count // plan.width)
        taken = [min(plan.width, count - j * plan.width) for j in range(vectors)]
        if w_stride is not None and taken[-1] < plan.width:
            # A plain matrix has no padding to read: the last outputs go in narrower tiles.
            start = 0
            for at, width in pieces(count, plan.width):
                narrow(block, xs0, out0, w0, column, at, width)
                start = at + width
            assert start == count
            return
        if bias is None:
            begin = [e.const(plan.width, 0.0)] * vectors
        else:
            at_bias = place(bias)
            begin = [e.load(e.at(at_bias, j * plan.width), plan.width) for j in range(vectors)]
        xs = [e.at(xs0, r * x_row) for r in range(block)]
        sums = contract(e, inputs, xs, [w0], [list(begin) for _ in range(block)], w_stride)
        finish(block, out0, column, 0, sums, taken)

    def narrow(block: int, xs0: str, out0: str, w0: str, column: tuple[str, int] | int, at: int, width: int) -> None:
        start = e.const(width, 0.0) if bias is None else e.load(e.at(bias, column, at), width)
        xs = [e.at(xs0, r * x_row) for r in range(block)]
        sums = contract(e, inputs, xs, [e.at(w0, at)], [[start] for _ in range(block)], w_stride)
        finish(block, out0, column, at, sums, [width])

    def finish(
        block: int, out0: str, column: tuple[str, int] | int, at: int, sums: list[list[Vec]], taken: list[int]
    ) -> None:
        scaled = (column[0], column[1] * out_stride) if isinstance(column, tuple) else column * out_stride
        for r in range(block):
            row = e.at(out0, scaled, (at * out_stride) + r * out_row)
            for j, count in enumerate(taken):
                v = sums[r][j]
                if post is not None:
                    v = post(e, v, lambda k, j=j, n=v.n: e.load(e.at(channels[k], column, at + j * plan.width), n))  # type: ignore[misc]
                e.store_strided(e.at(row, j * plan.width * out_stride), out_stride, v, count)

    def block_of_rows(block: int, xs0: str, out0: str) -> None:
        def panel_step(i: str, carried: list[Vec]) -> list[Vec]:
            size = panel if w_stride is not None else depth * panel
            tile(block, xs0, out0, e.at(w, (i, size)), (i, panel), panel)
            return carried

        e.loop(whole, panel_step)
        if outputs > whole * panel:
            size = panel if w_stride is not None else depth * panel
            tile(block, xs0, out0, e.at(w, whole * size), whole * panel, outputs - whole * panel)

    def run(indices: list[str]) -> None:
        xs0 = e.at(x, *((i, rows[d][1]) for d, i in enumerate(indices)))
        out0 = e.at(out, *((i, rows[d][2]) for d, i in enumerate(indices)))
        blocks = inner // plan.rows

        def step(i: str, carried: list[Vec]) -> list[Vec]:
            block_of_rows(plan.rows, e.at(xs0, (i, plan.rows * x_row)), e.at(out0, (i, plan.rows * out_row)))
            return carried

        e.loop(blocks, step)
        done = blocks * plan.rows
        if done < inner:
            block_of_rows(inner - done, e.at(xs0, done * x_row), e.at(out0, done * out_row))

    e.nest([n for n, _, _ in rows[:-1]], run)


def pack_dot(machine: Machine, weight: Floats) -> Floats:
    """Weights (outputs, inputs) row by row, each padded with zeros to whole registers."""
    outputs, inputs = weight.shape
    width = min(machine.lanes, _pow2(inputs))
    padded = np.zeros((outputs, -(-inputs // width) * width), np.float32)
    padded[:, :inputs] = weight
    return padded.ravel()


def dot(
    e: Code,
    rows: Sequence[tuple[int, int, int]],
    inputs: int,
    outputs: int,
    out: str,
    out_stride: int,
    x: str,
    w: str,
    bias: str | None,
    post: Post | None = None,
    channels: Sequence[str] = (),
) -> None:
    """A linear layer with few outputs over neighbouring inputs, by dot products; weights from `pack_dot`."""
    width = min(e.machine.lanes, _pow2(inputs))
    padded = -(-inputs // width) * width
    full = inputs // width
    chains = max(1, min(4, full))

    def run(indices: list[str]) -> None:
        row = e.at(x, *((i, rows[d][1]) for d, i in enumerate(indices)))
        target = e.at(out, *((i, rows[d][2]) for d, i in enumerate(indices)))
        for n in range(outputs):
            weights = e.at(w, n * padded)

            def body(i: str, sums: list[Vec], weights: str = weights) -> list[Vec]:
                xi, wi = e.at(row, (i, chains * width)), e.at(weights, (i, chains * width))
                return [
                    e.fma(e.load(e.at(xi, c * width), width), e.load(e.at(wi, c * width), width), v)
                    for c, v in enumerate(sums)
                ]

            sums = e.loop(full // chains, body, [e.const(width, 0.0)] * chains)
            for k in range(full // chains * chains, full):
                sums[0] = e.fma(e.load(e.at(row, k * width), width), e.load(e.at(weights, k * width), width), sums[0])
            if inputs % width:
                last = e.load_some(e.at(row, full * width), inputs % width, width)
                sums[-1] = e.fma(last, e.load(e.at(weights, full * width), width), sums[-1])
            total = e.fold(e.sum(sums), e.add)
            if bias is not None:
                total = e.add(total, e.load(e.at(bias, n)))
            if post is not None:
                total = post(e, total, lambda k, n=n: e.load(e.at(channels[k], n)))  # type: ignore[misc]
            e.store(e.at(target, n * out_stride), total)

    e.nest([n for n, _, _ in rows], run)


# -- recurrent layers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slices:
    """How a hidden state is cut: ``full`` slices of ``vectors`` vectors of ``width`` units, then one of ``last``."""

    width: int
    vectors: int
    full: int
    last: int

    @staticmethod
    def of(machine: Machine, hidden: int) -> Slices:
        """As many units at once as the four sums of each leave registers for."""
        width = min(machine.lanes, _pow2(hidden))
        total = -(-hidden // width)
        most = machine.registers * 3 // 16
        parts = -(-total // most)
        vectors = -(-total // parts)
        whole = hidden // (vectors * width)
        return Slices(width, vectors, whole, -(-(hidden - whole * vectors * width) // width))

    def spans(self) -> list[tuple[int, int]]:
        """(first unit, vectors) of every slice."""
        out = [(i * self.vectors * self.width, self.vectors) for i in range(self.full)]
        return out + [(self.full * self.vectors * self.width, self.last)] * (self.last > 0)


def pack_recurrent(
    machine: Machine, gates: int, w_input: Floats, w_hidden: Floats, b_input: Floats, b_hidden: Floats
) -> tuple[Floats, Floats]:
    """Weights and biases of a GRU (3 gates: r, z, n) or LSTM (4: i, f, g, o) in torch's row order, by slices.

    The rows of sigmoid gates are halved, which is exact: ``sigmoid(x) = (1 + tanh(x / 2)) / 2``.

    Returns
    -------
    (weights, biases)
        Weights [gate][slice][input, then hidden][unit], biases [slice][gate][unit]; a GRU has a fourth bias,
        that of n's hidden part, which its reset gate multiplies.
    """
    hidden = w_hidden.shape[1]
    soft = (0, 1) if gates == 3 else (0, 1, 3)
    scale = np.ones((gates, 1), np.float32)
    scale[list(soft)] = 0.5
    wi = (w_input.reshape(gates, hidden, -1) * scale[:, :, None]).astype(np.float32)
    wh = (w_hidden.reshape(gates, hidden, hidden) * scale[:, :, None]).astype(np.float32)
    bi, bh = b_input.reshape(gates, hidden) * scale, b_hidden.reshape(gates, hidden) * scale
    biases = np.stack([bi[0] + bh[0], bi[1] + bh[1], bi[2], bh[2]]) if gates == 3 else bi + bh
    cut = Slices.of(machine, hidden)

    def padded(values: Floats, first: int, units: int) -> Floats:
        part = values[:, first : first + units]
        return np.pad(part, [(0, 0), (0, units - part.shape[1])] + [(0, 0)] * (part.ndim - 2))

    weights: list[list[Floats]] = [[] for _ in range(gates)]
    offsets = []
    for first, vectors in cut.spans():
        units = vectors * cut.width
        for matrix in (wi, wh):
            for gate, part in zip(weights, padded(matrix, first, units), strict=True):
                gate.append(part.T.ravel())
        offsets.append(padded(biases.astype(np.float32), first, units).ravel())
    return np.concatenate([part for gate in weights for part in gate]).astype(np.float32), np.concatenate(offsets)


def recurrent(
    e: Code,
    gates: int,
    batch: int,
    steps: int,
    inputs: int,
    hidden: int,
    x: tuple[str, int, int, int],
    y: tuple[str, int, int],
    h0: tuple[str, int],
    hn: tuple[str, int] | None,
    w: str,
    b: str,
    reverse: bool = False,
    c0: tuple[str, int] | None = None,
    cn: tuple[str, int] | None = None,
) -> None:
    """One direction of one GRU (``gates`` 3) or LSTM (4) layer over ``batch`` x ``steps``.

    The sums of all gates of a slice of units stay in registers from the first input to the new state, so the
    weights are read once, in order, and nothing else is written.

    Parameters
    ----------
    x
        Address and strides of (batch, step, input).
    y
        Address and strides of (batch, step); the units of one step lie side by side. Must not overlap ``h0``.
    h0, hn, c0, cn
        Address and batch stride of the first and last hidden state and, for LSTM, of the cell. ``cn`` may be ``c0``.
    w, b
        From `pack_recurrent`.
    """
    cut = Slices.of(e.machine, hidden)
    width = cut.width
    sums_of = 4
    depth = inputs + hidden
    region = depth * (cut.full * cut.vectors + cut.last) * width
    most = e.machine.registers * 3 // 4
    block = (
        max(1, min(batch, most // (sums_of * cut.vectors))) if cut.full * cut.vectors + cut.last == cut.vectors else 1
    )

    def soft(v: Vec) -> Vec:
        half = e.const(v.n, 0.5)
        return e.fma(e.tanh(v), half, half)

    def slice_of(rows: int, xs: list[str], hs: list[str], cs: list[str], ys: list[str], hns: list[str], cns: list[str],
                 weights: list[str], biases: str, first: tuple[str, int] | int, taken: list[int]) -> None:  # fmt: skip
        vectors = len(taken)
        span = vectors * width
        start = [[e.load(e.at(biases, g * span + j * width), width) for j in range(vectors)] for g in range(4)]
        begin = [v for gate in start[:gates] for v in gate]
        sums = contract(e, [(inputs, x[3])], xs, weights, [list(begin) for _ in range(rows)])
        kept = [row[2 * vectors :] for row in sums]
        if gates == 3:
            # The reset gate multiplies n's hidden part alone, which is therefore summed apart from its input part.
            sums = [[*row[: 2 * vectors], *start[3]] for row in sums]
        sums = contract(e, [(hidden, 1)], hs, [e.at(p, inputs * span) for p in weights], sums)
        for r in range(rows):
            for j, count in enumerate(taken):
                gate = [sums[r][g * vectors + j] for g in range(gates)]
                if gates == 3:
                    reset, update = soft(gate[0]), soft(gate[1])
                    new = e.tanh(e.fma(reset, gate[2], kept[r][j]))
                    old = e.load_some(e.at(hs[r], first, j * width), count, width)
                    state = e.fma(update, e.sub(old, new), new)
                else:
                    cell = e.load_some(e.at(cs[r], first, j * width), count, width)
                    cell = e.fma(soft(gate[1]), cell, e.mul(soft(gate[0]), e.tanh(gate[2])))
                    e.store_some(e.at(cns[r], first, j * width), cell, count)
                    state = e.mul(soft(gate[3]), e.tanh(cell))
                for target in (ys[r], *([hns[r]] if hns else [])):
                    e.store_some(e.at(target, first, j * width), state, count)

    def step(
        rows: int, xs: list[str], hs: list[str], cs: list[str], ys: list[str], hns: list[str], cns: list[str]
    ) -> None:
        span = cut.vectors * width

        def body(i: str, carried: list[Vec]) -> list[Vec]:
            weights = [e.at(w, g * region, (i, depth * span)) for g in range(gates)]
            taken = [width] * cut.vectors
            slice_of(rows, xs, hs, cs, ys, hns, cns, weights, e.at(b, (i, 4 * span)), (i, span), taken)
            return carried

        e.loop(cut.full, body)
        done = cut.full * span
        if done < hidden:
            taken = [min(width, hidden - done - j * width) for j in range(cut.last)]
            weights = [e.at(w, g * region + cut.full * depth * span) for g in range(gates)]
            slice_of(rows, xs, hs, cs, ys, hns, cns, weights, e.at(b, cut.full * 4 * span), done, taken)

    def chains(rows: int, index: str | int) -> None:
        def of(operand: tuple[str, Any], r: int) -> str:
            stride = int(operand[1])
            move = index * stride if isinstance(index, int) else (index, block * stride)
            return e.at(operand[0], move, r * stride)

        all_rows = range(rows)
        end, sign = (steps - 1, -1) if reverse else (0, 1)
        xs = [e.at(of((x[0], x[1]), r), end * x[2]) for r in all_rows]
        ys = [e.at(of((y[0], y[1]), r), end * y[2]) for r in all_rows]
        hs = [of(h0, r) for r in all_rows]
        cs = [of(c0, r) for r in all_rows] if c0 else []
        cns = [of(cn, r) for r in all_rows] if cn else []
        hns = [of(hn, r) for r in all_rows] if hn else []
        step(rows, xs, hs, cs, ys, hns if steps == 1 else [], cns)

        def later(i: str, carried: list[Vec]) -> list[Vec]:
            before = [e.at(p, (i, sign * y[2])) for p in ys]
            now = [e.at(p, sign * y[2]) for p in before]
            step(rows, [e.at(p, sign * x[2], (i, sign * x[2])) for p in xs], before, cns, now, [], cns)
            return carried

        e.loop(steps - 1, later)
        if steps > 1:
            for last, target in zip(ys, hns, strict=False):
                source = e.at(last, sign * (steps - 1) * y[2])
                elementwise(e, [hidden], (target, [1]), [(source, [1])], lambda v, _: v[0])

    def rows_step(i: str, carried: list[Vec]) -> list[Vec]:
        chains(block, i)
        return carried

    whole = batch // block
    e.loop(whole, rows_step)
    if whole * block < batch:
        chains(batch - whole * block, whole * block)


# -- convolutions --------------------------------------------------------------------------------------------------


def _planes_plan(machine: Machine, outputs: int, columns: int) -> tuple[int, int, int]:
    """(channels at once, vectors at once, lanes) for a convolution with ``outputs`` channels a group."""
    width = min(machine.lanes, 1 << (columns.bit_length() - 1))
    vectors = -(-columns // width)
    budget = machine.registers * 3 // 4
    at_once = min(vectors, 3 if outputs > 1 else 8)
    return max(1, min(outputs, budget // at_once, 8)), at_once, width


def pack_planes(machine: Machine, groups: int, columns: int, weight: Floats) -> Floats:
    """Weights (outputs, inputs of a group, taps) as [group][block of outputs][input][tap][output]."""
    outputs = weight.shape[0] // groups
    block, _, _ = _planes_plan(machine, outputs, columns)
    parts = [
        weight[g * outputs + start : g * outputs + min(start + block, outputs)].transpose(1, 2, 0).ravel()
        for g in range(groups)
        for start in range(0, outputs, block)
    ]
    return np.concatenate(parts).astype(np.float32)


def planes(
    e: Code,
    shape: tuple[int, int, int, int],
    inputs: int,
    groups: int,
    taps: Sequence[int],
    x: tuple[str, int, int, int],
    out: tuple[str, Sequence[int]],
    w: str,
    bias: str | None,
    post: Post | None = None,
    channels: Sequence[str] = (),
) -> None:
    """Convolution with the lanes along the output's columns.

    Parameters
    ----------
    shape
        Output (batch, channels, rows, columns).
    inputs, groups
        Input channels of one group, and the number of groups.
    taps
        Address of each tap relative to the output's place in the input; columns are one float apart.
    x, out
        Address and strides of (batch, channel, row) and of (batch, channel, row, column).
    w
        From `pack_planes`; ``bias`` and ``channels`` are plain vectors.
    """
    batch, all_outputs, rows, columns = shape
    outputs = all_outputs // groups
    block, at_once, width = _planes_plan(e.machine, outputs, columns)
    strides = out[1]
    if columns % width and columns > width:
        # The last vector overlaps its neighbour: the same values are written twice.
        starts = [(i, width) for i in range(0, columns - width + 1, width)] + [(columns - width, width)]
    else:
        starts = pieces(columns, width)
    tiles = [starts[i : i + at_once] for i in range(0, len(starts), at_once)]
    regular = 0
    while regular < len(tiles) and [s for s, _ in tiles[regular]] == [
        (regular * at_once + j) * width for j in range(at_once)
    ]:
        regular += 1
    unrolled = len(taps) <= 24

    def tile(source: str, target: str, weights: str, first: list[int | tuple[str, int]], count: int,
             spans: list[tuple[int, int]]) -> None:  # fmt: skip
        def vector(pointer: str, q: int) -> Vec:
            return e.load(e.at(pointer, *first, q))

        state = []
        for q in range(count):
            begin = vector(bias, q) if bias is not None else e.const(1, 0.0)
            state += [e.splat(begin, n) for _, n in spans]

        def tap(at: str, wt: str, sums: list[Vec]) -> list[Vec]:
            xs = [e.load(e.at(at, s), n) for s, n in spans]
            out_sums = []
            for q in range(count):
                scalar = e.load(e.at(wt, q))
                for j, v in enumerate(xs):
                    out_sums.append(e.fma(v, e.splat(scalar, v.n), sums[q * len(spans) + j]))
            return out_sums

        def channel(i: str, sums: list[Vec]) -> list[Vec]:
            at, wt = e.at(source, (i, x[2])), e.at(weights, (i, len(taps) * count))
            for k, offset in enumerate(taps):
                sums = tap(e.at(at, offset), e.at(wt, k * count), sums)
            return sums

        if unrolled:
            state = e.loop(inputs, channel, state)
        else:
            step = taps[1] - taps[0]
            run = next((k for k in range(1, len(taps)) if taps[k] - taps[k - 1] != step), len(taps))
            for start in range(0, len(taps), run):
                row = taps[start : start + run]
                assert all(b - a == step for a, b in pairwise(row))

                def along(i: str, sums: list[Vec], start: int = start, row: Sequence[int] = row) -> list[Vec]:
                    def one(k: str, s: list[Vec]) -> list[Vec]:
                        here = e.at(source, (i, x[2]), row[0], (k, step))
                        return tap(here, e.at(weights, (i, len(taps) * count), start * count, (k, count)), s)

                    return e.loop(len(row), one, sums)

                state = e.loop(inputs, along, state)
        for q in range(count):
            for j, (start, n) in enumerate(spans):
                v = state[q * len(spans) + j]
                if post is not None:
                    v = post(e, v, lambda k, q=q, n=n: e.splat(vector(channels[k], q), n))  # type: ignore[misc]
                e.store_strided(e.at(target, q * strides[1] + start * strides[3]), strides[3], v)

    def rows_of(source: str, target: str, weights: str, first: list[int | tuple[str, int]], count: int) -> None:
        def row(i: str, carried: list[Vec]) -> list[Vec]:
            here, there = e.at(source, (i, x[3])), e.at(target, (i, strides[2]))
            move = at_once * width

            def column(c: str, more: list[Vec]) -> list[Vec]:
                tile(e.at(here, (c, move)), e.at(there, (c, move * strides[3])), weights, first, count,
                     [(j * width, width) for j in range(at_once)])  # fmt: skip
                return more

            e.loop(regular, column)
            for spans in tiles[regular:]:
                tile(here, there, weights, first, count, spans)
            return carried

        e.loop(rows, row)

    def group_of(i: list[str]) -> None:
        at_batch, group = i
        source = e.at(x[0], (at_batch, x[1]), (group, inputs * x[2]))
        target = e.at(out[0], (at_batch, strides[0]), (group, outputs * strides[1]))
        weights = e.at(w, (group, outputs * inputs * len(taps)))
        size = block * inputs * len(taps)

        def blocks(b: str, carried: list[Vec]) -> list[Vec]:
            rows_of(source, e.at(target, (b, block * strides[1])), e.at(weights, (b, size)),
                    [(group, outputs), (b, block)], block)  # fmt: skip
            return carried

        whole = outputs // block
        e.loop(whole, blocks)
        if whole * block < outputs:
            rows_of(source, e.at(target, whole * block * strides[1]), e.at(weights, whole * size),
                    [(group, outputs), whole * block], outputs - whole * block)  # fmt: skip

    e.nest([batch, groups], group_of)


# -- products of two activations -----------------------------------------------------------------------------------


def matmul(
    e: Code,
    lead: Sequence[tuple[int, int, int, int]],
    size: tuple[int, int, int],
    out: tuple[str, int, int],
    x: tuple[str, int, int],
    y: tuple[str, int],
) -> None:
    """``out[m, n] = sum_k x[m, k] y[k, n]`` for each of the leading (count, out, x and y strides).

    ``size`` is (m, k, n); ``out`` has strides (m, n), ``x`` (m, k), ``y`` (k), with neighbouring columns.
    """
    m, k, n = size

    def one(i: list[str]) -> None:
        at = [
            e.at(p, *((index, lead[d][1 + which]) for d, index in enumerate(i)))
            for which, p in enumerate((out[0], x[0], y[0]))
        ]
        linear(e, [(m, x[1], out[1])], [(k, x[2])], n, at[0], out[2], at[1], at[2], None, w_stride=y[1])

    e.nest([c for c, *_ in lead], one)


# -- reductions ----------------------------------------------------------------------------------------------------

_COMBINE: dict[str, tuple[Callable[[Code, Vec, Vec], Vec], float]] = {
    "add": (lambda e, a, b: e.add(a, b), 0.0),
    "max": (lambda e, a, b: e.max(a, b), -np.inf),
    "min": (lambda e, a, b: e.min(a, b), np.inf),
    "mul": (lambda e, a, b: e.mul(a, b), 1.0),
}


def reduce(
    e: Code,
    how: str,
    kept: Sequence[tuple[int, int, int]],
    reduced: Sequence[tuple[int, int]],
    out: str,
    x: str,
    scale: float = 1.0,
) -> None:
    """``out = scale * (sum | max | min | product) of x`` over the ``reduced`` axes for each of the ``kept`` ones.

    Of each axis ``reduced`` has (count, stride), ``kept`` (count, out stride, x stride). The lanes lie along whichever
    side has neighbouring elements.
    """
    combine, neutral = _COMBINE[how]
    sizes, (out_steps, x_steps) = collapse([k[0] for k in kept], [k[1] for k in kept], [k[2] for k in kept])
    counts, (steps,) = collapse([r[0] for r in reduced], [r[1] for r in reduced])
    lanes = e.machine.lanes
    along = counts and (steps[-1] == 1 or not sizes or x_steps[-1] != 1) and counts[-1] > 1

    def finish(target: str, stride: int, v: Vec) -> None:
        e.store_strided(target, stride, v if scale == 1.0 else e.mul(v, e.const(v.n, scale)))

    if along:
        width = min(lanes, _pow2(counts[-1] // 2 + 1)) if counts[-1] < lanes else lanes
        full, rest = divmod(counts[-1], width)
        chains = max(1, min(4, full))

        def scalar(i: list[str]) -> None:
            source = e.at(x, *((index, x_steps[d]) for d, index in enumerate(i)))

            def level(depth: int, at: str, sums: list[Vec]) -> list[Vec]:
                if depth < len(counts) - 1:
                    return e.loop(counts[depth], lambda k, s: level(depth + 1, e.at(at, (k, steps[depth])), s), sums)
                stride = steps[-1]

                def body(k: str, s: list[Vec]) -> list[Vec]:
                    here = e.at(at, (k, chains * width * stride))
                    return [
                        combine(e, e.load_strided(e.at(here, c * width * stride), stride, width), v)
                        for c, v in enumerate(s)
                    ]

                sums = e.loop(full // chains, body, sums)
                for k in range(full // chains * chains, full):
                    sums[0] = combine(e, e.load_strided(e.at(at, k * width * stride), stride, width), sums[0])
                for start, n in pieces(rest, width):
                    part = e.load_strided(e.at(at, (full * width + start) * stride), stride, n)
                    sums[-1] = combine(e, e._insert(e.const(width, neutral), part, 0) if n < width else part, sums[-1])
                return sums

            sums = level(0, source, [e.const(width, neutral)] * chains)
            total = sums[0]
            for v in sums[1:]:
                total = combine(e, total, v)
            total = e.fold(total, lambda a, b: combine(e, a, b))
            finish(e.at(out, *((index, out_steps[d]) for d, index in enumerate(i))), 1, total)

        e.nest(sizes, scalar)
        return
    if not sizes:
        sizes, out_steps, x_steps = [1], [1], [1]
    full, rest = divmod(sizes[-1], lanes)

    def vectors(i: list[str]) -> None:
        source = e.at(x, *((index, x_steps[d]) for d, index in enumerate(i)))
        target = e.at(out, *((index, out_steps[d]) for d, index in enumerate(i)))

        def chunk(at: str, to: str, n: int) -> None:
            def level(depth: int, here: str, sums: list[Vec]) -> list[Vec]:
                if depth == len(counts):
                    return [combine(e, e.load_strided(here, x_steps[-1], n), sums[0])]
                return e.loop(counts[depth], lambda k, s: level(depth + 1, e.at(here, (k, steps[depth])), s), sums)

            finish(to, out_steps[-1], level(0, at, [e.const(n, neutral)])[0])

        def block(k: str, carried: list[Vec]) -> list[Vec]:
            chunk(e.at(source, (k, lanes * x_steps[-1])), e.at(target, (k, lanes * out_steps[-1])), lanes)
            return carried

        e.loop(full, block)
        for start, n in pieces(rest, lanes):
            place = full * lanes + start
            chunk(e.at(source, place * x_steps[-1]), e.at(target, place * out_steps[-1]), n)

    e.nest(sizes[:-1], vectors)


class _Row:
    """Passes over ``n`` neighbouring floats: whole vectors in a loop, the rest in a vector with filled lanes."""

    def __init__(self, e: Code, n: int) -> None:
        self.e, self.n = e, n
        self.width = min(e.machine.lanes, _pow2(n))
        self.full, self.rest = divmod(n, self.width)
        self.chains = max(1, min(4, self.full))

    def fold(self, x: str, start: float, fill: float, step: Callable[[str | int, Vec, Vec, int], Vec],
             combine: Callable[[Vec, Vec], Vec]) -> Vec:  # fmt: skip
        """Reduce ``step(place, value, sum, lanes in use)`` over the row to one scalar."""
        e, w = self.e, self.width

        def body(i: str, sums: list[Vec]) -> list[Vec]:
            at = e.at(x, (i, self.chains * w))
            return [step(e.at(at, c * w), e.load(e.at(at, c * w), w), v, w) for c, v in enumerate(sums)]

        sums = e.loop(self.full // self.chains, body, [e.const(w, start)] * self.chains)
        for k in range(self.full // self.chains * self.chains, self.full):
            at = e.at(x, k * w)
            sums[0] = step(at, e.load(at, w), sums[0], w)
        if self.rest:
            at = e.at(x, self.full * w)
            sums[-1] = step(at, e.load_some(at, self.rest, w, fill), sums[-1], self.rest)
        total = sums[0]
        for v in sums[1:]:
            total = combine(total, v)
        return e.fold(total, combine)

    def each(self, body: Callable[[list[int | tuple[str, int]], int], None]) -> None:
        """``body(place, lanes in use)`` for every vector of the row."""
        w = self.width

        def block(i: str, carried: list[Vec]) -> list[Vec]:
            body([(i, w)], w)
            return carried

        self.e.loop(self.full, block)
        if self.rest:
            body([self.full * w], self.rest)


def normalise(
    e: Code,
    rows: Sequence[tuple[int, int, int, int]],
    n: int,
    out: str,
    x: str,
    eps: float,
    weight: str | None,
    bias: str | None,
) -> None:
    """Layer norm of rows of ``n`` neighbours: zero mean, unit variance, then ``weight`` and ``bias``.

    ``rows`` has (count, out stride, x stride, weight stride) of each loop. Two passes, as the variance of a large
    mean would otherwise drown.
    """
    row = _Row(e, n)
    w = row.width

    def one(i: list[str]) -> None:
        target, source = (e.at(p, *((k, rows[d][1 + s]) for d, k in enumerate(i))) for s, p in enumerate((out, x)))
        gain, shift = (
            None if p is None else e.at(p, *((k, rows[d][3]) for d, k in enumerate(i))) for p in (weight, bias)
        )
        total = row.fold(source, 0.0, 0.0, lambda _, v, s, k: e.add(v, s), e.add)
        mean = e.splat(e.mul(total, e.const(1, 1.0 / n)), w)

        def square(_: str | int, v: Vec, s: Vec, used: int) -> Vec:
            d = e.sub(v, mean)
            if used < w:
                d = e.mul(d, e.literal([1.0] * used + [0.0] * (w - used)))
            return e.fma(d, d, s)

        squares = row.fold(source, 0.0, 0.0, square, e.add)
        variance = e.fma(squares, e.const(1, 1.0 / n), e.const(1, eps))
        scale = e.splat(e.div(e.const(1, 1.0), e.sqrt(variance)), w)

        def write(place: list[int | tuple[str, int]], used: int) -> None:
            v = e.mul(e.sub(e.load_some(e.at(source, *place), used, w), mean), scale)
            if gain is not None:
                v = e.mul(v, e.load_some(e.at(gain, *place), used, w))
            if shift is not None:
                v = e.add(v, e.load_some(e.at(shift, *place), used, w))
            e.store_some(e.at(target, *place), v, used)

        row.each(write)

    e.nest([r[0] for r in rows], one)


def softmax(e: Code, rows: Sequence[tuple[int, int, int]], n: int, out: str, x: str, log: bool = False) -> None:
    """Softmax (or its logarithm) of rows of ``n`` neighbours; ``rows`` has (count, out stride, x stride)."""
    row = _Row(e, n)
    w = row.width

    def one(i: list[str]) -> None:
        target, source = (e.at(p, *((k, rows[d][1 + s]) for d, k in enumerate(i))) for s, p in enumerate((out, x)))
        peak = row.fold(source, -np.inf, -np.inf, lambda _, v, s, k: e.max(v, s), e.max)
        peaks = e.splat(peak, w)
        total = row.fold(source, 0.0, -np.inf, lambda _, v, s, k: e.add(e.exp(e.sub(v, e.splat(peak, v.n))), s), e.add)
        last = e.splat(e.log(total) if log else e.div(e.const(1, 1.0), total), w)

        def write(place: list[int | tuple[str, int]], used: int) -> None:
            v = e.sub(e.load_some(e.at(source, *place), used, w), peaks)
            e.store_some(e.at(target, *place), e.sub(v, last) if log else e.mul(e.exp(v), last), used)

        row.each(write)

    e.nest([r[0] for r in rows], one)


# -- one layer by itself -------------------------------------------------------------------------------------------


class Layer:
    """A compiled layer: call it with one float32 array (or address) per pointer. Keeps its machine code alive."""

    def __init__(self, ir: str, pointers: int, machine: Machine) -> None:
        self.ir = ir
        self._code = nn_jit.Loaded(nn_jit.assemble(machine, ir))
        self.address = self._code.address("layer")
        self._call = ctypes.CFUNCTYPE(None, *([ctypes.c_void_p] * pointers))(self.address)

    def __call__(self, *arrays: Floats | int) -> None:
        """Run the layer once. float32 arrays are passed by address."""
        for a in arrays:
            if not isinstance(a, int) and a.dtype != np.float32:
                raise TypeError(f"a layer takes float32 arrays, not {a.dtype}")
        self._call(*(a if isinstance(a, int) else a.ctypes.data for a in arrays))


def compile_layer(emit: Callable[[Code], None], pointers: int, machine: Machine | None = None) -> Layer:
    """Compile ``emit(code)`` for this machine as ``void layer(float *p0, float *p1, ...)`` [main thread]."""
    machine = machine or Machine.host()
    code = Code(machine, pointers)
    emit(code)
    functions = nn_jit.Functions()
    name = functions.add(code)
    arguments = ", ".join(f"ptr {p}" for p in code.pointers)
    ir = nn_jit.module_text(functions, "layer", code.pointers, [f"call void @{name}({arguments})"])
    return Layer(ir, pointers, machine)
