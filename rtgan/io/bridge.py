"""Input and output on different devices: two native callbacks and a ring between them.

Each device keeps its own time. The input's callback writes frames into the ring, the output's callback takes
them out and runs the engine on them. Where the clocks drift apart the ring runs empty or over; that is a slip:
counted, and mended by starting again from the intended fill.
"""

from __future__ import annotations

from typing import Any

from numba import types

from rtgan.kernels import rings
from rtgan.kernels.native import NODES, call_stream, cfunc, f32p, i64p, smaller
from rtgan.memory import Arena, address_of

B_RING, B_ENGINE, B_CALLBACK, B_SCRATCH, B_SCRATCH_FRAMES, B_WIDTH, B_OUT_WIDTH, B_FILL, B_FLOWS, B_SLIPS = range(10)
_SCRATCH_FRAMES = 4096
_RING_FRAMES = 1 << 17

_STREAM = types.int32(types.int64, types.int64, types.int64, types.int64, types.int64, types.int64)


@cfunc(_STREAM, cache=True, error_model="numpy", boundscheck=False)
def take(source: int, target: int, frames: int, time_info: int, flags: int, bridge: int) -> int:
    """[audio, input device] ``PaStreamCallback``: frames into the ring."""
    w = i64p(bridge)
    if 2 * frames > w[B_FILL]:
        w[B_FILL] = 2 * frames
    if source != 0:
        rings.ring_write(w[B_RING], source, frames)
    return 0


@cfunc(_STREAM, cache=True, error_model="numpy", boundscheck=False)
def give(source: int, target: int, frames: int, time_info: int, flags: int, bridge: int) -> int:
    """[audio, output device] ``PaStreamCallback``: frames out of the ring, through the engine, to the device."""
    w = i64p(bridge)
    if 2 * frames > w[B_FILL]:
        w[B_FILL] = 2 * frames
    done = 0
    while done < frames:
        n = smaller(frames - done, w[B_SCRATCH_FRAMES])
        ready = rings.ring_ready(w[B_RING])
        if w[B_FLOWS] == 0 and ready >= w[B_FILL] + n:
            w[B_FLOWS] = 1
        late = ready - n - 3 * w[B_FILL]
        if w[B_FLOWS] != 0 and late > 0:
            # The input runs ahead: let go of what would only be delay.
            surplus = ready - n - w[B_FILL]
            while surplus > 0:
                surplus -= rings.ring_read(w[B_RING], w[B_SCRATCH], smaller(surplus, w[B_SCRATCH_FRAMES]))
            w[B_SLIPS] += 1
        got = 0
        if w[B_FLOWS] != 0:
            got = smaller(n, rings.ring_ready(w[B_RING]))
            rings.ring_read(w[B_RING], w[B_SCRATCH], got)
            if got < n:
                w[B_FLOWS] = 0
                w[B_SLIPS] += 1
        scratch = f32p(w[B_SCRATCH])
        for i in range(got * w[B_WIDTH], n * w[B_WIDTH]):
            scratch[i] = 0.0
        call_stream(w[B_CALLBACK], w[B_SCRATCH], target + 4 * done * w[B_OUT_WIDTH], n, time_info, flags, w[B_ENGINE])
        done += n
    return 0


NODES[f"{__name__}.take"] = take
NODES[f"{__name__}.give"] = give


class Bridge:
    """The memory between two device callbacks [main].

    Parameters
    ----------
    engine_callback, engine : int
        Addresses.
    in_width, out_width : int
        Channels per frame of the two devices.
    fill : int
        Frames that wait in the ring on purpose, to begin with; it grows to twice the largest block that either
        device turns out to use.
    """

    def __init__(self, engine_callback: int, engine: int, in_width: int, out_width: int, fill: int) -> None:
        self.arena = Arena()
        self._ring = rings.build(_RING_FRAMES, in_width, allocate=self.arena.int64)
        words = self.arena.int64(16)
        words[B_RING] = self._ring.address
        words[B_ENGINE], words[B_CALLBACK] = engine, engine_callback
        words[B_SCRATCH] = address_of(self.arena.float32(_SCRATCH_FRAMES, in_width))
        words[B_SCRATCH_FRAMES] = _SCRATCH_FRAMES
        words[B_WIDTH], words[B_OUT_WIDTH], words[B_FILL] = in_width, out_width, fill
        self._words: Any = words
        self.address = address_of(words)
        self.take_address, self.give_address = int(take.address), int(give.address)

    @property
    def fill(self) -> int:
        """Frames that wait in the ring on purpose."""
        return int(self._words[B_FILL])

    @property
    def slips(self) -> int:
        """How often the two clocks had to be brought together again."""
        return int(self._words[B_SLIPS]) + int(self._ring.overruns > 0)
