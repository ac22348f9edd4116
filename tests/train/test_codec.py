"""The codec by its commands: recordings in, a model that codes and decodes out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from support import speechlike

from rtgan import cli
from rtgan.io import files
from rtgan.train import codec_eval, codec_loop
from rtgan.train.checkpoint import load_checkpoint

CONFIG = """
name: small
task: codec
steps: 2
batch: 2
packets: 24
fewest_stages: 2
network: {width: 16, hidden: 16, encoder_blocks: 1, decoder_blocks: 1, latent: 8, stages: 3, codes: 16}
losses:
  compressed: {weight: 1.0, sample_rate_hz: 16000, complex_share: 0.0, n_fft: [256]}
"""


@pytest.mark.slow
def test_what_is_trained_and_exported_codes_and_tells_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_command(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["rtgan", *map(str, words)])
        return cli.main(sys.argv[1:])

    data, run, model = tmp_path / "data", tmp_path / "run", tmp_path / "small.ts"
    (data / "speech").mkdir(parents=True)
    for k in range(3):
        soundfile.write(data / "speech" / f"{k}.wav", 0.5 * speechlike(2.0, 16000, seed=k), 16000)
    (tmp_path / "small.yaml").write_text(CONFIG)
    given = ["--data", data, "--cache", tmp_path / "cache"]
    # So few codes need few batches to be found and counted by.
    monkeypatch.setattr(codec_loop, "_FIRST_BATCHES", 3)
    monkeypatch.setattr(codec_loop.CodecTrainer.told, "__defaults__", (4,))
    assert run_command("train", tmp_path / "small.yaml", *given, "--out", run) == 0
    assert "2 of 2 steps done" in capsys.readouterr().out
    # Another run goes on from these weights; it does not begin with principal components again.
    (tmp_path / "tuned.yaml").write_text(f"{CONFIG}learning_rate: 1.0e-9\n")
    going_on = ["--start-from", run, "--out", tmp_path / "tuned", "--steps", 1]
    assert run_command("train", tmp_path / "tuned.yaml", *given, *going_on) == 0
    before, after = (load_checkpoint(folder)["ema"] for folder in (run, tmp_path / "tuned"))
    assert torch.allclose(before["encoder.straight.weight"], after["encoder.straight.weight"], atol=1e-6)
    assert load_checkpoint(tmp_path / "tuned")["lineage"] == [{"name": "small", "batch": 2, "seed": 0, "steps": 2}]
    capsys.readouterr()
    figures = {"as recorded": {"stoi": 1.0}, "rtgan, 2 stages": {"bit_s": 900, "stoi": 0.5, "load": 0.01}}
    (tmp_path / "figures.json").write_text(json.dumps(figures))
    exporting = ["export", run, "-o", model, "--metrics", tmp_path / "figures.json"]
    assert run_command(*exporting) == 0
    assert run_command("info", model) == 0
    assert "2 stages" in capsys.readouterr().out
    source, coded, back = tmp_path / "in.wav", tmp_path / "out.rtg", tmp_path / "back.wav"
    files.write(source, speechlike(1.0, 16000, seed=9)[None], 16000)
    assert run_command("encode", source, "-o", coded, "--model", model) == 0
    assert run_command("decode", coded, "-o", back, "--model", model) == 0
    out, rate = files.read(back)
    assert rate == 16000 and out.shape == (1, 16000) and abs(out).max() > 1e-3
    (tmp_path / "figures.json").write_text(json.dumps({"rtgan, a.ts, 2 stages": {}, "rtgan, b.ts, 2 stages": {}}))
    assert run_command(*exporting) == 2
    assert "of several models" in capsys.readouterr().err
    (tmp_path / "figures.json").write_text("[]")
    assert run_command(*exporting) == 2
    assert "rtgan eval codec --json" in capsys.readouterr().err


def test_models_that_are_measured_together_are_told_apart() -> None:
    assert codec_eval.ours("codec", 3000).name == "rtgan, 7 stages"
    assert codec_eval.ours("codec", 3000, among=2).name == "rtgan, codec, 7 stages"
