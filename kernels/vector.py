"""Explicit-vector code generation: what the automatic vectoriser gives up on, written as LLVM IR.

LLVM refuses to vectorise a butterfly that reads eight streams and writes eight others through raw pointers,
because it cannot prove that they do not overlap. A `Vectors` emits the vector loads, operations and stores
directly, through the compiler that numba uses anyway. The functions made here have C linkage inside the
module of their caller: no reference counts, no error path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types

from .native import intrinsic

#: Lanes of a vector. Processors with narrower registers split it, wider ones leave half unused.
LANES = 8

WORD = ir.IntType(64)
_HALF = ir.IntType(32)
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_CONTRACT = ("contract",)


class Vectors:
    """Emit operations on vectors of 8 float32 at the position of an IR builder."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def word(self, value: int) -> Any:
        """Make an integer constant."""
        return ir.Constant(WORD, value)

    def constant(self, value: float) -> Any:
        """Make a vector with the same number in each lane."""
        return ir.Constant(_VECTOR, [float(value)] * LANES)

    def pointer(self, address: Any, index: Any) -> Any:
        """Pointer to the float32 ``index`` of the array at an address."""
        start = self.builder.inttoptr(address, _FLOAT.as_pointer())
        return self.builder.gep(start, [index], source_etype=_FLOAT)

    def load(self, address: Any, index: Any) -> Any:
        """Read 8 numbers."""
        where = self.builder.bitcast(self.pointer(address, index), _VECTOR.as_pointer())
        return self.builder.load(where, align=4, typ=_VECTOR)

    def store(self, value: Any, address: Any, index: Any) -> None:
        """Write 8 numbers."""
        where = self.builder.bitcast(self.pointer(address, index), _VECTOR.as_pointer())
        self.builder.store(value, where, align=4)

    def broadcast(self, address: Any, index: Any) -> Any:
        """Read one number into all lanes."""
        number = self.builder.load(self.pointer(address, index), align=4, typ=_FLOAT)
        lane = self.builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, ir.Constant(_HALF, 0))
        return self.shuffle(lane, lane, [0] * LANES)

    def shuffle(self, a: Any, b: Any, order: Sequence[int]) -> Any:
        """Choose lanes of ``a`` (0..7) and ``b`` (8..15)."""
        mask = ir.Constant(ir.VectorType(_HALF, len(order)), list(order))
        return self.builder.shuffle_vector(a, b, mask)

    def reverse(self, a: Any) -> Any:
        """Turn the order of the lanes round."""
        return self.shuffle(a, a, range(LANES - 1, -1, -1))

    def transpose(self, rows: Sequence[Any]) -> list[Any]:
        """Turn 8 rows of 8 numbers into 8 columns, in three steps of two-operand shuffles."""
        low = [0, 8, 1, 9, 4, 12, 5, 13]
        high = [2, 10, 3, 11, 6, 14, 7, 15]
        pairs = [self.shuffle(rows[i], rows[i + 1], order) for i in (0, 2, 4, 6) for order in (low, high)]
        left = [0, 1, 8, 9, 4, 5, 12, 13]
        right = [2, 3, 10, 11, 6, 7, 14, 15]
        quads = []
        for half in (0, 4):
            for i in (0, 1):
                for order in (left, right):
                    quads.append(self.shuffle(pairs[half + i], pairs[half + i + 2], order))
        bottom = [0, 1, 2, 3, 8, 9, 10, 11]
        top = [4, 5, 6, 7, 12, 13, 14, 15]
        return [self.shuffle(quads[i], quads[i + 4], order) for order in (bottom, top) for i in range(4)]

    def add(self, a: Any, b: Any) -> Any:
        """Sum, free to become half of a fused multiply-add."""
        return self.builder.fadd(a, b, flags=_CONTRACT)

    def sub(self, a: Any, b: Any) -> Any:
        """Difference, free to become half of a fused multiply-add."""
        return self.builder.fsub(a, b, flags=_CONTRACT)

    def mul(self, a: Any, b: Any) -> Any:
        """Product, free to become half of a fused multiply-add."""
        return self.builder.fmul(a, b, flags=_CONTRACT)

    @contextmanager
    def loop(self, start: Any, stop: Any, step: Any) -> Iterator[Any]:
        """Emit the body once for ``for i in range(start, stop, step)`` and yield ``i``."""
        builder = self.builder
        before = builder.block
        test = builder.append_basic_block("test")
        body = builder.append_basic_block("body")
        after = builder.append_basic_block("after")
        builder.branch(test)
        builder.position_at_end(test)
        index = builder.phi(WORD)
        index.add_incoming(start, before)
        builder.cbranch(builder.icmp_signed("<", index, stop), body, after)
        builder.position_at_end(body)
        yield index
        index.add_incoming(builder.add(index, step), builder.block)
        builder.branch(test)
        builder.position_at_end(after)


@intrinsic
def square_root(typingctx: Any, x: Any) -> Any:
    """Take the square root of a float64 in one instruction; numba's own calls the C library."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.sqrt", [ir.DoubleType()]), args)

    return types.float64(types.float64), codegen


def emitted(arguments: int) -> Callable[[Callable[..., None]], Any]:
    """Make a function of int64 arguments whose body is emitted by Python code.

    The decorated function gets a `Vectors` and the argument values and emits IR up to, not including, the
    return. Numba code calls the result like any function.
    """

    def decorate(emit: Callable[..., None]) -> Any:
        name = f"rtgan_{emit.__name__.lstrip('_')}"

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            module = builder.module
            function = module.globals.get(name)
            if function is None:
                function = ir.Function(module, ir.FunctionType(ir.VoidType(), [WORD] * arguments), name)
                function.linkage = "internal"
                function.attributes.add("nounwind")
                inner = ir.IRBuilder(function.append_basic_block("entry"))
                emit(Vectors(inner), *function.args)
                inner.ret_void()
            builder.call(function, args)
            return context.get_dummy_value()

        word = types.int64
        signature = types.void(*[word] * arguments)
        # The parameter list of an intrinsic must be spelled out, hence one wrapper for each count.
        wrappers: dict[int, Any] = {
            3: lambda typingctx, a, b, c: (signature, codegen),
            4: lambda typingctx, a, b, c, d: (signature, codegen),
            5: lambda typingctx, a, b, c, d, e: (signature, codegen),
            6: lambda typingctx, a, b, c, d, e, f: (signature, codegen),
            7: lambda typingctx, a, b, c, d, e, f, g: (signature, codegen),
        }
        wrapper = wrappers[arguments]
        wrapper.__name__ = wrapper.__qualname__ = emit.__name__
        wrapper.__doc__ = emit.__doc__
        return intrinsic(wrapper)

    return decorate
