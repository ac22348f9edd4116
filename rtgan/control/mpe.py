"""MPE: zones, and what every note of its own does (MIDI Polyphonic Expression 1.1, MMA 2022).

A configuration message, RPN 6 on channel 1 (lower zone) or 16 (upper), gives the number of member channels. Within a
zone every note has a channel to itself, and bend, channel pressure and CC 74 of that channel are the note's own;
those of the zone's manager channel are added to all.
"""

from __future__ import annotations

from dataclasses import dataclass

from rtgan import switchboard
from rtgan.control.midi import Message

_TIMBRE = 74
_BEND_RANGE, _CONFIGURATION = 0, 6
_MEMBER_SEMITONES, _MANAGER_SEMITONES = 48.0, 2.0


@dataclass(frozen=True)
class Note:
    """A sounding note with its expression.

    Parameters
    ----------
    channel, number : int
        Channel from 1.
    velocity : float
        0..1.
    bend_semitones : float
        Of the note and its zone together.
    pressure, timbre : float
        0..1; the larger of the note's and its zone's, the note's.
    """

    channel: int
    number: int
    velocity: float
    bend_semitones: float = 0.0
    pressure: float = 0.0
    timbre: float = 0.5


class _Channel:
    def __init__(self, semitones: float) -> None:
        self.semitones = semitones
        self.bend = 0.5
        self.pressure = 0.0
        self.timbre = 0.5

    @property
    def bent(self) -> float:
        return (self.bend - 0.5) * 2 * self.semitones


class Zones:
    """The zones of one port and the notes in them [one thread].

    Attributes
    ----------
    lower, upper : int
        Member channels; 0 for no zone.
    """

    def __init__(self) -> None:
        self.lower = 0
        self.upper = 0
        self._decoder = switchboard.Decoder()
        self._channels = [_Channel(_MANAGER_SEMITONES) for _ in range(16)]
        self._velocity: dict[tuple[int, int], float] = {}

    def manager(self, channel: int) -> int | None:
        """The manager channel of the zone whose member a channel is; None for a channel of its own."""
        if 2 <= channel <= 1 + self.lower:
            return 1
        if 16 - self.upper <= channel <= 15:
            return 16
        return None

    def feed(self, message: Message) -> list[Note]:
        """Take a message; the notes whose expression it changes, in the order in which they began."""
        channel = message.channel
        if channel is None:
            return []
        state = self._channels[channel - 1]
        changed = False
        for moved in self._decoder.controls(message.data):
            if moved.kind == switchboard.RPN:
                changed |= self._configure(channel, moved)
            elif moved.kind == switchboard.BEND:
                state.bend, changed = moved.value, True
            elif moved.kind == switchboard.PRESSURE:
                state.pressure, changed = moved.value, True
            elif moved.kind == switchboard.CC and moved.number == _TIMBRE:
                state.timbre, changed = moved.value, True
            elif moved.kind == switchboard.CC and moved.number in (120, 123):
                self._silence(channel)
            elif moved.kind == switchboard.NOTE:
                self._velocity.pop((channel, moved.number), None)
                if moved.raw:
                    self._velocity[channel, moved.number] = moved.value
                    return [self._note(channel, moved.number)]
        if not changed:
            return []
        return [self._note(c, n) for c, n in self._velocity if c == channel or self.manager(c) == channel]

    @property
    def notes(self) -> list[Note]:
        """Every note that sounds."""
        return [self._note(c, n) for c, n in self._velocity]

    def _silence(self, channel: int) -> None:
        for key in [k for k in self._velocity if k[0] == channel or self.manager(k[0]) == channel]:
            del self._velocity[key]

    def _note(self, channel: int, number: int) -> Note:
        own = self._channels[channel - 1]
        manager = self.manager(channel)
        velocity = self._velocity[channel, number]
        if manager is None:
            return Note(channel, number, velocity, own.bent, own.pressure, own.timbre)
        zone = self._channels[manager - 1]
        pressure = max(own.pressure, zone.pressure)
        return Note(channel, number, velocity, own.bent + zone.bent, pressure, own.timbre)

    def _configure(self, channel: int, moved: switchboard.Moved) -> bool:
        coarse, fine = moved.raw >> 7, moved.raw & 127
        if moved.number == _BEND_RANGE:
            # Within a zone the range of one member is that of all.
            manager = self.manager(channel)
            for other in range(1, 17):
                if other == channel or (manager is not None and self.manager(other) == manager):
                    self._channels[other - 1].semitones = coarse + fine / 100
            return True
        if moved.number != _CONFIGURATION or channel not in (1, 16) or coarse > 15:
            return False
        # The zone that was set last wins the channels that both claim.
        if channel == 1:
            self.lower, self.upper = coarse, min(self.upper, max(0, 14 - coarse))
        else:
            self.upper, self.lower = coarse, min(self.lower, max(0, 14 - coarse))
        for member in range(1, 17):
            zone = self.manager(member) == channel
            if zone or member == channel:
                self._channels[member - 1] = _Channel(_MEMBER_SEMITONES if zone else _MANAGER_SEMITONES)
                self._silence(member)
        return False
