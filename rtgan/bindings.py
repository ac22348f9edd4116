"""Bindings: which MIDI control moves which parameters, and how.

They stand in a preset (its own parameters) and in the global map ``midi.yaml`` of the configuration folder
(the host's), which survives every change of preset. In YAML::

    midi:
    - {control: cc 74, channel: 1, target: denoise.amount_db, mode: pickup, range: [0, 40]}
    - {control: note 60, target: [gain.bypass, gate.bypass]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import yaml

from rtgan import preset_text
from rtgan.errors import UsageError
from rtgan.params import Param
from rtgan.preset_text import OneLine, Reader, plain

Kind = Literal["cc", "cc14", "nrpn", "rpn", "bend", "pressure", "poly", "note", "program"]
Mode = Literal[
    "absolute", "pickup", "relative-twos", "relative-offset", "relative-signed", "toggle", "momentary"
]  # fmt: skip

KINDS: tuple[Kind, ...] = get_args(Kind)
MODES: tuple[Mode, ...] = get_args(Mode)
#: Largest number of each kind; None where a kind has none. 120 to 127 are channel modes, not controllers.
LAST_NUMBER: Mapping[str, int | None] = MappingProxyType(
    {"cc": 119, "cc14": 31, "nrpn": 16383, "rpn": 16382, "bend": None, "pressure": None, "poly": 127, "note": 127,
     "program": 127}
)  # fmt: skip

#: What a control may move of the host itself, with range, unit and default as for any parameter.
HOST_TARGETS: Mapping[str, Param] = MappingProxyType(
    {
        f"host.{p.id}": p
        for p in (
            Param("bypass", "Bypass", 0, 1, 0, scale="switch", description="The input, delayed as the chain would."),
            Param("mute", "Mute", 0, 1, 0, scale="switch", description="Silence."),
            Param("panic", "Panic", 0, 1, 0, scale="switch", description="All notes off, every tail cut."),
            Param("volume_db", "Volume", -60, 12, 0, unit="dB", description="Level behind the chain."),
            Param("monitor_db", "Monitor", -60, 12, 0, unit="dB", description="Level of the monitor."),
            Param("monitor_mix", "Monitor mix", 0, 100, 0, unit="%", description="0 the input, 100 the chain."),
            Param("next", "Next preset", 0, 1, 0, scale="switch", description="The next preset of the set list."),
            Param("previous", "Previous preset", 0, 1, 0, scale="switch", description="The one before it."),
            Param("record", "Record", 0, 1, 0, scale="switch", description="Take what is heard to a file."),
            Param("marker", "Marker", 0, 1, 0, scale="switch", description="A marker in what is recorded."),
            Param("morph", "Morph", 0, 100, 0, unit="%", description="From one preset to another."),
            Param("compare", "A/B", 0, 1, 0, scale="switch", description="Which of two sounds is heard: A, or B."),
            Param("copy", "Copy A/B", 0, 1, 0, scale="switch", description="What sounds into the other side as well."),
            Param("match", "Match A/B", 0, 1, 1, scale="switch", description="A and B at one loudness."),
            Param("undo", "Undo", 0, 1, 0, scale="switch", description="Take back what was done last."),
            Param("redo", "Redo", 0, 1, 0, scale="switch", description="Do it again."),
            Param("snapshot", "Snapshot", 1, 16, 1, smoothing_ms=0, description="Snapshot of the preset, by number."),
        )
    }
)
#: Targets that do something each time a control is pressed and hold no value.
HOST_TRIGGERS = frozenset(
    {"host.panic", "host.next", "host.previous", "host.marker", "host.copy", "host.undo", "host.redo"}
)

#: Limits of what a binding holds.
CURVE = (0.1, 10.0)
MOST_SMOOTHING_MS = 10000.0

_SCHEMA = 1
_KEYS = ("control", "channel", "port", "target", "mode", "range", "curve", "invert", "smoothing_ms")
_CONTROLS = "cc N, cc14 N, nrpn N, rpn N, bend, pressure, poly N, note N, program N"


@dataclass(frozen=True)
class Control:
    """A MIDI control.

    Parameters
    ----------
    kind : {"cc", "cc14", "nrpn", "rpn", "bend", "pressure", "poly", "note", "program"}
    number : int
        As it goes over the wire, from 0; 0 for bend and pressure.
    channel : int or None
        1 to 16; None for any.
    port : str
        Part of a port's name; empty for any.
    """

    kind: Kind
    number: int = 0
    channel: int | None = None
    port: str = ""

    @property
    def text(self) -> str:
        """As in YAML: ``cc 74``."""
        return self.kind if LAST_NUMBER[self.kind] is None else f"{self.kind} {self.number}"

    def __str__(self) -> str:
        where = f" on channel {self.channel}" if self.channel is not None else ""
        return f"{self.text}{where}{f' of {self.port}' if self.port else ''}"


@dataclass(frozen=True)
class Binding:
    """What a control does.

    Parameters
    ----------
    control : Control
    targets : tuple of str
        ``label.param`` of the chain, or one of `HOST_TARGETS`.
    mode : str
        ``absolute`` jumps, ``pickup`` waits until the control meets the value, the relative ones take steps
        (two's complement, offset 64, sign and magnitude), ``toggle`` changes sides at each press,
        ``momentary`` holds the upper side while pressed.
    low, high : float or None
        Plain values at the ends of the control; None for the parameter's own.
    curve : float
        Exponent on the control's 0..1: above 1 the lower half is finer.
    invert : bool
        Exchange the ends.
    smoothing_ms : float
        Time a step of the control is spread over, on top of the parameter's own ramp.
    """

    control: Control
    targets: tuple[str, ...]
    mode: Mode = "absolute"
    low: float | None = None
    high: float | None = None
    curve: float = 1.0
    invert: bool = False
    smoothing_ms: float = 0.0


def default_mode(kind: Kind) -> Mode:
    """What a binding does that names no mode: keys are switches, everything else is a fader."""
    return "toggle" if kind in ("note", "program") else "absolute"


def parse_control(text: str, channel: int | None = None, port: str = "") -> Control:
    """A control from its text, ``cc 74``; `UsageError` says what is allowed."""
    kind, _, number = text.strip().partition(" ")
    if kind not in KINDS:
        raise UsageError(f"there is no control '{text}'; allowed: {_CONTROLS}")
    last = LAST_NUMBER[kind]
    digits = number.strip()
    if last is None:
        if digits:
            raise UsageError(f"the control '{text}' takes no number; write {kind}")
        return Control(kind, 0, channel, port)
    if not (digits.isascii() and digits.isdigit() and len(digits) < 6 and int(digits) <= last):
        raise UsageError(f"the control '{text}' needs a number: {kind} 0 to {kind} {last}")
    return Control(kind, int(digits), channel, port)


def rebound(known: Sequence[Binding], target: str, binding: Binding | None = None) -> tuple[Binding, ...]:
    """The bindings with this one in place of whatever moved its target; without one, what moves it is let go."""
    kept = [replace(b, targets=tuple(t for t in b.targets if t != target)) for b in known]
    return (*(b for b in kept if b.targets), *((binding,) if binding is not None else ()))


def read_bindings(reader: Reader, node: yaml.Node, known: Mapping[str, Param]) -> tuple[Binding, ...]:
    """Read a ``midi`` list; ``known`` are the targets that exist, by name.

    Raises
    ------
    UsageError
        With file and line.
    """
    found: list[Binding] = []
    for item in reader.sequence(node, "midi"):
        binding = _binding(reader, item, known)
        for earlier in found:
            both = set(earlier.targets) & set(binding.targets)
            if earlier.control == binding.control and both:
                raise reader.error(item, f"{binding.control} moves {min(both)} twice")
        found.append(binding)
    return tuple(found)


def _binding(reader: Reader, node: yaml.Node, known: Mapping[str, Param]) -> Binding:
    fields = reader.mapping(node, "a binding", required=("control", "target"), allowed=_KEYS)
    channel: int | None = None
    if "channel" in fields and reader.scalar(fields["channel"]) != "any":
        channel = reader.whole(fields["channel"], "channel", 1, 16)
    port = reader.text(fields["port"], "port") if "port" in fields else ""
    try:
        control = parse_control(reader.text(fields["control"], "control"), channel, port)
    except UsageError as problem:
        raise reader.error(fields["control"], str(problem)) from None
    targets = _targets(reader, fields["target"], known)
    mode: Mode = default_mode(control.kind)
    if "mode" in fields:
        mode = next(m for m in MODES if m == reader.choice(fields["mode"], "mode", MODES))
        if mode.startswith("relative") and control.kind != "cc":
            raise reader.error(fields["mode"], f"the mode {mode} is for cc only, not for {control.kind}")
        if control.kind == "program" and mode not in ("toggle", "momentary"):
            raise reader.error(fields["mode"], "a program change is a press: allowed are toggle and momentary")
        if control.kind == "note" and mode == "pickup":
            raise reader.error(fields["mode"], "a note cannot be picked up; allowed: absolute, toggle, momentary")
    low, high = _range(reader, fields.get("range"), targets, known)
    for key in ("range", "curve", "invert", "smoothing_ms"):
        if key in fields and set(targets) & HOST_TRIGGERS:
            raise reader.error(fields[key], f"{targets[0]} is a trigger and takes no {key}")
    return Binding(
        control=control,
        targets=targets,
        mode=mode,
        low=low,
        high=high,
        curve=reader.number(fields["curve"], "curve", *CURVE) if "curve" in fields else 1.0,
        invert=reader.switch(fields["invert"], "invert") if "invert" in fields else False,
        smoothing_ms=reader.number(fields["smoothing_ms"], "smoothing_ms", 0, MOST_SMOOTHING_MS)
        if "smoothing_ms" in fields
        else 0.0,
    )


def _targets(reader: Reader, node: yaml.Node, known: Mapping[str, Param]) -> tuple[str, ...]:
    nodes = reader.sequence(node, "target") if isinstance(node, yaml.SequenceNode) else [node]
    if not nodes:
        raise reader.error(node, "target is empty")
    names: list[str] = []
    for item in nodes:
        name = reader.text(item, "target")
        if name not in known:
            raise reader.error(item, f"there is no target '{name[:60]}'; known are: {', '.join(known)}")
        if name in names:
            raise reader.error(item, f"the target '{name}' stands twice")
        names.append(name)
    return tuple(names)


def _range(
    reader: Reader, node: yaml.Node | None, targets: Sequence[str], known: Mapping[str, Param]
) -> tuple[float | None, float | None]:
    if node is None:
        return None, None
    ends = reader.sequence(node, "range")
    if len(ends) != 2:
        raise reader.error(node, "range holds two values: [lowest, highest]")
    values = []
    for end in ends:
        for target in targets:
            value = reader.value(end, known[target], f"range of {target}")
        values.append(value)
    if not values[0] < values[1]:
        raise reader.error(node, f"range goes from {values[0]:g} to {values[1]:g}; use invert to turn a control round")
    return values[0], values[1]


def fields_of(binding: Binding) -> OneLine:
    """A binding as plain values for YAML, defaults left out."""
    control = binding.control
    fields = OneLine(control=control.text)
    if control.channel is not None:
        fields["channel"] = control.channel
    if control.port:
        fields["port"] = control.port
    fields["target"] = binding.targets[0] if len(binding.targets) == 1 else list(binding.targets)
    if binding.mode != default_mode(control.kind):
        fields["mode"] = binding.mode
    if binding.low is not None and binding.high is not None:
        fields["range"] = [plain(binding.low), plain(binding.high)]
    if binding.curve != 1.0:
        fields["curve"] = plain(binding.curve)
    if binding.invert:
        fields["invert"] = True
    if binding.smoothing_ms:
        fields["smoothing_ms"] = plain(binding.smoothing_ms)
    return fields


# --- the global map ---------------------------------------------------------------------------------------


def map_path() -> Path:
    """Where the global map lies."""
    return preset_text.config_folder() / "midi.yaml"


def parse_map(text: str, where: str = "midi.yaml") -> tuple[Binding, ...]:
    """Read a global map, whose targets are the host's; `UsageError` with file and line."""
    reader = Reader(where, "a MIDI map")
    top = reader.mapping(reader.compose(text), "the MIDI map", ("schema", "midi"), ("schema", "midi"))
    reader.whole(top["schema"], "schema", _SCHEMA, _SCHEMA)
    return read_bindings(reader, top["midi"], HOST_TARGETS)


def dump_map(bindings: Sequence[Binding]) -> str:
    """The text of a global map; the same bindings always give the same bytes."""
    return preset_text.dump({"schema": _SCHEMA, "midi": [fields_of(b) for b in bindings]})


def load_map(path: Path | None = None) -> tuple[Binding, ...]:
    """The global map; empty where there is no file."""
    path = path or map_path()
    return parse_map(preset_text.read_text(path), str(path)) if path.exists() else ()


def save_map(bindings: Sequence[Binding], path: Path | None = None) -> None:
    """Write the global map, whole or not at all; `UsageError` if it would not be read back."""
    path = path or map_path()
    text = dump_map(bindings)
    parse_map(text, str(path))
    preset_text.write_text(path, text, "the MIDI map")
