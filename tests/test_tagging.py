"""``rtgan tag``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support import speechlike

from rtgan import cli
from rtgan.tagging import Recognised, recognise


@pytest.fixture(scope="module")
def take(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tag") / "take.wav"
    sound = np.concatenate([np.zeros(22050, np.float32), speechlike(1.0, 22050), np.zeros(22072, np.float32)])
    soundfile.write(path, sound, 22050)
    return path


def test_probabilities_every_100_ms_as_csv_and_json(take: Path, tmp_path: Path) -> None:
    for name in ("out.csv", "out.json"):
        assert cli.main(["tag", str(take), "-o", str(tmp_path / name)]) == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    (whole,) = json.loads((tmp_path / "out.json").read_text())
    assert len(rows) == len(whole["probabilities"]) == 31, "3.001 s: the last step is filled up"
    assert [r["time_s"] for r in rows[:3]] == ["0.1", "0.2", "0.3"]
    assert [float(rows[5][k]) for k in whole["labels"]] == whole["probabilities"][5]
    assert rows[5]["tag"] == whole["tags"][5] == "silence" and float(rows[5]["silence"]) > 0.9
    assert float(rows[15]["silence"]) < 0.1
    quiet = [s for s in whole["spans"] if s["label"] == "silence"]
    assert quiet[0]["start_s"] < 0.3 and 0.8 < quiet[0]["end_s"] < 1.3
    assert quiet[-1]["end_s"] == pytest.approx(3.001, abs=1e-3)


def test_labels_for_audacity_and_a_timeline(take: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    out, picture = tmp_path / "out.txt", tmp_path / "out.png"
    assert cli.main(["tag", str(take), "-o", str(out), "--png", str(picture)]) == 0
    lines = [line.split("\t") for line in out.read_text().splitlines()]
    assert lines and all(0 <= float(a) < float(b) <= 3.01 and name for a, b, name in lines)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "3.0 s, mostly" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["missing.wav"], "there is no file missing.wav"),
        (["{take}", "-o", "out.xml"], "must end in .csv, .json, .txt"),
        (["{take}", "--png", "out.jpg"], "must end in .png"),
        (["{take}", "-o", "no/where.csv"], "does not exist"),
        (["{take}", "--threshold", "2"], "allowed: 0.05 to 0.95"),
        (["{take}", "{take}", "-o", "out.txt"], "of one file"),
        (["{take}", "--model", "voice"], "cannot recognise sounds"),
        (["{take}", "--model", "nothing"], "there is no model"),
        (["{text}"], "is not a readable sound file"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    words: list[str], told: str, take: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    assert cli.main(["tag", *(w.format(take=take, text=text) for w in words)]) != 0
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


def test_the_whole_is_called_by_the_exact_label_unless_only_the_general_one_is_sure() -> None:
    def mostly(*chances: float) -> str:
        labels = ("silence", "noise", "rain", "speech")
        return Recognised(labels, np.array([chances], np.float32), np.array([0]), 0.1).mostly()

    assert mostly(0.0, 0.9, 0.8, 0.1) == "rain"
    assert mostly(0.0, 0.9, 0.2, 0.1) == "noise"
    assert mostly(0.9, 0.1, 0.2, 0.1) == "silence"


def test_one_thing_at_a_time_is_what_is_probably_the_loudest() -> None:
    labels = ("silence", "speech", "rain", "music", "mainly_speech", "mainly_music")
    rows = np.array([
        [0.9, 0.0, 0.0, 0.0, 0.6, 0.4],
        [0.1, 0.9, 0.0, 0.9, 0.2, 0.7],
        [0.1, 0.9, 0.0, 0.9, 0.3, 0.6],
        [0.1, 0.9, 0.8, 0.1, 0.8, 0.1],
        [0.1, 0.9, 0.8, 0.1, 0.4, 0.3],
    ], np.float32)  # fmt: skip
    found = Recognised(labels, rows, np.array([0, 1, 1, 2, 2]), 0.45)
    assert found.foremost() == ["silence", "music", "music", "speech", ""]
    assert found.foremost(0.05) == ["silence", "music", "music", "speech", "speech"]
    assert found.tags() == ["silence", "speech", "speech", "rain", "rain"]
    spans = [(s.start_s, s.end_s, s.label, s.probability) for s in found.spans(mainly=True)]
    expected = [(0.0, 0.1, "silence", 0.9), (0.1, 0.3, "music", 0.65), (0.3, 0.4, "speech", 0.8)]
    assert [pytest.approx(e) for e in (s[:2] + s[3:] for s in spans)] == [e[:2] + e[3:] for e in expected]
    assert [s[2] for s in spans] == [e[2] for e in expected]
    assert {s.label for s in found.spans()} == {"silence", "speech", "rain", "music"}
    assert found.mostly() == "speech" and found.mostly(mainly=True) == "music"
    quiet = Recognised(labels, rows[:1], np.array([0]), 0.1)
    assert quiet.mostly(mainly=True) == "silence"
    none = Recognised(("rain",), rows[:1, :1], np.array([0]), 0.1)
    assert none.foremost() == [""] and none.spans(mainly=True) == [] and none.mostly(mainly=True) == ""


def test_of_a_model_without_other_labels_for_them_the_loudest_are_told() -> None:
    found = Recognised(("rain", "mainly_music"), np.array([[0.6, 0.9]] * 3, np.float32), np.zeros(3, int), 0.3)
    assert found.tags(mainly=True) == ["music"] * 3
    assert [(s.label, s.end_s) for s in found.spans(mainly=True)] == [("music", pytest.approx(0.3))]


def test_mainly_is_written_in_every_form(take: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("out.csv", "out.json", "out.txt"):
        assert cli.main(["tag", str(take), "--mainly", "-o", str(tmp_path / name)]) == 0
    (whole,) = json.loads((tmp_path / "out.json").read_text())
    tags = [r["tag"] or None for r in csv.DictReader((tmp_path / "out.csv").open())]
    assert tags == whole["tags"] and set(tags) <= {"silence", "speech", "music", "noise", None}
    assert set(tags) - {"silence", None} and whole["mostly"] in set(tags) - {"silence"}
    spans = [line.split("\t") for line in (tmp_path / "out.txt").read_text().splitlines()]
    assert [s[2].split()[0] for s in spans] == [s["label"] for s in whole["spans"]]
    edges = [float(edge) for s in spans for edge in s[:2]]
    assert edges == sorted(edges), "one after the other"
    capsys.readouterr()
    assert cli.main(["tag", str(take), "--mainly"]) == 0
    assert "silence" in capsys.readouterr().out


def test_stereo_and_less_than_a_step_are_heard() -> None:
    found = recognise(np.zeros((2, 100), np.float32), 48000)
    assert found.probabilities.shape == (1, len(found.labels)) and found.spans()[0].end_s == pytest.approx(100 / 48000)
