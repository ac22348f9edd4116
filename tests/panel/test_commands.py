"""What may be asked for is declared once, and everything declared is there."""

from __future__ import annotations

import jsonschema
import pytest

from rtgan.errors import UsageError
from rtgan.panel import commands
from rtgan.panel.commands import COMMANDS, TOPICS, Argument, parse
from rtgan.panel.link import _Told


def test_every_command_that_is_declared_is_carried_out() -> None:
    assert {n.removeprefix("_do_") for n in vars(_Told) if n.startswith("_do_")} == set(COMMANDS)


def test_the_document_says_what_is_checked() -> None:
    param = {"name": "Gain", "low": -60, "high": 24, "default": 0, "unit": "dB", "scale": "linear", "description": "x"}
    found = commands.openapi({"gain.gain_db": param, "gain.bypass": {**param, "scale": "switch"}})
    assert {p.removeprefix("/api/") for p, ways in found["paths"].items() if "post" in ways} == set(COMMANDS)
    assert {p.removeprefix("/api/") for p, ways in found["paths"].items() if "get" in ways} == set(TOPICS)
    for name in COMMANDS:
        body = found["paths"][f"/api/{name}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator.check_schema(body)
    morph = found["paths"]["/api/morph"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert morph["properties"]["position"]["maximum"] == 100
    values = found["components"]["schemas"]["Values"]
    jsonschema.validate({"gain.gain_db": 3, "gain.bypass": 1}, values)
    for wrong in ({"gain.gain_db": 30}, {"gain.bypass": 0.5}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, values)


def test_arguments_are_checked_by_kind_range_and_length() -> None:
    assert parse('{"do": "morph", "position": 50}')[1:] == ("morph", {"position": 50})
    assert parse('{"do": "save"}')[2] == {"name": ""}
    for text, words in (
        ('{"do": "morph", "position": 101}', "allowed: 0 to 100"),
        ('{"do": "morph", "position": true}', "is not a number"),
        ('{"do": "snapshot", "number": 1.5}', "is not a integer"),
        ('{"do": "record", "on": 1}', "is not a boolean"),
        ('{"do": "load", "name": null}', "is not a string"),
        ('{"do": ["load"]}', "there is no command"),
        ("{}", "there is no command"),
        (" " * (commands.MOST_BYTES + 1), "may have"),
    ):
        with pytest.raises(UsageError, match=words):
            parse(text)
    assert Argument(("number",), "", 0, 1).check(1, "x") == 1
