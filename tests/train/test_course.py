"""Runs of nets that one process feeds."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from rtgan.errors import RtganError, UsageError
from rtgan.train.adversary import AdversarySettings
from rtgan.train.checkpoint import BEST, load_checkpoint
from rtgan.train.commands import add_train_arguments, run_train
from rtgan.train.course import Course, CourseConfig, Lesson, parse_course


@dataclasses.dataclass(frozen=True)
class ToyConfig(CourseConfig):
    TASK: ClassVar[str] = "toy"
    size: int = 4


class Toy(Course[ToyConfig]):
    """Learns a gain of two, by ear and by discriminators; what it is shown can be spoilt."""

    METRIC = "error"
    MORE_IS_BETTER = False

    def __init__(self, config: ToyConfig, out: Path) -> None:
        torch.manual_seed(config.seed)
        self.spoilt = False
        super().__init__(config, nn.Conv1d(1, 1, 3, padding=1, bias=False), out, 8000)

    def lesson(self, generator: torch.Generator) -> Lesson:
        sound = torch.randn(2, 1024, generator=generator)
        if self.spoilt:
            sound = sound * float("nan")
        return Lesson({}, {}, self.net(sound[:, None])[:, 0], 2 * sound)

    def develop(self) -> dict[str, float]:
        with self.as_averaged() as net:
            return {"error": float((net.weight[0, 0] - torch.tensor([0.0, 2.0, 0.0])).abs().sum())}


CONFIG = ToyConfig(
    "toy", steps=60, learning_rate=0.2, ema=0.5, develop_every=20, losses={"waveform": {"weight": 1.0}},
    adversary=AdversarySettings(start_step=50, lead_steps=5, every_steps=2, segment_seconds=0.05, weight=0.1,
                                discriminators=[{"kind": "stft", "n_fft": 128, "channels": 2}]),
)  # fmt: skip


def test_a_run_learns_keeps_its_best_and_resumes_to_the_bit(tmp_path: Path) -> None:
    whole = Toy(CONFIG, tmp_path / "whole")
    before = whole.develop()["error"]
    assert whole.run(progress=False) == 60
    assert whole.develop()["error"] < 0.3 * before
    best = load_checkpoint(tmp_path / "whole" / BEST)
    assert best["best"] == whole.best and best["step"] % 20 == 0
    half = Toy(CONFIG, tmp_path / "half")
    while half.step < 53:
        half.train_step()
    half.save()
    again = Toy(CONFIG, tmp_path / "half")
    again.restore()
    again.run(progress=False)
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[name])
        assert torch.equal(whole.averaged[name], again.averaged[name])


def test_weights_of_another_run_are_where_one_can_begin(tmp_path: Path) -> None:
    first = Toy(CONFIG, tmp_path / "first")
    first.run(progress=False)
    second = Toy(dataclasses.replace(CONFIG, seed=9), tmp_path / "second")
    second.start_from(tmp_path / "first")
    assert second.step == 0 and second.develop() == first.develop()
    content = load_checkpoint(tmp_path / "first")
    torch.save({**content, "ema": {"weight": torch.zeros(1, 1, 5)}}, tmp_path / "first" / "checkpoint.pt")
    with pytest.raises(UsageError, match="no weights of the config's shapes"):
        second.start_from(tmp_path / "first")
    content["config"]["task"] = "other"
    torch.save(content, tmp_path / "first" / "checkpoint.pt")
    with pytest.raises(UsageError, match="of another task"):
        second.start_from(tmp_path / "first")


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    toy = Toy(CONFIG, tmp_path)
    toy.train_step()
    toy.save()
    toy.spoilt = True
    with pytest.raises(RtganError, match="not finite at step 1"):
        toy.run(progress=False)
    assert load_checkpoint(tmp_path)["step"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "other"}, "task is 'other' but must be toy"),
        ({"sizes": 3}, "toy.yaml: sizes is not known"),
        ({"size": "big"}, "toy.yaml: size is 'big' but must be a number"),
        ({"steps": 0}, "steps"),
        ({"ema": 1.5}, "ema"),
        ({"losses": {"magic": {}}}, "losses.magic"),
        ({"adversary": {"voice": 1}}, "toy.yaml: adversary.voice is not known"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(change: dict[str, Any], words: str) -> None:
    assert parse_course(ToyConfig, CONFIG.as_dict(), "toy.yaml") == CONFIG
    with pytest.raises(UsageError, match=words):
        parse_course(ToyConfig, CONFIG.as_dict() | change, "toy.yaml")


def test_what_only_the_denoisers_runs_know_is_refused(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_train_arguments(parser)
    with pytest.raises(UsageError, match="one process on the CPU"):
        run_train(parser.parse_args(["tones", "--data", str(tmp_path), "--workers", "2"]))
    with pytest.raises(UsageError, match="no checkpoint to resume"):
        run_train(parser.parse_args(["tones", "--data", str(tmp_path), "--out", str(tmp_path / "x"), "--resume"]))
