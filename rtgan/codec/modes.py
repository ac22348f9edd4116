"""What tells speech and music apart, for whoever takes either: files (`container`) and networks (`receiver`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan.codec import model as speech
from rtgan.codec import music, packets
from rtgan.kernels.codec import LEAD

Floats = NDArray[np.float32]
Model = speech.Model | music.Model
Packet = packets.Packet | music.Packet


class _Speaker:
    """The decoder of speech, asked as that of music is."""

    def __init__(self, model: speech.Model) -> None:
        self._decoder = speech.Decoder(model)

    def push(self, packet: packets.Packet, low: int, high: int) -> Floats:
        return self._decoder.push(packet.codes[low:high], packet.stages)

    def conceal(self, count: int) -> Floats:
        return self._decoder.push(self._decoder.lost(count))

    def end(self) -> Floats:
        return self._decoder.end()


@dataclass(frozen=True)
class Mode:
    """What tells packets and files of speech from those of music.

    Attributes
    ----------
    name : str
        Also that of the model which comes along.
    version : int
        Of packets, and of files of them.
    rate_hz, frame : int
        What is coded, and samples of a frame there.
    lead, delay : int
        Samples that the encoder puts in front, and that a decoder gives before the sound begins.
    bits_per_s : float
        What files take for each channel, unless told otherwise.
    """

    name: str
    version: int
    rate_hz: int
    frame: int
    lead: int
    delay: int
    bits_per_s: float
    load: Callable[[str | Path], Model]
    sender: Callable[[Any, float, int], packets.Sender | music.Sender]
    unpack: Callable[[Any, bytes], Packet]
    decoder: Callable[[Any], Any]

    @property
    def frame_s(self) -> float:
        """Seconds of a frame."""
        return self.frame / self.rate_hz


SPEECH = Mode(
    "codec", packets.VERSION, speech.RATE_HZ, speech.PACKET, LEAD, speech.Decoder.DELAY, 6000.0,
    speech.load, packets.Sender, packets.unpack, _Speaker,
)  # fmt: skip
MUSIC = Mode(
    "music", music.VERSION, music.RATE_HZ, music.FRAME, music.LEAD, music.Decoder.DELAY, music.BITS_PER_S[1],
    music.load, music.Sender, music.unpack, music.Decoder,
)  # fmt: skip


def mode_for(model: Model) -> Mode:
    """The mode that a model is for."""
    return MUSIC if isinstance(model, music.Model) else SPEECH
