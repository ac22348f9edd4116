"""Exports and measurements: the file answers as the net did, the card is true, the figures are right."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ROOT

from rtgan.errors import RtganError, UsageError
from rtgan.generators import library
from rtgan.train import commands, evaluate, peers, scoring
from rtgan.train.export import export_run, read_model
from rtgan.train.loop import enhance, load_checkpoint, parse_config
from rtgan.train.networks import Denoiser, stream

KEYS = {
    "schema", "name", "task", "version", "licence", "sample_rate_hz", "n_fft", "hop_samples", "synthesis_samples",
    "lookahead_frames", "latency_samples", "channels", "state_size", "description", "training", "metrics",
    "test_vector", "parameters",
}  # fmt: skip


def test_export_answers_as_the_averaged_net(run: Path, tmp_path: Path) -> None:
    content = load_checkpoint(run)
    config = parse_config(content["config"], "checkpoint")
    net = Denoiser(config.network)
    net.load_state_dict(content["ema"])
    export_run(run, tmp_path / "net.ts")
    module, card, vector = read_model(tmp_path / "net.ts")
    spectrum = torch.from_numpy(vector["input"]).transpose(0, 1)[None]
    with torch.no_grad():
        answer = stream(module, spectrum, card["state_size"])[0][0].transpose(0, 1).numpy()
        whole = net.eval()(spectrum)[0][0].transpose(0, 1).numpy()
    assert np.abs(vector["input"]).max() > 0
    assert np.array_equal(answer, vector["output"])
    assert np.allclose(answer, whole, atol=1e-5 * np.abs(whole).max())
    assert card["latency_samples"] == 192
    signal = torch.randn(1, 3000, generator=torch.Generator().manual_seed(0)) * 0.1
    system = peers.model_system(tmp_path / "net.ts")
    with torch.no_grad():
        reference = enhance(net, config.stft, signal).numpy()
    assert np.allclose(system.enhance(signal.numpy()), reference, atol=1e-5)


def test_card_is_complete_and_names_no_local_path(run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "net.ts", name="other", metrics={"mixes": 3})
    _, card, _ = read_model(tmp_path / "net.ts")
    assert set(card) >= KEYS
    assert (card["name"], card["metrics"], card["lookahead_frames"]) == ("other", {"mixes": 3}, 0)
    assert card["training"]["steps"] == 4 and card["training"]["sources"][0]["licence"] == "MIT"
    curve = card["training"]["curve"]
    assert curve["step"][-1] == 4 and len(curve["loss"]) == len(curve["step"])
    told = library.describe(tmp_path / "net.ts")
    assert f"{curve['loss'][0]:.4g} to {curve['loss'][-1]:.4g}" in told
    assert str(tmp_path) not in json.dumps(card)
    with zipfile.ZipFile(tmp_path / "net.ts") as archive:
        assert not any(str(ROOT).encode() in archive.read(name) for name in archive.namelist())


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model"):
        read_model(tmp_path / "none.ts")
    (tmp_path / "junk.ts").write_bytes(b"junk")
    with pytest.raises(RtganError, match="not a model with a card"):
        read_model(tmp_path / "junk.ts")


def test_si_sdr_of_known_pairs() -> None:
    rng = np.random.default_rng(0)
    target, noise = rng.standard_normal((2, 48000))
    noise -= target * (noise @ target) / (target @ target)
    noise *= np.linalg.norm(target) / np.linalg.norm(noise)
    for wanted in (0.0, 12.0):
        mixed = target + noise * 10 ** (-wanted / 20)
        assert scoring.si_sdr_db(3 * mixed, target) == pytest.approx(wanted, abs=0.05)


def test_rnnoise_comes_out_aligned(corpus: Any) -> None:
    pytest.importorskip("pyrnnoise")
    system = peers.rnnoise_system()
    assert system is not None
    mix = evaluate.development_mixes(corpus, 1)[0]
    out = system.enhance(mix.clean[None])[0]
    size = 2 * len(out)
    lag = int(np.argmax(np.fft.irfft(np.fft.rfft(out, size) * np.conj(np.fft.rfft(mix.clean, size)))))
    assert min(lag, size - lag) <= 2


def _parsed(kind: str, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    getattr(commands, f"add_{kind}_arguments")(parser)
    return parser.parse_args(words)


def test_train_export_and_eval_from_the_command_line(
    tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    config, out, model = tmp_path / "tiny.yaml", tmp_path / "run", tmp_path / "tiny.ts"
    config.write_text(json.dumps(tiny))
    assert commands.run_train(_parsed("train", str(config), "--out", str(out), "--steps", "2")) == 0
    with pytest.raises(UsageError, match="--resume"):
        commands.run_train(_parsed("train", str(config), "--out", str(out)))
    assert commands.run_train(_parsed("train", str(config), "--out", str(out), "--steps", "3", "--resume")) == 0
    assert commands.run_export(_parsed("export", str(out), "-o", str(model))) == 0
    figures = tmp_path / "figures.json"
    words = ("denoise", "--model", str(model), "--peers", "--count", "2", "--json", str(figures))
    assert commands.run_eval(_parsed("eval", *words)) == 0
    systems = json.loads(figures.read_text())["systems"]
    assert list(systems) == ["noisy", "tiny"] and systems["tiny"]["latency_ms"] == 4.0
    assert "PESQ-WB" in capsys.readouterr().out
    commands.run_export(_parsed("export", str(out), "-o", str(model), "--metrics", str(figures)))
    metrics = read_model(model)[1]["metrics"]
    assert metrics["pesq_wb"] == systems["tiny"]["pesq_wb"] and list(metrics["compared"]) == ["noisy"]
    with pytest.raises(UsageError, match="no scores of 'other'"):
        commands.run_export(_parsed("export", str(out), "-o", "x.ts", "--name", "other", "--metrics", str(figures)))


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("train", ("nowhere.yaml",), "cannot be read"),
        ("train", ("voice", "--budget-minutes", "0"), "--budget-minutes"),
        ("train", ("voice", "--out", "nowhere", "--resume"), "no checkpoint to resume"),
        ("export", ("nowhere", "-o", "x.ts"), "no checkpoint"),
        ("eval", ("denoise", "--count", "0"), "--count"),
        ("eval", ("denoise", "--model", "nowhere.ts"), "no model"),
    ],
)
def test_bad_commands_get_one_sentence(kind: str, words: tuple[str, ...], message: str) -> None:
    with pytest.raises((RtganError, UsageError), match=message):
        getattr(commands, f"run_{kind}")(_parsed(kind, *words))
