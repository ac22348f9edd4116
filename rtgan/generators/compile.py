"""From a program to machine code: one C function ``void run(float *arena, const float *weights)``.

The lowered steps get addresses in one arena, packed by lifetime, and code from `rtgan.kernels.nn`. Weights lie
apart from the arena, so that several channels share them, each with an arena of its own. The result is kept on
disk under a hash of the program, this code and the processor.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from rtgan import kernel_cache
from rtgan.errors import RtganError
from rtgan.generators.files import write_atomically
from rtgan.generators.fuse import optimise
from rtgan.generators.lowering import Lowering, Step
from rtgan.generators.operations import lower
from rtgan.generators.program import Program, View
from rtgan.kernels import nn, nn_functions, nn_jit, nn_order
from rtgan.kernels.nn_code import Code, Half, Machine, Vec

Floats = NDArray[np.float32]
_ALIGN = 16
#: What `Program.meta` says under ``weights`` where large matrices are to be kept in half precision. Sums stay float32.
#: A net of megabytes that comes cold from a shared cache once in a frame waits for its weights; half of them are half
#: the wait.
HALF = "float16"
#: A matrix of so many weights is large: what fits a first-level cache has nothing to gain.
LARGE = 1 << 14
#: What decides, beside the kernels, which code a program becomes.
_SOURCES = ("chance", "choosing", "compile", "fuse", "lowering", "operations", "program", "spectral")


def _room(size: int) -> Floats:
    """Zeros that start on a 64-byte border."""
    room = np.zeros(size + _ALIGN, np.float32)
    start = (-room.ctypes.data % 64) // 4
    return room[start : start + size]


def aligned(values: Floats) -> Floats:
    """A copy that starts on a 64-byte border."""
    out = _room(values.size)
    out[:] = values
    return out


class Place:
    """Where an input or output lies in the arena.

    Attributes
    ----------
    offset : int
        First element, in floats.
    shape, strides : tuple of int
        Strides in floats.
    """

    def __init__(self, offset: int, shape: Sequence[int], strides: Sequence[int]) -> None:
        self.offset, self.shape, self.strides = offset, tuple(shape), tuple(strides)

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        return View(0, self.offset, self.shape, self.strides).contiguous

    def of(self, arena: Floats) -> Floats:
        """The tensor itself, as a view of an arena [main thread]."""
        return np.lib.stride_tricks.as_strided(arena[self.offset :], self.shape, [4 * d for d in self.strides])

    def __repr__(self) -> str:
        return f"Place({self.offset}, {self.shape})"


class Net:
    """A generator as machine code. Keep it alive as long as its address is in use.

    Attributes
    ----------
    address : int
        ``void run(float *arena, const float *weights)``: no allocation, no call, no state but the arena [audio].
    arena_floats : int
        Size of an arena; its address must be a multiple of 64 bytes.
    initial_arena : float32 array
        What an arena holds before the first run, and after a reset.
    weights : float32 array
        64-byte aligned; shared by all arenas.
    inputs, outputs : list of Place
    """

    def __init__(
        self,
        code: bytes,
        arena: Floats,
        weights: Floats,
        inputs: list[Place],
        outputs: list[Place],
        report: dict[str, Any],
    ) -> None:
        self._loaded = nn_jit.Loaded(code)
        self.code = code
        self.address = self._loaded.address("run")
        self.initial_arena = aligned(arena)
        self.arena_floats = arena.size
        self.weights = weights if weights.ctypes.data % 64 == 0 else aligned(weights)
        self.inputs, self.outputs = inputs, outputs
        self.report = report
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(self.address)

    def arena(self) -> Floats:
        """A fresh arena, aligned and in its initial state."""
        return aligned(self.initial_arena)

    def run(self, arena: Floats) -> None:
        """Run one frame from Python: for tests and offline use [any thread, one per arena]."""
        if arena.dtype != np.float32 or arena.size != self.arena_floats or arena.ctypes.data % 64:
            raise RtganError("an arena is a 64-byte aligned float32 vector made by Net.arena()")
        self._call(arena.ctypes.data, self.weights.ctypes.data)


def _rows_of(out: View, x: View) -> list[tuple[int, int, int]]:
    """Rows along the last axis as (count, out stride, x stride), those whose neighbours lie side by side last."""
    rows = list(zip(x.shape[:-1], out.strides[:-1], x.strides[:-1], strict=True))
    rows = [row for row in rows if row[0] > 1]
    return sorted(rows, key=lambda row: (row[1] == 1) + (row[2] == 1))


# -- code ----------------------------------------------------------------------------------------------------------


class _Builder:
    """Gives addresses and code to the steps of an optimised program."""

    def __init__(self, low: Lowering, machine: Machine, half: bool) -> None:
        self.low, self.machine, self.half = low, machine, half
        #: Weights that are kept in half precision.
        self.halved = 0
        self.functions = nn_jit.Functions()
        self.chunks: list[Floats] = []
        self.length = 0
        self.packed: dict[bytes, int] = {}
        self.arena_size = 0
        self.place: dict[int, int] = {}
        self.calls: list[str] = []
        self.used_by: list[str] = []
        self._layout()
        for step in low.steps:
            self._emit(step)

    # -- memory

    def _layout(self) -> None:
        """Place temporaries by lifetime, first fit, largest first among those that start together."""
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for k, step in enumerate(self.low.steps):
            for v in (*step.ins, *step.outs):
                first.setdefault(v.storage, k)
                last[v.storage] = k
        outside = {v.storage for v in (*self.low.inputs, *self.low.outputs)}
        # Of what lasts from run to run only what is ever touched is kept: caches have rows for many streams.
        self.used: dict[int, tuple[int, int]] = {}
        for step in self.low.steps:
            for v in (*step.ins, *step.outs):
                if self.low.memory[v.storage].kind == "state" and v.storage not in outside and v.size:
                    low, high = v.span()
                    before = self.used.get(v.storage, (low, high))
                    self.used[v.storage] = min(low, before[0]), max(high, before[1])
        kept = [
            s for s, m in enumerate(self.low.memory)
            if s in outside or (s in first and m.kind != "const" and (m.kind != "temp" or m.data is not None))
        ]  # fmt: skip
        position = 0
        for s in kept:
            self.place[s] = position - self.used.get(s, (0, 0))[0]
            position += self._room(s)
        top = start = position
        busy: list[tuple[int, int, int]] = []
        order = sorted(
            (s for s in first if s not in self.place and self.low.memory[s].kind != "const"),
            key=lambda s: (first[s], -self.low.memory[s].size),
        )
        for s in order:
            at, size = start, self._room(s)
            for begin, end, until in sorted(busy):
                if until < first[s]:
                    continue
                if at + size <= begin:
                    break
                at = max(at, end)
            self.place[s] = at
            busy.append((at, at + size, last[s]))
            top = max(top, at + size)
        self.arena_size = top

    def _room(self, storage: int) -> int:
        low, high = self.used.get(storage, (0, max(1, self.low.memory[storage].size) - 1))
        return -(-(high + 1 - low) // _ALIGN) * _ALIGN

    def initial(self) -> Floats:
        """The arena before the first run."""
        arena = np.zeros(self.arena_size, np.float32)
        for s, at in self.place.items():
            data = self.low.memory[s].data
            if data is not None:
                low, high = self.used.get(s, (0, data.size - 1))
                arena[at + low : at + high + 1] = data[low : high + 1]
        return arena

    def weight(self, values: Floats) -> str:
        """Add values to the weights, once; returns their address as an operand."""
        values = np.ascontiguousarray(values, np.float32).ravel()
        key = hashlib.sha256(values.data).digest() + values.size.to_bytes(8, "little")
        if key not in self.packed:
            self.packed[key] = self.length
            self.chunks.append(values)
            self.length += -(-max(1, values.size) // _ALIGN) * _ALIGN
        return f"%weights {self.packed[key]}"

    def weights(self) -> Floats:
        """All weights, on a 64-byte border."""
        out = _room(self.length + _ALIGN)
        for at, chunk in zip(self.packed.values(), self.chunks, strict=True):
            out[at : at + chunk.size] = chunk
        return out

    def matrix(self, values: Floats) -> tuple[str, type[str]]:
        """Add the weights of a product; returns their address and what kind of pointer leads there."""
        if not self.half or values.size < LARGE or np.abs(values).max() > np.finfo(np.float16).max:
            return self.weight(values), str
        self.halved += values.size
        rounded = values.astype(np.float16)
        if not self.machine.halves:
            return self.weight(rounded.astype(np.float32)), str
        return self.weight(np.pad(rounded, (0, rounded.size % 2)).view(np.float32)), Half

    def address(self, view: View) -> str:
        """A view's first element as an operand."""
        memory = self.low.memory[view.storage]
        if view.storage not in self.place:
            if memory.data is None:
                raise AssertionError("a view without memory")
            base, offset = self.weight(memory.data).split()
            return f"{base} {int(offset) + view.offset}"
        return f"%arena {self.place[view.storage] + view.offset}"

    # -- steps

    def _call(self, operands: list[str], emit: Any) -> None:
        """Emit a layer on pointers and call it with these operands."""
        code = Code(self.machine, len(operands))
        emit(code, code.pointers)
        name = self.functions.add(code)
        arguments = []
        for operand in operands:
            base, offset = operand.split()
            pointer = f"%o{len(self.calls)}"
            self.calls.append(f"{pointer} = getelementptr inbounds float, ptr {base}, i64 {offset}")
            arguments.append(f"ptr {pointer}")
        self.calls.append(f"call void @{name}({', '.join(arguments)})")
        self.used_by.append(name)

    def _emit(self, step: Step) -> None:
        getattr(self, f"_{step.kind}")(step)

    def _post(self, step: Step, vector: bool) -> tuple[list[str], Any]:
        """The per-channel constants of a step's post chain, and the function that applies it."""
        operands: list[str] = []
        plan: list[tuple[str, list[Any]]] = []
        for name, *arguments in step.post:
            chosen: list[Any] = []
            for a in arguments:
                if isinstance(a, np.ndarray):
                    if (a == a[0]).all():
                        chosen.append(("const", float(a[0])))
                    else:
                        chosen.append(("channel", len(operands)))
                        operands.append(self.weight(nn.pack_vector(self.machine, a) if vector else a))
                elif isinstance(a, tuple):
                    chosen.append(("literal", a[1]))
                else:
                    chosen.append(("value", 0))
            plan.append((name, chosen))

        def post(e: Code, v: Vec, channel: Any) -> Vec:
            for name, chosen in plan:
                v = nn_functions.FUNCTIONS[name](
                    e,
                    *(
                        v
                        if kind == "value"
                        else channel(x)
                        if kind == "channel"
                        else e.const(v.n, x)
                        if kind == "const"
                        else x
                        for kind, x in chosen
                    ),
                )
            return v

        return operands, (post if plan else None)

    def _map(self, step: Step) -> None:
        out = step.outs[0]
        operands = [self.address(out), *(self.address(v) for v in step.ins)]

        def emit(e: Code, p: list[str]) -> None:
            inputs = [(q, v.strides) for q, v in zip(p[1:], step.ins, strict=True)]
            nn.elementwise(
                e,
                out.shape,
                (p[0], out.strides),
                inputs,
                lambda values, n: nn_functions.evaluate(e, step.expression, values, n),
            )

        self._call(operands, emit)

    def _linear(self, step: Step) -> None:
        x, out = step.ins[0], step.outs[0]
        inner = step.options.get("inner", 1)
        weight, bias = step.arrays["weight"], step.arrays.get("bias")
        outputs, inputs = weight.shape
        lead = len(x.shape) - inner
        counts, (x_steps, out_steps) = nn.collapse(x.shape[:lead], x.strides[:lead], out.strides[:-1])
        rows = list(zip(counts, x_steps, out_steps, strict=True))
        extents, (steps,) = nn.collapse(x.shape[lead:], x.strides[lead:])
        depth = list(zip(extents, steps, strict=True)) or [(1, 0)]
        by_dot = outputs <= 2 and len(depth) == 1 and depth[0][1] == 1 and inputs >= 2 * self.machine.lanes
        inner_rows = rows[-1][0] if rows else 1
        packed = nn.pack_dot(self.machine, weight) if by_dot else nn.pack_linear(self.machine, inner_rows, weight)
        channels, post = self._post(step, True)
        place, kind = (self.weight(packed), str) if by_dot else self.matrix(packed)
        operands = [self.address(out), self.address(x), place]
        if bias is not None:
            operands.append(self.weight(nn.pack_vector(self.machine, bias)))
        start = len(operands)

        def emit(e: Code, p: list[str]) -> None:
            shift = p[3] if bias is not None else None
            if by_dot:
                nn.dot(e, rows, inputs, outputs, p[0], out.strides[-1], p[1], p[2], shift, post, p[start:])
            else:
                nn.linear(e, rows, depth, outputs, p[0], out.strides[-1], p[1], kind(p[2]), shift, post, p[start:])

        self._call([*operands, *channels], emit)

    def _matmul(self, step: Step) -> None:
        out, (x, y) = step.outs[0], step.ins
        if y.shape[-1] > 1 and y.strides[-1] != 1:
            raise AssertionError("a product needs neighbouring columns")
        counts, (o_steps, x_steps, y_steps) = nn.collapse(
            out.shape[:-2], out.strides[:-2], x.strides[:-2], y.strides[:-2]
        )
        lead = list(zip(counts, o_steps, x_steps, y_steps, strict=True))
        size = (out.shape[-2], x.shape[-1], out.shape[-1])

        def emit(e: Code, p: list[str]) -> None:
            to, source = (p[0], out.strides[-2], out.strides[-1]), (p[1], x.strides[-2], x.strides[-1])
            nn.matmul(e, lead, size, to, source, (p[2], y.strides[-2]))

        self._call([self.address(out), self.address(x), self.address(y)], emit)

    def _planes(self, step: Step) -> None:
        x, out = step.ins[0], step.outs[0]
        o = step.options
        packed = nn.pack_planes(self.machine, o["groups"], out.shape[3], step.arrays["weight"])
        channels, post = self._post(step, False)
        operands = [
            self.address(out),
            self.address(x),
            self.weight(packed),
            self.weight(step.arrays["bias"]),
            *channels,
        ]

        def emit(e: Code, p: list[str]) -> None:
            batch, outputs, rows, columns = out.shape
            source = (p[1], x.strides[0], x.strides[1], o["row"])
            nn.planes(
                e, (batch, outputs, rows, columns), o["inputs"], o["groups"], o["taps"], source,
                (p[0], out.strides), p[2], p[3], post, p[4:],
            )  # fmt: skip

        self._call(operands, emit)

    def _recurrent(self, step: Step) -> None:
        x, h0, *cells = step.ins
        y, hn, *cell_outs = step.outs
        gates, a = step.options["gates"], step.arrays
        batch, steps, inputs = x.shape
        steps_of_x, steps_of_y = (x.strides[0], x.strides[1], x.strides[2]), (y.strides[0], y.strides[1])
        packed, biases = nn.pack_recurrent(
            self.machine, gates, a["w_input"], a["w_hidden"], a["b_input"], a["b_hidden"]
        )
        place, kind = self.matrix(packed)
        operands = [self.address(v) for v in (y, x, hn, h0)] + [place, self.weight(biases)]
        operands += [self.address(v) for v in (*cells, *cell_outs)]

        def emit(e: Code, p: list[str]) -> None:
            nn.recurrent(
                e, gates, batch, steps, inputs, h0.shape[-1], (p[1], *steps_of_x), (p[0], *steps_of_y),
                (p[3], h0.strides[0]), (p[2], hn.strides[0]), kind(p[4]), p[5], step.options["reverse"],
                (p[6], cells[0].strides[0]) if cells else None, (p[7], cell_outs[0].strides[0]) if cells else None,
            )  # fmt: skip

        self._call(operands, emit)

    def _reduce(self, step: Step) -> None:
        x, out = step.ins[0], step.outs[0]
        lead = len(x.shape) - step.options["axes"]
        kept = list(zip(out.shape, out.strides, x.strides[:lead], strict=True))
        reduced = list(zip(x.shape[lead:], x.strides[lead:], strict=True))
        self._call(
            [self.address(out), self.address(x)],
            lambda e, p: nn.reduce(e, step.options["how"], kept, reduced, p[0], p[1], step.options["scale"]),
        )

    def _normalise(self, step: Step) -> None:
        x, out = step.ins[0], step.outs[0]
        n, periods = x.shape[-1], step.options["periods"]
        w_strides = [0] * (len(x.shape) - 1)
        if periods > 1:
            w_strides[-1] = n
        rows = list(zip(x.shape[:-1], out.strides[:-1], x.strides[:-1], w_strides, strict=True))
        operands = [self.address(out), self.address(x)]
        names = [name for name in ("weight", "bias") if name in step.arrays]
        operands += [self.weight(step.arrays[name]) for name in names]

        def emit(e: Code, p: list[str]) -> None:
            extra = dict(zip(names, p[2:], strict=True))
            nn.normalise(e, rows, n, p[0], p[1], step.options["eps"], extra.get("weight"), extra.get("bias"))

        self._call(operands, emit)

    def _softmax(self, step: Step) -> None:
        x, out = step.ins[0], step.outs[0]
        rows = list(zip(x.shape[:-1], out.strides[:-1], x.strides[:-1], strict=True))
        self._call(
            [self.address(out), self.address(x)],
            lambda e, p: nn.softmax(e, rows, x.shape[-1], p[0], p[1], step.options["log"]),
        )

    def _scan(self, step: Step) -> None:
        x, out = step.ins[0], step.outs[0]
        rows = _rows_of(out, x)
        self._call(
            [self.address(out), self.address(x)],
            lambda e, p: nn_order.scan(
                e, step.options["how"], rows, x.shape[-1], (p[0], out.strides[-1]), (p[1], x.strides[-1])
            ),
        )

    def _rank(self, step: Step) -> None:
        x, out = step.ins[0], step.outs[0]
        rows = list(zip(x.shape[:-1], out.strides[:-1], x.strides[:-1], strict=True))
        self._call(
            [self.address(out), self.address(x)],
            lambda e, p: nn_order.rank(e, rows, x.shape[-1], (p[0], out.strides[-1]), (p[1], x.strides[-1])),
        )

    def _gather(self, step: Step) -> None:
        self._indexed(step, step.outs[0], step.ins[0], step.ins[0], step.ins[1:])

    def _scatter(self, step: Step) -> None:
        self._indexed(step, step.ins[1], step.outs[0], step.ins[1], step.ins[2:])

    def _indexed(self, step: Step, walked: View, indexed: View, x: View, indices: list[View]) -> None:
        """Axis by axis of ``walked``; what is ``indexed`` moves along the axes that ``walks`` names."""
        strides = tuple(0 if w < 0 else indexed.strides[w] for w in step.options["walks"])
        pair = (strides, walked.strides) if step.kind == "scatter" else (walked.strides, strides)
        loops = list(zip(walked.shape, *pair, *(v.strides for v in indices), strict=True))
        axes = [(indexed.strides[k], indexed.shape[k]) for k in step.options["axes"]]

        def emit(e: Code, p: list[str]) -> None:
            placed = list(zip(p[2:], axes, strict=True))
            if step.kind == "scatter":
                nn_order.scatter(e, loops, placed, p[0], p[1], step.options["add"])
            else:
                nn_order.gather(e, loops, placed, p[0], p[1])

        self._call([self.address(v) for v in (step.outs[0], x, *indices)], emit)

    def text(self) -> str:
        """The module's IR."""
        return nn_jit.module_text(self.functions, "run", ["%arena", "%weights"], self.calls)

    def places(self, views: Sequence[View]) -> list[Place]:
        """Where inputs or outputs lie."""
        return [Place(self.place[v.storage] + v.offset, v.shape, v.strides) for v in views]


