"""Learning: which control somebody moves."""

from __future__ import annotations

import pytest

from rtgan.control.commands import Learning
from rtgan.control.midi import Message


@pytest.mark.parametrize(
    "messages, kind, number",
    [
        ("b0 4a 10, b0 4a 11", "cc", 74),
        ("b0 2c 10, b0 2c 11", "cc", 44),
        ("b0 0c 10, b0 2c 01, b0 0c 10, b0 2c 02", "cc14", 12),
        ("b0 63 01, b0 62 02, b0 06 10, b0 06 20", "nrpn", 130),
        ("90 3c 00, 90 3c 40", "note", 60),
        ("e0 00 40, e0 01 40", "bend", 0),
        ("c0 03", "program", 3),
    ],
)
def test_the_control_that_is_moved_is_found(messages: str, kind: str, number: int) -> None:
    learning = Learning()
    *before, last = [learning.feed(1, Message(bytes.fromhex(m))) for m in messages.split(",")]
    assert before == [None] * len(before)
    assert last is not None and (last.kind, last.number, last.channel) == (kind, number, 1)


def test_what_moves_by_itself_or_not_at_all_is_not_found() -> None:
    learning = Learning()
    for message in ("b0 4a 10", "b0 4a 10", "f8", "b0 00 01", "b0 20 02", "b0 7b 00", "90 3c 00", "b1 4a 20"):
        assert learning.feed(0, Message(bytes.fromhex(message))) is None
