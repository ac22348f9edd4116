"""The set list: presets in the order of the evening, each with the MIDI program that calls it.

It lies in ``setlist.yaml`` of the configuration folder::

    schema: 1
    name: Tour
    presets:
    - clean                              # program 0, its place in the list
    - {preset: stage, program: 5, bank: 1}

Without that file the presets' own program numbers hold, in their order; presets without one follow by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rtgan import preset_text, presets
from rtgan.errors import RtganError, UsageError
from rtgan.preset_text import Reader
from rtgan.presets import LAST_BANK, LAST_PROGRAM, Preset

_SCHEMA = 1


@dataclass(frozen=True)
class Slot:
    """One place of a set list.

    Parameters
    ----------
    preset : str
        Name or path.
    program : int or None
        0 to 127; None for a preset that no program change calls.
    bank : int
        0 to 16383: bank select, coarse times 128 plus fine.
    """

    preset: str
    program: int | None = None
    bank: int = 0


@dataclass(frozen=True)
class SetList:
    """Presets in order.

    Parameters
    ----------
    slots : tuple of Slot
    name : str
    """

    slots: tuple[Slot, ...] = ()
    name: str = ""

    def called(self, program: int, bank: int = 0) -> str | None:
        """The preset that a program change calls, None for none."""
        return next((s.preset for s in self.slots if (s.program, s.bank) == (program, bank)), None)

    def step(self, current: Preset, by: int) -> str | None:
        """The preset so many places on, round the end; from outside the list its first or last."""
        if not self.slots:
            return None
        paths = [_path(s.preset) for s in self.slots]
        here = current.path.resolve() if current.path is not None else None
        if here not in paths:
            return self.slots[0 if by > 0 else -1].preset
        return self.slots[(paths.index(here) + by) % len(paths)].preset


def _path(name: str) -> Path | None:
    try:
        return presets.find(name).resolve()
    except RtganError:
        return None


def path() -> Path:
    """Where the set list lies."""
    return preset_text.config_folder() / "setlist.yaml"


def load() -> SetList:
    """The set list of the configuration folder, or the presets' own order.

    Raises
    ------
    UsageError
        With file and line, for a list that names no preset of ours or a program twice.
    """
    file = path()
    return parse(preset_text.read_text(file), str(file)) if file.exists() else automatic()


def automatic() -> SetList:
    """Presets by their own program numbers, then those without; the user's win over the factory's."""
    numbered: dict[tuple[int, int], tuple[int, str]] = {}
    others = []
    for name in presets.names():
        try:
            preset = presets.load(name, "never")
        except RtganError:
            continue
        key = (preset.bank, preset.program) if preset.program is not None else None
        rank = 0 if presets.find(name).parent == presets.user_folder() else 1
        if key is not None and (key not in numbered or rank < numbered[key][0]):
            if key in numbered:
                others.append(numbered[key][1])
            numbered[key] = (rank, name)
        else:
            others.append(name)
    slots = [Slot(numbered[key][1], key[1], key[0]) for key in sorted(numbered)]
    return SetList((*slots, *(Slot(name) for name in sorted(others))))


def parse(text: str, where: str = "setlist.yaml") -> SetList:
    """Read a set list; every preset it names must exist."""
    reader = Reader(where, "a set list")
    keys = ("schema", "name", "presets")
    top = reader.mapping(reader.compose(text), "the set list", ("schema", "presets"), keys)
    reader.whole(top["schema"], "schema", _SCHEMA, _SCHEMA)
    slots: list[Slot] = []
    for place, node in enumerate(reader.sequence(top["presets"], "presets")):
        slot = _slot(reader, node, place)
        for earlier in slots:
            if slot.program is not None and (earlier.program, earlier.bank) == (slot.program, slot.bank):
                bank = f" of bank {slot.bank}" if slot.bank else ""
                raise reader.error(node, f"program {slot.program}{bank} calls both {earlier.preset} and {slot.preset}")
        slots.append(slot)
    return SetList(tuple(slots), reader.text(top["name"], "name") if "name" in top else "")


def _slot(reader: Reader, node: yaml.Node, place: int) -> Slot:
    named = node
    program: int | None = place if place <= LAST_PROGRAM else None
    bank = 0
    if isinstance(node, yaml.MappingNode):
        fields = reader.mapping(node, "a place of the set list", ("preset",), ("preset", "program", "bank"))
        named = fields["preset"]
        if "program" in fields:
            # Nothing behind the colon: a preset that only "next" and "previous" reach.
            empty = reader.scalar(fields["program"]) is None
            program = None if empty else reader.whole(fields["program"], "program", 0, LAST_PROGRAM)
        bank = reader.whole(fields["bank"], "bank", 0, LAST_BANK) if "bank" in fields else 0
    name = reader.text(named, "preset")
    if presets.by_path(name):
        name = str((Path(reader.where).parent / Path(name).expanduser()).resolve())
    try:
        presets.find(name)
    except UsageError as problem:
        raise reader.error(named, str(problem)) from None
    return Slot(name, program, bank)


def dump(setlist: SetList) -> str:
    """The text of a set list; the same list always gives the same bytes."""
    rows: list[Any] = []
    for place, slot in enumerate(setlist.slots):
        if slot.bank == 0 and slot.program == (place if place <= LAST_PROGRAM else None):
            rows.append(slot.preset)
            continue
        row: dict[str, Any] = {"preset": slot.preset, "program": slot.program}
        rows.append(row | ({"bank": slot.bank} if slot.bank else {}))
    top: dict[str, Any] = {"schema": _SCHEMA}
    if setlist.name:
        top["name"] = setlist.name
    return preset_text.dump({**top, "presets": rows})


def save(setlist: SetList) -> None:
    """Write the set list, whole or not at all; `UsageError` if it would not be read back."""
    text = dump(setlist)
    parse(text, str(path()))
    preset_text.write_text(path(), text, "the set list")
