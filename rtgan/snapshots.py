"""Snapshots, morphing and comparing: moving between sets of values while the sound goes on.

The first half are pure functions: what every parameter is at a place of the fader. The second half drives a
host with them. Continuous values move evenly as they are heard (`rtgan.params.Param.normalise`: decibels and
per cent evenly, frequencies by ratio), switches change in the middle, and where two presets hold different chains
the host fades from one to the other in the middle, with the values that they share already under way.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from rtgan import events, presets
from rtgan.errors import UsageError
from rtgan.events import Record
from rtgan.params import Param
from rtgan.presets import MOST_SNAPSHOTS, Preset, Snapshot, labels

#: How far past the middle the fader has to go before another chain is loaded, so that a trembling hand does not
#: load one after the other.
HYSTERESIS = 0.02


class Player(Protocol):
    """What is driven: `rtgan.host.Host` is one."""

    @property
    def preset(self) -> Preset:
        """What plays."""

    @property
    def values(self) -> Mapping[str, float]:
        """Every parameter by ``label.param``."""

    def set(self, name: str, value: object) -> None:
        """Change a parameter."""

    def load(self, preset: str | Preset) -> None:
        """Fade over to another preset."""


# --- what the values are ----------------------------------------------------------------------------------


def recall(preset: Preset, which: int | str) -> dict[str, float]:
    """Every value of the preset's chain under a snapshot.

    Parameters
    ----------
    preset : Preset
    which : int or str
        Number from 1, or name.

    Raises
    ------
    UsageError
        If the preset has no such snapshot.
    """
    for number, snapshot in enumerate(preset.snapshots, 1):
        if which in (number, snapshot.name):
            return preset.values() | snapshot.values
    known = ", ".join(f"{n} {s.name}" for n, s in enumerate(preset.snapshots, 1)) or "none"
    raise UsageError(f"{preset.name} has no snapshot {which}; it has: {known}")


def take(preset: Preset, name: str, values: Mapping[str, float]) -> Preset:
    """The preset with a snapshot of these values, in place of one of the same name.

    Only what differs from the preset itself is kept; parameters of others are left out.
    """
    own = preset.values()
    declared = preset.declared()
    kept = {k: declared[k].check(values[k], k) for k in own if k in values and k in declared and values[k] != own[k]}
    new = Snapshot(name, kept)
    if any(s.name == name for s in preset.snapshots):
        return replace(preset, snapshots=tuple(new if s.name == name else s for s in preset.snapshots))
    if len(preset.snapshots) >= MOST_SNAPSHOTS:
        raise UsageError(f"{preset.name} holds {MOST_SNAPSHOTS} snapshots already, which is the most")
    return replace(preset, snapshots=(*preset.snapshots, new))


def between(param: Param, a: float, b: float, position: float) -> float:
    """A parameter's value at ``position`` of the way from ``a`` (0) to ``b`` (1), as it is heard."""
    if position <= 0.0 or a == b:
        return a
    if position >= 1.0:
        return b
    if param.scale == "switch":
        return a if position < 0.5 else b
    start, end = param.normalise(a), param.normalise(b)
    # Rounding must not lead beyond either end.
    return min(max(param.plain(start + (end - start) * position), min(a, b)), max(a, b))


def same_chain(a: Preset, b: Preset) -> bool:
    """Whether two presets differ in values only, so that no other chain has to be loaded."""
    return _parts(a) == _parts(b)


def _parts(preset: Preset) -> list[tuple[str, str, dict[str, str], dict[str, str], int | None]]:
    return [
        (label, e.plugin, e.options, e.hashes, e.shed)
        for label, e in zip(labels(preset.chain), preset.chain, strict=True)
    ]


def morph(a: Preset, b: Preset, position: float, side: int | None = None) -> tuple[int, dict[str, float]]:
    """Where a morph stands.

    Parameters
    ----------
    a, b : Preset
    position : float
        0 for ``a``, 1 for ``b``.
    side : {0, 1}, optional
        The chain to use; by default that of the nearer preset.

    Returns
    -------
    side : int
        0 while the chain of ``a`` plays, 1 for that of ``b``; always 0 where both are the same.
    values : dict of str to float
        Every value of that chain by ``label.param``. Plugins that both chains hold under the same label move;
        the others keep their own.
    """
    if same_chain(a, b):
        side = 0
    elif side is None:
        side = int(position >= 0.5)
    home = (a, b)[side]
    plugins = ({label: plugin for label, plugin, *_ in _parts(p)} for p in (a, b))
    first, second = plugins
    from_a, from_b, declared = a.values(), b.values(), home.declared()
    values = {}
    for name, own in home.values().items():
        label = name.partition(".")[0]
        shared = label in first and first.get(label) == second.get(label) and name in declared
        if shared and name in from_a and name in from_b:
            values[name] = between(declared[name], from_a[name], from_b[name], position)
        else:
            values[name] = own
    return side, values


