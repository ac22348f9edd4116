"""Record what a torch module does to its inputs, as a `Program`. The only file of playing's side that needs torch.

The module is run once under a dispatch mode within ``torch.inference_mode``: composite operations (linear, conv,
gru ...) stay whole, and storage identity, offsets and strides come with the tensors, so views vanish and in-place
writes are exact. Control flow is baked in, as by any trace; it is therefore recorded from different inputs and a
module whose record differs, or that looks at a value, is refused.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rtgan.errors import NotLowered, RtganError
from rtgan.generators import chance, compositions
from rtgan.generators.operations import SUPPORTED
from rtgan.generators.program import Program, Storage, View

Tensor = torch.Tensor

#: Operations whose complex results are recorded as they are.
FOURIER = {"_fft_c2c", "_fft_r2c", "_fft_c2r"}
#: The result depends on the shape of the argument only, never on its values.
_CREATION = {
    "empty_like", "zeros_like", "ones_like", "full_like", "new_empty", "new_zeros", "new_ones", "new_full",
    "new_empty_strided", "empty_strided",
}  # fmt: skip
_EMPTY = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted"}
#: These hand a value of a tensor to the program's control flow.
_READS = {"_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "nonzero", "masked_select", "unique"}
#: Random only through a dropout rate.
_DROPOUTS = {
    "dropout", "gru", "lstm", "rnn_tanh", "rnn_relu", "scaled_dot_product_attention", "alpha_dropout",
    "feature_dropout", "feature_alpha_dropout", "rrelu",
}  # fmt: skip
#: Types of values that programs hold, all as float32.
_TYPES = (torch.float32, torch.bool, torch.int64, torch.int32)
_WHOLE = (torch.int64, torch.int32)
#: Other types by the operations that make them.
_CONVERSIONS = {"to", "_to_copy", "copy"}
#: Operations that mean bits, of which truth has one and whole numbers many.
_BITS = {"bitwise_and", "bitwise_or", "bitwise_not"}
#: Operations of which the result may be truth.
_TRUTHS = _BITS | _CONVERSIONS | {
    "eq", "ne", "gt", "ge", "lt", "le", "greater", "less", "logical_and", "logical_or", "logical_not", "logical_xor",
    "mul", "amax", "amin", "where", "maximum", "minimum", "clone", "contiguous", "cat", "stack", "reshape", "flip",
    "flatten", "_reshape_copy", "view_copy", "expand_copy", "alias_copy", "_unsafe_view", "constant_pad_nd", "pad",
    "repeat", "repeat_interleave", "roll", "index", "index_select", "gather", "index_put", "index_copy", "scatter",
    "masked_fill", "fill", "zero", "start", "slice_scatter", "select_scatter", "take", "max", "min", "lift_fresh_copy",
}  # fmt: skip
_DROPPED = {"dtype", "layout", "device", "pin_memory", "memory_format", "generator", "non_blocking", "out"}


class _Refused(Exception):
    """Raised inside the module's run; becomes one sentence once the source line is known."""


def _is_complex(value: Any) -> bool:
    kind = value.dtype if isinstance(value, Tensor) else value
    return isinstance(kind, complex) or (isinstance(kind, torch.dtype) and kind.is_complex)


def _real(t: Tensor) -> Tensor:
    """Complex values as pairs of real ones in the same memory."""
    return torch.view_as_real(t) if t.is_complex() else t


