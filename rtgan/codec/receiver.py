"""What arrives to sound: late, twice, in another order, damaged, of another version, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan.codec.modes import Model, Packet, mode_for
from rtgan.errors import RtganError, UsageError

Floats = NDArray[np.float32]


@dataclass
class Loss:
    """What became of packets, in numbers of frames and packets."""

    frames_played: int = 0
    frames_lost: int = 0
    packets_late: int = 0
    packets_refused: int = 0


class Receiver:
    """Packets to sound, whatever the network did to them [any thread].

    Parameters
    ----------
    model : Model
        Of speech or of music, as the packets are.
    hold_frames : int
        Frames that are waited for behind a gap before what is missing counts as lost.
    most_frames : int
        Frames kept at most; what lies further ahead begins anew there.
    """

    def __init__(self, model: Model, hold_frames: int = 3, most_frames: int = 512) -> None:
        if not 0 <= hold_frames < most_frames <= 1 << 16:
            raise UsageError("hold_frames must be at least 0 and less than most_frames, which may be 65536 at most")
        self.model, self.hold, self.most = model, hold_frames, most_frames
        self._mode = mode_for(model)
        self._decoder: Any = self._mode.decoder(model)
        self._frames: dict[int, Packet] = {}
        self._next: int | None = None
        self.loss = Loss()
        self.problem = ""
        """Why the last packet was refused, in one sentence; empty where it was not."""

    def push(self, data: bytes) -> Floats:
        """Sound that is ready now: samples at the model's rate, none while something is waited for."""
        self.problem = ""
        try:
            packet = self._mode.unpack(self.model, data)
        except RtganError as problem:
            self.problem = str(problem)
            self.loss.packets_refused += 1
            return np.zeros(0, np.float32)
        if self._next is None or packet.first >= self._next + self.most:
            # The first packet, or one from so far ahead that nothing in between is to be made up for.
            self._frames.clear()
            self._next = packet.first
        if packet.first + packet.frames <= self._next:
            self.loss.packets_late += 1
            return np.zeros(0, np.float32)
        for number in range(max(packet.first, self._next), packet.first + packet.frames):
            self._frames.setdefault(number, packet)
        return self._ready(self.hold)

    def end(self) -> Floats:
        """What is left, gaps concealed."""
        return np.concatenate([self._ready(0), self._decoder.end()])

    def _ready(self, hold: int) -> Floats:
        out: list[Floats] = []
        while self._frames and self._next is not None:
            first = self._next
            packet = self._frames.get(first)
            if packet is not None:
                # All that comes in a row of one packet is decoded at once.
                while self._frames.get(self._next) is packet:
                    del self._frames[self._next]
                    self._next += 1
                out.append(self._decoder.push(packet, first - packet.first, self._next - packet.first))
                self.loss.frames_played += self._next - first
            elif max(self._frames) - first >= hold:
                out.append(self._decoder.conceal(1))
                self.loss.frames_lost += 1
                self._next += 1
            else:
                break
        return np.concatenate(out) if out else np.zeros(0, np.float32)
