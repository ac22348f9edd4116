"""Polled ports: plugged and unplugged."""

from __future__ import annotations

from typing import Any

import pytest
import rtmidi

from rtgan.control import ports

#: What ALSA's sequencer lists now.
BUS: list[str] = []


class Handle:
    """A client of a sequencer whose ports come and go, as a machine without one cannot have them."""

    def __init__(self) -> None:
        self.at = ""

    def get_ports(self) -> list[str]:
        return list(BUS)

    def ignore_types(self, **kinds: bool) -> None:
        assert kinds["timing"] is False

    def open_port(self, index: int, name: str) -> None:
        self.at = BUS[index]

    def close_port(self) -> None:
        self.at = ""

    def delete(self) -> None:
        pass

    def get_message(self) -> tuple[list[int], float] | None:
        message = [0xB0, 7, 1] if self.at in BUS else None
        self.at = self.at if message is None else "read"
        return None if message is None else (message, 0.0)


def test_a_port_that_was_plugged_again_between_two_scans_is_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_open", lambda kind, api: Handle())
    monkeypatch.setattr(ports, "backends", lambda: {rtmidi.API_LINUX_ALSA: "ALSA"})
    BUS[:] = ["Keys:Keys MIDI 1 20:0", "Pads:Pads MIDI 1 24:0"]
    polled: Any = ports.Polled(virtual=False)
    assert polled.scan()
    assert not polled.scan(), "nothing has changed"
    names = polled.ports
    BUS[:] = ["Pads:Pads MIDI 1 24:0", "Keys:Keys MIDI 1 28:0"]
    assert polled.scan()
    assert polled.ports == names, "the same ports, by the same numbers"
    assert sorted(number for number, _ in polled.poll()) == [0, 1], "both are heard"
    polled.lost.clear()
    BUS[:] = ["Pads:Pads MIDI 1 24:0"]
    assert polled.scan()
    assert polled.lost == [names.index("Keys:Keys MIDI 1")], "whoever holds its notes is told"
    polled.close()
