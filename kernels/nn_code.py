"""A writer of explicit-vector LLVM IR: the ground on which the neural layers of `nn` are written.

A layer is emitted for its exact shape: loops with literal bounds, accumulators as SSA values, vectors as wide
as the machine's registers. Nothing is left to an auto-vectoriser, which gives up as soon as many tensors share
one arena. The only operations used are arithmetic, loads, stores, shuffles and the intrinsics ``fmuladd``,
``sqrt`` and ``fabs``, each of which is an instruction, never a call: the code links against nothing.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np


class Half(str):
    """A pointer to numbers of half precision: `Code.at` counts in these, and `Code.load` makes float32 of them."""


@dataclass(frozen=True)
class Machine:
    """What code is generated for.

    Attributes
    ----------
    triple, cpu, features : str
        LLVM's names of the target.
    lanes : int
        float32 lanes of the widest vector register (4, 8 or 16).
    registers : int
        Number of vector registers (16 or 32).
    """

    triple: str
    cpu: str
    features: str
    lanes: int
    registers: int

    @property
    def halves(self) -> bool:
        """Whether half precision becomes float32 by an instruction."""
        return self.triple.startswith(("aarch64", "arm64")) or "+f16c" in self.features.split(",")

    @staticmethod
    @cache
    def host() -> Machine:
        """The machine this process runs on."""
        features = dict(llvm.get_host_cpu_features())
        return Machine.of(llvm.get_default_triple(), llvm.get_host_cpu_name(), features)

    @staticmethod
    def of(triple: str, cpu: str, features: dict[str, bool]) -> Machine:
        """Derive vector width and register count from an LLVM target description."""
        flat = ",".join(("+" if on else "-") + name for name, on in sorted(features.items()))
        if features.get("avx512f") and features.get("avx512vl"):
            # LLVM would otherwise split 512-bit vectors on processors that once lowered their clock for them.
            return Machine(triple, cpu, flat + ",-prefer-256-bit", 16, 32)
        if triple.startswith(("aarch64", "arm64")):
            return Machine(triple, cpu, flat, 4, 32)
        if features.get("avx2") and features.get("fma"):
            return Machine(triple, cpu, flat, 8, 16)
        return Machine(triple, cpu, flat, 4, 16)


class Vec(NamedTuple):
    """An SSA value: ``n`` float32 lanes, a scalar when ``n`` is 1."""

    name: str
    n: int


class Mask(NamedTuple):
    """An SSA value of ``n`` booleans."""

    name: str
    n: int


class Word(NamedTuple):
    """An SSA value of ``n`` int32 lanes."""

    name: str
    n: int


def _float_type(n: int) -> str:
    return "float" if n == 1 else f"<{n} x float>"


def _int_type(n: int) -> str:
    return "i32" if n == 1 else f"<{n} x i32>"


def _bool_type(n: int) -> str:
    return "i1" if n == 1 else f"<{n} x i1>"


def _float_literal(value: float) -> str:
    return "0x" + struct.pack(">d", float(np.float32(value))).hex().upper()


def _spread(item: str, n: int) -> str:
    return f"<{', '.join([item] * n)}>"


def pieces(count: int, widest: int) -> list[tuple[int, int]]:
    """Cut ``count`` lanes into (start, width) with powers of two no wider than ``widest``."""
    out, start = [], 0
    while start < count:
        width = min(widest, 1 << ((count - start).bit_length() - 1))
        out.append((start, width))
        start += width
    return out


# Minimax fits of this project (Lawson iteration on 4001 Chebyshev nodes); the error after each is that of the
# fit in exact arithmetic.
_EXP = (0.49999993253354197, 0.16666517758286337, 0.04166842187816604, 0.008369063890482278, 0.0013813878592464982)
_LOG = (
    0.33333331350292494, -0.2500083300727883, 0.20001273084622384, -0.1662293775549614,
    0.14200305705154895, -0.13163028532225401, 0.12773955303538242, -0.07642640436025823,
)  # fmt: skip
_TANH_P = (
    0.9999999063517543,
    0.1337319663535418,
    0.0034865806615076967,
    2.047181134715101e-05,
    1.3184199235130428e-08,
)
_TANH_Q = (1.0, 0.46706493497416, 0.025841974433595014, 0.0003271383419985557, 7.702652998213338e-07)
_ERF_P = (
    1.1283789763844416, 0.19624972482684683, 0.05346757988070416, 0.004003679937606408,
    0.00028804254444515646, 1.974828063886566e-06,
)  # fmt: skip
_ERF_Q = (
    1.0, 0.5072529486805959, 0.11647673865246208, 0.015444488048255297, 0.0012163689416764295, 3.748090231588673e-05,
)  # fmt: skip
_SIN = (-0.16666653868334802, 0.00833211331770594, -0.00019508776504157787)
_COS = (0.04166664437063265, -0.0013887251610397524, 2.442569448327125e-05)
_ATAN = (
    -0.33333152705215485, 0.19993771985809267, -0.1421104729297657, 0.10665968663382211,
    -0.07552128007840639, 0.04321072724670536, -0.01636715907039344, 0.0029204818161964533,
)  # fmt: skip


class Code:
    """The IR of one function ``void f(ptr p0, ptr p1, ...)`` under construction.

    Pointers are SSA names (``%p0`` ...) of float32 addresses; `at` makes new ones. Loops hand their carried
    values through phi nodes, so no memory is used but what the layer reads and writes.
    """

    def __init__(self, machine: Machine, pointers: int) -> None:
        self.machine = machine
        self.pointers = [f"%p{i}" for i in range(pointers)]
        self._lines: list[str] = []
        self._label = "entry"
        self._count = 0
        self.declarations: set[str] = set()

    # -- text

    def line(self, text: str) -> None:
        """Append one instruction without a result."""
        self._lines.append("  " + text)

    def value(self, text: str) -> str:
        """Append one instruction and name its result."""
        self._count += 1
        name = f"%v{self._count}"
        self._lines.append(f"  {name} = {text}")
        return name

    def text(self, name: str) -> str:
        """The finished function, private to its module."""
        arguments = ", ".join(f"ptr {p}" for p in self.pointers)
        return "\n".join(
            [
                f"define internal void @{name}({arguments}) noinline nounwind {{",
                "entry:",
                *self._lines,
                "  ret void",
                "}",
            ]
        )

    # -- addresses and loops

    def at(self, pointer: str, *terms: int | tuple[str, int]) -> str:
        """Move a pointer by floats (or halves): literal counts and (index, stride) pairs."""
        kind, of = ("half", Half) if isinstance(pointer, Half) else ("float", str)
        constant = 0
        for term in terms:
            if isinstance(term, int):
                constant += term
            elif term[1] == 0:
                continue
            elif term[0].isdigit():
                constant += int(term[0]) * term[1]
            else:
                scaled = term[0] if term[1] == 1 else self.value(f"mul nsw i64 {term[0]}, {term[1]}")
                pointer = of(self.value(f"getelementptr inbounds {kind}, ptr {pointer}, i64 {scaled}"))
        if constant:
            pointer = of(self.value(f"getelementptr inbounds {kind}, ptr {pointer}, i64 {constant}"))
        return pointer

    def loop(self, count: int, body: Callable[[str, list[Vec]], list[Vec]], carried: Sequence[Vec] = ()) -> list[Vec]:
        """Run ``body(index, carried) -> carried`` for every index below ``count``."""
        values = list(carried)
        if count <= 0:
            return values
        if count == 1:
            return body("0", values)
        self._count += 1
        tag = self._count
        head, tail, done, before = f"head{tag}", f"tail{tag}", f"done{tag}", self._label
        index, following = f"%i{tag}", f"%n{tag}"
        self.line(f"br label %{head}")
        self._lines.append(f"{head}:")
        self.line(f"{index} = phi i64 [0, %{before}], [{following}, %{tail}]")
        inside, slots = [], []
        for k, v in enumerate(values):
            name = f"%c{tag}_{k}"
            slots.append(len(self._lines))
            self.line("")
            inside.append(Vec(name, v.n))
        self._label = head
        after = body(index, inside)
        self.line(f"br label %{tail}")
        self._lines.append(f"{tail}:")
        self.line(f"{following} = add nuw nsw i64 {index}, 1")
        again = self.value(f"icmp ult i64 {following}, {count}")
        self.line(f"br i1 {again}, label %{head}, label %{done}")
        self._lines.append(f"{done}:")
        self._label = done
        for slot, v, first, last in zip(slots, inside, values, after, strict=True):
            kind = _float_type(v.n)
            self._lines[slot] = f"  {v.name} = phi {kind} [{first.name}, %{before}], [{last.name}, %{tail}]"
        return after

    def nest(self, counts: Sequence[int], body: Callable[[list[str]], None]) -> None:
        """Nested loops over ``counts`` without carried values."""

        def level(depth: int, indices: list[str]) -> None:
            if depth == len(counts):
                body(indices)
                return

            def step(index: str, _: list[Vec]) -> list[Vec]:
                level(depth + 1, [*indices, index])
                return []

            self.loop(counts[depth], step)

        level(0, [])

    # -- memory

    def load(self, pointer: str, n: int = 1) -> Vec:
        """Read ``n`` neighbouring floats; no alignment is assumed."""
        if isinstance(pointer, Half):
            short = "half" if n == 1 else f"<{n} x half>"
            read = self.value(f"load {short}, ptr {pointer}, align 2")
            return Vec(self.value(f"fpext {short} {read} to {_float_type(n)}"), n)
        return Vec(self.value(f"load {_float_type(n)}, ptr {pointer}, align 4"), n)

    def store(self, pointer: str, v: Vec) -> None:
        """Write a vector to neighbouring floats."""
        self.line(f"store {_float_type(v.n)} {v.name}, ptr {pointer}, align 4")

    def load_some(self, pointer: str, count: int, n: int, fill: float = 0.0) -> Vec:
        """Read ``count`` floats into ``n`` lanes, touching nothing behind them; the other lanes are ``fill``."""
        if count == n:
            return self.load(pointer, n)
        out = self.const(n, fill)
        for start, width in pieces(count, n):
            part = self.load(self.at(pointer, start), width)
            out = self._insert(out, part, start)
        return out

    def _insert(self, whole: Vec, part: Vec, start: int) -> Vec:
        n = whole.n
        if part.n == 1:
            return self.lane_set(whole, start, part)
        wide = self.shuffle(part, part, [min(i, part.n - 1) for i in range(n)])
        return self.shuffle(whole, wide, [n + i - start if start <= i < start + part.n else i for i in range(n)])

    def store_some(self, pointer: str, v: Vec, count: int) -> None:
        """Write the first ``count`` lanes."""
        if count == v.n:
            self.store(pointer, v)
            return
        for start, width in pieces(count, v.n):
            self.store(self.at(pointer, start), self.part(v, start, width))

    def load_strided(self, pointer: str, stride: int, n: int) -> Vec:
        """Read ``n`` floats that lie ``stride`` apart."""
        if n == 1:
            return self.load(pointer)
        if stride == 0:
            return self.splat(self.load(pointer), n)
        if stride == 1:
            return self.load(pointer, n)
        if stride == -1:
            return self.shuffle(v := self.load(self.at(pointer, 1 - n), n), v, list(range(n - 1, -1, -1)))
        if stride == 2:
            # The second load starts one float early, so that the pair never reads behind the last element.
            low, high = self.load(pointer, n), self.load(self.at(pointer, n - 1), n)
            return self.shuffle(low, high, [2 * i if 2 * i < n else 2 * i + 1 for i in range(n)])
        out = self.const(n, 0.0)
        for i in range(n):
            out = self.lane_set(out, i, self.load(self.at(pointer, i * stride)))
        return out

    def store_strided(self, pointer: str, stride: int, v: Vec, count: int | None = None) -> None:
        """Write the first ``count`` lanes ``stride`` floats apart."""
        count = v.n if count is None else count
        if stride == 1:
            self.store_some(pointer, v, count)
            return
        for i in range(count):
            self.store(self.at(pointer, i * stride), self.lane(v, i))

    def index(self, v: Vec, count: int) -> str:
        """A scalar as a whole number from 0 to ``count - 1``, whatever it holds (NaN is 0): for `at`."""
        inside = self.min(self.max(v, self.const(1, 0.0)), self.const(1, float(count - 1)))
        return self.value(f"fptosi float {inside.name} to i64")

    def number(self, index: str) -> Vec:
        """A loop's index as a scalar."""
        return self.const(1, float(index)) if index.isdigit() else Vec(self.value(f"uitofp i64 {index} to float"), 1)

    # -- lanes

    def const(self, n: int, value: float) -> Vec:
        """The same literal in every lane."""
        return self.literal([value] * n)

    def literal(self, values: Sequence[float]) -> Vec:
        """One literal per lane."""
        texts = [_float_literal(v) for v in values]
        if len(texts) == 1:
            return Vec(texts[0], 1)
        return Vec(f"<{', '.join(f'float {t}' for t in texts)}>", len(texts))

    def splat(self, v: Vec, n: int) -> Vec:
        """A scalar in every lane."""
        if v.n == n:
            return v
        kind = _float_type(n)
        first = self.value(f"insertelement {kind} poison, float {v.name}, i64 0")
        return Vec(self.value(f"shufflevector {kind} {first}, {kind} poison, <{n} x i32> zeroinitializer"), n)

    def lane(self, v: Vec, i: int) -> Vec:
        """One lane as a scalar."""
        if v.n == 1:
            return v
        return Vec(self.value(f"extractelement {_float_type(v.n)} {v.name}, i64 {i}"), 1)

    def lane_set(self, v: Vec, i: int, x: Vec) -> Vec:
        """Replace one lane."""
        if v.n == 1:
            return x
        return Vec(self.value(f"insertelement {_float_type(v.n)} {v.name}, float {x.name}, i64 {i}"), v.n)

    def shuffle(self, x: Vec, y: Vec, lanes: Sequence[int]) -> Vec:
        """Lanes of ``x`` (0 .. n-1) and ``y`` (n .. 2n-1) in any order."""
        kind = _float_type(x.n)
        order = ", ".join(f"i32 {i}" for i in lanes)
        return Vec(
            self.value(f"shufflevector {kind} {x.name}, {kind} {y.name}, <{len(lanes)} x i32> <{order}>"), len(lanes)
        )

    def part(self, v: Vec, start: int, width: int) -> Vec:
        """``width`` neighbouring lanes."""
        if width == v.n:
            return v
        if width == 1:
            return self.lane(v, start)
        return self.shuffle(v, v, list(range(start, start + width)))

    def fold(self, v: Vec, combine: Callable[[Vec, Vec], Vec]) -> Vec:
        """Reduce the lanes to a scalar, halving the vector at each step."""
        while v.n > 1:
            half = v.n // 2
            v = combine(self.part(v, 0, half), self.part(v, half, half))
        return v

    # -- arithmetic

    def _binary(self, op: str, x: Vec, y: Vec) -> Vec:
        return Vec(self.value(f"{op} contract {_float_type(x.n)} {x.name}, {y.name}"), x.n)

    def add(self, x: Vec, y: Vec) -> Vec:
        """``x + y``."""
        return self._binary("fadd", x, y)

    def sub(self, x: Vec, y: Vec) -> Vec:
        """``x - y``."""
        return self._binary("fsub", x, y)

    def mul(self, x: Vec, y: Vec) -> Vec:
        """``x * y``."""
        return self._binary("fmul", x, y)

    def div(self, x: Vec, y: Vec) -> Vec:
        """``x / y``."""
        return self._binary("fdiv", x, y)

    def neg(self, x: Vec) -> Vec:
        """``-x``."""
        return Vec(self.value(f"fneg {_float_type(x.n)} {x.name}"), x.n)

    def _intrinsic(self, name: str, *values: Vec) -> Vec:
        n = values[0].n
        kind, suffix = _float_type(n), "f32" if n == 1 else f"v{n}f32"
        self.declarations.add(f"declare {kind} @llvm.{name}.{suffix}({', '.join([kind] * len(values))})")
        arguments = ", ".join(f"{kind} {v.name}" for v in values)
        return Vec(self.value(f"call {kind} @llvm.{name}.{suffix}({arguments})"), n)

    def fma(self, x: Vec, y: Vec, z: Vec) -> Vec:
        """``x * y + z``, fused where the machine can."""
        return self._intrinsic("fmuladd", x, y, z)

    def sqrt(self, x: Vec) -> Vec:
        """Square root."""
        return self._intrinsic("sqrt", x)

    def abs(self, x: Vec) -> Vec:
        """Magnitude."""
        return self._intrinsic("fabs", x)

    def compare(self, how: str, x: Vec, y: Vec) -> Mask:
        """Lanewise comparison: ``ogt``, ``oge``, ``olt``, ``ole``, ``oeq``, ``une``, ``uno``."""
        return Mask(self.value(f"fcmp {how} {_float_type(x.n)} {x.name}, {y.name}"), x.n)

    def select(self, mask: Mask, x: Vec, y: Vec) -> Vec:
        """``x`` where the mask holds, else ``y``."""
        kind = _float_type(x.n)
        return Vec(self.value(f"select {_bool_type(x.n)} {mask.name}, {kind} {x.name}, {kind} {y.name}"), x.n)

    def max(self, x: Vec, y: Vec) -> Vec:
        """The larger; a NaN in ``y`` stays."""
        return self.select(self.compare("ogt", x, y), x, y)

    def min(self, x: Vec, y: Vec) -> Vec:
        """The smaller; a NaN in ``y`` stays."""
        return self.select(self.compare("olt", x, y), x, y)

    def clamp(self, x: Vec, low: float, high: float) -> Vec:
        """Limit to a range; NaN stays NaN."""
        return self.min(self.const(x.n, high), self.max(self.const(x.n, low), x))

    def sum(self, values: Iterable[Vec]) -> Vec:
        """Add several values pairwise."""
        rest = list(values)
        while len(rest) > 1:
            rest = [self.add(*rest[i : i + 2]) if i + 1 < len(rest) else rest[i] for i in range(0, len(rest), 2)]
        return rest[0]

    def polynomial(self, x: Vec, coefficients: Sequence[float]) -> Vec:
        """Coefficients from the constant term up, evaluated as a balanced tree (short dependency chain)."""
        terms = [self.const(x.n, c) for c in coefficients]
        power = x
        while len(terms) > 1:
            terms = [
                self.fma(terms[i + 1], power, terms[i]) if i + 1 < len(terms) else terms[i]
                for i in range(0, len(terms), 2)
            ]
            if len(terms) > 1:
                power = self.mul(power, power)
        return terms[0]

    # -- int32 lanes, for exponent bits

    def bits(self, x: Vec) -> Word:
        """The float's bit pattern."""
        return Word(self.value(f"bitcast {_float_type(x.n)} {x.name} to {_int_type(x.n)}"), x.n)

    def from_bits(self, w: Word) -> Vec:
        """A float of a bit pattern."""
        return Vec(self.value(f"bitcast {_int_type(w.n)} {w.name} to {_float_type(w.n)}"), w.n)

    def integer(self, op: str, x: Word, value: int | Word) -> Word:
        """``add``, ``sub``, ``and``, ``or``, ``shl``, ``ashr`` ... with a literal or another word."""
        other = value.name if isinstance(value, Word) else str(value) if x.n == 1 else _spread(f"i32 {value}", x.n)
        return Word(self.value(f"{op} {_int_type(x.n)} {x.name}, {other}"), x.n)

    def to_float(self, w: Word) -> Vec:
        """Convert integers to floats."""
        return Vec(self.value(f"sitofp {_int_type(w.n)} {w.name} to {_float_type(w.n)}"), w.n)

    def round_small(self, x: Vec) -> tuple[Vec, Word]:
        """Round to nearest for ``|x| < 2**22``, as float and integer (adding 1.5 * 2**23 pushes the fraction out)."""
        magic = self.const(x.n, 12582912.0)
        shifted = self.add(x, magic)
        whole = self.integer("sub", self.bits(shifted), 0x4B400000)
        return self.sub(shifted, magic), whole

    # -- functions

    def exp(self, x: Vec) -> Vec:
        """E to the x: relative error below 2e-7, 0 below -87.3, infinity above 88.7, NaN stays."""
        n = x.n
        inside = self.clamp(x, -87.33, 88.73)
        k, whole = self.round_small(self.mul(inside, self.const(n, math.log2(math.e))))
        # ln 2 in two parts: the first has few enough bits that k * part is exact.
        r = self.fma(k, self.const(n, -0.693359375), inside)
        r = self.fma(k, self.const(n, 2.12194440054690583e-4), r)
        p = self.fma(self.mul(r, r), self.polynomial(r, _EXP), self.add(r, self.const(n, 1.0)))
        # 2**k in two factors, since k reaches 128.
        half = self.integer("ashr", whole, 1)
        rest = self.integer("sub", whole, half)
        for part in (half, rest):
            p = self.mul(p, self.from_bits(self.integer("shl", self.integer("add", part, 127), 23)))
        p = self.select(self.compare("ogt", x, self.const(n, 88.7228)), self.const(n, math.inf), p)
        return self.select(self.compare("olt", x, self.const(n, -87.33)), self.const(n, 0.0), p)

    def log(self, x: Vec) -> Vec:
        """Natural logarithm: relative error below 2e-7 (absolute near 1); -inf at 0, NaN below."""
        n = x.n
        tiny = self.compare("olt", x, self.const(n, 1.17549435e-38))
        scaled = self.select(tiny, self.mul(x, self.const(n, 8388608.0)), x)
        bias = self.select(tiny, self.const(n, 23.0), self.const(n, 0.0))
        # Mantissa in [sqrt 1/2, sqrt 2): shift the exponent boundary there.
        offset = self.integer("sub", self.bits(scaled), 0x3F3504F3)
        exponent = self.integer("ashr", offset, 23)
        mantissa = self.from_bits(self.integer("add", self.integer("and", offset, 0x007FFFFF), 0x3F3504F3))
        k = self.sub(self.to_float(exponent), bias)
        f = self.sub(mantissa, self.const(n, 1.0))
        square = self.mul(f, f)
        y = self.mul(self.mul(square, f), self.polynomial(f, _LOG))
        y = self.fma(k, self.const(n, -2.12194440e-4), y)
        y = self.fma(square, self.const(n, -0.5), y)
        y = self.fma(k, self.const(n, 0.693359375), self.add(f, y))
        y = self.select(self.compare("oeq", x, self.const(n, math.inf)), x, y)
        y = self.select(self.compare("oeq", x, self.const(n, 0.0)), self.const(n, -math.inf), y)
        return self.select(self.compare("oge", x, self.const(n, 0.0)), y, self.const(n, math.nan))

    def log1p(self, x: Vec) -> Vec:
        """``log(1 + x)``, exact for small x: the rounding of 1 + x is put back."""
        n = x.n
        one = self.const(n, 1.0)
        u = self.add(one, x)
        lost = self.sub(x, self.sub(u, one))
        y = self.add(self.log(u), self.div(lost, u))
        return self.select(self.compare("ogt", x, self.const(n, 1e30)), self.log(x), y)

    def expm1(self, x: Vec) -> Vec:
        """``exp(x) - 1``; near 0 through tanh, where the difference would lose digits."""
        n = x.n
        t = self.tanh(self.mul(x, self.const(n, 0.5)))
        near = self.div(self.add(t, t), self.sub(self.const(n, 1.0), t))
        small = self.compare("olt", self.abs(x), self.const(n, 0.5))
        return self.select(small, near, self.sub(self.exp(x), self.const(n, 1.0)))

    def tanh(self, x: Vec) -> Vec:
        """Hyperbolic tangent, a rational of degree 9 over 8: absolute error below 2e-7."""
        x = self.clamp(x, -9.0, 9.0)
        y = self.mul(x, x)
        return self.div(self.mul(x, self.polynomial(y, _TANH_P)), self.polynomial(y, _TANH_Q))

    def sigmoid(self, x: Vec) -> Vec:
        """``1 / (1 + exp(-x))`` through tanh: absolute error below 2e-7."""
        half = self.const(x.n, 0.5)
        return self.fma(self.tanh(self.mul(x, half)), half, half)

    def erf(self, x: Vec) -> Vec:
        """Error function, a rational of degree 11 over 10: absolute error below 3e-7."""
        x = self.clamp(x, -4.0, 4.0)
        y = self.mul(x, x)
        return self.div(self.mul(x, self.polynomial(y, _ERF_P)), self.polynomial(y, _ERF_Q))

    def sin_cos(self, x: Vec) -> tuple[Vec, Vec]:
        """Sine and cosine for ``|x| < 1e4``: absolute error below 3e-7."""
        n = x.n
        q, whole = self.round_small(self.mul(x, self.const(n, 2.0 / math.pi)))
        r = self.fma(q, self.const(n, -1.5703125), x)
        r = self.fma(q, self.const(n, -4.837512969970703125e-4), r)
        r = self.fma(q, self.const(n, -7.549789948768648e-8), r)
        y = self.mul(r, r)
        s = self.fma(self.mul(y, r), self.polynomial(y, _SIN), r)
        c = self.fma(self.mul(y, y), self.polynomial(y, _COS), self.fma(y, self.const(n, -0.5), self.const(n, 1.0)))
        odd = self._is_set(whole, 1)
        sine, cosine = self.select(odd, c, s), self.select(odd, s, c)
        sine = self.select(self._is_set(whole, 2), self.neg(sine), sine)
        return sine, self.select(self._is_set(self.integer("add", whole, 1), 2), self.neg(cosine), cosine)

    def _is_set(self, word: Word, bit: int) -> Mask:
        masked = self.integer("and", word, bit)
        zero = "0" if word.n == 1 else "zeroinitializer"
        return Mask(self.value(f"icmp ne {_int_type(word.n)} {masked.name}, {zero}"), word.n)

    def atan2(self, y: Vec, x: Vec) -> Vec:
        """Angle of ``(x, y)``: absolute error below 4e-7; 0 at the origin."""
        n = y.n
        ax, ay = self.abs(x), self.abs(y)
        large, small = self.max(ax, ay), self.min(ax, ay)
        safe = self.max(large, self.const(n, 1e-37))
        t = self.div(small, safe)
        square = self.mul(t, t)
        angle = self.fma(self.mul(square, t), self.polynomial(square, _ATAN), t)
        steep = self.compare("ogt", ay, ax)
        angle = self.select(steep, self.sub(self.const(n, math.pi / 2), angle), angle)
        left = self.compare("olt", x, self.const(n, 0.0))
        angle = self.select(left, self.sub(self.const(n, math.pi), angle), angle)
        return self.select(self.compare("olt", y, self.const(n, 0.0)), self.neg(angle), angle)

    def floor(self, x: Vec) -> Vec:
        """Largest whole number not above ``x``."""
        near, _ = self.round_small(x)
        one, zero = self.const(x.n, 1.0), self.const(x.n, 0.0)
        down = self.sub(near, self.select(self.compare("ogt", near, x), one, zero))
        return self.select(self.compare("olt", self.abs(x), self.const(x.n, 4194304.0)), down, x)

    def round(self, x: Vec) -> Vec:
        """Nearest whole number, halves to even."""
        near, _ = self.round_small(x)
        return self.select(self.compare("olt", self.abs(x), self.const(x.n, 4194304.0)), near, x)

    def power(self, x: Vec, exponent: float) -> Vec:
        """``x ** exponent`` for a literal exponent; a fractional one needs ``x >= 0``."""
        n = x.n
        if exponent == 0:
            return self.const(n, 1.0)
        if exponent < 0:
            return self.div(self.const(n, 1.0), self.power(x, -exponent))
        if exponent == 0.5:
            return self.sqrt(x)
        if exponent == int(exponent) and exponent <= 64:
            result, factor, rest = None, x, int(exponent)
            while rest:
                if rest & 1:
                    result = factor if result is None else self.mul(result, factor)
                rest >>= 1
                if rest:
                    factor = self.mul(factor, factor)
            assert result is not None
            return result
        return self.exp(self.mul(self.log(x), self.const(n, exponent)))
