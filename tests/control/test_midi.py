"""The wire: whatever arrives, in whatever pieces."""

from __future__ import annotations

import mido
import numpy as np
import pytest

from rtgan.control.midi import Message, Parser, length_of

MESSAGES = [
    b"\x90\x3c\x40", b"\x80\x3c\x00", b"\xb0\x4a\x7f", b"\xc5\x07", b"\xd2\x30", b"\xe3\x00\x40", b"\xa1\x3c\x01",
    b"\xf8", b"\xfa", b"\xfb", b"\xfc", b"\xf2\x01\x02", b"\xf3\x05", b"\xf6",
]  # fmt: skip


def parsed(data: bytes) -> list[bytes]:
    return [m.data for m in Parser().feed(data)]


def test_every_message_in_any_cut() -> None:
    stream = b"".join(MESSAGES)
    parser = Parser()
    assert [m.data for byte in stream for m in parser.feed([byte])] == MESSAGES
    assert parsed(stream) == MESSAGES
    assert parser.garbage == 0


def test_running_status_real_time_in_the_middle_and_sysex() -> None:
    assert parsed(b"\xb0\x07\x01\x07\xf8\x02\x08\x03") == [b"\xb0\x07\x01", b"\xf8", b"\xb0\x07\x02", b"\xb0\x08\x03"]
    parser = Parser()
    stream = b"\xf0\x7e\xf8\x01\x02\xf7\x07\x01\xf0\x01\x90\x3c\x40\xf3\x01\x02"
    assert [m.data for m in parser.feed(stream)] == [b"\xf8", b"\x90\x3c\x40", b"\xf3\x01"]
    assert (parser.sysex, parser.garbage) == (2, 3), "sysex ends running status, and so does a system message"


def test_a_sysex_that_never_ends_does_not_swallow_what_follows() -> None:
    assert parsed(b"\xf0" + b"\x01" * 300_000 + b"\x90\x3c\x40") == [b"\x90\x3c\x40"]


def test_it_agrees_with_mido(rng: np.random.Generator) -> None:
    stream = b"".join(MESSAGES[k] for k in rng.integers(0, len(MESSAGES), 5000))
    peer = mido.Parser()
    peer.feed(stream)
    assert parsed(stream) == [bytes(m.bytes()) for m in peer]


@pytest.mark.parametrize("seed", range(4))
def test_a_million_random_bytes_give_nothing_but_whole_messages(seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, 256, 250_000, np.uint8).tobytes()
    parser = Parser()
    count = 0
    for message in parser.feed(data):
        count += 1
        assert len(message.data) == length_of(message.data[0])
        assert all(b < 0x80 for b in message.data[1:])
    assert count > 1000
    assert parser.sysex > 100


def test_messages_read_well() -> None:
    assert str(Message(b"\xb0\x4a\x7f")) == "channel  1  control 74 127"
    assert str(Message(b"\xef\x00\x00")) == "channel 16  bend -8192"
    assert str(Message(b"\xf8")) == "clock"
