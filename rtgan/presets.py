"""Presets: a chain and its values in a YAML file, read strictly and written atomically.

A preset looks like this::

    schema: 2
    name: Clean
    description: A clean voice.
    program: 0
    chain:
    - plugin: highpass
      params: {cutoff_hz: 80}
    - plugin: denoise
      model: voice
      params: {amount_db: 30}
    midi:
    - {control: cc 74, target: denoise.amount_db, mode: pickup, range: [0, 40]}
    snapshots:
    - name: Quiet audience
      values: {denoise.amount_db: 12}
    rules:
    - {when: denoise.voice, below: 0.1, for_ms: 5000, do: host.mute, to: on, back: off}

Several microphones each have a strip, a chain of their own, in front of the chain that all are mixed to::

    strips:
    - name: anna
      input: 1
      params: {level_db: -2, duck_db: 12, priority: 4}
      chain:
      - plugin: denoise
    - {name: music, input: [3, 4], chain: []}
    mixer: {release_ms: 600}

In the chain as programs see it a strip is its plugins, which are called ``anna-denoise``, and its fader ``anna``;
behind all strips stands the ``mixer``.

Reading is all or nothing. What is not known or not allowed ends in one sentence with file, line and key. Files of
schema 1, which had neither programs, MIDI, snapshots nor hashes, are read as they are and written as schema 2.

A plugin that is a ``.py`` file is code. It runs only for a preset that is given by its path, or that holds the
file's SHA-256 (``plugin_sha256``, which saving writes); it never runs for a list, a check or a comparison. A model
file (``.ts``) may carry ``model_sha256``. A file that is not the one that the preset was made with is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from rtgan import preset_text
from rtgan.bindings import HOST_TARGETS, Binding, fields_of, read_bindings
from rtgan.errors import RtganError, UsageError
from rtgan.generators import library
from rtgan.generators.files import sha256_of
from rtgan.graph import ChainItem
from rtgan.params import Param, ParamSet
from rtgan.plugin import HOST_PARAMS, STRIP_PARTS, Plugin, all_params, plugin_class
from rtgan.preset_text import Lines, Reader, plain
from rtgan.rules import Rule, read_rules
from rtgan.rules import fields_of as rule_fields

SCHEMA = 2
FACTORY = Path(__file__).resolve().parent / "factory"
MOST_PLUGINS = 64
MOST_SNAPSHOTS = int(HOST_TARGETS["host.snapshot"].maximum)
CROSSFADE_MS = (5.0, 10000.0)
LAST_PROGRAM, LAST_BANK = 127, 16383
#: Places among the plugins that are left out while the machine cannot keep up.
MOST_SHED = 9
STRIPS = (2, 8)
LABEL = re.compile(r"[A-Za-z0-9]+([_-]?[A-Za-z0-9]+)*[_-]?")
_LONGEST_STEM = 100
#: Highest input of a strip.
LAST_INPUT = 64
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = {
    1: ("schema", "name", "description", "author", "tags", "chain"),
    2: ("schema", "name", "description", "author", "licence", "tags", "notes", "program", "bank", "crossfade_ms",
        "strips", "mixer", "chain", "midi", "snapshots", "morph", "rules"),
}  # fmt: skip
#: What else there is in a recording, or in a host, so that no strip can be called by it.
_TAKEN = ("host", "mixer", "dry")

#: Whether a preset's ``.py`` plugins may run: yes; if the preset holds their hash; no.
Code = Literal["run", "pinned", "never"]


@dataclass(frozen=True)
class Entry:
    """One plugin of a chain.

    Parameters
    ----------
    plugin : str
        Id, or path of a Python file.
    params : dict of str to float
        Plain values, the host's ``bypass`` and ``mix`` included.
    options : dict of str to str
        What else the plugin takes, such as the denoiser's ``model``.
    label : str
        Name in the chain; empty for the plugin's id.
    hashes : dict of str to str
        SHA-256 of the files it was made with: ``plugin`` for a Python file, else by option.
    shed : int or None
        Place among those that are left out while the machine cannot keep up, 0 for never; None for the plugin's own.
    strip : str
        The strip that it stands in; empty for the chain that all strips are mixed to.
    """

    plugin: str
    params: dict[str, float] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    label: str = ""
    hashes: dict[str, str] = field(default_factory=dict)
    shed: int | None = None
    strip: str = ""

    @property
    def inputs(self) -> tuple[int, ...]:
        """Of a fader: the inputs of its strip, from 1."""
        return tuple(int(c) for c in self.options["input"].split(",")) if self.plugin == "fader" else ()


@dataclass(frozen=True)
class Snapshot:
    """Values of a preset under a name; what it does not mention is as in the preset.

    Parameters
    ----------
    name : str
    values : dict of str to float
        Plain values by ``label.param``.
    """

    name: str
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """A named chain with its values and controls.

    Parameters
    ----------
    name : str
    chain : tuple of Entry
    description, author, licence, notes : str
        ``notes`` may have several lines.
    tags : tuple of str
    program : int or None
        MIDI program that calls it, 0 to 127, in ``bank``, 0 to 16383.
    crossfade_ms : float or None
        How long the sound fades over to it; None for the engine's choice.
    midi : tuple of Binding
    snapshots : tuple of Snapshot
    morph : str
        Name or path of the preset at the other end of the fader ``host.morph``; empty for none.
    rules : tuple of Rule
    path : Path or None
        The file it came from.
    trusted : bool
        Whether it was given by its path, so that code it names may run without a hash.
    edited : bool
        Whether its chain is not the one of its file any more.
    """

    name: str
    chain: tuple[Entry, ...] = ()
    description: str = ""
    author: str = ""
    tags: tuple[str, ...] = ()
    licence: str = ""
    notes: str = ""
    program: int | None = None
    bank: int = 0
    crossfade_ms: float | None = None
    midi: tuple[Binding, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    morph: str = ""
    rules: tuple[Rule, ...] = ()
    path: Path | None = field(default=None, compare=False)
    trusted: bool = field(default=False, compare=False)
    edited: bool = field(default=False, compare=False)

    def items(self) -> list[ChainItem]:
        """Fresh plugin instances for a `rtgan.graph.Graph` [main]; runs the code of ``.py`` plugins.

        Raises
        ------
        UsageError
            If a ``.py`` plugin is no longer the file that the preset was read with.
        """
        items = []
        for label, entry in zip(labels(self.chain), self.chain, strict=True):
            made = _class_of(entry.plugin, "run", expected=entry.hashes.get("plugin"))
            for option in set(made.required) & set(entry.hashes):
                if _hash_of(entry.options[option]) != entry.hashes[option]:
                    raise UsageError(f"{entry.options[option]} has changed since the preset was read; load it again")
            plugin = (made.variant(entry.options, load=True) or made)(**entry.options)
            if is_code(entry):
                notice = f"plugin {entry.plugin}, sha256 {_hash_of(entry.plugin)}"
                plugin.notice = f"{notice}; {plugin.notice}" if plugin.notice else notice
            items.append(ChainItem(plugin, dict(entry.params), label, entry.shed, entry.strip))
        return items

    @property
    def strips(self) -> dict[str, tuple[int, ...]]:
        """The inputs of each strip, from 1, by its name."""
        return {entry.strip: entry.inputs for entry in self.chain if entry.inputs}

    @property
    def inputs(self) -> int:
        """How many inputs its strips need; 0 without strips."""
        return max((max(inputs) for inputs in self.strips.values()), default=0)

    def declared(self) -> dict[str, Param]:
        """Every parameter by ``label.param``; those of code that has not run are missing but the host's own."""
        return {
            f"{label}.{param.id}": param
            for label, entry in zip(labels(self.chain), self.chain, strict=True)
            for param in declared(entry).values()
        }

    def values(self) -> dict[str, float]:
        """The value of every parameter by ``label.param``."""
        given = {
            f"{label}.{key}": value
            for label, entry in zip(labels(self.chain), self.chain, strict=True)
            for key, value in entry.params.items()
        }
        return {name: param.default for name, param in self.declared().items()} | given

    def with_values(self, values: Mapping[str, float]) -> Preset:
        """The same preset with other values, by ``label.param``; `UsageError` for what it has not."""
        known = self.declared()
        for name, value in values.items():
            if name not in known:
                raise UsageError(f"{self.name} has no parameter '{name}'; it has: {', '.join(known) or 'none'}")
            known[name].check(value, name)
        chain = []
        for label, entry in zip(labels(self.chain), self.chain, strict=True):
            mine = {key.removeprefix(f"{label}."): float(v) for key, v in values.items() if key.startswith(f"{label}.")}
            chain.append(replace(entry, params={**entry.params, **mine}))
        return replace(self, chain=tuple(chain))


