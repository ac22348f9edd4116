"""Steps: the few kinds of work for which `rtgan.kernels.nn` writes code, and the memory they work on.

A step reads and writes views of storages and carries its weights as arrays. Everything elementwise, copies
included, becomes a ``map`` with a small expression; convolutions, products, recurrent layers, reductions and
normalisations keep their own kinds. `rtgan.generators.operations` makes steps of recorded operations,
`rtgan.generators.fuse` merges them, `rtgan.generators.compile` gives them addresses and code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan.errors import NotLowered
from rtgan.generators.program import Program, View, row_major

Floats = NDArray[np.float32]
#: A sequence of ``("in", k)``, ``("const", c)`` and ``(function, index..., ("lit", x)...)``; the last is the result.
Expression = tuple[tuple[Any, ...], ...]
IDENTITY: Expression = (("in", 0),)


@dataclass
class Step:
    """One piece of work.

    ``kind`` is map, linear, matmul, conv, recurrent, reduce, normalise, softmax, scan, rank, gather or scatter.
    """

    kind: str
    outs: list[View]
    ins: list[View]
    expression: Expression = ()
    #: What follows in registers: (function, literals or per-channel arrays...) on each output value.
    post: list[tuple[Any, ...]] = field(default_factory=list)
    arrays: dict[str, Floats] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_copy(self) -> bool:
        """Whether this step only moves values."""
        return self.kind == "map" and self.expression == IDENTITY


@dataclass
class Memory:
    """A storage of the lowered program. ``data`` holds constants and what must be there before the first run."""

    size: int
    kind: str
    data: Floats | None = None


class Unsupported(NotLowered):
    """An operation, or one of its options, has no lowering."""


def broadcast(view: View, shape: tuple[int, ...]) -> View:
    """The view seen with ``shape`` by NumPy's rules: stride 0 where it repeats."""
    lead = len(shape) - len(view.shape)
    strides = [0] * lead + [
        0 if n == 1 and m != 1 else d for n, d, m in zip(view.shape, view.strides, shape[lead:], strict=True)
    ]
    return View(view.storage, view.offset, shape, tuple(strides))


def addresses(view: View) -> NDArray[np.int64]:
    """Address of every element, in the view's shape."""
    total = np.full(view.shape, view.offset, np.int64)
    for axis, (n, d) in enumerate(zip(view.shape, view.strides, strict=True)):
        total += (np.arange(n) * d).reshape([-1 if k == axis else 1 for k in range(len(view.shape))])
    return total


def flip(view: View, axis: int) -> View:
    """The view with one axis reversed."""
    d = view.strides[axis]
    strides = tuple(-s if k == axis else s for k, s in enumerate(view.strides))
    return View(view.storage, view.offset + (view.shape[axis] - 1) * d, view.shape, strides)


def cut(view: View, axis: int, start: int, length: int, step: int = 1) -> View:
    """A range of one axis."""
    shape = tuple(length if k == axis else n for k, n in enumerate(view.shape))
    strides = tuple(d * step if k == axis else d for k, d in enumerate(view.strides))
    return View(view.storage, view.offset + start * view.strides[axis], shape, strides)


def select(view: View, axis: int, index: int) -> View:
    """One index of an axis; the axis vanishes."""
    return View(
        view.storage,
        view.offset + index * view.strides[axis],
        view.shape[:axis] + view.shape[axis + 1 :],
        view.strides[:axis] + view.strides[axis + 1 :],
    )


def permute(view: View, order: Sequence[int]) -> View:
    """Axes in another order."""
    return View(view.storage, view.offset, tuple(view.shape[i] for i in order), tuple(view.strides[i] for i in order))


def insert(view: View, axis: int) -> View:
    """A new axis of length 1."""
    shape, strides = list(view.shape), list(view.strides)
    shape.insert(axis, 1)
    strides.insert(axis, 0)
    return View(view.storage, view.offset, tuple(shape), tuple(strides))


