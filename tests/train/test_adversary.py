"""Adversarial training: who moves in which step, and that both sides learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rtgan.errors import UsageError
from rtgan.train.adversary import Adversary, AdversarySettings
from rtgan.train.discriminators import Discriminators
from rtgan.train.loop import Trainer, parse_config


def _frozen(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def _unmoved(net: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def _trainer(tiny: dict[str, Any], adversary: dict[str, Any], corpus: Any, folder: Any) -> Trainer:
    return Trainer(parse_config(tiny | {"adversary": adversary}, "tiny.yaml"), corpus, folder)


@pytest.mark.parametrize("balance", [False, True])
def test_a_step_of_the_generator_leaves_the_discriminators_and_the_reverse(
    tiny: dict[str, Any], adversary: dict[str, Any], corpus: Any, tmp_path: Any, balance: bool
) -> None:
    adversary |= {"start_step": 0, "lead_steps": 0, "every_steps": 2}
    trainer = _trainer(tiny | {"balance": balance}, adversary, corpus, tmp_path)
    assert trainer.adversary is not None
    rival = trainer.adversary.net
    noisy = torch.randn(4, 14400, generator=torch.Generator().manual_seed(0)) * 0.1
    trainer.step = 1  # the discriminators learn in even steps
    before, rival_before = _frozen(trainer.net), _frozen(rival)
    figures = trainer.train_step(noisy, noisy * 0.5)
    assert {"adversarial", "feature"} <= set(figures) and "discriminators" not in figures
    assert not _unmoved(trainer.net, before) and _unmoved(rival, rival_before)
    assert all(p.grad is None for p in rival.parameters())

    before = _frozen(trainer.net)
    estimate, target, _ = trainer.estimate(noisy, noisy * 0.5)
    after_forward = _frozen(trainer.net)  # normalisation counts what it has seen
    gradients = {name: p.grad.clone() for name, p in trainer.net.named_parameters() if p.grad is not None}
    trainer.adversary.step(estimate, target, 1.0, lambda gradients: None)
    assert _unmoved(trainer.net, after_forward) and not _unmoved(rival, rival_before)
    for name, parameter in trainer.net.named_parameters():
        assert name not in gradients or torch.equal(parameter.grad, gradients[name])


def test_the_adversary_moves_the_generator(
    tiny: dict[str, Any], adversary: dict[str, Any], corpus: Any, tmp_path: Any
) -> None:
    # both start with the same weights and see the same sounds: only the adversary can make a difference
    adversary |= {"start_step": 0, "lead_steps": 0}
    alone = Trainer(parse_config(tiny, "tiny.yaml"), corpus, tmp_path / "a")
    rivalled = _trainer(tiny, adversary, corpus, tmp_path / "b")
    rivalled.net.load_state_dict(alone.net.state_dict())
    noisy = torch.randn(4, 14400, generator=torch.Generator().manual_seed(0)) * 0.1
    alone.train_step(noisy, noisy * 0.5)
    rivalled.train_step(noisy, noisy * 0.5)
    assert not _unmoved(rivalled.net, alone.net.state_dict())


@pytest.mark.parametrize("loss", ["hinge", "least-squares"])
@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "stft", "n_fft": 256, "channels": 4},
        {"kind": "stft", "n_fft": 256, "channels": 4, "input": "magnitude", "norm": "spectral"},
        {"kind": "period", "period": 5, "channels": 4},
        {"kind": "scale", "factor": 2, "channels": 4},
    ],
)
def test_discriminators_learn_to_tell_noise_from_tones(entry: dict[str, Any], loss: str) -> None:
    torch.manual_seed(0)
    settings = AdversarySettings(loss=loss, learning_rate=5e-3, discriminators=[entry])
    rival = Adversary(settings, 48000, torch.device("cpu"), 10.0)
    time = torch.arange(4800) / 48000
    tones = torch.sin(2 * torch.pi * torch.tensor([[300.0], [700.0], [1200.0]]) * time) * 1.4
    for _ in range(25):
        rival.step(torch.randn(3, 4800), tones, 1.0, lambda gradients: None)
    with torch.no_grad():
        (real,), _ = rival.net(tones)
        (fake,), _ = rival.net(torch.randn(3, 4800))
    assert float(real.mean()) > float(fake.mean()) + 0.3


def test_the_generator_is_pulled_towards_what_passes_for_real(adversary: dict[str, Any]) -> None:
    torch.manual_seed(0)
    rival = Adversary(AdversarySettings(**adversary | {"feature_weight": 0.0}), 48000, torch.device("cpu"))
    estimate = torch.randn(2, 4800, requires_grad=True)
    terms = rival.terms(estimate, torch.randn(2, 4800))
    assert set(terms) == {"adversarial"}
    terms["adversarial"].backward()
    assert estimate.grad is not None and float(estimate.grad.norm()) > 0
    assert all(p.grad is None and p.requires_grad for p in rival.net.parameters())


def test_pieces_depend_on_the_step_alone(adversary: dict[str, Any]) -> None:
    rival = Adversary(AdversarySettings(**adversary), 48000, torch.device("cpu"))
    pieces = [rival.piece(14400, step) for step in range(20)]
    assert pieces == [rival.piece(14400, step) for step in range(20)]
    assert all(p.stop - p.start == 4800 and p.start >= 0 and p.stop <= 14400 for p in pieces)
    assert len({p.start for p in pieces}) > 10
    assert rival.piece(1000, 0) == slice(None)


def test_it_begins_when_it_is_told_to(adversary: dict[str, Any]) -> None:
    settings = AdversarySettings(**adversary | {"start_step": 10, "lead_steps": 4, "every_steps": 2})
    rival = Adversary(settings, 48000, torch.device("cpu"))
    assert [s for s in range(12) if rival.speaks(s)] == [10, 11]
    assert [s for s in range(12) if rival.learns(s)] == [6, 8, 10]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "stft", "n_fft": 30}, "n_fft must be"),
        ({"kind": "stft", "input": "phase"}, "input is 'phase'"),
        ({"kind": "period", "period": 1}, "period is 1"),
        ({"kind": "scale", "channels": 6}, "multiple of 4"),
        ({"kind": "scale", "colour": 6}, "wrong setting"),
        ("stft", "kind is None"),
    ],
)
def test_bad_discriminators_get_one_sentence(entry: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Discriminators([entry])


def test_discriminators_of_another_run_are_taken_if_they_are_of_one_make(adversary: dict[str, Any]) -> None:
    def rival(**other: Any) -> Adversary:
        return Adversary(AdversarySettings(**adversary | other), 48000, torch.device("cpu"))

    torch.manual_seed(1)
    earlier, later = rival(), rival()
    assert not _unmoved(later.net, _frozen(earlier.net))
    later.take_over(earlier.state())
    assert _unmoved(later.net, _frozen(earlier.net))
    other = rival(discriminators=[{"kind": "period", "period": 3, "channels": 4}])
    before = _frozen(other.net)
    other.take_over(earlier.state())
    assert _unmoved(other.net, before)
