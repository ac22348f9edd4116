"""``rtgan midi``: what ports there are, what arrives on them, and which control is to move what."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import rtmidi

from rtgan import bindings, presets
from rtgan.bindings import HOST_TARGETS, Binding, Control
from rtgan.control.jack import NO_LIBRARY, JackMidi
from rtgan.control.midi import CLOCK, SENSING, Message, control_of
from rtgan.control.mpe import Zones
from rtgan.control.ports import Polled
from rtgan.engine import Engine
from rtgan.errors import RtganError, UsageError
from rtgan.events import HEARD
from rtgan.host import length_of
from rtgan.switchboard import CC, CC14, NOTE, PROGRAM, Decoder, Moved

_LEARN_S = 30.0
_BLOCK = np.zeros((64, 1), np.float32)


class _Ears:
    """Every input there is, without a host [one thread]."""

    def __init__(self, inputs: list[str]) -> None:
        self._inputs = inputs
        # An engine that plays to nobody takes what JACK's thread hands over.
        self._engine = Engine(48000)
        self._jack: JackMidi | None = None
        self.failures: dict[str, str] = {}
        try:
            self._jack = JackMidi(self._engine, exact=False)
        except RtganError as problem:
            self.failures["JACK"] = str(problem)
        skip = [] if self.failures.get("JACK") == NO_LIBRARY else [rtmidi.API_UNIX_JACK]
        self.polled = Polled(inputs, skip=skip, first=8)
        self.failures |= self.polled.failures
        self.scan()

    def scan(self) -> None:
        if self._jack is not None:
            self._jack.connect(self._inputs, ())
        self.polled.scan()

    @property
    def names(self) -> list[str]:
        return [*(self._jack.ports if self._jack else ()), *self.polled.ports]

    def poll(self) -> list[tuple[str, int, Message]]:
        found = [(self.polled.ports[number - 8], number, m) for number, m in self.polled.poll()]
        if self._jack is not None:
            self._engine.render(_BLOCK)
            for record in self._engine.poll():
                if record.kind == HEARD:
                    data = record.a.to_bytes(8, "little")[: length_of(record.a & 0xFF)]
                    found.append((self._jack.ports[record.b], record.b, Message(data)))
        return found

    def jack_names(self) -> tuple[list[str], list[str]]:
        return (self._jack.sources(), self._jack.targets()) if self._jack is not None else ([], [])

    def close(self) -> None:
        self.polled.close()
        if self._jack is not None:
            self._jack.close()


def run(args: argparse.Namespace) -> int:
    """``rtgan midi ports|monitor|learn``."""
    ears = _Ears(list(getattr(args, "midi_in", None) or []))
    try:
        if args.midi_command == "ports":
            return _ports(ears)
        if args.midi_command == "monitor":
            return _monitor(ears, args.seconds, args.clock)
        return _learn(ears, args)
    finally:
        ears.close()


def _ports(ears: _Ears) -> int:
    sources, targets = ears.jack_names()
    for title, found in (
        ("inputs", [("JACK", n) for n in sources] + ears.polled.names("input")),
        ("outputs", [("JACK", n) for n in targets] + ears.polled.names("output")),
    ):
        print(f"MIDI {title}:")
        for backend, name in found:
            print(f"  {name}  [{backend}]")
        if not found:
            print("  none")
    print(f"our own: {', '.join(dict.fromkeys(ears.names)) or 'none'}")
    for backend, why in ears.failures.items():
        print(f"{backend}: not available: {why}")
    return 0


def _monitor(ears: _Ears, seconds: float | None, clock: bool) -> int:
    begin = scanned = time.monotonic()
    print(f"listening on: {', '.join(ears.names) or 'nothing'} (Ctrl-C ends)", flush=True)
    zones: dict[int, Zones] = {}
    while seconds is None or time.monotonic() - begin < seconds:
        for name, number, message in ears.poll():
            if message.kind in (CLOCK, SENSING) and not clock:
                continue
            line = f"{time.monotonic() - begin:9.3f}  {name}  {message}"
            zone = zones.setdefault(number, Zones())
            for note in zone.feed(message):
                if zone.manager(note.channel) is not None:
                    line += (
                        f"  [note {note.number} bend {note.bend_semitones:+.2f} pressure {note.pressure:.2f} "
                        f"timbre {note.timbre:.2f}]"
                    )
            print(line, flush=True)
        if time.monotonic() - scanned > 1.0:
            scanned = time.monotonic()
            ears.scan()
        time.sleep(0.002)
    return 0


class Learning:
    """Finds the control that somebody moves: the first that takes two different values, or is pressed."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._seen: dict[tuple[int, int, int, int], set[int]] = {}
        self._moved: set[tuple[int, int, int]] = set()

    def feed(self, port: int, message: Message) -> Control | None:
        """Take a message; the control once it is clear which."""
        if message.channel is None:
            return None
        found = self._decoder.controls(message.data, port)
        self._moved |= {(port, message.channel, moved.number) for moved in found if moved.kind == CC}
        # Of a pair of halves the whole is meant, and so is what data entry sets.
        for moved in sorted(found, key=lambda m: m.kind == CC):
            if self._is_it(port, message.channel, moved):
                return control_of(moved, message.channel)
        return None

    def _is_it(self, port: int, channel: int, moved: Moved) -> bool:
        if moved.kind in (NOTE, PROGRAM):
            return moved.on
        if moved.kind == CC and (moved.number >= 120 or moved.number in (0, 32, 6, 38, 96, 97, 98, 99, 100, 101)):
            return False  # channel modes, bank select, and the parts of (N)RPN
        if moved.kind == CC14 and not self._has_fine(port, channel, moved):
            return False
        values = self._seen.setdefault((port, channel, moved.kind, moved.number), set())
        values.add(moved.raw)
        return len(values) >= 2

    def _has_fine(self, port: int, channel: int, moved: Moved) -> bool:
        """Whether both halves of a control have been seen, the fine one other than at zero."""
        key = (port, channel, -1, moved.number)
        if moved.raw & 127:
            self._seen.setdefault(key, set()).add(1)
        return key in self._seen and (port, channel, moved.number) in self._moved and moved.number not in (0, 6)


