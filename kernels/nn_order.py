"""Layers in which values decide about places: running sums, ranks, and reading and writing by index.

Written like those of `nn`. An index is a float32 that holds a whole number; whatever it holds, what is touched stays
within the axis that it counts along.
"""

from __future__ import annotations

from collections.abc import Sequence

from .nn import elementwise
from .nn_code import Code, Vec, pieces

#: (count, stride of what is written, strides of what is read ...) of each loop, outermost first.
Loops = Sequence[tuple[int, ...]]
#: Of each index: its address, and (stride, count) of the axis along which it counts.
Indices = Sequence[tuple[str, tuple[int, int]]]


def _starts(e: Code, pointers: Sequence[str], loops: Loops, indices: list[str]) -> list[str]:
    """Where each pointer stands within loops."""
    return [e.at(p, *((k, loops[d][1 + s]) for d, k in enumerate(indices))) for s, p in enumerate(pointers)]


def scan(
    e: Code, how: str, rows: Sequence[tuple[int, int, int]], n: int, out: tuple[str, int], x: tuple[str, int]
) -> None:
    """``out[k]`` = the sum (add), product (mul) or largest (max) of ``x[0] ... x[k]`` in each row.

    ``rows`` has (count, out stride, x stride) of each loop; ``out`` and ``x`` have their strides along a row. Sums are
    compensated (Kahan 1965): phases are running sums, of which no more than the last bit may be lost.
    """
    *outer, (count, out_step, x_step) = rows or [(1, 0, 0)]

    def run(i: list[str]) -> None:
        target, source = _starts(e, (out[0], x[0]), outer, i)

        def chains(to: str, at: str, lanes: int) -> None:
            def body(k: str, carried: list[Vec]) -> list[Vec]:
                v = e.load_strided(e.at(at, (k, x[1])), x_step, lanes)
                total = carried[0]
                if how == "add":
                    v = e.sub(v, carried[1])
                    after = e.add(total, v)
                    state = [after, e.sub(e.sub(after, total), v)]
                else:
                    state = [e.mul(total, v) if how == "mul" else e.max(v, total)]
                e.store_strided(e.at(to, (k, out[1])), out_step, state[0])
                return state

            start = {"add": [0.0, 0.0], "mul": [1.0], "max": [float("-inf")]}[how]
            e.loop(n, body, [e.const(lanes, value) for value in start])

        def block(k: str, carried: list[Vec]) -> list[Vec]:
            lanes = e.machine.lanes
            chains(e.at(target, (k, lanes * out_step)), e.at(source, (k, lanes * x_step)), lanes)
            return carried

        full, rest = divmod(count, e.machine.lanes)
        e.loop(full, block)
        for start, width in pieces(rest, e.machine.lanes):
            place = full * e.machine.lanes + start
            chains(e.at(target, place * out_step), e.at(source, place * x_step), width)

    e.nest([r[0] for r in outer], run)


def rank(e: Code, rows: Sequence[tuple[int, int, int]], n: int, out: tuple[str, int], x: tuple[str, int]) -> None:
    """How many values of its row come before each: the smaller ones, and equal ones that stand before it.

    ``rows`` as in `scan`. Each is compared with each, lanes side by side: for the few hundred values of a frame that
    costs less than a course that depends on them. No value may be NaN.
    """

    def run(i: list[str]) -> None:
        target, source = _starts(e, (out[0], x[0]), rows, i)

        def block(first: Vec, to: str, at: str, lanes: int) -> None:
            own = e.load_strided(at, x[1], lanes)
            places = e.add(e.splat(first, lanes), e.literal([float(k) for k in range(lanes)]))
            one, zero = e.const(lanes, 1.0), e.const(lanes, 0.0)

            def compare(k: str, carried: list[Vec]) -> list[Vec]:
                other = e.splat(e.load(e.at(source, (k, x[1]))), lanes)
                earlier = e.select(e.compare("olt", e.splat(e.number(k), lanes), places), one, zero)
                tie = e.select(e.compare("oeq", other, own), earlier, zero)
                return [e.add(carried[0], e.select(e.compare("olt", other, own), one, tie))]

            e.store_strided(to, out[1], e.loop(n, compare, [zero])[0])

        lanes = e.machine.lanes

        def step(k: str, carried: list[Vec]) -> list[Vec]:
            first = e.mul(e.number(k), e.const(1, float(lanes)))
            block(first, e.at(target, (k, lanes * out[1])), e.at(source, (k, lanes * x[1])), lanes)
            return carried

        full, rest = divmod(n, lanes)
        e.loop(full, step)
        for start, width in pieces(rest, lanes):
            place = full * lanes + start
            block(e.const(1, float(place)), e.at(target, place * out[1]), e.at(source, place * x[1]), width)

    e.nest([r[0] for r in rows], run)


def _indexed(e: Code, loops: Loops, indices: Indices, pointers: tuple[str, str], indexed: int, add: bool) -> None:
    """Copy (or add) ``pointers[1]`` to ``pointers[0]``; the ``indexed`` one of them moves by the indices too."""
    varying = [row for row in loops if any(row[3:])]
    plain = [row for row in loops if not any(row[3:])]

    def one(i: list[str]) -> None:
        at = _starts(e, pointers, varying, i)
        for which, (pointer, (stride, count)) in enumerate(indices):
            value = e.load(e.at(pointer, *((k, varying[d][3 + which]) for d, k in enumerate(i))))
            at[indexed] = e.at(at[indexed], (e.index(value, count), stride))
        shape, to, source = ([row[s] for row in plain] for s in range(3))
        if add:
            elementwise(e, shape, (at[0], to), [(at[1], source), (at[0], to)], lambda v, _: e.add(v[0], v[1]))
        else:
            elementwise(e, shape, (at[0], to), [(at[1], source)], lambda v, _: v[0])

    e.nest([row[0] for row in varying], one)


def gather(e: Code, loops: Loops, indices: Indices, out: str, x: str) -> None:
    """``out[i] = x[i, index[i]]``: ``loops`` has (count, out stride, x stride, stride of each index)."""
    _indexed(e, loops, indices, (out, x), 1, False)


def scatter(e: Code, loops: Loops, indices: Indices, out: str, x: str, add: bool = False) -> None:
    """``out[i, index[i]] = x[i]`` (or ``+=``) in ascending order; ``loops`` as in `gather`."""
    _indexed(e, loops, indices, (out, x), 0, add)
