"""What was done to the sound and to the presets' files, so that it can be undone and done again.

It hears of edits where they take effect, so that it makes no difference who made them: a page, MIDI, OSC, a snapshot,
the fader. What moves without a pause is one edit. Volume, mute and bypass belong to the performance and are left out.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from rtgan import events
from rtgan.control.comparison import Comparison, Sound, sound_of
from rtgan.errors import UsageError
from rtgan.events import Record
from rtgan.host import Host
from rtgan.preset_files import Change
from rtgan.presets import Preset
from rtgan.snapshots import same_chain

#: How many things can be undone.
MOST = 100
#: Pauses that end an edit: of one parameter, and between several that move at once.
_PAUSE_S, _AT_ONCE_S = 0.7, 0.05


@dataclass
class _Edit:
    """The sound was another one: other values, or another chain."""

    side: int
    before: Sound
    after: Sound
    names: set[str]
    when: int

    @property
    def what(self) -> str:
        if not self.names:
            here, there = self.before.preset, self.after.preset
            same = there.edited and (here.name, here.path) == (there.name, there.path)
            return f"change the chain of {there.name}" if same else f"load {there.name}"
        return f"change {next(iter(self.names)) if len(self.names) == 1 else f'{len(self.names)} parameters'}"


@dataclass
class _Filed:
    """Files were changed, and the preset that plays may have got another name."""

    change: Change
    before: Preset
    after: Preset

    @property
    def what(self) -> str:
        return self.change.what


class History:
    """Undo and redo for a host [undo, redo: the thread that drives the comparison; the rest: any].

    Parameters
    ----------
    host : Host
        Its telemetry goes to `heard`.
    comparison : Comparison
        Its sides are told apart.
    """

    def __init__(self, host: Host, comparison: Comparison) -> None:
        self._host, self._comparison = host, comparison
        self._lock = threading.Lock()
        self._done: list[_Edit | _Filed] = []
        self._undone: list[_Edit | _Filed] = []
        self._now = sound_of(host)
        self._newest = host.serial
        comparison.moving = self._moving

    @property
    def state(self) -> dict[str, str]:
        """What would be undone and done again; empty for nothing."""
        with self._lock:
            found = {"undo": self._done, "redo": self._undone}
            return {name: entries[-1].what if entries else "" for name, entries in found.items()}

    # --- what is done ---

    def heard(self, record: Record) -> None:
        """Take a record of the host's telemetry."""
        if record.kind == events.APPLIED:
            name = self._host.name_of(record)
            if name and not name.startswith("host.") and record.b == self._host.serial:
                with self._lock:
                    self._changed(name, record.x, record.when)
        elif record.kind == events.SWAP_BEGUN and record.b > self._newest:  # one that was there before is recalled
            self._newest = record.b
            if self._comparison.brought(record.b):
                return
            sound = sound_of(self._host)
            with self._lock:
                before, self._now = self._now, sound
                if not (same_chain(before.preset, sound.preset) and before.values == sound.values):
                    self._add(_Edit(self._comparison.side, before, sound, set(), record.when))

    def did(self, change: Change, before: Preset, after: Preset) -> None:
        """Note a change of files; ``before`` and ``after`` are the preset that plays."""
        # What was turned before it is older, though it may be told of only now.
        self._host.catch_up()
        with self._lock:
            self._add(_Filed(change, before, after))

    def _changed(self, name: str, value: float, when: int) -> None:
        before = self._now
        if before.values.get(name) == value:
            return
        after = self._now = Sound(self._host.preset, {**before.values, name: value})
        last = self._done[-1] if self._done and not self._undone else None
        if isinstance(last, _Edit) and last.names and last.side == self._comparison.side:
            pause_s = (when - last.when) / self._host.sample_rate_hz
            if pause_s < (_PAUSE_S if name in last.names else _AT_ONCE_S):
                last.after, last.when = after, when
                last.names.add(name)
                if last.before.values == after.values:
                    self._done.pop()
                return
        self._add(_Edit(self._comparison.side, before, after, {name}, when))

    def _add(self, entry: _Edit | _Filed) -> None:
        self._done.append(entry)
        del self._done[:-MOST]
        self._undone.clear()

    def _moving(self, sound: Sound) -> None:
        """What comes is no edit: the other side, or something that is undone."""
        with self._lock:
            self._now = sound

    # --- and undone ---

    def undo(self) -> str:
        """Undo what was done last; returns what it was. `UsageError` if there is nothing, or it cannot be undone."""
        return self._go(self._done, self._undone, True)

    def redo(self) -> str:
        """Do what was undone last once more, on the same terms."""
        return self._go(self._undone, self._done, False)

    def _go(self, source: list[_Edit | _Filed], target: list[_Edit | _Filed], back: bool) -> str:
        # What has just been turned is to be known as an edit.
        self._host.catch_up()
        with self._lock:
            if not source:
                raise UsageError(f"there is nothing to {'undo' if back else 'do again'}")
            entry = source.pop()
        if isinstance(entry, _Edit):
            self._bring(entry, back)
        else:
            self._refile(entry, back)
        with self._lock:
            target.append(entry)
        return entry.what

    def _refile(self, entry: _Filed, back: bool) -> None:
        (entry.change.undo if back else entry.change.redo)()
        present, wanted = (entry.after, entry.before) if back else (entry.before, entry.after)
        if self._host.preset.path == present.path and same_chain(self._host.preset, wanted):
            self._host.adopt(wanted)

    def _bring(self, entry: _Edit, back: bool) -> None:
        sound = entry.before if back else entry.after
        if entry.names:
            # Values alone: the preset keeps the name and the file that it has by now.
            present = self._comparison.sound(entry.side).preset
            if same_chain(present, sound.preset):
                sound = Sound(present, sound.values)
        self._comparison.play(entry.side, sound)
