"""Music at 48 kHz to packets and back: the codec's other mode (`rtgan.kernels.music` has its rules).

A packet stands alone: nothing that was told before is needed to read it, and from its second frame on it sounds, bit
for bit, as it does behind any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtgan.codec import packets
from rtgan.errors import RtganError, UsageError
from rtgan.generators import library
from rtgan.generators.card import arrays_of, read_extra
from rtgan.generators.compile import Net
from rtgan.kernels import entropy, mdct, music

Floats = NDArray[np.float32]
Words = NDArray[np.int64]

#: Version of packets and files of music.
VERSION = 2
RATE_HZ = music.RATE_HZ
#: Samples and seconds of one frame.
FRAME = music.FRAME
FRAME_S = FRAME / RATE_HZ
#: What may be asked for, for each channel.
BITS_PER_S = (8000.0, 24000.0)
#: What packets of one frame need: 6000 are what is around them, and loudness takes most of the rest.
_SINGLE_BITS_PER_S = 10000.0
#: Silence that goes before a sound, so that its first sample lies in no frame that nobody hears.
LEAD = FRAME // 2
_TABLES = "music.npz.b64"
#: Seconds' worth of bits that may be saved up, and the quality beyond which nothing is heard.
_SAVED_S, _BEST = 1.0, 24
_LOUDEST_SAMPLE = 4.0
#: Frames that what is missing sounds on for, fading by 3 dB each.
_LONGEST_FADE = 12


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes
    ----------
    net : Net
        Says how loud what is told as zero is.
    tables : ndarray
        Of `rtgan.kernels.entropy`.
    tilt : ndarray, (bands,)
        By how much the step of a band differs from the rule, in 1.5 dB.
    number : int
        32 bits that name the model in packets.
    """

    net: Net
    tables: NDArray[np.uint16]
    tilt: Words
    number: int


def load(name: str | Path = "music") -> Model:
    """Load a model by shipped name or path, once [main thread].

    Raises
    ------
    RtganError
        When it is missing, damaged, or none for music.
    """
    path = library.find(name)
    return _loaded(str(name), path.stat().st_mtime_ns if path is not None else 0)


@lru_cache(maxsize=4)
def _loaded(name: str, changed_ns: int) -> Model:
    loaded = library.load(name)
    card = loaded.card
    if card.task != "music":
        raise RtganError(f"the model {name} is for '{card.task}' and is no codec for music")
    kinds = {"tables": np.uint16, "tilt": np.int64}
    tables, tilt = arrays_of(read_extra(loaded.path, _TABLES), kinds, f"the tables of {loaded.path}")
    fits = (
        tables.shape == (music.ROWS, music.SYMBOLS + 1)
        and bool((np.diff(tables.astype(np.int64), axis=1) > 0).all())
        and bool((tables[:, 0] == 0).all())
        and bool((tables[:, -1] == entropy.WHOLE).all())
        and tilt.shape == (music.BANDS,)
        and bool((np.abs(tilt) <= 64).all())
        and (card.inputs, card.outputs) == (music.ROW, music.BANDS)
    )
    if not fits:
        raise RtganError(f"the tables of {loaded.path} do not belong to this codec")
    return Model(loaded.net, tables, tilt, int(card.sha256[:8], 16))


@dataclass(frozen=True)
class Frames:
    """What is told of frames, as whole numbers.

    Attributes
    ----------
    quality : int
        Of steps, less is better.
    kinds : ndarray, (frames,)
    energies : ndarray, (frames, bands)
    gains : ndarray, (frames, gains)
    values : ndarray, (frames, bins)
    """

    quality: int
    kinds: Words
    energies: Words
    gains: Words
    values: NDArray[np.int32]

    @classmethod
    def empty(cls, frames: int, quality: int) -> Frames:
        """Room for so many frames, all silent."""
        return cls(
            quality,
            np.zeros(frames, np.int64),
            np.zeros((frames, music.BANDS), np.int64),
            np.zeros((frames, music.GAINS), np.int64),
            np.zeros((frames, music.BINS), np.int32),
        )


@dataclass(frozen=True)
class Packet:
    """A packet that is whole.

    Attributes
    ----------
    first : int
        Number of its first frame since the stream began.
    frames : int
    quality : int
    told : bytes
        What is coded.
    """

    first: int
    frames: int
    quality: int
    told: bytes


