"""Rules of presets: how they are read and written, and when they begin and end."""

from __future__ import annotations

import pytest

from rtgan import chain, preset_schema, presets
from rtgan.errors import UsageError
from rtgan.presets import Preset
from rtgan.rules import Rule, Watch

PRESET = """\
schema: 2
name: Rules
chain:
- plugin: tags
- plugin: gate
rules:
- {rule}
"""


def parsed(rule: str) -> Preset:
    return presets.parse(PRESET.replace("{rule}", f"{{{rule}}}"), "r.yaml")


def test_a_rule_begins_and_ends_only_when_its_reading_has_stayed_so() -> None:
    rule = Rule("tags.speech", 0.8, for_ms=300, until_ms=500, do="gate.bypass", to=1.0)
    watch = Watch([rule])
    said = [(0.0, 0.9), (0.2, 0.1), (0.3, 0.9), (0.5, 0.9), (0.6, 0.9), (0.7, 0.9), (0.8, 0.2), (1.2, 0.2), (1.4, 0.2)]
    found = [(t, begins) for t, p in said for _, begins in watch.look(t, {"tags.speech": p})]
    assert found == [(0.6, True), (1.4, False)]


def test_below_is_the_other_side_and_a_missing_reading_holds_no_rule() -> None:
    watch = Watch([Rule("tags.silence", 0.5, above=False, for_ms=0, until_ms=0, do="host.mute", to=1.0)])
    assert [b for _, b in watch.look(0.0, {"tags.silence": 0.4})] == [True]
    assert [b for _, b in watch.look(0.1, {})] == [False]
    assert watch.look(0.2, {}) == []


def test_rules_are_read_with_units_and_written_as_they_were() -> None:
    preset = parsed("when: tags.speech, above: 0.8, for_ms: 300, do: gate.bypass, to: on, back: off")
    assert preset.rules == (Rule("tags.speech", 0.8, True, 300, 500, "gate.bypass", 1.0, 0.0),)
    text = presets.dump(preset)
    assert "- {when: tags.speech, above: 0.8, for_ms: 300, do: gate.bypass, to: true, back: false}" in text
    assert presets.dump(presets.parse(text)) == text
    marks = parsed("when: tags.tag, below: 0, do: host.marker")
    assert presets.parse(presets.dump(marks)).rules == marks.rules
    assert parsed("when: tags.music, above: 0.5, load: clean").rules[0].load == "clean"


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("when: tags.speach, above: 0.5, do: host.marker", "there is no reading 'tags.speach'"),
        ("when: hum.level, above: 0.5, do: host.marker", "the chain has no 'hum' to read"),
        ("when: gate.open, above: nan, do: host.marker", "not a finite number"),
        ("when: tags.speech, do: host.marker", "needs one limit"),
        ("when: tags.speech, above: 0.5, below: 0.7, do: host.marker", "needs one limit"),
        ("when: tags.speech, above: 0.5", "needs one thing to happen"),
        ("when: tags.speech, above: 0.5, do: host.marker, load: clean", "needs one thing to happen"),
        ("when: tags.speech, above: 0.5, do: gate.nothing, to: 1", "there is no target 'gate.nothing'"),
        ("when: tags.speech, above: 0.5, do: gate.bypass", "gate.bypass needs a value"),
        ("when: tags.speech, above: 0.5, do: gate.threshold_db, to: 40", "gate.threshold_db"),
        ("when: tags.speech, above: 0.5, do: host.marker, to: 1", "host.marker takes no to"),
        ("when: tags.speech, above: 0.5, for_ms: -1, do: host.marker", "for_ms"),
        ("when: tags.speech, above: 0.5, colour: red, do: host.marker", "colour"),
    ],
)
def test_what_a_rule_cannot_mean_is_refused_with_its_line(rule: str, told: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parsed(rule)
    message = str(refusal.value)
    assert message.startswith("r.yaml:7: ") and told in message and "\n" not in message


def test_a_plugin_that_is_taken_out_takes_its_rules_along() -> None:
    preset = parsed("when: tags.speech, above: 0.8, do: gate.bypass, to: on")
    assert chain.change(preset, "remove", "gate").rules == ()
    assert chain.change(preset, "remove", "tags").rules == ()
    assert chain.change(preset, "add", "gain").rules == preset.rules


def test_the_schema_takes_what_the_reader_takes() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(preset_schema.schema())
    good = {"when": "tags.speech", "above": 0.8, "do": "gate.bypass", "to": True}
    whole = {"schema": 2, "name": "X", "chain": [{"plugin": "tags"}, {"plugin": "gate"}]}
    assert check.is_valid({**whole, "rules": [good]})
    for bad in ({**good, "below": 1}, {**good, "load": "x"}, {"when": "tags.speech", "above": 1}):
        assert not check.is_valid({**whole, "rules": [bad]})
