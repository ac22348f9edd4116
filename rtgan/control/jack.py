"""A JACK client of our own for MIDI, with exact offsets and without Python in JACK's threads.

The library is loaded when a client is opened, by the name PortAudio uses too, so that both talk to the same server
and, where PipeWire stands in for JACK, to PipeWire. The interface is that of ``jack/jack.h`` and
``jack/midiport.h``.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
import threading
from collections.abc import Sequence
from typing import Any

from rtgan.control import jack_callback as native
from rtgan.engine import Engine
from rtgan.errors import RtganError
from rtgan.events import MIDI, Record, Ring
from rtgan.io.jack_server import Quiet, shutdown
from rtgan.memory import Arena, address_of

_MIDI_TYPE = b"8 bit raw midi"
_NO_START, _INPUT, _OUTPUT, _PHYSICAL = 0x01, 0x1, 0x2, 0x4
#: Ports of ours; the others of `rtgan.switchboard.PORTS` belong to polled inputs.
MOST_INPUTS = 8
#: The port for whoever connects to it, and one for each output that is wanted.
MOST_OUTPUTS = native.PORTS
NAME = "rtgan"
NO_LIBRARY = "JACK's library is not installed"

_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "jack_client_open": (ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]),
    "jack_client_close": (ctypes.c_int, [ctypes.c_void_p]),
    "jack_get_client_name": (ctypes.c_char_p, [ctypes.c_void_p]),
    "jack_activate": (ctypes.c_int, [ctypes.c_void_p]),
    "jack_set_process_callback": (ctypes.c_int, [ctypes.c_void_p] * 3),
    "jack_on_shutdown": (None, [ctypes.c_void_p] * 3),
    "jack_port_register": (
        ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong]
    ),
    "jack_port_name": (ctypes.c_char_p, [ctypes.c_void_p]),
    "jack_get_ports": (
        ctypes.POINTER(ctypes.c_char_p), [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong]
    ),
    "jack_connect": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]),
    "jack_port_connected_to": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p]),
    "jack_free": (None, [ctypes.c_void_p]),
}  # fmt: skip
_NATIVE = {
    native.J_FRAME: "jack_last_frame_time", native.J_BUFFER: "jack_port_get_buffer",
    native.J_COUNT: "jack_midi_get_event_count", native.J_GET: "jack_midi_event_get",
    native.J_CLEAR: "jack_midi_clear_buffer", native.J_WRITE: "jack_midi_event_write",
}  # fmt: skip
#: Words and rings of clients that JACK may still call although it does not answer.
_STUCK: list[object] = []


def _library() -> Any:
    names = {"darwin": ["libjack.0.dylib", "libjack.dylib"], "win32": ["libjack64.dll"]}.get(
        sys.platform, ["libjack.so.0"]
    )
    found = ctypes.util.find_library("jack") if sys.platform != "linux" else None
    for name in [*names, *([found] if found else [])]:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        if not all(hasattr(library, function) for function in (*_FUNCTIONS, *_NATIVE.values())):
            continue  # another library of that name, or one too old for MIDI
        for function, (result, arguments) in _FUNCTIONS.items():
            entry = getattr(library, function)
            entry.restype, entry.argtypes = result, arguments
        return library
    raise RtganError(NO_LIBRARY)


class JackMidi:
    """A MIDI client on the running JACK server [main; one thread at a time].

    Parameters
    ----------
    engine : Engine
        Gets what arrives, in its native ring.
    exact : bool
        Whether the engine runs on the same server: events then take effect one period after they arrived, to the
        sample. Otherwise as soon as possible.

    Attributes
    ----------
    ports : list of str
        Names by port number: the virtual port, then what it is connected to.
    failures : dict of str to str
        Why a source is not listened to, or a target not told, by its name.
    lost : list of int
        Numbers of ports whose source has gone, for whoever lets go of what they hold, and empties it.

    Raises
    ------
    RtganError
        If there is no library with all that is needed, no server, or no room on it.
    """

    def __init__(self, engine: Engine, exact: bool) -> None:
        self._engine = engine
        self._exact = exact
        self._library = library = _library()
        with Quiet(library):
            client = library.jack_client_open(NAME.encode(), _NO_START, None)
        if not client:
            raise RtganError("no JACK server is running")
        self._client: int | None = client
        self.name = library.jack_get_client_name(client).decode()
        self.arena = arena = Arena()
        self._words = words = arena.int64(native.WORDS)
        self._out = Ring(arena, 1024)
        words[native.J_CLIENT] = int(client)
        words[native.J_RING] = engine.native.address
        words[native.J_OUT_RING] = self._out.address
        words[native.J_EVENT] = address_of(arena.int64(8))
        for word, function in _NATIVE.items():
            words[word] = ctypes.cast(getattr(library, function), ctypes.c_void_p).value or 0
        self.ports: list[str] = []
        self.failures: dict[str, str] = {}
        self.lost: list[int] = []
        self._there: set[str] = set()
        self._inputs: list[int] = []
        self._targets: list[str] = []
        try:
            self._add_output("midi_out", "")
            self._add_input("midi_in", self.name)
            library.jack_on_shutdown(client, shutdown.address, address_of(words[native.J_GONE :]))
            library.jack_set_process_callback(client, native.process.address, address_of(words))
            if library.jack_activate(client):
                raise RtganError("JACK does not let a client take part")
        except RtganError:
            library.jack_client_close(client)
            raise
        self._closer: threading.Thread | None = None
        if exact:
            engine.follow_clock(int(words[native.J_FRAME]), client)

    def serves(self, engine: Engine, exact: bool) -> bool:
        """Whether it is a client of this engine, with times as exact as that."""
        return engine is self._engine and exact == self._exact

    def _register(self, name: str, direction: int) -> int:
        port = self._library.jack_port_register(self._client, name.encode(), _MIDI_TYPE, direction, 0)
        if not port:
            raise RtganError(f"JACK refuses the port {name}")
        return int(port)

    def _add_input(self, port_name: str, source: str) -> int:
        port = self._register(port_name, _INPUT)
        count = len(self._inputs)
        self._words[native.J_IN + count] = port
        self._inputs.append(port)
        self.ports.append(source)
        # The callback looks at a port only once it is counted.
        self._words[native.J_INPUTS] = count + 1
        return port

    def _add_output(self, port_name: str, target: str) -> None:
        count = len(self._targets)
        self._words[native.J_OUT + count] = self._register(port_name, _OUTPUT)
        self._targets.append(target)
        self._words[native.J_OUTPUTS] = count + 1

    # --- connections ---

    def sources(self) -> list[str]:
        """MIDI outputs of others."""
        return self._names(_OUTPUT)

    def targets(self) -> list[str]:
        """MIDI inputs of others."""
        return self._names(_INPUT)

    def _names(self, flags: int) -> list[str]:
        if self._client is None or self.gone:
            return []
        found = self._library.jack_get_ports(self._client, None, b"midi", flags)
        names: list[str] = []
        if found:
            while (name := found[len(names)]) is not None:
                names.append(name.decode(errors="replace"))
            self._library.jack_free(found)
        return [n for n in names if n.partition(":")[0] != self.name]

    def connect(self, wanted: Sequence[str], outputs: Sequence[str]) -> bool:
        """Connect what is there and wanted, by part of its name; again whenever it comes back.

        ``wanted`` empty: every input that is hardware. Returns whether a source is new; one that JACK gives no port
        for is named in `failures` and tried again with the next call.
        """
        physical = set(self._names(_OUTPUT | _PHYSICAL)) if not wanted else set()
        new = False
        sources = self.sources()
        self.lost += [number for number, name in enumerate(self.ports) if name in self._there.difference(sources)]
        self._there = set(sources)
        for source in sources:
            if not (source in physical or any(w.lower() in source.lower() for w in wanted)):
                continue
            if source in self.ports:
                port = self._inputs[self.ports.index(source)]
            elif len(self._inputs) < MOST_INPUTS:
                try:
                    port = self._add_input(f"midi_in_{len(self._inputs) + 1}", source)
                except RtganError as problem:
                    # A server that is full or going away; the others play on.
                    self.failures[source] = str(problem)
                    continue
                self.failures.pop(source, None)
                new = True
            else:
                continue
            if not self._library.jack_port_connected_to(port, source.encode()):
                self._library.jack_connect(self._client, source.encode(), self._library.jack_port_name(port))
        for target in self.targets():
            if not any(o.lower() in target.lower() for o in outputs):
                continue
            if target not in self._targets:
                if len(self._targets) >= MOST_OUTPUTS:
                    continue
                try:
                    self._add_output(f"midi_out_{len(self._targets) + 1}", target)
                except RtganError as problem:
                    self.failures[target] = str(problem)
                    continue
                self.failures.pop(target, None)
            out = int(self._words[native.J_OUT + self._targets.index(target)])
            if not self._library.jack_port_connected_to(out, target.encode()):
                self._library.jack_connect(self._client, self._library.jack_port_name(out), target.encode())
                new = True
        return new

    # --- messages ---

    def send(self, message: bytes, port: str = "") -> bool:
        """Send a message of one to three bytes with the next period; False if too many wait. One thread.

        ``port``: only to outputs whose names contain it; else to all, and to whoever has connected to ``midi_out``.
        """
        mask = sum(1 << k for k, target in enumerate(self._targets) if port.lower() in target.lower())
        return self._out.push(Record(MIDI, mask, int.from_bytes(message, "little"), len(message)))

    @property
    def gone(self) -> bool:
        """Whether the server has gone away."""
        return bool(self._words[native.J_GONE])

    @property
    def cycles(self) -> int:
        """Periods so far."""
        return int(self._words[native.J_CYCLES])

    @property
    def sysex(self) -> int:
        """System exclusive messages passed over."""
        return int(self._words[native.J_SYSEX])

    @property
    def garbage(self) -> int:
        """Events that are no message."""
        return int(self._words[native.J_BAD])

    def close(self) -> None:
        """Leave the server."""
        client, self._client = self._client, None
        if client is None:
            return
        if not self._engine.follow_clock(0, 0) or self.gone:
            # The audio thread hangs in the client, or its server has died: closing it then has been seen to crash.
            _STUCK.append((self, self._engine))
            return
        closer = threading.Thread(target=self._library.jack_client_close, args=(client,), daemon=True)
        closer.start()
        closer.join(2.0)
        if closer.is_alive():
            _STUCK.append((self, self._engine))
