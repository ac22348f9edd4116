"""YAML that people write and rtgan reads: strictly, with the place of every mistake, and written atomically.

Presets, MIDI maps and set lists share it. Of YAML only mappings, lists and plain scalars are taken; numbers are
decimal, so that ``1:30`` or ``010`` never mean something else than they look like.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rtgan.errors import RtganError, UsageError
from rtgan.params import Param

#: What reading takes grows with the text: a hostile file of this size costs seconds, a larger one minutes.
LARGEST = 1 << 17
_DEEPEST = 8
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.?(inf|nan|infinity)", re.IGNORECASE)


def config_folder() -> Path:
    """The person's own folder: presets, MIDI map, set list. ``RTGAN_CONFIG_DIR`` overrides the platform's."""
    import platformdirs

    override = os.environ.get("RTGAN_CONFIG_DIR")
    return Path(override) if override else Path(platformdirs.user_config_dir("rtgan", appauthor=False))


def read_text(path: Path) -> str:
    """The text of a small UTF-8 file; one sentence for everything else."""
    try:
        if not path.is_file() and path.exists():
            raise UsageError(f"{path} is not a file")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as problem:
        raise RtganError(f"{path} cannot be read: {problem.strerror}") from problem
    if len(data) > LARGEST:
        raise UsageError(f"{path}: larger than {LARGEST >> 10} KiB, which no such file is")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a text file in UTF-8") from None


def write_text(path: Path, text: str, what: str) -> None:
    """Write a file so that a crash leaves either the old one or the new one; ``what`` names it in the error."""
    write_bytes(path, text.encode("utf-8"), what)


def write_bytes(path: Path, data: bytes, what: str) -> None:
    """`write_text` for what is no text, or not known to be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What a link points to is replaced, not the link.
        target = path.resolve()
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, target.stat().st_mode & 0o7777 if target.exists() else 0o644)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as problem:
        raise RtganError(f"{what} {path} cannot be written: {problem.strerror}") from problem


