"""The card of a model: what it hears and says, read out of its TorchScript file without torch.

A TorchScript file is a zip archive; the card is ``extra/card.json`` in it, a test vector may lie beside it.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rtgan.errors import RtganError
from rtgan.generators.files import sha256_of

SCHEMA = 1
_LARGEST = 1 << 26
#: How a model that recognises sounds may answer.
ANSWERS = ("soon", "late")
#: What such a model's labels begin with that tell which sound is the loudest; at most one of these holds, while the
#: others may hold together.
MAINLY = "mainly_"
_LABEL = re.compile(r"[a-z][a-z0-9_]{0,39}")


def _text(low: int = 1, high: int = 2000) -> tuple[Any, str]:
    return (lambda v: isinstance(v, str) and low <= len(v) <= high), f"a text of {low} to {high} characters"


def _number(low: int, high: int) -> tuple[Any, str]:
    return (lambda v: type(v) is int and low <= v <= high), f"a whole number from {low} to {high}"


_REQUIRED: dict[str, tuple[Any, str]] = {
    "schema": ((lambda v: v == SCHEMA and type(v) is int), f"{SCHEMA}"),
    "name": _text(high=100),
    "task": _text(high=100),
    "version": _number(0, 10**9),
    "licence": _text(high=200),
    "description": _text(low=0),
    "sample_rate_hz": _number(8000, 384000),
    "hop_samples": _number(1, 65536),
    "latency_samples": _number(0, 10**6),
    "channels": _number(1, 64),
    "state_size": _number(0, 10**8),
}
#: What a model of spectra says besides.
_SPECTRAL: dict[str, tuple[Any, str]] = {
    "n_fft": _number(8, 65536),
    "synthesis_samples": _number(1, 65536),
    "lookahead_frames": _number(0, 1000),
}
#: What a model that plays notes (task "synth") says instead.
_PLAYING: dict[str, tuple[Any, str]] = {
    "inputs": _number(4, 4096),
    "outputs": _number(1, 65536),
    "latents": _number(0, 64),
    "timbres": ((lambda v: isinstance(v, list) and 1 <= len(v) <= 1000 and all(map(_is_timbre, v))),
                "a list of timbres with name, sustains, release_ms, lowest, highest, level_db and dynamics_db, and "
                "maybe waver_db, noise_waver_db and waver_ms"),
}  # fmt: skip
#: What a model that fills gaps (task "repair") or what a codec left out (task "music") says instead.
_REPAIRING: dict[str, tuple[Any, str]] = {"inputs": _number(1, 4096), "outputs": _number(1, 4096)}
#: What a codec (task "codec") says: rows as well, the answer's with the numbers that are quantised in front.
_CODING = _REPAIRING | {"latents": _number(1, 1024)}
#: What a model that recognises sounds (task "tags") says besides.
_TELLING: dict[str, tuple[Any, str]] = {
    "labels": ((lambda v: isinstance(v, list) and 1 <= len(v) <= 1000 and len(set(map(str, v))) == len(v)
                and all(isinstance(t, str) and _LABEL.fullmatch(t) for t in v)),
               "a list of different names of letters, digits and _"),
}  # fmt: skip
_OPTIONAL: dict[str, tuple[Any, str]] = {
    "late_frames": _number(1, 1000),
    "parameters": _number(0, 10**12),
    "macs_per_frame": _number(0, 10**12),
    "training": ((lambda v: isinstance(v, dict)), "a table"),
    "metrics": ((lambda v: isinstance(v, dict)), "a table"),
    "test_vector": ((lambda v: isinstance(v, dict) and isinstance(v.get("file"), str)), "a table with a file"),
}


@dataclass(frozen=True)
class Timbre:
    """What a model that plays notes can sound like.

    Parameters
    ----------
    name : str
    sustains : bool
        Whether a note lasts as long as it is held.
    release_ms : float
        Time in which a note that is let go falls by 60 dB.
    lowest, highest : int
        Range that it was learned in, as MIDI notes.
    level_db : float
        What brings it to the level of the others.
    dynamics_db : float
        By how much softest lies below hardest, beyond what the model says: recordings may have been brought to one
        level.
    waver_db, noise_waver_db : float
        Standard deviation by which levels of partials, and of noise in bands, waver about what the model says.
    waver_ms : float
        Time constant of that.
    """

    name: str
    sustains: bool
    release_ms: float
    lowest: int
    highest: int
    level_db: float
    dynamics_db: float
    waver_db: float = 0.0
    noise_waver_db: float = 0.0
    waver_ms: float = 300.0


_TIMBRE = {f.name: f.default for f in fields(Timbre)}
_WAVER = ("waver_db", "noise_waver_db", "waver_ms")


def _is_timbre(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() >= set(_TIMBRE) - set(_WAVER)
        and isinstance(value["name"], str)
        and isinstance(value["sustains"], bool)
        and all(type(value[k]) in (int, float) and abs(value[k]) <= 60000 for k in list(_TIMBRE)[2:] if k in value)
        and value["release_ms"] >= 1
        and all(0 <= value.get(k, 0) <= 24 for k in _WAVER[:2])
        and value.get("waver_ms", 1) >= 1
        and value["lowest"] <= value["highest"]
    )


@dataclass(frozen=True)
class Card:
    """What a model declares about itself.

    Attributes
    ----------
    name, task, licence, description : str
    version : int
    sample_rate_hz : int
    hop_samples : int
    n_fft, synthesis_samples, lookahead_frames : int
        Its short-time Fourier transform; 0 for a model that plays notes.
    latency_samples : int
        Algorithmic latency, at ``sample_rate_hz``.
    channels, state_size : int
    timbres : tuple of Timbre
    inputs, outputs : int
        Size of the rows of a model that takes no spectra, tasks "synth", "repair", "codec" and "music"; 0 for others.
    latents : int
        Of a model that plays notes: how many numbers at the end of an input row tell notes of the same pitch and
        velocity apart; of a codec: how many are quantised for a packet; 0 for others.
    labels : tuple of str
        Of a model that recognises sounds, task "tags": what its probabilities are of, those that begin with `MAINLY`
        of being the loudest; empty for others.
    late_frames : int
        Of such a model: how many frames ago it is that the second half of its answer is about, the first being about
        ``lookahead_frames`` ago; 0 where there is no second.
    sha256 : str
        Of the whole file.
    fields : mapping
        Everything in the card, also what this class does not name.
    """

    name: str
    task: str
    version: int
    licence: str
    description: str
    sample_rate_hz: int
    hop_samples: int
    latency_samples: int
    channels: int
    state_size: int
    n_fft: int = 0
    synthesis_samples: int = 0
    lookahead_frames: int = 0
    timbres: tuple[Timbre, ...] = ()
    inputs: int = 0
    outputs: int = 0
    latents: int = 0
    labels: tuple[str, ...] = ()
    late_frames: int = 0
    sha256: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def bins(self) -> int:
        """Frequencies of one frame."""
        return self.n_fft // 2 + 1

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of what ``forward`` takes: a frame or a row and a state, or a row of what is played."""
        if self.timbres:
            return [(1, self.inputs)]
        return [(1, self.inputs) if self.inputs else (1, 2, self.bins), (1, self.state_size)]

    @property
    def answers(self) -> list[tuple[int, ...]]:
        """Shapes of what ``forward`` gives."""
        if self.labels:
            return [(1, len(self.labels) * (2 if self.late_frames else 1)), (1, self.state_size)]
        return [(1, self.outputs), *self.shapes[1:]] if self.inputs else self.shapes


