"""Presets: a chain and its values in a YAML file, read strictly and written atomically.

A preset looks like this::

    schema: 1
    name: Podcast
    description: A clean voice.
    chain:
      - plugin: highpass
        params: {cutoff_hz: 80}
      - plugin: denoise
        model: denoise-podcast
        params: {amount_db: 30}

Reading is all or nothing. What is not known or not allowed ends in one sentence with file, line and key.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rtgan.errors import RtganError, UsageError
from rtgan.graph import ChainItem
from rtgan.plugin import Plugin, all_params, plugin_class

SCHEMA = 1
FACTORY = Path(__file__).resolve().parent / "factory"
_LARGEST_FILE = 1 << 20
_DEEPEST = 8
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


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
    """

    plugin: str
    params: dict[str, float] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    label: str = ""


@dataclass(frozen=True)
class Preset:
    """A named chain with its values."""

    name: str
    chain: tuple[Entry, ...] = ()
    description: str = ""
    author: str = ""
    tags: tuple[str, ...] = ()
    path: Path | None = field(default=None, compare=False)

    def items(self) -> list[ChainItem]:
        """Fresh plugin instances for a `rtgan.graph.Graph` [main]."""
        return [ChainItem(plugin_class(e.plugin)(**e.options), dict(e.params), e.label) for e in self.chain]


def user_folder() -> Path:
    """Where a user's own presets live; they come before factory presets of the same name."""
    import platformdirs

    override = os.environ.get("RTGAN_CONFIG_DIR")
    root = Path(override) if override else Path(platformdirs.user_config_dir("rtgan", appauthor=False))
    return root / "presets"


def folders() -> list[Path]:
    """Where presets are looked for, first match first."""
    return [user_folder(), FACTORY]


def names() -> list[str]:
    """Every preset that can be named."""
    return sorted({p.stem for folder in folders() if folder.is_dir() for p in folder.glob("*.yaml")})


def find(name: str) -> Path:
    """The file of a preset, by name or path; `UsageError` if there is none."""
    if name.endswith((".yaml", ".yml")) or os.sep in name or "/" in name:
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


def load(name: str) -> Preset:
    """Read a preset by name or path.

    Raises
    ------
    UsageError
        No such preset, or what it says is not allowed; with file, line and key.
    """
    path = find(name)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UsageError(f"{path}: larger than 1 MiB, which no preset is")
        text = path.read_bytes().decode("utf-8")
    except OSError as problem:
        raise RtganError(f"{path} cannot be read: {problem.strerror}") from problem
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a text file in UTF-8") from None
    return parse(text, str(path), path)


def parse(text: str, where: str = "preset", path: Path | None = None) -> Preset:
    """Read a preset from text; ``where`` names it in errors."""
    reader = _Reader(where)
    root = reader.compose(text)
    top = reader.mapping(root, "the preset", required=("schema", "name", "chain"),
                         allowed=("schema", "name", "description", "author", "tags", "chain"))  # fmt: skip
    schema = reader.scalar(top["schema"])
    if schema != SCHEMA or isinstance(schema, bool):
        raise reader.error(top["schema"], f"schema is {schema!r}; this version of rtgan reads schema {SCHEMA}")
    entries = tuple(_entry(reader, node, path) for node in reader.sequence(top["chain"], "chain"))
    preset = Preset(
        name=reader.text(top["name"], "name"),
        chain=entries,
        description=reader.text(top["description"], "description") if "description" in top else "",
        author=reader.text(top["author"], "author") if "author" in top else "",
        tags=tuple(reader.text(t, "a tag") for t in reader.sequence(top["tags"], "tags")) if "tags" in top else (),
        path=path,
    )
    for node, entry in zip(reader.sequence(top["chain"], "chain"), entries, strict=True):
        if entry.label and (not _LABEL.fullmatch(entry.label) or "__" in entry.label):
            raise reader.error(node, f"the label '{entry.label}' may hold letters, digits, - and single _ only")
    labels = [e.label for e in entries if e.label]
    if len(set(labels)) != len(labels):
        raise reader.error(top["chain"], "two plugins of the chain carry the same label")
    return preset


def _entry(reader: _Reader, node: yaml.Node, path: Path | None) -> Entry:
    allowed: set[str] = {"plugin", "params", "label"}
    loose = reader.mapping(node, "a plugin of the chain", required=("plugin",), allowed=None)
    name = reader.text(loose["plugin"], "plugin")
    if name.endswith(".py") and path is not None and not Path(name).expanduser().is_absolute():
        name = str((path.parent / name).resolve())
    try:
        cls: type[Plugin] = plugin_class(name)
    except RtganError as problem:
        raise type(problem)(f"{reader.at(loose['plugin'])}: {problem}") from None
    allowed |= cls.options
    fields = reader.mapping(node, f"the entry of {name}", required=("plugin",), allowed=tuple(sorted(allowed)))
    declared = all_params(cls)
    params: dict[str, float] = {}
    if "params" in fields:
        given = reader.mapping(fields["params"], f"params of {name}", required=(), allowed=tuple(declared))
        for key, value in given.items():
            params[key] = declared[key].check(reader.scalar(value), f"{reader.at(value)}: {name}.{key}")
    return Entry(
        plugin=name,
        params=params,
        options={k: _beside(reader.text(v, k), path) for k, v in fields.items() if k in cls.options},
        label=reader.text(fields["label"], "label") if "label" in fields else "",
    )


