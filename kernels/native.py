"""What numba lacks for code on the audio thread: raw memory, atomics, calls through pointers.

Every entry point that the audio thread reaches is written on raw addresses (``int64``) and on the typed
pointers made here, never on arrays: array code keeps reference counts and error paths that end in the
Python C API, and none of that may exist on that thread. All functions below are numba intrinsics or force
inlined, so that nothing of them remains but the machine instruction they stand for.

Thread: any. None of them allocates, locks, raises or calls the operating system.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import numba
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import caching
from numba.core import runtime as _numba_runtime
from numba.core.caching import Cache
from numba.extending import intrinsic as _intrinsic

from rtgan import kernel_cache

# numba types its decorators for Python callers; what they make is called from compiled code.
intrinsic: Any = _intrinsic
_cfunc: Any = numba.cfunc
_njit: Any = numba.njit

_F = TypeVar("_F", bound=Callable[..., Any])


def _ours(cache: Any) -> bool:
    module: str = cache._py_func.__module__
    return module.startswith("rtgan.")


def _look_into_the_cache_first() -> None:
    """Load our cached functions without numba's whole library of types.

    Before numba looks into its cache it loads every implementation it knows, and scipy where it is installed:
    more than half of the time from start to sound. Functions on scalars, addresses and plain arrays need none of
    that to be loaded; a compilation, where the cache has nothing, loads it all by itself.
    """
    library: Any = Cache
    original = library.load_overload

    def load_overload(self: Any, sig: Any, target_context: Any) -> Any:
        if not _ours(self):
            return original(self, sig, target_context)
        runtime: Any = _numba_runtime.rtsys  # type: ignore[attr-defined]
        runtime.initialize(target_context)  # symbols that wrappers of array functions are linked with
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)

    if all(hasattr(Cache, name) for name in ("_load_overload", "_guard_against_spurious_io_errors")):
        library.load_overload = load_overload


def _keep_machine_code_only() -> None:
    """Cache our functions without their LLVM code, beside the machine code.

    numba keeps it for functions that would inline a cached one. Ours are called by address or from Python, and
    reading it was most of the time that a start needs to load the callback. Only the names that it defines stay.
    """
    library: Any = Cache
    original = library.save_overload

    def lean(reduced: Any) -> Any:
        match reduced:
            case ((str() as name, "object", (bytes() as machine, bytes() as code)), *rest):
                module = llvm.parse_bitcode(code)
                defined = (v.name for v in (*module.functions, *module.global_variables) if not v.is_declaration)
                names = llvm.parse_assembly("\n".join(f'@"{symbol}" = global i8 0' for symbol in defined))
                return ((name, "object", (machine, names.as_bitcode())), *rest)
        return reduced

    def save_overload(self: Any, sig: Any, data: Any) -> None:
        reduce = getattr(getattr(self, "_impl", None), "reduce", None)
        if _ours(self) and reduce is not None:
            self._impl.reduce = lambda result: lean(reduce(result))
        original(self, sig, data)

    library.save_overload = save_overload


_look_into_the_cache_first()
_keep_machine_code_only()


class _Folder:
    """Where numba keeps the compiled form of one of our functions: in its module's folder, wherever that lies.

    numba's own locators go by the path and the time of the source, so that an installed package would compile anew
    what a checkout has compiled; the name of our folder is a hash of all that counts.
    """

    _function: Any = None

    def __init__(self, function: Any) -> None:
        self._path = str(kernel_cache.folder(function.__module__))
        self._line = str(function.__code__.co_firstlineno)

    @classmethod
    def from_function(cls, function: Any, file: str) -> _Folder | None:
        """The place of the function that is being decorated; other functions have places of numba's choice."""
        return cls(function) if function is cls._function else None

    def ensure_cache_path(self) -> None:
        """The folder is there, and was written to."""

    def get_cache_path(self) -> str:
        return self._path

    def get_source_stamp(self) -> str:
        return ""

    def get_disambiguator(self) -> str:
        return self._line


_implementation: Any = getattr(caching, "CacheImpl", None) or getattr(caching, "_CacheImpl")  # noqa: B009
_implementation._locator_classes.insert(0, _Folder)


def _cached(decorate: Any, function: Any) -> Any:
    """Decorate with the compiled form kept in the folder of the function's module."""
    before, _Folder._function = _Folder._function, function
    try:
        return decorate(function)
    finally:
        _Folder._function = before