def parse_card(data: Any, where: str, sha256: str = "") -> Card:
    """Check a card's plain form.

    Raises
    ------
    RtganError
        Naming the file, the key and what is allowed.
    """
    if not isinstance(data, dict):
        raise RtganError(f"the card of {where} is not a table")
    own = {"synth": _PLAYING, "codec": _CODING, "repair": _REPAIRING, "music": _REPAIRING, "tags": _SPECTRAL | _TELLING}
    required = _REQUIRED | own.get(str(data.get("task")), _SPECTRAL)
    for key, (valid, allowed) in required.items():
        if key not in data:
            raise RtganError(f"the card of {where} lacks '{key}'")
        if not valid(data[key]):
            raise RtganError(f"the card of {where} has {key} = {_shown(data[key])}; allowed is {allowed}")
    for key, (valid, allowed) in _OPTIONAL.items():
        if key in data and not valid(data[key]):
            raise RtganError(f"the card of {where} has {key} = {_shown(data[key])}; allowed is {allowed}")
    named = {k: data[k] for k in required if k != "schema"}
    if "labels" in named:
        named |= {"labels": tuple(named["labels"]), "late_frames": data.get("late_frames", 0)}
    if "timbres" in named:
        named["timbres"] = tuple(Timbre(*(t.get(k, d) for k, d in _TIMBRE.items())) for t in named["timbres"])
        if data["inputs"] != 3 + len(named["timbres"]) + data["latents"]:
            raise RtganError(f"the card of {where} needs inputs = 3 + timbres + latents")
        return Card(**named, sha256=sha256, fields=MappingProxyType(dict(data)))
    if "inputs" in named:
        return Card(**named, sha256=sha256, fields=MappingProxyType(dict(data)))
    if data["hop_samples"] > data["synthesis_samples"] or data["synthesis_samples"] > data["n_fft"]:
        raise RtganError(f"the card of {where} needs hop_samples <= synthesis_samples <= n_fft")
    if data["n_fft"] % 2:
        raise RtganError(f"the card of {where} has n_fft = {data['n_fft']}; allowed are even numbers")
    return Card(**named, sha256=sha256, fields=MappingProxyType(dict(data)))


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_extra(path: str | Path, name: str) -> bytes | None:
    """The bytes of an extra file of a TorchScript archive, or None."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if not any(e.filename.endswith("/constants.pkl") or e.filename.endswith("/data.pkl") for e in entries):
                raise RtganError(f"{path} is an archive but no TorchScript model")
            for entry in entries:
                if entry.filename.split("/", 1)[-1] == f"extra/{name}":
                    if entry.file_size > _LARGEST:
                        raise RtganError(f"{path} carries a {name} of {entry.file_size} bytes, which is too large")
                    return archive.read(entry)
    except FileNotFoundError:
        raise RtganError(f"there is no model {path}") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        raise RtganError(f"{path} is not a TorchScript model: the file is truncated or of another kind") from error
    except OSError as error:
        raise RtganError(f"{path} cannot be read: {error.strerror or error}") from error
    return None


def arrays_of(raw: bytes | None, kinds: Mapping[str, DTypeLike], what: str) -> list[NDArray[Any]]:
    """Arrays by name, C-contiguous and each of its kind, of the bytes of an extra file that is base64 of npz.

    Raises
    ------
    RtganError
        `what` cannot be read: the file is missing or damaged, or has not all of them.
    """
    try:
        npz = io.BytesIO(base64.b64decode(raw or b"", validate=True))
        with zipfile.ZipFile(npz) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST:
                raise ValueError("they are too large")
        with np.load(npz, allow_pickle=False) as arrays:
            return [np.ascontiguousarray(arrays[name], kind) for name, kind in kinds.items()]
    except (binascii.Error, ValueError, KeyError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile,
            zlib.error) as problem:  # fmt: skip
        raise RtganError(f"{what} cannot be read: {problem}") from None


def has_card(path: str | Path) -> bool:
    """Whether a TorchScript model has a card; `RtganError` for a file that is none."""
    return read_extra(path, "card.json") is not None


def read_card(path: str | Path) -> Card:
    """Read and check the card of a TorchScript model [main thread; no torch].

    Raises
    ------
    RtganError
        When the file is missing, truncated, of another kind, or its card is not valid.
    """
    raw = read_extra(path, "card.json")
    if raw is None:
        raise RtganError(f"{path} has no card: export it with 'rtgan export', or add card.json as an extra file")
    try:
        data = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise RtganError(f"the card of {path} is not valid JSON: {error}") from error
    return parse_card(data, str(path), sha256_of(path))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def read_test_vector(path: str | Path, card: Card) -> dict[str, NDArray[np.float32]] | None:
    """Frames (frames, 2, bins), or rows, to play and the answer expected: ``input``, ``output``; None without one."""
    entry = card.fields.get("test_vector")
    if not entry:
        return None
    raw = read_extra(path, entry["file"])
    if raw is None:
        raise RtganError(f"{path} names a test vector {entry['file']} that it does not carry")
    sides = ("input", "output")
    arrays = arrays_of(raw, dict.fromkeys(sides, np.float32), f"the test vector of {path}")
    vector = dict(zip(sides, arrays, strict=True))
    shape = vector["input"].shape
    if card.inputs:
        if shape[1:] != (card.inputs,) or vector["output"].shape != (len(vector["input"]), card.outputs):
            raise RtganError(f"the test vector of {path} has shape {shape}; expected is (rows, {card.inputs})")
        return vector
    told = (shape[0], *card.answers[0][1:]) if card.labels else shape
    if len(shape) != 3 or math.prod(shape) == 0 or shape[1:] != (2, card.bins) or vector["output"].shape != told:
        raise RtganError(f"the test vector of {path} has shape {shape}; expected is (frames, 2, {card.bins})")
    return vector
