"""Files of packets, ``.rtg``: they stream, seek, and lose no more than what is damaged (``docs/codec.md``).

Nothing in a file is trusted: every packet is found by its marker and its checksum, wherever it lies, and no size that
is written somewhere decides how much memory is taken.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rtgan.codec import packets
from rtgan.codec.modes import MUSIC, SPEECH, Mode, Model, Packet, mode_for
from rtgan.errors import RtganError, UsageError

Floats = NDArray[np.float32]

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
#: A gap of more than a minute is no gap but a lie: it is closed. So are all, once they are a minute more than there is
#: sound.
_LONGEST_GAP = 3000


def mode_of(data: bytes) -> Mode:
    """The mode of a file, by its head, or by its first packet where the head is damaged.

    Raises
    ------
    RtganError
        When it has neither, or is of a later version.
    """
    head = _head_of(data)
    if head is not None:
        for mode in (SPEECH, MUSIC):
            if mode.version == head[1]:
                return mode
        raise RtganError(
            f"the file has version {head[1]}; this program knows versions {SPEECH.version} (speech) and "
            f"{MUSIC.version} (music)"
        )
    at = 0
    view = memoryview(data)
    while (at := data.find(_MARK, at)) >= 0:
        for mode in (SPEECH, MUSIC):
            if packets.is_whole(view[at + 3 :], mode.version):
                return mode
        at += 1
    if data[:4] != MAGIC and _MARK not in data:
        raise RtganError("this is no .rtg file")
    raise RtganError("nothing in the file is intact")


def _head_of(data: bytes) -> tuple[Any, ...] | None:
    """The fields of the head, where it is whole."""
    if len(data) < _HEAD.size + _CHECK.size or data[:4] != MAGIC:
        return None
    whole = _CHECK.unpack_from(data, _HEAD.size)[0] == zlib.crc32(data[: _HEAD.size])
    return _HEAD.unpack_from(data) if whole else None


class Writer:
    """Sound to a file or pipe, as it comes.

    Parameters
    ----------
    stream : binary file
        Where it can seek, the length is entered at the end.
    model : Model
        Of speech or of music.
    channels : int
    sample_rate_hz : int
        What the sound comes back at; speech is coded at 16 kHz, music at 48.
    bits_per_s : float, optional
        For each channel: 6000 for speech, 24000 for music unless told otherwise.
    """

    def __init__(
        self, stream: BinaryIO, model: Model, channels: int = 1, sample_rate_hz: int | None = None,
        bits_per_s: float | None = None,
    ) -> None:  # fmt: skip
        import soxr

        mode = mode_for(model)
        rate = mode.rate_hz if sample_rate_hz is None else sample_rate_hz
        if not 1 <= channels <= MOST_CHANNELS:
            raise UsageError(f"{channels} channels cannot be encoded; allowed are 1 to {MOST_CHANNELS}")
        if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
            raise UsageError(f"{rate} Hz cannot be encoded; allowed are {RATES_HZ[0]} to {RATES_HZ[1]} Hz")
        self.model, self.mode, self.channels, self.rate = model, mode, channels, rate
        self._stream = stream
        bits = mode.bits_per_s if bits_per_s is None else bits_per_s
        self._senders = [mode.sender(model, bits, _FRAMES) for _ in range(channels)]
        self._ways = [soxr.ResampleStream(rate, mode.rate_hz, 1, "float32") for _ in range(channels)]
        self.samples = 0
        stream.write(self._head())

    def _head(self) -> bytes:
        head = _HEAD.pack(MAGIC, self.mode.version, self.channels, 0, self.rate, self.samples, self.model.number)
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
        for channel, (sender, way) in enumerate(zip(self._senders, self._ways, strict=True)):
            coded = sound[channel]
            if self.rate != self.mode.rate_hz:
                coded = way.resample_chunk(coded, last=last)
            for packet in [*sender.push(coded), *(sender.end() if last else [])]:
                self._stream.write(_MARK + bytes([channel]) + packet)


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
    sample_rate_hz: int = 0
    samples: int = 0
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._mode = mode_for(self.model)
        self._places: list[dict[int, Packet]] = [{} for _ in range(MOST_CHANNELS)]
        self._read_head()
        self._scan()

    def _read_head(self) -> None:
        found, mode = mode_of(self.data), self._mode
        if found is not mode:
            raise RtganError(f"the file holds what the model '{found.name}' made, but this is one for '{mode.name}'")
        head = _head_of(self.data)
        if head is not None:
            _, _, channels, _, rate, samples, number = head
            if number != self.model.number:
                raise RtganError(
                    f"the file was made with model {number:08x}, but this is model {self.model.number:08x}"
                )
            if 1 <= channels <= MOST_CHANNELS and RATES_HZ[0] <= rate <= RATES_HZ[1]:
                self.channels, self.sample_rate_hz, self.samples = channels, rate, samples
                return
        self.problems.append(f"the head of the file is damaged: the sound is given back at {mode.rate_hz} Hz")
        self.channels, self.sample_rate_hz = 0, mode.rate_hz

    def _scan(self) -> None:
        """Find every packet that is whole."""
        data = memoryview(self.data)
        at, damaged, known = 0, 0, self.channels
        while (at := self.data.find(_MARK, at)) >= 0:
            length = packets.length_of(data[at + 3 :], self._mode.version)
            if not length or data[at + 2] >= (known or MOST_CHANNELS):
                at += 1
                continue
            try:
                packet = self._mode.unpack(self.model, bytes(data[at + 3 : at + 3 + length]))
            except RtganError as problem:
                if "model" in str(problem):
                    raise
                damaged += 1
                at += 1
                continue
            self._places[data[at + 2]].setdefault(packet.first, packet)
            at += 3 + length
        if not known:
            self.channels = max((c + 1 for c, place in enumerate(self._places) if place), default=0)
        if not any(self._places):
            raise RtganError("nothing in the file is intact")
        self._frames = [self._in_order(channel, place) for channel, place in enumerate(self._places[: self.channels])]
        if damaged:
            self.problems.append(f"{damaged} packet{'s are' if damaged > 1 else ' is'} damaged")
        wanted = self.samples / self.sample_rate_hz
        # A resampler may be a sample short.
        if wanted - self.seconds > 1e-3:
            self.problems.append(f"the end is missing: of {wanted:.2f} s there are {self.seconds:.2f} s")

    def _in_order(self, channel: int, place: dict[int, Packet]) -> list[Packet | int]:
        """Packets in their order, and between them the frames that are missing."""
        out: list[Packet | int] = []
        after, frame_s = 0, self._mode.frame_s
        patience = _LONGEST_GAP + sum(packet.frames for packet in place.values())
        for first in sorted(place):
            packet = place[first]
            if first < after:
                self.problems.append(f"channel {channel + 1}: frames told twice are left out")
                continue
            gap = first - after
            if gap:
                where = f"channel {channel + 1}: {gap * frame_s:.2f} s are lost at {after * frame_s:.2f} s"
                keeps = gap <= min(_LONGEST_GAP, patience)
                self.problems.append(where + ("" if keeps else ", and closed"))
                if keeps:
                    patience -= gap
                    out.append(gap)
            out.append(packet)
            after = first + packet.frames
        return out

    @property
    def seconds(self) -> float:
        """How long what is there is."""
        mode = self._mode
        counts = [sum(p if isinstance(p, int) else p.frames for p in told) for told in self._frames]
        whole = max(0.0, max(counts, default=0) * mode.frame_s - mode.lead / mode.rate_hz)
        return min(whole, self.samples / self.sample_rate_hz) if self.samples else whole

    def read(self, start_s: float = 0.0, seconds: float | None = None) -> Floats:
        """Sound (channels, samples) from a place on, at the file's rate.

        A place in the middle is decoded from a second before. Music that is given back at 48 kHz is then bit for bit
        that of a run from the beginning; of speech magnitudes are, phases are not (they are nobody's).

        Raises
        ------
        UsageError
            A place that is not in the file.
        """
        whole = self.seconds
        if not 0 <= start_s <= whole or (seconds is not None and not seconds > 0):
            raise UsageError(f"the file has {whole:.2f} s; {start_s:g} s on it there is nothing to read")
        length = min(whole - start_s, seconds if seconds is not None else whole)
        mode = self._mode
        first = max(0, int(start_s / mode.frame_s) - _BEFORE)
        last = int((start_s + length) / mode.frame_s) + 1 + -(-mode.delay // mode.frame)
        rate, out = self.sample_rate_hz, []
        begin = round(start_s * rate)
        count = min(round((start_s + length) * rate), self.samples or round(whole * rate)) - begin
        for told in self._frames:
            sound = self._decoded(told, first, last)
            if rate != mode.rate_hz:
                import soxr

                sound = soxr.resample(sound, mode.rate_hz, rate, quality="HQ")
            skip = begin - round(first * mode.frame * rate / mode.rate_hz)
            part = sound[skip : skip + count]
            out.append(np.pad(part, (0, count - len(part))))
        return np.ascontiguousarray(np.stack(out), np.float32)

    def _decoded(self, told: list[Packet | int], first: int, last: int) -> Floats:
        """Sound at the codec's rate of frames `first` to `last`, without what the decoder gives in front."""
        decoder = self._mode.decoder(self.model)
        at, parts = 0, []
        for piece in told:
            count = piece if isinstance(piece, int) else piece.frames
            low, high = max(first - at, 0), min(last - at, count)
            if low < high:
                parts.append(decoder.conceal(high - low) if isinstance(piece, int) else decoder.push(piece, low, high))
            at += count
        return np.concatenate([*parts, decoder.end()])[self._mode.delay :]


def encode(
    sound: Floats, sample_rate_hz: int, model: Model, bits_per_s: float | None, stream: BinaryIO,
    progress: Callable[[int], None] = lambda samples: None,
) -> None:  # fmt: skip
    """Write sound (channels, samples) to a stream; `progress` is told how many samples were done."""
    writer = Writer(stream, model, len(sound), sample_rate_hz, bits_per_s)
    for start in range(0, sound.shape[1], sample_rate_hz):
        part = sound[:, start : start + sample_rate_hz]
        writer.write(part)
        progress(part.shape[1])
    writer.close()