def _is_still(name: str, given: dict[str, Any]) -> bool:
    """Whether an operation that can be random is not, with these arguments."""
    rate = given.get("dropout", given.get("dropout_p", given.get("p", 0.0)))
    return name in _DROPOUTS and (not rate or not given.get("train", given.get("training", True)))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collect the operations that depend on the inputs or on mutable state."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """What this would keep out is never there, and keeping it out costs the import of a compiler: a second."""
        return False

    def __init__(self, seed: int | None = None, like: _Recorder | None = None, keeps: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seed, self.draws = seed, 0
        #: Weights are copied in one run of three; of the next it is only asked whether they are the same.
        self.like, self.keeps, self.differs = like, keeps, False
        self.ops: list[dict[str, Any]] = []
        self.storages: list[Storage] = []
        #: Weights by where they start.
        self.kept: dict[int, np.ndarray[Any, Any]] = {}
        self.length = 0
        self.alive: list[Tensor] = []
        self.ids: dict[int, int] = {}
        self.of: dict[int, Tensor] = {}
        self.tainted: set[int] = set()
        self.exported: dict[int, int] = {}
        self.written: set[int] = set()
        #: Storages made in this run, and those written that were there before it, as they were.
        self.fresh: set[int] = set()
        self.hidden: dict[int, tuple[Tensor, Tensor]] = {}
        self.reason: str | None = None

    # -- memory

    def key(self, t: Tensor) -> int:
        k = int(t.untyped_storage()._cdata)
        if k not in self.of:
            # A live reference keeps the storage's address from being used again.
            self.alive.append(t)
            self.of[k] = t
        return k

    def store(self, values: np.ndarray[Any, Any]) -> int:
        at, room = self.length, -(-values.size // 16) * 16
        self.length += room
        if not room:
            return at
        if self.like is not None:
            before = self.like.kept.get(at)
            # Bits, so that what is no number equals itself.
            same = (
                before is not None
                and before.size == room
                and np.array_equal(before[: values.size].view(np.int32), values.view(np.int32))
            )
            self.differs |= not same
        elif self.keeps:
            padded = np.empty(room, np.float32)
            padded[: values.size], padded[values.size :] = values, 0
            self.kept[at] = padded
        return at

    def whole(self, t: Tensor) -> np.ndarray[Any, Any]:
        """All values of a tensor's storage, which may be that very memory."""
        size = t.untyped_storage().nbytes() // t.element_size()
        flat = torch.empty(0, dtype=t.dtype).set_(t.untyped_storage(), 0, (size,), (1,))
        return _real(flat).to(torch.float32).numpy().ravel()

    def declare(self, t: Tensor, kind: str) -> int:
        k = self.key(t)
        size = t.untyped_storage().nbytes() // _real(t).element_size()
        at = self.store(self.whole(t)) if kind in ("const", "state") else -1
        self.storages.append(Storage(size, kind, at))
        index = len(self.storages) - 1
        if kind == "const":
            self.exported[k] = index
        else:
            self.ids[k] = index
            self.tainted.add(k)
        return index

    def view(self, t: Tensor) -> View:
        t = _real(t)
        k = self.key(t)
        if k in self.tainted:
            index = self.ids[k]
        else:
            index = self.exported[k] if k in self.exported else self.declare(t, "const")
        return View(index, int(t.storage_offset()), tuple(t.shape), tuple(t.stride()))

    # -- operations

    def draw(self, name: str, made: Tensor) -> Tensor:
        """Random values, which the program draws by itself."""
        if made.dtype != torch.float32 or not made.is_contiguous():
            raise self.refuse(f"the operation aten::{name} draws other random values than float32 in order")
        self.declare(made, "temp")
        arguments = {"kind": chance.KINDS[name], "seed": self.seed, "number": self.draws}
        self.ops.append({"op": "chance", "args": arguments, "out": [self.view(made).json()], "at": ""})
        self.draws += 1
        return made

    def refuse(self, reason: str) -> _Refused:
        """Remember why: TorchScript's interpreter loses the exception's text."""
        self.reason = reason
        return _Refused(reason)

    def plain(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if self.key(value) not in self.tainted and value.dtype in (torch.int64, torch.int32, torch.bool):
                return {"ints": [int(v) for v in value.reshape(-1).tolist()], "shape": list(value.shape)}
            return {"t": self.view(value).json()}
        if isinstance(value, (list, tuple)):
            return [self.plain(v) for v in value]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        return str(value)

    def composed(
        self, func: Any, stem: str, given: dict[str, Any], targets: list[Tensor], call: list[Any], options: Any
    ) -> Any:
        """What an operation is made of, done and recorded; `NotImplemented` for one that is recorded itself."""
        values = [v for g in given.values() for v in (g if isinstance(g, (list, tuple)) else [g])]
        turned = stem in ("complex", "polar") or any(map(_is_complex, values))
        result: Any = NotImplemented
        if stem in FOURIER and given["self"].is_conj():
            with self:
                return func(compositions.resolved(given["self"]), *call[1:], **options)
        with self, self.known(stem):
            if turned and stem not in FOURIER:
                if stem in compositions.COMPLEX:
                    result = compositions.COMPLEX[stem](given)
                elif stem in compositions.APART:
                    names = [a.name for a in func._schema.arguments if not a.kwarg_only]
                    result = compositions.apart(
                        given, lambda g: func(*(g[n] for n in names if n in g), **{k: g[k] for k in options})
                    )
                elif not func._schema.is_mutable:
                    result = func.decompose(*call, **options)
            else:
                if stem in compositions.COMPOSED:
                    result = compositions.COMPOSED[stem](given)
                if result is NotImplemented and stem not in SUPPORTED and not func._schema.is_mutable:
                    result = func.decompose(*call, **options)
            if result is not NotImplemented and targets and result is not targets[0]:
                result = targets[0].copy_(result)
        if result is NotImplemented and turned and stem not in FOURIER:
            return self.viewed(func, stem, call, options)
        return result

    @contextlib.contextmanager
    def known(self, stem: str) -> Iterator[None]:
        """Refuse arguments that a composition does not expect."""
        try:
            yield
        except _Refused:
            raise
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise self.refuse(f"the operation aten::{stem} has arguments that are not known ({reason})") from error

    def viewed(self, func: Any, stem: str, call: list[Any], options: Any) -> Any:
        """Another view of complex values, which is nothing to be recorded."""
        result = func(*call, **options)
        made = [r for r in (result if isinstance(result, (list, tuple)) else [result]) if isinstance(r, Tensor)]
        if func._schema.is_mutable or any(self.key(r) not in self.tainted for r in made):
            raise self.refuse(f"the operation aten::{stem} on complex values is not known")
        return result

    def places(self, indices: Any) -> list[Any]:
        """Indices of which none is truth: where it is known, its places; where it is not, refused."""
        found: list[Any] = []
        for index in indices:
            if index is None or index.dtype != torch.bool:
                found.append(index)
            elif self.key(index) in self.tainted:
                raise self.refuse("its course depends on the data (what a mask picks has no fixed size)")
            else:
                found += index.nonzero(as_tuple=True)
        return found

    def typed(
        self, name: str, stem: str, given: dict[str, Any], plain: dict[str, Any], result: Tensor
    ) -> tuple[str, dict[str, Any]]:
        """The operation that makes this type of values; others than float32 are kept as float32 too."""
        source = given.get("src", given.get("self", given.get("input")))
        before = source.dtype if isinstance(source, Tensor) else None
        if stem in _CONVERSIONS and isinstance(source, Tensor):
            value = plain["src" if "src" in given else "self" if "self" in given else "input"]
            if result.dtype == torch.bool and before != torch.bool:
                return "ne", {"self": value, "other": 0}
            if result.dtype in _WHOLE and before == torch.float32:
                return "trunc", {"self": value}
        elif given.get("dtype") is not None and result.dtype in _WHOLE and before == torch.float32:
            raise self.refuse(f"the operation aten::{name} makes whole numbers of others")
        elif result.dtype == torch.bool and stem not in _TRUTHS:
            raise self.refuse(f"the operation aten::{name} is not known for truth")
        elif stem in _BITS and any(isinstance(v, Tensor) and v.dtype != torch.bool for v in given.values()):
            raise self.refuse(f"the operation aten::{name} is known for truth only, not for bits")
        return stem, plain

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        schema = func._schema
        name = schema.name.split("::")[-1]
        given: dict[str, Any] = {}
        for i, argument in enumerate(schema.arguments):
            if i < len(args):
                given[argument.name] = args[i]
            elif argument.name in kwargs:
                given[argument.name] = kwargs[argument.name]
            elif argument.has_default_value():
                given[argument.name] = argument.default_value
            if str(argument.type) == "Tensor" and isinstance(given.get(argument.name), (bool, int, float)):
                # TorchScript hands plain numbers to arguments that are tensors.
                given[argument.name] = torch.tensor(given[argument.name])
        if any(isinstance(v, Tensor) and v.is_neg() for v in given.values()):
            # Imaginary parts of conjugates: the same memory with a flag.
            flagged = {k: torch._neg_view(v) for k, v in given.items() if isinstance(v, Tensor) and v.is_neg()}
            with self:
                given.update({k: -v for k, v in flagged.items()})
        call = [given[a.name] for a in schema.arguments if not a.kwarg_only and a.name in given]
        options = {a.name: given[a.name] for a in schema.arguments if a.kwarg_only and a.name in given}

        tensors = [
            t for v in given.values() for t in (v if isinstance(v, (list, tuple)) else [v]) if isinstance(t, Tensor)
        ]
        targets = [
            given[a.name]
            for a in schema.arguments
            if a.alias_info is not None and a.alias_info.is_write and isinstance(given.get(a.name), Tensor)
        ]
        depends = any(self.key(t) in self.tainted for t in tensors)
        if name in chance.KINDS and self.seed is not None:
            return self.draw(name, func(*call, **options))
        if torch.Tag.nondeterministic_seeded in func.tags and not _is_still(name, given):
            raise self.refuse(f"the operation aten::{name} is random")
        if depends and name in _READS:
            raise self.refuse(f"its course depends on the data (aten::{name} reads a value)")
        if not depends or name in _CREATION:
            for t in targets:
                self.written.add(self.key(t))
                self.exported.pop(self.key(t), None)
            result = func(*call, **options)
            made = [r for r in (result if isinstance(result, (list, tuple)) else [result]) if isinstance(r, Tensor)]
            self.fresh |= {int(r.untyped_storage()._cdata) for r in made} - self.of.keys()
            for r in made:
                self.key(r)
            if name in _EMPTY:
                result.zero_()
            return result
        if torch.Tag.inplace_view in func.tags:
            return func(*call, **options)
        stem = name[:-1] if name.endswith("_") and not name.endswith("__") and targets else name
        if stem == "view" and schema.overload_name == "dtype":
            raise self.refuse("the operation aten::view reads bits as another type")
        found = self.composed(func, stem, given, targets, call, options)
        if found is not NotImplemented:
            return found
        for t in targets:
            self.written.add(self.key(t))
            if self.key(t) not in self.tainted:
                if self.key(t) not in self.fresh:
                    flat = torch.empty(0, dtype=t.dtype).set_(t.untyped_storage())
                    self.hidden[self.key(t)] = flat, flat.clone()
                # Written for the first time: until now it was a constant, which each run must find again.
                kept = View(self.declare(t, "const"), 0, (self.whole(t).size,), (1,))
                del self.exported[self.key(t)]
                index = self.declare(t, "temp")
                start = View(index, 0, kept.shape, (1,))
                self.ops.append({"op": "start", "args": {"self": {"t": kept.json()}}, "out": [start.json()], "at": ""})
        if stem in ("index", "index_put", "_index_put_impl"):
            given["indices"] = self.places(given["indices"])
        plain = {k: self.plain(v) for k, v in given.items() if k not in _DROPPED or (k == "out" and not targets)}
        result = func(*call, **options)
        results = [r for r in (result if isinstance(result, (list, tuple)) else [result]) if isinstance(r, Tensor)]
        if not results:
            return result
        sources = {self.key(t) for t in tensors}
        if not targets and all(self.key(r) in sources for r in results):
            return result
        if stem not in SUPPORTED:
            raise self.refuse(f"the operation aten::{name} is not known")
        for r in results:
            if r.dtype not in _TYPES and not (stem in FOURIER and r.dtype == torch.complex64):
                raise self.refuse(
                    f"the operation aten::{name} works on {str(r.dtype).removeprefix('torch.')}, not on float32"
                )
            if self.key(r) not in self.tainted:
                self.declare(r, "temp")
        stem, plain = self.typed(name, stem, given, plain, results[0])
        self.ops.append({"op": stem, "args": plain, "out": [self.view(r).json() for r in results], "at": ""})
        return result


class Drawn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives a module the random values that its program draws; ``source.again()`` begins a run.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.source = chance.Source(seed)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        kind = chance.KINDS.get(func._schema.name.split("::")[-1])
        if kind is not None:
            made.copy_(torch.from_numpy(self.source.draw(kind, made.numel())).reshape(made.shape))
        return made


def _state_tensors(module: Any) -> dict[str, Tensor]:
    if not isinstance(module, torch.nn.Module):
        return {}
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _owner(module: Any, name: str) -> tuple[Any, str]:
    *path, leaf = name.split(".")
    for part in path:
        module = getattr(module, part)
    return module, leaf


def _explain(error: BaseException) -> str:
    """Where in the scripted source something happened, from TorchScript's own traceback."""
    found = re.findall(r'File "([^"]+)", line (\d+)[^\n]*\n((?:[^\n]*\n)*?)[^\n]*~~~', str(error))
    if not found:
        return ""
    file, line, text = found[-1]
    code = text.rstrip().splitlines()[-1].strip() if text.strip() else ""
    return f" ({file.replace(chr(92), '/').rsplit('/', 1)[-1]}, line {line}{': ' + code if code else ''})"


def _flat(result: Any) -> list[Any]:
    """Outputs in tuples of tuples, in order."""
    if isinstance(result, (list, tuple)):
        return [t for part in result for t in _flat(part)]
    return [result]


def _run(
    module: Any, examples: Sequence[Tensor], mutable: set[str], recorder: _Recorder, hidden: Sequence[Tensor] = ()
) -> tuple[list[View], list[View], set[str], dict[str, Tensor]]:
    inputs = [t.detach().clone().contiguous() for t in examples]
    tensors = _state_tensors(module)
    with torch.inference_mode():
        views = []
        for t in inputs:
            recorder.declare(t, "input")
            views.append(recorder.view(t))
        for name in sorted(mutable):
            if recorder.key(tensors[name]) not in recorder.tainted:
                recorder.declare(tensors[name], "state")
        for t in hidden:
            recorder.declare(t, "state")
        try:
            with recorder:
                result = module(*inputs)
        except Exception as error:
            reason = recorder.reason
            if reason is None:
                raise RtganError(
                    f"the generator fails on its example input: {str(error).strip().splitlines()[-1]}"
                ) from error
            raise NotLowered(f"the generator cannot be lowered: {reason}{_explain(error)}") from error
        results = _flat(result)
        outputs = []
        for k, r in enumerate(results):
            if not isinstance(r, Tensor) or r.dtype != torch.float32:
                raise NotLowered(f"the generator cannot be lowered: output {k} is not a float32 tensor")
            outputs.append(recorder.view(r))
        changed = set()
        for name, after in _state_tensors(module).items():
            before = tensors.get(name)
            if before is None or recorder.key(after) == recorder.key(before):
                continue
            changed.add(name)
            if name in mutable:
                if after.shape != before.shape:
                    raise NotLowered(f"the generator cannot be lowered: its buffer {name} changes shape")
                arguments = {"self": {"t": recorder.view(before).json()}, "src": {"t": recorder.view(after).json()}}
                recorder.ops.append({"op": "copy", "args": arguments, "out": [recorder.view(before).json()], "at": ""})
    touched = changed | {n for n, t in tensors.items() if recorder.key(t) in recorder.written}
    return views, outputs, touched, tensors


def record(
    module: Any, example_inputs: Sequence[Tensor], source: str = "", meta: dict[str, Any] | None = None,
    seed: int | None = None,
) -> Program:  # fmt: skip
    """Record ``module(*example_inputs)`` as a program [main thread; needs torch].

    Parameters
    ----------
    module : torch.nn.Module, torch.jit.ScriptModule or callable
        In evaluation mode; float32. Buffers it writes become the program's own state.
    example_inputs : sequence of torch.Tensor
        float32; only their shapes matter. The module also runs on random values of these shapes.
    source : str
        SHA-256 of the file it came from.
    meta : dict
        Plain JSON kept with the program.
    seed : int, optional
        Allows random values; the program draws its own, which begin here.

    Raises
    ------
    RtganError
        When an operation is unknown or the course of the computation depends on the data; the message names the
        operation and, for scripted code, its source line.
    """
    for k, t in enumerate(example_inputs):
        if t.dtype != torch.float32:
            raise RtganError(f"the generator's input {k} is not float32")
    generator = torch.Generator().manual_seed(20240229)
    others = [[torch.randn(t.shape, generator=generator) * scale for t in example_inputs] for scale in (1.0, 0.01)]
    kept = {name: t.detach().clone() for name, t in _state_tensors(module).items()}

    def restore(names: set[str], objects: dict[str, Tensor]) -> None:
        with torch.inference_mode():
            for name in names:
                owner, leaf = _owner(module, name)
                setattr(owner, leaf, objects[name])
                objects[name].copy_(kept[name])

    if isinstance(module, torch.nn.Module) and getattr(module, "training", False):
        raise RtganError("the generator is in training mode: call eval() before it is recorded")
    with (
        torch.jit.optimized_execution(False) if hasattr(torch.jit, "optimized_execution") else contextlib.nullcontext()
    ):
        # The first run finds which buffers the module writes; the others treat those as state from the start.
        found = _Recorder(seed, keeps=False)
        _, _, touched, objects = _run(module, example_inputs, set(), found)
        named = {int(t.untyped_storage()._cdata) for t in objects.values()}
        # What it writes in place and keeps under no name is state all the same.
        hidden = {k: pair for k, pair in found.hidden.items() if k not in named}

        def again_from(values: Sequence[Tensor], recorder: _Recorder) -> tuple[list[View], list[View]]:
            restore(touched, objects)
            with torch.inference_mode():
                for now, before in hidden.values():
                    now.copy_(before)
            into, out, _, _ = _run(module, values, touched, recorder, [now for now, _ in hidden.values()])
            return into, out

        first = _Recorder(seed)
        inputs, outputs = again_from(others[0], first)
        second = _Recorder(seed, like=first)
        _, again = again_from(others[1], second)
        restore(touched, objects)
        with torch.inference_mode():
            for now, before in hidden.values():
                now.copy_(before)
    if first.ops != second.ops or outputs != again or first.storages != second.storages:
        raise NotLowered(
            "the generator cannot be lowered: its course depends on the data (two inputs, two different records)"
        )
    if second.differs or second.length != first.length:
        raise NotLowered("the generator cannot be lowered: it keeps hidden state or random values outside its buffers")
    weights = np.concatenate([*first.kept.values(), np.zeros(0, np.float32)])
    program = Program(first.ops, first.storages, inputs, outputs, weights, source, dict(meta or {}))
    program.check()
    return program
