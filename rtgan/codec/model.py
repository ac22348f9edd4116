"""The codec's model, and sound to codes and back.

The net is machine code and torch is not needed; decoding is bit for bit the same on one machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtgan.errors import RtganError, UsageError
from rtgan.generators import library
from rtgan.generators.card import arrays_of, read_extra
from rtgan.generators.compile import Net
from rtgan.kernels import codec, entropy, spectra
from rtgan.kernels.fft import Allocate, aligned

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]

RATE_HZ = spectra.RATE_HZ
#: Samples and seconds of one packet.
PACKET = spectra.PACKET
PACKET_S = PACKET / RATE_HZ
#: Comb symbols: none, the combs, silence.
COMB_SYMBOLS = spectra.COMBS + 1
LEAST_BITS_PER_S = 1000
"""Of speech; what there is at most is for the model to say."""
_BOOKS = "codec.npz.b64"
_LONGEST = 1500
"""Packets that are decoded at once: half a minute."""
_PATHS = 16
"""Paths through the codebooks that an encoder follows: the error of latents is 0.85 dB less than by one."""


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes
    ----------
    net : Net
    books : ndarray, (stages, codes, latent)
    groups : ndarray, (codes,)
        What the chances of codes depend on, by the code of the first stage.
    tables : ndarray
        Of `rtgan.kernels.entropy`.
    number : int
        32 bits that name the model in packets.
    """

    net: Net
    books: Floats
    groups: NDArray[np.int64]
    tables: NDArray[np.uint16]
    number: int

    @property
    def stages(self) -> int:
        """Most stages of a packet."""
        return len(self.books)

    def state(
        self, weights: int = 0, allocate: Allocate = aligned, *, paths: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Memory of one channel: see `rtgan.kernels.codec.build`; `weights` at another address than the net's own."""
        net = self.net
        return codec.build(
            net.address,
            weights or net.weights.ctypes.data,
            net.initial_arena,
            net.inputs[0].offset,
            net.outputs[0].offset,
            self.books,
            paths=paths,
            allocate=allocate,
        )


def load(name: str | Path = "codec") -> Model:
    """Load a model by shipped name or path, once [main thread].

    Raises
    ------
    RtganError
        When it is missing, damaged, or none for the codec.
    """
    path = library.find(name)
    return _loaded(str(name), path.stat().st_mtime_ns if path is not None else 0)


@lru_cache(maxsize=4)
def _loaded(name: str, changed_ns: int) -> Model:
    loaded = library.load(name)
    card = loaded.card
    if card.task != "codec":
        raise RtganError(f"the model {name} is for '{card.task}' and is no codec for speech")
    kinds = {"books": np.float32, "groups": np.int64, "tables": np.uint16}
    books, groups, tables = arrays_of(read_extra(loaded.path, _BOOKS), kinds, f"the codebooks of {loaded.path}")
    latent = card.latents
    rows = COMB_SYMBOLS + 1 + len(books) * (int(groups.max(initial=0)) + 2)
    fits = (
        books.ndim == 3
        and books.shape[2] == latent
        and len(groups) == books.shape[1]
        and 1 <= len(books) <= 32
        and tables.ndim == 2
        and len(tables) >= rows
        and tables.shape[1] > max(books.shape[1], COMB_SYMBOLS)
        and bool((np.diff(tables.astype(np.int64), axis=1) > 0).all())
        and bool((tables[:, -1] == entropy.WHOLE).all())
        and np.isfinite(books).all()
        and (card.inputs, card.outputs) == (spectra.ROW + latent, latent + spectra.ROW)
    )
    net = loaded.net
    if not fits or not (net.inputs[0].contiguous and net.outputs[0].contiguous):
        raise RtganError(f"the codebooks of {loaded.path} do not belong to its net")
    return Model(net, books, groups, tables, int(card.sha256[:8], 16))


class Encoder:
    """Sound to codes, as it comes [any thread, one per encoder].

    Parameters
    ----------
    model : Model
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._memory = model.state(paths=_PATHS)
        self._address = int(self._memory[0].ctypes.data)
        self.reset()

    def reset(self) -> None:
        """Forget everything heard."""
        codec.forget(self._address)
        self._left = np.zeros(codec.LEAD, np.float32)

    def push(self, samples: Floats, stages: int | None = None) -> Codes:
        """Codes (packets, 1 + stages) of the packets that are complete with these samples (16 kHz, one channel).

        `stages` says how many of a packet's will be told (all, unless said), which are then the best for that number.
        """
        heard = np.concatenate([self._left, np.asarray(samples, np.float32).ravel()])
        packets = max(0, (len(heard) - (codec.HEARD - PACKET)) // PACKET)
        codes = np.zeros((packets, 1 + self.model.stages), np.int64)
        if packets:
            codec.hear_all(self._address, heard, self.model.stages if stages is None else stages, codes)
        self._left = heard[packets * PACKET :]
        return codes

    def end(self, stages: int | None = None) -> Codes:
        """Codes of the rest, with silence behind it."""
        missing = -len(self._left) % PACKET + codec.HEARD - PACKET
        return self.push(np.zeros(missing, np.float32), stages)


class Decoder:
    """Codes to sound, as they come [any thread, one per decoder]. `DELAY` samples come before the first that was heard.

    Parameters
    ----------
    model : Model
    """

    #: Samples to leave out at the beginning: silence that the encoder put in front, and look-ahead.
    DELAY = codec.LEAD + (codec.LOOK + codec.AFTER) * spectra.HOP

    def __init__(self, model: Model) -> None:
        self.model = model
        self._memory = model.state()
        self._address = int(self._memory[0].ctypes.data)

    def reset(self) -> None:
        """Forget everything said."""
        codec.forget(self._address)

    def push(self, codes: Codes, stages: int | None = None) -> Floats:
        """`PACKET` samples for each packet; what is lost (`lost`) is concealed.

        Raises
        ------
        UsageError
            Codes of another shape, or that no codebook has.
        """
        model = self.model
        stages = model.stages if stages is None else stages
        codes = np.ascontiguousarray(codes, np.int64)
        if codes.ndim != 2 or codes.shape[1] < 1 + stages or not 1 <= stages <= model.stages:
            raise UsageError(f"codes have the shape {codes.shape}; wanted is (packets, {1 + model.stages})")
        sounding = (codes[:, 0] >= 0) & (codes[:, 0] < codec.SILENT)
        inside = codes[sounding, 1 : 1 + stages]
        if codes[:, 0].min(initial=0) < codec.LOST or codes[:, 0].max(initial=0) > codec.SILENT:
            raise UsageError(f"a comb lies outside {codec.LOST}..{codec.SILENT}")
        if inside.min(initial=0) < 0 or inside.max(initial=0) >= model.books.shape[1]:
            raise UsageError(f"a code lies outside 0..{model.books.shape[1] - 1}")
        out = np.zeros(PACKET * len(codes), np.float32)
        for first in range(0, len(codes), _LONGEST):
            some = codes[first : first + _LONGEST]
            codec.say_all(self._address, some, stages, out[PACKET * first : PACKET * (first + len(some))])
        return out

    def end(self) -> Floats:
        """What was still to come of the packets said: `DELAY` samples or more."""
        return self.push(self.silence(-(-self.DELAY // PACKET)))

    def silence(self, packets: int) -> Codes:
        """Codes of silent packets."""
        codes = np.zeros((packets, 1 + self.model.stages), np.int64)
        codes[:, 0] = codec.SILENT
        return codes

    def lost(self, packets: int) -> Codes:
        """Codes of packets that did not arrive."""
        return self.silence(packets) * 0 + codec.LOST


def stage_bits(model: Model) -> float:
    """About how many bits a stage of a packet takes, the comb's share in it."""
    return 1.01 * float(np.log2(model.books.shape[1]))


def most_bits_per_s(model: Model) -> int:
    """What all stages of a model take on speech, about."""
    return round(model.stages * stage_bits(model) / PACKET_S)


def stages_of(model: Model, bits_per_s: float) -> int:
    """Stages that take about so many bits a second on speech.

    Raises
    ------
    UsageError
        For less than a stage or two.
    """
    if not bits_per_s >= LEAST_BITS_PER_S:
        raise UsageError(f"a bit rate of {bits_per_s:g} bit/s is too low; the least is {LEAST_BITS_PER_S}")
    return min(model.stages, max(1, round(bits_per_s * PACKET_S / stage_bits(model))))
