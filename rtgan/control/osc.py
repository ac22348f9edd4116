"""Open Sound Control, in and out: addresses are parameter ids, ``/denoise/amount_db 12``.

``/rtgan`` answers with every address, its range, unit and value, and tells the one who asked of every change from
then on. Without an argument an address answers with its value. ``/host/next``, ``/host/previous``, ``/host/panic``,
``/host/record 1``, ``/host/snapshot 2``, ``/host/morph 50``, ``/host/compare 1`` and ``/host/load NAME`` do what they
say; presets are loaded by name only, never by path. ``/host/chain add gain 2``, ``/host/chain move gain 1`` and
``/host/chain remove gain`` change the chain that plays.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from pythonosc.osc_message_builder import OscMessageBuilder
from pythonosc.osc_packet import OscPacket

from rtgan import chain, presets
from rtgan.bindings import HOST_TARGETS, HOST_TRIGGERS
from rtgan.control.desk import Desk
from rtgan.engine import HOST_PARAMS
from rtgan.errors import RtganError, UsageError

DEFAULT_PORT = 9010
#: Who is told of changes: the last so many who asked.
MOST_LISTENERS = 16
_ECHO_S = 0.3
_LARGEST = 65535
Address = tuple[str, int]


def address_of(name: str) -> str:
    """``gain.gain_db`` to ``/gain/gain_db``."""
    return "/" + name.replace(".", "/", 1)


def _packet(address: str, *values: str | float) -> bytes:
    builder = OscMessageBuilder(address=address)
    for value in values:
        builder.add_arg(value, "s" if isinstance(value, str) else "f")
    return bytes(builder.build().dgram)


def parse_where(text: str) -> Address:
    """``[HOST:]PORT``; this machine alone unless a host is given."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 <= int(port) <= 65535):
        raise UsageError(f"'{text}' is not an OSC port; write PORT or HOST:PORT, for example {DEFAULT_PORT}")
    return host or "127.0.0.1", int(port)


class Osc:
    """An OSC server for a desk and its host.

    Parameters
    ----------
    desk : Desk
    where : (str, int)
        Address and UDP port to listen on; port 0 takes any that is free.

    Attributes
    ----------
    refused : int
        Packets and messages that made no sense.
    where : (str, int)
        What is listened on.

    Raises
    ------
    RtganError
        If that is not possible.
    """

    def __init__(self, desk: Desk, where: Address) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind(where)
        except (OSError, OverflowError, ValueError) as problem:
            # ValueError: a name that cannot be looked up, such as one with an empty or an endless part.
            self._socket.close()
            raise RtganError(f"OSC cannot listen on {where[0]}:{where[1]}: {problem}") from None
        self._desk, self._host = desk, desk.host
        self._socket.settimeout(0.2)
        self.where: Address = self._socket.getsockname()
        self.refused = 0
        self._listeners: dict[Address, None] = {}
        self._told: dict[tuple[Address, str], tuple[float, float]] = {}
        self._lock = threading.Lock()
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtgan-osc", daemon=True)

    def start(self) -> None:
        """Begin to listen, and to tell."""
        self._desk.on_change(self._changed)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._halt.set()
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._halt.is_set():
            try:
                data, sender = self._socket.recvfrom(_LARGEST)
            except TimeoutError:
                continue
            except OSError:
                if self._halt.is_set():
                    return
                continue  # a listener that has gone answers with an error, which means nothing here
            self.take(data, sender)

    def take(self, data: bytes, sender: Address) -> None:
        """Carry out a packet; what makes no sense is counted."""
        try:
            messages = [timed.message for timed in OscPacket(data).messages]
        except Exception:  # bytes of anybody: the parser raises whatever they make of it
            self.refused += 1
            return
        for message in messages:
            try:
                self._message(str(message.address), list(message.params), sender)
            except RtganError as problem:
                self.refused += 1
                self._send(_packet("/rtgan/error", str(problem)), sender)
            except Exception as problem:  # whatever somebody sends: the next packet must still be heard
                self.refused += 1
                self._host.warn(f"OSC: {str(message.address)[:80]} failed: {problem!r}")

    def _message(self, address: str, values: list[Any], sender: Address) -> None:
        if address == "/rtgan":
            self._discover(sender)
            return
        name = address.removeprefix("/").replace("/", ".", 1)
        action = name.removeprefix("host.")
        if name == "host.load":
            if len(values) != 1 or not isinstance(values[0], str):
                raise UsageError("/host/load takes the name of a preset")
            if presets.by_path(values[0]):
                # What comes over a network is nobody who gave a path: it must not run what lies there.
                raise UsageError(f"/host/load takes the name of a preset, not a path such as '{values[0][:80]}'")
            self._desk.act(f"load {values[0]}")
        elif name == "host.chain":
            what, plugin, place = (*values, 0)[:3] if 2 <= len(values) <= 3 else ("", "", 0)
            numbered = isinstance(place, (int, float)) and math.isfinite(place)
            if not (isinstance(what, str) and isinstance(plugin, str) and numbered):
                raise UsageError("/host/chain takes add, move or remove, the name of a plugin, and its place")
            chain.change(self._host.preset, what, plugin, int(place))
            self._desk.act(f"chain {what} {int(place)} {plugin}")
        elif name in HOST_TARGETS and action not in HOST_PARAMS:
            target = HOST_TARGETS[name]
            value = target.check(values[0], address) if values else 1.0
            if value != 0.0 or name not in HOST_TRIGGERS:
                self._desk.act(action, value)
        elif not values:
            known = self._host.values
            if name not in known:
                raise UsageError(f"there is no {address[:80]}; /rtgan lists what there is")
            self._send(_packet(address, float(known[name])), sender)
        elif len(values) != 1:
            raise UsageError(f"{address[:80]} takes one value")
        else:
            if isinstance(values[0], (bool, int, float)):
                with self._lock:
                    self._told[sender, name] = (float(values[0]), time.monotonic())
            self._host.set(name, values[0])

    def _discover(self, sender: Address) -> None:
        with self._lock:
            self._listeners.pop(sender, None)
            self._listeners[sender] = None
            while len(self._listeners) > MOST_LISTENERS:
                self._listeners.pop(next(iter(self._listeners)))
        self._send(_packet("/rtgan/preset", self._host.preset.name), sender)
        for packet in self._everything():
            self._send(packet, sender)

    def _everything(self) -> Iterator[bytes]:
        values = self._host.values
        for name, param in self._host.params.items():
            if name in values:
                low, high = float(param.minimum), float(param.maximum)
                yield _packet("/rtgan/param", address_of(name), low, high, float(values[name]), param.unit)
        for name, param in HOST_TARGETS.items():
            if name not in values:
                yield _packet("/rtgan/action", address_of(name), float(param.minimum), float(param.maximum))
        yield _packet("/rtgan/end")

    def _changed(self, name: str, value: float) -> None:
        packet = _packet(address_of(name), float(value))
        now = time.monotonic()
        with self._lock:
            listeners = list(self._listeners)
            if len(self._told) > 4096:
                self._told.clear()
        for listener in listeners:
            told, when = self._told.get((listener, name), (0.0, -_ECHO_S))
            # Who has just set it knows it: no echo.
            if now - when > _ECHO_S or abs(told - value) > 1e-6 * max(1.0, abs(value)):
                self._send(packet, listener)

    def _send(self, packet: bytes, to: Address) -> None:
        try:
            self._socket.sendto(packet, to)
        except OSError:
            pass  # UDP promises nothing
