"""A and B: two sounds, a switch between them, and both at one loudness.

A side is a preset with the values that it was left with: two whole presets, or one with two settings. What is turned or
loaded belongs to the side that sounds. Values ramp to the other side's; where the chains differ both run, so that the
host fades over at once, and until a copy makes them alike they cost twice the time.

Louder sounds better, so the louder side is turned down; neither is ever turned up. What counts is by how much a side
changes the K-weighted loudness of what comes in (ITU-R BS.1770-4: blocks of 400 ms every 100 ms, those of pauses left
out), over the last three seconds of sound that it was heard with, so that it makes no difference what was said
while it was heard. Where nothing comes in, what comes out counts alone.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Protocol

from rtgan import events, snapshots
from rtgan.events import Record
from rtgan.graph import TRIM
from rtgan.presets import Preset
from rtgan.snapshots import same_chain

SIDES = ("A", "B")
#: Blocks of 400 ms, one every 100 ms, in three seconds; and in one, from which on a side's loudness is known.
_BLOCKS, _KNOWN = 27, 7
#: Reports after a change of sides whose 400 ms still hold something of what was before.
_SETTLE = 6
#: The standard's gates: power of -70 LUFS, and of 10 LU below the mean.
_SILENCE, _GATE = 10 ** ((-70 + 0.691) / 10), 0.1
_FOLLOW_DB, _FOLLOW_MS = 0.5, 300.0


class Player(snapshots.Player, Protocol):
    """What plays the two: `rtgan.host.Host` is one."""

    @property
    def serial(self) -> int:
        """The graph that was loaded last."""

    def load(self, preset: str | Preset, trim_db: float = 0.0, keep: bool = False) -> None:
        """Fade over to another preset, turned down so far; what played may be kept running."""

    def recall(self, serial: int) -> bool:
        """Let a graph that was kept be heard at once."""

    def let_go(self, serial: int) -> None:
        """Keep a graph no longer."""

    def adopt(self, preset: Preset) -> None:
        """Let what plays be this preset from now on."""

    def trim(self, db: float, ramp_ms: float = ...) -> None:
        """Turn what plays down."""

    def catch_up(self) -> None:
        """Wait until `values` are those that were asked for."""

    def weigh(self) -> None:
        """Report loudness from now on."""


@dataclass(frozen=True)
class Sound:
    """What plays: a preset, and the value of each parameter of its chain as it is now."""

    preset: Preset
    values: Mapping[str, float]


def sound_of(player: Player) -> Sound:
    """What a player plays now."""
    preset, values = player.preset, player.values
    return Sound(preset, {name: values.get(name, value) for name, value in preset.values().items()})


@dataclass
class _Side:
    sound: Sound | None = None
    serial: int = 0
    trim_db: float = 0.0
    quiet: int = _SETTLE
    heard: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_BLOCKS))

    @property
    def lufs(self) -> float | None:
        """Loudness behind the chain; None as long as it is not known."""
        loud = _gated([(y, y) for _, y in self.heard])
        return _lufs([y for _, y in loud])

    @property
    def adds_lu(self) -> float | None:
        """What the chain adds to the loudness of what comes in; None as long as it is not known."""
        loud = _gated(list(self.heard))
        before, behind = _lufs([x for x, _ in loud]), _lufs([y for _, y in loud])
        return None if before is None or behind is None else behind - before


def _gated(blocks: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Blocks whose first power is no pause's."""
    loud = [b for b in blocks if b[0] > _SILENCE]
    gate = _GATE * fmean(b[0] for b in loud) if loud else 0.0
    return [b for b in loud if b[0] > gate]


def _lufs(powers: list[float]) -> float | None:
    if len(powers) < _KNOWN or (power := fmean(powers)) <= _SILENCE:
        return None
    return -0.691 + 10 * math.log10(power)


