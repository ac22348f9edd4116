"""JSON Schema of presets, generated from what plugins declare, so that an editor completes and checks them.

The reader of presets stays the judge: of what the schema lets pass it refuses targets that the chain has not,
labels that stand twice and files that are not there.
"""

from __future__ import annotations

from typing import Any

from rtgan import bindings, presets, rules
from rtgan.params import Param
from rtgan.plugin import all_params, plugin_class, plugin_ids

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_Schema = dict[str, Any]


def schema() -> _Schema:
    """The schema of a preset with the plugins that are installed here, as plain values for JSON."""
    text: _Schema = {"type": "string", "pattern": r"\S"}
    properties: _Schema = {
        "schema": {"const": presets.SCHEMA, "description": "Version of this format."},
        "name": {**text, "description": "What a person reads."},
        "description": {**text, "description": "One sentence: what it is for."},
        "author": text,
        "licence": {**text, "description": "An SPDX identifier, such as CC0-1.0."},
        "tags": {"type": "array", "items": text},
        "notes": {**text, "description": "Anything worth knowing; may have several lines."},
        "program": _whole(0, presets.LAST_PROGRAM, "MIDI program that calls this preset, from 0."),
        "bank": _whole(0, presets.LAST_BANK, "Its bank: bank select, coarse times 128 plus fine."),
        "crossfade_ms": {
            "type": "number",
            "minimum": presets.CROSSFADE_MS[0],
            "maximum": presets.CROSSFADE_MS[1],
            "description": "How long the sound fades over to this preset.",
        },
        "strips": {"type": "array", "minItems": presets.STRIPS[0], "maxItems": presets.STRIPS[1], "items": _strip()},
        "mixer": _params("mixer"),
        "chain": _chain(),
        "midi": {"type": "array", "items": _binding()},
        "snapshots": {"type": "array", "maxItems": presets.MOST_SNAPSHOTS, "items": _snapshot(text)},
        "morph": {**text, "description": "Name or path of the preset that the fader host.morph leads to."},
        "rules": {"type": "array", "maxItems": rules.MOST_RULES, "items": _rule(text)},
    }
    top = _object(properties, ["schema", "name", "chain"])
    return {
        "$schema": DIALECT,
        "title": "Preset of rtgan",
        **top,
        "dependentRequired": {"bank": ["program"], "mixer": ["strips"]},
    }


def _object(properties: _Schema, required: list[str]) -> _Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _whole(low: int, high: int, description: str) -> _Schema:
    return {"type": "integer", "minimum": low, "maximum": high, "description": description}


def _value(param: Param) -> _Schema:
    # YAML 1.2, which editors speak, takes on and off for texts.
    kind: _Schema = (
        {"enum": [True, False, "on", "off", 0, 1]}
        if param.scale == "switch"
        else {"type": "number", "minimum": param.minimum, "maximum": param.maximum}
    )
    default = bool(param.default) if param.scale == "switch" else param.default
    return {**kind, "default": default, "description": f"{param.description} {param.allowed}".strip()}


_HASH: _Schema = {
    "type": "string",
    "pattern": "^[0-9a-f]{64}$",
    "description": "SHA-256 of the file that this was made with.",
}
_LABEL: _Schema = {"type": "string", "pattern": f"^({presets.LABEL.pattern})$", "description": "Name in the chain."}

_SHED: _Schema = {
    "oneOf": [
        _whole(1, presets.MOST_SHED, "The first of those that are left out while the machine cannot keep up is 1."),
        {"const": "never"},
    ]
}


def _chain() -> _Schema:
    items = {"oneOf": [*(_entry(i) for i in plugin_ids()), _code()]}
    return {"type": "array", "maxItems": presets.MOST_PLUGINS, "items": items}


def _params(plugin: str) -> _Schema:
    return _object({p.id: _value(p) for p in all_params(plugin_class(plugin)).values()}, [])


def _strip() -> _Schema:
    one = _whole(1, presets.LAST_INPUT, "An input, from 1.")
    return _object(
        {
            "name": {"type": "string", "pattern": f"^({presets.LABEL.pattern})$", "description": "Whose strip it is."},
            "input": {"oneOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": 2}]},
            "params": _params("fader"),
            "chain": _chain(),
        },
        ["name", "input"],
    )


