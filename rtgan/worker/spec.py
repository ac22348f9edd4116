"""What is known of a model file without running it: kind, methods, parameters, rates, and what showed when it ran.

The file is code. It is loaded once, in a process of its own and within a time limit, and what that found is kept
under the user's cache by the hash of the file, so that lists, checks and the next start need neither torch nor that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from rtgan import kernel_cache
from rtgan.errors import RtganError, UsageError
from rtgan.generators.card import Card
from rtgan.generators.files import sha256_of, write_atomically
from rtgan.params import Param, Scale
from rtgan.worker import nursery

#: How long a model may take to load and show what it is.
LOAD_S = 90.0
LARGEST_BYTES = 4 << 30
#: Raised when what is found out changes.
_SCHEMA = 3
#: Latents that get parameters.
MOST_LATENTS = 16
_NUMBER = r"[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
_RANGE = re.compile(rf"\s*(\S+)\s+({_NUMBER})\s+({_NUMBER})\s*")
#: How a switch is written in the ``attributes`` of a preset.
SWITCH_WORDS = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
#: Method that is encode, your hands on the latents, and decode.
LATENTS = "latents"
BOOL, INT, FLOAT, TEXT, TENSOR, BUFFER = range(6)
#: On or off, by a setter that stands in no list of attributes; only a preset sets it.
SWITCH = 6
#: RAVE's switch of that kind: one encoding, decoded twice, for two channels (its "fake stereo").
STEREO = "stereo_mode"


@dataclass(frozen=True)
class Method:
    """One method of a model that takes and gives sound or control signals.

    Parameters
    ----------
    channels_in, channels_out : int
    ratio_in, ratio_out : int
        Samples of sound for one value; 1 for sound itself.
    labels_in, labels_out : tuple of str
    delay_samples : int
        Its own delay, measured; -1 where none can be told.
    """

    channels_in: int
    ratio_in: int
    channels_out: int
    ratio_out: int
    labels_in: tuple[str, ...] = ()
    labels_out: tuple[str, ...] = ()
    delay_samples: int = -1

    @property
    def sounds_in(self) -> int:
        """How many of its inputs are fed with sound; the others are parameters."""
        if self.ratio_in > 1:
            return 0
        return self.channels_in if self.channels_in <= self.channels_out else min(self.channels_in, self.channels_out)

    @property
    def delay(self) -> str:
        """Its own delay in words."""
        return f"{self.delay_samples}" if self.delay_samples >= 0 else "not known"

    @property
    def text(self) -> str:
        """What goes in and comes out, in words."""

        def side(channels: int, ratio: int, labels: tuple[str, ...]) -> str:
            kind = f"{channels} x sound" if ratio == 1 else f"{channels} x every {ratio} samples"
            return kind + (f" ({', '.join(labels[:4])}{', ...' if len(labels) > 4 else ''})" if labels else "")

        into = side(self.channels_in, self.ratio_in, self.labels_in)
        return f"{into} -> {side(self.channels_out, self.ratio_out, self.labels_out)}, delay {self.delay}"


@dataclass(frozen=True)
class Attribute:
    """A value of a model that may be set: types as in nn~ (0 bool, 1 int, 2 float, 3 text, 4 tensor, 5 buffer), or 6.

    See `SWITCH` for the last.
    """

    name: str
    types: tuple[int, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Knob:
    """A parameter of a model: how it is declared, and what the worker does with its value."""

    param: Param
    what: str  #: attribute, input, add, gain, p, or a gain of Neutone's
    target: str
    element: int = 0
    #: What the model gets is ``low + value * span``.
    low: float = 0.0
    span: float = 1.0


@dataclass(frozen=True)
class Spec:
    """What a model file holds.

    Parameters
    ----------
    path, sha256 : str
    kind : {"nn~", "neutone", "module", "card"}
    rate_hz : int
        0 where it does not say.
    rates_hz : tuple of int
        All that it can run at, where it says so.
    ratio : int
        Blocks are multiples of it.
    blocks : tuple of int
        The only block sizes it takes; empty for any.
    methods : mapping of str to Method
    attributes : tuple of Attribute
    rows : bool
        Whether the rows of a batch are streams of their own.
    state : str
        Where it keeps what it has heard: "buffers", "attributes", or empty for nowhere.
    tail_samples : int
        How long it sounds on behind a sound, at its rate; 0 where that never ends by itself.
    random : bool
        Whether it gives something else with another seed.
    shape : str
        How a plain module takes sound: "bcn", "cn" or "n".
    about : mapping of str to str
        What it says of itself.
    controls : tuple
        Neutone's parameters: (number, name, description, default, low, high).
    gains : mapping of str to float
        Neutone's defaults of wet, dry, input and output gain, 0 to 1.
    findings : tuple of str
        What a person should know before a show.
    """

    path: str
    sha256: str
    kind: str
    rate_hz: int = 0
    rates_hz: tuple[int, ...] = ()
    ratio: int = 1
    blocks: tuple[int, ...] = ()
    methods: Mapping[str, Method] = field(default_factory=dict)
    attributes: tuple[Attribute, ...] = ()
    rows: bool = False
    state: str = ""
    tail_samples: int = 0
    random: bool = False
    shape: str = "bcn"
    about: Mapping[str, str] = field(default_factory=dict)
    controls: tuple[tuple[int, str, str, float, float, float], ...] = ()
    gains: Mapping[str, float] = field(default_factory=dict)
    findings: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)

    @staticmethod
    def of(data: Mapping[str, Any]) -> Spec:
        """From `plain`."""
        made = dict(data)
        made["methods"] = {
            n: Method(**{**m, "labels_in": tuple(m["labels_in"]), "labels_out": tuple(m["labels_out"])})
            for n, m in data["methods"].items()
        }
        made["attributes"] = tuple(
            Attribute(a["name"], tuple(a["types"]), tuple(a["values"])) for a in data["attributes"]
        )
        made["controls"] = tuple((int(c[0]), c[1], c[2], *map(float, c[3:])) for c in data["controls"])
        for name in ("blocks", "rates_hz", "findings"):
            made[name] = tuple(data[name])
        return Spec(**made)

    def set_by(self, attributes: str) -> Spec:
        """What it is with the ``attributes`` of a preset: RAVE's stereo switch decides how many channels it gives."""
        if all(a.name != STEREO or SWITCH not in a.types for a in self.attributes):
            return self
        parts = [part.partition("=") for part in attributes.split(";")]
        said = [value.strip().lower() for name, _, value in parts if name.strip() == STEREO]
        if not said or said[-1] not in SWITCH_WORDS:
            return self
        wide = 1 + SWITCH_WORDS[said[-1]]
        methods = {n: replace(m, channels_out=wide) if m.ratio_out == 1 else m for n, m in self.methods.items()}
        return replace(self, methods=methods)

    @property
    def title(self) -> str:
        """What it calls itself, or its file."""
        return self.about.get("name") or Path(self.path).name

    def facts(self) -> list[tuple[str, str]]:
        """What it is, for people, in the order in which to read it; hash and parameters are left out."""
        kinds = {"nn~": "an nn~ model", "neutone": "a Neutone model", "module": "a plain TorchScript module"}
        rows = [("kind", kinds[self.kind]), *((k, v) for k, v in self.about.items() if v)]
        rates = self.rates_hz or ((self.rate_hz,) if self.rate_hz else ())
        rows.append(("sample rate", f"{' or '.join(map(str, rates))} Hz" if rates else "the engine's"))
        blocks = f"{', '.join(map(str, self.blocks))} samples" if self.blocks else f"multiples of {self.ratio}"
        rows.append(("blocks", f"{blocks}; {self.block_for(0)} unless the preset says otherwise"))
        rows += [(f"method {n}", m.text) for n, m in self.methods.items()]
        if self.has_latents:
            rows.append((f"method {LATENTS}", "encode, your hands on the latents, decode"))
        for attribute in self.attributes:
            if any(t > FLOAT for t in attribute.types):
                rows.append((f"attribute {attribute.name}", "set by `attributes` of a preset"))
        rows.append(("state", {"": "none", "buffers": "in caches", "attributes": "in its attributes"}[self.state]))
        rows.append(("streams", "side by side in one call" if self.rows else "a copy of it for each"))
        return [*rows, *(("note", finding) for finding in self.findings)]

    @property
    def has_latents(self) -> bool:
        """Whether it can encode and decode."""
        m = self.methods
        return "encode" in m and "decode" in m and m["encode"].channels_out == m["decode"].channels_in

    def method(self, name: str) -> Method:
        """A method as it is played, `LATENTS` included; ``""`` for the first choice.

        Raises
        ------
        UsageError
            If it has no such method.
        """
        name = name or self.first
        if name == LATENTS and self.has_latents:
            e, d = self.methods["encode"], self.methods["decode"]
            known = [m.delay_samples for m in (e, d)]
            whole = self.methods.get("forward")
            delay = whole.delay_samples if whole is not None else max(known)
            return Method(e.channels_in, e.ratio_in, d.channels_out, d.ratio_out, e.labels_in, d.labels_out, delay)
        if name not in self.methods:
            allowed = ", ".join([*self.methods, *([LATENTS] if self.has_latents else [])])
            raise UsageError(f"{self.path} has no method '{name[:40]}'; it has: {allowed}")
        return self.methods[name]

    @property
    def first(self) -> str:
        """The method that is played where none is named."""
        return "forward" if "forward" in self.methods else LATENTS if self.has_latents else next(iter(self.methods))

    def block_for(self, wanted: int) -> int:
        """The samples the model gets at a time: ``wanted`` or, for 0, about 512.

        Raises
        ------
        UsageError
            If it cannot have as many.
        """
        if self.blocks:
            if wanted and wanted not in self.blocks:
                raise UsageError(f"{self.path} takes blocks of {' or '.join(map(str, self.blocks))}, not of {wanted}")
            return wanted or min(self.blocks, key=lambda b: (abs(b - 512), b))
        if wanted % self.ratio:
            raise UsageError(f"{self.path} takes blocks of multiples of {self.ratio} samples, not {wanted}")
        return wanted or -(-512 // self.ratio) * self.ratio

    def knobs(self, method: str = "", ranges: str = "", fixed: bool = False) -> list[Knob]:
        """The parameters it has when it is played by a method.

        Parameters
        ----------
        method : str
        ranges : str
            ``name low high`` of numbers that the file gives no range for, separated by semicolons.
        fixed : bool
            Attributes stay as they are set when it is loaded.
        """
        given = self._ranges(ranges)
        found: list[Knob] = []
        taken = {"bypass", "mix"}

        def add(
            name: str, low: float, high: float, default: float, what: str, target: str = "", element: int = 0,
            description: str = "", scale: Scale = "linear", unit: str = "", share: tuple[float, float] = (0.0, 1.0),
        ) -> None:  # fmt: skip
            base = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "value"
            base = base if base[0].isalpha() else f"p_{base}"
            identity, number = base, 2
            while identity in taken:
                identity, number = f"{base}_{number}", number + 1
            taken.add(identity)
            said = " ".join(description.split())
            said = said[:1].upper() + said[1:] if said else f"{name[:1].upper()}{name[1:]}, as the model means it"
            if base in given:
                low, high = given.pop(base)
                default = min(max(default, low), high)
            smoothing = 0.0 if scale == "switch" else 20.0
            param = Param(identity, name[:40], low, high, default, unit, smoothing, scale, said.rstrip(".") + ".")
            found.append(Knob(param, what, target, element, *share))

        chosen = method or self.first
        declared = self.method(chosen)
        if chosen == LATENTS:
            for k in range(min(self.methods["decode"].channels_in, MOST_LATENTS)):
                add(f"latent {k + 1} add", -4, 4, 0, "add", element=k, description=f"Moves latent {k + 1}")
                add(f"latent {k + 1} gain", -4, 4, 1, "gain", element=k, description=f"Stretches latent {k + 1}")
        for k in range(declared.sounds_in, declared.channels_in):
            label = declared.labels_in[k] if k < len(declared.labels_in) else ""
            name = re.sub(r"^\(.*?\)\s*", "", label) or f"input {k + 1}"
            wide = 4.0 if declared.ratio_in > 1 else 1.0
            add(name, -wide, wide, 0, "input", element=k)
        for number, name, description, default, low, high in self.controls:
            plain = low + default * (high - low)
            span = high - low
            add(name or f"parameter {number}", low, high, min(max(plain, low), high), "p", element=number - 1,
                description=description, share=(-low / span, 1 / span))  # fmt: skip
        for name in self.gains:
            default = self.gains[name]
            if name in ("wet", "dry"):
                add(name, 0, 1, default, name, description=f"How much of the {name} sound is heard")
            else:
                add(f"{name} gain db", -30, 30, 60 * default - 30, name, unit="dB",
                    description=f"Level of the {name}")  # fmt: skip
        for attribute in () if fixed else self.attributes:
            for k, (kind, value) in enumerate(zip(attribute.types, attribute.values, strict=False)):
                if kind > FLOAT:
                    continue
                name = attribute.name if len(attribute.types) == 1 else f"{attribute.name} {k + 1}"
                low, high = _guess(kind, float(value))
                scale: Scale = "switch" if kind == BOOL else "linear"
                add(name, low, high, float(value), "attribute", attribute.name, k, scale=scale)
        if given:
            known = ", ".join(k.param.id for k in found) or "none"
            raise UsageError(f"{self.path} has no parameter '{next(iter(given))}' to give a range to; it has: {known}")
        return found

    def _ranges(self, text: str) -> dict[str, tuple[float, float]]:
        found = {}
        for part in filter(str.strip, text.split(";")):
            match = _RANGE.fullmatch(part)
            if match is None or not float(match[2]) < float(match[3]):
                raise UsageError(f"'{part.strip()[:60]}' is not a range; write: name low high; name low high")
            found[match[1]] = (float(match[2]), float(match[3]))
        return found


def _guess(kind: int, value: float) -> tuple[float, float]:
    """A range around a value of which only itself is known."""
    if kind == BOOL or (kind == FLOAT and 0 <= value <= 1):
        return 0.0, 1.0
    wide = max(4 * abs(value), 10.0 if kind == INT else 1.0)
    return (0.0 if value >= 0 else -wide), wide


def of_card(path: Path, card: Card) -> Spec:
    """A generator with a card, frame by frame, as a model of sound."""
    delay = card.latency_samples - card.hop_samples
    return Spec(str(path), card.sha256, "card", card.sample_rate_hz, (card.sample_rate_hz,), card.hop_samples,
                methods={"forward": Method(1, 1, 1, 1, delay_samples=delay)}, state="buffers")  # fmt: skip


@cache
def _hashed(path: str, stamp: tuple[int, int]) -> str:
    return sha256_of(path)


def hash_of(path: str | Path) -> str:
    """SHA-256 of a file, worked out again when it has changed."""
    try:
        state = Path(path).stat()
    except OSError as problem:
        raise RtganError(f"the model {path} cannot be read: {problem.strerror}") from None
    if state.st_size > LARGEST_BYTES:
        raise RtganError(f"the model {path} has {state.st_size >> 20} MiB; at most {LARGEST_BYTES >> 20} are read")
    return _hashed(str(path), (state.st_mtime_ns, state.st_size))


_known: dict[str, Spec] = {}


def _kept(sha256: str) -> Path:
    return kernel_cache.user_cache() / "models" / f"{sha256[:32]}-{_SCHEMA}.json"


def known(path: str | Path) -> Spec | None:
    """What is known of a model file already; None where it would have to be loaded."""
    sha256 = hash_of(path)
    found = _known.get(sha256)
    if found is None:
        try:
            found = Spec.of(json.loads(_kept(sha256).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        _known[sha256] = found
    return Spec(**{**vars(found), "path": str(path)})


def look(path: str | Path) -> Spec:
    """What a model file holds; loads it, in a process of its own, if that is not known yet [main].

    Raises
    ------
    RtganError
        If it cannot be loaded, is no model that can be played, or torch is needed and missing.
    """
    found = known(path)
    if found is not None:
        return found
    sha256 = hash_of(path)
    try:
        answer = nursery.ask({"do": "look", "path": str(path), "sha256": sha256}, LOAD_S)
    except nursery.Gone as gone:
        raise RtganError(f"the model {path} cannot be loaded: {gone}") from None
    if "problem" in answer:
        raise RtganError(str(answer["problem"]))
    spec = Spec.of(answer["spec"])
    _known[sha256] = spec
    try:
        write_atomically(_kept(sha256), json.dumps(spec.plain()).encode())
    except OSError:
        pass  # without a cache it is looked at again next time
    return spec
