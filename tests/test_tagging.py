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


def test_stereo_and_less_than_a_step_are_heard() -> None:
    found = recognise(np.zeros((2, 100), np.float32), 48000)
    assert found.probabilities.shape == (1, len(found.labels)) and found.spans()[0].end_s == pytest.approx(100 / 48000)