def _lower(program: Program, carry: Sequence[tuple[int, int]], machine: Machine) -> Lowering:
    low = lower(program)
    for result, target in carry:
        if not (0 <= result < len(low.outputs) and 0 <= target < len(low.inputs)):
            raise RtganError(f"the generator has no output {result} or no input {target} to carry state between")
        source, into = low.outputs[result], low.inputs[target]
        if source.shape != into.shape:
            raise RtganError(
                f"output {result} has shape {source.shape} and cannot be carried to input {target}, {into.shape}"
            )
        low.copy(into, source)
        # What was the output is the next input now.
        low.outputs[result] = into
    for k, view in enumerate(low.outputs):
        if low.is_constant(view):
            moved = low.temporary(view.shape)
            low.copy(moved, view)
            low.outputs[k] = moved
    optimise(low, machine)
    return low


def _halves(program: Program) -> bool:
    """Whether a program asks for large matrices in half precision."""
    return bool(program.meta.get("weights") == HALF)


def intermediate(program: Program, carry: Sequence[tuple[int, int]] = (), machine: Machine | None = None) -> str:
    """The LLVM IR of a program, for inspection [main thread]."""
    machine = machine or Machine.host()
    return _Builder(_lower(program, carry, machine), machine, _halves(program)).text()


# -- the cache -----------------------------------------------------------------------------------------------------


