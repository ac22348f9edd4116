"""Make a lowered program shorter: fold, move and merge steps until every value is written once, where it is needed.

All rewrites rest on one operation, `transfer`: where does another view of the same memory put each element? It is
answered on the addresses themselves and accepted when the answer is again a strided view, so that reshapes,
transposes, slices and paddings need no cases of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rtgan.generators.lowering import IDENTITY, Floats, Lowering, Memory, Step, addresses, cut
from rtgan.generators.program import View
from rtgan.kernels.nn_code import Machine

#: Views larger than this are left where they are: the analysis is done element by element.
_MOST = 1 << 21


def strided(places: NDArray[np.int64], storage: int) -> View | None:
    """The view with these addresses, if there is one."""
    if not places.size:
        return None
    start = int(places.flat[0])
    strides = []
    for axis, n in enumerate(places.shape):
        second = tuple(1 if k == axis else 0 for k in range(places.ndim))
        strides.append(int(places[second]) - start if n > 1 else 0)
    view = View(storage, start, places.shape, tuple(strides))
    return view if np.array_equal(addresses(view), places) else None


def transfer(of: View, source: View, target: View) -> View | None:
    """Where ``target`` holds, element by element of ``of``, what ``source`` (of the same shape) holds there."""
    if source.storage != of.storage or max(of.size, source.size) > _MOST:
        return None
    if of == source:
        return target
    here, there, wanted = addresses(source).ravel(), addresses(target).ravel(), addresses(of)
    low, high = int(here.min()), int(here.max())
    if not wanted.size or wanted.min() < low or wanted.max() > high:
        return None
    table = np.full(high - low + 1, np.iinfo(np.int64).min)
    table[here - low] = there
    moved = table[wanted - low]
    if (moved == np.iinfo(np.int64).min).any():
        return None
    return strided(moved, target.storage)


def overlap(a: View, b: View) -> bool:
    """Whether two views share an element."""
    if a.storage != b.storage or not a.size or not b.size:
        return False
    (a0, a1), (b0, b1) = a.span(), b.span()
    if a1 < b0 or b1 < a0:
        return False
    if max(a.size, b.size) > _MOST:
        return True
    return bool(np.isin(addresses(a).ravel(), addresses(b).ravel(), assume_unique=False).any())


def in_order(source: View, target: View) -> bool:
    """Whether an ascending elementwise pass may read ``source`` while it writes ``target``."""
    if not overlap(source, target):
        return True
    if source.shape != target.shape or source.size > _MOST:
        return False
    if source == target:
        return True
    reads, writes = addresses(source).ravel(), addresses(target).ravel()
    shared, first, second = np.intersect1d(reads, writes, return_indices=True)
    if len(np.unique(writes)) != len(writes) or len(np.unique(reads)) != len(reads):
        return False
    r, w = np.array(np.unravel_index(first, source.shape)), np.array(np.unravel_index(second, source.shape))
    return bool(shared.size == 0 or (r <= w).all())


def _neighbours(view: View) -> bool:
    return not view.shape or view.shape[-1] == 1 or view.strides[-1] == 1


def _writes_anywhere(step: Step, which: int, view: View) -> bool:
    """Whether a kernel can write its output ``which`` through this view."""
    if step.kind in ("recurrent", "normalise", "softmax"):
        return _neighbours(view)
    return True


def _reads_anywhere(step: Step, which: int, view: View) -> bool:
    """Whether a kernel can read its input ``which`` through this view."""
    if step.kind in ("normalise", "softmax"):
        return _neighbours(view)
    if step.kind == "recurrent":
        return which == 0 or _neighbours(view)
    if step.kind == "planes":
        return _neighbours(view)
    if step.kind == "scatter":
        # What it writes into is no copy of anything.
        return which != 0
    if step.kind == "matmul":
        return which == 0 or _neighbours(view)
    return True


class Fuser:
    """Rewrites of one lowered program, in place [main thread]."""

    def __init__(self, low: Lowering, machine: Machine) -> None:
        self.low, self.machine = low, machine
        self.index()

    # -- bookkeeping

    def index(self) -> None:
        """Find who reads and writes each storage."""
        self.readers: dict[int, list[int]] = {}
        self.writers: dict[int, list[int]] = {}
        for k, step in enumerate(self.low.steps):
            for v in step.ins:
                self.readers.setdefault(v.storage, []).append(k)
            for v in step.outs:
                self.writers.setdefault(v.storage, []).append(k)
        self.results = {v.storage for v in self.low.outputs}

    def memory(self, storage: int) -> Memory:
        """The memory of a storage."""
        return self.low.memory[storage]

    def private(self, storage: int) -> bool:
        """Whether only the steps know this storage and nothing in it outlives a run."""
        memory = self.memory(storage)
        return memory.kind == "temp" and memory.data is None and storage not in self.results

    def touched(self, view: View, start: int, stop: int, writes_only: bool = False) -> bool:
        """Whether steps in ``[start, stop)`` touch a view."""
        who = set(self.writers.get(view.storage, []))
        if not writes_only:
            who |= set(self.readers.get(view.storage, []))
        for k in who:
            if start <= k < stop:
                step = self.low.steps[k]
                if any(overlap(view, v) for v in (step.outs if writes_only else [*step.outs, *step.ins])):
                    return True
        return False

    def remove(self, positions: set[int]) -> None:
        """Drop steps and look again."""
        self.low.steps = [s for k, s in enumerate(self.low.steps) if k not in positions]
        self.index()

    def repeat(self, attempt: Callable[[int], bool]) -> None:
        """Try a rewrite on each step until none applies any more."""
        k = 0
        while k < len(self.low.steps):
            k = k if attempt(k) else k + 1

    # -- what never happens or happens once

    def drop_dead(self) -> None:
        """Remove steps whose results nobody reads."""
        live = set(self.results)
        dead = set()
        for k in range(len(self.low.steps) - 1, -1, -1):
            step = self.low.steps[k]
            needed = any(self.memory(v.storage).kind != "temp" or v.storage in live for v in step.outs)
            if needed:
                live |= {v.storage for v in step.ins}
            else:
                dead.add(k)
        if dead:
            self.remove(dead)

    def keep_starts(self, k: int) -> bool:
        """Turn "fill with a constant, then write parts" into memory that is filled once and for all."""
        step = self.low.steps[k]
        out = step.outs[0]
        memory = self.memory(out.storage)
        if not (step.kind == "map" and memory.kind == "temp" and memory.data is None and out.size == memory.size):
            return False
        if step.expression == IDENTITY and self.memory(step.ins[0].storage).kind == "const":
            values = self.low.value(step.ins[0])
        elif len(step.expression) == 1 and step.expression[0][0] == "const":
            values = np.full(out.shape, step.expression[0][1], np.float32)
        else:
            return False
        if self.writers[out.storage][0] != k or any(r < k for r in self.readers.get(out.storage, [])):
            return False
        size = memory.size
        ever, before = np.zeros(size, bool), np.zeros(size, bool)
        for w in self.writers[out.storage][1:]:
            for v in self.low.steps[w].outs:
                if v.storage == out.storage:
                    ever[addresses(v).ravel()] = True
        needed = out.storage in self.results and not ever.all()
        for j in sorted({*self.writers[out.storage][1:], *self.readers.get(out.storage, [])}):
            other = self.low.steps[j]
            for v in other.ins:
                if v.storage == out.storage:
                    fresh = ~before[addresses(v).ravel()]
                    if (ever[addresses(v).ravel()] & fresh).any():
                        return False
                    needed |= bool(fresh.any())
            for v in other.outs:
                if v.storage == out.storage:
                    before[addresses(v).ravel()] = True
        if needed:
            memory.data = np.zeros(size, np.float32)
            memory.data[addresses(out).ravel()] = values.ravel()
            if not ever.any() and out.storage not in self.results:
                memory.kind = "const"
        self.remove({k})
        return True

    # -- a map into the step that makes its input

    def absorb(self, k: int) -> bool:
        """Let the step before a map write the map's result: copies vanish, activations move into registers."""
        step = self.low.steps[k]
        if step.kind != "map":
            return False
        varying = [j for j, v in enumerate(step.ins) if not self.low.is_constant(v)]
        if len(varying) != 1:
            return False
        source, target = step.ins[varying[0]], step.outs[0]
        if source.storage == target.storage or not self.private(source.storage):
            return False
        if self.readers[source.storage] != [k]:
            return False
        makers = self.writers.get(source.storage, [])
        if not makers or makers[-1] > k or (len(makers) > 1 and not step.is_copy):
            return False
        changes: list[tuple[Step, int, View, list[tuple[object, ...]]]] = []
        covered = 0
        for m in makers:
            maker = self.low.steps[m]
            post: list[tuple[object, ...]] = []
            for which, out in enumerate(maker.outs):
                if out.storage != source.storage:
                    continue
                place = transfer(out, source, target)
                if place is None or not _writes_anywhere(maker, which, place):
                    return False
                if len({*addresses(place).ravel().tolist()}) != place.size:
                    return False
                covered += out.size
                if not step.is_copy:
                    found = self._post(maker, which, step, varying[0], source, out)
                    if found is None:
                        return False
                    post = found
                for v in maker.ins:
                    if overlap(v, place) and not (maker.kind == "map" and in_order(v, place)):
                        return False
                if any(overlap(v, place) for j, v in enumerate(maker.outs) if j != which):
                    return False
                if self.touched(place, m + 1, k):
                    return False
                changes.append((maker, which, place, post))
        if covered != source.size:
            return False
        for maker, which, place, post in changes:
            maker.outs[which] = place
            maker.post.extend(post)
        self.remove({k})
        return True

    def _post(
        self, maker: Step, which: int, step: Step, varying: int, source: View, out: View
    ) -> list[tuple[object, ...]] | None:
        """The map's expression as a chain on each output value of a product, its constants per channel."""
        if maker.kind not in ("linear", "conv") or which:
            return None
        axis = 1 if maker.kind == "conv" else len(out.shape) - 1
        channels = out.shape[axis]
        channel_of = np.full(self.memory(out.storage).size, -1)
        numbers = np.arange(channels).reshape([-1 if a == axis else 1 for a in range(len(out.shape))])
        channel_of[addresses(out).ravel()] = np.broadcast_to(numbers, out.shape).ravel()
        channel = channel_of[addresses(source)]
        if (channel < 0).any():
            return None

        def per_channel(view: View) -> Floats | None:
            values = self.low.value(view)
            found = np.zeros(channels, np.float32)
            found[channel.ravel()] = values.ravel()
            return found if np.array_equal(found[channel], values) else None

        chain: list[tuple[object, ...]] = []
        current = None
        scalars: dict[int, object] = {}
        for index, (name, *operands) in enumerate(step.expression):
            if name == "in" and operands[0] == varying:
                if current is not None:
                    return None
                current = index
            elif name == "in":
                values = per_channel(step.ins[operands[0]])
                if values is None:
                    return None
                scalars[index] = values
            elif name == "const":
                scalars[index] = np.full(channels, operands[0], np.float32)
            else:
                arguments: list[object] = []
                for operand in operands:
                    if isinstance(operand, tuple):
                        arguments.append(operand)
                    elif operand == current:
                        arguments.append("value")
                    elif operand in scalars:
                        arguments.append(scalars[operand])
                    else:
                        return None
                if "value" not in [a for a in arguments if isinstance(a, str)]:
                    return None
                chain.append((name, *arguments))
                current = index
        return chain

    def fold_scales(self) -> None:
        """Multiply per-channel scales and shifts that follow a product into its weights."""
        for step in self.low.steps:
            while step.post and step.kind in ("linear", "conv"):
                name, *a = step.post[0]
                value = [k for k, x in enumerate(a) if isinstance(x, str)]
                if (
                    len(value) != 1
                    or name not in ("affine", "mul", "add", "sub")
                    or (name in ("affine", "sub") and value != [0])
                ):
                    break
                others = [np.asarray(x, np.float64) for k, x in enumerate(a) if k != value[0]]
                scale = others[0] if name in ("affine", "mul") else np.ones_like(others[0])
                shift = others[-1] * (-1 if name == "sub" else 1) if name != "mul" else np.zeros_like(others[0])
                weight, bias = step.arrays["weight"].astype(np.float64), step.arrays.get("bias", np.float64(0))
                if step.kind == "conv" and step.options["transposed"]:
                    groups = step.options["groups"]
                    per = np.repeat(scale.reshape(groups, -1), weight.shape[0] // groups, axis=0)
                    weight = weight * per[:, :, None, None]
                else:
                    weight = weight * scale.reshape([-1] + [1] * (weight.ndim - 1))
                step.arrays["weight"] = weight.astype(np.float32)
                step.arrays["bias"] = (bias * scale + shift).astype(np.float32)
                step.post.pop(0)

    # -- a step's input from further back

    def look_through(self, k: int) -> bool:
        """Read what a copy was made of instead of the copy."""
        step = self.low.steps[k]
        for which, view in enumerate(step.ins):
            before = [w for w in self.writers.get(view.storage, []) if w < k]
            if not before or not self.private(view.storage):
                continue
            maker = self.low.steps[before[-1]]
            if not maker.is_copy or any(w > before[-1] for w in self.writers[view.storage]):
                continue
            place = transfer(view, maker.outs[0], maker.ins[0])
            if place is None or not _reads_anywhere(step, which, place):
                continue
            if self.touched(place, before[-1], k, writes_only=True):
                continue
            if any(overlap(place, o) and not (step.kind == "map" and in_order(place, o)) for o in step.outs):
                continue
            step.ins[which] = place
            self.index()
            return True
        return False

    def merge(self, k: int) -> bool:
        """Compute a map's input inside the map."""
        step = self.low.steps[k]
        if step.kind != "map" or len(step.expression) > 60:
            return False
        for which, view in enumerate(step.ins):
            makers = self.writers.get(view.storage, [])
            if (
                len(makers) != 1
                or not self.private(view.storage)
                or self.readers[view.storage].count(k) != len(self.readers[view.storage])
            ):
                continue
            maker = self.low.steps[makers[0]]
            if maker.kind != "map" or makers[0] >= k or view.size != maker.outs[0].size:
                continue
            same = [j for j, v in enumerate(step.ins) if v.storage == view.storage]
            if any(step.ins[j] != view for j in same):
                continue
            places = [transfer(view, maker.outs[0], v) for v in maker.ins]
            if any(p is None for p in places):
                continue
            found = [p for p in places if p is not None]
            if any(self.touched(p, makers[0] + 1, k, writes_only=True) for p in found):
                continue
            if any(overlap(p, step.outs[0]) and not in_order(p, step.outs[0]) for p in found):
                continue
            self._inline(step, which, same, maker, found)
            self.remove({makers[0]})
            return True
        return False

    @staticmethod
    def _inline(step: Step, which: int, same: list[int], maker: Step, places: list[View]) -> None:
        ins = [v for j, v in enumerate(step.ins) if j not in same]
        number = {j: n for n, j in enumerate(j for j in range(len(step.ins)) if j not in same)}
        code: list[tuple[object, ...]] = []
        for v in places:
            if v not in ins:
                ins.append(v)
        for name, *operands in maker.expression:
            code.append((name, ins.index(places[operands[0]])) if name == "in" else (name, *operands))
        result = len(code) - 1
        moved: dict[int, int] = {}
        for index, (name, *operands) in enumerate(step.expression):
            if name == "in" and operands[0] in same:
                moved[index] = result
                continue
            moved[index] = len(code)
            if name == "in":
                code.append((name, number[operands[0]]))
            elif name == "const":
                code.append((name, *operands))
            else:
                code.append((name, *(moved[o] if isinstance(o, int) else o for o in operands)))
        if moved[len(step.expression) - 1] != len(code) - 1:
            code.append(("copy", moved[len(step.expression) - 1]))
        step.ins, step.expression = ins, tuple(code)

    # -- convolutions for this machine

    def arrange(self) -> None:
        """Rewrite each convolution as planes (lanes along columns), linear (lanes along channels) or a map."""
        old, self.low.steps = self.low.steps, []
        for step in old:
            if step.kind == "conv":
                self._arrange(step)
            else:
                self.low.steps.append(step)
        self.index()

    def _arrange(self, step: Step) -> None:
        x, out = step.ins[0], step.outs[0]
        o, weight, bias = step.options, step.arrays["weight"], step.arrays["bias"]
        groups, stride, spread, edges = o["groups"], o["stride"], o["dilation"], o["edges"]
        kernel = weight.shape[2:]
        if not o["transposed"]:
            source = self._pad(x, edges)
            offsets = [[k * d for k in range(n)] for n, d in zip(kernel, spread, strict=True)]
            self._correlate(source, out, weight, bias, groups, stride, offsets, step.post)
            return
        inputs, per = weight.shape[:2]
        # (in, out / group, ...) to (out, in / group, ...)
        turned = (
            weight.reshape(groups, inputs // groups, per, *kernel)
            .swapaxes(1, 2)
            .reshape(groups * per, inputs // groups, *kernel)
        )
        plans = []
        for axis in (0, 1):
            n, s, d, edge = kernel[axis], stride[axis], spread[axis], edges[axis][0]
            phases = []
            for phase in range(min(s, out.shape[2 + axis])):
                # Output phase + s * j takes input j + (phase + edge - d * k) / s for those k where that is whole.
                taps = [(k, (phase + edge - d * k) // s) for k in range(n) if (phase + edge - d * k) % s == 0]
                phases.append((phase, taps, -(-(out.shape[2 + axis] - phase) // s)))
            plans.append(phases)
        reach = []
        for axis in (0, 1):
            places = [t + j for _, taps, count in plans[axis] for _, t in taps for j in (0, count - 1)] or [0]
            reach.append((max(0, -min(places)), max(0, max(places) + 1 - x.shape[2 + axis])))
        source = self._pad(x, reach)
        for row, row_taps, rows in plans[0]:
            for column, column_taps, columns in plans[1]:
                part = cut(cut(out, 2, row, rows, stride[0]), 3, column, columns, stride[1])
                picked = turned[:, :, [k for k, _ in row_taps]][:, :, :, [k for k, _ in column_taps]]
                offsets = [[t + reach[0][0] for _, t in row_taps], [t + reach[1][0] for _, t in column_taps]]
                if not row_taps or not column_taps:
                    picked, offsets = turned[:, :, :1, :1] * 0, [[0], [0]]
                self._correlate(source, part, picked, bias, groups, (1, 1), offsets, step.post)

    def _pad(self, x: View, edges: list[tuple[int, int]]) -> View:
        if not any(a or b for a, b in edges):
            return x
        (top, bottom), (left, right) = edges
        batch, channels, rows, columns = x.shape
        spread = self.low.padded((batch, channels, rows + top + bottom, columns + left + right))
        self.low.copy(cut(cut(spread, 2, top, rows), 3, left, columns), x)
        return spread

    def _correlate(
        self, x: View, out: View, weight: Floats, bias: Floats, groups: int, stride: tuple[int, int],
        offsets: list[list[int]], post: list[tuple[object, ...]],
    ) -> None:  # fmt: skip
        """Cross-correlation without padding; ``offsets`` of the kernel's rows and columns lie evenly spaced."""
        batch, outputs, rows, columns = out.shape
        per_group, inputs = outputs // groups, weight.shape[1]
        taps = len(offsets[0]) * len(offsets[1])
        b, c, h, w = x.strides
        lanes = self.machine.lanes
        if groups == outputs and inputs == 1 and rows * columns < lanes and taps <= 32 and not post:
            self._by_channel(x, out, weight, bias, stride, offsets)
            return
        few = rows * columns == 1 or (columns < lanes // 2 and per_group >= lanes) or (taps > 64 and per_group >= lanes)
        if few:
            r0, c0 = offsets[0][0], offsets[1][0]
            steps = [q[1] - q[0] if len(q) > 1 else 0 for q in offsets]
            for g in range(groups):
                x_g, out_g = cut(x, 1, g * inputs, inputs), cut(out, 1, g * per_group, per_group)
                windows = View(
                    x.storage, x_g.offset + r0 * h + c0 * w,
                    (batch, rows, columns, inputs, len(offsets[0]), len(offsets[1])),
                    (b, h * stride[0], w * stride[1], c, h * steps[0], w * steps[1]),
                )  # fmt: skip
                own = slice(g * per_group, (g + 1) * per_group)
                target = View(
                    out.storage, out_g.offset, (batch, rows, columns, per_group),
                    (out.strides[0], out.strides[2], out.strides[3], out.strides[1]),
                )  # fmt: skip
                local = [(n, *(a[own] if isinstance(a, np.ndarray) else a for a in args)) for n, *args in post]
                self.low.emit(
                    Step("linear", [target], [windows], post=local, options={"inner": 3},
                         arrays={"weight": weight[own].reshape(per_group, -1), "bias": bias[own]})
                )  # fmt: skip
            return
        s = stride[1]
        if s > 1 or (columns > 1 and w != 1):
            # Columns go apart by phase, so that neighbours in the output are neighbours in the input.
            used = sorted({q % s for q in offsets[1]})
            length = max(columns + q // s for q in offsets[1])
            split = self.low.temporary((batch, x.shape[1], x.shape[2], len(used), length))
            for n, phase in enumerate(used):
                count = min(length, -(-(x.shape[3] - phase) // s))
                source = cut(x, 3, phase, count, s)
                target = View(split.storage, split.offset + n * split.strides[3], source.shape, (*split.strides[:3], 1))
                self.low.copy(target, source)
            h, place = split.strides[2], {q: used.index(q % s) * length + q // s for q in offsets[1]}
            x = View(split.storage, 0, (*split.shape[:3], len(used) * length), (*split.strides[:3], 1))
        else:
            place = {q: q for q in offsets[1]}
        reach = [r * h + place[q] for r in offsets[0] for q in offsets[1]]
        arrays = {"weight": weight.reshape(outputs, inputs, -1), "bias": bias}
        options = {"groups": groups, "inputs": inputs, "taps": reach, "row": h * stride[0]}
        self.low.emit(Step("planes", [out], [x], post=list(post), arrays=arrays, options=options))

    def _by_channel(
        self, x: View, out: View, weight: Floats, bias: Floats, stride: tuple[int, int], offsets: list[list[int]]
    ) -> None:
        """A depthwise convolution with little output: multiply-adds with the lanes along the channels."""
        _, channels, rows, columns = out.shape
        shape = (1, channels, 1, 1)
        ins = [self.low.constant(bias.reshape(shape))]
        code: list[tuple[object, ...]] = [("in", 0)]
        total = 0
        for i, r in enumerate(offsets[0]):
            for j, q in enumerate(offsets[1]):
                view = cut(cut(x, 2, r, rows, stride[0]), 3, q, columns, stride[1])
                ins += [view, self.low.constant(weight[:, 0, i, j].reshape(shape))]
                code += [("in", len(ins) - 2), ("in", len(ins) - 1), ("affine", len(code), len(code) + 1, total)]
                total = len(code) - 1
        views = [
            View(
                v.storage,
                v.offset,
                out.shape,
                tuple(0 if n == 1 and m != 1 else d for n, d, m in zip(v.shape, v.strides, out.shape, strict=True)),
            )
            for v in ins
        ]
        self.low.emit(Step("map", [out], views, tuple(code)))


def optimise(low: Lowering, machine: Machine) -> None:
    """Run every rewrite in the order in which they help each other."""
    fuser = Fuser(low, machine)
    fuser.drop_dead()
    fuser.repeat(fuser.keep_starts)
    fuser.repeat(fuser.absorb)
    fuser.fold_scales()
    fuser.arrange()
    fuser.repeat(fuser.look_through)
    fuser.drop_dead()
    fuser.repeat(fuser.merge)
    fuser.repeat(fuser.absorb)
    fuser.drop_dead()