def cfunc(signature: Any, *, cache: bool = False, **options: Any) -> Any:
    """`numba.cfunc`, with the cache that belongs to the function's module."""

    def decorate(function: Any) -> Any:
        compiled = _cfunc(signature, cache=cache, **options)
        return _cached(compiled, function) if cache else compiled(function)

    return decorate


#: Options of every kernel on raw memory. ``fastmath`` is chosen kernel by kernel: in sample-rate loops it
#: would break bit-exact block-size invariance.
NODE_SIGNATURE = types.void(types.int64, types.int64, types.int64)


def kernel(*signatures: Any, fastmath: bool = False) -> Callable[[_F], _F]:
    """Make a kernel on arrays or scalars that Python may call: explicit signatures, cached, no GIL.

    It is taken from the cache, or compiled, at its first call: a start to play needs hardly any of them.
    """

    def decorate(function: _F) -> _F:
        compiled: Any = None

        @wraps(function)
        def call(*arguments: Any) -> Any:
            nonlocal compiled
            if compiled is None:
                decorator = _njit(
                    list(signatures), cache=True, nogil=True, fastmath=fastmath, error_model="numpy", boundscheck=False
                )
                compiled = _cached(decorator, function)
            return compiled(*arguments)

        return cast(_F, call)

    return decorate


def inline(function: _F) -> _F:
    """Force a helper into its caller, so that the caller keeps no error path of a call."""
    compiled: _F = _njit(forceinline=True, error_model="numpy", boundscheck=False, no_cpython_wrapper=True)(function)
    return compiled


def inline_fast(function: _F) -> _F:
    """Like `inline`, with floating-point reassociation: for loops of fixed length at frame rate only."""
    compiled: _F = _njit(
        forceinline=True, error_model="numpy", boundscheck=False, no_cpython_wrapper=True, fastmath=True
    )(function)
    return compiled


#: Every function compiled with `node`, by qualified name: the audit of the audio thread walks this table.
NODES: dict[str, Any] = {}


def node(function: Callable[[int, int, int], None]) -> Any:
    """Compile ``f(state, io, n)`` to a C function ``void (int64, int64, int64)`` for the audio thread.

    Returns the numba cfunc; its ``address`` goes into the node table.
    """
    compiled = cfunc(NODE_SIGNATURE, cache=True, error_model="numpy", boundscheck=False)(function)
    NODES[f"{function.__module__}.{function.__qualname__}"] = compiled
    return compiled


def _pointer_cast(item: types.Type, name: str) -> Any:
    def typed(typingctx: Any, address: Any) -> Any:
        if not isinstance(address, types.Integer):
            return None

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(item).as_pointer())

        pointer: Any = types.CPointer
        return pointer(item)(types.int64), codegen

    typed.__name__ = typed.__qualname__ = name
    typed.__doc__ = f"Address to a typed pointer on ``{item}``: ``p[i]`` reads and writes."
    return intrinsic(typed)


f32p = _pointer_cast(types.float32, "f32p")
f64p = _pointer_cast(types.float64, "f64p")
i32p = _pointer_cast(types.int32, "i32p")
i64p = _pointer_cast(types.int64, "i64p")
u8p = _pointer_cast(types.uint8, "u8p")


