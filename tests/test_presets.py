from __future__ import annotations

import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support import ROOT

from rtgan import offline, presets
from rtgan.bindings import HOST_TARGETS, Binding, Control
from rtgan.errors import RtganError, UsageError
from rtgan.generators import library
from rtgan.generators.files import sha256_of
from rtgan.graph import labelled
from rtgan.presets import Entry, Preset, Snapshot

GOOD = """\
schema: 2
name: Test
chain:
- plugin: highpass
  params: {cutoff_hz: 100}
- plugin: gain
  label: trim
  params:
    gain_db: -6
    bypass: on
"""
FULL = """\
schema: 2
name: Everything
description: 'All there is: on one page.'
author: Somebody
licence: CC0-1.0
tags: [voice, 'no']
notes: |
  Two lines,
    one of them indented.
program: 7
bank: 129
crossfade_ms: 250
chain:
- plugin: highpass
- plugin: gain
  params: {bypass: true, gain_db: -6.5}
- plugin: gain
- plugin: denoise
  model: voice-live
  params: {amount_db: 1.0e-05}
midi:
- {control: cc 74, channel: 16, port: Launch, target: [gain-2.gain_db, denoise.amount_db], mode: pickup,
  range: [0, 12], curve: 2, invert: true, smoothing_ms: 20}
- {control: note 60, target: gain.bypass}
- {control: bend, target: host.morph}
- {control: program 3, target: host.snapshot, range: [1, 2]}
snapshots:
- name: Loud
  values: {gain.bypass: false, gain-2.gain_db: 6}
- name: As it is
  values: {}
morph: clean
"""
PLUGIN = """\
from rtgan.params import Param, ParamSet
from rtgan.plugins.gain import Gain
from rtgan.plugin import Plugin
from pathlib import Path

with (Path(__file__).parent / "ran").open("a") as log:
    log.write("x")

class Own(Plugin):
    id = "own"
    params = ParamSet([Param("depth", "Depth", 0, 1, 0.5)])
    activate = Gain.activate
"""


def test_a_preset_is_read() -> None:
    preset = presets.parse(GOOD)
    assert preset.name == "Test"
    assert [e.plugin for e in preset.chain] == ["highpass", "gain"]
    assert preset.chain[1].params == {"gain_db": -6.0, "bypass": 1.0}
    assert preset.chain[1].label == "trim"


def test_everything_a_preset_may_say_is_read_and_written_byte_for_byte(tmp_path: Path) -> None:
    preset = presets.parse(FULL)
    assert (preset.program, preset.bank, preset.crossfade_ms, preset.morph) == (7, 129, 250.0, "clean")
    assert preset.notes == "Two lines,\n  one of them indented.\n"
    assert preset.tags == ("voice", "no")
    assert presets.labels(preset.chain) == ["highpass", "gain", "gain-2", "denoise"]
    assert presets.labels(preset.chain) == [i.label for i in labelled(preset.items())]
    assert preset.midi[0] == Binding(
        Control("cc", 74, 16, "Launch"), ("gain-2.gain_db", "denoise.amount_db"), "pickup", 0.0, 12.0, 2.0, True, 20.0
    )
    assert preset.midi[1].mode == "toggle"
    assert preset.snapshots[0] == Snapshot("Loud", {"gain.bypass": 0.0, "gain-2.gain_db": 6.0})
    assert presets.dump(preset) == FULL
    presets.save(preset, tmp_path / "a.yaml")
    assert (tmp_path / "a.yaml").read_text() == FULL
    assert presets.load(str(tmp_path / "a.yaml")) == preset


