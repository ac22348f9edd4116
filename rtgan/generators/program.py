"""A generator as data: what its forward pass does to which memory, without torch and without machine code.

A program is recorded once (`rtgan.generators.record`), travels as one file beside its TorchScript, and is turned
into machine code for the processor at hand (`rtgan.generators.compile`). It holds no code: a list of named
operations on views of storages, and the weights.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan.errors import RtganError
from rtgan.generators.files import write_atomically

FORMAT = 1
SUFFIX = ".rtgp"
_KINDS = ("input", "const", "state", "temp")
_LIMIT = 1 << 31
_STAMP = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class View:
    """A strided tensor in a storage; offset and strides in floats."""

    storage: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        step = 1
        for n, d in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if n != 1 and d != step:
                return False
            step *= n
        return True

    def span(self) -> tuple[int, int]:
        """First and last address touched."""
        ends = [(n - 1) * d for n, d in zip(self.shape, self.strides, strict=True)]
        return self.offset + sum(min(e, 0) for e in ends), self.offset + sum(max(e, 0) for e in ends)

    def json(self) -> dict[str, Any]:
        """Plain form."""
        return {"s": self.storage, "o": self.offset, "n": list(self.shape), "d": list(self.strides)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> View:
        """Back from the plain form."""
        return View(_int(data["s"]), _int(data["o"]), _ints(data["n"]), _ints(data["d"]))


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a dense tensor."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def _int(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("a number is missing")
    return value


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(_int(v) for v in values)


@dataclass
class Storage:
    """A piece of memory: ``size`` floats; constants and initial states start at ``at`` in the weights."""

    size: int
    kind: str
    at: int = -1


@dataclass
class Program:
    """A recorded generator.

    Attributes
    ----------
    ops : list of dict
        ``{"op": name, "args": {name: value}, "out": [view], "at": source line}``. A tensor argument is
        ``{"t": view}``, constant integers are ``{"ints": values, "shape": shape}``, everything else is plain JSON.
    storages : list of Storage
        Memory the views refer to. An ``input`` is written by the caller, a ``const`` never changes, a ``state``
        starts at its initial value and persists from run to run, a ``temp`` lives within one run.
    inputs, outputs : list of View
    weights : float32 array
    source : str
        SHA-256 of the TorchScript file it was recorded from, or empty.
    meta : dict
        Plain JSON for whoever needs it (sample rate, frame size ...).
    """

    ops: list[dict[str, Any]]
    storages: list[Storage]
    inputs: list[View]
    outputs: list[View]
    weights: NDArray[np.float32]
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    def document(self) -> bytes:
        """The program without its weights, as canonical JSON."""
        data = {
            "format": FORMAT,
            "source": self.source,
            "meta": self.meta,
            "inputs": [v.json() for v in self.inputs],
            "outputs": [v.json() for v in self.outputs],
            "storages": [[s.size, s.kind, s.at] for s in self.storages],
            "ops": self.ops,
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=True).encode()

    def digest(self) -> str:
        """SHA-256 of everything in it."""
        total = hashlib.sha256(self.document())
        total.update(np.ascontiguousarray(self.weights).data)
        return total.hexdigest()

    def bytes(self) -> bytes:
        """The file's content: the same program gives the same bytes."""
        array = io.BytesIO()
        np.lib.format.write_array(array, np.ascontiguousarray(self.weights, np.float32), allow_pickle=False)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            for name, data in (("program.json", self.document()), ("weights.npy", array.getvalue())):
                archive.writestr(zipfile.ZipInfo(name, _STAMP), data)
        return out.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the program to one file, atomically."""
        write_atomically(Path(path), self.bytes())

    @staticmethod
    def load(path: str | Path) -> Program:
        """Read a program and check that nothing in it reaches outside its memory."""
        try:
            with zipfile.ZipFile(path) as archive:
                data = json.loads(archive.read("program.json"))
                weights = np.lib.format.read_array(io.BytesIO(archive.read("weights.npy")), allow_pickle=False)
        except FileNotFoundError:
            raise RtganError(f"there is no program file {path}") from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise RtganError(f"{path} is not a lowered generator: {_first_line(error)}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise RtganError(f"{path} has another program format than this version of rtgan reads ({FORMAT})")
        try:
            program = Program(
                data["ops"],
                [Storage(_int(n), str(kind), _int(at)) for n, kind, at in data["storages"]],
                [View.from_json(v) for v in data["inputs"]],
                [View.from_json(v) for v in data["outputs"]],
                weights,
                str(data["source"]),
                dict(data["meta"]),
            )
            program.check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RtganError(f"{path} is not a valid lowered generator: {_first_line(error)}") from error
        return program

    def check(self) -> None:
        """Raise ValueError when a view or a weight lies outside its memory."""
        if self.weights.dtype != np.float32 or self.weights.ndim != 1:
            raise ValueError("the weights are not a float32 vector")
        for storage in self.storages:
            if not 0 <= storage.size < _LIMIT or storage.kind not in _KINDS:
                raise ValueError("a storage has no valid size or kind")
            kept = storage.kind in ("const", "state")
            if kept and not 0 <= storage.at <= len(self.weights) - storage.size:
                raise ValueError("a storage lies outside the weights")
        for view in self.views():
            if len(view.shape) != len(view.strides) or any(n < 0 for n in view.shape):
                raise ValueError("a tensor has no valid shape")
            if not 0 <= view.storage < len(self.storages):
                raise ValueError("a tensor lies in no storage")
            first, last = view.span()
            if view.size and not 0 <= first <= last < self.storages[view.storage].size:
                raise ValueError("a tensor reaches outside its storage")

    def views(self) -> Iterator[View]:
        """Every view in the program."""
        yield from self.inputs
        yield from self.outputs
        for op in self.ops:
            if not isinstance(op["op"], str):
                raise ValueError("an operation has no name")
            for out in op["out"]:
                yield View.from_json(out)
            for value in op["args"].values():
                for item in value if isinstance(value, list) else [value]:
                    if isinstance(item, dict) and "t" in item:
                        yield View.from_json(item["t"])


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
