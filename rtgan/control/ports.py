"""MIDI ports through python-rtmidi, every backend, polled.

Never with a callback: on some backends that runs in the driver's thread and takes the interpreter lock there. A
backend that fails says why and leaves the others alone. Ports are known by their names: one that goes is taken up
again when it comes back.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rtmidi

from rtgan.control.midi import Message, Parser
from rtgan.errors import RtganError

NAME = "rtgan"
VIRTUAL = "midi_in"
_NO_VIRTUAL = (rtmidi.API_WINDOWS_MM, rtmidi.API_WEB_MIDI)
#: What software offers everywhere and nobody plugged in; opened only when it is asked for.
_NOT_HARDWARE = re.compile(r"midi through|\brtgan\b|rtmidi|\btimer\b|\bannounce\b", re.IGNORECASE)
_ALSA_NUMBERS = re.compile(r" \d+:\d+$")


def backends() -> dict[int, str]:
    """The backends python-rtmidi was built with: number and name."""
    return {api: rtmidi.get_api_display_name(api) for api in rtmidi.get_compiled_api()}


def _open(kind: Any, api: int) -> Any:
    if api == rtmidi.API_LINUX_ALSA and sys.platform == "linux" and not Path("/dev/snd/seq").exists():
        # ALSA's library would say so on the terminal.
        raise RtganError("the kernel offers no sequencer (/dev/snd/seq)")
    try:
        return kind(api, name=NAME)
    except (rtmidi.RtMidiError, OSError) as problem:
        raise RtganError(str(problem).rpartition("initialize: ")[2]) from None


@dataclass
class _Port:
    name: str
    api: int
    raw: str = ""
    number: int = 0
    handle: Any = None
    parser: Parser = field(default_factory=Parser)


class Polled:
    """Inputs and outputs of all backends [one thread].

    Parameters
    ----------
    inputs, outputs : sequence of str
        Parts of names; no inputs: all that are hardware; no outputs: none.
    skip : sequence of int
        Backends that are served otherwise.
    first, most : int
        Number of the first input, and how many may be open.
    virtual : bool
        Offer a port of our own, ``rtgan``, where the backend can.

    Attributes
    ----------
    failures : dict of str to str
        Why a backend is not served, by its name.
    lost : list of int
        Numbers of inputs that have gone, for whoever lets go of what they hold, and empties it.
    """

    def __init__(
        self,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        skip: Sequence[int] = (),
        first: int = 0,
        most: int = 8,
        virtual: bool = True,
    ) -> None:
        self._wanted = (tuple(w.lower() for w in inputs), tuple(w.lower() for w in outputs))
        self._first, self._most = first, most
        self.failures: dict[str, str] = {}
        self.lost: list[int] = []
        self._scanners: dict[int, tuple[Any, Any]] = {}
        self._inputs: list[_Port] = []
        self._outputs: list[_Port] = []
        for api, name in backends().items():
            if api in skip:
                continue
            try:
                self._scanners[api] = (_open(rtmidi.MidiIn, api), _open(rtmidi.MidiOut, api))
            except RtganError as problem:
                self.failures[name] = str(problem)
                continue
            if virtual and api not in _NO_VIRTUAL:
                self._add(self._inputs, _Port(NAME, api), virtual=True)

    # --- what is there ---

    def names(self, kind: str) -> list[tuple[str, str]]:
        """Every port of others, (backend, name), ``kind`` "input" or "output"."""
        found = []
        for api in self._scanners:
            for _, name, _ in self._list(api, kind):
                found.append((rtmidi.get_api_display_name(api), name))
        return found

    def _list(self, api: int, kind: str) -> list[tuple[int, str, str]]:
        """Index, name and raw text; names lack ALSA's numbers, which change with every plug, equal ones are counted."""
        try:
            raw = self._scanners[api][kind == "output"].get_ports()
        except (rtmidi.RtMidiError, OSError, UnicodeError) as problem:
            self.failures[rtmidi.get_api_display_name(api)] = str(problem)
            return []
        found: list[tuple[int, str, str]] = []
        taken: dict[str, int] = {}
        for index, text in enumerate(raw):
            name = _ALSA_NUMBERS.sub("", str(text))
            taken[name] = taken.get(name, 0) + 1
            found.append((index, name if taken[name] == 1 else f"{name} ({taken[name]})", str(text)))
        return found

    @property
    def ports(self) -> list[str]:
        """Names of the inputs by number, from the first on; those that are away included."""
        return [p.name for p in self._inputs]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs that are open."""
        return [p.name for p in self._outputs if p.handle is not None]

    # --- hot plug ---

    def scan(self) -> bool:
        """Open what has come, let go of what has gone; whether anything changed."""
        changed = False
        for ports, kind, wanted in (
            (self._inputs, "input", self._wanted[0]),
            (self._outputs, "output", self._wanted[1]),
        ):
            for api in self._scanners:
                there = self._list(api, kind)
                present = {(name, raw) for _, name, raw in there}
                for port in ports:
                    # Unplugged and back between two scans: the same name, but the handle is of what has gone.
                    if port.api == api and port.handle is not None and (port.name, port.raw) not in present:
                        changed |= self._lose(port)
                for index, name, raw in there:
                    if self._wants(kind, wanted, name):
                        changed |= self._take(ports, api, kind, index, name, raw)
        return changed

    def _wants(self, kind: str, wanted: tuple[str, ...], name: str) -> bool:
        if wanted:
            return any(w in name.lower() for w in wanted)
        return kind == "input" and not _NOT_HARDWARE.search(name)

    def _lose(self, port: _Port) -> bool:
        if port.name == NAME:
            return False  # our own
        self._close(port)
        if port in self._inputs:
            self.lost.append(port.number)
        return True

    def _take(self, ports: list[_Port], api: int, kind: str, index: int, name: str, raw: str) -> bool:
        port = next((p for p in ports if (p.api, p.name) == (api, name)), None)
        if port is not None and port.handle is not None:
            return False
        if port is None and len(ports) >= self._most:
            return False
        port = port or _Port(name, api)
        port.raw = raw
        return self._add(ports, port, index=index, output=kind == "output")

    def _add(
        self, ports: list[_Port], port: _Port, index: int = 0, output: bool = False, virtual: bool = False
    ) -> bool:
        try:
            port.handle = _open(rtmidi.MidiOut if output else rtmidi.MidiIn, port.api)
            if not output:
                # Without this the clock is dropped silently.
                port.handle.ignore_types(sysex=False, timing=False, active_sense=False)
            if virtual:
                port.handle.open_virtual_port(VIRTUAL)
            else:
                port.handle.open_port(index, "midi_out" if output else "midi_in")
        except (RtganError, rtmidi.RtMidiError, OSError) as problem:
            self._close(port)
            self.failures[f"{rtmidi.get_api_display_name(port.api)} {port.name}"] = str(problem)
            return False
        self.failures.pop(f"{rtmidi.get_api_display_name(port.api)} {port.name}", None)
        port.parser = Parser()
        if port not in ports:
            port.number = self._first + len(ports)
            ports.append(port)
        return True

    def _close(self, port: _Port) -> None:
        handle, port.handle = port.handle, None
        if handle is not None:
            try:
                handle.close_port()
                handle.delete()
            except (rtmidi.RtMidiError, OSError):
                pass  # it has gone already

    # --- messages ---

    def poll(self) -> Iterator[tuple[int, Message]]:
        """Everything that has arrived, with the number of its port, in the order of each port."""
        for port in self._inputs:
            while port.handle is not None:
                found = port.handle.get_message()
                if found is None:
                    break
                for message in port.parser.feed(found[0]):
                    yield port.number, message

    def send(self, message: bytes, port: str = "") -> None:
        """Send to every open output whose name contains ``port``; one that fails is let go until it is back."""
        for output in self._outputs:
            if output.handle is not None and port.lower() in output.name.lower():
                try:
                    output.handle.send_message(list(message))
                except (rtmidi.RtMidiError, OSError):
                    self._close(output)

    def close(self) -> None:
        """Give everything back."""
        for port in (*self._inputs, *self._outputs):
            self._close(port)
        for scanner in (s for pair in self._scanners.values() for s in pair):
            scanner.delete()
        self._scanners.clear()