def _learn(ears: _Ears, args: argparse.Namespace) -> int:
    target = str(args.param)
    path = None
    if not target.startswith("host."):
        if args.preset is None:
            raise UsageError(f"{target} belongs to a preset: say which with --preset (host.* needs none)")
        preset = presets.load(args.preset)
        if target not in preset.declared():
            raise UsageError(f"{preset.name} has no parameter '{target}'; it has: {', '.join(preset.declared())}")
        path = preset.path
        if path is None or path.is_relative_to(presets.FACTORY):
            raise UsageError(
                f"{preset.name} is a factory preset and stays as it is; make your own: rtgan presets new NAME "
                f"--from {args.preset}"
            )
    elif target not in HOST_TARGETS:
        raise UsageError(f"there is no target '{target}'; known are: {', '.join(HOST_TARGETS)}")
    print(f"move the control for {target} (listening on: {', '.join(ears.names) or 'nothing'})", flush=True)
    learning = Learning()
    deadline = time.monotonic() + (args.seconds or _LEARN_S)
    scanned = 0.0
    while time.monotonic() < deadline:
        for _, number, message in ears.poll():
            control = learning.feed(number, message)
            if control is not None:
                return _bind(control, target, args, path is not None)
        if time.monotonic() - scanned > 1.0:
            scanned = time.monotonic()
            ears.scan()
        time.sleep(0.001)
    raise RtganError("no control was moved")


def _bind(control: Control, target: str, args: argparse.Namespace, in_preset: bool) -> int:
    mode = args.mode or bindings.default_mode(control.kind)
    if mode not in bindings.MODES:
        raise UsageError(f"there is no mode '{mode}'; allowed: {', '.join(bindings.MODES)}")
    binding = Binding(control, (target,), mode)

    if in_preset:
        preset = presets.load(args.preset)
        assert preset.path is not None
        presets.save(replace(preset, midi=bindings.rebound(preset.midi, target, binding)), preset.path)
        where = preset.path
    else:
        bindings.save_map(bindings.rebound(bindings.load_map(), target, binding))
        where = bindings.map_path()
    print(f"{control} moves {target} ({mode}); written to {where}")
    return 0
