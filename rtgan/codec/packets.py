"""Packets for networks: each stands alone, says what it is, and is checked. ``docs/codec.md`` has the bytes.

A packet carries one or more frames of 20 ms. `Sender` makes them of sound as it comes; sound of what
arrives is made by `rtgan.codec.receiver`.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from rtgan.codec import bits
from rtgan.codec.model import Codes, Encoder, Floats, Model, stages_of
from rtgan.errors import RtganError, UsageError

VERSION = 1
#: Frames of a packet at most: 2.56 s.
MOST_FRAMES = 128
_HEAD = struct.Struct("<BBBHIH")
_CHECK = struct.Struct("<I")
#: Bytes around what is coded.
OVERHEAD = _HEAD.size + _CHECK.size
#: Bytes of a packet at most.
LARGEST = 1 << 14


@dataclass(frozen=True)
class Packet:
    """A packet that is whole.

    Attributes
    ----------
    first : int
        Number of its first frame since the stream began.
    stages : int
        Stages told, which is what decides the bit rate.
    codes : ndarray, (frames, 1 + stages of the model)
    """

    first: int
    stages: int
    codes: Codes

    @property
    def frames(self) -> int:
        """How many it holds."""
        return len(self.codes)


def folded(number: int) -> int:
    """A model's number as packets tell it."""
    return (number ^ number >> 16) & 0xFFFF


def check_frames(frames: int) -> None:
    """Refuse a number of frames that no packet has."""
    if not 1 <= frames <= MOST_FRAMES:
        raise UsageError(f"a packet of {frames} frames is not possible; allowed are 1 to {MOST_FRAMES}")


def wrap(version: int, number: int, first: int, frames: int, setting: int, told: bytes) -> bytes:
    """A packet around what is coded; `setting` is what decides the bit rate."""
    if not 1 <= frames <= MOST_FRAMES or not 0 <= first < 1 << 32:
        raise UsageError(f"a packet holds 1 to {MOST_FRAMES} frames, numbered up to {(1 << 32) - 1}")
    head = _HEAD.pack(version, frames, setting, number, first, len(told))
    return head + told + _CHECK.pack(zlib.crc32(told, zlib.crc32(head)))


def unwrap(data: bytes, known: int, wanted: int) -> tuple[int, int, int, bytes]:
    """First frame, frames, setting and what is coded of a packet of a version, made with the model of a number.

    Raises
    ------
    RtganError
        When it is cut short or damaged, of another version, or made with another model.
    """
    if len(data) < OVERHEAD:
        raise RtganError(f"a packet of {len(data)} bytes is cut short; the shortest has {OVERHEAD}")
    version, frames, setting, number, first, size = _HEAD.unpack_from(data)
    if version != known:
        raise RtganError(f"the packet has version {version}; this program knows version {known}")
    if size > LARGEST or len(data) < OVERHEAD + size:
        raise RtganError(f"a packet of {len(data)} bytes is cut short; it speaks of {OVERHEAD + size}")
    told = bytes(data[_HEAD.size : _HEAD.size + size])
    (check,) = _CHECK.unpack_from(data, _HEAD.size + size)
    if check != zlib.crc32(told, zlib.crc32(data[: _HEAD.size])):
        raise RtganError("the packet is damaged")
    if number != wanted:
        raise RtganError("the packet was made with another model")
    if not 1 <= frames <= MOST_FRAMES:
        raise RtganError("the packet is damaged")
    return first, frames, setting, told


def pack(model: Model, first: int, codes: Codes, stages: int) -> bytes:
    """One packet of codes."""
    return wrap(VERSION, folded(model.number), first, len(codes), stages, bits.pack(model, codes, stages))


def unpack(model: Model, data: bytes) -> Packet:
    """What a packet says; bytes behind its end are left alone.

    Raises
    ------
    RtganError
        When it is cut short or damaged, of another version, or made with another model.
    """
    first, frames, stages, told = unwrap(data, VERSION, folded(model.number))
    if not 1 <= stages <= model.stages:
        raise RtganError("the packet is damaged")
    return Packet(first, stages, bits.unpack(model, told, frames, stages))


def length_of(data: bytes | memoryview, version: int = VERSION) -> int:
    """How long the packet that begins here says it is; 0 where no packet of that version can begin."""
    if len(data) < OVERHEAD or data[0] != version:
        return 0
    size = int(_HEAD.unpack_from(data)[5])
    return OVERHEAD + size if size <= LARGEST and OVERHEAD + size <= len(data) else 0


def is_whole(data: bytes | memoryview, version: int) -> bool:
    """Whether a packet of a version begins here that came as it was made, with whatever model."""
    length = length_of(data, version)
    return bool(length) and _CHECK.unpack_from(data, length - _CHECK.size)[0] == zlib.crc32(
        data[: length - _CHECK.size]
    )


class Sender:
    """Sound to packets [any thread].

    Parameters
    ----------
    model : Model
    bits_per_s : float
        About what speech takes, without the 15 bytes around each packet; may be changed between packets.
    frames : int
        In a packet.
    """

    def __init__(self, model: Model, bits_per_s: float = 6000.0, frames: int = 1) -> None:
        check_frames(frames)
        self.model, self.frames = model, frames
        self.stages = stages_of(model, bits_per_s)
        self._encoder = Encoder(model)
        self._waiting = np.zeros((0, 1 + model.stages), np.int64)
        self.sent = 0
        """Frames sent."""

    def push(self, samples: Floats) -> list[bytes]:
        """Packets that are full with these samples (16 kHz, one channel)."""
        return self._packets(self._encoder.push(samples, self.stages), self.frames)

    def end(self) -> list[bytes]:
        """The last packets."""
        return self._packets(self._encoder.end(self.stages), 1)

    def _packets(self, codes: Codes, least: int) -> list[bytes]:
        waiting = np.concatenate([self._waiting, codes])
        out = []
        while len(waiting) >= least:
            some = waiting[: self.frames]
            out.append(pack(self.model, self.sent, some, self.stages))
            self.sent += len(some)
            waiting = waiting[len(some) :]
        self._waiting = waiting
        return out
