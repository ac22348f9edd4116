"""The loop: it learns, resumes to the bit, and stops with a sentence when something is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from rtgan.errors import RtganError, UsageError
from rtgan.train.loop import CHECKPOINT, Trainer, enhance, load_checkpoint, load_config, parse_config

CONFIGS = Path(__file__).parents[2] / "rtgan" / "train" / "configs"


def test_a_tiny_set_is_learned(tiny: dict[str, Any], corpus: Any, tmp_path: Path) -> None:
    tiny |= {"steps": 60, "learning_rate": 0.02, "decay_share": 0.5, "losses": {"compressed": {"n_fft": [256]}}}
    trainer = Trainer(parse_config(tiny, "tiny.yaml"), corpus, tmp_path)
    mixes = [trainer.mixer(number) for number in range(4)]
    noisy = torch.stack([torch.from_numpy(m.noisy) for m in mixes])
    clean = torch.stack([torch.from_numpy(m.clean) for m in mixes])
    losses = [trainer.train_step(noisy, clean)["loss"] for _ in range(60)]
    assert losses[-1] < 0.6 * losses[0]


def test_a_resumed_run_equals_one_that_was_never_stopped(config: Any, corpus: Any, tmp_path: Path) -> None:
    whole = Trainer(config, corpus, tmp_path / "whole")
    whole.run(progress=False)
    stopped = Trainer(config, corpus, tmp_path / "parts")
    assert stopped.run(budget_minutes=1e-9, progress=False) == 1
    resumed = Trainer(config, corpus, tmp_path / "parts")
    resumed.restore()
    assert resumed.run(progress=False) == config.steps
    a, b = load_checkpoint(tmp_path / "whole"), load_checkpoint(tmp_path / "parts")
    for part in ("net", "ema"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    for number, values in a["optimiser"]["state"].items():
        assert all(torch.equal(v, b["optimiser"]["state"][number][k]) for k, v in values.items())


def test_workers_do_not_change_the_result(config: Any, corpus: Any, tmp_path: Path, run: Path) -> None:
    Trainer(dataclasses.replace(config, workers=1), corpus, tmp_path / "other").run(progress=False)
    a, b = load_checkpoint(run), load_checkpoint(tmp_path / "other")
    assert all(torch.equal(a["net"][name], b["net"][name]) for name in a["net"])


def test_rate_rises_stays_and_falls_to_zero(config: Any, corpus: Any, tmp_path: Path) -> None:
    config = dataclasses.replace(config, steps=100, warmup_steps=10, decay_share=0.5, learning_rate=1.0)
    rate = Trainer(config, corpus, tmp_path).learning_rate
    assert rate(0) == pytest.approx(0.1) and rate(9) == rate(40) == 1.0
    assert rate(75) == pytest.approx(0.5) and rate(100) == 0.0


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(config: Any, corpus: Any, tmp_path: Path) -> None:
    trainer = Trainer(config, corpus, tmp_path)
    good = trainer.save().read_bytes()
    noisy = torch.full((4, 14400), float("nan"))
    with pytest.raises(RtganError, match=r"not finite at step 0.*last good checkpoint"):
        trainer.train_step(noisy, noisy)
    assert (tmp_path / CHECKPOINT).read_bytes() == good and not list(tmp_path.glob("*.tmp"))


def test_enhanced_signals_are_aligned_with_their_input(config: Any, corpus: Any, tmp_path: Path) -> None:
    trainer = Trainer(config, corpus, tmp_path)
    net = trainer.net
    with torch.no_grad():
        for head in net.heads:
            for layer in (head.gains, head.filter):
                layer.weight.zero_()
                layer.bias.zero_()
            head.gains.bias.fill_(40.0)
        noisy = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0))
        for head in range(2):
            assert torch.allclose(enhance(net, config.stft, noisy, head), noisy, atol=1e-5)


def test_weights_of_another_run_are_taken_by_look_ahead(tiny: dict[str, Any], corpus: Any, run: Path) -> None:
    tiny["network"]["lookaheads"] = [2]
    trainer = Trainer(parse_config(tiny, "tiny.yaml"), corpus, run.parent / "tuned")
    trainer.start_from(run)
    saved, mine = load_checkpoint(run)["ema"], trainer.net.state_dict()
    assert torch.equal(mine["heads.0.filter.weight"], saved["heads.1.filter.weight"])
    assert torch.equal(mine["first.weight_hh"], saved["first.weight_hh"])
    assert trainer.lineage == [{"name": "tiny", "batch": 4, "seed": 0, "steps": 4}]
    tiny["network"]["hidden"] = 20
    with pytest.raises(UsageError, match="do not fit"):
        Trainer(parse_config(tiny, "tiny.yaml"), corpus, run.parent / "other").start_from(run)


@pytest.mark.parametrize("name", sorted(p.name for p in CONFIGS.glob("*.yaml")))
def test_shipped_configs_are_valid(name: str) -> None:
    config = load_config(CONFIGS / name)
    assert f"{config.name}.yaml" == name and config.description


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 3}, "stepz is not known"),
        ({"network": {"hiden": 3}}, "network.hiden is not known"),
        ({"steps": "many"}, "steps is 'many' but must be a number"),
        ({"steps": 1.5}, "must be a whole number"),
        ({"batch": 1}, "batch is 1"),
        ({"lookahead_frames": 1}, "lookahead_frames is 1"),
        ({"losses": {"magic": {}}}, "losses.magic"),
        ({"mixing": {"reverb_chance": 3}}, "mixing.reverb_chance"),
        ({"mixing": 7}, "mixing must be a mapping"),
    ],
)
def test_bad_configs_get_one_sentence(tiny: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_config(tiny | change, "tiny.yaml")
    assert "\n" not in str(caught.value)


def test_unreadable_configs_and_checkpoints_get_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(UsageError, match="is not YAML"):
        load_config(tmp_path / "bad.yaml")
    with pytest.raises(UsageError, match="no checkpoint"):
        load_checkpoint(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"junk")
    with pytest.raises(RtganError, match="cannot be read"):
        load_checkpoint(tmp_path)
