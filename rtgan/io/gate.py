"""A door between a device's callback and the engine, which is shut before the device is left to itself.

PortAudio does not always come back from closing a stream whose audio server has died. Such a stream is abandoned;
whatever it may still call must not enter an engine that another device plays by then.
"""

from __future__ import annotations

import time

from numba import types

from rtgan.kernels.native import NODES, call_stream, cfunc, exchange, f32p, i64p, load_acquire, store_release
from rtgan.memory import Arena, address_of

G_CALLBACK, G_ENGINE, G_OUT_WIDTH, G_SHUT, G_INSIDE = 0, 1, 2, 8, 16
_WAIT_S = 1.0

_STREAM = types.int32(types.int64, types.int64, types.int64, types.int64, types.int64, types.int64)


@cfunc(_STREAM, cache=True, error_model="numpy", boundscheck=False)
def enter(source: int, target: int, frames: int, time_info: int, flags: int, gate: int) -> int:
    """[audio] ``PaStreamCallback``: the engine's callback, or silence."""
    w = i64p(gate)
    # First this flag, then the door: who shuts it sees the one or is seen by the other.
    exchange(gate + 8 * G_INSIDE, 1)
    if load_acquire(gate + 8 * G_SHUT) == 0:
        call_stream(w[G_CALLBACK], source, target, frames, time_info, flags, w[G_ENGINE])
    elif target != 0:
        silent = f32p(target)
        for i in range(frames * w[G_OUT_WIDTH]):
            silent[i] = 0.0
    store_release(gate + 8 * G_INSIDE, 0)
    return 0


NODES[f"{__name__}.enter"] = enter


class Gate:
    """A door to an engine [main]; ``callback`` and ``engine`` are addresses, ``out_width`` channels per frame."""

    def __init__(self, callback: int, engine: int, out_width: int) -> None:
        self.arena = Arena()
        self._words = self.arena.int64(24)
        self._words[G_CALLBACK], self._words[G_ENGINE], self._words[G_OUT_WIDTH] = callback, engine, out_width
        self.address = address_of(self._words)
        self.enter_address = int(enter.address)

    def shut(self) -> bool:
        """Let nobody in any more; False if somebody is inside and does not come out within a second."""
        self._words[G_SHUT] = 1
        until = time.monotonic() + _WAIT_S
        while self._words[G_INSIDE]:
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        return True
