"""Whether the JACK server that PortAudio began with is there still.

PortAudio takes a place on a JACK server when it begins. Its end, after that server has died, is an assertion that
fails or a crash, even if another server has come up under the same name by then. So a client of our own, without
ports, keeps watch beside it.
"""

from __future__ import annotations

import atexit
import ctypes
from typing import Any

import numpy as np
from numba import types

from rtgan.kernels.native import NODES, cfunc, i64p
from rtgan.memory import address_of

_NO_START = 0x01
#: Watches whose server has died: JACK may still use their words, and nothing is left to be closed.
_LEFT: list[Watch] = []


@cfunc(types.void(types.int64), cache=True, error_model="numpy", boundscheck=False)
def shutdown(gone: Any) -> None:
    """[any of JACK's threads] ``JackShutdownCallback``: the server has gone; ``gone`` is the address of a word."""
    i64p(gone)[0] = 1


NODES[f"{__name__}.shutdown"] = shutdown


class Quiet:
    """While a client is opened, JACK's own complaints about a server that is not there are not printed."""

    def __init__(self, library: Any) -> None:
        self._slots = []
        for name in ("jack_error_callback", "jack_info_callback"):
            try:
                self._slots.append(ctypes.c_void_p.in_dll(library, name))
            except ValueError:
                continue  # an implementation that keeps it elsewhere

    def __enter__(self) -> None:
        harmless = ctypes.cast(ctypes.pythonapi.Py_GetVersion, ctypes.c_void_p).value
        self._before = [slot.value for slot in self._slots]
        for slot in self._slots:
            slot.value = harmless

    def __exit__(self, *problem: object) -> None:
        for slot, value in zip(self._slots, self._before, strict=True):
            slot.value = value


class Watch:
    """A client that sees the end of the server it was opened on [main].

    Attributes
    ----------
    there : bool
        Whether there was a server to watch, or no JACK library at all to find one with.
    """

    def __init__(self) -> None:
        self._client: int | None = None
        self.there = True
        try:
            self._library = ctypes.CDLL("libjack.so.0")
        except OSError:
            return
        self._gone = np.zeros(1, np.int64)
        self._library.jack_client_open.restype = ctypes.c_void_p
        with Quiet(self._library):
            self._client = self._library.jack_client_open(b"rtgan-look", _NO_START, None)
        self.there = self._client is not None
        if self._client is not None:
            told = (self._client, shutdown.address, address_of(self._gone))
            self._library.jack_on_shutdown(*map(ctypes.c_void_p, told))
            atexit.register(self.end)

    @property
    def goes_on(self) -> bool:
        """Whether that very server is there still."""
        return self.there and (self._client is None or not self._gone[0])

    def end(self) -> None:
        """Stop watching."""
        client, self._client = self._client, None
        if client is None:
            return
        atexit.unregister(self.end)
        if self._gone[0]:
            _LEFT.append(self)
        else:
            self._library.jack_client_close(ctypes.c_void_p(client))