class _Loader(yaml.SafeLoader):
    """Composes nodes only, and none that a preset has no use for."""

    def __init__(self, text: str, where: str, what: str) -> None:
        super().__init__(text)
        self._where, self._what, self._depth = where, what, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # Anchors can make a small file huge, deep nesting exhausts the stack, tags name foreign types.
        event = self.peek_event()  # type: ignore[no-untyped-call]
        place = f"{self._where}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise UsageError(f"{place}: anchors and aliases are not allowed in {self._what}")
        if tag := getattr(event, "tag", None):
            raise UsageError(f"{place}: the tag {tag!a} is not allowed in {self._what}")
        self._depth += 1
        if self._depth > _DEEPEST + 1:
            raise UsageError(f"{place}: nested deeper than {self._what} ever is")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class Reader:
    """YAML nodes with their places; nothing of the file is ever turned into an object but plain scalars.

    Parameters
    ----------
    where : str
        The file, as errors name it.
    what : str
        The kind of file with its article, as errors name it: "a preset".
    """

    def __init__(self, where: str, what: str = "a preset") -> None:
        self.where = where
        self.what = what

    def at(self, node: yaml.Node) -> str:
        """``file:line``."""
        return f"{self.where}:{node.start_mark.line + 1}"

    def error(self, node: yaml.Node, message: str) -> UsageError:
        """What is wrong at a place."""
        return UsageError(f"{self.at(node)}: {message}")

    def compose(self, text: str) -> yaml.Node:
        """The root of the only document in a text."""
        if len(text) > LARGEST:
            raise UsageError(f"{self.where}: longer than {LARGEST >> 10} KiB, which {self.what} never is")
        try:
            loader = _Loader(text, self.where, self.what)
            try:
                root = loader.get_single_node()
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as problem:
            mark = problem.problem_mark or problem.context_mark
            line = f":{mark.line + 1}" if mark else ""
            raise UsageError(f"{self.where}{line}: malformed YAML: {_line(problem.problem or 'not YAML')}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as problem:
            raise UsageError(f"{self.where}: malformed YAML: {_line(str(problem))}") from None
        if root is None:
            raise UsageError(f"{self.where}: the file is empty")
        return root

    def mapping(
        self, node: yaml.Node, what: str, required: Sequence[str], allowed: Sequence[str] | None
    ) -> dict[str, yaml.Node]:
        """The values of a mapping by key; ``allowed`` None takes any text as key."""
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, f"{what} must be a mapping (key: value)")
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.error(key_node, f"a key of {what} is not a text")
            key = str(key_node.value)
            if allowed is not None and key not in allowed:
                known = ", ".join(allowed) or "nothing"
                raise self.error(key_node, f"{what} has no key {_quoted(key)}; allowed: {known}")
            if key in found:
                raise self.error(key_node, f"the key {_quoted(key)} stands twice in {what}")
            found[key] = value
        for key in required:
            if key not in found:
                raise self.error(node, f"{what} lacks the key '{key}'")
        return found

    def sequence(self, node: yaml.Node, what: str, most: int = 1000) -> list[yaml.Node]:
        """The items of a list."""
        if not isinstance(node, yaml.SequenceNode):
            raise self.error(node, f"{what} must be a list")
        if len(node.value) > most:
            raise self.error(node, f"{what} holds {len(node.value)} things; at most {most} are allowed")
        return list(node.value)

    def scalar(self, node: yaml.Node) -> Any:
        """A bool, a finite number, a text, or None."""
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, "a single value is expected here")
        text = str(node.value)
        if node.style is not None:
            return text
        kind = node.tag.rpartition(":")[2]
        if kind == "bool":
            return text.lower() in ("true", "yes", "on")
        if kind == "null":
            return None
        if _NUMBER.fullmatch(text):
            value = float(text)
            if not math.isfinite(value):
                raise self.error(node, f"'{text[:20]}' is not a finite number")
            return int(value) if value.is_integer() and abs(value) < 1 << 53 else value
        if _NOT_FINITE.fullmatch(text):
            raise self.error(node, f"'{text}' is not a finite number")
        if kind in ("int", "float"):
            raise self.error(node, f"{_quoted(text)} is not a decimal number")
        return text

    def value(self, node: yaml.Node, param: Param, what: str) -> float:
        """A value of a parameter, plain and in range."""
        value = self.scalar(node)
        words = ("on", "off", "true", "false") if param.scale == "switch" else ()
        if isinstance(value, str) and not _NUMBER.fullmatch(value) and value.lower() not in words:
            raise self.error(node, f"{what}: {_quoted(value)} is not a value for {param.id}; allowed: {param.allowed}")
        return param.check(value, f"{self.at(node)}: {what}")

    def text(self, node: yaml.Node, what: str, lines: bool = False) -> str:
        """A text that is not blank; one line unless ``lines``."""
        value = self.scalar(node)
        if not isinstance(value, str) or not value.strip():
            raise self.error(node, f"{what} must be a text")
        # Surrogates cannot be written to a file, control characters have no business in a terminal.
        for letter in value:
            if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") and not (lines and letter in "\n\t"):
                raise self.error(node, f"{what} holds the character U+{ord(letter):04X}, which no text may")
        return value

    def number(self, node: yaml.Node, what: str, low: float, high: float) -> float:
        """A number in a range."""
        value = self.scalar(node)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            shown = value if isinstance(value, (int, float)) and not isinstance(value, bool) else _quoted(node.value)
            raise self.error(node, f"{what} is {shown}; allowed: {low:g} to {high:g}")
        return float(value)

    def whole(self, node: yaml.Node, what: str, low: int, high: int) -> int:
        """A whole number in a range."""
        value = self.number(node, what, low, high)
        if not value.is_integer():
            raise self.error(node, f"{what} is {value:g}; allowed: whole numbers from {low} to {high}")
        return int(value)

    def switch(self, node: yaml.Node, what: str) -> bool:
        """True or false."""
        value = self.scalar(node)
        if not isinstance(value, bool):
            raise self.error(node, f"{what} must be true or false")
        return value

    def choice(self, node: yaml.Node, what: str, allowed: Sequence[str]) -> str:
        """One of some words."""
        value = self.scalar(node)
        if value not in allowed or not isinstance(value, str):
            raise self.error(node, f"{what} has no value {_quoted(node.value)}; allowed: {', '.join(allowed)}")
        return value


def _line(text: str) -> str:
    return " ".join(text.split())


def _quoted(value: object) -> str:
    """Part of a file as it may stand in a sentence: short, on one line."""
    text = str(value)
    short = text if len(text) <= 40 else text[:37] + "..."
    return f"'{short}'" if short.isprintable() else ascii(short)


class Lines(dict[str, Any]):
    """A mapping that is written with a key on each line, however short it is."""


class OneLine(dict[str, Any]):
    """A mapping that is written in braces, with everything in it."""


class _Dumper(yaml.SafeDumper):
    """Writes so that `Reader` reads the same; lists stand under their key, indented by nothing."""


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    # `Reader` takes some words for numbers that YAML does not.
    ambiguous = _NUMBER.fullmatch(value) or _NOT_FINITE.fullmatch(value)
    style = "'" if ambiguous else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _lines(dumper: _Dumper, value: Lines) -> yaml.Node:
    return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=False)


def _one_line(dumper: _Dumper, value: OneLine) -> yaml.Node:
    return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Lines, _lines)
_Dumper.add_representer(OneLine, _one_line)


def dump(fields: Mapping[str, Any]) -> str:
    """YAML of plain values, the innermost collections on one line; the same fields give the same bytes."""
    return yaml.dump(
        Lines(fields), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )


def plain(value: float) -> int | float:
    """A number as a person writes it: without ``.0``."""
    return int(value) if float(value).is_integer() and abs(value) < 1 << 53 else float(value)