# --- where they are ---------------------------------------------------------------------------------------


def user_folder() -> Path:
    """Where a user's own presets live; they come before factory presets of the same name."""
    return preset_text.config_folder() / "presets"


def folders() -> list[Path]:
    """Where presets are looked for, first match first."""
    return [user_folder(), FACTORY]


def names() -> list[str]:
    """Every preset that can be named."""
    return sorted(
        {p.stem for folder in folders() if folder.is_dir() for p in folder.glob("*.yaml") if p.name[0] != "."}
    )


def by_path(name: str) -> bool:
    """Whether a preset is asked for by its path and not by its name."""
    return name.endswith((".yaml", ".yml")) or os.sep in name or "/" in name


def find(name: str) -> Path:
    """The file of a preset, by name or path; `UsageError` if there is none."""
    if by_path(name):
        path = Path(name).expanduser()
        if path.is_dir():
            raise UsageError(f"the preset {path} is a folder, not a file")
        if not path.exists():
            raise UsageError(f"there is no preset file {path}")
        return path
    for folder in folders():
        path = folder / f"{name}.yaml"
        if path.is_file():
            return path
    raise UsageError(f"there is no preset '{name}'; known are: {', '.join(names())}")


def own_path(name: str) -> Path:
    """The file of a user's own preset that is called ``name``; `UsageError` if no file can be called by it."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not stem:
        raise UsageError(f"'{name}' holds no letter or digit that a file could be called by")
    if len(stem) > _LONGEST_STEM:
        raise UsageError(f"the name is too long; at most {_LONGEST_STEM} letters and digits are allowed")
    return user_folder() / f"{stem}.yaml"


def load(name: str, code: Code | None = None) -> Preset:
    """Read a preset by name or path.

    Parameters
    ----------
    name : str
    code : {"run", "pinned", "never"}, optional
        Whether ``.py`` plugins may run. Default: ``run`` by path, ``pinned`` by name.

    Raises
    ------
    UsageError
        No such preset, or what it says is not allowed; with file, line and key.
    """
    path = find(name)
    code = code or ("run" if by_path(name) else "pinned")
    return replace(parse(preset_text.read_text(path), str(path), path, code), trusted=code == "run")


# --- plugins of a chain -----------------------------------------------------------------------------------


class _NotRun(Exception):
    """The plugin is code that may not run, so that nothing is known of it."""


_ran: dict[tuple[str, str], type[Plugin]] = {}


def is_code(entry: Entry) -> bool:
    """Whether the plugin is a Python file, not an installed one."""
    return entry.plugin.endswith(".py")


def _hash_of(file: str) -> str:
    return sha256_of(Path(file).expanduser())


def _class_of(plugin: str, code: Code, pinned: bool = False, expected: str | None = None) -> type[Plugin]:
    """The class of a plugin; a Python file runs once for each of its contents. `_NotRun` if it may not run.

    A Python file whose SHA-256 is not the ``expected`` one is refused.
    """
    if not plugin.endswith(".py"):
        return plugin_class(plugin)
    if not Path(plugin).expanduser().is_file():
        raise UsageError(f"there is no plugin file {plugin}")
    key = (plugin, _hash_of(plugin))
    if expected not in (None, key[1]):
        raise UsageError(f"{plugin} has changed since the preset was read; load the preset again to play it")
    if key not in _ran:
        if code == "never" or (code == "pinned" and not pinned):
            raise _NotRun(plugin)
        _ran[key] = plugin_class(plugin)
    return _ran[key]


def _variant(cls: type[Plugin], options: Mapping[str, str], load: bool) -> type[Plugin]:
    """The class with what these options make of it; `_NotRun` where only loading a model would tell."""
    found = cls.variant(options, load)
    if found is None:
        raise _NotRun(cls.id)
    return found


def declared(entry: Entry) -> ParamSet:
    """The parameters of a chain's entry; of code that has not run, the host's own."""
    try:
        return all_params(_variant(_class_of(entry.plugin, "never"), entry.options, load=False))
    except _NotRun:
        return ParamSet(HOST_PARAMS)


def has_run(entry: Entry) -> bool:
    """Whether what the plugin declares is known: always but for code that has not run."""
    try:
        _variant(_class_of(entry.plugin, "never"), entry.options, load=False)
    except _NotRun:
        return False
    return True


def labels(chain: Sequence[Entry]) -> list[str]:
    """The name of every plugin in a chain, as `rtgan.graph.labelled` gives them."""
    taken: list[str] = []
    for entry in chain:
        try:
            wanted = entry.label or _class_of(entry.plugin, "never").id
        except _NotRun:
            wanted = Path(entry.plugin).stem
        if entry.strip:
            wanted = f"{entry.strip}-{wanted}" if not entry.inputs else entry.strip
        label, number = wanted, 2
        while label in taken:
            label = f"{wanted}-{number}"
            number += 1
        taken.append(label)
    return taken


# --- reading ----------------------------------------------------------------------------------------------


class _Anything(Mapping[str, Param]):
    """Targets where code has not run: whatever looks like one."""

    def __init__(self, known: Mapping[str, Param]) -> None:
        self._known = known

    def __getitem__(self, key: str) -> Param:
        if key in self._known:
            return self._known[key]
        if key.startswith("host.") or "." not in key:
            raise KeyError(key)
        return Param(key, key, -1e300, 1e300, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def parse(text: str, where: str = "preset", path: Path | None = None, code: Code = "pinned") -> Preset:
    """Read a preset from text; ``where`` names it in errors, ``path`` is what its files are relative to."""
    reader = Reader(where)
    root = reader.compose(text)
    loose = reader.mapping(root, "the preset", required=("schema",), allowed=None)
    schema = reader.scalar(loose["schema"])
    if isinstance(schema, bool) or not isinstance(schema, int) or schema not in _KEYS:
        raise reader.error(loose["schema"], f"schema is {schema!r}; this version of rtgan reads schema 1 and {SCHEMA}")
    top = reader.mapping(root, "the preset", required=("schema", "name", "chain"), allowed=_KEYS[schema])
    nodes, entries = _strips(reader, top, path, code, schema)
    own = reader.sequence(top["chain"], "chain", MOST_PLUGINS)
    nodes += own
    chain = (*entries, *(_entry(reader, node, path, code, schema) for node in own))
    if len(chain) > MOST_PLUGINS:
        raise reader.error(top["strips"], f"strips and chain hold {len(chain)} plugins; at most {MOST_PLUGINS}")
    given = [(e.strip, e.label) for e in chain if e.label]
    if len(set(given)) != len(given):
        raise reader.error(top["chain"], "two plugins of the chain carry the same label")
    for node, label in zip(nodes, labels(chain), strict=True):
        if label == "host":
            raise reader.error(node, "no plugin can be called 'host', the host's own name; give it another label")
    if "bank" in top and "program" not in top:
        raise reader.error(top["bank"], "bank needs a program beside it")

    def text_of(key: str) -> str:
        return reader.text(top[key], key, lines=key == "notes") if key in top else ""

    preset = Preset(
        name=text_of("name"),
        chain=chain,
        description=text_of("description"),
        author=text_of("author"),
        licence=text_of("licence"),
        notes=text_of("notes"),
        tags=tuple(reader.text(t, "a tag") for t in reader.sequence(top["tags"], "tags")) if "tags" in top else (),
        program=reader.whole(top["program"], "program", 0, LAST_PROGRAM) if "program" in top else None,
        bank=reader.whole(top["bank"], "bank", 0, LAST_BANK) if "bank" in top else 0,
        crossfade_ms=reader.number(top["crossfade_ms"], "crossfade_ms", *CROSSFADE_MS)
        if "crossfade_ms" in top
        else None,
        path=path,
    )
    known: Mapping[str, Param] = preset.declared()
    if not all(has_run(e) for e in chain):
        known = _Anything(known)
    whole = replace(
        preset,
        midi=read_bindings(reader, top["midi"], _targets(known)) if "midi" in top else (),
        snapshots=_snapshots(reader, top["snapshots"], known) if "snapshots" in top else (),
        morph=_partner(reader, top["morph"], path) if "morph" in top else "",
        rules=read_rules(
            reader, top["rules"], _targets(known), _readings(chain), lambda n: _partner(reader, n, path, "load")
        )
        if "rules" in top
        else (),
    )
    moved = {target for binding in whole.midi for target in binding.targets}
    for target, key, there in (("host.morph", "morph", whole.morph), ("host.snapshot", "snapshots", whole.snapshots)):
        if target in moved and not there:
            raise reader.error(top["midi"], f"a control moves {target}, but the preset has no {key}")
    most = len(whole.snapshots)
    for binding in whole.midi:
        if "host.snapshot" in binding.targets and most > 1 and (binding.high is None or binding.high > most):
            raise reader.error(
                top["midi"],
                f"{binding.control} moves host.snapshot past the last of {most} snapshots; write range: [1, {most}]",
            )
    return whole


def _strips(
    reader: Reader, top: Mapping[str, yaml.Node], path: Path | None, code: Code, schema: int
) -> tuple[list[yaml.Node], list[Entry]]:
    """The plugins of all strips, their faders and the mixer, and where each of them stands in the text."""
    if "strips" not in top:
        if "mixer" in top:
            raise reader.error(top["mixer"], "mixer needs strips beside it")
        return [], []
    least, most = STRIPS
    strips = reader.sequence(top["strips"], "strips", most)
    if len(strips) < least:
        raise reader.error(top["strips"], f"strips: from {least} to {most} are allowed, not {len(strips)}")
    nodes: list[yaml.Node] = []
    entries: list[Entry] = []
    for strip in strips:
        fields = reader.mapping(strip, "a strip", ("name", "input"), ("name", "input", "params", "chain"))
        name = reader.text(fields["name"], "name")
        if not LABEL.fullmatch(name) or name in _TAKEN:
            raise reader.error(
                fields["name"],
                f"the strip cannot be called '{name}'; letters, digits, - and single _ are allowed, "
                f"and no {' or '.join(_TAKEN)}",
            )
        if any(entry.strip == name for entry in entries):
            raise reader.error(fields["name"], f"two strips are called '{name}'")
        for node in reader.sequence(fields["chain"], "chain", MOST_PLUGINS) if "chain" in fields else ():
            nodes.append(node)
            entries.append(replace(_entry(reader, node, path, code, schema), strip=name))
        nodes.append(strip)
        entries.append(fader(name, _input(reader, fields["input"]), _params(
            reader, fields.get("params"), f"the strip {name}", plugin_class("fader")
        )))  # fmt: skip
    mixed = _params(reader, top.get("mixer"), "mixer", plugin_class("mixer"))
    return [*nodes, top["strips"]], [*entries, Entry("mixer", mixed)]


def _input(reader: Reader, node: yaml.Node) -> tuple[int, ...]:
    """One input of a strip, or a list of two."""
    given = reader.sequence(node, "input") if isinstance(node, yaml.SequenceNode) else [node]
    found = tuple(reader.whole(item, "input", 1, LAST_INPUT) for item in given)
    if not 1 <= len(found) <= 2 or len(set(found)) != len(found):
        raise reader.error(node, "input is a channel from 1, or a list of two different ones")
    return found


def fader(strip: str, inputs: Sequence[int], params: Mapping[str, float] | None = None) -> Entry:
    """The entry that ends a strip."""
    return Entry("fader", dict(params or {}), {"input": ",".join(map(str, inputs))}, strip=strip)


def inputs_of(text: str, where: str) -> tuple[int, ...]:
    """Inputs of a strip, from 1, out of ``3`` or ``3,4``; `UsageError` for anything else."""
    found = tuple(int(part) if part.isdecimal() else 0 for part in text.split(","))
    if len(found) > 2 or len(set(found)) != len(found) or not all(1 <= c <= LAST_INPUT for c in found):
        raise UsageError(f"{where}: '{text}' is no input; allowed: a channel from 1 to {LAST_INPUT}, or two as in 3,4")
    return found


def mono(preset: Preset) -> set[str]:
    """Labels of what stands in strips of one input."""
    one = {strip for strip, inputs in preset.strips.items() if len(inputs) == 1}
    return {label for label, entry in zip(labels(preset.chain), preset.chain, strict=True) if entry.strip in one}


def with_strips(preset: Preset, strips: Mapping[str, tuple[tuple[int, ...], Preset]]) -> Preset:
    """A preset whose microphones go through the chains of other presets, and are mixed to nothing else.

    Parameters
    ----------
    preset : Preset
        Gives it name and controls.
    strips : mapping of str to (inputs, Preset)
        By the strips' names; inputs count from 1.

    Raises
    ------
    UsageError
        If a name cannot be a strip's, or a preset has strips itself.
    """
    least, most = STRIPS
    if not least <= len(strips) <= most:
        raise UsageError(f"strips: from {least} to {most} are allowed, not {len(strips)}")
    entries: list[Entry] = []
    for name, (inputs, played) in strips.items():
        if not LABEL.fullmatch(name) or name in _TAKEN:
            raise UsageError(
                f"the strip cannot be called '{name}'; letters, digits, - and single _ are allowed, "
                f"and no {' or '.join(_TAKEN)}"
            )
        if played.strips:
            raise UsageError(f"{played.name} has strips of its own and cannot be the chain of one")
        entries += [*(replace(entry, strip=name) for entry in played.chain), fader(name, inputs)]
    if len(entries) >= MOST_PLUGINS:
        raise UsageError(f"the strips hold {len(entries)} plugins; at most {MOST_PLUGINS - 1} are allowed")
    return Preset(preset.name, (*entries, Entry("mixer")), preset.description, trusted=preset.trusted, edited=True)


def _readings(chain: Sequence[Entry]) -> dict[str, tuple[str, ...] | None]:
    """What can be read of the chain, by label."""
    found: dict[str, tuple[str, ...] | None] = {}
    for label, entry in zip(labels(chain), chain, strict=True):
        try:
            found[label] = _class_of(entry.plugin, "never").reading_names(entry.options)
        except _NotRun:
            found[label] = None
    return found


def _partner(reader: Reader, node: yaml.Node, path: Path | None, key: str = "morph") -> str:
    """A preset to go to; that it exists can be said only where the text lies in a file."""
    name = reader.text(node, key)
    if path is None:
        return name
    if by_path(name):
        name = _beside(reader, node, name, path)
    try:
        find(name)
    except UsageError as problem:
        raise reader.error(node, str(problem)) from None
    return name


def _targets(known: Mapping[str, Param]) -> Mapping[str, Param]:
    every = {**known, **HOST_TARGETS}
    return _Anything(every) if isinstance(known, _Anything) else every


def _entry(reader: Reader, node: yaml.Node, path: Path | None, code: Code, schema: int) -> Entry:
    loose = reader.mapping(node, "a plugin of the chain", required=("plugin",), allowed=None)
    name = reader.text(loose["plugin"], "plugin")
    hashes: dict[str, str] = {}
    if name in STRIP_PARTS:
        raise reader.error(loose["plugin"], f"a {name} comes with strips; no chain can name it")
    if name.endswith(".py"):
        name = _beside(reader, loose["plugin"], name, path)
    cls: type[Plugin] | None = None
    try:
        if name.endswith(".py") and Path(name).is_file():
            hashes["plugin"] = _checked(reader, loose.get("plugin_sha256"), name)
        cls = _class_of(name, code, "plugin_sha256" in loose)
    except _NotRun:
        if code == "pinned":
            raise reader.error(
                loose["plugin"],
                f"{name} is code, and runs only for a preset that is given by its path or says "
                f"plugin_sha256: {hashes['plugin']}",
            ) from None
    except RtganError as problem:
        if str(problem).startswith(reader.where):
            raise
        raise type(problem)(f"{reader.at(loose['plugin'])}: {problem}") from None
    own = {"plugin", "params", "label", "shed"}
    allowed = set(own)
    if cls is None:
        allowed |= {key for key in loose if schema > 1 or not key.endswith("_sha256")}
        options = sorted(set(loose) - own - {k for k in loose if k.endswith("_sha256")})
    else:
        options = sorted({*cls.options, *cls.settings})
        allowed |= {*cls.options, *cls.settings}
        if schema > 1:
            allowed |= {f"{option}_sha256" for option in cls.options} | ({"plugin_sha256"} if hashes else set())
    needed = ("plugin", *(cls.required if cls is not None else ()))
    fields = reader.mapping(node, f"the entry of {name}", required=needed, allowed=tuple(sorted(allowed)))
    values = {key: _option(reader, fields, key, path, cls, hashes) for key in options if key in fields}
    if cls is not None:
        cls = _loaded(reader, node, cls, values, code, f"{cls.required[0]}_sha256" in fields if cls.required else True)
    for key in fields:
        if key.endswith("_sha256") and key.removesuffix("_sha256") not in hashes:
            raise reader.error(fields[key], f"{key} stands where there is no file that it could be of")
    label = reader.text(fields["label"], "label") if "label" in fields else ""
    if label and not LABEL.fullmatch(label):
        raise reader.error(fields["label"], f"the label '{label}' may hold letters, digits, - and single _ only")
    shed = _shed(reader, fields["shed"]) if "shed" in fields else None
    return Entry(name, _params(reader, fields.get("params"), name, cls), values, label, hashes, shed)


def _shed(reader: Reader, node: yaml.Node) -> int:
    if reader.scalar(node) == "never":
        return 0
    try:
        return reader.whole(node, "shed", 1, MOST_SHED)
    except UsageError:
        raise reader.error(node, f"shed is 'never' or a place from 1, which goes first, to {MOST_SHED}") from None


def _loaded(
    reader: Reader, node: yaml.Node, cls: type[Plugin], options: Mapping[str, str], code: Code, pinned: bool
) -> type[Plugin] | None:
    """The class as its options make it; None where a model is not known and may not be loaded."""
    try:
        return _variant(cls, options, load=code == "run" or (code == "pinned" and pinned))
    except _NotRun:
        if code == "never":
            return None
        raise reader.error(
            node,
            f"{options['model']} is code: it is loaded only for a preset given by its path, or with the file's hash",
        ) from None
    except RtganError as problem:
        raise type(problem)(f"{reader.at(node)}: {problem}") from None


def _params(reader: Reader, node: yaml.Node | None, name: str, cls: type[Plugin] | None) -> dict[str, float]:
    if node is None:
        return {}
    known = all_params(cls) if cls is not None else ParamSet(HOST_PARAMS)
    allowed = tuple(known) if cls is not None else None
    given = reader.mapping(node, f"params of {name}", required=(), allowed=allowed)
    params = {}
    for key, value in given.items():
        # Of code that has not run only this much is known: its values are numbers.
        param = known[key] if key in known else Param(key, key, -1e300, 1e300, 0)
        switch = key not in known and isinstance(reader.scalar(value), bool)
        params[key] = float(reader.scalar(value)) if switch else reader.value(value, param, f"{name}.{key}")
    return params


def _option(
    reader: Reader, fields: Mapping[str, yaml.Node], key: str, path: Path | None, cls: type[Plugin] | None,
    hashes: dict[str, str],
) -> str:  # fmt: skip
    """An option's value; a file gets its whole path, and its hash is checked and noted."""
    if cls is not None and key in cls.settings:
        return f"{reader.value(fields[key], cls.settings[key], key):g}"
    value = reader.text(fields[key], key)
    node = fields.get(f"{key}_sha256")
    if value.endswith(library.MODEL_SUFFIXES):
        file = _beside(reader, fields[key], value, path)
        if not Path(file).is_file():
            raise reader.error(fields[key], f"there is no model file {value}")
        hashes[key] = _checked(reader, node, file)
        return file
    if key == "model" and cls is not None and cls.__module__.startswith("rtgan."):
        shipped = library.find(value) if value in library.names() else None
        if shipped is None:
            known = ", ".join(library.names())
            raise reader.error(
                fields[key], f"there is no model '{value[:60]}'; allowed are a .ts file and the shipped {known}"
            )
        if node is not None:
            hashes[key] = _checked(reader, node, str(shipped))
    return value


