"""What goes back to a controller: lights, rings of lights and motor faders show what the parameters are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from rtgan import switchboard
from rtgan.bindings import HOST_TRIGGERS, Binding
from rtgan.control.mapping import position_of
from rtgan.control.midi import KINDS, Message
from rtgan.params import Param

_Key = tuple[str, int, int]


def messages(binding: Binding, position: float) -> list[bytes]:
    """What shows a position, 0..1, on the control of a binding; on channel 1 where it listens to all."""
    control = binding.control
    channel = (control.channel or 1) - 1
    seven, wide = round(position * 127), round(position * 16383)
    number = control.number
    if binding.mode in ("toggle", "momentary"):
        seven = 127 if position >= 0.5 else 0
    if control.kind == "cc":
        return [bytes([0xB0 | channel, number, seven])]
    if control.kind == "cc14":
        return [bytes([0xB0 | channel, number, wide >> 7]), bytes([0xB0 | channel, number + 32, wide & 127])]
    if control.kind in ("nrpn", "rpn"):
        first = 98 if control.kind == "nrpn" else 100
        pairs = ((first + 1, number >> 7), (first, number & 127), (6, wide >> 7), (38, wide & 127))
        return [bytes([0xB0 | channel, n, v]) for n, v in pairs]
    if control.kind == "note":
        return [bytes([0x90 | channel, number, seven])]
    if control.kind == "poly":
        return [bytes([0xA0 | channel, number, seven])]
    if control.kind == "pressure":
        return [bytes([0xD0 | channel, seven])]
    if control.kind == "bend":
        wide = round(position * 16384) if position <= 0.5 else 8192 + round((position - 0.5) * 16382)
        return [bytes([0xE0 | channel, wide & 127, wide >> 7])]
    return []


class Feedback:
    """Collects changes and sends each control what it does not know yet [changes: any thread; flush: one].

    A control that was moved by hand knows where it stands: what it sent itself is not sent back. Switches are always
    told, since many buttons leave their light to the host. What a motor fader sends while it moves changes nothing,
    because the audio thread ignores a control that asks for the value a parameter has.

    Parameters
    ----------
    send : callable
        Given a message and a part of the port's name.
    """

    def __init__(self, send: Callable[[bytes, str], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._bindings: list[tuple[Binding, str, Param]] = []
        self._changes: dict[str, float] = {}
        self._queue: list[bytes] = []
        self._sent: dict[tuple[Binding, str], list[bytes]] = {}
        self._heard: dict[_Key, float] = {}
        self._decoder = switchboard.Decoder()

    def bind(self, bindings: Sequence[Binding], declared: Mapping[str, Param]) -> None:
        """Take other bindings."""
        found = [
            (b, target, declared[target])
            for b in bindings
            for target in b.targets
            if target in declared and target not in HOST_TRIGGERS and b.control.kind != "program"
        ]
        with self._lock:
            self._bindings = found
            self._sent.clear()

    def refresh(self, values: Mapping[str, float]) -> None:
        """Tell everything, to a control that has just come or after a change of preset."""
        with self._lock:
            self._sent.clear()
            self._heard.clear()
            self._changes = dict(values)

    def changed(self, name: str, value: float) -> None:
        """Note a change of a parameter."""
        with self._lock:
            self._changes[name] = value

    def queue(self, message: bytes) -> None:
        """Send a message as it is, with the next flush."""
        with self._lock:
            self._queue.append(message)

    def heard(self, message: Message, port: int = 0) -> None:
        """Note where a control stands that was moved by hand."""
        if message.channel is None:
            return
        with self._lock:
            for moved in self._decoder.controls(message.data, port):
                key = (KINDS[moved.kind], moved.number)
                self._heard[*key, message.channel] = self._heard[*key, 0] = moved.value

    def flush(self) -> None:
        """Send what is new; one message that fails keeps none of the others back, and is raised at the end."""
        with self._lock:
            changes, self._changes = self._changes, {}
            out: list[tuple[bytes, str]] = [(m, "") for m in self._queue]
            self._queue.clear()
            for binding, target, param in self._bindings if changes else ():
                if target not in changes:
                    continue
                position = position_of(binding, param, changes[target])
                shown = messages(binding, position)
                if self._sent.get((binding, target)) == shown:
                    continue
                self._sent[binding, target] = shown
                control = binding.control
                at = self._heard.get((control.kind, control.number, control.channel or 0))
                absolute = binding.mode in ("absolute", "pickup")
                if absolute and at is not None and messages(binding, at) == shown:
                    continue
                out += [(m, control.port) for m in shown]
        failed: Exception | None = None
        for message, port in out:
            try:
                self._send(message, port)
            except Exception as problem:
                failed = problem
        if failed is not None:
            raise failed
