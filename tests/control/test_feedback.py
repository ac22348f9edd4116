"""Lights and motor faders."""

from __future__ import annotations

from rtgan.bindings import HOST_TARGETS, Binding, parse_control
from rtgan.control.feedback import Feedback
from rtgan.control.midi import Message
from rtgan.params import Param

GAIN = Param("gain_db", "Gain", -60, 24, 0)


def feedback(*bindings: Binding) -> tuple[Feedback, list[str]]:
    sent: list[str] = []
    made = Feedback(lambda message, port: sent.append(f"{message.hex(' ')} {port}".strip()))
    made.bind(bindings, {"gain.gain_db": GAIN, **HOST_TARGETS})
    return made, sent


def test_a_change_moves_the_fader_once() -> None:
    fader = Binding(parse_control("cc 7", 3, "nano"), ("gain.gain_db",))
    told, sent = feedback(fader)
    for value in (24.0, 24.0, -60.0):
        told.changed("gain.gain_db", value)
        told.flush()
    told.changed("other.param", 1.0)
    told.flush()
    assert sent == ["b2 07 7f nano", "b2 07 00 nano"]
    told.refresh({"gain.gain_db": -60.0})
    told.flush()
    assert sent[2:] == ["b2 07 00 nano"], "a control that has just come is told everything"


def test_what_a_hand_has_done_is_not_sent_back_but_a_buttons_light_is() -> None:
    fader = Binding(parse_control("cc 7"), ("gain.gain_db",))
    button = Binding(parse_control("note 60"), ("host.mute",), "toggle")
    told, sent = feedback(fader, button)
    told.heard(Message(b"\xb5\x07\x40"))
    told.changed("gain.gain_db", -60 + 84 * 64 / 127)
    told.heard(Message(b"\x90\x3c\x7f"))
    told.changed("host.mute", 1.0)
    told.flush()
    assert sent == ["90 3c 7f"]
    told.changed("gain.gain_db", 24.0)
    told.changed("host.mute", 0.0)
    told.flush()
    assert sent[1:] == ["b0 07 7f", "90 3c 00"]


def test_two_ports_do_not_mix_up_the_halves_of_a_control() -> None:
    told, sent = feedback(Binding(parse_control("cc14 7"), ("gain.gain_db",)))
    told.heard(Message(b"\xb0\x07\x40"), port=1)
    told.heard(Message(b"\xb0\x27\x10"), port=1)
    told.heard(Message(b"\xb0\x27\x00"), port=2)
    told.heard(Message(b"\xb0\x27\x10"), port=1)
    told.changed("gain.gain_db", -60 + 84 * (64 * 128 + 16) / 16383)
    told.flush()
    assert sent == []


def test_every_kind_of_control_is_told_in_its_own_way() -> None:
    for text, expected in (
        ("cc14 7", ["b0 07 7f", "b0 27 7f"]),
        ("nrpn 261", ["b0 63 02", "b0 62 05", "b0 06 7f", "b0 26 7f"]),
        ("rpn 1", ["b0 65 00", "b0 64 01", "b0 06 7f", "b0 26 7f"]),
        ("bend", ["e0 7f 7f"]),
        ("pressure", ["d0 7f"]),
        ("poly 60", ["a0 3c 7f"]),
        ("program 3", []),
    ):
        told, sent = feedback(Binding(parse_control(text), ("gain.gain_db",)))
        told.changed("gain.gain_db", 24.0)
        told.flush()
        assert sent == expected, text