def _checked(reader: Reader, node: yaml.Node | None, file: str) -> str:
    """The SHA-256 of a file, compared with what the preset says of it."""
    found = _hash_of(file)
    if node is not None:
        # As it stands there: digits alone would be read as a number.
        wanted = str(node.value)
        if not isinstance(node, yaml.ScalarNode) or not _SHA256.fullmatch(wanted):
            raise reader.error(node, "a SHA-256 has 64 digits from 0 to f, in small letters")
        if wanted != found:
            raise reader.error(
                node,
                f"{file} is not the file that this preset was made with: its SHA-256 is {found}, not {wanted}",
            )
    return found


def _beside(reader: Reader, node: yaml.Node, value: str, path: Path | None) -> str:
    """The whole path of a file that a preset names: relative to the preset, or else to the present folder."""
    try:
        given = Path(value).expanduser()
        if path is not None and (path.parent / given).is_file():
            given = path.parent / given
        whole = given.resolve()
        whole.exists()  # raises where no file can have this name
        return str(whole)
    except (OSError, RuntimeError, ValueError) as problem:
        # A home of somebody whom this machine does not know, or a name that no file can have.
        why = getattr(problem, "strerror", None) or str(problem)
        raise reader.error(node, f"'{value[:60]}' cannot be the name of a file: {why}") from None


