"""Saving, renaming and deleting presets of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtgan import cli, preset_files, presets, setlist
from rtgan.errors import RtganError, UsageError
from rtgan.setlist import SetList, Slot

PRESET = "schema: 2\nname: {name}\nchain:  # kept\n- plugin: gain\n{more}"


def write(stem: str, name: str = "", more: str = "") -> Path:
    path = presets.user_folder() / f"{stem}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PRESET.format(name=name or stem.title(), more=more))
    return path


def test_a_preset_gets_another_name_and_what_leads_to_it_follows() -> None:
    old, friend = write("club"), write("friend", more="morph: club\n")
    setlist.save(SetList((Slot("clean", 0), Slot("club", 1)), "Tour"))
    kept = {path: path.read_bytes() for path in (old, friend, setlist.path())}
    change, preset = preset_files.rename("club", "The Big Club")
    assert (preset.name, preset.path) == ("The Big Club", presets.user_folder() / "the-big-club.yaml")
    assert not old.exists() and presets.load("the-big-club").name == "The Big Club"
    assert presets.load("friend").morph == "the-big-club"
    assert [s.preset for s in setlist.load().slots] == ["clean", "the-big-club"]
    change.undo()
    assert {path: path.read_bytes() for path in kept} == kept, "to the byte, comments and all"
    assert presets.names().count("the-big-club") == 0
    change.redo()
    assert presets.load("the-big-club").name == "The Big Club" and not old.exists()


def test_a_name_alone_may_change() -> None:
    path = write("club", "Club")
    _, preset = preset_files.rename("club", "CLUB")
    assert (preset.path, presets.load("club").name) == (path, "CLUB")


def test_a_rename_that_fails_changes_nothing() -> None:
    old = write("club")
    setlist.path().write_text("schema: 1\npresets: [club, gone]\n")
    with pytest.raises(UsageError, match="there is no preset 'gone'"):
        preset_files.rename("club", "Bar")
    assert sorted(p.name for p in presets.user_folder().iterdir()) == ["club.yaml"]
    setlist.path().unlink()
    with pytest.raises(UsageError, match="U\\+0007"):
        preset_files.rename("club", "Bar\a")
    assert sorted(p.name for p in presets.user_folder().iterdir()) == ["club.yaml"]
    assert old.read_text() == PRESET.format(name="Club", more="")


def test_a_preset_is_deleted_and_comes_back_as_it_was() -> None:
    path = write("club")
    broken = write("broken", more="what: is this\n")
    broken.write_bytes(broken.read_bytes() + b"\xff\xfe")
    for name, file in (("club", path), ("broken", broken)):
        data = file.read_bytes()
        change = preset_files.delete(name)
        assert not file.exists()
        change.undo()
        assert file.read_bytes() == data
    write("friend", more="morph: club\n")
    setlist.save(SetList((Slot("club", 0),)))
    with pytest.raises(UsageError, match="club is needed: Friend morphs to it and the set list names it"):
        preset_files.delete("club")


def test_rules_that_load_a_preset_follow_it_and_keep_it() -> None:
    write("club")
    door = write("door", more="- plugin: tags\nrules:\n- {when: tags.music, above: 0.5, load: club}\n")
    with pytest.raises(UsageError, match="club is needed: a rule of Door loads it"):
        preset_files.delete("club")
    preset_files.rename("club", "Bar")
    assert "load: bar" in door.read_text() and presets.load("door", "never").rules[0].load == "bar"


def test_what_is_the_factory_s_stays_and_one_s_own_stands_in_front() -> None:
    for act in (preset_files.delete, lambda name: preset_files.rename(name, "Mine")):
        with pytest.raises(UsageError, match="clean is a factory preset and stays as it is"):
            act("clean")
    own = write("clean")
    setlist.save(SetList((Slot("clean", 0),)))
    assert preset_files.stands_in_front(own)
    assert presets.load("clean").path == own
    preset_files.delete("clean")
    assert presets.load("clean").path == presets.FACTORY / "clean.yaml"


@pytest.mark.parametrize("name", ["../club", "/etc/passwd", "..", "~", "", "club.yaml", "a/b", "C:\\x", "x" * 5000])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    outside = presets.user_folder().parent / "club.yaml"
    write("inside")
    outside.write_text(PRESET.format(name="Club", more=""))
    for act in (preset_files.delete, lambda n: preset_files.rename(n, "Mine")):
        with pytest.raises(UsageError, match="there is no preset of your own"):
            act(name)
    for new in ("../../club", "/tmp/x", "..\\x.yaml"):
        _, preset = preset_files.rename("inside", new)
        assert preset.path is not None and preset.path.parent == presets.user_folder()
        preset_files.rename(preset.path.stem, "inside")
    with pytest.raises(UsageError, match=r"no letter or digit|too long"):
        preset_files.rename("inside", "../.." if len(name) < 100 else name)
    assert outside.exists() and [p.name for p in presets.user_folder().iterdir()] == ["inside.yaml"]


def test_a_file_that_cannot_be_written_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("club")
    change = preset_files.delete("club")
    presets.user_folder().rmdir()
    presets.user_folder().write_text("a file in the way")
    with pytest.raises(RtganError, match="cannot be"):
        change.undo()
    assert not path.exists()


def test_the_shell_renames_and_deletes(capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, Any]:
        code = cli.main(["presets", *words])
        return code, capsys.readouterr()

    write("club")
    assert run("rename", "club", "Clean")[1].out.splitlines() == [
        str(presets.user_folder() / "clean.yaml"),
        "It stands in front of the factory preset of the same name; delete it to have that back.",
    ]
    code, said = run("rename", "clean", "a")
    assert code == 0 and said.out == f"{presets.user_folder() / 'a.yaml'}\n"
    write("b")
    assert run("rename", "a", "b") == (2, ("", "rtgan: there is a preset b already\n"))
    assert run("delete", "clean")[1].err == (
        "rtgan: clean is a factory preset and stays as it is; save it under a name of your own\n"
    )
    assert run("delete", "a")[1].out == f"{presets.user_folder() / 'a.yaml'} is deleted\n"
    write("clean")
    assert run("delete", "clean")[1].out.endswith("is deleted; the factory preset of the same name is back\n")
    assert run("delete", "a")[0] == 2
