"""A preset's chain, changed: a plugin put in, taken out or moved. Pure functions; a host plays what comes of them.

Every plugin keeps its name, so that values, controls and snapshots still mean the same one; what speaks of a plugin
that is taken out goes with it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace

from rtgan.errors import UsageError
from rtgan.plugin import STRIP_PARTS, Plugin, plugin_class, plugin_ids
from rtgan.presets import MOST_PLUGINS, Entry, Preset, labels

#: What can be done to a chain.
CHANGES = ("add", "remove", "move")


def change(preset: Preset, what: str, name: str, position: int = 0) -> Preset:
    """The preset with another chain.

    Parameters
    ----------
    preset : Preset
    what : {"add", "remove", "move"}
    name : str
        Id of the plugin to put in; name in the chain of the one to take out or to move.
    position : int
        Where it is to stand, counted from 1; 0 for the end. Of no meaning where one is taken out.

    Raises
    ------
    UsageError
        If there is no such plugin, change or place.
    """
    named = list(zip(labels(preset.chain), preset.chain, strict=True))
    if what not in CHANGES:
        raise UsageError(f"a chain cannot be changed by '{what[:40]}'; allowed: {', '.join(CHANGES)}")
    if what == "add":
        if len(named) >= MOST_PLUGINS:
            raise UsageError(f"{preset.name} holds {MOST_PLUGINS} plugins already, which is the most")
        # By its id alone: a path would run what lies there.
        if name not in plugin_ids():
            raise UsageError(f"there is no plugin '{name[:40]}'; known are: {', '.join(plugin_ids())}")
        if not stands_alone(plugin_class(name)):
            raise UsageError(f"{name} needs a file or a model that only a preset can name")
        moved = (name, Entry(name))
    else:
        at = next((k for k, (label, _) in enumerate(named) if label == name), None)
        if at is None:
            known = ", ".join(label for label, _ in named) or "nothing"
            raise UsageError(f"there is no '{name[:40]}' in this chain; it holds: {known}")
        moved = named.pop(at)
        if moved[1].plugin in STRIP_PARTS:
            raise UsageError(f"{name} belongs to the strips of {preset.name} and stays where it is")
    if what == "remove":
        return _without(_holding(preset, named), name)
    if not 0 <= position <= len(named) + 1:
        raise UsageError(f"the position {position} is out of range; allowed: 1 to {len(named) + 1}, or 0 for the end")
    at = (position or len(named) + 1) - 1
    behind = named[at][1] if at < len(named) else Entry("")
    strip = behind.strip if what == "add" else moved[1].strip
    if behind.plugin == "mixer" or behind.strip != strip:
        raise UsageError(
            f"{name} cannot stand at {at + 1}: a plugin stays in its strip, and between strips and mixer there is none"
        )
    if what == "add":
        # Told from those that are there by a number behind its id.
        taken, plain, number = {label for label, _ in named}, f"{strip}-{name}" if strip else name, 2
        label = plain
        while label in taken:
            label, number = f"{plain}-{number}", number + 1
        moved = (label, replace(moved[1], strip=strip))
    named.insert(at, moved)
    return _holding(preset, named)


def stands_alone(plugin: type[Plugin]) -> bool:
    """Whether a plugin can be made without being told anything, such as a file."""
    known = inspect.signature(plugin).parameters.values()
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in known)


def _holding(preset: Preset, named: Sequence[tuple[str, Entry]]) -> Preset:
    """The preset with these plugins under these names, which are written down where they do not come by themselves."""
    wanted = [label for label, _ in named]
    chain = tuple(entry for _, entry in named)
    while (found := labels(chain)) != wanted:
        chain = tuple(
            entry if is_so == label else replace(entry, label=label.removeprefix(f"{entry.strip}-"))
            for entry, is_so, label in zip(chain, found, wanted, strict=True)
        )
    return replace(preset, chain=chain, edited=True)


def _without(preset: Preset, label: str) -> Preset:
    """The preset without what speaks of a plugin that is not there any more."""
    gone = f"{label}."
    bindings = (replace(b, targets=tuple(t for t in b.targets if not t.startswith(gone))) for b in preset.midi)
    snapshots = tuple(
        replace(s, values={k: v for k, v in s.values.items() if not k.startswith(gone)}) for s in preset.snapshots
    )
    rules = tuple(r for r in preset.rules if not r.when.startswith(gone) and not r.do.startswith(gone))
    return replace(preset, midi=tuple(b for b in bindings if b.targets), snapshots=snapshots, rules=rules)
