"""Nodes that do what no node may: proof that the searches of this folder find it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from rtgan.kernels.native import NODE_SIGNATURE, NODES, cfunc, f32p, node
from rtgan.plugin import Activation, NativeNode, Plugin

_C = ctypes.CDLL(None)
_getppid = _C.getppid
_getppid.argtypes, _getppid.restype = (), ctypes.c_int
_lock = _C.pthread_mutex_lock
_lock.argtypes, _lock.restype = (ctypes.c_void_p,), ctypes.c_int
_mutex = (ctypes.c_char * 128)()
_MUTEX = ctypes.addressof(_mutex)


@node
def allocates(state: int, io: int, n: int) -> None:
    f32p(io)[0] = np.empty(n, np.float32)[n // 2]


@node
def raises(state: int, io: int, n: int) -> None:
    if n > 0:
        raise ValueError("planted")


@node
def prints(state: int, io: int, n: int) -> None:
    print(n)


def _register(function: Any) -> Any:
    # Foreign pointers cannot be cached, which `node` would insist on.
    compiled = NODES[f"{__name__}.{function.__name__}"] = cfunc(NODE_SIGNATURE, error_model="numpy")(function)
    return compiled


@_register
def calls_the_system(state: int, io: int, n: int) -> None:
    f32p(io)[0] = _getppid()


@_register
def locks(state: int, io: int, n: int) -> None:
    f32p(io)[0] = _lock(_MUTEX)


@cfunc(NODE_SIGNATURE)
def stray(state: int, io: int, n: int) -> None:
    """Harmless, but compiled past `node`, so that no audit looks at it."""
    f32p(io)[0] = 0.0


class Plant(Plugin):
    """Any function as a plugin."""

    id = "plant"
    name = "Plant"
    description = "Any function as a plugin."

    def __init__(self, function: Any) -> None:
        self.function = function

    def activate(self, activation: Activation) -> NativeNode:
        return NativeNode(int(self.function.address), activation.arena.allocate(8))