class Comparison:
    """Two sounds and the switch between them [play, copy, match: one thread at a time; the rest: any].

    Parameters
    ----------
    player : Player
        Its telemetry goes to `heard`.

    Attributes
    ----------
    side : int
        Which one sounds, 0 for A.
    matching : bool
        Whether the louder side is turned down.
    moving : callable
        Given every sound that is about to be gone to.
    """

    def __init__(self, player: Player) -> None:
        self._player = player
        self._sides = (_Side(), _Side())
        self.side = 0
        self.matching = True
        self.moving: Callable[[Sound], None] = lambda sound: None
        self._lock = threading.Lock()
        self._sides[0].serial = player.serial
        self._busy = False
        self._loaded: deque[int] = deque(maxlen=16)

    # --- what may be done ---

    def play(self, which: int, sound: Sound | None = None) -> None:
        """Let A (0) or B (1) be heard, as it was left or with another sound; an empty side begins as a copy."""
        here, there = self._sides[self.side], self._sides[which]
        if which == self.side and sound is None:
            return
        self._player.weigh()
        self._player.catch_up()
        with self._lock:
            self._notice()
        here.sound = sound_of(self._player)
        if there.sound is None:
            self._put(here, there)
        wanted = sound or there.sound
        assert wanted is not None
        if wanted.preset.path is not None and not wanted.preset.path.exists():
            # Renamed or deleted meanwhile: the sound is kept, and belongs to no file any more.
            wanted = Sound(replace(wanted.preset, path=None), wanted.values)
        self.moving(wanted)
        with self._lock:
            # Until the other one is there, what is heard belongs to neither.
            self.side, self._busy = which, True
        try:
            if same_chain(self._player.preset, wanted.preset):
                self._move(wanted, there.trim_db)
                if there.serial != self._player.serial:
                    self._player.let_go(there.serial)
            elif here is not there and self._held(there, wanted) and self._player.recall(there.serial):
                self._move(wanted, there.trim_db)
            else:
                # However slowly the preset fades in otherwise: who compares must not forget what was before.
                chosen = replace(wanted.preset, crossfade_ms=None).with_values(wanted.values)
                self._player.load(chosen, there.trim_db, keep=here is not there)
                self._loaded.append(self._player.serial)
            if self._player.preset is not wanted.preset:
                self._player.adopt(wanted.preset)
        finally:
            with self._lock:
                there.serial, self._busy = self._player.serial, False
                here.quiet = there.quiet = _SETTLE

    def load(self, preset: str | Preset) -> None:
        """Load another preset into the side that sounds; what the other side is heard with runs on."""
        here, other = self._sides[self.side], self._sides[1 - self.side]
        with self._lock:
            self._notice()
        self._player.load(preset, keep=other.sound is not None and other.serial == here.serial)

    def toggle(self) -> None:
        """The other side."""
        self.play(1 - self.side)

    def copy(self) -> None:
        """Put what sounds into the other side as well."""
        self._player.catch_up()
        here, other = self._sides[self.side], self._sides[1 - self.side]
        here.sound = sound_of(self._player)
        with self._lock:
            self._notice()
            gone, shared = other.serial, other.serial == here.serial
            self._put(here, other)
            self._update()
        if not shared:
            self._player.let_go(gone)

    def match(self, on: bool) -> None:
        """Turn the louder side down, or leave both as they are."""
        with self._lock:
            self.matching = on
            self._update()

    def brought(self, serial: int) -> bool:
        """Whether a graph came by `play`, not by somebody who loaded a preset."""
        return self._busy or serial in self._loaded

    def sound(self, which: int) -> Sound:
        """What a side holds."""
        kept = self._sides[which].sound
        return sound_of(self._player) if which == self.side or kept is None else kept

    @property
    def state(self) -> dict[str, Any]:
        """Which side sounds, what both hold, how loud they are behind their chains and how far turned down."""
        with self._lock:
            names = [s.sound.preset.name if s.sound is not None else "" for s in self._sides]
            names[self.side] = self._player.preset.name
            return {
                "side": SIDES[self.side],
                "names": names,
                "match": self.matching,
                "trim_db": [round(s.trim_db, 1) for s in self._sides],
                "lufs": [None if (lufs := s.lufs) is None else round(lufs, 1) for s in self._sides],
                "known": all(s.adds_lu is not None or s.lufs is not None for s in self._sides),
            }

    # --- how it is done ---

    @staticmethod
    def _put(source: _Side, target: _Side) -> None:
        target.sound, target.serial, target.trim_db = source.sound, source.serial, source.trim_db
        target.heard = source.heard.copy()

    @staticmethod
    def _held(side: _Side, wanted: Sound) -> bool:
        """Whether what a side was heard with last is what is wanted, but for values."""
        return side.sound is not None and same_chain(side.sound.preset, wanted.preset)

    def _move(self, sound: Sound, trim_db: float) -> None:
        present = self._player.values
        for name, value in sound.values.items():
            if present.get(name) != value:
                self._player.set(name, value)
        self._player.trim(trim_db)

    # --- loudness ---

    def heard(self, record: Record) -> None:
        """Take a record of the player's telemetry."""
        if record.kind != events.LOUDNESS:
            return
        through = self._player.values.get("host.bypass", 0.0) >= 0.5
        with self._lock:
            self._notice()
            here, other = self._sides[self.side], self._sides[1 - self.side]
            # Both sides' graphs are told of; of a graph that both share, what is heard is the one that sounds.
            side = here if record.b == here.serial else other if record.b == other.serial else None
            if side is None or self._busy:
                return
            if through:
                side.quiet = _SETTLE
            elif side.quiet > 0:
                side.quiet -= 1
            else:
                side.heard.append((record.x, record.y))
                self._update()

    def _notice(self) -> None:
        """Whether somebody has loaded another preset into the side that sounds; it plays as it is."""
        side, serial = self._sides[self.side], self._player.serial
        if side.serial != serial and not self._busy:
            side.serial, side.quiet, side.trim_db = serial, _SETTLE, 0.0
            side.heard.clear()
            self._update()

    def _wanted_db(self) -> tuple[float, float]:
        a, b = (side.adds_lu for side in self._sides)
        if a is None or b is None:
            a, b = (side.lufs for side in self._sides)
        if not self.matching or a is None or b is None:
            return 0.0, 0.0
        return max(TRIM.minimum, min(a, b) - a), max(TRIM.minimum, min(a, b) - b)

    def _update(self) -> None:
        """Bring the trims to what is known; that of the side that sounds follows slowly, from half a decibel on."""
        for number, (side, wanted) in enumerate(zip(self._sides, self._wanted_db(), strict=True)):
            if number != self.side:
                side.trim_db = wanted
            elif abs(wanted - side.trim_db) >= _FOLLOW_DB or (wanted == 0.0 and side.trim_db != 0.0):
                side.trim_db = wanted
                self._player.trim(wanted, _FOLLOW_MS)
