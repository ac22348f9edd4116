"""A short phrase for a keyboard: what an instrument is heard with where nobody plays."""

from __future__ import annotations

_BEAT_S = 0.56
#: Beat, length in beats, velocity, notes.
_PHRASE: tuple[tuple[float, float, int, tuple[int, ...]], ...] = (
    (0.0, 3.8, 58, (45, 52, 60)), (0.5, 0.9, 66, (64,)), (1.0, 0.9, 72, (67,)), (1.5, 0.9, 80, (71,)),
    (2.0, 1.9, 92, (72,)), (3.0, 0.5, 70, (71,)), (3.5, 0.5, 64, (67,)),
    (4.0, 3.8, 60, (41, 48, 57)), (4.0, 1.4, 84, (69,)), (5.5, 0.5, 70, (67,)), (6.0, 0.9, 78, (65,)),
    (7.0, 0.5, 66, (64,)), (7.5, 0.5, 60, (60,)),
    (8.0, 3.8, 64, (36, 43, 52)), (8.0, 0.9, 76, (67,)), (8.5, 0.9, 84, (72,)), (9.0, 0.9, 96, (76,)),
    (10.0, 1.9, 104, (79,)), (11.5, 0.5, 84, (76,)),
    (12.0, 3.9, 56, (43, 50, 59)), (12.0, 1.9, 88, (74,)), (14.0, 0.9, 70, (71,)), (15.0, 0.9, 58, (67,)),
    (16.0, 4.0, 50, (45, 52, 60, 64, 69)), (16.5, 3.5, 44, (76,)),
)  # fmt: skip
#: Until the last note has died away.
SECONDS = 21.5 * _BEAT_S + 2.0


def messages(sample_rate_hz: int) -> list[tuple[int, bytes]]:
    """MIDI messages in the order of time, each with its sample."""
    found: list[tuple[int, int, bytes]] = []
    for beat, length, velocity, notes in _PHRASE:
        for note in notes:
            begin = round(beat * _BEAT_S * sample_rate_hz)
            end = round((beat + length) * _BEAT_S * sample_rate_hz)
            # A note that ends as another begins ends first.
            found += [(begin, 1, bytes((0x90, note, velocity))), (end, 0, bytes((0x80, note, 0)))]
    return [(at, data) for at, _, data in sorted(found)]