def _beside(value: str, path: Path | None) -> str:
    """A model file named relative to the preset that uses it; everything else as it is."""
    if path is not None and value.endswith(".ts") and (path.parent / value).is_file():
        return str((path.parent / value).resolve())
    return value


class _Reader:
    """YAML nodes with their places; nothing of the file is ever turned into an object but plain scalars."""

    def __init__(self, where: str) -> None:
        self.where = where

    def at(self, node: yaml.Node) -> str:
        return f"{self.where}:{node.start_mark.line + 1}"

    def error(self, node: yaml.Node, message: str) -> UsageError:
        return UsageError(f"{self.at(node)}: {message}")

    def compose(self, text: str) -> yaml.Node:
        try:
            self._refuse_tricks(text)
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as problem:
            mark = problem.problem_mark or problem.context_mark
            line = f":{mark.line + 1}" if mark else ""
            what = problem.problem or "not YAML"
            raise UsageError(f"{self.where}{line}: malformed YAML: {what}") from None
        except (yaml.YAMLError, ValueError) as problem:
            raise UsageError(f"{self.where}: malformed YAML: {str(problem).splitlines()[0]}") from None
        if root is None:
            raise UsageError(f"{self.where}: the file is empty; a preset has the keys schema, name and chain")
        return root

    def _refuse_tricks(self, text: str) -> None:
        # Anchors can make a small file huge, deep nesting exhausts the stack, tags name foreign types.
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            place = f"{self.where}:{event.start_mark.line + 1}" if event.start_mark else self.where
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise UsageError(f"{place}: anchors and aliases are not allowed in a preset")
            if tag := getattr(event, "tag", None):
                raise UsageError(f"{place}: the tag {tag} is not allowed in a preset")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _DEEPEST:
                    raise UsageError(f"{place}: nested deeper than any preset is")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1

    def mapping(
        self, node: yaml.Node, what: str, required: Sequence[str], allowed: Sequence[str] | None
    ) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, f"{what} must be a mapping (key: value)")
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = str(key_node.value)
            if allowed is not None and (not isinstance(key_node, yaml.ScalarNode) or key not in allowed):
                raise self.error(key_node, f"{what} has no key '{key}'; allowed: {', '.join(allowed)}")
            if key in found:
                raise self.error(key_node, f"the key '{key}' stands twice in {what}")
            found[key] = value
        for key in required:
            if key not in found:
                raise self.error(node, f"{what} lacks the key '{key}'")
        return found

    def sequence(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.error(node, f"{what} must be a list")
        return list(node.value)

    def scalar(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, "a single value is expected here")
        try:
            value = yaml.safe_load(yaml.serialize(node))
        except (yaml.YAMLError, ValueError):
            raise self.error(node, f"'{node.value}' is not a value") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(node, f"'{node.value}' is not a finite number")
        return value

    def text(self, node: yaml.Node, what: str) -> str:
        value = self.scalar(node)
        if not isinstance(value, str) or not value.strip():
            raise self.error(node, f"{what} must be a text")
        return value


def dump(preset: Preset) -> str:
    """The text of a preset; the same preset always gives the same bytes."""
    chain = []
    for entry in preset.chain:
        fields: dict[str, Any] = {"plugin": entry.plugin}
        if entry.label:
            fields["label"] = entry.label
        fields |= dict(sorted(entry.options.items()))
        declared = all_params(plugin_class(entry.plugin))
        params: dict[str, Any] = {}
        for name, param in declared.items():
            if name in entry.params:
                value = entry.params[name]
                params[name] = bool(value) if param.scale == "switch" else _plain(value)
        if params:
            fields["params"] = params
        chain.append(fields)
    top: dict[str, Any] = {"schema": SCHEMA, "name": preset.name}
    if preset.description:
        top["description"] = preset.description
    if preset.author:
        top["author"] = preset.author
    if preset.tags:
        top["tags"] = list(preset.tags)
    top["chain"] = chain
    return yaml.safe_dump(top, sort_keys=False, allow_unicode=True, width=100)


def _plain(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)


def save(preset: Preset, path: Path) -> None:
    """Write a preset so that a crash leaves either the old file or the new one."""
    text = dump(preset)
    parse(text, str(path), path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as problem:
        raise RtganError(f"the preset {path} cannot be written: {problem.strerror}") from problem