class Analysis:
    """Sound to spectra, as it comes [any thread, one for each channel]."""

    def __init__(self) -> None:
        self._plan = mdct.Plan()
        self._left = np.zeros(FRAME + LEAD, np.float32)
        self._before = 0

    def push(self, samples: Floats) -> tuple[Floats, Words]:
        """Spectra (frames, FRAME) and kinds of frames that are complete with these samples (48 kHz)."""
        fresh = np.nan_to_num(np.asarray(samples, np.float32).ravel(), nan=0.0, posinf=0.0, neginf=0.0)
        heard = np.concatenate([self._left, np.clip(fresh, -_LOUDEST_SAMPLE, _LOUDEST_SAMPLE)])
        frames = max(0, len(heard) // FRAME - 2)
        spectra = np.zeros((frames, FRAME), np.float32)
        if not frames:
            self._left = heard
            return spectra, np.zeros(0, np.int64)
        # Whether the frame behind has short blocks decides where the last one ends.
        sudden = [mdct.attacks(heard[FRAME * k : FRAME * (k + 2)]) for k in range(frames + 1)]
        shorts = np.array([self._before, *sudden], np.int64)
        mdct.analyse(*self._plan.arguments, heard[: FRAME * (frames + 2)].copy(), shorts, spectra)
        self._before = int(shorts[frames])
        self._left = heard[FRAME * frames :]
        return spectra, np.where(shorts[1:-1] != 0, music.SHORT, music.LONG)

    def end(self) -> tuple[Floats, Words]:
        """Those of the rest, with silence behind it."""
        frames = -(-(len(self._left) - LEAD) // FRAME)
        return self.push(np.zeros(FRAME * (frames + 2) - len(self._left), np.float32))


def told(spectra: Floats, kinds: Words, quality: int, tilt: Words) -> Frames:
    """What is told of spectra at a quality."""
    frames = Frames.empty(len(spectra), quality)
    frames.kinds[:] = kinds
    music.weigh(spectra, frames.kinds, frames.energies, frames.gains)
    requantised(frames, spectra, tilt)
    return frames


def requantised(frames: Frames, spectra: Floats, tilt: Words) -> None:
    """Make the values of frames anew."""
    music.quantise(spectra, frames.kinds, frames.energies, frames.gains, frames.quality, tilt, frames.values)


def symbols(frames: Frames, tilt: Words) -> tuple[Words, Words]:
    """Rows and symbols of the arithmetic coder."""
    # A value takes two symbols, or up to its length more where it is large.
    large = int((np.abs(frames.values) >= music.LARGE).sum())
    room = len(frames.kinds) * (1 + music.BANDS + music.GAINS + 2 * music.BINS) + music.MOST_EXTRA * large
    rows, found = np.zeros(room, np.int64), np.zeros(room, np.int64)
    count = music.tell(
        frames.kinds, frames.energies, frames.gains, frames.values, frames.quality, tilt, rows, found
    )  # fmt: skip
    return rows[:count], found[:count]


def coded(model: Model, frames: Frames) -> bytes:
    """Bytes of frames."""
    rows, found = symbols(frames, model.tilt)
    out = np.zeros(2 * len(rows) + 64, np.uint8)
    return out[: entropy.encode(model.tables, rows, found, out)].tobytes()


def decoded(model: Model, packet: Packet) -> Frames:
    """The frames of a packet.

    Raises
    ------
    RtganError
        When no encoder can have written it.
    """
    frames = Frames.empty(packet.frames, packet.quality)
    heard = np.frombuffer(packet.told, np.uint8)
    if not music.understand(
        model.tables, heard, packet.quality, model.tilt, frames.kinds, frames.energies, frames.gains, frames.values
    ):
        raise RtganError("the packet is damaged")
    return frames


def unpack(model: Model, data: bytes) -> Packet:
    """What a packet says; see `rtgan.codec.packets.unpack`."""
    first, frames, quality, coded_ = packets.unwrap(data, VERSION, packets.folded(model.number))
    if quality >= music.QUALITIES:
        raise RtganError("the packet is damaged")
    packet = Packet(first, frames, quality, coded_)
    decoded(model, packet)
    return packet


def rate_of(bits_per_s: float) -> float:
    """The bit rate, where it is allowed; `UsageError` where it is not."""
    low, high = BITS_PER_S
    if not low <= bits_per_s <= high:
        raise UsageError(f"a bit rate of {bits_per_s:g} bit/s is not possible for music; allowed are "
                         f"{low:g} to {high:g}")  # fmt: skip
    return bits_per_s


class Sender:
    """Sound to packets [any thread].

    Parameters
    ----------
    model : Model
    bits_per_s : float
        What packets take, all bytes counted, over some seconds: what easy ones leave, hard ones may use.
    frames : int
        In a packet; one alone takes 10000 bits a second at least.
    """

    def __init__(self, model: Model, bits_per_s: float = 24000.0, frames: int = 50) -> None:
        packets.check_frames(frames)
        if frames == 1 and bits_per_s < _SINGLE_BITS_PER_S:
            raise UsageError(f"{bits_per_s:g} bit/s are too few for music; packets of 1 frame need "
                             f"{_SINGLE_BITS_PER_S:g} bit/s or more")  # fmt: skip
        self.model, self.frames, self.bits_per_s = model, frames, rate_of(bits_per_s)
        self._analysis = Analysis()
        self._spectra, self._kinds = np.zeros((0, FRAME), np.float32), np.zeros(0, np.int64)
        self._saved = 0.0
        self.sent = 0
        """Frames sent."""

    def push(self, samples: Floats) -> list[bytes]:
        """Packets that are full with these samples (48 kHz, one channel)."""
        return self._packets(self._analysis.push(samples), self.frames)

    def end(self) -> list[bytes]:
        """The last packets."""
        return self._packets(self._analysis.end(), 1)

    def _packets(self, more: tuple[Floats, Words], least: int) -> list[bytes]:
        spectra = np.concatenate([self._spectra, more[0]])
        kinds = np.concatenate([self._kinds, more[1]])
        out = []
        while len(kinds) >= least:
            some = slice(self.frames)
            out.append(self._packet(np.ascontiguousarray(spectra[some]), kinds[some].copy()))
            spectra, kinds = spectra[self.frames :], kinds[self.frames :]
        self._spectra, self._kinds = spectra, kinds
        return out

    def _packet(self, spectra: Floats, kinds: Words) -> bytes:
        """The packet of the best quality that there are bits for."""
        model = self.model
        fair = self.bits_per_s * len(kinds) * FRAME_S
        # What is saved is for a second's worth of frames: a short packet has no right to all of it.
        share = min(1.0, len(kinds) * FRAME_S / _SAVED_S) if self._saved > 0 else 1.0
        room = fair + share * self._saved
        low, high = _BEST, music.QUALITIES - 1
        frames = told(spectra, kinds, high, model.tilt)
        best = coded(model, frames)
        while low < high:
            quality = (low + high) // 2
            tried = replace(frames, quality=quality)
            requantised(tried, spectra, model.tilt)
            data = coded(model, tried)
            if 8 * (len(data) + packets.OVERHEAD) <= room:
                high, best = quality, data
            else:
                low = quality + 1
        packet = packets.wrap(VERSION, packets.folded(model.number), self.sent, len(kinds), high, best)
        most = _SAVED_S * self.bits_per_s
        self._saved = float(np.clip(fair + self._saved - 8 * len(packet), -most, most))
        self.sent += len(kinds)
        return packet


class Decoder:
    """Packets to sound, in their order [any thread, one per decoder].

    `DELAY` samples come before the first that was heard.

    Parameters
    ----------
    model : Model
    """

    #: Samples to leave out at the beginning: silence that the encoder put in front, and a frame that waits.
    DELAY = LEAD + FRAME

    def __init__(self, model: Model) -> None:
        self.model = model
        self._plan = mdct.Plan()
        self._waiting = np.zeros(FRAME, np.float32)
        self._before = music.LONG
        self._energies = np.zeros(music.BANDS, np.int64)
        self._missing = 0
        self._last: tuple[Packet, Frames, Floats] | None = None

    def push(self, packet: Packet, low: int = 0, high: int | None = None) -> Floats:
        """`FRAME` samples for each frame of a packet from one number to another."""
        # A packet between whose frames others lie comes once for each of its pieces.
        if self._last is None or self._last[0] is not packet:
            try:
                frames = decoded(self.model, packet)
            except RtganError:
                return self.conceal(len(range(packet.frames)[low:high]))
            self._last = packet, frames, filled(self.model, frames, packet.first)
        _, frames, whole = self._last
        some = slice(low, high)
        spectra = whole[some]
        if len(spectra):
            self._energies, self._missing = frames.energies[some][-1], 0
        return self._sound(spectra, frames.kinds[some])

    def conceal(self, count: int) -> Floats:
        """Sound for frames that did not arrive: noise like the one before, fading."""
        frames = Frames.empty(count, music.QUALITIES - 1)
        # The noise of each frame is another's, in whatever pieces a gap is told.
        first = self._missing
        for k in range(min(count, _LONGEST_FADE - self._missing)):
            self._missing += 1
            frames.kinds[k] = music.LONG
            frames.energies[k] = np.maximum(self._energies - self._missing, 0)
        spectra = np.zeros((count, FRAME), np.float32)
        louder = np.zeros((count, music.BANDS), np.float32)
        _fill(self.model, frames, louder, first, spectra)
        return self._sound(spectra, np.full(count, music.LONG, np.int64))

    def end(self) -> Floats:
        """What was still to come."""
        return self._sound(np.zeros((1, FRAME), np.float32), np.full(1, music.LONG, np.int64))

    def _sound(self, spectra: Floats, kinds: Words) -> Floats:
        if not len(kinds):
            return np.zeros(0, np.float32)
        out = np.concatenate([self._waiting, np.zeros(spectra.size, np.float32)])
        shorts = (np.concatenate([[self._before], kinds]) == music.SHORT).astype(np.int64)
        mdct.synthesise(*self._plan.arguments, np.ascontiguousarray(spectra), shorts, out)
        self._before = int(kinds[-1])
        self._waiting = out[-FRAME:]
        return out[:-FRAME]


def filled(model: Model, frames: Frames, first: int) -> Floats:
    """Spectra of frames, noise and all."""
    count = len(frames.kinds)
    rows = np.zeros((count, music.ROW), np.float32)
    music.features(
        frames.kinds, frames.energies, frames.gains, frames.values, frames.quality, model.tilt, rows
    )  # fmt: skip
    spectra = np.zeros((count, FRAME), np.float32)
    _fill(model, frames, library.play(model.net, rows), first, spectra)
    return spectra


def _fill(model: Model, frames: Frames, louder: Floats, first: int, spectra: Floats) -> None:
    music.fill(
        frames.kinds, frames.energies, frames.gains, frames.values, frames.quality, model.tilt, louder, first, spectra
    )
