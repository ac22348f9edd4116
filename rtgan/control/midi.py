"""MIDI bytes to messages: running status, real-time bytes in the middle, system exclusive and garbage survived.

What a message does to parameters is decided by `rtgan.switchboard`; this is the wire (MIDI 1.0 Detailed
Specification, MMA 1996) and what a person reads of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rtgan import switchboard
from rtgan.bindings import Control, Kind

#: Longest system exclusive message that is worth waiting for; what is longer is garbage until the next status.
MOST_SYSEX = 1 << 16
_SYSTEM_LENGTH = {0xF1: 2, 0xF2: 3, 0xF3: 2}
_NAMES = {
    0x80: "note off", 0x90: "note on", 0xA0: "poly pressure", 0xB0: "control", 0xC0: "program", 0xD0: "pressure",
    0xE0: "bend",
    0xF1: "time code", 0xF2: "song position", 0xF3: "song", 0xF6: "tune", 0xF8: "clock", 0xFA: "start",
    0xFB: "continue", 0xFC: "stop", 0xFE: "active sensing", 0xFF: "system reset",
}  # fmt: skip
#: Switchboard kinds in the words of bindings.
KINDS: tuple[Kind, ...] = ("cc", "cc14", "nrpn", "rpn", "bend", "pressure", "poly", "note", "program")

CLOCK, START, CONTINUE, STOP, SENSING = 0xF8, 0xFA, 0xFB, 0xFC, 0xFE


def length_of(status: int) -> int:
    """Bytes of a message by its first; 0 for one that no message begins with, and for system exclusive."""
    if status < 0x80 or status in (0xF0, 0xF4, 0xF5, 0xF7, 0xF9, 0xFD):
        return 0
    if status >= 0xF0:
        return _SYSTEM_LENGTH.get(status, 1)
    return 2 if status & 0xE0 == 0xC0 else 3


@dataclass(frozen=True, slots=True)
class Message:
    """A complete message of one to three bytes."""

    data: bytes

    @property
    def kind(self) -> int:
        """Status without the channel; system messages whole."""
        return self.data[0] if self.data[0] >= 0xF0 else self.data[0] & 0xF0

    @property
    def channel(self) -> int | None:
        """1 to 16; None for system messages."""
        return None if self.data[0] >= 0xF0 else (self.data[0] & 15) + 1

    def __str__(self) -> str:
        """As a person reads it."""
        name = _NAMES.get(self.kind, "unknown")
        numbers = " ".join(str(b) for b in self.data[1:])
        if self.kind == 0xE0:
            numbers = f"{self.data[2] * 128 + self.data[1] - 8192:+d}"
        where = f"channel {self.channel:2d}  " if self.channel is not None else ""
        return f"{where}{name} {numbers}".rstrip()


class Parser:
    """Bytes of one port to messages [one thread].

    Attributes
    ----------
    sysex, garbage : int
        System exclusive messages passed over; bytes that belong to no message.
    """

    def __init__(self) -> None:
        self.sysex = 0
        self.garbage = 0
        self._status = 0
        self._data = bytearray()
        self._exclusive = -1

    def feed(self, data: Iterable[int]) -> Iterator[Message]:
        """The messages that these bytes complete; any cut of a stream gives the same messages."""
        for byte in data:
            if byte >= 0xF8:
                # Real time: in the middle of anything, and nothing is interrupted by it.
                if length_of(byte):
                    yield Message(bytes([byte]))
                else:
                    self.garbage += 1
            elif byte >= 0x80:
                yield from self._begin(byte)
            elif self._exclusive >= 0:
                self._exclusive += 1
                if self._exclusive > MOST_SYSEX:
                    self._exclusive = -1
                    self.garbage += MOST_SYSEX
            elif self._status == 0:
                self.garbage += 1
            else:
                self._data.append(byte)
                if len(self._data) + 1 == length_of(self._status):
                    yield Message(bytes([self._status, *self._data]))
                    self.garbage -= len(self._data)
                    self._end()
                self.garbage += 1

    def _begin(self, status: int) -> Iterator[Message]:
        if self._exclusive >= 0:
            self.sysex += 1
        self._exclusive = -1
        self._data.clear()
        self._status = 0
        if status == 0xF0:
            self._exclusive = 0
        elif status == 0xF7:
            pass
        elif length_of(status) == 0:
            self.garbage += 1
        elif length_of(status) == 1:
            yield Message(bytes([status]))
        else:
            self._status = status

    def _end(self) -> None:
        self._data.clear()
        if self._status >= 0xF0:
            self._status = 0  # running status is for channel messages


def control_of(moved: switchboard.Moved, channel: int, port: str = "") -> Control:
    """What a binding would call a control that moved; ``channel`` from 1."""
    return Control(KINDS[moved.kind], moved.number, channel, port)
