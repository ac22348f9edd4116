from __future__ import annotations

import json
from pathlib import Path

import pytest

from rtgan import cli, presets
from rtgan.presets import Entry, Preset


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, list[str], str]:
    """Exit code, lines of output, errors of ``rtgan presets ...``."""
    code = cli.main(["presets", *args])
    done = capsys.readouterr()
    return code, done.out.splitlines(), done.err


def test_presets_are_listed_with_chain_program_and_whose_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    presets.save(Preset("Mine", tags=("own",)), presets.user_folder() / "mine.yaml")
    code, lines, _ = run(capsys)
    assert code == 0 and (code, lines, "") == run(capsys, "list")
    assert "clean            highpass > denoise > limiter  (program 0)" in lines
    assert "mine             (nothing)  (yours)" in lines
    assert run(capsys, "list", "--tag", "own")[1] == ["mine             (nothing)  (yours)", " " * 17 + "Mine"]
    (presets.user_folder() / "broken.yaml").write_text("schema: 9")
    code, lines, _ = run(capsys)
    assert code == 1 and any("broken.yaml:1: schema is 9" in line for line in lines)


def test_a_preset_is_shown_with_values_ranges_controls_and_snapshots(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, _ = run(capsys, "show", "clean")
    assert code == 0
    for line in (
        "program 0",
        "  cutoff_hz = 70 Hz   (10 to 2000 Hz; Frequency that is 3 dB down.)",
        "  cc 12 -> denoise.amount_db  (pickup, 0 to 60)",
        "  cc 80 -> denoise.bypass  (toggle)",
        "snapshot 1: Quiet room",
        "  denoise.amount_db = 20 dB",
    ):
        assert line in lines
    code, lines, _ = run(capsys, "show", "clean", "--yaml")
    assert "\n".join(lines) + "\n" == presets.find("clean").read_text(encoding="utf-8")
    assert run(capsys, "show", "nothing")[2].startswith("rtgan: there is no preset 'nothing'; known are: bypass")


def test_checking_names_every_fault_and_runs_no_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "check")[:2] == (0, [f"{name}: valid" for name in presets.names()])
    (tmp_path / "own.py").write_text("raise SystemExit('this must not run')")
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("schema: 2\nname: x\nchain:\n- plugin: own.py\n  params: {depth: 3, soft: on}\n")
    bad.write_text("schema: 2\nname: x\nchain:\n- plugin: gain\n  params: {gain_db: 99}\n")
    code, lines, _ = run(capsys, "check", str(good), str(bad))
    assert code == 1
    assert lines[0].endswith("own.py, which is code and was not run")
    assert lines[1] == f"{bad}: {bad}:5: gain.gain_db: 99 is out of range for gain_db; allowed: -60 to 24 dB"
    for command in ("show", "diff"):
        code, lines, err = run(capsys, command, str(good), *([str(good)] if command == "diff" else []))
        assert (code, err) == (0, "")


def test_checking_everything_takes_set_list_map_and_programs_in(capsys: pytest.CaptureFixture[str]) -> None:
    folder = presets.user_folder()
    for name in ("one", "two"):
        presets.save(Preset(name, program=9), folder / f"{name}.yaml")
    (folder.parent / "midi.yaml").write_text("schema: 1\nmidi: [{control: cc 1, target: host.loud}]")
    (folder.parent / "setlist.yaml").write_text("schema: 1\npresets: [nothing]")
    code, lines, _ = run(capsys, "check")
    assert code == 1
    assert "two: program 9 calls one already" in lines
    assert any(line.startswith("midi.yaml: ") and "midi.yaml:2: there is no target" in line for line in lines)
    assert any(line.startswith("setlist.yaml: ") and "setlist.yaml:2: there is no preset" in line for line in lines)


def test_a_new_preset_begins_as_a_copy_with_values_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, _ = run(capsys, "new", "My Voice!", "--from", "stage", "--set", "denoise.amount_db=12")
    path = presets.user_folder() / "my-voice.yaml"
    assert (code, lines) == (0, [str(path)])
    made, source = presets.load("my-voice"), presets.load("stage")
    assert made.name == "My Voice!" and made.program is None and made.midi == source.midi
    assert made.values() == source.values() | {"denoise.amount_db": 12.0}
    before = path.read_bytes()
    for arguments, message in (
        (["My voice"], "there is a preset"),
        (["!?"], "holds no letter or digit"),
        (["x", "--set", "denoise.loud=1"], "Clean has no parameter 'denoise.loud'; it has: highpass.bypass"),
        (["x", "--set", "denoise.amount_db=1000"], "denoise.amount_db: 1000 is out of range"),
        (["x", "--from", "nothing"], "there is no preset 'nothing'"),
    ):
        code, _, err = run(capsys, "new", *arguments)
        assert code == 2 and message in err
    assert path.read_bytes() == before and "x" not in presets.names()
    assert "stands in front of the factory preset" in run(capsys, "new", "Clean")[1][1]


def test_a_difference_is_said_in_plain_units_and_by_the_exit_code(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(capsys, "new", "Mine", "--set", "denoise.amount_db=12", "--set", "denoise.bypass=on")
    code, lines, _ = run(capsys, "diff", "clean", "mine")
    assert code == 1
    assert lines == [
        "name: Clean -> Mine",
        "author: rtgan -> nothing",
        "program: 0 -> nothing",
        "denoise.bypass: off -> on",
        "denoise.amount_db: 40 dB -> 12 dB",
    ]
    assert run(capsys, "diff", "clean", "clean")[:2] == (0, ["no difference"])
    presets.save(Preset("Clean", (Entry("gain"),)), tmp_path / "p.yaml")
    text = "schema: 2\nname: A\nchain:\n- plugin: gain\nsnapshots:\n- {name: x, values: {}}\n- {name: y, values: {}}\n"
    one, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    one.write_text(text)
    turned = text.replace("name: x", "name: z").replace("name: y", "name: x").replace("name: z", "name: y")
    other.write_text(turned.replace("plugin: gain", "plugin: gain\n  shed: never"))
    assert run(capsys, "diff", str(one), str(other))[:2] == (
        1,
        ["gain.shed: the plugin's own -> never", "snapshots: x, y -> y, x"],
    )
    lines = run(capsys, "diff", "clean", str(tmp_path / "p.yaml"))[1]
    assert "chain: highpass > denoise > limiter -> gain" in lines
    assert "snapshot Street: only in Clean" in lines
    assert any(line.startswith("midi: only in Clean: control: cc 12, target: denoise.amount_db") for line in lines)


def test_the_schema_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, _ = run(capsys, "schema")
    assert code == 0
    assert json.loads("\n".join(lines))["properties"]["schema"] == {
        "const": 2,
        "description": "Version of this format.",
    }
