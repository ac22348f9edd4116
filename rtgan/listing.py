"""``rtgan devices``, ``rtgan presets`` and ``rtgan info``: what there is.

Nothing here runs the code of a preset: a plugin that is a ``.py`` file is named and not looked into.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rtgan.errors import RtganError, UsageError

if TYPE_CHECKING:
    from rtgan.presets import Entry, Preset

_PLAIN_FIELDS = (
    "name", "description", "author", "licence", "tags", "notes", "program", "bank", "crossfade_ms", "morph",
)  # fmt: skip


def devices(args: argparse.Namespace) -> int:
    """Print every audio device."""
    from rtgan.io import devices as io_devices

    found = io_devices.devices()
    if args.json:
        print(json.dumps([asdict(device) for device in found]))
        return 0
    if not found:
        print("no audio devices; `rtgan live` plays a built-in recording instead")
    for device in found:
        print(device.describe())
    return 0


def info(args: argparse.Namespace) -> int:
    """Print the card of a model or a preset, by path or by name."""
    from rtgan import model_check
    from rtgan import presets as files
    from rtgan.generators import library

    name = str(args.file)
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or (not path.exists() and name in files.names()):
        return _show(name)
    model = library.find(name)
    if model is None:
        known = ", ".join([*files.names(), *library.names()])
        raise UsageError(f"there is no file, preset or model '{name}'; known are: {known}")
    print(model_check.describe(model))
    return 0


# --- presets ----------------------------------------------------------------------------------------------


def add_preset_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rtgan presets``."""
    commands = parser.add_subparsers(dest="presets_command", metavar="COMMAND", parser_class=type(parser))
    listed = commands.add_parser("list", help="every preset (what plain `rtgan presets` does)")
    listed.add_argument("--tag", help="only those with this tag")
    show = commands.add_parser("show", help="one preset: values, ranges, controls, snapshots")
    show.add_argument("preset", metavar="NAME|PATH")
    show.add_argument("--yaml", action="store_true", help="as the file that saving would write")
    check = commands.add_parser("check", help="say of presets whether they are valid; runs none of their code")
    check.add_argument("presets", nargs="*", metavar="NAME|PATH", help="default: all, the set list and the MIDI map")
    new = commands.add_parser("new", help="begin a preset of your own")
    new.add_argument("name", metavar="NAME", help="what you call it; the file's name is made of it")
    new.add_argument("--from", dest="source", default="clean", metavar="NAME|PATH", help="default: clean")
    new.add_argument("--set", action="append", default=[], metavar="PLUGIN.PARAM=VALUE", help="repeatable")
    rename = commands.add_parser("rename", help="call a preset of your own by another name; what leads to it follows")
    rename.add_argument("name", metavar="NAME")
    rename.add_argument("new", metavar="NEW", help="what you call it; the file's name is made of it")
    commands.add_parser("delete", help="delete a preset of your own").add_argument("name", metavar="NAME")
    diff = commands.add_parser("diff", help="what two presets do differently; exit code 1 if anything")
    diff.add_argument("a", metavar="NAME|PATH")
    diff.add_argument("b", metavar="NAME|PATH")
    commands.add_parser("schema", help="JSON Schema of presets, for editors")


def presets(args: argparse.Namespace) -> int:
    """``rtgan presets``."""
    command = getattr(args, "presets_command", None) or "list"
    runs: dict[str, Callable[[], int]] = {
        "list": lambda: _list(getattr(args, "tag", None)),
        "show": lambda: _show(args.preset, args.yaml),
        "check": lambda: _check(args.presets),
        "new": lambda: _new(args.name, args.source, args.set),
        "rename": lambda: _rename(args.name, args.new),
        "delete": lambda: _delete(args.name),
        "diff": lambda: _diff(args.a, args.b),
        "schema": _schema,
    }
    return runs[command]()


def _list(tag: str | None) -> int:
    from rtgan import presets as files

    broken = 0
    for name in files.names():
        try:
            preset = files.load(name, "never")
        except RtganError as problem:
            print(f"{name:16} cannot be loaded: {problem}")
            broken += 1
            continue
        if tag is not None and tag not in preset.tags:
            continue
        chain = " > ".join(files.labels(preset.chain)) or "(nothing)"
        mine = files.find(name).parent == files.user_folder()
        notes = [_program(preset), "yours" if mine else ""]
        said = ", ".join(n for n in notes if n)
        print(f"{name:16} {chain}{f'  ({said})' if said else ''}")
        print(f"{'':16} {preset.description or preset.name}")
    return 1 if broken else 0


def _program(preset: Preset) -> str:
    if preset.program is None:
        return ""
    return f"program {preset.program}" + (f" of bank {preset.bank}" if preset.bank else "")


