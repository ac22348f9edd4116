"""Snapshots and morphing: moving between sets of values while the sound goes on.

The first half are pure functions: what every parameter is at a place of the fader. The second half drives a
host with them. Continuous values move evenly as they are heard (`rtgan.params.Param.normalise`: decibels and
per cent evenly, frequencies by ratio), switches change in the middle, and where two presets hold different chains
the host fades from one to the other in the middle, with the values that they share already under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from rtgan import presets
from rtgan.errors import UsageError
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

    @property
    def position(self) -> float:
        """Where the fader of the preset that plays stands, 0 to 1."""
        morph = self._morph
        return morph.position if morph is not None and self._player.preset is self._loaded else 0.0

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