def test_files_of_schema_1_are_read_and_saved_as_schema_2(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    old = presets.parse(GOOD.replace("schema: 2", "schema: 1"))
    assert old == presets.parse(GOOD)
    assert presets.dump(old).startswith("schema: 2\n")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(UsageError, match=r"p.yaml:2: the preset has no key 'program'; allowed: schema, name"):
        presets.parse("schema: 1\nprogram: 3\nname: x\nchain: []", "p.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema: 2", "schema: 3", "p.yaml:1: schema is 3; this version of rtgan reads schema 1 and 2"),
        ("schema: 2", "schema: yes", "p.yaml:1: schema is True"),
        ("name: Test", "title: Test", "p.yaml:2: the preset has no key 'title'; allowed: schema, name"),
        ("name: Test", "name: 3", "p.yaml:2: name must be a text"),
        ("name: Test", 'name: "a\\u0007b"', r"p.yaml:2: name holds the character U\+0007"),
        ("name: Test", 'name: "a\\ud800"', r"p.yaml:2: name holds the character U\+D800"),
        ("plugin: gain", "plugin: gian", "p.yaml:6: there is no plugin 'gian'; known are: codec, compressor, deesser"),
        ("gain_db: -6", "gain_db: -600", r"p.yaml:9: gain.gain_db: -600 is out of range .* -60 to 24 dB"),
        ("gain_db: -6", "gain: -6", "p.yaml:9: params of gain has no key 'gain'; allowed: bypass, mix, gain_db"),
        ("gain_db: -6", "gain_db: loud", "p.yaml:9: gain.gain_db: 'loud' is not a value"),
        ("gain_db: -6", "gain_db: .nan", "p.yaml:9: '.nan' is not a finite number"),
        ("gain_db: -6", "gain_db: 1e999", "p.yaml:9: '1e999' is not a finite number"),
        ("gain_db: -6", "gain_db: 1:10", "p.yaml:9: '1:10' is not a decimal number"),
        ("gain_db: -6", "gain_db: 0x10", "p.yaml:9: '0x10' is not a decimal number"),
        ("gain_db: -6", "gain_db: [1]", "p.yaml:9: a single value is expected"),
        ("bypass: on", "bypass: 0.5", "p.yaml:10: gain.bypass: 0.5 is out of range .* on or off"),
        ("bypass: on", "gain_db: 1", "p.yaml:10: the key 'gain_db' stands twice"),
        ("chain:", "chain: 5\nrest:", "p.yaml:4: the preset has no key 'rest'"),
        ("label: trim", "label: trim\n  gain: 3", "p.yaml:8: the entry of gain has no key 'gain'"),
        ("label: trim", "label: a__b", "p.yaml:7: the label 'a__b' may hold"),
        ("label: trim", "label: host", "p.yaml:6: no plugin can be called 'host'"),
        ("schema: 2\n", "", "p.yaml:1: the preset lacks the key 'schema'"),
        ("chain:", "bank: 1\nchain:", "p.yaml:3: bank needs a program"),
        ("chain:", "program: 128\nchain:", "p.yaml:3: program is 128; allowed: 0 to 127"),
        ("chain:", "program: 1.5\nchain:", "p.yaml:3: program is 1.5; allowed: whole numbers"),
        ("chain:", "crossfade_ms: 1\nchain:", "p.yaml:3: crossfade_ms is 1; allowed: 5 to 10000"),
        ("chain:", "morph: [a]\nchain:", "p.yaml:3: a single value"),
        ("chain:", "midi: [{control: cc 1, target: gain.gain_db}]\nchain:",
         "p.yaml:3: there is no target 'gain.gain_db'; known are: highpass.bypass, .* trim.gain_db, host.bypass"),
        ("chain:", "midi: [{control: cc 1, target: host.morph}]\nchain:", "p.yaml:3: .* has no morph"),
        ("chain:", "midi: [{control: cc 1, target: host.snapshot}]\nchain:", "p.yaml:3: .* has no snapshots"),
        ("chain:", "snapshots: [{name: a, values: {}}, {name: b, values: {}}]\n"
         "midi: [{control: cc 1, target: host.snapshot, range: [1, 3]}]\nchain:",
         r"p.yaml:4: cc 1 moves host.snapshot past the last of 2 snapshots; write range: \[1, 2\]"),
        ("chain:", "snapshots: [{name: a, values: {gain.gain_db: 1}}]\nchain:",
         "p.yaml:3: the chain has no parameter 'gain.gain_db'"),
        ("chain:", "snapshots: [{name: a, values: {trim.gain_db: 99}}]\nchain:", "p.yaml:3: trim.gain_db: 99 is out"),
        ("chain:", "snapshots: [{name: a, values: {}}, {name: a, values: {}}]\nchain:", "p.yaml:3: two snapshots"),
        ("- plugin: highpass", "- plugin: denoise\n  model: nothing\n- plugin: highpass",
         "p.yaml:5: there is no model 'nothing'; allowed are a .ts file and the shipped .*voice"),
        ("- plugin: highpass", "- plugin: denoise\n  model: nothing.ts\n- plugin: highpass",
         "p.yaml:5: there is no model file nothing.ts"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_line_and_key(old: str, new: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        presets.parse(GOOD.replace(old, new, 1), "p.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("name: [1, 2", "malformed YAML"),
        ("\tx: 1", "malformed YAML"),
        ("- 1\n- 2", "must be a mapping"),
        ("schema: 2\nname: &a Test\nchain: []", "anchors and aliases"),
        ("schema: 2\nname: !!python/object/apply:os.system [id]\nchain: []", "tag"),
        ("schema: 2\nname: x\nchain: " + "[" * 2000, "nested deeper"),
        ("schema: 2\nname: x\x00\nchain: []", "malformed YAML"),
        ("schema: 2\nname: x\nchain: []\n---\nschema: 2", "malformed YAML"),
        ("schema: " + "9" * 5000 + "\nname: x\nchain: []", "not a finite number"),
        ("schema: 2\nname: x\n? [chain]\n: []", "not a text"),
        ("schema: 2\nname: x\nchain:\n" + "- plugin: gain\n" * 65, "chain holds 65 things; at most 64 are allowed"),
        ("#" * (1 << 17) + "#", "longer than 128 KiB"),
        ("schema: 2\nname: x\nchain:\n- plugin: ~nobody-here/gain.py\n", "cannot be the name of a file"),
        (
            "schema: 2\nname: x\nchain:\n- plugin: " + "a" * 5000 + ".py\n",
            "a{60}' cannot be the name of a file: File name too long",
        ),
    ],
)
def test_malformed_and_hostile_files_end_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        presets.parse(text, "p.yaml")
    assert "\n" not in str(caught.value)


#: What a mutation puts in: syntax, words that YAML takes for something else, numbers at and over the edges.
PIECES = [
    "\0", "\t", "\n", "!", "&", "*", ":", ": ", "[", "]", "{", "}", ",", "- ", "#", "|", ">", "'", '"', "%", "@", "?",
    "\u2028", "\ufffd", "\ud800", "\x85", "~", "null", "yes", "off", "1:30", "0x10", "1_000", ".inf", "1e400", "-0",
    "0", "128", "16384", "-1", "0.5", "2026-01-01", "<<", "=", "schema", "plugin: gain", "host.mute", "cc 200",
    "nrpn 16383",
]  # fmt: skip


def mutate(text: str, source: random.Random) -> str:
    for _ in range(source.choice([1, 1, 1, 2, 3, 4])):
        at = source.randrange(len(text) + 1)
        action = source.random()
        numbers = list(re.finditer(r"-?[0-9][0-9.]*", text))
        if action < 0.25:
            text = text[:at] + source.choice(PIECES) + text[at + source.randint(0, 6) :]
        elif action < 0.4:
            text = text[:at] + text[at + source.randint(1, 12) :]
        elif action < 0.55:
            lines = text.split("\n")
            line = lines.pop(source.randrange(len(lines)))
            lines.insert(source.randrange(len(lines) + 1), line)
            text = "\n".join(lines)
        elif numbers:
            number = source.choice(numbers)
            new = source.choice(
                [str(source.randint(-70, 140)), f"{source.uniform(-70, 140):.3g}", source.choice(PIECES)]
            )
            text = text[: number.start()] + new + text[number.end() :]
    return text


def assert_sane(preset: Preset) -> None:
    """Whatever was accepted is within every range, can be written, and is read back as it was."""
    declared = preset.declared()
    for name, value in preset.values().items():
        assert declared[name].check(value) == value
    for snapshot in preset.snapshots:
        assert all(declared[name].check(value) == value for name, value in snapshot.values.items())
    for binding in preset.midi:
        for target in binding.targets:
            param = {**declared, **HOST_TARGETS}[target]
            if binding.low is not None and binding.high is not None:
                assert param.minimum <= binding.low < binding.high <= param.maximum
        assert binding.control.channel is None or 1 <= binding.control.channel <= 16
        assert 0 <= binding.control.number <= 16383
        assert 0.1 <= binding.curve <= 10 and 0 <= binding.smoothing_ms <= 10000
    assert preset.program is None or 0 <= preset.program <= 127
    assert 0 <= preset.bank <= 16383
    text = presets.dump(preset)
    text.encode("utf-8")
    assert presets.parse(text) == preset
    assert presets.dump(presets.parse(text)) == text


@pytest.mark.parametrize("count", [1500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_presets_are_refused_in_one_sentence_or_are_sane(count: int) -> None:
    source = random.Random(count)
    accepted = set()
    for number in range(count):
        text = mutate(FULL if number % 4 == 0 else GOOD, source)
        try:
            preset = presets.parse(text, "p.yaml")
        except RtganError as problem:
            assert str(problem).startswith("p.yaml") and len(str(problem).splitlines()) == 1, text
            continue
        written = presets.dump(preset)
        if written not in accepted:
            accepted.add(written)
            assert_sane(preset)
    assert len(accepted) > count / 40, "the mutations are too coarse to say anything about what is accepted"


@pytest.mark.parametrize(
    "text",
    [
        "1e5",
        "12",
        "1_0",
        "on",
        "null",
        "~",
        " x ",
        "a: b",
        "# no",
        "- a",
        "'",
        "é ü 音",
        "x\ty",
        ".inf",
        "0x1",
        "1:30",
        "=",
    ],
)
def test_a_text_comes_back_as_it_was(text: str) -> None:
    preset = Preset(name="x", notes=f"{text}\n\n  {text} \n", tags=(text,) if text.isprintable() else ())
    assert presets.parse(presets.dump(preset)) == preset


def test_saving_is_byte_stable_and_reads_back(tmp_path: Path) -> None:
    preset = presets.parse(GOOD)
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    presets.save(preset, first)
    presets.save(presets.load(str(first)), second)
    assert first.read_bytes() == second.read_bytes()
    assert presets.load(str(second)) == preset
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.yaml", "b.yaml"]


def test_saving_keeps_a_link_and_the_rights_of_the_file(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    presets.save(presets.parse(GOOD), real)
    assert real.stat().st_mode & 0o777 == 0o644
    real.chmod(0o600)
    link.symlink_to(real)
    presets.save(presets.parse(FULL), link)
    assert link.is_symlink() and real.read_text() == FULL
    assert real.stat().st_mode & 0o777 == 0o600


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.yaml"
    presets.save(presets.parse(GOOD), target)
    before = target.read_bytes()
    with pytest.raises(UsageError):
        presets.save(Preset("x", (Entry("gain", {"gain_db": 900.0}),)), target)
    with pytest.raises(UsageError):
        presets.save(Preset("x\ny"), target)
    assert target.read_bytes() == before
    with pytest.raises(RtganError, match="cannot be written"):
        presets.save(presets.parse(GOOD), tmp_path / "a.yaml" / "below.yaml")
    assert [p.name for p in tmp_path.iterdir()] == ["a.yaml"]


def test_a_users_preset_comes_before_the_factorys() -> None:
    mine = presets.user_folder() / "bypass.yaml"
    presets.save(presets.parse(GOOD), mine)
    assert presets.load("bypass").name == "Test"
    mine.unlink()
    assert presets.load("bypass").name == "Bypass"


def test_unknown_names_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no preset 'nothing'; known are: .*bypass"):
        presets.load("nothing")
    with pytest.raises(UsageError, match="there is no preset file"):
        presets.load(str(tmp_path / "x.yaml"))
    with pytest.raises(UsageError, match="is a folder"):
        presets.load(str(tmp_path))
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a text file"):
        presets.load(str(binary))
    huge = tmp_path / "c.yaml"
    huge.write_bytes(b"#" * (1 << 17) + b"#")
    with pytest.raises(UsageError, match="larger than 128 KiB"):
        presets.load(str(huge))
    os.mkfifo(tmp_path / "d.yaml")
    with pytest.raises(UsageError, match="is not a file"):
        presets.load(str(tmp_path / "d.yaml"))


def test_a_model_file_is_noted_with_its_hash_and_no_other_is_taken_for_it(tmp_path: Path) -> None:
    model = tmp_path / "mine.ts"
    shipped = library.find("voice-live")
    assert shipped is not None
    model.write_bytes(shipped.read_bytes())
    path = tmp_path / "p.yaml"
    path.write_text("schema: 1\nname: x\nchain:\n- plugin: denoise\n  model: mine.ts\n")
    preset = presets.load(str(path))
    assert preset.chain[0].options == {"model": str(model)}
    presets.save(preset, path)
    assert f"  model: mine.ts\n  model_sha256: {sha256_of(model)}\n" in path.read_text()
    assert presets.load(str(path)) == preset
    written = path.read_text()
    model.write_bytes(model.read_bytes() + b"x")
    with pytest.raises(UsageError, match=rf"p.yaml:6: {re.escape(str(model))} is not the file that this preset was"):
        presets.load(str(path))
    path.write_text(re.sub("model_sha256: .*", "model_sha256: abc", written))
    with pytest.raises(UsageError, match=r"p.yaml:6: a SHA-256 has 64 digits"):
        presets.load(str(path))


def test_a_shipped_model_needs_no_hash_and_may_have_one() -> None:
    shipped = library.find("voice-live")
    assert shipped is not None
    text = "schema: 2\nname: x\nchain:\n- plugin: denoise\n  model: voice-live\n  model_sha256: "
    assert presets.parse(text + sha256_of(shipped)).chain[0].hashes == {"model": sha256_of(shipped)}
    with pytest.raises(UsageError, match=r"preset:6: .* is not the file"):
        presets.parse(text + "0" * 64)


def test_code_runs_for_a_preset_given_by_its_path_or_that_holds_its_hash_and_shows_it(tmp_path: Path) -> None:
    folder = presets.user_folder()
    folder.mkdir(parents=True)
    plugin, ran, path = folder / "own.py", folder / "ran", folder / "coded.yaml"
    plugin.write_text(PLUGIN)
    text = "schema: 2\nname: x\nchain:\n- plugin: own.py\n  params: {depth: 0.25}\nmidi:\n"
    path.write_text(text + "- {control: cc 1, target: own.depth}\n")

    assert presets.load("coded", "never").chain[0].params == {"depth": 0.25}
    with pytest.raises(UsageError, match=rf"coded.yaml:4: .*own.py is code, .* plugin_sha256: {sha256_of(plugin)}"):
        presets.load("coded")
    assert not ran.exists(), "nothing but playing it runs the code"

    preset = presets.load(str(path))
    assert ran.read_text() == "x", "once for each content"
    assert preset.items()[0].plugin.notice == f"plugin {plugin}, sha256 {sha256_of(plugin)}"
    presets.save(preset, path)
    assert presets.load("coded") == preset, "saving wrote the hash"
    with pytest.raises(UsageError, match=r"coded.yaml:6: .*depth: 2 is out of range"):
        path.write_text(path.read_text().replace("depth: 0.25", "depth: 2"))
        presets.load("coded")
    path.write_text(path.read_text().replace("depth: 2", "depth: 0.25"))
    plugin.write_text(PLUGIN + "# changed\n")
    for name in ("coded", str(path)):
        with pytest.raises(UsageError, match=r"coded.yaml:5: .*own.py is not the file that this preset was made with"):
            presets.load(name)
    assert ran.read_text() == "x"


def test_code_that_changes_after_the_preset_was_read_does_not_run(tmp_path: Path) -> None:
    plugin = tmp_path / "own.py"
    plugin.write_text(PLUGIN + "# first\n")
    path = tmp_path / "p.yaml"
    path.write_text("schema: 2\nname: x\nchain:\n- plugin: own.py\n")
    preset = presets.load(str(path))
    assert (preset.trusted, presets.load("bypass").trusted) == (True, False)
    plugin.write_text(PLUGIN + "# second\n")
    with pytest.raises(UsageError, match=r"own.py has changed since the preset was read; load the preset again"):
        preset.items()
    assert (tmp_path / "ran").read_text() == "x", "only the first has run"
    assert len(presets.load(str(path)).items()) == 1


def test_values_by_name() -> None:
    preset = presets.parse(FULL)
    values = preset.values()
    assert values["gain.gain_db"] == -6.5 and values["gain-2.gain_db"] == 0 and values["highpass.mix"] == 100
    assert set(values) == set(preset.declared())
    changed = preset.with_values({"gain-2.gain_db": 3, "highpass.bypass": 1})
    assert changed.values() == values | {"gain-2.gain_db": 3.0, "highpass.bypass": 1.0}
    with pytest.raises(UsageError, match=r"Everything has no parameter 'gain-3.gain_db'; it has: highpass.bypass"):
        preset.with_values({"gain-3.gain_db": 3})
    with pytest.raises(UsageError, match="out of range"):
        preset.with_values({"gain.gain_db": 300})


def test_the_sound_fades_over_to_a_preset_as_long_as_it_says() -> None:
    ones = np.ones((1, 48000), np.float32) / 4

    def heard(crossfade_ms: float | None) -> NDArray[np.float32]:
        silent = Preset("silent", (Entry("gain", {"mix": 100, "gain_db": -60}),), crossfade_ms=crossfade_ms)
        renderer = offline.Renderer(Preset("all", (Entry("gain"),)), 48000, 1)
        return renderer.perform(ones, [offline.Step(1000, preset=silent)])[0, 1000:]

    assert heard(500)[12000] == pytest.approx(0.125, rel=0.01), "half of the way after half of the time"
    assert heard(500)[24001] < 0.001 < heard(500)[23900]
    assert heard(20)[961] < 0.001 < heard(20)[900]
    assert heard(None)[900] > 0.001


@pytest.mark.parametrize("name", sorted(p.stem for p in presets.FACTORY.glob("*.yaml")))
def test_every_factory_preset_is_valid_and_says_what_it_is_for(name: str) -> None:
    preset = presets.load(name)
    assert preset.description and preset.tags and preset.author and preset.licence
    assert presets.dump(preset) == presets.find(name).read_text(encoding="utf-8"), "as saving would write it"


def test_the_preset_in_the_documents_is_one() -> None:
    page = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8")
    text = page.split("```yaml\n")[1].split("```")[0].replace("mine.ts", "voice-live")
    assert len(presets.parse(re.sub(".*model_sha256.*\n", "", text)).midi) == 3


def test_factory_presets_have_programs_of_their_own() -> None:
    found = [presets.parse(p.read_text(encoding="utf-8")) for p in presets.FACTORY.glob("*.yaml")]
    assert sorted(p.program for p in found if p.program is not None) == list(range(len(found)))