# --- loudness ---------------------------------------------------------------------------------------------


class Loudness:
    """Gated level after ITU-R BS.1770-4, from the meters of the engine.

    Blocks of 400 ms every 100 ms; those below -70 dB, and then those 10 dB below the mean of the rest, do not
    count. The meters have no K-weighting, so this is the level in dBFS, not LUFS; between two settings of one
    chain for one voice the difference is what matters.

    Parameters
    ----------
    sample_rate_hz : int
    seconds : float
        How much of the past counts.
    """

    def __init__(self, sample_rate_hz: int, seconds: float = 30.0) -> None:
        self._step = sample_rate_hz / 10
        self._power = self._samples = 0.0
        self._last: deque[float] = deque(maxlen=4)
        self._blocks: deque[float] = deque(maxlen=max(1, round(seconds * 10)))

    def add(self, mean_square: float, samples: int) -> None:
        """Take a meter's reading."""
        self._power += mean_square * samples
        self._samples += samples
        if self._samples >= self._step:
            self._last.append(self._power / self._samples)
            self._power = self._samples = 0.0
            if len(self._last) == 4:
                self._blocks.append(sum(self._last) / 4)

    @property
    def db(self) -> float | None:
        """The level; None as long as nothing but silence has been heard."""
        loud = [p for p in self._blocks if p > 1e-7]
        if loud:
            gate = sum(loud) / len(loud) / 10
            loud = [p for p in loud if p > gate]
        return 10 * math.log10(sum(loud) / len(loud)) if loud else None


# --- what drives a host -----------------------------------------------------------------------------------


class _Values:
    """Moves a player to sets of values; what it is known to have is not sent again."""

    def __init__(self, player: Player) -> None:
        self.player = player
        self.loaded: Preset | None = None
        self._sent: dict[str, float] = {}

    def load(self, preset: Preset, values: Mapping[str, float]) -> None:
        """Fade over to a chain that begins with these values."""
        chosen = preset.with_values(values)
        self.player.load(chosen)
        self.loaded = chosen
        self._sent = dict(values)

    def go(self, values: Mapping[str, float]) -> None:
        """Move to these values."""
        # Other controls move parameters too, and what was sent last may not have arrived: both must agree.
        present = self.player.values
        for name, value in values.items():
            if not self._sent.get(name) == value == present.get(name):
                self.player.set(name, value)
                self._sent[name] = value


class Morph:
    """One fader between two presets.

    Parameters
    ----------
    player : Player
    a, b : Preset
        If the player plays neither, the first move loads what it needs.
    """

    def __init__(self, player: Player, a: Preset, b: Preset) -> None:
        self.a, self.b = a, b
        self.position = 0.0
        self.side: int | None = 0 if same_chain(player.preset, a) else 1 if same_chain(player.preset, b) else None
        self._values = _Values(player)

    @property
    def loaded(self) -> Preset | None:
        """What the fader has loaded last; None for nothing."""
        return self._values.loaded

    def move(self, position: float) -> None:
        """Go to a place between ``a`` (0) and ``b`` (1); may load a chain, which takes as long as it takes."""
        position = min(1.0, max(0.0, position))
        near = self.side is not None and abs(position - 0.5) < HYSTERESIS
        side, values = morph(self.a, self.b, position, self.side if near else None)
        if side != self.side:
            self._values.load((self.a, self.b)[side], values)
            self.side = side
        else:
            self._values.go(values)
        self.position = position


class Scenes:
    """What the controls ``host.snapshot`` and ``host.morph`` do to a player [any one thread].

    The fader of a preset goes to the preset that its key ``morph`` names; its snapshots are its own, whichever
    way the values came to be what they are.
    """

    def __init__(self, player: Player) -> None:
        self._player = player
        self._base = player.preset
        self._loaded: Preset | None = player.preset
        self._morph: Morph | None = None
        self._values = _Values(player)

    def snapshot(self, which: int | str) -> None:
        """Recall a snapshot of the preset that plays, by number from 1 or by name; its values ramp there.

        A number past the last is the last: a control of the global map knows no preset's count.
        """
        home = self._home()
        if isinstance(which, int) and home.snapshots:
            which = min(which, len(home.snapshots))
        values = recall(home, which)
        if same_chain(self._player.preset, home):
            self._values.go(values)
        else:
            # The fader has gone over to the other chain.
            self._values.load(home, values)
            self._loaded, self._morph = self._values.loaded, None

    def morph(self, position: float) -> None:
        """Go to a place between the preset that plays (0) and the one it names (1); loads what is needed."""
        home = self._home()
        if self._morph is None:
            # A fader is no person who gives a path: code runs as freely as the preset's own did.
            other = presets.load(partner(home), "run" if home.trusted else "pinned")
            self._morph = Morph(self._player, home, other)
        self._morph.move(position)
        self._loaded = self._morph.loaded or self._loaded

    def _home(self) -> Preset:
        """The preset that somebody chose, not what the fader made of it."""
        if self._player.preset is not self._loaded:
            self._base = self._loaded = self._player.preset
            self._morph = None
        return self._base


