from __future__ import annotations

import random
import stat
from pathlib import Path

import pytest

from rtgan import presets
from rtgan.errors import RtganError, UsageError
from rtgan.presets import Entry, Preset

GOOD = """\
schema: 1
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


def test_a_preset_is_read() -> None:
    preset = presets.parse(GOOD)
    assert preset.name == "Test"
    assert [e.plugin for e in preset.chain] == ["highpass", "gain"]
    assert preset.chain[1].params == {"gain_db": -6.0, "bypass": 1.0}
    assert preset.chain[1].label == "trim"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema: 1", "schema: 2", "p.yaml:1: schema is 2; this version of rtgan reads schema 1"),
        ("name: Test", "title: Test", "p.yaml:2: the preset has no key 'title'; allowed: schema, name"),
        ("name: Test", "name: 3", "p.yaml:2: name must be a text"),
        ("plugin: gain", "plugin: gian", "p.yaml:6: there is no plugin 'gian'; known are: denoise, gain"),
        ("gain_db: -6", "gain_db: -600", r"p.yaml:9: gain.gain_db: -600 is out of range .* -60 to 24 dB"),
        ("gain_db: -6", "gain: -6", "p.yaml:9: params of gain has no key 'gain'; allowed: bypass, mix, gain_db"),
        ("gain_db: -6", "gain_db: loud", "p.yaml:9: gain.gain_db: 'loud' is not a value"),
        ("gain_db: -6", "gain_db: .nan", "p.yaml:9: '.nan' is not a finite number"),
        ("gain_db: -6", "gain_db: [1]", "p.yaml:9: a single value is expected"),
        ("bypass: on", "bypass: 0.5", "p.yaml:10: gain.bypass: 0.5 is out of range .* on or off"),
        ("bypass: on", "gain_db: 1", "p.yaml:10: the key 'gain_db' stands twice"),
        ("chain:", "chain: 5\nrest:", "p.yaml:4: the preset has no key 'rest'"),
        ("label: trim", "label: trim\n  gain: 3", "p.yaml:8: the entry of gain has no key 'gain'"),
        ("schema: 1\n", "", "p.yaml:1: the preset lacks the key 'schema'"),
    ],
)
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
        ("schema: 1\nname: &a Test\nchain: []", "anchors and aliases"),
        ("schema: 1\nname: !!python/object/apply:os.system [id]\nchain: []", "tag"),
        ("schema: 1\nname: x\nchain: " + "[" * 2000, "nested deeper"),
        ("schema: 1\nname: x\x00\nchain: []", "malformed YAML"),
    ],
)
def test_malformed_and_hostile_files_end_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        presets.parse(text, "p.yaml")
    assert "\n" not in str(caught.value)


def test_mutilated_presets_never_raise_anything_else(rng: object) -> None:
    source = random.Random(7)
    for _ in range(400):
        text = list(GOOD)
        for _ in range(source.randint(1, 6)):
            at = source.randrange(len(text))
            action = source.random()
            if action < 0.4:
                text[at] = chr(source.choice([0, 9, 10, 33, 38, 42, 58, 91, 123, 0x2028, 0xFFFD, 48]))
            elif action < 0.7:
                del text[at : at + source.randint(1, 9)]
            else:
                text[at:at] = text[max(0, at - 20) : at]
        try:
            presets.parse("".join(text), "p.yaml")
        except RtganError as problem:
            assert "\n" not in str(problem)


def test_saving_is_byte_stable_and_reads_back(tmp_path: Path) -> None:
    preset = presets.parse(GOOD)
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    presets.save(preset, first)
    presets.save(presets.load(str(first)), second)
    assert first.read_bytes() == second.read_bytes()
    assert presets.load(str(second)) == preset
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.yaml", "b.yaml"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.yaml"
    presets.save(presets.parse(GOOD), target)
    before = target.read_bytes()
    with pytest.raises(UsageError):
        presets.save(Preset("x", (Entry("gain", {"gain_db": 900.0}),)), target)
    assert target.read_bytes() == before
    with pytest.raises(RtganError, match="cannot be written"):
        presets.save(presets.parse(GOOD), tmp_path / "a.yaml" / "below.yaml")


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
    binary.chmod(0)
    if not binary.stat().st_mode & stat.S_IRUSR and __import__("os").geteuid() != 0:
        with pytest.raises(RtganError, match="cannot be read"):
            presets.load(str(binary))


@pytest.mark.parametrize("name", sorted(p.stem for p in presets.FACTORY.glob("*.yaml")))
def test_every_factory_preset_is_valid_and_says_what_it_is_for(name: str) -> None:
    preset = presets.load(name)
    assert preset.description
    assert preset.tags
    assert presets.dump(preset) == presets.dump(presets.parse(presets.dump(preset)))
