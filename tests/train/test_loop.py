"""The loop: it learns, resumes to the bit, and stops with a sentence when something is wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from rtgan.errors import RtganError, UsageError
from rtgan.train.export import export_run
from rtgan.train.loop import BEST, CHECKPOINT, Trainer, _Watch, enhance, load_checkpoint, load_config, parse_config
from rtgan.train.mixing import Mixer, MixSettings
from rtgan.train.networks import Denoiser
from rtgan.train.tasks import task_of_config

CONFIGS = Path(__file__).parents[2] / "rtgan" / "train" / "configs"


def _batch(trainer: Trainer) -> tuple[torch.Tensor, torch.Tensor]:
    mixes = [trainer.mixer(number) for number in range(4)]
    noisy = torch.stack([torch.from_numpy(m.noisy) for m in mixes])
    return noisy, torch.stack([torch.from_numpy(m.clean) for m in mixes])


def _same(a: Any, b: Any) -> bool:
    """Whether two checkpoints hold the same bits, whatever their nesting."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def test_a_tiny_set_is_learned(tiny: dict[str, Any], corpus: Any, tmp_path: Path) -> None:
    tiny |= {"steps": 60, "learning_rate": 0.02, "decay_share": 0.5, "losses": {"compressed": {"n_fft": [256]}}}
    trainer = Trainer(parse_config(tiny, "tiny.yaml"), corpus, tmp_path)
    noisy, clean = _batch(trainer)
    losses = [trainer.train_step(noisy, clean)["loss"] for _ in range(60)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("balance", [False, True])
def test_a_resumed_run_equals_one_that_was_never_stopped(
    tiny: dict[str, Any], adversary: dict[str, Any], corpus: Any, tmp_path: Path, balance: bool
) -> None:
    tiny["losses"]["voice"] = {"weight": 0.1}
    tiny |= {"adversary": adversary, "balance": balance, "develop": {"every_steps": 2, "mixes": 1, "metric": "loss"}}
    config = parse_config(tiny, "tiny.yaml")
    Trainer(config, corpus, tmp_path / "whole").run(progress=False)
    stopped = Trainer(config, corpus, tmp_path / "parts")
    assert stopped.run(budget_minutes=1e-9, progress=False) == 1
    for _ in range(2):
        resumed = Trainer(config, corpus, tmp_path / "parts")
        resumed.restore()
        done = resumed.run(budget_minutes=1e-9 if resumed.step == 1 else None, progress=False)
    assert done == config.steps
    a, b = load_checkpoint(tmp_path / "whole"), load_checkpoint(tmp_path / "parts")
    assert a.pop("seconds") != b.pop("seconds")
    assert a["adversary"] is not None and a["develop"] is not None
    different = [key for key in a if not _same(a[key], b[key])]
    assert different == []


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(
    tiny: dict[str, Any], corpus: Any, tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config(tiny | {"checkpoint_every": 2}, "tiny.yaml")
    killed = Trainer(config, corpus, tmp_path / "killed")
    step = killed.train_step

    def until_three(noisy: torch.Tensor, clean: torch.Tensor) -> dict[str, float]:
        if killed.step == 3:
            raise MemoryError  # nothing is written on the way out
        return step(noisy, clean)

    monkeypatch.setattr(killed, "train_step", until_three)
    with pytest.raises(MemoryError):
        killed.run(progress=False)
    resumed = Trainer(config, corpus, tmp_path / "killed")
    resumed.restore()
    assert resumed.step == 2 and resumed.run(progress=False) == 4
    a, b = load_checkpoint(run), load_checkpoint(tmp_path / "killed")
    assert _same(a["net"], b["net"]) and _same(a["optimiser"], b["optimiser"])


def test_a_polite_kill_ends_after_the_step(config: Any, corpus: Any, tmp_path: Path) -> None:
    trainer = Trainer(config, corpus, tmp_path)
    step = trainer.train_step

    def killed_in_it(noisy: torch.Tensor, clean: torch.Tensor) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(noisy, clean)

    trainer.train_step = killed_in_it  # type: ignore[method-assign]
    assert trainer.run(progress=False) == 1
    assert load_checkpoint(tmp_path)["step"] == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_workers_do_not_change_the_result(config: Any, corpus: Any, tmp_path: Path, run: Path) -> None:
    Trainer(config, corpus, tmp_path / "other").run(progress=False, workers=1)
    a, b = load_checkpoint(run), load_checkpoint(tmp_path / "other")
    assert _same(a["net"], b["net"])


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
    assert all(bool(torch.isfinite(v).all()) for v in trainer.averaged.values())


def test_a_loss_that_grows_without_end_stops(tiny: dict[str, Any], corpus: Any, tmp_path: Path) -> None:
    tiny |= {"losses": {"waveform": {}}, "steps": 400}
    trainer = Trainer(parse_config(tiny, "tiny.yaml"), corpus, tmp_path)
    noisy, clean = _batch(trainer)
    for _ in range(60):
        trainer.train_step(noisy, clean)
    trainer.train_step(noisy, clean * 1e4)  # one bad batch is no divergence
    with pytest.raises(RtganError, match=r"diverges .* at step \d\d: training stopped"):
        for _ in range(38):
            trainer.train_step(noisy, clean * 1e4)


def test_a_gradient_that_stays_not_finite_stops() -> None:
    watch = _Watch()
    said = [watch.trouble(1.0, 1.0, float("inf")) for _ in range(20)]
    assert said[:19] == [None] * 19 and said[19] == "The gradient was not finite for 20 steps"


def test_the_average_follows_weights_and_takes_counters_as_they_are(config: Any, corpus: Any, tmp_path: Path) -> None:
    trainer = Trainer(dataclasses.replace(config, ema=0.5), corpus, tmp_path)
    before = {name: value.clone() for name, value in trainer.averaged.items()}
    trainer.step = 100
    trainer.train_step(*_batch(trainer))
    now = trainer.net.state_dict()
    counters = [name for name in now if not now[name].is_floating_point()]
    assert counters
    for name, value in trainer.averaged.items():
        if name in counters:
            assert torch.equal(value, now[name]) and int(value) == 1
        else:
            assert torch.allclose(value, (before[name] + now[name]) / 2, atol=1e-6)


def test_enhanced_signals_are_aligned_with_their_input(config: Any) -> None:
    noisy = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0))

    class Nothing(torch.nn.Module):
        def forward(self, spectrum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return spectrum, spectrum[:, 0, :, 0]

    assert torch.allclose(enhance(Nothing(), config.stft, noisy), noisy, atol=1e-5)


def test_held_out_mixes_choose_the_best_weights_and_the_end(tiny: dict[str, Any], corpus: Any, tmp_path: Path) -> None:
    tiny |= {"steps": 40, "develop": {"every_steps": 2, "mixes": 2, "metric": "loss", "patience": 2}}
    tiny |= {"learning_rate": 1e-9}  # nothing is learned, so that looks soon bring nothing new
    trainer = Trainer(parse_config(tiny, "tiny.yaml"), corpus, tmp_path)
    trainer.best = {"loss": -1.0}
    assert trainer.run(progress=False) == 4
    assert not (tmp_path / BEST).exists()
    resumed = Trainer(trainer.config, corpus, tmp_path)
    resumed.restore()
    assert resumed.run(progress=False) == 4
    resumed.best = None
    figures = resumed.develop()
    best = load_checkpoint(tmp_path / BEST)
    assert best["develop"] == figures and best["step"] == 4 and resumed.without_best == 0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "develop" in row] == [2, 4]