def _snapshots(reader: Reader, node: yaml.Node, known: Mapping[str, Param]) -> tuple[Snapshot, ...]:
    found: list[Snapshot] = []
    for item in reader.sequence(node, "snapshots", MOST_SNAPSHOTS):
        fields = reader.mapping(item, "a snapshot", ("name", "values"), ("name", "values"))
        name = reader.text(fields["name"], "name")
        if any(s.name == name for s in found):
            raise reader.error(fields["name"], f"two snapshots are called '{name}'")
        values = {}
        for key, value in reader.mapping(fields["values"], f"the snapshot {name}", (), None).items():
            if key not in known:
                names = ", ".join(known) or "none"
                raise reader.error(value, f"the chain has no parameter '{key[:60]}'; it has: {names}")
            values[key] = reader.value(value, known[key], key)
        found.append(Snapshot(name, values))
    return tuple(found)


# --- writing ----------------------------------------------------------------------------------------------


def dump(preset: Preset, folder: Path | None = None) -> str:
    """The text of a preset; the same preset always gives the same bytes.

    Files within ``folder``, where the text will lie, are named relative to it.
    """
    top: dict[str, Any] = {"schema": SCHEMA, "name": preset.name}
    for key in ("description", "author", "licence"):
        if getattr(preset, key):
            top[key] = getattr(preset, key)
    if preset.tags:
        top["tags"] = list(preset.tags)
    if preset.notes:
        top["notes"] = preset.notes
    if preset.program is not None:
        top["program"] = preset.program
        if preset.bank:
            top["bank"] = preset.bank
    if preset.crossfade_ms is not None:
        top["crossfade_ms"] = plain(preset.crossfade_ms)
    if preset.strips:
        top["strips"] = [_strip_fields(preset, entry, folder) for entry in preset.chain if entry.inputs]
        mixed = next(entry for entry in preset.chain if entry.plugin == "mixer")
        if mixed.params:
            top["mixer"] = _plain_values(mixed.params, declared(mixed))
    own = (entry for entry in preset.chain if not entry.strip and entry.plugin not in STRIP_PARTS)
    top["chain"] = [_entry_fields(entry, folder) for entry in own]
    if preset.midi:
        top["midi"] = [fields_of(b) for b in preset.midi]
    if preset.snapshots:
        known = preset.declared()
        top["snapshots"] = [Lines(name=s.name, values=_plain_values(s.values, known)) for s in preset.snapshots]
    if preset.morph:
        top["morph"] = _within(preset.morph, folder)
    if preset.rules:
        known = preset.declared()
        top["rules"] = [rule_fields(replace(r, load=_within(r.load, folder)), known) for r in preset.rules]
    return preset_text.dump(top)


