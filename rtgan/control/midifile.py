"""A standard MIDI file as a player: every message at its sample, live and offline the same."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from rtgan import presets
from rtgan.control.mapping import FILE_PORT
from rtgan.engine import Engine
from rtgan.errors import RtganError, UsageError
from rtgan.offline import Step
from rtgan.setlist import SetList

#: A message with the sample at which it takes effect.
Timed = tuple[int, bytes]
_AHEAD_S = 1.0
_FEED_S = 0.1
_MOST_AT_ONCE = 2048
_LARGEST_FILE = 1 << 24


def read(path: Path, sample_rate_hz: int) -> list[Timed]:
    """Channel messages of a file in the order of time, tempo changes worked in; what else it holds is left out.

    Raises
    ------
    RtganError
        If the file cannot be read or is no MIDI file of type 0 or 1.
    """
    import mido  # loaded only where there is a file

    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UsageError(f"{path}: larger than 16 MiB, which no MIDI file is")
        file = mido.MidiFile(path, clip=True)
        if file.type == 2:
            raise UsageError(f"{path}: a MIDI file of type 2 has no common time; types 0 and 1 are played")
        if file.ticks_per_beat <= 0:
            raise UsageError(f"{path}: its times are frames of a film (SMPTE); only those that count beats are played")
        seconds = 0.0
        found: list[Timed] = []
        for message in file:
            seconds += message.time
            data = bytes(message.bin()) if not message.is_meta else b""
            if 2 <= len(data) <= 3 and 0x80 <= data[0] < 0xF0:
                found.append((round(seconds * sample_rate_hz), data))
    except RtganError:
        raise
    except OSError as problem:
        why = problem.strerror or "it ends too early"
        raise RtganError(f"the MIDI file {path} cannot be read: {why}") from None
    except Exception as problem:  # mido raises whatever the bytes make of it
        raise UsageError(f"{path}: not a MIDI file ({str(problem) or type(problem).__name__})") from None
    return found


def preset_steps(messages: Sequence[Timed], order: SetList) -> list[Step]:
    """The presets that the file's program changes call, for rendering; live the desk loads them."""
    steps = []
    banks: dict[int, list[int]] = {}
    for position, data in messages:
        bank = banks.setdefault(data[0] & 15, [0, 0])
        if data[0] & 0xF0 == 0xB0 and data[1] in (0, 32):
            bank[data[1] == 32] = data[2]
        elif data[0] & 0xF0 == 0xC0:
            called = order.called(data[1], bank[0] * 128 + bank[1])
            if called is not None:
                steps.append(Step(position, preset=presets.load(called)))
    return steps


class FilePlayer:
    """Plays a file into a running engine, from its first sample on [main].

    Messages are sent ahead with the sample they belong to, so that nothing Python does moves them.
    """

    def __init__(self, engine: Engine, messages: Sequence[Timed]) -> None:
        self._engine = engine
        self._messages = messages
        self._next = 0
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtgan-midi-file", daemon=True)

    @property
    def finished(self) -> bool:
        """Whether everything has been sent."""
        return self._next >= len(self._messages)

    def start(self) -> None:
        """Send what comes first, then keep ahead; before the host starts."""
        self._feed()
        self._thread.start()

    def close(self) -> None:
        """Stop; what has been sent still plays."""
        self._halt.set()
        if self._thread.is_alive():
            self._thread.join()

    def _feed(self) -> None:
        until = self._engine.counters.position_samples + int(_AHEAD_S * self._engine.sample_rate_hz)
        for _ in range(_MOST_AT_ONCE):
            if self.finished or self._messages[self._next][0] >= until:
                break
            position, data = self._messages[self._next]
            if not self._engine.midi(data, position, FILE_PORT):
                break
            self._next += 1

    def _run(self) -> None:
        while not self._halt.wait(_FEED_S) and not self.finished:
            self._feed()
