"""Codes to bytes and back: an arithmetic coder whose chances depend on what is known.

The comb's on the comb of the packet before; those of all stages on the group of the first stage's code, which itself
depends on that of the packet before. Nothing is known at the beginning of a piece, so that pieces stand alone.
"""

from __future__ import annotations

import numpy as np

from rtgan.codec.model import COMB_SYMBOLS, Codes, Model
from rtgan.errors import RtganError
from rtgan.kernels import codec, entropy

_START = COMB_SYMBOLS


def _contexts(model: Model) -> int:
    return int(model.groups.max()) + 2


def pack(model: Model, codes: Codes, stages: int) -> bytes:
    """Bytes of packets' codes, of which so many stages are told."""
    every = _contexts(model)
    rows: list[int] = []
    symbols: list[int] = []
    before, group = _START, every - 1
    for packet in codes.tolist():
        rows.append(before)
        symbols.append(packet[0])
        before = packet[0]
        if packet[0] == codec.SILENT:
            group = every - 1
            continue
        rows.append(_START + 1 + group)
        symbols.append(packet[1])
        group = int(model.groups[packet[1]])
        for stage in range(1, stages):
            rows.append(_START + 1 + every * stage + group)
            symbols.append(packet[1 + stage])
    out = np.zeros(4 * len(rows) + 8, np.uint8)
    size = entropy.encode(model.tables, np.array(rows, np.int64), np.array(symbols, np.int64), out)
    return out[:size].tobytes()


def unpack(model: Model, data: bytes, packets: int, stages: int) -> Codes:
    """The codes of so many packets.

    Raises
    ------
    RtganError
        When the bytes say what no codebook has: they are damaged.
    """
    every, limit = _contexts(model), model.books.shape[1]
    heard = np.frombuffer(data, np.uint8)
    state = np.zeros(4, np.int64)
    entropy.begin(state, heard)
    codes = np.zeros((packets, 1 + model.stages), np.int64)
    before, group = _START, every - 1
    for packet in codes:
        before = entropy.decode(model.tables, before, state, heard)
        if before >= COMB_SYMBOLS:
            raise RtganError("the packet is damaged")
        packet[0] = before
        if before == codec.SILENT:
            group = every - 1
            continue
        row = _START + 1 + group
        for stage in range(stages):
            code = entropy.decode(model.tables, row, state, heard)
            if code >= limit:
                raise RtganError("the packet is damaged")
            packet[1 + stage] = code
            if stage == 0:
                group = int(model.groups[code])
            row = _START + 1 + every * (stage + 1) + group
    return codes
