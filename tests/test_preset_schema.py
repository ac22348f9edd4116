"""The schema against what the reader takes: a good preset passes, a bad one is refused by both."""

from __future__ import annotations

import json
import random
from pathlib import Path

import jsonschema
import pytest
import yaml
from test_presets import FULL, GOOD, mutate

from rtgan import preset_schema, presets
from rtgan.errors import RtganError
from rtgan.plugin import plugin_ids

SCHEMA = preset_schema.schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def valid(text: str) -> bool:
    return bool(VALIDATOR.is_valid(yaml.safe_load(text)))


def test_it_is_a_schema_and_json() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("path", sorted(presets.FACTORY.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_factory_preset_passes(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_all_that_a_preset_may_say_passes() -> None:
    assert valid(GOOD) and valid(FULL)
    assert valid("schema: 2\nname: x\nchain:\n- plugin: own/thing.py\n  plugin_sha256: " + "ab" * 32)


def test_every_parameter_of_every_plugin_is_in_it_with_its_range() -> None:
    entries = {e["properties"]["plugin"].get("const"): e for e in SCHEMA["properties"]["chain"]["items"]["oneOf"]}
    assert set(plugin_ids()) <= set(entries)
    gain = entries["gain"]["properties"]["params"]["properties"]["gain_db"]
    assert (gain["minimum"], gain["maximum"], gain["default"]) == (-60, 24, 0)
    assert "-60 to 24 dB" in gain["description"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("schema: 2", "schema: 3"),
        ("name: Test", "title: Test"),
        ("name: Test", "name: 3"),
        ("plugin: gain", "plugin: gian"),
        ("gain_db: -6", "gain_db: -600"),
        ("gain_db: -6", "gain: -6"),
        ("gain_db: -6", "gain_db: loud"),
        ("bypass: on", "bypass: 0.5"),
        ("label: trim", "label: a b"),
        ("chain:", "bank: 1\nchain:"),
        ("chain:", "program: 128\nchain:"),
        ("chain:", "crossfade_ms: 1\nchain:"),
        ("chain:", "midi: [{control: knob 1, target: trim.gain_db}]\nchain:"),
        ("chain:", "midi: [{control: cc 1, target: trim.gain_db, mode: soft}]\nchain:"),
        ("chain:", "midi: [{control: cc 1, target: []}]\nchain:"),
        ("chain:", "midi: [{control: cc 1}]\nchain:"),
        ("chain:", "snapshots: [{name: a}]\nchain:"),
    ],
)
def test_what_the_reader_refuses_for_its_form_the_schema_refuses_too(old: str, new: str) -> None:
    text = GOOD.replace(old, new, 1)
    with pytest.raises(RtganError):
        presets.parse(text)
    assert not valid(text)


def test_whatever_the_reader_takes_and_writes_the_schema_lets_pass() -> None:
    source = random.Random(11)
    passed = 0
    for number in range(1500):
        try:
            written = presets.dump(presets.parse(mutate(FULL if number % 3 == 0 else GOOD, source)))
        except RtganError:
            continue
        assert valid(written), written
        passed += 1
    assert passed > 50
