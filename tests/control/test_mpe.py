"""MPE zones."""

from __future__ import annotations

import pytest

from rtgan.control.midi import Parser
from rtgan.control.mpe import Note, Zones


def feed(zones: Zones, *messages: str) -> list[Note]:
    last: list[Note] = []
    for message in Parser().feed(bytes.fromhex("".join(messages))):
        last = zones.feed(message)
    return last


def configured(channel: int, members: int) -> str:
    return f"b{channel - 1:x}6500 b{channel - 1:x}6406 b{channel - 1:x}06{members:02x}".replace(" ", "")


def test_notes_of_a_zone_have_expression_of_their_own() -> None:
    zones = Zones()
    feed(zones, configured(1, 5))
    assert (zones.lower, zones.upper) == (5, 0)
    feed(zones, "913c7f", "924040", "e10070", "d220", "b14a7f")
    own, other = zones.notes
    assert own == Note(2, 60, 1.0, pytest.approx(36.0, abs=0.01), 0.0, 1.0)
    assert other == Note(3, 64, pytest.approx(64 / 127), 0.0, pytest.approx(32 / 127), 0.5)
    changed = feed(zones, "e00070")
    assert [n.bend_semitones for n in changed] == pytest.approx([37.5, 1.5], abs=0.01), "the manager bends all by 2"
    feed(zones, "b16500", "b16400", "b1060c")
    assert zones.notes[0].bend_semitones == pytest.approx(9 + 1.5, abs=0.01), "a range of 12 semitones"
    feed(zones, "813c00", "924000")
    assert zones.notes == []


def test_the_zone_set_last_wins_and_zero_ends_it() -> None:
    zones = Zones()
    feed(zones, configured(1, 10), configured(16, 7))
    assert (zones.lower, zones.upper) == (7, 7)
    assert [zones.manager(c) for c in (1, 2, 8, 9, 15, 16)] == [None, 1, 1, 16, 16, None]
    feed(zones, configured(1, 0))
    assert (zones.lower, zones.upper) == (0, 7)
    feed(zones, configured(1, 15))
    assert (zones.lower, zones.upper) == (15, 0)
    feed(zones, configured(5, 3))
    assert (zones.lower, zones.upper) == (15, 0), "only channels 1 and 16 configure"


def test_all_notes_off_leaves_none() -> None:
    zones = Zones()
    feed(zones, configured(1, 5), "913c7f", "923d7f", "983e7f", "b07b00")
    assert [n.number for n in zones.notes] == [62], "the zone's, and no other"
