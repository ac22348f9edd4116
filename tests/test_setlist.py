from __future__ import annotations

from pathlib import Path

import pytest

from rtgan import presets, setlist
from rtgan.errors import UsageError
from rtgan.presets import Preset
from rtgan.setlist import SetList, Slot

GOOD = """\
schema: 1
name: Tour
presets:
- clean
- {preset: stage, program: 5, bank: 129}
- gentle
- {preset: bypass, program: null}
"""


def test_a_set_list_is_read_and_written_byte_for_byte() -> None:
    found = setlist.parse(GOOD)
    assert found == SetList((Slot("clean", 0), Slot("stage", 5, 129), Slot("gentle", 2), Slot("bypass")), "Tour")
    assert setlist.dump(found) == GOOD
    setlist.save(found)
    assert setlist.path().read_text(encoding="utf-8") == GOOD
    assert setlist.load() == found


def test_a_program_change_calls_a_preset_and_next_and_previous_go_round() -> None:
    found = setlist.parse(GOOD)
    assert found.called(0) == "clean"
    assert found.called(5, 129) == "stage"
    assert found.called(5) is None and found.called(1) is None
    last = presets.load("bypass")
    assert found.step(presets.load("clean"), 1) == "stage"
    assert found.step(last, 1) == "clean"
    assert found.step(presets.load("clean"), -1) == "bypass"
    assert found.step(presets.load("voice-basic"), 1) == "clean", "from outside: its first"
    assert found.step(Preset("made in memory"), -1) == "bypass"
    assert SetList().step(last, 1) is None


def test_without_a_list_the_presets_own_programs_hold_and_the_users_come_first() -> None:
    order = [s.preset for s in setlist.load().slots]
    assert order[:3] == ["clean", "stage", "gentle"]
    presets.save(Preset("Mine", program=1), presets.user_folder() / "mine.yaml")
    presets.save(Preset("Loose"), presets.user_folder() / "loose.yaml")
    (presets.user_folder() / "broken.yaml").write_text("schema: 9")
    found = setlist.load()
    assert found.called(1) == "mine"
    assert [s.preset for s in found.slots if s.program is None] == ["loose", "stage"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema: 1\npresets:\n- nothing\n", "s.yaml:3: there is no preset 'nothing'; known are: bypass"),
        ("schema: 1\npresets:\n- clean\n- {preset: stage, program: 0}\n",
         "s.yaml:4: program 0 calls both clean and stage"),
        ("schema: 1\npresets:\n- {preset: stage, program: 128}\n", "s.yaml:3: program is 128; allowed: 0 to 127"),
        ("schema: 1\npresets:\n- {preset: stage, bank: -1}\n", "s.yaml:3: bank is -1"),
        ("schema: 2\npresets: []\n", "s.yaml:1: schema is 2"),
        ("schema: 1\nlist: []\n", "s.yaml:2: the set list has no key 'list'"),
        ("schema: 1\n", "s.yaml:1: the set list lacks the key 'presets'"),
        ("schema: 1\npresets: {a: b}\n", "s.yaml:2: presets must be a list"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        setlist.parse(text, "s.yaml")
    assert message in str(caught.value)


def test_a_list_may_name_files_beside_it(tmp_path: Path) -> None:
    presets.save(Preset("Here"), tmp_path / "here.yaml")
    found = setlist.parse("schema: 1\npresets: [here.yaml]\n", str(tmp_path / "setlist.yaml"))
    assert found.called(0) == str((tmp_path / "here.yaml").resolve())