def _strip_fields(preset: Preset, ending: Entry, folder: Path | None) -> dict[str, Any]:
    inputs = list(ending.inputs)
    fields: dict[str, Any] = {"name": ending.strip, "input": inputs if len(inputs) > 1 else inputs[0]}
    if ending.params:
        fields["params"] = _plain_values(ending.params, declared(ending))
    inside = (entry for entry in preset.chain if entry.strip == ending.strip and entry is not ending)
    return Lines({**fields, "chain": [_entry_fields(entry, folder) for entry in inside]})


def _entry_fields(entry: Entry, folder: Path | None) -> Lines:
    fields = Lines(plugin=_within(entry.plugin, folder) if is_code(entry) else entry.plugin)
    if "plugin" in entry.hashes:
        fields["plugin_sha256"] = entry.hashes["plugin"]
    if entry.label:
        fields["label"] = entry.label
    if entry.shed is not None:
        fields["shed"] = entry.shed or "never"
    for key, value in sorted(entry.options.items()):
        fields[key] = _within(value, folder) if key in entry.hashes else _written(entry, key, value)
        if key in entry.hashes:
            fields[f"{key}_sha256"] = entry.hashes[key]
    params = _plain_values(entry.params, declared(entry))
    if params:
        fields["params"] = params
    return fields


