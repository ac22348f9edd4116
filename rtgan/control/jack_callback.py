"""MIDI of a JACK client, moved by native code: in with the frame of every event, out from a ring.

An event that JACK hands over at offset ``o`` of the period that begins at frame ``f`` and is ``n`` frames long goes
into the engine's ring with the frame ``f + n + o``: one period later, at the same offset. The engine's own callback
of the period it arrives in may have run already; by the next one the event is there whatever the order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from rtgan.events import MIDI, ring_drop, ring_peek, ring_push
from rtgan.kernels.native import NODES, call_foreign, cfunc, i64p, u8p

PORTS = 16
(
    J_CLIENT, J_RING, J_OUT_RING, J_EVENT, J_OUTPUTS, J_INPUTS, J_SYSEX, J_BAD, J_CYCLES, J_GONE,
    J_FRAME, J_BUFFER, J_COUNT, J_GET, J_CLEAR, J_WRITE, J_UNSENT,
) = range(17)  # fmt: skip
J_IN = 24
J_OUT = J_IN + PORTS
_J_BUFFERS = J_OUT + PORTS
WORDS = _J_BUFFERS + PORTS


@cfunc(types.int32(types.uint32, types.int64), cache=True, error_model="numpy", boundscheck=False)
def process(frames: Any, client: Any) -> int:
    """[JACK's thread] ``JackProcessCallback``; ``client`` is the address of a client's words."""
    w = i64p(client)
    n = np.int64(frames)
    begin = call_foreign(w[J_FRAME], w[J_CLIENT], 0, 0, 0) & 0xFFFFFFFF
    event = i64p(w[J_EVENT])
    for port in range(w[J_INPUTS]):
        buffer = call_foreign(w[J_BUFFER], w[J_IN + port], n, 0, 0)
        count = 0
        if buffer != 0:
            count = call_foreign(w[J_COUNT], buffer, 0, 0, 0) & 0xFFFFFFFF
        for k in range(count):
            if call_foreign(w[J_GET], w[J_EVENT], buffer, k, 0) & 0xFFFFFFFF != 0:
                w[J_BAD] += 1
                continue
            offset = event[0] & 0xFFFFFFFF
            size = event[1]
            data = u8p(event[2])
            if size > 0 and data[0] == 0xF0:
                w[J_SYSEX] += 1
                continue
            if size < 1 or size > 3 or data[0] < 0x80:
                w[J_BAD] += 1
                continue
            message = np.int64(data[0])
            good = True
            for i in range(1, size):
                good = good and data[i] < 0x80
                message |= np.int64(data[i]) << (8 * i)
            status = message & 0xF0
            needs = 3
            if status == 0xC0 or status == 0xD0:
                needs = 2
            if status == 0xF0:
                needs = size
            if not good or size != needs:
                w[J_BAD] += 1
                continue
            ring_push(w[J_RING], MIDI, (begin + n + offset) & 0xFFFFFFFF, message, port, 0.0, 0.0, 0.0, 0.0)
    outputs = w[J_OUTPUTS]
    for port in range(outputs):
        buffer = call_foreign(w[J_BUFFER], w[J_OUT + port], n, 0, 0)
        w[_J_BUFFERS + port] = buffer
        if buffer != 0:
            call_foreign(w[J_CLEAR], buffer, 0, 0, 0)
    while True:
        record = ring_peek(w[J_OUT_RING])
        if record == 0:
            break
        # The bytes lie where the record keeps its first number, lowest first; its time is a mask of ports.
        r = i64p(record)
        for port in range(outputs):
            buffer = w[_J_BUFFERS + port]
            if buffer == 0 or (r[1] >> port) & 1 == 0:
                continue
            if call_foreign(w[J_WRITE], buffer, 0, record + 16, r[3]) & 0xFFFFFFFF != 0:
                w[J_UNSENT] += 1
        ring_drop(w[J_OUT_RING])
    w[J_CYCLES] += 1
    return 0


NODES[f"{__name__}.process"] = process
