"""What may be asked of a panel and what it tells, declared once: pages, HTTP, its OpenAPI document and the shell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rtgan.errors import UsageError
from rtgan.version import VERSION

#: Largest message of a client and largest body of a request, bytes.
MOST_BYTES = 1 << 14
_LONGEST = 200


@dataclass(frozen=True)
class Argument:
    """What a command takes.

    Parameters
    ----------
    kinds : tuple of str
        JSON types: ``string``, ``number``, ``integer``, ``boolean``.
    description : str
    low, high : float or None
        Range of numbers.
    choices : tuple of str
        The only texts that are allowed; empty for any.
    default : object
        Where it may be left out; `...` where it may not.
    """

    kinds: tuple[str, ...]
    description: str
    low: float | None = None
    high: float | None = None
    default: Any = ...
    choices: tuple[str, ...] = ()

    def check(self, value: object, where: str) -> object:
        """The value itself, or `UsageError`."""
        kind = _kind(value)
        allowed = " or ".join(self.kinds)
        if kind not in self.kinds and not (kind == "integer" and "number" in self.kinds):
            raise UsageError(f"{where} is not a {allowed}")
        if isinstance(value, str) and len(value) > _LONGEST:
            raise UsageError(f"{where} is longer than {_LONGEST} characters")
        if self.choices and value not in self.choices:
            raise UsageError(f"{where} is '{str(value)[:40]}'; allowed: {', '.join(self.choices)}")
        if kind in ("number", "integer") and self.low is not None and self.high is not None:
            number = float(value)  # type: ignore[arg-type]
            if not self.low <= number <= self.high:
                raise UsageError(f"{where} is out of range; allowed: {self.low:g} to {self.high:g}")
        return value

    @property
    def schema(self) -> dict[str, Any]:
        """As JSON Schema."""
        schema: dict[str, Any] = {"type": self.kinds[0] if len(self.kinds) == 1 else list(self.kinds)}
        schema["description"] = self.description
        if "string" in self.kinds:
            schema |= {"enum": list(self.choices)} if self.choices else {"maxLength": _LONGEST}
        if self.low is not None and self.high is not None:
            schema |= {"minimum": self.low, "maximum": self.high}
        if self.default is not ...:
            schema["default"] = self.default
        return schema


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return {str: "string", int: "integer", float: "number"}.get(type(value), type(value).__name__)


@dataclass(frozen=True)
class Command:
    """Something that may be asked for.

    Parameters
    ----------
    summary : str
    arguments : mapping of str to Argument
    edits : bool
        Whether the performance lock refuses it.
    slow : bool
        Whether it takes its time, or waits for a preset that is being built; others need not wait for it.
    """

    summary: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    edits: bool = False
    slow: bool = False

    def check(self, given: Mapping[str, object]) -> dict[str, Any]:
        """The arguments, defaults filled in; `UsageError` for what is missing, unknown or not allowed."""
        for name in given:
            if name not in self.arguments:
                raise UsageError(f"'{name[:40]}' is not known here; known are: {', '.join(self.arguments) or 'none'}")
        found = {}
        for name, argument in self.arguments.items():
            if name in given:
                found[name] = argument.check(given[name], name)
            elif argument.default is ...:
                raise UsageError(f"{name} is missing")
            else:
                found[name] = argument.default
        return found


_NAME = Argument(("string",), "Name of a preset; never a path.")
_TARGET = Argument(("string",), "A parameter, `plugin.param`, or a target of the host, `host.name`.")
_ON = Argument(("boolean",), "Whether it is to be on.")

COMMANDS: Mapping[str, Command] = {
    "set": Command(
        "Change a parameter; it ramps to the new value.",
        {"name": Argument(("string",), "`plugin.param` or `host.param`."),
         "value": Argument(("number", "boolean", "string"), "In the parameter's own unit.")},
    ),
    "load": Command("Fade over to a preset.", {"name": _NAME}),
    "next": Command("Fade over to the next preset of the set list."),
    "previous": Command("Fade over to the one before it."),
    "snapshot": Command(
        "Recall a snapshot of the preset that plays.",
        {"number": Argument(("integer",), "Counted from 1.", 1, 16)},
    ),
    "morph": Command(
        "Move the fader between the preset that plays and the one it names.",
        {"position": Argument(("number",), "Per cent of the way.", 0, 100)},
    ),
    "compare": Command(
        "Let A or B be heard, each as it was left; an empty side begins as a copy.",
        {"side": Argument(("string",), "`a`, `b`, or `other` for the one that does not sound.", default="other")},
    ),
    "copy": Command("Put what sounds into the other side of A and B as well.", edits=True),
    "match": Command("Turn the louder of A and B down to the softer one, or leave both as they are.", {"on": _ON}),
    "undo": Command("Undo what was done last to the sound or to the presets' files.", edits=True),
    "redo": Command("Do what was undone last once more.", edits=True),
    "panic": Command("Silence, every tail cut, all notes off; then sound comes back."),
    "note": Command(
        "Play a note, as a MIDI keyboard would.",
        {"number": Argument(("integer",), "60 is the middle C.", 0, 127),
         "velocity": Argument(("integer",), "How hard; 0 lets it go.", 0, 127, default=100)},
    ),
    "record": Command("Begin a recording, or end it.", {"on": _ON}),
    "mark": Command("Put a marker into what is recorded."),
    "reset": Command("Count xruns anew and forget the worst load."),
    "lock": Command("Performance mode: refuse everything that edits.", {"on": _ON}),
    "save": Command(
        "Save what plays: over the preset of one's own that it came from, or as a new one.",
        {"name": Argument(("string",), "What the new preset is called; empty to save over the present one.",
                          default="")},
        edits=True,
        slow=True,
    ),
    "rename": Command(
        "Call a preset of one's own by another name; set list and morphs that lead to it follow.",
        {"name": _NAME, "new": Argument(("string",), "What it is to be called.")},
        edits=True,
        slow=True,
    ),
    "delete": Command("Delete a preset of one's own; `undo` brings it back.", {"name": _NAME}, edits=True, slow=True),
    "keep": Command(
        "Keep the present values as a snapshot of the preset, in place of one of the same name.",
        {"name": Argument(("string",), "What the snapshot is called.")},
        edits=True,
        slow=True,
    ),
    "chain": Command(
        "Put a plugin into the chain that plays, take one out, or move one; the sound fades over.",
        {"what": Argument(("string",), "What to do.", choices=("add", "remove", "move")),
         "name": Argument(("string",), "Id of the plugin to add; else its name in the chain."),
         "position": Argument(("integer",), "Where it is to stand, counted from 1; 0 for the end.", 0, 64, default=0)},
        edits=True,
        slow=True,
    ),
    "browse": Command("See which plugins can be added to the chain.", slow=True),
    "look": Command("See what devices there are now.", slow=True),
    "examine": Command("Let `rtgan doctor` look at this machine, its measurement of time left out.", slow=True),
    "devices": Command(
        "Fade out, play on other devices, fade in; where they refuse, the present ones go on.",
        {"input": Argument(("string",), "As the topic `devices` names it; empty for the present one.", default=""),
         "output": Argument(("string",), "As the topic `devices` names it; empty for the present one.", default=""),
         "rate_hz": Argument(("integer",), "Sample rate; 0 for the present one.", 0, 384000, default=0),
         "block": Argument(("integer",), "Frames per block; 0 leaves it to the device, -1 as it is.", -1, 16384,
                           default=-1)},
        edits=True,
        slow=True,
    ),
    "microphone": Command(
        "Play into a microphone that other programs can choose, or on the output there was before.",
        {"on": _ON},
        edits=True,
        slow=True,
    ),
    "learn": Command(
        "Let the next MIDI control that moves control a target; an empty one gives up.",
        {"target": _TARGET},
        edits=True,
    ),
    "forget": Command("Let no MIDI control move a target any more.", {"target": _TARGET}, edits=True, slow=True),
}  # fmt: skip

TOPICS: Mapping[str, str] = {
    "about": "Version, devices and rate.",
    "chain": "The preset that plays: its plugins and the declarations of their parameters.",
    "values": "The value of every parameter by name.",
    "stats": "Load, xruns, latency by part, readings, warnings; ten times a second.",
    "plugins": "Plugins that can be added to the chain; `browse` brings it up to date.",
    "presets": "Every preset there is.",
    "compare": "Which of A and B sounds, what they hold, how far each is turned down.",
    "morph": "Where the fader between two presets stands, in per cent.",
    "history": "What would be undone, and done again.",
    "devices": "What can be played on, and what is; `look` brings it up to date.",
    "doctor": "What `examine` found.",
    "midi": "MIDI ports, the map, and what is being learned.",
    "lock": "Whether the performance lock is on.",
}


def parse(text: str | bytes) -> tuple[Command, str, dict[str, Any]]:
    """A command out of a JSON object ``{"do": NAME, ...}``: the command, its name, its arguments."""
    if len(text) > MOST_BYTES:
        raise UsageError(f"a message may have {MOST_BYTES} bytes")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("that is not JSON") from None
    if not isinstance(message, dict):
        raise UsageError("a message is an object")
    name = message.pop("do", None)
    if not isinstance(name, str) or name not in COMMANDS:
        raise UsageError(f"there is no command {str(name)[:40]!r}; known are: {', '.join(COMMANDS)}")
    return COMMANDS[name], name, COMMANDS[name].check(message)


def _value_schema(param: Mapping[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {"title": param["name"], "description": param["description"], "default": param["default"]}
    if param["scale"] == "switch":
        return {**own, "type": "number", "enum": [0, 1]}
    return {**own, "type": "number", "minimum": param["low"], "maximum": param["high"], "x-unit": param["unit"]}


def openapi(params: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The OpenAPI document of the HTTP interface.

    Parameters
    ----------
    params : mapping
        Declarations of the parameters of what plays, by name, as the topic ``chain`` gives them.
    """
    refused = {"description": "Not allowed; `error` says why in one sentence."}
    paths: dict[str, Any] = {}
    for name, command in COMMANDS.items():
        body = {
            "type": "object",
            "properties": {n: a.schema for n, a in command.arguments.items()},
            "required": [n for n, a in command.arguments.items() if a.default is ...],
            "additionalProperties": False,
        }
        paths[f"/api/{name}"] = {
            "post": {
                "operationId": name,
                "summary": command.summary + (" Refused while the performance lock is on." if command.edits else ""),
                "requestBody": {"content": {"application/json": {"schema": body}}},
                "responses": {"200": {"description": "Done, or on its way."}, "400": refused, "401": refused,
                              "403": refused, "413": refused, "429": refused, "503": refused},
            }
        }  # fmt: skip
    for topic, summary in TOPICS.items():
        schema: dict[str, Any] = {"type": "object"}
        if topic == "values":
            schema = {"$ref": "#/components/schemas/Values"}
        content = {"application/json": {"schema": schema}}
        paths.setdefault(f"/api/{topic}", {})["get"] = {
            "operationId": f"get_{topic}",
            "summary": summary,
            "responses": {"200": {"description": summary, "content": content}, "401": refused, "403": refused},
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "rtgan panel", "version": VERSION, "summary": "What plays, and everything that turns it."},
        "paths": paths,
        "security": [{"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Values": {
                    "type": "object",
                    "description": "The parameters of what plays, from their declarations.",
                    "properties": {name: _value_schema(param) for name, param in params.items()},
                }
            },
        },
    }