def _show(name: str, as_yaml: bool = False) -> int:
    from rtgan import presets as files
    from rtgan import rules

    preset = files.load(name, "never")
    if as_yaml:
        print(files.dump(preset, preset.path.parent if preset.path else None), end="")
        return 0
    print(f"{preset.name}: {preset.description}" if preset.description else preset.name)
    if preset.author or preset.licence:
        print(", ".join(t for t in (f"by {preset.author}" if preset.author else "", preset.licence) if t))
    if preset.tags:
        print(f"tags: {', '.join(preset.tags)}")
    crossfade = f"fades in over {preset.crossfade_ms:g} ms" if preset.crossfade_ms is not None else ""
    fader = f"morphs to {preset.morph}" if preset.morph else ""
    for line in (_program(preset), crossfade, fader, f"file: {preset.path}", preset.notes.rstrip()):
        if line:
            print(line)
    for label, entry in zip(files.labels(preset.chain), preset.chain, strict=True):
        _show_entry(label, entry)
    declared = preset.declared()
    if preset.midi:
        print("\nMIDI")
    for binding in preset.midi:
        print(f"  {binding.control} -> {', '.join(binding.targets)}  ({_manner(binding)})")
    if preset.rules:
        print("\nrules")
    for rule in preset.rules:
        print(f"  {_flat(json.dumps(rules.fields_of(rule, declared)))}")
    for number, snapshot in enumerate(preset.snapshots, 1):
        print(f"\nsnapshot {number}: {snapshot.name}")
        for key, value in snapshot.values.items():
            print(f"  {key} = {declared[key].text(value) if key in declared else f'{value:g}'}")
    return 0


def _show_entry(label: str, entry: Entry) -> None:
    from rtgan import presets as files
    from rtgan.plugin import plugin_class

    what = "code, which has not been run"
    if files.has_run(entry) or not files.is_code(entry):
        what = plugin_class(entry.plugin).description
    print(f"\n{label}: {what}")
    if files.is_code(entry):
        print(f"  {entry.plugin}, sha256 {entry.hashes['plugin']}")
    for key, text in entry.options.items():
        print(f"  {key} = {text}" + (f", sha256 {entry.hashes[key]}" if key in entry.hashes else ""))
    declared = files.declared(entry)
    for key in [*declared, *(k for k in entry.params if k not in declared)]:
        if key not in declared:
            print(f"  {key} = {entry.params[key]:g}   (not checked)")
            continue
        param = declared[key]
        value = param.text(entry.params.get(key, param.default))
        print(f"  {key} = {value}   ({param.allowed}; {param.description})")


def _manner(binding: object) -> str:
    from rtgan.bindings import Binding, default_mode

    assert isinstance(binding, Binding)
    said: list[str] = [binding.mode if binding.mode != default_mode(binding.control.kind) else ""]
    said.append(f"{binding.low:g} to {binding.high:g}" if binding.low is not None and binding.high is not None else "")
    said.append(f"curve {binding.curve:g}" if binding.curve != 1 else "")
    said.append("inverted" if binding.invert else "")
    said.append(f"over {binding.smoothing_ms:g} ms" if binding.smoothing_ms else "")
    return ", ".join(s for s in said if s) or default_mode(binding.control.kind)


def _check(given: list[str]) -> int:
    from rtgan import bindings, setlist
    from rtgan import presets as files

    wrong = 0
    programs: dict[tuple[int, int, bool], str] = {}
    for name in given or files.names():
        try:
            preset = files.load(name, "never")
            note = ""
            code = [e.plugin for e in preset.chain if not files.has_run(e)]
            if code:
                note = f", but for the values of {', '.join(code)}, which is code and was not run"
            if preset.program is not None and not given:
                mine = preset.path is not None and preset.path.parent == files.user_folder()
                key = (preset.bank, preset.program, mine)
                if key in programs:
                    raise UsageError(f"{_program(preset)} calls {programs[key]} already")
                programs[key] = name
            print(f"{name}: valid{note}")
        except RtganError as problem:
            wrong += 1
            print(f"{name}: {problem}")
    others: list[tuple[Path, Callable[[], object]]] = [
        (setlist.path(), setlist.load),
        (bindings.map_path(), bindings.load_map),
    ]
    for path, read in others:
        if given or not path.exists():
            continue
        try:
            read()
            print(f"{path.name}: valid")
        except RtganError as problem:
            wrong += 1
            print(f"{path.name}: {problem}")
    return 1 if wrong else 0


def _new(name: str, source: str, pairs: list[str]) -> int:
    from dataclasses import replace

    from rtgan import offline
    from rtgan import presets as files

    path = files.own_path(name)
    if path.exists():
        raise UsageError(f"there is a preset {path} already")
    base = files.load(source, "never")
    values = {}
    known = base.declared()
    for key, text in offline.parse_settings(pairs).items():
        if key not in known:
            raise UsageError(f"{base.name} has no parameter '{key}'; it has: {', '.join(known) or 'none'}")
        values[key] = known[key].check(text, key)
    # The number calls the preset that this one comes from.
    fresh = replace(base, name=name, author="", program=None, bank=0, path=path).with_values(values)
    if fresh.morph and files.by_path(fresh.morph):
        fresh = replace(fresh, morph=str(Path(fresh.morph).resolve()))
    files.save(fresh, path)
    _say_where(path)
    return 0