def test_tensorboard_gets_figures_sounds_and_pictures(tiny: dict[str, Any], corpus: Any, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tiny |= {"steps": 20, "mixing": {"seconds": 0.15}, "batch": 1, "develop": {"every_steps": 20, "mixes": 1}}
    Trainer(parse_config(tiny, "tiny.yaml"), corpus, tmp_path).run(progress=False, tensorboard=True)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()
    assert {"train/loss", "develop/si_sdr_db"} <= set(tags["scalars"])
    assert "enhanced/0" in tags["audio"] and "noisy/0" in tags["images"]


def test_weights_of_another_run_are_taken_where_they_fit(tiny: dict[str, Any], corpus: Any, run: Path) -> None:
    trainer = Trainer(parse_config(tiny, "tiny.yaml"), corpus, run.parent / "tuned")
    taken, whole = trainer.start_from(run)
    assert taken == whole and _same(dict(trainer.net.state_dict()), load_checkpoint(run)["ema"])
    assert trainer.lineage == [{"name": "tiny", "batch": 4, "seed": 0, "steps": 4}]
    tiny["network"]["blocks"] = 2
    deeper = Trainer(parse_config(tiny, "tiny.yaml"), corpus, run.parent / "deeper")
    taken, whole = deeper.start_from(run / CHECKPOINT)
    assert 0 < taken < whole
    spectrum = trainer.config.stft.analyse(torch.randn(2, 9600))
    with torch.no_grad():
        made, expected = (net.eval()(spectrum)[0] for net in (deeper.net, trainer.net))
    assert torch.equal(made, expected), "what is new does nothing yet"
    deeper.save()
    with pytest.raises(UsageError, match="more blocks"):
        trainer.start_from(run.parent / "deeper")


def test_an_exported_model_is_trained_on(tiny: dict[str, Any], corpus: Any, run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "net.ts")
    tiny["network"]["hop_samples"] //= 2
    tiny["network"]["phases"] = 2
    tiny["seed"] = 5
    trainer = Trainer(parse_config(tiny, "tiny.yaml"), corpus, tmp_path / "tuned")
    taken, whole = trainer.start_from(tmp_path / "net.ts")
    assert taken == whole
    assert [entry["name"] for entry in trainer.lineage] == ["tiny"]
    before = Denoiser(trainer.config.network)
    before.load_state_dict(load_checkpoint(run)["ema"])
    noisy = torch.randn(4, 9600) * 0.1
    spectrum = trainer.config.stft.analyse(noisy)
    with torch.no_grad():
        expected = before.eval()(spectrum)[0]
        assert torch.allclose(trainer.net.eval()(spectrum)[0], expected, atol=1e-4 * float(expected.abs().max()))
        example = torch.stack([torch.from_numpy(Mixer(corpus, trainer.config.mixing, 5)(k).noisy) for k in range(8)])
        spectrum = trainer.config.stft.analyse(example)
        calm, training = trainer.net.eval()(spectrum)[0], trainer.net.train()(spectrum)[0]
        assert torch.allclose(calm, training, atol=1e-2 * float(calm.abs().max())), "and in training it does the same"
    tiny["network"]["blocks"] = 2
    deeper = Trainer(parse_config(tiny, "tiny.yaml"), corpus, tmp_path / "deeper")
    taken, whole = deeper.start_from(tmp_path / "net.ts")
    assert 0 < taken < whole
    with torch.no_grad():
        made = deeper.net.eval()(deeper.config.stft.analyse(noisy))[0]
    assert torch.allclose(made, expected, atol=1e-4 * float(expected.abs().max()))
    tiny["network"]["wide"] *= 2
    with pytest.raises(UsageError, match="do not fit"):
        Trainer(parse_config(tiny, "tiny.yaml"), corpus, tmp_path / "other").start_from(tmp_path / "net.ts")


def test_a_checkpoint_of_another_net_is_not_resumed(tiny: dict[str, Any], corpus: Any, run: Path) -> None:
    tiny["network"]["blocks"] = 2
    with pytest.raises(UsageError, match="network differs"):
        Trainer(parse_config(tiny, "tiny.yaml"), corpus, run).restore()


def test_half_precision_is_refused_where_it_does_not_exist(config: Any, corpus: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="precision bf16 is for CUDA"):
        Trainer(dataclasses.replace(config, precision="bf16"), corpus, tmp_path)


@pytest.mark.parametrize("name", sorted(p.name for p in CONFIGS.glob("*.yaml")))
def test_shipped_configs_are_valid(name: str) -> None:
    path = CONFIGS / name
    task = task_of_config(path)
    config = task.load(path) if task is not None else load_config(path)
    assert f"{config.name}.yaml" == name and config.description


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 3}, "stepz is not known"),
        ({"network": {"hiden": 3}}, "network.hiden is not known"),
        ({"steps": "many"}, "steps is 'many' but must be a number"),
        ({"steps": 1.5}, "must be a whole number"),
        ({"batch": 0}, "batch"),
        ({"balance": 3}, "balance is 3 but must be true or false"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"losses": {"magic": {}}}, "losses.magic"),
        ({"losses": {"voice": {}}}, "at least one term of the estimate"),
        ({"losses": {"stft": {"weight": -1}}}, "losses.stft.weight is -1"),
        ({"mixing": {"reverb_chance": 3}}, "mixing.reverb_chance"),
        ({"mixing": 7}, "mixing must be a mapping"),
        ({"develop": {"metric": "taste"}}, "develop.metric is 'taste'"),
        ({"adversary": {"loss": "square"}}, "adversary.loss is 'square'"),
        ({"adversary": {"discriminators": [{"kind": "ear"}]}}, "kind is 'ear'"),
        ({"adversary": {"discriminators": [{"kind": "stft", "norm": "batch"}]}}, "norm is 'batch'"),
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


def test_steps_are_fed_from_the_mixer_by_their_number(config: Any, corpus: Any, tmp_path: Path) -> None:
    config = dataclasses.replace(config, mixing=MixSettings(seconds=0.3), steps=3)
    trainer = Trainer(config, corpus, tmp_path)
    trainer.step = 2
    ((noisy, _),) = trainer._loader(0)
    assert all(torch.equal(noisy[i], torch.from_numpy(trainer.mixer(8 + i).noisy)) for i in range(4))
