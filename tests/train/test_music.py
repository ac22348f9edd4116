"""The codec's music mode by its commands: recordings in, tables and a net out that code music."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support import speechlike

from rtgan import cli
from rtgan.io import files
from rtgan.kernels import entropy, music
from rtgan.train import music_eval
from rtgan.train.checkpoint import load_checkpoint
from rtgan.train.data import Clip, load_corpus
from rtgan.train.music_data import held_out, recordings
from rtgan.train.music_export import tables_of
from rtgan.train.music_net import MusicNet, MusicSettings

CONFIG = """
name: small
task: music
steps: 2
batch: 2
frames: 8
counted: 6
network: {width: 8}
"""


def struck(pitch: float, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(round(seconds * 48000)) / 48000
    return (0.3 * np.exp(-4 * t) * sum(np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 9))).astype(np.float32)


def test_what_is_trained_and_exported_codes_music_and_tells_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_command(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["rtgan", *map(str, words)])
        return cli.main(sys.argv[1:])

    data, run, model = tmp_path / "data", tmp_path / "run", tmp_path / "small.ts"
    for folder in ("speech", "music/notes"):
        (data / folder).mkdir(parents=True)
    soundfile.write(data / "speech" / "0.wav", 0.5 * speechlike(1.0, 16000, seed=0), 16000)
    for k in range(16):
        soundfile.write(data / "music" / "notes" / f"{k}.wav", struck(110 * 2 ** (k / 12)), 48000)
    (tmp_path / "small.yaml").write_text(CONFIG)
    given = ["--data", data, "--cache", tmp_path / "cache"]
    assert run_command("train", tmp_path / "small.yaml", *given, "--out", run) == 0
    assert "2 of 2 steps done" in capsys.readouterr().out
    assert load_checkpoint(run)["counts"].sum() > 1000
    measuring = ["--peers", "opus", "--count", 2, "--json", tmp_path / "figures.json"]
    assert run_command("export", run, "-o", model) == 0
    assert run_command("eval", "codec", "--music", *given, "--model", model, *measuring) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert all(row["mel"] > 0 for row in figures.values()) and "rtgan, music, 24 kbit/s" in figures
    assert run_command("export", run, "-o", model, "--metrics", tmp_path / "figures.json") == 0
    capsys.readouterr()
    assert run_command("info", model) == 0
    assert "24 kbit/s" in capsys.readouterr().out
    source, coded, back = tmp_path / "in.wav", tmp_path / "out.rtg", tmp_path / "back.wav"
    files.write(source, struck(330)[None], 48000)
    assert run_command("encode", source, "-o", coded, "--music", "--model", model) == 0
    assert run_command("decode", coded, "-o", back, "--model", model) == 0
    out, rate = files.read(back)
    assert rate == 48000 and np.square(out[0] - struck(330)).sum() < 0.3 * np.square(struck(330)).sum()
    (tmp_path / "figures.json").write_text("[]")
    assert run_command("export", run, "-o", model, "--metrics", tmp_path / "figures.json") == 2
    assert "rtgan eval codec --music --json" in capsys.readouterr().err
    corpus = load_corpus(data, tmp_path / "cache")
    sides = [{clip.file for clip in recordings(corpus, side)} for side in (False, True)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 16 and sides[1]


def test_of_every_kind_some_are_held_out_and_what_the_corpus_holds_out_always() -> None:
    names = [f"a/note{k}" for k in range(30)] + [f"a/loop_{k}" for k in range(3)] + ["b/piano", "b/guitar", "c/one"]
    clips = [Clip(n, "music", "g", "s", "l", 48000, 0, 9, 1.0, n == "a/note7") for n in names]
    apart = held_out(clips)
    assert "a/note7" in apart and "c/one" not in apart
    for kind, count in (("a/note", 5), ("a/loop", 1), ("b/", 1)):
        assert count <= sum(name.startswith(kind) for name in apart) <= count + 1


def test_tables_know_every_symbol_and_believe_what_was_counted() -> None:
    counts = np.zeros((music.ROWS, music.SYMBOLS))
    counts[music.VALUE_ROWS, 0] = 1000
    tables = tables_of(counts)
    widths = np.diff(tables.astype(np.int64), axis=1)
    assert tables.shape == (music.ROWS, music.SYMBOLS + 1) and (widths > 0).all()
    assert widths[music.VALUE_ROWS, 0] > 0.9 * entropy.WHOLE
    even = widths[music.EVEN_ROW] / entropy.WHOLE
    assert abs(even[0] - 0.5) < 0.01 and abs(even[1] - 0.5) < 0.01
    assert widths[music.KIND_ROWS + music.SILENT, music.SILENT] > 0.95 * entropy.WHOLE


def test_the_net_answers_frame_by_frame_as_it_learns() -> None:
    net = MusicNet(MusicSettings(width=16))
    torch.nn.init.normal_(net.out.weight)
    rows = torch.randn(1, 9, music.ROW)
    state, answers = torch.zeros(1, 16), []
    for row in rows[0]:
        answer, state = net(row[None], state)
        answers.append(answer)
    assert torch.allclose(torch.cat(answers), net.sequence(rows)[0], atol=1e-5)


def test_the_distance_is_nothing_for_the_same_and_grows_with_what_is_lost() -> None:
    sound = struck(220)
    noise = np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32)
    distances = [music_eval.mel_distance(sound + level * noise, sound) for level in (0.0, 1e-3, 1e-2)]
    assert distances[0] == 0 < distances[1] < distances[2]
    # Ten times as loud is a step of 1 in every decimal logarithm, but in low bands so narrow that they hold no bin.
    assert 0.9 < music_eval.mel_distance(10 * noise, noise) < 1
    assert music_eval.mel_distance(sound[:3], sound[:3]) == 0


def test_systems_are_told_apart_by_folder_too() -> None:
    rng = np.random.default_rng(1)
    sounds = [(folder, (0.1 * rng.standard_normal(4800)).astype(np.float32)) for folder in ("bells", "drums", "bells")]
    spoils = music_eval.System("spoils drums", lambda sound: (sound * (0 if sound is sounds[1][1] else 1), 480))
    results = music_eval.measure(sounds, [spoils])
    row = results["spoils drums"]
    assert row["mel_by_folder"]["bells"] == 0 < row["mel_by_folder"]["drums"]
    assert row["mel"] == pytest.approx(row["mel_by_folder"]["drums"] / 3, abs=1e-4)
    assert row["bit_s"] == 4800
    assert "| spoils drums | 0.0000 |" in music_eval.table(results)