def _written(entry: Entry, key: str, value: str) -> Any:
    """An option as it stands in a file: a setting is a number."""
    setting = not is_code(entry) and key in plugin_class(entry.plugin).settings
    return plain(float(value)) if setting else value


def _plain_values(values: Mapping[str, float], known: Mapping[str, Param]) -> dict[str, Any]:
    """Values in the order of their declaration; switches as such."""
    order = [*(name for name in known if name in values), *sorted(set(values) - set(known))]
    switches = {name for name in order if name in known and known[name].scale == "switch"}
    return {n: bool(values[n]) if n in switches and values[n] in (0, 1) else plain(values[n]) for n in order}


def _within(file: str, folder: Path | None) -> str:
    path = Path(file)
    if folder is not None and path.is_absolute() and path.is_relative_to(folder.resolve()):
        return path.relative_to(folder.resolve()).as_posix()
    return file


def of_model(file: str) -> Preset:
    """A preset that plays a model file and nothing else; loads it [main].

    Raises
    ------
    UsageError, RtganError
        If it cannot be played.
    """
    path = Path(file).expanduser()
    if path.is_dir() or not path.exists():
        raise UsageError(f"there is no model file {file}")
    entry = Entry("model", options={"model": str(path.resolve())}, hashes={"model": _hash_of(str(path))})
    plugin_class("model").variant(entry.options, load=True)
    return Preset(path.stem, (entry,), description=f"The model {path.name}.", trusted=True)


def save(preset: Preset, path: Path) -> None:
    """Write a preset so that a crash leaves either the old file or the new one.

    Raises
    ------
    UsageError
        If the preset would not be read back; nothing is written.
    """
    text = dump(preset, path.parent)
    parse(text, str(path), path, "never")
    preset_text.write_text(path, text, "the preset")