@intrinsic
def load_acquire(typingctx: Any, address: Any) -> Any:
    """Read the int64 at an address; later reads are not moved before it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        return builder.load_atomic(builder.inttoptr(args[0], word.as_pointer()), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def store_release(typingctx: Any, address: Any, value: Any) -> Any:
    """Write the int64 at an address; earlier writes are not moved after it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        builder.store_atomic(args[1], builder.inttoptr(args[0], word.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def exchange(typingctx: Any, address: Any, value: Any) -> Any:
    """Write the int64 at an address and return what stood there, in one step (acquire and release)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        pointer = builder.inttoptr(args[0], word.as_pointer())
        return builder.atomic_rmw("xchg", pointer, args[1], "acq_rel")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def call_node(typingctx: Any, function: Any, state: Any, io: Any, n: Any) -> Any:
    """Call ``void (int64, int64, int64)`` at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        ftype = ir.FunctionType(ir.VoidType(), [word, word, word])
        builder.call(builder.inttoptr(args[0], ftype.as_pointer()), list(args[1:]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def call_net(typingctx: Any, function: Any, arena: Any, weights: Any) -> Any:
    """Call a lowered generator, ``void (float *arena, const float *weights)``, at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        ftype = ir.FunctionType(ir.VoidType(), [word, word])
        builder.call(builder.inttoptr(args[0], ftype.as_pointer()), list(args[1:]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def _architecture() -> str:
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64", "i386", "i686"):
        return "x86"
    if machine in ("aarch64", "arm64"):
        return "arm64"
    return "other"


_ARCHITECTURE = _architecture()


@intrinsic
def ticks(typingctx: Any) -> Any:
    """Read the processor's constant-rate counter: time without a system call (0 where there is none)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        if _ARCHITECTURE == "x86":
            function = builder.module.declare_intrinsic("llvm.readcyclecounter", fnty=ir.FunctionType(word, []))
            return builder.call(function, [])
        if _ARCHITECTURE == "arm64":
            return builder.asm(ir.FunctionType(word, []), "mrs $0, cntvct_el0", "=r", [], True)
        return ir.Constant(word, 0)

    return types.int64(), codegen


@intrinsic
def flush_denormals(typingctx: Any) -> Any:
    """Make this thread flush denormal results and operands to zero; returns the control word to restore."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        if _ARCHITECTURE == "x86":
            half = ir.IntType(32)
            slot = builder.alloca(half)
            get = builder.module.declare_intrinsic(
                "llvm.x86.sse.stmxcsr", fnty=ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer()])
            )
            put = builder.module.declare_intrinsic(
                "llvm.x86.sse.ldmxcsr", fnty=ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer()])
            )
            raw = builder.bitcast(slot, ir.IntType(8).as_pointer())
            builder.call(get, [raw])
            old = builder.load(slot)
            builder.store(builder.or_(old, ir.Constant(half, 0x8040)), slot)
            builder.call(put, [raw])
            return builder.zext(old, word)
        if _ARCHITECTURE == "arm64":
            old = builder.asm(ir.FunctionType(word, []), "mrs $0, fpcr", "=r", [], True)
            new = builder.or_(old, ir.Constant(word, 1 << 24))
            builder.asm(ir.FunctionType(ir.VoidType(), [word]), "msr fpcr, $0", "r", [new], True)
            return old
        return ir.Constant(word, 0)

    return types.int64(), codegen


@intrinsic
def restore_denormals(typingctx: Any, control: Any) -> Any:
    """Put back what `flush_denormals` returned."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        if _ARCHITECTURE == "x86":
            half = ir.IntType(32)
            slot = builder.alloca(half)
            builder.store(builder.trunc(args[0], half), slot)
            put = builder.module.declare_intrinsic(
                "llvm.x86.sse.ldmxcsr", fnty=ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer()])
            )
            builder.call(put, [builder.bitcast(slot, ir.IntType(8).as_pointer())])
        elif _ARCHITECTURE == "arm64":
            builder.asm(ir.FunctionType(ir.VoidType(), [word]), "msr fpcr, $0", "r", [args[0]], True)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@inline
def smaller(a: Any, b: Any) -> Any:
    """The smaller of two numbers. The builtin keeps an error path that ends in the interpreter."""
    return a if a < b else b


@inline
def larger(a: Any, b: Any) -> Any:
    """The larger of two numbers; see `smaller`."""
    return a if a > b else b


@intrinsic
def call_stream(
    typingctx: Any, function: Any, source: Any, target: Any, frames: Any, time_info: Any, flags: Any, user: Any
) -> Any:
    """Call a stream callback, ``int32 (6 x int64)``, at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        ftype = ir.FunctionType(ir.IntType(32), [ir.IntType(64)] * 6)
        return builder.call(builder.inttoptr(args[0], ftype.as_pointer()), list(args[1:]))

    return types.int32(*[types.int64] * 7), codegen


@intrinsic
def call_foreign(typingctx: Any, function: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Call a C function of up to four integers or pointers at an address; the result as it stands in the register.

    Surplus arguments do no harm where arguments travel in registers, as on every platform numba knows. Of a
    32-bit result only the lower half means anything.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        ftype = ir.FunctionType(word, [word] * 4)
        return builder.call(builder.inttoptr(args[0], ftype.as_pointer()), list(args[1:]))

    return types.int64(*[types.int64] * 5), codegen
