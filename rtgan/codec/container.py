"""Files of packets, ``.rtg``: they stream, seek, and lose no more than what is damaged (``docs/codec.md``).

Nothing in a file is trusted: every packet is found by its marker and its checksum, wherever it lies, and no size that
is written somewhere decides how much memory is taken.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from rtgan.codec import packets
from rtgan.codec.model import PACKET, PACKET_S, RATE_HZ, Decoder, Encoder, Model, stages_of
from rtgan.errors import RtganError, UsageError
from rtgan.kernels.codec import LEAD

Floats = NDArray[np.float32]

VERSION = 1
MAGIC = b"RTGC"
MOST_CHANNELS = 8
RATES_HZ = (8000, 384000)
#: Marker in front of each packet; its channel follows.
_MARK = b"\xa7\x52"
_HEAD = struct.Struct("<4sBBHIQI")
_CHECK = struct.Struct("<I")
#: Frames of a packet: what is lost at least where a byte is damaged.
_FRAMES = 50
#: Frames that a decoder hears before those that are wanted, so that it knows what was before.
_BEFORE = 50
#: A gap of more than a minute is no gap but a lie: it is closed.
_LONGEST_GAP = 3000


class Writer:
    """Sound to a file or pipe, as it comes.

    Parameters
    ----------
    stream : binary file
        Where it can seek, the length is entered at the end.
    model : Model
    channels : int
    sample_rate_hz : int
        What the sound comes back at; it is coded at 16 kHz.
    bits_per_s : float
        For each channel, on speech.
    """

    def __init__(
        self, stream: BinaryIO, model: Model, channels: int = 1, sample_rate_hz: int = RATE_HZ,
        bits_per_s: float = 6000.0,
    ) -> None:  # fmt: skip
        import soxr

        if not 1 <= channels <= MOST_CHANNELS:
            raise UsageError(f"{channels} channels cannot be encoded; allowed are 1 to {MOST_CHANNELS}")
        if not RATES_HZ[0] <= sample_rate_hz <= RATES_HZ[1]:
            raise UsageError(f"{sample_rate_hz} Hz cannot be encoded; allowed are {RATES_HZ[0]} to {RATES_HZ[1]} Hz")
        self.model, self.channels, self.rate = model, channels, sample_rate_hz
        self.stages = stages_of(model, bits_per_s)
        self._stream = stream
        self._encoders = [Encoder(model) for _ in range(channels)]
        self._ways = [soxr.ResampleStream(sample_rate_hz, RATE_HZ, 1, "float32") for _ in range(channels)]
        self._waiting = [np.zeros((0, 1 + model.stages), np.int64) for _ in range(channels)]
        self._written = [0] * channels
        self.samples = 0
        stream.write(self._head())

    def _head(self) -> bytes:
        head = _HEAD.pack(MAGIC, VERSION, self.channels, 0, self.rate, self.samples, self.model.number)
        return head + _CHECK.pack(zlib.crc32(head))

    def write(self, sound: Floats) -> None:
        """Encode samples (channels, samples) in -1..1."""
        if sound.ndim != 2 or len(sound) != self.channels:
            raise UsageError(f"the sound has the shape {sound.shape}; wanted is ({self.channels}, samples)")
        self.samples += sound.shape[1]
        self._encode(sound, False)

    def close(self) -> None:
        """Write the rest; the stream stays open."""
        self._encode(np.zeros((self.channels, 0), np.float32), True)
        if self._stream.seekable():
            end = self._stream.tell()
            self._stream.seek(0)
            self._stream.write(self._head())
            self._stream.seek(end)

    def _encode(self, sound: Floats, last: bool) -> None:
        for channel, (encoder, way) in enumerate(zip(self._encoders, self._ways, strict=True)):
            slow = sound[channel] if self.rate == RATE_HZ else way.resample_chunk(sound[channel], last=last)
            told = encoder.push(slow)
            if last:
                told = np.concatenate([told, encoder.end()])
            waiting = np.concatenate([self._waiting[channel], told])
            while len(waiting) >= (1 if last else _FRAMES):
                some, waiting = waiting[:_FRAMES], waiting[_FRAMES:]
                packet = packets.pack(self.model, self._written[channel], some, self.stages)
                self._stream.write(_MARK + bytes([channel]) + packet)
                self._written[channel] += len(some)
            self._waiting[channel] = waiting


@dataclass
class Reader:
    """A file that can be decoded.

    Parameters
    ----------
    data : bytes
        The whole file.
    model : Model

    Attributes
    ----------
    channels, sample_rate_hz : int
    samples : int
        As the file says; 0 where it does not.
    seconds : float
        What is there.
    problems : list of str
        What is lost, one sentence each; empty for a file that is whole.
    """

    data: bytes
    model: Model
    channels: int = 1
    sample_rate_hz: int = RATE_HZ
    samples: int = 0
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places: list[dict[int, tuple[int, packets.Packet]]] = [{} for _ in range(MOST_CHANNELS)]
        self._read_head()
        self._scan()

    def _read_head(self) -> None:
        whole = _HEAD.size + _CHECK.size
        data = self.data
        if len(data) >= whole and data[:4] == MAGIC:
            _, version, channels, _, rate, samples, number = _HEAD.unpack_from(data)
            if _CHECK.unpack_from(data, _HEAD.size)[0] == zlib.crc32(data[: _HEAD.size]):
                if version != VERSION:
                    raise RtganError(f"the file has version {version}; this program knows version {VERSION}")
                if number != self.model.number:
                    raise RtganError(
                        f"the file was made with model {number:08x}, but this is model {self.model.number:08x}"
                    )
                if 1 <= channels <= MOST_CHANNELS and RATES_HZ[0] <= rate <= RATES_HZ[1]:
                    self.channels, self.sample_rate_hz, self.samples = channels, rate, samples
                    return
        if data[:4] != MAGIC and _MARK not in data:
            raise RtganError("this is no .rtg file")
        self.problems.append(f"the head of the file is damaged: the sound is given back at {RATE_HZ} Hz")
        self.channels = 0

    def _scan(self) -> None:
        """Find every packet that is whole."""
        data = memoryview(self.data)
        at, damaged, known = 0, 0, self.channels
        while (at := self.data.find(_MARK, at)) >= 0:
            length = packets.length_of(data[at + 3 :])
            if not length or data[at + 2] >= (known or MOST_CHANNELS):
                at += 1
                continue
            try:
                packet = packets.unpack(self.model, bytes(data[at + 3 : at + 3 + length]))
            except RtganError as problem:
                if "model" in str(problem):
                    raise
                damaged += 1
                at += 1
                continue
            self._places[data[at + 2]].setdefault(packet.first, (at, packet))
            at += 3 + length
        if not known:
            self.channels = max((c + 1 for c, place in enumerate(self._places) if place), default=0)
        if not any(self._places):
            raise RtganError("nothing in the file is intact")
        self._frames = [self._in_order(channel, place) for channel, place in enumerate(self._places[: self.channels])]
        if damaged:
            self.problems.append(f"{damaged} packet{'s are' if damaged > 1 else ' is'} damaged")
        wanted = self.samples / self.sample_rate_hz
        if wanted - self.seconds > PACKET_S:
            self.problems.append(f"the end is missing: of {wanted:.2f} s there are {self.seconds:.2f} s")

    def _in_order(self, channel: int, place: dict[int, tuple[int, packets.Packet]]) -> list[packets.Packet | int]:
        """Packets in their order, and between them the frames that are missing."""
        out: list[packets.Packet | int] = []
        after = 0
        for first in sorted(place):
            packet = place[first][1]
            if first < after:
                self.problems.append(f"channel {channel + 1}: frames told twice are left out")
                continue
            gap = first - after
            if gap:
                where = f"channel {channel + 1}: {gap * PACKET_S:.2f} s are lost at {after * PACKET_S:.2f} s"
                self.problems.append(where + (", and closed" if gap > _LONGEST_GAP else ""))
                if gap <= _LONGEST_GAP:
                    out.append(gap)
            out.append(packet)
            after = first + len(packet.codes)
        return out

    @property
    def seconds(self) -> float:
        """How long what is there is."""
        counts = [sum(p if isinstance(p, int) else len(p.codes) for p in told) for told in self._frames]
        whole = max(0.0, max(counts, default=0) * PACKET_S - LEAD / RATE_HZ)
        return min(whole, self.samples / self.sample_rate_hz) if self.samples else whole

    def read(self, start_s: float = 0.0, seconds: float | None = None) -> Floats:
        """Sound (channels, samples) from a place on, at the file's rate.

        A place in the middle is decoded from a second before; magnitudes are then those of a run from the beginning,
        phases are not (they are nobody's).

        Raises
        ------
        UsageError
            A place that is not in the file.
        """
        whole = self.seconds
        if not 0 <= start_s <= whole or (seconds is not None and not seconds > 0):
            raise UsageError(f"the file has {whole:.2f} s; {start_s:g} s on it there is nothing to read")
        length = min(whole - start_s, seconds if seconds is not None else whole)
        first = max(0, int(start_s / PACKET_S) - _BEFORE)
        last = int((start_s + length) / PACKET_S) + 1 + -(-Decoder.DELAY // PACKET)
        rate, out = self.sample_rate_hz, []
        begin = round(start_s * rate)
        count = min(round((start_s + length) * rate), self.samples or round(whole * rate)) - begin
        for told in self._frames:
            sound = self._decoded(told, first, last)
            if rate != RATE_HZ:
                import soxr

                sound = soxr.resample(sound, RATE_HZ, rate, quality="HQ")
            skip = begin - round(first * PACKET * rate / RATE_HZ)
            part = sound[skip : skip + count]
            out.append(np.pad(part, (0, count - len(part))))
        return np.ascontiguousarray(np.stack(out), np.float32)

    def _decoded(self, told: list[packets.Packet | int], first: int, last: int) -> Floats:
        """Sound at 16 kHz of frames `first` to `last`, without what the decoder gives in front."""
        decoder = Decoder(self.model)
        at, parts = 0, []
        for piece in told:
            count = piece if isinstance(piece, int) else len(piece.codes)
            low, high = max(first - at, 0), min(last - at, count)
            if low < high:
                if isinstance(piece, int):
                    parts.append(decoder.push(decoder.lost(high - low)))
                else:
                    parts.append(decoder.push(piece.codes[low:high], piece.stages))
            at += count
        return np.concatenate([*parts, decoder.end()])[Decoder.DELAY :]


def encode(
    sound: Floats, sample_rate_hz: int, model: Model, bits_per_s: float, stream: BinaryIO,
    progress: Callable[[int], None] = lambda samples: None,
) -> None:  # fmt: skip
    """Write sound (channels, samples) to a stream; `progress` is told how many samples were done."""
    writer = Writer(stream, model, len(sound), sample_rate_hz, bits_per_s)
    for start in range(0, sound.shape[1], sample_rate_hz):
        part = sound[:, start : start + sample_rate_hz]
        writer.write(part)
        progress(part.shape[1])
    writer.close()