#: What is in use has its machine code once, however many chains play it.
_loaded: WeakValueDictionary[Path, Net] = WeakValueDictionary()


@cache
def _generator_hash() -> str:
    """Hash of the sources that decide what code a program becomes."""
    total = hashlib.sha256()
    here = Path(__file__).resolve().parent
    files = [here / f"{n}.py" for n in _SOURCES]
    files += sorted((here.parent / "kernels").glob("nn*.py"))
    for path in files:
        total.update(path.name.encode() + path.read_bytes())
    for package in ("llvmlite", "numpy"):
        total.update(kernel_cache.version_file(package))
    return total.hexdigest()


def cache_path(program: Program, carry: Sequence[tuple[int, int]], machine: Machine | None = None) -> Path:
    """Where the machine code of a program is kept."""
    m = machine or Machine.host()
    target = f"{m.triple} {m.cpu} {m.features} {m.lanes} {m.registers}"
    key = hashlib.sha256()
    for part in (program.digest(), repr([tuple(c) for c in carry]), _generator_hash(), target):
        key.update(part.encode() + b"\0")
    return kernel_cache.user_cache() / "generators" / f"{key.hexdigest()[:40]}.net"


def _write_cache(path: Path, code: bytes, arena: Floats, weights: Floats, head: dict[str, Any]) -> None:
    """One file: the length of its head, the head, and behind it code, arena and weights from 64-byte borders on."""
    parts = [code, arena.tobytes(), weights.tobytes()]
    text = json.dumps({**head, "sizes": [len(p) for p in parts], "check": zlib.crc32(parts[0] + parts[1])}).encode()
    out = bytearray(len(text).to_bytes(8, "little") + text)
    for part in parts:
        out += bytes(-len(out) % 64) + part
    try:
        write_atomically(path, bytes(out))
    except OSError:
        # A cache that cannot be written costs time at the next start and nothing else.
        return