def _say_where(path: Path) -> None:
    from rtgan import preset_files

    print(f"{path}")
    if preset_files.stands_in_front(path):
        print("It stands in front of the factory preset of the same name; delete it to have that back.")


def _rename(name: str, new: str) -> int:
    from rtgan import preset_files

    _, preset = preset_files.rename(name, new)
    assert preset.path is not None
    _say_where(preset.path)
    return 0


def _delete(name: str) -> int:
    from rtgan import preset_files

    path = preset_files.own_file(name)
    back = preset_files.stands_in_front(path)
    preset_files.delete(name)
    print(f"{path} is deleted{'; the factory preset of the same name is back' if back else ''}")
    return 0


def _diff(first: str, second: str) -> int:
    from rtgan import presets as files

    a, b = files.load(first, "never"), files.load(second, "never")
    lines = differences(a, b)
    for line in lines:
        print(line)
    if not lines:
        print("no difference")
    return 1 if lines else 0


def differences(a: Preset, b: Preset) -> list[str]:
    """What one preset does differently from another, a line each; empty if they are equal."""
    from rtgan import bindings, rules
    from rtgan import presets as files

    lines = []
    for key in (
        "name",
        "description",
        "author",
        "licence",
        "tags",
        "notes",
        "program",
        "bank",
        "crossfade_ms",
        "morph",
    ):
        before, after = getattr(a, key), getattr(b, key)
        if before != after:
            lines.append(f"{key}: {_said(before)} -> {_said(after)}")
    chains = [dict(zip(files.labels(p.chain), p.chain, strict=True)) for p in (a, b)]
    if list(chains[0]) != list(chains[1]):
        lines.append("chain: " + " -> ".join(" > ".join(c) or "nothing" for c in chains))
    values, declared = (a.values(), b.values()), (a.declared(), b.declared())
    for label, entry in chains[0].items():
        other = chains[1].get(label)
        if other is None:
            continue
        if entry.plugin != other.plugin:
            lines.append(f"{label}: {entry.plugin} -> {other.plugin}")
            continue
        if entry.shed != other.shed:
            lines.append(f"{label}.shed: {_shed(entry.shed)} -> {_shed(other.shed)}")
        for kind in ("options", "hashes"):
            before, after = getattr(entry, kind), getattr(other, kind)
            name = "" if kind == "options" else " sha256"
            for key in sorted({*before, *after}):
                if before.get(key) != after.get(key):
                    lines.append(f"{label}.{key}{name}: {_said(before.get(key))} -> {_said(after.get(key))}")
        for name in values[0]:
            if name.startswith(f"{label}.") and values[0][name] != values[1].get(name):
                said = [
                    d[name].text(v[name]) if name in d else _said(v.get(name))
                    for v, d in zip(values, declared, strict=True)
                ]
                lines.append(f"{name}: {said[0]} -> {said[1]}")
    controls = [[json.dumps(bindings.fields_of(x)) for x in p.midi] for p in (a, b)]
    lines += [f"midi: only in {a.name}: {_flat(x)}" for x in controls[0] if x not in controls[1]]
    lines += [f"midi: only in {b.name}: {_flat(x)}" for x in controls[1] if x not in controls[0]]
    reflexes = [[json.dumps(rules.fields_of(x, p.declared())) for x in p.rules] for p in (a, b)]
    lines += [f"rules: only in {a.name}: {_flat(x)}" for x in reflexes[0] if x not in reflexes[1]]
    lines += [f"rules: only in {b.name}: {_flat(x)}" for x in reflexes[1] if x not in reflexes[0]]
    kept = [{s.name: s.values for s in p.snapshots} for p in (a, b)]
    for snapshot in dict.fromkeys([*kept[0], *kept[1]]):
        before, after = kept[0].get(snapshot), kept[1].get(snapshot)
        if before is None or after is None:
            lines.append(f"snapshot {snapshot}: only in {a.name if after is None else b.name}")
        elif before != after:
            lines.append(f"snapshot {snapshot}: {_said(before)} -> {_said(after)}")
    if set(kept[0]) == set(kept[1]) and [*kept[0]] != [*kept[1]]:
        lines.append(f"snapshots: {', '.join(kept[0])} -> {', '.join(kept[1])}")
    return lines


def _shed(place: int | None) -> str:
    return "the plugin's own" if place is None else str(place or "never")


def _said(value: object) -> str:
    if value is None or value in ("", ()):
        return "nothing"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v:g}" for k, v in value.items()) or "nothing"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())


def _flat(fields: str) -> str:
    return fields.replace('"', "").strip("{}")


def _schema() -> int:
    from rtgan import preset_schema

    print(json.dumps(preset_schema.schema(), indent=2))
    return 0