class Lowering:
    """The lowered program: memory, steps, and where inputs and outputs lie."""

    def __init__(self, program: Program) -> None:
        self.steps: list[Step] = []
        self.memory: list[Memory] = []
        self.inputs, self.outputs = list(program.inputs), list(program.outputs)
        self._values: dict[View, Floats] = {}
        for storage in program.storages:
            data = None
            if storage.kind in ("const", "state"):
                data = np.array(program.weights[storage.at : storage.at + storage.size])
            self.memory.append(Memory(storage.size, storage.kind, data))

    # -- arguments and memory

    def argument(self, value: Any) -> Any:
        """An argument from its plain form: views, constant integers, lists of them, numbers."""
        if isinstance(value, dict) and "t" in value:
            return View.from_json(value["t"])
        if isinstance(value, dict) and "ints" in value:
            return np.array(value["ints"], np.int64).reshape(value["shape"])
        if isinstance(value, list):
            return [self.argument(v) for v in value]
        return value

    def constant(self, values: Any) -> View:
        """A view of new constant memory."""
        array = np.ascontiguousarray(values, np.float32)
        self.memory.append(Memory(array.size, "const", array.ravel()))
        return View(len(self.memory) - 1, 0, array.shape, row_major(array.shape))

    def temporary(self, shape: Sequence[int]) -> View:
        """A view of new memory that lives within one run."""
        shape = tuple(shape)
        self.memory.append(Memory(math.prod(shape), "temp"))
        return View(len(self.memory) - 1, 0, shape, row_major(shape))

    def padded(self, shape: Sequence[int]) -> View:
        """New memory that is zero before the first run and only ever written in its interior."""
        view = self.temporary(shape)
        self.memory[view.storage].data = np.zeros(view.size, np.float32)
        return view

    def kept(self, values: Floats) -> View:
        """A view of new memory that holds these bits before the first run and lasts from run to run."""
        self.memory.append(Memory(values.size, "state", values))
        return View(len(self.memory) - 1, 0, values.shape, row_major(values.shape))

    def is_constant(self, view: View) -> bool:
        """Whether a view's values are known now."""
        return self.memory[view.storage].kind == "const"

    def value(self, view: View | None) -> Floats:
        """The values of a constant view."""
        if view is None or not isinstance(view, View):
            raise Unsupported("a weight is missing")
        data = self.memory[view.storage].data
        if data is None or not self.is_constant(view):
            raise Unsupported("a weight depends on the input")
        if view.contiguous:
            return data[view.offset : view.offset + view.size].reshape(view.shape).copy()
        return np.ascontiguousarray(data[addresses(view)])

    def operand(self, value: Any) -> View | float:
        """A tensor, or the number it always holds."""
        if isinstance(value, (bool, int, float)):
            return float(value)
        if isinstance(value, np.ndarray):
            return float(value.ravel()[0]) if value.size == 1 else self.constant(value)
        if not isinstance(value, View):
            raise Unsupported("an operand is neither a tensor nor a number")
        if value.size == 1 and self.is_constant(value):
            return float(self.value(value).ravel()[0])
        return value

    # -- steps

    def map(self, out: View, function: str, *operands: Any, literals: Sequence[float] = ()) -> None:
        """``out = function(operands, literals)`` elementwise."""
        views: list[View] = []
        code: list[tuple[Any, ...]] = []
        for operand in operands:
            value = self.operand(operand)
            if isinstance(value, float):
                code.append(("const", value))
            else:
                code.append(("in", len(views)))
                views.append(broadcast(value, out.shape))
        code.append((function, *range(len(operands)), *(("lit", float(x)) for x in literals)))
        self.emit(Step("map", [out], views, tuple(code)))

    def copy(self, out: View, source: Any) -> None:
        """``out = source``."""
        value = self.operand(source)
        if isinstance(value, float):
            self.emit(Step("map", [out], [], (("const", value),)))
            return
        source = broadcast(value, out.shape)
        if source != out:
            self.emit(Step("map", [out], [source], IDENTITY))

    def emit(self, step: Step) -> None:
        """Append a step unless it writes nothing."""
        if all(o.size for o in step.outs):
            self.steps.append(step)

    def dense(self, view: View, inner: int = 1) -> View:
        """The view itself when its last ``inner`` axes lie dense, else a copy."""
        tail = View(
            view.storage, view.offset, view.shape[len(view.shape) - inner :], view.strides[len(view.shape) - inner :]
        )
        if tail.contiguous:
            return view
        out = self.temporary(view.shape)
        self.copy(out, view)
        return out
