"""A monitor on a device of its own: what the engine hands over, in that device's time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import types

from rtgan.engine import Engine
from rtgan.io.bridge import Bridge
from rtgan.io.devices import Device, Stream
from rtgan.kernels.native import NODES, cfunc, f32p, i64p
from rtgan.memory import Arena, address_of

_WIDTH, _OUT_WIDTH, _COLUMNS = range(3)
_STREAM = types.int32(types.int64, types.int64, types.int64, types.int64, types.int64, types.int64)
_BLOCK = 256


@cfunc(_STREAM, cache=True, error_model="numpy", boundscheck=False)
def spread(source: int, target: int, frames: int, time_info: int, flags: int, state: int) -> int:
    """[audio, monitor device] ``PaStreamCallback``: frames to those channels of the device that are to have them."""
    w = i64p(state)
    x = f32p(source)
    y = f32p(target)
    for k in range(w[_OUT_WIDTH]):
        column = i64p(w[_COLUMNS])[k]
        for i in range(frames):
            y[i * w[_OUT_WIDTH] + k] = x[i * w[_WIDTH] + column] if column >= 0 else np.float32(0.0)
    return 0


NODES[f"{__name__}.spread"] = spread


class Monitor:
    """A second output [main]; the clocks are held together by a `rtgan.io.bridge.Bridge`.

    Parameters
    ----------
    engine : Engine
        Its monitor goes here, from before its own stream begins until after that has ended.
    device : Device
    channels : sequence of int
        One or two of the device's, from 1.
    block : int
        Frames per callback; 0 for the device's choice.

    Raises
    ------
    RtganError
        If the device cannot be opened.
    """

    def __init__(self, engine: Engine, device: Device, channels: Sequence[int], block: int = 0) -> None:
        self._engine = engine
        self.device = device
        width, out_width = len(channels), max(channels)
        self._arena = Arena()
        columns = self._arena.int64(out_width)
        columns[:] = -1
        columns[np.subtract(channels, 1)] = range(width)
        words = self._arena.int64(8)
        words[_WIDTH], words[_OUT_WIDTH], words[_COLUMNS] = width, out_width, address_of(columns)
        rate_hz = engine.sample_rate_hz
        self._bridge = Bridge(
            int(spread.address), address_of(words), width, out_width, rate_hz, 2 * (block or _BLOCK)
        )  # fmt: skip
        ends = self._bridge
        self._stream = Stream(None, device, rate_hz, block, 0, out_width, ends.give_address, ends.address)
        engine.monitor_to(ends.take_address, ends.address, width)

    def start(self) -> None:
        """Begin to play what comes."""
        self._stream.start()

    def close(self, last: bool = False) -> bool:
        """Give the device back, when the engine's stream has ended; see `rtgan.io.devices.Stream.close`."""
        self._engine.monitor_to(0, 0, 1)
        return self._stream.close(last)

    @property
    def active(self) -> bool:
        """Whether the device asks for sound."""
        return self._stream.active

    @property
    def slips(self) -> int:
        """How often the two clocks had to be brought together."""
        return self._bridge.slips

    @property
    def ring_ms(self) -> float:
        """What waits between the two devices on purpose."""
        return self._bridge.fill / self._engine.sample_rate_hz * 1000