def partner(preset: Preset) -> str:
    """Name or path of the preset at the other end of the fader; `UsageError` if there is none."""
    if not preset.morph:
        raise UsageError(f"{preset.name} names no preset to morph to; write morph: NAME into it")
    return preset.morph


@dataclass
class _Side:
    preset: Preset
    heard_in: Loudness
    heard_out: Loudness
    offset_db: float = 0.0

    @property
    def change_db(self) -> float | None:
        """What the preset does to the level of what comes in."""
        before, after = self.heard_in.db, self.heard_out.db
        return None if before is None or after is None else after - before


@dataclass
class Compare:
    """A and B at the same loudness, so that the louder one does not win for being louder.

    Each side is measured while it plays: by how much it changes the gated level of what comes in. The side that
    makes it louder is turned down by the difference through ``host.volume_db``; neither is ever turned up.

    Parameters
    ----------
    player : Player
    a, b : Preset
        Two presets, or one with different values (`Preset.with_values`, `recall`).
    sample_rate_hz : int
        Of the player's telemetry.
    volume_db : float
        The volume that stands for no correction.
    most_db : float
        Largest correction.

    Notes
    -----
    Feed it the player's telemetry (`heard`), then call `update` now and then; both from one thread at a time.
    """

    player: Player
    a: Preset
    b: Preset
    sample_rate_hz: int
    volume_db: float = 0.0
    most_db: float = 24.0
    playing: int | None = None
    _sides: tuple[_Side, _Side] = field(init=False)
    _quiet: int = field(init=False, default=0)
    _swapping: bool = field(init=False, default=False)
    _values: _Values = field(init=False)

    def __post_init__(self) -> None:
        def side(preset: Preset) -> _Side:
            return _Side(preset, Loudness(self.sample_rate_hz), Loudness(self.sample_rate_hz))

        self._sides = (side(self.a), side(self.b))
        self._values = _Values(self.player)

    def choose(self, which: int) -> None:
        """Play A (0) or B (1), at its matched volume."""
        side = self._sides[which]
        if self.playing is None or not same_chain(self.a, self.b):
            if self.playing != which:
                self._swapping = True
                self._values.load(side.preset, side.preset.values())
        else:
            self._values.go(side.preset.values())
        self.playing = which
        self.update()
        if not self._swapping:
            self._arrive()

    def _arrive(self) -> None:
        """The side that was chosen is heard from now on."""
        if self.playing is not None:
            # What is heard right now is still on the way from one to the other.
            self._quiet = self.sample_rate_hz // 2
            self.player.set("host.volume_db", self.volume_db + self._sides[self.playing].offset_db)

    def toggle(self) -> None:
        """The other side."""
        self.choose(1 - self.playing if self.playing is not None else 0)

    def heard(self, record: Record) -> None:
        """Take one record of the player's telemetry."""
        if record.kind == events.SWAP_DONE and self._swapping:
            self._swapping = False
            self._arrive()
        if record.kind != events.METER or self.playing is None or self._swapping:
            return
        if self._quiet > 0:
            self._quiet -= record.a
            return
        side = self._sides[self.playing]
        side.heard_in.add(record.z, record.a)
        gain = 10 ** ((self.volume_db + side.offset_db) / 10)
        side.heard_out.add(record.w / gain, record.a)

    @property
    def offsets_db(self) -> tuple[float, float]:
        """What A and B are turned down by, from what has been heard; 0 until both are known."""
        changes = [s.change_db for s in self._sides]
        if changes[0] is None or changes[1] is None:
            return 0.0, 0.0
        softer = min(changes[0], changes[1])
        return (max(-self.most_db, softer - changes[0]), max(-self.most_db, softer - changes[1]))

    def update(self) -> None:
        """Bring the volumes to what is known by now; the side that plays follows where it is off by 0.5 dB."""
        for number, (side, offset) in enumerate(zip(self._sides, self.offsets_db, strict=True)):
            if number != self.playing:
                side.offset_db = offset
            elif abs(offset - side.offset_db) >= 0.5 and not self._swapping:
                side.offset_db = offset
                self.player.set("host.volume_db", self.volume_db + offset)