def read_cache(path: Path) -> Net | None:
    """A net from its file, whose weights stay there until they are read; None for a file that is none."""
    try:
        data = np.memmap(path, np.uint8, "r")
        at = 8 + int.from_bytes(data[:8].tobytes(), "little")
        head = json.loads(data[8:at].tobytes())
        parts = []
        for size in head["sizes"]:
            at += -at % 64
            parts.append(data[at : at + size])
            at += size
        if at != len(data) or zlib.crc32(parts[0].tobytes() + parts[1].tobytes()) != head["check"]:
            return None
        arena, weights = (np.asarray(p).view(np.float32) for p in parts[1:])
        inputs, outputs = ([Place(*p) for p in head[k]] for k in ("inputs", "outputs"))
        return Net(parts[0].tobytes(), arena, weights, inputs, outputs, head["report"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def compile(
    program: Program, carry: Sequence[tuple[int, int]] = (), use_cache: bool = True, machine: Machine | None = None
) -> Net:
    """Compile a program for this machine [main thread].

    Parameters
    ----------
    program : Program
    carry : sequence of (output, input)
        State outputs that become state inputs of the next run, without a copy where possible. Such an output and
        its input are then the same place of the arena.
    use_cache : bool
        Look for machine code on disk and keep it there.
    machine : Machine, optional
        The processor; this one by default. Another vector width runs here as well, only slower.

    Returns
    -------
    Net
    """
    machine = machine or Machine.host()
    path = cache_path(program, carry, machine) if use_cache else None
    if path is not None and (found := _loaded.get(path) or read_cache(path)) is not None:
        _loaded[path] = found
        return found
    low = _lower(program, carry, machine)
    builder = _Builder(low, machine, _halves(program))
    code = nn_jit.assemble(machine, builder.text())
    arena, weights = builder.initial(), builder.weights()
    inputs, outputs = builder.places(low.inputs), builder.places(low.outputs)
    report = {
        "operations": len(program.ops), "steps": len(low.steps), "functions": len(builder.functions),
        "code_bytes": len(code), "arena_floats": int(arena.size), "weight_floats": int(weights.size),
        "halved_weights": builder.halved,
    }  # fmt: skip
    if path is not None:
        head = {
            "inputs": [[p.offset, p.shape, p.strides] for p in inputs],
            "outputs": [[p.offset, p.shape, p.strides] for p in outputs], "report": report,
        }  # fmt: skip
        _write_cache(path, code, arena, weights, head)
    net = Net(code, arena, weights, inputs, outputs, report)
    if path is not None:
        _loaded[path] = net
    return net