def _entry(plugin: str) -> _Schema:
    cls = plugin_class(plugin)
    properties: _Schema = {
        "plugin": {"const": plugin, "description": cls.description},
        "label": _LABEL,
        "shed": _SHED,
        "params": _params(plugin),
    }
    if cls.required:
        # What a file gives a plugin is known only with that file.
        properties["params"]["additionalProperties"] = {"type": ["number", "boolean", "string"]}
    for option in sorted(cls.options):
        properties[option] = {"type": "string", "pattern": r"\S"}
        properties[f"{option}_sha256"] = _HASH
    properties |= {setting.id: _value(setting) for setting in cls.settings.values()}
    return _object(properties, ["plugin", *cls.required])


def _code() -> _Schema:
    """A plugin in a Python file: what it declares is known only when it runs."""
    return {
        "type": "object",
        "properties": {
            "plugin": {"type": "string", "pattern": r"\.py$", "description": "A Python file with one plugin."},
            "plugin_sha256": _HASH,
            "label": _LABEL,
            "shed": _SHED,
            "params": {"type": "object", "additionalProperties": {"type": ["number", "boolean", "string"]}},
        },
        "required": ["plugin"],
        "additionalProperties": {"type": "string"},
    }


def _binding() -> _Schema:
    words = []
    for kind, last in bindings.LAST_NUMBER.items():
        words.append(kind if last is None else f"{kind} +[0-9]{{1,5}}")
    target: _Schema = {
        "type": "string",
        "pattern": r"^[^.]+\..+$",
        "examples": ["denoise.amount_db", *bindings.HOST_TARGETS],
        "description": "label.parameter of the chain, or host.something.",
    }
    return _object(
        {
            "control": {"type": "string", "pattern": f"^({'|'.join(words)})$", "examples": ["cc 74", "note 60"]},
            "channel": {"oneOf": [_whole(1, 16, "Only on this channel."), {"const": "any"}]},
            "port": {"type": "string", "pattern": r"\S", "description": "Only from ports with this in their name."},
            "target": {
                "oneOf": [target, {"type": "array", "items": target, "minItems": 1, "uniqueItems": True}],
            },
            "mode": {"enum": list(bindings.MODES)},
            "range": {
                "type": "array",
                "items": {"type": ["number", "boolean"]},
                "minItems": 2,
                "maxItems": 2,
                "description": "Values at the ends of the control, in the parameter's unit.",
            },
            "curve": {"type": "number", "minimum": bindings.CURVE[0], "maximum": bindings.CURVE[1]},
            "invert": {"type": "boolean"},
            "smoothing_ms": {"type": "number", "minimum": 0, "maximum": bindings.MOST_SMOOTHING_MS},
        },
        ["control", "target"],
    )


def _rule(text: _Schema) -> _Schema:
    value: _Schema = {"type": ["number", "boolean", "string"]}
    span: _Schema = {"type": "number", "minimum": 0, "maximum": rules.MOST_MS}
    name: _Schema = {"type": "string", "pattern": r"^[^.]+\..+$"}
    return {
        **_object(
            {
                "when": {**name, "description": "label.reading of the chain.", "examples": ["tags.speech"]},
                "above": {"type": "number"},
                "below": {"type": "number"},
                "for_ms": {**span, "description": "How long the reading lies beyond the limit before this happens."},
                "until_ms": {**span, "description": "How long it does not before this ends."},
                "do": {**name, "description": "What to move.", "examples": list(bindings.HOST_TARGETS)},
                "to": {**value, "description": "Its value when the rule begins."},
                "back": {**value, "description": "Its value when the rule ends."},
                "load": {**text, "description": "Name or path of a preset to play."},
            },
            ["when"],
        ),
        "oneOf": [{"required": [limit, what]} for limit in ("above", "below") for what in ("do", "load")],
    }


def _snapshot(text: _Schema) -> _Schema:
    values = {
        "type": "object",
        "propertyNames": {"pattern": r"^[^.]+\..+$"},
        "additionalProperties": {"type": ["number", "boolean", "string"]},
    }
    return _object({"name": text, "values": values}, ["name", "values"])
